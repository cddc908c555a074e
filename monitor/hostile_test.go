package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// What a log can do so that its monitor goes blind or silent.

// source lets single answers of a log be others.
type source struct {
	monitor.TileLog
	leaves     func(from uint64) error
	tile       func(level uint, index uint64, width int) error
	checkpoint func()
}

func (s *source) Leaves(ctx context.Context, from, to uint64) ([][]byte, error) {
	if s.leaves != nil {
		if err := s.leaves(from); err != nil {
			return nil, err
		}
	}
	return s.TileLog.Leaves(ctx, from, to)
}

func (s *source) Tile(ctx context.Context, level uint, index uint64, width int) ([]byte, error) {
	if s.tile != nil {
		if err := s.tile(level, index, width); err != nil {
			return nil, err
		}
	}
	return s.TileLog.Tile(ctx, level, index, width)
}

func (s *source) Checkpoint(ctx context.Context) ([]byte, error) {
	raw, err := s.TileLog.Checkpoint(ctx)
	if s.checkpoint != nil {
		s.checkpoint()
	}
	return raw, err
}

func (r *rig) through(s *source) *source {
	s.TileLog = r.source()
	r.cfg.Source = s
	r.restart()
	return s
}

type refused struct{}

func (refused) Error() string { return "403" }
func (refused) Refused() bool { return true }

// TestOneBundleNeverAnswered: a bundle that is refused is passed at once, one
// that only fails after three polls; what lies beyond is found.
func TestOneBundleNeverAnswered(t *testing.T) {
	for _, failure := range []error{refused{}, errors.New("500")} {
		r := newRig(t)
		r.fill(r.log, 1000)
		beyond := r.sign(r.log, unexpectedEvent())
		r.fill(r.log, 500)
		s := r.through(&source{leaves: func(from uint64) error {
			if from/256 == 1 {
				return failure
			}
			return nil
		}})
		for range 4 {
			r.once()
		}
		if got := r.verdicts(); got != fmt.Sprintf("%d:unexpected", beyond) {
			t.Fatalf("%v: findings %q", failure, got)
		}
		if got := r.coverage(); got != "[0,1501)-[256,512)entry-withheld" {
			t.Errorf("%v: coverage %s", failure, got)
		}
		r.once()
		r.once()
		if !strings.Contains(r.incidents(), "entry-withheld:operational:open") {
			t.Errorf("%v: incidents %q", failure, r.incidents())
		}
		s.leaves = nil
		r.mustPass()
		if got := r.coverage(); got != "[0,1501)" {
			t.Errorf("%v: coverage %s", failure, got)
		}
		r.audit()
	}
}

// TestFailureStopsNothingBefore: a bundle that fails at once does not stop
// those before it that answer slowly.
func TestFailureStopsNothingBefore(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 1300)
	r.through(&source{leaves: func(from uint64) error {
		if from/256 == 3 {
			return errors.New("500")
		}
		time.Sleep(20 * time.Millisecond)
		return nil
	}})
	if out := r.once(); out.Err == nil || out.Scanned != 768 {
		t.Errorf("%+v", out)
	}
	r.audit()
}

// TestUnalignedEdgeWithheld: the rest of a bundle that was read in part is
// withheld with all its hashes.
func TestUnalignedEdgeWithheld(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 300)
	r.mustPass()
	r.fill(r.log, 500)
	beyond := r.sign(r.log, unexpectedEvent())
	// The head is proven with the tile; then tile and bundle are withheld.
	r.through(&source{leaves: func(uint64) error { return errors.New("500") }})
	if out := r.once(); out.Head != 801 || out.Scanned != 300 {
		t.Fatalf("%+v", out)
	}
	s := r.through(&source{
		leaves: func(from uint64) error {
			if from/256 == 1 {
				return fs.ErrNotExist
			}
			return nil
		},
		tile: func(level uint, index uint64, width int) error {
			if level == 0 && index == 1 {
				return fs.ErrNotExist
			}
			return nil
		},
	})
	r.mustPass()
	if got := r.verdicts(); got != fmt.Sprintf("%d:unexpected", beyond) || r.coverage() != "[0,801)-[300,512)entry-withheld" {
		t.Errorf("%q, %s", got, r.coverage())
	}
	r.audit()
	s.leaves, s.tile = nil, nil
	r.fill(r.log, 1000)
	r.mustPass()
	if got := r.coverage(); got != "[0,1801)" {
		t.Errorf("coverage %s", got)
	}
	r.audit()
}

