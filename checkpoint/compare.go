package checkpoint

import (
	"errors"
	"fmt"
	"math/bits"
)

// Known is what a monitor holds of one log: the verified head, the part that
// it has read itself, and hashes of its own that let it judge another
// checkpoint when the log serves no tiles, or those of another tree.
type Known struct {
	// Head is the newest checkpoint that was proven to extend all before it,
	// Peaks its peaks, largest first.
	Head  Checkpoint
	Peaks []Hash
	// Scanned is the frontier of the leaves that were read, Link the perfect
	// subtrees that make up [Scanned.Size, Head.Size).
	Scanned Frontier
	Link    []Hash
	// Own returns kept hashes of [0, Scanned.Size).
	Own OwnTiles
}

// Step is what is to be kept of a checkpoint that extends the head, in place
// of the fields of the same names in Known.
type Step struct {
	Peaks []Hash
	Link  []Hash
}

// Tree returns the verified tree of the head, readable through own hashes
// first and through served tiles where those end.
func (k Known) Tree(served TileReader) (*Tree, error) {
	if len(k.Peaks) != bits.OnesCount64(k.Head.size) || foldPeaks(k.Peaks) != k.Head.root {
		return nil, fmt.Errorf("the kept peaks do not fold to the root of the kept head of size %d", k.Head.size)
	}
	links := cover(k.Scanned.size, k.Head.size)
	if k.Scanned.size > k.Head.size || len(links) != len(k.Link) {
		return nil, fmt.Errorf("%d kept subtrees do not link the scanned size %d to the head of size %d", len(k.Link), k.Scanned.size, k.Head.size)
	}
	whole := k.Scanned
	for i, n := range links {
		var err error
		if whole, err = whole.AppendPerfect(n.level, k.Link[i]); err != nil {
			return nil, err
		}
	}
	if whole.Root() != k.Head.root {
		return nil, fmt.Errorf("what was kept of the scanned size %d does not fold to the root of the kept head of size %d", k.Scanned.size, k.Head.size)
	}
	t := newTree(k.Head, k.Peaks, served)
	t.own, t.scanned, t.split = k.Own, k.Scanned.size, k.Scanned.size
	k.teach(t)
	return t, nil
}

// teach tells a tree that begins with the head what is known of it.
func (k Known) teach(t *Tree) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, n := range cover(0, k.Scanned.size) {
		t.known[n] = k.Scanned.peaks[i]
	}
	for i, n := range cover(k.Scanned.size, k.Head.size) {
		t.known[n] = k.Link[i]
	}
}

// Compare judges a checkpoint against the known head. served reads the tiles
// that the log answers with now, of whatever tree; it may be nil.
//
// For a smaller checkpoint from an archive, archived reads the tiles that were
// kept with it, and served those of the log's tree of today; else nil.
//
// It returns the step and nil when next extends the head or equals it, and
// otherwise one of
//   - *DivergenceError: both cannot be true, with evidence;
//   - ErrOlder: next is smaller and proven to be a prefix of the head;
//   - ErrPending: next is smaller, and neither could be shown. The tiles of
//     it that were proven are returned for an archive;
//   - ErrUnproven: next is larger, and tiles were served that do not fit it;
//   - the error of served, or of Own: next could not be judged.
func (k Known) Compare(next Checkpoint, served, archived TileReader) (Step, []Tile, error) {
	if next.log != k.Head.log {
		return Step{}, nil, fmt.Errorf("%w: %.100q and %.100q", ErrOrigin, k.Head.origin, next.origin)
	}
	if served == nil {
		served = func(uint, uint64, int) ([]byte, error) { return nil, errNotKept }
	}
	switch {
	case next.size == k.Head.size && next.root == k.Head.root:
		return Step{Peaks: k.Peaks, Link: k.Link}, nil, nil
	case next.size == k.Head.size:
		return Step{}, nil, &DivergenceError{equalSize(k.Head, next)}
	case next.size > k.Head.size:
		step, err := k.compareLarger(next, served)
		return step, nil, err
	}
	if archived == nil {
		archived = served
	}
	tiles, err := k.compareSmaller(next, served, archived)
	return Step{}, tiles, err
}

