package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/sigwarden/sigwarden/checkpoint"
)

const (
	// strikes is how many polls in a row must show a symptom before it counts.
	strikes = 3
	// unreachableAfter is how long a log must have failed to answer.
	unreachableAfter = 15 * time.Minute
	// defaultStale stands for stale_after where that is off.
	defaultStale = 24 * time.Hour
	// A program that is told to stop has ten seconds: graceTime is for judging
	// what was fetched, lastWrite for storing it.
	graceTime = 2 * time.Second
	lastWrite = 5 * time.Second
	// maxPending bounds the checkpoints that are archived for one log.
	maxPending = 64
)

// CollectedPrefix begins the names of checkpoints that a halted log went on to
// sign.
const CollectedPrefix = "checkpoint-"

// errAnswered marks a failed poll that the log did answer, so that it is not
// unreachable.
var errAnswered = errors.New("the log answered, but")

// headOnly, as the time for a scan, leaves history out.
const headOnly = time.Duration(-1)

// pass polls a log once and scans it, for as long as scanHead says.
func (r *runner) pass(ctx context.Context, scanFor time.Duration) (out Outcome) {
	r.waiting.Add(1)
	r.busy <- struct{}{}
	r.waiting.Add(-1)
	defer func() { <-r.busy }()
	defer r.first.Store(true)
	ctx, span := tracer.Start(ctx, "poll", trace.WithAttributes(logName.String(r.cfg.Name)))
	defer func() {
		span.SetAttributes(attribute.Int64("sigwarden.head", int64(out.Head)), attribute.Int64("sigwarden.scanned", int64(out.Scanned)), attribute.String("sigwarden.halted", out.Halted))
		endSpan(span, out.Err)
	}()
	if r.opts.Wake != nil {
		// Other processes put deliveries into the outbox too.
		defer r.opts.Wake()
	}
	out.Log = r.cfg.Name
	out.Err = r.poll(ctx, &out)
	if ctx.Err() == nil && out.Halted == "" {
		// What others have seen is compared as soon as the head has moved.
		if err := r.judgeHeard(ctx, out.Err == nil); err != nil && out.Err == nil {
			out.Err = err
		}
		if st, err := r.opts.Store.State(ctx, r.cfg.ID); err == nil {
			out.Halted = st.Halted
		}
	}
	if ctx.Err() == nil && out.Halted == "" {
		// A poll that failed says nothing about entries of the verified tree.
		scanErr := r.scanHead(ctx, scanFor, &out)
		if out.Err == nil {
			out.Err = scanErr
		}
		if err := r.judgeShown(ctx, &out); err != nil && out.Err == nil {
			out.Err = err
		}
	}
	if ctx.Err() != nil {
		if out.Err == nil {
			out.Err = ctx.Err()
		}
		// Stopping is no failure of the log. Giving up on it is.
		if errors.Is(context.Cause(ctx), context.Canceled) {
			return out
		}
		out.Err = context.Cause(ctx)
	}
	// What is left is a bounded last write, also for a pass that was given up.
	last, cancel := grace(ctx, lastWrite)
	defer cancel()
	if err := r.close(last, &out); err != nil && out.Err == nil {
		out.Err = err
	}
	if out.Err == nil {
		out.Err = out.behindErr
	}
	return out
}

// poll asks for the newest checkpoint and judges it.
func (r *runner) poll(ctx context.Context, out *Outcome) error {
	// A log that ends while the pass is under way may have grown after what is
	// fetched here.
	out.ended = r.retired.Load()
	raw, err := r.checkpoint(ctx)
	if err != nil {
		t, stateErr := r.newTurn(ctx, out)
		if stateErr != nil {
			return stateErr
		}
		out.Head, out.Scanned, out.Halted = t.old.HeadSize, t.old.Scanned, t.old.Halted
		return fmt.Errorf("fetching the checkpoint: %w", err)
	}
	return r.take(ctx, raw, out)
}

// take judges a signed note as the newest checkpoint of the log.
func (r *runner) take(ctx context.Context, raw []byte, out *Outcome) error {
	judging, cancel := grace(ctx, graceTime)
	defer cancel()
	t, err := r.newTurn(judging, out)
	if err != nil {
		return err
	}
	c, openErr := r.way().Log.Open(raw)
	looked := openErr == nil && (r.opts.Seen == nil || r.opts.Seen(ctx, c))
	switch {
	case errors.Is(openErr, checkpoint.ErrSignature), errors.Is(openErr, checkpoint.ErrOrigin):
		t.badSignature(raw, openErr)
		openErr = fmt.Errorf("%w %w", errAnswered, openErr)
	case openErr == nil:
		if looked {
			r.answered.Store(true)
		}
		t.next.Signed = c.Size()
		delete(t.next.Streaks, KindBadSignature)
		t.settle(KindBadSignature, "The log serves a checkpoint that its key signed again.")
		lack := t.quorum(c)
		if openErr = t.judge(judging, c); openErr == nil && t.next.Halted == t.old.Halted {
			openErr = lack
		}
	}
	if ctx.Err() != nil && len(t.batch.Open)+len(t.batch.Pending) == 0 {
		return ctx.Err()
	}
	// A contradiction in hand is stored even if the program is to stop now.
	last, done := grace(ctx, lastWrite)
	defer done()
	if err := t.commit(last); err != nil {
		return err
	}
	return openErr
}

