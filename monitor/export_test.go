package monitor

import (
	"context"
	"time"
)

// Pass is what the schedule has done of the only log: with a time for the scan, so that it leaps.
func (e *Engine) Pass(ctx context.Context, scanFor time.Duration) Outcome {
	return e.all()[0].pass(ctx, scanFor)
}

// Break lets whatever looks at an entry of ours fail as a broken parser does.
func (e *Engine) Break() (mend func()) {
	for _, r := range e.all() {
		whole := r.trust.Load()
		broken := *whole
		broken.authorities = nil
		r.trust.Store(&broken)
		mend = func() { r.trust.Store(whole) }
	}
	return mend
}

// RefusalsKept is how many refusals are kept of those of n sizes, and whether the last one is among them.
func RefusalsKept(n int) (kept int, last bool) {
	var k keptProofs
	for size := range n {
		k.refuse(uint64(size), errNotShown)
	}
	return len(k.refused), k.refused[uint64(n-1)] != nil
}
