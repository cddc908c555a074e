// Package monitor is the engine: it polls logs, compares and proves what they
// sign, scans their entries, records what it found, and keeps time.
//
// Each log has one goroutine that owns its state:
//
//	tick ─> poll ──────────> compare ──> commit the head ─┐
//	        Checkpoint       Known.Compare                │
//	   ┌──────────────────────────────────────────────────┘
//	   └─> producer ──> workers ──────────────> committer ──> Store.Commit
//	       proven        fetch, hash, prove,     in order      one transaction
//	       bundle roots  decode, match, judge
//
// A long scan is cut at every tick, so that the head is never out of sight.
package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist/entry"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// Log is a source of what one log serves, all of it unproven. Errors that mean
// "the log does not have it" are fs.ErrNotExist; an answer that is no answer to
// what was asked has a method Malformed() bool that returns true, and one that
// says that the log will not serve it a method Refused() bool. All methods may
// be called by several goroutines at a time.
type Log interface {
	// Checkpoint returns the newest signed note.
	Checkpoint(ctx context.Context) ([]byte, error)
	// Leaves returns the entries from index from on: at least one, at most
	// to-from; none, or more, is an error.
	Leaves(ctx context.Context, from, to uint64) ([][]byte, error)
}

// TileLog is a log that serves hash tiles, so that every bundle is proven by
// itself and any node can be read.
type TileLog interface {
	Log
	// Tile returns width hashes of 32 bytes.
	Tile(ctx context.Context, level uint, index uint64, width int) ([]byte, error)
}

// ServedEntry is an entry of a log that serves proofs, with what the log says
// about it: unproven. Path leads from the leaf at Index to Note.
type ServedEntry = struct {
	Index, LogIndex uint64   // within the tree, over all trees
	Leaf            []byte   // nil: the log left it out
	Hash            []byte   // of the leaf, as the entry's id says
	Path            [][]byte // leaf side first
	Note            []byte
	Integrated      int64  // seconds since 1970; signed by SET only
	SET             []byte // signed entry timestamp
}

// ProofLog is a log that serves proofs and no tiles: a tree of Rekor v1. Errors
// are those of Log.
type ProofLog interface {
	Checkpoint(ctx context.Context) ([]byte, error)
	// ConsistencyProof returns an RFC 6962 consistency proof, 0 < from <= to.
	ConsistencyProof(ctx context.Context, from, to uint64) ([][]byte, error)
	// Offset returns what is to be given to Entries, which is not proven, and the
	// signed heads of the trees before this one, whose sizes it should be the sum of.
	Offset(ctx context.Context) (offset uint64, before [][]byte, err error)
	// Entries returns the entries [from, to), at most ten, each in its place.
	Entries(ctx context.Context, offset, from, to uint64) ([]ServedEntry, error)
	// Behind returns a context whose requests wait while others to the same server
	// do, of whichever log.
	Behind(ctx context.Context) context.Context
}

// ErrConflict is returned by Store.Commit when the state has moved on since it
// was read: somebody else writes to the same store.
var ErrConflict = errors.New("the stored state of the log was changed by another process")

// Store keeps what the engine knows. Every method is atomic and durable when it
// returns, and may be called by several goroutines at a time.
type Store interface {
	// State returns what is stored of a log; Version 0 if nothing is.
	State(ctx context.Context, logID string) (State, error)
	// Commit moves a log on in one transaction, if its version is still that of
	// old, and returns what of the batch was new. ErrConflict otherwise. With
	// next nil the state stays as it is, and only the batch is recorded.
	Commit(ctx context.Context, logID string, old State, next *State, b Batch) (Recorded, error)
	// RecordPoll notes how a poll went, and returns the run of failures that it
	// ends, if it failed.
	RecordPoll(ctx context.Context, logID string, p Poll) (Failures, error)
	// Record opens and resolves incidents that belong to no log.
	Record(ctx context.Context, open []Incident, resolve []Resolution) error
	Archive
	Decisions
	Hearsay
}

// Archive returns what Commit put away.
type Archive interface {
	// OwnTile returns the kept hashes of a tile, none if there are none.
	OwnTile(ctx context.Context, logID string, level uint, index uint64) ([]checkpoint.Hash, error)
	// Gaps returns the gaps of a log, in order.
	Gaps(ctx context.Context, logID string) ([]Gap, error)
	// Pending returns smaller checkpoints that could not be judged yet.
	Pending(ctx context.Context, logID string) ([]Pending, error)
	// OpenIncidents returns the incidents of a log that are not resolved.
	OpenIncidents(ctx context.Context, logID string) ([]Incident, error)
	// OpenedSince counts the incidents of a kind that a log has had since a time.
	OpenedSince(ctx context.Context, logID, kind string, since time.Time) (int, error)
}

