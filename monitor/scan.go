package monitor

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sigwarden/sigwarden/checkpoint"
)

const (
	// commitAfter bounds how long proven entries wait for their transaction.
	commitAfter = 3 * time.Second
	// refetches is how often entries that do not fit are fetched again at once.
	refetches = 2
	// window bounds the bundles that are on their way from the producer to the
	// committer, beside those that workers have: the first of these may be the last to be answered,
	// and the others are to go on meanwhile.
	window = 256
	// tileLeaves are the leaves below a full tile of level 1.
	tileLeaves = checkpoint.TileWidth * checkpoint.TileWidth
	// maxServed bounds the wrong entries of a bundle that are kept as evidence.
	maxServed = 4
	// maxForgiven bounds the bundles that one pass goes past although the log did
	// not answer for them.
	maxForgiven = 16
)

// job is one bundle to read.
type job struct {
	index uint64 // of the bundle
	// [from, to) are the leaves wanted, [first, end) those of the whole bundle
	// as far as the tree has them.
	from, to, first, end uint64
	root                 checkpoint.Hash   // proven root of a full bundle
	want                 []checkpoint.Hash // proven leaf hashes of a partial one
	// err says that not even hashes of it could be had; lost, that they are
	// withheld for the whole of [from, to).
	err  error
	lost bool
}

// result is what became of a bundle.
type result struct {
	job      job
	chunk    checkpoint.Chunk // of [job.from, job.to)
	jump     bool             // there is no chunk: go on at job.to
	findings []Finding
	tally    tally
	gaps     []Gap
	served   map[uint64][]byte // entries that did not fit, by index
	broken   []Evidence        // promises that the log has signed and not kept
	held     []Evidence        // what the tree holds in the places of those
	// err says that nothing can be said of [read, job.to), and that what is before read is good;
	// that is nothing, if it is 0.
	err  error
	read uint64
}

// span reads parts of one tree.
type span struct {
	*runner
	tree     *checkpoint.Tree
	epoch    string
	deadline time.Time // no further bundles are begun after it; zero: none
	budget   *budget
	// busy lets as many bundles be hashed and read at a time as there are processors, and one: with
	// more of them, answers would wait for a processor, and the server be taken for slow.
	busy chan struct{}
	// roots are proven roots of bundles, the tile of level 1 that rootsOf is the number of.
	roots   []checkpoint.Hash
	rootsOf uint64
	// retry reads gaps again, one after the other, and each bundle is fetched once; but more often
	// before wrong bytes accuse the log, unless they have.
	retry, accused bool
	last           job
	kept           [][]byte
	// forgive is how many bundles may become gaps although the log did not
	// answer for them.
	forgive atomic.Int32
}

func (r *runner) newSpan(tree *checkpoint.Tree, epoch string) *span {
	return &span{runner: r, tree: tree, epoch: epoch, budget: r.budget, busy: make(chan struct{}, runtime.GOMAXPROCS(0)+1)}
}

