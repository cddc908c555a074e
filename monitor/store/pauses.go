package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/monitor"
)

// down is a time in which the program did not run.
type down struct {
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Misses   int       `json:"misses"` // polls that had failed before it
	Restored bool      `json:"restored,omitempty"`
}

// limit is how far apart polls that succeed may be.
func (sp *openSpan) limit() time.Duration {
	return max(pauseAfter, time.Duration(sp.PauseAfter*float64(time.Second)))
}

// neverAnswered reports whether no poll has succeeded since the log was asked first.
func (sp *openSpan) neverAnswered() bool { return sp.Since.IsZero() && sp.Misses > 0 }

// overdue reports whether nobody was watching for too long before a time, or the clock was
// set back.
func (sp *openSpan) overdue(at time.Time) bool {
	if sp.Until.IsZero() {
		return false
	}
	away := at.Sub(sp.Until)
	return away > sp.limit() || away < -sp.limit() || (sp.Away || len(sp.Downs) > 0) && away > 0
}

// pauses are the times between the end of a span and another time, with the reason of
// each.
func (sp *openSpan) pauses(at time.Time) (out []ledger.Pause) {
	from, told := sp.Until, 0
	if sp.Latest.After(from) && at.After(from) {
		from = sp.Latest // the clock was set back in between
	}
	add := func(until time.Time, reason string, misses int) {
		p := ledger.Pause{Since: from.UTC(), Until: until.UTC(), Reason: reason, Failures: misses}
		if misses > 0 {
			p.Error = sp.LastError
		}
		out, from = append(out, p), until
	}
	switch {
	case at.Before(from):
		from = at // a clock that was set back leaves a pause of no length: nobody knows what it was
		add(at, ledger.PauseSlow, sp.Misses)
		return out
	case sp.Halted != "":
		if at.After(from) {
			add(at, ledger.PauseHalted, 0)
		}
		return out
	}
	for _, d := range sp.Downs {
		if d.From.After(from) || d.Misses > told {
			add(d.From, ledger.PauseUnreachable, d.Misses-told)
			told = d.Misses
		}
		reason := ledger.PauseNotRunning
		if d.Restored {
			reason = ledger.PauseRestored
		}
		add(d.To, reason, 0)
	}
	switch {
	case !at.After(from) && !sp.neverAnswered():
	case sp.Misses > told:
		add(at, ledger.PauseUnreachable, sp.Misses-told)
	case len(out) > 0:
		out[len(out)-1].Until = at.UTC() // the first poll after a start takes a moment
	default:
		add(at, ledger.PauseSlow, 0)
	}
	return out
}

// breakSpan ends a span on the head that the log had, writes down since when nobody was
// watching and why, and begins another one at a time.
func (w *writer) breakSpan(sp openSpan, st *monitor.State, at time.Time) (openSpan, error) {
	if err := w.seal(sp, st); err != nil {
		return sp, err
	}
	for _, p := range sp.pauses(at) {
		if err := w.append(ledger.KindPause, sp.Origin, p); err != nil {
			return sp, err
		}
	}
	next := w.newSpan(st, &sp)
	next.Since, next.Until = at, at
	next.Halted, next.Away = sp.Halted, sp.Halted != "" // only who lets it go on ends that
	return next, nil
}

// unfollowed ends the spans of logs that are not followed any more.
func (s *Store) unfollowed(ctx context.Context, tx *sql.Tx, at time.Time, followed func(origin string) bool) error {
	return s.eachSpan(ctx, tx, at, func(w *writer, sp openSpan) error {
		if followed(sp.Origin) {
			return nil
		}
		st, _, err := w.state()
		if err != nil {
			return err
		}
		last := sp.Until
		if sp.LastMiss.After(last) {
			last = sp.LastMiss
		}
		if sp.overdue(last) {
			if sp, err = w.breakSpan(sp, st, last); err != nil {
				return err
			}
		} else if err := w.seal(sp, st); err != nil {
			return err
		}
		if at.After(last) {
			if err := w.append(ledger.KindPause, sp.Origin, ledger.Pause{Since: last.UTC(), Until: at.UTC(), Reason: ledger.PauseUnfollowed}); err != nil {
				return err
			}
		}
		return w.exec("DELETE FROM ledger_spans WHERE log_id = $1", w.logID)
	})
}

