package monitor

import (
	"context"
	"errors"
	"fmt"
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

// far reports whether the scan should leap.
func (t *turn) far() bool {
	leap := t.opts.LeapAfter
	if leap == 0 {
		leap = leapTiles
		if t.way().Proofs != nil {
			leap = leapProofs
		}
	}
	return t.old.HeadSize-t.old.Scanned > leap && len(t.old.Backlog) < maxBacklog
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
	for first := true; ; first = false {
		st, err := r.opts.Store.State(ctx, r.cfg.ID)
		if err != nil || len(st.Backlog) == 0 {
			return err
		}
		if !first && r.over(deadline) {
			out.Behind = true
			return nil
		}
		done, err := r.readPart(ctx, head, tree, deadline, st, out)
		if err != nil || !done {
			out.Behind = true
			return err
		}
	}
}

// over reports whether a scan that has a deadline is to make room, since it has
// passed or since another pass waits.
func (r *runner) over(deadline time.Time) bool {
	return !deadline.IsZero() && (r.waiting.Load() > 0 || !r.opts.Now().Before(deadline))
}

// readPart reads the newest part of the backlog, and reports whether it came to
// its end.
func (r *runner) readPart(ctx context.Context, head checkpoint.Checkpoint, tree *checkpoint.Tree, deadline time.Time, st State, out *Outcome) (done bool, err error) {
	gaps, err := r.opts.Store.Gaps(ctx, r.cfg.ID)
	if err != nil {
		return false, err
	}
	part := st.Backlog[len(st.Backlog)-1]
	rec := &recorder{runner: r, head: head, epoch: st.Epoch, out: out, history: true, tree: tree, at: part.From, from: part.From, gaps: gaps, began: r.opts.Now()}
	take := func(res result) error { return rec.take(ctx, res) }
	forgive := int32(0)
	if stuck := st.StuckBehind; stuck != nil && stuck.Scanned == part.From && stuck.Polls >= strikes-1 && out.Err == nil {
		forgive = maxForgiven
	}
	var runErr error
	if r.way().Proofs != nil {
		runErr = r.readProven(ctx, head, st.Epoch, part, deadline, forgive, take)
	} else {
		s := r.newSpan(tree, st.Epoch)
		s.deadline = deadline
		s.forgive.Store(forgive)
		_, runErr = s.run(ctx, part.From, part.To, take)
	}
	last, cancel := grace(ctx, lastWrite)
	defer cancel()
	if err := rec.flush(last); err != nil {
		return false, errors.Join(err, runErr)
	}
	moved := rec.at > part.From
	out.Moved = out.Moved || moved
	if ctx.Err() == nil {
		if err := r.stuckBehind(last, part.From, runErr != nil && !moved && out.Err == nil, out); err != nil {
			return false, errors.Join(err, runErr)
		}
	}
	if runErr != nil {
		return false, fmt.Errorf("reading history: %w", runErr)
	}
	return rec.at == part.To, nil
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
