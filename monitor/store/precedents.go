package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

var _ monitor.Precedents = (*writer)(nil)

// looking is a writer that judges what was judged before: it counts what lies before
// an entry in the log, and admits nothing.
func (w *writer) looking() *writer {
	again := *w
	again.past = true
	return &again
}

// others are the entries that are counted beside one with an index. Behind it there
// are some only where it is read late: what a log has withheld is to find the place
// taken.
func (w *writer) others() string {
	if w.past {
		return "idx < "
	}
	return "idx <> "
}

// Within returns how many other entries a counter has let in close to a time.
func (w *writer) Within(counter string, index uint64, at time.Time, per time.Duration, limit int) (int, error) {
	var n int
	err := w.tx.QueryRowContext(w.ctx, "SELECT COUNT(*) FROM (SELECT DISTINCT idx FROM admissions WHERE log_id = $1 AND counter = $2 AND at > $3 AND at < $4 AND "+w.others()+"$5 LIMIT $6) AS near",
		w.logID, counter, micros(at.Add(-per)), micros(at.Add(per)), index, limit).Scan(&n)
	return n, err
}

// Seen returns the index of another entry that a counter has let in with a key.
func (w *writer) Seen(counter, key string, index uint64) (at uint64, ok bool, err error) {
	err = w.tx.QueryRowContext(w.ctx, "SELECT idx FROM admissions WHERE log_id = $1 AND counter = $2 AND key = $3 AND "+w.others()+"$4 ORDER BY idx LIMIT 1", w.logID, counter, key, index).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return at, err == nil, err
}

// Admit remembers that a counter has let in an entry.
func (w *writer) Admit(counter string, keys []string, index uint64, at time.Time) error {
	if w.past {
		return nil
	}
	if len(keys) == 0 {
		keys = []string{""}
	}
	for _, key := range keys {
		if err := w.exec("INSERT INTO admissions (log_id, counter, key, idx, at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING", w.logID, counter, key, index, micros(at)); err != nil {
			return err
		}
	}
	return nil
}

// Announced returns who has announced one of some digests for a watch.
func (w *writer) Announced(watch string, digests []string, at, until time.Time) (by string, ok bool, err error) {
	if w.quiet == nil {
		w.quiet = map[string]bool{}
	}
	quiet, asked := w.quiet[watch]
	if !asked {
		var n int
		if err := w.tx.QueryRowContext(w.ctx, "SELECT COUNT(*) FROM (SELECT id FROM announcements WHERE watch = $1 LIMIT 1) AS announced", watch).Scan(&n); err != nil {
			return "", false, err
		}
		quiet = n == 0
		w.quiet[watch] = quiet
	}
	if quiet {
		return "", false, nil
	}
	for _, digest := range digests {
		var note string
		var created int64
		err := w.tx.QueryRowContext(w.ctx, "SELECT announcer, note, created_at FROM announcements WHERE watch = $1 AND digest = $2 AND created_at <= $3 AND expires_at > $4 ORDER BY created_at LIMIT 1", watch, strings.ToLower(digest), micros(until), micros(at)).Scan(&by, &note, &created)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return "", false, err
		}
		by += " at " + timeOf(created).Format(time.RFC3339)
		if note != "" {
			by += fmt.Sprintf(" (%s)", note)
		}
		return by, true, nil
	}
	return "", false, nil
}

// keepAnnouncements is how long those are kept that have expired: findings that are
// judged anew ask for them.
const keepAnnouncements = 30 * 24 * time.Hour

// maxAnnouncements bounds those of one watch that have not expired: whoever may
// announce must not fill the disk.
const maxAnnouncements = 10000

// ErrTooMany is returned where a bound on what is stored is reached.
var ErrTooMany = errors.New("too many")

// Announce remembers that somebody is about to sign an artifact.
func (s *Store) Announce(ctx context.Context, a monitor.Announcement) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM announcements WHERE expires_at < $1", micros(a.CreatedAt.Add(-keepAnnouncements))); err != nil {
			return err
		}
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM announcements WHERE watch = $1 AND expires_at > $2", a.Watch, micros(a.CreatedAt)).Scan(&n); err != nil {
			return err
		}
		if n >= maxAnnouncements {
			return fmt.Errorf("watch %s has %d announcements that have not expired: %w", a.Watch, n, ErrTooMany)
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO announcements (id, watch, digest, announcer, note, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
			a.ID, a.Watch, a.Digest, a.By, a.Note, micros(a.CreatedAt), micros(a.ExpiresAt)); err != nil {
			return err
		}
		w := s.writer(ctx, tx, a.CreatedAt)
		return w.audit(a.By, actExpect, a.ID, a)
	})
}

// Withdraw takes an announcement back. What was expected by it stays so.
func (s *Store) Withdraw(ctx context.Context, id, by, note string, now time.Time) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "DELETE FROM announcements WHERE id = $1", id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return cmp.Or(err, fmt.Errorf("announcement %q: %w", id, ErrNotFound))
		}
		w := s.writer(ctx, tx, now)
		return w.audit(by, actWithdraw, id, map[string]string{"note": note})
	})
}

const announcementColumns = "id, watch, digest, announcer, note, created_at, expires_at"

func scanAnnouncement(row interface{ Scan(...any) error }) (a monitor.Announcement, err error) {
	var created, expires int64
	err = row.Scan(&a.ID, &a.Watch, &a.Digest, &a.By, &a.Note, &created, &expires)
	a.CreatedAt, a.ExpiresAt = timeOf(created), timeOf(expires)
	return a, err
}

// Announcements returns those of a watch (all: "") that have not expired at a
// time, oldest first.
func (s *Store) Announcements(ctx context.Context, watch string, now time.Time) ([]monitor.Announcement, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT "+announcementColumns+" FROM announcements WHERE expires_at > $1 AND ($2 = '' OR watch = $2) ORDER BY created_at, id", micros(now), watch)
	if err != nil {
		return nil, s.explain("reading", err)
	}
	defer rows.Close()
	out := []monitor.Announcement{}
	for rows.Next() {
		a, err := scanAnnouncement(rows)
		if err != nil {
			return nil, s.explain("reading", err)
		}
		out = append(out, a)
	}
	return out, s.explain("reading", rows.Err())
}

// Peek lets a function ask the ledger of a log, which admits nothing.
func (s *Store) Peek(ctx context.Context, logID string, ask func(monitor.Precedents) error) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return s.explain("reading", err)
	}
	defer tx.Rollback()
	w := s.writer(ctx, tx, s.now()).of(logID)
	return ask(w.looking())
}
