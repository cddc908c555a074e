package monitor_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// family makes the rig follow the server with all of its trees.
func (r *rigV1) family(start string) {
	r.t.Helper()
	template := r.cfg
	template.Family, template.Start = "server", start
	server := r.server1
	list := func(ctx context.Context) ([]monitor.LogConfig, error) {
		trees, err := server.Trees(ctx)
		known := 0
		for _, tree := range trees {
			if st, _ := r.store.State(ctx, tree.ID); st.Head != "" {
				known++
			}
		}
		var out []monitor.LogConfig
		for _, tree := range trees {
			cfg := template
			origin := "rekor.acme.example - " + tree.ID
			cfg.Name, cfg.ID, cfg.Retired, cfg.Proofs = "server/"+tree.ID, tree.ID, !tree.Active, server.Tree(tree.ID)
			st, openErr := r.store.State(ctx, tree.ID)
			if openErr != nil {
				return nil, openErr
			}
			if r.wrap != nil {
				cfg.Proofs = r.wrap(cfg.Proofs)
			}
			cfg.New = known > 0 && st.Head == ""
			if cfg.Log, openErr = checkpoint.ForOrigin(origin, r.v1.PublicKeyPEM()); openErr != nil {
				return nil, openErr
			}
			out = append(out, cfg)
		}
		r.listed.Store(int32(len(trees)))
		return out, err
	}
	opts := r.opts
	opts.Store = r.store
	opts.Families = []monitor.Family{{Name: "server", List: list, Schedule: every(50 * time.Millisecond)}}
	// As a new process does, begin with the trees that are known.
	known, err := list(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, cfg := range known {
		if st, err := r.store.State(context.Background(), cfg.ID); err == nil && st.Head != "" {
			cfg.Retired = false // that is not in the store
			opts.Logs = append(opts.Logs, cfg)
		}
	}
	if r.engine, err = monitor.New(opts); err != nil {
		r.t.Fatal(err)
	}
}

// pass makes a pass over all trees that has to come through.
func (r *rigV1) pass() {
	r.t.Helper()
	for _, out := range r.engine.Once(context.Background(), 20*time.Second) {
		if out.Err != nil {
			r.t.Fatalf("%s: %v", out.Log, out.Err)
		}
	}
}

// trees prints name:state:scanned/verified for every tree.
func (r *rigV1) trees() string {
	r.t.Helper()
	status, err := r.engine.Status(context.Background(), r.store, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	out := ""
	for _, l := range status.Logs {
		out += fmt.Sprintf("%s:%s:%d/%d%v ", l.Name[len("server/"):][:4], l.State, l.Scanned, l.Verified.Size, l.Coverage)
	}
	return out
}

// TestRekorV1Rotation: a new tree begins while the old one still has entries
// that nobody has read; nothing is lost, wherever the process was started anew.
func TestRekorV1Rotation(t *testing.T) {
	for _, restartAt := range []int{0, 1, 2, 3, 4} {
		r := newRigV1(t)
		restart := func(step int) {
			if step == restartAt {
				r.family("latest")
			}
		}
		r.family("latest")
		r.grow(40)
		r.pass() // the first tree had ended before it was seen
		if got := r.trees(); got != "3904:retired:33/33[] 1193:ok:40/40[] " {
			t.Fatal(got)
		}
		restart(1)
		r.v1.Append(r.entry(unexpectedEvent(), 1)) // in the old tree, not read yet
		r.v1.Rotate(77770001)
		r.v1.Append(r.entry(unexpectedEvent(), 2))
		restart(2)
		r.pass()
		if got := r.trees(); got != "3904:retired:33/33[] 1193:retired:41/41[{40 41}] 7777:ok:1/1[{0 1}] " {
			t.Errorf("restarted at %d: %s", restartAt, got)
		}
		restart(3)
		r.v1.Rotate(88880001) // two at a time
		r.v1.Append(r.entry(unexpectedEvent(), 3))
		r.v1.Rotate(99990001)
		r.v1.Append(r.entry(unexpectedEvent(), 4))
		restart(4)
		r.pass()
		if got := r.trees(); got != "3904:retired:33/33[] 1193:retired:41/41[{40 41}] 7777:retired:1/1[{0 1}] 8888:retired:1/1[{0 1}] 9999:ok:1/1[{0 1}] " {
			t.Errorf("restarted at %d: %s", restartAt, got)
		}
		if n := len(r.findings()); n != 4 {
			t.Errorf("restarted at %d: %d findings", restartAt, n)
		}
		r.wantIncidents("")
	}
}

// TestRekorV1RetiredTreeGrows: a tree that was listed as ended must not change.
func TestRekorV1RetiredTreeGrows(t *testing.T) {
	r := newRigV1(t)
	r.family("latest")
	r.grow(5)
	r.pass()
	r.v1.AppendTo(0, []byte("after its end"))
	r.engine.Once(context.Background(), 20*time.Second)
	r.wantIncidents("retired-log-changed:integrity:open")
}

// TestRekorV1FollowsRotation runs the engine while the server rotates: the new
// tree is followed, and the one that ended hardly asked any more.
func TestRekorV1FollowsRotation(t *testing.T) {
	r := newRigV1(t)
	r.opts.Now = nil
	r.cfg.Schedule = every(50 * time.Millisecond)
	r.family("first")
	r.grow(30)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.engine.Run(ctx) }()
	until := func(what string, ok func() bool) {
		t.Helper()
		for stop := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(stop) {
				t.Fatalf("%s: %s", what, r.trees())
			}
		}
	}
	until("both trees are read", func() bool { return r.trees() == "3904:retired:33/33[{0 33}] 1193:ok:30/30[{0 30}] " })
	r.v1.Append(r.entry(unexpectedEvent(), 1))
	r.v1.Rotate(77770001)
	r.v1.Append(r.entry(unexpectedEvent(), 2))
	until("the rotation is followed", func() bool {
		return r.trees() == "3904:retired:33/33[{0 33}] 1193:retired:31/31[{0 31}] 7777:ok:1/1[{0 1}] "
	})
	cancel()
	<-done
	if len(r.findings()) != 2 {
		t.Errorf("%d findings", len(r.findings()))
	}
}

