package monitor_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// TestRekorV1PowerOfTwo: a finding before a power of two has its inclusion proof, also where the proof
// from that size is refused or wrong: that from the next one shows the same.
func TestRekorV1PowerOfTwo(t *testing.T) {
	for _, c := range []struct {
		size  int
		wrong bool
	}{{200, false}, {200, true}, {65, false}, {66, true}, {66, false}, {65, true}} {
		r, odd := newOddRig(t)
		r.grow(63)
		r.v1.Append(r.entry(unexpectedEvent(), 1)) // 63
		r.grow(c.size - 64)
		r.v1.Set(locallog.FaultsV1{Omit: indices(64, 65)})
		if odd.refused = indices(64, 65); c.wrong {
			odd.refused, odd.spoiled = nil, map[uint64]int{64: 1 << 20}
		}
		r.once()
		if r.verdicts() != "63:unexpected" || r.coverage() != fmt.Sprintf("[0,%d)-[64,65)entry-withheld", c.size) {
			t.Errorf("%+v: findings %q, coverage %s", c, r.verdicts(), r.coverage())
		}
		for _, f := range r.findings() {
			if full, err := r.store.Finding(t.Context(), f.ID); err != nil || len(full.Proof) < 7 {
				t.Errorf("%d hashes, %v", len(full.Proof), err)
			}
		}
		r.auditFindings()
	}
}

// TestRekorV1OtherFlips: an entry that was wrong in one answer of three is not accused, though all three
// had something wrong.
func TestRekorV1OtherFlips(t *testing.T) {
	r, odd := newOddRig(t)
	r.grow(100)
	r.mustPass()
	r.grow(20)
	answers := 0
	odd.alter = func(list []monitor.ServedEntry) {
		if list[0].Index == 100 && answers < 3 {
			e := &list[3+2*answers]
			e.Leaf = append([]byte{'x'}, e.Leaf...)
			answers++
		}
	}
	r.clock.move(time.Minute)
	r.once()
	r.wantIncidents("")
	if answers != 3 || r.coverage() != "[0,120)" {
		t.Errorf("%d answers, coverage %s", answers, r.coverage())
	}
}

// TestRekorV1GapBesideGap: what fails behind a part of a gap that was read takes nothing from the gap
// that follows.
func TestRekorV1GapBesideGap(t *testing.T) {
	r, odd := newOddRig(t)
	r.grow(535)
	r.v1.Append(r.entry(unexpectedEvent(), 1)) // 535
	r.grow(100)
	omit := indices(521, 541, 300, 301)
	r.v1.Set(locallog.FaultsV1{Omit: omit})
	for range 2 {
		r.once()
		r.clock.move(time.Minute)
	}
	// The size at the end of the first gap is not shown, and what is fetched behind it is wrong, and then
	// not to be had.
	r.v1.Set(locallog.FaultsV1{})
	odd.refused, odd.flips = indices(285, 310), map[uint64]int{538: 1}
	for i := range indices(522, 532) {
		odd.refused[i] = true
	}
	n := 0
	odd.fail = func(from, to uint64) bool {
		if from > 530 && from < 541 {
			n++
		}
		return n > 1
	}
	r.once()
	odd.fail, odd.refused, odd.flips = nil, nil, nil
	for range 3 {
		r.clock.move(time.Minute)
		r.once()
	}
	gaps, err := r.store.Gaps(t.Context(), r.cfg.ID)
	if r.verdicts() != "535:unexpected" || r.coverage() != "[0,636)" || len(gaps) > 0 || err != nil {
		t.Errorf("findings %q, coverage %s, gaps %+v, %v", r.verdicts(), r.coverage(), gaps, err)
	}
	r.wantIncidents("entry-withheld:operational:resolved")
}

// TestRekorV1InterruptedScan: a scan that was stopped after its last answer does not say that it came
// through.
func TestRekorV1InterruptedScan(t *testing.T) {
	r, odd := newOddRig(t)
	r.grow(40)
	r.cfg.Start, r.cfg.Parallel = "latest", 1
	ctx, stop := context.WithCancel(t.Context())
	var last atomic.Bool
	r.opts.Now = func() time.Time {
		if last.Load() {
			stop()
		}
		return r.clock.now()
	}
	r.restart()
	r.mustPass()
	odd.alter = func(list []monitor.ServedEntry) { last.Store(list[len(list)-1].Index == 39) }
	if out := r.engine.Scan(ctx, r.store, monitor.ScanOptions{Log: "acme"}); out.Err == nil {
		t.Errorf("%+v, coverage %q", out, r.coverage())
	}
}

// TestRekorV1ProofRequests: what is left out costs two proofs for each run of it, and what is refused a
// bounded number.
func TestRekorV1ProofRequests(t *testing.T) {
	twentieths := map[uint64]bool{}
	for i := uint64(5); i < 1000; i += 20 {
		twentieths[i] = true
	}
	for what, c := range map[string]struct {
		omit map[uint64]bool
		most int
	}{
		"nothing":       {nil, 1},
		"a run":         {indices(100, 700), 4},
		"one of twenty": {twentieths, 102},
	} {
		r, odd := newOddRig(t)
		r.grow(1000)
		r.v1.Set(locallog.FaultsV1{Omit: c.omit})
		r.once()
		if odd.proofs > c.most || r.state().Scanned != 1000 {
			t.Errorf("%s: %d proofs, read up to %d", what, odd.proofs, r.state().Scanned)
		}
	}
	r, odd := newOddRig(t)
	r.grow(101)
	r.mustPass()
	r.grow(5000)
	odd.refused = indices(102, 6000)
	for poll := range 5 {
		odd.proofs, odd.asked = 0, 0
		r.clock.move(time.Minute)
		r.once()
		if r.state().Scanned != 101 || odd.proofs > 40 || poll > 0 && odd.asked > 5 {
			t.Errorf("nothing shown, poll %d: %d proofs and %d requests for entries, read up to %d", poll, odd.proofs, odd.asked, r.state().Scanned)
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
	for nth := 1; nth <= 6; nth++ {
		for _, persisted := range []bool{false, true} {
			r, odd := newOddRig(t)
			r.grow(50)
			r.v1.Append(entriesOf("other", 1950)...)
			note := r.noteBeside(50)
			r.v1.Rewrite(50, entriesOf("this", 1950)...)
			odd.notes = map[uint64][]byte{50: note}
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
