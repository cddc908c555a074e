package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/internal/crash"
	"github.com/sigwarden/sigwarden/monitor"
)

// run is what is known of the program that follows logs with this file.
type run struct {
	begun    bool
	restored bool // the file is an older copy of itself
}

// markSuffix is behind the name of the state file: the last signed head of its
// ledger, so that an older copy of the state is noticed.
const markSuffix = "-ledger-mark"

// ErrMark says that the mark beside the state file cannot be used.
var ErrMark = errors.New("the mark of the ledger cannot be used")

// ErrOlderCopy says that the ledger does not go on from the mark beside it.
var ErrOlderCopy = errors.New("the state file is an older copy of itself")

// Begin writes down that the program begins to follow logs with a watchlist; followed says
// which of those that were followed before still are. It returns what was found to be lost, if the state file is an older copy of itself:
// something is, if its Lost has a size.
func (s *Store) Begin(ctx context.Context, watches []ledger.Rule, followed func(origin string) bool, at time.Time) (ledger.Restored, error) {
	hashes := make([]string, len(watches))
	for i, r := range watches {
		hashes[i] = r.Hash
	}
	var lost ledger.Restored
	err := s.write(ctx, "writing", func(tx *sql.Tx) error {
		w := s.writer(ctx, tx, at)
		h, found, err := s.ledgerHead(ctx, tx)
		if err != nil {
			return err
		}
		var lastSeen time.Time
		if found {
			lastSeen = h.seen
		}
		mark, err := s.readMark()
		if err != nil {
			return err
		}
		if lost, err = s.restored(ctx, tx, mark); err != nil {
			return err
		}
		if err := s.unfollowed(ctx, tx, at, followed); err != nil {
			return err
		}
		if err := s.wentDown(ctx, tx, at, lost.Lost.Size > 0); err != nil {
			return err
		}
		if lost.Lost.Size > 0 {
			if err := w.append(ledger.KindRestored, "", lost); err != nil {
				return err
			}
		}
		if err := w.append(ledger.KindStart, "", ledger.Start{Version: s.version, WatchSet: setHash(hashes), LastSeen: lastSeen}); err != nil {
			return err
		}
		return w.rules(watches, setHash(hashes))
	})
	if err == nil {
		s.run = run{begun: true, restored: lost.Lost.Size > 0}
	}
	return lost, err
}

// rules writes down how the watchlist was changed since it was recorded last.
func (w *writer) rules(now []ledger.Rule, set string) error {
	h, _, err := w.store.ledgerHead(w.ctx, w.tx)
	if err != nil {
		return err
	}
	old, err := h.watchList()
	if err != nil {
		return err
	}
	change := ledger.Rules{WatchSet: set}
	before := map[string]string{}
	for _, r := range old {
		before[r.Watch] = r.Hash
	}
	for _, r := range now {
		switch hash, was := before[r.Watch]; {
		case !was:
			change.Added = append(change.Added, r)
		case hash != r.Hash:
			change.Changed = append(change.Changed, ledger.ChangedRule{Watch: r.Watch, From: hash, To: r.Hash})
		}
		delete(before, r.Watch)
	}
	for _, r := range old {
		if _, left := before[r.Watch]; left {
			change.Removed = append(change.Removed, r)
		}
	}
	if len(change.Added)+len(change.Removed)+len(change.Changed) == 0 {
		return nil
	}
	doc, err := json.Marshal(now)
	if err != nil {
		return err
	}
	if err := w.exec("UPDATE ledger_head SET watches = $1 WHERE one = 1", string(doc)); err != nil {
		return err
	}
	return w.append(ledger.KindRules, "", change)
}

// readMark reads the mark beside the state file; empty: there is none.
func (s *Store) readMark() (string, error) {
	text, err := os.ReadFile(s.path + markSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %w", s.path+markSuffix, ErrMark, err)
	}
	return string(text), nil
}

