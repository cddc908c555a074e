package monitor_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// under gives the rig's watch terms: its only expect item fits whatever expectedEvent
// makes.
func (r *rig) under(terms policy.Terms) {
	r.opts.WatchConfigs[0].Terms = []*policy.Terms{&terms}
	r.restart()
}

// listsOf is a list that tests write.
type listsOf struct {
	mu sync.Mutex
	m  map[string]bool // list + digest
}

func (l *listsOf) Listed(list string, digests []string) (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range digests {
		if l.m[list+d] {
			return d, true
		}
	}
	return "", false
}

func (l *listsOf) add(list, digest string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m == nil {
		l.m = map[string]bool{}
	}
	l.m[list+digest] = true
}

func digestOf(artifact string) string {
	sum := sha256.Sum256([]byte(artifact))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// release is an entry of ours about an artifact, for a tag, at a time.
func release(t testing.TB, ca *testca.CA, artifact, tag string, at time.Time, environment string) []byte {
	t.Helper()
	s, err := ca.Issue(testca.Identity{URI: ours, Issuer: github, NotBefore: at, Extensions: map[int]string{11: environment, 14: tag}})
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.HashedRekord([]byte(artifact))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestVerdictsDoNotDependOnHowTheyAreRead: neither the size of batches nor
// restarts, and for rules without state not the order of polling either, change
// what an entry is judged to be.
func TestVerdictsDoNotDependOnHowTheyAreRead(t *testing.T) {
	base := newRig(t)
	begin := time.Now().Truncate(time.Second)
	noon := func(h int) string {
		return fmt.Sprintf("%02d:%02d-%02d:%02d UTC", (begin.UTC().Hour()+h)%24, begin.UTC().Minute(), (begin.UTC().Hour()+h+1)%24, begin.UTC().Minute())
	}
	between := func(text string) []policy.Hours {
		h, err := policy.ParseHours(text)
		if err != nil {
			t.Fatal(err)
		}
		return []policy.Hours{h}
	}
	for name, tc := range map[string]struct {
		terms policy.Terms
		most  int // expected verdicts at most
	}{
		"stateless": {policy.Terms{Between: between(noon(0)), Valid: policy.Span{Until: begin.Add(50 * time.Minute)}}, 1 << 30},
		"at_most":   {policy.Terms{AtMost: &policy.Rate{Count: 3, Per: 10 * time.Minute}}, 3 * 13},
		"once_per":  {policy.Terms{OncePer: "source-repository-ref"}, 8},
		"both":      {policy.Terms{OncePer: policy.ByDigest, AtMost: &policy.Rate{Count: 2, Per: 7 * time.Minute}}, 20},
	} {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			rng := rand.New(rand.NewPCG(seed, 1))
			t.Logf("seed %d", seed)
			var entries [][]byte
			at := begin
			for range 60 {
				at = at.Add(time.Duration(rng.IntN(150)-20) * time.Second) // certificates may be used a little later than others
				environment := "github-hosted"
				if rng.IntN(5) == 0 {
					environment = "self-hosted"
				}
				entries = append(entries, release(t, base.ca, fmt.Sprint("artifact ", rng.IntN(20)), fmt.Sprint("refs/tags/v", rng.IntN(8)), at, environment))
			}
			want := ""
			for _, trial := range sample(0, 1, 2, 3, 4) {
				r := newRig(t)
				r.cfg.Authorities = trust(t, base.ca)
				r.opts.CommitEvery = []int{0, 1, 7, 3, 16}[trial]
				r.under(tc.terms)
				for from := 0; from < len(entries); {
					n := len(entries) - from
					if trial > 0 {
						n = min(n, 1+rng.IntN(20))
					}
					if _, err := r.log.Append(entries[from : from+n]...); err != nil {
						t.Fatal(err)
					}
					from += n
					r.mustPass()
					if trial > 1 {
						r.restart()
					}
				}
				got := r.verdicts()
				if trial == 0 {
					want = got
					if n := strings.Count(got, ":expected"); n == 0 || n > tc.most || !strings.Contains(got, ":unexpected") {
						t.Fatalf("%d expected: %s", n, got)
					}
				}
				if got != want {
					t.Errorf("trial %d:\n%s, first it was\n%s", trial, got, want)
				}
				r.audit()
			}
			if name != "stateless" {
				return
			}
			// In any order: each entry alone, the last one first.
			r := newRig(t)
			r.cfg.Authorities, r.cfg.Start = trust(t, base.ca), "latest"
			if _, err := r.log.Append(entries...); err != nil {
				t.Fatal(err)
			}
			r.under(tc.terms)
			r.mustPass()
			for i := len(entries); i > 0; i-- {
				if out := r.engine.Scan(context.Background(), r.store, monitor.ScanOptions{Log: "acme", From: uint64(i - 1), To: uint64(i)}); out.Err != nil {
					t.Fatal(out.Err)
				}
			}
			if got := r.verdicts(); got != want {
				t.Errorf("from the last to the first:\n%s, in order it was\n%s", got, want)
			}
		})
	}
}

