package monitor_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

func indices(from, to uint64, more ...uint64) map[uint64]bool {
	out := map[uint64]bool{}
	for i := from; i < to; i++ {
		out[i] = true
	}
	for _, i := range more {
		out[i] = true
	}
	return out
}

// TestRekorV1RefusedProofs: a server that withholds entries, and the proofs behind them too, hides only
// what it could not show otherwise, and what it hides is a gap that is told.
func TestRekorV1RefusedProofs(t *testing.T) {
	for _, c := range []struct {
		what          string
		omit, refused map[uint64]bool
		polls         int // until the event is found
		gap           string
	}{
		{"the proof behind it", indices(52, 53), indices(53, 54), 1, "[52,54)"},
		{"many behind it", indices(52, 53), indices(53, 60), 4, ""},
		{"the proof before it", indices(52, 53), indices(52, 53), 1, "[51,53)"},
		{"both", indices(52, 53), indices(52, 54), 1, "[51,54)"},
		{"five behind it", indices(52, 53), indices(53, 58), 1, "[52,58)"},
		{"fourteen around it", indices(52, 53), indices(46, 60), 4, "[45,60)"},
		{"the first entry", indices(0, 1), nil, 1, "[0,1)"},
		{"the second entry", indices(1, 2), nil, 1, "[1,2)"},
		{"the first two", indices(0, 2), nil, 1, "[0,2)"},
		{"the first three", indices(0, 3), nil, 1, "[0,3)"},
		{"the first, and the proof behind it", indices(0, 1), indices(2, 9), 3, ""},
		{"a power of two", indices(31, 33), indices(32, 34), 1, "[31,34)"},
		{"all but one", indices(1, 59, 0), indices(1, 40), 1, "[0,59)"},
	} {
		r, odd := newOddRig(t)
		r.cfg.Start = "first"
		r.restart()
		odd.refused = c.refused
		r.grow(60)
		r.v1.Append(r.entry(unexpectedEvent(), 1)) // 60
		r.grow(140)
		r.v1.Set(locallog.FaultsV1{Omit: c.omit})
		polls := 1
		for r.once(); polls < 10 && r.verdicts() == ""; polls++ {
			r.clock.move(time.Minute)
			r.grow(1)
			r.once()
		}
		if r.verdicts() != "60:unexpected" || polls > c.polls {
			t.Errorf("%s: findings %q after %d polls, read up to %d, coverage %s", c.what, r.verdicts(), polls, r.state().Scanned, r.coverage())
		}
		if got := fmt.Sprintf("[0,%d)-%sentry-withheld", 200+polls, c.gap); c.gap != "" && r.coverage() != got {
			t.Errorf("%s: coverage %s, want %s", c.what, r.coverage(), got)
		}
		r.wantIncidents("")
		for range 4 {
			r.clock.move(time.Minute)
			r.once()
		}
		if r.incidents() != "entry-withheld:operational:open" {
			t.Errorf("%s: incidents %q, coverage %s", c.what, r.incidents(), r.coverage())
		}
		odd.refused = nil
		r.v1.Set(locallog.FaultsV1{})
		for range 3 {
			r.clock.move(time.Minute)
			r.once()
		}
		if r.coverage() != fmt.Sprintf("[0,%d)", 200+polls) {
			t.Errorf("%s: healed: coverage %s", c.what, r.coverage())
		}
		r.wantIncidents("entry-withheld:operational:resolved")
		r.auditFindings()
	}
}

