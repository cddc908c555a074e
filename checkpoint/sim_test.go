package checkpoint

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// simLog is a tree in memory, hashed straight from the definition in RFC 6962
// (not with the code under test), and signed on demand.
type simLog struct {
	levels [][]Hash // levels[b][i]: root of the perfect subtree (b, i)
	signer note.Signer
	origin string
}

var errNotServed = errors.New("tile is not served")

func newSigner(t testing.TB, name string) (note.Signer, note.Verifier) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, name)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return signer, verifier
}

// simLeaf is the hash of leaf i in a history; histories differ from the place
// where they fork.
func simLeaf(history byte, i uint64) Hash {
	var buf [10]byte
	buf[0], buf[1] = 0, history
	binary.BigEndian.PutUint64(buf[2:], i)
	return sha256.Sum256(buf[:])
}

func newSim(signer note.Signer, leaves []Hash) *simLog {
	s := &simLog{signer: signer, levels: [][]Hash{leaves}}
	if signer != nil {
		s.origin = signer.Name()
	}
	for level := leaves; len(level) > 1; {
		up := make([]Hash, len(level)/2)
		for i := range up {
			var buf [65]byte
			buf[0] = 1
			copy(buf[1:], level[2*i][:])
			copy(buf[33:], level[2*i+1][:])
			up[i] = sha256.Sum256(buf[:])
		}
		s.levels = append(s.levels, up)
		level = up
	}
	return s
}

func simLeaves(size, forkAt uint64, all bool) []Hash {
	leaves := make([]Hash, size)
	for i := range leaves {
		history := byte(0)
		if uint64(i) == forkAt || all && uint64(i) > forkAt {
			history = 1
		}
		leaves[i] = simLeaf(history, uint64(i))
	}
	return leaves
}

// mth is the recursive definition of the Merkle tree hash over [from, to).
func (s *simLog) mth(from, to uint64) Hash {
	n := to - from
	if n == 0 {
		return sha256.Sum256(nil)
	}
	if n&(n-1) == 0 && from%n == 0 {
		level := 0
		for 1<<level < n {
			level++
		}
		return s.levels[level][from/n]
	}
	k := uint64(1)
	for k*2 < n {
		k *= 2
	}
	left, right := s.mth(from, from+k), s.mth(from+k, to)
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

func (s *simLog) note(t testing.TB, size uint64, extensions ...string) []byte {
	t.Helper()
	root := s.mth(0, size)
	text := fmt.Sprintf("%s\n%d\n%s\n", s.origin, size, base64.StdEncoding.EncodeToString(root[:]))
	for _, e := range extensions {
		text += e + "\n"
	}
	raw, err := note.Sign(&note.Note{Text: text}, s.signer)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (s *simLog) checkpoint(t testing.TB, l *Log, size uint64) Checkpoint {
	t.Helper()
	c, err := l.Open(s.note(t, size))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tile serves what the tree holds, or errNotServed where it is too short.
func (s *simLog) tile(level uint, index uint64, width int) ([]byte, error) {
	b := int(level * 8)
	if b >= len(s.levels) || uint64(len(s.levels[b])) < index*256+uint64(width) {
		return nil, errNotServed
	}
	var raw []byte
	for _, h := range s.levels[b][index*256:][:width] {
		raw = append(raw, h[:]...)
	}
	return raw, nil
}

// path is the recursive definition of an audit path (RFC 6962, 2.1.1).
func (s *simLog) path(index, from, to uint64) []Hash {
	n := to - from
	if n == 1 {
		return nil
	}
	k := uint64(1)
	for k*2 < n {
		k *= 2
	}
	if index < k {
		return append(s.path(index, from, from+k), s.mth(from+k, to))
	}
	return append(s.path(index-k, from+k, to), s.mth(from, from+k))
}

// proof is the recursive definition of a consistency proof (RFC 6962, 2.1.2).
func (s *simLog) proof(m, from, to uint64, complete bool) []Hash {
	n := to - from
	if m == n {
		if complete {
			return nil
		}
		return []Hash{s.mth(from, to)}
	}
	k := uint64(1)
	for k*2 < n {
		k *= 2
	}
	if m <= k {
		return append(s.proof(m, from, from+k, complete), s.mth(from+k, to))
	}
	return append(s.proof(m-k, from+k, to, false), s.mth(from, from+k))
}

// monitor reads [start, scanned) of the log as a monitor would that first saw
// it at start and verified it up to head.
func (s *simLog) monitor(t testing.TB, l *Log, start, scanned, head uint64) Known {
	t.Helper()
	k := Known{Head: s.checkpoint(t, l, head)}
	tree, err := OpenTree(k.Head, s.tile)
	if err != nil {
		t.Fatal(err)
	}
	k.Peaks = tree.Peaks()
	if k.Scanned, err = tree.Frontier(start); err != nil {
		t.Fatal(err)
	}
	edges, err := tree.EdgeTiles(start)
	if err != nil {
		t.Fatal(err)
	}
	kept := ownStore{}
	kept.put(edges)
	for at := start; at < scanned; {
		var chunks []Chunk
		for at < scanned && len(chunks) < 256 {
			end := min((at/256+1)*256, scanned)
			c := Chunk{Leaves: s.levels[0][at:end]}
			if end-at == 256 {
				c.Root = PerfectRoot(c.Leaves)
			}
			chunks = append(chunks, c)
			at = end
		}
		var tiles []Tile
		if k.Scanned, tiles, err = Grow(k.Scanned, kept.read, chunks); err != nil {
			t.Fatal(err)
		}
		kept.put(tiles)
	}
	if last := scanned / 256; last > KeptLeafTiles {
		kept.prune(last - KeptLeafTiles)
	}
	k.Own = kept.read
	if k.Link, err = tree.nodes(scanned, head); err != nil {
		t.Fatal(err)
	}
	return k
}

type ownStore map[tileID][]Hash

func (o ownStore) put(tiles []Tile) {
	for _, tile := range tiles {
		o[tileID{tile.Level, tile.Index}] = tile.Hashes
	}
}

func (o ownStore) prune(oldest uint64) {
	for id := range o {
		if id.level == 0 && id.index < oldest {
			delete(o, id)
		}
	}
}

func (o ownStore) read(level uint, index uint64) ([]Hash, error) {
	return o[tileID{level, index}], nil
}
