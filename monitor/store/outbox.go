package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gofrs/flock"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/notify"
)

// Channels returns how the deliveries of channels are, in the order of names.
func (s *Store) Channels(ctx context.Context, names []string) ([]monitor.ChannelStatus, error) {
	out := []monitor.ChannelStatus{}
	for _, name := range names {
		c := monitor.ChannelStatus{Name: name}
		var last sql.NullInt64
		err := s.db.QueryRowContext(ctx, "SELECT (SELECT COUNT(*) FROM outbox WHERE channel = $1 AND state = 'pending'), (SELECT COUNT(*) FROM outbox WHERE channel = $1 AND state = 'failed'), (SELECT last_success FROM channels WHERE name = $1)", name).
			Scan(&c.Pending, &c.Failed, &last)
		if err != nil {
			return nil, s.explain("reading", err)
		}
		if last.Valid {
			at := timeOf(last.Int64)
			c.LastSuccess = &at
		}
		out = append(out, c)
	}
	return out, nil
}

// Due returns up to limit deliveries of a channel that are due, the one that
// waits longest first, and when the next one after them will be due (zero:
// nothing waits). One that cannot be read any more is set aside as failed.
func (s *Store) Due(ctx context.Context, channel string, now time.Time, limit int) (due []notify.Queued, next time.Time, err error) {
	due, broken, err := s.due(ctx, channel, now, limit)
	if err != nil {
		return nil, next, err
	}
	for id, reason := range broken {
		err := s.write(ctx, "writing", func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "UPDATE outbox SET state = 'failed', error = $1 WHERE channel = $2 AND event_id = $3", reason, channel, id)
			return err
		})
		if err != nil {
			return nil, next, err
		}
	}
	var at sql.NullInt64
	err = s.db.QueryRowContext(ctx, "SELECT MIN(due_at) FROM outbox WHERE state = 'pending' AND channel = $1 AND due_at > $2", channel, micros(now)).Scan(&at)
	return due, timeOrZero(at), s.explain("reading", err)
}

func (s *Store) due(ctx context.Context, channel string, now time.Time, limit int) (due []notify.Queued, broken map[string]string, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT event_id, event, attempts, created_at FROM outbox WHERE state = 'pending' AND channel = $1 AND due_at <= $2 ORDER BY due_at, event_id LIMIT $3", channel, micros(now), limit)
	if err != nil {
		return nil, nil, s.explain("reading", err)
	}
	defer rows.Close()
	broken = map[string]string{}
	for rows.Next() {
		var id, doc string
		var created int64
		q := notify.Queued{Channel: channel}
		if err := rows.Scan(&id, &doc, &q.Attempts, &created); err != nil {
			return nil, nil, s.explain("reading", err)
		}
		if err := json.Unmarshal([]byte(doc), &q.Event); err != nil {
			broken[id] = "the stored notification cannot be read: " + err.Error()
			continue
		}
		q.Created = timeOf(created)
		due = append(due, q)
	}
	return due, broken, s.explain("reading", rows.Err())
}

// Waiting returns the names of the channels that deliveries wait for.
func (s *Store) Waiting(ctx context.Context) ([]string, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT DISTINCT channel FROM outbox WHERE state = 'pending' ORDER BY channel")
	if err != nil {
		return nil, s.explain("reading", err)
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, s.explain("reading", err)
		}
		names = append(names, name)
	}
	return names, s.explain("reading", rows.Err())
}

// Abandon gives up everything that waits for a channel, and opens the incident
// that says so in the same transaction.
func (s *Store) Abandon(ctx context.Context, channel, reason string, incident monitor.Incident) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "UPDATE outbox SET state = 'failed', error = $1 WHERE state = 'pending' AND channel = $2", reason, channel); err != nil {
			return err
		}
		w := writer{ctx: ctx, tx: tx, now: time.Now()}
		return w.incidents(monitor.Batch{Open: []monitor.Incident{incident}})
	})
}

// DeliveryLock makes this process the one that delivers from the outbox, until
// release is called: two at a time would send everything twice. Where another
// process does, it waits for ctx to end, or without wait returns false.
func (s *Store) DeliveryLock(ctx context.Context, wait bool) (release func(), ok bool, err error) {
	lock := flock.New(s.path + ".deliver.lock")
	if wait {
		ok, err = lock.TryLockContext(ctx, 100*time.Millisecond)
		if ctx.Err() != nil {
			return func() {}, false, nil
		}
	} else {
		ok, err = lock.TryLock()
	}
	if err != nil {
		return func() {}, false, fmt.Errorf("locking %s: %w", lock.Path(), err)
	}
	return func() { lock.Unlock() }, ok, nil
}

// Delivered takes a delivery out of the queue.
func (s *Store) Delivered(ctx context.Context, q notify.Queued, at time.Time) error {
	return s.DeliveredAndResolved(ctx, q, at, nil)
}

// DeliveredAndResolved takes a delivery out of the queue, and resolves the
// incident of its channel, if one is given, in the same transaction.
func (s *Store) DeliveredAndResolved(ctx context.Context, q notify.Queued, at time.Time, over *monitor.Resolution) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM outbox WHERE channel = $1 AND event_id = $2", q.Channel, q.Event.ID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO channels (name, last_success) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET last_success = excluded.last_success", q.Channel, micros(at)); err != nil || over == nil {
			return err
		}
		w := writer{ctx: ctx, tx: tx, now: time.Now()}
		return w.incidents(monitor.Batch{Resolve: []monitor.Resolution{*over}})
	})
}

// Retry puts a delivery off.
func (s *Store) Retry(ctx context.Context, q notify.Queued, due time.Time, reason string) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE outbox SET attempts = attempts + 1, due_at = $1, error = $2 WHERE channel = $3 AND event_id = $4", micros(due), reason, q.Channel, q.Event.ID)
		return err
	})
}

// FailDelivery gives a delivery up, and opens the incident that says so, if one is
// given, in the same transaction.
func (s *Store) FailDelivery(ctx context.Context, q notify.Queued, reason string, incident *monitor.Incident) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "UPDATE outbox SET state = 'failed', attempts = attempts + 1, error = $1 WHERE channel = $2 AND event_id = $3", reason, q.Channel, q.Event.ID); err != nil {
			return err
		}
		if incident == nil {
			return nil
		}
		w := writer{ctx: ctx, tx: tx, now: time.Now()}
		return w.incidents(monitor.Batch{Open: []monitor.Incident{*incident}})
	})
}

// PendingDeliveries returns how many deliveries wait.
func (s *Store) PendingDeliveries(ctx context.Context) (int, error) {
	var n int
	err := s.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM outbox WHERE state = 'pending'").Scan(&n)
	return n, s.explain("reading", err)
}
