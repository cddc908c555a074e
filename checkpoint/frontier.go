package checkpoint

import (
	"fmt"
	"math/bits"
	"slices"
)

// Frontier is what is needed of the leaves [0, Size) to append more and to
// compute the root: the roots of the perfect subtrees that make them up, one
// for each bit of Size, largest first (a compact range). It is a value:
// methods return a new one and never change what another one holds.
type Frontier struct {
	size  uint64
	peaks []Hash
}

// NewFrontier puts a frontier together again from its parts, as a store kept
// them. The number of peaks must be the number of bits set in size.
func NewFrontier(size uint64, peaks []Hash) (Frontier, error) {
	if len(peaks) != bits.OnesCount64(size) {
		return Frontier{}, fmt.Errorf("frontier of size %d has %d peaks, want %d", size, len(peaks), bits.OnesCount64(size))
	}
	return Frontier{size: size, peaks: slices.Clone(peaks)}, nil
}

// Size returns the number of leaves covered.
func (f Frontier) Size() uint64 { return f.size }

// Peaks returns a copy of the roots of the perfect subtrees, largest first.
func (f Frontier) Peaks() []Hash { return slices.Clone(f.peaks) }

// Root returns the root of the tree of these leaves.
func (f Frontier) Root() Hash { return foldPeaks(f.peaks) }

// Append returns the frontier after more leaves, given by their hashes.
func (f Frontier) Append(leafHashes ...Hash) Frontier {
	next := Frontier{size: f.size, peaks: append(make([]Hash, 0, len(f.peaks)+2), f.peaks...)}
	for _, h := range leafHashes {
		next.push(0, h)
	}
	return next
}

// AppendPerfect returns the frontier after the 2^level leaves below a subtree
// root. Size must be a multiple of 2^level.
func (f Frontier) AppendPerfect(level uint, root Hash) (Frontier, error) {
	if level > 62 || f.size&(1<<level-1) != 0 {
		return Frontier{}, fmt.Errorf("a subtree of 2^%d leaves cannot begin at %d", level, f.size)
	}
	next := f.Append()
	next.push(level, root)
	return next, nil
}

func (f *Frontier) push(level uint, h Hash) {
	for n := f.size >> level; n&1 == 1; n >>= 1 {
		h = nodeHash(f.peaks[len(f.peaks)-1], h)
		f.peaks = f.peaks[:len(f.peaks)-1]
	}
	f.peaks = append(f.peaks, h)
	f.size += 1 << level
}

// Frontier returns the frontier of the leaves [0, index), proven under c by
// the audit path of the leaf at index: its left siblings are the peaks
// (RFC 6962, 2.1.1). index must be below c's size. The error wraps
// ErrUnproven when the path does not lead to c's root.
func (c Checkpoint) Frontier(index uint64, leafHash Hash, path [][]byte) (Frontier, error) {
	hashes, err := toHashes(path)
	if err != nil {
		return Frontier{}, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	lefts, err := c.prove(node{0, index}, leafHash, hashes)
	if err != nil {
		return Frontier{}, err
	}
	slices.Reverse(lefts)
	return Frontier{size: index, peaks: lefts}, nil
}

// Within proves that the leaves of f are the first ones of the tree of c, by
// an RFC 6962 consistency proof from f's size to c's. It returns nil,
// ErrOlder when c is smaller, or ErrUnproven.
func (f Frontier) Within(c Checkpoint, proof [][]byte) error {
	hashes, err := toHashes(proof)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	switch {
	case c.size < f.size:
		return ErrOlder
	case c.size == f.size && c.root == f.Root() && len(hashes) == 0:
		return nil
	case c.size == f.size:
		return fmt.Errorf("%w: root of %d leaves is not that of the checkpoint", ErrUnproven, f.size)
	case f.size == 0:
		// An empty tree is a prefix of every tree; there is nothing to prove.
		if len(hashes) != 0 {
			return fmt.Errorf("%w: a proof from size 0 has no hashes", ErrUnproven)
		}
		return nil
	}
	ends, err := c.proveConsistency(f.size, f.Root(), hashes)
	if err != nil {
		return err
	}
	if foldPeaks(ends.peaks) != f.Root() {
		return fmt.Errorf("%w: the proof starts from another tree", ErrUnproven)
	}
	return nil
}

func toHashes(list [][]byte) ([]Hash, error) {
	// No path in a tree of fewer than 2^63 leaves has more than 63 hashes, and
	// a consistency proof adds one.
	if len(list) > 64 {
		return nil, fmt.Errorf("proof has %d hashes, no tree is that high", len(list))
	}
	out := make([]Hash, len(list))
	for i, b := range list {
		if len(b) != HashSize {
			return nil, fmt.Errorf("hash %d of the proof has %d bytes, want %d", i, len(b), HashSize)
		}
		out[i] = Hash(b)
	}
	return out, nil
}
