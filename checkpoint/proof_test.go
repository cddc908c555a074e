package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// TestProofsAgreeWithReference holds our proof code against the definition in
// RFC 6962 and against an independent implementation.
func TestProofsAgreeWithReference(t *testing.T) {
	const max = 70
	signer, verifier := newSigner(t, "log.example")
	l, _ := NewLog("log.example", verifier)
	s := newSim(signer, simLeaves(max, max, false))
	for n := uint64(1); n <= max; n++ {
		c := s.checkpoint(t, l, n)
		tree, err := OpenTree(c, s.tile)
		if err != nil {
			t.Fatal(err)
		}
		root := c.Root()
		for m := uint64(1); m < n; m++ {
			old := s.checkpoint(t, l, m)
			p := s.proof(m, 0, n, true)
			oldRoot := old.Root()
			if err := proof.VerifyConsistency(rfc6962.DefaultHasher, m, n, slicesOf(p), oldRoot[:], root[:]); err != nil {
				t.Fatalf("reference refuses the proof %d -> %d: %v", m, n, err)
			}
			if err := Advance(old, c, slicesOf(p)); err != nil {
				t.Fatalf("%d -> %d: %v", m, n, err)
			}
			f, _ := tree.Frontier(m)
			if err := f.Within(c, slicesOf(p)); err != nil || f.Root() != oldRoot {
				t.Fatalf("frontier %d within %d: %v", m, n, err)
			}
			for i := range p {
				bad := slicesOf(p)
				bad[i][3] ^= 1
				if err := Advance(old, c, bad); !errors.Is(err, ErrUnproven) {
					t.Fatalf("%d -> %d with hash %d altered: %v", m, n, i, err)
				}
			}
		}
		for i := uint64(0); i < n; i++ {
			want := s.path(i, 0, n)
			got, err := tree.LeafPath(i, nil)
			if err != nil || !equalHashes(got, want) {
				t.Fatalf("path of %d in %d differs from the definition: %v", i, n, err)
			}
			leaf := s.levels[0][i]
			if err := proof.VerifyInclusion(rfc6962.DefaultHasher, i, n, leaf[:], slicesOf(got), root[:]); err != nil {
				t.Fatal(err)
			}
			if err := c.VerifyInclusion(i, leaf, got); err != nil {
				t.Fatal(err)
			}
			f, err := c.Frontier(i, leaf, slicesOf(got))
			if err != nil || f.Root() != s.mth(0, i) {
				t.Fatalf("frontier of %d from a path in %d: %v", i, n, err)
			}
		}
	}
}

func equalHashes(a, b []Hash) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestProofInput(t *testing.T) {
	signer, verifier := newSigner(t, "log.example")
	l, _ := NewLog("log.example", verifier)
	s := newSim(signer, simLeaves(9, 9, false))
	c5, c9 := s.checkpoint(t, l, 5), s.checkpoint(t, l, 9)
	long := make([][]byte, 65)
	for i := range long {
		long[i] = make([]byte, HashSize)
	}
	for name, p := range map[string][][]byte{"short hash": {make([]byte, 31)}, "long hash": {make([]byte, 33)}, "nil hash": {nil}, "65 hashes": long} {
		if err := Advance(c5, c9, p); !errors.Is(err, ErrUnproven) {
			t.Errorf("Advance with %s: %v", name, err)
		}
		if err := (Frontier{}).Append(s.levels[0][:5]...).Within(c9, p); !errors.Is(err, ErrUnproven) {
			t.Errorf("Within with %s: %v", name, err)
		}
		if _, err := c9.Frontier(2, s.levels[0][2], p); !errors.Is(err, ErrUnproven) {
			t.Errorf("Frontier with %s: %v", name, err)
		}
	}
	if _, err := c9.Frontier(9, Hash{}, nil); !errors.Is(err, ErrUnproven) {
		t.Errorf("frontier beyond the tree: %v", err)
	}
	if err := (Frontier{}).Within(c9, nil); err != nil {
		t.Errorf("empty frontier: %v", err)
	}
	other := s.checkpoint(t, l, 9)
	other.log = "elsewhere"
	if err := Advance(c5, other, nil); !errors.Is(err, ErrOrigin) {
		t.Errorf("another log: %v", err)
	}
}

// TestFrontierIsAValue: nothing that a later Append does shows in an earlier
// frontier.
func TestFrontierIsAValue(t *testing.T) {
	leaves := simLeaves(300, 300, false)
	var all []Frontier
	var f Frontier
	for _, h := range leaves {
		all = append(all, f)
		f.Append(Hash{1})
		f.Append(Hash{2}, Hash{3})
		f = f.Append(h)
	}
	s := newSim(nil, leaves)
	for i, f := range all {
		if f.Root() != s.mth(0, uint64(i)) || f.Size() != uint64(i) {
			t.Fatalf("frontier of %d changed after the fact", i)
		}
		back, err := NewFrontier(f.Size(), f.Peaks())
		if err != nil || back.Root() != f.Root() {
			t.Fatal(err)
		}
	}
	if _, err := NewFrontier(5, make([]Hash, 3)); err == nil {
		t.Error("wrong number of peaks accepted")
	}
	if _, err := all[3].AppendPerfect(1, Hash{}); err == nil {
		t.Error("a pair appended at an odd size")
	}
}

