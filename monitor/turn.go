package monitor

import (
	"context"
	"fmt"
	"maps"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// turn is one poll: the state before and after it, and what it records.
type turn struct {
	desk
	old, next State
	batch     Batch
	out       *Outcome
	archived  []Pending // checkpoints that could not be judged yet
	hold      bool      // what is judged is not to be believed, whatever comes of that
}

func (r *runner) newTurn(ctx context.Context, out *Outcome) (*turn, error) {
	old, err := r.opts.Store.State(ctx, r.cfg.ID)
	if err != nil {
		return nil, err
	}
	open, err := r.opts.Store.OpenIncidents(ctx, r.cfg.ID)
	if err != nil {
		return nil, err
	}
	t := &turn{old: old, next: old, out: out}
	t.desk = desk{runner: r, now: r.opts.Now(), open: open, batch: &t.batch}
	t.next.Origin, t.next.Name, t.next.Family = r.way().Log.Origin(), r.cfg.Name, r.cfg.Family
	t.next.Type, t.next.URL, t.next.Keys = r.cfg.Type, r.way().URL, r.way().Keys
	t.next.Streaks = maps.Clone(old.Streaks)
	if t.next.Streaks == nil {
		t.next.Streaks = map[string]Streak{}
	}
	t.next.Kinds = maps.Clone(old.Kinds)
	t.streaks, t.flaps = t.next.Streaks, map[string]int{}
	for _, inc := range open {
		if incidentKind(inc.Kind).Flaps {
			if t.flaps[inc.Kind], err = r.opts.Store.OpenedSince(ctx, r.cfg.ID, inc.Kind, t.now.Add(-flapsWithin)); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// commit stores the turn, if it changed anything.
func (t *turn) commit(ctx context.Context) error {
	t.out.Head, t.out.Scanned, t.out.Halted = t.next.HeadSize, t.next.Scanned, t.next.Halted
	if t.old.Version != 0 && string(marshal(t.old)) == string(marshal(t.next)) && t.batch.empty() {
		return nil
	}
	ctx, span := tracer.Start(ctx, "commit", trace.WithAttributes(logName.String(t.cfg.Name), attribute.Int("sigwarden.findings", len(t.batch.Findings)), attribute.Int("sigwarden.incidents", len(t.batch.Open))))
	recorded, err := t.opts.Store.Commit(ctx, t.cfg.ID, t.old, &t.next, t.batch)
	endSpan(span, err)
	if err != nil {
		return fmt.Errorf("storing the state of the log: %w", err)
	}
	t.progress.Add(1)
	t.count(t.batch, recorded, t.out)
	t.say()
	if t.opts.Wake != nil && t.batch.delivers() {
		t.opts.Wake()
	}
	return nil
}

// count books what was new.
func (r *runner) count(b Batch, rec Recorded, out *Outcome) {
	fresh := make(map[string]bool, len(rec.Findings))
	for _, id := range rec.Findings {
		fresh[id] = true
	}
	out.Otherwise += rec.Otherwise
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(fresh) > 0 {
		r.Kick() // there may be a new deadline, or the end of a silence
	}
	for _, f := range b.Findings {
		if !fresh[f.ID] {
			continue
		}
		out.Findings++
		if f.State == StateOpen {
			out.Notifying++
		}
		r.metrics.Findings[[2]string{f.Watch, string(f.Verdict)}]++
	}
}

func (b *Batch) empty() bool {
	return len(b.Findings)+len(b.Open)+len(b.Update)+len(b.Resolve)+len(b.Tiles)+len(b.Coverage)+len(b.SetGaps)+len(b.FilledGaps)+
		len(b.Pending)+len(b.Judged)+len(b.Collect)+len(b.Acts) == 0 && !b.Reset
}

func (b *Batch) delivers() bool {
	for _, f := range b.Findings {
		if f.State == StateOpen && len(f.Channels) > 0 {
			return true
		}
	}
	return len(b.Open)+len(b.Update)+len(b.Resolve) > 0
}
