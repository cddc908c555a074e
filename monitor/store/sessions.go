package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// CookieKey returns what cookies are signed with, made at first.
func (s *Store) CookieKey(ctx context.Context) (key []byte, err error) {
	err = s.write(ctx, "writing", func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, "SELECT key FROM web_keys WHERE one = 1").Scan(&key)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		key = make([]byte, 32)
		rand.Read(key)
		_, err = tx.ExecContext(ctx, "INSERT INTO web_keys (one, key) VALUES (1, $1)", key)
		return err
	})
	return key, err
}

// AddSession stores a login by the hash of its secret, and forgets those that are over.
func (s *Store) AddSession(ctx context.Context, secret string, session monitor.Session, now time.Time) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		w := s.writer(ctx, tx, now)
		if err := w.exec("DELETE FROM sessions WHERE expires_at <= $1", micros(now)); err != nil {
			return err
		}
		return w.exec("INSERT INTO sessions (hash, name, claims, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)", tokenHash(secret), session.Name, string(session.Claims), micros(now), micros(session.ExpiresAt))
	})
}

// Session returns the login that has a secret, ErrNotFound if there is none that is good at
// a time.
func (s *Store) Session(ctx context.Context, secret string, now time.Time) (session monitor.Session, err error) {
	var expires int64
	err = s.db.QueryRowContext(ctx, "SELECT name, claims, expires_at FROM sessions WHERE hash = $1 AND expires_at > $2", tokenHash(secret), micros(now)).Scan(&session.Name, &session.Claims, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return session, ErrNotFound
	}
	session.ExpiresAt = timeOf(expires)
	return session, s.explain("reading", err)
}

// EndSession forgets a login.
func (s *Store) EndSession(ctx context.Context, secret string) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		return s.writer(ctx, tx, s.now()).exec("DELETE FROM sessions WHERE hash = $1", tokenHash(secret))
	})
}
