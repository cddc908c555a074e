package monitor

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// Logs that serve proofs and no tiles: trees of Rekor v1. Entries come ten at a
// time, and a batch of them is proven by one consistency proof:
//
//	workers ── ten entries each, in order ──> batch ── hashes ──> frontier
//	                                                   proof ───> head
//
// Where a batch does not fit, each entry is proven by its own inclusion proof.

const (
	// provenBatch bounds the entries that one consistency proof proves.
	provenBatch = 2000
	// brokenPromisePrefix begins the names of evidence that is one.
	brokenPromisePrefix = "broken-promise-"
	// provenChunk is how many entries a request may ask for.
	provenChunk = 10
)

// provenReader reads a range of a tree.
type provenReader struct {
	*runner
	head   checkpoint.Checkpoint
	epoch  string
	offset uint64
	// parallel is how many requests may be under way, most how many entries are proven together.
	parallel, most int
	// before are the signed heads of the trees that offset counts: unproven.
	before [][]byte
	// frontier is that of what was handed on so far.
	frontier checkpoint.Frontier
	// forgive is how many chunks and proofs one pass goes on without although the
	// log did not answer for them: it did not over several polls.
	forgive atomic.Int32
	// related are notes that were compared with the head, by root and size.
	related map[TreeHead]error
}

func (r *runner) newProvenReader(ctx context.Context, head checkpoint.Checkpoint, epoch string) (*provenReader, error) {
	offset, before, err := r.way().Proofs.Offset(ctx)
	r.moved(err)
	return &provenReader{runner: r, head: head, epoch: epoch, offset: offset, parallel: r.cfg.Parallel, most: provenBatch, before: before, related: map[TreeHead]error{}}, err
}

