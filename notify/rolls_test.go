package notify_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/route"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// find stores findings that are told at channels, in one transaction.
func find(t *testing.T, o *outbox, first, n int, cause func(int) string, channels ...string) {
	t.Helper()
	var b monitor.Batch
	for i := first; i < first+n; i++ {
		b.Findings = append(b.Findings, monitor.Finding{ID: fmt.Sprint("f-", i), Log: "log", Index: uint64(i), Watch: "w", Verdict: policy.Unexpected, Severity: "critical", Cause: cause(i), Reason: cause(i) + " in full",
			State: monitor.StateOpen, SeenAt: time.Now(), Leaf: []byte("leaf"), SignedNote: "note", Channels: channels})
	}
	if _, err := o.Commit(context.Background(), "log", monitor.State{}, nil, b); err != nil {
		t.Fatal(err)
	}
}

func oneCause(int) string { return "no expect item fits: issuer" }

// inbox is a channel that keeps what it accepted.
type inbox struct {
	mu   sync.Mutex
	got  []notify.Event
	at   []time.Time
	dead bool
}

func (i *inbox) Notify(_ context.Context, e notify.Event) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.dead {
		return errors.New("503")
	}
	i.got, i.at = append(i.got, e), append(i.at, time.Now())
	return nil
}

func (i *inbox) die(dead bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.dead = dead
}

func (i *inbox) all() []notify.Event {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]notify.Event(nil), i.got...)
}

// told counts the findings that events speak of, and fails where one came twice.
func told(t *testing.T, events []notify.Event) int {
	t.Helper()
	n, seen := 0, map[string]bool{}
	for _, e := range events {
		if seen[e.ID] {
			t.Errorf("%s came twice", e.ID)
		}
		seen[e.ID] = true
		if e.Type != notify.FindingsGrouped {
			n++
			continue
		}
		var count int
		if _, err := fmt.Sscanf(strings.TrimPrefix(e.Title, "More: "), "%d", &count); err != nil {
			t.Errorf("%q: %v", e.Title, err)
		}
		n += count
	}
	return n
}

func people(n notify.Notifier) notify.Channel {
	return notify.Channel{Name: "people", Notifier: n, Grouping: &notify.Grouping{Window: 10 * time.Minute, Most: 10, Settle: 15 * time.Second, Fold: route.Fold}}
}

// running runs a dispatcher within a bubble.
func running(t *testing.T, o *outbox, channels ...notify.Channel) (d *notify.Dispatcher, stop func()) {
	d = notify.NewDispatcher(o, channels, quiet)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { d.Run(ctx) })
	return d, func() { cancel(); wg.Wait() }
}

// TestFlood: of ten thousand findings, in several transactions, people get few
// messages, programs every event, and nothing is dropped.
func TestFlood(t *testing.T) {
	flood := 10000
	if testing.Short() {
		flood = 2000
	}
	for name, cause := range map[string]func(int) string{
		"one cause":   oneCause,
		"many causes": func(i int) string { return fmt.Sprint("no expect item fits: ", i%40) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := open(t)
				defer o.Close()
				chat, hook := &inbox{}, &inbox{}
				d, stop := running(t, o, people(chat), notify.Channel{Name: "hook", Notifier: hook})
				defer stop()
				for i := range 5 {
					find(t, o, i*flood/5, flood/5, cause, "people", "hook")
					d.Wake()
					time.Sleep(time.Second)
				}
				time.Sleep(30 * time.Second)
				if n := len(chat.all()); n < 11 || n > 15 {
					t.Errorf("%d messages to people", n)
				}
				if n := told(t, chat.all()); n != flood {
					t.Errorf("people heard of %d", n)
				}
				time.Sleep(time.Hour)
				if n := len(chat.all()); n > 15 {
					t.Errorf("%d messages to people in the end", n)
				}
				if n := len(hook.all()); n != flood || told(t, hook.all()) != flood {
					t.Errorf("%d events for programs", n)
				}
				if open, _, err := o.CountOpen(context.Background()); err != nil || open != flood {
					t.Errorf("%d findings, %v", open, err)
				}
				if n, err := o.PendingDeliveries(context.Background()); n != 0 || err != nil {
					t.Errorf("%d wait, %v", n, err)
				}
			})
		})
	}
}

