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
