package monitor_test

import (
	"context"
	"testing"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// TestTry: a rule that nobody has is tried on the newest entries, proven, and nothing is
// stored or counted for it.
func TestTry(t *testing.T) {
	r := newRig(t)
	others, err := watchlist.Compile([]watchlist.Watch{{Name: "try", Match: []watchlist.Item{{Subject: []string{"https://github.com/somebody/*"}}, {Subject: []string{ours}}},
		Expect: []watchlist.Item{{Subject: []string{ours}, Issuer: []string{github}}}}})
	if err != nil {
		t.Fatal(err)
	}
	try := func() []monitor.Trial {
		t.Helper()
		got, err := r.engine.Try(context.Background(), others, 5)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := try(); len(got) != 0 {
		t.Errorf("%+v of a log that was never polled", got)
	}
	r.fill(r.log, 700)
	at := r.sign(r.log, unexpectedEvent())
	r.fill(r.log, 3)
	if out := r.once(); out.Err != nil {
		t.Fatal(out.Err)
	}
	before := r.findings()
	got := try()
	if len(got) != 1 || got[0].Err != nil || got[0].Log != "acme" || got[0].Read != monitor.TriedEntries || got[0].Matches != monitor.TriedEntries || len(got[0].Of) != 5 {
		t.Fatalf("%+v", got)
	}
	for i, f := range got[0].Of {
		if f.Index != 703-uint64(i) || f.Watch != "try" {
			t.Errorf("%d: %d, %s", i, f.Index, f.Watch)
		}
		want := policy.Unexpected
		if f.Index == at {
			want = policy.Expected
		}
		if f.Verdict != want {
			t.Errorf("entry %d is %q: %s", f.Index, f.Verdict, f.Reason)
		}
	}
	if after := r.findings(); len(after) != len(before) {
		t.Errorf("%d findings were %d before", len(after), len(before))
	}
	// What does not fit the signed tree is not looked at, and that is said.
	r.server.Set(locallog.Faults{Swap: map[uint64][]byte{at: []byte("swapped")}})
	if got := try(); got[0].Matches != monitor.TriedEntries-1 {
		t.Errorf("%+v", got)
	}
	r.server.Set(locallog.Faults{Status: 500})
	if got := try(); got[0].Err == nil || got[0].Read != 0 {
		t.Errorf("%+v", got)
	}
}
