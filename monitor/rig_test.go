package monitor_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

const (
	github = "https://token.actions.githubusercontent.com"
	ours   = "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1"
)

// clock is a clock that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// rig is a real log over real HTTP, a real store, and an engine.
type rig struct {
	t      testing.TB
	ca     *testca.CA
	log    *locallog.Log
	server *locallog.Server
	url    string
	path   string
	store  *store.Store
	clock  *clock
	engine *monitor.Engine
	cfg    monitor.LogConfig
	opts   monitor.Options
	filler []byte
}

func newRig(t testing.TB) *rig {
	t.Helper()
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, err := locallog.New("rekor.acme.example")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ca: ca, log: l, server: locallog.NewServer(l), clock: &clock{at: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)}, path: filepath.Join(t.TempDir(), "state.db")}
	ts := httptest.NewServer(r.server)
	t.Cleanup(ts.Close)
	r.url = ts.URL
	r.openStore()
	key, err := checkpoint.ParseKey(l.Origin(), l.PublicKeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	opener, err := checkpoint.NewLog(l.Origin(), key)
	if err != nil {
		t.Fatal(err)
	}
	r.cfg = monitor.LogConfig{Name: "acme", ID: l.Origin(), Type: "rekor-v2", Log: opener, Source: r.source(), Authorities: trust(t, ca), Start: "first"}
	watches := []watchlist.Watch{{Name: "releases",
		Match: []watchlist.Item{{Subject: []string{"https://github.com/acme/*"}}, {Subject: []string{"*@acme.example"}}},
		Expect: []watchlist.Item{{Subject: []string{"https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v*"}, Issuer: []string{github},
			Extensions: map[string][]string{"runner-environment": {"github-hosted"}}}},
	}}
	list, err := watchlist.Compile(watches)
	if err != nil {
		t.Fatal(err)
	}
	r.opts = monitor.Options{Watches: list, WatchConfigs: []monitor.WatchConfig{{Severity: "critical", Channels: []string{"chat", "mail"}}},
		IncidentChannels: []string{"chat"}, HealthChannels: []string{"mail"}, Now: r.clock.now}
	r.restart()
	return r
}

func (r *rig) source() *rekor.V2 {
	v, err := rekor.NewV2(rekor.Options{URL: r.url, FirstWait: time.Millisecond, RequestsPerSecond: 1e6, Tries: 2})
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func (r *rig) openStore() {
	r.t.Helper()
	s, err := store.Open(context.Background(), r.path, store.Options{Create: true})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { s.Close() })
	r.store = s
}

// restart makes a new engine on the same store, as a new process would.
func (r *rig) restart() {
	r.t.Helper()
	opts := r.opts
	if opts.Store == nil {
		opts.Store = r.store
	}
	opts.Logs = []monitor.LogConfig{r.cfg}
	e, err := monitor.New(opts)
	if err != nil {
		r.t.Fatal(err)
	}
	r.engine = e
}

