package monitor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// TestRekorV1GapOfOurs: entries of ours that come back are found, whatever the path is worth that comes
// with one of them, or the proof behind it.
func TestRekorV1GapOfOurs(t *testing.T) {
	r, odd := newOddRig(t)
	r.grow(521)
	for i := range 30 {
		r.v1.Append(r.entry(unexpectedEvent(), i)) // 521 to 550
	}
	r.grow(100)
	omit, want := map[uint64]bool{}, []string{}
	for i := range uint64(30) {
		omit[521+i] = true
		want = append(want, fmt.Sprintf("%d:unexpected", 521+i))
	}
	r.v1.Set(locallog.FaultsV1{Omit: omit})
	r.once()
	if got := r.coverage(); got != "[0,651)-[521,551)entry-withheld" || r.verdicts() != "" {
		t.Fatalf("findings %q, coverage %s", r.verdicts(), got)
	}
	// All are served, with paths and proofs behind some of them that are no good: those behind others
	// show them too, also behind the last one of the gap, and before its first.
	r.v1.Set(locallog.FaultsV1{NoPath: map[uint64]bool{521: true, 530: true, 550: true}})
	odd.refused = map[uint64]bool{521: true, 522: true, 528: true, 531: true, 551: true}
	r.clock.move(time.Minute)
	r.mustPass()
	if r.verdicts() != strings.Join(want, " ") || r.coverage() != "[0,651)" {
		t.Errorf("findings %q, coverage %s", r.verdicts(), r.coverage())
	}
	r.wantIncidents("")
	r.auditFindings()
}

// newOddRig is a rig whose server is odd.
func newOddRig(t *testing.T) (*rigV1, *oddProofs) {
	r := newRigV1(t)
	odd := &oddProofs{ProofLog: r.cfg.Proofs}
	r.cfg.Proofs = odd
	r.restart()
	return r, odd
}

// oddProofs is a server that refuses some consistency proofs, or shows other notes beside its entries.
type oddProofs struct {
	monitor.ProofLog
	refused map[uint64]bool // by the size that they begin at
	notes   map[uint64][]byte
	answers int // to requests for [101, 111) after which there are none; 0: all
	mu      sync.Mutex
	flips   map[uint64]int                   // how many answers have a bit of an entry wrong, by index
	alter   func(list []monitor.ServedEntry) // an answer
	proofs  int                              // that were asked for
	asked   int                              // requests for entries
	fail    func(from, to uint64) bool
	spoiled map[uint64]int // how many are wrong, by the size that they begin at
	spare   map[uint64]int // how many are served all the same, of those that are refused
}

func (o *oddProofs) ConsistencyProof(ctx context.Context, from, to uint64) ([][]byte, error) {
	o.mu.Lock()
	o.proofs++
	refused := o.refused[from]
	if refused && o.spare[from] > 0 {
		o.spare[from]--
		refused = false
	}
	spoil := o.spoiled[from] > 0
	if spoil {
		o.spoiled[from]--
	}
	o.mu.Unlock()
	if refused {
		return nil, errors.New("status 500")
	}
	proof, err := o.ProofLog.ConsistencyProof(ctx, from, to)
	if spoil && len(proof) > 0 {
		proof[0] = bytes.Clone(proof[0])
		proof[0][0] ^= 1
	}
	return proof, err
}

func (o *oddProofs) Entries(ctx context.Context, offset, from, to uint64) ([]monitor.ServedEntry, error) {
	o.mu.Lock()
	if o.answers > 0 && from > 100 {
		if o.answers--; o.answers == 0 {
			o.answers = 1
			o.mu.Unlock()
			return nil, errors.New("refused")
		}
	}
	o.mu.Unlock()
	o.mu.Lock()
	o.asked++
	failed := o.fail != nil && o.fail(from, to)
	o.mu.Unlock()
	if failed {
		return nil, errors.New("refused")
	}
	list, err := o.ProofLog.Entries(ctx, offset, from, to)
	for i := range list {
		if note := o.notes[list[i].Index]; note != nil && list[i].Leaf != nil {
			list[i].Note = note
		}
		o.mu.Lock()
		flip := o.flips[list[i].Index] > 0 && list[i].Leaf != nil
		if flip {
			o.flips[list[i].Index]--
		}
		o.mu.Unlock()
		if flip {
			list[i].Leaf = bytes.Clone(list[i].Leaf)
			list[i].Leaf[0] ^= 1
		}
	}
	if o.alter != nil && err == nil {
		o.mu.Lock()
		o.alter(list)
		o.mu.Unlock()
	}
	return list, err
}

