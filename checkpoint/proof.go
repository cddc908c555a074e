package checkpoint

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// Outcomes of a comparison that are neither "extends" nor a contradiction.
var (
	// ErrOlder says that a checkpoint is smaller than the trusted one, and
	// that it is a true prefix of it where Known.Compare returns it.
	ErrOlder = errors.New("checkpoint is older than the verified one")
	// ErrUnproven says that what was served proves nothing: it is wrong, but
	// that shows no fork either.
	ErrUnproven = errors.New("the served proof does not verify")
	// ErrPending says that a smaller checkpoint could be shown to be neither a
	// prefix of the verified tree nor a fork of it, with the tiles at hand.
	ErrPending = errors.New("smaller checkpoint cannot be judged yet")
)

// climb folds a node upwards with its audit path in a tree of the given size,
// and returns the root and the left siblings met, from the leaf side up. The
// node may also be the last, partial one of its level. RFC 9162, 2.1.3.2, with
// the node's level taken as that of the leaves.
func climb(n node, h Hash, size uint64, path []Hash) (root Hash, lefts []Hash, err error) {
	if size == 0 || n.level > 62 || n.index > (size-1)>>n.level {
		return Hash{}, nil, fmt.Errorf("node (%d, %d) does not lie in a tree of size %d", n.level, n.index, size)
	}
	index, last := n.index, (size-1)>>n.level
	for _, p := range path {
		if last == 0 {
			return Hash{}, nil, errors.New("path is too long")
		}
		if index&1 == 1 || index == last {
			h = nodeHash(p, h)
			lefts = append(lefts, p)
			for index&1 == 0 && index != 0 {
				index >>= 1
				last >>= 1
			}
		} else {
			h = nodeHash(h, p)
		}
		index >>= 1
		last >>= 1
	}
	if last != 0 {
		return Hash{}, nil, errors.New("path is too short")
	}
	return h, lefts, nil
}

// prove checks that a node with this hash lies in the tree of c, and returns
// its left siblings from the leaf side up. The error wraps ErrUnproven.
func (c Checkpoint) prove(n node, h Hash, path []Hash) ([]Hash, error) {
	root, lefts, err := climb(n, h, c.size, path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	if root != c.root {
		return nil, fmt.Errorf("%w: the path of node (%d, %d) does not lead to the root of size %d", ErrUnproven, n.level, n.index, c.size)
	}
	return lefts, nil
}

// VerifyInclusion checks that the leaf with this hash is at index in the tree
// of c, by its RFC 6962 audit path. The error wraps ErrUnproven.
func (c Checkpoint) VerifyInclusion(index uint64, leafHash Hash, path []Hash) error {
	_, err := c.prove(node{0, index}, leafHash, path)
	return err
}

// VerifyInclusion checks the same for the tree of a size and a root, for which nobody vouches here. The error
// wraps ErrUnproven.
func VerifyInclusion(size uint64, root Hash, index uint64, leafHash Hash, path []Hash) error {
	return Checkpoint{size: size, root: root}.VerifyInclusion(index, leafHash, path)
}

// consistency is a consistency proof taken apart.
type consistency struct {
	peaks []Hash // of the old size, as the new root authenticates them
	right node   // the node that starts at the old size ...
	hash  Hash   // ... its hash, and ...
	path  []Hash // ... its audit path under the new root
}

// proveConsistency takes the consistency proof of an old size under c apart.
// What it returns is authenticated by c's root alone, save where the old size
// is a power of two: there RFC 6962 omits the only peak, which is oldRoot.
// 0 < oldSize < c.size. The error wraps ErrUnproven.
func (c Checkpoint) proveConsistency(oldSize uint64, oldRoot Hash, proof []Hash) (consistency, error) {
	level := uint(bits.TrailingZeros64(oldSize))
	seed, rest := oldRoot, proof
	if oldSize != 1<<level {
		if len(proof) == 0 {
			return consistency{}, fmt.Errorf("%w: consistency proof is empty", ErrUnproven)
		}
		seed, rest = proof[0], proof[1:]
	}
	// The node that ends at the old size. Its index is even, so that its
	// sibling, the first hash of the rest, is the node that starts there.
	last := node{level, (oldSize - 1) >> level}
	lefts, err := c.prove(last, seed, rest)
	if err != nil {
		return consistency{}, err
	}
	peaks := slices.Clone(lefts)
	slices.Reverse(peaks)
	return consistency{
		peaks: append(peaks, seed),
		right: node{level, last.index + 1},
		hash:  rest[0],
		path:  append([]Hash{seed}, rest[1:]...),
	}, nil
}

// Advance decides whether a log may move from one checkpoint to the next, by
// an RFC 6962 consistency proof between them (empty for equal sizes and for a
// first checkpoint of size 0). It returns nil; ErrOlder when next is smaller;
// ErrUnproven when the proof does not verify, which by itself shows nothing;
// or a *DivergenceError when both can not be true. Logs that serve tiles are
// compared by Known.Compare, which needs no proof from them.
func Advance(old, next Checkpoint, proof [][]byte) error {
	hashes, err := toHashes(proof)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	switch {
	case old.log != next.log:
		return fmt.Errorf("%w: %.100q and %.100q", ErrOrigin, old.origin, next.origin)
	case next.size < old.size:
		return ErrOlder
	case next.size == old.size && next.root != old.root:
		return &DivergenceError{equalSize(old, next)}
	case next.size == old.size || old.size == 0:
		if len(hashes) != 0 {
			return fmt.Errorf("%w: nothing is to be proven from size %d to %d, yet the proof has %d hashes", ErrUnproven, old.size, next.size, len(hashes))
		}
		return nil
	}
	got, err := next.proveConsistency(old.size, old.root, hashes)
	if err != nil {
		return err
	}
	if foldPeaks(got.peaks) == old.root {
		return nil
	}
	return &DivergenceError{prefix(old, next, got.right, got.hash, got.path)}
}

// PathOver returns the inclusion proof of leaf n in the tree over all of some leaf
// hashes (RFC 6962, 2.1.1), leaf side first.
func PathOver(leaves []Hash, n uint64) ([]Hash, error) {
	size := uint64(len(leaves))
	if n >= size {
		return nil, fmt.Errorf("no leaf %d among %d", n, size)
	}
	if size == 1 {
		return nil, nil
	}
	split := uint64(1) << (bits.Len64(size-1) - 1)
	part, other := leaves[:split], leaves[split:]
	if n >= split {
		part, other, n = other, part, n-split
	}
	path, err := PathOver(part, n)
	return append(path, Frontier{}.Append(other...).Root()), err
}