func trust(t testing.TB, ca *testca.CA) *entry.Authorities {
	t.Helper()
	a, err := entry.NewAuthorities(entry.Authority{Chain: ca.Chain()})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// fill appends entries that are nobody's.
func (r *rig) fill(l *locallog.Log, n int) {
	r.t.Helper()
	if r.filler == nil {
		s, err := r.ca.Issue(testca.Identity{URI: "https://github.com/somebody/else@refs/heads/main", Issuer: github})
		if err != nil {
			r.t.Fatal(err)
		}
		if r.filler, err = s.HashedRekord([]byte("filler")); err != nil {
			r.t.Fatal(err)
		}
	}
	entries := make([][]byte, n)
	for i := range entries {
		// The last characters of the digest make entries differ.
		e := strings.Replace(string(r.filler), `"digest":"`, fmt.Sprintf(`"digest":"%08d`, l.Size()+uint64(i)), 1)
		entries[i] = []byte(strings.Replace(e, `"digest":"`+e[strings.Index(e, `"digest":"`)+10:][:16], `"digest":"`+e[strings.Index(e, `"digest":"`)+10:][:8], 1))
	}
	if _, err := l.Append(entries...); err != nil {
		r.t.Fatal(err)
	}
}

// sign appends one signing event of ours.
func (r *rig) sign(l *locallog.Log, id testca.Identity) uint64 {
	r.t.Helper()
	s, err := r.ca.Issue(id)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.append(l, s)
}

func (r *rig) append(l *locallog.Log, s testca.Signer) uint64 {
	r.t.Helper()
	e, err := s.HashedRekord(fmt.Appendf(nil, "artifact %d", l.Size()))
	if err != nil {
		r.t.Fatal(err)
	}
	index, err := l.Append(e)
	if err != nil {
		r.t.Fatal(err)
	}
	return index
}

func expectedEvent() testca.Identity {
	return testca.Identity{URI: ours, Issuer: github, Extensions: map[int]string{11: "github-hosted"}}
}

func unexpectedEvent() testca.Identity {
	return testca.Identity{URI: ours, Issuer: github, Extensions: map[int]string{11: "self-hosted"}}
}

func (r *rig) once() monitor.Outcome {
	r.t.Helper()
	out := r.engine.Once(context.Background(), 20*time.Second)
	return out[0]
}

// mustPass makes a pass that has to come through.
func (r *rig) mustPass() monitor.Outcome {
	r.t.Helper()
	out := r.once()
	if out.Err != nil {
		r.t.Fatal(out.Err)
	}
	return out
}

func (r *rig) findings() []monitor.Finding {
	r.t.Helper()
	f, err := r.store.Findings(context.Background(), store.Filter{})
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

// verdicts prints findings as index:verdict, in the order of the log.
func (r *rig) verdicts() string {
	r.t.Helper()
	list := r.findings()
	slices.SortFunc(list, func(a, b monitor.Finding) int { return int(a.Index) - int(b.Index) })
	var out []string
	for _, f := range list {
		out = append(out, fmt.Sprintf("%d:%s", f.Index, f.Verdict))
	}
	return strings.Join(out, " ")
}

// incidents prints incidents as kind:class:state, oldest first.
func (r *rig) incidents() string {
	r.t.Helper()
	list, err := r.store.Incidents(context.Background(), store.Filter{})
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, i := range list {
		out = append(out, i.Kind+":"+i.Class+":"+i.State)
	}
	return strings.Join(out, " ")
}

func (r *rig) wantIncidents(want string) {
	r.t.Helper()
	if got := r.incidents(); got != want {
		r.t.Fatalf("incidents %q, want %q", got, want)
	}
}

func (r *rig) state() monitor.State {
	r.t.Helper()
	s, err := r.store.State(context.Background(), r.cfg.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// coverage prints what every watch has covered, and the gaps inside of it.
func (r *rig) coverage() string {
	r.t.Helper()
	status, err := r.engine.Status(context.Background(), r.store, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	out := ""
	for _, c := range status.Logs[0].Coverage {
		out += fmt.Sprintf("[%d,%d)", c.From, c.To)
	}
	for _, g := range status.Logs[0].Gaps {
		out += fmt.Sprintf("-[%d,%d)%s", g.From, g.To, g.Reason)
	}
	return out
}

// audit checks that the state holds together, and that every finding is proven
// by what was stored with it.
func (r *rig) audit() {
	r.t.Helper()
	s := r.state()
	head, err := r.cfg.Log.Open([]byte(s.Head))
	if err != nil {
		r.t.Fatal(err)
	}
	root, err := r.log.Root(s.HeadSize)
	if err != nil || root != head.Root() {
		r.t.Fatalf("verified head of size %d is not the log's: %v", s.HeadSize, err)
	}
	var peaks []checkpoint.Hash
	for _, p := range s.Peaks {
		peaks = append(peaks, checkpoint.Hash(p))
	}
	f, err := checkpoint.NewFrontier(s.Scanned, peaks)
	if err != nil {
		r.t.Fatal(err)
	}
	if root, err := r.log.Root(s.Scanned); err != nil || root != f.Root() {
		r.t.Fatalf("frontier of %d is not the log's: %v", s.Scanned, err)
	}
	r.auditFindings()
}

func (r *rig) auditFindings() {
	r.t.Helper()
	for _, short := range r.findings() {
		f, err := r.store.Finding(context.Background(), short.ID)
		if err != nil {
			r.t.Fatal(err)
		}
		c, err := r.cfg.Log.Open([]byte(f.SignedNote))
		if err != nil {
			r.t.Fatal(err)
		}
		if checkpoint.HexHash(checkpoint.LeafHash(f.Leaf)) != f.LeafHash {
			r.t.Fatalf("finding %s: leaf and leaf hash differ", f.ID)
		}
		if err := c.VerifyInclusion(f.Index, checkpoint.Hash(f.LeafHash), f.Proof); err != nil {
			r.t.Fatalf("finding %s at %d: %v", f.ID, f.Index, err)
		}
	}
}

// sample returns all cases, and with -short, as the race detector runs, every third: they differ in what
// is computed, not in what runs beside what.
func sample[T any](cases ...T) (some []T) {
	for i, c := range cases {
		if !testing.Short() || i%3 == 0 {
			some = append(some, c)
		}
	}
	return some
}
