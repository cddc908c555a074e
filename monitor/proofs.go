package monitor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
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
// Where a batch does not fit, each entry is held against the frontier behind it. The inclusion proofs
// of findings are made of what has proven their batch.

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
	// retry says that what is asked for was asked for before: once is enough, but for wrong bytes that
	// have not accused the log yet.
	retry, accused bool
	// forgive is how many chunks and proofs one pass goes on without although the
	// log did not answer for them: it did not over several polls.
	forgive atomic.Int32
	lines   [][]byte // the first ones of the head's note: origin, size, root
	// last is the consistency proof that was served last.
	last consistencyProof
}

func (r *runner) newProvenReader(ctx context.Context, head checkpoint.Checkpoint, epoch string) (*provenReader, error) {
	offset, before, err := r.way().Proofs.Offset(ctx)
	r.moved(err)
	return &provenReader{runner: r, head: head, epoch: epoch, offset: offset, parallel: r.cfg.Parallel, most: provenBatch, before: before, lines: bytes.SplitN(head.Raw(), []byte("\n"), 4)}, err
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
		batch, began = nil, p.opts.Now()
		if res.job.to == res.job.from {
			return err
		}
		// What came before something that cannot be had is good.
		if err := take(res); err != nil {
			return err
		}
		reached = res.job.to
		return err
	}
	err := p.fetchAll(ctx, from, to, deadline, func(chunk []ServedEntry) error {
		batch = append(batch, chunk...)
		if len(batch) < p.most && p.opts.Now().Sub(began) < commitAfter {
			return nil
		}
		return flush()
	})
	if ctx.Err() == nil {
		err = errors.Join(err, flush())
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
		nothing := err != nil && !withheld(err)
		if err != nil && (ctx.Err() != nil || nothing && !p.forgiven()) {
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
			p.compareNote(list[i].Note)
		}
		if complete || nothing || p.retry || try == refetches {
			return list, nil
		}
	}
}

// compareNote looks at the note that comes with an entry: another root for the size of the head needs
// no proof to contradict it.
func (p *provenReader) compareNote(note []byte) {
	theirs, ours := bytes.SplitN(note, []byte("\n"), 4), p.lines
	if len(theirs) < 4 || len(ours) < 4 || !bytes.Equal(theirs[1], ours[1]) || bytes.Equal(theirs[2], ours[2]) {
		return // nearly all, and no signature was looked at
	}
	c, err := p.way().Log.Open(note)
	var fork *checkpoint.DivergenceError
	if err == nil && errors.As(checkpoint.Advance(p.head, c, nil), &fork) {
		p.shown.CompareAndSwap(nil, &contradiction{c, fork})
	}
}

// prove proves a batch that begins at the frontier, reads the entries, and moves the frontier on.
// With an error, the result is what comes before that.
func (p *provenReader) prove(ctx context.Context, batch []ServedEntry) (result, error) {
	first := batch[0].Index
	res := result{job: job{from: first, to: first}, served: map[uint64][]byte{}}
	f, err := p.fits(ctx, batch)
	switch {
	case f != nil:
		err = p.readAll(ctx, &res, batch, f)
	case ctx.Err() == nil:
		err = nil // one proof that is refused holds up no more than a chunk
	}
	for from := 0; from < len(batch) && f == nil && err == nil; from += provenChunk {
		err = p.proveChunk(ctx, &res, batch[from:min(from+provenChunk, len(batch))])
	}
	res.job.to = p.frontier.Size()
	return res, err
}

// fit is the leaf hashes of entries that are the next ones of the tree, and the frontier behind them.
type fit struct {
	hashes []checkpoint.Hash
	next   checkpoint.Frontier
}

// fits finds out whether entries are the next ones of the tree; nil if they are not.
func (p *provenReader) fits(ctx context.Context, batch []ServedEntry) (*fit, error) {
	leaves := make([][]byte, len(batch))
	for i := range batch {
		if batch[i].Leaf == nil {
			return nil, nil
		}
		leaves[i] = batch[i].Leaf
	}
	f := fit{hashes: checkpoint.LeafHashes(leaves)}
	f.next = p.frontier.Append(f.hashes...)
	proof, err := p.prover(ctx).Consistency(f.next.Size(), p.head.Size())
	if err == nil {
		err = f.next.Within(p.head, proof)
	}
	if errors.Is(err, checkpoint.ErrUnproven) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &f, nil
}

func (p *provenReader) prover(ctx context.Context) prover { return prover{ctx, p.runner, &p.last} }

// proveChunk proves entries that a batch which does not fit holds: together if
// they fit, else each by itself.
func (p *provenReader) proveChunk(ctx context.Context, res *result, chunk []ServedEntry) error {
	from, to := chunk[0].Index, chunk[0].Index+uint64(len(chunk))
	left := refetches
	if p.accused {
		left = 0
	}
	for ; ; left-- {
		f, err := p.fits(ctx, chunk)
		if err != nil && (!p.retry || ctx.Err() != nil) {
			return err
		}
		if f != nil {
			return p.readAll(ctx, res, chunk, f)
		}
		missing := slices.ContainsFunc(chunk, func(e ServedEntry) bool { return e.Leaf == nil })
		if missing || p.retry || left == 0 { // what is missing was asked for again before
			break
		}
		if chunk, err = p.fetch(ctx, from, to); err != nil {
			return err
		}
	}
	for i := range chunk {
		if err := p.proveOne(ctx, res, &chunk[i], left); err != nil {
			return err
		}
	}
	return nil
}