// gate holds up the first request for entries once it is armed.
type gate struct {
	monitor.ProofLog
	armed         *atomic.Bool
	reached, open chan struct{}
}

func (g gate) Entries(ctx context.Context, offset, from, to uint64) ([]monitor.ServedEntry, error) {
	if g.armed.CompareAndSwap(true, false) {
		close(g.reached)
		<-g.open
	}
	return g.ProofLog.Entries(ctx, offset, from, to)
}

// TestEndsWhileItIsRead: a tree that grows and ends while a pass over it is under
// way has not ended with the size that the pass began with.
func TestEndsWhileItIsRead(t *testing.T) {
	r := newRigV1(t)
	r.grow(40)
	var armed atomic.Bool
	reached, open := make(chan struct{}), make(chan struct{})
	r.wrap = func(p monitor.ProofLog) monitor.ProofLog { return gate{p, &armed, reached, open} }
	r.cfg.Schedule = every(50 * time.Millisecond)
	r.family("latest")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.engine.Run(ctx) }()
	wait := func(want string) {
		t.Helper()
		for range 1000 {
			if r.trees() == want {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s, want %s", r.trees(), want)
	}
	wait("3904:retired:33/33[] 1193:ok:40/40[] ")
	armed.Store(true)
	r.grow(5)
	<-reached
	r.v1.Append(r.entry(unexpectedEvent(), 1)) // 45
	r.v1.Rotate(77770001)
	r.v1.Append(r.entry(unexpectedEvent(), 2))
	// The listing that notices waits for the pass, so that no other one follows it.
	for r.listed.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	close(open)
	wait("3904:retired:33/33[] 1193:retired:46/46[{40 46}] 7777:ok:1/1[{0 1}] ")
	cancel()
	<-done
	r.wantIncidents("")
}

// slowHistory takes its time for the first entries of a tree.
type slowHistory struct {
	monitor.ProofLog
	below uint64
}

func (s slowHistory) Entries(ctx context.Context, offset, from, to uint64) ([]monitor.ServedEntry, error) {
	if from < s.below {
		time.Sleep(20 * time.Millisecond)
	}
	return s.ProofLog.Entries(ctx, offset, from, to)
}

// TestRotationDoesNotWaitForHistory: a tree ends while its history is being read,
// for which there is plenty of time. What it has added since is read before the
// next tree begins, and both without waiting for history; which is read in the
// end, also by the process after.
func TestRotationDoesNotWaitForHistory(t *testing.T) {
	r := newRigV1(t)
	const history = 3000
	r.v1.Append(r.entry(unexpectedEvent(), 1))
	r.grow(history - 1)
	r.wrap = func(p monitor.ProofLog) monitor.ProofLog { return slowHistory{p, history - 20} }
	r.opts.LeapAfter, r.opts.Now = 100, nil
	r.cfg.Schedule, r.cfg.Parallel, r.cfg.Start = every(time.Hour), 1, "first"
	r.family("first")
	old := fmt.Sprint(tree2)
	state := func(id string) monitor.State {
		s, err := r.store.State(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.engine.Run(ctx) }()
	until := func(what string, ok func() bool) {
		t.Helper()
		for stop := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(stop) {
				t.Fatalf("%s: %s", what, r.trees())
			}
		}
	}
	until("history is being read", func() bool { return left(state(old)) > 0 })
	r.v1.Append(r.entry(unexpectedEvent(), 2))
	r.v1.Rotate(77770001)
	r.v1.Append(r.entry(unexpectedEvent(), 3))
	until("the next tree is read", func() bool { return state("77770001").Scanned == 1 })
	if s := state(old); left(s) == 0 || s.HeadSize != history+1 || s.Scanned != history+1 || s.Frozen == "" {
		t.Errorf("the old tree: head %d, scanned %d, frozen %v, %d of history left", s.HeadSize, s.Scanned, s.Frozen != "", left(s))
	}
	cancel()
	<-done
	if left(state(old)) == 0 {
		t.Error("no history is left for the next process")
	}
	r.wrap = nil
	r.family("first")
	r.pass()
	if got := r.trees(); got != "3904:retired:33/33[{0 33}] 1193:retired:3001/3001[{0 3001}] 7777:ok:1/1[{0 1}] " || len(r.findings()) != 3 {
		t.Errorf("%s, %d findings", got, len(r.findings()))
	}
	r.wantIncidents("undecodable:operational:open") // the first tree holds no real entries
}

// between is somebody between us and the server who hides the first tree, and
// passes its entries, with the promises for them, off as those of the second.
type between struct {
	monitor.ProofLog
	first monitor.ProofLog
}

func (b between) Offset(context.Context) (uint64, [][]byte, error) { return 0, nil, nil }

func (b between) Entries(ctx context.Context, _, from, to uint64) ([]monitor.ServedEntry, error) {
	list, err := b.ProofLog.Entries(ctx, 33, from, to)
	if err != nil {
		return nil, err
	}
	others, err := b.first.Entries(ctx, 0, from, to)
	for i := range list {
		list[i].Leaf, list[i].Integrated, list[i].LogIndex, list[i].SET = others[i].Leaf, others[i].Integrated, others[i].LogIndex, others[i].SET
	}
	return list, err
}

// TestFalsePromise: whoever hides a tree that is known makes no promise broken.
func TestFalsePromise(t *testing.T) {
	for _, known := range []bool{false, true} {
		r := newRigV1(t)
		r.grow(20)
		if known {
			r.family("latest")
			r.pass()
		}
		r.grow(10)
		r.wrap = func(p monitor.ProofLog) monitor.ProofLog {
			if _, before, err := p.Offset(context.Background()); err != nil || len(before) == 0 {
				return p
			}
			return between{p, r.server1.Tree(fmt.Sprint(tree1))}
		}
		if known {
			r.family("latest")
		} else {
			r.cfg.Proofs = r.wrap(r.cfg.Proofs)
			r.restart()
		}
		r.engine.Once(context.Background(), 20*time.Second)
		list, err := r.store.Incidents(context.Background(), store.Filter{Kind: monitor.KindEntryMismatch})
		if err != nil || len(list) != 1 {
			t.Fatalf("known %v: %+v, %v", known, list, err)
		}
		inc, err := r.store.Incident(context.Background(), list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		// Without knowledge of the tree the claim is conditional, and says so.
		if _, ok := inc.Transferable(); ok == known {
			t.Errorf("known %v: evidence %v", known, ok)
		}
	}
}
