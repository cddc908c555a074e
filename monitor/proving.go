package monitor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// Entries are proven between two frontiers: that before them, and that behind them, which the log
// shows by a consistency proof alone. What does not fit between both is divided, at the sizes that the
// log serves proofs for, until what is missing or wrong stands by itself:
//
//	frontier ── fits ──┬── left out ──┬── fits ── frontier
//	                  proof          proof
//
// Between two sizes that are shown nothing can be hidden: what is not found to be right is a gap.

var (
	// errNotShown: the log serves no proof for the tree behind any of some entries.
	errNotShown = errors.New("the log serves no proof of what follows")
	// errLater: the time of the pass is over.
	errLater = errors.New("there is no time for more")
)

const (
	// patience is how many proofs may be refused in a row, and much of it that where it is known
	// over several polls that they are.
	patience     = 8
	muchPatience = 16
)

// fit is the leaf hashes of entries that are the next ones of the tree, and the frontier behind them.
type fit struct {
	hashes []checkpoint.Hash
	next   checkpoint.Frontier
}

func (p *provenReader) newResult() result {
	at := min(max(p.frontier.Size(), p.window.From), p.window.To)
	return result{job: job{from: at, to: at}, served: map[uint64][]byte{}}
}

// prove proves a batch that begins at the frontier, reads the entries, and moves the frontier on.
// With an error that wraps errNotShown, since the log shows no tree that ends with one of them, it returns
// the entries behind it. With any error, the result is what comes before that.
func (p *provenReader) prove(ctx context.Context, res *result, batch []ServedEntry) (rest []ServedEntry, err error) {
	defer func() { res.job.to = max(res.job.from, min(p.frontier.Size(), p.window.To)) }()
	if batch[0].Index != p.frontier.Size() {
		return nil, fmt.Errorf("entries from %d on do not follow %d", batch[0].Index, p.frontier.Size())
	}
	p.kept.begin()
	p.earlier, p.doubted, p.began = map[uint64][]ServedEntry{}, map[uint64]bool{}, p.frontier.Size()
	if f := p.fits(ctx, batch); f != nil {
		return nil, p.readAll(ctx, res, batch, f)
	} else if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	left := refetches
	if p.accused {
		left = 0
	}
	for len(batch) > 0 {
		n, end, err := p.lastShown(ctx, batch)
		if err != nil {
			return batch, err
		}
		if err := p.part(ctx, res, batch[:n], end, left); err != nil {
			return batch[p.frontier.Size()-batch[0].Index:], err
		}
		batch = batch[n:]
	}
	return nil, nil
}

// fits finds out whether entries are the next ones of the tree; nil if they are not, or that is not shown.
func (p *provenReader) fits(ctx context.Context, batch []ServedEntry) *fit {
	f := p.append(batch)
	if f == nil {
		return nil
	}
	size := f.next.Size()
	proof, err := p.prover(ctx).Consistency(size, p.head.Size())
	if err == nil {
		err = f.next.Within(p.head, proof)
	}
	if err == nil {
		return f
	}
	if from, _ := p.head.FrontierFrom(size); from == size && !errors.Is(err, checkpoint.ErrUnproven) && ctx.Err() == nil {
		p.kept.refuse(size, err) // the same proof
	}
	return nil
}

// append returns what the tree would be with entries; nil if some are missing.
func (p *provenReader) append(batch []ServedEntry) *fit {
	if countMissing(batch) > 0 {
		return nil
	}
	leaves := make([][]byte, len(batch))
	for i := range batch {
		leaves[i] = batch[i].Leaf
	}
	f := fit{hashes: checkpoint.LeafHashes(leaves)}
	f.next = p.frontier.Append(f.hashes...)
	return &f
}

func countMissing(list []ServedEntry) (n int) {
	for i := range list {
		if list[i].Leaf == nil {
			n++
		}
	}
	return n
}

// lastShown returns how many of the entries are before a frontier that the log shows, a late one of them,
// and that frontier.
func (p *provenReader) lastShown(ctx context.Context, list []ServedEntry) (int, checkpoint.Frontier, error) {
	at := list[0].Index
	size, f, err := p.firstShown(ctx, func(yield func(uint64) bool) {
		n := len(list)
		if !yield(at + uint64(n)) {
			return
		}
		for range min(3, n/provenChunk) {
			if !yield(at + uint64(n-p.chance.IntN(n/2))) {
				return
			}
		}
		for n > provenChunk {
			if n = n/4 + p.chance.IntN(n/2); !yield(at + uint64(n)) {
				return
			}
		}
		for n = min(len(list), provenChunk); n > 0; n-- {
			if !yield(at + uint64(n)) {
				return
			}
		}
		p.anywhere(at, at+uint64(len(list)), yield)
	})
	return int(size - min(size, at)), f, err
}

