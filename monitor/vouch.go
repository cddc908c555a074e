package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// What a witness asks the monitor before it co-signs a checkpoint of a log that is
// followed, and what it tells it.

// vouchFor bounds how long a witness waits for entries to be read.
const vouchFor = 5 * time.Second

// Followed is a log that is followed.
type Followed struct {
	Name string
	Log  *checkpoint.Log
}

// Followed returns the logs that are followed now.
func (e *Engine) Followed() []Followed {
	var out []Followed
	for _, r := range e.all() {
		out = append(out, Followed{r.cfg.Name, r.way().Log})
	}
	return out
}

// byOrigin returns the runner of the log with an origin, nil if it is not followed.
func (e *Engine) byOrigin(origin string) *runner {
	for _, r := range e.all() {
		if r.way().Log.Origin() == origin {
			return r
		}
	}
	return nil
}

// Vouch says why a checkpoint of a log that is followed is not to be co-signed now, and
// when to ask again; an empty reason if nothing speaks against it. With audited its
// entries must have been read: if they were not, they are read now, for a few seconds.
func (e *Engine) Vouch(ctx context.Context, c checkpoint.Checkpoint, audited bool) (reason string, again time.Duration) {
	r := e.byOrigin(c.Origin())
	if r == nil {
		return "the log is not followed", time.Minute
	}
	if !r.answered.Load() {
		// What the log has published may carry cosignatures that are known no more.
		return "the log was not asked yet for what it has published", 10 * time.Second
	}
	reason, again, sure := r.vouch(ctx, c, audited)
	if reason == "" || sure {
		return reason, again
	}
	wait, cancel := context.WithTimeout(ctx, vouchFor)
	defer cancel()
	if err := r.pursue(wait, c); err != nil {
		r.log.Debug("a checkpoint that is to be co-signed could not be audited in time", "size", c.Size(), "error", err)
	}
	reason, again, _ = r.vouch(ctx, c, audited)
	return reason, again
}

// vouch is Vouch by what is stored. sure: reading more would change nothing.
func (r *runner) vouch(ctx context.Context, c checkpoint.Checkpoint, audited bool) (reason string, again time.Duration, sure bool) {
	if reason, again := r.stopped(ctx); reason != "" {
		return reason, again, true
	}
	st, err := r.opts.Store.State(ctx, r.cfg.ID)
	if err != nil {
		return "the state of the log cannot be read", 10 * time.Second, true
	}
	if audited && r.cfg.ConsistencyOnly {
		return "the entries of this log are not read", time.Hour, true
	}
	if audited && st.Start > 0 {
		return fmt.Sprintf("the entries before %d were never read: coverage of the log begins there, and not with `start: first`", st.Start), time.Hour, true
	}
	known, err := r.known(ctx, st)
	if err != nil {
		return "the state of the log cannot be read", 10 * time.Second, true
	}
	// SPEC: tlog-witness: never two trees that cannot both be true, whatever proof comes
	// with them: that leads from what the witness has signed, which may be less than what
	// we know, or than what others have seen.
	out := Comparison{}
	if fork, where, err := r.rival(ctx, c); err != nil {
		return "the state of the log cannot be read", 10 * time.Second, true
	} else if fork != nil {
		out.Verdict = HeardContradiction
		err = r.contradictedBy(ctx, c, func(t *turn) error { return t.split(fork, broughtToWitness+", the other at "+where) }, &out)
		return r.refused(err)
	}
	if audited && c.Size() > st.HeadSize && r.cfg.RequireQuorum && r.cfg.Quorum != nil {
		// To read it is to believe it.
		if lack := r.cfg.Quorum(c.Raw(), r.opts.Now()); lack != nil {
			return fmt.Sprintf("the checkpoint of size %d lacks cosignatures that the policy of the log requires before it is believed", c.Size()), 10 * time.Second, true
		}
	}
	if audited && c.Size() > st.HeadSize {
		return "the entries of the tree were not read yet", vouchFor, false
	}
	verdict, halt, err := r.against(ctx, st, known, c, broughtToWitness)
	switch verdict {
	case HeardContradiction:
		return r.refused(r.contradictedBy(ctx, c, halt, &out))
	case HeardUnknown, HeardAhead:
		// It is held against what the log shows later.
		if kept := r.keepHeard(ctx, c, broughtToWitness, &out); kept != nil || out.Verdict == HeardContradiction {
			return r.refused(kept)
		}
		if verdict == HeardUnknown {
			r.log.Debug("a checkpoint that is to be co-signed cannot be compared", "size", c.Size(), "error", err)
			return fmt.Sprintf("the checkpoint of size %d could not be compared with the tree that is known: the log does not serve what is needed for that", c.Size()), 10 * time.Second, true
		}
	}
	if !audited {
		return "", 0, true
	}
	if st.Scanned < c.Size() || len(st.Backlog) > 0 && st.Backlog[0].From < c.Size() {
		return "the entries of the tree were not read yet", vouchFor, false
	}
	gaps, err := r.opts.Store.Gaps(ctx, r.cfg.ID)
	if err != nil {
		return "the state of the log cannot be read", 10 * time.Second, true
	}
	for _, g := range gaps {
		if g.From < c.Size() {
			return fmt.Sprintf("the log has not served entry %d as it signed it", g.From), time.Minute, true
		}
	}
	return "", 0, true
}

