package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
)

var _ monitor.StatusStore = (*Store)(nil)

// State returns what is stored of a log; Version 0 if nothing is.
func (s *Store) State(ctx context.Context, logID string) (monitor.State, error) {
	var st monitor.State
	var version int64
	var doc string
	err := s.db.QueryRowContext(ctx, "SELECT version, state FROM logs WHERE id = $1", logID).Scan(&version, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return st, nil
	}
	if err != nil {
		return st, s.explain("reading", err)
	}
	if err := json.Unmarshal([]byte(doc), &st); err != nil {
		return st, fmt.Errorf("state of log %s in %s: %w", logID, s.path, err)
	}
	st.Version = version
	return st, nil
}

// States returns what is stored of every log, by its id.
func (s *Store) States(ctx context.Context) (map[string]monitor.State, error) {
	return s.states(ctx, s.db)
}

func (s *Store) states(ctx context.Context, q querier) (map[string]monitor.State, error) {
	rows, err := q.QueryContext(ctx, "SELECT id, version, state FROM logs")
	if err != nil {
		return nil, s.explain("reading", err)
	}
	defer rows.Close()
	out := map[string]monitor.State{}
	for rows.Next() {
		var st monitor.State
		var id, doc string
		var version int64
		if err := rows.Scan(&id, &version, &doc); err != nil {
			return nil, s.explain("reading", err)
		}
		if err := json.Unmarshal([]byte(doc), &st); err != nil {
			return nil, fmt.Errorf("state of log %s in %s: %w", id, s.path, err)
		}
		st.Version = version
		out[id] = st
	}
	return out, s.explain("reading", rows.Err())
}

// Commit moves a log on in one transaction; see monitor.Store.
func (s *Store) Commit(ctx context.Context, logID string, old monitor.State, next *monitor.State, b monitor.Batch) (rec monitor.Recorded, err error) {
	err = s.write(ctx, "writing", func(tx *sql.Tx) error {
		w := s.writer(ctx, tx, s.now()).of(logID)
		if next != nil {
			err = w.moveState(old, next)
		} else {
			err = w.sameEpoch(old)
		}
		if err == nil {
			err = w.moving(&old, next, b)
		}
		if err == nil && next != nil {
			err = w.turned(&old, next)
		}
		if err != nil {
			return err
		}
		rec, err = w.batch(b)
		return err
	})
	if err == nil && next != nil {
		next.Version = old.Version + 1
	}
	return rec, err
}

// writer writes parts of one batch.
type writer struct {
	store *Store
	ctx   context.Context
	tx    *sql.Tx
	logID string
	now   time.Time

	opened int64 // the last opened_n that was given; 0: not read yet
	rolls  map[roll]*rolled
	noted  monitor.TreeHead // whose note is stored
	quiet  map[string]bool  // watches for which nothing was announced
	past   bool             // it only judges what was judged before
}

// writer begins to write at a time; of says about which log.
func (s *Store) writer(ctx context.Context, tx *sql.Tx, now time.Time) *writer {
	return &writer{store: s, ctx: ctx, tx: tx, now: now}
}

func (w *writer) of(logID string) *writer {
	w.logID = logID
	return w
}

func (w *writer) exec(query string, args ...any) error {
	_, err := w.tx.ExecContext(w.ctx, query, args...)
	return err
}

// moveState is the compare-and-swap: it takes effect on exactly one row, or
// somebody else was faster.
func (w *writer) moveState(old monitor.State, next *monitor.State) error {
	doc, err := json.Marshal(next)
	if err != nil {
		return err
	}
	var res sql.Result
	if old.Version == 0 {
		res, err = w.tx.ExecContext(w.ctx, "INSERT INTO logs (id, name, version, state) VALUES ($1, $2, 1, $3) ON CONFLICT DO NOTHING", w.logID, next.Name, string(doc))
	} else {
		res, err = w.tx.ExecContext(w.ctx, "UPDATE logs SET name = $1, version = version + 1, state = $2 WHERE id = $3 AND version = $4", next.Name, string(doc), w.logID, old.Version)
	}
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, monitor.ErrConflict)
	}
	return nil
}