// run proves and reads [from, to) with several workers, and gives take one
// bundle after the other, in order. It returns how far it came; what take has
// had is good even if there is an error.
func (s *span) run(ctx context.Context, from, to uint64, take func(result) error) (uint64, error) {
	// While a batch is committed, workers go on: there is room for all that a window holds, but
	// for findings, which may be large and many. Those wait with their workers.
	room := window + s.cfg.Parallel
	jobs, done, heavy := make(chan job), make(chan result, room), make(chan result)
	slots := make(chan struct{}, room)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(jobs)
		return s.produce(gctx, from, to, slots, jobs)
	})
	var workers sync.WaitGroup
	for range s.cfg.Parallel {
		workers.Add(1)
		g.Go(func() error {
			defer workers.Done()
			for j := range jobs {
				res := s.bundle(gctx, j)
				out := done
				if len(res.findings)+len(res.served) > 0 {
					out = heavy
				}
				select {
				case out <- res:
				case <-gctx.Done():
					return gctx.Err()
				}
			}
			return nil
		})
	}
	g.Go(func() error { workers.Wait(); close(done); close(heavy); return nil })
	reached := from
	g.Go(func() error {
		waiting := map[uint64]result{} // by first leaf wanted
		for done, heavy := done, heavy; done != nil || heavy != nil; {
			var res result
			var ok bool
			select {
			case res, ok = <-done:
				if !ok {
					done = nil
					continue
				}
			case res, ok = <-heavy:
				if !ok {
					heavy = nil
					continue
				}
			}
			waiting[res.job.from] = res
			for {
				next, ok := waiting[reached]
				if !ok {
					break
				}
				delete(waiting, reached)
				// A bundle that failed ends the scan when its turn comes: all before
				// it is good.
				if next.err != nil {
					return next.err
				}
				if err := take(next); err != nil {
					return err
				}
				reached = next.job.to
				<-slots
			}
		}
		return nil
	})
	err := g.Wait()
	return reached, err
}

// produce proves the roots of bundles, a whole level-1 tile at a time, and
// sends the bundles off: at least one, and no further ones after the deadline.
func (s *span) produce(ctx context.Context, from, to uint64, slots chan<- struct{}, jobs chan<- job) error {
	ctx, cancel := context.WithCancel(ctx)
	var ahead sync.WaitGroup
	defer func() { cancel(); ahead.Wait(); s.ahead.Clear() }()
	if to-from > tileLeaves {
		// A long scan begins with two tiles, one proven by the other, and ends with one of leaves.
		var first sync.WaitGroup
		for level := uint(1); level <= 2; level++ {
			first.Go(func() { s.fetchAhead(ctx, level, from>>(8*(level+1))) })
		}
		ahead.Go(func() { s.fetchAhead(ctx, 0, to/checkpoint.TileWidth) })
		first.Wait()
	}
	for at := from; at < to; {
		if at > from && s.over(s.deadline) {
			return nil
		}
		j := s.job(at, to)
		if next := at/tileLeaves + 1; (at == from || at%tileLeaves == 0) && next*tileLeaves < to {
			ahead.Go(func() { s.fetchAhead(ctx, 1, next) })
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case jobs <- j:
		case <-ctx.Done():
			return ctx.Err()
		}
		if j.err != nil && !j.lost {
			return nil // the error ends the scan, in its turn
		}
		at = j.to
	}
	return nil
}

// job prepares the bundle that holds leaf from.
func (s *span) job(from, to uint64) job {
	index := from / checkpoint.TileWidth
	first := index * checkpoint.TileWidth
	j := job{index: index, from: from, first: first, end: min(first+checkpoint.TileWidth, s.tree.Head().Size())}
	j.to = min(to, j.end)
	if j.end-first < checkpoint.TileWidth {
		if j.want, j.err = s.tree.Tile(0, index); j.err != nil {
			j.err = fmt.Errorf("hashes of entries %d to %d: %w", j.first, j.end, j.err)
		}
		return j
	}
	var err error
	if tile := index / checkpoint.TileWidth; s.roots == nil || s.rootsOf != tile {
		s.roots, err = s.tree.Tile(1, tile)
		s.rootsOf = tile
	}
	if err == nil {
		j.root = s.roots[index%checkpoint.TileWidth]
		return j
	}
	j.err = fmt.Errorf("hashes of entries from %d on: %w", j.first, err)
	// The root of a full level-1 tile is proven by the tile above it, so that the
	// scan can go on behind what is withheld.
	end := (index/checkpoint.TileWidth + 1) * tileLeaves
	if end <= s.tree.Head().Size() && (withheld(err) || s.forgiven()) {
		j.lost, j.to = true, min(to, end)
	}
	return j
}

// forgiven uses up one of the bundles that may become gaps unanswered.
func (s *span) forgiven() bool { return s.forgive.Add(-1) >= 0 }

