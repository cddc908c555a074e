package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/internal/crash"
)

// State is what the witness has promised of one log: the largest tree that it has
// co-signed, or was about to when it stopped. The zero value is none.
type State struct {
	Size uint64
	Root checkpoint.Hash
	// Note is the checkpoint as the log signed it; nil: there is no state.
	Note []byte
	// At is the time of the newest cosignature, in seconds since 1970.
	At int64
	// Doubt says why nothing of the log is signed any more, until a person has looked.
	Doubt string
}

// ErrConflict is returned by Store.Advance when the state has moved on.
var ErrConflict = errors.New("the state of the log was changed meanwhile")

// Store keeps the states. Its methods are atomic, and durable when they return; they
// may be called by several goroutines at a time. A method that fails may have been done
// all the same.
type Store interface {
	// State returns the state of the log with an origin.
	State(ctx context.Context, origin string) (State, error)
	// Advance moves a log on if its state is old, and nobody doubts it; ErrConflict
	// otherwise.
	Advance(ctx context.Context, origin string, old, next State) error
	// Doubt notes why nothing of a log is to be signed any more; the first reason stays.
	// floor, if it is not none, is what is known to have been promised before: nothing
	// smaller and nothing earlier is signed when the doubt is over.
	Doubt(ctx context.Context, origin, reason string, floor State) error
}

// Log is a log that may be co-signed.
type Log struct {
	*checkpoint.Log
	// Allow reports whether one more checkpoint that the log has signed may be looked at
	// now; nil: always.
	Allow func() bool
	// Refuse, if not nil, returns why nothing of the log is to be signed now, and when
	// to ask again (0: nobody knows). c is the checkpoint that would be signed: a zero
	// one where its signature was not verified yet. It may take its time.
	Refuse func(ctx context.Context, c checkpoint.Checkpoint) (reason string, again time.Duration)
	// Stopped, if not nil, is asked last of all, when nobody else can sign for the log: why
	// nothing of it is signed. It must be quick, and must not come back to the witness.
	Stopped func(ctx context.Context) (reason string)
}

// Options configure a Witness.
type Options struct {
	// Cosigners sign, one line each; at least one.
	Cosigners []*Cosigner
	// Log returns the log with an origin, nil where it is not known.
	Log func(origin string) *Log
	// ByPath returns the origin of the log with a PathOf, for the monitoring endpoint.
	ByPath func(path string) (origin string, ok bool)
	Store  Store
	// Contradiction is told what shows that a log has forked, once it is stored that
	// it is doubted.
	Contradiction func(ctx context.Context, origin string, e *checkpoint.DivergenceError)
	// Doubted is told that nothing of a log is signed any more.
	Doubted func(ctx context.Context, origin, reason string)
	// Rejected is told requests with a signed checkpoint whose proof does not verify.
	Rejected func(ctx context.Context, origin string, request []byte)
	// Subtrees reports whether another subtree may be signed now; nil: none is, and the
	// call is not served.
	Subtrees func() bool
	// About is the text of GET /witness.
	About string
	// Now is the clock; default time.Now.
	Now    func() time.Time
	Logger *slog.Logger
}

// Witness co-signs checkpoints of logs that it knows.
type Witness struct {
	opts    Options
	mu      sync.Mutex
	signing map[string]*signing
	latest  int64 // the newest time that was signed for any log
}

// signing is what belongs to one log. Its lock is held from before the state is read
// until the cosignature is made, so that of one log they come one after the other.
type signing struct {
	sync.Mutex
	size  uint64 // of the last cosignatures that were made here ...
	at    int64
	lines string
	// The newest request whose proof did not verify was handed on then, in seconds, and
	// what is known to have been promised beyond the state.
	rejected int64
	floor    State
}

