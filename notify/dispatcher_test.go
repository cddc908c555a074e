package notify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

// outbox is the real store, with delivery failures noted.
type outbox struct {
	*store.Store
	mu     sync.Mutex
	failed []string
}

// givenUp returns the ids of events that were given up.
func (o *outbox) givenUp() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.failed)
}

func (o *outbox) Fail(ctx context.Context, q notify.Queued, at time.Time, reason string) error {
	o.mu.Lock()
	o.failed = append(o.failed, q.Event.ID)
	o.mu.Unlock()
	inc := monitor.DeliveryFailed(q, reason, at, monitor.Audience{})
	return o.FailDelivery(ctx, q, reason, &inc)
}

// target is a channel that does as it is told, and notes when it was tried.
type target struct {
	mu    sync.Mutex
	start time.Time
	tries map[string][]time.Duration
	do    func(e notify.Event, try int) error
}

func newTarget(do func(e notify.Event, try int) error) *target {
	return &target{start: time.Now(), tries: map[string][]time.Duration{}, do: do}
}

func (t *target) Notify(ctx context.Context, e notify.Event) error {
	t.mu.Lock()
	t.tries[e.ID] = append(t.tries[e.ID], time.Since(t.start).Round(time.Millisecond))
	n := len(t.tries[e.ID])
	t.mu.Unlock()
	return t.do(e, n)
}

func (t *target) of(id string) []time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.tries[id])
}

func open(t *testing.T) *outbox {
	t.Helper()
	s, err := store.Open(context.Background(), filepath.Join(t.TempDir(), "s.db"), store.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return &outbox{Store: s}
}

// put files events for channels through an incident, as the engine does.
func put(t *testing.T, o *outbox, id string, channels ...string) {
	t.Helper()
	inc := monitor.Incident{ID: "i-" + id, State: "open", OpenedAt: time.Now()}
	for _, c := range channels {
		inc.Deliveries = append(inc.Deliveries, notify.Delivery{Address: notify.Address{Channel: c}, Event: notify.Event{ID: id, Type: notify.Test, Data: []byte("{}")}})
	}
	if err := o.Record(context.Background(), []monitor.Incident{inc}, nil); err != nil {
		t.Fatal(err)
	}
}

var quiet = slog.New(slog.DiscardHandler)

func TestRetrySchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t)
		defer o.Close()
		dead := newTarget(func(notify.Event, int) error { return errors.New("connection refused") })
		alive := newTarget(func(notify.Event, int) error { return nil })
		d := notify.NewDispatcher(o, []notify.Channel{{Name: "dead", Notifier: dead}, {Name: "alive", Notifier: alive}}, quiet)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { d.Run(ctx) })
		time.Sleep(time.Second)
		put(t, o, "a", "dead", "alive")
		d.Wake()
		time.Sleep(30 * time.Minute)
		tries := dead.of("a")
		var gaps []time.Duration
		for i := 1; i < len(tries); i++ {
			gaps = append(gaps, (tries[i] - tries[i-1]).Round(time.Second))
		}
		if len(tries) < 12 || tries[4]-tries[0] > 15*time.Second {
			t.Fatalf("tries at %v: the first five must fall within 15 s", tries)
		}
		want := []time.Duration{1, 2, 4, 6, 15, 30, 60, 120, 240, 300, 300}
		for i, w := range want {
			if gaps[i] != w*time.Second {
				t.Errorf("waits %v, want %v seconds", gaps, want)
				break
			}
		}
		if got := alive.of("a"); len(got) != 1 || got[0] > 1100*time.Millisecond {
			t.Errorf("the living channel was tried at %v", got)
		}
		// It is given up after three days, once, and said elsewhere.
		time.Sleep(73 * time.Hour)
		n := len(dead.of("a"))
		time.Sleep(time.Hour)
		if gone := o.givenUp(); len(gone) != 1 || len(dead.of("a")) != n {
			t.Errorf("given up %d times; tried %d times more", len(gone), len(dead.of("a"))-n)
		}
		list, err := o.Incidents(ctx, store.Filter{Kind: monitor.KindDeliveryFailed})
		if err != nil || len(list) != 1 || !strings.Contains(list[0].Summary, "dead") {
			t.Errorf("%+v, %v", list, err)
		}
		cancel()
		wg.Wait()
	})
}

func TestRetryAfterHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t)
		defer o.Close()
		n := newTarget(func(e notify.Event, try int) error {
			if e.ID == "slow" && try == 1 {
				return &notify.RetryError{After: 10 * time.Minute, Err: errors.New("429")}
			}
			return nil
		})
		d := notify.NewDispatcher(o, []notify.Channel{{Name: "c", Notifier: n}}, quiet)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		put(t, o, "slow", "c")
		wg.Go(func() { d.Run(ctx) })
		time.Sleep(time.Second)
		put(t, o, "quick", "c")
		d.Wake()
		time.Sleep(time.Hour)
		if got := n.of("slow"); len(got) != 2 || got[1] != 10*time.Minute {
			t.Errorf("slow tried at %v", got)
		}
		if got := n.of("quick"); len(got) != 1 || got[0] > 2*time.Second {
			t.Errorf("quick tried at %v", got)
		}
		if left, _ := o.PendingDeliveries(ctx); left != 0 {
			t.Errorf("%d deliveries wait", left)
		}
		cancel()
		wg.Wait()
	})
}

// TestHangingHoldsUpNoOther: ten deliveries hang until they are cut off, and
// an eleventh goes through at once.
func TestHangingHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t)
		defer o.Close()
		n := newTarget(func(e notify.Event, try int) error {
			if e.ID != "quick" {
				time.Sleep(20 * time.Second)
				return errors.New("timeout")
			}
			return nil
		})
		for i := range 3 {
			put(t, o, fmt.Sprintf("hangs-%d", i), "c")
		}
		put(t, o, "quick", "c")
		d := notify.NewDispatcher(o, []notify.Channel{{Name: "c", Notifier: n}}, quiet)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { d.Run(ctx) })
		time.Sleep(time.Minute)
		if got := n.of("quick"); len(got) != 1 || got[0] > 2*time.Second {
			t.Errorf("tried at %v", got)
		}
		cancel()
		wg.Wait()
	})
}

// TestFaultOfASender: what breaks the library that sends it is tried again like what is refused, and
// everything else is told.
func TestFaultOfASender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		o := open(t)
		defer o.Close()
		n := newTarget(func(e notify.Event, try int) error {
			switch {
			case e.ID == "breaks" && try == 1:
				panic("cannot send to https://user:sesame@chat.example")
			case e.ID == "breaks" && try == 2:
				return []error{}[try]
			}
			return nil
		})
		put(t, o, "breaks", "c")
		put(t, o, "sound", "c")
		d := notify.NewDispatcher(o, []notify.Channel{{Name: "c", Notifier: n}}, slog.New(slog.NewTextHandler(&said, nil)))
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { d.Run(ctx) })
		time.Sleep(time.Minute)
		if got := n.of("breaks"); len(got) != 3 {
			t.Errorf("tried at %v", got)
		}
		if got := n.of("sound"); len(got) != 1 {
			t.Errorf("told at %v", got)
		}
		cancel()
		wg.Wait()
		// Where it was is said, and no secret that the text of a panic may hold.
		if text := said.String(); strings.Contains(text, "sesame") || !strings.Contains(text, "index out of range") || !strings.Contains(text, "dispatcher_test.go") {
			t.Error(text)
		}
	})
}

// TestSlowRefusals: the first five tries fall within 15 s also where each takes
// a while to be refused.
func TestSlowRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t)
		defer o.Close()
		n := newTarget(func(notify.Event, int) error { time.Sleep(900 * time.Millisecond); return errors.New("503") })
		put(t, o, "a", "c")
		d := notify.NewDispatcher(o, []notify.Channel{{Name: "c", Notifier: n}}, quiet)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { d.Run(ctx) })
		time.Sleep(15 * time.Second)
		if got := n.of("a"); len(got) < 5 {
			t.Errorf("tried at %v", got)
		}
		cancel()
		wg.Wait()
	})
}

// fullDisk cannot book outcomes for a while.
type fullDisk struct {
	*outbox
	mu   sync.Mutex
	full bool
}

func (f *fullDisk) isFull() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.full
}

func (f *fullDisk) set(full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full = full
}