// run reads [from, to), and gives take one proven batch after the other. It
// returns how far it came; what take has had is good even if there is an error.
func (p *provenReader) run(ctx context.Context, from, to uint64, deadline time.Time, take func(result) error) (uint64, error) {
	reached := from
	var batch []ServedEntry
	began := p.opts.Now()
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		res, err := p.prove(ctx, batch)
		if err != nil {
			return err
		}
		batch, began = nil, p.opts.Now()
		if err := take(res); err != nil {
			return err
		}
		reached = res.job.to
		return nil
	}
	err := p.fetchAll(ctx, from, to, deadline, func(chunk []ServedEntry) error {
		batch = append(batch, chunk...)
		if len(batch) < p.most && p.opts.Now().Sub(began) < commitAfter {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	return reached, err
}

// fetchAll fetches entries with several workers and hands them on in order: at
// least one chunk, and no further ones after the deadline.
func (p *provenReader) fetchAll(ctx context.Context, from, to uint64, deadline time.Time, take func([]ServedEntry) error) error {
	type chunk struct {
		from, to uint64
		entries  []ServedEntry
		err      error
		done     chan struct{}
	}
	// The queue keeps the order; workers fill its chunks as they come.
	queue, work := make(chan *chunk, 4*p.parallel), make(chan *chunk)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		defer close(queue)
		for at := from; at < to; at += provenChunk {
			if at > from && p.over(deadline) {
				return nil
			}
			c := &chunk{from: at, to: min(at+provenChunk, to), done: make(chan struct{})}
			for _, send := range []chan *chunk{queue, work} {
				select {
				case send <- c:
				case <-gctx.Done():
					return gctx.Err()
				}
			}
		}
		return nil
	})
	for range p.parallel {
		g.Go(func() error {
			for c := range work {
				c.entries, c.err = p.fetch(gctx, c.from, c.to)
				close(c.done)
			}
			return nil
		})
	}
	g.Go(func() error {
		for c := range queue {
			select {
			case <-c.done:
			case <-gctx.Done():
				return gctx.Err()
			}
			if c.err != nil {
				return fmt.Errorf("fetching entries %d to %d: %w", c.from, c.to-1, c.err)
			}
			if err := take(c.entries); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

func (p *provenReader) forgiven() bool { return p.forgive.Add(-1) >= 0 }

// fetch fetches entries, and asks again for what was left out. An answer that is
// none leaves out everything.
func (p *provenReader) fetch(ctx context.Context, from, to uint64) ([]ServedEntry, error) {
	for try := 0; ; try++ {
		list, err := p.way().Proofs.Entries(ctx, p.offset, from, to)
		p.moved(err)
		if err != nil && (ctx.Err() != nil || !withheld(err) && !p.forgiven()) {
			return nil, err
		}
		if err != nil {
			list = make([]ServedEntry, to-from)
			for i := range list {
				list[i].Index = from + uint64(i)
			}
		}
		if uint64(len(list)) != to-from {
			return nil, fmt.Errorf("source returned %d entries for [%d, %d)", len(list), from, to)
		}
		complete := true
		for i := range list {
			complete = complete && list[i].Leaf != nil && list[i].Index == from+uint64(i)
		}
		if complete || try == refetches {
			return list, nil
		}
	}
}

// prove proves a batch that begins at the frontier, moves the frontier on, and
// reads the entries.
func (p *provenReader) prove(ctx context.Context, batch []ServedEntry) (result, error) {
	first := batch[0].Index
	res := result{job: job{from: first, to: first + uint64(len(batch))}, served: map[uint64][]byte{}}
	next, ok, err := p.fits(ctx, batch)
	if err != nil {
		return res, err
	}
	if ok {
		p.frontier = next
		return res, p.readAll(ctx, &res, batch)
	}
	for from := 0; from < len(batch); from += provenChunk {
		if err := p.proveChunk(ctx, &res, batch[from:min(from+provenChunk, len(batch))]); err != nil {
			return res, err
		}
	}
	return res, nil
}

// fits reports whether entries are the next ones of the tree, and returns the
// frontier behind them.
func (p *provenReader) fits(ctx context.Context, batch []ServedEntry) (checkpoint.Frontier, bool, error) {
	leaves := make([][]byte, len(batch))
	for i := range batch {
		if batch[i].Leaf == nil {
			return checkpoint.Frontier{}, false, nil
		}
		leaves[i] = batch[i].Leaf
	}
	next := p.frontier.Append(checkpoint.LeafHashes(leaves)...)
	proof, err := prover{ctx, p.runner}.Consistency(next.Size(), p.head.Size())
	if errors.Is(err, checkpoint.ErrUnproven) {
		return next, false, nil
	}
	if err != nil {
		return next, false, err
	}
	err = next.Within(p.head, proof)
	if errors.Is(err, checkpoint.ErrUnproven) {
		return next, false, nil
	}
	return next, err == nil, err
}

// proveChunk proves entries that a batch which does not fit holds: together if
// they fit, else each by itself.
func (p *provenReader) proveChunk(ctx context.Context, res *result, chunk []ServedEntry) error {
	from, to := chunk[0].Index, chunk[0].Index+uint64(len(chunk))
	for try := 0; ; try++ {
		next, ok, err := p.fits(ctx, chunk)
		if err != nil {
			return err
		}
		if ok {
			p.frontier = next
			return p.readAll(ctx, res, chunk)
		}
		if try == refetches {
			break
		}
		if chunk, err = p.fetch(ctx, from, to); err != nil {
			return err
		}
	}
	for i := range chunk {
		if err := p.proveOne(ctx, res, &chunk[i]); err != nil {
			return err
		}
	}
	return nil
}

// proveOne goes on past one entry, with its hash as its own inclusion proof
// authenticates it, or, where not even that is served, with the frontier behind
// it.
func (p *provenReader) proveOne(ctx context.Context, res *result, e *ServedEntry) error {
	if hash, ok := p.authentic(ctx, e); ok {
		p.frontier = p.frontier.Append(hash)
		if checkpoint.LeafHash(e.Leaf) == hash {
			return p.readAll(ctx, res, []ServedEntry{*e})
		}
		p.miss(res, e, KindEntryMismatch)
		if promise := p.brokenPromise(ctx, e); promise != nil && len(res.broken) < maxServed {
			res.broken = append(res.broken, *promise)
		}
		return nil
	}
	// Its own proof may be no good, or of a tree that this replica does not know yet, and say nothing
	// against it: the tree itself is asked.
	if e.Leaf != nil {
		next, ok, err := p.fits(ctx, []ServedEntry{*e})
		if err != nil {
			return err
		}
		if ok {
			p.frontier = next
			return p.readAll(ctx, res, []ServedEntry{*e})
		}
	}
	next, err := p.frontierAt(ctx, p.head, e.Index+1)
	if err != nil {
		return fmt.Errorf("going on behind entry %d: %w", e.Index, err)
	}
	own := p.frontier
	p.frontier = next
	switch {
	case e.Leaf == nil:
		p.miss(res, e, KindEntryWithheld)
	case own.Append(checkpoint.LeafHash(e.Leaf)).Root() == next.Root():
		return p.readAll(ctx, res, []ServedEntry{*e})
	default:
		p.miss(res, e, KindEntryMismatch)
	}
	return nil
}

// placed reports whether the tree holds an entry in its place, by proofs of the tree alone.
func (p *provenReader) placed(ctx context.Context, e *ServedEntry) (bool, error) {
	before, err := p.frontierAt(ctx, p.head, e.Index)
	if err != nil {
		return false, err
	}
	behind, err := p.frontierAt(ctx, p.head, e.Index+1)
	return err == nil && before.Append(checkpoint.LeafHash(e.Leaf)).Root() == behind.Root(), err
}

// miss books a gap.
func (p *provenReader) miss(res *result, e *ServedEntry, reason string) {
	p.log.Warn("an entry of the signed tree could not be had; the scan goes on past it", "index", e.Index, "reason", reason)
	if e.Leaf != nil && len(res.served) < maxServed {
		res.served[e.Index] = e.Leaf
	}
	if n := len(res.gaps); n > 0 && res.gaps[n-1].To == e.Index && res.gaps[n-1].Reason == reason {
		res.gaps[n-1].To++
		return
	}
	res.gaps = append(res.gaps, Gap{Range: Range{e.Index, e.Index + 1}, Reason: reason, Polls: 1, Since: p.opts.Now().UTC()})
}

// brokenPromise returns evidence that the log has signed a promise for bytes
// which its tree does not hold at their index. Nil if it has signed none, or if
// the sizes of the trees before this one are not signed, or not those that are
// known: without them, the index that was promised may be another one.
func (p *provenReader) brokenPromise(ctx context.Context, e *ServedEntry) *Evidence {
	_, path, err := p.included(e)
	if err != nil || !p.knownBefore(ctx) {
		return nil
	}
	promise := checkpoint.Promise{Leaf: e.Leaf, Integrated: e.Integrated, LogIndex: e.LogIndex, SET: e.SET}
	b, err := checkpoint.NewBrokenPromise(p.way().Log, promise, checkpoint.Hash(e.Hash), path, e.Index, e.Note, p.before)
	if err != nil {
		return nil
	}
	doc, err := b.Print()
	if err != nil {
		return nil
	}
	return &Evidence{fmt.Sprintf("%s%d.json", brokenPromisePrefix, e.Index), doc}
}

// knownBefore reports whether the trees that were listed before this one go with
// those of the server that were verified: somebody in between may leave out a
// tree, or show an earlier head of it.
func (p *provenReader) knownBefore(ctx context.Context) bool {
	for _, other := range p.all() {
		if other == p.runner || p.cfg.Family == "" || other.cfg.Family != p.cfg.Family {
			continue
		}
		st, err := p.opts.Store.State(ctx, other.cfg.ID)
		if err != nil {
			return false
		}
		if st.Head == "" {
			continue
		}
		listed := false
		for _, raw := range p.before {
			if c, err := other.way().Log.Open(raw); err == nil {
				listed = c.Size() >= st.HeadSize
				break
			}
		}
		// One that is not listed comes after this tree, if this one has ended.
		if !listed && !p.retired.Load() {
			return false
		}
	}
	return true
}

// authentic returns the leaf hash that an entry's inclusion proof proves, under a
// note of the same tree as the head.
func (p *provenReader) authentic(ctx context.Context, e *ServedEntry) (checkpoint.Hash, bool) {
	if e.Leaf == nil || len(e.Hash) != checkpoint.HashSize {
		return checkpoint.Hash{}, false
	}
	note, _, err := p.included(e)
	if err != nil || p.relate(ctx, note) != nil {
		return checkpoint.Hash{}, false
	}
	return checkpoint.Hash(e.Hash), true
}

// included opens the note of an entry and verifies that it commits to the hash
// which the entry's id names.
func (p *provenReader) included(e *ServedEntry) (checkpoint.Checkpoint, []checkpoint.Hash, error) {
	note, err := p.way().Log.Open(e.Note)
	if err != nil {
		return note, nil, err
	}
	path := make([]checkpoint.Hash, len(e.Path))
	for i, h := range e.Path {
		if len(h) != checkpoint.HashSize {
			return note, nil, fmt.Errorf("hash %d of the path has %d bytes", i, len(h))
		}
		path[i] = checkpoint.Hash(h)
	}
	return note, path, note.VerifyInclusion(e.Index, checkpoint.Hash(e.Hash), path)
}

// relate proves that a note is of the same history as the head.
func (p *provenReader) relate(ctx context.Context, note checkpoint.Checkpoint) error {
	id := TreeHead{note.Size(), checkpoint.HexHash(note.Root())}
	if err, ok := p.related[id]; ok {
		return err
	}
	smaller, larger := p.head, note
	if note.Size() < p.head.Size() {
		smaller, larger = note, p.head
	}
	proof, err := prover{ctx, p.runner}.Consistency(smaller.Size(), larger.Size())
	if err == nil {
		err = checkpoint.Advance(smaller, larger, proof)
	}
	if fork := (*checkpoint.DivergenceError)(nil); err == nil || errors.Is(err, checkpoint.ErrUnproven) || errors.As(err, &fork) {
		p.related[id] = err // else it is the answer that is missing
	}
	return err
}

// promiseOf is the signed entry timestamp of an entry, with the key that signed it.
func (p *provenReader) promiseOf(e *ServedEntry) *checkpoint.Promise {
	id, err := p.way().Log.PromiseKey(e.Leaf, e.Integrated, e.LogIndex, e.SET)
	if err != nil {
		return nil
	}
	return &checkpoint.Promise{Leaf: e.Leaf, Integrated: e.Integrated, LogID: id, LogIndex: e.LogIndex, SET: e.SET}
}

// readAll decodes proven entries and gives findings their proofs.
func (p *provenReader) readAll(ctx context.Context, res *result, entries []ServedEntry) error {
	eyes := p.takeEyes()
	defer p.putEyes(eyes)
	for i := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		e := &entries[i]
		integrated := func() time.Time {
			if p.way().Log.VerifyPromise(e.Leaf, e.Integrated, e.LogIndex, e.SET) != nil {
				return time.Time{}
			}
			return time.Unix(e.Integrated, 0).UTC()
		}
		found := p.read(eyes, e.Index, e.Leaf, integrated, &res.tally)
		if len(found) == 0 {
			continue
		}
		note, path, err := p.provenAlone(ctx, e)
		if err != nil && ctx.Err() == nil && p.forgiven() {
			// The entry itself is proven, by the batch that it came with. Better a
			// finding that others cannot check than none.
			note, path, err = p.head, nil, nil
			for k := range found {
				found[k].remark("; the log serves no inclusion proof for it")
			}
		}
		if err != nil {
			return fmt.Errorf("inclusion proof of entry %d: %w", e.Index, err)
		}
		for k := range found {
			found[k].LogIndex = &e.LogIndex
			if found[k].Integrated != nil {
				found[k].Promise = p.promiseOf(e)
			}
			p.seal(&found[k], p.epoch, note, path)
		}
		res.findings = append(res.findings, found...)
	}
	return nil
}

// provenAlone returns the inclusion proof of an entry that is ours, fetched
// again where the one that came with it is not good.
func (p *provenReader) provenAlone(ctx context.Context, e *ServedEntry) (checkpoint.Checkpoint, []checkpoint.Hash, error) {
	again := *e
	for try := 0; ; try++ {
		hash := checkpoint.LeafHash(e.Leaf)
		again.Hash = hash[:]
		note, path, err := p.included(&again)
		if err == nil || try == refetches {
			return note, path, err
		}
		list, err := p.fetch(ctx, e.Index, e.Index+1)
		if err != nil {
			return note, nil, err
		}
		again = list[0]
	}
}
