package monitor_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
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
		r.listed.Add(1)
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
	for seen := r.listed.Load(); r.listed.Load() == seen; {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	close(open)
	wait("3904:retired:33/33[] 1193:retired:46/46[{40 46}] 7777:ok:1/1[{0 1}] ")
	cancel()
	<-done
	r.wantIncidents("")
}