func (f *fullDisk) Delivered(ctx context.Context, q notify.Queued, at time.Time) error {
	if f.isFull() {
		return errors.New("disk full")
	}
	return f.outbox.Delivered(ctx, q, at)
}

func (f *fullDisk) Retry(ctx context.Context, q notify.Queued, due time.Time, reason string) error {
	if f.isFull() {
		return errors.New("disk full")
	}
	return f.outbox.Retry(ctx, q, due, reason)
}

// TestFullDisk: what was accepted is not sent again because it could not be
// booked, and what waits behind it is sent.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &fullDisk{outbox: open(t), full: true}
		defer o.Close()
		n := newTarget(func(notify.Event, int) error { return nil })
		for i := range 20 {
			put(t, o.outbox, fmt.Sprint(i), "c")
		}
		d := notify.NewDispatcher(o, []notify.Channel{{Name: "c", Notifier: n}}, quiet)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { d.Run(ctx) })
		time.Sleep(time.Hour)
		for i := range 20 {
			if got := n.of(fmt.Sprint(i)); len(got) != 1 {
				t.Errorf("event %d was sent %d times", i, len(got))
			}
		}
		o.set(false)
		time.Sleep(10 * time.Second)
		if left, _ := o.PendingDeliveries(ctx); left != 0 {
			t.Errorf("%d deliveries wait", left)
		}
		cancel()
		wg.Wait()
	})
}

// TestFailureIsTold: giving a delivery up puts an event into the lane of
// another channel, which sleeps or has ended by then.
func TestFailureIsTold(t *testing.T) {
	for _, drain := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			o := &telling{outbox: open(t)}
			defer o.Close()
			dead := newTarget(func(notify.Event, int) error {
				time.Sleep(time.Second)
				return fmt.Errorf("%w: gone", notify.ErrRefused)
			})
			alive := newTarget(func(notify.Event, int) error { return nil })
			put(t, o.outbox, "a", "dead")
			d := notify.NewDispatcher(o, []notify.Channel{{Name: "dead", Notifier: dead}, {Name: "alive", Notifier: alive}}, quiet)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if drain {
				d.Drain(ctx)
			} else {
				d.Run(ctx)
			}
			if got := alive.of("told"); len(got) != 1 {
				t.Errorf("drain %v: the other channel was told %d times", drain, len(got))
			}
		})
	}
}

type telling struct{ *outbox }

func (o *telling) Fail(ctx context.Context, q notify.Queued, at time.Time, reason string) error {
	inc := monitor.Incident{ID: "i-1", Deliveries: []notify.Delivery{{Address: notify.Address{Channel: "alive"}, Event: notify.Event{ID: "told", Data: []byte("{}")}}}}
	return o.FailDelivery(ctx, q, reason, &inc)
}

// TestSwitchedOff: a delivery that is older than three days is not given up at
// the first try.
func TestSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t)
		defer o.Close()
		put(t, o, "a", "c")
		time.Sleep(96 * time.Hour)
		n := newTarget(func(_ notify.Event, try int) error {
			if try < 3 {
				return errors.New("no network yet")
			}
			return nil
		})
		d := notify.NewDispatcher(o, []notify.Channel{{Name: "c", Notifier: n}}, quiet)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		d.Drain(ctx)
		if left, _ := o.PendingDeliveries(context.Background()); left != 0 || len(o.givenUp()) != 0 {
			t.Errorf("%d wait, %v given up", left, o.givenUp())
		}
	})
}

// TestIdleCostsNothing: with nothing to deliver nothing runs, however long.
func TestIdleCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &countingOutbox{outbox: open(t)}
		defer o.Close()
		d := notify.NewDispatcher(o, []notify.Channel{{Name: "c", Notifier: newTarget(nil)}}, quiet)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { d.Run(ctx) })
		time.Sleep(30 * 24 * time.Hour)
		cancel()
		wg.Wait()
		if o.reads != 1 {
			t.Errorf("the outbox was read %d times in an idle month", o.reads)
		}
	})
}

type countingOutbox struct {
	*outbox
	reads int
}

func (c *countingOutbox) Rolled(ctx context.Context, channel string, now time.Time) (notify.Waiting, error) {
	c.reads++
	return c.outbox.Rolled(ctx, channel, now)
}