// State is what is known of one log.
type State struct {
	// Version counts commits; the store sets it.
	Version int64 `json:"-"`
	// Origin and Name are for people who read the store.
	Origin string `json:"origin"`
	Name   string `json:"name"`
	// Family is that of the log, if it belongs to one.
	Family string `json:"family,omitempty"`
	// Type, URL and Keys, as DER, are how the log was read last: it is followed
	// even when nothing names it any more.
	Type string   `json:"type,omitempty"`
	URL  string   `json:"url,omitempty"`
	Keys [][]byte `json:"keys,omitempty"`
	// Start is the index at which coverage began, Begun when.
	Start uint64    `json:"start"`
	Begun time.Time `json:"begun"`
	// Head is the newest verified note; empty before the first. HeadAt is when
	// the log was first seen with it.
	Head      string               `json:"head"`
	HeadSize  uint64               `json:"head_size"`
	HeadPeaks []checkpoint.HexHash `json:"head_peaks"`
	HeadAt    time.Time            `json:"head_at"`
	// Signed is the size of the validly signed checkpoint that the last poll saw,
	// whether or not it was accepted.
	Signed uint64 `json:"signed"`
	// Scanned is the number of leaves that were read or are in the backlog, from
	// the log's first one on where Start is 0; Peaks and Link as in
	// checkpoint.Known.
	Scanned uint64               `json:"scanned"`
	Peaks   []checkpoint.HexHash `json:"peaks"`
	Link    []checkpoint.HexHash `json:"link"`
	// Backlog are ranges before the scanned size that are still to be read, in
	// order; StuckBehind is for it what Stuck is for the scan.
	Backlog     []Range `json:"backlog,omitempty"`
	StuckBehind *Stuck  `json:"stuck_behind,omitempty"`
	// Halted is the id of the incident that halts the log.
	Halted string `json:"halted,omitempty"`
	// Decided are trees that the log has signed, and that contradict ours; a person has let
	// it go on all the same.
	Decided []TreeHead `json:"decided,omitempty"`
	// Epoch is set when the log was given a new baseline after it had
	// contradicted itself: the root at which it went on. Indexes before and after
	// are those of different trees.
	Epoch string `json:"epoch,omitempty"`
	// Frozen is the note that said that the log has ended.
	Frozen string `json:"frozen,omitempty"`
	// Streaks count polls in a row with the same symptom.
	Streaks map[string]Streak `json:"streaks,omitempty"`
	// CatchUp is set while the scan is behind the head from one poll to the next.
	CatchUp *CatchUp `json:"catch_up,omitempty"`
	// Stuck is where the scan was stopped by a log that answered polls all the
	// same, and in how many polls in a row.
	Stuck *Stuck `json:"stuck,omitempty"`
	// Counters of entries read so far.
	Entries     uint64            `json:"entries"`
	KeyOnly     uint64            `json:"key_only"`
	Undecodable uint64            `json:"undecodable"`
	Kinds       map[string]uint64 `json:"kinds,omitempty"` // undecodable ones, by kind
}

// Streak is a run of polls in a row that showed the same symptom.
type Streak struct {
	Polls int       `json:"polls"`
	Since time.Time `json:"since"`
}

// Stuck is the place at which a scan did not come on.
type Stuck struct {
	Scanned uint64 `json:"scanned"`
	Polls   int    `json:"polls"`
}

// CatchUp is how a scan that is behind comes on. What is measured is what
// happened since From, which is moved on to Next every now and then: neither the
// good days before, nor the time when nobody was reading, say anything of now.
type CatchUp struct {
	Since time.Time `json:"since"` // it is behind
	From  Mark      `json:"from"`
	Next  Mark      `json:"next"`
	Last  Mark      `json:"last"`
}

// Mark is where a scan stood at a time: Read counts all entries up to the head of
// size Head but those that are still to be read.
type Mark struct {
	At   time.Time `json:"at"`
	Read uint64    `json:"read"`
	Head uint64    `json:"head"`
}

