package monitor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
// Where a batch does not fit, it is divided (proving.go). The inclusion proofs of findings are made of
// what has proven their batch.

const (
	// provenBatch bounds the entries that one consistency proof proves.
	provenBatch = 2000
	// provenBytes bounds what they come to together, but for the last chunk.
	provenBytes = 64 << 20
	// brokenPromisePrefix begins the names of evidence that is one.
	brokenPromisePrefix = "broken-promise-"
	// provenChunk is how many entries a request may ask for.
	provenChunk = 10
)

// provenReader reads a range of a tree.
type provenReader struct {
	*runner
	head   checkpoint.Checkpoint
	offset uint64
	// parallel is how many requests may be under way, most how many entries are proven together.
	parallel, most int
	// before are the signed heads of the trees that offset counts: unproven.
	before [][]byte
	// frontier is that of the entries that were gone past. Those of the window are read; a few around
	// it may help to prove them.
	frontier checkpoint.Frontier
	window   Range
	// retry says that what is asked for was asked for before: once is enough, but for wrong bytes that
	// have not accused the log yet.
	retry, accused bool
	// forgive is how many chunks and proofs one pass goes on without although the
	// log did not answer for them: it did not over several polls.
	forgive atomic.Int32
	lines   [][]byte // the first ones of the head's note: origin, size, root
	state   State    // when the reading began
	// stuck is over how many polls nothing was shown that could have been read here.
	stuck    int
	deadline time.Time
	began    uint64 // where the batch begins that is being proven
	// kept is what the log has answered about what is being proven.
	kept keptProofs
	// earlier is what answers had for entries, by index, before they were asked for again; doubted are
	// those that were left out then.
	earlier map[uint64][]ServedEntry
	doubted map[uint64]bool
	chance  *rand.Rand // of sizes to ask for: fixed ones could be refused
}

func (r *runner) newProvenReader(ctx context.Context, head checkpoint.Checkpoint, st State) (*provenReader, error) {
	offset, before, err := r.way().Proofs.Offset(ctx)
	r.moved(err)
	return &provenReader{runner: r, head: head, state: st, offset: offset, parallel: r.cfg.Parallel, most: provenBatch,
		before: before, lines: bytes.SplitN(head.Raw(), []byte("\n"), 4),
		chance: rand.New(rand.NewPCG(head.Size(), uint64(st.Version)))}, err
}

// run reads [from, to), and gives take one proven part after the other. It returns how far it came;
// what take has had is good even if there is an error. What no proof is served for is gone past where
// that is forgiven.
func (p *provenReader) run(ctx context.Context, from, to uint64, deadline time.Time, take func(result) error) (uint64, error) {
	p.window, p.deadline = Range{from, to}, deadline
	give := func(res result) error {
		if res.job.from == res.job.to {
			return nil
		}
		err := take(res)
		if err == nil {
			from = res.job.to
		}
		return err
	}
	for {
		err := p.enter(ctx, from)
		if err == nil && p.stuck > 0 {
			err = p.probe(ctx) // before entries are fetched in vain
		}
		if err == nil {
			err = p.readOn(ctx, nil, to, give)
		}
		if ctx.Err() != nil {
			return from, cmp.Or(err, ctx.Err())
		}
		if !errors.Is(err, errNotShown) || !p.forgiven() {
			return from, err
		}
		res, lost := p.goOn(ctx, from)
		if lost == nil {
			lost = give(res)
		}
		if lost != nil || from == to || p.over(deadline) {
			return from, lost
		}
	}
}

