package checkpoint

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Shape names the way in which a Divergence contradicts itself.
type Shape string

const (
	// EqualSize: two notes of one size with different roots.
	EqualSize Shape = "equal-size"
	// Prefix: the audit path, under the larger note, of a node that starts at
	// the smaller note's size. Its left siblings are the peaks of the smaller
	// tree under the larger note's signature; they do not fold to its root.
	Prefix Shape = "prefix"
	// Node: a node that lies in both trees, with two hashes and two paths.
	Node Shape = "node"
)

// HexHash is a Hash that prints as lower-case hex in JSON.
type HexHash Hash

// MarshalText prints the hash as 64 lower-case hex digits.
func (h HexHash) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

// UnmarshalText reads what MarshalText prints, and nothing else.
func (h *HexHash) UnmarshalText(text []byte) error {
	if len(text) != 2*HashSize || !bytes.Equal(text, bytes.ToLower(text)) {
		return fmt.Errorf("%.80q is not a hash of %d lower-case hex digits", text, 2*HashSize)
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// ProvenNode is a node's hash with its audit path to a root, leaf side first.
type ProvenNode struct {
	Hash HexHash   `json:"hash"`
	Path []HexHash `json:"path"`
}

// Divergence is evidence that a log has signed two checkpoints that cannot
// both be true. Verify needs nothing but the log's key to be convinced.
// wire-formats: "node divergence" and its two simpler forms.
type Divergence struct {
	Shape Shape `json:"shape"`
	// Smaller and Larger are the signed notes as they were served. For
	// EqualSize the order says nothing.
	Smaller string `json:"smaller"`
	Larger  string `json:"larger"`
	// Level and Index name the node: it covers leaves [Index<<Level,
	// (Index+1)<<Level). Not used by EqualSize.
	Level uint   `json:"level,omitempty"`
	Index uint64 `json:"index,omitempty"`
	// InLarger proves the node under Larger (Prefix, Node), InSmaller under
	// Smaller (Node).
	InLarger  *ProvenNode `json:"in_larger,omitempty"`
	InSmaller *ProvenNode `json:"in_smaller,omitempty"`
}

// DivergenceError is returned where two checkpoints contradict each other. It
// carries the evidence.
type DivergenceError struct {
	Evidence Divergence
}

func (e *DivergenceError) Error() string {
	return fmt.Sprintf("the log signed two checkpoints that contradict each other (%s)", e.Evidence.Shape)
}

func equalSize(a, b Checkpoint) Divergence {
	return Divergence{Shape: EqualSize, Smaller: string(a.raw), Larger: string(b.raw)}
}

func prefix(smaller, larger Checkpoint, at node, h Hash, path []Hash) Divergence {
	return Divergence{
		Shape: Prefix, Smaller: string(smaller.raw), Larger: string(larger.raw),
		Level: at.level, Index: at.index, InLarger: provenNode(h, path),
	}
}

func provenNode(h Hash, path []Hash) *ProvenNode {
	p := &ProvenNode{Hash: HexHash(h), Path: make([]HexHash, len(path))}
	for i, sibling := range path {
		p.Path[i] = HexHash(sibling)
	}
	return p
}

// prove checks the node under c and returns its left siblings.
func (p *ProvenNode) prove(c Checkpoint, at node) ([]Hash, error) {
	if p == nil {
		return nil, errors.New("a proof is missing")
	}
	path := make([]Hash, len(p.Path))
	for i, h := range p.Path {
		path[i] = Hash(h)
	}
	return c.prove(at, Hash(p.Hash), path)
}

// ParseDivergence reads what json.Marshal makes of a Divergence. It checks the
// form only; Verify checks the claim.
func ParseDivergence(data []byte) (Divergence, error) {
	var d Divergence
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return Divergence{}, fmt.Errorf("divergence evidence: %w", err)
	}
	if dec.More() {
		return Divergence{}, errors.New("divergence evidence: more than one document")
	}
	return d, nil
}

// Verify checks that the evidence shows what it claims, trusting only the
// log's key: nil, or an error that names the first thing that does not hold.
func (d Divergence) Verify(l *Log) error {
	smaller, err := l.Open([]byte(d.Smaller))
	if err != nil {
		return fmt.Errorf("smaller checkpoint: %w", err)
	}
	larger, err := l.Open([]byte(d.Larger))
	if err != nil {
		return fmt.Errorf("larger checkpoint: %w", err)
	}
	at := node{d.Level, d.Index}
	if d.Level > 62 || d.Index > 1<<62>>d.Level {
		return fmt.Errorf("no tree has a node (%d, %d)", d.Level, d.Index)
	}
	switch d.Shape {
	case EqualSize:
		return verifyEqualSize(d, smaller, larger)
	case Prefix:
		return verifyPrefix(d, smaller, larger, at)
	case Node:
		return verifyNode(d, smaller, larger, at)
	}
	return fmt.Errorf("unknown shape of evidence %.30q", d.Shape)
}

func verifyEqualSize(d Divergence, a, b Checkpoint) error {
	switch {
	case d.InLarger != nil || d.InSmaller != nil || d.Level != 0 || d.Index != 0:
		return errors.New("evidence of equal size needs no node, yet it names one")
	case a.size != b.size:
		return fmt.Errorf("checkpoints have sizes %d and %d, not one size", a.size, b.size)
	case a.root == b.root:
		return errors.New("checkpoints have the same root: they do not contradict each other")
	}
	return nil
}

func verifyPrefix(d Divergence, smaller, larger Checkpoint, at node) error {
	switch {
	case d.InSmaller != nil:
		return errors.New("prefix evidence needs no proof under the smaller checkpoint, yet it has one")
	case smaller.size == 0 || smaller.size >= larger.size:
		return fmt.Errorf("sizes %d and %d: want a smaller, not empty, and a larger tree", smaller.size, larger.size)
	case at.start() != smaller.size:
		return fmt.Errorf("node (%d, %d) starts at %d, not at the smaller size %d", at.level, at.index, at.start(), smaller.size)
	}
	lefts, err := d.InLarger.prove(larger, at)
	if err != nil {
		return fmt.Errorf("node under the larger checkpoint: %w", err)
	}
	slices.Reverse(lefts)
	if foldPeaks(lefts) == smaller.root {
		return errors.New("the larger tree begins with the smaller one: they do not contradict each other")
	}
	return nil
}

func verifyNode(d Divergence, smaller, larger Checkpoint, at node) error {
	if smaller.size > larger.size || at.end() > smaller.size {
		return fmt.Errorf("node (%d, %d) does not lie in both trees, of sizes %d and %d", at.level, at.index, smaller.size, larger.size)
	}
	if _, err := d.InLarger.prove(larger, at); err != nil {
		return fmt.Errorf("node under the larger checkpoint: %w", err)
	}
	if _, err := d.InSmaller.prove(smaller, at); err != nil {
		return fmt.Errorf("node under the smaller checkpoint: %w", err)
	}
	if d.InLarger.Hash == d.InSmaller.Hash {
		return errors.New("the node has one hash in both trees: they do not contradict each other")
	}
	return nil
}