// TestLevelOneTileWithheld hides the hashes over 65,536 entries.
func TestLevelOneTileWithheld(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 131072)
	beyond := r.sign(r.log, unexpectedEvent())
	s := r.through(&source{tile: func(level uint, index uint64, width int) error {
		if level == 1 && index == 0 {
			return fs.ErrNotExist
		}
		return nil
	}})
	r.mustPass()
	if got := r.verdicts(); got != fmt.Sprintf("%d:unexpected", beyond) || r.coverage() != "[0,131073)-[0,65536)entry-withheld" {
		t.Errorf("%q, %s", got, r.coverage())
	}
	r.audit()
	s.tile = nil
	r.mustPass()
	if got := r.coverage(); got != "[0,131073)" {
		t.Errorf("coverage %s", got)
	}
}

// TestSlowPollsStillScan: polls that take longer than their interval let the
// scan come on all the same.
func TestSlowPollsStillScan(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 2000)
	r.opts.Now = nil
	r.cfg.Schedule = every(20 * time.Millisecond)
	var polls atomic.Int32
	r.through(&source{checkpoint: func() { polls.Add(1); time.Sleep(40 * time.Millisecond) }})
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	go func() {
		for ctx.Err() == nil && r.state().Scanned < 2000 {
			time.Sleep(20 * time.Millisecond)
		}
		cancel()
	}()
	r.engine.Run(ctx)
	if s := r.state(); s.Scanned != 2000 {
		t.Errorf("scanned %d after %d polls", s.Scanned, polls.Load())
	}
}

type every time.Duration

func (e every) Next(now time.Time) time.Time { return now.Add(time.Duration(e)) }

// TestMismatchIsNotUndone: who served wrong bytes and then none has not filled
// the gap.
func TestMismatchIsNotUndone(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 300)
	r.server.Set(locallog.Faults{Swap: map[uint64][]byte{7: []byte("forged")}})
	r.mustPass()
	for range 3 {
		r.server.Set(locallog.Faults{Missing: map[uint64]bool{0: true}})
		r.mustPass()
		r.wantIncidents("entry-mismatch:integrity:open")
		r.server.Set(locallog.Faults{Swap: map[uint64][]byte{7: []byte("forged")}})
		r.mustPass()
		r.wantIncidents("entry-mismatch:integrity:open")
	}
	r.server.Set(locallog.Faults{})
	r.mustPass()
	r.wantIncidents("entry-mismatch:integrity:resolved")
}

// TestSignedIsSigned: a checkpoint that could not be judged when it was shown is
// judged once it can be, and two of one size contradict each other at once.
func TestSignedIsSigned(t *testing.T) {
	noTiles := locallog.Faults{NoTiles: true}
	for name, show := range map[string]func(r *rig, fork *locallog.Log){
		"larger, judged when the head has passed it": func(r *rig, fork *locallog.Log) {
			r.fill(fork, 101)
			r.server.Show(fork, nil)
			r.server.Set(noTiles)
			r.once()
			r.wantIncidents("")
			r.fill(r.log, 300)
			r.server.Show(r.log, nil)
			r.server.Set(locallog.Faults{})
			r.mustPass()
			r.mustPass()
		},
		"two larger ones of one size": func(r *rig, fork *locallog.Log) {
			r.fill(fork, 101)
			r.fill(r.log, int(fork.Size()-r.log.Size()))
			r.server.Set(noTiles)
			r.server.Show(fork, nil)
			r.once()
			r.server.Show(r.log, nil)
			r.once()
		},
		"two smaller ones of one size": func(r *rig, fork *locallog.Log) {
			// Neither can be compared with what is kept of a log that began late.
			size := uint64(350)
			r.server.Set(locallog.Faults{NoTiles: true, Size: &size})
			r.server.Show(fork, nil)
			r.once()
			r.wantIncidents("")
			r.server.Show(r.log, nil)
			r.once()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.fill(r.log, 300)
			fork, _ := r.log.Fork(300)
			r.sign(fork, unexpectedEvent())
			r.fill(r.log, 400)
			r.cfg.Start = "latest"
			r.restart()
			r.mustPass()
			r.fill(fork, 400)
			show(r, fork)
			r.wantIncidents("fork:integrity:open")
			verifyFork(t, r)
		})
	}
}

