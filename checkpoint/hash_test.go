package checkpoint

import (
	"crypto/sha256"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// mth is the definition of RFC 6962, 2.1, over leaf hashes.
func mth(hashes []Hash) Hash {
	switch n := len(hashes); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return hashes[0]
	default:
		k := 1 << (bits.Len(uint(n-1)) - 1)
		left, right := mth(hashes[:k]), mth(hashes[k:])
		return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
	}
}

// TestManyHashes compares what is hashed many at once with the definition, for every count up to
// more than a tile has.
func TestManyHashes(t *testing.T) {
	r := rand.NewChaCha8([32]byte{1})
	leaves := make([][]byte, 2*TileWidth+70)
	for i := range leaves {
		leaves[i] = make([]byte, r.Uint64()%200)
		r.Read(leaves[i])
	}
	for n := range leaves {
		got := LeafHashes(leaves[:n])
		for i, h := range got {
			if want := Hash(sha256.Sum256(append([]byte{0}, leaves[i]...))); h != want || LeafHash(leaves[i]) != want {
				t.Fatalf("leaf %d of %d: %x, want %x", i, n, h, want)
			}
		}
		kept := slices.Clone(got)
		if root := PerfectRoot(got); root != mth(got) {
			t.Fatalf("root of %d: %x, want %x", n, root, mth(got))
		}
		if !slices.Equal(got, kept) {
			t.Fatalf("folding %d hashes changed them", n)
		}
	}
}