func (k Known) compareLarger(next Checkpoint, served TileReader) (Step, error) {
	ours, err := k.Tree(nil)
	if err != nil {
		return Step{}, err
	}
	theirs, err := OpenTree(next, served)
	if err != nil {
		return Step{}, unproven(err)
	}
	// The peaks of our head, as the larger tree has them.
	var firstErr error
	for i, n := range cover(0, k.Head.size) {
		h, err := theirs.lockedNode(n)
		if err != nil {
			if firstErr == nil {
				firstErr = err
			}
			continue
		}
		if h != k.Peaks[i] {
			return Step{}, k.larger(ours, theirs, n, h)
		}
	}
	if firstErr != nil {
		return Step{}, unproven(firstErr)
	}
	// The larger tree begins with ours: what links the scanned size to our head
	// needs no tile any more.
	k.teach(theirs)
	theirs.split = k.Head.size
	link, err := theirs.nodes(k.Scanned.size, next.size)
	if err != nil {
		return Step{}, unproven(err)
	}
	return Step{Peaks: theirs.Peaks(), Link: link}, nil
}

// larger makes evidence that a larger tree has another peak of our head:
// prefix evidence where the tiles that it takes are served, else that peak.
func (k Known) larger(ours, theirs *Tree, peak node, theirHash Hash) error {
	if d, err := prefixEvidence(k.Head, theirs); err == nil {
		return &DivergenceError{d}
	}
	d, err := nodeEvidence(ours, theirs, peak, theirHash)
	if err != nil {
		return unproven(err)
	}
	return &DivergenceError{d}
}

func (k Known) compareSmaller(next Checkpoint, served, archived TileReader) ([]Tile, error) {
	if next.size == 0 {
		// The empty tree is a prefix of every tree, and Open accepts no other root.
		return nil, ErrOlder
	}
	ours, err := k.Tree(served)
	if err != nil {
		return nil, err
	}
	if f, err := ours.Frontier(next.size); err == nil {
		if f.Root() == next.root {
			return nil, ErrOlder
		}
		if d, err := prefixEvidence(next, ours); err == nil {
			return nil, &DivergenceError{d}
		}
	}
	if ours.fault != nil {
		return nil, ours.fault
	}
	theirs, err := OpenTree(next, archived)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPending, err)
	}
	for _, peak := range cover(0, next.size) {
		if d, ok := findNode(ours, theirs, peak); ok {
			return nil, &DivergenceError{d}
		}
	}
	if ours.fault != nil {
		return nil, ours.fault
	}
	return theirs.proven(), ErrPending
}

// findNode looks for a node at or below n that differs between both trees.
// Where ours does not know a node as a whole it may know its parts: those on
// both sides of the scanned size.
func findNode(ours, theirs *Tree, n node) (Divergence, bool) {
	mine, err := ours.lockedNode(n)
	if err == nil {
		their, err := theirs.lockedNode(n)
		if err != nil || their == mine {
			return Divergence{}, false
		}
		d, err := nodeEvidence(ours, theirs, n, their)
		return d, err == nil
	}
	if n.level == 0 || n.start() >= ours.scanned || n.end() <= ours.scanned {
		return Divergence{}, false
	}
	for _, half := range []node{{n.level - 1, 2 * n.index}, {n.level - 1, 2*n.index + 1}} {
		if d, ok := findNode(ours, theirs, half); ok {
			return d, true
		}
	}
	return Divergence{}, false
}

// prefixEvidence proves, in the larger tree, the largest node that starts at
// the smaller size.
func prefixEvidence(smaller Checkpoint, larger *Tree) (Divergence, error) {
	larger.mu.Lock()
	defer larger.mu.Unlock()
	level := uint(bits.TrailingZeros64(smaller.size))
	at := node{level, smaller.size >> level}
	h, err := larger.edgeNode(at)
	if err != nil {
		return Divergence{}, err
	}
	path, err := larger.path(at)
	if err != nil {
		return Divergence{}, err
	}
	return prefix(smaller, larger.head, at, h, path), nil
}

func nodeEvidence(ours, theirs *Tree, n node, theirHash Hash) (Divergence, error) {
	ourHash, err := ours.lockedNode(n)
	if err != nil {
		return Divergence{}, err
	}
	ourPath, err := ours.lockedPath(n)
	if err != nil {
		return Divergence{}, err
	}
	theirPath, err := theirs.lockedPath(n)
	if err != nil {
		return Divergence{}, err
	}
	d := Divergence{Shape: Node, Level: n.level, Index: n.index}
	our, their := provenNode(ourHash, ourPath), provenNode(theirHash, theirPath)
	if ours.head.size < theirs.head.size {
		d.Smaller, d.InSmaller = string(ours.head.raw), our
		d.Larger, d.InLarger = string(theirs.head.raw), their
	} else {
		d.Smaller, d.InSmaller = string(theirs.head.raw), their
		d.Larger, d.InLarger = string(ours.head.raw), our
	}
	return d, nil
}

// unproven tells tiles that do not fit from tiles that could not be had.
func unproven(err error) error {
	if errors.Is(err, ErrTile) {
		return fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	return err
}
