package monitor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// maxKinds bounds the undecodable kinds that are told apart: a log can invent
// as many as it likes.
const maxKinds = 100

// maxGapTime bounds how long gaps are tried again before the scan goes on.
const maxGapTime = 10 * time.Second

// Findings are committed before they take much memory: an attacker can log
// thousands of entries with our subject.
const (
	maxFindingBytes = 8 << 20
	findingOverhead = 4 << 10
)

// maxGapsAPoll bounds how many gaps are tried again in one poll.
const maxGapsAPoll = 256

// scanHead reads what lies between the scanned size and the head, after it has
// tried the gaps again, and then history: for the time given, if that is
// positive; to the end, if it is zero; without history, if it is negative.
func (r *runner) scanHead(ctx context.Context, scanFor time.Duration, out *Outcome) error {
	t, err := r.newTurn(ctx, out)
	if err != nil {
		return err
	}
	if t.old.Head == "" || t.old.Halted != "" || r.cfg.ConsistencyOnly && t.old.Unread() == 0 {
		return nil
	}
	known, err := r.known(ctx, t.old)
	if err != nil {
		return err
	}
	if r.cfg.ConsistencyOnly {
		// Entries were read until the configuration changed.
		if err := t.skip(ctx, known.Head); err != nil {
			return err
		}
		return t.commit(ctx)
	}
	if r.way().Proofs != nil {
		return t.scanProven(ctx, known, scanFor)
	}
	tree, err := known.Tree(r.served(ctx))
	if err != nil {
		return fmt.Errorf("stored state of log %s: %w", r.cfg.Name, err)
	}
	again := r.newSpan(tree, t.old.Epoch)
	again.retry = true
	gapErr := t.retryGaps(ctx, known.Head, func(g Gap, at uint64) result {
		again.accused = g.Reason == KindEntryMismatch
		return again.bundle(ctx, again.job(at, g.To))
	})
	if t, err = t.commitAndGoOn(ctx); err != nil {
		return err
	}
	deadline := time.Time{}
	if scanFor > 0 {
		deadline = r.opts.Now().Add(scanFor)
		if t.far() {
			if t, err = t.leap(ctx, known.Head, tree); err != nil {
				return err
			}
			if known, err = r.known(ctx, t.old); err != nil {
				return err
			}
			if tree, err = known.Tree(r.served(ctx)); err != nil {
				return fmt.Errorf("stored state of log %s: %w", r.cfg.Name, err)
			}
		}
	}
	s := r.newSpan(tree, t.old.Epoch)
	s.deadline = deadline
	if stuck := t.old.Stuck; stuck != nil && stuck.Scanned == t.old.Scanned && stuck.Polls >= strikes-1 && out.Err == nil {
		// The log answers polls, and has not answered for what comes next over
		// several of them: go past it.
		s.forgive.Store(maxForgiven)
	}
	c := &committer{turn: t, tree: tree, frontier: known.Scanned, began: r.opts.Now()}
	reached, runErr := s.run(ctx, known.Scanned.Size(), known.Head.Size(), func(res result) error { return c.take(ctx, res) })
	// What was read is kept, whatever ended the scan: a last write that is
	// bounded where the end was asked for.
	last, cancel := grace(ctx, lastWrite)
	defer cancel()
	if err := c.finish(last); err != nil {
		return errors.Join(err, runErr)
	}
	out.Behind, out.Moved = reached < known.Head.Size(), reached > known.Scanned.Size()
	if err := c.turn.stuck(last, runErr, ctx.Err() != nil, reached > known.Scanned.Size()); err != nil {
		return errors.Join(err, runErr)
	}
	if runErr != nil {
		return runErr
	}
	if scanFor >= 0 && !out.Behind {
		out.behindErr = r.readHistory(ctx, known.Head, tree, deadline, out)
	}
	out.behindErr = errors.Join(out.behindErr, gapErr)
	return nil
}

// stuck counts the polls over which the scan did not come on although the log
// answered them.
func (t *turn) stuck(ctx context.Context, runErr error, stopped, moved bool) error {
	switch {
	case stopped || runErr != nil && t.out.Err != nil:
		return nil // says nothing about the log, or that it does not answer at all
	case runErr == nil || moved:
		t.next.Stuck = nil
	default:
		n := 0
		if t.old.Stuck != nil && t.old.Stuck.Scanned == t.old.Scanned {
			n = t.old.Stuck.Polls
		}
		t.next.Stuck = &Stuck{Scanned: t.old.Scanned, Polls: n + 1}
	}
	return t.commit(ctx)
}

// commitAndGoOn commits a turn and begins the next one from what it left.
func (t *turn) commitAndGoOn(ctx context.Context) (*turn, error) {
	if err := t.commit(ctx); err != nil {
		return nil, err
	}
	next := &turn{old: t.next, next: t.next, out: t.out}
	next.desk = desk{runner: t.runner, now: t.opts.Now(), open: t.open, batch: &next.batch}
	next.next.Kinds, next.next.Streaks = maps.Clone(t.next.Kinds), maps.Clone(t.next.Streaks)
	return next, nil
}

