package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// ErrTampered says that the audit trail is not as it was written.
var ErrTampered = errors.New("the audit trail was changed")

// Actions in the trail whose rows are held against what is stored.
const (
	actExpect   = "expect"
	actWithdraw = "expect-remove"
	actToken    = "token-create"
	actRevoke   = "token-revoke"
)

// auditHash chains a row to the one before it: the SHA-256 of a JSON list of the
// hash before it and its columns.
func auditHash(before string, r monitor.AuditRow) (string, error) {
	doc, err := json.Marshal([]any{before, r.N, micros(r.At), r.Actor, r.Action, r.Subject, string(r.Detail)})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:]), nil
}

// audit adds a row to the trail, in the transaction of the change.
func (w *writer) audit(actor, action, subject string, detail any) error {
	doc, err := json.Marshal(detail)
	if err != nil {
		return err
	}
	var before string
	row := monitor.AuditRow{At: w.now, Actor: actor, Action: action, Subject: subject, Detail: doc}
	err = w.tx.QueryRowContext(w.ctx, "SELECT n, hash FROM audit_head WHERE one = 1").Scan(&row.N, &before)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	row.N++
	if row.Hash, err = auditHash(before, row); err != nil {
		return err
	}
	if err := w.exec("INSERT INTO audit (n, at, actor, action, subject, detail, hash) VALUES ($1, $2, $3, $4, $5, $6, $7)", row.N, micros(row.At), row.Actor, row.Action, row.Subject, string(doc), row.Hash); err != nil {
		return err
	}
	return w.exec("INSERT INTO audit_head (one, n, hash) VALUES (1, $1, $2) ON CONFLICT (one) DO UPDATE SET n = excluded.n, hash = excluded.hash", row.N, row.Hash)
}

// Act writes down what a person has decided of something that is not in this file.
func (s *Store) Act(ctx context.Context, a monitor.Act, at time.Time) error {
	return s.write(ctx, "writing", func(tx *sql.Tx) error {
		w := s.writer(ctx, tx, at)
		return w.audit(a.By, a.Action, a.Subject, a.Detail)
	})
}

// EachAudit calls a function for each row of the audit trail, oldest first, from
// the nth on. subject, if not empty, is what it is about: a finding, an incident,
// an announcement or a token.
func (s *Store) EachAudit(ctx context.Context, from int64, subject string, do func(monitor.AuditRow) error) error {
	return s.eachAudit(ctx, s.db, from, subject, do)
}

func (s *Store) eachAudit(ctx context.Context, q querier, from int64, subject string, do func(monitor.AuditRow) error) error {
	rows, err := q.QueryContext(ctx, "SELECT n, at, actor, action, subject, detail, hash FROM audit WHERE n >= $1 AND ($2 = '' OR subject = $2) ORDER BY n", from, subject)
	if err != nil {
		return s.explain("reading", err)
	}
	defer rows.Close()
	for rows.Next() {
		var r monitor.AuditRow
		var at int64
		var detail string
		if err := rows.Scan(&r.N, &at, &r.Actor, &r.Action, &r.Subject, &detail, &r.Hash); err != nil {
			return s.explain("reading", err)
		}
		r.At, r.Detail = timeOf(at), json.RawMessage(detail)
		if err := do(r); err != nil {
			return err
		}
	}
	return s.explain("reading", rows.Err())
}

// VerifyAudit checks the whole trail and returns its head: no row was edited,
// removed or put in between, and what it speaks of is as its last rows say.
// known, if its N is not 0, is a head that was noted before: the trail must go on
// from it. Its error is ErrTampered, with what is wrong.
func (s *Store) VerifyAudit(ctx context.Context, known monitor.AuditHead) (head monitor.AuditHead, err error) {
	// All of it is read as of one moment: others may write meanwhile.
	err = s.snapshot(ctx, func(q querier) error {
		said := trailSays{}
		if head, err = s.verifyChain(ctx, q, known, said); err != nil {
			return err
		}
		return s.agree(ctx, q, said)
	})
	return head, err
}

// verifyChain checks the rows of the trail and gathers what they say.
func (s *Store) verifyChain(ctx context.Context, q querier, known monitor.AuditHead, said trailSays) (head monitor.AuditHead, err error) {
	err = s.eachAudit(ctx, q, 1, "", func(r monitor.AuditRow) error {
		if r.N != head.N+1 {
			return fmt.Errorf("%w: after row %d comes row %d", ErrTampered, head.N, r.N)
		}
		hash, err := auditHash(head.Hash, r)
		if err != nil {
			return err
		}
		if hash != r.Hash {
			return fmt.Errorf("%w: row %d (%s by %s, %s) does not have the hash that was written with it", ErrTampered, r.N, r.Action, r.Actor, r.At.Format(time.RFC3339))
		}
		head = monitor.AuditHead{N: r.N, Hash: r.Hash}
		if head.N == known.N && head.Hash != known.Hash {
			return fmt.Errorf("%w: row %d has hash %s, and was noted with %s", ErrTampered, head.N, head.Hash, known.Hash)
		}
		said.hear(r)
		return nil
	})
	if err != nil {
		return head, err
	}
	var n int64
	var hash string
	err = q.QueryRowContext(ctx, "SELECT n, hash FROM audit_head WHERE one = 1").Scan(&n, &hash)
	switch {
	case errors.Is(err, sql.ErrNoRows) && head.N == 0:
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return head, s.explain("reading", err)
	case n != head.N || hash != head.Hash:
		return head, fmt.Errorf("%w: it ends with row %d, and had %d", ErrTampered, head.N, n)
	}
	if known.N > head.N {
		return head, fmt.Errorf("%w: it ends with row %d, and was noted with %d", ErrTampered, head.N, known.N)
	}
	return head, nil
}