// TestRekorV1LastEntry: whoever withholds the last entry of a tree, or other bytes in its place, hides
// nothing before it; also in trees whose last leaves no proof between sizes names by themselves.
func TestRekorV1LastEntry(t *testing.T) {
	for _, size := range sample[uint64](101, 96, 4, 5, 6, 7, 8, 9, 33, 65, 64) {
		for _, altered := range []bool{false, true} {
			r := newRigV1(t)
			r.grow(int(size/2) - 1)
			r.v1.Append(r.entry(unexpectedEvent(), 1))
			r.grow(int(size - size/2))
			last := size - 1
			f := locallog.FaultsV1{Omit: map[uint64]bool{last: true}}
			want, incidents := fmt.Sprintf("[0,%d)-[%d,%d)entry-withheld", size, last, size), ""
			if altered {
				f = locallog.FaultsV1{Alter: map[uint64][]byte{last: []byte("altered")}, NoPath: map[uint64]bool{last: true}}
				want, incidents = fmt.Sprintf("[0,%d)-[%d,%d)entry-mismatch", size, last, size), "entry-mismatch:integrity:open"
			}
			r.v1.Set(f)
			r.once()
			if r.verdicts() != fmt.Sprintf("%d:unexpected", size/2-1) || r.coverage() != want {
				t.Errorf("%d entries, altered %v: findings %q, coverage %s", size, altered, r.verdicts(), r.coverage())
			}
			r.wantIncidents(incidents)
			r.auditFindings()
			// The tree grows, and it is the new last one that is withheld.
			r.v1.Append(r.entry(unexpectedEvent(), 2))
			r.grow(1)
			r.v1.Set(locallog.FaultsV1{Omit: map[uint64]bool{size + 1: true}})
			r.clock.move(time.Minute)
			r.once()
			if r.verdicts() != fmt.Sprintf("%d:unexpected %d:unexpected", size/2-1, size) || r.coverage() != fmt.Sprintf("[0,%d)-[%d,%d)entry-withheld", size+2, size+1, size+2) {
				t.Errorf("%d entries, grown: findings %q, coverage %s", size, r.verdicts(), r.coverage())
			}
			r.auditFindings()
		}
	}
}

// TestRekorV1ManyOdd: many entries of ours whose paths prove nothing, and many requests that are not
// answered, hold nothing up for ever.
func TestRekorV1ManyOdd(t *testing.T) {
	if testing.Short() {
		t.Skip("nothing in it runs beside anything")
	}
	r := newRigV1(t)
	r.grow(300)
	useless, want := map[uint64]bool{}, []string{}
	for i := range 40 {
		r.v1.Append(r.entry(unexpectedEvent(), i))
		useless[uint64(300+i)] = true
		want = append(want, fmt.Sprintf("%d:unexpected", 300+i))
	}
	r.v1.Set(locallog.FaultsV1{NoPath: useless})
	r.mustPass()
	if r.verdicts() != strings.Join(want, " ") || r.coverage() != "[0,340)" {
		t.Errorf("findings %q, coverage %s", r.verdicts(), r.coverage())
	}
	r.auditFindings()

	r = newRigV1(t)
	r.cfg.Proofs = &oddProofs{ProofLog: r.cfg.Proofs, refused: map[uint64]bool{2000: true}}
	r.restart()
	r.grow(2000)
	r.v1.Append(r.entry(unexpectedEvent(), 1))
	r.grow(10)
	for range 2 {
		r.once()
		r.clock.move(time.Minute)
	}
	if r.verdicts() != "2000:unexpected" || r.coverage() != "[0,2011)" {
		t.Errorf("a proof refused: findings %q, coverage %s", r.verdicts(), r.coverage())
	}

	const silent = 2*16 + 5 // more than one pass goes on without, and than two do
	r = newRigV1(t)
	none := map[uint64]bool{}
	for i := range uint64(silent) {
		none[20*i] = true
	}
	r.grow(20 * silent)
	r.v1.Append(r.entry(unexpectedEvent(), 1))
	r.v1.Set(locallog.FaultsV1{NoAnswer: none})
	polls := 0
	for ; polls < 20 && r.verdicts() == ""; polls++ {
		r.clock.move(time.Minute)
		r.once()
	}
	if r.verdicts() != fmt.Sprintf("%d:unexpected", 20*silent) {
		t.Errorf("after %d polls, read up to %d: findings %q", polls, r.state().Scanned, r.verdicts())
	}
}