// grace is a context that outlives the end of another by a moment: what has
// been fetched is judged and stored even while the program stops.
func grace(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return longer, func() { stop(); cancel() }
}

// streak counts another poll with a symptom.
func (t *turn) streak(kind string) Streak {
	s, ok := t.next.Streaks[kind]
	if !ok {
		s.Since = t.now.UTC()
	}
	s.Polls++
	t.next.Streaks[kind] = s
	return s
}

func (t *turn) badSignature(raw []byte, err error) {
	if s := t.streak(KindBadSignature); s.Polls >= strikes {
		t.raise(KindBadSignature, fmt.Sprintf("For %d polls in a row log %s has answered with a checkpoint that none of its known keys signed.", s.Polls, t.cfg.Name),
			map[string]any{"since": s.Since, "polls": s.Polls, "error": shorten(err.Error())}, Evidence{"checkpoint", raw})
	}
}

// judge compares a validly signed checkpoint with what is known.
func (t *turn) judge(ctx context.Context, c checkpoint.Checkpoint) error {
	if t.old.Head == "" && t.hold {
		var err error
		if t.archived, err = t.opts.Store.Pending(ctx, t.cfg.ID); err != nil {
			return err
		}
		if err := t.contradictsArchive(ctx, c); err != nil || t.next.Halted != "" {
			return err
		}
		t.archive(c, nil)
		return nil
	}
	if t.old.Head == "" {
		return t.begin(ctx, c)
	}
	if t.old.Halted != "" {
		t.collect(c)
		return nil
	}
	known, err := t.known(ctx, t.old)
	if err != nil {
		return err
	}
	if err := t.judgePending(ctx, known); err != nil || t.next.Halted != "" {
		return err
	}
	if err := t.contradictsArchive(ctx, c); err != nil || t.next.Halted != "" {
		return err
	}
	step, tiles, err := t.compare(ctx, known, c, nil)
	var fork *checkpoint.DivergenceError
	switch {
	case errors.As(err, &fork):
		return t.fork(fork)
	case errors.Is(err, checkpoint.ErrOlder) && c.Frozen():
		t.retiredChanged(c, known.Head)
		return nil
	case errors.Is(err, checkpoint.ErrOlder), errors.Is(err, checkpoint.ErrPending):
		t.older(c, tiles, errors.Is(err, checkpoint.ErrPending))
		return nil
	case errors.Is(err, checkpoint.ErrUnproven):
		t.archive(c, nil)
		t.unproven(known.Head, c, err)
		return fmt.Errorf("%w its checkpoint of size %d could not be verified: %w", errAnswered, c.Size(), err)
	case err != nil:
		t.archive(c, nil)
		return fmt.Errorf("verifying the checkpoint of size %d: %w", c.Size(), err)
	}
	t.settle(KindUnproven, "The log has proven its newest checkpoint.")
	t.settle(KindRollback, "The log serves its newest checkpoint again.")
	delete(t.next.Streaks, KindUnproven)
	delete(t.next.Streaks, KindRollback)
	if c.Size() == known.Head.Size() {
		if c.Frozen() && t.next.Frozen == "" && !t.hold {
			t.next.Frozen = string(c.Raw())
			t.settle(KindStale, "The log is retired: its last checkpoint says so.")
		}
		t.stale()
		return nil
	}
	if t.old.Frozen != "" {
		frozen, err := t.way().Log.Open([]byte(t.old.Frozen))
		if err != nil {
			return err
		}
		t.retiredChanged(frozen, c)
		return nil
	}
	if t.hold {
		// It is held against what comes later, and is not gone by. Those before it, which may
		// be many, leave room for what cannot be judged.
		first := slices.IndexFunc(t.archived, func(p Pending) bool { return p.Size > known.Head.Size() })
		if len(t.archived) >= maxPending/2 && first >= 0 {
			t.batch.Judged = append(t.batch.Judged, t.archived[first])
		}
		t.archive(c, nil)
		return nil
	}
	return t.advance(ctx, c, step)
}

