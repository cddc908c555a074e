// Package ledger is the form of the record that sigwarden keeps of its own work:
// rows that only ever follow each other, chained by their hashes, which are the
// leaves of a Merkle tree (RFC 6962) whose head is signed like that of any log
// (C2SP tlog-checkpoint). It is pure: it knows no file and no clock.
//
//	row 0 <── row 1 <── row 2        "before" holds the leaf hash of the row before
//	   \        |        /
//	    the tree: its signed head commits to all rows
//
// The chain shows that a stretch of rows has no gap; the tree lets somebody who
// holds a signed head check one row, or that a later head has forgotten nothing.
package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// Kinds of rows. What is in the body of each is said by its type.
const (
	KindBegin     = "begin"      // Begin: the first row
	KindStart     = "start"      // Start: the program was started
	KindStop      = "stop"       // Stop: it was stopped in good order
	KindSpan      = "span"       // Span: a log was watched
	KindPause     = "pause"      // Pause: a log was not watched for a while
	KindGap       = "gap"        // Gap: entries could not be read
	KindFilled    = "gap-filled" // Gap: they were read after all
	KindHalted    = "halted"     // Halt: a log was halted by an incident
	KindResumed   = "resumed"    // Halt: somebody let it go on
	KindBaseline  = "baseline"   // Baseline: indexes are from now on those of another tree
	KindRules     = "rules"      // Rules: the watchlist was changed
	KindTrust     = "trust"      // Trust: another trusted root came into force
	KindRestored  = "restored"   // Restored: the state is an older copy of itself
	KindDeleted   = "deleted"    // Deleted: a tombstone
	KindPublished = "published"  // Published: a head of this ledger was put into a log
)

// maxRow bounds the bytes of a row.
const maxRow = 1 << 20

// ErrTampered says that rows are not as they were written.
var ErrTampered = errors.New("the ledger was changed")

// Row is one row. Its bytes, which are hashed, are what Print makes of it.
type Row struct {
	// N is its place, from 0 on; Before the leaf hash of the row before it, zeros
	// for the first.
	N      uint64             `json:"n"`
	Before checkpoint.HexHash `json:"before"`
	At     time.Time          `json:"at"`
	Kind   string             `json:"kind"`
	// Log is the origin of the log that the row is about; empty: none.
	Log  string          `json:"log,omitempty"`
	Body json.RawMessage `json:"body"`
}

// New makes the row that follows another: the nth, behind a row of a hash.
func New(n uint64, before checkpoint.Hash, at time.Time, kind, log string, body any) (Row, error) {
	doc, err := json.Marshal(body)
	if err != nil {
		return Row{}, err
	}
	return Row{N: n, Before: checkpoint.HexHash(before), At: at.UTC().Truncate(time.Microsecond), Kind: kind, Log: log, Body: doc}, nil
}

// Print returns the bytes of the row: one line of JSON without its end.
func (r Row) Print() ([]byte, error) {
	doc, err := json.Marshal(r)
	if err == nil && len(doc) > maxRow {
		err = fmt.Errorf("ledger row of %d bytes, more than %d", len(doc), maxRow)
	}
	return doc, err
}

// Parse reads what Print makes, and nothing else.
func Parse(line []byte) (Row, error) {
	var r Row
	if len(line) > maxRow {
		return r, fmt.Errorf("ledger row of %d bytes, more than %d", len(line), maxRow)
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Row{}, fmt.Errorf("ledger row: %w", err)
	}
	if again, err := r.Print(); err != nil || !bytes.Equal(again, line) {
		return Row{}, errors.New("ledger row: not in the form in which rows are written")
	}
	return r, nil
}

// Chain checks rows one by one, and keeps the tree over them.
type Chain struct {
	// Last is the leaf hash of the last row, zero before the first.
	Last checkpoint.Hash
	tree checkpoint.Frontier
}

// Resume goes on behind the last row of a ledger that was checked before.
func Resume(last checkpoint.Hash, tree checkpoint.Frontier) Chain { return Chain{last, tree} }

// Size is the number of rows, Root the hash of the tree over them.
func (c *Chain) Size() uint64 { return c.tree.Size() }

// Root is the hash of the tree over all rows.
func (c *Chain) Root() checkpoint.Hash { return c.tree.Root() }

// Tree is the frontier of the tree over all rows.
func (c *Chain) Tree() checkpoint.Frontier { return c.tree }

// Add takes the bytes of the next row. Its error wraps ErrTampered.
func (c *Chain) Add(line []byte) (Row, error) {
	r, err := Parse(line)
	switch {
	case err != nil:
		return r, fmt.Errorf("%w: row %d: %w", ErrTampered, c.Size(), err)
	case r.N != c.Size():
		return r, fmt.Errorf("%w: behind %d rows comes row %d", ErrTampered, c.Size(), r.N)
	case checkpoint.Hash(r.Before) != c.Last:
		return r, fmt.Errorf("%w: row %d (%s of %s) does not follow the row before it", ErrTampered, r.N, r.Kind, r.At.Format(time.RFC3339))
	}
	c.Last = checkpoint.LeafHash(line)
	c.tree = c.tree.Append(c.Last)
	return r, nil
}

// Stretch checks that lines are rows that follow each other without a gap, from
// whatever place on, and returns them with the leaf hash of the last.
func Stretch(lines [][]byte) (rows []Row, last checkpoint.Hash, err error) {
	for i, line := range lines {
		r, err := Parse(line)
		if err != nil {
			return nil, last, fmt.Errorf("%w: line %d: %w", ErrTampered, i+1, err)
		}
		if i > 0 && (r.N != rows[0].N+uint64(i) || checkpoint.Hash(r.Before) != last) {
			return nil, last, fmt.Errorf("%w: line %d does not follow the line before it", ErrTampered, i+1)
		}
		last = checkpoint.LeafHash(line)
		rows = append(rows, r)
	}
	return rows, last, nil
}

// originPrefix begins the origins of ledgers.
const originPrefix = "sigwarden-ledger/"

// LogKey tells logs apart by their origins: a tree of Rekor v1 is one log, whatever host its
// server calls itself.
func LogKey(origin string) string {
	if _, tree, ok := checkpoint.SplitOrigin(origin); ok {
		return "tree " + tree
	}
	return origin
}

// Origin names a ledger by the id in its first row.
func Origin(id string) string { return originPrefix + id }

// IsOrigin reports whether an origin is that of a ledger.
func IsOrigin(origin string) bool { return strings.HasPrefix(origin, originPrefix) }

// HeadText is the text of a head that is to be signed: a checkpoint's.
func HeadText(origin string, size uint64, root checkpoint.Hash) string {
	return checkpoint.FormatText(origin, size, root)
}