// New checks the options and returns a witness.
func New(opts Options) (*Witness, error) {
	if len(opts.Cosigners) == 0 || opts.Store == nil || opts.Log == nil {
		return nil, errors.New("witness: a key, a store and logs are needed")
	}
	for i, c := range opts.Cosigners {
		for _, o := range opts.Cosigners[:i] {
			if o.Name() == c.Name() && o.KeyHash() == c.KeyHash() {
				return nil, fmt.Errorf("witness: key %s is there twice", c.Verifier)
			}
		}
	}
	if opts.Subtrees != nil && !slices.ContainsFunc(opts.Cosigners, func(c *Cosigner) bool { return c.algorithm == MLDSA44 }) {
		return nil, errors.New("witness: subtrees are signed with a key of ML-DSA-44, and there is none")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Witness{opts: opts, signing: map[string]*signing{}}, nil
}

// Answer is what an add-checkpoint request comes to.
type Answer struct {
	Status int
	// Body is text: cosignature lines for 200, the size that is stored for 409, else
	// what is wrong.
	Body string
	// Type is that of the body; empty: plain text.
	Type string
	// Again is when to try again; 0: nobody knows.
	Again time.Duration
}

// Statuses of Answer, as C2SP tlog-witness has them.
const (
	ok            = 200
	badRequest    = 400
	forbidden     = 403
	notFound      = 404
	conflict      = 409
	unprocessable = 422
	tooMany       = 429
	unavailable   = 503
)

func answer(status int, format string, args ...any) Answer {
	return Answer{Status: status, Body: fmt.Sprintf(format, args...) + "\n"}
}

// of returns what belongs to the log with an origin. There are as many as logs are
// known.
func (w *Witness) of(origin string) *signing {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.signing[origin]
	if s == nil {
		s = &signing{}
		w.signing[origin] = s
	}
	return s
}

// Add decides about an add-checkpoint request.
//
// SPEC: tlog-witness: the order of the checks lets nobody without a signature of the
// log learn what is stored.
func (w *Witness) Add(ctx context.Context, body []byte) Answer {
	req, err := ParseRequest(body)
	if err != nil {
		return answer(badRequest, "%v", err)
	}
	origin := req.Origin()
	log := w.opts.Log(origin)
	if log == nil {
		return answer(notFound, "this witness does not know the log with that origin")
	}
	c, err := log.Open(req.Note)
	empty := errors.Is(err, checkpoint.ErrEmptyRoot)
	switch {
	case errors.Is(err, checkpoint.ErrSignature):
		return answer(forbidden, "no known key of the log has signed the checkpoint, or a signature of one does not verify")
	case err != nil && !empty:
		return answer(badRequest, "%v", err)
	case log.Allow != nil && !log.Allow():
		// Behind the signature, so that nobody but the log uses up what it may ask.
		a := answer(tooMany, "more checkpoints of this log were sent than are agreed on")
		a.Again = time.Second
		return a
	case req.Old > c.Size():
		return answer(badRequest, "the old size %d is larger than that of the checkpoint", req.Old)
	}
	// A malformed note is not a Checkpoint, and nothing is ever signed for it.
	return w.decide(ctx, origin, log, req, c, empty)
}

// decide goes on once the log's signature was verified.
func (w *Witness) decide(ctx context.Context, origin string, log *Log, req Request, c checkpoint.Checkpoint, empty bool) Answer {
	s := w.of(origin)
	if log.Refuse != nil {
		// Whoever is asked may take long, and may look at other checkpoints of the log: it
		// is asked without the lock, for what would be signed but for its answer.
		s.Lock()
		_, a, fits := w.fits(ctx, origin, s, log, req, c, empty)
		s.Unlock()
		if !fits {
			return a
		}
		if reason, again := log.Refuse(ctx, c); reason != "" {
			a := answer(unavailable, "%s", reason)
			a.Again = again
			return a
		}
	}
	s.Lock()
	defer s.Unlock()
	state, a, fits := w.fits(ctx, origin, s, log, req, c, empty)
	if !fits {
		return a
	}
	return w.sign(ctx, origin, s, log, c, state)
}

// fits reports whether a checkpoint goes on from what was promised; otherwise it returns
// the answer. The lock of the log must be held.
func (w *Witness) fits(ctx context.Context, origin string, s *signing, log *Log, req Request, c checkpoint.Checkpoint, empty bool) (State, Answer, bool) {
	state, err := w.opts.Store.State(ctx, origin)
	if err != nil {
		return state, w.broken("the state of the log cannot be read", origin, err), false
	}
	if !empty {
		if a, ahead := w.ahead(ctx, origin, s, c, state); ahead {
			return state, a, false
		}
	}
	switch {
	case state.Doubt != "":
		return state, doubted(state.Doubt), false
	case req.Old != state.Size:
		return state, Answer{Status: conflict, Body: fmt.Sprintf("%d\n", state.Size), Type: "text/x.tlog.size"}, false
	case empty:
		return state, answer(unprocessable, "%v", checkpoint.ErrEmptyRoot), false
	}
	a, ok := w.proven(ctx, origin, s, log, req, c, state)
	return state, a, ok
}

// proven reports whether a checkpoint extends the state; otherwise it returns the
// answer.
func (w *Witness) proven(ctx context.Context, origin string, s *signing, log *Log, req Request, c checkpoint.Checkpoint, state State) (Answer, bool) {
	if state.Note == nil || state.Size == 0 {
		if len(req.Proof) > 0 {
			return answer(unprocessable, "nothing is to be proven from size 0, yet there are %d proof lines", len(req.Proof)), false
		}
		return Answer{}, true
	}
	old, err := log.Open(state.Note)
	if err != nil || old.Size() != state.Size || old.Root() != state.Root {
		return w.broken("the checkpoint that was signed last cannot be read with the log's key of today", origin, err), false
	}
	err = checkpoint.Advance(old, c, req.Proof)
	var fork *checkpoint.DivergenceError
	switch {
	case err == nil:
		return Answer{}, true
	case errors.As(err, &fork):
		// What shows it is kept before anything else is done, also if whoever asks has gone.
		if w.opts.Contradiction != nil {
			w.opts.Contradiction(context.WithoutCancel(ctx), origin, fork)
		}
		a := w.doubt(ctx, origin, "the log has signed two checkpoints that cannot both be true", State{})
		a.Status = unprocessable
		return a, false
	}
	// Anybody can send the log's checkpoint with a proof that is none: one a minute is
	// enough to see that.
	if now := w.opts.Now().Unix(); w.opts.Rejected != nil && (now >= s.rejected+60 || now < s.rejected) {
		s.rejected = now
		w.opts.Rejected(ctx, origin, req.Format())
	}
	return answer(unprocessable, "%v", err), false
}

// sign stores what is promised, and then promises it.
func (w *Witness) sign(ctx context.Context, origin string, s *signing, log *Log, c checkpoint.Checkpoint, state State) Answer {
	keys := slices.DeleteFunc(slices.Clone(w.opts.Cosigners), func(k *Cosigner) bool { return !k.can(c.Origin()) })
	if len(keys) == 0 {
		return answer(badRequest, "an origin of %d bytes cannot be signed with the keys of this witness", len(c.Origin()))
	}
	if log.Stopped != nil {
		if reason := log.Stopped(ctx); reason != "" {
			return answer(unavailable, "%s", reason)
		}
	}
	now, reason := w.clock(state.At)
	if reason != "" {
		w.opts.Logger.Error("nothing is signed: "+reason, "origin", origin)
		a := answer(unavailable, "%s", reason)
		a.Again = time.Minute
		return a
	}
	next := State{Size: c.Size(), Root: c.Root(), Note: c.Raw(), At: now}
	if err := w.opts.Store.Advance(ctx, origin, state, next); errors.Is(err, ErrConflict) {
		a := answer(unavailable, "%v", err)
		a.Again = time.Second
		return a
	} else if err != nil {
		return w.broken("what is to be signed cannot be stored", origin, err)
	}
	crash.Before("a cosignature")
	var lines strings.Builder
	for _, k := range keys {
		line, err := k.Cosign(ctx, c, time.Unix(next.At, 0))
		if err != nil {
			return w.broken("it cannot be signed", origin, err)
		}
		lines.WriteString(line)
	}
	s.size, s.at, s.lines = next.Size, next.At, lines.String()
	crash.After("a cosignature")
	return Answer{Status: ok, Body: s.lines}
}

// clock returns the time to be signed, or why there is none: times of cosignatures never
// go back, and those of one log not behind those of another one either.
func (w *Witness) clock(last int64) (now int64, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now = w.opts.Now().Unix()
	w.latest = max(w.latest, last)
	if now < w.latest {
		return 0, fmt.Sprintf("the clock of the witness has stepped back: it shows %s, and %s was signed before", time.Unix(now, 0).UTC().Format(time.RFC3339), time.Unix(w.latest, 0).UTC().Format(time.RFC3339))
	}
	w.latest = now
	return now, ""
}

// ahead looks for cosignatures of ours on a checkpoint that show that the state is an
// older one: they are larger, or later, than what it knows of. Then nothing of the log is
// signed any more, and it returns the answer. The lock of the log must be held.
func (w *Witness) ahead(ctx context.Context, origin string, s *signing, c checkpoint.Checkpoint, state State) (Answer, bool) {
	floor := State{Size: c.Size(), Root: c.Root(), Note: c.Raw()}
	beyond := false
	for _, seen := range Cosignatures(c.Raw(), w.verifiers()...) {
		floor.At = max(floor.At, seen.At)
		beyond = beyond || c.Size() > state.Size || seen.At > state.At || c.Size() == state.Size && c.Root() != state.Root
	}
	switch {
	case !beyond:
		return Answer{}, false
	case state.Doubt != "" && floor.Size <= s.floor.Size && floor.At <= s.floor.At:
		return doubted(state.Doubt), true
	}
	// Also where it is doubted already: what is signed once a person has looked goes on from
	// the largest and latest that is known.
	s.floor.Size, s.floor.At = max(s.floor.Size, floor.Size), max(s.floor.At, floor.At)
	return w.doubt(ctx, origin, fmt.Sprintf("a cosignature of this witness is on a checkpoint of size %d at time %d, and its state knows of size %d at time %d: it was restored from an older copy, or another process signs with the same key", c.Size(), floor.At, state.Size, state.At), floor), true
}

func (w *Witness) verifiers() []*Verifier {
	var out []*Verifier
	for _, c := range w.opts.Cosigners {
		out = append(out, c.Verifier)
	}
	return out
}

// Look looks at a checkpoint of a log that was found somewhere: one that carries
// cosignatures of ours which the state does not know of ends the signing of that log.
// It reports whether all is well.
func (w *Witness) Look(ctx context.Context, c checkpoint.Checkpoint) bool {
	if len(Cosignatures(c.Raw(), w.verifiers()...)) == 0 {
		return true // nearly always
	}
	s := w.of(c.Origin())
	s.Lock()
	defer s.Unlock()
	state, err := w.opts.Store.State(ctx, c.Origin())
	if err != nil {
		return false
	}
	_, ahead := w.ahead(ctx, c.Origin(), s, c, state)
	return !ahead && state.Doubt == ""
}

func doubted(reason string) Answer {
	return answer(unavailable, "nothing of this log is signed until the operator of the witness has looked: %s", reason)
}

// doubt ends the signing of a log.
func (w *Witness) doubt(ctx context.Context, origin, reason string, floor State) Answer {
	w.opts.Logger.Error("nothing of this log is signed any more, until somebody has looked", "origin", origin, "reason", reason)
	// Also if whoever asks has gone.
	ctx = context.WithoutCancel(ctx)
	if err := w.opts.Store.Doubt(ctx, origin, reason, floor); err != nil {
		return w.broken("a doubt cannot be stored", origin, err)
	}
	if w.opts.Doubted != nil {
		w.opts.Doubted(ctx, origin, reason)
	}
	return doubted(reason)
}

// broken is the answer where something of ours does not work: its log says what.
func (w *Witness) broken(what, origin string, err error) Answer {
	w.opts.Logger.Error("a checkpoint was not signed: "+what, "origin", origin, "error", err)
	a := answer(unavailable, "%s; the log of the witness says why", what)
	a.Again = 10 * time.Second
	return a
}

// Seen is a cosignature that verifies.
type Seen struct {
	By *Verifier
	At int64 // seconds since 1970
}

// Cosignatures returns the cosignatures by some keys that verify on a signed note.
// Lines of others, and lines that do not verify, are passed over: anybody can put them
// there.
func Cosignatures(raw []byte, keys ...*Verifier) []Seen {
	var out []Seen
	for _, k := range keys {
		n, err := note.Open(raw, note.VerifierList(k))
		if err != nil {
			continue
		}
		for _, s := range n.Sigs {
			if at, ok := timeOf(s); ok {
				out = append(out, Seen{k, at})
			}
		}
	}
	return out
}
