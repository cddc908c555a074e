package checkpoint

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// Prover answers for a log that serves proofs and no tiles (Rekor v1). What it
// returns is unproven; errors mean that the log did not answer.
type Prover interface {
	// Consistency returns the RFC 6962 consistency proof between two sizes.
	Consistency(from, to uint64) ([][]byte, error)
	// Path returns the hash of the leaf at index, its audit path, and the signed
	// note that the path leads to: for Rekor v1 its newest.
	Path(index uint64) (leafHash Hash, path [][]byte, note []byte, err error)
}

// CompareProven is Compare for a log that serves proofs. open opens the notes
// that come with paths. It returns
//   - nil when next extends the head or equals it;
//   - *DivergenceError: both cannot be true, with evidence;
//   - ErrOlder: next is smaller and proven to be a prefix of the head;
//   - ErrPending: next is smaller, and neither could be shown;
//   - ErrUnproven: next is larger, and the proof does not verify;
//   - the error of the prover, or of Own: next could not be judged.
func (k Known) CompareProven(next Checkpoint, p Prover, open func([]byte) (Checkpoint, error)) error {
	switch {
	case next.log != k.Head.log || next.size == k.Head.size || k.Head.size == 0:
		return Advance(k.Head, next, nil)
	case next.size < k.Head.size:
		return k.smallerProven(next, p, open)
	}
	proof, err := p.Consistency(k.Head.size, next.size)
	if err != nil {
		return err
	}
	return advanceOrPath(k.Head, next, proof, p, open)
}

// advanceOrPath advances by a proof. Where that does not verify, the path of the
// leaf that starts at the older size is asked for: a consistency proof from a
// power of two cannot tell a fork from nonsense, and a log that forked may serve
// no proof at all.
func advanceOrPath(old, next Checkpoint, proof [][]byte, p Prover, open func([]byte) (Checkpoint, error)) error {
	failure := Advance(old, next, proof)
	if !errors.Is(failure, ErrUnproven) {
		return failure
	}
	leaf, path, raw, err := p.Path(old.size)
	if err != nil {
		return failure
	}
	larger, err := open(raw)
	if err != nil || larger.log != old.log || larger.size <= old.size {
		return failure
	}
	hashes, err := toHashes(path)
	if err != nil {
		return failure
	}
	lefts, err := larger.prove(node{0, old.size}, leaf, hashes)
	if err != nil {
		return failure
	}
	slices.Reverse(lefts)
	if foldPeaks(lefts) == old.root {
		return failure // no contradiction in this; the proof is bad all the same
	}
	return &DivergenceError{prefix(old, larger, node{0, old.size}, leaf, hashes)}
}

func (k Known) smallerProven(next Checkpoint, p Prover, open func([]byte) (Checkpoint, error)) error {
	if next.size == 0 {
		return ErrOlder
	}
	f, err := k.ownFrontier(next.size)
	if err == nil && f.Root() == next.root {
		return ErrOlder // shown without any help of the log
	}
	if err != nil && !errors.Is(err, errNotKept) {
		return err
	}
	proof, err := p.Consistency(next.size, k.Head.size)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPending, err)
	}
	err = advanceOrPath(next, k.Head, proof, p, open)
	var fork *DivergenceError
	switch {
	case err == nil:
		return ErrOlder
	case errors.As(err, &fork):
		return err
	}
	return fmt.Errorf("%w: %w", ErrPending, err)
}

// ownFrontier computes the frontier of the first leaves that were read from own
// hashes alone, or returns errNotKept.
func (k Known) ownFrontier(size uint64) (Frontier, error) {
	if size > k.Scanned.size {
		return Frontier{}, errNotKept
	}
	f := Frontier{}
	for _, n := range cover(0, size) {
		level, index, from, to := tileOf(n)
		hashes, err := k.Own(level, index)
		if err != nil {
			return Frontier{}, fmt.Errorf("own tile (%d, %d): %w", level, index, err)
		}
		if len(hashes) < to {
			return Frontier{}, errNotKept
		}
		if f, err = f.AppendPerfect(n.level, PerfectRoot(hashes[from:to])); err != nil {
			return Frontier{}, err
		}
	}
	return f, nil
}

// FrontierFrom returns the size from which a consistency proof to c's shows the frontier of the leaves
// [0, size); c's own size: no proof is needed. Mostly it is size itself, whose proof holds the peaks
// (wire-formats 2.5); that of a power of two omits its only one. ok is false for what no such proof
// shows, and the path of a leaf does: the first leaf alone, two or all of three, and none at all.
func (c Checkpoint) FrontierFrom(size uint64) (from uint64, ok bool) {
	power := func(n uint64) bool { return bits.OnesCount64(n) == 1 }
	switch {
	case size == 0 || size > c.size:
		return 0, false
	case size == c.size && power(size):
		return size, true
	case size < c.size && !power(size):
		return size, true
	case size > 1 && size+1 < c.size:
		return size + 1, true
	case size == c.size && !power(size-1):
		return size - 1, true
	case size > 1 && c.size > 3:
		return c.size - 2, true // a power of two, and one leaf
	}
	return 0, false
}

// FrontierBy returns the frontier of the leaves [0, size), proven under c by the consistency proof
// that FrontierFrom names. The error wraps ErrUnproven.
func (c Checkpoint) FrontierBy(size uint64, proof [][]byte) (Frontier, error) {
	from, ok := c.FrontierFrom(size)
	if !ok {
		return Frontier{}, fmt.Errorf("%w: no consistency proof shows %d leaves of a tree of %d", ErrUnproven, size, c.size)
	}
	hashes, err := toHashes(proof)
	if err != nil {
		return Frontier{}, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	if from == c.size {
		if len(hashes) != 0 {
			return Frontier{}, fmt.Errorf("%w: a proof between equal sizes has no hashes", ErrUnproven)
		}
		return NewFrontier(size, []Hash{c.root})
	}
	got, err := c.proveConsistency(from, Hash{}, hashes)
	if err != nil {
		return Frontier{}, err
	}
	if from > size {
		return NewFrontier(size, got.peaks[:1])
	}
	f, err := NewFrontier(from, got.peaks)
	if err != nil || from == size {
		return f, err
	}
	// The rest of the tree is a leaf, or two of them: the one beside the first hash, and the last.
	rest := []Hash{hashes[1], hashes[len(hashes)-1]}[:c.size-from]
	if f.Append(rest...).Root() != c.root {
		return Frontier{}, fmt.Errorf("%w: the last leaves do not lead to the root of size %d", ErrUnproven, c.size)
	}
	return f.Append(rest[:size-from]...), nil
}
