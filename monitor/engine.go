package monitor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/entry"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// Engine follows logs.
type Engine struct {
	opts     Options
	watchSet []string            // hashes of the rules of today
	counters [][]string          // of items of expect, by watch
	memory   *semaphore.Weighted // for entries, of all logs together
	kicked   chan struct{}       // something may have become due
	mu       sync.Mutex
	runners  []*runner       // only added to
	asked    map[string]bool // families that were asked once
	metrics  Metrics
}

// runner follows one log. Only one pass of it runs at a time.
type runner struct {
	*Engine
	cfg      LogConfig
	log      *slog.Logger
	budget   *budget
	ahead    sync.Map                      // tiles that were fetched before they were asked for, as served, by aheadTile
	busy     chan struct{}                 // has a place for who works on the log
	waiting  atomic.Int32                  // passes that wait for busy
	progress atomic.Int64                  // moves with everything that the log answers
	first    atomic.Bool                   // a first pass was tried
	answered atomic.Bool                   // a signed checkpoint was seen since the program began
	retired  atomic.Bool                   // listed as a log that has ended
	removed  atomic.Bool                   // no longer in the trusted root
	quiet    atomic.Bool                   // it has ended, and everything was read
	faults   atomic.Int64                  // entries that broke what reads them
	shown    atomic.Pointer[contradiction] // what a scan has come by
	trust    atomic.Pointer[trust]
	access   atomic.Pointer[access]
	eyes     sync.Pool // of *eyes
}

// access is where a log is read, and with which keys. Like trust, it may change.
type access struct {
	Log    *checkpoint.Log
	Source TileLog
	Proofs ProofLog
	URL    string
	Keys   [][]byte
}

func (r *runner) way() *access { return r.access.Load() }

// trust is who is trusted for entries of a log. It may change while the log is
// followed.
type trust struct {
	authorities *entry.Authorities
	document    []byte // of authorities, kept with findings
	root        *TrustRoot
	hash        string // of the root's document, or of that of the authorities
}

// RuleHash identifies what a rule says, its terms among that: the SHA-256 of
// RuleDocument.
func RuleHash(w watchlist.Watch, cfg WatchConfig) string { return w.Hash(cfg.terms()) }

// RuleDocument is what a rule says, as JSON.
func RuleDocument(w watchlist.Watch, cfg WatchConfig) []byte { return w.Document(cfg.terms()) }

// terms are those of the items of expect; nil where none asks for anything.
func (c *WatchConfig) terms() any {
	if !slices.ContainsFunc(c.Terms, func(t *policy.Terms) bool { return !t.IsZero() }) {
		return nil
	}
	return c.Terms
}

