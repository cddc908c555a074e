// Package checkpoint opens, compares and proves the signed tree heads of
// transparency logs, and turns a contradiction between two of them into
// evidence that convinces a third party.
//
// The package is pure: it neither reads nor waits nor looks at a clock. Bytes
// that a log served come in through TileReader and are believed only as far
// as they fold to a root that the log signed.
package checkpoint

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// MaxSize bounds the bytes of a signed note. Cosignatures of the post-quantum
// kind take 3.3 kB a line, so that less would refuse honest notes.
const MaxSize = 64 << 10

// Errors of Log.Open.
var (
	// ErrMalformed says that the bytes are no signed checkpoint at all.
	ErrMalformed = errors.New("not a well-formed checkpoint")
	// ErrEmptyRoot, beside ErrMalformed, says that it is well-formed but for a size of
	// 0 with another root than that of the empty tree.
	ErrEmptyRoot = errors.New("size 0 with a root that is not the empty tree's")
	// ErrSignature says that no known key of the log signed the note, or that
	// a line of a known key does not verify.
	ErrSignature = errors.New("checkpoint is not signed by a known key of the log")
	// ErrOrigin says that the note is signed, but for another log.
	ErrOrigin = errors.New("checkpoint is of another log")
)

// Log is the identity of a transparency log: its origin and its keys.
type Log struct {
	origin    string
	verifiers note.Verifiers
	// For a tree of Rekor v1, whose origin may begin with any host.
	tree string
	spki [][]byte
}

// NewLog returns the log with an origin (first line of its checkpoints) and
// the keys that may sign for it. At least one key is needed.
func NewLog(origin string, keys ...note.Verifier) (*Log, error) {
	if origin == "" || strings.Contains(origin, "\n") {
		return nil, fmt.Errorf("origin %q: want one non-empty line", origin)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("log %s: no key given", origin)
	}
	return &Log{origin: origin, verifiers: note.VerifierList(keys...)}, nil
}

// NewTree returns the log that is one tree of a Rekor v1 server, with its keys
// as DER SubjectPublicKeyInfo. origin is "HOST - TREE", the tree's id in
// decimal. Only that names the log: what host a private server calls itself, and
// its key with it, may change with every start.
func NewTree(origin string, spki ...[]byte) (*Log, error) {
	host, tree, ok := SplitOrigin(origin)
	if !ok {
		return nil, fmt.Errorf("origin %.100q is not of the form HOST - TREE of Rekor v1", origin)
	}
	if len(spki) == 0 {
		return nil, fmt.Errorf("log %s: no key given", origin)
	}
	l := &Log{origin: origin, tree: tree, spki: spki}
	if _, err := l.keys(host); err != nil {
		return nil, fmt.Errorf("log %s: %w", origin, err)
	}
	return l, nil
}

// SplitOrigin takes the origin of a Rekor v1 tree apart: host, " - ", tree id
// in decimal (wire-formats 1.4).
func SplitOrigin(origin string) (host, tree string, ok bool) {
	at := strings.LastIndex(origin, " - ")
	if at < 0 {
		return "", "", false
	}
	host, tree = origin[:at], origin[at+3:]
	n, err := strconv.ParseUint(tree, 10, 63)
	return host, tree, err == nil && strconv.FormatUint(n, 10) == tree && validKeyName(host)
}

