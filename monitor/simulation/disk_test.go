package simulation

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sigwarden/sigwarden/monitor/store/simdisk"
)

// planDisk draws what becomes of the disk, and of the process on it.
func (w *world) planDisk(rng *rand.Rand, at func() time.Duration, do func(time.Duration, string, func()), some func(int, float64) int, span func(time.Duration) time.Duration) {
	for _, f := range []struct {
		name string
		hook hook
	}{{"disk: full", whenever(simdisk.Full)}, {"disk: errors", whenever(simdisk.Broken)}, {"disk: read-only", whenever(simdisk.ReadOnly)}, {"disk: reads fail", w.reads()}} {
		for range some(1, 0.25) {
			when := at()
			until := when + 5*time.Second + span(2*time.Minute)
			do(when, f.name, func() { w.faults.set(f.name, f.hook) })
			do(until, "disk: mended", func() { w.faults.set(f.name, nil) })
		}
	}
	for range some(3, 0.3) {
		n := 1 + rng.IntN(20)
		do(at(), "disk: done, and reported as failed", func() { w.faults.set(fmt.Sprint("lost ", n), after(n, simdisk.Lost)) })
	}
	for range some(4, 0.4) {
		n, fault := 1+rng.IntN(25), simdisk.CutBefore
		if rng.IntN(2) == 0 {
			fault = simdisk.CutAfter
		}
		name := "crash"
		share := -1.0
		if rng.IntN(2) == 0 {
			name, share = "power failure", float64(rng.IntN(3))/2
		}
		do(at(), name, func() {
			w.losing(share)
			w.faults.set("end", after(n, fault))
		})
	}
	for range some(2, 0.2) {
		do(at(), "kill", func() {
			w.losing(-1)
			w.disk.Kill()
		})
	}
}

// losing says how much the next end of the process loses.
func (w *world) losing(share float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.share = share
}

// hook says what becomes of an operation.
type hook func(simdisk.Op) simdisk.Fault

// faults are what is wrong with the disk: several things at a time, by name.
type faults struct {
	w     *world
	mu    sync.Mutex
	hooks map[string]hook
}

func newFaults(w *world) *faults {
	f := &faults{w: w, hooks: map[string]hook{}}
	w.disk.Inject(f.ask)
	return f
}

// set lets something be wrong; nil: not any more.
func (f *faults) set(name string, h hook) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h == nil {
		delete(f.hooks, name)
	} else {
		f.hooks[name] = h
	}
}

// calm ends everything that is wrong.
func (f *faults) calm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.hooks)
}

// names tells what became of an operation.
var names = map[simdisk.Fault]string{simdisk.Full: "no space", simdisk.Broken: "error", simdisk.Lost: "done, and an error", simdisk.ReadOnly: "read-only", simdisk.CutBefore: "crash before", simdisk.CutAfter: "crash after"}

func (f *faults) ask(op simdisk.Op) simdisk.Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	fault := simdisk.None
	if len(f.hooks) == 0 {
		return fault // mostly
	}
	for _, name := range slices.Sorted(maps.Keys(f.hooks)) {
		if got := f.hooks[name](op); fault == simdisk.None {
			fault = got // the others count all the same
		}
	}
	if fault != simdisk.None {
		f.w.count(fmt.Sprintf("%s: %s", op.Kind, names[fault]))
	}
	return fault
}

// whenever lets everything that changes something fail.
func whenever(fault simdisk.Fault) hook {
	return func(op simdisk.Op) simdisk.Fault {
		if op.Kind.Changes() {
			return fault
		}
		return simdisk.None
	}
}

// reads lets one of some reads fail.
func (w *world) reads() hook {
	rng := w.source("reads")
	return func(op simdisk.Op) simdisk.Fault {
		if op.Kind == simdisk.Read && rng.IntN(40) == 0 {
			return simdisk.Broken
		}
		return simdisk.None
	}
}

// after lets one operation fail, and those before it and after it come through.
func after(n int, fault simdisk.Fault) hook {
	return func(op simdisk.Op) simdisk.Fault {
		if op.Kind.Changes() {
			if n--; n == 0 {
				return fault
			}
		}
		return simdisk.None
	}
}
