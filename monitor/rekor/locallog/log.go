// Package locallog is a small real Rekor v2 log: it hashes, signs, serves
// tiles over HTTP or as files, and can be told to lie in every way that a
// monitor must notice. It serves the demo and the tests; it imports nothing of
// the code that checks it.
package locallog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
)

const (
	tileWidth = 256
	maxEntry  = 1<<16 - 1
)

// Hash is a SHA-256 tree hash.
type Hash = [sha256.Size]byte

// Log is an append-only log in memory. All methods may be called at any time
// by several goroutines.
type Log struct {
	origin string
	signer note.Signer
	public ed25519.PublicKey

	mu      sync.Mutex
	entries [][]byte
	levels  [][]Hash // levels[L][i]: hash i of tile level L
	frozen  string   // the extension line of the last checkpoint, once frozen
	last    signed
}

// signed is a checkpoint.
type signed struct {
	size   uint64
	frozen string
	note   []byte
}

// New returns an empty log with a fresh Ed25519 key.
func New(origin string) (*Log, error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return NewWithKey(origin, pub, priv)
}

// NewWithKey returns an empty log that signs with a key that the caller made.
func NewWithKey(origin string, pub ed25519.PublicKey, priv ed25519.PrivateKey) (*Log, error) {
	id := sha256.Sum256(append([]byte(origin+"\n\x01"), pub...))
	skey := fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", origin, binary.BigEndian.Uint32(id[:]), base64.StdEncoding.EncodeToString(append([]byte{1}, priv.Seed()...)))
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, fmt.Errorf("origin %q: %w", origin, err)
	}
	return &Log{origin: origin, signer: signer, public: pub}, nil
}

// Origin returns the first line of the log's checkpoints.
func (l *Log) Origin() string { return l.origin }

// PublicKeyPEM returns the log's key as a PEM block "PUBLIC KEY".
func (l *Log) PublicKeyPEM() string {
	der, err := x509.MarshalPKIXPublicKey(l.public)
	if err != nil {
		return ""
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// VerifierKey returns the log's key in the form of a note verifier key.
func (l *Log) VerifierKey() string {
	return fmt.Sprintf("%s+%08x+%s", l.origin, l.signer.KeyHash(), base64.StdEncoding.EncodeToString(append([]byte{1}, l.public...)))
}

// Size returns the number of entries.
func (l *Log) Size() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.entries))
}

// Append adds entries and returns the index of the first.
func (l *Log) Append(entries ...[]byte) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := uint64(len(l.entries))
	for _, e := range entries {
		if len(e) > maxEntry {
			return 0, fmt.Errorf("entry of %d bytes: a bundle holds at most %d", len(e), maxEntry)
		}
	}
	for _, e := range entries {
		l.push(e, LeafHash(e))
	}
	return first, nil
}

// AppendHashed adds an entry whose leaf hash is known.
func (l *Log) AppendHashed(entry []byte, leaf Hash) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.push(entry, leaf)
}

func (l *Log) push(entry []byte, h Hash) {
	l.entries = append(l.entries, entry)
	for level := 0; ; level++ {
		if level == len(l.levels) {
			l.levels = append(l.levels, nil)
		}
		l.levels[level] = append(l.levels[level], h)
		n := len(l.levels[level])
		if n%tileWidth != 0 {
			return
		}
		h = root(l.levels[level][n-tileWidth:])
	}
}

// Fork returns another log with the same key and the same first size entries.
// Nothing that happens to one shows in the other.
func (l *Log) Fork(size uint64) (*Log, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if size > uint64(len(l.entries)) {
		return nil, fmt.Errorf("cannot fork at %d: the log has %d entries", size, len(l.entries))
	}
	fork := &Log{origin: l.origin, signer: l.signer, public: l.public, entries: slices.Clone(l.entries[:size])}
	for _, level := range l.levels {
		fork.levels = append(fork.levels, slices.Clone(level[:size]))
		size /= tileWidth
	}
	return fork, nil
}

// Entry returns the bytes of one entry.
func (l *Log) Entry(index uint64) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index >= uint64(len(l.entries)) {
		return nil, fmt.Errorf("no entry %d: the log has %d", index, len(l.entries))
	}
	return bytes.Clone(l.entries[index]), nil
}

// Freeze marks the log as ended: from now on its checkpoint carries the
// extension line of Rekor v2 for that.
func (l *Log) Freeze(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frozen = "Log frozen \u2014 " + at.UTC().Format(time.UnixDate)
}

