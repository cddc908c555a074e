package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// What others have seen of a log: witnesses, distributors, and whoever asks. Two
// histories are only noticed by those who compare.

// Heard is a checkpoint that somebody else has seen, and that cannot be compared yet: it
// is larger than what is known of the log, or the log does not serve what is needed.
type Heard struct {
	Size   uint64
	Root   checkpoint.HexHash
	Note   string
	Source string
	Since  time.Time
}

// Hearsay is what a store keeps of them.
type Hearsay interface {
	// KeepHeard keeps one, and reports whether it did: of one log there are few, and of one
	// source fewer, whatever is heard.
	KeepHeard(ctx context.Context, logID string, h Heard) (kept bool, err error)
	// Heard returns those of a log, the smallest first.
	Heard(ctx context.Context, logID string) ([]Heard, error)
	// ForgetHeard removes one that was judged.
	ForgetHeard(ctx context.Context, logID string, h Heard) error
}

// How a checkpoint that somebody else has seen compares with ours.
const (
	// HeardConsistent: it is the same tree.
	HeardConsistent = "consistent"
	// HeardAhead: it is larger, and extends ours, as the log has proven.
	HeardAhead = "ahead"
	// HeardBehind: it is smaller, and a prefix of ours, as is proven.
	HeardBehind = "behind"
	// HeardUnknown: nothing can be said, or not yet.
	HeardUnknown = "unknown"
	// HeardContradiction: both cannot be true.
	HeardContradiction = "contradiction"
)

// Comparison is the answer to somebody who has seen a checkpoint.
type Comparison struct {
	Verdict string `json:"verdict"`
	// Why says it for people.
	Why    string `json:"why"`
	Log    string `json:"log,omitempty"`
	Origin string `json:"origin"`
	// Theirs is the tree that was asked about, Ours the newest that is verified, with
	// its signed note.
	Theirs *TreeHead `json:"theirs,omitempty"`
	Ours   *TreeHead `json:"ours,omitempty"`
	Note   string    `json:"checkpoint,omitempty"`
	// Proof is the RFC 6962 consistency proof between both, where it is known: for
	// behind, and for ahead.
	Proof []checkpoint.HexHash `json:"consistency_proof,omitempty"`
	// Incident is the one that is open for a contradiction.
	Incident string `json:"incident,omitempty"`
}

// ErrNotCheckpoint is returned by Hear for what no log that is followed has signed.
var ErrNotCheckpoint = errors.New("no checkpoint that a log which is followed has signed")

// hearFor bounds how long a log is asked about a checkpoint that is larger than ours.
const hearFor = 10 * time.Second

// Hear compares a signed note that somebody else has seen with what is known of its log.
// One that contradicts it halts the log; one that cannot be compared yet is compared at
// each poll. where says where it was found.
func (e *Engine) Hear(ctx context.Context, raw []byte, where string) (Comparison, error) {
	out := Comparison{Verdict: HeardUnknown}
	var r *runner
	var c checkpoint.Checkpoint
	for _, other := range e.all() {
		// A tree of Rekor v1 is not known by its first line alone.
		if opened, err := other.way().Log.Open(raw); err == nil {
			r, c = other, opened
			break
		}
	}
	if r == nil {
		return out, ErrNotCheckpoint
	}
	out.Log, out.Origin = r.cfg.Name, c.Origin()
	out.Theirs = &TreeHead{c.Size(), checkpoint.HexHash(c.Root())}
	st, err := r.opts.Store.State(ctx, r.cfg.ID)
	if err != nil {
		return out, err
	}
	if st.Head == "" {
		out.Why = "nothing of this log was verified yet"
		return out, nil
	}
	known, err := r.known(ctx, st)
	if err != nil {
		return out, err
	}
	out.Ours, out.Note = &TreeHead{known.Head.Size(), checkpoint.HexHash(known.Head.Root())}, string(known.Head.Raw())
	if r.opts.Seen != nil {
		r.opts.Seen(ctx, c)
	}
	asking, cancel := context.WithTimeout(ctx, hearFor)
	defer cancel()
	verdict, halt, err := r.against(asking, st, known, c, where)
	out.Verdict = verdict
	switch verdict {
	case HeardContradiction:
		return out, r.contradictedBy(ctx, c, halt, &out)
	case HeardConsistent:
		out.Why = "it is the tree that is known"
		return out, r.ended(ctx, c)
	case HeardAhead:
		out.Why = "it extends the tree that is known, as the log has proven"
		out.Proof = r.proofBetween(asking, known.Head, c)
	case HeardBehind:
		out.Why = "it is a prefix of the tree that is known"
		out.Proof = r.proofBetween(asking, c, known.Head)
	default:
		out.Why = "it cannot be compared just now: the log does not serve what is needed for that"
		if c.Size() > known.Head.Size() {
			out.Why = fmt.Sprintf("the log has not shown a tree of %d entries here, only %d", c.Size(), known.Head.Size())
		}
		r.log.Debug("a checkpoint from elsewhere cannot be compared", "size", c.Size(), "error", err)
		return out, r.keepHeard(ctx, c, where, &out)
	}
	return out, nil
}