// TestGrow splits the same leaves in any way: frontier and tiles are the same.
func TestGrow(t *testing.T) {
	const size = 65536 + 256*3 + 9
	s := newSim(nil, simLeaves(size, size, false))
	rng := rand.New(rand.NewPCG(3, 4))
	for range 5 {
		kept := ownStore{}
		var f Frontier
		for f.Size() < size {
			var chunks []Chunk
			at := f.Size()
			for range 1 + rng.IntN(300) {
				if at == size {
					break
				}
				end := min((at/256+1)*256, size)
				if rng.IntN(4) == 0 {
					end = at + 1 + rng.Uint64N(end-at)
				}
				c := Chunk{Leaves: s.levels[0][at:end]}
				if end-at == 256 {
					c.Root = PerfectRoot(c.Leaves)
					if rng.IntN(10) == 0 {
						c.Leaves = nil // withheld entries
					}
				}
				chunks = append(chunks, c)
				at = end
			}
			var tiles []Tile
			var err error
			if f, tiles, err = Grow(f, kept.read, chunks); err != nil {
				t.Fatal(err)
			}
			kept.put(tiles)
			if f.Root() != s.mth(0, f.Size()) {
				t.Fatalf("root of %d differs", f.Size())
			}
		}
		for id, hashes := range kept {
			for i, h := range hashes {
				if want := s.levels[8*id.level][id.index*256+uint64(i)]; h != want {
					t.Fatalf("own tile %v hash %d differs", id, i)
				}
			}
			if want := tileWidth(size, id.level, id.index); len(hashes) != want {
				t.Fatalf("own tile %v holds %d hashes, want %d", id, len(hashes), want)
			}
		}
	}
	if _, _, err := Grow(Frontier{}.Append(Hash{}), ownStore{}.read, []Chunk{{Root: Hash{1}}}); err == nil {
		t.Error("a full bundle appended at 1")
	}
	if _, _, err := Grow(Frontier{}.Append(Hash{}), ownStore{}.read, []Chunk{{Leaves: []Hash{{}}}}); err == nil {
		t.Error("grew on a store that lost its tiles")
	}
}

// TestEvidenceCannotBeBent alters every byte of evidence of each shape.
func TestEvidenceCannotBeBent(t *testing.T) {
	m := newMatrix(t, 600)
	fork := newSim(m.honest.signer, simLeaves(600, 70, true))
	known := m.honest.monitor(t, m.log, 0, 590, 590)
	for _, tc := range []struct {
		shape  Shape
		next   Checkpoint
		served TileReader
	}{
		{EqualSize, fork.checkpoint(t, m.log, 590), nil},
		{Prefix, fork.checkpoint(t, m.log, 600), fork.tile},
		{Prefix, fork.checkpoint(t, m.log, 300), nil},
		{Node, fork.checkpoint(t, m.log, 600), func(level uint, index uint64, width int) ([]byte, error) {
			if level == 0 && index == 2 && width < 88 {
				return nil, errNotServed
			}
			return fork.tile(level, index, width)
		}},
	} {
		_, _, err := known.Compare(tc.next, tc.served, nil)
		var d *DivergenceError
		if !errors.As(err, &d) {
			t.Fatalf("%s: %v", tc.shape, err)
		}
		if tc.shape == Node {
			// Prefix evidence is preferred; make the other shape from the same trees.
			ours, _ := known.Tree(nil)
			theirs, _ := OpenTree(tc.next, tc.served)
			at := node{8, 0}
			h, _ := theirs.lockedNode(at)
			if d.Evidence, err = nodeEvidence(ours, theirs, at, h); err != nil {
				t.Fatal(err)
			}
		}
		if d.Evidence.Shape != tc.shape {
			t.Fatalf("evidence is %s, want %s", d.Evidence.Shape, tc.shape)
		}
		data, _ := json.Marshal(d.Evidence)
		if err := d.Evidence.Verify(m.log); err != nil {
			t.Fatal(err)
		}
		for i := range data {
			for _, flip := range []byte{1, 0x20, 0x80} {
				bad := bytes.Clone(data)
				bad[i] ^= flip
				got, err := ParseDivergence(bad)
				if err != nil || got.Verify(m.log) != nil {
					continue
				}
				if again, _ := json.Marshal(got); !bytes.Equal(again, data) {
					t.Fatalf("%s: byte %d altered by %02x, still accepted: %s", tc.shape, i, flip, bad)
				}
			}
		}
		swapped := d.Evidence
		swapped.Smaller, swapped.Larger = swapped.Larger, swapped.Smaller
		if tc.shape != EqualSize && swapped.Verify(m.log) == nil {
			t.Errorf("%s: accepted with the notes swapped", tc.shape)
		}
	}
	honest := prefix(m.honest.checkpoint(t, m.log, 6), m.honest.checkpoint(t, m.log, 9), node{1, 3}, m.honest.levels[1][3], nil)
	tree, _ := OpenTree(m.honest.checkpoint(t, m.log, 9), m.honest.tile)
	path, _ := tree.lockedPath(node{1, 3})
	honest.InLarger = provenNode(m.honest.levels[1][3], path)
	if err := honest.Verify(m.log); err == nil {
		t.Error("two consistent checkpoints taken for a fork")
	}
	for _, d := range []Divergence{{}, {Shape: "other"}, {Shape: Node, Level: 63}, {Shape: Prefix, Level: 62, Index: 9}} {
		d.Smaller, d.Larger = honest.Smaller, honest.Larger
		if d.Verify(m.log) == nil {
			t.Errorf("%+v accepted", d)
		}
	}
}
