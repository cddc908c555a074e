package monitor

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

const (
	// budgetBytes bounds the entries that are in memory at a time.
	budgetBytes = 32 << 20
	minEstimate = 128 << 10
)

// budget bounds the bytes of bundles in memory. Where nobody says how large one
// is, that is only known once it is there: it takes what the last ones needed.
type budget struct {
	bytes    *semaphore.Weighted
	estimate atomic.Int64
}

func newBudget() *budget {
	b := &budget{bytes: semaphore.NewWeighted(budgetBytes)}
	b.estimate.Store(1 << 20)
	return b
}

// take takes so many bytes; 0: nobody knows.
func (b *budget) take(ctx context.Context, size int64) (release func(), err error) {
	if size == 0 {
		size = b.estimate.Load()
	}
	n := min(max(size, minEstimate), budgetBytes)
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
