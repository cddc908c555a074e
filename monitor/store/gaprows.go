package store

import (
	"slices"

	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/monitor"
)

// gapRows writes down which entries are missing from now on, or for another reason, and
// which were read after all. It is called before the gaps are changed.
func (w *writer) gapRows(b monitor.Batch) error {
	if len(b.SetGaps)+len(b.FilledGaps) == 0 {
		return nil
	}
	st, _, err := w.state()
	if err != nil {
		return err
	}
	before := b.FilledGaps
	for _, g := range b.SetGaps {
		there, err := w.gapsWithin(g.Range)
		if err != nil {
			return err
		}
		for _, o := range there {
			if !slices.ContainsFunc(before, func(f monitor.Gap) bool { return f.From == o.From }) {
				before = append(before[:len(before):len(before)], o)
			}
		}
	}
	for _, g := range before {
		if !removed(b, g) {
			continue
		}
		left := []ledger.Range{ledger.Range(g.Range)}
		for _, o := range b.SetGaps {
			left = without(left, ledger.Range(o.Range))
		}
		for _, r := range left {
			if err := w.append(ledger.KindFilled, st.Origin, ledger.Gap{Range: r, Reason: g.Reason}); err != nil {
				return err
			}
		}
	}
	for _, g := range b.SetGaps {
		fresh := []ledger.Range{ledger.Range(g.Range)}
		for _, o := range before {
			if o.Reason == g.Reason {
				fresh = without(fresh, ledger.Range(o.Range))
			}
		}
		for _, r := range fresh {
			if err := w.append(ledger.KindGap, st.Origin, ledger.Gap{Range: r, Reason: g.Reason}); err != nil {
				return err
			}
		}
	}
	return nil
}

// removed reports whether a gap is not there any more as it was.
func removed(b monitor.Batch, g monitor.Gap) bool {
	same := func(o monitor.Gap) bool { return o.From == g.From }
	return slices.ContainsFunc(b.FilledGaps, same) || slices.ContainsFunc(b.SetGaps, same)
}

// gapsWithin returns the gaps that are there and share entries with a range.
func (w *writer) gapsWithin(r monitor.Range) (out []monitor.Gap, err error) {
	rows, err := w.tx.QueryContext(w.ctx, "SELECT from_idx, to_idx, reason FROM gaps WHERE log_id = $1 AND from_idx < $2 AND to_idx > $3", w.logID, r.To, r.From)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var g monitor.Gap
		if err := rows.Scan(&g.From, &g.To, &g.Reason); err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, rows.Err()
}

// without takes a range out of others.
func without(list []ledger.Range, r ledger.Range) (out []ledger.Range) {
	for _, o := range list {
		if r.To <= o.From || o.To <= r.From {
			out = append(out, o)
			continue
		}
		if o.From < r.From {
			out = append(out, ledger.Range{From: o.From, To: r.From})
		}
		if r.To < o.To {
			out = append(out, ledger.Range{From: r.To, To: o.To})
		}
	}
	return out
}