// TestWindow: what trickles in comes on its own; the eleventh in ten minutes is
// gathered, and what comes after that waits for the end of the window.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t)
		defer o.Close()
		chat := &inbox{}
		d, stop := running(t, o, people(chat))
		defer stop()
		n := 0
		one := func(count int) {
			find(t, o, n, count, oneCause, "people")
			n += count
			d.Wake()
		}
		for range 9 {
			one(1)
			time.Sleep(30 * time.Second)
		}
		if got := len(chat.all()); got != 9 {
			t.Fatalf("%d of 9", got)
		}
		one(3) // the tenth comes, two are gathered
		time.Sleep(time.Second)
		if got := len(chat.all()); got != 10 {
			t.Fatalf("%d of 10", got)
		}
		time.Sleep(20 * time.Second)
		if got := chat.all(); len(got) != 11 || got[10].Type != notify.FindingsGrouped || told(t, got) != 12 {
			t.Fatalf("%d, the last %+v", len(got), got[len(got)-1])
		}
		one(4) // wait for the end of the window
		time.Sleep(time.Minute)
		if got := len(chat.all()); got != 11 {
			t.Fatalf("%d of 11", got)
		}
		time.Sleep(10 * time.Minute)
		if got := chat.all(); len(got) != 12 || told(t, got) != 16 {
			t.Fatalf("%d messages of %d", len(got), told(t, got))
		}
		// A quiet hour later everything is as at the beginning.
		time.Sleep(time.Hour)
		one(1)
		time.Sleep(time.Second)
		if got := chat.all(); len(got) != 13 || got[12].Type != notify.FindingUnexpected {
			t.Fatalf("%d messages", len(got))
		}
	})
}

// TestDeadForADay: while one channel is dead the other is told on time; when it
// is back it gets few messages, each once, that speak of everything.
func TestDeadForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t)
		defer o.Close()
		slack, mail := &inbox{dead: true}, &inbox{}
		channels := []notify.Channel{people(slack), {Name: "mail", Notifier: mail, Grouping: &notify.Grouping{Window: 10 * time.Minute, Most: 10, Settle: 15 * time.Second, Fold: route.Fold}}}
		d, stop := running(t, o, channels...)
		n := 0
		for i := range 24 * 12 {
			find(t, o, n, 1, oneCause, "people", "mail")
			n++
			d.Wake()
			time.Sleep(time.Second)
			if got := len(mail.all()); got != n {
				t.Fatalf("%d of %d mails on time", got, n)
			}
			if i == 100 { // a restart changes nothing
				stop()
				d, stop = running(t, o, channels...)
			}
			if i%50 == 0 {
				if due, _, err := o.Due(context.Background(), "people", time.Now().Add(time.Hour), 1000, nil); err != nil || len(due) > 17 { // ten, and what probes
					t.Fatalf("%d single deliveries wait, %v", len(due), err)
				}
			}
			time.Sleep(5*time.Minute - time.Second)
		}
		slack.die(false)
		time.Sleep(30 * time.Minute)
		if got := slack.all(); len(got) > 21 || told(t, got) != n {
			t.Errorf("%d messages that speak of %d, of %d", len(got), told(t, got), n)
		}
		if list, err := o.Incidents(context.Background(), store.Filter{Kind: monitor.KindDeliveryFailed}); err != nil || len(list) > 1 {
			t.Errorf("%d incidents, %v", len(list), err)
		}
		if n, err := o.PendingDeliveries(context.Background()); n != 0 || err != nil {
			t.Errorf("%d wait, %v", n, err)
		}
		stop()
	})
}

