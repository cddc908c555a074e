package notify_test

import (
	"context"
	"errors"
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

// TestClockSetBack: a machine whose clock was five hours ahead is set right. What waits then does not
// wait for five hours, whether the process saw it or was started anew, and keeps its order.
func TestClockSetBack(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(map[bool]string{false: "seen", true: "restarted"}[restarted], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ahead atomic.Int64
				clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
				s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "s.db"), store.Options{Create: true, Now: clock})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				o := &outbox{Store: s}
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
				// One is there while the clock is right, three while it is not; of two of these the
				// first must be told first.
				put(t, o, "right", "c")
				d.Wake()
				time.Sleep(20 * time.Second)
				ahead.Store(int64(5 * time.Hour))
				if err := s.Enqueue(t.Context(), []notify.Delivery{
					{Address: notify.Address{Channel: "c"}, Event: notify.Event{ID: "z-opened", Subject: "i", Type: notify.Test, Data: []byte("{}")}},
				}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				if err := s.Enqueue(t.Context(), []notify.Delivery{
					{Address: notify.Address{Channel: "c"}, Event: notify.Event{ID: "a-resolved", Subject: "i", Type: notify.Test, Data: []byte("{}")}},
					{Address: notify.Address{Channel: "c", Due: clock().Add(30 * time.Minute)}, Event: notify.Event{ID: "later", Type: notify.Test, Data: []byte("{}")}},
				}); err != nil {
					t.Fatal(err)
				}
				d.Wake()
				time.Sleep(10 * time.Minute)
				if restarted {
					end()
				}
				ahead.Store(0)
				works.Store(true)
				if restarted {
					end, _ = begin()
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
