package rekor

import (
	"context"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// pace decides how many requests are in flight, and how many are begun in a
// second. Both have a ceiling and are found out below it: they grow while the
// server keeps up (additive increase), and shrink when it says 429 or 503, or
// when its answers grow slow against the quickest of late (multiplicative
// decrease), at most once a round trip.
type pace struct {
	rateCeiling   float64
	windowCeiling float64
	limiter       *rate.Limiter
	// turn lets one request at a time wait to begin: a place in a long queue was
	// given out at the rate of long ago.
	turn chan struct{}

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when room was made
	flying   int
	window   float64
	steep    bool // until the first sign of congestion the window doubles
	rate     float64
	ratedAt  time.Time
	cutAt    time.Time
	quickest time.Duration // answer of late
	renewAt  time.Time     // when it is measured anew
	until    time.Time     // Retry-After: nothing is begun before
}

const (
	firstWindow = 4
	// slow is how much longer than the quickest answer one takes from a server
	// that is busy; short answers vary more than that by chance.
	slow      = 2.5
	slowFloor = 100 * time.Millisecond
	// Cuts, and how long the rate takes to grow by half of itself and more: in
	// steps of its own size, so that few requests are refused at any limit.
	windowCut   = 0.7
	rateCut     = 0.85
	rateRegrows = 200 * time.Second
	// quickestFor is how long the quickest answer is believed.
	quickestFor = 2 * time.Minute
)

func newPace(requestsPerSecond float64, parallel int) *pace {
	p := &pace{
		rateCeiling: requestsPerSecond, windowCeiling: float64(parallel), rate: requestsPerSecond, steep: true,
		window: math.Min(firstWindow, float64(parallel)), changed: make(chan struct{}), turn: make(chan struct{}, 1),
		// A burst would be refused by a server whose own limit is the ceiling.
		limiter: rate.NewLimiter(rate.Limit(requestsPerSecond), max(1, int(requestsPerSecond/20))),
	}
	return p
}

// begin waits for its turn. done must be called with the outcome.
func (p *pace) begin(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		p.mu.Lock()
		wait := time.Until(p.until)
		if wait <= 0 && float64(p.flying) < math.Max(1, math.Floor(p.window)) {
			p.flying++
			p.mu.Unlock()
			break
		}
		changed := p.changed
		p.mu.Unlock()
		var due <-chan time.Time
		if wait > 0 {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			due = timer.C
		}
		select {
		case <-due:
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := p.limiter.Wait(ctx); err != nil {
		p.leave()
		return err
	}
	return nil
}

func (p *pace) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flying--
	p.wake()
}

func (p *pace) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// done books a request that took a time, and was refused for being one too many
// or not. retryAfter is what the server asked for.
func (p *pace) done(took time.Duration, refused bool, retryAfter time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.flying--
	defer p.wake()
	if retryAfter > 0 {
		if until := now.Add(retryAfter); until.After(p.until) {
			p.until = until
		}
	}
	switch {
	case refused:
		if p.cut(now) {
			p.setRate(now, p.rate*rateCut)
		}
		return
	case p.quickest == 0 || took < p.quickest || now.After(p.renewAt):
		p.quickest, p.renewAt = took, now.Add(quickestFor)
	}
	if took > time.Duration(slow*float64(p.quickest)) && took > p.quickest+slowFloor {
		p.cut(now)
		return
	}
	if p.steep {
		p.window++
	} else {
		p.window += 1 / p.window
	}
	p.window = math.Min(p.window, p.windowCeiling)
	if p.rate < p.rateCeiling {
		p.setRate(now, p.rate*(1+now.Sub(p.ratedAt).Seconds()/rateRegrows.Seconds()))
	}
}

// cut narrows the window, unless it was cut within the last round trip: the
// answers of one crowd say one thing.
func (p *pace) cut(now time.Time) bool {
	if now.Sub(p.cutAt) < max(p.quickest, slowFloor) {
		return false
	}
	p.cutAt, p.steep = now, false
	p.window = math.Max(1, p.window*windowCut)
	return true
}

func (p *pace) setRate(now time.Time, r float64) {
	p.rate = math.Min(math.Max(r, p.rateCeiling/100), p.rateCeiling)
	p.ratedAt = now
	p.limiter.SetLimit(rate.Limit(p.rate))
}
