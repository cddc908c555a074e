package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/sigwarden/sigwarden/monitor"
)

// Bounds of the checkpoints of one log that wait until they can be compared, and of those
// among them that one source has shown. All of them are signed by the log; the smallest
// are judged first, and are not driven out.
const (
	maxHeard     = 256
	maxHeardFrom = 16
)

// KeepHeard keeps a checkpoint that somebody else has seen, and reports whether it did.
func (s *Store) KeepHeard(ctx context.Context, logID string, h monitor.Heard) (kept bool, err error) {
	err = s.write(ctx, "writing", func(tx *sql.Tx) error {
		var all, same, there int
		if err := tx.QueryRowContext(ctx, "SELECT COUNT(*), COUNT(CASE WHEN source = $2 THEN 1 END), COUNT(CASE WHEN size = $3 AND root = $4 THEN 1 END) FROM heard WHERE log_id = $1", logID, h.Source, h.Size, hexOf(h.Root)).Scan(&all, &same, &there); err != nil {
			return err
		}
		if kept = there > 0; kept {
			return nil
		}
		if same >= maxHeardFrom {
			// The largest of that source goes, if it is larger than this one.
			res, err := tx.ExecContext(ctx, "DELETE FROM heard WHERE rowid = (SELECT rowid FROM heard WHERE log_id = $1 AND source = $2 AND size > $3 ORDER BY size DESC LIMIT 1)", logID, h.Source, h.Size)
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil || n == 0 {
				return err
			}
			all--
		}
		if all >= maxHeard {
			return nil
		}
		kept = true
		_, err := tx.ExecContext(ctx, "INSERT INTO heard (log_id, size, root, note, source, since) VALUES ($1, $2, $3, $4, $5, $6)", logID, h.Size, hexOf(h.Root), h.Note, h.Source, micros(h.Since))
		return err
	})
	return kept && err == nil, err
}

// Heard returns the checkpoints of a log that are kept, the smallest first.
func (s *Store) Heard(ctx context.Context, logID string) ([]monitor.Heard, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT size, root, note, source, since FROM heard WHERE log_id = $1 ORDER BY size, root", logID)
	if err != nil {
		return nil, s.explain("reading", err)
	}
	defer rows.Close()
	var out []monitor.Heard
	for rows.Next() {
		var h monitor.Heard
		var root string
		var since int64
		if err := rows.Scan(&h.Size, &root, &h.Note, &h.Source, &since); err != nil {
			return nil, s.explain("reading", err)
		}
		if err := h.Root.UnmarshalText([]byte(root)); err != nil {
			return nil, fmt.Errorf("state file %s: a checkpoint of log %s: %w", s.path, logID, err)
		}
		h.Since = timeOf(since)
		out = append(out, h)
	}
	return out, s.explain("reading", rows.Err())
}

// ForgetHeard removes one that was judged.
func (s *Store) ForgetHeard(ctx context.Context, logID string, h monitor.Heard) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM heard WHERE log_id = $1 AND size = $2 AND root = $3", logID, h.Size, hexOf(h.Root))
		return err
	})
}
