package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/monitor"
)

const (
	// sealAfter is how long a span goes on before it becomes a row.
	sealAfter = time.Hour
	// Polls that succeed further apart than pauseAfter, and than pausePolls times the
	// schedule, leave a pause.
	pauseAfter = 15 * time.Minute
	pausePolls = 3
	// A log that has ended is asked once a day, with up to a tenth of that more.
	pauseEnded = 28 * time.Hour
	// maxRanges bounds the ranges of a span, maxFailure the text of an error in it.
	maxRanges  = 256
	maxFailure = 500
)

// openSpan is a ledger.Span that is still going on, and what is needed to end it.
type openSpan struct {
	ledger.Span
	Origin    string `json:"origin"`
	LastError string `json:"last_error"`
	Misses    int    `json:"misses"` // polls that failed since the last one that did not
	// Counters of the log at its beginning.
	KeyOnlyAt     uint64 `json:"key_only_at"`
	UndecodableAt uint64 `json:"undecodable_at"`
}

// polled books a poll in the span of its log: it goes on, or ends in a row, with a
// row for the pause where there was one. What has no state yet has no span.
func (w *writer) polled(p monitor.Poll) error {
	sp, known, err := w.span()
	if err != nil {
		return err
	}
	if p.Err != nil {
		if !known {
			return nil
		}
		sp.Failures++
		sp.Misses++
		sp.LastError = p.Err.Error()
		sp.LastError = sp.LastError[:min(len(sp.LastError), maxFailure)]
		return w.keepSpan(sp)
	}
	st, found, err := w.state()
	if err != nil || !found || st.Head == "" {
		return err
	}
	if !known {
		sp = w.newSpan(st, nil)
	}
	if sp.Since.IsZero() {
		sp.Since, sp.Until = p.At, p.At
	}
	limit := max(pauseAfter, pausePolls*p.Every)
	if st.Frozen != "" {
		limit = max(limit, pauseEnded)
	}
	away := p.At.Sub(sp.Until)
	switch {
	case away > limit || away < -limit:
		// A clock that was set back leaves a pause of no length: nobody knows what it was.
		pause := ledger.Pause{Since: earlier(sp.Until, p.At).UTC(), Until: p.At.UTC(), Reason: w.reason(sp, p.At), Failures: sp.Misses, Error: sp.LastError}
		if err := w.seal(sp, st); err != nil {
			return err
		}
		if err := w.append(ledger.KindPause, sp.Origin, pause); err != nil {
			return err
		}
		sp = w.newSpan(st, &sp)
		sp.Since = p.At
	case p.At.Sub(sp.Since) >= sealAfter || len(sp.Read) >= maxRanges:
		if err := w.seal(sp, st); err != nil {
			return err
		}
		sp = w.newSpan(st, &sp)
		sp.Since = p.At
	}
	if len(p.WatchSet) > 0 || p.Trust != "" {
		if sp, err = w.with(sp, st, setHash(p.WatchSet), p.Trust); err != nil {
			return err
		}
	}
	if p.At.After(sp.Until) || away < -limit {
		sp.Until = p.At
	}
	sp.PauseAfter = limit.Seconds()
	sp.Polls++
	sp.Misses, sp.LastError = 0, ""
	sp.LagMax = max(sp.LagMax, st.Unread())
	sp.Head = headOf(st)
	return w.keepSpan(sp)
}

// reason says why nothing was polled with success before a time.
func (w *writer) reason(sp openSpan, at time.Time) string {
	run := &w.store.run
	switch began := run.started.After(sp.Until) && !run.started.After(at); {
	case began && run.restored:
		return ledger.PauseRestored
	case sp.Misses > 0:
		return ledger.PauseUnreachable // whether it was started anew meanwhile or not
	case began:
		return ledger.PauseNotRunning
	}
	return ledger.PauseSlow
}

// readIn books entries that were read, and with what. A span has one watchlist and
// one trusted root: it ends where they change.
func (w *writer) readIn(b monitor.Batch) error {
	if len(b.Coverage) == 0 {
		return nil
	}
	st, found, err := w.state()
	if err != nil || !found {
		return err
	}
	sp, known, err := w.span()
	if err != nil {
		return err
	}
	set := setHash(b.WatchSet)
	if !known {
		sp = w.newSpan(st, nil)
	}
	if sp, err = w.with(sp, st, set, b.Trust); err != nil {
		return err
	}
	for _, r := range b.Coverage {
		if r.From < r.To {
			sp.Read = addRange(sp.Read, ledger.Range(r))
		}
	}
	sp.Head = headOf(st)
	return w.keepSpan(sp)
}