// TestRekorV1RefusedInHistory: a segment of the history whose beginning or end the log shows no proof
// of is read all the same.
func TestRekorV1RefusedInHistory(t *testing.T) {
	for what, refused := range map[string]map[uint64]bool{
		"the beginning":                indices(101, 102),
		"the ends of all segments":     indices(121, 122, 141, 161, 181, 201, 221, 241, 261, 281, 301, 321, 341, 361, 381, 401, 421, 441),
		"more than one before it":      indices(95, 105),
		"the beginning, and around it": indices(88, 125),
		"an end, and around it":        indices(139, 153, 121),
		"much around the beginning":    indices(88, 136),
		"an end, and far away from it": indices(138, 145, 151),
		"all that is not a round number": func() map[uint64]bool {
			m := indices(101, 600)
			for i := uint64(110); i < 600; i += 10 {
				delete(m, i)
			}
			return m
		}(),
	} {
		r, odd := newOddRig(t)
		watched := &backlogStore{Store: r.store}
		r.opts.LeapAfter, r.opts.Store = 50, watched
		r.restart()
		r.grow(101)
		r.mustPass()
		want := ""
		for i := range 10 {
			r.grow(29)
			r.v1.Append(r.entry(unexpectedEvent(), i))
			want += fmt.Sprintf(" %d:unexpected", 130+30*i)
		}
		r.grow(200)
		odd.refused, odd.spare = refused, map[uint64]int{101: 1} // that of the head
		for range 12 {
			r.clock.move(time.Minute)
			r.grow(1)
			r.engine.Pass(t.Context(), time.Second)
		}
		if watched.most.Load() == 0 {
			t.Fatal("it has not leapt")
		}
		if r.verdicts() != strings.TrimSpace(want) || len(r.state().Backlog) > 0 {
			t.Errorf("%s: findings %q, backlog %v, coverage %s", what, r.verdicts(), r.state().Backlog, r.coverage())
		}
		r.auditFindings()
	}
}

// TestRekorV1StuckSegments: one segment that nothing is shown of does not keep another, where a request
// is never answered, from being gone on with.
func TestRekorV1StuckSegments(t *testing.T) {
	r, odd := newOddRig(t)
	r.opts.LeapAfter = 50
	r.restart()
	r.grow(101)
	r.mustPass()
	r.grow(199)
	r.v1.Append(r.entry(unexpectedEvent(), 1)) // 300
	r.grow(120)
	odd.refused, odd.spare = indices(88, 200), map[uint64]int{101: 1}
	r.v1.Set(locallog.FaultsV1{NoAnswer: indices(285, 286)})
	for range 10 {
		r.clock.move(time.Minute)
		r.grow(1)
		r.engine.Pass(t.Context(), time.Second)
	}
	if r.verdicts() != "300:unexpected" || len(r.state().Backlog) > 0 {
		t.Errorf("findings %q, backlog %v, coverage %s", r.verdicts(), r.state().Backlog, r.coverage())
	}
}

// TestRekorV1RefusedInScan: a scan by hand goes on past sizes that the log does not show.
func TestRekorV1RefusedInScan(t *testing.T) {
	r, odd := newOddRig(t)
	r.grow(2500)
	r.v1.Append(r.entry(unexpectedEvent(), 1))
	r.grow(99)
	r.cfg.Start = "latest"
	r.restart()
	r.mustPass()
	odd.refused = indices(1990, 2003, 1000, 500, 250, 125, 62, 31, 15)
	if out := r.engine.Scan(t.Context(), r.store, monitor.ScanOptions{Log: "acme"}); out.Err != nil || r.verdicts() != "2500:unexpected" || r.coverage() != "[0,2600)" {
		t.Errorf("%v, findings %q, coverage %s", out.Err, r.verdicts(), r.coverage())
	}
	// What nothing shows is a gap, and the rest is read.
	r, odd = newOddRig(t)
	r.grow(200)
	r.v1.Append(r.entry(unexpectedEvent(), 1))
	r.grow(100)
	r.cfg.Start = "latest"
	r.restart()
	r.mustPass()
	r.v1.Set(locallog.FaultsV1{Omit: indices(110, 111)})
	odd.refused = indices(100, 170)
	if out := r.engine.Scan(t.Context(), r.store, monitor.ScanOptions{Log: "acme"}); out.Err != nil || !out.Missing || r.verdicts() != "200:unexpected" {
		t.Errorf("%+v, findings %q, coverage %s", out, r.verdicts(), r.coverage())
	}
}

// TestRekorV1FixedSizes: sizes that somebody has thought of before do not hold up the scan.
func TestRekorV1FixedSizes(t *testing.T) {
	r, odd := newOddRig(t)
	r.grow(101)
	r.mustPass()
	r.grow(5000)
	r.v1.Append(r.entry(unexpectedEvent(), 1))
	odd.refused, odd.spare = indices(102, 112, 5100, 5101), map[uint64]int{101: 1}
	for n := uint64(2000); n > 0; n /= 2 {
		odd.refused[101+n] = true
	}
	for n := uint64(1); n < 5000; n *= 2 {
		odd.refused[101+n] = true
	}
	for range 6 {
		r.clock.move(time.Minute)
		r.once()
	}
	if r.verdicts() != "5101:unexpected" {
		t.Errorf("read up to %d, findings %q", r.state().Scanned, r.verdicts())
	}
}

