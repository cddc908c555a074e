package checkpoint

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

// subtreeProof is the recursive definition of a subtree consistency proof
// (draft-ietf-plants-merkle-tree-certs, 4.4.1) for the leaves [from, to); start and end
// count from there.
func (s *simLog) subtreeProof(start, end, from, to uint64, complete bool) []Hash {
	n := to - from
	if start == 0 && end == n {
		if complete {
			return nil
		}
		return []Hash{s.mth(from, to)}
	}
	k := uint64(1)
	for k*2 < n {
		k *= 2
	}
	switch {
	case end <= k:
		return append(s.subtreeProof(start, end, from, from+k, complete), s.mth(from+k, to))
	case start >= k:
		return append(s.subtreeProof(start-k, end-k, from+k, to, complete), s.mth(from, from+k))
	}
	return append(s.subtreeProof(0, end-k, from+k, to, false), s.mth(from, from+k))
}

// TestSubtreeVectors holds the definitions above against the digests that the draft gives
// for them ("Subtree Test Vectors": everything for up to 130 leaves of one byte), and
// what we verify against these.
func TestSubtreeVectors(t *testing.T) {
	const max = 130
	signer, _ := newSigner(t, "log.example")
	leaves := make([]Hash, max)
	for i := range leaves {
		leaves[i] = LeafHash([]byte{byte(i)})
	}
	s := newSim(signer, leaves)
	hashes, proofs := sha256.New(), sha256.New()
	for end := uint64(0); end <= max; end++ {
		for start := uint64(0); start <= end; start++ {
			if start == end || (Subtree{start, end}).valid() {
				fmt.Fprintf(hashes, "[%d, %d) %x\n", start, end, s.mth(start, end))
			}
		}
	}
	if got := fmt.Sprintf("%x", hashes.Sum(nil)); got != "b82806ad4265bb151c1119c0f4db437bb4d1a1f887b3a7fba1cd4ebf552e3e81" {
		t.Errorf("hashes of subtrees give %s", got)
	}
	count := 0
	for n := uint64(0); n <= max; n++ {
		for end := uint64(0); end <= n; end++ {
			for start := uint64(0); start <= end; start++ {
				sub := Subtree{start, end}
				if start != end && !sub.valid() {
					continue
				}
				fmt.Fprintf(proofs, "[%d, %d) %d", start, end, n)
				var p []Hash
				if start != end {
					p = s.subtreeProof(start, end, 0, n, true)
				}
				for _, h := range p {
					fmt.Fprintf(proofs, " %x", h)
				}
				fmt.Fprintln(proofs)
				if start == end {
					continue
				}
				if err := VerifySubtree(n, s.mth(0, n), sub, s.mth(start, end), slicesOf(p)); err != nil {
					t.Fatalf("[%d, %d) of %d: %v", start, end, n, err)
				}
				count++
			}
		}
	}
	if got := fmt.Sprintf("%x", proofs.Sum(nil)); got != "10fa99b37bf9bf9ffa26b412fbd98bd75363256d0b75d61bc4538b9c9c5a0a74" {
		t.Errorf("subtree consistency proofs give %s", got)
	}
	if count < 20_000 {
		t.Errorf("only %d proofs were verified", count)
	}
}

// TestSubtreeRefuses alters everything that a proof is about.
func TestSubtreeRefuses(t *testing.T) {
	const n = 45
	signer, _ := newSigner(t, "log.example")
	s, other := newSim(signer, simLeaves(n, n, false)), newSim(signer, simLeaves(n, 7, true))
	r := rand.New(rand.NewPCG(1, 2))
	root := s.mth(0, n)
	for end := uint64(1); end <= n; end++ {
		for start := uint64(0); start < end; start++ {
			sub, h := Subtree{start, end}, s.mth(start, end)
			refused := func(what string, size uint64, root Hash, sub Subtree, h Hash, p [][]byte) {
				t.Helper()
				if err := VerifySubtree(size, root, sub, h, p); !errors.Is(err, ErrUnproven) {
					t.Fatalf("[%d, %d) of %d with %s: %v", start, end, n, what, err)
				}
			}
			if !sub.valid() {
				refused("an interval that is no subtree", n, root, sub, h, nil)
				continue
			}
			p := slicesOf(s.subtreeProof(start, end, 0, n, true))
			bad := h
			bad[r.IntN(32)] ^= 1
			refused("another hash", n, root, sub, bad, p)
			refused("another root", n, other.mth(0, n), sub, h, p)
			refused("one hash more", n, root, sub, h, append(slicesOf(s.subtreeProof(start, end, 0, n, true)), make([]byte, HashSize)))
			if end-1 > 7 && start <= 7 || start > 7 {
				refused("that of another history", n, root, sub, other.mth(start, end), slicesOf(other.subtreeProof(start, end, 0, n, true)))
			}
			if len(p) == 0 {
				continue
			}
			refused("one hash less", n, root, sub, h, p[:len(p)-1])
			for i := range p {
				altered := slicesOf(s.subtreeProof(start, end, 0, n, true))
				altered[i][r.IntN(32)] ^= 1
				refused(fmt.Sprintf("hash %d altered", i), n, root, sub, h, altered)
			}
			if (Subtree{start + 1, end + 1}).valid() && end < n {
				refused("the place of another one", n, root, Subtree{start + 1, end + 1}, h, p)
			}
		}
	}
	for what, sub := range map[string]Subtree{"nothing": {4, 4}, "less than nothing": {8, 4}, "more than there is": {0, n + 1}, "all numbers": {0, 1<<64 - 1}, "the last number": {1<<64 - 1, 0}} {
		if err := VerifySubtree(n, root, sub, EmptyRoot, nil); !errors.Is(err, ErrUnproven) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := VerifySubtree(n, root, Subtree{0, 1}, s.mth(0, 1), [][]byte{{1}}); !errors.Is(err, ErrUnproven) {
		t.Errorf("a hash of one byte: %v", err)
	}
}

// FuzzVerifySubtree: numbers and hashes of any kind neither panic nor pass.
func FuzzVerifySubtree(f *testing.F) {
	f.Add(uint64(14), uint64(8), uint64(13), []byte("some hash"))
	f.Add(uint64(1<<63-1), uint64(0), uint64(1<<63-1), []byte{})
	f.Add(uint64(1<<64-1), uint64(1<<63), uint64(1<<64-1), make([]byte, 640))
	f.Fuzz(func(t *testing.T, size, start, end uint64, raw []byte) {
		defer bounds.Hold(t)()
		var proof [][]byte
		for ; len(raw) >= HashSize; raw = raw[HashSize:] {
			proof = append(proof, raw[:HashSize])
		}
		if err := VerifySubtree(size, Hash{1}, Subtree{start, end}, Hash{2}, proof); err == nil {
			t.Fatal("a root was found that nobody can know")
		}
	})
}
