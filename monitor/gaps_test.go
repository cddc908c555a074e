package monitor_test

import (
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// TestScanBesideGap: a scan by hand that ends amid a gap which a daemon has booked meanwhile takes nothing
// from it.
func TestScanBesideGap(t *testing.T) {
	r, odd := newOddRig(t)
	r.grow(20)
	r.mustPass()
	r.grow(59)
	r.v1.Append(r.entry(unexpectedEvent(), 1)) // 79
	r.grow(20)
	odd.fail = func(from, to uint64) bool { return from < 70 }
	r.clock.move(time.Minute)
	r.once() // the head is known, and nothing was read
	r.v1.Set(locallog.FaultsV1{Omit: indices(75, 80)})
	daemon, began := r.engine, false
	r.restart()
	odd.fail = func(from, to uint64) bool {
		if from == 70 && !began {
			began = true
			odd.mu.Unlock()
			daemon.Once(t.Context(), 0)
			odd.mu.Lock()
			if r.coverage() != "[0,100)-[75,80)entry-withheld" {
				t.Errorf("the daemon: %s", r.coverage())
			}
		}
		return false
	}
	r.engine.Scan(t.Context(), r.store, monitor.ScanOptions{Log: "acme", From: 70, To: 78})
	if !began || r.coverage() != "[0,100)-[75,80)entry-withheld" {
		t.Errorf("after the scan: %s", r.coverage())
	}
	odd.fail = nil
	r.v1.Set(locallog.FaultsV1{})
	r.clock.move(time.Minute)
	r.mustPass()
	if r.coverage() != "[0,100)" || r.verdicts() != "79:unexpected" {
		t.Errorf("all is well: coverage %s, findings %q", r.coverage(), r.verdicts())
	}
}

// TestGapBehindRefusal: a gap that nothing is shown of, however long, is one failure a poll, and the others
// are tried.
func TestGapBehindRefusal(t *testing.T) {
	r, odd := newOddRig(t)
	r.grow(50)
	r.v1.Append(r.entry(unexpectedEvent(), 1)) // 50
	r.grow(50)
	r.v1.Set(locallog.FaultsV1{Omit: indices(50, 51)})
	for range 4 {
		r.once()
		r.clock.move(time.Minute)
	}
	r.grow(4800)
	odd.refused = indices(102, 4602)
	for range 3 {
		r.once()
		r.clock.move(time.Minute)
	}
	r.v1.Set(locallog.FaultsV1{})
	for range 3 {
		odd.asked, odd.proofs = 0, 0
		r.once()
		r.clock.move(time.Minute)
	}
	gaps, err := r.store.Gaps(t.Context(), r.cfg.ID)
	if r.verdicts() != "50:unexpected" || len(gaps) != 1 || err != nil {
		t.Errorf("findings %q, gaps %+v, %v", r.verdicts(), gaps, err)
	}
	if odd.proofs > 300 || odd.asked > 600 {
		t.Errorf("%d proofs, %d requests for entries in one poll", odd.proofs, odd.asked)
	}
	r.wantIncidents("entry-withheld:operational:open")
}

// TestHistoryAfterRefusal: once all is well, one pass without a deadline reads history to its end.
func TestHistoryAfterRefusal(t *testing.T) {
	r, odd := newOddRig(t)
	r.opts.LeapAfter, r.cfg.Parallel = 100, 2
	r.opts.Now = func() time.Time { r.clock.move(time.Microsecond); return r.clock.now() }
	r.restart()
	r.grow(2000)
	odd.refused = indices(1, 50)
	r.v1.Set(locallog.FaultsV1{Omit: indices(0, 1)})
	for range 4 {
		r.clock.move(time.Minute)
		r.engine.Pass(t.Context(), time.Nanosecond)
	}
	if len(r.state().Backlog) == 0 {
		t.Fatal("there is nothing to read")
	}
	odd.refused = nil
	r.v1.Set(locallog.FaultsV1{})
	r.clock.move(time.Minute)
	r.once()
	r.mustPass() // what became a gap
	if len(r.state().Backlog) > 0 || r.coverage() != "[0,2000)" {
		t.Errorf("backlog %v, coverage %s", r.state().Backlog, r.coverage())
	}
}