// entriesOf makes entries that differ.
func entriesOf(what string, n int) (entries [][]byte) {
	for i := range n {
		entries = append(entries, fmt.Appendf(nil, "%s %d", what, i))
	}
	return entries
}

// noteBeside returns the note that the server serves with an entry.
func (r *rigV1) noteBeside(index uint64) []byte {
	r.t.Helper()
	offset, _, err := r.cfg.Proofs.Offset(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	list, err := r.cfg.Proofs.Entries(r.t.Context(), offset, index, index+1)
	if err != nil {
		r.t.Fatal(err)
	}
	return list[0].Note
}

// TestRekorV1NoteBesideEntry: a note that comes with an entry, and that the log has signed, contradicts
// the head.
func TestRekorV1NoteBesideEntry(t *testing.T) {
	for _, omitted := range []bool{false, true} {
		r := newRigV1(t)
		r.grow(50)
		r.v1.Append(r.entry(unexpectedEvent(), 1)) // 50
		r.v1.Append(entriesOf("other", 10)...)
		note := r.noteBeside(50)
		r.v1.Rewrite(51, entriesOf("this", 10)...)
		odd := &oddProofs{ProofLog: r.cfg.Proofs, notes: map[uint64][]byte{50: note}}
		r.cfg.Proofs = odd
		r.restart()
		if omitted {
			r.v1.Set(locallog.FaultsV1{Omit: map[uint64]bool{52: true}})
		}
		if out := r.once(); out.Halted == "" || !strings.Contains(r.incidents(), "fork:integrity:open") {
			t.Errorf("%+v, incidents %q", out, r.incidents())
		}
		verifyFork(t, r.rig)
		if r.verdicts() != "50:unexpected" {
			t.Errorf("findings %q", r.verdicts())
		}
		r.auditFindings()
		// Whoever resumes the log is not told again.
		st := r.state()
		inc := st.Halted
		if err := r.engine.Resume(t.Context(), monitor.Resumption{Log: "acme", Incident: inc, Note: "looked at", By: "alice"}); err != nil {
			t.Fatal(err)
		}
		r.v1.Set(locallog.FaultsV1{})
		r.grow(5)
		r.clock.move(time.Minute)
		if out := r.once(); out.Halted != "" {
			t.Errorf("halted again: %+v, incidents %q", out, r.incidents())
		}
		// A scan of what was read before looks too.
		r = newRigV1(t)
		r.grow(50)
		r.v1.Append(r.entry(unexpectedEvent(), 1))
		r.v1.Append(entriesOf("this", 10)...)
		r.cfg.Start = "latest"
		odd = &oddProofs{ProofLog: r.cfg.Proofs}
		r.cfg.Proofs = odd
		r.restart()
		r.mustPass()
		r.v1.Rewrite(51, entriesOf("other", 10)...)
		note = r.noteBeside(50)
		odd.notes = map[uint64][]byte{50: note}
		r.v1.Rewrite(51, entriesOf("this", 10)...)
		out := r.engine.Scan(t.Context(), r.store, monitor.ScanOptions{Log: "acme", From: 40, To: 61})
		if out.Err != nil || out.Halted == "" || r.verdicts() != "50:unexpected" {
			t.Errorf("scan: %+v, incidents %q, findings %q", out, r.incidents(), r.verdicts())
		}
		// A stranger's note says nothing.
		r = newRigV1(t)
		r.grow(61)
		r.cfg.Proofs = &oddProofs{ProofLog: r.cfg.Proofs, notes: map[uint64][]byte{50: append(note[:len(note):len(note)], '\n')}}
		r.restart()
		r.once()
		r.wantIncidents("")
	}
}

// TestRekorV1GapRequests: what a gap of many entries asks of the log is a small multiple of what its
// entries do, and a poll goes on to other work after a time.
func TestRekorV1GapRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("nothing in it runs beside anything")
	}
	r := newRigV1(t)
	r.grow(400)
	alter, none := map[uint64][]byte{}, map[uint64]bool{}
	for i := range uint64(200) {
		alter[100+i], none[100+i] = fmt.Appendf(nil, "altered %d", i), true
	}
	r.v1.Set(locallog.FaultsV1{Alter: alter, NoPath: none})
	requests := func() (n int) {
		for _, count := range r.v1.Requests() {
			n += count
		}
		return n
	}
	r.once()
	if r.coverage() != "[0,400)-[100,300)entry-mismatch" {
		t.Fatal(r.coverage())
	}
	before := requests()
	r.clock.move(time.Minute)
	r.once()
	if n := requests() - before; n > 250 { // one for each, and for each ten of them two
		t.Errorf("%d requests for 200 entries", n)
	}
}

