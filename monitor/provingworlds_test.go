package monitor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// TestRekorV1OddWorlds: servers that leave out, alter, refuse and answer wrongly by chance, over trees of
// some two hundred entries. Whatever they do, what is covered was served as it is, what is found is ours
// and covered, who flips bits is not accused of one answer, and what lies between sizes that are shown is
// found if all of it is served; once all is well, nothing is missing and nothing was counted twice.
func TestRekorV1OddWorlds(t *testing.T) {
	seeds := 12
	if testing.Short() {
		seeds = 3
	}
	for _, kind := range []oddKind{
		{name: "some sizes", refuses: 0.3},
		{name: "runs of sizes", refuses: 0.3, runs: 2},
		{name: "most sizes", refuses: 0.7, runs: 1},
		{name: "powers of two", refuses: 0.3, powers: true},
		{name: "flips", refuses: 0.3, flips: 2},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(seeds) {
				w := oddWorld{oddKind: kind}
				w.run(t, seed)
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

// oddKind is a kind of server.
type oddKind struct {
	name    string
	refuses float64 // the most of sizes
	runs    int     // of sizes that follow on each other
	powers  bool    // also powers of two
	flips   int     // one of so many answers has a bit wrong
}

// oddWorld is a server, and what it does.
type oddWorld struct {
	oddKind
	monitor.ProofLog
	mu             sync.Mutex
	rng            *rand.Rand
	refused, wrong map[uint64]bool
	heads          map[uint64]bool // what it has signed, and shows
	truth          [][]byte
	ours           map[uint64]bool
	served         map[uint64]bool // as it is
	flipped        map[uint64]int
	well           bool
	proofs, asked  int
}

// ConsistencyProof implements monitor.ProofLog.
func (w *oddWorld) ConsistencyProof(ctx context.Context, from, to uint64) ([][]byte, error) {
	w.mu.Lock()
	w.proofs++
	odd := !w.well && !w.heads[from]
	refused, wrong := odd && w.refused[from], odd && w.wrong[from]
	w.mu.Unlock()
	if refused {
		return nil, errors.New("status 500")
	}
	proof, err := w.ProofLog.ConsistencyProof(ctx, from, to)
	if wrong && len(proof) > 0 {
		proof[0] = bytes.Clone(proof[0])
		proof[0][0] ^= 1
	}
	return proof, err
}

// Entries implements monitor.ProofLog.
func (w *oddWorld) Entries(ctx context.Context, offset, from, to uint64) ([]monitor.ServedEntry, error) {
	list, err := w.ProofLog.Entries(ctx, offset, from, to)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if !w.well && w.flips > 0 && len(list) > 0 && w.rng.IntN(w.flips) == 0 {
		if e := &list[w.rng.IntN(len(list))]; e.Leaf != nil {
			e.Leaf = bytes.Clone(e.Leaf)
			e.Leaf[0] ^= 1
			w.flipped[e.Index]++
		}
	}
	for _, e := range list {
		if bytes.Equal(e.Leaf, w.truth[e.Index]) {
			w.served[e.Index] = true
		}
	}
	return list, err
}

func (w *oddWorld) run(t *testing.T, seed uint64) {
	r := newRigV1(t)
	rng := rand.New(rand.NewPCG(seed, uint64(len(w.name))))
	w.ProofLog, w.rng = r.cfg.Proofs, rand.New(rand.NewPCG(seed, 1))
	w.refused, w.wrong, w.heads = map[uint64]bool{}, map[uint64]bool{}, map[uint64]bool{}
	w.ours, w.served, w.flipped = map[uint64]bool{}, map[uint64]bool{}, map[uint64]int{}
	r.cfg.Proofs = w
	leaps := rng.IntN(2) == 0
	if leaps {
		r.opts.LeapAfter = uint64(25 + rng.IntN(60))
	}
	r.opts.Now = func() time.Time { r.clock.move(time.Microsecond); return r.clock.now() }
	r.restart()
	ours := r.entry(unexpectedEvent(), 1)
	grow := func(n int) {
		for range n {
			i := uint64(len(w.truth))
			e := r.filler
			if w.ours[i] = rng.IntN(4) == 0; w.ours[i] {
				e = ours
			}
			e = fmt.Appendf(bytes.Clone(e), "%*s", int(i), "") // all differ
			w.mu.Lock()
			w.truth = append(w.truth, e)
			w.mu.Unlock()
			r.v1.Append(e)
		}
	}
	pass := func() {
		w.mu.Lock()
		w.heads[uint64(len(w.truth))] = true
		w.proofs, w.asked = 0, 0
		w.mu.Unlock()
		r.clock.move(time.Minute)
		if leaps {
			// A pass may have no time.
			r.engine.Pass(t.Context(), []time.Duration{20 * time.Second, 30 * time.Microsecond}[rng.IntN(2)])
		} else {
			r.once()
		}
		if w.proofs > 600 || w.asked > 600 {
			t.Errorf("%d proofs and %d requests for entries, of a tree of %d", w.proofs, w.asked, len(w.truth))
		}
	}
	grow(1 + rng.IntN(20))
	w.well = true
	pass()
	w.well = false
	grow(1 + rng.IntN(150))
	f := w.odd(rng)
	r.v1.Set(f)
	for range 14 {
		pass()
		w.audit(t, r, f)
		grow(rng.IntN(3))
	}
	pass()
	w.between(t, r, f)
	w.well = true
	r.v1.Set(locallog.FaultsV1{})
	for range 4 {
		pass()
	}
	w.audit(t, r, f)
	st := r.state()
	if want := fmt.Sprintf("[0,%d)", len(w.truth)); r.coverage() != want || len(st.Backlog) > 0 || st.Entries != uint64(len(w.truth)) {
		t.Errorf("all is well: coverage %s, backlog %v, %d entries read of %d", r.coverage(), st.Backlog, st.Entries, len(w.truth))
	}
	for i, ours := range w.ours {
		if ours && w.found(r)[i] == 0 {
			t.Errorf("entry %d was never found", i)
		}
	}
}

// odd decides what is odd of the tree as it is.
func (w *oddWorld) odd(rng *rand.Rand) locallog.FaultsV1 {
	f := locallog.FaultsV1{Omit: map[uint64]bool{}, Alter: map[uint64][]byte{}, NoPath: map[uint64]bool{}}
	omits, alters, refuses, wrong := rng.Float64()*0.15, 0.0, rng.Float64()*w.refuses, rng.Float64()*0.1
	if w.flips == 0 && rng.IntN(2) == 0 {
		alters = rng.Float64() * 0.1
	}
	size := uint64(len(w.truth))
	may := func(n uint64) bool { return w.powers || n&(n-1) != 0 }
	for i := range size {
		switch p := rng.Float64(); {
		case p < omits:
			f.Omit[i] = true
		case p < omits+alters:
			f.Alter[i] = fmt.Appendf(nil, "altered %d", i)
		}
		f.NoPath[i] = rng.IntN(5) == 0
		switch p := rng.Float64(); {
		case !may(i):
		case p < refuses:
			w.refused[i] = true
		case p < refuses+wrong:
			w.wrong[i] = true
		}
	}
	for range w.runs {
		from := rng.Uint64N(size)
		for i := from; i < from+rng.Uint64N(25); i++ {
			w.refused[i] = w.refused[i] || may(i)
		}
	}
	return f
}

func (w *oddWorld) found(r *rigV1) map[uint64]int {
	out := map[uint64]int{}
	for _, f := range r.findings() {
		out[f.Index]++
	}
	return out
}

// audit holds what is claimed against what was served.
func (w *oddWorld) audit(t *testing.T, r *rigV1, f locallog.FaultsV1) {
	t.Helper()
	status, err := r.engine.Status(t.Context(), r.store, nil)
	if err != nil {
		t.Fatal(err)
	}
	covered := map[uint64]bool{}
	for _, c := range status.Logs[0].Coverage {
		for i := c.From; i < c.To; i++ {
			covered[i] = true
		}
	}
	for _, g := range status.Logs[0].Gaps {
		if g.From >= g.To {
			t.Errorf("an empty gap at %d", g.From)
		}
		for i := g.From; i < g.To; i++ {
			delete(covered, i)
			if g.Reason == monitor.KindEntryMismatch && f.Alter[i] == nil && w.flipped[i] < 2 {
				t.Errorf("entry %d is said to be wrong, and was in %d answers", i, w.flipped[i])
			}
		}
	}
	found := w.found(r)
	for i := range uint64(len(w.truth)) {
		switch {
		case covered[i] && !w.served[i]:
			t.Errorf("entry %d is covered, and was never served", i)
		case covered[i] && w.ours[i] && found[i] != 1 || !w.ours[i] && found[i] != 0 || found[i] > 1:
			t.Errorf("entry %d was found %d times, of ours %v", i, found[i], w.ours[i])
		case found[i] > 0 && !covered[i]:
			t.Errorf("entry %d was found, and is not covered: %s", i, r.coverage())
		}
	}
	r.auditFindings()
}

// between looks for what is served whole between sizes that are shown, and was not found.
func (w *oddWorld) between(t *testing.T, r *rigV1, f locallog.FaultsV1) {
	t.Helper()
	if w.flips > 0 {
		return
	}
	found := w.found(r)
	last, whole := uint64(0), true
	for n := uint64(1); n <= uint64(len(w.truth)); n++ {
		whole = whole && !f.Omit[n-1] && f.Alter[n-1] == nil
		shows := func(n uint64) bool { return w.heads[n] || !w.refused[n] && !w.wrong[n] }
		from := n
		if n&(n-1) == 0 {
			from = n + 1 // its only peak is in no proof of its own
		}
		if n < 3 || !shows(from) {
			continue
		}
		for i := last; i < n && whole; i++ {
			if w.ours[i] && found[i] == 0 {
				t.Errorf("entry %d of [%d,%d), all of which is served: %s, backlog %v", i, last, n, r.coverage(), r.state().Backlog)
			}
		}
		last, whole = n, true
	}
}
