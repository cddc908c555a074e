// Package bounds holds tests that feed bytes of strangers to the program to what the program promises:
// that no input takes much memory or much time.
package bounds

import (
	"flag"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"testing"
	"time"
)

// What one input may take. The memory is that of the whole process, with the test's own part and
// with what the garbage collector has not returned yet; the time is far more than any input takes,
// and far less than one that makes work without an end.
const (
	Memory = 300 << 20
	Time   = 10 * time.Second
)

// inputs is what a process that fuzzes keeps for itself, to make inputs in (internal/fuzz of Go: the
// room of its mutator).
const inputs = 100 << 20

// allowed is what the process may take. Where it fuzzes, garbage is collected early: it would wait
// for as much again as is kept for inputs.
var allowed = sync.OnceValue(func() uint64 {
	if f := flag.Lookup("test.fuzzworker"); f == nil || f.Value.String() != "true" {
		return Memory + detector
	}
	debug.SetGCPercent(20)
	return Memory + detector + inputs
})

// Hold begins to watch; the function that it returns fails the test if the process has taken more
// from the system than Memory since then, or if more than Time has passed. What tests before it
// took is forgiven: where the fuzzer runs there are none.
//
//	defer bounds.Hold(t)()
func Hold(t testing.TB) func() { return hold(t, time.Now()) }

func hold(t testing.TB, began time.Time) func() {
	most := max(allowed(), mapped())
	// A fuzzer looks at no clock: the process ends, which no test can do from another goroutine, and
	// the input is kept. Nothing but tests may import this (TestImportOrder).
	stuck := time.AfterFunc(2*Time, func() { panic("an input takes more than " + (2 * Time).String()) })
	return func() {
		stuck.Stop()
		if took := time.Since(began); took > Time {
			t.Errorf("it took %s, and no input may take more than %s", took, Time)
		}
		if n := mapped(); n > most {
			t.Errorf("the process took %d MB of memory, and may take %d", n>>20, most>>20)
		}
	}
}

// mapped is what the runtime has had of the system; it never grows less.
func mapped() uint64 {
	all := []metrics.Sample{{Name: "/memory/classes/total:bytes"}}
	metrics.Read(all)
	return all[0].Value.Uint64()
}
