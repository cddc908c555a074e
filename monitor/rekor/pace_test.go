package rekor

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

// TestPace: against a server that takes two seconds for an answer and refuses
// what is beyond 30 requests a second, nearly all of that is used, and hardly any
// request is refused once the pace has settled; one that is busy is given room.
// Time is simulated.
func TestPace(t *testing.T) {
	for name, tc := range map[string]struct {
		latency time.Duration
		limit   float64 // of the server
		atLeast float64 // requests a second
		atMost  float64 // of them refused
	}{
		"limit at the ceiling":     {2 * time.Second, 30, 28, 0.01},
		"limit below the ceiling":  {2 * time.Second, 20, 17, 0.01},
		"far below the ceiling":    {2 * time.Second, 5, 4, 0.05},
		"quick, limit below":       {50 * time.Millisecond, 20, 17, 0.01},
		"no limit but our ceiling": {200 * time.Millisecond, 1e6, 29, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPace(30, 64)
				server := rate.NewLimiter(rate.Limit(tc.limit), max(1, int(tc.limit/4)))
				ctx, cancel := context.WithCancel(t.Context())
				var good, refused atomic.Int64
				var wg sync.WaitGroup
				for range 100 {
					wg.Go(func() {
						for p.begin(ctx) == nil {
							start, ok := time.Now(), server.Allow()
							time.Sleep(tc.latency)
							if ok {
								good.Add(1)
							} else {
								refused.Add(1)
							}
							p.done(outcome{took: time.Since(start), ok: ok, refused: !ok})
						}
					})
				}
				time.Sleep(2 * time.Minute) // settles
				g, r := good.Load(), refused.Load()
				time.Sleep(10 * time.Minute)
				g, r = good.Load()-g, refused.Load()-r
				cancel()
				wg.Wait()
				t.Logf("%.1f requests a second, %d of %d refused", float64(g)/600, r, g+r)
				if float64(g)/600 < tc.atLeast || float64(r) > tc.atMost*float64(g) {
					t.Errorf("%.1f requests a second, want %.1f; %d of %d refused", float64(g)/600, tc.atLeast, r, g+r)
				}
			})
		})
	}
}

// TestPaceYields: a server whose answers grow slow gets fewer requests at a time,
// and one that names a time to wait is left alone for so long.
func TestPaceYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1000, 64)
		round := func(n int, took time.Duration) {
			for range n {
				if err := p.begin(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(took)
				p.done(outcome{took: took, ok: true})
			}
		}
		round(200, 50*time.Millisecond)
		wide := p.window
		round(20, time.Second)
		if wide != 64 || p.window > wide/4 {
			t.Errorf("window %.1f, after slow answers %.1f", wide, p.window)
		}
		round(2000, 50*time.Millisecond)
		if p.window < 32 {
			t.Errorf("window %.1f after quick answers again", p.window)
		}
		if err := p.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.done(outcome{refused: true, retryAfter: 30 * time.Second})
		start := time.Now()
		if err := p.begin(t.Context()); err != nil || time.Since(start) < 30*time.Second {
			t.Errorf("asked to wait 30 s, waited %s", time.Since(start))
		}
		p.done(outcome{ok: true})
	})
}

// TestPaceMixed: quick answers of another kind, errors that come at once, and
// one answer in three that takes long do not slow the rest down.
func TestPaceMixed(t *testing.T) {
	for name, other := range map[string]outcome{
		"none":         {kind: "entries", took: 400 * time.Millisecond, ok: true},
		"another kind": {kind: "log", took: 20 * time.Millisecond, ok: true},
		"error":        {kind: "entries", took: time.Millisecond},
		"long":         {kind: "entries", took: 3 * time.Second, ok: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPace(1e6, 16)
			ctx, cancel := context.WithCancel(t.Context())
			var n atomic.Int64
			var wg sync.WaitGroup
			for range 32 {
				wg.Go(func() {
					for p.begin(ctx) == nil {
						o := outcome{kind: "entries", took: 400 * time.Millisecond, ok: true}
						if n.Add(1)%3 == 0 {
							o = other
						}
						time.Sleep(o.took)
						p.done(o)
					}
				})
			}
			time.Sleep(time.Minute)
			p.mu.Lock()
			window := p.window
			p.mu.Unlock()
			cancel()
			wg.Wait()
			if window < 12 {
				t.Errorf("%s: window %.1f", name, window)
			}
		})
	}
}

// TestPaceGivesWay: requests of history do not make those for the head wait for
// more than the one that is begun next.
func TestPaceGivesWay(t *testing.T) {
	for _, parallel := range []int{1, 64} { // the window, or the rate, is what is scarce
		synctest.Test(t, func(t *testing.T) {
			p := newPace(10, parallel)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			var history atomic.Int64
			keepAsking := func(ctx context.Context, count *atomic.Int64, more func() bool) {
				wg.Go(func() {
					for more() && p.begin(ctx) == nil {
						time.Sleep(100 * time.Millisecond)
						p.done(outcome{took: 100 * time.Millisecond, ok: true})
						count.Add(1)
					}
				})
			}
			for range 40 {
				keepAsking(withGivingWay(ctx), &history, func() bool { return true })
			}
			time.Sleep(10 * time.Second)
			before := history.Load()
			if before < 80 {
				t.Errorf("window of %d: history alone has had %d requests", parallel, before)
			}
			var head atomic.Int64
			for range 10 {
				keepAsking(ctx, &head, func() bool { return head.Load() < 100 })
			}
			for head.Load() < 100 {
				time.Sleep(10 * time.Millisecond)
			}
			if n := history.Load() - before; n > 4 {
				t.Errorf("window of %d: %d requests of history came between those for the head", parallel, n)
			}
			after := history.Load()
			time.Sleep(10 * time.Second)
			if n := history.Load() - after; n < 80 {
				t.Errorf("window of %d: history has had %d requests after those for the head", parallel, n)
			}
			cancel()
			wg.Wait()
		})
	}
}