// sameEpoch refuses a batch without a state if the log was given a new baseline
// since old was read: its indexes are those of another tree.
func (w *writer) sameEpoch(old monitor.State) error {
	var doc string
	err := w.tx.QueryRowContext(w.ctx, "SELECT state FROM logs WHERE id = $1", w.logID).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	var now monitor.State
	if err := json.Unmarshal([]byte(doc), &now); err != nil {
		return err
	}
	if now.Epoch != old.Epoch {
		return monitor.ErrConflict
	}
	return nil
}

func (w *writer) batch(b monitor.Batch) (rec monitor.Recorded, err error) {
	if b.Reset {
		for _, table := range []string{"own_tiles", "coverage", "gaps", "pending_checkpoints", "admissions", "heard"} {
			if err := w.exec("DELETE FROM "+table+" WHERE log_id = $1", w.logID); err != nil {
				return rec, err
			}
		}
	}
	// Evidence first: whatever else fails, it is in the same transaction.
	for _, step := range []func(monitor.Batch) error{w.incidents, w.tiles, w.coverage, w.gaps, w.pending, w.readIn} {
		if err := step(b); err != nil {
			return rec, err
		}
	}
	for _, a := range b.Acts {
		if err := w.audit(a.By, a.Action, a.Subject, a.Detail); err != nil {
			return rec, err
		}
	}
	for i := range b.Findings {
		isNew, otherwise, err := w.finding(&b.Findings[i])
		if err != nil {
			return rec, err
		}
		if isNew {
			rec.Findings = append(rec.Findings, b.Findings[i].ID)
		}
		if otherwise {
			rec.Otherwise++
		}
	}
	return rec, w.flushRolls()
}

func (w *writer) tiles(b monitor.Batch) error {
	for _, t := range b.Tiles {
		raw := make([]byte, 0, len(t.Hashes)*checkpoint.HashSize)
		for _, h := range t.Hashes {
			raw = append(raw, h[:]...)
		}
		if err := w.exec("INSERT INTO own_tiles (log_id, level, idx, hashes) VALUES ($1, $2, $3, $4) ON CONFLICT (log_id, level, idx) DO UPDATE SET hashes = excluded.hashes",
			w.logID, t.Level, t.Index, raw); err != nil {
			return err
		}
	}
	if b.PruneLeafTiles == 0 {
		return nil
	}
	return w.exec("DELETE FROM own_tiles WHERE log_id = $1 AND level = 0 AND idx < $2", w.logID, b.PruneLeafTiles)
}

// OwnTile returns the kept hashes of a tile.
func (s *Store) OwnTile(ctx context.Context, logID string, level uint, index uint64) ([]checkpoint.Hash, error) {
	var raw []byte
	err := s.db.QueryRowContext(ctx, "SELECT hashes FROM own_tiles WHERE log_id = $1 AND level = $2 AND idx = $3", logID, level, index).Scan(&raw)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, s.explain("reading", err)
	}
	if len(raw)%checkpoint.HashSize != 0 || len(raw) > checkpoint.TileWidth*checkpoint.HashSize {
		return nil, fmt.Errorf("state file %s: own tile (%d, %d) of log %s has %d bytes", s.path, level, index, logID, len(raw))
	}
	hashes := make([]checkpoint.Hash, len(raw)/checkpoint.HashSize)
	for i := range hashes {
		hashes[i] = checkpoint.Hash(raw[i*checkpoint.HashSize:])
	}
	return hashes, nil
}

// setHash names a set of watches.
func setHash(watches []string) string {
	sorted := append([]string(nil), watches...)
	sort.Strings(sorted)
	sum := sha256.Sum256([]byte(strings.Join(sorted, "\n")))
	return hex.EncodeToString(sum[:])
}

