package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gofrs/flock"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/notify"
)

// Channels returns how the deliveries of channels are, in the order of names.
func (s *Store) Channels(ctx context.Context, names []string) ([]monitor.ChannelStatus, error) {
	out := []monitor.ChannelStatus{}
	now := micros(s.now())
	for _, name := range names {
		c := monitor.ChannelStatus{Name: name}
		var last, failing, untried, rolled sql.NullInt64
		err := s.db.QueryRowContext(ctx, `SELECT
			(SELECT COUNT(*) FROM outbox WHERE channel = $1 AND state = 'pending') + (SELECT COALESCE(SUM(count), 0) FROM rolls WHERE channel = $1),
			(SELECT COUNT(*) FROM outbox WHERE channel = $1 AND state = 'pending' AND (due_at <= $2 OR attempts > 0)) + (SELECT COALESCE(SUM(count), 0) FROM rolls WHERE channel = $1 AND due_at <= $2),
			(SELECT COUNT(*) FROM outbox WHERE channel = $1 AND state = 'failed'),
			(SELECT last_success FROM channels WHERE name = $1),
			(SELECT MIN(created_at) FROM outbox WHERE channel = $1 AND state = 'pending' AND attempts > 0),
			(SELECT MIN(due_at) FROM outbox WHERE channel = $1 AND state = 'pending' AND attempts = 0 AND due_at <= $2),
			(SELECT MIN(due_at) FROM rolls WHERE channel = $1 AND due_at <= $2)`, name, now).
			Scan(&c.Pending, &c.Due, &c.Failed, &last, &failing, &untried, &rolled)
		if err != nil {
			return nil, s.explain("reading", err)
		}
		if last.Int64 > 0 {
			c.LastSuccess = timeOrNil(last)
		}
		c.FailingSince, c.UntriedSince, c.RolledSince = timeOrNil(failing), timeOrNil(untried), timeOrNil(rolled)
		out = append(out, c)
	}
	return out, nil
}

// Troubles returns deliveries that were tried in vain, at most some of each channel and state:
// those that were given up, and those that are tried again, the latest first.
func (s *Store) Troubles(ctx context.Context, channels []string, most int) ([]monitor.Trouble, error) {
	out := []monitor.Trouble{}
	for _, channel := range channels {
		for _, state := range []string{"failed", "pending"} {
			rows, err := s.db.QueryContext(ctx, "SELECT COALESCE(NULLIF(subject, ''), finding), created_at, attempts, due_at, error FROM outbox WHERE state = $1 AND channel = $2 AND (state = 'failed' OR attempts > 0) ORDER BY due_at DESC LIMIT $3", state, channel, most)
			if err != nil {
				return nil, s.explain("reading", err)
			}
			for rows.Next() {
				t := monitor.Trouble{Channel: channel, State: state}
				var created, due int64
				if err := rows.Scan(&t.Subject, &created, &t.Attempts, &due, &t.Error); err != nil {
					rows.Close()
					return nil, s.explain("reading", err)
				}
				t.CreatedAt, t.DueAt = timeOf(created), timeOf(due)
				out = append(out, t)
			}
			if err := rows.Close(); err != nil {
				return nil, s.explain("reading", err)
			}
			if err := rows.Err(); err != nil {
				return nil, s.explain("reading", err)
			}
		}
	}
	return out, nil
}

// Due returns up to limit deliveries of a channel that are due and not held (by
// the ids of their events), the one that waits longest first, and when the next
// one after them will be due (zero: nothing waits). One that cannot be read any
// more is set aside as failed.
func (s *Store) Due(ctx context.Context, channel string, now time.Time, limit int, held map[string]bool) (due []notify.Queued, next time.Time, err error) {
	for {
		var broken map[string]string
		if due, broken, err = s.due(ctx, channel, now, limit, held); err != nil {
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
		if len(broken) == 0 || len(due) > 0 {
			break // else what is sound comes behind them
		}
	}
	var at sql.NullInt64
	err = s.db.QueryRowContext(ctx, "SELECT MIN(due_at) FROM outbox WHERE state = 'pending' AND digest = 0 AND channel = $1 AND due_at > $2", channel, micros(now)).Scan(&at)
	return due, timeOrZero(at), s.explain("reading", err)
}

func (s *Store) due(ctx context.Context, channel string, now time.Time, limit int, held map[string]bool) (due []notify.Queued, broken map[string]string, err error) {
	// A limit that is a parameter alone would have the statement compiled twice, SQLite wants to know it.
	rows, err := s.db.QueryContext(ctx, `SELECT o.event_id, o.event, o.attempts, o.created_at, o.idle, o.finding, f.document FROM outbox o LEFT JOIN findings f ON f.id = o.finding
		WHERE o.state = 'pending' AND o.digest = 0 AND o.channel = $1 AND o.due_at <= $2 AND (o.subject = '' OR NOT EXISTS (
			SELECT 1 FROM outbox b WHERE b.channel = o.channel AND b.subject = o.subject AND b.state = 'pending' AND b.digest = 0 AND (b.due_at <= $2 OR b.attempts > 0)
				AND b.rowid < o.rowid))
		ORDER BY o.due_at, o.event_id LIMIT 0 + $3`, channel, micros(now), limit+len(held))
	if err != nil {
		return nil, nil, s.explain("reading", err)
	}
	defer rows.Close()
	broken = map[string]string{}
	for len(due) < limit && rows.Next() {
		var id, doc, finding string
		var document sql.NullString
		var created, idle int64
		q := notify.Queued{Channel: channel}
		if err := rows.Scan(&id, &doc, &q.Attempts, &created, &idle, &finding, &document); err != nil {
			return nil, nil, s.explain("reading", err)
		}
		if held[id] {
			continue
		}
		if finding == "" {
			err = json.Unmarshal([]byte(doc), &q.Event)
		} else {
			q.Event, err = findingEvent(document, doc)
			q.Event.ID = id
		}
		if err != nil {
			broken[id] = "the stored notification cannot be read: " + err.Error()
			continue
		}
		q.Created, q.Idle = timeOf(created), time.Duration(idle)*time.Microsecond
		due = append(due, q)
	}
	return due, broken, s.explain("reading", rows.Err())
}

// findingEvent makes the event of a stored finding. telling is a column of rolls.
func findingEvent(document sql.NullString, telling string) (notify.Event, error) {
	var f monitor.Finding
	if !document.Valid {
		return notify.Event{}, errors.New("the finding is not in the store")
	}
	if err := json.Unmarshal([]byte(document.String), &f); err != nil {
		return notify.Event{}, err
	}
	if telling == tellEscalation {
		return monitor.EscalationEvent(f), nil
	}
	return monitor.FindingEvent(f), nil
}

// Waiting returns the names of the channels that deliveries wait for.
func (s *Store) Waiting(ctx context.Context) ([]string, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT channel FROM outbox WHERE state = 'pending' UNION SELECT channel FROM rolls ORDER BY 1")
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
		if _, err := tx.ExecContext(ctx, "DELETE FROM rolls WHERE channel = $1", channel); err != nil {
			return err
		}
		w := s.writer(ctx, tx, s.now())
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
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM outbox WHERE channel = $1 AND event_id = $2", q.Channel, q.Event.ID); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO channels (name, last_success, window_sent) VALUES ($1, $2, 1) ON CONFLICT (name) DO UPDATE SET last_success = excluded.last_success, window_sent = channels.window_sent + 1", q.Channel, micros(at))
		return err
	})
}

