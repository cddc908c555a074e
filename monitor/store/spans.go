package store

import (
	"cmp"
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
	// maxRanges bounds the ranges of a span, maxFailure the text of an error in it, maxDowns
	// the times in which the program did not run.
	maxRanges  = 256
	maxFailure = 500
	maxDowns   = 64
)

// openSpan is a ledger.Span that is still going on, and what is needed to end it.
type openSpan struct {
	ledger.Span
	Origin    string    `json:"origin"`
	LastError string    `json:"last_error"`
	Misses    int       `json:"misses"` // polls that failed since the last one that did not
	LastMiss  time.Time `json:"last_miss,omitzero"`
	// Away: at Until nobody was watching. It is the end of a pause that was told, or when the
	// log was asked first.
	Away bool `json:"away,omitempty"`
	// Downs are times since Until in which the program did not run.
	Downs []down `json:"downs,omitempty"`
	// Halted is the incident that halts the log: what it signs is not believed.
	Halted string `json:"halted,omitempty"`
	// Unconfirmed: it was begun by what was read or verified within a poll, whose end is not
	// known yet.
	Unconfirmed bool `json:"unconfirmed,omitempty"`
	// Latest is the latest time of all spans of the log: a clock may have been set back since.
	Latest time.Time `json:"latest,omitzero"`
}

// polled books a poll in the span of its log: it goes on, or ends in a row, with a
// row for the pause where there was one.
func (w *writer) polled(p monitor.Poll) error {
	sp, known, err := w.span()
	if err != nil || !known && p.Origin == "" {
		return err
	}
	if !known {
		sp = openSpan{Origin: p.Origin, Span: ledger.Span{Name: p.Name, Version: w.store.version, Read: []ledger.Range{}}}
	}
	if p.Err != nil {
		if sp.Until.IsZero() {
			sp.Until, sp.Away = p.At, true
		}
		sp.Away = sp.Away || sp.Unconfirmed
		sp.Failures++
		sp.Misses++
		sp.LastMiss, sp.LastError = p.At, p.Err.Error()
		sp.LastError = sp.LastError[:min(len(sp.LastError), maxFailure)]
		return w.keepSpan(sp)
	}
	st, found, err := w.state()
	if err != nil || !found || st.Head == "" || st.Halted != "" {
		return err // who halts asks on, and believes nothing
	}
	limit := max(pauseAfter, pausePolls*p.Every)
	if st.Frozen != "" {
		limit = max(limit, pauseEnded)
	}
	if !known {
		sp = w.newSpan(st, nil)
	}
	if sp.overdue(p.At) { // by the limit that it was followed with until now
		if sp, err = w.breakSpan(sp, st, p.At); err != nil {
			return err
		}
	}
	sp.PauseAfter, sp.Unconfirmed, sp.Away = limit.Seconds(), false, false
	sp.ConsistencyOnly = p.ConsistencyOnly
	if sp.Since.IsZero() {
		sp.Since, sp.Until = p.At, p.At
	}
	if len(p.WatchSet) > 0 || p.Trust != "" {
		if sp, err = w.with(sp, st, setHash(p.WatchSet), p.Trust); err != nil {
			return err
		}
	}
	if p.At.After(sp.Until) {
		sp.Until = p.At
	}
	sp.Polls++
	sp.Misses, sp.LastMiss, sp.LastError = 0, time.Time{}, ""
	sp.Unread = st.Unread()
	sp.LagMax = max(sp.LagMax, sp.Unread)
	sp.Head = headOf(st)
	if sp.Until.Sub(sp.Since) >= sealAfter {
		if sp, err = w.nextSpan(sp, st); err != nil {
			return err
		}
	}
	return w.keepSpan(sp)
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
		if r.From >= r.To {
			continue
		}
		if sp.Read = addRange(sp.Read, ledger.Range(r)); len(sp.Read) < maxRanges {
			continue
		}
		// A log that serves every other entry must not make a row that is too long.
		if sp, err = w.nextSpan(sp, st); err != nil {
			return err
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
		var err error
		if sp, err = w.nextSpan(sp, st); err != nil {
			return sp, err
		}
	}
	sp.WatchSet, sp.TrustRoot, sp.Version = set, trust, w.store.version
	return sp, nil
}

