package monitor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// retryGaps tries to fill gaps of the coverage with the entries that the tree
// commits to. read reads some of a gap, from at on.
func (t *turn) retryGaps(ctx context.Context, head checkpoint.Checkpoint, read func(g Gap, at uint64) result) error {
	gaps, err := t.opts.Store.Gaps(ctx, t.cfg.ID)
	if err != nil || len(gaps) == 0 {
		return err
	}
	// Those that were tried least come first, in the order of the log, so that
	// none waits for ever behind others.
	slices.SortStableFunc(gaps, func(a, b Gap) int { return a.Polls - b.Polls })
	tries := gapTries{head: head, read: read, stop: time.Now().Add(maxGapTime)}
	var left []Gap
	for i, g := range gaps {
		if i >= maxGapsAPoll || tries.over(ctx) {
			left = append(left, g)
			continue
		}
		left = append(left, t.retryGap(ctx, &tries, g)...)
	}
	t.tally(tries.count)
	t.judgeGaps(left)
	return tries.failure
}

// gapTries is what becomes of the gaps of one poll.
type gapTries struct {
	head     checkpoint.Checkpoint
	read     func(g Gap, at uint64) result
	stop     time.Time
	failures int
	failure  error // the last one
	count    tally
}

// over reports whether the others wait for the next poll.
func (g *gapTries) over(ctx context.Context) bool {
	return g.failures >= strikes || time.Now().After(g.stop) || ctx.Err() != nil
}

// retryGap reads a gap again, and returns what is still missing. What cannot be had takes nothing
// from what is beside it.
func (t *turn) retryGap(ctx context.Context, tries *gapTries, g Gap) (rest []Gap) {
	var good []result
	failed, cut, asked := false, false, g
	if t.out.Err == nil {
		asked.Polls++
	}
	for at := g.From; at < g.To; {
		if tries.over(ctx) {
			left := g
			left.From = at
			rest, cut = append(rest, left), true
			break
		}
		res := tries.read(g, at)
		end := res.job.to
		if res.err != nil {
			end = max(res.read, at)
		}
		for k := range res.gaps {
			if g.Reason == KindEntryMismatch {
				// Wrong bytes that were served once are not undone by serving none.
				res.gaps[k].Reason = g.Reason
			}
			res.gaps[k].Polls, res.gaps[k].Since = g.Polls+1, g.Since
		}
		rest = append(rest, res.gaps...)
		if end > at {
			good = append(good, res)
		}
		if res.err != nil {
			tries.failures++
			tries.failure, failed = res.err, true
			left := asked
			if ctx.Err() != nil {
				left.Polls = g.Polls // nobody was asked
			}
			if left.From, left.To = end, min(res.job.to, g.To); left.From < left.To {
				rest = append(rest, left)
			}
		}
		at = res.job.to
	}
	if len(good) == 0 && (!cut || t.out.Err != nil || ctx.Err() != nil) {
		// It stays one gap. One of which a part was not asked for is parted: that comes first next time.
		if rest = []Gap{g}; failed && ctx.Err() == nil && asked.Polls > g.Polls {
			rest = []Gap{asked}
			t.batch.SetGaps = append(t.batch.SetGaps, asked)
		}
		return rest
	}
	booked := map[uint64]bool{}
	for _, res := range good {
		tries.count.add(res.tally)
		t.book(res, tries.head)
		for _, left := range res.gaps {
			booked[left.From] = true
		}
	}
	for _, left := range rest {
		if !booked[left.From] {
			t.batch.SetGaps = append(t.batch.SetGaps, left)
		}
	}
	t.batch.FilledGaps = append(t.batch.FilledGaps, g)
	t.batch.Coverage, t.batch.WatchSet, t.batch.Trust = append(t.batch.Coverage, without(g.Range, rangesOf(rest))...), t.watchSet, t.trust.Load().hash
	if len(rest) == 0 {
		t.log.Info("gap filled", "from", g.From, "to", g.To)
	}
	return rest
}

// judgeGaps opens, worsens and settles the incidents of gaps.
func (t *turn) judgeGaps(left []Gap) {
	mismatch, withheld := 0, 0
	for _, g := range left {
		t.out.Missing = true
		if g.Reason == KindEntryMismatch {
			mismatch++
			continue
		}
		withheld++
		if g.Polls < strikes {
			continue
		}
		summary := fmt.Sprintf("Over %d polls since %s log %s has not served entries %d to %d of its signed tree, or not so that they can be shown to be its own.", g.Polls, g.Since.Format(time.RFC3339), t.cfg.Name, g.From, g.To-1)
		t.raise(KindEntryWithheld, summary, map[string]any{"from": g.From, "to": g.To, "since": g.Since})
		if t.now.Sub(g.Since) > t.staleAfter() {
			t.worsen(KindEntryWithheld, summary)
		}
	}
	if mismatch == 0 {
		t.settle(KindEntryMismatch, "The log serves the entries that its tree commits to; the gap in the coverage is filled.")
	}
	if withheld == 0 {
		t.settle(KindEntryWithheld, "The log serves the missing entries; the gap in the coverage is filled.")
	}
}
