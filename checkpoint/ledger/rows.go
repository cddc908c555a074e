package ledger

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// Head is a size and a root of a log.
type Head struct {
	Size uint64             `json:"size"`
	Root checkpoint.HexHash `json:"root"`
}

// Range is a half-open range of indexes.
type Range struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// Begin is the first row of a ledger.
type Begin struct {
	ID      string `json:"id"`
	Version string `json:"version"` // of the program
}

// Start says with what the program began to work.
type Start struct {
	Version string `json:"version"`
	// WatchSet is the hash of the watchlist (of the hashes of its rules).
	WatchSet string `json:"watch_set"`
	// LastSeen is when the program wrote to its state last before; zero: never.
	LastSeen time.Time `json:"last_seen,omitzero"`
}

// Stop says that the program stopped in good order.
type Stop struct {
	Version string `json:"version"`
}

// Span says that a log was watched: polled with success at Since, at Until, and
// often enough in between that no Pause was due.
type Span struct {
	Name  string    `json:"name"` // of the log, for people
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Polls succeeded, Failures did not.
	Polls    int `json:"polls"`
	Failures int `json:"failures"`
	// PauseAfter is how far apart polls that succeed may be, in seconds, before a Pause
	// is due: by the schedule, a day for a log that has ended.
	PauseAfter float64 `json:"pause_after_seconds"`
	// Read are the entries that were proven to be in the signed tree, decoded, and
	// matched with the watchlist, in this span.
	Read []Range `json:"read"`
	// Before and Head are the verified heads at its beginning and at its end.
	Before Head `json:"before"`
	Head   Head `json:"head"`
	// LagMax is the largest number of entries that were signed and not read yet.
	LagMax uint64 `json:"lag_max"`
	// Unread is how many there were at its end.
	Unread uint64 `json:"unread"`
	// ConsistencyOnly: no entries are read of the log, by its configuration.
	ConsistencyOnly bool `json:"consistency_only,omitempty"`
	// KeyOnly and Undecodable count those entries that name no identity, and those
	// that no decoder understood.
	KeyOnly     uint64 `json:"key_only"`
	Undecodable uint64 `json:"undecodable"`
	// Version is that of the program; WatchSet the hash of the watchlist, TrustRoot
	// that of the trusted root in force, or of the authorities where there is none.
	Version   string `json:"version"`
	WatchSet  string `json:"watch_set"`
	TrustRoot string `json:"trust_root"`
}

// Entries is how many entries were read in the span.
func (s *Span) Entries() (n uint64) {
	for _, r := range s.Read {
		n += r.To - r.From
	}
	return n
}

// Reasons of a Pause.
const (
	PauseNotRunning  = "not-running"  // the program did not run
	PauseUnreachable = "unreachable"  // the log did not answer, or not as it should
	PauseRestored    = "restored"     // the state was an older copy: what it knew of this time is lost
	PauseSlow        = "late"         // polls came later than they should
	PauseUnfollowed  = "not-followed" // the log was taken out of the configuration
	PauseHalted      = "halted"       // an incident halted the log: nothing that it signed was believed
)

// Pause says that a log was not watched: no poll succeeded between Since and
// Until. What it signed meanwhile was read afterwards, unless gaps say otherwise:
// it was late, not lost.
type Pause struct {
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	Reason   string    `json:"reason"`
	Failures int       `json:"failures"`        // polls that failed
	Error    string    `json:"error,omitempty"` // of the last of them
}

// GapLeft is the reason of a Gap in a tree that was left for another one: its entries were
// not read before, and never will be.
const GapLeft = "tree-left"

// GapSkipped is the reason of a Gap that was to be read later, and is not any more, since the
// log's entries are not read by its configuration of today.
const GapSkipped = "skipped"

// Gap is a range of a proven tree whose entries could not be read. Rows of the kind
// KindFilled name exactly what was read after all, which may be a part of one. Another row
// for entries that are missing already tells of another reason.
type Gap struct {
	Range
	Reason string `json:"reason"`
}

// Halt is the incident that halts a log.
type Halt struct {
	Incident string `json:"incident"`
	Head     Head   `json:"head"`
}

// Baseline says that a log goes on in another tree.
type Baseline struct {
	Before Head `json:"before"`
	Head   Head `json:"head"`
}

// Rule is a watch and the hash of its rule.
type Rule struct {
	Watch string `json:"watch"`
	Hash  string `json:"hash"`
}

// ChangedRule is a watch whose rule was changed.
type ChangedRule struct {
	Watch string `json:"watch"`
	From  string `json:"from"`
	To    string `json:"to"`
}

// Rules is a change of the watchlist.
type Rules struct {
	WatchSet string        `json:"watch_set"` // from now on
	Added    []Rule        `json:"added,omitempty"`
	Removed  []Rule        `json:"removed,omitempty"`
	Changed  []ChangedRule `json:"changed,omitempty"`
}

// Trust is a change of the trusted root; From is empty for the first.
type Trust struct {
	Source string `json:"source"`
	From   string `json:"from,omitempty"`
	To     string `json:"to"`
}

// Restored says that the state file is an older copy of itself: rows of the
// ledger that were signed are not in it any more.
type Restored struct {
	// Kept is how many rows go with what was signed, at most: those behind are lost.
	Kept uint64 `json:"kept"`
	// Lost is the signed head that is known of the lost rows.
	Lost   Head   `json:"lost"`
	Signed string `json:"signed"` // the note
}

// Deleted is the tombstone of what was deleted when its time was over.
type Deleted struct {
	Class  string    `json:"class"`  // of the retention
	Before time.Time `json:"before"` // what was older than this
	Count  int       `json:"count"`
	// Digest is the SHA-256 of what was deleted: the sorted ids, a line each.
	Digest string `json:"digest"`
}

// Published is a head of this ledger in a transparency log.
type Published struct {
	Head     Head   `json:"head"`
	Origin   string `json:"origin"`
	Index    uint64 `json:"index"`
	LeafHash string `json:"leaf_hash"`
}

// Read takes the body of a row of a kind apart.
func Read[T any](r Row) (T, error) {
	var body T
	if err := json.Unmarshal(r.Body, &body); err != nil {
		return body, fmt.Errorf("ledger row %d (%s): %w", r.N, r.Kind, err)
	}
	return body, nil
}
