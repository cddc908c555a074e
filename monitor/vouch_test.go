package monitor_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// open opens a checkpoint of a log as somebody else would show it.
func (r *rig) open(l *locallog.Log, size uint64) checkpoint.Checkpoint {
	r.t.Helper()
	raw, err := l.CheckpointAt(size)
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := r.cfg.Log.Open(raw)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// TestVouch: what speaks against the signing of a checkpoint, and what does not.
func TestVouch(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	r.fill(r.log, 300)
	vouch := func(c checkpoint.Checkpoint, audited bool, want string) {
		t.Helper()
		reason, again := r.engine.Vouch(ctx, c, audited)
		if (reason == "") != (want == "") || !strings.Contains(reason, want) || (reason != "") != (again > 0) {
			t.Errorf("size %d, audited %v: %q (%s), want %q", c.Size(), audited, reason, again, want)
		}
	}
	vouch(r.open(r.log, 300), false, "not asked yet")
	r.mustPass()
	for _, audited := range []bool{false, true} {
		vouch(r.open(r.log, 300), audited, "")
		vouch(r.open(r.log, 123), audited, "")
	}
	// A restart forgets that the log was asked.
	r.restart()
	vouch(r.open(r.log, 300), false, "not asked yet")
	r.mustPass()
	// What the log has signed and not published yet is read before it is vouched for.
	published, err := r.log.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	first := r.sign(r.log, unexpectedEvent())
	r.fill(r.log, 99)
	r.server.Set(locallog.Faults{Checkpoint: published})
	vouch(r.open(r.log, 400), false, "")
	if n := len(r.findings()); n != 0 {
		t.Fatalf("%d findings", n)
	}
	vouch(r.open(r.log, 400), true, "")
	if f := r.findings(); len(f) != 1 || f[0].Index != first {
		t.Errorf("%+v", f)
	}
	r.mustPass() // it serves the smaller one still
	vouch(r.open(r.log, 400), true, "")
	// Entries that are withheld are not audited.
	r.fill(r.log, 100)
	r.server.Set(locallog.Faults{Checkpoint: published, NoTiles: true})
	vouch(r.open(r.log, 500), true, "not read yet")
	vouch(r.open(r.log, 500), false, "could not be compared")
	r.wantIncidents("")
	// Another history halts the log, though the log itself has not shown it to us.
	fork, _ := r.log.Fork(200)
	r.sign(fork, unexpectedEvent())
	r.fill(fork, 99)
	vouch(r.open(fork, 300), false, "contradicted itself")
	r.wantIncidents("split-view:integrity:open")
	vouch(r.open(r.log, 400), false, "halted")
	inc, err := r.store.Incident(ctx, r.state().Halted)
	if err != nil || !strings.Contains(inc.Summary, "a checkpoint that a witness was asked to co-sign") {
		t.Errorf("%+v, %v", inc, err)
	}
	proof, ok := inc.Transferable()
	d, err := checkpoint.ParseDivergence(proof)
	if !ok || err != nil || d.Verify(r.cfg.Log) != nil {
		t.Errorf("the evidence does not convince: %v", err)
	}
	other := newRig(t)
	other.fill(other.log, 5)
	if reason, _ := r.engine.Vouch(ctx, checkpoint.Checkpoint{}, false); !strings.Contains(reason, "not followed") {
		t.Errorf("%q", reason)
	}
}

// TestVouchBeyond: a tree that is larger than ours, and goes another way from before its
// end, is not vouched for, whatever the log serves.
func TestVouchBeyond(t *testing.T) {
	ctx := context.Background()
	for _, audited := range []bool{false, true} {
		r := newRig(t)
		r.fill(r.log, 300)
		r.mustPass()
		fork, _ := r.log.Fork(200)
		r.sign(fork, unexpectedEvent())
		r.fill(fork, 199)
		if reason, _ := r.engine.Vouch(ctx, r.open(fork, 301), audited); reason == "" {
			t.Errorf("audited %v: another history is vouched for", audited)
		}
		r.wantIncidents("") // nothing of it is proven yet
		r.server.Show(fork, nil)
		if reason, _ := r.engine.Vouch(ctx, r.open(fork, 400), audited); reason == "" {
			t.Errorf("audited %v: another history is vouched for, which the log serves", audited)
		}
		if r.state().Halted == "" {
			t.Errorf("audited %v: the contradiction is not stored", audited)
		}
		if r.engine.Stopped(ctx, r.log.Origin()) == "" {
			t.Error("a halted log is not stopped")
		}
	}
}

// TestVouchHeard: what others have seen, and what a witness was asked about, is held
// against what comes later, though none of it could be compared with ours.
func TestVouchHeard(t *testing.T) {
	ctx := context.Background()
	begin := func(t *testing.T) (*rig, *locallog.Log) {
		r := newRig(t)
		r.fill(r.log, 100)
		r.mustPass()
		fork, _ := r.log.Fork(50)
		r.sign(fork, unexpectedEvent())
		r.fill(fork, 149)
		r.fill(r.log, 100)
		return r, fork
	}
	for _, audited := range []bool{false, true} {
		r, fork := begin(t)
		r.server.Set(locallog.Faults{NoTiles: true})
		r.hear(fork, 120, monitor.HeardUnknown)
		r.server.Set(locallog.Faults{})
		if reason, _ := r.engine.Vouch(ctx, r.open(r.log, 120), audited); !strings.Contains(reason, "contradicted itself") {
			t.Errorf("audited %v, heard before: %q", audited, reason)
		}
		r.wantIncidents("split-view:integrity:open")

		r, fork = begin(t)
		r.server.Set(locallog.Faults{NoTiles: true})
		if reason, _ := r.engine.Vouch(ctx, r.open(fork, 150), audited); reason == "" {
			t.Errorf("audited %v: what cannot be compared is vouched for", audited)
		}
		r.server.Set(locallog.Faults{})
		r.once()
		r.wantIncidents("split-view:integrity:open")
		// A person lets the log go on: the same tree does not halt it again, and is not
		// vouched for either.
		if err := r.engine.Resume(ctx, monitor.Resumption{Log: "acme", Incident: r.state().Halted, By: "ops@acme.example", Note: "n"}); err != nil {
			t.Fatal(err)
		}
		if reason, _ := r.engine.Vouch(ctx, r.open(fork, 150), audited); reason == "" {
			t.Errorf("audited %v: what contradicts ours is vouched for", audited)
		}
		r.mustPass()
		r.wantIncidents("split-view:integrity:resolved")
	}
}

// TestVouchAudited: where coverage does not begin with the first entry, no tree is
// audited.
func TestVouchAudited(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	r.cfg.Start = "latest"
	r.restart()
	r.fill(r.log, 300)
	r.mustPass()
	r.fill(r.log, 10)
	r.mustPass()
	for _, size := range []uint64{300, 305, 310} {
		if reason, _ := r.engine.Vouch(ctx, r.open(r.log, size), true); !strings.Contains(reason, "the entries before 300 were never read") {
			t.Errorf("size %d: %q", size, reason)
		}
		if reason, _ := r.engine.Vouch(ctx, r.open(r.log, size), false); reason != "" {
			t.Errorf("size %d: %q", size, reason)
		}
	}
}

// TestVouchUnpublished: a log that needs our cosignature before it has its quorum is
// audited, unless its policy requires the quorum first, and is blamed for nothing.
func TestVouchUnpublished(t *testing.T) {
	for _, require := range []bool{false, true} {
		testVouchUnpublished(t, require)
	}
}

func testVouchUnpublished(t *testing.T, require bool) {
	r := newRig(t)
	published, err := []byte(nil), error(nil)
	r.cfg.Quorum = func(raw []byte, _ time.Time) error {
		if string(raw) == string(published) {
			return nil
		}
		return errors.New("not by us")
	}
	r.cfg.RequireQuorum = require
	r.restart()
	r.fill(r.log, 300)
	if published, err = r.log.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	r.mustPass()
	r.server.Set(locallog.Faults{Checkpoint: published})
	for i := range 5 {
		r.fill(r.log, 10)
		if reason, _ := r.engine.Vouch(context.Background(), r.open(r.log, uint64(310+10*i)), true); (reason != "") != require {
			t.Errorf("require %v: %q", require, reason)
		}
	}
	if st := r.state(); require && st.HeadSize != 300 {
		t.Errorf("size %d is believed without its quorum", st.HeadSize)
	}
	r.wantIncidents("")
}

// TestSeen: every checkpoint that a log has published is shown to whoever wants it.
func TestSeen(t *testing.T) {
	r := newRig(t)
	var sizes []uint64
	r.opts.Seen = func(_ context.Context, c checkpoint.Checkpoint) bool {
		sizes = append(sizes, c.Size())
		return len(sizes) > 1
	}
	r.restart()
	r.fill(r.log, 10)
	r.mustPass()
	// What could not be looked at may carry cosignatures that are known no more.
	if reason, _ := r.engine.Vouch(context.Background(), r.open(r.log, 10), false); !strings.Contains(reason, "not asked yet") {
		t.Errorf("%q", reason)
	}
	r.fill(r.log, 10)
	r.mustPass()
	if reason, _ := r.engine.Vouch(context.Background(), r.open(r.log, 10), false); reason != "" {
		t.Errorf("%q", reason)
	}
	if len(sizes) != 2 || sizes[0] != 10 || sizes[1] != 20 {
		t.Errorf("%v", sizes)
	}
}

// TestVouchEndsNoStreak: a log that proves nothing of what it publishes is caught in three
// polls, whatever of its true tree is brought to the witness between them.
func TestVouchEndsNoStreak(t *testing.T) {
	for _, audited := range []bool{false, true} {
		r := newRig(t)
		r.fill(r.log, 700)
		r.mustPass()
		other, err := r.log.Fork(0)
		if err != nil {
			t.Fatal(err)
		}
		r.sign(other, unexpectedEvent())
		r.fill(other, 1000)
		r.fill(r.log, 100)
		hidden, err := r.log.Fork(800)
		if err != nil {
			t.Fatal(err)
		}
		r.fill(hidden, 50)
		for i := range uint64(3) {
			r.server.Show(hidden, other)
			if out := r.once(); out.Err == nil {
				t.Fatalf("poll %d: %+v", i, out)
			}
			r.server.Show(r.log, nil)
			want := ""
			if i == 2 {
				want = "has not proven" // it was caught
			}
			if reason, _ := r.engine.Vouch(context.Background(), r.open(r.log, 701+i), audited); !strings.Contains(reason, want) || want == "" && reason != "" {
				t.Errorf("audited %v, size %d: %q, want %q", audited, 701+i, reason, want)
			}
		}
		r.wantIncidents("unproven:integrity:open")
	}
}