// Accepted notes that a channel has accepted something, if not all of it.
func (s *Store) Accepted(ctx context.Context, channel string, at time.Time) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO channels (name, last_success) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET last_success = excluded.last_success", channel, micros(at))
		return err
	})
}

// Mended reports whether a channel has accepted something since it was last given
// something up for, and how long that is ago.
func (s *Store) Mended(ctx context.Context, channel string, now time.Time) (bool, time.Duration, error) {
	var success, failure int64
	err := s.db.QueryRowContext(ctx, "SELECT last_success, last_failure FROM channels WHERE name = $1", channel).Scan(&success, &failure)
	if errors.Is(err, sql.ErrNoRows) {
		return false, 0, nil
	}
	return success > failure, now.Sub(timeOf(failure)), s.explain("reading", err)
}

// Retry puts a delivery off.
func (s *Store) Retry(ctx context.Context, q notify.Queued, due time.Time, reason string) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "UPDATE outbox SET attempts = attempts + 1, due_at = $1, error = $2 WHERE channel = $3 AND event_id = $4", micros(due), reason, q.Channel, q.Event.ID); err != nil {
			return err
		}
		return putOff(ctx, tx, q.Channel, micros(s.now()))
	})
}

// FailDelivery gives a delivery up, and opens the incident that says so, if one is
// given, in the same transaction.
func (s *Store) FailDelivery(ctx context.Context, q notify.Queued, reason string, incident *monitor.Incident) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "UPDATE outbox SET state = 'failed', attempts = attempts + 1, error = $1 WHERE channel = $2 AND event_id = $3", reason, q.Channel, q.Event.ID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO channels (name, last_success, last_failure) VALUES ($1, 0, $2) ON CONFLICT (name) DO UPDATE SET last_failure = excluded.last_failure", q.Channel, micros(s.now())); err != nil {
			return err
		}
		if incident == nil {
			return nil
		}
		w := s.writer(ctx, tx, s.now())
		return w.incidents(monitor.Batch{Open: []monitor.Incident{*incident}})
	})
}

// PendingDeliveries returns how many deliveries wait.
func (s *Store) PendingDeliveries(ctx context.Context) (int, error) {
	var n int
	err := s.db.QueryRowContext(ctx, "SELECT (SELECT COUNT(*) FROM outbox WHERE state = 'pending') + (SELECT COALESCE(SUM(count), 0) FROM rolls)").Scan(&n)
	return n, s.explain("reading", err)
}

// Enqueue puts deliveries into the outbox that belong to no finding or incident.
func (s *Store) Enqueue(ctx context.Context, deliveries []notify.Delivery) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		w := s.writer(ctx, tx, s.now())
		return w.enqueue(deliveries)
	})
}

// enqueue puts deliveries into the outbox; one that is there already stays.
func (w *writer) enqueue(deliveries []notify.Delivery) error {
	for _, d := range deliveries {
		doc, err := json.Marshal(d.Event)
		if err != nil {
			return err
		}
		now := micros(w.now)
		due := now
		if !d.Due.IsZero() {
			due = micros(d.Due)
		}
		if err := w.exec("INSERT INTO outbox (channel, event_id, event, created_at, attempts, due_at, state, error, digest, subject) VALUES ($1, $2, $3, $4, 0, $5, 'pending', '', $6, $7) ON CONFLICT DO NOTHING",
			d.Channel, d.Event.ID, string(doc), now, due, d.Digest, d.Event.Subject); err != nil {
			return err
		}
	}
	return nil
}
