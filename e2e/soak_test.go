package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// faulty stands before a server, as a bad network and bad caches do.
type faulty struct {
	next http.Handler
	over atomic.Bool // everything works

	mu        sync.Mutex
	rng       *rand.Rand
	began     time.Time
	corrupted time.Time
	counts    map[string]int
}

// draw says what becomes of a request.
func (f *faulty) draw() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	what := ""
	switch n := f.rng.IntN(1000); {
	case f.over.Load():
	case time.Since(f.began)%(3*time.Minute) > 2*time.Minute+40*time.Second:
		what = "outage"
	case n < 40:
		what = "500"
	case n < 60:
		what = "429"
	case n < 80:
		what = "slow"
	case n < 90:
		what = "broken off"
	case n < 100 && time.Since(f.corrupted) > 15*time.Second:
		// More often, in poll after poll, it could not be told from a log that lies.
		f.corrupted, what = time.Now(), "corrupt"
	}
	f.counts[what]++
	return what
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	what := f.draw()
	switch what {
	case "":
		f.next.ServeHTTP(w, r)
		return
	case "slow":
		time.Sleep(3 * time.Second)
		f.next.ServeHTTP(w, r)
		return
	case "500":
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	case "429":
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests", http.StatusTooManyRequests)
		return
	case "outage":
		panic(http.ErrAbortHandler)
	}
	rec := httptest.NewRecorder()
	f.next.ServeHTTP(rec, r)
	body := rec.Body.Bytes()
	if len(body) == 0 {
		w.WriteHeader(rec.Code)
		return
	}
	if what == "broken off" {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(rec.Code)
		w.Write(body[:len(body)/2])
		panic(http.ErrAbortHandler)
	}
	body = bytes.Clone(body)
	f.mu.Lock()
	body[f.rng.IntN(len(body))] ^= 4
	f.mu.Unlock()
	w.WriteHeader(rec.Code)
	w.Write(body)
}

// sample is what a process takes at a moment.
type sample struct {
	at                         time.Duration
	memory, database           int64 // bytes
	goroutines, files, entries int
}

