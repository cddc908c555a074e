package monitor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sigwarden/sigwarden/watchlist"
)

// Trial is what a watchlist finds among the newest entries of a log.
type Trial struct {
	Log string
	// Read is how many entries were read and proven, Matches how many findings they make, Of
	// the newest of those, judged by patterns alone: as if nothing was announced, and nothing
	// came before.
	Read    uint64
	Matches int
	Of      []Finding
	Err     error // why not all could be read
}

const (
	// TriedEntries is how many entries of a log a watchlist is tried on; of one without
	// tiles, which gives ten to a request, triedSlowly.
	TriedEntries = 512
	triedSlowly  = 100
)

// Try reads the newest entries of every log's verified tree with another watchlist, proven
// like any, and stores nothing. At most `most` findings of a log are returned, the newest
// first. When ctx ends, entries that are left are not looked at. A log that was not polled yet, or whose entries are not read, is left out.
func (e *Engine) Try(ctx context.Context, list *watchlist.List, most int) ([]Trial, error) {
	other, err := New(Options{Store: e.opts.Store, Watches: list, WatchConfigs: make([]WatchConfig, len(list.Watches())), Now: e.opts.Now})
	if err != nil {
		return nil, err
	}
	out := []Trial{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, r := range e.all() {
		if r.cfg.ConsistencyOnly {
			continue
		}
		all.Go(func() {
			// One bundle after the other: who reads the logs goes first.
			cfg := r.cfg
			if r.way().Proofs == nil {
				cfg.Parallel = 1
			}
			with := &runner{Engine: other, cfg: cfg, log: r.log, budget: newBudget(other.memory)}
			with.trust.Store(r.trust.Load())
			with.access.Store(r.way())
			t, begun := with.try(ctx, most)
			mu.Lock()
			defer mu.Unlock()
			if begun {
				out = append(out, t)
			}
		})
	}
	all.Wait()
	slices.SortFunc(out, func(a, b Trial) int { return strings.Compare(a.Log, b.Log) })
	return out, nil
}

// try reads the newest entries of the log of a runner that stores nothing.
func (r *runner) try(ctx context.Context, most int) (out Trial, begun bool) {
	out.Log = r.cfg.Name
	take := func(res result) error {
		out.Read += res.tally.entries
		out.Matches += len(res.findings)
		for _, f := range res.findings {
			// Nothing was announced, and nothing came before: a rule that is tried has no past.
			kept, err := f.Settle(noPast{})
			if err != nil {
				return err
			}
			if kept {
				out.Of = append(out.Of, f)
			}
		}
		out.Of = out.Of[max(0, len(out.Of)-most):]
		return nil
	}
	st, err := r.opts.Store.State(ctx, r.cfg.ID)
	if err == nil && st.Head == "" {
		return out, false
	}
	if err == nil {
		err = r.newest(ctx, st, take)
	}
	if err != nil {
		out.Err = fmt.Errorf("log %s: %w", r.cfg.Name, err)
	}
	slices.Reverse(out.Of)
	return out, true
}

// newest reads and proves the newest entries of the verified tree.
func (r *runner) newest(ctx context.Context, st State, take func(result) error) error {
	known, err := r.known(ctx, st)
	if err != nil {
		return err
	}
	n := uint64(TriedEntries)
	if r.way().Proofs != nil {
		n = triedSlowly
	}
	part := Range{st.HeadSize - min(n, st.HeadSize), st.HeadSize}
	if r.way().Proofs != nil {
		return r.readProven(ctx, known.Head, st, part, 1, 0, time.Time{}, take)
	}
	tree, err := known.Tree(r.served(ctx))
	if err != nil {
		return err
	}
	_, err = r.newSpan(tree, st.Epoch).run(ctx, part.From, part.To, take)
	return err
}

// noPast is the past of a rule that never was in force.
type noPast struct{}

func (noPast) Announced(string, []string, time.Time, time.Time) (string, bool, error) {
	return "", false, nil
}

func (noPast) Within(string, uint64, time.Time, time.Duration, int) (int, error) { return 0, nil }

func (noPast) Seen(string, string, uint64) (uint64, bool, error) { return 0, false, nil }

func (noPast) Admit(string, []string, uint64, time.Time) error { return nil }
