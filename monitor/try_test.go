package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

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

// TestTryIsStopped: a rule that takes long is tried until its time is over, however many entries
// are left of a bundle.
func TestTryIsStopped(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 700)
	if out := r.once(); out.Err != nil {
		t.Fatal(out.Err)
	}
	heavy := watchlist.Watch{Name: "try"}
	for i := range 40 {
		heavy.Match = append(heavy.Match, watchlist.Item{Subject: []string{fmt.Sprintf(`re:(?:\pL?[^%c]?.?){200,990}`, 'a'+i%26)}})
	}
	list, err := watchlist.Compile([]watchlist.Watch{heavy})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	got, err := r.engine.Try(ctx, list, 5)
	if err != nil || len(got) != 1 || !errors.Is(got[0].Err, context.DeadlineExceeded) || got[0].Read >= monitor.TriedEntries {
		t.Fatalf("%+v, %v", got, err)
	}
}

// TestTryBesidePolls: what is tried meanwhile changes nothing of what is read.
func TestTryBesidePolls(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 300)
	if out := r.once(); out.Err != nil {
		t.Fatal(out.Err)
	}
	list, err := watchlist.Compile([]watchlist.Watch{{Name: "try", Match: []watchlist.Item{{Subject: []string{"https://*"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var tried sync.WaitGroup
	for range 2 {
		tried.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if got, err := r.engine.Try(t.Context(), list, 5); err != nil || len(got) != 1 || got[0].Err != nil || got[0].Matches == 0 {
					t.Errorf("%+v, %v", got, err)
					return
				}
			}
		})
	}
	for range 5 {
		r.fill(r.log, 100)
		at := r.sign(r.log, unexpectedEvent())
		if out := r.once(); out.Err != nil {
			t.Error(out.Err)
		}
		if list := r.findings(); len(list) == 0 || list[len(list)-1].Index != at {
			t.Errorf("%d findings, the last not of entry %d", len(list), at)
		}
	}
	close(done)
	tried.Wait()
}