// addRange adds a range to a sorted list of ranges that do not touch.
func addRange(list []ledger.Range, r ledger.Range) []ledger.Range {
	from, _ := slices.BinarySearchFunc(list, r.From, func(o ledger.Range, at uint64) int { return cmp.Compare(o.To, at) })
	to := from
	for ; to < len(list) && list[to].From <= r.To; to++ {
		r.From, r.To = min(r.From, list[to].From), max(r.To, list[to].To)
	}
	return slices.Replace(list, from, to, r)
}

// moving books, before a batch is recorded, that a log has come on: what comes after a time in
// which nobody was watching stands behind it, and counts nowhere else. next is nil where only
// entries were read.
func (w *writer) moving(old, next *monitor.State, b monitor.Batch) error {
	grown := next != nil && next.Head != old.Head
	if !grown && len(b.Coverage) == 0 && (next == nil || next.KeyOnly == old.KeyOnly && next.Undecodable == old.Undecodable) {
		return nil
	}
	sp, known, err := w.span()
	if err != nil || !known && old.Head == "" {
		return err
	}
	if !known {
		sp = w.newSpan(old, nil)
	}
	switch {
	case sp.Until.IsZero():
	case sp.overdue(w.now):
		was := old
		if old.Head == "" {
			was = next // it has never answered before
		}
		if sp, err = w.breakSpan(sp, was, w.now); err != nil {
			return err
		}
		sp.Unconfirmed = true
	case sp.Misses == 0 && sp.Halted == "" && w.now.After(sp.Until):
		sp.Until = w.now // a poll that takes long goes on
	}
	if next != nil {
		sp.KeyOnly, sp.Undecodable = sp.KeyOnly+next.KeyOnly-min(old.KeyOnly, next.KeyOnly), sp.Undecodable+next.Undecodable-min(old.Undecodable, next.Undecodable)
		if next.Head != "" && next.Epoch == old.Epoch {
			sp.Head = headOf(next)
		}
		if err := w.skipped(old, next, b); err != nil {
			return err
		}
	}
	return w.keepSpan(sp)
}

// skipped writes down what of a backlog is nobody's task any more, and was not read.
func (w *writer) skipped(old, next *monitor.State, b monitor.Batch) error {
	if len(old.Backlog) == 0 || old.Epoch != next.Epoch {
		return nil
	}
	var left []ledger.Range
	for _, r := range old.Backlog {
		left = append(left, ledger.Range(r))
	}
	for _, list := range [][]monitor.Range{next.Backlog, b.Coverage} {
		for _, r := range list {
			left = without(left, ledger.Range(r))
		}
	}
	for _, g := range b.SetGaps {
		left = without(left, ledger.Range(g.Range))
	}
	if len(next.Backlog) > 0 {
		return nil // it is worked off, and what is missing has gaps
	}
	for _, r := range left {
		if err := w.append(ledger.KindGap, next.Origin, ledger.Gap{Range: r, Reason: ledger.GapSkipped}); err != nil {
			return err
		}
	}
	return nil
}

// turned writes down what becomes of a log as a whole.
func (w *writer) turned(old, next *monitor.State) error {
	if old.Head == next.Head && old.Halted == next.Halted && old.Epoch == next.Epoch {
		return nil
	}
	sp, known, err := w.span()
	if err != nil {
		return err
	}
	if known && old.Head != "" && sp.Halted == "" && sp.overdue(w.now) {
		// The pause comes before what is known from now on.
		if sp, err = w.breakSpan(sp, old, w.now); err != nil {
			return err
		}
		sp.Unconfirmed = true
	}
	if old.Halted != next.Halted {
		if sp, err = w.halted(sp, old, next); err != nil {
			return err
		}
	}
	if old.Version != 0 && old.Head != "" && next.Head != "" && old.Epoch != next.Epoch {
		if sp, err = w.rebased(sp, old, next); err != nil {
			return err
		}
	}
	if sp.Until.IsZero() {
		return nil
	}
	return w.keepSpan(sp)
}