// broughtToWitness says where a checkpoint was found.
const broughtToWitness = "a checkpoint that a witness was asked to co-sign"

// refused is the answer about a log that has contradicted itself.
func (r *runner) refused(err error) (reason string, again time.Duration, sure bool) {
	if err != nil {
		r.log.Error("a contradiction could not be stored", "error", err)
	}
	return "the log has contradicted itself", time.Hour, true
}

// pursue takes a checkpoint that the log has signed, and not published yet, for its
// newest, and reads up to it. It is no poll: what a log has yet to publish may lack
// cosignatures, and parts of its tree.
func (r *runner) pursue(ctx context.Context, c checkpoint.Checkpoint) error {
	r.waiting.Add(1)
	defer r.waiting.Add(-1)
	select {
	case r.busy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-r.busy }()
	out := Outcome{Log: r.cfg.Name}
	judging, cancel := grace(ctx, graceTime)
	defer cancel()
	t, err := r.newTurn(judging, &out)
	if err != nil {
		return err
	}
	if t.old.Head == "" {
		return errors.New("nothing of the log was verified yet")
	}
	// What the log publishes may be older meanwhile, or unproven, and that is for polls to tell:
	// whoever brings what it has signed besides ends neither.
	published := maps.Clone(t.next.Streaks)
	if c.Size() <= t.old.HeadSize {
		// It was held against our tree already, and is to be read.
		return r.scanHead(ctx, headOnly, &out)
	}
	t.open = slices.DeleteFunc(t.open, func(inc Incident) bool { return inc.Kind == KindRollback || inc.Kind == KindUnproven })
	if err := t.judge(judging, c); err != nil && t.next.Halted == "" {
		return errors.Join(err, r.keepHeard(judging, c, broughtToWitness, &Comparison{}))
	}
	for _, kind := range []string{KindRollback, KindUnproven} {
		delete(t.next.Streaks, kind)
		if streak, ok := published[kind]; ok {
			t.next.Streaks[kind] = streak
		}
	}
	last, done := grace(ctx, lastWrite)
	defer done()
	if err := t.commit(last); err != nil || out.Halted != "" {
		return err
	}
	return r.scanHead(ctx, headOnly, &out)
}

// Stopped says why nothing of a log that is followed may be signed, by what is stored; it
// asks nobody.
func (e *Engine) Stopped(ctx context.Context, origin string) (reason string) {
	r := e.byOrigin(origin)
	if r == nil {
		return "the log is not followed"
	}
	reason, _ = r.stopped(ctx)
	return reason
}