// with makes sure that a span is one of a watchlist and a trusted root: where it has
// read something with others, it ends, and another one goes on.
func (w *writer) with(sp openSpan, st *monitor.State, set, trust string) (openSpan, error) {
	if sp.WatchSet == set && sp.TrustRoot == trust && sp.Version == w.store.version {
		return sp, nil
	}
	if sp.Polls > 0 || len(sp.Read) > 0 {
		if err := w.seal(sp, st); err != nil {
			return sp, err
		}
		last := sp
		sp = w.newSpan(st, &last)
		sp.Since, sp.Until, sp.Misses, sp.LastError = last.Until, last.Until, last.Misses, last.LastError
	}
	sp.WatchSet, sp.TrustRoot, sp.Version = set, trust, w.store.version
	return sp, nil
}

// addRange adds a range to a sorted list of ranges that do not touch.
func addRange(list []ledger.Range, r ledger.Range) []ledger.Range {
	out := list[:0:0]
	for _, o := range list {
		if o.To < r.From || r.To < o.From {
			out = append(out, o)
			continue
		}
		r.From, r.To = min(r.From, o.From), max(r.To, o.To)
	}
	out = append(out, r)
	slices.SortFunc(out, func(a, b ledger.Range) int { return cmp.Compare(a.From, b.From) })
	return out
}

// turned writes down what becomes of a log as a whole.
func (w *writer) turned(old, next *monitor.State) error {
	switch {
	case old.Version == 0 || next.Head == "":
	case old.Epoch != next.Epoch:
		if err := w.breakSpan(old); err != nil {
			return err
		}
		if err := w.append(ledger.KindBaseline, next.Origin, ledger.Baseline{Before: headOf(old), Head: headOf(next)}); err != nil {
			return err
		}
	}
	switch {
	case old.Halted == next.Halted:
		return nil
	case next.Halted != "":
		return w.append(ledger.KindHalted, next.Origin, ledger.Halt{Incident: next.Halted, Head: headOf(next)})
	}
	return w.append(ledger.KindResumed, next.Origin, ledger.Halt{Incident: old.Halted, Head: headOf(next)})
}