// keys returns the keys of a tree under the name of a host.
func (l *Log) keys(host string) (note.Verifiers, error) {
	var list []note.Verifier
	for _, der := range l.spki {
		v, err := NewVerifier(host, der)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return note.VerifierList(list...), nil
}

// id is what tells the log from others: its origin, or its tree.
func (l *Log) id() string {
	if l.tree != "" {
		return " - " + l.tree
	}
	return l.origin
}

// Origin returns the first line of the log's checkpoints. For a tree of Rekor
// v1 the host in it may differ.
func (l *Log) Origin() string { return l.origin }

// Checkpoint is a tree head that its log has signed. Only Log.Open makes one;
// the zero value stands for "none" and has no raw bytes.
type Checkpoint struct {
	log        string // that it is of
	origin     string
	size       uint64
	root       Hash
	extensions []string
	raw        []byte
}

// Origin returns the first line of the checkpoint.
func (c Checkpoint) Origin() string { return c.origin }

// Size returns the number of leaves of the tree.
func (c Checkpoint) Size() uint64 { return c.size }

// Root returns the Merkle tree hash of the leaves.
func (c Checkpoint) Root() Hash { return c.root }

// Raw returns a copy of the signed note exactly as it was opened.
func (c Checkpoint) Raw() []byte { return bytes.Clone(c.raw) }

// IsZero reports whether c is "none" and not a checkpoint.
func (c Checkpoint) IsZero() bool { return c.raw == nil }

// Same reports whether both commit to the same tree. Extension lines and
// signatures may differ.
func (c Checkpoint) Same(o Checkpoint) bool {
	return c.log == o.log && c.size == o.size && c.root == o.root
}

// frozenPrefix begins the extension line with which a Rekor v2 operator marks
// the last checkpoint of a shard.
const frozenPrefix = "Log frozen \u2014 "

// Frozen reports whether the checkpoint carries the extension line that says
// that the log has ended (rekor-tiles, shard rotation).
func (c Checkpoint) Frozen() bool {
	return slices.ContainsFunc(c.extensions, func(s string) bool { return strings.HasPrefix(s, frozenPrefix) })
}

// Open verifies a signed note and parses it as a checkpoint of the log. It is
// the only way to a Checkpoint. Errors are ErrMalformed, ErrSignature and
// ErrOrigin, wrapped with what was found.
func (l *Log) Open(raw []byte) (Checkpoint, error) {
	if len(raw) > MaxSize {
		return Checkpoint{}, fmt.Errorf("%w: %d bytes, more than %d", ErrMalformed, len(raw), MaxSize)
	}
	verifiers := l.verifiers
	if l.tree != "" {
		// SPEC: wire-formats 1.4: the key's name is the host part of the origin.
		first, _, _ := bytes.Cut(raw, []byte("\n"))
		host, tree, ok := SplitOrigin(string(first))
		if !ok || tree != l.tree {
			return Checkpoint{}, fmt.Errorf("%w: origin is %.100q, want one that ends in %q", ErrOrigin, first, l.id())
		}
		var err error
		if verifiers, err = l.keys(host); err != nil {
			return Checkpoint{}, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	n, err := note.Open(raw, verifiers)
	var invalid *note.InvalidSignatureError
	var unverified *note.UnverifiedNoteError
	switch {
	case errors.As(err, &invalid):
		return Checkpoint{}, fmt.Errorf("%w: the signature line of key %q (id %08x) does not verify", ErrSignature, invalid.Name, invalid.Hash)
	case errors.As(err, &unverified):
		return Checkpoint{}, fmt.Errorf("%w: signed by %s", ErrSignature, signers(unverified.Note))
	case err != nil:
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	for _, sig := range n.Sigs {
		// The note library lets the last character of base64 have bits that stand
		// for nothing: then one signature could be written in several ways.
		if _, err := base64.StdEncoding.Strict().DecodeString(sig.Base64); err != nil {
			return Checkpoint{}, fmt.Errorf("%w: signature of key %q is not canonical base64", ErrMalformed, sig.Name)
		}
	}
	c, err := parseBody(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if l.tree == "" && c.origin != l.origin {
		return Checkpoint{}, fmt.Errorf("%w: origin is %.100q, want %q", ErrOrigin, c.origin, l.origin)
	}
	c.log, c.raw = l.id(), bytes.Clone(raw)
	return c, nil
}

// signers names the keys of a note that nobody knows, for an error message.
func signers(n *note.Note) string {
	var names []string
	for i, s := range n.UnverifiedSigs {
		if i == 3 {
			names = append(names, "...")
			break
		}
		names = append(names, fmt.Sprintf("%.60q (id %08x)", s.Name, s.Hash))
	}
	return strings.Join(names, ", ")
}

// parseBody reads the text of a note strictly: what it parsed must print as
// what it read (C2SP tlog-checkpoint).
func parseBody(text string) (Checkpoint, error) {
	bad := func(format string, args ...any) (Checkpoint, error) {
		return Checkpoint{}, fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 3 {
		return bad("%d lines, want at least origin, size and root", len(lines))
	}
	c := Checkpoint{origin: lines[0], extensions: lines[3:]}
	if c.origin == "" {
		return bad("empty origin")
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil || size > math.MaxInt64 {
		return bad("tree size %.30q is not a number below 2^63", lines[1])
	}
	c.size = size
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != HashSize {
		return bad("root hash %.60q is not base64 of %d bytes", lines[2], HashSize)
	}
	c.root = Hash(root)
	if slices.Contains(c.extensions, "") {
		return bad("empty extension line")
	}
	if c.size == 0 && c.root != EmptyRoot {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrMalformed, ErrEmptyRoot)
	}
	if c.Text() != text {
		return bad("not in canonical form (leading zeros, or bytes that do not survive a round trip)")
	}
	return c, nil
}

// ParseText reads the text of a checkpoint without any signature: nothing in it is
// vouched for. Its errors are ErrMalformed.
func ParseText(text string) (origin string, size uint64, root Hash, err error) {
	c, err := parseBody(text)
	return c.origin, c.size, c.root, err
}

// Text returns the text of the note as the log signs it, with all extension lines and
// the line feed at its end.
func (c Checkpoint) Text() string {
	var b strings.Builder
	b.WriteString(FormatText(c.origin, c.size, c.root))
	for _, ext := range c.extensions {
		b.WriteString(ext + "\n")
	}
	return b.String()
}

// FormatText is the text of a checkpoint without extension lines, as it is signed (C2SP
// tlog-checkpoint).
func FormatText(origin string, size uint64, root Hash) string {
	return origin + "\n" + strconv.FormatUint(size, 10) + "\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n"
}
