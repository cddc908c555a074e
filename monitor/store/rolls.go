package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/notify"
)

// What waits rolled up: one row stands for all findings of a watch that a
// transaction has opened, so that a flood of them costs the engine no more for a
// channel than a single one.

// What a roll tells of its findings.
const (
	tellFinding    = "finding"
	tellEscalation = "escalation"
)

// roll gathers what one transaction opens.
type roll struct {
	notify.Address
	telling                  string
	watch, verdict, severity string
	mark                     int64 // escalated_at of all of them
}

type rolled struct{ from, to, count int64 }

// tell books that a finding is to be told at some addresses.
func (w *writer) tell(telling string, f *monitor.Finding, n int64, addresses []notify.Address) {
	if w.rolls == nil {
		w.rolls = map[roll]*rolled{}
	}
	for _, a := range addresses {
		key := roll{a, telling, f.Watch, string(f.Verdict), f.Severity, 0}
		if telling == tellEscalation {
			key.mark = micros(w.now)
		}
		if r := w.rolls[key]; r != nil {
			r.from, r.to, r.count = min(r.from, n), max(r.to, n), r.count+1
			continue
		}
		w.rolls[key] = &rolled{n, n, 1}
	}
}

// flushRolls stores what tell has booked.
func (w *writer) flushRolls() error {
	now := micros(w.now)
	for key, r := range w.rolls {
		due := now
		if !key.Due.IsZero() {
			due = micros(key.Due)
		}
		if err := w.exec("INSERT INTO rolls (channel, telling, watch, verdict, severity, from_n, to_n, count, created_at, due_at, digest, mark) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
			key.Channel, key.telling, key.watch, key.verdict, key.severity, r.from, r.to, r.count, now, due, key.Digest, key.mark); err != nil {
			return err
		}
	}
	w.rolls = nil
	return nil
}

// Rolled returns how things stand for a channel.
func (s *Store) Rolled(ctx context.Context, channel string, now time.Time) (notify.Waiting, error) {
	var w notify.Waiting
	var next1, next2, first, stuck sql.NullInt64
	if err := s.db.QueryRowContext(ctx, "SELECT NOT EXISTS (SELECT 1 FROM outbox WHERE channel = $1 AND state = 'pending') AND NOT EXISTS (SELECT 1 FROM rolls WHERE channel = $1)", channel).Scan(&w.Nothing); err != nil {
		return w, s.explain("reading", err)
	}
	if w.Nothing {
		err := s.window(ctx, channel, &w)
		return w, err
	}
	// What is due later, at the end of quiet hours say, stands in nobody's way.
	err := s.db.QueryRowContext(ctx, `SELECT
		(SELECT COUNT(*) FROM outbox WHERE channel = $1 AND state = 'pending' AND digest = 0 AND attempts = 0 AND due_at <= $2),
		(SELECT COUNT(*) FROM outbox WHERE channel = $1 AND state = 'pending' AND digest = 0 AND attempts > 0),
		(SELECT MIN(created_at) FROM outbox WHERE channel = $1 AND state = 'pending' AND digest = 0 AND attempts > 0),
		(SELECT MAX(created_at) FROM outbox WHERE channel = $1 AND state = 'pending' AND digest = 0 AND attempts > 0),
		(SELECT COALESCE(SUM(count), 0) FROM rolls WHERE channel = $1 AND digest = 0 AND due_at <= $2),
		(SELECT COUNT(*) FROM outbox WHERE channel = $1 AND state = 'pending' AND digest = 1 AND due_at <= $2) + (SELECT COALESCE(SUM(count), 0) FROM rolls WHERE channel = $1 AND digest = 1 AND due_at <= $2),
		(SELECT MIN(due_at) FROM rolls WHERE channel = $1 AND due_at > $2),
		(SELECT MIN(due_at) FROM outbox WHERE channel = $1 AND state = 'pending' AND digest = 1 AND due_at > $2)`, channel, micros(now)).
		Scan(&w.Fresh, &w.Stuck, &first, &stuck, &w.Rolled, &w.Digest, &next1, &next2)
	if err != nil {
		return w, s.explain("reading", err)
	}
	w.FirstStuck, w.LastStuck = timeOrZero(first), timeOrZero(stuck)
	for _, n := range []sql.NullInt64{next1, next2} {
		if at := timeOrZero(n); n.Valid && (w.Next.IsZero() || at.Before(w.Next)) {
			w.Next = at
		}
	}
	err = s.window(ctx, channel, &w)
	return w, err
}

