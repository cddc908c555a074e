package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// ErrPromise says that a signed entry timestamp does not verify.
var ErrPromise = errors.New("signed entry timestamp does not verify")

// VerifyPromise checks a signed entry timestamp of Rekor v1: the log's signature
// over the entry's leaf, the time at which it was taken in (seconds since 1970)
// and its index over all trees, in the canonical JSON of RFC 8785 (wire-formats
// 2.4). It is a promise that the log holds the entry there; the only time that a
// v1 log signs. Errors wrap ErrPromise.
func (l *Log) VerifyPromise(leaf []byte, integrated int64, logIndex uint64, signature []byte) error {
	_, err := l.promiser(Promise{Leaf: leaf, Integrated: integrated, LogIndex: logIndex, SET: signature})
	return err
}

// PromiseKey is VerifyPromise, and returns the SHA-256 of the key that signed, as DER:
// what the signed text calls its log's id.
func (l *Log) PromiseKey(leaf []byte, integrated int64, logIndex uint64, signature []byte) (HexHash, error) {
	der, err := l.promiser(Promise{Leaf: leaf, Integrated: integrated, LogIndex: logIndex, SET: signature})
	return sha256.Sum256(der), err
}

// promiser returns the key, as DER, that signed a promise.
func (l *Log) promiser(p Promise) ([]byte, error) {
	if len(l.spki) == 0 {
		return nil, fmt.Errorf("%w: log %s is no tree of Rekor v1", ErrPromise, l.origin)
	}
	for _, der := range l.spki {
		v, err := NewVerifier("promise", der)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPromise, err)
		}
		p.LogID = sha256.Sum256(der)
		if v.Verify(p.Text(), p.SET) {
			return der, nil
		}
	}
	return nil, fmt.Errorf("%w with any known key of log %s", ErrPromise, l.origin)
}

// Promise is a signed entry timestamp of Rekor v1 with what it is about.
type Promise struct {
	Leaf       []byte  `json:"leaf"`            // base64
	Integrated int64   `json:"integrated_time"` // seconds since 1970
	LogID      HexHash `json:"log_id"`          // SHA-256 of the log's key as DER
	LogIndex   uint64  `json:"log_index"`       // over all trees of the server
	SET        []byte  `json:"signed_entry_timestamp"`
}

// Text returns what the log signed: canonical JSON.
func (p Promise) Text() []byte {
	return fmt.Appendf(nil, `{"body":"%s","integratedTime":%d,"logID":"%x","logIndex":%d}`, base64.StdEncoding.EncodeToString(p.Leaf), p.Integrated, p.LogID[:], p.LogIndex)
}

// BrokenPromise is evidence that a Rekor v1 log has promised to hold an entry at
// an index, and signed a tree that holds another one there (wire-formats 7).
//
// Promises count over all trees of a server, and no signature says which trees
// come before one, nor that they have ended: Before are the signed tree heads
// that were taken for these. Whoever checks has to know whether they were the
// last ones.
type BrokenPromise struct {
	Promised Promise `json:"promised"`
	// Held is the leaf hash that the tree has at Index, with its audit path to
	// the root of Checkpoint, a signed note as it was served.
	Held       ProvenNode `json:"held"`
	Index      uint64     `json:"index"`
	Checkpoint string     `json:"checkpoint"`
	Before     []string   `json:"before,omitempty"`
}

// NewBrokenPromise makes the evidence, and verifies it.
func NewBrokenPromise(l *Log, p Promise, held Hash, path []Hash, index uint64, note []byte, before [][]byte) (BrokenPromise, error) {
	der, err := l.promiser(p)
	if err != nil {
		return BrokenPromise{}, err
	}
	p.LogID = sha256.Sum256(der)
	b := BrokenPromise{Promised: p, Held: *provenNode(held, path), Index: index, Checkpoint: string(note)}
	for _, head := range before {
		b.Before = append(b.Before, string(head))
	}
	return b, b.Verify(l)
}

// ParseBrokenPromise reads what Print makes, byte by byte. It checks the form
// only; Verify checks the claim.
func ParseBrokenPromise(data []byte) (BrokenPromise, error) {
	var b BrokenPromise
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return BrokenPromise{}, fmt.Errorf("evidence of a broken promise: %w", err)
	}
	if again, err := b.Print(); err != nil || !bytes.Equal(again, data) {
		return BrokenPromise{}, errors.New("evidence of a broken promise: not in the form in which it is written")
	}
	return b, nil
}

// Print makes the document that ParseBrokenPromise takes.
func (b BrokenPromise) Print() ([]byte, error) {
	doc, err := json.MarshalIndent(b, "", "  ")
	return append(doc, '\n'), err
}

// maxBefore bounds the trees before one.
const maxBefore = 64

// Verify checks that the evidence shows what it claims, trusting only the
// log's key: nil, or an error that names the first thing that does not hold.
func (b BrokenPromise) Verify(l *Log) error {
	der, err := l.promiser(b.Promised)
	if err != nil {
		return err
	}
	if b.Promised.LogID != sha256.Sum256(der) {
		return errors.New("the promise names another key than the one that signed it")
	}
	c, err := l.Open([]byte(b.Checkpoint))
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if _, err := b.Held.prove(c, node{0, b.Index}); err != nil {
		return fmt.Errorf("what the tree holds at index %d: %w", b.Index, err)
	}
	if Hash(b.Held.Hash) == LeafHash(b.Promised.Leaf) {
		return fmt.Errorf("the tree holds at index %d what was promised", b.Index)
	}
	before, err := b.sizeBefore(l)
	if err != nil {
		return err
	}
	if before+b.Index != b.Promised.LogIndex {
		return fmt.Errorf("the promise is for index %d over all trees; index %d of a tree with %d entries before it is another one", b.Promised.LogIndex, b.Index, before)
	}
	return nil
}

// sizeBefore adds up the trees that are said to come before.
func (b BrokenPromise) sizeBefore(l *Log) (uint64, error) {
	if len(b.Before) > maxBefore {
		return 0, fmt.Errorf("%d trees before this one: more than %d", len(b.Before), maxBefore)
	}
	seen := []string{l.tree}
	var sum uint64
	for i, text := range b.Before {
		origin, _, _ := strings.Cut(text, "\n")
		tree, err := NewTree(origin, l.spki...)
		if err != nil {
			return 0, fmt.Errorf("tree head %d before this one: %w", i+1, err)
		}
		c, err := tree.Open([]byte(text))
		if err != nil {
			return 0, fmt.Errorf("tree head %d before this one: %w", i+1, err)
		}
		if slices.Contains(seen, tree.tree) {
			return 0, fmt.Errorf("tree head %d before this one: tree %s is counted twice", i+1, tree.tree)
		}
		seen = append(seen, tree.tree)
		if sum += c.Size(); sum > math.MaxInt64 {
			return 0, errors.New("the trees before this one have more entries than any log")
		}
	}
	return sum, nil
}