// readOn reads from the frontier up to an entry, until no proof is served for more. have are the last
// ones before that, if they were fetched already.
func (p *provenReader) readOn(ctx context.Context, have []ServedEntry, to uint64, give func(result) error) error {
	var batch []ServedEntry
	began, least, late := p.opts.Now(), 1, false
	size := 0 // of the batch, in bytes
	heavy := func() bool { return size >= provenBytes*p.most/provenBatch }
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		at, res := p.frontier.Size(), p.newResult()
		rest, err := p.prove(ctx, &res, batch)
		batch, began, size = rest, p.opts.Now(), weight(rest)
		if errors.Is(err, errNotShown) && (p.frontier.Size() > at || len(rest) < 2*p.most && !heavy()) {
			err, least = nil, 2*len(rest) // more of them may be shown together
		}
		late = errors.Is(err, errLater)
		if err != nil {
			batch = nil // it is not asked for again in this pass
		}
		// What came before something that cannot be had is good.
		if lost := give(res); lost != nil {
			batch, late = nil, false // nothing follows on what was not stored
			return lost
		}
		return err
	}
	before := to - uint64(len(have))
	err := p.fetchAll(ctx, p.frontier.Size(), before, p.deadline, func(chunk []ServedEntry) error {
		batch, size = append(batch, chunk...), size+weight(chunk)
		if !heavy() && (len(batch) < least || len(batch) < p.most && p.opts.Now().Sub(began) < commitAfter) {
			return nil
		}
		return flush()
	})
	if err == nil {
		batch = append(batch, have...)
	}
	if ctx.Err() != nil {
		return cmp.Or(err, ctx.Err())
	}
	if !late {
		err = errors.Join(err, flush())
	}
	if late {
		return nil
	}
	if err != nil || len(batch) == 0 {
		return err
	}
	// No proof is served for its end. One for what follows shows it too.
	for more := provenChunk; batch[len(batch)-1].Index+1 >= to; more *= 2 {
		next := batch[len(batch)-1].Index + 1
		end := min(next+uint64(more), p.head.Size())
		if more > p.farthest() || end == next || heavy() {
			break
		}
		err := p.fetchAll(ctx, next, end, time.Time{}, func(chunk []ServedEntry) error {
			batch, size = append(batch, chunk...), size+weight(chunk)
			return nil
		})
		if err == nil {
			err = flush()
		}
		if late {
			return nil
		}
		if err != nil || p.frontier.Size() >= to {
			return err
		}
	}
	if batch[len(batch)-1].Index+1 < to && p.frontier.Size() > p.window.From {
		return nil // the time is over, and what was read is no use yet
	}
	return notShown(p.frontier.Size(), p.kept.last)
}

// weight is the bytes of entries.
func weight(list []ServedEntry) (n int) {
	for i := range list {
		n += len(list[i].Leaf)
	}
	return n
}

// farthest is how far around what is read sizes are looked for that the log shows.
func (p *provenReader) farthest() int {
	if p.stuck > 0 || p.forgive.Load() > 0 {
		return p.most
	}
	return 4 * provenChunk
}

// fetchAll fetches entries with several workers and hands them on in order: at
// least one chunk, and no further ones after the deadline, or once something contradicts the head.
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
			if at > from && (p.over(deadline) || p.shown.Load() != nil) {
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
	var last []ServedEntry
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
			if list[i].Index != from+uint64(i) {
				list[i] = ServedEntry{Index: from + uint64(i)} // that is another one
			}
			if list[i].Leaf == nil && last != nil {
				list[i] = last[i] // what one answer had is not lost because the next one has not
			}
			complete = complete && list[i].Leaf != nil
			p.compareNote(list[i].Note)
		}
		if complete || nothing || p.retry || try == refetches {
			return list, nil
		}
		last = list
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
	if err == nil && errors.As(checkpoint.Advance(p.head, c, nil), &fork) && !p.state.decided(c) {
		p.shown.CompareAndSwap(nil, &contradiction{c, fork})
	}
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
		if e.Index < p.window.From || e.Index >= p.window.To {
			continue
		}
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
				paths, err = p.paths(ctx, before, f, e.Index)
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
			p.seal(&found[k], p.state.Epoch, p.head, path)
		}
		res.findings = append(res.findings, found...)
	}
	p.frontier = f.next
	return nil
}

// paths makes the inclusion proofs of entries, that of index among them, of the consistency proof that
// has proven them, or, where something else has, of one that is asked for.
func (p *provenReader) paths(ctx context.Context, before checkpoint.Frontier, f *fit, index uint64) (paths *checkpoint.Paths, err error) {
	size := f.next.Size()
	if from, _ := p.head.FrontierFrom(size); from != size {
		// What has shown this one: it holds the hash of the leaf behind.
		leaf, behind := p.kept.served[sizes{from, p.head.Size()}], p.kept.served[sizes{from, p.head.Size()}]
		switch {
		case from == size+1 && len(leaf) > 0:
			leaf = leaf[:1]
		case size+1 == p.head.Size() && len(leaf) > 0:
			leaf, behind = leaf[len(leaf)-1:], nil
		}
		if len(leaf) == 1 && len(leaf[0]) == checkpoint.HashSize {
			hashes := append(f.hashes[:len(f.hashes):len(f.hashes)], checkpoint.Hash(leaf[0]))
			if paths, err = p.head.NewPaths(before, hashes, behind); err == nil {
				if _, err = paths.Path(index); err == nil {
					return paths, nil
				}
			}
		}
	}
	proof, err := p.prover(ctx).Consistency(size, p.head.Size())
	if err != nil {
		return nil, err
	}
	return p.head.NewPaths(before, f.hashes, proof)
}
