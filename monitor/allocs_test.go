package monitor_test

import (
	"path/filepath"
	"runtime"
	"testing"

	"github.com/sigwarden/sigwarden/monitor/rekor"
)

// What a scan allocates for each entry that is nobody's. It is the baseline: whoever makes it
// worse says why. Most of it is for each bundle of 256, and for each transaction.
const (
	maxAllocations    = 0.30
	maxBytesAllocated = 230
)

// TestScanAllocates: what is nobody's costs next to nothing but its hash.
func TestScanAllocates(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector allocates too")
	}
	r := newRig(t)
	dir := t.TempDir()
	write := func(n int) {
		r.fill(r.log, n)
		if err := r.log.WriteDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	write(5000)
	source, err := rekor.NewV2(rekor.Options{URL: "file://" + filepath.ToSlash(dir)})
	if err != nil {
		t.Fatal(err)
	}
	r.cfg.Source, r.cfg.Parallel = source, 2
	r.restart()
	if out := r.once(); out.Err != nil {
		t.Fatal(out.Err)
	}
	const entries = 40000
	write(entries)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if out := r.once(); out.Err != nil || out.Scanned != 5000+entries {
		t.Fatalf("%+v", out)
	}
	runtime.ReadMemStats(&after)
	allocations, bytes := float64(after.Mallocs-before.Mallocs)/entries, float64(after.TotalAlloc-before.TotalAlloc)/entries
	t.Logf("%.3f allocations and %.0f bytes an entry", allocations, bytes)
	if allocations > maxAllocations || bytes > maxBytesAllocated {
		t.Errorf("%.3f allocations (at most %.2f) and %.0f bytes (at most %d) an entry", allocations, maxAllocations, bytes, maxBytesAllocated)
	}
}
