package notify_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

// wrongClock opens an outbox whose clock is ahead of the right one by as much as is stored.
func wrongClock(t *testing.T) (o *outbox, ahead *atomic.Int64, clock func() time.Time) {
	t.Helper()
	ahead = &atomic.Int64{}
	clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "s.db"), store.Options{Create: true, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	return &outbox{Store: s}, ahead, clock
}

// deliver is a process that delivers to channel c for some time.
func deliver(o *outbox, n notify.Notifier, clock func() time.Time, lasts time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), lasts)
	defer cancel()
	d := notify.NewDispatcher(o, []notify.Channel{{Name: "c", Notifier: n}}, quiet)
	d.Now = clock
	d.Run(ctx)
}

// TestClockSetBack: a machine whose clock was five hours ahead is set right. What waits then does not
// wait for five hours, whether the process saw it or was started anew, and keeps its order.
func TestClockSetBack(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(map[bool]string{false: "seen", true: "restarted"}[restarted], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, ahead, clock := wrongClock(t)
				defer o.Close()
				s := o.Store
				var works atomic.Bool
				var mu sync.Mutex
				var told []string
				n := newTarget(func(e notify.Event, _ int) error {
					if !works.Load() {
						return errors.New("connection refused")
					}
					mu.Lock()
					defer mu.Unlock()
					told = append(told, e.ID)
					return nil
				})
				begin := func() (end func(), d *notify.Dispatcher) {
					d = notify.NewDispatcher(o, []notify.Channel{{Name: "c", Notifier: n}}, quiet)
					d.Now = clock
					ctx, cancel := context.WithCancel(context.Background())
					var wg sync.WaitGroup
					wg.Go(func() { d.Run(ctx) })
					return func() { cancel(); wg.Wait() }, d
				}
				end, d := begin()
				// One is there while the clock is right, two while it is not, and one as soon as it is again.
				put(t, o, "right", "c")
				d.Wake()
				time.Sleep(20 * time.Second)
				ahead.Store(int64(5 * time.Hour))
				enqueue := func(id, subject string, due time.Time) {
					t.Helper()
					if err := s.Enqueue(t.Context(), []notify.Delivery{{Address: notify.Address{Channel: "c", Due: due}, Event: notify.Event{ID: id, Subject: subject, Type: notify.Test, Data: []byte("{}")}}}); err != nil {
						t.Fatal(err)
					}
				}
				enqueue("z-opened", "i", time.Time{})
				enqueue("later", "", clock().Add(30*time.Minute))
				d.Wake()
				time.Sleep(10 * time.Minute)
				if restarted {
					end()
				}
				ahead.Store(0)
				works.Store(true)
				// It is newer than what was put there by a clock that was ahead.
				enqueue("a-resolved", "i", time.Time{})
				if restarted {
					end, _ = begin()
				} else {
					d.Wake()
				}
				defer func() { end() }()
				wait := 11 * time.Minute // the wait that is under way, and the longest one
				if restarted {
					wait = 5*time.Minute + time.Second
				}
				time.Sleep(wait)
				mu.Lock()
				got := slices.Clone(told)
				mu.Unlock()
				if opened, resolved := slices.Index(got, "z-opened"), slices.Index(got, "a-resolved"); opened < 0 || resolved < opened {
					t.Errorf("%s after the clock was set right %v was told", wait, got)
				}
				if slices.Contains(got, "later") {
					t.Errorf("what was to wait for half an hour did not: %v", got)
				}
				time.Sleep(31 * time.Minute)
				mu.Lock()
				defer mu.Unlock()
				for _, id := range []string{"later", "right"} {
					if !slices.Contains(told, id) {
						t.Errorf("%q was not told: %v", id, told)
					}
				}
			})
		})
	}
}

// TestClockWrongForOneRun: the clock is five hours ahead while a process runs, from before it begins until
// after its end, and what it put off was there before. The next process does not wait for those hours.
func TestClockWrongForOneRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, ahead, clock := wrongClock(t)
		defer o.Close()
		var works atomic.Bool
		n := newTarget(func(notify.Event, int) error {
			if !works.Load() {
				return errors.New("connection refused")
			}
			return nil
		})
		run := func(d time.Duration) { deliver(o, n, clock, d) }
		put(t, o, "a", "c")
		time.Sleep(time.Minute)
		ahead.Store(int64(5 * time.Hour))
		run(time.Minute)
		ahead.Store(0)
		works.Store(true)
		before := len(n.of("a"))
		run(time.Minute)
		if tries := n.of("a"); before < 3 || len(tries) != before+1 {
			t.Errorf("tried %d times before the clock was set right, and in the minute after %d times", before, len(tries)-before)
		}
	})
}

// TestClockSetWithinTries: the clock is set right while tries are under way, and the process ends before it
// looks at the clock again. What it had put off before is tried by the next one.
func TestClockSetWithinTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, ahead, clock := wrongClock(t)
		defer o.Close()
		const some = 12 // more than are tried at a time
		for i := range some {
			put(t, o, fmt.Sprint(i), "c")
		}
		time.Sleep(time.Minute)
		ahead.Store(int64(5 * time.Hour))
		var works atomic.Bool
		var tries atomic.Int64
		n := newTarget(func(notify.Event, int) error {
			if works.Load() {
				return nil
			}
			time.Sleep(time.Second)
			if tries.Add(1) == some/2 {
				ahead.Store(0)
			}
			return errors.New("timeout")
		})
		run := func(d time.Duration) { deliver(o, n, clock, d) }
		run(2500 * time.Millisecond)
		if n := tries.Load(); n < some/2 || ahead.Load() != 0 {
			t.Fatalf("%d tries", n)
		}
		works.Store(true)
		run(time.Minute)
		if left, err := o.PendingDeliveries(t.Context()); err != nil || left != 0 {
			t.Errorf("%d wait for hours, %v", left, err)
		}
	})
}