// TestFlippedBit: an answer with a wrong bit accuses no log, neither beside an entry that is left out,
// nor where a gap is asked for again.
func TestFlippedBit(t *testing.T) {
	r, odd := newOddRig(t)
	r.grow(50)
	r.v1.Append(r.entry(unexpectedEvent(), 1)) // 50
	r.grow(50)
	r.v1.Set(locallog.FaultsV1{Omit: map[uint64]bool{52: true, 53: true}})
	odd.flips = map[uint64]int{50: 3, 51: 4}
	r.once()
	r.wantIncidents("")
	if r.verdicts() != "50:unexpected" || r.coverage() != "[0,101)-[52,54)entry-withheld" {
		t.Errorf("findings %q, coverage %s", r.verdicts(), r.coverage())
	}
	r.v1.Set(locallog.FaultsV1{})
	odd.flips = map[uint64]int{53: 2}
	r.clock.move(time.Minute)
	r.mustPass()
	r.wantIncidents("")
	if r.coverage() != "[0,101)" {
		t.Errorf("coverage %s", r.coverage())
	}
	// What cannot be asked for again is not confirmed.
	r.grow(10)
	r.v1.Set(locallog.FaultsV1{Omit: map[uint64]bool{104: true}})
	odd.flips, odd.answers = map[uint64]int{105: 1 << 30}, 4 // as often as what is left out is asked for
	r.clock.move(time.Minute)
	r.once()
	r.wantIncidents("")
	odd.answers, odd.flips = 0, nil
	r.v1.Set(locallog.FaultsV1{})
	r.clock.move(time.Minute)
	r.mustPass()
	if r.coverage() != "[0,111)" {
		t.Errorf("coverage %s", r.coverage())
	}
	// One that stays wrong does.
	r.grow(10)
	odd.flips = map[uint64]int{115: 1 << 30}
	r.clock.move(time.Minute)
	r.once()
	r.wantIncidents("entry-mismatch:integrity:open")

	// The same with bundles.
	v2 := newRig(t)
	bits := &flippedBundles{TileLog: v2.cfg.Source}
	v2.cfg.Source = bits
	v2.restart()
	v2.fill(v2.log, 600)
	v2.server.Set(locallog.Faults{Missing: map[uint64]bool{1: true}})
	v2.once()
	if v2.coverage() != "[0,600)-[256,512)entry-withheld" {
		t.Fatal(v2.coverage())
	}
	v2.server.Set(locallog.Faults{})
	bits.left.Store(2)
	v2.clock.move(time.Minute)
	v2.mustPass()
	v2.wantIncidents("")
	if v2.coverage() != "[0,600)" {
		t.Errorf("coverage %s", v2.coverage())
	}
}

// flippedBundles gets a bit wrong of the first entries of some answers.
type flippedBundles struct {
	monitor.TileLog
	left atomic.Int32
}

func (f *flippedBundles) Leaves(ctx context.Context, from, to uint64) ([][]byte, error) {
	list, err := f.TileLog.Leaves(ctx, from, to)
	if err == nil && f.left.Add(-1) >= 0 {
		list[0] = bytes.Clone(list[0])
		list[0][0] ^= 1
	}
	return list, err
}

// TestRekorV1BadFront: what cannot be proven at the front of a gap does not hold up the rest of it.
func TestRekorV1BadFront(t *testing.T) {
	r, odd := newOddRig(t)
	r.grow(521)
	omit := map[uint64]bool{}
	for i := range 40 {
		r.v1.Append(r.entry(unexpectedEvent(), i))
		omit[uint64(521+i)] = true
	}
	r.grow(100)
	r.v1.Set(locallog.FaultsV1{Omit: omit})
	r.once()
	r.v1.Set(locallog.FaultsV1{})
	odd.refused = map[uint64]bool{}
	for size := range uint64(12) {
		odd.refused[514+size] = true // to 525: the frontier before 526 is the first that is shown
	}
	for range 4 {
		r.clock.move(time.Minute)
		r.once()
	}
	if n := len(r.findings()); n < 35 {
		t.Errorf("%d of 40 found, coverage %s", n, r.coverage())
	}
	odd.refused = nil
	r.clock.move(time.Minute)
	r.mustPass()
	if n := len(r.findings()); n != 40 || r.coverage() != "[0,661)" {
		t.Errorf("healed: %d of 40 found, coverage %s", n, r.coverage())
	}
	r.auditFindings()
}