// bundle fetches, proves, decodes and judges one bundle. Its error is one of
// fetching: what the log answers wrongly becomes a gap.
func (s *span) bundle(ctx context.Context, j job) result {
	res := result{job: j, err: j.err}
	if j.lost {
		s.log.Warn("hashes could not be had; the scan goes on past the entries below them", "from", j.from, "to", j.to, "error", j.err)
		res.err, res.jump = nil, true
		res.gaps = []Gap{s.newGap(j.from, j.to, KindEntryWithheld)}
	}
	if j.err != nil {
		return res
	}
	tries := refetches
	if s.accused {
		tries = 0
	}
	place := seat{span: s}
	defer place.leave()
	for try := 0; ; try++ {
		place.leave() // nobody waits for an answer with memory in hand that others wait for
		leaves, err := s.fetch(ctx, j, &place)
		switch {
		case err == nil:
		case ctx.Err() == nil && (withheld(err) || s.forgiven()):
			s.log.Warn("an entry bundle could not be had; the scan goes on past it", "bundle", j.index, "error", err)
			return s.gap(res, KindEntryWithheld)
		default:
			res.err = fmt.Errorf("fetching entries %d to %d: %w", j.first, j.end, err)
			return res
		}
		select {
		case s.busy <- struct{}{}:
		case <-ctx.Done():
			return result{job: j, err: ctx.Err()}
		}
		got := checkpoint.LeafHashes(leaves)
		if j.fits(got) {
			res.chunk = j.chunk(got)
			res = s.readAll(ctx, place.eyes, res, leaves, got, nil)
			<-s.busy
			return res
		}
		<-s.busy
		if try >= tries {
			return s.mismatch(ctx, place.eyes, res, leaves, got)
		}
		if s.retry {
			s.kept = nil // it is asked for again
		}
	}
}

// seat is what a bundle takes once the log answers for it: until then it costs nearly nothing, so
// that many can be asked for at a time.
type seat struct {
	span    *span
	eyes    *eyes
	size    int64
	release func()
}

// take takes it, if that was not done yet, for so many bytes; 0: nobody knows.
func (p *seat) take(ctx context.Context, size int64) (err error) {
	if p.eyes == nil {
		if p.release, err = p.span.budget.take(ctx, size); err == nil {
			p.eyes, p.size = p.span.takeEyes(), size
		}
	}
	return err
}

// leave gives it back, if it was taken.
func (p *seat) leave() {
	if p.eyes != nil {
		p.span.putEyes(p.eyes)
		p.release()
		p.eyes = nil
	}
}

// fetch reads all entries of a bundle, with the memory of a seat: they are good until that is used
// again.
func (s *span) fetch(ctx context.Context, j job, place *seat) ([][]byte, error) {
	if s.retry && s.kept != nil && s.last.index == j.index {
		return s.kept, place.take(ctx, 0)
	}
	inSeat := !s.retry // or else they are kept
	room := func(size int64) (*[]byte, error) {
		if inSeat && size > place.size {
			place.leave() // the answer before this one broke off, and was said to be smaller
		}
		if err := place.take(ctx, size); err != nil || !inSeat {
			return nil, err
		}
		return &place.eyes.room, nil
	}
	var leaves [][]byte
	size := 0
	for at := j.first; at < j.end; {
		part, err := s.leaves(ctx, at, j.end, room)
		if err != nil {
			return nil, err
		}
		if n := uint64(len(part)); n == 0 || n > j.end-at {
			return nil, fmt.Errorf("source returned %d entries for [%d, %d)", n, at, j.end)
		}
		for _, l := range part {
			size += len(l)
		}
		if leaves = append(leaves, part...); len(leaves) < int(j.end-j.first) {
			inSeat = false // it holds what there is
		}
		at = j.first + uint64(len(leaves))
	}
	s.budget.learn(size)
	if s.retry {
		s.last, s.kept = j, leaves
	}
	return leaves, nil
}

