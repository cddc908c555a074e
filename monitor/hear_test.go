package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// hear tells the engine of a checkpoint, and checks what it says of it.
func (r *rig) hear(l *locallog.Log, size uint64, want string) monitor.Comparison {
	r.t.Helper()
	raw, err := l.CheckpointAt(size)
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := r.engine.Hear(context.Background(), raw, "witness.example")
	if err != nil || c.Verdict != want || c.Why == "" {
		r.t.Errorf("size %d: %s (%s), %v, want %s", size, c.Verdict, c.Why, err, want)
	}
	return c
}

// proven checks the proof of an answer against both trees.
func (r *rig) proven(c monitor.Comparison, smaller, larger checkpoint.Checkpoint) {
	r.t.Helper()
	var proof [][]byte
	for _, h := range c.Proof {
		proof = append(proof, h[:])
	}
	if err := checkpoint.Advance(smaller, larger, proof); err != nil || len(proof) == 0 {
		r.t.Errorf("the proof from %d to %d: %v", smaller.Size(), larger.Size(), err)
	}
}

// TestHear: what is said of checkpoints that others have seen.
func TestHear(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 300)
	r.hear(r.log, 300, monitor.HeardUnknown) // nothing was verified yet
	r.mustPass()
	if c := r.hear(r.log, 300, monitor.HeardConsistent); c.Log != "acme" || c.Ours.Size != 300 || c.Theirs.Root != c.Ours.Root || c.Note == "" {
		t.Errorf("%+v", c)
	}
	for _, size := range []uint64{1, 7, 128, 255, 256, 299} {
		r.proven(r.hear(r.log, size, monitor.HeardBehind), r.open(r.log, size), r.open(r.log, 300))
	}
	r.hear(r.log, 0, monitor.HeardBehind)
	r.fill(r.log, 50)
	r.proven(r.hear(r.log, 350, monitor.HeardAhead), r.open(r.log, 300), r.open(r.log, 350))
	// The log has not shown us what it has shown to somebody else.
	held := uint64(300)
	r.server.Set(locallog.Faults{Size: &held, NoTiles: true})
	r.hear(r.log, 350, monitor.HeardUnknown)
	r.hear(r.log, 350, monitor.HeardUnknown)
	if list, err := r.store.Heard(context.Background(), r.cfg.ID); err != nil || len(list) != 1 || list[0].Size != 350 || list[0].Source != "witness.example" {
		t.Errorf("%+v, %v", list, err)
	}
	r.server.Set(locallog.Faults{})
	r.mustPass()
	if list, _ := r.store.Heard(context.Background(), r.cfg.ID); len(list) != 0 {
		t.Errorf("%+v is kept, though the tree has it", list)
	}
	r.wantIncidents("")

	// Whatever nobody that is known has signed is nothing to us.
	stranger, err := locallog.New(r.log.Origin())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := stranger.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, []byte("x"), raw, []byte("rekor.acme.example\n5\nAAAA\n\n\u2014 x y\n")} {
		if c, err := r.engine.Hear(context.Background(), bad, "stranger"); !errors.Is(err, monitor.ErrNotCheckpoint) || c.Verdict != monitor.HeardUnknown {
			t.Errorf("%.20q: %+v, %v", bad, c, err)
		}
	}
	r.wantIncidents("")
}

