package monitor

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

const (
	// budgetBytes bounds the entries that are in memory at a time.
	budgetBytes = 48 << 20
	minEstimate = 128 << 10
)

// budget bounds the bytes of bundles in flight. How large a bundle is, is only
// known once it is there, so each takes what the last ones needed.
type budget struct {
	bytes    *semaphore.Weighted
	estimate atomic.Int64
}

func newBudget() *budget {
	b := &budget{bytes: semaphore.NewWeighted(budgetBytes)}
	b.estimate.Store(1 << 20)
	return b
}

func (b *budget) take(ctx context.Context) (release func(), err error) {
	n := min(max(b.estimate.Load(), minEstimate), budgetBytes)
	if err := b.bytes.Acquire(ctx, n); err != nil {
		return nil, err
	}
	return func() { b.bytes.Release(n) }, nil
}

// learn follows growing bundles at once and shrinking ones slowly.
func (b *budget) learn(size int) {
	n, old := int64(size)*9/8, b.estimate.Load()
	if n < old {
		n = old - (old-n)/8
	}
	b.estimate.Store(n)
}