// window reads how the window of a channel stands, and when it accepted something.
func (s *Store) window(ctx context.Context, channel string, w *notify.Waiting) error {
	var start, sent, last sql.NullInt64
	var folded, over sql.NullBool
	err := s.db.QueryRowContext(ctx, "SELECT window_start, window_sent, window_folded, window_over, last_success FROM channels WHERE name = $1", channel).Scan(&start, &sent, &folded, &over, &last)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if start.Int64 > 0 {
		w.Window.Start = timeOf(start.Int64)
	}
	w.LastSuccess = timeOrZero(last)
	w.Window.Sent, w.Window.Folded, w.Window.Over = int(sent.Int64), folded.Bool, over.Bool
	return s.explain("reading", err)
}

// SetWindow keeps the window of a channel.
func (s *Store) SetWindow(ctx context.Context, channel string, w notify.Window) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO channels (name, last_success, window_start, window_sent, window_folded, window_over) VALUES ($1, 0, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE SET window_start = excluded.window_start, window_sent = excluded.window_sent, window_folded = excluded.window_folded, window_over = excluded.window_over",
			channel, micros(w.Start), w.Sent, w.Folded, w.Over)
		return err
	})
}

// waitingRoll is a row of rolls.
type waitingRoll struct {
	telling, watch, verdict, severity string
	from, to, count, created, mark    int64
}