// Poll is how one poll of a log went.
type Poll struct {
	At  time.Time
	Err error // nil: it succeeded
	// Every is the time between polls; 0: unknown.
	Every time.Duration
	// WatchSet are the hashes of the rules of today, Trust is that of Batch.
	WatchSet []string
	Trust    string
	// ConsistencyOnly: no entries are read.
	ConsistencyOnly bool
	// Origin and Name are those of the log; empty: it is no log that is polled.
	Origin, Name string
}

// Failures is a run of failed polls.
type Failures struct {
	Polls       int
	Since       time.Time // of the first failure
	LastSuccess time.Time // zero: never
}

// Batch is everything that one transaction records beside the state.
type Batch struct {
	// Findings are in the order of the log. The store settles them, within the
	// transaction.
	Findings []Finding
	// Open are new incidents, Update those whose class, severity, summary or
	// details changed, Resolve the ids of those that are over.
	Open    []Incident
	Update  []Incident
	Resolve []Resolution
	// Tiles are own hashes, PruneLeafTiles the first tile of level 0 to keep.
	Tiles          []checkpoint.Tile
	PruneLeafTiles uint64
	// Coverage are ranges that were read with the watches of WatchSet.
	Coverage []Range
	WatchSet []string
	// Trust is the hash of the trusted root that certificates were judged with, or
	// of the authorities where there is none.
	Trust string
	// SetGaps are gaps that are new or changed, FilledGaps those to remove; the
	// parts of a gap that remain are in SetGaps.
	SetGaps    []Gap
	FilledGaps []Gap
	// Pending are checkpoints to keep, Judged those to forget.
	Pending []Pending
	Judged  []Pending
	// Collect adds evidence to incidents that are open, by incident id.
	Collect map[string][]Evidence
	// Acts are what a person has decided with it, for the audit trail.
	Acts []Act
	// Reset forgets own hashes, gaps, coverage and pending checkpoints: the log
	// was given a new baseline.
	Reset bool
}

// Recorded is what of a batch was new.
type Recorded struct {
	Findings []string // ids
	// Otherwise are findings that were there already, with another verdict: what
	// was judged stays as it was.
	Otherwise int
}

// Range is a half-open range of indexes.
type Range struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// Gap is a range of a proven tree whose entries could not be had, or were not
// those that the tree commits to.
type Gap struct {
	Range
	Reason string    `json:"reason"` // entry-mismatch or entry-withheld
	Polls  int       `json:"-"`
	Since  time.Time `json:"-"`
}

// Pending is a smaller checkpoint with the tiles that it was served with.
type Pending struct {
	Note  string
	Size  uint64
	Root  checkpoint.HexHash
	Tiles []checkpoint.Tile
	Since time.Time
}

// SignedAs names who has signed, for people: subjects, or the fingerprints of bare keys.
func (f *Finding) SignedAs() string {
	var names []string
	for _, id := range f.Identities {
		if len(id.Subjects) > 0 {
			names = append(names, strings.Join(id.Subjects, ", "))
		} else {
			names = append(names, id.Fingerprint)
		}
	}
	return strings.Join(names, "; ")
}

// Finding is an entry that a watch matched.
type Finding struct {
	ID         string             `json:"id"`
	Log        string             `json:"log"`
	Origin     string             `json:"origin"`
	Index      uint64             `json:"index"`
	LogIndex   *uint64            `json:"log_index,omitempty"` // over all trees of a Rekor v1 server
	LeafHash   checkpoint.HexHash `json:"leaf_hash"`
	Kind       string             `json:"kind"`
	APIVersion string             `json:"api_version"`
	Watch      string             `json:"watch"`
	Verdict    policy.Verdict     `json:"verdict"`
	Severity   string             `json:"severity"`
	Reason     string             `json:"reason"`
	// Cause is the reason without anything that the entry says.
	Cause      string         `json:"cause,omitempty"`
	Identities []entry.Report `json:"identities"`
	Digests    []string       `json:"digests"`
	SCT        string         `json:"sct"`
	Integrated *time.Time     `json:"integrated_at"`
	SeenAt     time.Time      `json:"seen_at"`
	Checkpoint TreeHead       `json:"checkpoint"`
	// EventTime is when it happened, EventTimeSource how that is known.
	EventTime       time.Time         `json:"event_time,omitzero"`
	EventTimeSource policy.TimeSource `json:"event_time_source,omitempty"`
	State           string            `json:"state"`
	// PendingUntil is how long an artifact may still come on one of the lists
	// Waits.
	PendingUntil *time.Time `json:"pending_until,omitempty"`
	Waits        []string   `json:"waits_for,omitempty"`
	// Resolution is what a resolved finding was taken for; By, ChangedAt and Note
	// say who decided that, or acknowledged it, and why.
	Resolution string            `json:"resolution,omitempty"`
	By         string            `json:"by,omitempty"`
	ChangedAt  *time.Time        `json:"changed_at,omitempty"`
	Note       string            `json:"note,omitempty"`
	RuleHash   string            `json:"rule_hash"`
	LogID      string            `json:"-"`
	Leaf       []byte            `json:"-"`
	Proof      []checkpoint.Hash `json:"-"`
	SignedNote string            `json:"-"`
	// Authorities is the document of the certificate authorities that it was
	// judged with, as entry.Authorities prints it.
	Authorities []byte `json:"-"`
	// TrustRoot is the trusted root that these came from; nil: they did not.
	TrustRoot *TrustRoot `json:"-"`
	// Promise is the signed entry timestamp of a log of Rekor v1; nil: there is none that
	// verifies.
	Promise *checkpoint.Promise `json:"-"`
	// Waiting is what one that is pending is judged by in the end.
	Waiting []byte `json:"-"`
	// Channels hear of it, if it is new and open.
	Channels []string `json:"-"`
	draft    *draft
}