// committer gathers bundles and commits them in order.
type committer struct {
	turn     *turn
	tree     *checkpoint.Tree
	frontier checkpoint.Frontier
	began    time.Time

	chunks  []checkpoint.Chunk
	pending int
	bytes   int // of findings
	tally   tally
	failed  bool // a commit failed: what it held is read again by the next pass
	// held are full tiles of leaf hashes, the newest that are to be kept. They are stored at the end
	// of a pass: most of those of a long one would be deleted by the next commit.
	held []checkpoint.Tile
	last bool // the commit that comes is that of the end
}

func (c *committer) take(ctx context.Context, res result) error {
	if res.jump {
		return c.jump(ctx, res)
	}
	c.chunks = append(c.chunks, res.chunk)
	c.pending += int(res.job.to - res.job.from)
	c.tally.add(res.tally)
	c.turn.book(res, c.tree.Head())
	for _, f := range res.findings {
		c.bytes += len(f.Leaf) + findingOverhead
	}
	if c.bytes < maxFindingBytes && c.pending < c.turn.opts.CommitEvery && c.turn.opts.Now().Sub(c.began) < commitAfter {
		return nil
	}
	return c.flush(ctx)
}

// jump goes on behind entries of which not even the hashes could be had. The
// frontier there is read from the tree, proven like any other node.
func (c *committer) jump(ctx context.Context, res result) error {
	if err := c.flush(ctx); err != nil {
		return err
	}
	frontier, err := c.tree.Frontier(res.job.to)
	if err != nil {
		return fmt.Errorf("going on behind entry %d: %w", res.job.to, err)
	}
	edges, err := c.tree.EdgeTiles(res.job.to)
	if err != nil {
		return fmt.Errorf("going on behind entry %d: %w", res.job.to, err)
	}
	c.turn.book(res, c.tree.Head())
	c.turn.batch.Tiles = edges
	return c.move(ctx, frontier)
}

// book puts findings and gaps of a bundle into the batch of the turn.
func (t *turn) book(res result, head checkpoint.Checkpoint) {
	t.batch.Findings = append(t.batch.Findings, res.findings...)
	t.batch.SetGaps = append(t.batch.SetGaps, res.gaps...)
	for _, g := range res.gaps {
		t.out.Missing = true
		if g.Reason == KindEntryMismatch {
			t.entryMismatch(g, res, head)
		}
	}
}

func (t *turn) entryMismatch(g Gap, res result, head checkpoint.Checkpoint) {
	evidence := []Evidence{{"checkpoint", head.Raw()}}
	for i, data := range res.served {
		if i >= g.From && i < g.To {
			evidence = append(evidence, Evidence{fmt.Sprintf("%s%d", ServedPrefix, i), data})
		}
	}
	evidence = append(evidence, res.held...)
	evidence = append(evidence, res.broken...)
	promise := ""
	if len(res.broken) > 0 {
		promise = " The log itself has signed a promise to hold these bytes. If the trees that were listed before this one are all, and had ended with the sizes listed (no signature says so: compare them with what is known of the log), it has broken that promise, and what was kept shows it to anybody who has its key."
	}
	if inc := t.find(KindEntryMismatch); inc != nil {
		if t.batch.Collect == nil {
			t.batch.Collect = map[string][]Evidence{}
		}
		t.batch.Collect[inc.ID] = append(t.batch.Collect[inc.ID], evidence...)
		return
	}
	t.raise(KindEntryMismatch, fmt.Sprintf("Log %s serves, for entries %d to %d, bytes that are not those that its signed tree of size %d commits to; it was asked for them more than once.%s", t.cfg.Name, g.From, g.To-1, head.Size(), promise),
		map[string]any{"from": g.From, "to": g.To, "checkpoint": TreeHead{head.Size(), checkpoint.HexHash(head.Root())}, "broken_promise": len(res.broken) > 0}, evidence...)
}

// flush commits what was gathered.
func (c *committer) flush(ctx context.Context) error {
	c.began = c.turn.opts.Now()
	if len(c.chunks) == 0 || c.failed {
		return nil
	}
	t := c.turn
	frontier, tiles, err := checkpoint.Grow(c.frontier, t.own(ctx), c.chunks)
	if err != nil {
		return fmt.Errorf("own hashes: %w", err)
	}
	for _, tile := range tiles {
		if tile.Level == 0 && len(tile.Hashes) == checkpoint.TileWidth {
			c.held = append(c.held, tile)
		} else {
			t.batch.Tiles = append(t.batch.Tiles, tile)
		}
	}
	oldest := oldestLeafTile(frontier.Size())
	c.held = slices.DeleteFunc(c.held, func(t checkpoint.Tile) bool { return t.Index < oldest })
	if c.last {
		t.batch.Tiles, c.held = append(t.batch.Tiles, c.held...), nil
	}
	t.tally(c.tally)
	return c.move(ctx, frontier)
}