// anywhere yields some of the sizes in (from, to].
func (p *provenReader) anywhere(from, to uint64, yield func(uint64) bool) {
	for range 2 * muchPatience {
		if from >= to || !yield(from+1+p.chance.Uint64N(to-from)) {
			return
		}
	}
}

// firstShown returns the first of some sizes that the log shows, and the frontier there.
func (p *provenReader) firstShown(ctx context.Context, candidates iter.Seq[uint64]) (uint64, checkpoint.Frontier, error) {
	for size := range candidates {
		if p.kept.refused[size] != nil {
			continue
		}
		if !p.patient() {
			break
		}
		if f, err := p.shownAt(ctx, size); err == nil || ctx.Err() != nil {
			return size, f, err
		}
	}
	return 0, checkpoint.Frontier{}, notShown(p.frontier.Size(), p.kept.last)
}

func notShown(at uint64, cause error) error {
	if cause == nil {
		return fmt.Errorf("%w: from entry %d on", errNotShown, at)
	}
	return fmt.Errorf("%w: from entry %d on: %w", errNotShown, at, cause)
}

// patient reports whether another proof is asked for.
func (p *provenReader) patient() bool {
	switch {
	case p.over(p.deadline):
		return p.kept.row < patience/2
	case p.forgive.Load() > 0:
		return p.kept.row < muchPatience
	}
	return p.kept.row < patience
}

// shownAt returns the frontier of the first leaves of the tree, as the log shows it.
func (p *provenReader) shownAt(ctx context.Context, size uint64) (checkpoint.Frontier, error) {
	if size == p.frontier.Size() {
		return p.frontier, nil
	}
	if err := p.kept.refused[size]; err != nil {
		return checkpoint.Frontier{}, err
	}
	f, err := p.prover(ctx).frontierAt(p.head, size)
	if errors.Is(err, checkpoint.ErrUnproven) {
		p.kept.served = nil // one answer that was wrong is not what the log has to say
		f, err = p.prover(ctx).frontierAt(p.head, size)
	}
	if err == nil {
		p.kept.row = 0
	} else if ctx.Err() == nil {
		p.kept.refuse(size, err)
	}
	return f, err
}

func (p *provenReader) prover(ctx context.Context) prover { return prover{ctx, p.runner, &p.kept} }

// part reads entries between the frontier and another one, and books as gaps what is not shown to be
// right: what is left out, and bytes that are wrong, once they were asked for again up to left times.
// What comes with an entry, a path and a note, may be no good, or of a tree that this replica does not
// know yet, and says nothing against it.
func (p *provenReader) part(ctx context.Context, res *result, list []ServedEntry, end checkpoint.Frontier, left int) error {
	for {
		if p.frontier.Size() >= p.began+provenChunk && p.over(p.deadline) {
			return errLater
		}
		if f := p.append(list); f != nil && f.next.Root() == end.Root() {
			return p.readAll(ctx, res, list, f)
		}
		missing := countMissing(list)
		switch {
		case missing == 0 && left > 0 && len(list) <= provenChunk:
			left--
			if err := p.askAgain(ctx, list); err != nil {
				return err
			}
			continue
		case missing == len(list):
			p.goPast(res, list, end)
			return nil
		case len(list) == 1 && len(p.earlier[list[0].Index]) > 0:
			e := p.earlier[list[0].Index]
			list[0], p.earlier[list[0].Index] = e[0], e[1:]
			continue
		case len(list) == 1 && p.doubted[list[0].Index]:
			p.goPast(res, list, end)
			return nil
		case len(list) == 1:
			p.accuse(ctx, res, &list[0], end)
			return nil
		}
		n, middle, err := p.divide(ctx, list)
		if err != nil {
			return err
		}
		if n == 0 {
			p.goPast(res, list, end)
			return nil
		}
		if err := p.part(ctx, res, list[:n], middle, left); err != nil {
			return err
		}
		list = list[n:]
	}
}

// askAgain fetches entries again, some of which are wrong. What is left out of the answer stays as it
// was, and is not confirmed by that.
func (p *provenReader) askAgain(ctx context.Context, list []ServedEntry) error {
	from, to := list[0].Index, list[len(list)-1].Index+1
	again, err := p.fetch(ctx, from, to)
	if err != nil {
		return fmt.Errorf("asking again for entries %d to %d, whose bytes are not those of the tree: %w", from, to-1, err)
	}
	for i := range list {
		if p.doubted[list[i].Index] = again[i].Leaf == nil; again[i].Leaf == nil {
			continue
		}
		if !bytes.Equal(list[i].Leaf, again[i].Leaf) {
			p.earlier[list[i].Index] = append(p.earlier[list[i].Index], list[i])
		}
		list[i] = again[i]
	}
	return nil
}

