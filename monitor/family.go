package monitor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Family is a group of logs that changes while it is followed: the trees of a
// Rekor v1 server, or the logs of a trusted root.
type Family struct {
	Name string
	// List asks which logs belong to it now, the oldest first. A log that it
	// returned once is followed for good.
	List func(ctx context.Context) ([]LogConfig, error)
	// Schedule is when to ask. Needed by Run only.
	Schedule Schedule
}

// listTimeout bounds how long a family may take to answer.
const listTimeout = time.Minute

// followFamily asks for the logs of a family, at once and then on its schedule,
// and starts those that are new.
func (e *Engine) followFamily(ctx context.Context, f Family, start func(*runner)) {
	for ctx.Err() == nil {
		err := e.refresh(ctx, f, listTimeout, start, func(r *runner, out Outcome) { r.report(out) })
		if err != nil && ctx.Err() == nil {
			e.opts.Logger.Warn("not all logs of a group could be listed; the next poll tries again", "group", f.Name, "error", err)
		}
		now := e.opts.Now()
		wait := f.Schedule.Next(now).Sub(now)
		timer := time.NewTimer(wait + e.opts.Jitter(wait))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// listFamilies asks every family once, and returns the outcomes of those that
// did not answer, and of logs that were read to their end because another one
// has taken their place.
func (e *Engine) listFamilies(ctx context.Context, idle time.Duration) []Outcome {
	var outcomes []Outcome
	if idle <= 0 {
		idle = listTimeout
	}
	for _, f := range e.opts.Families {
		err := e.refresh(ctx, f, idle, func(*runner) {}, func(r *runner, out Outcome) {
			r.report(out)
			outcomes = append(outcomes, out)
		})
		if err != nil {
			outcomes = append(outcomes, Outcome{Log: f.Name, Err: fmt.Errorf("listing the logs of the group: %w", err)})
			e.opts.Logger.Warn("not all logs of a group could be listed", "group", f.Name, "error", err)
		}
	}
	return outcomes
}

// refresh compares the logs of a family with those that are followed. A log that
// is new is read from its first entry; one of Rekor v1 once the trees before it
// were read to their end. Of those that are there at first sight the one that
// grows begins where its `start` says, and the others, unless all history is
// wanted, at their end. It gives up on a family, or on a tree that is read to its
// end, after idle without an answer.
func (e *Engine) refresh(ctx context.Context, f Family, idle time.Duration, start func(*runner), drained func(*runner, Outcome)) error {
	asking, cancel := context.WithTimeout(ctx, idle)
	logs, err := f.List(asking)
	cancel()
	if ctx.Err() == nil { // else the program stops, and it says nothing
		err = errors.Join(err, e.judgeGroup(ctx, f, err))
	}
	for i, cfg := range logs {
		if r := e.byID(cfg.ID); r != nil {
			err = errors.Join(err, r.update(cfg))
			continue
		}
		switch {
		case cfg.New:
			cfg.Start = "first"
			e.opts.Logger.Warn("a log appeared; it is read from its first entry", "log", cfg.Name, "origin", cfg.Log.Origin())
			for _, before := range logs[:i] {
				if r := e.byID(before.ID); r != nil && cfg.Proofs != nil && before.Family == cfg.Family {
					drained(r, r.drain(ctx, idle))
				}
			}
		case cfg.Retired && cfg.Start != "first":
			cfg.Start = "latest"
			e.opts.Logger.Warn("a log had ended before it was first seen: it is verified, and its entries are not read. `start: first` reads all history, `sigwarden scan` a part", "log", cfg.Name, "origin", cfg.Log.Origin())
		}
		r, addErr := e.add(cfg)
		if addErr != nil {
			err = errors.Join(err, addErr)
			continue
		}
		start(r)
	}
	e.mu.Lock()
	e.asked[f.Name] = true
	e.mu.Unlock()
	return err
}

// drain reads a tree to its end, history aside, before the next one begins.
func (r *runner) drain(ctx context.Context, idle time.Duration) Outcome {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer r.watchProgress(cancel, idle)()
	return r.pass(ctx, headOnly)
}

// missed opens and settles the incident of a log that its trusted root has lost.
func (t *turn) missed() {
	if !t.removed.Load() {
		t.settle(KindLogRemoved, "The trusted root names the log again.")
		return
	}
	t.raise(KindLogRemoved, fmt.Sprintf("Log %s (%s), or a key of it that was known, has disappeared from the trusted root, in which both stay even when nothing is written to the log any more: without them old signatures could not be verified. It is followed with what is known.", t.cfg.Name, t.way().Log.Origin()),
		map[string]any{"origin": t.way().Log.Origin(), "url": t.way().URL})
}
