package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
)

// Witness keeps what a witness has promised, in a file of its own: it must not wait for
// scans, and its file and that of the monitor show it when one of them alone was
// restored from an older copy. Promises are committed in groups:
//
//	requests ─ Advance ─> queue ─> one goroutine: all that wait in one transaction
type Witness struct {
	store *Store
	queue chan *promise
	done  chan struct{}
	stop  sync.Once
}

var _ witness.Store = (*Witness)(nil)

// promise is an Advance that waits for its commit.
type promise struct {
	origin    string
	old, next witness.State
	result    chan error
}

const (
	// maxGroup bounds the promises of one transaction.
	maxGroup = 512
	// maxRejected bounds the requests that are kept of one log.
	maxRejected = 4
	// witnessSuffix is behind the name of the state file.
	witnessSuffix = "-witness"
)

// OpenWitness opens the file of a witness beside a state file, exclusively, and makes it if
// it does not exist and opts say so. A second process that opens it gets ErrLocked.
func OpenWitness(ctx context.Context, statePath string, opts Options) (*Witness, error) {
	opts.Exclusive, opts.schema = true, "witness"
	s, err := Open(ctx, statePath+witnessSuffix, opts)
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	w := &Witness{store: s, queue: make(chan *promise, maxGroup), done: make(chan struct{})}
	go w.commit()
	return w, nil
}

// Created reports whether the file was made just now.
func (w *Witness) Created() bool { return w.store.Created }

// Close waits for what is being committed. No method may be called after that.
func (w *Witness) Close() error {
	w.stop.Do(func() { close(w.queue) })
	<-w.done
	return w.store.Close()
}

// State returns what was promised of a log.
func (w *Witness) State(ctx context.Context, origin string) (witness.State, error) {
	var s witness.State
	var root, note string
	err := w.store.db.QueryRowContext(ctx, "SELECT size, root, note, at, doubt FROM promises WHERE origin = $1", origin).Scan(&s.Size, &root, &note, &s.At, &s.Doubt)
	if errors.Is(err, sql.ErrNoRows) {
		return s, nil
	}
	if err != nil || root == "" {
		return s, w.store.explain("reading", err)
	}
	raw, err := hex.DecodeString(root)
	if err != nil || len(raw) != checkpoint.HashSize {
		return s, fmt.Errorf("state file %s: the root of %q is damaged", w.store.path, origin)
	}
	s.Root, s.Note = checkpoint.Hash(raw), []byte(note)
	return s, nil
}

// Last returns the time of the newest cosignature of any log, in seconds since 1970; 0:
// there is none.
func (w *Witness) Last(ctx context.Context) (int64, error) {
	var at int64
	err := w.store.db.QueryRowContext(ctx, "SELECT COALESCE(MAX(at), 0) FROM promises").Scan(&at)
	return at, w.store.explain("reading", err)
}

// WitnessMark returns the newest time of a cosignature that the monitor's state knows of;
// 0: of none. The witness's own file must know of it too.
func (s *Store) WitnessMark(ctx context.Context) (int64, error) {
	var at int64
	err := s.db.QueryRowContext(ctx, "SELECT COALESCE(MAX(at), 0) FROM witness_mark").Scan(&at)
	return at, s.explain("reading", err)
}

// SetWitnessMark raises it; nothing is written if it is known.
func (s *Store) SetWitnessMark(ctx context.Context, at int64) error {
	if known, err := s.WitnessMark(ctx); err != nil || known >= at {
		return err
	}
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO witness_mark (one, at) VALUES (1, $1) ON CONFLICT (one) DO UPDATE SET at = MAX(at, excluded.at)", at)
		return err
	})
}

// ForgetWitnessMark lets the witness go on with the state that it has.
func (s *Store) ForgetWitnessMark(ctx context.Context) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM witness_mark")
		return err
	})
}

// Advance implements witness.Store.
func (w *Witness) Advance(ctx context.Context, origin string, old, next witness.State) error {
	p := &promise{origin, old, next, make(chan error, 1)}
	select {
	case w.queue <- p:
	case <-ctx.Done():
		return ctx.Err()
	}
	// It is in the queue, and will be done: what came of it is to be known.
	return <-p.result
}

