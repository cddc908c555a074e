package monitor_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/watchlist"
)

const tree1, tree2 = 3904496407287907110, 1193050959916656506

// rigV1 is a rig on a Rekor v1 server, with a tree that ended before the one
// that is followed.
type rigV1 struct {
	*rig
	v1      *locallog.V1
	server1 *rekor.V1
	filler  []byte
	// wrap is put around the trees of family; listed is how many trees it last named.
	wrap   func(monitor.ProofLog) monitor.ProofLog
	listed atomic.Int32
}

func newRigV1(t testing.TB) *rigV1 {
	t.Helper()
	r := &rigV1{rig: newRig(t)}
	var err error
	if r.v1, err = locallog.NewV1("rekor.acme.example", tree1); err != nil {
		t.Fatal(err)
	}
	for i := range 33 {
		r.v1.Append(fmt.Appendf(nil, "old %d", i))
	}
	r.v1.Rotate(tree2)
	ts := httptest.NewServer(r.v1)
	t.Cleanup(ts.Close)
	server, err := rekor.NewV1(rekor.Options{URL: ts.URL, FirstWait: time.Millisecond, RequestsPerSecond: 1e6, Tries: 2})
	if err != nil {
		t.Fatal(err)
	}
	r.server1 = server
	origin := fmt.Sprintf("rekor.acme.example - %d", tree2)
	opener, err := checkpoint.ForOrigin(origin, r.v1.PublicKeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	r.cfg.Log, r.cfg.Source, r.cfg.Proofs = opener, nil, server.Tree(fmt.Sprint(tree2))
	r.cfg.ID, r.cfg.Type, r.cfg.Parallel = "v1/"+origin, "rekor-v1", 8
	other, err := r.ca.Issue(testca.Identity{URI: "https://github.com/somebody/else", Issuer: github})
	if err != nil {
		t.Fatal(err)
	}
	if r.filler, err = other.HashedRekordV1([]byte("artifact")); err != nil {
		t.Fatal(err)
	}
	r.restart()
	return r
}

func (r *rigV1) entry(id testca.Identity, n int) []byte {
	r.t.Helper()
	s, err := r.ca.Issue(id)
	if err != nil {
		r.t.Fatal(err)
	}
	e, err := s.HashedRekordV1(fmt.Appendf(nil, "release %d", n))
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// grow appends entries of others; they differ by the white space that JSON may
// end with.
func (r *rigV1) grow(n int) {
	for i := range n {
		r.v1.Append(fmt.Appendf(r.filler[:len(r.filler):len(r.filler)], "%*s", i%500, ""))
	}
}

func TestRekorV1FindsOurs(t *testing.T) {
	r := newRigV1(t)
	r.grow(100)
	r.v1.Append(r.entry(expectedEvent(), 1))
	r.grow(2500)
	r.v1.Append(r.entry(unexpectedEvent(), 2))
	r.grow(7)
	before := time.Now().Add(-time.Minute)
	out := r.mustPass()
	if !out.Begun || out.Scanned != 2609 || r.verdicts() != "100:expected 2601:unexpected" || r.coverage() != "[0,2609)" {
		t.Fatalf("%+v, findings %q, coverage %s", out, r.verdicts(), r.coverage())
	}
	f := r.findings()[0]
	if f.LogIndex == nil || *f.LogIndex != 133 || f.Integrated == nil || f.Integrated.Before(before) || f.APIVersion != "0.0.1" {
		t.Errorf("%+v", f)
	}
	// It grows, and its server is started anew under another name.
	r.v1.SetHost("rekor-7b9f-xkz2")
	r.grow(64)
	r.v1.Append(r.entry(unexpectedEvent(), 3))
	r.restart()
	if r.mustPass(); r.verdicts() != "100:expected 2601:unexpected 2673:unexpected" || r.coverage() != "[0,2674)" {
		t.Errorf("findings %q, coverage %s", r.verdicts(), r.coverage())
	}
	r.auditFindings()
	r.wantIncidents("")
	// Nothing new costs one request.
	n := r.v1.Requests()[200]
	if r.mustPass(); r.v1.Requests()[200] != n+1 {
		t.Errorf("%d requests for a log that has nothing new", r.v1.Requests()[200]-n)
	}
}

// TestRekorV1LoggedLate: a certificate of ours that was logged when its time was
// over is judged like any other, and the reason says so.
func TestRekorV1LoggedLate(t *testing.T) {
	r := newRigV1(t)
	late, lateAndExpected := unexpectedEvent(), expectedEvent()
	late.NotBefore, lateAndExpected.NotBefore = time.Now().Add(-20*time.Minute), time.Now().Add(-20*time.Minute)
	r.v1.Append(r.entry(late, 1))
	r.v1.Append(r.entry(lateAndExpected, 2))
	r.v1.Append(r.entry(unexpectedEvent(), 3))
	r.mustPass()
	if got := r.verdicts(); got != "0:unexpected 1:expected 2:unexpected" {
		t.Errorf("findings %s", got)
	}
	for _, f := range r.findings() {
		if strings.Contains(f.Reason, "when its certificate") != (f.Index < 2) {
			t.Errorf("entry %d: %s", f.Index, f.Reason)
		}
	}
}

func TestRekorV1Start(t *testing.T) {
	for _, size := range sample(1, 2, 3, 64, 65, 100, 128) {
		for _, start := range []string{"first", "latest", "1", fmt.Sprint(size / 2), fmt.Sprint(size - 1)} {
			r := newRigV1(t)
			r.grow(size)
			r.cfg.Start = start
			r.restart()
			out := r.mustPass()
			r.grow(30)
			r.v1.Append(r.entry(unexpectedEvent(), 1))
			r.mustPass()
			if got, want := r.coverage(), fmt.Sprintf("[%d,%d)", out.From, size+31); got != want || r.verdicts() != fmt.Sprintf("%d:unexpected", size+30) {
				t.Fatalf("size %d, start %s: coverage %s, want %s; findings %s", size, start, got, want, r.verdicts())
			}
			r.auditFindings()
		}
	}
}

func TestRekorV1ConsistencyOnly(t *testing.T) {
	r := newRigV1(t)
	r.cfg.ConsistencyOnly = true
	r.grow(70)
	r.restart()
	r.mustPass()
	for range 3 {
		r.grow(45)
		r.mustPass()
	}
	if s := r.state(); s.HeadSize != 205 || s.Scanned != 205 || r.coverage() != "" {
		t.Errorf("%d of %d, coverage %s", s.Scanned, s.HeadSize, r.coverage())
	}
	r.v1.Rewrite(100, make([][]byte, 150)...)
	if out := r.once(); out.Halted == "" {
		t.Errorf("%+v", out)
	}
	verifyFork(t, r.rig)
}

// TestRekorV1Forks: another history of larger, equal or smaller size, with or
// without the help of its server, from sizes of every form.
func TestRekorV1Forks(t *testing.T) {
	for _, head := range []int{64, 100} {
		for _, size := range []int{150, head, 80, 60} {
			for _, proofs := range []bool{true, false} {
				r := newRigV1(t)
				r.grow(head)
				r.mustPass()
				rewritten := make([][]byte, size-40)
				for i := range rewritten {
					rewritten[i] = fmt.Appendf(nil, "rewritten %d", i)
				}
				r.v1.Rewrite(40, rewritten...)
				r.v1.Set(locallog.FaultsV1{NoProofs: !proofs})
				out := r.once()
				// A smaller fork can only be shown by somebody who knows the larger tree,
				// which this server does not any more.
				if size < head {
					if r.incidents() != "" || out.Halted != "" {
						t.Errorf("head %d, size %d: incidents %q", head, size, r.incidents())
					}
					continue
				}
				if out.Halted == "" && (proofs || size == head) {
					t.Errorf("head %d, size %d, proofs %v: %+v, incidents %q", head, size, proofs, out, r.incidents())
					continue
				}
				if out.Halted != "" {
					verifyFork(t, r.rig)
				}
			}
		}
	}
}

// TestRekorV1Lag: replicas that lag are no alarm.
func TestRekorV1Lag(t *testing.T) {
	r := newRigV1(t)
	r.grow(100)
	r.mustPass()
	for _, size := range []uint64{99, 64, 1, 0, 100} {
		r.v1.Set(locallog.FaultsV1{Size: &size})
		r.mustPass()
	}
	r.v1.Set(locallog.FaultsV1{})
	r.grow(10)
	r.mustPass()
	r.wantIncidents("")
	if r.coverage() != "[0,110)" {
		t.Error(r.coverage())
	}
}

// TestRekorV1UselessProofs: an entry that is the right one is read, and accuses nobody, whatever the
// proof is worth that comes with it, beside one that is left out.
func TestRekorV1UselessProofs(t *testing.T) {
	head := uint64(600)
	withheld, useless := map[uint64]bool{521: true}, map[uint64]bool{520: true, 523: true}
	for what, f := range map[string]locallog.FaultsV1{
		"a replica that lags": {Size: &head, Omit: withheld},
		"paths to nowhere":    {Omit: withheld, NoPath: useless},
		"both":                {Size: &head, Omit: withheld, NoPath: useless},
	} {
		r := newRigV1(t)
		r.grow(523)
		r.v1.Append(r.entry(unexpectedEvent(), 1))
		r.grow(100)
		r.v1.Set(f)
		r.once()
		r.wantIncidents("")
		if what == "a replica that lags" && r.coverage() != "[0,600)-[521,522)entry-withheld" {
			t.Errorf("%s: coverage %s", what, r.coverage())
		}
		// The path that others check is made of what has proven the entry.
		r.auditFindings()
		if r.verdicts() != "523:unexpected" || strings.Contains(r.coverage(), "mismatch") {
			t.Errorf("%s: findings %q, coverage %s", what, r.verdicts(), r.coverage())
		}
		// It comes back while its proof is no good.
		again := f
		again.Omit, again.NoPath = nil, map[uint64]bool{521: true}
		r.v1.Set(again)
		r.clock.move(time.Minute)
		r.once()
		if strings.Contains(r.coverage(), "-") || strings.Contains(r.incidents(), "mismatch") {
			t.Errorf("%s: healed, coverage %s, incidents %q", what, r.coverage(), r.incidents())
		}
	}
}

// TestRekorV1WrongEntries: one body altered, one entry left out; all others are
// found, and the gaps are filled when the true entries are served.
func TestRekorV1WrongEntries(t *testing.T) {
	r := newRigV1(t)
	r.grow(500)
	r.v1.Append(r.entry(unexpectedEvent(), 1)) // 500
	r.grow(20)
	r.v1.Append(r.entry(unexpectedEvent(), 2)) // 521
	r.grow(100)
	r.v1.Append(r.entry(unexpectedEvent(), 3)) // 622
	r.v1.Append(r.entry(expectedEvent(), 4))   // 623
	r.v1.Set(locallog.FaultsV1{Omit: map[uint64]bool{521: true, 522: true}, Alter: map[uint64][]byte{500: r.entry(unexpectedEvent(), 5)}})
	for range 3 {
		r.once()
		r.clock.move(time.Minute)
	}
	r.wantIncidents("entry-mismatch:integrity:open entry-withheld:operational:open")
	if r.verdicts() != "622:unexpected 623:expected" || r.coverage() != "[0,624)-[500,501)entry-mismatch-[521,523)entry-withheld" {
		t.Errorf("findings %q, coverage %s", r.verdicts(), r.coverage())
	}
	r.v1.Set(locallog.FaultsV1{})
	r.mustPass()
	r.wantIncidents("entry-mismatch:integrity:resolved entry-withheld:operational:resolved")
	if r.verdicts() != "500:unexpected 521:unexpected 622:unexpected 623:expected" || r.coverage() != "[0,624)" {
		t.Errorf("healed: findings %q, coverage %s", r.verdicts(), r.coverage())
	}
	r.auditFindings()
}

// TestRekorV1BrokenPromise: bytes that the log has signed a promise for and does
// not hold are told from those that somebody else altered; also in a tree with
// another one before it, whose size counts in promises.
func TestRekorV1BrokenPromise(t *testing.T) {
	for _, promise := range []bool{false, true} {
		r := newRigV1(t)
		r.grow(40)
		r.v1.Set(locallog.FaultsV1{Alter: map[uint64][]byte{17: []byte("altered")}, Promise: promise})
		r.once()
		r.wantIncidents("entry-mismatch:integrity:open")
		list, err := r.store.Incidents(context.Background(), store.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		inc, err := r.store.Incident(context.Background(), list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		doc, ok := inc.Transferable()
		if ok != promise {
			t.Errorf("promise signed %v, evidence of a broken one %v", promise, ok)
		}
		if !ok {
			continue
		}
		// Anybody who has the key is convinced.
		b, err := checkpoint.ParseBrokenPromise(doc)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Verify(r.cfg.Log); err != nil || string(b.Promised.Leaf) != "altered" || b.Index != 17 || len(b.Before) != 1 || b.Promised.LogIndex != 33+17 {
			t.Errorf("%v: %s", err, doc)
		}
	}
}

// TestRekorV1NoAnswer: what a server does not answer for, over several polls,
// blinds nobody to what comes after it.
func TestRekorV1NoAnswer(t *testing.T) {
	r := newRigV1(t)
	r.grow(30)
	r.v1.Append(r.entry(unexpectedEvent(), 1)) // 30
	r.grow(30)
	r.v1.Append(r.entry(unexpectedEvent(), 2)) // 61
	r.v1.Set(locallog.FaultsV1{NoPath: map[uint64]bool{30: true}, NoAnswer: map[uint64]bool{45: true}})
	for range 2 {
		if out := r.once(); out.Err == nil || r.verdicts() != "30:unexpected" {
			t.Fatalf("%+v, findings %q", out, r.verdicts())
		}
		r.clock.move(time.Minute)
	}
	for range 4 {
		r.once()
		r.clock.move(time.Minute)
	}
	if r.verdicts() != "30:unexpected 61:unexpected" || r.coverage() != "[0,62)-[40,50)entry-withheld" {
		t.Errorf("findings %q, coverage %s, incidents %q", r.verdicts(), r.coverage(), r.incidents())
	}
	r.wantIncidents("entry-withheld:operational:open")
	r.v1.Set(locallog.FaultsV1{})
	r.mustPass()
	if r.coverage() != "[0,62)" {
		t.Error(r.coverage())
	}
	r.auditFindings()
}

// TestRekorV1Scan reads history beside the state of the log.
func TestRekorV1Scan(t *testing.T) {
	r := newRigV1(t)
	r.grow(50)
	r.v1.Append(r.entry(unexpectedEvent(), 1))
	r.grow(50)
	r.cfg.Start = "latest"
	r.restart()
	r.mustPass()
	out := r.engine.Scan(context.Background(), r.store, monitor.ScanOptions{Log: "acme", From: 20, To: 90})
	if out.Err != nil || r.verdicts() != "50:unexpected" || r.coverage() != "[20,90)" {
		t.Errorf("%+v, findings %q, coverage %s", out, r.verdicts(), r.coverage())
	}
	r.auditFindings()
}

// TestScanMeetsKnownAndNewGaps: a scan of a range in which an entry is known to
// be missing notices that another one is missing too.
func TestScanMeetsKnownAndNewGaps(t *testing.T) {
	r := newRigV1(t)
	r.grow(19)
	r.v1.Append(r.entry(unexpectedEvent(), 1)) // 19
	r.grow(20)
	r.v1.Set(locallog.FaultsV1{Omit: map[uint64]bool{17: true, 19: true}})
	r.once()
	if got := r.coverage(); got != "[0,40)-[17,18)entry-withheld-[19,20)entry-withheld" {
		t.Fatal(got)
	}
	r.v1.Set(locallog.FaultsV1{Omit: map[uint64]bool{17: true}})
	r.once()
	// Whoever starts to watch now has read nothing of it yet.
	list, err := watchlist.Compile(append(r.opts.Watches.Watches(), watchlist.Watch{Name: "beta", Match: []watchlist.Item{{Subject: []string{"*@beta.example"}}}}))
	if err != nil {
		t.Fatal(err)
	}
	r.opts.Watches = list
	r.opts.WatchConfigs = append(r.opts.WatchConfigs, monitor.WatchConfig{Severity: "high"})
	r.restart()
	r.v1.Set(locallog.FaultsV1{Omit: map[uint64]bool{17: true, 19: true, 23: true}})
	if out := r.engine.Scan(context.Background(), r.store, monitor.ScanOptions{Log: "acme", To: 40}); out.Err != nil || !out.Missing {
		t.Fatalf("%+v", out)
	}
	if got := r.coverage(); got != "[0,40)-[17,18)entry-withheld-[19,20)entry-withheld-[23,24)entry-withheld" {
		t.Error(got)
	}
	r.v1.Set(locallog.FaultsV1{})
	r.mustPass()
	if got := r.coverage(); got != "[0,40)" {
		t.Error(got)
	}
}

// TestWithheldThenAltered: wrong bytes for an entry that was left out before are
// told of as such, and stay so when it is left out again.
func TestWithheldThenAltered(t *testing.T) {
	r := newRigV1(t)
	r.grow(40)
	for _, step := range []struct {
		faults   locallog.FaultsV1
		coverage string
	}{
		{locallog.FaultsV1{Omit: map[uint64]bool{17: true}}, "[0,40)-[17,18)entry-withheld"},
		{locallog.FaultsV1{Alter: map[uint64][]byte{17: []byte("altered")}}, "[0,40)-[17,18)entry-mismatch"},
		{locallog.FaultsV1{Omit: map[uint64]bool{17: true}}, "[0,40)-[17,18)entry-mismatch"},
	} {
		r.v1.Set(step.faults)
		r.once()
		if got := r.coverage(); got != step.coverage {
			t.Errorf("%s, want %s", got, step.coverage)
		}
	}
	r.wantIncidents("entry-mismatch:integrity:open")
	r.v1.Set(locallog.FaultsV1{})
	r.mustPass()
	r.wantIncidents("entry-mismatch:integrity:resolved")
}

// TestWithheldAroundPowerOfTwo: what is left out beside a size whose consistency
// proof proves no frontier is a gap like any other.
func TestWithheldAroundPowerOfTwo(t *testing.T) {
	for _, omit := range []uint64{1022, 1023} {
		r := newRigV1(t)
		r.grow(1100)
		r.v1.Append(r.entry(unexpectedEvent(), 2))
		r.v1.Set(locallog.FaultsV1{Omit: map[uint64]bool{omit: true, omit + 1: true}})
		r.once()
		if got, want := r.coverage(), fmt.Sprintf("[0,1101)-[%d,%d)entry-withheld", omit, omit+2); got != want || r.verdicts() != "1100:unexpected" {
			t.Errorf("coverage %s, want %s; findings %q", got, want, r.verdicts())
		}
	}
}