func (w *writer) coverage(b monitor.Batch) error {
	if len(b.Coverage) == 0 {
		return nil
	}
	set := setHash(b.WatchSet)
	var known int
	if err := w.tx.QueryRowContext(w.ctx, "SELECT COUNT(*) FROM watch_sets WHERE set_hash = $1", set).Scan(&known); err != nil {
		return err
	}
	if known == 0 {
		for _, hash := range b.WatchSet {
			if err := w.exec("INSERT INTO watch_sets (set_hash, watch_hash) VALUES ($1, $2) ON CONFLICT DO NOTHING", set, hash); err != nil {
				return err
			}
		}
	}
	for _, r := range b.Coverage {
		if r.From >= r.To {
			continue
		}
		// Ranges that touch or overlap become one. Those that are stored are apart from each
		// other, so that of those which begin earlier the last alone can reach here.
		from, to := r.From, r.To
		var lo, hi sql.NullInt64
		if err := w.tx.QueryRowContext(w.ctx, "SELECT MIN(from_idx), MAX(to_idx) FROM coverage WHERE "+touching, w.logID, set, to, from).Scan(&lo, &hi); err != nil {
			return err
		}
		if lo.Valid {
			from, to = min(from, uint64(lo.Int64)), max(to, uint64(hi.Int64))
			if err := w.exec("DELETE FROM coverage WHERE "+touching, w.logID, set, to, from); err != nil {
				return err
			}
		}
		if err := w.exec("INSERT INTO coverage (log_id, set_hash, from_idx, to_idx) VALUES ($1, $2, $3, $4)", w.logID, set, from, to); err != nil {
			return err
		}
	}
	return nil
}

// touching are the ranges of a log and a set of watches that touch a range up to $3, from $4.
const touching = `log_id = $1 AND set_hash = $2 AND from_idx <= $3 AND to_idx >= $4 AND from_idx >=
	COALESCE((SELECT MAX(from_idx) FROM coverage WHERE log_id = $1 AND set_hash = $2 AND from_idx <= $4), $4)`

// Coverage returns the ranges of a log that one watch has covered, by the hash
// of its rule.
func (s *Store) Coverage(ctx context.Context, logID, watchHash string) ([]monitor.Range, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT c.from_idx, c.to_idx FROM coverage c JOIN watch_sets w ON w.set_hash = c.set_hash WHERE c.log_id = $1 AND w.watch_hash = $2 ORDER BY c.from_idx", logID, watchHash)
	if err != nil {
		return nil, s.explain("reading", err)
	}
	defer rows.Close()
	var out []monitor.Range
	for rows.Next() {
		var r monitor.Range
		if err := rows.Scan(&r.From, &r.To); err != nil {
			return nil, s.explain("reading", err)
		}
		if n := len(out); n > 0 && r.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, r.To)
			continue
		}
		out = append(out, r)
	}
	return out, s.explain("reading", rows.Err())
}

func (w *writer) gaps(b monitor.Batch) error {
	if err := w.gapRows(b); err != nil {
		return err
	}
	for _, g := range b.FilledGaps {
		if err := w.exec("DELETE FROM gaps WHERE log_id = $1 AND from_idx = $2", w.logID, g.From); err != nil {
			return err
		}
	}
	for _, g := range b.SetGaps {
		if g.From >= g.To {
			return fmt.Errorf("a gap from %d to %d is none", g.From, g.To) // it would take the place of one that follows
		}
		if err := w.exec("INSERT INTO gaps (log_id, from_idx, to_idx, reason, polls, since) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (log_id, from_idx) DO UPDATE SET to_idx = excluded.to_idx, reason = excluded.reason, polls = excluded.polls, since = excluded.since",
			w.logID, g.From, g.To, g.Reason, g.Polls, micros(g.Since)); err != nil {
			return err
		}
	}
	return nil
}

// Gaps returns the gaps of a log, in order.
func (s *Store) Gaps(ctx context.Context, logID string) ([]monitor.Gap, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT from_idx, to_idx, reason, polls, since FROM gaps WHERE log_id = $1 ORDER BY from_idx", logID)
	if err != nil {
		return nil, s.explain("reading", err)
	}
	defer rows.Close()
	var out []monitor.Gap
	for rows.Next() {
		var g monitor.Gap
		var since int64
		if err := rows.Scan(&g.From, &g.To, &g.Reason, &g.Polls, &since); err != nil {
			return nil, s.explain("reading", err)
		}
		g.Since = timeOf(since)
		out = append(out, g)
	}
	return out, s.explain("reading", rows.Err())
}

