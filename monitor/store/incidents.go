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
)

// maxEvidence bounds the pieces of evidence of one incident: what a log makes
// us store is bounded by us. What is only collected later leaves room for what a
// person's decision adds.
const (
	maxEvidence  = 64
	maxCollected = 48
)

func (w *writer) incidents(b monitor.Batch) error {
	for _, inc := range b.Open {
		details := inc.Details
		if details == nil {
			details = json.RawMessage("{}")
		}
		if err := w.exec("INSERT INTO incidents (id, log_id, log_name, class, kind, severity, state, opened_at, summary, details, note) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
			inc.ID, w.logID, inc.Log, inc.Class, inc.Kind, inc.Severity, inc.State, micros(inc.OpenedAt), inc.Summary, string(details), inc.Note); err != nil {
			return err
		}
		if err := w.evidence(inc.ID, inc.Evidence); err != nil {
			return err
		}
		if err := w.enqueue(inc.Deliveries); err != nil {
			return err
		}
	}
	for _, inc := range b.Update {
		if err := w.exec("UPDATE incidents SET class = $1, severity = $2, summary = $3, details = $4 WHERE id = $5", inc.Class, inc.Severity, inc.Summary, string(inc.Details), inc.ID); err != nil {
			return err
		}
		if err := w.enqueue(inc.Deliveries); err != nil {
			return err
		}
	}
	for id, evidence := range b.Collect {
		if err := w.evidence(id, evidence); err != nil {
			return err
		}
	}
	for _, r := range b.Resolve {
		// What a person noted stays.
		if err := w.exec("UPDATE incidents SET state = 'resolved', resolved_at = $1, note = CASE WHEN note = '' THEN $2 ELSE note || ' / ' || $2 END WHERE id = $3 AND state <> 'resolved'", micros(r.At), r.Note, r.ID); err != nil {
			return err
		}
		if err := w.enqueue(r.Deliveries); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) evidence(id string, evidence []monitor.Evidence) error {
	var have int
	if err := w.tx.QueryRowContext(w.ctx, "SELECT COUNT(*) FROM evidence WHERE incident_id = $1", id).Scan(&have); err != nil {
		return err
	}
	for _, e := range evidence {
		if have >= maxEvidence || have >= maxCollected && strings.HasPrefix(e.Name, monitor.CollectedPrefix) {
			continue
		}
		// No bytes are evidence too, and are not NULL.
		data := append([]byte{}, e.Data...)
		if err := w.exec("INSERT INTO evidence (incident_id, name, position, data) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING", id, e.Name, have, data); err != nil {
			return err
		}
		have++
	}
	return nil
}

const incidentColumns = "id, log_id, log_name, class, kind, severity, state, opened_at, resolved_at, summary, details, note, resolution, changed_by, changed_at"

func scanIncident(row interface{ Scan(...any) error }) (monitor.Incident, error) {
	var inc monitor.Incident
	var opened int64
	var resolved sql.NullInt64
	var details string
	var t triaged
	err := row.Scan(&inc.ID, &inc.LogID, &inc.Log, &inc.Class, &inc.Kind, &inc.Severity, &inc.State, &opened, &resolved, &inc.Summary, &details, &inc.Note, &inc.Resolution, &inc.By, &t.at)
	inc.ChangedAt = t.changedAt()
	inc.OpenedAt, inc.Details = timeOf(opened), json.RawMessage(details)
	if resolved.Valid {
		at := timeOf(resolved.Int64)
		inc.Resolved = &at
	}
	return inc, err
}

func (s *Store) queryIncidents(ctx context.Context, q querier, query string, args ...any) ([]monitor.Incident, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, s.explain("reading", err)
	}
	defer rows.Close()
	out := []monitor.Incident{}
	for rows.Next() {
		inc, err := scanIncident(rows)
		if err != nil {
			return nil, s.explain("reading", err)
		}
		out = append(out, inc)
	}
	return out, s.explain("reading", rows.Err())
}

// OpenIncidents returns the incidents of a log that are not resolved,
// acknowledged ones among them.
func (s *Store) OpenIncidents(ctx context.Context, logID string) ([]monitor.Incident, error) {
	return s.queryIncidents(ctx, s.db, "SELECT "+incidentColumns+" FROM incidents WHERE log_id = $1 AND state <> 'resolved' ORDER BY opened_at, id", logID)
}

// Incidents returns incidents, oldest first.
func (s *Store) Incidents(ctx context.Context, f Filter) ([]monitor.Incident, error) {
	w := incidentsWhere(f)
	query := newest(incidentColumns, "incidents", &w, f.Limit, "opened_at", "id")
	return s.queryIncidents(ctx, s.db, query, w.args...)
}

// Incident returns one incident with its evidence.
func (s *Store) Incident(ctx context.Context, id string) (monitor.Incident, error) {
	inc, err := scanIncident(s.db.QueryRowContext(ctx, "SELECT "+incidentColumns+" FROM incidents WHERE id = $1", id))
	if errors.Is(err, sql.ErrNoRows) {
		return inc, fmt.Errorf("incident %q: %w", id, ErrNotFound)
	}
	if err != nil {
		return inc, s.explain("reading", err)
	}
	rows, err := s.db.QueryContext(ctx, "SELECT name, data FROM evidence WHERE incident_id = $1 ORDER BY position, name", id)
	if err != nil {
		return inc, s.explain("reading", err)
	}
	defer rows.Close()
	for rows.Next() {
		var e monitor.Evidence
		if err := rows.Scan(&e.Name, &e.Data); err != nil {
			return inc, s.explain("reading", err)
		}
		inc.Evidence = append(inc.Evidence, e)
	}
	return inc, s.explain("reading", rows.Err())
}

// UnresolvedIntegrity returns the integrity incidents that are not resolved.
func (s *Store) UnresolvedIntegrity(ctx context.Context) ([]monitor.Incident, error) {
	return s.queryIncidents(ctx, s.db, "SELECT "+incidentColumns+" FROM incidents WHERE class = 'integrity' AND state <> 'resolved' ORDER BY opened_at, id")
}

// OpenByKind counts incidents that are not resolved, by class and kind.
func (s *Store) OpenByKind(ctx context.Context) (map[[2]string]int, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT class, kind, COUNT(*) FROM incidents WHERE state <> 'resolved' GROUP BY class, kind")
	if err != nil {
		return nil, s.explain("reading", err)
	}
	defer rows.Close()
	out := map[[2]string]int{}
	for rows.Next() {
		var class, kind string
		var n int
		if err := rows.Scan(&class, &kind, &n); err != nil {
			return nil, s.explain("reading", err)
		}
		out[[2]string{class, kind}] = n
	}
	return out, s.explain("reading", rows.Err())
}

// OpenedSince counts the incidents of a kind that a log has had since a time.
func (s *Store) OpenedSince(ctx context.Context, logID, kind string, since time.Time) (int, error) {
	var n int
	err := s.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM incidents WHERE log_id = $1 AND kind = $2 AND opened_at >= $3", logID, kind, micros(since)).Scan(&n)
	return n, s.explain("reading", err)
}