// TestSplitView: another tree that somebody else was shown halts the log, whatever its
// size; where it is larger than ours, as soon as ours has grown so far.
func TestSplitView(t *testing.T) {
	for name, size := range map[string]uint64{"smaller": 250, "equal": 300, "larger": 380} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.fill(r.log, 300)
			r.mustPass()
			fork, _ := r.log.Fork(200)
			r.sign(fork, unexpectedEvent())
			r.fill(fork, 199)
			if name == "larger" {
				// The log shows its own history to us alone, and proves nothing of the other.
				r.server.Set(locallog.Faults{NoTiles: true})
				r.hear(fork, size, monitor.HeardUnknown)
				r.server.Set(locallog.Faults{})
				r.wantIncidents("")
				r.fill(r.log, 50)
				r.mustPass()
				r.wantIncidents("")
				r.fill(r.log, 50)
				r.once() // ours has reached that size
			} else if c := r.hear(fork, size, monitor.HeardContradiction); c.Incident == "" || c.Incident != r.state().Halted {
				t.Errorf("%+v", c)
			}
			r.wantIncidents("split-view:integrity:open")
			inc, err := r.store.Incident(context.Background(), r.state().Halted)
			if err != nil {
				t.Fatal(err)
			}
			proof, ok := inc.Transferable()
			d, err := checkpoint.ParseDivergence(proof)
			if !ok || err != nil || d.Verify(r.cfg.Log) != nil {
				t.Errorf("the evidence does not convince: %v", err)
			}
			r.hear(fork, size, monitor.HeardContradiction) // again: nothing new
			r.wantIncidents("split-view:integrity:open")
		})
	}
}

// TestHearsay: whatever is heard, little of it is kept; of one source the smallest are not
// driven out by what is larger, and no source drives out another's.
func TestHearsay(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	keep := func(source string, size uint64, root byte) bool {
		t.Helper()
		h := monitor.Heard{Size: size, Note: "n", Source: source, Since: time.Now()}
		h.Root[0] = root
		kept, err := r.store.KeepHeard(ctx, "log", h)
		if err != nil {
			t.Fatal(err)
		}
		return kept
	}
	for i := range 200 {
		if !keep("s", uint64(1000-i*3), byte(i)) {
			t.Error("a smaller one is not kept")
		}
	}
	for i := range 200 {
		if keep("s", uint64(5000+i), 1) {
			t.Error("a larger one is kept")
		}
	}
	if !keep("s", 1000-199*3, 199) || !keep("w", 9000, 1) {
		t.Error("what is kept already, or another source's, is not kept")
	}
	list, err := r.store.Heard(ctx, "log")
	if err != nil || len(list) != 17 || list[0].Size != 1000-199*3 || list[16].Size != 9000 {
		t.Errorf("%d are kept, %v", len(list), err)
	}
	for i := range 300 {
		keep(fmt.Sprint("source ", i), 1, byte(i))
	}
	if list, err = r.store.Heard(ctx, "log"); err != nil || len(list) != 256 {
		t.Errorf("%d are kept, %v", len(list), err)
	}
	if other, err := r.store.Heard(ctx, "other"); err != nil || len(other) != 0 {
		t.Errorf("%v, %v", other, err)
	}
}

// TestHearEnded: a log that has ended, and shows somebody else that it has not.
func TestHearEnded(t *testing.T) {
	for name, tiles := range map[string]bool{"larger, proven": true, "larger, unproven": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.fill(r.log, 100)
			longer, _ := r.log.Fork(100)
			r.log.Freeze(r.clock.now())
			r.mustPass()
			r.fill(longer, 20)
			if tiles {
				r.server.Show(longer, nil)
			}
			r.hear(longer, 120, monitor.HeardContradiction)
			r.wantIncidents("retired-log-changed:integrity:open")
		})
	}
	t.Run("said to others alone", func(t *testing.T) {
		r := newRig(t)
		r.fill(r.log, 100)
		r.mustPass()
		same, _ := r.log.Fork(100)
		same.Freeze(r.clock.now())
		raw, err := same.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		if c, err := r.engine.Hear(context.Background(), raw, "witness.example"); err != nil || c.Verdict != monitor.HeardConsistent {
			t.Errorf("%+v, %v", c, err)
		}
		r.wantIncidents("")
		r.fill(r.log, 10)
		r.once()
		r.wantIncidents("retired-log-changed:integrity:open")
	})
	t.Run("smaller", func(t *testing.T) {
		r := newRig(t)
		r.fill(r.log, 100)
		shorter, _ := r.log.Fork(80)
		shorter.Freeze(r.clock.now())
		r.mustPass()
		raw, err := shorter.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		c, err := r.engine.Hear(context.Background(), raw, "witness.example")
		if err != nil || c.Verdict != monitor.HeardContradiction || c.Incident == "" {
			t.Errorf("%+v, %v", c, err)
		}
		r.wantIncidents("retired-log-changed:integrity:open")
	})
}

