package checkpoint

import (
	"crypto/sha256"
	"math/bits"

	"github.com/sigwarden/sigwarden/checkpoint/lanes"
)

// Hash is a SHA-256 hash of a leaf or of an interior node of a log's tree.
type Hash = [sha256.Size]byte

// HashSize is the length of a Hash in bytes.
const HashSize = sha256.Size

// EmptyRoot is the root of a tree of size 0: the hash of no bytes (RFC 6962, 2.1).
var EmptyRoot = Hash(sha256.Sum256(nil))

// Prefixes of what is hashed (RFC 6962, 2.1).
const (
	leafPrefix = 0
	nodePrefix = 1
)

// LeafHash returns H(0x00 || leaf), the leaf hash of RFC 6962, 2.1.
func LeafHash(leaf []byte) Hash { return lanes.One(leafPrefix, leaf) }

// LeafHashes returns the leaf hashes of many leaves, which is faster than one by one.
func LeafHashes(leaves [][]byte) []Hash {
	out := make([]Hash, len(leaves))
	lanes.Sum(leafPrefix, leaves, out)
	return out
}

// nodeHash returns H(0x01 || left || right), the hash of an interior node.
func nodeHash(left, right Hash) Hash {
	var buf [1 + 2*HashSize]byte
	buf[0] = nodePrefix
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
	var room [TileWidth / 2]Hash
	for len(hashes) >= 2*manyPairs && len(hashes) <= 2*len(room) {
		hashes = foldPairs(room[:], hashes)
	}
	var stack [64]Hash
	return foldInto(stack[:0], hashes)
}

// manyPairs is from how many pairs on they are hashed at once.
const manyPairs = 8

// foldPairs puts the nodes above hashes, which a tile has room for, into room, and returns them: a
// last one without a pair goes up as it is. Folding all levels this way comes to the tree of
// RFC 6962. room may be where hashes are.
func foldPairs(room, hashes []Hash) []Hash {
	var pairs [TileWidth / 2][2 * HashSize]byte
	var messages [TileWidth / 2][]byte
	n := len(hashes) / 2
	for i := range n {
		copy(pairs[i][:], hashes[2*i][:])
		copy(pairs[i][HashSize:], hashes[2*i+1][:])
		messages[i] = pairs[i][:]
	}
	lanes.Sum(nodePrefix, messages[:n], room)
	return append(room[:n], hashes[2*n:]...)
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