// Checkpoint signs the log at its present size.
func (l *Log) Checkpoint() ([]byte, error) { return l.CheckpointAt(l.Size()) }

// CheckpointAt signs the log as it was at an earlier size. What was signed last is not signed again.
func (l *Log) CheckpointAt(size uint64) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := l.last; last.note == nil || last.size != size || last.frozen != l.frozen {
		r, err := l.rootAt(size)
		if err != nil {
			return nil, err
		}
		note, err := l.sign(size, r, l.frozen)
		if err != nil {
			return nil, err
		}
		l.last = signed{size, l.frozen, note}
	}
	return bytes.Clone(l.last.note), nil
}

// SignHead signs a head of a tree that somebody else keeps.
func (l *Log) SignHead(size uint64, root Hash) ([]byte, error) { return l.sign(size, root, "") }

func (l *Log) sign(size uint64, root Hash, frozen string) ([]byte, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", l.origin, size, base64.StdEncoding.EncodeToString(root[:]))
	if frozen != "" {
		text += frozen + "\n"
	}
	return note.Sign(&note.Note{Text: text}, l.signer)
}

// Root returns the root of the first size entries.
func (l *Log) Root(size uint64) (Hash, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rootAt(size)
}

// rootAt folds the hashes of the partial tiles at the right edge, the lowest
// level first.
func (l *Log) rootAt(size uint64) (Hash, error) {
	if size > uint64(len(l.entries)) {
		return Hash{}, fmt.Errorf("no tree of size %d: the log has %d entries", size, len(l.entries))
	}
	if size == 0 {
		return sha256.Sum256(nil), nil
	}
	var right *Hash
	for level := 0; size > 0; level++ {
		width := size % tileWidth
		size /= tileWidth
		if width == 0 {
			continue
		}
		h := rootWith(l.levels[level][size*tileWidth:][:width], right)
		right = &h
	}
	return *right, nil
}

var errNoTile = errors.New("no such tile")

// Tile returns width hashes of a tile.
func (l *Log) Tile(level uint, index uint64, width int) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if level >= uint(len(l.levels)) || width < 1 || width > tileWidth || index > uint64(len(l.levels[level])) || index*tileWidth+uint64(width) > uint64(len(l.levels[level])) {
		return nil, errNoTile
	}
	out := make([]byte, 0, width*sha256.Size)
	for _, h := range l.levels[level][index*tileWidth:][:width] {
		out = append(out, h[:]...)
	}
	return out, nil
}

// Bundle returns width entries of an entry bundle, each after its length in
// two bytes, big-endian.
func (l *Log) Bundle(index uint64, width int) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if width < 1 || width > tileWidth || index > uint64(len(l.entries)) || index*tileWidth+uint64(width) > uint64(len(l.entries)) {
		return nil, errNoTile
	}
	return encodeBundle(l.entries[index*tileWidth:][:width]), nil
}

func encodeBundle(entries [][]byte) []byte {
	n := 0
	for _, e := range entries {
		n += 2 + len(e)
	}
	out := make([]byte, 0, n)
	for _, e := range entries {
		out = binary.BigEndian.AppendUint16(out, uint16(len(e)))
		out = append(out, e...)
	}
	return out
}

// LeafHash is the hash of an entry as a leaf (RFC 6962, 2.1).
func LeafHash(entry []byte) Hash {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(entry)
	return Hash(h.Sum(make([]byte, 0, sha256.Size)))
}

func nodeHash(left, right Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// root is the Merkle tree hash over one or more hashes (RFC 6962, 2.1).
func root(hashes []Hash) Hash { return rootWith(hashes, nil) }

// rootWith is the same with one more, smaller subtree to the right of them.
func rootWith(hashes []Hash, right *Hash) Hash {
	if len(hashes) == 1 && right == nil {
		return hashes[0]
	}
	if len(hashes) == 0 {
		return *right
	}
	// The left part is the largest power of two of hashes that leaves something
	// for the right.
	k := 1
	for 2*k < len(hashes) || right != nil && 2*k <= len(hashes) {
		k *= 2
	}
	return nodeHash(perfect(hashes[:k]), rootWith(hashes[k:], right))
}

func perfect(hashes []Hash) Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	half := len(hashes) / 2
	return nodeHash(perfect(hashes[:half]), perfect(hashes[half:]))
}