// against compares a checkpoint from elsewhere with what is known, by the rules of a
// poll. For a contradiction it returns how the log is halted; the error says why the
// verdict is unknown.
func (r *runner) against(ctx context.Context, st State, known checkpoint.Known, c checkpoint.Checkpoint, where string) (verdict string, halt func(*turn) error, err error) {
	_, _, err = r.compare(ctx, known, c, nil)
	var fork *checkpoint.DivergenceError
	older := errors.Is(err, checkpoint.ErrOlder)
	if errors.As(err, &fork) {
		return HeardContradiction, func(t *turn) error { return t.split(fork, where) }, nil
	}
	// What has ended has not grown, whether or not that is proven.
	if st.Frozen != "" && c.Size() > known.Head.Size() {
		frozen, err := r.way().Log.Open([]byte(st.Frozen))
		if err != nil {
			return HeardUnknown, nil, err
		}
		return HeardContradiction, func(t *turn) error { t.retiredChanged(frozen, c); return nil }, nil
	}
	switch {
	case older && c.Frozen():
		return HeardContradiction, func(t *turn) error { t.retiredChanged(c, known.Head); return nil }, nil
	case older:
		return HeardBehind, nil, nil
	case err != nil:
		return HeardUnknown, nil, err
	case c.Size() == known.Head.Size():
		return HeardConsistent, nil, nil
	}
	return HeardAhead, nil, nil
}

// ended takes it down that the log has signed that it ends with our head, whoever has shown
// that.
func (r *runner) ended(ctx context.Context, c checkpoint.Checkpoint) error {
	if !c.Frozen() {
		return nil
	}
	t, err := r.newTurn(ctx, &Outcome{})
	if err != nil || t.old.Frozen != "" || t.old.Halted != "" || t.old.HeadSize != c.Size() {
		return err
	}
	t.next.Frozen = string(c.Raw())
	t.settle(KindStale, "The log is retired: its last checkpoint says so.")
	if err := t.commit(ctx); !errors.Is(err, ErrConflict) {
		return err
	}
	return nil // it has moved on meanwhile, and is looked at again
}

// contradictedBy halts the log for a checkpoint from elsewhere, unless a person has
// decided about it before.
func (r *runner) contradictedBy(ctx context.Context, c checkpoint.Checkpoint, halt func(*turn) error, out *Comparison) error {
	out.Why = "the log has signed both, and they cannot both be true"
	decided := false
	err := r.contradicted(ctx, c, func(t *turn) error {
		if decided = t.old.decided(c); decided {
			return nil
		}
		return halt(t)
	})
	if err != nil {
		return err
	}
	if decided {
		out.Why += "; that is known, and the log was resumed all the same"
	}
	st, err := r.opts.Store.State(context.WithoutCancel(ctx), r.cfg.ID)
	if err == nil {
		out.Incident = st.Halted
	}
	return nil
}

// contradiction is a checkpoint that contradicts what was verified of its log.
type contradiction struct {
	checkpoint checkpoint.Checkpoint
	fork       *checkpoint.DivergenceError
}

