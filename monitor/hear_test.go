package monitor_test

import (
	"context"
	"errors"
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

// TestHearsay: whatever is heard, little of it is kept, and the smallest is not driven
// out by what is larger.
func TestHearsay(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	for i := range 200 {
		h := monitor.Heard{Size: uint64(1000 - i*3), Note: "n", Source: "s", Since: time.Now()}
		h.Root[0] = byte(i)
		if err := r.store.KeepHeard(ctx, "log", h); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		h := monitor.Heard{Size: uint64(5000 + i), Note: "n", Source: "s", Since: time.Now()}
		if err := r.store.KeepHeard(ctx, "log", h); err != nil {
			t.Fatal(err)
		}
	}
	list, err := r.store.Heard(ctx, "log")
	if err != nil || len(list) != 64 || list[0].Size != 1000-199*3 || list[63].Size > 1000 {
		t.Errorf("%d are kept, %v", len(list), err)
	}
	if other, err := r.store.Heard(ctx, "other"); err != nil || len(other) != 0 {
		t.Errorf("%v, %v", other, err)
	}
}