// fits reports whether these are the leaf hashes of the bundle.
func (j job) fits(got []checkpoint.Hash) bool {
	if j.want == nil {
		return checkpoint.PerfectRoot(got) == j.root
	}
	for i := range got {
		if got[i] != j.want[i] {
			return false
		}
	}
	return len(got) == len(j.want)
}

// chunk is what the bundle adds to a frontier. Where no leaf hash is known, it
// is the root alone.
func (j job) chunk(all []checkpoint.Hash) checkpoint.Chunk {
	c := checkpoint.Chunk{}
	if all != nil {
		c.Leaves = all[j.from-j.first : j.to-j.first]
	}
	if j.from == j.first && j.to == j.first+checkpoint.TileWidth {
		c.Root = j.root
	}
	return c
}

// readAll decodes the leaves that are wanted, save those left out, and proves
// those that are ours.
func (s *span) readAll(ctx context.Context, eyes *eyes, res result, leaves [][]byte, proven []checkpoint.Hash, leaveOut map[uint64]bool) result {
	j := res.job
	for i := j.from; i < j.to; i++ {
		if leaveOut[i] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return result{job: j, err: err}
		}
		found := s.read(eyes, i, leaves[i-j.first], nil, &res.tally)
		if len(found) == 0 {
			continue
		}
		path, err := s.tree.LeafPath(i, proven)
		if err != nil {
			return result{job: j, err: fmt.Errorf("inclusion proof of entry %d: %w", i, err)}
		}
		for k := range found {
			s.seal(&found[k], s.epoch, s.tree.Head(), path)
		}
		res.findings = append(res.findings, found...)
	}
	return res
}

func (s *span) newGap(from, to uint64, reason string) Gap {
	return Gap{Range: Range{from, to}, Reason: reason, Polls: 1, Since: s.opts.Now().UTC()}
}

// gap goes on without any entry of a bundle.
func (s *span) gap(res result, reason string) result {
	j := res.job
	want := j.want
	if want == nil {
		// The hashes serve our own tiles only; the root alone is enough to go on.
		want, _ = s.tree.Tile(0, j.index)
	}
	res.chunk = j.chunk(want)
	res.jump = len(res.chunk.Leaves) == 0 && res.chunk.Root == (checkpoint.Hash{})
	res.gaps = []Gap{s.newGap(j.from, j.to, reason)}
	return res
}

// mismatch finds out which entries of a bundle do not fit, and goes on with
// the others.
func (s *span) mismatch(ctx context.Context, eyes *eyes, res result, leaves [][]byte, got []checkpoint.Hash) result {
	j := res.job
	s.log.Warn("entries do not hash to the signed tree; the scan goes on past them", "bundle", j.index)
	res.served = map[uint64][]byte{}
	keep := func(i uint64) {
		if len(res.served) < maxServed {
			res.served[i] = append([]byte{}, leaves[i-j.first]...)
		}
	}
	want := j.want
	if want == nil {
		var err error
		if want, err = s.tree.Tile(0, j.index); err != nil {
			for i := j.from; i < j.to; i++ {
				keep(i)
			}
			return s.gap(res, KindEntryMismatch) // which of them cannot be told
		}
	}
	res.chunk = j.chunk(want)
	wrong := map[uint64]bool{}
	prove := func(i uint64) {
		path, err := s.tree.LeafPath(i, want)
		if err == nil && len(res.held) < maxServed {
			res.held = append(res.held, heldEvidence(i, want[i-j.first], path))
		}
	}
	for i := j.from; i < j.to; i++ {
		if got[i-j.first] == want[i-j.first] {
			continue
		}
		wrong[i] = true
		keep(i)
		prove(i)
		if n := len(res.gaps); n > 0 && res.gaps[n-1].To == i {
			res.gaps[n-1].To++
		} else {
			res.gaps = append(res.gaps, s.newGap(i, i+1, KindEntryMismatch))
		}
	}
	return s.readAll(ctx, eyes, res, leaves, want, wrong)
}