// breakSpan ends the span of a log as it was in a state.
func (w *writer) breakSpan(st *monitor.State) error {
	sp, known, err := w.span()
	if err != nil || !known {
		return err
	}
	if err := w.seal(sp, st); err != nil {
		return err
	}
	next := w.newSpan(st, &sp)
	// Since when nothing was polled with success is still to be told.
	next.Since, next.Until, next.Misses, next.LastError = sp.Until, sp.Until, sp.Misses, sp.LastError
	return w.keepSpan(next)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// gapRows writes down which gaps are new, and which were filled.
func (w *writer) gapRows(b monitor.Batch) error {
	if len(b.SetGaps)+len(b.FilledGaps) == 0 {
		return nil
	}
	st, _, err := w.state()
	if err != nil {
		return err
	}
	same := func(list []monitor.Gap, g monitor.Gap) bool {
		return slices.ContainsFunc(list, func(o monitor.Gap) bool { return o.Range == g.Range && o.Reason == g.Reason })
	}
	for _, g := range b.FilledGaps {
		if same(b.SetGaps, g) {
			continue // it was tried again, in vain
		}
		if err := w.append(ledger.KindFilled, st.Origin, ledger.Gap{Range: ledger.Range(g.Range), Reason: g.Reason}); err != nil {
			return err
		}
	}
	for _, g := range b.SetGaps {
		if same(b.FilledGaps, g) {
			continue
		}
		var to int64
		var reason string
		err := w.tx.QueryRowContext(w.ctx, "SELECT to_idx, reason FROM gaps WHERE log_id = $1 AND from_idx = $2", w.logID, g.From).Scan(&to, &reason)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err == nil && uint64(to) == g.To && reason == g.Reason {
			continue // it is there still
		}
		if err := w.append(ledger.KindGap, st.Origin, ledger.Gap{Range: ledger.Range(g.Range), Reason: g.Reason}); err != nil {
			return err
		}
	}
	return nil
}

// seal makes a span into a row.
func (w *writer) seal(sp openSpan, st *monitor.State) error {
	if sp.Polls == 0 && len(sp.Read) == 0 {
		return nil
	}
	if sp.Since.IsZero() {
		sp.Since, sp.Until = w.now.UTC(), w.now.UTC() // by a scan without polls
	}
	sp.KeyOnly, sp.Undecodable = st.KeyOnly-min(sp.KeyOnlyAt, st.KeyOnly), st.Undecodable-min(sp.UndecodableAt, st.Undecodable)
	if err := w.exec("INSERT INTO notes (log_id, size, root, note) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING", w.logID, st.HeadSize, hexOf(headOf(st).Root), st.Head); err != nil {
		return err
	}
	sp.Head = headOf(st)
	sp.Since, sp.Until = sp.Since.UTC(), sp.Until.UTC()
	return w.append(ledger.KindSpan, sp.Origin, sp.Span)
}

// newSpan begins one, behind another or as the first.
func (w *writer) newSpan(st *monitor.State, before *openSpan) openSpan {
	sp := openSpan{Origin: st.Origin, KeyOnlyAt: st.KeyOnly, UndecodableAt: st.Undecodable}
	sp.Name, sp.Version, sp.Read = st.Name, w.store.version, []ledger.Range{}
	sp.Before, sp.Head = headOf(st), headOf(st)
	if before != nil {
		sp.WatchSet, sp.TrustRoot, sp.PauseAfter = before.WatchSet, before.TrustRoot, before.PauseAfter
	}
	return sp
}

// span reads the span of the log that is going on.
func (w *writer) span() (sp openSpan, known bool, err error) {
	var doc string
	err = w.tx.QueryRowContext(w.ctx, "SELECT span FROM ledger_spans WHERE log_id = $1", w.logID).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return sp, false, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(doc), &sp)
	}
	return sp, err == nil, err
}

func (w *writer) keepSpan(sp openSpan) error {
	doc, err := json.Marshal(sp)
	if err != nil {
		return err
	}
	return w.exec("INSERT INTO ledger_spans (log_id, span) VALUES ($1, $2) ON CONFLICT (log_id) DO UPDATE SET span = excluded.span", w.logID, string(doc))
}

// state reads the state of the log within the transaction.
func (w *writer) state() (*monitor.State, bool, error) {
	var doc string
	err := w.tx.QueryRowContext(w.ctx, "SELECT state FROM logs WHERE id = $1", w.logID).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return &monitor.State{}, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	st := &monitor.State{}
	if err := json.Unmarshal([]byte(doc), st); err != nil {
		return nil, false, fmt.Errorf("state of log %s: %w", w.logID, err)
	}
	return st, true, nil
}

// headOf is the verified head of a log.
func headOf(st *monitor.State) ledger.Head {
	peaks := make([]checkpoint.Hash, len(st.HeadPeaks))
	for i, p := range st.HeadPeaks {
		peaks[i] = checkpoint.Hash(p)
	}
	h := ledger.Head{Size: st.HeadSize}
	if f, err := checkpoint.NewFrontier(st.HeadSize, peaks); err == nil {
		h.Root = checkpoint.HexHash(f.Root())
	}
	return h
}

// OpenSpan is a span that is not a row yet.
type OpenSpan struct {
	Origin string
	ledger.Span
	Misses    int // polls that failed since the last one that did not
	LastError string
}

// OpenSpans returns the spans that are going on.
func (s *Store) OpenSpans(ctx context.Context) ([]OpenSpan, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT span FROM ledger_spans ORDER BY log_id")
	if err != nil {
		return nil, s.explain("reading", err)
	}
	defer rows.Close()
	var out []OpenSpan
	for rows.Next() {
		var doc string
		var sp openSpan
		if err := rows.Scan(&doc); err != nil {
			return nil, s.explain("reading", err)
		}
		if err := json.Unmarshal([]byte(doc), &sp); err != nil {
			return nil, fmt.Errorf("state file %s: span of the ledger: %w", s.path, err)
		}
		out = append(out, OpenSpan{sp.Origin, sp.Span, sp.Misses, sp.LastError})
	}
	return out, s.explain("reading", rows.Err())
}
