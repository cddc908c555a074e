package bounds

import (
	"testing"
	"time"
)

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	failed int
}

func (r *recorder) Errorf(string, ...any) { r.failed++ }

func TestHold(t *testing.T) {
	r := &recorder{TB: t}
	Hold(r)()
	if r.failed != 0 {
		t.Fatal("nothing was done, and it failed")
	}
	// The memory is back before anybody looks, and was taken all the same.
	held := Hold(r)
	taken := make([]byte, Memory+1<<20)
	taken[len(taken)-1] = 1 // so that it is not left out
	held()
	if r.failed != 1 {
		t.Fatal("more memory than is allowed was taken, and it did not fail")
	}
	began := time.Now()
	held = hold(r, began.Add(-Time-time.Second))
	held()
	if r.failed != 2 {
		t.Fatal("it took more time than is allowed, and did not fail")
	}
}
