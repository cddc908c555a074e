package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
)

// ErrNotFound is returned for an id that nothing has.
var ErrNotFound = errors.New("not found")

// finding judges a finding by what is stored, and stores it with what is to be
// told of it, unless it is there already: a crash repeats a batch, and ids make
// repeats harmless. What was judged by the rules of an earlier day stays as it was.
func (w *writer) finding(f *monitor.Finding) (isNew, otherwise bool, err error) {
	var verdict string
	err = w.tx.QueryRowContext(w.ctx, "SELECT verdict FROM findings WHERE id = $1", f.ID).Scan(&verdict)
	if err == nil {
		_, err = f.Settle(w.looking())
		return false, verdict != string(f.Verdict), err
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return false, false, err
	}
	keep, err := f.Settle(w)
	if err != nil || !keep {
		return false, false, err
	}
	doc, err := json.Marshal(f)
	if err != nil {
		return false, false, err
	}
	root := hexOf(f.Checkpoint.Root)
	proof := []byte{}
	for _, h := range f.Proof {
		proof = append(proof, h[:]...)
	}
	authorities, err := w.authorities(f.Authorities)
	if err != nil {
		return false, false, err
	}
	trustRoot, err := w.trustRoot(f.TrustRoot)
	if err != nil {
		return false, false, err
	}
	promise, err := printPromise(f.Promise)
	if err != nil {
		return false, false, err
	}
	opened, err := w.opening(f)
	if err != nil {
		return false, false, err
	}
	if _, err := w.tx.ExecContext(w.ctx, "INSERT INTO findings (id, log_id, log_name, idx, watch, verdict, severity, state, note, seen_at, size, root, document, leaf, proof, authorities, trust_root, cause, event_at, opened_at, opened_n, event_id, pending_until, waiting, promise) "+
		"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '', $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)",
		f.ID, w.logID, f.Log, f.Index, f.Watch, string(f.Verdict), f.Severity, f.State, micros(f.SeenAt), f.Checkpoint.Size, root, string(doc), f.Leaf, proof, authorities, trustRoot,
		f.Cause, micros(f.EventTime), opened.at, opened.n, opened.event, pendingUntil(f), string(f.Waiting), promise); err != nil {
		return false, false, err
	}
	if opened.n.Valid {
		w.tell(tellFinding, f, opened.n.Int64, f.Addresses(w.now))
	}
	if (f.Checkpoint != w.noted) || w.noted.Size == 0 {
		if err := w.exec("INSERT INTO notes (log_id, size, root, note) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING", w.logID, f.Checkpoint.Size, root, f.SignedNote); err != nil {
			return false, false, err
		}
		w.noted = f.Checkpoint
	}
	return true, false, nil
}

// opened is what a finding has from when it is to be told on; nulls before that.
type opened struct {
	at, n sql.NullInt64
	event string
}

// opening numbers a finding that is to be told.
func (w *writer) opening(f *monitor.Finding) (o opened, err error) {
	if f.State != monitor.StateOpen || f.Quiet() {
		return o, nil
	}
	if w.opened == 0 {
		var last sql.NullInt64
		if err := w.tx.QueryRowContext(w.ctx, "SELECT MAX(opened_n) FROM findings WHERE opened_n > 0").Scan(&last); err != nil {
			return o, err
		}
		w.opened = last.Int64
	}
	w.opened++
	o.n = sql.NullInt64{Int64: w.opened, Valid: true}
	o.at = sql.NullInt64{Int64: micros(w.now), Valid: true}
	o.event = monitor.FindingEventID(*f)
	return o, nil
}

// authorities stores what certificates were judged with, once for all findings
// that share it, and returns its hash.
func (w *writer) authorities(document []byte) (string, error) {
	if len(document) == 0 {
		return "", nil
	}
	sum := sha256.Sum256(document)
	hash := hex.EncodeToString(sum[:])
	return hash, w.exec("INSERT INTO authorities (hash, document) VALUES ($1, $2) ON CONFLICT DO NOTHING", hash, string(document))
}