// collect keeps a checkpoint with the incident that halts the log: evidence goes on being
// collected, and nothing is believed.
func (t *turn) collect(c checkpoint.Checkpoint) {
	root := c.Root()
	t.batch.Collect = map[string][]Evidence{t.old.Halted: {{fmt.Sprintf("%s%d-%x", CollectedPrefix, c.Size(), root[:6]), c.Raw()}}}
}

// head opens the stored head.
func (r *runner) head(s State) (checkpoint.Checkpoint, error) {
	c, err := r.way().Log.Open([]byte(s.Head))
	if err != nil {
		return c, fmt.Errorf("the stored head of log %s does not verify with its configured key and origin; was one of them changed? %w", r.cfg.Name, err)
	}
	return c, nil
}

// CheckStored opens the stored heads with the keys of today, and returns what
// does not fit.
func (e *Engine) CheckStored(ctx context.Context) error {
	var bad []error
	for _, r := range e.all() {
		st, err := r.opts.Store.State(ctx, r.cfg.ID)
		if err == nil && st.Head != "" {
			_, err = r.head(st)
		}
		bad = append(bad, err)
	}
	return errors.Join(bad...)
}

// known puts what the store holds together again.
func (r *runner) known(ctx context.Context, s State) (checkpoint.Known, error) {
	head, err := r.head(s)
	if err != nil {
		return checkpoint.Known{}, err
	}
	scanned, err := checkpoint.NewFrontier(s.Scanned, hashes(s.Peaks))
	if err != nil {
		return checkpoint.Known{}, fmt.Errorf("stored state of log %s: %w", r.cfg.Name, err)
	}
	return checkpoint.Known{Head: head, Peaks: hashes(s.HeadPeaks), Scanned: scanned, Link: hashes(s.Link), Own: r.own(ctx)}, nil
}

func hashes(list []checkpoint.HexHash) []checkpoint.Hash {
	out := make([]checkpoint.Hash, len(list))
	for i, h := range list {
		out[i] = checkpoint.Hash(h)
	}
	return out
}

func hexes(list []checkpoint.Hash) []checkpoint.HexHash {
	out := make([]checkpoint.HexHash, len(list))
	for i, h := range list {
		out[i] = checkpoint.HexHash(h)
	}
	return out
}

// close ends a pass: it books how it went, and judges what only a run of
// passes can show.
func (r *runner) close(ctx context.Context, out *Outcome) error {
	failures, err := r.opts.Store.RecordPoll(ctx, r.cfg.ID, Poll{At: r.opts.Now(), Err: out.Err, Every: r.every(), WatchSet: r.watchSet, Trust: r.trust.Load().hash, Origin: r.way().Log.Origin(), Name: r.cfg.Name, ConsistencyOnly: r.cfg.ConsistencyOnly})
	if err != nil {
		return err
	}
	t, err := r.newTurn(ctx, out)
	if err != nil {
		return err
	}
	switch {
	case out.Err == nil:
		t.settle(KindUnreachable, "The log answers again.")
	case errors.Is(out.Err, errAnswered):
	case failures.Polls >= strikes && t.now.Sub(failures.Since) >= unreachableAfter:
		t.raise(KindUnreachable, fmt.Sprintf("For %s no poll of log %s has succeeded (%d tries). The last one failed with: %s", t.now.Sub(failures.Since).Round(time.Minute), t.cfg.Name, failures.Polls, shorten(out.Err.Error())),
			map[string]any{"since": failures.Since, "polls": failures.Polls, "last_success": failures.LastSuccess, "error": shorten(out.Err.Error())})
	}
	if err := t.retire(ctx, out); err != nil {
		return err
	}
	t.missed()
	t.lagging()
	if err := t.commit(ctx); err != nil {
		return err
	}
	t.quiet.Store(t.next.Frozen != "" && t.next.Unread() == 0 && t.next.Halted == "" && out.Err == nil && !out.Missing)
	return nil
}

// retire takes the head of a log that is listed as one that has ended for its
// last: it must never change again.
//
// If others have seen a larger one, ours is not the last.
func (t *turn) retire(ctx context.Context, out *Outcome) error {
	if !out.ended || out.Err != nil || out.Older || t.next.Frozen != "" || t.next.Halted != "" || t.next.Head == "" {
		return nil
	}
	list, err := t.opts.Store.Heard(ctx, t.cfg.ID)
	if err != nil || len(list) > 0 && list[len(list)-1].Size > t.next.HeadSize {
		return err
	}
	t.next.Frozen = t.next.Head
	t.settle(KindStale, "The log is retired: it is listed as one that has ended.")
	return nil
}
