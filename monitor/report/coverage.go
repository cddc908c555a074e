// Package report says what was watched in a period, and what was found: first what was
// not covered, and why. Its numbers come from the ledger and the store; how they are
// shown is in other files.
package report

import (
	"cmp"
	"slices"
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
	// Deleted are the tombstones of what is not kept any more.
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
	// Read are the entries that were proven, decoded and matched in the period.
	Read    []ledger.Range `json:"read"`
	Entries uint64         `json:"entries"`
	// Gaps are entries that could not be read, and were missing at some time in the
	// period.
	Gaps []Gap `json:"gaps"`
	// First and Last are the verified heads at the beginning and at the end.
	First ledger.Head `json:"first_head"`
	Last  ledger.Head `json:"last_head"`
	// LagMax is the largest number of entries that were signed and not yet read.
	LagMax      uint64 `json:"lag_max"`
	KeyOnly     uint64 `json:"key_only_entries"`
	Undecodable uint64 `json:"undecodable_entries"`
	Polls       int    `json:"polls"`
	Failures    int    `json:"failed_polls"`
	// Segments are the spans that the period is made of, as the ledger has them, those
	// cut that reach out of it. Open: not a row yet.
	Segments []Segment `json:"segments"`
	Halts    []Halting `json:"halts"`
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
	former bool       // of a tree before a new baseline: never filled
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

// Reader makes a Coverage of the rows of a ledger, which it is given in their order.
type Reader struct {
	out  Coverage
	logs map[string]*following
}

// following is what is gathered of one log.
type following struct {
	LogCoverage
	began   time.Time     // of the first span ever
	last    time.Time     // until when it was watched, as far as is known
	apart   time.Duration // how far apart its polls may be
	gaps    []Gap
	pauses  []Pause
	misses  int
	failure string
}

// NewReader begins to read; until is not after now.
func NewReader(since, until time.Time) *Reader {
	return &Reader{
		out:  Coverage{Since: since.UTC(), Until: until.UTC(), Logs: []LogCoverage{}, Rules: []RuleChange{}, Trust: []TrustChange{}, Restored: []Restoration{}, Deleted: []Tombstone{}, Runs: []Run{}},
		logs: map[string]*following{},
	}
}

func (r *Reader) inside(at time.Time) bool { return !at.Before(r.out.Since) && at.Before(r.out.Until) }

// overlaps reports whether some of a time is in the period.
func (r *Reader) overlaps(since, until time.Time) bool {
	return since.Before(r.out.Until) && (until.After(r.out.Since) || until.Equal(since) && until.Equal(r.out.Since))
}

func (r *Reader) log(origin string) *following {
	key := ledger.LogKey(origin)
	f := r.logs[key]
	if f == nil {
		f = &following{LogCoverage: LogCoverage{Log: origin, Origin: origin, Pauses: []Pause{}, Read: []ledger.Range{}, Gaps: []Gap{}, Segments: []Segment{}, Halts: []Halting{}}}
		r.logs[key] = f
	}
	f.Origin = origin
	return f
}

// Add takes the bytes of the next row.
func (r *Reader) Add(line []byte) error {
	row, err := ledger.Parse(line)
	if err != nil {
		return err
	}
	r.out.Rows++
	switch row.Kind {
	case ledger.KindSpan:
		return with(row, func(b ledger.Span) { n := row.N; r.span(row.Log, b, &n) })
	case ledger.KindPause:
		return with(row, func(b ledger.Pause) {
			f := r.log(row.Log)
			if p := (Pause{b.Since, b.Until, b.Reason, b.Error, b.Failures}); r.overlaps(p.Since, p.Until) {
				f.pauses = append(f.pauses, p)
			}
			f.last = later(f.last, b.Until)
		})
	case ledger.KindGap:
		return with(row, func(b ledger.Gap) {
			f := r.log(row.Log)
			f.gaps = append(f.gaps, Gap{Range: b.Range, Reason: b.Reason, Since: row.At})
		})
	case ledger.KindFilled:
		return with(row, func(b ledger.Gap) { r.log(row.Log).fill(b.Range, row.At) })
	case ledger.KindHalted:
		return with(row, func(b ledger.Halt) {
			f := r.log(row.Log)
			f.Halts = append(f.Halts, Halting{Incident: b.Incident, Since: row.At})
		})
	case ledger.KindResumed:
		f := r.log(row.Log)
		if n := len(f.Halts); n > 0 {
			f.Halts[n-1].Until = &row.At
		}
		return nil
	case ledger.KindBaseline:
		// Indexes are those of another tree from here on: what was missing in the former
		// one stays missing.
		for i, f := 0, r.log(row.Log); i < len(f.gaps); i++ {
			f.gaps[i].former = true
		}
		return nil
	}
	return r.change(row)
}

// change takes rows that are about no log.
func (r *Reader) change(row ledger.Row) error {
	out := &r.out
	switch row.Kind {
	case ledger.KindStart:
		return with(row, func(b ledger.Start) { out.Runs = append(out.Runs, Run{Start: row.At, Version: b.Version}) })
	case ledger.KindStop:
		if n := len(out.Runs); n > 0 {
			out.Runs[n-1].Stop = &row.At
		}
	}
	if !r.inside(row.At) {
		return nil
	}
	switch row.Kind {
	case ledger.KindRules:
		return with(row, func(b ledger.Rules) { out.Rules = append(out.Rules, RuleChange{row.At, b}) })
	case ledger.KindTrust:
		return with(row, func(b ledger.Trust) { out.Trust = append(out.Trust, TrustChange{row.At, b}) })
	case ledger.KindRestored:
		return with(row, func(b ledger.Restored) { out.Restored = append(out.Restored, Restoration{row.At, b}) })
	case ledger.KindDeleted:
		return with(row, func(b ledger.Deleted) { out.Deleted = append(out.Deleted, Tombstone{row.At, b}) })
	}
	return nil
}

func with[T any](row ledger.Row, do func(T)) error {
	body, err := ledger.Read[T](row)
	if err == nil {
		do(body)
	}
	return err
}

// Open takes a span that is no row yet; misses polls have failed since it was watched
// last, with an error.
func (r *Reader) Open(origin string, s ledger.Span, misses int, failure string) {
	f := r.log(origin)
	f.misses, f.failure = misses, failure
	if s.Polls > 0 || len(s.Read) > 0 {
		r.span(origin, s, nil)
	}
}

func (r *Reader) span(origin string, s ledger.Span, row *uint64) {
	f := r.log(origin)
	f.Log = s.Name
	if f.began.IsZero() {
		f.began = s.Since
	}
	f.last = later(f.last, s.Until)
	f.apart = max(edge, time.Duration(s.PauseAfter*float64(time.Second)))
	if !r.overlaps(s.Since, s.Until) {
		return
	}
	if len(f.Segments) == 0 {
		f.First = s.Before
	}
	f.Last = s.Head
	f.Polls, f.Failures = f.Polls+s.Polls, f.Failures+s.Failures
	f.KeyOnly, f.Undecodable = f.KeyOnly+s.KeyOnly, f.Undecodable+s.Undecodable
	f.LagMax = max(f.LagMax, s.LagMax)
	f.Read = append(f.Read, s.Read...)
	f.Segments = append(f.Segments, Segment{Span: s, Row: row, Open: row == nil})
}

// fill ends gaps, or the parts of them that were read.
func (f *following) fill(r ledger.Range, at time.Time) {
	for i := range f.gaps {
		g := &f.gaps[i]
		if g.Filled == nil && !g.former && g.From == r.From && g.To == r.To {
			g.Filled = &at
		}
	}
}

// Coverage is what was read so far.
func (r *Reader) Coverage() Coverage {
	out := r.out
	for _, f := range r.logs {
		f.finish(&r.out)
		out.Logs = append(out.Logs, f.LogCoverage)
	}
	slices.SortFunc(out.Logs, func(a, b LogCoverage) int { return cmp.Or(cmp.Compare(a.Log, b.Log), cmp.Compare(a.Origin, b.Origin)) })
	out.Runs = slices.DeleteFunc(slices.Clone(out.Runs), func(run Run) bool {
		return !run.Start.Before(out.Until) || run.Stop != nil && run.Stop.Before(out.Since)
	})
	return out
}

// edge is how far the edges of a period may be from the polls next to them.
const edge = 15 * time.Minute

func (f *following) finish(period *Coverage) {
	since, until := period.Since, period.Until
	if f.began.IsZero() || f.began.Sub(since) > 0 {
		end := until
		if !f.began.IsZero() && f.began.Before(until) {
			end = f.began
		}
		f.Pauses = append(f.Pauses, Pause{Since: since, Until: end, Reason: ReasonNotYet})
	}
	for _, p := range f.pauses {
		p.Since, p.Until = later(p.Since, since), earlier(p.Until, until)
		f.Pauses = append(f.Pauses, p)
	}
	if last := later(f.last, since); !f.began.IsZero() && until.Sub(last) > max(edge, f.apart) {
		p := Pause{Since: last, Until: until, Reason: ReasonNothingSince}
		if f.misses > 0 {
			p.Reason, p.Error, p.Failures = ledger.PauseUnreachable, f.failure, f.misses
		}
		f.Pauses = append(f.Pauses, p)
	}
	slices.SortFunc(f.Pauses, func(a, b Pause) int { return a.Since.Compare(b.Since) })
	f.Watched = until.Sub(since).Seconds()
	at := since
	for _, p := range f.Pauses {
		if from := later(p.Since, at); p.Until.After(from) {
			f.Watched -= p.Until.Sub(from).Seconds()
			at = p.Until
		}
	}
	for _, g := range f.gaps {
		if g.Since.Before(until) && (g.Filled == nil || !g.Filled.Before(since)) {
			f.Gaps = append(f.Gaps, g)
		}
	}
	slices.SortFunc(f.Gaps, func(a, b Gap) int { return cmp.Or(cmp.Compare(a.From, b.From), a.Since.Compare(b.Since)) })
	f.Read = Merge(f.Read)
	for _, r := range f.Read {
		f.Entries += r.To - r.From
	}
	f.Halts = slices.DeleteFunc(f.Halts, func(h Halting) bool {
		return !h.Since.Before(until) || h.Until != nil && h.Until.Before(since)
	})
}

// Merge joins ranges that touch or overlap.
func Merge(list []ledger.Range) []ledger.Range {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b ledger.Range) int { return cmp.Compare(a.From, b.From) })
	out := []ledger.Range{}
	for _, r := range sorted {
		if n := len(out); n > 0 && r.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, r.To)
			continue
		}
		out = append(out, r)
	}
	return out
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