// wentDown notes in every span that the program did not run until now, if that was for too
// long; restored says that what it knew of the time before is lost.
func (s *Store) wentDown(ctx context.Context, tx *sql.Tx, at time.Time, restored bool) error {
	return s.eachSpan(ctx, tx, at, func(w *writer, sp openSpan) error {
		last := sp.Until
		if sp.LastMiss.After(last) {
			last = sp.LastMiss
		}
		if last.IsZero() || sp.Halted != "" || at.Sub(last) <= sp.limit() && !(restored && at.After(last)) {
			return nil
		}
		if n := len(sp.Downs); n >= maxDowns {
			sp.Downs[n-1].To = at
		} else {
			if n > 0 && sp.Downs[n-1].To.After(last) {
				last = sp.Downs[n-1].To // it was started, and did not come to ask
			}
			sp.Downs = append(sp.Downs, down{From: last, To: at, Misses: sp.Misses, Restored: restored})
		}
		return w.keepSpan(sp)
	})
}

// eachSpan calls a function with every span that is going on, to write to its log.
func (s *Store) eachSpan(ctx context.Context, tx *sql.Tx, at time.Time, do func(*writer, openSpan) error) error {
	ids, err := s.writer(ctx, tx, at).ids("SELECT log_id FROM ledger_spans ORDER BY log_id")
	if err != nil {
		return err
	}
	for _, id := range ids {
		w := s.writer(ctx, tx, at).of(id)
		sp, known, err := w.span()
		if err != nil {
			return err
		}
		if known {
			if err := do(w, sp); err != nil {
				return err
			}
		}
	}
	return nil
}

// SealSpans makes every span that is going on into a row, with the pause that goes on
// where nobody is watching, and goes on with new ones.
func (s *Store) SealSpans(ctx context.Context, at time.Time) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		return s.eachSpan(ctx, tx, at, func(w *writer, sp openSpan) error {
			st, found, err := w.state()
			if err != nil {
				return err
			}
			if until := s.toldUntil(sp, at); sp.overdue(until) {
				if sp, err = w.breakSpan(sp, st, until); err != nil {
					return err
				}
				sp.Away = true
			} else if found && st.Head != "" {
				if sp, err = w.nextSpan(sp, st); err != nil {
					return err
				}
			}
			return w.keepSpan(sp)
		})
	})
}

// toldUntil is until when something is known at a time. Who does not follow logs knows of
// no more than the last poll: perhaps nobody polls any more.
func (s *Store) toldUntil(sp openSpan, at time.Time) time.Time {
	if s.run.begun || sp.Halted != "" {
		return at
	}
	until := sp.Until
	if sp.LastMiss.After(until) {
		until = sp.LastMiss
	}
	if n := len(sp.Downs); n > 0 && sp.Downs[n-1].To.After(until) {
		until = sp.Downs[n-1].To // it was started, which is known too
	}
	return until
}

// OpenSpan is a span that is not a row yet, and the pauses behind it.
type OpenSpan struct {
	Origin string
	ledger.Span
	Pauses []ledger.Pause
}

// ReadLedger calls a function with the bytes of each row, and returns the spans that are going
// on, all as of one moment.
func (s *Store) ReadLedger(ctx context.Context, at time.Time, do func(line []byte) error) (open []OpenSpan, err error) {
	err = s.snapshot(ctx, func(q querier) error {
		if open, err = s.openSpans(ctx, q, at); err != nil {
			return err
		}
		return s.eachLedgerRow(ctx, q, 0, 1<<62, do)
	})
	return open, err
}

// OpenSpans returns the spans that are going on, as of a time.
func (s *Store) OpenSpans(ctx context.Context, at time.Time) ([]OpenSpan, error) {
	return s.openSpans(ctx, s.db, at)
}

func (s *Store) openSpans(ctx context.Context, q querier, at time.Time) ([]OpenSpan, error) {
	rows, err := q.QueryContext(ctx, "SELECT span FROM ledger_spans ORDER BY log_id")
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
		open := OpenSpan{Origin: sp.Origin, Span: sp.Span}
		if until := s.toldUntil(sp, at); sp.overdue(until) || sp.neverAnswered() {
			open.Pauses = sp.pauses(until)
		}
		open.Failures -= sp.Misses
		out = append(out, open)
	}
	return out, s.explain("reading", rows.Err())
}
