package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// Whether what is stored agrees with the audit trail: a state that somebody set
// beside it, an announcement or a token that nobody made by way of it.

// trailSays is what the last rows of the trail say of each subject.
type trailSays map[string]said

// said is what a row says of its subject.
type said struct {
	State      string `json:"state"` // of a finding or an incident; empty where the row does not change it
	Resolution string `json:"resolution"`
	by         string
	at         int64
	row        json.RawMessage // of an announcement or a token
	revoked    bool            // of a token
}

// hear takes in the next row.
func (t trailSays) hear(r monitor.AuditRow) {
	var now said
	switch r.Action {
	case actExpect, actToken:
		t[r.Subject] = said{row: r.Detail}
	case actWithdraw:
		delete(t, r.Subject)
	case actForgotten:
		var gone forgotten
		if json.Unmarshal(r.Detail, &gone) == nil {
			for _, id := range gone.IDs {
				delete(t, id)
			}
		}
	case actRevoke:
		was := t[r.Subject]
		was.revoked = true
		t[r.Subject] = was
	default:
		if json.Unmarshal(r.Detail, &now) == nil && now.State != "" {
			now.by, now.at = r.Actor, micros(r.At)
			t[r.Subject] = now
		}
	}
}

// agree holds what is stored against what the trail says. What it finds in both
// is removed from the latter.
func (s *Store) agree(ctx context.Context, q querier, want trailSays) error {
	for _, check := range []func(context.Context, querier, trailSays) error{s.agreeOnFindings, s.agreeOnIncidents, s.agreeOnAnnouncements, s.agreeOnTokens} {
		if err := check(ctx, q, want); err != nil {
			return err
		}
	}
	for id, said := range want {
		var a monitor.Announcement
		if json.Unmarshal(said.row, &a) == nil && !a.ExpiresAt.IsZero() && s.now().Sub(a.ExpiresAt) > keepAnnouncements && a.Watch != "" {
			continue // it is not kept for ever
		}
		return fmt.Errorf("%w: the trail speaks of %s, and it is not there, or not as the trail says", ErrTampered, id)
	}
	return nil
}

// each calls a function for every row of a query.
func (s *Store) each(ctx context.Context, q querier, query string, do func(*sql.Rows) error) error {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return s.explain("reading", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := do(rows); err != nil {
			return err
		}
	}
	return s.explain("reading", rows.Err())
}

// agreeOnFindings: only people acknowledge and resolve findings, and what was to be
// told is never closed by anything else.
func (s *Store) agreeOnFindings(ctx context.Context, q querier, want trailSays) error {
	return s.each(ctx, q, "SELECT id, state, resolution, changed_by, changed_at FROM findings WHERE changed_at IS NOT NULL OR state IN ('acknowledged', 'resolved') OR (opened_n IS NOT NULL AND state <> 'open')", func(rows *sql.Rows) error {
		id, have, err := scanSaid(rows)
		if err != nil {
			return s.explain("reading", err)
		}
		if said := want[id]; have.State != said.State || have.Resolution != said.Resolution || have.by != said.by || have.at != said.at {
			return fmt.Errorf("%w: finding %s is %s, and the trail does not say so", ErrTampered, id, have)
		}
		delete(want, id)
		return nil
	})
}

// agreeOnIncidents: those are also resolved by what the log does.
func (s *Store) agreeOnIncidents(ctx context.Context, q querier, want trailSays) error {
	return s.each(ctx, q, "SELECT id, state, resolution, changed_by, changed_at FROM incidents WHERE changed_at IS NOT NULL OR state = 'acknowledged'", func(rows *sql.Rows) error {
		id, have, err := scanSaid(rows)
		if err != nil {
			return s.explain("reading", err)
		}
		said := want[id]
		if have.State == monitor.StateResolved && have.Resolution == "" {
			have.State, have.Resolution = said.State, said.Resolution // resolved by itself since
		}
		if have.State != said.State || have.Resolution != said.Resolution || have.by != said.by || have.at != said.at {
			return fmt.Errorf("%w: incident %s is %s, and the trail does not say so", ErrTampered, id, have)
		}
		delete(want, id)
		return nil
	})
}

func scanSaid(rows *sql.Rows) (id string, have said, err error) {
	var at sql.NullInt64
	err = rows.Scan(&id, &have.State, &have.Resolution, &have.by, &at)
	have.at = at.Int64
	return id, have, err
}

func (s said) String() string {
	text := s.State
	if s.Resolution != "" {
		text += " as " + s.Resolution
	}
	if s.by != "" {
		text += " by " + s.by
	}
	if s.at != 0 {
		text += " at " + timeOf(s.at).Format(time.RFC3339)
	}
	return text
}

func (s *Store) agreeOnAnnouncements(ctx context.Context, q querier, want trailSays) error {
	return s.each(ctx, q, "SELECT "+announcementColumns+" FROM announcements", func(rows *sql.Rows) error {
		a, err := scanAnnouncement(rows)
		if err != nil {
			return s.explain("reading", err)
		}
		return want.wrote(a.ID, "announcement", a, false)
	})
}

func (s *Store) agreeOnTokens(ctx context.Context, q querier, want trailSays) error {
	return s.each(ctx, q, "SELECT "+tokenColumns+" FROM tokens", func(rows *sql.Rows) error {
		t, err := scanToken(rows)
		if err != nil {
			return s.explain("reading", err)
		}
		revoked := t.RevokedAt != nil
		t.RevokedAt = nil
		return want.wrote(t.ID, "token", t, revoked)
	})
}

// wrote reports whether the trail has the row that something was made with, to the
// letter.
func (t trailSays) wrote(id, what string, row any, revoked bool) error {
	doc, err := json.Marshal(row)
	if err != nil {
		return err
	}
	if said := t[id]; string(said.row) != string(doc) || said.revoked != revoked {
		return fmt.Errorf("%w: %s %s is not as the trail says", ErrTampered, what, id)
	}
	delete(t, id)
	return nil
}