// Filter selects findings and incidents.
type Filter = monitor.Filter

// where builds a condition of numbered parameters.
type where struct {
	parts []string
	args  []any
}

func (w *where) add(column, op string, value any) {
	w.args = append(w.args, value)
	w.parts = append(w.parts, fmt.Sprintf("%s %s $%d", column, op, len(w.args)))
}

func (w *where) addText(column, value string) {
	if value != "" {
		w.add(column, "=", value)
	}
}

func (w *where) addTimes(column string, since, until time.Time) {
	if !since.IsZero() {
		w.add(column, ">=", micros(since))
	}
	if !until.IsZero() {
		w.add(column, "<", micros(until))
	}
}

func (w *where) String() string {
	if len(w.parts) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.parts, " AND ")
}

// limit bounds the number of rows.
func (w *where) limit(n int) string {
	w.args = append(w.args, n)
	return fmt.Sprintf(" LIMIT $%d", len(w.args))
}

// newest makes a query that returns the newest rows, oldest first.
func newest(columns, table string, w *where, limit int, order ...string) string {
	query := "SELECT " + columns + " FROM " + table + w.String() + " ORDER BY " + strings.Join(order, " DESC, ") + " DESC"
	if limit <= 0 {
		return "SELECT " + columns + " FROM " + table + w.String() + " ORDER BY " + strings.Join(order, ", ")
	}
	return "SELECT * FROM (" + query + w.limit(limit) + ") AS newest ORDER BY " + strings.Join(order, ", ")
}

// Findings returns findings, oldest first.
func (s *Store) Findings(ctx context.Context, f Filter) ([]monitor.Finding, error) {
	out := []monitor.Finding{}
	err := s.EachFinding(ctx, f, func(x monitor.Finding) error {
		out = append(out, x)
		return nil
	})
	return out, err
}

// EachFinding calls a function for each finding, oldest first, without holding
// all of them: anybody can log as many as they like.
func (s *Store) EachFinding(ctx context.Context, f Filter, do func(monitor.Finding) error) error {
	w := findingsWhere(f)
	query := newest("document, state, note, resolution, changed_by, changed_at, seen_at, log_id, idx, id", "findings", &w, f.Limit, "seen_at", "log_id", "idx", "id")
	return s.scanFindings(ctx, query, w.args, func(x monitor.Finding, _ string) error { return do(x) })
}

// scanFindings calls a function with each finding of a query, and with its place.
func (s *Store) scanFindings(ctx context.Context, query string, args []any, do func(f monitor.Finding, at string) error) error {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return s.explain("reading", err)
	}
	defer rows.Close()
	for rows.Next() {
		var doc, logID, id string
		var t triaged
		var seen, index int64
		if err := rows.Scan(&doc, &t.state, &t.note, &t.resolution, &t.by, &t.at, &seen, &logID, &index, &id); err != nil {
			return s.explain("reading", err)
		}
		finding, err := parseFinding(doc, t)
		if err != nil {
			return fmt.Errorf("state file %s: finding %s: %w", s.path, id, err)
		}
		if err := do(finding, place(seen, logID, index, id)); err != nil {
			return err
		}
	}
	return s.explain("reading", rows.Err())
}

// Names returns the logs and watches that findings and incidents speak of.
func (s *Store) Names(ctx context.Context) (logs, watches []string, err error) {
	for query, into := range map[string]*[]string{
		"SELECT log_name FROM findings UNION SELECT log_name FROM incidents": &logs,
		"SELECT DISTINCT watch FROM findings":                                &watches,
	} {
		rows, err := s.db.QueryContext(ctx, query)
		if err != nil {
			return nil, nil, s.explain("reading", err)
		}
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				rows.Close()
				return nil, nil, s.explain("reading", err)
			}
			*into = append(*into, name)
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return nil, nil, s.explain("reading", err)
		}
	}
	return logs, watches, nil
}

