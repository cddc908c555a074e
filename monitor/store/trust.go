package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// TrustSource returns what is known of a source of trusted roots; the zero value
// if nothing is.
func (s *Store) TrustSource(ctx context.Context, source string) (monitor.TrustSource, error) {
	var out monitor.TrustSource
	var hash, first, signing string
	var refreshed, failing sql.NullInt64
	err := s.db.QueryRowContext(ctx, "SELECT hash, first_hash, signing, provenance, refreshed_at, failures, failing_since, error FROM trust_sources WHERE source = $1", source).
		Scan(&hash, &first, &signing, &out.Newest, &refreshed, &out.Failures, &failing, &out.Error)
	if errors.Is(err, sql.ErrNoRows) {
		return out, nil
	}
	if err != nil {
		return out, s.explain("reading", err)
	}
	out.Refreshed, out.FailingSince = timeOrZero(refreshed), timeOrZero(failing)
	if err := json.Unmarshal([]byte(signing), &out.Signing); err != nil {
		return out, s.explain("reading", err)
	}
	if hash == "" {
		return out, nil // no refresh has succeeded yet
	}
	if out.Root, _, err = s.trustRoot(ctx, hash, source); err != nil {
		return out, err
	}
	out.First, out.FirstAt, err = s.trustRoot(ctx, first, source)
	return out, err
}

// trustRoot returns a stored root, and when it was seen first.
func (s *Store) trustRoot(ctx context.Context, hash, source string) (*monitor.TrustRoot, time.Time, error) {
	t := &monitor.TrustRoot{Source: source}
	var seen sql.NullInt64
	err := s.db.QueryRowContext(ctx, "SELECT document, provenance, first_seen FROM trust_roots WHERE hash = $1 AND source = $2", hash, source).Scan(&t.Document, &t.Provenance, &seen)
	return t, timeOrZero(seen), s.explain("reading", err)
}

// KeepTrustRoot makes a root the one in force: it was the newest at a time.
func (s *Store) KeepTrustRoot(ctx context.Context, root *monitor.TrustRoot, signing [][]byte, at time.Time) error {
	list, err := json.Marshal(append([][]byte{}, signing...))
	if err != nil {
		return err
	}
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		w := s.writer(ctx, tx, at)
		if _, err := w.trustRoot(root); err != nil {
			return err
		}
		if err := w.trustChanged(root); err != nil {
			return err
		}
		return w.exec("INSERT INTO trust_sources (source, hash, first_hash, signing, refreshed_at, provenance, failures, error) VALUES ($1, $2, $2, $3, $4, $5, 0, '') "+
			"ON CONFLICT (source) DO UPDATE SET hash = excluded.hash, first_hash = CASE WHEN trust_sources.first_hash = '' THEN excluded.hash ELSE trust_sources.first_hash END, "+
			"signing = excluded.signing, provenance = excluded.provenance, refreshed_at = excluded.refreshed_at, failures = 0, failing_since = NULL, error = ''",
			root.Source, root.Hash(), string(list), micros(at), append([]byte{}, root.Provenance...))
	})
}

// TrustFailed books a refresh that failed.
func (s *Store) TrustFailed(ctx context.Context, source string, at time.Time, failure string) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		w := s.writer(ctx, tx, at)
		return w.exec("INSERT INTO trust_sources (source, hash, first_hash, signing, failures, failing_since, error) VALUES ($1, '', '', '[]', 1, $2, $3) "+
			"ON CONFLICT (source) DO UPDATE SET failures = trust_sources.failures + 1, failing_since = COALESCE(trust_sources.failing_since, excluded.failing_since), error = excluded.error",
			source, micros(at), failure)
	})
}

// trustRoot stores a root once for all that refer to it, and returns how they do.
func (w *writer) trustRoot(t *monitor.TrustRoot) (string, error) {
	if t == nil {
		return "", nil
	}
	hash := t.Hash()
	return hash + " " + t.Source, w.exec("INSERT INTO trust_roots (hash, source, document, provenance, first_seen) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
		hash, t.Source, append([]byte{}, t.Document...), append([]byte{}, t.Provenance...), micros(w.now))
}

// referredRoot returns the root that a finding refers to.
func (s *Store) referredRoot(ctx context.Context, ref string) (*monitor.TrustRoot, error) {
	hash, source, ok := strings.Cut(ref, " ")
	if !ok {
		return nil, nil
	}
	root, _, err := s.trustRoot(ctx, hash, source)
	return root, err
}

// Record opens and resolves incidents that belong to no log.
func (s *Store) Record(ctx context.Context, open []monitor.Incident, resolve []monitor.Resolution) error {
	if len(open)+len(resolve) == 0 {
		return nil
	}
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		w := s.writer(ctx, tx, s.now())
		return w.incidents(monitor.Batch{Open: open, Resolve: resolve})
	})
}