// commit commits what waits, all of it at a time.
func (w *Witness) commit() {
	defer close(w.done)
	for first := range w.queue {
		group := []*promise{first}
	gather:
		for len(group) < maxGroup {
			select {
			case p, ok := <-w.queue:
				if !ok {
					break gather
				}
				group = append(group, p)
			default:
				break gather
			}
		}
		results := make([]error, len(group))
		err := w.store.write(context.Background(), "writing", func(tx *sql.Tx) error { return w.promise(tx, group, results) })
		for i, p := range group {
			if err != nil {
				results[i] = err
			}
			p.result <- results[i]
		}
	}
}

// promise writes a group. What is in conflict is no fault of the others.
func (w *Witness) promise(tx *sql.Tx, group []*promise, results []error) error {
	// The compare-and-swap: it takes effect on the one row that is as it was read.
	const update = "UPDATE promises SET size = $1, root = $2, note = $3, at = $4 WHERE origin = $5 AND size = $6 AND root = $7 AND at <= $4 AND size <= $1 AND doubt = ''"
	const insert = "INSERT INTO promises (origin, size, root, note, at, doubt) VALUES ($1, $2, $3, $4, $5, '') ON CONFLICT (origin) DO NOTHING"
	for i, p := range group {
		root := hexOf(checkpoint.HexHash(p.next.Root))
		var res sql.Result
		var err error
		if p.old.Note == nil {
			res, err = tx.Exec(insert, p.origin, p.next.Size, root, string(p.next.Note), p.next.At)
		} else {
			res, err = tx.Exec(update, p.next.Size, root, string(p.next.Note), p.next.At, p.origin, p.old.Size, hexOf(checkpoint.HexHash(p.old.Root)))
		}
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		if n != 1 {
			results[i] = witness.ErrConflict
		}
	}
	return nil
}

// Doubt implements witness.Store.
func (w *Witness) Doubt(ctx context.Context, origin, reason string, floor witness.State) error {
	root := ""
	if floor.Note != nil {
		root = hexOf(checkpoint.HexHash(floor.Root))
	}
	return w.store.write(ctx, "writing", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO promises (origin, size, root, note, at, doubt) VALUES ($1, 0, '', '', 0, $2) ON CONFLICT (origin) DO UPDATE SET doubt = CASE WHEN promises.doubt = '' THEN excluded.doubt ELSE promises.doubt END", origin, reason); err != nil || root == "" {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE promises SET floor_size = $1, floor_root = $2, floor_note = $3 WHERE origin = $4 AND (floor_root = '' OR floor_size < $1)", floor.Size, root, string(floor.Note), origin); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE promises SET floor_at = $1 WHERE origin = $2 AND floor_at < $1", floor.At, origin)
		return err
	})
}

// Trust ends the doubt about a log: a person has looked. Nothing smaller or earlier is
// signed from then on than what is known to have been promised.
func (w *Witness) Trust(ctx context.Context, origin string) error {
	return w.store.write(ctx, "writing", func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "UPDATE promises SET doubt = '' WHERE origin = $1 AND doubt <> ''", origin)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return cmp.Or(err, fmt.Errorf("log %q: %w, or is not doubted", origin, ErrNotFound))
		}
		for _, statement := range []string{
			"UPDATE promises SET size = floor_size, root = floor_root, note = floor_note WHERE origin = $1 AND floor_root <> '' AND floor_size >= size",
			"UPDATE promises SET at = floor_at WHERE origin = $1 AND floor_at > at",
			"UPDATE promises SET floor_size = 0, floor_root = '', floor_note = '', floor_at = 0 WHERE origin = $1",
			"DELETE FROM promises WHERE origin = $1 AND root = ''",
		} {
			if _, err := tx.ExecContext(ctx, statement, origin); err != nil {
				return err
			}
		}
		return nil
	})
}

// Promised is one log that was co-signed.
type Promised struct {
	Origin string    `json:"origin"`
	Size   uint64    `json:"size"`
	Root   string    `json:"root"`
	At     time.Time `json:"at"`
	Doubt  string    `json:"doubt,omitempty"`
}