// triaged is what people have decided about a finding or an incident.
type triaged struct {
	state, note, resolution, by string
	at                          sql.NullInt64
}

func (t *triaged) changedAt() *time.Time {
	if !t.at.Valid {
		return nil
	}
	at := timeOf(t.at.Int64)
	return &at
}

func parseFinding(doc string, t triaged) (monitor.Finding, error) {
	var f monitor.Finding
	err := json.Unmarshal([]byte(doc), &f)
	f.State, f.Note, f.Resolution, f.By, f.ChangedAt = t.state, t.note, t.resolution, t.by, t.changedAt()
	return f, err
}

// Finding returns one finding with its leaf, proof and signed note.
func (s *Store) Finding(ctx context.Context, id string) (monitor.Finding, error) {
	var doc, logID, signed, trustRoot, promise string
	var t triaged
	var leaf, proof []byte
	var authorities sql.NullString
	err := s.db.QueryRowContext(ctx, "SELECT f.document, f.state, f.note, f.resolution, f.changed_by, f.changed_at, f.log_id, f.leaf, f.proof, n.note, a.document, f.trust_root, f.promise FROM findings f JOIN notes n ON n.log_id = f.log_id AND n.size = f.size AND n.root = f.root LEFT JOIN authorities a ON a.hash = f.authorities WHERE f.id = $1", id).
		Scan(&doc, &t.state, &t.note, &t.resolution, &t.by, &t.at, &logID, &leaf, &proof, &signed, &authorities, &trustRoot, &promise)
	if errors.Is(err, sql.ErrNoRows) {
		return monitor.Finding{}, fmt.Errorf("finding %q: %w", id, ErrNotFound)
	}
	if err != nil {
		return monitor.Finding{}, s.explain("reading", err)
	}
	f, err := parseFinding(doc, t)
	if err != nil {
		return f, fmt.Errorf("state file %s: finding %s: %w", s.path, id, err)
	}
	f.LogID, f.Leaf, f.SignedNote, f.Authorities = logID, leaf, signed, []byte(authorities.String)
	if f.TrustRoot, err = s.referredRoot(ctx, trustRoot); err != nil {
		return f, err
	}
	if f.Promise, err = parsePromise(promise, leaf); err != nil {
		return f, fmt.Errorf("state file %s: finding %s: %w", s.path, id, err)
	}
	for i := 0; i+checkpoint.HashSize <= len(proof); i += checkpoint.HashSize {
		f.Proof = append(f.Proof, checkpoint.Hash(proof[i:]))
	}
	return f, nil
}

// printPromise prints a promise without its leaf, which is stored beside it; nothing
// for none.
func printPromise(p *checkpoint.Promise) (string, error) {
	if p == nil {
		return "", nil
	}
	bare := *p
	bare.Leaf = nil
	doc, err := json.Marshal(bare)
	return string(doc), err
}

func parsePromise(doc string, leaf []byte) (*checkpoint.Promise, error) {
	if doc == "" {
		return nil, nil
	}
	p := &checkpoint.Promise{}
	err := json.Unmarshal([]byte(doc), p)
	p.Leaf = leaf
	return p, err
}

// CountOpen returns how many findings and incidents are open.
func (s *Store) CountOpen(ctx context.Context) (findings, incidents int, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT (SELECT COUNT(*) FROM findings WHERE state = 'open'), (SELECT COUNT(*) FROM incidents WHERE state = 'open')").Scan(&findings, &incidents)
	return findings, incidents, s.explain("reading", err)
}

// CountPending returns how many findings may still come on a list.
func (s *Store) CountPending(ctx context.Context) (int, error) {
	var n int
	err := s.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM findings WHERE state = 'pending'").Scan(&n)
	return n, s.explain("reading", err)
}