// finish commits what was gathered, and what was held back.
func (c *committer) finish(ctx context.Context) error {
	c.last = true
	if err := c.flush(ctx); err != nil || c.failed || len(c.held) == 0 {
		return err
	}
	c.turn.batch.Tiles = c.held
	next, err := c.turn.commitAndGoOn(ctx)
	if err != nil {
		c.failed = true
		return err
	}
	c.turn, c.held = next, nil
	return nil
}

// oldestLeafTile is the first tile of leaf hashes that is kept of a tree of a size.
func oldestLeafTile(size uint64) uint64 {
	return max(size/checkpoint.TileWidth, checkpoint.KeptLeafTiles) - checkpoint.KeptLeafTiles
}

// move commits the batch with the frontier that it leads to.
func (c *committer) move(ctx context.Context, frontier checkpoint.Frontier) error {
	t := c.turn
	from, to := c.frontier.Size(), frontier.Size()
	link, err := c.tree.Link(to)
	if err != nil {
		return fmt.Errorf("linking the scanned size %d to the head: %w", to, err)
	}
	t.next.Scanned, t.next.Peaks, t.next.Link = to, hexes(frontier.Peaks()), hexes(link)
	t.batch.PruneLeafTiles = oldestLeafTile(to)
	// A gap is covered by nobody until it is filled.
	t.batch.Coverage, t.batch.WatchSet, t.batch.Trust = without(Range{from, to}, rangesOf(t.batch.SetGaps)), t.watchSet, t.trust.Load().hash
	next, err := t.commitAndGoOn(ctx)
	if err != nil {
		c.failed = true
		return err
	}
	c.turn, c.frontier, c.chunks, c.pending, c.bytes, c.tally = next, frontier, nil, 0, 0, tally{}
	return nil
}

// tally adds counters to the state and opens an incident for each kind that
// was not seen before.
func (t *turn) tally(c tally) {
	t.next.Entries += c.entries
	t.next.KeyOnly += c.keyOnly
	t.next.Undecodable += c.undecodable
	for kind, n := range c.kinds {
		if t.next.Kinds == nil {
			t.next.Kinds = map[string]uint64{}
		}
		if _, ok := t.next.Kinds[kind]; !ok && len(t.next.Kinds) >= maxKinds {
			kind = "other kinds"
		}
		if _, ok := t.next.Kinds[kind]; !ok {
			t.raiseAnew(KindUndecodable, fmt.Sprintf("Log %s holds entries that no decoder understands: %s. They are counted, and searched as raw bytes for what is watched.", t.cfg.Name, kind),
				map[string]any{"kind": kind})
		}
		t.next.Kinds[kind] += n
	}
}

func rangesOf(gaps []Gap) []Range {
	var out []Range
	for _, g := range gaps {
		out = append(out, g.Range)
	}
	return out
}

// lagging judges whether the scan keeps up with the log. History that is read
// behind the head is no reason to alarm anybody, unless it only grows.
func (t *turn) lagging() {
	if t.next.Unread() == 0 || t.next.Halted != "" {
		t.next.CatchUp = nil
		t.settle(KindLagging, "The scan has caught up with the log.")
		return
	}
	c := CatchUp{Since: t.now.UTC()}
	mark := Mark{At: t.now.UTC(), Read: t.next.HeadSize - t.next.Unread(), Head: t.next.HeadSize}
	if t.next.CatchUp != nil {
		c = *t.next.CatchUp
	}
	switch {
	case t.next.CatchUp == nil, !t.first.Load(): // nobody was reading before this process did
		c.From, c.Next = mark, mark
	case mark.At.Sub(c.Next.At) >= unreachableAfter:
		c.From, c.Next = c.Next, mark
	}
	c.Last = mark
	t.next.CatchUp = &c
	if mark.At.Sub(c.From.At) < unreachableAfter {
		return
	}
	how := t.next.catchUp()
	if t.next.HeadSize == t.next.Scanned && how.Seconds != nil {
		t.settle(KindLagging, "The scan keeps up with what the log adds; older entries are read behind that.")
		return
	}
	behind := t.next.Unread()
	summary := fmt.Sprintf("The scan of log %s has been behind for %s, now by %d entries: %s.", t.cfg.Name, t.now.Sub(c.Since).Round(time.Minute), behind, how)
	details := map[string]any{"behind": behind, "entries_per_second": how.EntriesPerSecond, "growth_per_second": how.GrowthPerSecond, "since": c.Since}
	if t.find(KindLagging) != nil {
		t.refresh(KindLagging, summary, details)
		return
	}
	t.raise(KindLagging, summary, details)
}
