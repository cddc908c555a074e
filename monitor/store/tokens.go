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

	"github.com/sigwarden/sigwarden/monitor"
)

func tokenHash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// AddToken stores a token by the hash of its secret, which is random and needs no
// slow one.
func (s *Store) AddToken(ctx context.Context, t monitor.Token, secret, by string) error {
	watches, err := json.Marshal(t.Watches)
	if err != nil {
		return err
	}
	t.CreatedAt = timeOf(micros(t.CreatedAt)) // as it is read back
	if t.ExpiresAt != nil {
		at := timeOf(micros(*t.ExpiresAt))
		t.ExpiresAt = &at
	}
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM tokens WHERE name = $1 AND revoked_at IS NULL", t.Name).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("a token is called %q already: revoke it, or give this one another name", t.Name)
		}
		var expires sql.NullInt64
		if t.ExpiresAt != nil {
			expires = sql.NullInt64{Int64: micros(*t.ExpiresAt), Valid: true}
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO tokens (id, name, scopes, watches, hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
			t.ID, t.Name, strings.Join(t.Scopes, " "), string(watches), tokenHash(secret), micros(t.CreatedAt), expires); err != nil {
			return err
		}
		w := s.writer(ctx, tx, t.CreatedAt)
		return w.audit(by, actToken, t.ID, t)
	})
}

const tokenColumns = "id, name, scopes, watches, created_at, expires_at, revoked_at"

func scanToken(row interface{ Scan(...any) error }) (t monitor.Token, err error) {
	var scopes, watches string
	var created int64
	var expires, revoked sql.NullInt64
	if err := row.Scan(&t.ID, &t.Name, &scopes, &watches, &created, &expires, &revoked); err != nil {
		return t, err
	}
	t.Scopes, t.CreatedAt = strings.Fields(scopes), timeOf(created)
	for n, into := range map[*sql.NullInt64]**time.Time{&expires: &t.ExpiresAt, &revoked: &t.RevokedAt} {
		if n.Valid {
			at := timeOf(n.Int64)
			*into = &at
		}
	}
	return t, json.Unmarshal([]byte(watches), &t.Watches)
}

// Token returns the token that has a secret, ErrNotFound if there is none that is
// good at a time.
func (s *Store) Token(ctx context.Context, secret string, now time.Time) (monitor.Token, error) {
	t, err := scanToken(s.db.QueryRowContext(ctx, "SELECT "+tokenColumns+" FROM tokens WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)", tokenHash(secret), micros(now)))
	if errors.Is(err, sql.ErrNoRows) {
		return t, ErrNotFound
	}
	return t, s.explain("reading", err)
}

// Tokens returns all tokens, revoked ones too, oldest first.
func (s *Store) Tokens(ctx context.Context) ([]monitor.Token, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT "+tokenColumns+" FROM tokens ORDER BY created_at, id")
	if err != nil {
		return nil, s.explain("reading", err)
	}
	defer rows.Close()
	out := []monitor.Token{}
	for rows.Next() {
		t, err := scanToken(rows)
		if err != nil {
			return nil, s.explain("reading", err)
		}
		out = append(out, t)
	}
	return out, s.explain("reading", rows.Err())
}

// RevokeToken ends a token, by its id or name, and returns it.
func (s *Store) RevokeToken(ctx context.Context, name, by string, now time.Time) (t monitor.Token, err error) {
	return t, s.write(ctx, "writing", func(tx *sql.Tx) error {
		t, err = scanToken(tx.QueryRowContext(ctx, "SELECT "+tokenColumns+" FROM tokens WHERE (id = $1 OR name = $1) AND revoked_at IS NULL", name))
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("token %q: %w", name, ErrNotFound)
		}
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE tokens SET revoked_at = $1 WHERE id = $2", micros(now), t.ID); err != nil {
			return err
		}
		w := s.writer(ctx, tx, now)
		return w.audit(by, actRevoke, t.ID, map[string]string{"name": t.Name})
	})
}