// halted writes down that a log stands still, or goes on: the time between is a pause.
func (w *writer) halted(sp openSpan, old, next *monitor.State) (openSpan, error) {
	if sp.Halted != "" {
		var err error
		if sp, err = w.breakSpan(sp, old, w.now); err != nil {
			return sp, err
		}
		sp.Halted, sp.Away = "", false
	}
	if next.Halted == "" {
		return sp, w.append(ledger.KindResumed, next.Origin, ledger.Halt{Incident: old.Halted, Head: headOf(next)})
	}
	if err := w.append(ledger.KindHalted, next.Origin, ledger.Halt{Incident: next.Halted, Head: headOf(next)}); err != nil {
		return sp, err
	}
	if old.Head == "" {
		return sp, nil
	}
	if sp.Since.IsZero() {
		sp = w.newSpan(old, nil)
		sp.Since = w.now
	}
	if sp.Misses == 0 {
		sp.Until, sp.Polls = w.now, sp.Polls+1 // the poll that shows it is one that was made
	}
	sp, err := w.nextSpan(sp, old)
	sp.Halted, sp.Away = next.Halted, true
	return sp, err
}

// rebased writes down that a log goes on in another tree. What was not read of the one
// before never will be.
func (w *writer) rebased(sp openSpan, old, next *monitor.State) (openSpan, error) {
	if err := w.seal(sp, old); err != nil {
		return sp, err
	}
	unread := append([]monitor.Range(nil), old.Backlog...)
	if old.Scanned < old.HeadSize {
		unread = append(unread, monitor.Range{From: old.Scanned, To: old.HeadSize})
	}
	for _, r := range unread {
		if err := w.append(ledger.KindGap, next.Origin, ledger.Gap{Range: ledger.Range(r), Reason: ledger.GapLeft}); err != nil {
			return sp, err
		}
	}
	if err := w.append(ledger.KindBaseline, next.Origin, ledger.Baseline{Before: headOf(old), Head: headOf(next)}); err != nil {
		return sp, err
	}
	return w.following(sp, next), nil
}

// seal makes a span into a row, if there is something to tell.
func (w *writer) seal(sp openSpan, st *monitor.State) error {
	if sp.Polls == 0 && len(sp.Read) == 0 {
		return nil
	}
	if sp.Since.IsZero() {
		sp.Since, sp.Until = w.now.UTC(), w.now.UTC() // by a scan without polls
	}
	if err := w.exec("INSERT INTO notes (log_id, size, root, note) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING", w.logID, st.HeadSize, hexOf(headOf(st).Root), st.Head); err != nil {
		return err
	}
	sp.Head = headOf(st)
	sp.Since, sp.Until = sp.Since.UTC(), sp.Until.UTC()
	sp.Failures -= sp.Misses // those are told where it is known what they were
	return w.append(ledger.KindSpan, sp.Origin, sp.Span)
}

// newSpan begins one, behind another or as the first.
func (w *writer) newSpan(st *monitor.State, before *openSpan) openSpan {
	sp := openSpan{Origin: st.Origin}
	sp.Name, sp.Version, sp.Read = st.Name, w.store.version, []ledger.Range{}
	sp.Before, sp.Head = headOf(st), headOf(st)
	if before != nil {
		sp.Origin, sp.Name = cmp.Or(sp.Origin, before.Origin), cmp.Or(sp.Name, before.Name)
		sp.WatchSet, sp.TrustRoot, sp.PauseAfter, sp.ConsistencyOnly = before.WatchSet, before.TrustRoot, before.PauseAfter, before.ConsistencyOnly
		sp.Unread, sp.LagMax = before.Unread, before.Unread
		if sp.Latest = before.Latest; before.Until.After(sp.Latest) {
			sp.Latest = before.Until
		}
	}
	return sp
}

// following goes on where a span ended: what follows is not a pause by itself.
func (w *writer) following(last openSpan, st *monitor.State) openSpan {
	sp := w.newSpan(st, &last)
	sp.Since, sp.Until, sp.Away, sp.Halted, sp.Unconfirmed, sp.Downs = last.Until, last.Until, last.Away, last.Halted, last.Unconfirmed, last.Downs
	sp.Failures, sp.Misses, sp.LastMiss, sp.LastError = last.Misses, last.Misses, last.LastMiss, last.LastError
	return sp
}

// nextSpan makes a span into a row, and goes on with another one.
func (w *writer) nextSpan(sp openSpan, st *monitor.State) (openSpan, error) {
	if err := w.seal(sp, st); err != nil {
		return sp, err
	}
	return w.following(sp, st), nil
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
