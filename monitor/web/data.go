package web

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// Data is what the page and the API show and change. Its functions return ErrNoPage for what
// there is not, and an ErrInvalid, which says why, for what cannot be done.
type Data struct {
	// Findings and Incidents return pages, the newest first; with all that is known of one,
	// Finding and Incident.
	Findings func(ctx context.Context, f monitor.Filter) (monitor.Page[monitor.Finding], error)
	Finding  func(ctx context.Context, id string) (monitor.Finding, error)
	// Certificates are those in an entry, as DER, by the place of their identity; nil for one
	// that has none.
	Certificates func(leaf []byte) [][]byte
	Incidents    func(ctx context.Context, f monitor.Filter) (monitor.Page[monitor.Incident], error)
	Incident     func(ctx context.Context, id string) (monitor.Incident, error)
	// Count counts findings, but no further than most.
	Count func(ctx context.Context, f monitor.Filter, most int) (int, error)
	// Triage decides about a finding or an incident.
	Triage func(ctx context.Context, id string, c monitor.Change) error
	// Evidence returns the file for others, of a finding or an incident; Exportable says
	// whether there can be one of an incident.
	Evidence   func(ctx context.Context, id string) ([]byte, error)
	Exportable func(i monitor.Incident) bool
	// Checkpoint returns the newest verified note of a log, by its name.
	Checkpoint func(ctx context.Context, log string) ([]byte, error)
	// Coverage says what was watched between two times, of a log or, if it is empty, of all.
	// CoverageDoc is an example of the document, for its description.
	Coverage    func(ctx context.Context, since, until time.Time, log string) (any, error)
	CoverageDoc any
	// Report makes the report of a period, in one of ReportFormats; Ledger returns rows of the
	// ledger from one on, as they are.
	Report func(ctx context.Context, since, until time.Time, format string) ([]byte, error)
	Ledger func(ctx context.Context, from uint64, limit int) ([]json.RawMessage, error)
	// Spans are what was watched of each log since a time, for pictures.
	Spans func(ctx context.Context, since time.Time) ([]LogSpans, error)
	// Watches are those of the configuration, with hits or without. Try says what a rule, as
	// YAML, finds among the newest entries of every log; ErrBusy while another one is tried.
	Watches func(ctx context.Context, hits bool) ([]Watch, error)
	Try     func(ctx context.Context, rule string) ([]Trial, error)
	// Announcements are those that are open, of a watch or of all; Withdraw takes one back.
	Announcements func(ctx context.Context, watch string) ([]monitor.Announcement, error)
	Withdraw      func(ctx context.Context, id, by, note string) error
	// Audit returns rows of the trail from one on, of a subject or, if it is empty, of all.
	Audit func(ctx context.Context, from int64, subject string, limit int) ([]monitor.AuditRow, error)
	// Troubles are deliveries that were tried in vain.
	Troubles func(ctx context.Context) ([]monitor.Trouble, error)
	// Test sends a test to a channel.
	Test func(ctx context.Context, channel, by string) error
	// Mark changes whenever something that is shown does; it is asked for often.
	Mark func(ctx context.Context) (string, error)
	// Witness says what this program co-signs; nil: it is no witness.
	Witness func(ctx context.Context) (*Witness, error)
}

// ErrNoPage is returned for what there is not.
var ErrNoPage = errors.New("no such finding or incident")

// MostHits bounds how far hits are counted.
const MostHits = 1000

// Watch is a watch of the configuration.
type Watch struct {
	Name     string   `json:"name"`
	Severity string   `json:"severity"`
	RuleHash string   `json:"rule_hash"`
	Channels []string `json:"channels"`
	// Rule is what it says, as JSON.
	Rule string `json:"rule"`
	Hits int    `json:"hits"`
	Open int    `json:"open"`
}

// Trial is what a rule finds among the newest entries of a log, judged by its patterns alone.
type Trial struct {
	Log     string            `json:"log"`
	Read    uint64            `json:"read" doc:"entries that were read and proven"`
	Matches int               `json:"matches"`
	Of      []monitor.Finding `json:"findings" doc:"the newest of them"`
	Error   string            `json:"error,omitempty" doc:"why not all could be read"`
}

// ErrBusy says that somebody else is doing what only one may at a time.
var ErrBusy = errors.New("somebody else tries a rule at this moment; try again")

// LogSpans is what was watched of a log.
type LogSpans struct {
	Log   string
	Spans []Span
}

// Span is a time in which a log was watched, or, with a reason, was not.
type Span struct {
	Since, Until time.Time
	Reason       string
	Size         uint64 // of the tree at its end
	Lag          uint64
	Entries      uint64
}

// Witness is what this program co-signs.
type Witness struct {
	Name string   `json:"name"`
	Keys []string `json:"keys"`
	Logs []Signed `json:"logs"`
}

// Signed is what was co-signed last of a log.
type Signed struct {
	Origin string    `json:"origin"`
	Size   uint64    `json:"size"`
	Root   string    `json:"root"`
	At     time.Time `json:"at"`
	Doubt  string    `json:"doubt,omitempty"`
}