// TestHearLater: what cannot be compared when it is heard, because the log does not serve
// what is needed, is compared when it does.
func TestHearLater(t *testing.T) {
	r := newRig(t)
	r.cfg.Start = "latest"
	r.restart()
	r.fill(r.log, 300)
	r.mustPass()
	fork, _ := r.log.Fork(200)
	r.sign(fork, unexpectedEvent())
	r.fill(fork, 49)
	r.server.Set(locallog.Faults{NoTiles: true})
	if c := r.hear(fork, 249, monitor.HeardUnknown); !strings.Contains(c.Why, "it is compared when it does") {
		t.Errorf("%s", c.Why)
	}
	r.once()
	r.wantIncidents("")
	r.server.Set(locallog.Faults{})
	r.once()
	r.wantIncidents("split-view:integrity:open")
}

// TestHearFrozenView: a log that shows larger trees to others, and not to us, is noticed.
func TestHearFrozenView(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 100)
	r.mustPass()
	old, err := r.log.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	r.fill(r.log, 100)
	r.server.Set(locallog.Faults{Checkpoint: old, NoTiles: true})
	r.hear(r.log, 200, monitor.HeardUnknown)
	r.clock.move(23 * time.Hour)
	r.once()
	r.wantIncidents("")
	r.clock.move(2 * time.Hour)
	r.once()
	r.once()
	r.wantIncidents("stale:operational:open")
	r.server.Set(locallog.Faults{})
	r.mustPass()
	r.wantIncidents("stale:operational:resolved")
}

// TestHearTwo: two trees of one size that are larger than ours contradict each other.
func TestHearTwo(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 100)
	r.mustPass()
	r.server.Set(locallog.Faults{NoTiles: true})
	for i, want := range []string{monitor.HeardUnknown, monitor.HeardContradiction} {
		other, _ := r.log.Fork(100)
		r.fill(other, i)
		r.sign(other, unexpectedEvent())
		r.fill(other, 99-i)
		r.hear(other, 200, want)
	}
	r.wantIncidents("split-view:integrity:open")
}

// TestHearAgain: once a person has let a log go on, what he has decided about does not
// halt it again, whoever shows it; another tree does.
func TestHearAgain(t *testing.T) {
	for name, rebaseline := range map[string]bool{"from our head": false, "with a new baseline": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.fill(r.log, 300)
			r.mustPass()
			fork, _ := r.log.Fork(200)
			r.sign(fork, unexpectedEvent())
			r.fill(fork, 199)
			r.server.Set(locallog.Faults{NoTiles: true})
			r.hear(fork, 380, monitor.HeardUnknown)
			r.server.Set(locallog.Faults{})
			r.fill(r.log, 100)
			r.once()
			r.wantIncidents("split-view:integrity:open")
			d := monitor.Resumption{Log: "acme", Incident: r.state().Halted, By: "ops@acme.example", Note: "their test server", Rebaseline: rebaseline}
			if err := r.engine.Resume(context.Background(), d); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				r.mustPass()
				if c := r.hear(fork, 380, monitor.HeardContradiction); c.Incident != "" || !strings.Contains(c.Why, "resumed") {
					t.Errorf("%+v", c)
				}
			}
			r.wantIncidents("split-view:integrity:resolved")
			r.clock.move(time.Minute)
			r.hear(fork, 290, monitor.HeardContradiction)
			r.wantIncidents("split-view:integrity:resolved split-view:integrity:open")
		})
	}
}