// TestLimitsAfterFaults: an event that was counted in a transaction that failed, or
// failed but was persisted, is counted once.
func TestLimitsAfterFaults(t *testing.T) {
	for _, persisted := range []bool{false, true} {
		for at := 1; at <= 4; at++ {
			r := newRig(t)
			faulty := &faultyStore{Store: r.store, nth: at, persisted: persisted}
			r.opts.Store, r.opts.CommitEvery = faulty, 1
			r.under(policy.Terms{AtMost: &policy.Rate{Count: 2, Per: time.Hour}, OncePer: policy.ByDigest})
			now := time.Now()
			for _, artifact := range []string{"a", "a", "b", "c"} {
				if _, err := r.log.Append(release(t, r.ca, artifact, "v1", now, "github-hosted")); err != nil {
					t.Fatal(err)
				}
			}
			for range 6 {
				r.once()
				r.restart()
			}
			if got, want := r.verdicts(), "0:expected 1:unexpected 2:expected 3:unexpected"; got != want {
				t.Errorf("commit %d fails, persisted %v: %s, want %s", at, persisted, got, want)
			}
		}
	}
}

// TestWaitingForAList: an entry that comes before its list waits, and is expected
// once it is listed or announced, else unexpected when its grace is over; told
// once, and only then.
func TestWaitingForAList(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	lists := &listsOf{}
	r.opts.Lists = lists
	r.under(policy.Terms{Digests: &policy.Listing{List: "SHA256SUMS", Grace: 30 * time.Minute}})
	now := time.Now()
	lists.add("SHA256SUMS", digestOf("known"))
	for _, artifact := range []string{"known", "late", "announced", "stolen"} {
		if _, err := r.log.Append(release(t, r.ca, artifact, "v1", now, "github-hosted")); err != nil {
			t.Fatal(err)
		}
	}
	if out := r.mustPass(); out.Notifying != 0 || out.Findings != 4 {
		t.Fatalf("%+v", out)
	}
	states := func() string {
		list := r.findings()
		slices.SortFunc(list, func(a, b monitor.Finding) int { return int(a.Index) - int(b.Index) })
		var out []string
		for _, f := range list {
			out = append(out, string(f.Verdict)+":"+f.State)
		}
		return strings.Join(out, " ")
	}
	if got, want := states(), "expected:closed expected:pending expected:pending expected:pending"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	decide := func(notifying int) {
		t.Helper()
		r.restart() // what waits outlives the process
		if n, err := r.engine.Decide(ctx); err != nil || n != notifying {
			t.Fatalf("%d told, %v", n, err)
		}
	}
	decide(0)
	r.clock.move(29 * time.Minute)
	lists.add("SHA256SUMS", digestOf("late"))
	a, err := monitor.Announce("releases", digestOf("announced"), time.Hour, "release-job", "v1.2", now.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.Announce(ctx, a); err != nil {
		t.Fatal(err)
	}
	// Whoever announces knows no lists: that ends no waiting, however late it is.
	w := monitor.Waiting{Store: r.store, Now: now.Add(9 * time.Hour), Hears: func(string) []string { return []string{"chat"} }}
	if done, err := w.Announced(ctx, a); err != nil || len(done) != 1 || done[0].Index != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	decide(0)
	if got, want := states(), "expected:closed expected:closed expected:closed expected:pending"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	r.clock.move(2 * time.Minute)
	decide(1)
	decide(0)
	if got, want := states(), "expected:closed expected:closed expected:closed unexpected:open"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	for _, f := range r.findings() {
		want := map[uint64]string{1: "is on the list SHA256SUMS", 2: "announced by release-job", 3: "for 31m0s the artifact has not come on the list SHA256SUMS"}[f.Index]
		if !strings.Contains(f.Reason, want) || f.EventTimeSource != policy.FromCertificate || f.PendingUntil != nil {
			t.Errorf("%+v", f)
		}
	}
	if n, err := r.store.Unroll(ctx, "chat", time.Now(), 10); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	r.wantDeliveries("chat", notify.FindingUnexpected)
	// The trail says who decided, and when.
	var decided []string
	if err := r.store.EachAudit(ctx, 1, "", func(row monitor.AuditRow) error {
		decided = append(decided, row.Actor+" "+row.Action)
		return nil
	}); err != nil || strings.Join(decided, ", ") != "release-job expect, sigwarden decide, sigwarden decide, sigwarden decide" {
		t.Errorf("%q, %v", decided, err)
	}
	// An artifact that was announced before is expected at once, whoever signs it.
	if _, err := r.log.Append(release(t, r.ca, "announced", "v1", now.Add(2*time.Minute), "self-hosted"), release(t, r.ca, "announced", "v1", now.Add(2*time.Hour), "self-hosted")); err != nil {
		t.Fatal(err)
	}
	r.mustPass()
	if got, want := states(), "expected:closed expected:closed expected:closed unexpected:open expected:closed unexpected:open"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	r.audit()
}

// TestEscalation: a critical finding that nobody acknowledges in time is told once
// more, to others, once.
func TestEscalation(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	r.opts.Escalation = monitor.Escalation{After: time.Hour, To: []string{"pager"}}
	r.restart()
	for range 3 {
		r.sign(r.log, unexpectedEvent())
	}
	r.mustPass()
	list := r.findings()
	if err := r.store.Triage(ctx, list[1].ID, monitor.Change{To: monitor.StateAcknowledged, By: "alice", Note: "seen", At: r.clock.now()}, nil); err != nil {
		t.Fatal(err)
	}
	pending := func(want int) {
		t.Helper()
		if _, err := r.engine.Decide(ctx); err != nil {
			t.Fatal(err)
		}
		status, err := r.store.Channels(ctx, []string{"pager"})
		if err != nil || status[0].Pending != want {
			t.Fatalf("%d wait for the pager, want %d (%v)", status[0].Pending, want, err)
		}
	}
	pending(0)
	r.clock.at = time.Now().Add(61 * time.Minute)
	pending(2)
	r.clock.move(5 * time.Hour)
	pending(2)
	if n, err := r.store.Unroll(ctx, "pager", time.Now().Add(24*time.Hour), 10); err != nil || n != 2 {
		t.Fatalf("%d, %v", n, err)
	}
	due, _, err := r.store.Due(ctx, "pager", time.Now().Add(24*time.Hour), 10, nil)
	if err != nil || len(due) != 2 {
		t.Fatal(due, err)
	}
	for _, q := range due {
		if q.Event.Type != notify.FindingEscalated || q.Event.Subject == list[1].ID || !strings.Contains(q.Event.Summary, "nobody has acknowledged") {
			t.Errorf("%+v", q.Event)
		}
	}
}

// TestSilence: an incident while no expected event comes, over when one does.
func TestSilence(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	r.opts.WatchConfigs[0].Silence = 36 * time.Hour
	r.clock.at = time.Now()
	r.restart()
	decide := func(after time.Duration, want string) {
		t.Helper()
		r.clock.move(after)
		r.restart()
		if _, err := r.engine.Decide(ctx); err != nil {
			t.Fatal(err)
		}
		r.wantIncidents(want)
	}
	expected := func() {
		t.Helper()
		e := expectedEvent()
		e.NotBefore = r.clock.now()
		r.sign(r.log, e)
		r.mustPass()
	}
	decide(0, "")
	expected()
	decide(35*time.Hour, "")
	unexpected := unexpectedEvent() // says nothing of whether all is as it should be
	unexpected.NotBefore = r.clock.now()
	r.sign(r.log, unexpected)
	r.mustPass()
	decide(2*time.Hour, "silence:operational:open")
	decide(100*time.Hour, "silence:operational:open")
	expected()
	decide(0, "silence:operational:resolved")
	decide(37*time.Hour, "silence:operational:resolved silence:operational:open")
	r.opts.WatchConfigs[0].Silence = 0
	decide(0, "silence:operational:resolved silence:operational:resolved")
}

// TestTimeOfEvents: the finding says when it happened, and how that is known.
func TestTimeOfEvents(t *testing.T) {
	r := newRig(t)
	begin := time.Now().Add(-3 * time.Hour).UTC().Truncate(time.Second)
	if _, err := r.log.Append(release(t, r.ca, "a", "v1", begin, "github-hosted")); err != nil {
		t.Fatal(err)
	}
	stranger, err := testca.New("nobody", begin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.log.Append(release(t, stranger, "a", "v1", begin, "github-hosted")); err != nil {
		t.Fatal(err)
	}
	r.mustPass()
	for _, f := range r.findings() {
		want, at := policy.FromCertificate, begin
		if f.Verdict == policy.Untrusted {
			want, at = policy.FirstSeen, f.SeenAt // what a stranger's certificate says proves nothing
		}
		if f.EventTimeSource != want || !f.EventTime.Equal(at) {
			t.Errorf("entry %d: %s by %s, want %s by %s", f.Index, f.EventTime, f.EventTimeSource, at, want)
		}
	}
}

// TestTermsEnterTheHash: whoever changes what a rule asks for has not covered
// yesterday with it; whoever asks for nothing more has.
func TestTermsEnterTheHash(t *testing.T) {
	w := watchlist.Watch{Name: "w", Match: []watchlist.Item{{Subject: []string{"x"}}}, Expect: []watchlist.Item{{Subject: []string{"x"}, Issuer: []string{"y"}}}}
	hash := func(terms ...*policy.Terms) string { return monitor.RuleHash(w, monitor.WatchConfig{Terms: terms}) }
	if hash(nil) != w.Hash(nil) || hash() != hash(nil) || hash(&policy.Terms{}) != hash() {
		t.Error("no terms change the hash")
	}
	seen := map[string]bool{hash(): true}
	h1, _ := policy.ParseHours("09:00-10:00 UTC")
	h2, _ := policy.ParseHours("09:00-11:00 UTC")
	for _, terms := range []policy.Terms{
		{AtMost: &policy.Rate{Count: 1, Per: 1}}, {AtMost: &policy.Rate{Count: 2, Per: 1}}, {OncePer: policy.ByDigest}, {Between: []policy.Hours{h1}}, {Between: []policy.Hours{h2}},
		{Valid: policy.Span{From: time.Unix(1, 0)}}, {Valid: policy.Span{Until: time.Unix(1, 0)}}, {Digests: &policy.Listing{List: "a", Grace: 1}}, {Digests: &policy.Listing{List: "b", Grace: 1}},
	} {
		if h := hash(&terms); seen[h] {
			t.Errorf("%+v does not change the hash", terms)
		} else {
			seen[h] = true
		}
	}
}

// TestAuditTrail: whatever is edited or removed in the trail, or in what it speaks
// of, is noticed.
func TestAuditTrail(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	for range 3 {
		r.sign(r.log, unexpectedEvent())
	}
	r.mustPass()
	for i, f := range r.findings() {
		c := monitor.Change{To: monitor.StateResolved, Resolution: monitor.Resolutions()[i], By: "alice", Note: fmt.Sprint("note ", i), At: r.clock.now()}
		if err := r.store.Triage(ctx, f.ID, c, nil); err != nil {
			t.Fatal(err)
		}
	}
	head, err := r.store.VerifyAudit(ctx, monitor.AuditHead{})
	if err != nil || head.N != 3 {
		t.Fatalf("%+v, %v", head, err)
	}
	if _, err := r.store.VerifyAudit(ctx, head); err != nil {
		t.Errorf("its own head: %v", err)
	}
	if _, err := r.store.VerifyAudit(ctx, monitor.AuditHead{N: 4, Hash: head.Hash}); !errors.Is(err, store.ErrTampered) {
		t.Errorf("a head that lies further on: %v", err)
	}
	if _, err := r.store.VerifyAudit(ctx, monitor.AuditHead{N: 2, Hash: head.Hash}); !errors.Is(err, store.ErrTampered) {
		t.Errorf("another head: %v", err)
	}
}