// restored compares the ledger with a mark, which must have been read before the ledger is:
// others go on with both.
func (s *Store) restored(ctx context.Context, q querier, mark string) (out ledger.Restored, err error) {
	if mark == "" {
		return out, nil
	}
	body, _, _ := strings.Cut(mark, "\n\n")
	_, size, root, err := checkpoint.ParseText(body + "\n")
	if err != nil {
		return out, fmt.Errorf("%s: %w, so that it is not known whether the state is an older copy of itself: %w; look into it, and remove it to go on without", s.path+markSuffix, ErrMark, err)
	}
	h, _, err := s.ledgerHead(ctx, q)
	if err != nil {
		return out, err
	}
	if size <= h.chain.Size() {
		var known int
		if err := q.QueryRowContext(ctx, "SELECT COUNT(*) FROM ledger_signed WHERE size = $1 AND note = $2", size, mark).Scan(&known); err != nil {
			return out, s.explain("reading", err)
		}
		if known > 0 {
			return out, nil // it was signed here, and the rows are behind it
		}
		have, err := s.ledgerRoot(ctx, q, size)
		if err != nil || have == root {
			return out, err
		}
	}
	out = ledger.Restored{Kept: min(size, h.chain.Size()), Lost: ledger.Head{Size: size, Root: checkpoint.HexHash(root)}, Signed: mark}
	return out, nil
}

// End writes down that the program stops in good order. It leaves the spans as they are:
// a pass that is made every few minutes goes on with them.
func (s *Store) End(ctx context.Context, at time.Time) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		return s.writer(ctx, tx, at).append(ledger.KindStop, "", ledger.Stop{Version: s.version})
	})
}

// SignedHead is a signed head of the ledger.
type SignedHead struct {
	Size uint64
	At   time.Time
	Note string
	// Published says where it was put, as JSON; empty: nowhere.
	Published []byte
}

// SignLedger has the head of the ledger signed, unless it was, stores it, and leaves
// it as a mark beside the state file. Sign gets the origin and the text; ours reports
// whether a note was signed with the key of today.
func (s *Store) SignLedger(ctx context.Context, at time.Time, sign func(origin, text string) (note string, err error), ours func(note string) bool) (SignedHead, error) {
	mark, err := s.readMark()
	if err != nil {
		return SignedHead{}, err
	}
	h, found, err := s.ledgerHead(ctx, s.db)
	if err != nil || !found {
		return SignedHead{}, err
	}
	if !s.run.begun {
		// Only who begins to follow logs may go on from an older copy: it says so first.
		lost, err := s.restored(ctx, s.db, mark)
		if err != nil {
			return SignedHead{}, err
		}
		if lost.Lost.Size > 0 {
			return SignedHead{}, fmt.Errorf("state file %s: %w: it was restored from a backup, or is another one; `sigwarden run` writes that down, and nothing is signed before", s.path, ErrOlderCopy)
		}
	}
	head, err := s.LastSigned(ctx)
	if err != nil {
		return head, err
	}
	if head.Size != h.chain.Size() || !ours(head.Note) {
		origin := ledger.Origin(h.id)
		note, err := sign(origin, ledger.HeadText(origin, h.chain.Size(), h.chain.Root()))
		if err != nil {
			return head, err
		}
		head = SignedHead{Size: h.chain.Size(), At: at, Note: note}
		if err := s.write(ctx, "writing", func(tx *sql.Tx) error {
			return s.writer(ctx, tx, at).exec("INSERT INTO ledger_signed (size, at, note, published) VALUES ($1, $2, $3, '') ON CONFLICT (size) DO UPDATE SET note = excluded.note, at = excluded.at", head.Size, micros(at), note)
		}); err != nil {
			return head, err
		}
	}
	// Others may do the same at once: the lock on the state is that on the mark.
	return head, s.write(ctx, "writing", func(*sql.Tx) error { return s.mark(head.Note, ours) })
}

