package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
)

// ledgerHead is where the ledger stands.
type ledgerHead struct {
	id      string
	chain   ledger.Chain
	watches string
	seen    time.Time
}

func (s *Store) ledgerHead(ctx context.Context, q querier) (h ledgerHead, found bool, err error) {
	var size, seen int64
	var last string
	var peaks []byte
	err = q.QueryRowContext(ctx, "SELECT id, size, last, peaks, watches, seen FROM ledger_head WHERE one = 1").Scan(&h.id, &size, &last, &peaks, &h.watches, &seen)
	if errors.Is(err, sql.ErrNoRows) {
		return h, false, nil
	}
	if err != nil {
		return h, false, s.explain("reading", err)
	}
	var hash checkpoint.HexHash
	var list []checkpoint.Hash
	for ; len(peaks) >= checkpoint.HashSize; peaks = peaks[checkpoint.HashSize:] {
		list = append(list, checkpoint.Hash(peaks[:checkpoint.HashSize]))
	}
	tree, err := checkpoint.NewFrontier(uint64(size), list)
	if err := errors.Join(err, hash.UnmarshalText([]byte(last))); err != nil {
		return h, false, fmt.Errorf("state file %s: %w: its head cannot be read: %w", s.path, ledger.ErrTampered, err)
	}
	h.chain, h.seen = ledger.Resume(checkpoint.Hash(hash), tree), timeOf(seen)
	return h, true, nil
}

// append adds rows to the ledger, in the transaction of what they tell of.
func (w *writer) append(kind, log string, body any) error {
	h, found, err := w.store.ledgerHead(w.ctx, w.tx)
	if err != nil {
		return err
	}
	if !found {
		var id [8]byte
		rand.Read(id[:])
		h.id = hex.EncodeToString(id[:])
		h.watches = "null"
		if err := w.exec("INSERT INTO ledger_head (one, id, size, last, peaks, watches, seen) VALUES (1, $1, 0, '', x'', 'null', $2)", h.id, micros(w.now)); err != nil {
			return err
		}
		if err := w.row(&h.chain, ledger.KindBegin, "", ledger.Begin{ID: h.id, Version: w.store.version}); err != nil {
			return err
		}
	}
	if err := w.row(&h.chain, kind, log, body); err != nil {
		return err
	}
	var peaks []byte
	for _, p := range h.chain.Tree().Peaks() {
		peaks = append(peaks, p[:]...)
	}
	return w.exec("UPDATE ledger_head SET size = $1, last = $2, peaks = $3, seen = $4 WHERE one = 1", h.chain.Size(), hexOf(checkpoint.HexHash(h.chain.Last)), peaks, micros(w.now))
}

func (w *writer) row(chain *ledger.Chain, kind, log string, body any) error {
	r, err := ledger.New(chain.Size(), chain.Last, w.now, kind, log, body)
	if err != nil {
		return err
	}
	line, err := r.Print()
	if err != nil {
		return err
	}
	if _, err := chain.Add(line); err != nil {
		return err
	}
	return w.exec("INSERT INTO ledger (n, at, kind, log, line) VALUES ($1, $2, $3, $4, $5)", r.N, micros(r.At), kind, log, string(line))
}

// EachLedgerRow calls a function with the bytes of each row in [from, to).
func (s *Store) EachLedgerRow(ctx context.Context, from, to uint64, do func(line []byte) error) error {
	return s.eachLedgerRow(ctx, s.db, from, to, do)
}

func (s *Store) eachLedgerRow(ctx context.Context, q querier, from, to uint64, do func(line []byte) error) error {
	const most = 1 << 62
	rows, err := q.QueryContext(ctx, "SELECT line FROM ledger WHERE n >= $1 AND n < $2 ORDER BY n", min(from, most), min(to, most))
	if err != nil {
		return s.explain("reading", err)
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return s.explain("reading", err)
		}
		if err := do([]byte(line)); err != nil {
			return err
		}
	}
	return s.explain("reading", rows.Err())
}

// VerifyLedger checks every row of the ledger, and that it goes on from heads that
// were noted or signed before, and returns its id and its chain. Its errors wrap
// ledger.ErrTampered.
func (s *Store) VerifyLedger(ctx context.Context, known ...ledger.Head) (id string, chain ledger.Chain, err error) {
	err = s.snapshot(ctx, func(q querier) error {
		h, found, err := s.ledgerHead(ctx, q)
		if err != nil || !found && len(known) == 0 {
			return err
		}
		if err := s.eachLedgerRow(ctx, q, 0, 1<<62, func(line []byte) error {
			if _, err := chain.Add(line); err != nil {
				return err
			}
			for _, k := range known {
				if k.Size == chain.Size() && checkpoint.Hash(k.Root) != chain.Root() {
					return fmt.Errorf("%w: its first %d rows have root %x, and were noted with %x", ledger.ErrTampered, k.Size, chain.Root(), k.Root[:])
				}
			}
			return nil
		}); err != nil {
			return err
		}
		if chain.Last != h.chain.Last || chain.Size() != h.chain.Size() || chain.Root() != h.chain.Root() {
			return fmt.Errorf("%w: it has %d rows, and its head speaks of %d", ledger.ErrTampered, chain.Size(), h.chain.Size())
		}
		for _, k := range known {
			if k.Size > chain.Size() {
				return fmt.Errorf("%w: it has %d rows, and was noted with %d", ledger.ErrTampered, chain.Size(), k.Size)
			}
		}
		id = h.id
		return nil
	})
	return id, chain, err
}

// ledgerRoot returns the root of the tree over the first rows.
func (s *Store) ledgerRoot(ctx context.Context, q querier, size uint64) (checkpoint.Hash, error) {
	var f checkpoint.Frontier
	err := s.eachLedgerRow(ctx, q, 0, size, func(line []byte) error {
		f = f.Append(checkpoint.LeafHash(line))
		return nil
	})
	return f.Root(), err
}

// LedgerPath returns the inclusion proof of a row in the tree over the first size
// rows (RFC 6962), leaf side first.
func (s *Store) LedgerPath(ctx context.Context, n, size uint64) ([]checkpoint.Hash, error) {
	var path []checkpoint.Hash
	var hashes []checkpoint.Hash
	err := s.eachLedgerRow(ctx, s.db, 0, size, func(line []byte) error {
		hashes = append(hashes, checkpoint.LeafHash(line))
		return nil
	})
	if err != nil {
		return nil, err
	}
	if n >= size || uint64(len(hashes)) != size {
		return nil, fmt.Errorf("ledger has no row %d among %d", n, size)
	}
	path, err = checkpoint.PathOver(hashes, n)
	return path, err
}

// KeepRules stores what rules say, by their hashes.
func (s *Store) KeepRules(ctx context.Context, documents map[string][]byte) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		w := s.writer(ctx, tx, s.now())
		for hash, doc := range documents {
			if err := w.exec("INSERT INTO rules (hash, document) VALUES ($1, $2) ON CONFLICT DO NOTHING", hash, string(doc)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Rule returns what a rule said, by its hash; ErrNotFound.
func (s *Store) Rule(ctx context.Context, hash string) ([]byte, error) {
	var doc string
	err := s.db.QueryRowContext(ctx, "SELECT document FROM rules WHERE hash = $1", hash).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("rule %s: %w", hash, ErrNotFound)
	}
	return []byte(doc), s.explain("reading", err)
}

// watchList is the recorded watchlist.
func (h *ledgerHead) watchList() (list []ledger.Rule, err error) {
	err = json.Unmarshal([]byte(h.watches), &list)
	return list, err
}
