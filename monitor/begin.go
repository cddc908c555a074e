package monitor

import (
	"context"
	"fmt"
	"strconv"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// begin takes the first checkpoint of a log as it is, and proves the frontier
// of the place where coverage is to begin against it.
func (t *turn) begin(ctx context.Context, c checkpoint.Checkpoint) error {
	start, err := startIndex(t.cfg.Start, c.Size())
	if err != nil {
		return err
	}
	if t.cfg.ConsistencyOnly {
		start = c.Size()
	}
	if err := t.rebase(ctx, c, start); err != nil {
		return fmt.Errorf("reading the first checkpoint's tree: %w", err)
	}
	t.next.Begun = t.now.UTC()
	t.out.Begun, t.out.From = true, start
	t.log.Info("log seen for the first time", "coverage_begins", start, "size", c.Size())
	return nil
}

// compare judges a checkpoint; archived are the tiles that were kept with it.
func (r *runner) compare(ctx context.Context, known checkpoint.Known, c checkpoint.Checkpoint, kept checkpoint.TileReader) (checkpoint.Step, []checkpoint.Tile, error) {
	if r.way().Proofs != nil {
		return checkpoint.Step{}, nil, known.CompareProven(c, prover{ctx: ctx, r: r}, r.way().Log.Open)
	}
	return known.Compare(c, r.served(ctx), kept)
}

// rebase makes a checkpoint the head, with everything before start taken as read.
func (t *turn) rebase(ctx context.Context, c checkpoint.Checkpoint, start uint64) error {
	var frontier checkpoint.Frontier
	var err error
	t.next.HeadPeaks, t.next.Link = nil, nil
	if t.way().Proofs != nil {
		frontier, err = t.frontierAt(ctx, c, start)
	} else {
		frontier, err = t.openTree(ctx, c, start)
	}
	if err != nil {
		return err
	}
	t.next.Start, t.next.Scanned, t.next.Peaks = start, start, hexes(frontier.Peaks())
	t.next.Head, t.next.HeadSize, t.next.HeadAt = string(c.Raw()), c.Size(), t.now.UTC()
	if c.Frozen() {
		t.next.Frozen = t.next.Head
	}
	return nil
}

// openTree reads what is to be kept of a log with tiles whose reading begins at
// start.
func (t *turn) openTree(ctx context.Context, c checkpoint.Checkpoint, start uint64) (checkpoint.Frontier, error) {
	tree, err := checkpoint.OpenTree(c, t.served(ctx))
	if err != nil {
		return checkpoint.Frontier{}, err
	}
	frontier, err := tree.Frontier(start)
	if err != nil {
		return frontier, err
	}
	if t.batch.Tiles, err = tree.EdgeTiles(start); err != nil {
		return frontier, err
	}
	link, err := tree.Link(start)
	if err != nil {
		return frontier, err
	}
	t.next.HeadPeaks, t.next.Link = hexes(tree.Peaks()), hexes(link)
	return frontier, nil
}

func startIndex(start string, size uint64) (uint64, error) {
	switch start {
	case "", "latest":
		return size, nil
	case "first":
		return 0, nil
	}
	n, err := strconv.ParseUint(start, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("start %q is neither latest, first nor an index", start)
	}
	if n > size {
		return 0, fmt.Errorf("start %d lies beyond the log, which has %d entries", n, size)
	}
	return n, nil
}

// advance moves the head. The scan follows in transactions of its own: a crash
// must not forget what the log has signed.
func (t *turn) advance(ctx context.Context, c checkpoint.Checkpoint, step checkpoint.Step) error {
	t.next.Head, t.next.HeadSize, t.next.HeadAt = string(c.Raw()), c.Size(), t.now.UTC()
	t.next.HeadPeaks, t.next.Link = hexes(step.Peaks), hexes(step.Link)
	if c.Frozen() {
		t.next.Frozen = t.next.Head
	}
	t.settle(KindStale, fmt.Sprintf("The log has grown to %d entries.", c.Size()))
	if !t.cfg.ConsistencyOnly {
		return nil
	}
	return t.skip(ctx, c)
}

// skip takes the scanned size to a head on proofs alone, for a log whose entries
// are not read. A backlog of earlier days is nobody's task any more; the coverage
// says so.
func (t *turn) skip(ctx context.Context, c checkpoint.Checkpoint) error {
	t.next.Backlog, t.next.StuckBehind = nil, nil
	if t.way().Proofs != nil {
		frontier, err := t.frontierAt(ctx, c, c.Size())
		if err != nil {
			return err
		}
		t.next.Scanned, t.next.Peaks = c.Size(), hexes(frontier.Peaks())
		return nil
	}
	tree, err := checkpoint.OpenTree(c, t.served(ctx))
	if err != nil {
		return err
	}
	if t.batch.Tiles, err = tree.EdgeTiles(c.Size()); err != nil {
		return err
	}
	t.next.Scanned, t.next.Peaks, t.next.Link = c.Size(), t.next.HeadPeaks, nil
	return nil
}