// All returns what was promised of every log, in the order of origins.
func (w *Witness) All(ctx context.Context) ([]Promised, error) {
	rows, err := w.store.db.QueryContext(ctx, "SELECT origin, size, root, at, doubt FROM promises ORDER BY origin")
	if err != nil {
		return nil, w.store.explain("reading", err)
	}
	defer rows.Close()
	out := []Promised{}
	for rows.Next() {
		var p Promised
		var at int64
		if err := rows.Scan(&p.Origin, &p.Size, &p.Root, &at, &p.Doubt); err != nil {
			return nil, w.store.explain("reading", err)
		}
		p.At = time.Unix(at, 0).UTC()
		out = append(out, p)
	}
	return out, w.store.explain("reading", rows.Err())
}

// Reject keeps a request of which the proof did not verify: the newest few of each log.
// Only requests with a checkpoint that the log has signed come this far.
func (w *Witness) Reject(ctx context.Context, origin string, request []byte, at time.Time) error {
	return w.store.write(ctx, "writing", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO rejected (origin, at, request) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", origin, micros(at), request); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM rejected WHERE origin = $1 AND at NOT IN (SELECT at FROM rejected WHERE origin = $1 ORDER BY at DESC LIMIT $2)", origin, maxRejected)
		return err
	})
}

// Listed is a log that a list has named.
type Listed struct {
	witness.Listed
	Source   string
	Disabled string // why a person has taken it out
}

// AddListed adds logs that a list names, and returns how many are new, and which it
// gives another key, or another name, than the list that came first: those stay as they
// are, as do those that a person has taken out.
func (w *Witness) AddListed(ctx context.Context, source string, logs []witness.Listed, at time.Time) (added int, changed []string, err error) {
	err = w.store.write(ctx, "writing", func(tx *sql.Tx) error {
		added, changed = 0, nil
		for _, l := range logs {
			var key string
			err := tx.QueryRowContext(ctx, "SELECT key FROM listed WHERE origin = $1", l.Origin).Scan(&key)
			switch {
			case err == nil && key != l.Key:
				changed = append(changed, l.Origin)
				continue
			case err == nil:
				continue
			case !errors.Is(err, sql.ErrNoRows):
				return err
			}
			if _, err := tx.ExecContext(ctx, "INSERT INTO listed (origin, key, per_day, contact, source, added_at, disabled) VALUES ($1, $2, $3, $4, $5, $6, '')", l.Origin, l.Key, l.PerDay, l.Contact, source, micros(at)); err != nil {
				return err
			}
			added++
		}
		return nil
	})
	return added, changed, err
}

// ListedLogs returns all logs that lists have named, in the order of origins.
func (w *Witness) ListedLogs(ctx context.Context) ([]Listed, error) {
	rows, err := w.store.db.QueryContext(ctx, "SELECT origin, key, per_day, contact, source, disabled FROM listed ORDER BY origin")
	if err != nil {
		return nil, w.store.explain("reading", err)
	}
	defer rows.Close()
	var out []Listed
	for rows.Next() {
		var l Listed
		if err := rows.Scan(&l.Origin, &l.Key, &l.PerDay, &l.Contact, &l.Source, &l.Disabled); err != nil {
			return nil, w.store.explain("reading", err)
		}
		out = append(out, l)
	}
	return out, w.store.explain("reading", rows.Err())
}

// Disable takes a listed log out; with an empty reason it puts it back.
func (w *Witness) Disable(ctx context.Context, origin, reason string) error {
	return w.store.write(ctx, "writing", func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "UPDATE listed SET disabled = $1 WHERE origin = $2", reason, origin)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return cmp.Or(err, fmt.Errorf("log %q: %w on any list", origin, ErrNotFound))
		}
		return nil
	})
}

// ReadWitness returns what the witness beside a state file has promised; ErrMissing if
// there is no such file.
func ReadWitness(ctx context.Context, statePath string) ([]Promised, error) {
	s, err := Open(ctx, statePath+witnessSuffix, Options{schema: "witness"})
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	defer s.Close()
	return (&Witness{store: s}).All(ctx)
}