// mark replaces the mark beside the state file by one that is further on; a crash leaves
// the old one or the new.
func (s *Store) mark(note string, ours func(string) bool) error {
	path := s.path + markSuffix
	if old, err := os.ReadFile(path); err == nil && (string(old) == note || !s.run.restored && rowsOf(string(old)) >= rowsOf(note) && ours(string(old))) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return s.notWritable(err)
	}
	_, err = f.WriteString(note)
	if err = errors.Join(err, OwnAs(f.Name(), s.path), f.Sync(), f.Close()); err == nil {
		crash.Before("the mark of the ledger")
		err = os.Rename(f.Name(), path)
		crash.After("the mark of the ledger")
	}
	if err != nil {
		os.Remove(f.Name())
		if errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("%s: %s (%w)", path, diskFull, err)
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// rowsOf is how many rows a signed head speaks of.
func rowsOf(note string) uint64 {
	text, _, _ := strings.Cut(note, "\n\n")
	_, size, _, _ := checkpoint.ParseText(text + "\n")
	return size
}

// LastSigned returns the newest signed head; the zero value: none.
func (s *Store) LastSigned(ctx context.Context) (h SignedHead, err error) {
	var at int64
	var published string
	err = s.db.QueryRowContext(ctx, "SELECT size, at, note, published FROM ledger_signed ORDER BY size DESC LIMIT 1").Scan(&h.Size, &at, &h.Note, &published)
	if errors.Is(err, sql.ErrNoRows) {
		return SignedHead{}, nil
	}
	h.At, h.Published = timeOf(at), []byte(published)
	return h, s.explain("reading", err)
}

// LogNote returns a signed checkpoint that was kept of a log, and the log's id in the
// store; ErrNotFound.
func (s *Store) LogNote(ctx context.Context, origin string, head ledger.Head) (note, logID string, err error) {
	states, err := s.States(ctx)
	if err != nil {
		return "", "", err
	}
	for id, st := range states {
		if ledger.LogKey(st.Origin) != ledger.LogKey(origin) {
			continue
		}
		err := s.db.QueryRowContext(ctx, "SELECT note FROM notes WHERE log_id = $1 AND size = $2 AND root = $3", id, head.Size, hexOf(head.Root)).Scan(&note)
		if err == nil {
			return note, id, nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return "", "", s.explain("reading", err)
		}
	}
	return "", "", fmt.Errorf("checkpoint of size %d of log %s: %w", head.Size, origin, ErrNotFound)
}

// trustChanged writes down that another root came into force.
func (w *writer) trustChanged(root *monitor.TrustRoot) error {
	var before string
	err := w.tx.QueryRowContext(w.ctx, "SELECT hash FROM trust_sources WHERE source = $1", root.Source).Scan(&before)
	if err != nil && !errors.Is(err, sql.ErrNoRows) || before == root.Hash() {
		return err
	}
	return w.append(ledger.KindTrust, "", ledger.Trust{Source: root.Source, From: before, To: root.Hash()})
}

// Published notes that a signed head is in a log, in the ledger too.
func (s *Store) Published(ctx context.Context, head SignedHead, done ledger.Published, at time.Time) error {
	doc, err := json.Marshal(done)
	if err != nil {
		return err
	}
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		w := s.writer(ctx, tx, at)
		if err := w.exec("UPDATE ledger_signed SET published = $1, published_at = $2 WHERE size = $3", string(doc), micros(at), head.Size); err != nil {
			return err
		}
		return w.append(ledger.KindPublished, done.Origin, done)
	})
}

// PublishTried notes that a head was sent to a log, which did not prove that it has it.
func (s *Store) PublishTried(ctx context.Context, head SignedHead, at time.Time) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		return s.writer(ctx, tx, at).exec("UPDATE ledger_signed SET published_at = $1 WHERE size = $2", micros(at), head.Size)
	})
}

// LastPublished returns when a head was put into a log last, or that was tried; zero: never.
func (s *Store) LastPublished(ctx context.Context) (time.Time, error) {
	var at sql.NullInt64
	err := s.db.QueryRowContext(ctx, "SELECT MAX(published_at) FROM ledger_signed").Scan(&at)
	return timeOrZero(at), s.explain("reading", err)
}
