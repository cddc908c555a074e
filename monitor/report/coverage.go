// Package report says what was watched in a period, and what was found: first what was
// not covered, and why. Its numbers come from the ledger and the store; how they are
// shown is in other files.
package report

import (
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/ledger"
)

// Coverage says what was watched between two times.
type Coverage struct {
	Since time.Time     `json:"since"`
	Until time.Time     `json:"until"`
	Logs  []LogCoverage `json:"logs"`
	// Rules and Trust are changes of what was looked for, and of who was trusted.
	Rules []RuleChange  `json:"rule_changes"`
	Trust []TrustChange `json:"trust_changes"`
	// Restored says when the state was found to be an older copy of itself.
	Restored []Restoration `json:"restored"`
	// Deleted are the tombstones of what was deleted in the period, or later: it is not
	// counted.
	Deleted []Tombstone `json:"deleted"`
	// Runs are when the program was started and stopped.
	Runs []Run `json:"runs"`
	// Rows is how many rows the ledger has in all.
	Rows uint64 `json:"ledger_rows"`
}

// LogCoverage is the coverage of one log.
type LogCoverage struct {
	Log    string `json:"log"`
	Origin string `json:"origin"`
	// Pauses are the times within the period in which nobody was watching, with the
	// reason; Watched the times between, in seconds altogether.
	Pauses  []Pause `json:"pauses"`
	Watched float64 `json:"watched_seconds"`
	// Read are the entries that were proven, decoded and matched in the period, of the tree
	// that the log had at its end; Former are trees that it was given another baseline in
	// place of. Entries counts those of all.
	Read    []ledger.Range `json:"read"`
	Former  []FormerTree   `json:"former_trees"`
	Entries uint64         `json:"entries"`
	// Gaps are entries that could not be read, and were missing at some time in the
	// period.
	Gaps []Gap `json:"gaps"`
	// First and Last are the verified heads at the beginning and at the end.
	First ledger.Head `json:"first_head"`
	Last  ledger.Head `json:"last_head"`
	// LagMax is the largest number of entries that were signed and not yet read.
	LagMax uint64 `json:"lag_max"`
	// Unread is how many there were at the end. ConsistencyOnly: entries are not read at all,
	// by the configuration.
	Unread          uint64 `json:"unread_at_end"`
	ConsistencyOnly bool   `json:"consistency_only"`
	KeyOnly         uint64 `json:"key_only_entries"`
	Undecodable     uint64 `json:"undecodable_entries"`
	Polls           int    `json:"polls"`
	Failures        int    `json:"failed_polls"`
	// Segments are the spans that the period is made of, as the ledger has them, those
	// cut that reach out of it. Open: not a row yet.
	Segments []Segment `json:"segments"`
	Halts    []Halting `json:"halts"`
}

// FormerTree is a tree that a log had within the period, and has no more.
type FormerTree struct {
	Until time.Time      `json:"until"`
	Last  ledger.Head    `json:"last_head"`
	Read  []ledger.Range `json:"read"`
}

// Pause is a time in which a log was not watched.
type Pause struct {
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	Reason   string    `json:"reason"`
	Error    string    `json:"error,omitempty"`
	Failures int       `json:"failed_polls,omitempty"`
}

// Reasons of pauses that the ledger does not name: they are at the edges.
const (
	// ReasonNotYet: the log was not followed yet.
	ReasonNotYet = "not-followed-yet"
	// ReasonNothingSince: nothing is known of the time since.
	ReasonNothingSince = "nothing-known-since"
)

// Gap is a range of entries that could not be read.
type Gap struct {
	ledger.Range
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	// Filled is when the entries were read after all; nil: not yet.
	Filled *time.Time `json:"filled"`
	// Left is when the log went on in another tree, so that they never will be; nil: it did
	// not.
	Left *time.Time `json:"tree_left"`
}

// end is when it was over; ok is false if it is not.
func (g *Gap) end() (at time.Time, ok bool) {
	for _, at := range []*time.Time{g.Filled, g.Left} {
		if at != nil {
			return *at, true
		}
	}
	return at, false
}

// End says what became of it.
func (g Gap) End() string {
	switch {
	case g.Filled != nil:
		return "read after all " + stamp(*g.Filled)
	case g.Left != nil:
		return "never read: the log goes on in another tree since " + stamp(*g.Left)
	}
	return "missing still"
}

// Segment is a span.
type Segment struct {
	ledger.Span
	Row  *uint64 `json:"row"` // of the ledger; null: not one yet
	Open bool    `json:"open,omitempty"`
}

// Halting is a time in which a log stood still.
type Halting struct {
	Incident string     `json:"incident"`
	Since    time.Time  `json:"since"`
	Until    *time.Time `json:"until"`
}

// RuleChange is a change of the watchlist.
type RuleChange struct {
	At time.Time `json:"at"`
	ledger.Rules
}

// TrustChange is a change of the trusted root.
type TrustChange struct {
	At time.Time `json:"at"`
	ledger.Trust
}

// Restoration is when the state was found to be an older copy.
type Restoration struct {
	At time.Time `json:"at"`
	ledger.Restored
}

// Tombstone tells of what was deleted.
type Tombstone struct {
	At time.Time `json:"at"`
	ledger.Deleted
}

// Run is one run of the program.
type Run struct {
	Start   time.Time  `json:"start"`
	Stop    *time.Time `json:"stop"` // null: it goes on, or ended without a word
	Version string     `json:"version"`
}
