package monitor_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// TestKeeper: a running engine decides on time, without being told that something has
// become due: what other processes have stored too.
func TestKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		st, err := store.Open(ctx, filepath.Join(t.TempDir(), "s.db"), store.Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		list, err := watchlist.Compile([]watchlist.Watch{{Name: "w", Match: []watchlist.Item{{Subject: []string{"x"}}}}})
		if err != nil {
			t.Fatal(err)
		}
		lists, read := &listsOf{}, &atomic.Bool{}
		engine, err := monitor.New(monitor.Options{Store: st, Watches: list, WatchConfigs: []monitor.WatchConfig{{Severity: "critical", Channels: []string{"chat"}, Silence: 5 * time.Hour}},
			Lists: lists, ListsRead: read.Load, Escalation: monitor.Escalation{After: 2 * time.Hour, To: []string{"pager"}}, HealthChannels: []string{"chat"}})
		if err != nil {
			t.Fatal(err)
		}
		waits := func(id, artifact string) {
			t.Helper()
			doc := fmt.Appendf(nil, `{"Identities":[{"Certificate":true,"Vouched":true,"Fits":[{"Number":1,"Counter":"c","Terms":{"digests":{"list":"SUMS","grace":1800000000000}}}],"Event":{"Time":%q,"Digests":[%q]}}]}`,
				time.Now().Format(time.RFC3339), artifact)
			until := time.Now().Add(30 * time.Minute)
			b := monitor.Batch{Findings: []monitor.Finding{{ID: id, LogID: "log", Watch: "w", Verdict: policy.Expected, Severity: "critical", State: monitor.StatePending, SeenAt: time.Now(), EventTime: time.Now(),
				Digests: []string{artifact}, PendingUntil: &until, Waits: []string{"SUMS"}, Waiting: doc, Leaf: []byte("l"), SignedNote: "n"}}}
			if _, err := st.Commit(ctx, "log", monitor.State{}, nil, b); err != nil {
				t.Fatal(err)
			}
		}
		state := func(id string) string {
			t.Helper()
			f, err := st.Finding(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			return string(f.Verdict) + ":" + f.State
		}
		want := func(id, want string) {
			t.Helper()
			if got := state(id); got != want {
				t.Fatalf("after %s %s is %s, want %s", time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)), id, got, want)
			}
		}
		pager := func(want int) {
			t.Helper()
			if s, err := st.Channels(ctx, []string{"pager"}); err != nil || s[0].Pending != want {
				t.Fatalf("%d wait for the pager, want %d (%v)", s[0].Pending, want, err)
			}
		}
		// What has waited too long while the program was down is on the list by now.
		waits("f-down", "sha256:aa")
		lists.add("SUMS", "sha256:aa")
		time.Sleep(time.Hour)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { engine.Run(ctx) })
		time.Sleep(10 * time.Second)
		want("f-down", "expected:pending") // the list was not read yet
		read.Store(true)
		time.Sleep(5 * time.Second)
		want("f-down", "expected:closed")
		// Another process stores one that waits, and nobody kicks.
		waits("f-waits", "sha256:bb")
		time.Sleep(29 * time.Minute)
		want("f-waits", "expected:pending")
		time.Sleep(2 * time.Minute)
		want("f-waits", "unexpected:open")
		pager(0)
		time.Sleep(118 * time.Minute) // not two hours: both would wake in one instant
		pager(0)
		time.Sleep(3 * time.Minute)
		pager(1)
		// Reopened, it escalates again, and not at once.
		for _, to := range []string{monitor.StateAcknowledged, monitor.StateOpen} {
			if err := st.Triage(ctx, "f-waits", monitor.Change{To: to, By: "alice", Note: "n", At: time.Now()}, nil); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(119 * time.Minute)
		pager(1)
		time.Sleep(3 * time.Minute)
		pager(2)
		time.Sleep(time.Hour)
		if list, err := st.Incidents(ctx, store.Filter{Kind: monitor.KindSilence}); err != nil || len(list) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
	})
}

