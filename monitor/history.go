package monitor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// History is read behind the head: new entries come first. A scan that is far
// behind, since all of a log was asked for or after a long outage, leaps to the
// head. What it leapt over is the backlog, and is read with the time that new
// entries leave, the newest part first.

const (
	// A scan leaps when this many entries are before it: a minute or two of
	// reading, which is what new entries may have to wait.
	leapTiles  = 1_000_000
	leapProofs = 20_000
	// maxBacklog bounds the parts of a backlog: with as many, the scan goes on in
	// order.
	maxBacklog = 256
)

// unread is how many entries of the verified tree are still to be read.
func (st *State) Unread() uint64 {
	n := st.HeadSize - st.Scanned
	for _, part := range st.Backlog {
		n += part.To - part.From
	}
	return n
}

func (r *runner) leapAfter() uint64 {
	switch {
	case r.opts.LeapAfter != 0:
		return r.opts.LeapAfter
	case r.way().Proofs != nil:
		return leapProofs
	}
	return leapTiles
}

// far reports whether the scan should leap.
func (t *turn) far() bool {
	return t.old.HeadSize-t.old.Scanned > t.leapAfter() && len(t.old.Backlog) < maxBacklog
}

// leap takes the scan to the head and books what is in between as backlog. Where
// the log does not serve what that takes, the scan goes on in order.
func (t *turn) leap(ctx context.Context, head checkpoint.Checkpoint, tree *checkpoint.Tree) (*turn, error) {
	size := head.Size()
	peaks := t.old.HeadPeaks
	var err error
	if tree != nil {
		t.batch.Tiles, err = tree.EdgeTiles(size)
	} else {
		var frontier checkpoint.Frontier
		frontier, err = t.frontierAt(ctx, head, size)
		peaks = hexes(frontier.Peaks())
	}
	if err != nil {
		t.log.Warn("the log did not serve what it takes to read new entries first; they come in their turn", "error", err)
		return t, nil
	}
	t.log.Warn("far behind the head: new entries are read first, and those before them behind them", "from", t.old.Scanned, "to", size, "show", "sigwarden status")
	t.next.Backlog = merge(t.old.Backlog, []Range{{t.old.Scanned, size}})
	t.next.Scanned, t.next.Peaks, t.next.Link = size, peaks, nil
	return t.commitAndGoOn(ctx)
}

// readHistory reads the backlog until the deadline, at least a little of it; to
// its end where there is no deadline.
func (r *runner) readHistory(ctx context.Context, head checkpoint.Checkpoint, tree *checkpoint.Tree, deadline time.Time, out *Outcome) error {
	failed := map[uint64]bool{} // segments, by where they begin: the others are read all the same
	var failure error
	rounds, stuck := 0, Stuck{Scanned: math.MaxUint64} // rounds that refused proofs made, or may have
	for first := true; ; first = false {
		st, err := r.opts.Store.State(ctx, r.cfg.ID)
		if err != nil || len(st.Backlog) == 0 {
			return err
		}
		parts := st.Backlog[len(st.Backlog)-1:]
		if r.way().Proofs != nil {
			parts = segments(st.Backlog, max(r.leapAfter()*2/5, provenChunk), r.cfg.Parallel, failed)
		}
		if len(parts) == 0 || !first && r.over(deadline) {
			out.Behind = true
			return failure
		}
		if first && st.StuckBehind != nil && out.Err == nil {
			stuck = *st.StuckBehind
		}
		before := len(failed)
		done, err := r.readParts(ctx, head, tree, deadline, st, parts, stuck, failed, out)
		failure = errors.Join(failure, err)
		if stuck.Polls >= strikes-1 || len(failed) > before {
			rounds++
		}
		if err != nil && (r.way().Proofs == nil || len(failed) == before || ctx.Err() != nil) || err == nil && !done || rounds >= strikes && r.way().Proofs != nil && !deadline.IsZero() {
			out.Behind = true
			return failure
		}
	}
}

// over reports whether a scan that has a deadline is to make room, since it has
// passed or since another pass waits.
func (r *runner) over(deadline time.Time) bool {
	return !deadline.IsZero() && (r.waiting.Load() > 0 || !r.opts.Now().Before(deadline))
}

// maxSegments is in how many segments at a time a log of proofs is read: each is proven by itself,
// from a frontier of its own. They share the requests that may be under way.
const maxSegments = 4

