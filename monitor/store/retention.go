package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/notify"
)

// Classes of what is not kept for ever, where somebody says so.
const (
	ClassExpected  = "expected"  // findings that nobody had to look at
	ClassFindings  = "findings"  // those that somebody has resolved, or that were never told
	ClassIncidents = "incidents" // resolved ones, with their evidence
)

// actForgotten is the row of the audit trail that names what it spoke of and is gone.
const actForgotten = "retention"

// forgotten is its detail.
type forgotten struct {
	Class string   `json:"class"`
	IDs   []string `json:"ids"`
}

// doomed are the queries for the ids of each class, of what is older than $1. What
// somebody still has to look at, what waits for a channel, and what numbers and silences
// are counted from, stays.
var doomed = map[string]string{
	ClassExpected: "SELECT id FROM findings WHERE verdict = 'expected' AND state = 'closed' AND seen_at < $1" + untold +
		" AND event_at < (SELECT MAX(event_at) FROM findings AS newer WHERE newer.watch = findings.watch AND newer.verdict = 'expected') ORDER BY seen_at, id LIMIT $2",
	ClassFindings: "SELECT id FROM findings WHERE verdict <> 'expected' AND (state = 'closed' OR state = 'resolved' AND COALESCE(changed_at, $1) < $1) AND seen_at < $1" + untold + " ORDER BY seen_at, id LIMIT $2",
	ClassIncidents: "SELECT id FROM incidents WHERE state = 'resolved' AND COALESCE(resolved_at, changed_at, $1) < $1 AND COALESCE(changed_at, 0) < $1 AND opened_at < $1" +
		" AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.subject = incidents.id) ORDER BY opened_at, id LIMIT $2",
}

const untold = " AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.finding = findings.id OR outbox.subject = findings.id)" +
	" AND (opened_n IS NULL OR opened_n < (SELECT MAX(opened_n) FROM findings) AND NOT EXISTS (SELECT 1 FROM rolls WHERE rolls.from_n <= findings.opened_n AND rolls.to_n >= findings.opened_n))"

// Forget deletes what of a class is older than a time, at most so many in one
// transaction, and leaves a tombstone in the ledger. It returns how many are gone.
func (s *Store) Forget(ctx context.Context, class string, before, now time.Time, limit int) (n int, err error) {
	query, ok := doomed[class]
	if !ok {
		return 0, fmt.Errorf("no class %q", class)
	}
	err = s.write(ctx, "writing", func(tx *sql.Tx) error {
		w := s.writer(ctx, tx, now)
		ids, err := w.ids(query, micros(before), limit)
		if n = len(ids); err != nil || n == 0 {
			return err
		}
		triaged, err := w.spokenOf(ids)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := w.forget(class, id); err != nil {
				return err
			}
		}
		slices.Sort(ids)
		digest := sha256.Sum256([]byte(strings.Join(ids, "\n") + "\n"))
		if err := w.append(ledger.KindDeleted, "", ledger.Deleted{Class: class, Before: before.UTC(), Count: n, Digest: hex.EncodeToString(digest[:])}); err != nil || len(triaged) == 0 {
			return err
		}
		return w.audit("sigwarden", actForgotten, class, forgotten{class, triaged})
	})
	return n, err
}

func (w *writer) ids(query string, args ...any) (ids []string, err error) {
	rows, err := w.tx.QueryContext(w.ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// spokenOf returns those ids that the audit trail speaks of.
func (w *writer) spokenOf(ids []string) (out []string, err error) {
	for _, id := range ids {
		var there int
		if err := w.tx.QueryRowContext(w.ctx, "SELECT COUNT(*) FROM (SELECT n FROM audit WHERE subject = $1 LIMIT 1) AS spoken", id).Scan(&there); err != nil {
			return nil, err
		}
		if there > 0 {
			out = append(out, id)
		}
	}
	return out, nil
}

func (w *writer) forget(class, id string) error {
	if class != ClassIncidents {
		return w.exec("DELETE FROM findings WHERE id = $1", id)
	}
	if err := w.exec("DELETE FROM evidence WHERE incident_id = $1", id); err != nil {
		return err
	}
	return w.exec("DELETE FROM incidents WHERE id = $1", id)
}

// ReportedUntil returns the end of the last report of a name; zero: there is none.
func (s *Store) ReportedUntil(ctx context.Context, name string) (time.Time, error) {
	var until sql.NullInt64
	err := s.db.QueryRowContext(ctx, "SELECT MAX(until) FROM reported WHERE name = $1", name).Scan(&until)
	return timeOrZero(until), s.explain("reading", err)
}

// Reported notes the end of a report, and puts what tells of it into the outbox, in one
// transaction.
func (s *Store) Reported(ctx context.Context, name string, until time.Time, deliveries []notify.Delivery) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		w := s.writer(ctx, tx, s.now())
		if err := w.exec("INSERT INTO reported (name, until) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET until = excluded.until", name, micros(until)); err != nil {
			return err
		}
		return w.enqueue(deliveries)
	})
}
