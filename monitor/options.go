package monitor

import (
	"context"
	"log/slog"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/entry"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// Schedule says when a log is polled next (robfig/cron's schedules do).
type Schedule interface {
	Next(time.Time) time.Time
}

// LogConfig is one log to follow.
type LogConfig struct {
	// Name is how people call the log, ID how the store does: for Rekor v2 the
	// origin.
	Name, ID string
	// Type is rekor-v1 or rekor-v2.
	Type string
	// Log opens its checkpoints. Source serves a log with tiles, Proofs one that
	// serves proofs: one of both is set.
	Log    *checkpoint.Log
	Source TileLog
	Proofs ProofLog
	// Authorities are trusted for entries of this log.
	Authorities *entry.Authorities
	// Start is "latest" (default), "first" or an index in decimal: where
	// coverage begins when the log is first seen.
	Start string
	// ConsistencyOnly follows the log without reading its entries.
	ConsistencyOnly bool
	// Schedule is when to poll. Needed by Run only.
	Schedule Schedule
	// StaleAfter is how long a log may show nothing new; 0: for ever.
	StaleAfter time.Duration
	// Quorum, if not nil, says what a checkpoint's cosignatures lack; nil: nothing. With
	// RequireQuorum one that lacks some is not believed.
	Quorum        func(raw []byte, now time.Time) error
	RequireQuorum bool
	// Parallel is how many bundles are worked on at a time; default 4.
	Parallel int
	// TrustRoot is the trusted root that Authorities are from, if they are.
	TrustRoot *TrustRoot
	// URL and Keys, as DER, are kept with the state of the log.
	URL  string
	Keys [][]byte
	// Family is the name of the family that the log belongs to.
	Family string
	// Retired: the family lists the log as one that has ended. New: it began after
	// others of the family had been seen. Removed: the trusted root that named it
	// does not any more.
	Retired, New, Removed bool
}

// WatchConfig is what the engine needs of a watch beside its rule.
type WatchConfig struct {
	Severity string   // of findings that notify; default high
	Channels []string // that hear of them
	// Terms are what the items of expect ask for beside their patterns, in the same
	// order; nil for nothing.
	Terms []*policy.Terms
	// Silence is how long no expected event may come before that is told; 0: for
	// ever.
	Silence time.Duration
}

// Options configure an Engine.
type Options struct {
	Store Store
	Logs  []LogConfig
	// Families are groups of logs that change while the engine runs. Those of
	// their logs that are known already are in Logs too.
	Families []Family
	// Watches is the compiled list, WatchConfigs in the same order.
	Watches      *watchlist.List
	WatchConfigs []WatchConfig
	// Lists tells whether artifacts are on lists that terms ask for, BadLists which
	// of those cannot be used, ListsRead whether all of them were asked once.
	Lists     Lists
	BadLists  func() []BadList
	ListsRead func() bool
	// IncidentChannels hear of integrity incidents, HealthChannels of
	// operational ones.
	IncidentChannels, HealthChannels []string
	// Escalation tells critical findings once more.
	Escalation Escalation
	// Route says where of those channels, and when, something is told.
	Route Route
	// Seen, if not nil, is told every checkpoint that a log has signed and published, and
	// reports whether it could look at it.
	Seen func(ctx context.Context, c checkpoint.Checkpoint) bool
	// TrustSource names the source of trusted roots, for Status.
	TrustSource string
	// Wake, if not nil, is called after deliveries were put into the outbox, and
	// after every pass.
	Wake func()
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Jitter returns up to a tenth of the wait before a poll, to be added to it; default: at
	// random.
	Jitter func(wait time.Duration) time.Duration
	// Logger; default: none.
	Logger *slog.Logger
	// CommitEvery bounds the entries of one transaction; default 65,536.
	CommitEvery int
	// LeapAfter is how many entries a scan with a deadline may be behind before it
	// goes on at the head, and reads them behind it; default 1,000,000, of logs
	// without tiles 20,000.
	LeapAfter uint64
}
