package monitor_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// TestQuorum: too few cosignatures are told of after three polls, and when it is over;
// the log is believed all the same, unless its policy requires them.
func TestQuorum(t *testing.T) {
	for _, require := range []bool{false, true} {
		r := newRig(t)
		lack := errors.New("not by [w1]")
		r.cfg.Quorum = func(raw []byte, now time.Time) error {
			if !strings.HasPrefix(string(raw), r.log.Origin()) || now.IsZero() {
				t.Errorf("%q at %s", raw, now)
			}
			return lack
		}
		r.cfg.RequireQuorum = require
		r.restart()
		r.fill(r.log, 100)
		lack = nil
		r.mustPass()
		lack = errors.New("not by [w1]")
		r.fill(r.log, 100)
		for i := range 3 {
			r.wantIncidents("")
			out := r.once()
			if (out.Err != nil) != require {
				t.Fatalf("require %v, poll %d: %v", require, i, out.Err)
			}
		}
		r.wantIncidents("cosignatures-missing:operational:open")
		want := map[bool]uint64{false: 200, true: 100}[require]
		if s := r.state(); s.HeadSize != want || s.Scanned != want {
			t.Errorf("require %v: head %d, scanned %d, want %d", require, s.HeadSize, s.Scanned, want)
		}
		r.restart()
		lack = nil
		r.mustPass()
		r.wantIncidents("cosignatures-missing:operational:resolved")
		if s := r.state(); s.Scanned != 200 {
			t.Errorf("scanned %d", s.Scanned)
		}
		// A fork is one, whoever has co-signed it.
		lack = errors.New("not by [w1]")
		fork, _ := r.log.Fork(150)
		r.sign(fork, unexpectedEvent())
		r.fill(fork, 49)
		r.server.Show(fork, nil)
		r.once()
		r.wantIncidents("cosignatures-missing:operational:resolved fork:integrity:open")
		r.server.Set(locallog.Faults{})
	}
}

// TestQuorumRequired: what is not believed for want of cosignatures is judged all the same.
func TestQuorumRequired(t *testing.T) {
	var lack error
	begin := func(t *testing.T) *rig {
		r := newRig(t)
		lack = nil
		r.cfg.Quorum = func([]byte, time.Time) error { return lack }
		r.cfg.RequireQuorum = true
		r.restart()
		r.fill(r.log, 100)
		return r
	}
	t.Run("two trees of one size", func(t *testing.T) {
		r := begin(t)
		r.mustPass()
		lack = errors.New("too few")
		r.fill(r.log, 100)
		r.once()
		if st := r.state(); st.HeadSize != 100 {
			t.Fatalf("size %d is believed", st.HeadSize)
		}
		other, _ := r.log.Fork(150)
		r.sign(other, unexpectedEvent())
		r.fill(other, 49)
		r.server.Show(other, nil)
		r.once()
		r.wantIncidents("fork:integrity:open")
	})
	t.Run("after many that grow", func(t *testing.T) {
		r := begin(t)
		r.mustPass()
		lack = errors.New("too few")
		for range 80 {
			r.fill(r.log, 1)
			r.once()
		}
		other, _ := r.log.Fork(150)
		r.sign(other, unexpectedEvent())
		r.fill(other, 49)
		r.server.Show(other, nil)
		r.once()
		lack = nil
		r.fill(r.log, 30)
		r.server.Show(r.log, nil)
		r.once()
		r.once()
		r.wantIncidents("cosignatures-missing:operational:resolved fork:integrity:open")
	})
	t.Run("before the first that is believed", func(t *testing.T) {
		r := begin(t)
		lack = errors.New("too few")
		r.once()
		other, _ := r.log.Fork(50)
		r.sign(other, unexpectedEvent())
		r.fill(other, 49)
		r.server.Show(other, nil)
		r.once()
		r.wantIncidents("fork:integrity:open")
	})
	t.Run("without a proof", func(t *testing.T) {
		r := begin(t)
		r.mustPass()
		lack = errors.New("too few")
		r.fill(r.log, 100)
		other, _ := r.log.Fork(0)
		r.sign(other, unexpectedEvent())
		r.fill(other, 999)
		r.server.Show(r.log, other) // its checkpoint, and tiles of neither tree
		for range 5 {
			r.once()
		}
		r.wantIncidents("cosignatures-missing:operational:open unproven:integrity:open")
	})
	t.Run("one that has ended is not co-signed again", func(t *testing.T) {
		r := begin(t)
		r.cfg.Quorum = func(_ []byte, now time.Time) error {
			if now.IsZero() {
				return nil
			}
			return lack
		}
		r.restart()
		r.mustPass()
		r.log.Freeze(r.clock.now())
		lack = errors.New("too old")
		for range 5 {
			r.mustPass()
		}
		r.wantIncidents("")
	})
}