// TestSoak follows a real Rekor v2 server under load through a network that fails, and
// wants nothing to grow but what findings explain. SIGWARDEN_SOAK says for how long.
func TestSoak(t *testing.T) {
	length := 20 * time.Second
	if text := os.Getenv("SIGWARDEN_SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	l := newRekorLog(t, "rekor.acme.example")
	storage := filepath.Join(dir, "log")
	_, write := l.serve(t, storage)
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	network := &faulty{next: &tiles{dir: storage}, rng: rand.New(rand.NewPCG(1, 2)), began: time.Now(), counts: map[string]int{}}
	ts := httptest.NewServer(network)
	ts.Config.ErrorLog = nil
	defer ts.Close()
	port := freePort(t)
	config := filepath.Join(dir, "sigwarden.yaml")
	for name, text := range map[string]string{"log.pub": l.publicPEM, "ca.pem": ca.ChainPEM(), "sigwarden.yaml": fmt.Sprintf(`state: state.db
schedule: "@every 1s"
logs: [{name: acme, type: rekor-v2, url: %q, origin: rekor.acme.example, public_key: log.pub, ca: ca.pem, start: first}]
watchlist:
  - {name: releases, severity: critical, match: [{subject: "https://github.com/acme/*"}]}
notify:
  channels: [{name: lines, file: {path: alerts.jsonl}}]
http: {listen: "127.0.0.1:%d"}
`, ts.URL, port)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	daemon := start(t, program(t, "sigwarden", "sigwarden"), "run", "-c", config)
	until(t, "it serves", 20*time.Second, func() bool { return answers(fmt.Sprintf("http://127.0.0.1:%d/healthz", port)) })

	// About twenty entries a second, one in twenty of them ours.
	ours, other := issue(t, ca, testca.Identity{URI: "https://github.com/acme/widget@refs/heads/evil", Issuer: issuer}), issue(t, ca, testca.Identity{URI: "https://github.com/somebody/else@refs/heads/main", Issuer: issuer})
	var written, mine atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 24}}
	for range 24 { // each waits about a second for its place in the log
		load.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(200 * time.Millisecond):
				}
				signer := other
				if n%20 == 7 {
					signer = ours
				}
				if _, err := post(client, write, signer, fmt.Appendf(nil, "artifact %d", rand.Uint64())); err != nil {
					t.Errorf("the log does not take an entry: %v", err)
					return
				}
				written.Add(1)
				if n%20 == 7 {
					mine.Add(1)
				}
			}
		})
	}
	var samples []sample
	for began := time.Now(); time.Since(began) < length; time.Sleep(length / 60) {
		s := measure(t, daemon, port, filepath.Join(dir, "state.db"))
		s.at, s.entries = time.Since(began), int(written.Load())
		samples = append(samples, s)
	}
	close(stop)
	load.Wait()
	network.over.Store(true)
	findings := func() (list []struct{ Index uint64 }) {
		out, code := sigwarden(t, config, "findings", "list", "--json")
		if err := json.Unmarshal([]byte(out), &list); code != 0 || err != nil {
			t.Fatalf("status %d, %v: %.300s", code, err, out)
		}
		return list
	}
	until(t, "everything of ours is found", time.Minute, func() bool { return len(findings()) >= int(mine.Load()) })
	seen := map[uint64]bool{}
	for _, f := range findings() {
		seen[f.Index] = true
	}
	if len(seen) != int(mine.Load()) || len(findings()) != len(seen) {
		t.Errorf("%d findings at %d places, and %d entries were ours", len(findings()), len(seen), mine.Load())
	}
	until(t, "everything was told", time.Minute, func() bool {
		alerts, _ := os.ReadFile(filepath.Join(dir, "alerts.jsonl"))
		return bytes.Count(alerts, []byte(`"finding.unexpected"`)) >= len(seen)
	})
	if out, _ := sigwarden(t, config, "incidents", "list"); strings.Contains(out, "integrity") {
		t.Errorf("an honest log was accused:\n%s", out)
	}
	if code := daemon.stop(15 * time.Second); code != 0 {
		t.Errorf("status %d", code)
	}

	// The first fifth is for warming up.
	warm := samples[len(samples)/5:]
	early, late := median(warm[:len(warm)/3]), median(warm[len(warm)*2/3:])
	t.Logf("%s, %d entries, %d findings, faults %v", length, written.Load(), len(seen), network.counts)
	t.Logf("%12s %10s %10s", "", "early", "late")
	t.Logf("%12s %7.1f MB %7.1f MB", "memory", mb(early.memory), mb(late.memory))
	t.Logf("%12s %10d %10d", "goroutines", early.goroutines, late.goroutines)
	t.Logf("%12s %10d %10d", "files", early.files, late.files)
	t.Logf("%12s %7.2f MB %7.2f MB", "database", mb(early.database), mb(late.database))
	if late.memory > early.memory*5/4+16<<20 {
		t.Errorf("memory grows from %.1f MB to %.1f MB", mb(early.memory), mb(late.memory))
	}
	more := 12
	if length < 5*time.Minute {
		more = 60 // connections that happen to be open: a short run shows a leak for each request, and no other
	}
	if late.goroutines > early.goroutines+more || late.files > early.files+8 {
		t.Errorf("goroutines grow from %d to %d, open files from %d to %d", early.goroutines, late.goroutines, early.files, late.files)
	}
	// A finding takes its leaf, its proof, its notes and its alert: 16 kB at most; besides, tiles,
	// rows of the ledger and incidents.
	found := int64(late.entries-early.entries)/20 + 1
	if grown := late.database - early.database; grown > found*16<<10+2<<20 {
		t.Errorf("the database grows by %.2f MB while %d findings come", mb(grown), found)
	}
}

func mb(n int64) float64 { return float64(n) / (1 << 20) }

var resident = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// measure asks the system, and the program itself, what it takes.
func measure(t *testing.T, p *process, port int, state string) (s sample) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		t.Fatalf("%v\n%s", err, p.output)
	}
	if m := resident.FindSubmatch(status); m != nil {
		kb, _ := strconv.ParseInt(string(m[1]), 10, 64)
		s.memory = kb << 10
	}
	if open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Process.Pid)); err == nil {
		s.files = len(open)
	}
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(state + suffix); err == nil {
			s.database += info.Size()
		}
	}
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text.String()) {
		if n, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			s.goroutines, _ = strconv.Atoi(strings.TrimSpace(n))
		}
	}
	return s
}

// median takes the middle of each figure.
func median(list []sample) sample {
	mid := func(get func(sample) int64) int64 {
		var all []int64
		for _, s := range list {
			all = append(all, get(s))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return sample{
		memory: mid(func(s sample) int64 { return s.memory }), database: mid(func(s sample) int64 { return s.database }),
		goroutines: int(mid(func(s sample) int64 { return int64(s.goroutines) })), files: int(mid(func(s sample) int64 { return int64(s.files) })),
		entries: int(mid(func(s sample) int64 { return int64(s.entries) })),
	}
}
