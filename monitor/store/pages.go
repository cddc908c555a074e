package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// ErrPlace is returned for a place of a page that is none.
var ErrPlace = errors.New("that is not where a page ended")

// place is where a page ended: the sort keys of its last row.
func place(keys ...any) string {
	doc, _ := json.Marshal(keys) // numbers and texts
	return base64.RawURLEncoding.EncodeToString(doc)
}

// parsePlace reads what place prints, and nothing else; the keys are a time and the others
// as they are named: n for a number, s for a text.
func parsePlace(text, kinds string) ([]any, error) {
	doc, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, ErrPlace
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(doc, &raw); err != nil || len(raw) != len(kinds) {
		return nil, ErrPlace
	}
	keys := make([]any, len(raw))
	for i := range raw {
		var n int64
		var s string
		if kinds[i] == 'n' {
			err = json.Unmarshal(raw[i], &n)
			keys[i] = n
		} else {
			err = json.Unmarshal(raw[i], &s)
			keys[i] = s
		}
		if err != nil {
			return nil, ErrPlace
		}
	}
	if place(keys...) != text {
		return nil, ErrPlace
	}
	return keys, nil
}

// before adds that only rows are wanted whose keys are smaller than those of a place.
func (w *where) before(text, kinds, columns string) error {
	if text == "" {
		return nil
	}
	keys, err := parsePlace(text, kinds)
	if err != nil {
		return err
	}
	marks := ""
	for i, k := range keys {
		w.args = append(w.args, k)
		if marks += fmt.Sprintf("$%d", len(w.args)); i+1 < len(keys) {
			marks += ", "
		}
	}
	w.parts = append(w.parts, "("+columns+") < ("+marks+")")
	return nil
}

func findingsWhere(f Filter) (w where) {
	w.addText("watch", f.Watch)
	w.addText("log_name", f.Log)
	w.addText("verdict", f.Verdict)
	w.addText("state", f.State)
	w.addText("severity", f.Severity)
	w.addTimes("seen_at", f.Since, f.Until)
	return w
}

func incidentsWhere(f Filter) (w where) {
	w.addText("log_name", f.Log)
	w.addText("kind", f.Kind)
	w.addText("severity", f.Severity)
	w.addText("state", f.State)
	w.addTimes("opened_at", f.Since, f.Until)
	return w
}

const (
	findingOrder  = "seen_at, log_id, idx, id"
	incidentOrder = "opened_at, id"
)

// findingsPage is the query of a page, which reads an index alone until the page is full.
func findingsPage(f Filter) (string, []any, error) {
	w := findingsWhere(f)
	if err := w.before(f.Before, "nsns", findingOrder); err != nil {
		return "", nil, err
	}
	inner := "SELECT id FROM findings" + w.String() + " ORDER BY seen_at DESC, log_id DESC, idx DESC, id DESC" + w.limit(pageSize(f)+1)
	return "SELECT document, state, note, resolution, changed_by, changed_at, seen_at, log_id, idx, id FROM findings WHERE id IN (" + inner + ") ORDER BY seen_at DESC, log_id DESC, idx DESC, id DESC", w.args, nil
}

func pageSize(f Filter) int {
	if f.Limit <= 0 {
		return monitor.MaxPage
	}
	return min(f.Limit, monitor.MaxPage)
}

// FindingsPage returns a page of findings, the newest first; ErrPlace for a wrong
// Filter.Before.
func (s *Store) FindingsPage(ctx context.Context, f Filter) (page monitor.Page[monitor.Finding], err error) {
	query, args, err := findingsPage(f)
	if err != nil {
		return page, err
	}
	var last string
	page.Items = []monitor.Finding{}
	err = s.scanFindings(ctx, query, args, func(x monitor.Finding, at string) error {
		if len(page.Items) == pageSize(f) {
			page.Next = last
			return nil
		}
		page.Items, last = append(page.Items, x), at
		return nil
	})
	return page, err
}

// IncidentsPage returns a page of incidents, the newest first; ErrPlace as above.
func (s *Store) IncidentsPage(ctx context.Context, f Filter) (page monitor.Page[monitor.Incident], err error) {
	w := incidentsWhere(f)
	if err := w.before(f.Before, "ns", incidentOrder); err != nil {
		return page, err
	}
	query := "SELECT " + incidentColumns + " FROM incidents" + w.String() + " ORDER BY opened_at DESC, id DESC" + w.limit(pageSize(f)+1)
	page.Items, err = s.queryIncidents(ctx, s.db, query, w.args...)
	if n := pageSize(f); len(page.Items) > n {
		page.Items = page.Items[:n]
		page.Next = place(micros(page.Items[n-1].OpenedAt), page.Items[n-1].ID)
	}
	return page, err
}

// CountFindings counts findings, but no further than most.
func (s *Store) CountFindings(ctx context.Context, f Filter, most int) (n int, err error) {
	w := findingsWhere(f)
	query := "SELECT COUNT(*) FROM (SELECT 1 FROM findings" + w.String() + w.limit(most) + ") AS some"
	err = s.db.QueryRowContext(ctx, query, w.args...).Scan(&n)
	return n, s.explain("reading", err)
}

// Mark changes whenever something does that is shown to people. It reads the ends of
// indexes and some small tables alone.
func (s *Store) Mark(ctx context.Context) (mark string, err error) {
	var versions, polls, findings, trail, opened, resolved, pending int64
	err = s.db.QueryRowContext(ctx, "SELECT (SELECT COALESCE(SUM(version), 0) FROM logs), (SELECT COALESCE(MAX(at), 0) FROM polls), (SELECT COALESCE(MAX(seen_at), 0) FROM findings), (SELECT COALESCE(MAX(n), 0) FROM audit), "+
		"(SELECT COALESCE(MAX(opened_at), 0) FROM incidents), (SELECT COUNT(*) FROM incidents WHERE state = 'resolved'), (SELECT COALESCE(SUM(last_success + last_failure), 0) FROM channels)").
		Scan(&versions, &polls, &findings, &trail, &opened, &resolved, &pending)
	return fmt.Sprint(versions, polls, findings, trail, opened, resolved, pending), s.explain("reading", err)
}

// EachWatched calls a function with the bytes of each row of the ledger since a time that
// says whether a log was watched.
func (s *Store) EachWatched(ctx context.Context, since time.Time, do func(line []byte) error) error {
	rows, err := s.db.QueryContext(ctx, "SELECT line FROM ledger WHERE at >= $1 AND kind IN ('span', 'pause')", micros(since))
	if err != nil {
		return s.explain("reading", err)
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return s.explain("reading", err)
		}
		if err := do([]byte(line)); err != nil {
			return err
		}
	}
	return s.explain("reading", rows.Err())
}

// Hits counts the findings of every watch, all and those that are open.
func (s *Store) Hits(ctx context.Context) (all, open map[string]int, err error) {
	all, open = map[string]int{}, map[string]int{}
	rows, err := s.db.QueryContext(ctx, "SELECT watch, COUNT(*), SUM(CASE WHEN state = 'open' THEN 1 ELSE 0 END) FROM findings GROUP BY watch")
	if err != nil {
		return nil, nil, s.explain("reading", err)
	}
	defer rows.Close()
	for rows.Next() {
		var watch string
		var n, o int
		if err := rows.Scan(&watch, &n, &o); err != nil {
			return nil, nil, s.explain("reading", err)
		}
		all[watch], open[watch] = n, o
	}
	return all, open, s.explain("reading", rows.Err())
}