// TestProgramsGetEverything: a channel that was one for people, and is one for
// programs now, gets what was put by for a digest.
func TestProgramsGetEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t)
		defer o.Close()
		at := time.Now().Add(time.Hour)
		inc := monitor.Incident{ID: "i-1", State: "open", OpenedAt: time.Now()}
		for i := range 3 {
			inc.Deliveries = append(inc.Deliveries, notify.Delivery{Address: notify.Address{Channel: "c", Due: at, Digest: true}, Event: notify.Event{ID: fmt.Sprint("e-", i), Data: []byte("{}")}})
		}
		if err := o.Record(context.Background(), []monitor.Incident{inc}, nil); err != nil {
			t.Fatal(err)
		}
		hook := &inbox{}
		_, stop := running(t, o, notify.Channel{Name: "c", Notifier: hook})
		defer stop()
		time.Sleep(2 * time.Hour)
		if got := hook.all(); len(got) != 3 {
			t.Errorf("%d of 3", len(got))
		}
	})
}

// TestDigest: what is mild comes in one message, when it is due.
func TestDigest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t)
		defer o.Close()
		chat := &inbox{}
		d, stop := running(t, o, people(chat))
		defer stop()
		at := time.Now().Add(8 * time.Hour)
		for i := range 3 {
			inc := monitor.Incident{ID: fmt.Sprint("i-", i), State: "open", OpenedAt: time.Now()}
			inc.Deliveries = []notify.Delivery{{Address: notify.Address{Channel: "people", Due: at, Digest: true},
				Event: notify.Event{ID: fmt.Sprint("e-", i), Type: notify.IncidentOpened, Severity: "low", Title: fmt.Sprint("unreachable ", i), Time: time.Now(), Data: []byte("{}")}}}
			if err := o.Record(context.Background(), []monitor.Incident{inc}, nil); err != nil {
				t.Fatal(err)
			}
		}
		d.Wake()
		time.Sleep(8*time.Hour - time.Minute)
		if got := chat.all(); len(got) != 0 {
			t.Fatalf("%+v", got)
		}
		time.Sleep(2 * time.Minute)
		got := chat.all()
		if len(got) != 1 || got[0].Type != notify.DigestDue || !strings.Contains(got[0].Plain(), "unreachable 2") {
			t.Fatalf("%+v", got)
		}
	})
}

// TestHeldBack: what waits for the end of quiet hours stands in the way of nothing,
// for people and for programs.
func TestHeldBack(t *testing.T) {
	for _, held := range []int{1, 10, 40} {
		synctest.Test(t, func(t *testing.T) {
			o := open(t)
			defer o.Close()
			chat, hook := &inbox{}, &inbox{}
			d, stop := running(t, o, people(chat), notify.Channel{Name: "hook", Notifier: hook})
			defer stop()
			morning := time.Now().Add(8 * time.Hour)
			for i := range held {
				inc := monitor.Incident{ID: fmt.Sprint("i-", i), State: "open", OpenedAt: time.Now()}
				for _, c := range []string{"people", "hook"} {
					inc.Deliveries = append(inc.Deliveries, notify.Delivery{Address: notify.Address{Channel: c, Due: morning}, Event: notify.Event{ID: fmt.Sprint("e-held-", i), Type: notify.IncidentOpened, Severity: "low", Data: []byte("{}")}})
				}
				if err := o.Record(context.Background(), []monitor.Incident{inc}, nil); err != nil {
					t.Fatal(err)
				}
			}
			find(t, o, 0, 30, oneCause, "people", "hook")
			d.Wake()
			time.Sleep(time.Minute)
			if n := told(t, chat.all()); n != 30 {
				t.Errorf("%d held: people heard of %d of 30 at night", held, n)
			}
			if n := len(hook.all()); n != 30 {
				t.Errorf("%d held: programs got %d of 30 at night", held, n)
			}
			time.Sleep(8 * time.Hour)
			if n := told(t, chat.all()); n != 30+held {
				t.Errorf("%d held: people heard of %d in the morning", held, n)
			}
		})
	}
}

// picky accepts everything but some events.
type picky struct {
	inbox
	refuses func(notify.Event) bool
}

