// Package simulation runs the real engine, store, dispatcher and witness in made-up time,
// on a disk, a network and logs that fail as a seed says, and holds what they did against
// what it knows to be true.
//
// One seed is one world: a few logs that grow, end and may lie; a network that loses,
// delays, refuses and corrupts; a disk that fills up, breaks and loses power; a process
// that is killed and begins again; people who decide, change rules, and set clocks. What
// is to happen is drawn before it begins, and whoever draws later has a source of its own,
// so that a seed repeats.
package simulation

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigwarden/sigwarden/monitor/store/simdisk"
)

const (
	// pollEvery is the time between polls.
	pollEvery = time.Minute
	// healing is how long everything works at the end: a poll may be under way, and has
	// to end first.
	healing = (patience+2)*pollEvery + 40*time.Second
	// patience is in how many polls a lie is found that a poll alone does not show, once answers come through.
	patience = 3
)

// world is what one seed makes.
type world struct {
	seed   uint64
	began  time.Time
	disk   *simdisk.Disk
	faults *faults // of the disk
	net    *network
	people *people
	logs   []*simLog // all of them, also those that were not published yet
	family []*simLog // of the group, the oldest first
	rules  []*rule
	// channels are those that are configured.
	channels []string
	say      *slog.Logger

	mu     sync.Mutex
	liar   bool
	listed int // logs of the group that the trusted root names
	active int // index of the rule in force
	skew   time.Duration
	share  float64 // of what was not synced that the next end of the process leaves; -1: all
	counts map[string]int
	wrongs []string
	audit  *auditor
}

// source returns a source of chance of somebody's own.
func (w *world) source(of string) *rand.Rand { return rand.New(rand.NewPCG(w.seed, number(of))) }

func number(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum64()
}

// chance draws for the nth time that something happens, whatever happens meanwhile.
func (w *world) chance(what string, n int) *rand.Rand { return w.source(fmt.Sprintf("%s %d", what, n)) }

// count counts a fault, or something else that happened.
func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

// wrong notes what must not be.
func (w *world) wrong(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.wrongs) < 20 {
		w.wrongs = append(w.wrongs, fmt.Sprintf("[%s] ", time.Since(w.began).Round(time.Millisecond))+fmt.Sprintf(format, args...))
	}
}

// alone reports whether nobody asks the witness for anything: a lie is for the engine alone to find, and
// in the poll that sees it first.
func (w *world) alone() bool { return w.seed%5 == 2 }

// now is what the clock of the machine says.
func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.skew)
}

// act is something that happens at a time.
type act struct {
	at   time.Duration
	what string
	do   func()
}

// outcome is what a world came to.
type outcome struct {
	Seed   uint64         `json:"seed"`
	Wrongs []string       `json:"wrongs,omitempty"`
	Counts map[string]int `json:"counts"`
	// State sums up what was stored and told in the end.
	State string `json:"state"`
}

// simulate runs the world of a seed.
func simulate(t *testing.T, seed uint64, say *slog.Logger) (out outcome) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, say)
		defer w.disk.Close()
		w.run()
		out = outcome{seed, w.wrongs, w.counts, w.audit.summary()}
	})
	return out
}

func newWorld(t *testing.T, seed uint64, say *slog.Logger) *world {
	w := &world{seed: seed, began: time.Now(), counts: map[string]int{}, say: say}
	w.audit = newAuditor(w)
	w.disk = freshDisk(t)
	w.faults = newFaults(w)
	w.net = &network{w: w, asked: map[string]int{}, corrupted: map[string][]time.Time{}, trouble: map[string]*trouble{}, looks: map[string][]time.Time{}}
	w.people = &people{w: w, tries: map[string]int{}, accepted: map[string]int{}, settled: map[string]bool{}, about: map[string]string{}, trouble: map[string]*trouble{}}
	w.channels = channels[:1+w.source("channels").IntN(2)]
	w.rules = must(makeRules[len(w.channels)-1]())
	return w
}

// run lets everything happen, and audits it.
func (w *world) run() {
	chaos, plan := w.plan()
	slices.SortStableFunc(plan, func(a, b act) int { return int(a.at - b.at) })
	stop := make(chan struct{})
	p := &process{w: w}
	w.audit.proc = p
	var wg sync.WaitGroup
	wg.Go(func() { p.supervise(stop) })
	for _, a := range plan {
		time.Sleep(time.Until(w.began.Add(a.at)))
		w.say.Info("act", "at", a.at, "what", a.what)
		w.count(a.what)
		a.do()
	}
	time.Sleep(time.Until(w.began.Add(chaos)))
	w.heal()
	w.audit.healing(p)
	close(stop)
	wg.Wait()
	w.audit.end()
}