// proveOne goes on past one entry, which the frontier behind it, as proofs of the tree alone show it,
// holds or does not hold. What comes with the entry, a path and a note, may be no good, or of a tree
// that this replica does not know yet, and says nothing against it. Wrong bytes are asked for again up
// to left times before they accuse the log.
func (p *provenReader) proveOne(ctx context.Context, res *result, e *ServedEntry, left int) error {
	if e.Leaf != nil {
		f, err := p.fits(ctx, []ServedEntry{*e})
		if err != nil {
			return err
		}
		if f != nil {
			return p.readAll(ctx, res, []ServedEntry{*e}, f)
		}
	}
	behind, err := p.prover(ctx).frontierAt(p.head, e.Index+1)
	if errors.Is(err, checkpoint.ErrUnproven) {
		p.last = consistencyProof{} // one answer that was wrong is not what the log has to say
		behind, err = p.prover(ctx).frontierAt(p.head, e.Index+1)
	}
	if err != nil {
		return fmt.Errorf("going on behind entry %d: %w", e.Index, err)
	}
	if e.Leaf == nil {
		p.miss(res, e, KindEntryWithheld)
		p.frontier = behind
		return nil
	}
	hash := checkpoint.LeafHash(e.Leaf)
	if next := p.frontier.Append(hash); next.Root() == behind.Root() {
		return p.readAll(ctx, res, []ServedEntry{*e}, &fit{[]checkpoint.Hash{hash}, next})
	}
	for ; left > 0; left-- {
		list, err := p.fetch(ctx, e.Index, e.Index+1)
		if err != nil {
			return fmt.Errorf("asking again for entry %d, whose bytes are not those of the tree: %w", e.Index, err)
		}
		// No answer confirms nothing; it is asked for again in the next poll.
		if list[0].Leaf == nil || checkpoint.LeafHash(list[0].Leaf) != hash {
			return p.proveOne(ctx, res, &list[0], left-1)
		}
	}
	p.miss(res, e, KindEntryMismatch)
	if promise := p.brokenPromise(ctx, e); promise != nil && len(res.broken) < maxServed {
		res.broken = append(res.broken, *promise)
	}
	p.frontier = behind
	return nil
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

// promiseOf is the signed entry timestamp of an entry, with the key that signed it.
func (p *provenReader) promiseOf(e *ServedEntry) *checkpoint.Promise {
	id, err := p.way().Log.PromiseKey(e.Leaf, e.Integrated, e.LogIndex, e.SET)
	if err != nil {
		return nil
	}
	return &checkpoint.Promise{Leaf: e.Leaf, Integrated: e.Integrated, LogID: id, LogIndex: e.LogIndex, SET: e.SET}
}

// readAll reads proven entries, gives findings their inclusion proofs, and moves the frontier behind
// what it has read.
func (p *provenReader) readAll(ctx context.Context, res *result, entries []ServedEntry, f *fit) error {
	eyes := p.takeEyes()
	defer p.putEyes(eyes)
	before := p.frontier
	var paths *checkpoint.Paths
	var count tally
	for i := range entries {
		e := &entries[i]
		integrated := func() time.Time {
			if p.way().Log.VerifyPromise(e.Leaf, e.Integrated, e.LogIndex, e.SET) != nil {
				return time.Time{}
			}
			return time.Unix(e.Integrated, 0).UTC()
		}
		count = tally{}
		found := p.read(eyes, e.Index, e.Leaf, integrated, &count)
		var path []checkpoint.Hash
		err := ctx.Err()
		if err == nil && len(found) > 0 {
			if paths == nil {
				paths, err = p.paths(ctx, before, f)
			}
			if err == nil {
				path, err = paths.Path(e.Index)
			}
			if err != nil && ctx.Err() == nil && p.forgiven() {
				// The entry itself is proven, by what it came with. Better a finding that
				// others cannot check than none.
				path, err = nil, nil
				for k := range found {
					found[k].remark("; the log serves no proof of it that others could check")
				}
			}
		}
		if err != nil {
			p.frontier = before.Append(f.hashes[:i]...)
			return fmt.Errorf("inclusion proof of entry %d: %w", e.Index, err)
		}
		res.tally.add(count)
		for k := range found {
			found[k].LogIndex = &e.LogIndex
			if found[k].Integrated != nil {
				found[k].Promise = p.promiseOf(e)
			}
			p.seal(&found[k], p.epoch, p.head, path)
		}
		res.findings = append(res.findings, found...)
	}
	p.frontier = f.next
	return nil
}

// paths makes the inclusion proofs of entries, of the consistency proof that has proven them, or,
// where something else has, of one that is asked for.
func (p *provenReader) paths(ctx context.Context, before checkpoint.Frontier, f *fit) (*checkpoint.Paths, error) {
	proof, err := p.prover(ctx).Consistency(f.next.Size(), p.head.Size())
	if err != nil {
		return nil, err
	}
	return p.head.NewPaths(before, f.hashes, proof)
}
