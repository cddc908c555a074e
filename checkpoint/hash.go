package checkpoint

import (
	"crypto/sha256"
	"hash"
	"math/bits"
)

// Hash is a SHA-256 hash of a leaf or of an interior node of a log's tree.
type Hash = [sha256.Size]byte

// HashSize is the length of a Hash in bytes.
const HashSize = sha256.Size

// EmptyRoot is the root of a tree of size 0: the hash of no bytes (RFC 6962, 2.1).
var EmptyRoot = Hash(sha256.Sum256(nil))

// LeafHash returns H(0x00 || leaf), the leaf hash of RFC 6962, 2.1.
func LeafHash(leaf []byte) Hash {
	return NewLeafHasher().Hash(leaf)
}

// LeafHasher computes leaf hashes without allocating for each of them. It must
// not be used by two goroutines at a time.
type LeafHasher struct {
	h   hash.Hash
	sum [HashSize]byte
}

// NewLeafHasher returns a LeafHasher ready for use.
func NewLeafHasher() *LeafHasher {
	return &LeafHasher{h: sha256.New()}
}

var leafPrefix = []byte{0}

// Hash returns the leaf hash of the given bytes.
func (l *LeafHasher) Hash(leaf []byte) Hash {
	l.h.Reset()
	l.h.Write(leafPrefix)
	l.h.Write(leaf)
	l.h.Sum(l.sum[:0])
	return l.sum
}

// nodeHash returns H(0x01 || left || right), the hash of an interior node.
func nodeHash(left, right Hash) Hash {
	var buf [1 + 2*HashSize]byte
	buf[0] = 1
	copy(buf[1:], left[:])
	copy(buf[1+HashSize:], right[:])
	return sha256.Sum256(buf[:])
}

// PerfectRoot folds 2^k hashes to the root of the perfect subtree above them.
// It panics never: a count that is no power of two gives the RFC 6962 tree
// hash of that many nodes, and no hashes give EmptyRoot.
func PerfectRoot(hashes []Hash) Hash {
	if len(hashes) == 0 {
		return EmptyRoot
	}
	var stack [64]Hash
	return foldInto(stack[:0], hashes)
}

// foldInto is the stack machine behind PerfectRoot: after each leaf, complete
// subtrees are merged; what remains are the peaks, folded right to left.
func foldInto(stack []Hash, hashes []Hash) Hash {
	for i, h := range hashes {
		for n := i; n&1 == 1; n >>= 1 {
			h = nodeHash(stack[len(stack)-1], h)
			stack = stack[:len(stack)-1]
		}
		stack = append(stack, h)
	}
	return foldPeaks(stack)
}

// foldPeaks folds the peaks of a tree, largest first, to its root.
func foldPeaks(peaks []Hash) Hash {
	if len(peaks) == 0 {
		return EmptyRoot
	}
	root := peaks[len(peaks)-1]
	for i := len(peaks) - 2; i >= 0; i-- {
		root = nodeHash(peaks[i], root)
	}
	return root
}

// node names the root of a perfect subtree: it covers the leaves
// [index<<level, (index+1)<<level).
type node struct {
	level uint
	index uint64
}

func (n node) start() uint64 { return n.index << n.level }
func (n node) end() uint64   { return (n.index + 1) << n.level }

// cover returns the fewest perfect subtrees that make up the leaves
// [from, to), from left to right. For from = 0 these are the peaks of a tree
// of size to.
func cover(from, to uint64) []node {
	var nodes []node
	for from < to {
		level := uint(63)
		if from > 0 {
			level = uint(bits.TrailingZeros64(from))
		}
		if fit := uint(bits.Len64(to-from)) - 1; fit < level {
			level = fit
		}
		nodes = append(nodes, node{level, from >> level})
		from += 1 << level
	}
	return nodes
}