// judgeShown halts the log for what the scan has come by beside its entries.
func (r *runner) judgeShown(ctx context.Context, out *Outcome) error {
	c := r.shown.Swap(nil)
	if c == nil {
		return nil
	}
	var comparison Comparison
	err := r.contradictedBy(ctx, c.checkpoint, func(t *turn) error { return t.fork(c.fork) }, &comparison)
	if comparison.Incident != "" {
		out.Halted = comparison.Incident
	}
	if err != nil {
		r.shown.CompareAndSwap(nil, c) // the next pass judges it
	}
	return err
}

// decided reports whether a person has let the log go on though it has signed this tree.
func (s *State) decided(c checkpoint.Checkpoint) bool {
	return slices.Contains(s.Decided, TreeHead{c.Size(), checkpoint.HexHash(c.Root())})
}

// fromLog is the source of what the log has shown to us.
const fromLog = "the log"

// rival looks for another tree of the same size among those that could not be compared
// yet, from elsewhere or from the log: two roots for one size need no proof.
func (r *runner) rival(ctx context.Context, c checkpoint.Checkpoint) (fork *checkpoint.DivergenceError, where string, err error) {
	list, err := r.opts.Store.Heard(ctx, r.cfg.ID)
	if err != nil {
		return nil, "", err
	}
	pending, err := r.opts.Store.Pending(ctx, r.cfg.ID)
	if err != nil {
		return nil, "", err
	}
	for _, p := range pending {
		list = append(list, Heard{Size: p.Size, Root: p.Root, Note: p.Note, Source: fromLog})
	}
	for _, h := range list {
		if h.Size != c.Size() || h.Root == *rootOf(c) {
			continue
		}
		other, err := r.way().Log.Open([]byte(h.Note))
		if err == nil && errors.As(checkpoint.Advance(other, c, nil), &fork) {
			return fork, h.Source, nil
		}
	}
	return nil, "", nil
}

// keepHeard keeps a checkpoint that cannot be compared yet. Two of them may contradict
// each other, whatever our own is.
func (r *runner) keepHeard(ctx context.Context, c checkpoint.Checkpoint, where string, out *Comparison) error {
	fork, other, err := r.rival(ctx, c)
	if err != nil {
		return err
	}
	if fork != nil {
		out.Verdict = HeardContradiction
		return r.contradictedBy(ctx, c, func(t *turn) error { return t.split(fork, where+", the other at "+other) }, out)
	}
	kept, err := r.opts.Store.KeepHeard(ctx, r.cfg.ID, Heard{c.Size(), *rootOf(c), string(c.Raw()), where, r.opts.Now().UTC()})
	if kept {
		out.Why += "; it is compared when it does"
	} else {
		out.Why += "; and too many wait for that already: ask again later"
	}
	return err
}

func rootOf(c checkpoint.Checkpoint) *checkpoint.HexHash {
	h := checkpoint.HexHash(c.Root())
	return &h
}

// proofBetween returns the consistency proof between two checkpoints that were proven, nil
// if the log does not serve what is needed for that.
func (r *runner) proofBetween(ctx context.Context, from, to checkpoint.Checkpoint) (out []checkpoint.HexHash) {
	raw, err := r.proof(ctx, from.Size(), to)
	if err != nil || checkpoint.Advance(from, to, raw) != nil {
		return nil
	}
	for _, h := range raw {
		out = append(out, checkpoint.HexHash(h))
	}
	return out
}

// proof returns the consistency proof from a size to a checkpoint, empty where nothing is
// to be proven. That of a log that serves proofs and no tiles is as the log gave it.
func (r *runner) proof(ctx context.Context, from uint64, to checkpoint.Checkpoint) ([][]byte, error) {
	if from == 0 || from == to.Size() {
		return nil, nil
	}
	if p := r.way().Proofs; p != nil {
		return p.ConsistencyProof(ctx, from, to.Size())
	}
	tree, err := checkpoint.OpenTree(to, r.served(ctx))
	if err != nil {
		return nil, err
	}
	hashes, err := tree.ConsistencyProof(from)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, h := range hashes {
		out = append(out, h[:])
	}
	return out, nil
}

