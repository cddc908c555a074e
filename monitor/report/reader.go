package report

import (
	"cmp"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/ledger"
)

// Reader makes a Coverage of the rows of a ledger, which it is given in their order.
type Reader struct {
	out  Coverage
	logs map[string]*following
}

// following is what is gathered of one log.
type following struct {
	LogCoverage
	began    time.Time     // of the first span ever
	expected bool          // it is to be followed
	last     time.Time     // until when it was watched, as far as is known
	apart    time.Duration // how far apart its polls may be
	ended    time.Time     // when it was taken out of the configuration; zero: it was not, or is back
	gaps     []Gap
	pauses   []Pause
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
		f = &following{LogCoverage: LogCoverage{Log: origin, Origin: origin, Pauses: []Pause{}, Read: []ledger.Range{}, Former: []FormerTree{}, Gaps: []Gap{}, Segments: []Segment{}, Halts: []Halting{}}}
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
		return with(row, func(b ledger.Pause) { r.pause(row.Log, b) })
	case ledger.KindGap:
		return with(row, func(b ledger.Gap) { r.log(row.Log).miss(b, row.At) })
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
		return with(row, func(b ledger.Baseline) { r.rebase(row.Log, b.Before, row.At) })
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
	if row.Kind == ledger.KindDeleted && !row.At.Before(out.Since) {
		// Also what was deleted later: the report does not count it.
		return with(row, func(b ledger.Deleted) { out.Deleted = append(out.Deleted, Tombstone{row.At, b}) })
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

// Open takes a span that is no row yet, and the pauses behind it.
func (r *Reader) Open(origin string, s ledger.Span, pauses []ledger.Pause) {
	f := r.log(origin)
	f.Log = cmp.Or(s.Name, f.Log)
	if s.Polls > 0 || len(s.Read) > 0 {
		r.span(origin, s, nil)
	}
	for _, p := range pauses {
		r.pause(origin, p)
	}
}

// Expect names a log that is to be followed: it is in the coverage even if nothing is known
// of it.
func (r *Reader) Expect(name, origin string) {
	for _, f := range r.logs {
		if f.Log == name {
			f.expected = true
			return
		}
	}
	f := r.log(cmp.Or(origin, name))
	if f.expected = true; f.began.IsZero() {
		f.Log = name
	}
}

// pause takes a time in which nobody was watching.
func (r *Reader) pause(origin string, b ledger.Pause) {
	f := r.log(origin)
	f.start(b.Since)
	if f.last = later(f.last, b.Until); b.Reason == ledger.PauseUnfollowed {
		f.ended = b.Since
	}
	if !r.overlaps(b.Since, b.Until) {
		return
	}
	p := Pause{b.Since, b.Until, b.Reason, b.Error, b.Failures}
	if n := len(f.pauses); n > 0 && f.pauses[n-1].Reason == p.Reason && f.pauses[n-1].Until.Equal(p.Since) {
		// One that went on while it was written down.
		p.Since, p.Failures = f.pauses[n-1].Since, p.Failures+f.pauses[n-1].Failures
		p.Error = cmp.Or(p.Error, f.pauses[n-1].Error)
		f.pauses = f.pauses[:n-1]
	}
	f.pauses = append(f.pauses, p)
}

func (f *following) start(at time.Time) {
	if f.began.IsZero() || at.Before(f.began) && f.last.IsZero() {
		f.began = at
	}
}

// rebase takes that a log goes on in another tree: indexes are those of that from here on.
func (r *Reader) rebase(origin string, before ledger.Head, at time.Time) {
	f := r.log(origin)
	for i := range f.gaps {
		if _, over := f.gaps[i].end(); !over {
			f.gaps[i].Left = &at
		}
	}
	if r.inside(at) {
		f.Former = append(f.Former, FormerTree{Until: at, Last: before, Read: Merge(f.Read)})
	}
	for _, x := range Merge(f.Read) {
		f.Entries += x.To - x.From
	}
	f.Read = nil
}

func (r *Reader) span(origin string, s ledger.Span, row *uint64) {
	f := r.log(origin)
	f.Log = s.Name
	if f.start(s.Since); !f.ended.IsZero() {
		// It is followed again.
		if p := (Pause{Since: f.last, Until: s.Since, Reason: ledger.PauseUnfollowed}); s.Since.After(f.last) && r.overlaps(p.Since, p.Until) {
			f.pauses = append(f.pauses, p)
		}
		f.ended = time.Time{}
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
	f.LagMax, f.Unread, f.ConsistencyOnly = max(f.LagMax, s.LagMax), s.Unread, s.ConsistencyOnly
	f.Read = append(f.Read, s.Read...)
	f.Segments = append(f.Segments, Segment{Span: s, Row: row, Open: row == nil})
}

// fill ends gaps, or the parts of them that were read.
func (f *following) fill(r ledger.Range, at time.Time) {
	f.divide(r, func(g *Gap) { g.Filled = &at })
}

// miss takes entries that are missing; those that were already are so for another reason.
func (f *following) miss(b ledger.Gap, at time.Time) {
	left := []ledger.Range{b.Range}
	f.divide(b.Range, func(g *Gap) {
		g.Reason = b.Reason
		left = slices.DeleteFunc(left, func(r ledger.Range) bool { return r == g.Range })
		for i := 0; i < len(left); i++ {
			if r := left[i]; r.From < g.To && g.From < r.To {
				left = slices.Delete(left, i, i+1)
				if g.To < r.To {
					left = slices.Insert(left, i, ledger.Range{From: g.To, To: r.To})
				}
				if r.From < g.From {
					left = slices.Insert(left, i, ledger.Range{From: r.From, To: g.From})
				}
			}
		}
	})
	for _, r := range left {
		f.gaps = append(f.gaps, Gap{Range: r, Reason: b.Reason, Since: at})
	}
}

// divide does something to those parts of the gaps that are open still which are in a
// range.
func (f *following) divide(r ledger.Range, do func(*Gap)) {
	var rest []Gap
	for i := range f.gaps {
		g := &f.gaps[i]
		if _, over := g.end(); over || r.To <= g.From || g.To <= r.From {
			continue
		}
		for _, cut := range []ledger.Range{{From: g.From, To: r.From}, {From: r.To, To: g.To}} {
			if cut.From < cut.To {
				part := *g
				part.Range = cut
				rest = append(rest, part)
			}
		}
		g.From, g.To = max(g.From, r.From), min(g.To, r.To)
		do(g)
	}
	f.gaps = append(f.gaps, rest...)
}

// Coverage is what was read so far.
func (r *Reader) Coverage() Coverage {
	out := r.out
	for _, f := range r.logs {
		if !f.ended.IsZero() && !f.ended.After(r.out.Since) && !f.expected {
			continue // it was nobody's task in this period
		}
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
		f.Pauses, f.Failures = append(f.Pauses, p), f.Failures+p.Failures
	}
	if last := later(f.last, since); !f.began.IsZero() && f.ended.IsZero() && until.Sub(last) > max(edge, f.apart) {
		f.Pauses = append(f.Pauses, Pause{Since: last, Until: until, Reason: ReasonNothingSince})
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
		if end, over := g.end(); g.Since.Before(until) && (!over || !end.Before(since)) {
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