func TestDrain(t *testing.T) {
	o := open(t)
	defer o.Close()
	n := newTarget(func(e notify.Event, try int) error {
		if e.ID == "e-7" {
			return fmt.Errorf("%w: no", notify.ErrRefused)
		}
		return nil
	})
	for i := range 100 {
		put(t, o, fmt.Sprintf("e-%d", i), "c")
	}
	d := notify.NewDispatcher(o, []notify.Channel{{Name: "c", Notifier: n}}, quiet)
	d.Drain(context.Background())
	if left, _ := o.PendingDeliveries(context.Background()); left != 0 || len(o.givenUp()) != 1 {
		t.Errorf("%d wait, %v failed", left, o.givenUp())
	}
	for i := range 100 {
		if got := n.of(fmt.Sprintf("e-%d", i)); len(got) != 1 {
			t.Errorf("event %d tried %d times", i, len(got))
		}
	}
	if got := d.Counts(); got[[2]string{"c", notify.Delivered}] != 99 || got[[2]string{"c", notify.Failed}] != 1 {
		t.Errorf("counts %v", got)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain text":                      "plain text",
		"a\r\nb":                          `a\x0d\x0ab`,
		"\x1b[2J":                         `\x1b[2J`,
		"\u202egnp.exe":                   `\u202egnp.exe`,
		"a\u200bb":                        `a\u200bb`,
		"\xff":                            `\xff`,
		"\u2028":                          `\u2028`,
		"\u3164\u115f":                    `\u3164\u115f`,
		"\u034f\u180b":                    `\u034f\u180b`,
		"\ufe0f\u2800":                    `\ufe0f\u2800`,
		"\uffff":                          `\uffff`,
		"\U000e0041":                      `\U000e0041`,
		"a\u00a0b":                        `a\u00a0b`,
		"a\u0301\u0301\u0301\u0301\u0301": "a\u0301\u0301\u0301\u0301" + `\u0301`,
		"\u00e4\u00f6 ok":                 "\u00e4\u00f6 ok",
	} {
		if got := notify.Clean(in, 100); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := notify.Clean(strings.Repeat("x", 50), 10); got != "xxxxxxxxxx..." {
		t.Errorf("cut: %q", got)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\r\n\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		defer bounds.Hold(t)()
		got := notify.Clean(s, 200)
		if len(got) > 203 || !utf8.ValidString(got) || strings.IndexFunc(got, func(r rune) bool {
			return unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) && !unicode.Is(unicode.Cn, r) || r == unicode.MaxRune
		}) >= 0 {
			t.Fatalf("%q comes out as %q", s, got)
		}
	})
}

// alone is a channel that must not be tried with two events at a time.
type alone struct {
	flying, most atomic.Int32
}

func (a *alone) OneAtATime() bool { return true }

func (a *alone) Notify(context.Context, notify.Event) error {
	a.most.Store(max(a.most.Load(), a.flying.Add(1)))
	time.Sleep(time.Second)
	a.flying.Add(-1)
	return nil
}

// TestOneAtATime: also through what gives its events links.
func TestOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t)
		defer o.Close()
		c := &alone{}
		for i := range 10 {
			put(t, o, fmt.Sprint("e-", i), "c")
		}
		_, stop := running(t, o, notify.Channel{Name: "c", Notifier: notify.Dress(c, "https://acme.example", nil)})
		time.Sleep(time.Minute)
		stop()
		if n, err := o.PendingDeliveries(context.Background()); n != 0 || err != nil || c.most.Load() != 1 {
			t.Errorf("%d at a time, %d wait, %v", c.most.Load(), n, err)
		}
	})
}

// FuzzRetryAfter: nobody makes a channel wait for longer than a year, or for less than no time.
func FuzzRetryAfter(f *testing.F) {
	for _, text := range []string{"", "1", "-1", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"} {
		f.Add(text, "", "")
		f.Add("", "0", text)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, after, remaining, reset string) {
		defer bounds.Hold(t)()
		header := http.Header{}
		header.Set("Retry-After", after)
		header.Set("X-RateLimit-Remaining", remaining)
		header.Set("X-RateLimit-Reset", reset)
		if wait := notify.RetryAfter(header, now); wait < 0 || wait > 365*24*time.Hour {
			t.Errorf("%q, %q, %q: %s", after, remaining, reset, wait)
		}
	})
}