// heal ends every trouble.
func (w *world) heal() {
	w.say.Info("act", "what", "everything works")
	w.faults.calm()
	w.net.calm()
	w.people.calm()
	for _, l := range w.logs {
		l.publish()
	}
	w.mu.Lock()
	w.skew = 0
	w.mu.Unlock()
}

// plan draws what is to happen, and for how long.
func (w *world) plan() (chaos time.Duration, plan []act) {
	rng := w.source("plan")
	chaos = time.Duration(3+rng.IntN(6)) * pollEvery / 2
	at := func() time.Duration {
		// No two things happen in the same instant.
		return time.Duration(rng.Int64N(int64(chaos)))/time.Millisecond*time.Millisecond + time.Duration(len(plan)+1)*time.Microsecond
	}
	some := func(most int, p float64) int {
		n := 0
		for range most {
			if rng.Float64() < p {
				n++
			}
		}
		return n
	}
	do := func(at time.Duration, what string, f func()) { plan = append(plan, act{at, what, f}) }
	span := func(most time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(most))) }

	w.logs = append(w.logs, w.newLog("alpha"))
	for i := range []int{0, 0, 1, 2}[rng.IntN(4)] {
		l := w.newLog(fmt.Sprintf("shard%d", i))
		w.logs, w.family = append(w.logs, l), append(w.family, l)
	}
	w.listed = min(1, len(w.family))
	if w.seed >= firstV1 && w.seed < firstListed {
		w.serveV1("alpha", w.logs[0])
		if len(w.family) > 0 {
			w.serveV1("shards", w.family...)
		}
	}
	for _, l := range w.logs {
		l.grow(rng, rng.IntN(200))
		l.publish()
		for range 2 + rng.IntN(4) {
			n := rng.IntN(40)
			if rng.IntN(12) == 0 {
				n += 300
			}
			seed := rng.Uint64()
			when := at()
			do(when, "growth", func() { l.grow(rand.New(rand.NewPCG(seed, 0)), n) })
			do(when+time.Duration(rng.Int64N(int64(2*pollEvery))), "publishing", l.publish)
		}
	}
	if len(w.family) > 1 {
		before := w.family[0]
		do(at(), "rotation", func() {
			before.end()
			if before.v1 != nil {
				before.v1.rotate()
			}
			w.mu.Lock()
			w.listed = 2
			w.mu.Unlock()
		})
	}
	if rng.IntN(3) == 0 {
		w.liar = true
		when := at()
		if w.alone() {
			when = chaos - span(pollEvery) // it is seen for the first time once everything works
		}
		w.planLie(rng, w.logs[0], when, do)
	}
	for _, kind := range []string{"outage", "refusal", "too many requests", "slow answers", "odd answers", "corrupt bytes"} {
		for range some(2, 0.3) {
			l, t := w.logs[rng.IntN(len(w.logs))], &trouble{kind: kind, until: 0}
			when := at()
			t.until = when + 10*time.Second + span(3*time.Minute)
			do(when, "network: "+kind, func() { w.net.begin(l.host, t) })
		}
	}
	for range some(2, 0.3) {
		when := at()
		to := when + span(3*time.Minute)
		do(when, "older checkpoints", func() { w.logs[0].lag(2, to) })
	}
	for _, kind := range []string{"errors", "hangs", "answers lost", "asks to wait"} {
		for range some(2, 0.3) {
			c, t := w.channels[rng.IntN(len(w.channels))], &trouble{kind: kind}
			when := at()
			t.until = when + 10*time.Second + span(4*time.Minute)
			do(when, "channel: "+kind, func() { w.people.begin(c, t) })
		}
	}
	w.planDisk(rng, at, do, some, span)
	for range some(2, 0.4) {
		do(at(), "rules changed", func() { w.changeRules() })
	}
	for range some(3, 0.4) {
		seed := rng.Uint64()
		do(at(), "triage", func() { w.people.decide(rand.New(rand.NewPCG(seed, 0))) })
	}
	for range some(2, 0.25) {
		step := time.Duration(rng.Int64N(int64(20*time.Minute))) - 10*time.Minute
		if rng.IntN(3) == 0 {
			step *= 60 // whoever has a wrong clock, and sets it right
		}
		do(at(), "clock step", func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.skew += step
		})
	}
	return chaos, plan
}

// trouble is a stretch of time in which something does not work.
type trouble struct {
	kind  string
	until time.Duration // since the world began
}

func (t *trouble) lasts(w *world) bool { return t != nil && time.Since(w.began) < t.until }

// wait sleeps, unless ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o outcome) String() string { return strings.Join(o.Wrongs, "\n") }
