package monitor

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// scanProven reads what lies between the scanned size and the head.
func (t *turn) scanProven(ctx context.Context, known checkpoint.Known, scanFor time.Duration) error {
	r := t.runner
	gaps, err := r.opts.Store.Gaps(ctx, r.cfg.ID)
	if err != nil {
		return err
	}
	if len(gaps) == 0 && t.old.Unread() == 0 {
		return nil // nothing is asked of the log
	}
	p, err := r.newProvenReader(ctx, known.Head, t.old)
	if err != nil {
		return err
	}
	p.retry = true
	gapErr := t.retryGaps(ctx, known.Head, func(g Gap, at uint64) result { return p.again(ctx, g, at) })
	p.retry, p.accused, p.frontier = false, false, known.Scanned
	if stuck := t.old.Stuck; stuck != nil && stuck.Scanned == t.old.Scanned && t.out.Err == nil {
		if p.stuck = stuck.Polls; p.stuck >= strikes-1 {
			p.forgive.Store(maxForgiven)
		}
	}
	if t, err = t.commitAndGoOn(ctx); err != nil {
		return err
	}
	deadline := time.Time{}
	if scanFor > 0 {
		deadline = r.opts.Now().Add(scanFor)
		if t.far() {
			if t, err = t.leap(ctx, known.Head, nil); err != nil {
				return err
			}
			if known, err = r.known(ctx, t.old); err != nil {
				return err
			}
			p.frontier, p.stuck = known.Scanned, 0
			p.forgive.Store(0)
		}
	}
	reached, runErr := p.run(ctx, known.Scanned.Size(), known.Head.Size(), deadline, func(res result) error {
		t.tally(res.tally)
		t.book(res, known.Head)
		t.next.Scanned, t.next.Peaks, t.next.Link = p.frontier.Size(), hexes(p.frontier.Peaks()), nil
		t.batch.Coverage, t.batch.WatchSet, t.batch.Trust = without(Range{res.job.from, res.job.to}, rangesOf(t.batch.SetGaps)), t.watchSet, t.trust.Load().hash
		last, cancel := grace(ctx, lastWrite)
		defer cancel()
		next, err := t.commitAndGoOn(last)
		if err == nil {
			t = next
		}
		return err
	})
	t.out.Behind, t.out.Moved = reached < known.Head.Size(), reached > known.Scanned.Size()
	last, cancel := grace(ctx, lastWrite)
	defer cancel()
	if err := t.stuck(last, runErr, ctx.Err() != nil, t.out.Moved); err != nil {
		return errors.Join(err, runErr)
	}
	if runErr != nil {
		return runErr
	}
	if scanFor >= 0 && !t.out.Behind {
		t.out.behindErr = r.readHistory(ctx, known.Head, nil, deadline, t.out)
	}
	t.out.behindErr = errors.Join(t.out.behindErr, gapErr)
	return nil
}

// again reads some entries of a gap, from at on. What one of them lacks takes nothing from the others.
func (p *provenReader) again(ctx context.Context, g Gap, at uint64) result {
	to := min(g.To, at+provenChunk)
	p.window, p.accused, p.deadline = Range{at, g.To}, g.Reason == KindEntryMismatch, time.Time{}
	res := result{job: job{from: at, to: to}, served: map[uint64][]byte{}}
	if g.Polls >= strikes {
		p.forgive.Store(maxForgiven)
		defer p.forgive.Store(0)
	}
	list, err := p.fetch(ctx, at, to)
	if err != nil {
		res.err = err
		return res
	}
	if countMissing(list) == len(list) {
		p.miss(&res, Range{at, to}, KindEntryWithheld)
		return res
	}
	if err := p.enter(ctx, at); err != nil {
		res.err, res.job.to = err, p.nextShown(ctx, at, g.To)
		return res
	}
	res.job.to = at
	err = p.readOn(ctx, list, to, func(more result) error { res.add(more); return nil })
	switch res.read = res.job.to; {
	case err == nil, res.read >= to, errors.Is(err, errNotShown) && res.read > at:
		// Either all of it was read, or the rest is asked for with what follows.
	case errors.Is(err, errNotShown):
		res.err, res.job.to = err, p.nextShown(ctx, at, g.To)
	default:
		res.err, res.job.to = err, res.read+1
	}
	return res
}

// nextShown returns a size behind at from which entries may be proven, or to if none is found: what is
// not shown is one failure, and not one for each of its parts.
func (p *provenReader) nextShown(ctx context.Context, at, to uint64) uint64 {
	p.kept.begin()
	size, f, err := p.firstShown(ctx, func(yield func(uint64) bool) {
		for size := at + 1; size <= min(at+provenChunk, to); size++ {
			if !yield(size) {
				return
			}
		}
		p.anywhere(at, to, yield)
	})
	if err != nil {
		return to
	}
	p.frontier = f
	return size
}

// add adds what was read behind it.
func (r *result) add(more result) {
	r.job.to = more.job.to
	r.findings, r.gaps = append(r.findings, more.findings...), append(r.gaps, more.gaps...)
	r.broken, r.held = append(r.broken, more.broken...), append(r.held, more.held...)
	r.tally.add(more.tally)
	maps.Copy(r.served, more.served)
}

// readProven reads a range of the verified tree, beside the state of the log.
// It is one of several beside each other, which share requests and memory. stuck is over how many polls
// nothing of it could be read.
func (r *runner) readProven(ctx context.Context, head checkpoint.Checkpoint, st State, part Range, beside, stuck int, deadline time.Time, take func(result) error) error {
	ctx = r.way().Proofs.Behind(ctx)
	p, err := r.newProvenReader(ctx, head, st)
	if err != nil {
		return err
	}
	p.parallel, p.most, p.stuck = max(p.parallel/beside, 1), provenBatch/beside, stuck
	if stuck >= strikes-1 {
		p.forgive.Store(maxForgiven)
	}
	_, err = p.run(ctx, part.From, part.To, deadline, take)
	return err
}
