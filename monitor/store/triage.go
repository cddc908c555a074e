package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/notify"
)

// Told returns where it is told what a person has decided; nil: nowhere.
type Told struct {
	Finding  func(monitor.Finding) []notify.Delivery
	Incident func(monitor.Incident) []notify.Delivery
}

// ErrTriage says that something cannot be decided so.
var ErrTriage = errors.New("that cannot be decided")

// Triage changes the state of a finding or an incident, as a person decided, and tells
// it. It adds a row to the audit trail in the same transaction.
func (s *Store) Triage(ctx context.Context, id string, c monitor.Change, told *Told) error {
	table := "findings"
	if strings.HasPrefix(id, "i-") {
		table = "incidents"
	}
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		w := s.writer(ctx, tx, c.At)
		var state, before, kind string
		column := map[string]string{"findings": "verdict", "incidents": "kind"}[table]
		err := tx.QueryRowContext(ctx, "SELECT state, note, "+column+" FROM "+table+" WHERE id = $1", id).Scan(&state, &before, &kind)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%q: %w", id, ErrNotFound)
		}
		if err != nil {
			return err
		}
		if table == "incidents" && monitor.Halts(kind) {
			// They are open just as long as their log is halted.
			switch {
			case c.To == monitor.StateResolved && state != monitor.StateResolved:
				return fmt.Errorf("%w: %s halts its log: `sigwarden logs resume` lets the log go on, and resolves it", ErrTriage, id)
			case c.To == monitor.StateOpen && state == monitor.StateResolved:
				return fmt.Errorf("%w: %s halted its log until somebody let it go on; that cannot be taken back. What the log contradicts from now on opens an incident of its own", ErrTriage, id)
			}
		}
		if err := c.Allowed(state); err != nil {
			return fmt.Errorf("%w: %s is %s: %w", ErrTriage, id, state, err)
		}
		note := c.Note
		if before != "" && note != "" {
			note = before + " / " + note // what was noted before stays
		} else if note == "" {
			note = before
		}
		if err := w.exec("UPDATE "+table+" SET state = $1, note = $2, resolution = $3, changed_by = $4, changed_at = $5 WHERE id = $6", c.To, note, c.Resolution, c.By, micros(c.At), id); err != nil {
			return err
		}
		if table == "findings" && c.To == monitor.StateOpen {
			// What is open again may escalate again, and not at once.
			if err := w.exec("UPDATE findings SET opened_at = $1, escalated_at = NULL WHERE id = $2 AND opened_at IS NOT NULL", micros(c.At), id); err != nil {
				return err
			}
		}
		if table == "incidents" {
			var at sql.NullInt64
			if c.To == monitor.StateResolved {
				at = sql.NullInt64{Int64: micros(c.At), Valid: true}
			}
			if err := w.exec("UPDATE incidents SET resolved_at = $1 WHERE id = $2", at, id); err != nil {
				return err
			}
		}
		if err := w.audit(c.By, c.Action(), id, map[string]string{"from": state, "state": c.To, "resolution": c.Resolution, "note": c.Note}); err != nil {
			return err
		}
		if told == nil {
			return nil
		}
		if table == "incidents" {
			inc, err := scanIncident(tx.QueryRowContext(ctx, "SELECT "+incidentColumns+" FROM incidents WHERE id = $1", id))
			if err != nil {
				return err
			}
			return w.enqueue(told.Incident(inc))
		}
		var doc string
		if err := tx.QueryRowContext(ctx, "SELECT document FROM findings WHERE id = $1", id).Scan(&doc); err != nil {
			return err
		}
		f, err := parseFinding(doc, triaged{state: c.To, note: note, resolution: c.Resolution, by: c.By, at: sql.NullInt64{Int64: micros(c.At), Valid: true}})
		if err != nil {
			return err
		}
		return w.enqueue(told.Finding(f))
	})
}

// PendingFindings returns the findings that may still come on a list. One that cannot
// be read is left out: it must not keep the others.
func (s *Store) PendingFindings(ctx context.Context) ([]monitor.Finding, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT document, state, note, log_id, waiting FROM findings WHERE state = 'pending'")
	if err != nil {
		return nil, s.explain("reading", err)
	}
	defer rows.Close()
	var out []monitor.Finding
	for rows.Next() {
		var doc, logID, waiting string
		var t triaged
		if err := rows.Scan(&doc, &t.state, &t.note, &logID, &waiting); err != nil {
			return nil, s.explain("reading", err)
		}
		f, err := parseFinding(doc, t)
		if err != nil {
			continue
		}
		f.LogID, f.Waiting = logID, []byte(waiting)
		out = append(out, f)
	}
	return out, s.explain("reading", rows.Err())
}