// TestAskedToWait: a process that is started anew while somebody has asked to wait waits, as its clock is
// right, or is only kept right.
func TestAskedToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, ahead, clock := wrongClock(t)
		defer o.Close()
		n := newTarget(func(notify.Event, int) error {
			return &notify.RetryError{After: 2 * time.Hour, Err: errors.New("too many")}
		})
		put(t, o, "a", "c")
		for i := range 6 {
			ahead.Store(int64(-i) * int64(800*time.Millisecond)) // it is kept right between one process and the next
			deliver(o, n, clock, 500*time.Millisecond)
		}
		if tries := n.of("a"); len(tries) != 1 {
			t.Errorf("tried after %v, and was asked to wait for two hours", tries)
		}
	})
}

// TestClockSetAhead: a machine that begins in the past gives nothing up as old when its clock is set right.
func TestClockSetAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, ahead, clock := wrongClock(t)
		defer o.Close()
		var works atomic.Bool
		n := newTarget(func(_ notify.Event, try int) error {
			if works.Load() {
				return nil
			}
			if try == 12 { // more than are needed to give up; it is set within a try, and that is the hardest
				ahead.Store(int64(20 * 365 * 24 * time.Hour))
			}
			return errors.New("no network")
		})
		d := notify.NewDispatcher(o, []notify.Channel{{Name: "c", Notifier: n}}, quiet)
		d.Now = clock
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { d.Run(ctx) })
		defer func() { cancel(); wg.Wait() }()
		put(t, o, "a", "c")
		d.Wake()
		time.Sleep(40 * time.Minute)
		if len(n.of("a")) < 13 {
			t.Fatalf("only %d tries", len(n.of("a")))
		}
		works.Store(true)
		time.Sleep(6 * time.Minute)
		if pending, err := o.PendingDeliveries(t.Context()); err != nil || pending != 0 {
			t.Errorf("%d wait, %v", pending, err)
		}
		if counts := d.Counts(); counts[[2]string{"c", notify.Delivered}] != 1 || counts[[2]string{"c", notify.Failed}] != 0 {
			t.Errorf("%v", counts)
		}
	})
}

// TestNobodyTried: a time in which nobody could deliver gives nothing up, whether the program was off, the
// clock was wrong, or the alert comes from a backup; and what is tried in vain by a program that runs now
// and then is given up all the same.
func TestNobodyTried(t *testing.T) {
	const day = 24 * time.Hour
	type run struct{ off, clock, lasts time.Duration }
	often := func(n int, r run) (list []run) {
		for range n {
			list = append(list, r)
		}
		return list
	}
	for name, tc := range map[string]struct {
		runs    []run
		givenUp bool
	}{
		"off for four days":           {[]run{{0, 0, 3 * time.Minute}, {4 * day, 0, 10 * time.Minute}}, false},
		"off for a year, twice":       {[]run{{0, 0, 3 * time.Minute}, {365 * day, 0, 10 * time.Minute}, {365 * day, 0, 10 * time.Minute}}, false},
		"never tried before":          {[]run{{4 * day, 0, 10 * time.Minute}}, false},
		"begun again and again":       {append([]run{{0, 0, 3 * time.Minute}, {4 * day, 0, 0}}, often(20, run{0, 0, time.Second})...), false},
		"clock four days ahead":       {[]run{{0, 0, 3 * time.Minute}, {0, 4 * day, 10 * time.Minute}, {0, 0, 10 * time.Minute}}, false},
		"clock four days behind":      {[]run{{0, 0, 3 * time.Minute}, {0, -4 * day, 10 * time.Minute}, {0, 0, 10 * time.Minute}}, false},
		"tried for two days, and off": {[]run{{0, 0, 46 * time.Hour}, {30 * day, 0, time.Hour}}, false},
		"tried for three days":        {[]run{{0, 0, 73 * time.Hour}}, true},
		"in parts":                    {often(5, run{time.Hour, 0, 15 * time.Hour}), true},
		"each hour for a minute":      {often(75, run{59 * time.Minute, 0, time.Minute}), true},
		"each week for three minutes": {often(5, run{7 * day, 0, 3 * time.Minute}), true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, ahead, clock := wrongClock(t)
				defer o.Close()
				n := newTarget(func(notify.Event, int) error { return errors.New("connection refused") })
				put(t, o, "a", "c")
				for _, r := range tc.runs {
					time.Sleep(r.off)
					ahead.Store(int64(r.clock))
					deliver(o, n, clock, r.lasts)
				}
				status, err := o.Channels(t.Context(), []string{"c"})
				if err != nil || (status[0].Failed == 1) != tc.givenUp || status[0].Failed+status[0].Pending != 1 {
					t.Errorf("after %d tries: %+v, %v", len(n.of("a")), status[0], err)
				}
			})
		})
	}
}