func (r *runner) stopped(ctx context.Context) (reason string, again time.Duration) {
	st, err := r.opts.Store.State(ctx, r.cfg.ID)
	if err != nil {
		return "the state of the log cannot be read", 10 * time.Second
	}
	if st.Halted != "" {
		return "the log is halted: it has contradicted itself", time.Hour
	}
	open, err := r.opts.Store.OpenIncidents(ctx, r.cfg.ID)
	if err != nil {
		return "the state of the log cannot be read", 10 * time.Second
	}
	for _, inc := range open {
		if inc.Kind == KindUnproven || inc.Kind == KindBadSignature || inc.Kind == KindSplitView {
			return "the log has not proven what it signed", time.Minute
		}
	}
	return "", 0
}

// Contradicted halts the log that has signed two checkpoints which cannot both be true.
// where says where the second one was found. It reports whether the log is followed.
func (e *Engine) Contradicted(ctx context.Context, origin string, fork *checkpoint.DivergenceError, where string) (bool, error) {
	r := e.byOrigin(origin)
	if r == nil {
		return false, nil
	}
	return true, r.contradicted(ctx, checkpoint.Checkpoint{}, func(t *turn) error { return t.split(fork, where) })
}

// contradicted halts a log for what was found elsewhere; c, if it is not none, is kept with
// the incident of one that is halted. It is stored also if whoever has brought it goes
// away.
func (r *runner) contradicted(ctx context.Context, c checkpoint.Checkpoint, halt func(*turn) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	for try := 0; ; try++ {
		t, err := r.newTurn(ctx, &Outcome{})
		if err != nil {
			return err
		}
		if t.old.Halted == "" {
			err = halt(t)
		} else if !c.IsZero() {
			t.collect(c) // it is known; this shows more of it
		}
		if err != nil {
			return err
		}
		if err := t.commit(ctx); !errors.Is(err, ErrConflict) || try == 20 {
			return err
		}
	}
}

// ContradictedElsewhere opens the incident of a log that is not followed, and that a
// witness knows: what shows that it has forked is kept.
func (e *Engine) ContradictedElsewhere(ctx context.Context, origin string, fork *checkpoint.DivergenceError, where string) error {
	proof, err := json.Marshal(fork.Evidence)
	if err != nil {
		return err
	}
	now := e.opts.Now()
	inc := general(KindSplitView, fmt.Sprintf("A log that is not followed, but co-signed, has signed two checkpoints that cannot both be true: %s. One of them was found at %s. Nothing of it is co-signed any more.", shorten(origin), where),
		map[string]any{"origin": origin, "found_at": where, "shape": fork.Evidence.Shape}, now, e.opts.audience(KindSplitView))
	inc.Evidence = []Evidence{{"divergence.json", proof}, {"smaller-checkpoint", []byte(fork.Evidence.Smaller)}, {"larger-checkpoint", []byte(fork.Evidence.Larger)}}
	return e.open(ctx, inc)
}

// WitnessDoubts opens the incident of a witness that signs nothing of a log any more.
func (e *Engine) WitnessDoubts(ctx context.Context, origin, reason string) error {
	return e.open(ctx, general(KindWitnessDoubt, fmt.Sprintf("The witness signs nothing of log %s any more: %s.", shorten(origin), reason),
		map[string]any{"origin": origin, "reason": reason}, e.opts.Now(), e.opts.audience(KindWitnessDoubt)))
}

// open stores an incident that belongs to no log that is followed.
func (e *Engine) open(ctx context.Context, inc Incident) error {
	if err := e.opts.Store.Record(ctx, []Incident{inc}, nil); err != nil {
		return err
	}
	e.opts.Logger.Error("incident opened", "kind", inc.Kind, "class", inc.Class, "incident", inc.ID, "summary", inc.Summary)
	if e.opts.Wake != nil {
		e.opts.Wake()
	}
	return nil
}
