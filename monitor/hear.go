package monitor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// What others have seen of a log: witnesses, distributors, and whoever asks. Two
// histories are only noticed by those who compare.

// Heard is a checkpoint that somebody else has seen, and that is larger than what is
// known of the log: it is compared once the log has grown so far.
type Heard struct {
	Size   uint64
	Root   checkpoint.HexHash
	Note   string
	Source string
	Since  time.Time
}

// Hearsay is what a store keeps of them.
type Hearsay interface {
	// KeepHeard keeps one; of one log there are few, whatever is heard.
	KeepHeard(ctx context.Context, logID string, h Heard) error
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
	_, _, err = r.compare(asking, known, c, nil)
	var fork *checkpoint.DivergenceError
	switch {
	case errors.As(err, &fork):
		if err := r.contradicted(ctx, fork, where); err != nil {
			return out, err
		}
		out.Verdict, out.Why = HeardContradiction, "the log has signed both, and they cannot both be true"
		if st, err := r.opts.Store.State(ctx, r.cfg.ID); err == nil {
			out.Incident = st.Halted
		}
		return out, nil
	case err == nil && c.Size() == known.Head.Size():
		out.Verdict, out.Why = HeardConsistent, "it is the tree that is known"
	case err == nil:
		out.Verdict, out.Why = HeardAhead, "it extends the tree that is known, as the log has proven"
		out.Proof = r.proofBetween(asking, known.Head.Size(), c)
	case errors.Is(err, checkpoint.ErrOlder):
		out.Verdict, out.Why = HeardBehind, "it is a prefix of the tree that is known"
		out.Proof = r.proofBetween(asking, c.Size(), known.Head)
	case c.Size() > known.Head.Size():
		out.Why = fmt.Sprintf("the log has not shown a tree of %d entries here, only %d; it is compared when it does", c.Size(), known.Head.Size())
		return out, r.opts.Store.KeepHeard(ctx, r.cfg.ID, Heard{c.Size(), *rootOf(c), string(c.Raw()), where, r.opts.Now().UTC()})
	default:
		out.Why = "it cannot be compared just now: the log does not serve what is needed for that"
	}
	return out, nil
}

func rootOf(c checkpoint.Checkpoint) *checkpoint.HexHash {
	h := checkpoint.HexHash(c.Root())
	return &h
}

// proofBetween returns the consistency proof from a size to a checkpoint that was
// proven, nil if the log does not serve what is needed for that.
func (r *runner) proofBetween(ctx context.Context, from uint64, to checkpoint.Checkpoint) []checkpoint.HexHash {
	if from == 0 || from == to.Size() {
		return nil
	}
	if p := r.way().Proofs; p != nil {
		raw, err := p.ConsistencyProof(ctx, from, to.Size())
		if err != nil {
			return nil
		}
		var out []checkpoint.HexHash
		for _, h := range raw {
			if len(h) != checkpoint.HashSize {
				return nil
			}
			out = append(out, checkpoint.HexHash(h))
		}
		return out
	}
	tree, err := checkpoint.OpenTree(to, r.served(ctx))
	if err != nil {
		return nil
	}
	proof, err := tree.ConsistencyProof(from)
	if err != nil {
		return nil
	}
	return hexes(proof)
}

// judgeHeard compares what others have seen, and what the log has grown to by now. It
// returns after the first contradiction.
func (r *runner) judgeHeard(ctx context.Context) error {
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
	for _, h := range list {
		c, err := r.way().Log.Open([]byte(h.Note))
		if err != nil {
			// Its key of today is another one.
			if err := r.opts.Store.ForgetHeard(ctx, r.cfg.ID, h); err != nil {
				return err
			}
			continue
		}
		if c.Size() > known.Head.Size() {
			return nil // as are all behind it
		}
		_, _, err = r.compare(ctx, known, c, nil)
		var fork *checkpoint.DivergenceError
		switch {
		case errors.As(err, &fork):
			return r.contradicted(ctx, fork, h.Source)
		case err == nil, errors.Is(err, checkpoint.ErrOlder):
			if err := r.opts.Store.ForgetHeard(ctx, r.cfg.ID, h); err != nil {
				return err
			}
		}
	}
	return nil
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
	if from == 0 || from == to.Size() {
		return nil, nil
	}
	hashes := r.proofBetween(ctx, from, to)
	if hashes == nil {
		return nil, errors.New("the log does not serve what a consistency proof needs")
	}
	var out [][]byte
	for _, h := range hashes {
		out = append(out, h[:])
	}
	return out, nil
}