func (w *writer) pending(b monitor.Batch) error {
	for _, p := range b.Judged {
		if err := w.exec("DELETE FROM pending_checkpoints WHERE log_id = $1 AND size = $2 AND root = $3", w.logID, p.Size, hexOf(p.Root)); err != nil {
			return err
		}
	}
	for _, p := range b.Pending {
		tiles, err := json.Marshal(p.Tiles)
		if err != nil {
			return err
		}
		if err := w.exec("INSERT INTO pending_checkpoints (log_id, size, root, note, tiles, since) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (log_id, size, root) DO UPDATE SET tiles = excluded.tiles WHERE LENGTH(excluded.tiles) > LENGTH(pending_checkpoints.tiles)",
			w.logID, p.Size, hexOf(p.Root), p.Note, string(tiles), micros(p.Since)); err != nil {
			return err
		}
	}
	return nil
}

// Pending returns smaller checkpoints that could not be judged yet.
func (s *Store) Pending(ctx context.Context, logID string) ([]monitor.Pending, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT size, root, note, tiles, since FROM pending_checkpoints WHERE log_id = $1 ORDER BY since, size", logID)
	if err != nil {
		return nil, s.explain("reading", err)
	}
	defer rows.Close()
	var out []monitor.Pending
	for rows.Next() {
		var p monitor.Pending
		var root, tiles string
		var since int64
		if err := rows.Scan(&p.Size, &root, &p.Note, &tiles, &since); err != nil {
			return nil, s.explain("reading", err)
		}
		if err := errors.Join(p.Root.UnmarshalText([]byte(root)), json.Unmarshal([]byte(tiles), &p.Tiles)); err != nil {
			return nil, fmt.Errorf("state file %s: archived checkpoint of log %s: %w", s.path, logID, err)
		}
		p.Since = timeOf(since)
		out = append(out, p)
	}
	return out, s.explain("reading", rows.Err())
}

func hexOf(h checkpoint.HexHash) string { return hex.EncodeToString(h[:]) }

// RecordPoll notes how a poll went.
func (s *Store) RecordPoll(ctx context.Context, logID string, p monitor.Poll) (monitor.Failures, error) {
	var f monitor.Failures
	at, pollErr := p.At, p.Err
	err := s.write(ctx, "writing", func(tx *sql.Tx) error {
		if err := s.writer(ctx, tx, at).of(logID).polled(p); err != nil {
			return err
		}
		var success, since sql.NullInt64
		err := tx.QueryRowContext(ctx, "SELECT last_success, failures, failing_since FROM polls WHERE log_id = $1", logID).Scan(&success, &f.Polls, &since)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		var text sql.NullString
		if pollErr == nil {
			f.Polls, since = 0, sql.NullInt64{}
			success = sql.NullInt64{Int64: micros(at), Valid: true}
		} else {
			if f.Polls++; !since.Valid {
				since = sql.NullInt64{Int64: micros(at), Valid: true}
			}
			text = sql.NullString{String: pollErr.Error(), Valid: true}
		}
		f.Since, f.LastSuccess = timeOrZero(since), timeOrZero(success)
		_, err = tx.ExecContext(ctx, "INSERT INTO polls (log_id, at, last_success, failures, failing_since, error) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (log_id) DO UPDATE SET at = excluded.at, last_success = excluded.last_success, failures = excluded.failures, failing_since = excluded.failing_since, error = excluded.error",
			logID, micros(at), success, f.Polls, since, text)
		return err
	})
	return f, err
}

// LastPoll returns when a log was polled last, when that succeeded last, and
// how the last poll failed, if it did.
func (s *Store) LastPoll(ctx context.Context, logID string) (at, success time.Time, failure string, err error) {
	var a int64
	var ok sql.NullInt64
	var text sql.NullString
	err = s.db.QueryRowContext(ctx, "SELECT at, last_success, error FROM polls WHERE log_id = $1", logID).Scan(&a, &ok, &text)
	if errors.Is(err, sql.ErrNoRows) {
		return at, success, "", nil
	}
	return timeOf(a), timeOrZero(ok), text.String, s.explain("reading", err)
}