// divide returns where entries are divided, and the frontier there: before or behind what is left out,
// or in the middle, or as near to that as the log shows one. 0: it shows none in between.
func (p *provenReader) divide(ctx context.Context, list []ServedEntry) (int, checkpoint.Frontier, error) {
	best := len(list) / 2
	for i := range list {
		if (list[i].Leaf == nil) != (list[0].Leaf == nil) {
			best = i
			break
		}
	}
	at := list[0].Index
	size, f, err := p.firstShown(ctx, func(yield func(uint64) bool) {
		// Far away soon, and then all: proofs are refused where something is to be hidden.
		far := func(away int) int { return 2*away + 1 + p.chance.IntN(away+1) }
		near := func(away int) int { return away + 1 }
		for _, next := range []func(int) int{far, near} {
			for away := 0; away < len(list); away = next(away) {
				for _, n := range []int{best + away, best - away} {
					if n > 0 && n < len(list) && !yield(at+uint64(n)) {
						return
					}
				}
			}
		}
	})
	if errors.Is(err, errNotShown) && (p.patient() || p.forgiven()) {
		return 0, f, nil
	}
	return int(size - min(size, at)), f, err
}

// goPast goes past entries of which none is shown to be right.
func (p *provenReader) goPast(res *result, list []ServedEntry, end checkpoint.Frontier) {
	p.miss(res, Range{list[0].Index, list[len(list)-1].Index + 1}, KindEntryWithheld)
	p.frontier = end
}

// accuse goes past an entry whose bytes are not those of the tree.
func (p *provenReader) accuse(ctx context.Context, res *result, e *ServedEntry, end checkpoint.Frontier) {
	if p.miss(res, Range{e.Index, e.Index + 1}, KindEntryMismatch) {
		if len(res.served) < maxServed {
			res.served[e.Index] = e.Leaf
		}
		if promise := p.brokenPromise(ctx, e); promise != nil && len(res.broken) < maxServed {
			res.broken = append(res.broken, *promise)
		}
	}
	p.frontier = end
}

// miss books a gap, and reports whether it is of the window.
func (p *provenReader) miss(res *result, missing Range, reason string) bool {
	missing.From, missing.To = max(missing.From, p.window.From), min(missing.To, p.window.To)
	if missing.From >= missing.To {
		return false
	}
	p.log.Warn("entries of the signed tree could not be had; the scan goes on past them", "from", missing.From, "to", missing.To, "reason", reason)
	if n := len(res.gaps); n > 0 && res.gaps[n-1].To == missing.From && res.gaps[n-1].Reason == reason {
		res.gaps[n-1].To = missing.To
		return true
	}
	res.gaps = append(res.gaps, Gap{Range: missing, Reason: reason, Polls: 1, Since: p.opts.Now().UTC()})
	return true
}

// enter takes the frontier to before an entry, or to entries before that, which are proven once
// more: the log need not show every size.
func (p *provenReader) enter(ctx context.Context, at uint64) error {
	if size := p.frontier.Size(); size <= at && at-size < provenChunk {
		return nil
	}
	p.kept.begin()
	_, f, err := p.firstShown(ctx, func(yield func(uint64) bool) {
		for back := uint64(0); back <= min(at, provenChunk); back++ {
			if !yield(at - back) {
				return
			}
		}
		for back := provenChunk; back < p.farthest(); back = back*3/2 + p.chance.IntN(back) {
			if back := min(uint64(back), at); !yield(at-back) || back == at {
				return
			}
		}
	})
	if err == nil {
		p.frontier = f
	}
	return err
}

// probe asks whether the log shows any size in what would be read next. The head, where it is that near,
// needs no proof.
func (p *provenReader) probe(ctx context.Context) error {
	if p.head.Size()-p.frontier.Size() <= uint64(p.most) {
		return nil
	}
	p.kept.begin()
	_, _, err := p.firstShown(ctx, func(yield func(uint64) bool) {
		p.anywhere(p.frontier.Size(), p.frontier.Size()+uint64(p.most), yield)
	})
	return err
}

// goOn takes the frontier on to the next of some sizes that the log shows, and books what is before it.
func (p *provenReader) goOn(ctx context.Context, from uint64) (result, error) {
	p.kept.begin()
	size, f, err := p.firstShown(ctx, func(yield func(uint64) bool) {
		for ahead := uint64(1); from+ahead < p.head.Size(); ahead = 2*ahead + p.chance.Uint64N(ahead) {
			if !yield(from + ahead) {
				return
			}
		}
		if yield(p.head.Size()) {
			p.anywhere(from, p.head.Size(), yield)
		}
	})
	if err != nil {
		return result{}, err
	}
	p.frontier = f
	res := p.newResult()
	res.job.from = from
	p.miss(&res, Range{from, size}, KindEntryWithheld)
	return res, nil
}