// TestDamagedStateAccusesNobody: hashes of our own that were damaged on the
// disk are no fork of an honest log.
func TestDamagedStateAccusesNobody(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 600)
	r.mustPass()
	r.opts.Store = &damaged{r.store}
	r.restart()
	size := uint64(500)
	r.server.Set(locallog.Faults{Size: &size, NoTiles: true})
	if out := r.once(); out.Err == nil || !strings.Contains(out.Err.Error(), "state file is damaged") {
		t.Errorf("%+v", out)
	}
	r.wantIncidents("")
}

type damaged struct{ *store.Store }

func (d *damaged) OwnTile(ctx context.Context, id string, level uint, index uint64) ([]checkpoint.Hash, error) {
	hashes, err := d.Store.OwnTile(ctx, id, level, index)
	if level == 0 && len(hashes) > 0 {
		hashes[0][5] ^= 1
	}
	return hashes, err
}

// TestForkAtShutdown: a contradiction in hand is stored even if the program is
// told to stop just then.
func TestForkAtShutdown(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 300)
	r.mustPass()
	fork, _ := r.log.Fork(200)
	r.sign(fork, unexpectedEvent())
	r.fill(fork, 99)
	r.server.Show(fork, nil)
	ctx, cancel := context.WithCancel(context.Background())
	r.through(&source{checkpoint: cancel})
	r.engine.Once(ctx, time.Minute)
	r.wantIncidents("fork:integrity:open")
}

// TestManyGaps: gaps that stay do not hide one that could be filled.
func TestManyGaps(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 3000)
	swap := map[uint64][]byte{}
	for i := range uint64(350) {
		swap[i*8] = []byte("forged")
	}
	r.server.Set(locallog.Faults{Swap: swap})
	r.mustPass()
	delete(swap, 349*8)
	r.server.Set(locallog.Faults{Swap: swap})
	for range 3 {
		r.mustPass()
	}
	if got := r.coverage(); strings.Contains(got, fmt.Sprintf("-[%d,", 349*8)) || !strings.Contains(got, "-[0,1)") {
		t.Errorf("coverage %.200s", got)
	}
}

