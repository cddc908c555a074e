package rekor

import (
	"context"
	"math"
	"slices"
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
	// behind lets one request that gives way to others stand among them.
	behind chan struct{}

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when room was made
	ahead   int           // requests that wait and give way to none
	flying  int
	window  float64
	steep   bool // until the first sign of congestion the window doubles
	rate    float64
	ratedAt time.Time
	cutAt   time.Time
	gauges  map[string]*gauge // by kind of request
	until   time.Time         // Retry-After: nothing is begun before
}

// gauge measures how long answers of one kind take: a proof is quicker than ten
// entries on any server.
type gauge struct {
	quickest time.Duration // of late
	renewAt  time.Time     // when it is measured anew
	recent   [5]time.Duration
	n        int
}

// slow books an answer, and reports whether the server is slow now: so are all
// of the last answers then, where one alone may be slow by chance.
func (g *gauge) slow(now time.Time, took time.Duration) bool {
	if g.quickest == 0 || took < g.quickest || now.After(g.renewAt) {
		g.quickest, g.renewAt = took, now.Add(quickestFor)
	}
	g.recent[g.n%len(g.recent)] = took
	g.n++
	least := slices.Min(g.recent[:min(g.n, len(g.recent))])
	return least > time.Duration(slow*float64(g.quickest)) && least > g.quickest+slowFloor
}

// outcome is how a request ended: with an answer, or refused for being one too
// many, or neither.
type outcome struct {
	kind        string
	took        time.Duration // until the answer began
	ok, refused bool
	retryAfter  time.Duration // what the server asked for
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
		window: math.Min(firstWindow, float64(parallel)), changed: make(chan struct{}), gauges: map[string]*gauge{}, turn: make(chan struct{}, 1),
		behind: make(chan struct{}, 1),
		// A burst would be refused by a server whose own limit is the ceiling.
		limiter: rate.NewLimiter(rate.Limit(requestsPerSecond), max(1, int(requestsPerSecond/20))),
	}
	return p
}

type givesWay struct{}

// withGivingWay marks requests that wait while others of the same server do.
func withGivingWay(ctx context.Context) context.Context {
	return context.WithValue(ctx, givesWay{}, true)
}

// begin waits for its turn. done must be called with the outcome.
func (p *pace) begin(ctx context.Context) error {
	if ctx.Value(givesWay{}) == nil {
		p.wait(1)
		defer p.wait(-1)
		return p.queue(ctx)
	}
	select {
	case p.behind <- struct{}{}:
		defer func() { <-p.behind }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		p.mu.Lock()
		ahead, changed := p.ahead, p.changed
		p.mu.Unlock()
		if ahead == 0 {
			return p.queue(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wait counts requests that give way to none.
func (p *pace) wait(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ahead += n; p.ahead == 0 {
		p.wake()
	}
}

// queue waits in the order of arrival.
func (p *pace) queue(ctx context.Context) error {
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

// done books a request.
func (p *pace) done(o outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.flying--
	defer p.wake()
	if o.retryAfter > 0 {
		if until := now.Add(o.retryAfter); until.After(p.until) {
			p.until = until
		}
	}
	g := p.gauges[o.kind]
	if g == nil {
		g = &gauge{}
		p.gauges[o.kind] = g
	}
	switch {
	case o.refused:
		if p.cut(now, g) {
			p.setRate(now, p.rate*rateCut)
		}
		return
	case !o.ok:
		return // an error says nothing of how busy the server is, however quick it was
	case g.slow(now, o.took):
		p.cut(now, g)
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
func (p *pace) cut(now time.Time, g *gauge) bool {
	if now.Sub(p.cutAt) < max(g.quickest, slowFloor) {
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