// segments returns what of a backlog is to be read together, in segments of a length: what was left
// of earlier ones first, and then the newest part, from its beginning on.
// Those that have failed, by where they begin, are left out.
func segments(backlog []Range, length uint64, parallel int, failed map[uint64]bool) []Range {
	most := min(max(parallel/2, 1), maxSegments)
	var out []Range
	add := func(part Range) {
		if len(out) < most && !failed[part.From] {
			out = append(out, part)
		}
	}
	for _, part := range slices.Backward(backlog) {
		if part.To-part.From <= length {
			add(part)
		}
	}
	for _, part := range slices.Backward(backlog) {
		for at := part.From; part.To-part.From > length && at < part.To && len(out) < most; at += length {
			add(Range{at, min(at+length, part.To)})
		}
	}
	return out
}

// readParts reads parts of the backlog beside each other, and reports whether it came to the end of
// all. Those that failed without having come on at all are added to failed.
func (r *runner) readParts(ctx context.Context, head checkpoint.Checkpoint, tree *checkpoint.Tree, deadline time.Time, st State, parts []Range, wasStuck Stuck, failed map[uint64]bool, out *Outcome) (done bool, err error) {
	gaps, err := r.opts.Store.Gaps(ctx, r.cfg.ID)
	if err != nil {
		return false, err
	}
	var (
		booking sync.Mutex // one after the other
		group   sync.WaitGroup
		stuckAt = uint64(math.MaxUint64) // the first part that failed without having come on
		freed   bool                     // the part that was stuck has come on
		runErr  error
		lostErr error // what was read could not be stored
	)
	// Of several that are stuck, the first of a pass is counted, and all are forgiven.
	counts := len(failed) == 0 && out.Err == nil
	done = true
	for _, part := range parts {
		rec := &recorder{runner: r, head: head, epoch: st.Epoch, out: out, history: true, tree: tree, at: part.From, from: part.From, gaps: gaps, began: r.opts.Now()}
		take := func(res result) error {
			booking.Lock()
			defer booking.Unlock()
			return rec.take(ctx, res)
		}
		group.Go(func() {
			var readErr error
			if r.way().Proofs != nil {
				readErr = r.readProven(ctx, head, st, part, len(parts), wasStuck.Polls, deadline, take)
			} else {
				s := r.newSpan(tree, st.Epoch)
				s.deadline = deadline
				if wasStuck.Polls >= strikes-1 {
					s.forgive.Store(maxForgiven)
				}
				_, readErr = s.run(ctx, part.From, part.To, take)
			}
			booking.Lock()
			defer booking.Unlock()
			last, cancel := grace(ctx, lastWrite)
			defer cancel()
			lostErr = errors.Join(lostErr, rec.flush(last))
			out.Moved = out.Moved || rec.at > part.From
			switch {
			case rec.at > part.From:
				freed = freed || part.From == wasStuck.Scanned
			case readErr != nil:
				failed[part.From], stuckAt = true, min(stuckAt, part.From)
			}
			done, runErr = done && rec.at == part.To, errors.Join(runErr, readErr)
		})
	}
	group.Wait()
	if lostErr != nil {
		return false, errors.Join(lostErr, runErr)
	}
	if stuck := counts && stuckAt != math.MaxUint64; ctx.Err() == nil && (stuck || freed) {
		last, cancel := grace(ctx, lastWrite)
		defer cancel()
		if err := r.stuckBehind(last, stuckAt, stuck, out); err != nil {
			return false, errors.Join(err, runErr)
		}
	}
	if runErr != nil {
		return false, fmt.Errorf("reading history: %w", runErr)
	}
	return done, nil
}

// fullTiles returns the full hash tiles above the leaves that cover a part of
// what was read: a leap kept those at its edge alone, and a smaller fork is told
// by hashes of our own. What the log does not serve is a gap already.
func fullTiles(tree *checkpoint.Tree, part Range) []checkpoint.Tile {
	var out []checkpoint.Tile
	for level := uint(1); tree.Head().Size()>>(8*(level+1)) > 0; level++ {
		for index := part.From >> (8 * (level + 1)); index <= (part.To-1)>>(8*(level+1)); index++ {
			if hashes, err := tree.Tile(level, index); err == nil && len(hashes) == checkpoint.TileWidth {
				out = append(out, checkpoint.Tile{Level: level, Index: index, Hashes: hashes})
			}
		}
	}
	return out
}

// stuckBehind counts the polls over which the backlog did not come on although
// the log answered.
func (r *runner) stuckBehind(ctx context.Context, at uint64, stuck bool, out *Outcome) error {
	t, err := r.newTurn(ctx, out)
	if err != nil || !stuck && t.old.StuckBehind == nil {
		return err
	}
	t.next.StuckBehind = nil
	if stuck {
		n := 0
		if old := t.old.StuckBehind; old != nil && old.Scanned == at {
			n = old.Polls
		}
		t.next.StuckBehind = &Stuck{Scanned: at, Polls: n + 1}
	}
	return t.commit(ctx)
}