func readRolls(ctx context.Context, tx *sql.Tx, channel string, now time.Time, digest bool, limit int) ([]waitingRoll, error) {
	rows, err := tx.QueryContext(ctx, "SELECT telling, watch, verdict, severity, from_n, to_n, count, created_at, mark FROM rolls WHERE channel = $1 AND digest = $2 AND due_at <= $3 ORDER BY created_at, from_n, watch, verdict LIMIT 0 + $4", channel, digest, micros(now), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []waitingRoll
	for rows.Next() {
		var r waitingRoll
		if err := rows.Scan(&r.telling, &r.watch, &r.verdict, &r.severity, &r.from, &r.to, &r.count, &r.created, &r.mark); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// ofRoll selects the findings of a roll.
const ofRoll = " FROM findings WHERE opened_n >= $1 AND opened_n <= $2 AND watch = $3 AND verdict = $4 AND severity = $5 AND ($6 = 0 OR escalated_at = $6)"

func (r *waitingRoll) args(to int64, more ...any) []any {
	return append([]any{r.from, to, r.watch, r.verdict, r.severity, r.mark}, more...)
}

// suffix ends the ids of events that repeat other ones.
func (r *waitingRoll) suffix() string {
	if r.telling != tellEscalation {
		return ""
	}
	return fmt.Sprintf("-escalated-%d", r.mark)
}

// Unroll makes up to limit deliveries of what waits rolled up and is due.
func (s *Store) Unroll(ctx context.Context, channel string, now time.Time, limit int) (made int, err error) {
	if limit <= 0 {
		return 0, nil
	}
	err = s.write(ctx, "writing", func(tx *sql.Tx) error {
		made = 0
		rolls, err := readRolls(ctx, tx, channel, now, false, limit)
		if err != nil {
			return err
		}
		w := s.writer(ctx, tx, now)
		for _, r := range rolls {
			if made >= limit {
				break
			}
			var last sql.NullInt64
			if err := tx.QueryRowContext(ctx, "SELECT MAX(n) FROM (SELECT opened_n AS n"+ofRoll+" ORDER BY opened_n LIMIT 0 + $7) AS first", r.args(r.to, limit-made)...).Scan(&last); err != nil {
				return err
			}
			res, err := tx.ExecContext(ctx, "INSERT INTO outbox (channel, event_id, event, finding, subject, created_at, attempts, due_at, state, error) SELECT $7, event_id || $8, $9, id, id, $10, 0, $10, 'pending', ''"+ofRoll+" ON CONFLICT DO NOTHING",
				r.args(last.Int64, channel, r.suffix(), r.telling, micros(now))...)
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			made += int(n)
			key := []any{channel, r.telling, r.watch, r.verdict, r.severity, r.from, r.mark}
			const where = " WHERE channel = $1 AND telling = $2 AND watch = $3 AND verdict = $4 AND severity = $5 AND from_n = $6 AND mark = $7"
			if n >= r.count || !last.Valid || last.Int64 >= r.to {
				err = w.exec("DELETE FROM rolls"+where, key...)
			} else {
				err = w.exec("UPDATE rolls SET from_n = $8, count = count - $9"+where, append(key, last.Int64+1, n)...)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return made, err
}

// Release makes deliveries of their own of what was to become a part of a digest.
func (s *Store) Release(ctx context.Context, channel string) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		for _, table := range []string{"outbox", "rolls"} {
			if _, err := tx.ExecContext(ctx, "UPDATE "+table+" SET digest = 0 WHERE channel = $1", channel); err != nil {
				return err
			}
		}
		return nil
	})
}

// maxFirst is how many of a group are named.
const maxFirst = 5

// Fold puts few events in the place of much that waits; see notify.Rolls.
func (s *Store) Fold(ctx context.Context, channel string, now time.Time, digest bool, fold func([]notify.Group) []notify.Event) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		rolls, err := readRolls(ctx, tx, channel, now, digest, 1<<30)
		if err != nil {
			return err
		}
		f := folder{ctx: ctx, tx: tx, groups: map[string]*notify.Group{}}
		for _, r := range rolls {
			if err := f.add(r); err != nil {
				return err
			}
		}
		w := s.writer(ctx, tx, now)
		if err := w.exec("DELETE FROM rolls WHERE channel = $1 AND digest = $2 AND due_at <= $3", channel, digest, micros(now)); err != nil {
			return err
		}
		if digest {
			if err := f.incidents(channel, now); err != nil {
				return err
			}
			if err := w.exec("DELETE FROM outbox WHERE channel = $1 AND state = 'pending' AND digest = 1 AND due_at <= $2", channel, micros(now)); err != nil {
				return err
			}
		}
		var groups []notify.Group
		for _, key := range f.order {
			groups = append(groups, *f.groups[key])
		}
		var deliveries []notify.Delivery
		for _, e := range fold(groups) {
			deliveries = append(deliveries, notify.Delivery{Address: notify.Address{Channel: channel}, Event: e})
		}
		return w.enqueue(deliveries)
	})
}

// folder gathers groups.
type folder struct {
	ctx    context.Context
	tx     *sql.Tx
	groups map[string]*notify.Group
	order  []string
}

func (f *folder) group(about notify.About, cause string) *notify.Group {
	key := fmt.Sprintf("%q %q", about, cause)
	g := f.groups[key]
	if g == nil {
		g = &notify.Group{About: about, Cause: cause}
		f.groups[key] = g
		f.order = append(f.order, key)
	}
	return g
}

// add counts the findings of a roll, by their cause.
func (f *folder) add(r waitingRoll) error {
	args := r.args(r.to)
	rows, err := f.tx.QueryContext(f.ctx, "SELECT cause, COUNT(*), MIN(opened_at), MAX(opened_at)"+ofRoll+" GROUP BY cause ORDER BY MIN(opened_n)", args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	var short []*notify.Group
	for rows.Next() {
		var cause string
		var count int
		var since, until int64
		if err := rows.Scan(&cause, &count, &since, &until); err != nil {
			return err
		}
		class := notify.ClassFinding
		if r.telling == tellEscalation {
			class = tellEscalation
		}
		g := f.group(notify.About{Class: class, Kind: r.verdict, Severity: r.severity, Watch: r.watch}, cause)
		g.Count += count
		span(g, timeOf(since), timeOf(until))
		if len(g.First) < maxFirst {
			short = append(short, g)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows.Close()
	for _, g := range short {
		if err := f.first(g, args); err != nil {
			return err
		}
	}
	return nil
}

// first names the first few of a group.
func (f *folder) first(g *notify.Group, args []any) error {
	rows, err := f.tx.QueryContext(f.ctx, "SELECT document"+ofRoll+" AND cause = $7 ORDER BY opened_n LIMIT $8", append(args, g.Cause, maxFirst-len(g.First))...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var doc string
		var finding monitor.Finding
		if err := rows.Scan(&doc); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(doc), &finding); err != nil {
			return err
		}
		g.First = append(g.First, monitor.FindingLine(finding))
	}
	return rows.Err()
}

// incidents adds the incidents of a digest.
func (f *folder) incidents(channel string, now time.Time) error {
	rows, err := f.tx.QueryContext(f.ctx, "SELECT event FROM outbox WHERE channel = $1 AND state = 'pending' AND digest = 1 AND due_at <= $2 ORDER BY created_at, event_id", channel, micros(now))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var doc string
		var e notify.Event
		if err := rows.Scan(&doc); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(doc), &e); err != nil {
			continue // one that cannot be read must not keep the others
		}
		g := f.group(notify.About{Class: e.Type, Severity: e.Severity}, "")
		g.Count++
		span(g, e.Time, e.Time)
		if len(g.First) < 2*maxFirst {
			g.First = append(g.First, e.Title+" ("+e.Next+")")
		}
	}
	return rows.Err()
}

func span(g *notify.Group, since, until time.Time) {
	if g.Since.IsZero() || since.Before(g.Since) {
		g.Since = since
	}
	if until.After(g.Until) {
		g.Until = until
	}
}
