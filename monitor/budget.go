package monitor

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

const (
	// budgetBytes bounds the entries that are in memory at a time, budgetOfOne those of one log: one
	// that promises much and then stalls must not take the room of the others.
	budgetBytes = 64 << 20
	budgetOfOne = 16 << 20
	minEstimate = 128 << 10
)

// budget bounds the bytes of bundles in memory, for one log within that of all. Where nobody says
// how large a bundle is, that is only known once it is there: it takes what the last ones needed.
type budget struct {
	all, own *semaphore.Weighted
	estimate atomic.Int64
}

func newBudget(all *semaphore.Weighted) *budget {
	b := &budget{all: all, own: semaphore.NewWeighted(budgetOfOne)}
	b.estimate.Store(1 << 20)
	return b
}

// take takes so many bytes; 0: nobody knows.
func (b *budget) take(ctx context.Context, size int64) (release func(), err error) {
	if size == 0 {
		size = b.estimate.Load()
	}
	n := min(max(size, minEstimate), budgetOfOne)
	if err := b.own.Acquire(ctx, n); err != nil {
		return nil, err
	}
	if err := b.all.Acquire(ctx, n); err != nil {
		b.own.Release(n)
		return nil, err
	}
	return func() { b.all.Release(n); b.own.Release(n) }, nil
}

// learn follows growing bundles at once and shrinking ones slowly.
func (b *budget) learn(size int) {
	n, old := int64(size)*9/8, b.estimate.Load()
	if n < old {
		n = old - (old-n)/8
	}
	b.estimate.Store(n)
}
