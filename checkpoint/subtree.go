package checkpoint

import (
	"fmt"
	"math/bits"
)

// Subtree names the leaves [Start, End) of a tree. Its hash is that of a tree with these
// leaves and no others.
type Subtree struct {
	Start, End uint64
}

// valid reports whether Start is a multiple of the smallest power of two that is not
// below the number of leaves: then all nodes of the subtree but those at its right edge
// are nodes of the whole tree (draft-ietf-plants-merkle-tree-certs, 4.1).
func (s Subtree) valid() bool {
	return s.Start < s.End && s.Start&(1<<bits.Len64(s.End-s.Start-1)-1) == 0
}

// VerifySubtree checks that a subtree with this hash lies in the tree of the given size
// and root, by a subtree consistency proof (draft-ietf-plants-merkle-tree-certs, 4.4): an
// audit path for one leaf, an RFC 6962 consistency proof for one that starts at 0. The
// error wraps ErrUnproven.
func VerifySubtree(size uint64, root Hash, s Subtree, h Hash, proof [][]byte) error {
	hashes, err := toHashes(proof)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	if !s.valid() || s.End > size {
		return fmt.Errorf("%w: [%d, %d) is no subtree of a tree of size %d", ErrUnproven, s.Start, s.End, size)
	}
	whole := Checkpoint{size: size, root: root}
	leaves := s.End - s.Start
	level := uint(bits.Len64(leaves - 1))
	if leaves == 1<<level || s.End == size {
		_, err := whole.prove(node{level, s.Start >> level}, h, hashes)
		return err
	}
	// Its end is not the tree's and cuts a node of it. The proof shows the peaks of all
	// leaves before that end, and the last of them are those of the subtree.
	got, err := whole.proveConsistency(s.End, Hash{}, hashes)
	if err != nil {
		return err
	}
	if foldPeaks(got.peaks[len(got.peaks)-bits.OnesCount64(leaves):]) != h {
		return fmt.Errorf("%w: the hash of [%d, %d) is another one", ErrUnproven, s.Start, s.End)
	}
	return nil
}