// TreeHead is the size and root of a checkpoint.
type TreeHead struct {
	Size uint64             `json:"size"`
	Root checkpoint.HexHash `json:"root"`
}

// Incident is something wrong with a log or with the monitoring itself.
type Incident struct {
	ID       string          `json:"id"`
	Class    string          `json:"class"`
	Kind     string          `json:"kind"`
	Log      string          `json:"log"`
	Severity string          `json:"severity"`
	State    string          `json:"state"`
	OpenedAt time.Time       `json:"opened_at"`
	Resolved *time.Time      `json:"resolved_at"`
	Summary  string          `json:"summary"`
	Details  json.RawMessage `json:"details"`
	// Resolution is what a person has taken it for; By, ChangedAt and Note say who
	// decided that, or acknowledged it, and why.
	Resolution string     `json:"resolution,omitempty"`
	By         string     `json:"by,omitempty"`
	ChangedAt  *time.Time `json:"changed_at,omitempty"`
	Note       string     `json:"note,omitempty"`

	LogID      string            `json:"-"`
	Evidence   []Evidence        `json:"-"` // raw bytes, kept for good
	Deliveries []notify.Delivery `json:"-"`
}

// Kept returns a piece of evidence by its name; nil: there is none.
func (i *Incident) Kept(name string) []byte {
	for _, e := range i.Evidence {
		if e.Name == name {
			return e.Data
		}
	}
	return nil
}

// BrokenPromise returns the document of the first checkpoint.BrokenPromise that was
// kept; nil: none.
func (i *Incident) BrokenPromise() []byte {
	for _, e := range i.Evidence {
		if strings.HasPrefix(e.Name, brokenPromisePrefix) {
			return e.Data
		}
	}
	return nil
}

// Transferable returns what was kept of an incident that convinces a third party who has
// the log's key: a checkpoint.Divergence of a fork, else the document of a
// checkpoint.BrokenPromise.
func (i *Incident) Transferable() ([]byte, bool) {
	var doc []byte
	switch i.Kind {
	case KindFork, KindSplitView:
		doc = i.Kept("divergence.json")
	case KindEntryMismatch:
		doc = i.BrokenPromise()
	}
	return doc, doc != nil
}

// Evidence is raw bytes that belong to an incident.
type Evidence struct {
	Name string
	Data []byte
}

// Names of evidence of an entry-mismatch begin with one of these; the index follows.
const (
	ServedPrefix = "served-entry-" // what was served
	HeldPrefix   = "tree-leaf-"    // and ".json": the checkpoint.ProvenNode that the tree holds there
)

// heldEvidence keeps the hash that a tree holds at an index, with its audit path.
func heldEvidence(index uint64, hash checkpoint.Hash, path []checkpoint.Hash) Evidence {
	n := checkpoint.ProvenNode{Hash: checkpoint.HexHash(hash), Path: hexes(path)}
	return Evidence{fmt.Sprintf("%s%d.json", HeldPrefix, index), marshal(n)}
}

// Resolution ends an incident.
type Resolution struct {
	ID         string
	At         time.Time
	Note       string
	Deliveries []notify.Delivery
}
