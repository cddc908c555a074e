package monitor_test

import (
	"context"
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
	} {
		r, odd := newOddRig(t)
		r.opts.LeapAfter = 50
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
			r.engine.Once(t.Context(), time.Second)
		}
		if r.verdicts() != strings.TrimSpace(want) {
			t.Errorf("%s: findings %q, backlog %v, coverage %s", what, r.verdicts(), r.state().Backlog, r.coverage())
		}
		r.auditFindings()
	}
}

// TestRekorV1ProofRequests: what is left out costs two proofs for each run of it.
func TestRekorV1ProofRequests(t *testing.T) {
	for what, c := range map[string]struct {
		omit map[uint64]bool
		most int
	}{
		"nothing": {nil, 1},
		"a run":   {indices(100, 700), 4},
		"one of twenty": {func() map[uint64]bool {
			m := map[uint64]bool{}
			for i := uint64(5); i < 1000; i += 20 {
				m[i] = true
			}
			return m
		}(), 102},
	} {
		r, odd := newOddRig(t)
		r.grow(1000)
		r.v1.Set(locallog.FaultsV1{Omit: c.omit})
		r.once()
		if odd.proofs > c.most || r.state().Scanned != 1000 {
			t.Errorf("%s: %d proofs, read up to %d", what, odd.proofs, r.state().Scanned)
		}
	}
}

// TestRekorV1WorseAnswer: what one answer had is not lost because the next leaves it out; and wrong
// bytes are not confirmed by an answer that has none.
func TestRekorV1WorseAnswer(t *testing.T) {
	r, odd := newOddRig(t)
	r.grow(100)
	r.mustPass()
	for i := range 10 {
		r.v1.Append(r.entry(unexpectedEvent(), i)) // 100 to 109
	}
	r.grow(10)
	odd.flips = map[uint64]int{105: 1}
	answers := 0
	odd.alter = func(list []monitor.ServedEntry) {
		if list[0].Index != 100 {
			return
		}
		for i := range list {
			if answers > 0 && list[i].Index != 105 {
				list[i] = monitor.ServedEntry{Index: list[i].Index}
			}
		}
		answers++
	}
	r.clock.move(time.Minute)
	r.once()
	if len(r.findings()) != 10 || r.coverage() != "[0,120)" {
		t.Errorf("findings %q, coverage %s", r.verdicts(), r.coverage())
	}
	r.grow(10)
	odd.flips, odd.alter, answers = map[uint64]int{125: 1}, func(list []monitor.ServedEntry) {
		for i := range list {
			if list[i].Index == 125 {
				if answers++; answers > 1 {
					list[i] = monitor.ServedEntry{Index: 125}
				}
			}
		}
	}, 0
	r.clock.move(time.Minute)
	r.once()
	r.wantIncidents("")
	if r.coverage() != "[0,130)-[125,126)entry-withheld" {
		t.Errorf("coverage %s", r.coverage())
	}
}

// TestRekorV1WrongProofs: one answer with a wrong proof is asked for once more; those that stay wrong are
// as good as none.
func TestRekorV1WrongProofs(t *testing.T) {
	for _, c := range []struct {
		spoiled map[uint64]int
		gap     string
	}{
		{map[uint64]int{55: 1, 56: 1}, "[55,56)"},
		{map[uint64]int{55: 1 << 20}, "[54,56)"},
		{map[uint64]int{56: 1 << 20}, "[55,57)"},
		{map[uint64]int{55: 1 << 20, 56: 1 << 20}, "[54,57)"},
	} {
		r, odd := newOddRig(t)
		r.grow(54)
		r.v1.Append(r.entry(unexpectedEvent(), 1)) // 54
		r.grow(45)
		r.v1.Set(locallog.FaultsV1{Omit: map[uint64]bool{55: true}})
		odd.spoiled = c.spoiled
		r.once()
		if got := fmt.Sprintf("[0,100)-%sentry-withheld", c.gap); r.coverage() != got {
			t.Errorf("coverage %s, want %s", r.coverage(), got)
		}
		r.wantIncidents("")
		odd.spoiled = nil
		r.v1.Set(locallog.FaultsV1{})
		r.clock.move(time.Minute)
		r.mustPass()
		if r.verdicts() != "54:unexpected" || r.coverage() != "[0,100)" {
			t.Errorf("healed: findings %q, coverage %s", r.verdicts(), r.coverage())
		}
		r.auditFindings()
	}
}

// TestRekorV1StoppedWhileAsking: a process that is stopped while it asks again for wrong bytes accuses
// nobody.
func TestRekorV1StoppedWhileAsking(t *testing.T) {
	r, odd := newOddRig(t)
	r.cfg.Parallel = 1
	r.restart()
	r.grow(100)
	ctx, stop := context.WithCancel(t.Context())
	answers := 0
	odd.alter = func(list []monitor.ServedEntry) {
		if list[0].Index != 50 {
			return
		}
		if answers++; answers > 1 {
			stop()
		}
		list[3].Leaf = append([]byte{'x'}, list[3].Leaf...)
	}
	r.engine.Once(ctx, 0)
	r.wantIncidents("")
	if answers < 2 || strings.Contains(r.coverage(), "entry-mismatch") {
		t.Errorf("%d answers, coverage %s", answers, r.coverage())
	}
	odd.alter = nil
	r.clock.move(time.Minute)
	r.mustPass()
	if r.coverage() != "[0,100)" {
		t.Errorf("coverage %s", r.coverage())
	}
}

// TestRekorV1ShownIsKept: what contradicts the head ends the pass that comes by it, and is not
// forgotten where the state cannot be written, or it is not known that it was.
func TestRekorV1ShownIsKept(t *testing.T) {
	tail := func(what string) (entries [][]byte) {
		for i := range 1950 {
			entries = append(entries, fmt.Appendf(nil, "%s %d", what, i))
		}
		return entries
	}
	for nth := 1; nth <= 6; nth++ {
		for _, persisted := range []bool{false, true} {
			r, odd := newOddRig(t)
			r.grow(50)
			r.v1.Append(tail("other")...)
			offset, _, err := r.cfg.Proofs.Offset(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			list, err := r.cfg.Proofs.Entries(t.Context(), offset, 50, 51)
			if err != nil {
				t.Fatal(err)
			}
			r.v1.Rewrite(50, tail("this")...)
			odd.notes = map[uint64][]byte{50: list[0].Note}
			faulty := &faultyStore{Store: r.store, nth: nth, persisted: persisted}
			r.opts.Store = faulty
			r.restart()
			r.once()
			if scanned := r.state().Scanned; scanned == 2000 {
				t.Errorf("fault at commit %d (persisted %v): read up to the end", nth, persisted)
			}
			if nth > 2 { // the head is known, the entry was read, and with it the note
				odd.notes = nil
			}
			for range 2 {
				r.clock.move(time.Minute)
				r.once()
			}
			if r.state().Halted == "" || !strings.Contains(r.incidents(), "fork:integrity:open") {
				t.Errorf("fault at commit %d (persisted %v): halted %q, incidents %q", nth, persisted, r.state().Halted, r.incidents())
			}
			verifyFork(t, r.rig)
		}
	}
}