func (p *picky) Notify(ctx context.Context, e notify.Event) error {
	if p.refuses(e) {
		return errors.New("400 Bad Request")
	}
	return p.inbox.Notify(ctx, e)
}

// TestNeverAccepted: events that a channel never accepts, whatever it answers, do not
// keep the others.
func TestNeverAccepted(t *testing.T) {
	for _, bad := range []int{1, 10, 40} {
		synctest.Test(t, func(t *testing.T) {
			o := open(t)
			defer o.Close()
			refuses := func(e notify.Event) bool {
				var n int
				fmt.Sscanf(e.Subject, "f-%d", &n)
				return e.Subject != "" && n < bad
			}
			chat, hook := &picky{refuses: refuses}, &picky{refuses: refuses}
			d, stop := running(t, o, people(chat), notify.Channel{Name: "hook", Notifier: hook})
			defer stop()
			find(t, o, 0, bad, oneCause, "people", "hook")
			d.Wake()
			time.Sleep(5 * time.Minute)
			find(t, o, bad, 200, oneCause, "people", "hook")
			d.Wake()
			time.Sleep(time.Hour)
			if n := len(hook.all()); n != 200 {
				t.Errorf("%d bad ones: programs got %d of 200 within an hour", bad, n)
			}
			n := told(t, chat.all())
			if n < 200 || len(chat.all()) > 20 {
				t.Errorf("%d bad ones: people heard of %d of 200 within an hour, in %d messages", bad, n, len(chat.all()))
			}
		})
	}
}

// TestOrder: the end of something is never told before its beginning.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t)
		defer o.Close()
		var down atomic.Bool
		down.Store(true)
		chat := newTarget(func(notify.Event, int) error {
			if down.Load() {
				return errors.New("503")
			}
			return nil
		})
		var mu sync.Mutex
		var got []string
		d, stop := running(t, o, notify.Channel{Name: "c", Notifier: notifierFunc(func(ctx context.Context, e notify.Event) error {
			err := chat.Notify(ctx, e)
			if err == nil {
				time.Sleep(time.Duration(len(e.ID)) * time.Millisecond) // the beginning takes longer
				mu.Lock()
				got = append(got, e.ID)
				mu.Unlock()
			}
			return err
		})})
		defer stop()
		tell := func(id, subject string) {
			t.Helper()
			if err := o.Enqueue(context.Background(), []notify.Delivery{{Address: notify.Address{Channel: "c"}, Event: notify.Event{ID: id, Subject: subject, Data: []byte("{}")}}}); err != nil {
				t.Fatal(err)
			}
			d.Wake()
		}
		tell("z-opened-and-that-takes-long", "i-1")
		time.Sleep(time.Hour) // by now it is tried every five minutes
		down.Store(false)
		tell("a-resolved", "i-1")
		tell("another", "i-2")
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		if want := "[another z-opened-and-that-takes-long a-resolved]"; fmt.Sprint(got) != want {
			t.Errorf("%v, want %s", got, want)
		}
	})
}

type notifierFunc func(context.Context, notify.Event) error

func (f notifierFunc) Notify(ctx context.Context, e notify.Event) error { return f(ctx, e) }

// TestDrainDoesNotWait: who delivers once does not wait for what is due tomorrow.
func TestDrainDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t)
		defer o.Close()
		chat := &inbox{}
		later := notify.Delivery{Address: notify.Address{Channel: "people", Due: time.Now().Add(8 * time.Hour)}, Event: notify.Event{ID: "e-later", Data: []byte("{}")}}
		now := notify.Delivery{Address: notify.Address{Channel: "people"}, Event: notify.Event{ID: "e-now", Data: []byte("{}")}}
		if err := o.Enqueue(context.Background(), []notify.Delivery{later, now}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		notify.NewDispatcher(o, []notify.Channel{people(chat)}, quiet).Drain(ctx)
		if took := time.Since(began); took > time.Second || len(chat.all()) != 1 {
			t.Errorf("%d messages after %s", len(chat.all()), took)
		}
	})
}