// Decide judges pending findings anew: decide does, by what is known now, and returns
// whether anything has changed. It returns those that do not wait any more.
func (s *Store) Decide(ctx context.Context, waiting []monitor.Finding, now time.Time, decide func(*monitor.Finding, monitor.Precedents) (bool, error)) (done []monitor.Finding, err error) {
	if len(waiting) == 0 {
		return nil, nil
	}
	err = s.write(ctx, "writing", func(tx *sql.Tx) error {
		done = nil
		w := s.writer(ctx, tx, now)
		for _, f := range waiting {
			w.logID = f.LogID
			changed, err := decide(&f, w)
			if err != nil {
				return err
			}
			if !changed {
				continue
			}
			decided, err := w.decided(&f)
			if err != nil {
				return err
			}
			if decided && f.State != monitor.StatePending {
				done = append(done, f)
			}
		}
		return w.flushRolls()
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// decided stores what became of a pending finding, unless somebody else was faster.
func (w *writer) decided(f *monitor.Finding) (bool, error) {
	doc, err := json.Marshal(f)
	if err != nil {
		return false, err
	}
	opened, err := w.opening(f)
	if err != nil {
		return false, err
	}
	res, err := w.tx.ExecContext(w.ctx, "UPDATE findings SET verdict = $1, state = $2, cause = $3, document = $4, opened_at = $5, opened_n = $6, event_id = $7, pending_until = $8, waiting = $9, event_at = $10 WHERE id = $11 AND state = 'pending'",
		string(f.Verdict), f.State, f.Cause, string(doc), opened.at, opened.n, opened.event, pendingUntil(f), string(f.Waiting), micros(f.EventTime), f.ID)
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		if opened.n.Valid {
			w.opened-- // its number is free
		}
		return false, err
	}
	if opened.n.Valid {
		w.tell(tellFinding, f, opened.n.Int64, f.Addresses(w.now))
	}
	if f.State == monitor.StatePending {
		return true, nil
	}
	return true, w.audit(monitor.Ourselves, "decide", f.ID, map[string]string{"from": monitor.StatePending, "verdict": string(f.Verdict), "reason": f.Reason})
}

// pendingUntil is until when a finding waits; null: it does not.
func pendingUntil(f *monitor.Finding) (at sql.NullInt64) {
	if f.PendingUntil != nil {
		at = sql.NullInt64{Int64: micros(*f.PendingUntil), Valid: true}
	}
	return at
}

// Escalate marks critical findings that are open since before a time and were not
// escalated yet, and tells them at some channels. It returns how many there were.
func (s *Store) Escalate(ctx context.Context, before, now time.Time, channels []string) (n int, err error) {
	var to []notify.Address
	for _, c := range channels {
		to = append(to, notify.Address{Channel: c})
	}
	err = s.write(ctx, "writing", func(tx *sql.Tx) error {
		n = 0
		w := s.writer(ctx, tx, now)
		for {
			more, err := w.escalate(before, to)
			if n += more; err != nil || more == 0 {
				return errors.Join(err, w.flushRolls())
			}
		}
	})
	return n, err
}

func (w *writer) escalate(before time.Time, to []notify.Address) (int, error) {
	rows, err := w.tx.QueryContext(w.ctx, "SELECT id, watch, verdict, severity, opened_n FROM findings WHERE state = 'open' AND severity = 'critical' AND escalated_at IS NULL AND opened_at <= $1 ORDER BY opened_n LIMIT 500", micros(before))
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var f monitor.Finding
		var number int64
		if err := rows.Scan(&f.ID, &f.Watch, &f.Verdict, &f.Severity, &number); err != nil {
			return 0, err
		}
		ids = append(ids, f.ID)
		w.tell(tellEscalation, &f, number, to)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	rows.Close()
	for _, id := range ids {
		if err := w.exec("UPDATE findings SET escalated_at = $1 WHERE id = $2", micros(w.now), id); err != nil {
			return 0, err
		}
	}
	return len(ids), nil
}

// NextDeadline returns when the next pending finding is to be decided, and when
// the oldest critical one that nobody has acknowledged was opened; zero for none.
func (s *Store) NextDeadline(ctx context.Context) (pending, unheard time.Time, err error) {
	var p, u sql.NullInt64
	err = s.db.QueryRowContext(ctx, "SELECT (SELECT MIN(pending_until) FROM findings WHERE state = 'pending'), (SELECT MIN(opened_at) FROM findings WHERE state = 'open' AND severity = 'critical' AND escalated_at IS NULL)").Scan(&p, &u)
	return timeOrZero(p), timeOrZero(u), s.explain("reading", err)
}

// LastExpected returns when an event of a watch was expected last; zero: never.
func (s *Store) LastExpected(ctx context.Context, watch string) (time.Time, error) {
	var at sql.NullInt64
	err := s.db.QueryRowContext(ctx, "SELECT MAX(event_at) FROM findings WHERE watch = $1 AND verdict = 'expected' AND state <> 'pending'", watch).Scan(&at)
	return timeOrZero(at), s.explain("reading", err)
}

// WatchedSince returns when a watch was there first: now, if it was not yet.
func (s *Store) WatchedSince(ctx context.Context, watch string, now time.Time) (time.Time, error) {
	var since int64
	err := s.db.QueryRowContext(ctx, "SELECT since FROM watches WHERE name = $1", watch).Scan(&since)
	if err == nil || !errors.Is(err, sql.ErrNoRows) {
		return timeOf(since), s.explain("reading", err)
	}
	return now.UTC(), s.write(ctx, "writing", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO watches (name, since) VALUES ($1, $2) ON CONFLICT DO NOTHING", watch, micros(now))
		return err
	})
}
