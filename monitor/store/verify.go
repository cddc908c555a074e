package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
)

// Verify holds what is stored of logs and findings against what proves it: SQLite has no sums of its pages,
// so that a bit which flips within a value leaves a sound file (Check). It reads all of that as of one moment, one
// finding at a time, and keeps nobody from writing. The ledger and the audit trail have chains of their own
// (VerifyLedger, VerifyAudit); what people and rules say of a finding, nothing proves.
func (s *Store) Verify(ctx context.Context) error {
	return s.snapshot(ctx, func(q querier) error {
		states, err := s.states(ctx, q)
		if err != nil {
			return err
		}
		for _, id := range slices.Sorted(maps.Keys(states)) {
			if err := verifyState(states[id]); err != nil {
				return fmt.Errorf("state file %s is damaged: what it knows of log %s does not fit together: %w", s.path, id, err)
			}
			if err := s.verifyRanges(ctx, q, id, states[id].HeadSize); err != nil {
				return err
			}
		}
		return s.verifyFindings(ctx, q)
	})
}

func (s *Store) verifyFindings(ctx context.Context, q querier) error {
	rows, err := q.QueryContext(ctx, "SELECT f.id, f.document, f.leaf, f.proof, n.note FROM findings f LEFT JOIN notes n ON n.log_id = f.log_id AND n.size = f.size AND n.root = f.root ORDER BY f.id")
	if err != nil {
		return s.explain("reading", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, doc string
		var leaf, proof []byte
		var signed sql.NullString
		if err := rows.Scan(&id, &doc, &leaf, &proof, &signed); err != nil {
			return s.explain("reading", err)
		}
		if err := verifyFinding(doc, leaf, proof, signed.String); err != nil {
			return fmt.Errorf("state file %s is damaged: finding %s: %w", s.path, id, err)
		}
	}
	return s.explain("reading", rows.Err())
}

// verifyState holds the head of a log against the hashes that are kept of its tree.
func verifyState(st monitor.State) error {
	if st.Head == "" {
		return nil
	}
	size, root, err := treeOf(st.Head)
	if err != nil {
		return fmt.Errorf("its head: %w", err)
	}
	if size != st.HeadSize {
		return fmt.Errorf("its head is of size %d, and %d is noted", size, st.HeadSize)
	}
	if st.Scanned > size {
		return fmt.Errorf("%d of its %d entries were read", st.Scanned, size)
	}
	scanned, err := frontierOf(st.Scanned, st.Peaks)
	if err != nil {
		return fmt.Errorf("what was read of it: %w", err)
	}
	if st.Scanned == size && scanned.Root() != root {
		return fmt.Errorf("the hashes of what was read do not fold to the root of size %d", size)
	}
	if len(st.HeadPeaks) > 0 {
		head, err := frontierOf(size, st.HeadPeaks)
		if err != nil {
			return fmt.Errorf("the hashes of its head: %w", err)
		}
		if head.Root() != root {
			return fmt.Errorf("the hashes of its head do not fold to the root of size %d", size)
		}
	}
	return nil
}

// treeOf reads a note whose signature was verified when it was stored.
func treeOf(note string) (size uint64, root checkpoint.Hash, err error) {
	text, _, _ := strings.Cut(note, "\n\n")
	_, size, root, err = checkpoint.ParseText(text + "\n")
	return size, root, err
}

func frontierOf(size uint64, peaks []checkpoint.HexHash) (checkpoint.Frontier, error) {
	list := make([]checkpoint.Hash, len(peaks))
	for i, p := range peaks {
		list[i] = checkpoint.Hash(p)
	}
	return checkpoint.NewFrontier(size, list)
}

// verifyRanges: what was read, and what could not be, is of the tree.
func (s *Store) verifyRanges(ctx context.Context, q querier, id string, size uint64) error {
	for _, table := range []string{"coverage", "gaps"} {
		var from, to int64
		err := q.QueryRowContext(ctx, "SELECT from_idx, to_idx FROM "+table+" WHERE log_id = $1 AND (from_idx >= to_idx OR to_idx > $2 OR from_idx < 0) LIMIT 1", id, int64(size)).Scan(&from, &to)
		switch {
		case err == nil:
			return fmt.Errorf("state file %s is damaged: %s of log %s has [%d, %d), and its tree has %d entries", s.path, table, id, from, to, size)
		case !errors.Is(err, sql.ErrNoRows):
			return s.explain("reading", err)
		}
	}
	return nil
}

// verifyFinding holds a finding against its leaf, and the leaf against the checkpoint that it was proven under.
func verifyFinding(doc string, leaf, proof []byte, signed string) error {
	var f monitor.Finding
	if err := json.Unmarshal([]byte(doc), &f); err != nil {
		return err
	}
	hash := checkpoint.LeafHash(leaf)
	if checkpoint.HexHash(hash) != f.LeafHash {
		return errors.New("its leaf is not the one that was found")
	}
	size, root, err := treeOf(signed)
	if err != nil {
		return fmt.Errorf("its checkpoint: %w", err)
	}
	if len(proof) == 0 && size > 1 {
		return nil // the log has served no proof of it
	}
	if len(proof)%checkpoint.HashSize != 0 {
		return fmt.Errorf("its proof has %d bytes", len(proof))
	}
	var path []checkpoint.Hash
	for part := range slices.Chunk(proof, checkpoint.HashSize) {
		path = append(path, checkpoint.Hash(part))
	}
	return checkpoint.VerifyInclusion(size, root, f.Index, hash, path)
}