// New checks the options and returns an engine.
func New(opts Options) (*Engine, error) {
	if opts.Store == nil || opts.Watches == nil {
		return nil, errors.New("monitor: a store and a watchlist are needed")
	}
	if len(opts.WatchConfigs) != len(opts.Watches.Watches()) {
		return nil, errors.New("monitor: one WatchConfig a watch is needed")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Jitter == nil {
		opts.Jitter = func(wait time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(wait)/10 + 1)) }
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.CommitEvery <= 0 {
		opts.CommitEvery = 65536
	}
	e := &Engine{opts: opts, memory: semaphore.NewWeighted(budgetBytes), kicked: make(chan struct{}, 1), metrics: newMetrics(opts.Watches.Watches()), asked: map[string]bool{}}
	for i, w := range opts.Watches.Watches() {
		e.watchSet = append(e.watchSet, RuleHash(w, opts.WatchConfigs[i]))
		var counters []string
		for _, it := range w.Expect {
			// Terms do not enter: whoever raises a limit does not begin to count anew.
			// Items with the same patterns count each for itself.
			parts := []string{w.Name, it.Hash()}
			for slices.Contains(counters, shortID("", parts...)) {
				parts = append(parts, "and another")
			}
			counters = append(counters, shortID("", parts...))
		}
		e.counters = append(e.counters, counters)
	}
	for _, cfg := range opts.Logs {
		if _, err := e.add(cfg); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// add makes the runner of one more log.
func (e *Engine) add(cfg LogConfig) (*runner, error) {
	if cfg.Log == nil || (cfg.Source == nil) == (cfg.Proofs == nil) || cfg.ID == "" || cfg.Name == "" {
		return nil, fmt.Errorf("monitor: log %q is not complete", cfg.Name)
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = 4
	}
	r := &runner{Engine: e, cfg: cfg, busy: make(chan struct{}, 1), log: e.opts.Logger.With("log", cfg.Name), budget: newBudget(e.memory)}
	if err := r.update(cfg); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, other := range e.runners {
		if other.cfg.ID == cfg.ID {
			return nil, fmt.Errorf("monitor: logs %q and %q are the same log (%s)", other.cfg.Name, cfg.Name, cfg.ID)
		}
	}
	e.runners = append(e.runners, r)
	return r, nil
}

// update takes over what may change of a log while it is followed.
func (r *runner) update(cfg LogConfig) error {
	r.retired.Store(cfg.Retired)
	r.removed.Store(cfg.Removed)
	way := &access{cfg.Log, cfg.Source, cfg.Proofs, cfg.URL, cfg.Keys}
	if old := r.access.Swap(way); old != nil && (old.URL != way.URL || !slices.EqualFunc(old.Keys, way.Keys, bytes.Equal)) {
		r.log.Info("the log is read from another place, or has other keys", "url", way.URL, "keys", len(way.Keys))
	}
	authorities := cfg.Authorities
	if authorities == nil {
		authorities = &entry.Authorities{}
	}
	document, err := authorities.Document()
	if err != nil {
		return fmt.Errorf("monitor: certificate authorities of log %q: %w", cfg.Name, err)
	}
	if old := r.trust.Load(); old != nil && bytes.Equal(old.document, document) && (old.root == nil) == (cfg.TrustRoot == nil) && (old.root == nil || bytes.Equal(old.root.Document, cfg.TrustRoot.Document)) {
		return nil
	} else if old != nil {
		r.log.Info("a new trusted root is in force")
	}
	now := &trust{authorities: authorities, document: document, root: cfg.TrustRoot}
	if now.root != nil {
		now.hash = now.root.Hash()
	} else {
		sum := sha256.Sum256(document)
		now.hash = hex.EncodeToString(sum[:])
	}
	r.trust.Store(now)
	return nil
}

// Trusted is a log that is followed, and who is trusted for its entries.
type Trusted struct {
	Log         *checkpoint.Log
	Authorities *entry.Authorities
}

// Trusted returns the logs of today.
func (e *Engine) Trusted() []Trusted {
	var out []Trusted
	for _, r := range e.all() {
		out = append(out, Trusted{r.way().Log, r.trust.Load().authorities})
	}
	return out
}

// byID returns the runner of a log, nil if it is not followed.
func (e *Engine) byID(id string) *runner {
	for _, r := range e.all() {
		if r.cfg.ID == id {
			return r
		}
	}
	return nil
}

// all returns the runners of today.
func (e *Engine) all() []*runner {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.runners)
}

// Run follows every log, at once and then on its schedule with up to 10 % of
// jitter, until ctx ends. A poll that is due while the last one still runs is
// skipped. Run returns when every log has stopped.
func (e *Engine) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { e.keep(ctx) })
	for _, r := range e.all() {
		wg.Go(func() { r.follow(ctx) })
	}
	for _, f := range e.opts.Families {
		wg.Go(func() {
			e.followFamily(ctx, f, func(r *runner) { wg.Go(func() { r.follow(ctx) }) })
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (r *runner) follow(ctx context.Context) {
	for ctx.Err() == nil {
		now := r.opts.Now()
		out := r.pass(ctx, max(r.next(now).Sub(now), time.Second))
		r.report(out)
		if out.Behind && out.Moved && out.Err == nil {
			continue // the scan was only cut to look at the head
		}
		next := r.next(r.opts.Now())
		timer := time.NewTimer(next.Sub(r.opts.Now()))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// next is the next tick with its jitter, which spreads the logs of many
// monitors over time.
func (r *runner) next(now time.Time) time.Time {
	at := r.cfg.Schedule.Next(now)
	if daily := now.Add(24 * time.Hour); r.quiet.Load() && at.Before(daily) {
		at = daily // SPEC: wire-formats 3.5: for shards that have ended
	}
	if wait := at.Sub(now); wait > 0 {
		at = at.Add(r.opts.Jitter(wait))
	}
	return at
}

func (r *runner) report(out Outcome) {
	switch {
	case out.Err != nil && !errors.Is(out.Err, context.Canceled):
		r.log.Warn("poll failed; the next one tries again", "error", out.Err)
	case out.Findings > 0:
		r.log.Info("pass done", "findings", out.Findings, "notifying", out.Notifying, "scanned", out.Scanned, "head", out.Head)
	default:
		r.log.Debug("pass done", "scanned", out.Scanned, "head", out.Head)
	}
}

// Outcome is what one pass over a log came to.
type Outcome struct {
	Log string
	// Err says why the pass could not be finished; nil also for a halted log.
	Err error
	// Begun is set by the pass that saw the log first; From is where coverage
	// begins then.
	Begun bool
	From  uint64
	// Findings are new ones, Notifying those of them that are told to people.
	Findings, Notifying int
	// Otherwise are findings of earlier days that are judged otherwise by the rules
	// of today.
	Otherwise     int
	Head, Scanned uint64
	// Behind: the scan was cut before it reached the head. Moved: it came on.
	Behind, Moved bool
	// Halted names the incident that halts the log.
	Halted string
	// Missing are entries of gaps that could not be had.
	Missing bool
	// Older: the log served an older checkpoint than the verified one.
	Older bool
	// ended: the log was listed as one that has ended before it was polled.
	ended bool
	// behindErr is why gaps or history could not be read: it says nothing about the
	// head, and becomes Err once the poll is judged.
	behindErr error
}

// Once makes one full pass over every log, all at the same time, to the newest
// checkpoint. It gives up on a log after idle without any progress.
func (e *Engine) Once(ctx context.Context, idle time.Duration) []Outcome {
	listed := e.listFamilies(ctx, idle)
	runners := e.all()
	outcomes := make([]Outcome, len(runners))
	var wg sync.WaitGroup
	for i, r := range runners {
		wg.Go(func() {
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			stop := r.watchProgress(cancel, idle)
			defer stop()
			outcomes[i] = r.pass(ctx, 0)
			if cause := context.Cause(ctx); outcomes[i].Err != nil && cause != nil {
				outcomes[i].Err = cause
			}
			r.report(outcomes[i])
		})
	}
	wg.Wait()
	return append(outcomes, listed...)
}

// watchProgress cancels when nothing has moved for a while.
func (r *runner) watchProgress(cancel context.CancelCauseFunc, idle time.Duration) (stop func()) {
	if idle <= 0 {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		last, at := r.progress.Load(), time.Now()
		tick := time.NewTicker(max(idle/20, time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if now := r.progress.Load(); now != last {
					last, at = now, time.Now()
				} else if time.Since(at) > idle {
					cancel(fmt.Errorf("no progress for %s: given up on this log", idle))
					return
				}
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// Ready reports whether a first pass over every log was tried.
func (e *Engine) Ready() bool {
	e.mu.Lock()
	asked := len(e.asked)
	e.mu.Unlock()
	if asked < len(e.opts.Families) {
		return false
	}
	for _, r := range e.all() {
		if !r.first.Load() {
			return false
		}
	}
	return true
}
