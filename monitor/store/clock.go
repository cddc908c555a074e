package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/sigwarden/sigwarden/notify"
)

// Resume implements notify.Outbox.
func (s *Store) Resume(ctx context.Context, channel string, now time.Time) error {
	// The clock was set back if anything is of the future, and by so much at least. What waits may be
	// from before it went wrong, and have been put off by it since.
	var newest, tried int64
	err := s.db.QueryRowContext(ctx, `SELECT
		MAX(COALESCE((SELECT MAX(created_at) FROM outbox WHERE state = 'pending' AND channel = $1), 0),
			COALESCE((SELECT MAX(created_at) FROM rolls WHERE channel = $1), 0),
			COALESCE((SELECT MAX(last_success, last_failure, last_retry, window_start) FROM channels WHERE name = $1), 0)),
		COALESCE((SELECT MAX(last_success, last_failure, last_retry) FROM channels WHERE name = $1), 0)`, channel).Scan(&newest, &tried)
	if err != nil {
		return s.explain("reading", err)
	}
	if newest > micros(now.Add(notify.ClockError)) {
		by := time.Duration(newest-micros(now)) * time.Microsecond // it may have been more
		return s.write(ctx, "writing", setBack(ctx, channel, now, by, "MIN(due_at + $2, $3)"))
	}
	since := micros(now.Add(-notify.Unattended))
	if tried >= since {
		return nil
	}
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "UPDATE outbox SET idle = idle + $2 - MAX(created_at, $3) WHERE channel = $1 AND state = 'pending' AND created_at < $2", channel, since, tried)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); n == 0 || err != nil {
			return err
		}
		// That is counted once.
		return putOff(ctx, tx, channel, since)
	})
}

// putOff notes that something was put off. Of two clocks the later one counts: if it was wrong, the next
// process has to see it.
func putOff(ctx context.Context, tx *sql.Tx, channel string, at int64) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO channels (name, last_success, last_retry) VALUES ($1, 0, $2) ON CONFLICT (name) DO UPDATE SET last_retry = MAX(channels.last_retry, excluded.last_retry)", channel, at)
	return err
}

// ClockStepped implements notify.Outbox.
func (s *Store) ClockStepped(ctx context.Context, channel string, now time.Time, by time.Duration) error {
	if by < 0 {
		return s.write(ctx, "writing", setBack(ctx, channel, now, -by, "due_at + $2"))
	}
	// What is older than it went ahead by. It is due when it was, so that what waits for an hour of the
	// day comes then.
	return s.write(ctx, "writing", moveTimes(ctx, channel, by, now.Add(-by), "BETWEEN 1 AND $3",
		"UPDATE outbox SET created_at = created_at + $2 WHERE channel = $1 AND state = 'pending' AND created_at <= $3",
		"UPDATE rolls SET created_at = created_at + $2 WHERE channel = $1 AND created_at <= $3"))
}

// setBack moves times back. Only what is of the future was surely put there before; a try may wait for a
// time of the future whenever it was, for that which retry says.
func setBack(ctx context.Context, channel string, now time.Time, by time.Duration, retry string) func(*sql.Tx) error {
	return moveTimes(ctx, channel, -by, now, "> $3",
		"UPDATE outbox SET due_at = CASE WHEN attempts > 0 THEN "+retry+" ELSE due_at + $2 END, created_at = CASE WHEN created_at > $3 THEN created_at + $2 ELSE created_at END WHERE channel = $1 AND state = 'pending' AND (created_at > $3 OR attempts > 0)",
		"UPDATE rolls SET due_at = due_at + $2, created_at = created_at + $2 WHERE channel = $1 AND created_at > $3")
}

// moveTimes adds by ($2) to times of a channel ($1) that a limit ($3) tells apart.
func moveTimes(ctx context.Context, channel string, by time.Duration, limit time.Time, which string, queries ...string) func(*sql.Tx) error {
	for _, column := range []string{"last_success", "last_failure", "last_retry", "window_start"} {
		queries = append(queries, fmt.Sprintf("UPDATE channels SET %[1]s = %[1]s + $2 WHERE name = $1 AND %[1]s %[2]s", column, which))
	}
	return func(tx *sql.Tx) error {
		for _, query := range queries {
			if _, err := tx.ExecContext(ctx, query, channel, by.Microseconds(), micros(limit)); err != nil {
				return err
			}
		}
		return nil
	}
}
