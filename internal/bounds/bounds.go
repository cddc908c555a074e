// Package bounds holds tests that feed bytes of strangers to the program to what the program promises:
// that no input takes much memory or much time.
package bounds

import (
	"runtime/metrics"
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

// Hold begins to watch; the function that it returns fails the test if the process has taken more
// from the system than Memory since then, or if more than Time has passed. What tests before it
// took is forgiven: where the fuzzer runs there are none.
//
//	defer bounds.Hold(t)()
func Hold(t testing.TB) func() { return hold(t, time.Now()) }

func hold(t testing.TB, began time.Time) func() {
	before := mapped()
	return func() {
		if took := time.Since(began); took > Time {
			t.Errorf("it took %s, and no input may take more than %s", took, Time)
		}
		if n := mapped(); n > max(Memory, before) {
			t.Errorf("the process took %d MB of memory, and may take %d", n>>20, Memory>>20)
		}
	}
}

// mapped is what the runtime has had of the system; it never grows less.
func mapped() uint64 {
	all := []metrics.Sample{{Name: "/memory/classes/total:bytes"}}
	metrics.Read(all)
	return all[0].Value.Uint64()
}