// judgeHeard compares what others have seen, and what the log has grown to by now. It
// returns after the first contradiction. polled: the log has just shown its newest.
func (r *runner) judgeHeard(ctx context.Context, polled bool) error {
	list, err := r.opts.Store.Heard(ctx, r.cfg.ID)
	if err != nil || len(list) == 0 {
		return err
	}
	st, err := r.opts.Store.State(ctx, r.cfg.ID)
	if err != nil || st.Head == "" || st.Halted != "" {
		return err
	}
	known, err := r.known(ctx, st)
	if err != nil {
		return err
	}
	for i, h := range list {
		c, err := r.way().Log.Open([]byte(h.Note))
		if err != nil {
			// Its key of today is another one.
			if err := r.opts.Store.ForgetHeard(ctx, r.cfg.ID, h); err != nil {
				return err
			}
			continue
		}
		if c.Size() > known.Head.Size() && st.Frozen == "" {
			if !polled {
				return nil // as are all behind it
			}
			return r.behindOthers(ctx, known.Head, list[i:])
		}
		verdict, halt, err := r.against(ctx, st, known, c, h.Source)
		switch verdict {
		case HeardUnknown:
			r.log.Debug("a checkpoint from elsewhere cannot be compared", "size", c.Size(), "error", err)
			continue
		case HeardContradiction:
			if err := r.contradictedBy(ctx, c, halt, &Comparison{}); err != nil {
				return err
			}
		case HeardConsistent:
			if err := r.ended(ctx, c); err != nil {
				return err
			}
		}
		// What it shows is in the incident.
		if err := r.opts.Store.ForgetHeard(ctx, r.cfg.ID, h); err != nil || verdict == HeardContradiction {
			return err
		}
	}
	return nil
}

// behindOthers tells it when others have been shown larger trees for long: the log keeps
// them from us, and what cannot be compared contradicts nothing.
func (r *runner) behindOthers(ctx context.Context, head checkpoint.Checkpoint, larger []Heard) error {
	first := slices.MinFunc(larger, func(a, b Heard) int { return a.Since.Compare(b.Since) })
	t, err := r.newTurn(ctx, &Outcome{})
	if err != nil {
		return err
	}
	if waited := min(t.now.Sub(first.Since), t.now.Sub(t.next.HeadAt)); waited > t.staleAfter() {
		t.raise(KindStale, fmt.Sprintf("Log %s has signed a tree of %d entries, which was seen at %s, and for %s it has shown us none that is larger than %d.", t.cfg.Name, first.Size, first.Source, waited.Round(time.Minute), head.Size()),
			map[string]any{"size": head.Size(), "others": TreeHead{first.Size, first.Root}, "seen_at": first.Source, "since": first.Since}, Evidence{"larger-checkpoint", []byte(first.Note)})
	}
	return t.commit(ctx)
}

// Newest returns the newest verified note of a log that is followed, with the
// consistency proof from a size; nil where there is none, or where it is not larger.
func (e *Engine) Newest(ctx context.Context, origin string, from uint64) (raw []byte, proof [][]byte, err error) {
	r := e.byOrigin(origin)
	if r == nil {
		return nil, nil, ErrUnknownLog
	}
	st, err := r.opts.Store.State(ctx, r.cfg.ID)
	if err != nil || st.Head == "" || st.Halted != "" || st.HeadSize < from {
		return nil, nil, err
	}
	head, err := r.head(st)
	if err != nil {
		return nil, nil, err
	}
	proof, err = e.Proof(ctx, origin, from, head)
	return head.Raw(), proof, err
}

// Proof returns the consistency proof from a size to a checkpoint of a log that is
// followed.
func (e *Engine) Proof(ctx context.Context, origin string, from uint64, to checkpoint.Checkpoint) ([][]byte, error) {
	r := e.byOrigin(origin)
	if r == nil {
		return nil, ErrUnknownLog
	}
	return r.proof(ctx, from, to)
}