// TestSelfMadeBesideWaiting: whoever has stolen an identity does not hide by a second
// signature, with a certificate that he made himself.
func TestSelfMadeBesideWaiting(t *testing.T) {
	r := newRig(t)
	r.opts.Lists = &listsOf{}
	r.under(policy.Terms{Digests: &policy.Listing{List: "SUMS", Grace: 30 * time.Minute}})
	stranger, err := testca.New("nobody", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var signers []testca.Signer
	for _, ca := range []*testca.CA{stranger, r.ca} {
		s, err := ca.Issue(testca.Identity{URI: ours, Issuer: github, NotBefore: time.Now(), Extensions: map[int]string{11: "github-hosted"}})
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, s)
	}
	leaf, err := testca.DSSE("application/vnd.in-toto+json", []byte("{}"), signers...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.log.Append(leaf); err != nil {
		t.Fatal(err)
	}
	r.mustPass()
	if f := r.findings(); len(f) != 1 || f[0].State != monitor.StatePending {
		t.Fatalf("%+v", f)
	}
	r.clock.move(31 * time.Minute)
	if n, err := r.engine.Decide(context.Background()); err != nil || n != 1 {
		t.Errorf("%d told, %v", n, err)
	}
	if f := r.findings(); f[0].Verdict != policy.Unexpected || f[0].State != monitor.StateOpen {
		t.Errorf("%+v", f[0])
	}
	if n := r.engine.Metrics().Findings[[2]string{"releases", "unexpected"}]; n != 1 {
		t.Errorf("%d are counted", n)
	}
}

// TestTwoItemsOnePattern: limits of two items count each for itself, though their
// patterns are the same.
func TestTwoItemsOnePattern(t *testing.T) {
	r := newRig(t)
	watches := r.opts.Watches.Watches()
	watches[0].Expect = append(watches[0].Expect, watches[0].Expect[0])
	var err error
	if r.opts.Watches, err = watchlist.Compile(watches); err != nil {
		t.Fatal(err)
	}
	begin := time.Now().Truncate(time.Second)
	span := func(from, until time.Duration) policy.Span {
		return policy.Span{From: begin.Add(from), Until: begin.Add(until)}
	}
	r.opts.WatchConfigs[0].Terms = []*policy.Terms{
		{Valid: span(0, time.Hour), AtMost: &policy.Rate{Count: 5, Per: 24 * time.Hour}},
		{Valid: span(time.Hour, 2*time.Hour), AtMost: &policy.Rate{Count: 1, Per: 24 * time.Hour}},
	}
	r.restart()
	for i, at := range []time.Duration{0, time.Minute, 70 * time.Minute, 80 * time.Minute} {
		if _, err := r.log.Append(release(t, r.ca, fmt.Sprint(i), "v1", begin.Add(at), "github-hosted")); err != nil {
			t.Fatal(err)
		}
	}
	r.mustPass()
	if got, want := r.verdicts(), "0:expected 1:expected 2:expected 3:unexpected"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestJudgedAgain: with the same rules, what was judged comes to the same when it is
// judged again, whatever was counted since.
func TestJudgedAgain(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	r.under(policy.Terms{AtMost: &policy.Rate{Count: 2, Per: time.Hour}, OncePer: policy.ByDigest})
	begin := time.Now().Truncate(time.Second)
	for i, at := range []int{0, 30, 60, 90, 91, 92} {
		if _, err := r.log.Append(release(t, r.ca, fmt.Sprint(i%5), "v1", begin.Add(time.Duration(at)*time.Minute), "github-hosted")); err != nil {
			t.Fatal(err)
		}
	}
	r.mustPass()
	if got, want := r.verdicts(), "0:expected 1:expected 2:expected 3:expected 4:unexpected 5:unexpected"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	err := r.store.EachFinding(ctx, store.Filter{}, func(f monitor.Finding) error {
		full, err := r.store.Finding(ctx, f.ID)
		if err != nil {
			return err
		}
		return r.store.Peek(ctx, r.cfg.ID, func(l monitor.Precedents) error {
			again, err := r.engine.Reassess(full, l)
			if again.Verdict != f.Verdict {
				t.Errorf("entry %d was %s, and is %s (%s)", f.Index, f.Verdict, again.Verdict, again.Reason)
			}
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestQuietScan: what a quiet scan finds is told to nobody, neither at once nor when
// it has waited, nor by escalation.
func TestQuietScan(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	r.opts.Lists = &listsOf{}
	r.opts.Escalation = monitor.Escalation{After: time.Hour, To: []string{"pager"}}
	r.cfg.Start = "latest"
	r.under(policy.Terms{Digests: &policy.Listing{List: "SUMS", Grace: 30 * time.Minute}})
	r.sign(r.log, unexpectedEvent())
	r.sign(r.log, expectedEvent())
	r.mustPass()
	if out := r.engine.Scan(ctx, r.store, monitor.ScanOptions{Log: "acme", Quiet: true}); out.Err != nil || out.Findings != 2 {
		t.Fatalf("%+v", out)
	}
	r.clock.at = time.Now().Add(9 * time.Hour)
	for range 2 {
		if _, err := r.engine.Decide(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := r.verdicts(), "0:unexpected 1:unexpected"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	list, err := r.store.Channels(ctx, []string{"chat", "mail", "pager"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.Pending != 0 {
			t.Errorf("%d wait for %s", c.Pending, c.Name)
		}
	}
}
