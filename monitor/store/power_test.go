package store

import (
	"context"

	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store/simdisk"
)

// blank returns a disk with a state file that holds nothing.
func blank(t testing.TB) *simdisk.Disk {
	t.Helper()
	d := simdisk.New()
	t.Cleanup(d.Close)
	openOn(t, d).Close()
	return d
}

func openOn(t testing.TB, d *simdisk.Disk) *Store {
	t.Helper()
	s, err := Open(context.Background(), d.Path("state.db"), Options{VFS: simdisk.Name})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// promises is what was acknowledged to a caller.
type promises struct {
	commits, told int
}

// work commits, polls and delivers as the program does, until something fails.
func work(s *Store, from int) (did promises, err error) {
	for n := from; n < from+12; n++ {
		old, err := s.State(ctx, "log")
		if err != nil {
			return did, err
		}
		next := old
		next.Name, next.Scanned, next.HeadSize = "log", uint64(n+1), uint64(n+1)
		b := monitor.Batch{Coverage: []monitor.Range{{From: uint64(n), To: uint64(n + 1)}}, WatchSet: []string{"rule"}}
		f := batchOf(1).Findings[0]
		f.ID, f.Index, f.LogID = fmt.Sprintf("f-%d", n), uint64(n), "log"
		b.Findings = []monitor.Finding{f}
		if _, err := s.Commit(ctx, "log", old, &next, b); err != nil {
			return did, err
		}
		did.commits++
		if _, err := s.RecordPoll(ctx, "log", monitor.Poll{At: time.Unix(int64(n), 0), WatchSet: []string{"rule"}}); err != nil {
			return did, err
		}
		if _, err := s.Unroll(ctx, "c", time.Now().Add(time.Hour), 10); err != nil {
			return did, err
		}
		due, _, err := s.Due(ctx, "c", time.Now().Add(time.Hour), 10, nil)
		if err != nil {
			return did, err
		}
		for _, q := range due {
			if err := s.Delivered(ctx, q, time.Now()); err != nil {
				return did, err
			}
			did.told++
		}
	}
	return did, nil
}

// kept fails unless a store holds what was promised, whole transactions of it, and no
// more than one that was not acknowledged.
func kept(t *testing.T, s *Store, where string, from int, did promises) {
	t.Helper()
	if err := s.Check(ctx); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	st, err := s.State(ctx, "log")
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if n := int(st.Scanned) - from; n < did.commits || n > did.commits+1 {
		t.Fatalf("%s: %d commits were acknowledged, %d are there", where, did.commits, n)
	}
	list, err := s.Findings(ctx, Filter{})
	if err != nil || len(list) != int(st.Scanned) {
		t.Fatalf("%s: %d findings of %d, %v", where, len(list), st.Scanned, err)
	}
	covered, err := s.Coverage(ctx, "log", "rule")
	if err != nil || st.Scanned > 0 && (len(covered) != 1 || covered[0].To != st.Scanned) {
		t.Fatalf("%s: coverage %v of %d, %v", where, covered, st.Scanned, err)
	}
	waiting, err := s.PendingDeliveries(ctx)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if told := int(st.Scanned) - from - waiting; told < did.told || told > did.told+1 {
		t.Fatalf("%s: %d deliveries were acknowledged, %d are not there any more", where, did.told, told)
	}
	if _, _, err := s.VerifyLedger(ctx); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
}

// every says at which operations something fails: at each with SIGWARDEN_THOROUGH=1, which
// takes minutes, else at a sample.
func every() int {
	switch {
	case os.Getenv("SIGWARDEN_THOROUGH") != "":
		return 1
	case testing.Short():
		return 61
	}
	return 23
}

// TestPowerFailsAnywhere cuts the power before and after each operation on the disk,
// with nothing, half and all of what was not synced on it, and the same with the process
// killed: what was acknowledged is there, what was not is there as a whole or not at all,
// and work goes on.
func TestPowerFailsAnywhere(t *testing.T) {
	first := blank(t)
	made := first.Ops() // that the empty file has taken
	s := openOn(t, first)
	if _, err := work(s, 0); err != nil {
		t.Fatal(err)
	}
	s.Close()
	ops := first.Ops() - made
	step := every()
	empty := blank(t)
	cuts := 0
	for at := 1; at <= ops; at += step {
		for _, fault := range []simdisk.Fault{simdisk.CutBefore, simdisk.CutAfter} {
			for _, share := range []float64{0, 0.5, 1, -1} { // -1: only the process ends
				where := fmt.Sprintf("operation %d of %d, %v, %v kept", at, ops, fault, share)
				d := empty.Clone()
				d.Inject(nth(at, fault))
				cut := false
				d.OnCut(func() { cut = true })
				var did promises
				if s, err := Open(ctx, d.Path("state.db"), Options{VFS: simdisk.Name}); err == nil {
					if did, err = work(s, 0); err == nil {
						// The cut comes while the file is closed.
						did = promises{12, 12}
					}
					s.Close()
				}
				if !cut {
					t.Fatalf("%s: it was not reached", where)
				}
				if share >= 0 {
					d.PowerFails(rand.New(rand.NewPCG(uint64(at), uint64(fault))), share)
				}
				d.Inject(nil)
				d.Boot()
				s := openOn(t, d)
				kept(t, s, where, 0, did)
				st, err := s.State(ctx, "log")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := work(s, int(st.Scanned)); err != nil {
					t.Fatalf("%s: work does not go on: %v", where, err)
				}
				s.Close()
				d.Close()
				cuts++
			}
		}
	}
	t.Logf("%d cuts at %d operations", cuts, ops)
}

// TestReadErrors lets each read of the disk fail once: the caller gets an error, nothing is taken
// for empty or gone, and the same store goes on.
func TestReadErrors(t *testing.T) {
	empty := blank(t)
	reads := 0
	d := empty.Clone()
	d.Inject(func(op simdisk.Op) simdisk.Fault {
		if op.Kind == simdisk.Read {
			reads++
		}
		return simdisk.None
	})
	s := openOn(t, d)
	if _, err := work(s, 0); err != nil {
		t.Fatal(err)
	}
	s.Close()
	d.Close()
	failed := 0
	for at := 1; at <= reads; at += every() {
		d := empty.Clone()
		n := at
		d.Inject(func(op simdisk.Op) simdisk.Fault {
			if op.Kind == simdisk.Read {
				if n--; n == 0 {
					return simdisk.Broken
				}
			}
			return simdisk.None
		})
		var did promises
		s, err := Open(ctx, d.Path("state.db"), Options{VFS: simdisk.Name})
		if err == nil {
			did, err = work(s, 0)
			s.Close()
		}
		if err != nil {
			failed++
		}
		d.Inject(nil)
		s = openOn(t, d)
		if err == nil {
			did = promises{12, 12}
		}
		kept(t, s, fmt.Sprintf("read %d of %d", at, reads), 0, did)
		s.Close()
		d.Close()
	}
	if failed == 0 {
		t.Errorf("none of %d reads reached a caller", reads)
	}
}

// nth lets the nth operation that changes something come to a fault.
func nth(n int, fault simdisk.Fault) func(simdisk.Op) simdisk.Fault {
	return func(op simdisk.Op) simdisk.Fault {
		if op.Kind.Changes() {
			n--
		}
		if n == 0 && op.Kind.Changes() {
			return fault
		}
		return simdisk.None
	}
}

// TestDiskFaultsAnywhere lets each operation fail once, as a full disk, a broken one, one
// that reports an error for what it has done, and a read-only one do: the caller gets an
// error, nothing that was acknowledged is lost, and the same store goes on.
func TestDiskFaultsAnywhere(t *testing.T) {
	empty := blank(t)
	d := empty.Clone()
	s := openOn(t, d)
	if _, err := work(s, 0); err != nil {
		t.Fatal(err)
	}
	ops := d.Ops()
	s.Close()
	d.Close()
	step := every()
	failed := 0
	for at := 1; at <= ops; at += step {
		for _, fault := range []simdisk.Fault{simdisk.Full, simdisk.Broken, simdisk.Lost, simdisk.ReadOnly} {
			where := fmt.Sprintf("operation %d of %d, fault %v", at, ops, fault)
			d := empty.Clone()
			s := openOn(t, d)
			d.Inject(nth(at, fault))
			did, err := work(s, 0)
			if err != nil {
				failed++
				kept(t, s, where, 0, did)
			}
			d.Inject(nil)
			st, stateErr := s.State(ctx, "log")
			if stateErr != nil {
				t.Fatalf("%s: %v", where, stateErr)
			}
			if _, err := work(s, int(st.Scanned)); err != nil {
				t.Fatalf("%s: work does not go on: %v", where, err)
			}
			s.Close()
			s = openOn(t, d)
			kept(t, s, where, 0, promises{int(st.Scanned) + 12, int(st.Scanned) + 12})
			s.Close()
			d.Close()
		}
	}
	if failed == 0 {
		t.Error("nothing failed")
	}
	t.Logf("%d of %d faults reached a caller", failed, 4*ops)
}

// TestDiskStaysFull: while a disk is full every write says so and what is there can be
// read; once there is room the same work goes through.
func TestDiskStaysFull(t *testing.T) {
	d := blank(t)
	s := openOn(t, d)
	defer s.Close()
	if _, err := work(s, 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fault simdisk.Fault
		says  string
	}{{simdisk.Full, "full"}, {simdisk.Broken, "disk"}, {simdisk.ReadOnly, "read-only"}} {
		st, err := s.State(ctx, "log")
		if err != nil {
			t.Fatal(err)
		}
		d.Inject(func(op simdisk.Op) simdisk.Fault {
			if op.Kind.Changes() {
				return c.fault
			}
			return simdisk.None
		})
		for range 3 {
			if did, err := work(s, int(st.Scanned)); err == nil || did.commits > 0 {
				t.Errorf("%v: %d commits, %v", c.fault, did.commits, err)
			} else if !contains(err, c.says) {
				t.Errorf("%v: %v", c.fault, err)
			}
		}
		kept(t, s, "while it fails", int(st.Scanned), promises{})
		d.Inject(nil)
		if _, err := work(s, int(st.Scanned)); err != nil {
			t.Errorf("%v: work does not go on: %v", c.fault, err)
		}
	}
}

func contains(err error, text string) bool {
	return err != nil && strings.Contains(err.Error(), text)
}