// TestRekorV1RefusedRun: what is in a long run of sizes that are not shown is proven by both ends of it,
// once all of it is served.
func TestRekorV1RefusedRun(t *testing.T) {
	r, odd := newOddRig(t)
	r.grow(121)
	r.v1.Append(r.entry(unexpectedEvent(), 1)) // 121
	r.grow(200)
	r.v1.Set(locallog.FaultsV1{Omit: indices(120, 121)})
	odd.refused = indices(111, 130)
	for range 6 {
		r.once()
		r.clock.move(time.Minute)
	}
	r.v1.Set(locallog.FaultsV1{})
	for range 6 {
		r.once()
		r.clock.move(time.Minute)
	}
	if r.verdicts() != "121:unexpected" || r.coverage() != "[0,322)" {
		t.Errorf("findings %q, coverage %s", r.verdicts(), r.coverage())
	}
	r.auditFindings()
}

// TestRekorV1OnlyHeads: what reaches up to the head is proven by it, though no other size is shown, and
// though it could not be read for some polls.
func TestRekorV1OnlyHeads(t *testing.T) {
	r, odd := newOddRig(t)
	r.grow(101)
	r.mustPass()
	r.grow(9)
	r.v1.Append(r.entry(unexpectedEvent(), 1)) // 110
	r.grow(9)
	odd.refused, odd.spare = indices(102, 200), map[uint64]int{}
	r.v1.Set(locallog.FaultsV1{NoAnswer: indices(105, 106)})
	for size := uint64(120); size < 124; size++ {
		if size == 122 {
			r.v1.Set(locallog.FaultsV1{})
		}
		r.clock.move(time.Minute)
		r.once()
		r.grow(1)
		odd.spare[size] = 1 // from this head to the next
	}
	if r.verdicts() != "110:unexpected" || r.coverage() != "[0,123)" {
		t.Errorf("findings %q, coverage %s", r.verdicts(), r.coverage())
	}
}

// TestRekorV1NoTime: a pass whose time is over comes on a little, also where much is odd, and that is no
// failure; but one that cannot store it says so.
func TestRekorV1NoTime(t *testing.T) {
	r, _ := newOddRig(t)
	r.opts.LeapAfter = 1 << 20
	r.opts.Now = func() time.Time { r.clock.move(time.Microsecond); return r.clock.now() }
	r.restart()
	r.grow(300)
	omit := map[uint64]bool{}
	for i := uint64(5); i < 300; i += 10 {
		omit[i] = true
	}
	r.v1.Set(locallog.FaultsV1{Omit: omit})
	for range 40 {
		before := r.state().Scanned
		if out := r.engine.Pass(t.Context(), 20*time.Microsecond); out.Err != nil || before < 300 && r.state().Scanned <= before {
			t.Fatalf("read up to %d, then %d: %v", before, r.state().Scanned, out.Err)
		}
	}
	if got := r.state().Scanned; got != 300 {
		t.Errorf("read up to %d", got)
	}
	r.grow(50)
	faulty := &faultyStore{Store: r.store}
	r.opts.Store = faulty
	r.restart()
	for nth := 1; nth < 4; nth++ {
		faulty.nth, faulty.count = nth, 0
		if out := r.engine.Pass(t.Context(), 20*time.Microsecond); out.Err == nil && faulty.count >= nth {
			t.Errorf("commit %d of a pass failed without a word", nth)
		}
	}
}

// TestRekorV1RefusalsKept: a log that refuses proofs all along takes no memory that grows with it.
func TestRekorV1RefusalsKept(t *testing.T) {
	for _, n := range []int{1000, 100_000} {
		kept, last := monitor.RefusalsKept(n)
		if kept > 20_000 || n < 20_000 && kept != n || !last {
			t.Errorf("of %d refusals %d are kept, the last one: %v", n, kept, last)
		}
	}
}