// TestFlood: thousands of findings at once are committed in parts.
func TestFlood(t *testing.T) {
	r := newRig(t)
	s, err := r.ca.Issue(unexpectedEvent())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := s.HashedRekord([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	flood := 5000
	if testing.Short() {
		flood = 2500
	}
	for i := range flood {
		r.log.Append(fmt.Appendf(leaf[:len(leaf):len(leaf)], "%*s", i%200, ""))
	}
	counting := &faultyStore{Store: r.store}
	r.opts.Store = counting
	r.restart()
	if out := r.mustPass(); out.Notifying != flood {
		t.Errorf("%+v", out)
	}
	// The first commit is that of the head.
	if counting.count < 3 {
		t.Errorf("%d commits for %d findings", counting.count, flood)
	}
	r.audit()
}

// TestRescanUnderTighterRule: what was judged by an older rule stays as it was;
// a scan counts what would be judged otherwise, and reassessing shows it.
func TestRescanUnderTighterRule(t *testing.T) {
	r := newRig(t)
	index := r.sign(r.log, expectedEvent())
	r.mustPass()
	before := r.findings()[0]
	watches := r.opts.Watches.Watches()
	watches[0].Expect = nil
	list, err := watchlist.Compile(watches)
	if err != nil {
		t.Fatal(err)
	}
	r.opts.Watches = list
	r.restart()
	out := r.engine.Scan(context.Background(), r.store, monitor.ScanOptions{Log: "acme"})
	if out.Err != nil || out.Notifying != 0 || out.Otherwise != 1 || r.verdicts() != fmt.Sprintf("%d:expected", index) {
		t.Errorf("%+v, %s", out, r.verdicts())
	}
	after, err := r.store.Finding(context.Background(), before.ID)
	if err != nil || after.RuleHash != before.RuleHash || after.Reason != before.Reason {
		t.Errorf("%v: was %+v, is %+v", err, before, after)
	}
	if n, _ := r.store.PendingDeliveries(context.Background()); n != 0 {
		t.Errorf("%d deliveries", n)
	}
	err = r.store.Peek(context.Background(), after.LogID, func(l monitor.Precedents) error {
		today, err := r.engine.Reassess(after, l)
		if today.Verdict != policy.Unexpected || today.RuleHash == after.RuleHash || today.ID != "" {
			t.Errorf("today it would be %+v", today)
		}
		return err
	})
	if err != nil || r.findings()[0].Verdict != policy.Expected {
		t.Errorf("%v, now %+v", err, r.findings()[0])
	}
	r.audit()
}

// TestGapsBelongToTheWatchThatFillsThem: a watch that comes back has not seen
// what was filled without it.
func TestGapsBelongToTheWatchThatFillsThem(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 100)
	hidden := r.sign(r.log, unexpectedEvent())
	r.fill(r.log, 300)
	r.server.Set(locallog.Faults{Missing: map[uint64]bool{0: true}})
	r.mustPass()
	first := r.opts.Watches
	other, err := watchlist.Compile([]watchlist.Watch{{Name: "other", Match: []watchlist.Item{{Subject: []string{"x@y.example"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	r.opts.Watches = other
	r.restart()
	r.server.Set(locallog.Faults{})
	r.mustPass()
	r.opts.Watches = first
	r.restart()
	missing, err := r.engine.Uncovered(context.Background(), r.store)
	if err != nil || len(missing) != 1 || missing[0].From > hidden || missing[0].To <= hidden {
		t.Errorf("uncovered %v, %v", missing, err)
	}
}

// TestFrozenSmaller: the log says that it ended before what it has signed.
func TestFrozenSmaller(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 300)
	r.mustPass()
	r.log.Freeze(r.clock.now())
	size := uint64(200)
	r.server.Set(locallog.Faults{Size: &size})
	r.mustPass()
	r.wantIncidents("retired-log-changed:integrity:open")
}

// TestOddKinds: kinds that are cut in the middle of a letter are the same kind
// at every pass.
func TestOddKinds(t *testing.T) {
	r := newRig(t)
	for range 3 {
		r.log.Append(fmt.Appendf(nil, `{"apiVersion":"1","kind":"x%s","spec":{}}`, strings.Repeat("\u00e4", 60)))
		r.mustPass()
	}
	r.wantIncidents("undecodable:operational:open")
	if s := r.state(); s.Undecodable != 3 || len(s.Kinds) != 1 {
		t.Errorf("%+v", s.Kinds)
	}
}

// TestRebaselineSettlesGaps: gaps of the former tree are gone with it.
func TestRebaselineSettlesGaps(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 300)
	r.server.Set(locallog.Faults{Swap: map[uint64][]byte{7: []byte("forged")}})
	r.mustPass()
	fork, _ := r.log.Fork(100)
	r.sign(fork, testca.Identity{Email: "x@y.example"})
	r.fill(fork, 300)
	r.server.Set(locallog.Faults{})
	r.server.Show(fork, nil)
	out := r.mustPass()
	if err := r.engine.Resume(context.Background(), monitor.Resumption{Log: "acme", Incident: out.Halted, Rebaseline: true}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.incidents(), "open") {
		t.Errorf("incidents %q", r.incidents())
	}
}

// TestManyKinds: a log that invents a kind for each entry makes neither the state nor the list
// of incidents grow with it; each entry is counted all the same.
func TestManyKinds(t *testing.T) {
	r := newRig(t)
	const kinds, bound = 150, 100
	for i := range kinds {
		if _, err := r.log.Append(fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"invented%d","spec":{}}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	r.mustPass()
	s := r.state()
	sum := uint64(0)
	for _, n := range s.Kinds {
		sum += n
	}
	if len(s.Kinds) > bound+1 || sum != kinds || s.Undecodable != kinds {
		t.Errorf("%d kinds are told apart, %d entries counted, %d undecodable", len(s.Kinds), sum, s.Undecodable)
	}
	if n := strings.Count(r.incidents(), "undecodable"); n > bound+1 {
		t.Errorf("%d incidents", n)
	}
}
