package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

const (
	issuer  = "https://token.actions.githubusercontent.com"
	release = "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1"
)

// tiles serves a directory of tiles below /api/v2/, and can be turned to
// another one.
type tiles struct {
	mu    sync.Mutex
	dir   string
	polls []time.Time // requests for the checkpoint since it was turned
}

func (s *tiles) show(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dir, s.polls = dir, nil
}

// pollsUntil returns how many polls saw what is shown now, up to a time.
func (s *tiles) pollsUntil(at time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.polls {
		if !p.After(at) {
			n++
		}
	}
	return n
}

func (s *tiles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	dir := s.dir
	if strings.HasSuffix(r.URL.Path, "/checkpoint") {
		s.polls = append(s.polls, time.Now())
	}
	s.mu.Unlock()
	w.Header().Set("Cache-Control", "no-cache")
	http.StripPrefix("/api/v2", http.FileServer(http.Dir(dir))).ServeHTTP(w, r)
}

// event is one signing event to write.
type event struct {
	verdict string // "" for others
	signer  testca.Signer
}

// write logs events through the server's API, as clients do, and returns the
// index of each.
func write(t testing.TB, url string, events []event) []uint64 {
	t.Helper()
	indexes := make([]uint64, len(events))
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 500}}
	work := make(chan int)
	var wg sync.WaitGroup
	errs := make(chan error, len(events))
	for range 500 {
		wg.Go(func() {
			for i := range work {
				index, err := post(client, url, events[i].signer, fmt.Appendf(nil, "artifact %d %d", i, rand.Uint64()))
				if err != nil {
					errs <- err
				}
				indexes[i] = index
			}
		})
	}
	for i := range events {
		work <- i
	}
	close(work)
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	return indexes
}

func post(client *http.Client, url string, s testca.Signer, artifact []byte) (uint64, error) {
	digest, sig, err := s.SignArtifact(artifact)
	if err != nil {
		return 0, err
	}
	b64 := base64.StdEncoding.EncodeToString
	verifier := map[string]any{"keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": map[string]string{"rawBytes": b64(s.Cert)}}
	if s.Cert == nil {
		spki, err := s.SPKI()
		if err != nil {
			return 0, err
		}
		verifier = map[string]any{"keyDetails": "PKIX_ECDSA_P256_SHA_256", "publicKey": map[string]string{"rawBytes": b64(spki)}}
	}
	body, err := json.Marshal(map[string]any{"hashedRekordRequestV002": map[string]any{
		"digest": b64(digest[:]), "signature": map[string]any{"content": b64(sig), "verifier": verifier},
	}})
	if err != nil {
		return 0, err
	}
	resp, err := client.Post(url+"/api/v2/log/entries", "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusCreated {
		return 0, fmt.Errorf("status %d: %s", resp.StatusCode, text)
	}
	var entry struct {
		LogIndex uint64 `json:"logIndex,string"`
	}
	err = json.Unmarshal(text, &entry)
	return entry.LogIndex, err
}

func issue(t testing.TB, ca *testca.CA, id testca.Identity) testca.Signer {
	t.Helper()
	s, err := ca.Issue(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sigwarden runs a command to its end, and returns its output and status.
func sigwarden(t testing.TB, config string, args ...string) (stdout string, status int) {
	t.Helper()
	if args[0] != "evidence" || args[1] != "verify" { // which needs none
		args = append(args, "-c", config)
	}
	c := exec.Command(program(t, "sigwarden", "sigwarden"), args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if c.ProcessState.ExitCode() != 0 {
		t.Logf("sigwarden %s: status %d\n%s", strings.Join(args, " "), c.ProcessState.ExitCode(), errs.String())
	}
	return out.String(), c.ProcessState.ExitCode()
}

type statusDoc struct {
	Logs []struct {
		State    string
		Verified struct {
			Size uint64
			Root string
		}
		Scanned  uint64
		Coverage []struct{ From, To uint64 }
		Gaps     []any
		KeyOnly  uint64 `json:"key_only_entries"`
	}
	Channels []struct{ Pending, Failed int }
}

func status(t testing.TB, config string) (s statusDoc) {
	t.Helper()
	out, code := sigwarden(t, config, "status", "--json")
	if code != 0 {
		t.Fatalf("status: %d", code)
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRekorV2 is the whole job against the real server: the daemon follows it
// while it grows, finds exactly what is ours, tells three real receivers, and
// catches the server when a fork takes its place.
func TestRekorV2(t *testing.T) {
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	log := newRekorLog(t, "rekor.acme.example")
	dir := t.TempDir()
	storage := filepath.Join(dir, "storage")
	server, url := log.serve(t, storage)
	reads := &tiles{dir: storage}
	front := httptest.NewServer(reads)
	defer front.Close()
	to := newReceivers(t)
	config := writeConfig(t, dir, front.URL, log, ca, to)

	daemon := start(t, program(t, "sigwarden", "sigwarden"), "run", "-c", config)
	health := "http://" + healthAddress(t, config)
	until(t, "the daemon is ready", 20*time.Second, func() bool { return answers(health + "/readyz") })

	events := makeEvents(t, ca)
	indexes := write(t, url, events)
	want, keyOnly := map[uint64]string{}, uint64(0)
	for i, e := range events {
		if e.verdict != "" {
			want[indexes[i]] = e.verdict
		}
		if e.signer.Cert == nil {
			keyOnly++
		}
	}
	until(t, "everything was scanned", time.Minute, func() bool { s := status(t, config); return s.Logs[0].Scanned == 2000 })
	checkFindings(t, config, want, keyOnly)
	until(t, "everything was delivered", 30*time.Second, func() bool {
		for _, c := range status(t, config).Channels {
			if c.Pending > 0 {
				return false
			}
		}
		return true
	})
	checkAlerts(t, to, want, 0)
	checkRoot(t, config, storage, log)
	checkMetrics(t, health)

	// Another history with the same key takes the server's place.
	forked := filepath.Join(dir, "forked")
	server.kill()
	otherServer, otherURL := log.serve(t, forked)
	write(t, otherURL, makeEvents(t, ca)[:300])
	reads.show(forked)
	until(t, "the fork is caught", 10*time.Second, func() bool {
		out, _ := sigwarden(t, config, "incidents", "--kind", "fork")
		return strings.Contains(out, "integrity")
	})
	otherServer.kill()
	checkFork(t, config, dir, log, reads)
	until(t, "the fork is told of", 20*time.Second, func() bool {
		return len(to.hooked()) == 7 && len(to.mailed()) == 7 && len(to.slacked()) == 7
	})
	if code := daemon.stop(10 * time.Second); code != 0 {
		t.Errorf("the daemon stopped with status %d\n%s", code, daemon.output)
	}
	// Once more at the end: what is sent twice may come late.
	checkAlerts(t, to, want, 1)
	if out := daemon.output.String(); strings.Contains(out, "xoxb-secret") || strings.Contains(out, to.secret) {
		t.Error("a secret is in the log of the daemon")
	}
	if _, code := sigwarden(t, config, "run", "--once"); code != 4 {
		t.Errorf("run --once on the halted log: status %d, want 4", code)
	}
}

func writeConfig(t testing.TB, dir, url string, log rekorLog, ca *testca.CA, to *receivers) string {
	t.Helper()
	text := fmt.Sprintf(`state: state.db
schedule: "@every 1s"
logs:
  - name: acme
    type: rekor-v2
    url: %s
    origin: %s
    public_key: log.pub
    ca: ca.pem
    start: first
watchlist:
  - name: releases
    severity: critical
    match:
      - subject: "https://github.com/acme/*"
      - subject: "*@acme.example"
      - subject: "*!acme.example"
    expect:
      - subject: "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v*"
        issuer: https://token.actions.githubusercontent.com
        extensions: {runner-environment: github-hosted, source-repository-owner-uri: https://github.com/acme}
notify:
  channels:
    - name: chat
      slack: {token: xoxb-secret-token, channel: C123, api_url: %q}
    - name: mail
      email: {smtp: %q, from: sigwarden@acme.example, to: security@acme.example}
    - name: hook
      webhook: {url: %q, secret: %q}
http:
  listen: 127.0.0.1:%d
`, url, log.origin, to.slackURL, to.smtp, to.hookURL, to.secret, freePort(t))
	config := filepath.Join(dir, "sigwarden.yaml")
	for name, content := range map[string]string{config: text, filepath.Join(dir, "log.pub"): log.publicPEM, filepath.Join(dir, "ca.pem"): ca.ChainPEM()} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

func healthAddress(t testing.TB, config string) string {
	t.Helper()
	data, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	_, address, _ := strings.Cut(string(data), "listen: ")
	address, _, _ = strings.Cut(address, "\n")
	return address
}

// makeEvents returns 2,000 events in a random order: 10 expected, 6 unexpected
// (among them every form of subject), 4 with a certificate of their own making,
// and those of others, some with bare keys.
func makeEvents(t testing.TB, ca *testca.CA) []event {
	t.Helper()
	extensions := map[int]string{}
	for n := 2; n <= 24; n++ {
		if n != 7 && n != 8 {
			extensions[n] = fmt.Sprintf("value %d", n)
		}
	}
	extensions[11], extensions[16] = "github-hosted", "https://github.com/acme"
	good := testca.Identity{URI: release, Issuer: issuer, Extensions: extensions}
	stolen := map[int]string{11: "self-hosted", 16: "https://github.com/acme"}
	unexpected := []testca.Identity{
		{URI: release, Issuer: issuer, Extensions: stolen},
		{URI: release, Issuer: "https://evil.example", Extensions: extensions},
		{URI: "https://github.com/acme/other@refs/heads/main", Issuer: issuer, Extensions: extensions},
		{Email: "someone@ACME.example", Issuer: "https://accounts.google.com"},
		{OtherName: "someone!acme.example", Issuer: "https://login.acme.example"},
		{Email: "two@acme.example", URI: release, Issuer: issuer, Extensions: stolen},
	}
	var events []event
	for range 10 {
		events = append(events, event{"expected", issue(t, ca, good)})
	}
	for _, id := range unexpected {
		events = append(events, event{"unexpected", issue(t, ca, id)})
	}
	for range 4 {
		events = append(events, event{"untrusted", issue(t, nil, good)})
	}
	other := issue(t, ca, testca.Identity{URI: "https://github.com/somebody/else@refs/heads/main", Issuer: issuer})
	key, err := testca.BareKey()
	if err != nil {
		t.Fatal(err)
	}
	for len(events) < 2000 {
		if len(events)%10 == 0 {
			events = append(events, event{"", key})
		} else {
			events = append(events, event{"", other})
		}
	}
	rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	return events
}

func checkFindings(t *testing.T, config string, want map[uint64]string, keyOnly uint64) {
	t.Helper()
	out, _ := sigwarden(t, config, "findings", "--json")
	var list []struct {
		ID, Verdict, Reason string
		Index               uint64
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	got := map[uint64]string{}
	for _, f := range list {
		got[f.Index] = f.Verdict
		if f.Verdict != want[f.Index] {
			t.Errorf("entry %d: %s (%s), want %q", f.Index, f.Verdict, f.Reason, want[f.Index])
		}
	}
	if len(list) != 20 || len(got) != 20 || len(want) != 20 {
		t.Errorf("%d findings at %d places, want %d", len(list), len(got), len(want))
	}
	s := status(t, config).Logs[0]
	if len(s.Coverage) != 1 || s.Coverage[0].From != 0 || s.Coverage[0].To != 2000 || len(s.Gaps) != 0 || s.KeyOnly != keyOnly {
		t.Errorf("status %+v", s)
	}
}

// checkAlerts wants each unexpected finding, and a fork if there is one, on each
// of the three channels exactly once.
func checkAlerts(t *testing.T, to *receivers, want map[uint64]string, forks int) {
	t.Helper()
	events, subjects := map[string]int{}, map[string]int{}
	for _, h := range to.hooked() {
		events[h.Event]++
		switch {
		case h.Type == "finding.unexpected" && want[h.Data.Finding.Index] == "unexpected":
			subjects[h.Data.Finding.ID]++
		case h.Type == "incident.opened" && h.Data.Incident.Kind == "fork" && forks > 0:
			subjects[h.Data.Incident.ID]++
		default:
			t.Errorf("webhook %+v", h)
		}
	}
	once := func(what string, got, all map[string]int) {
		t.Helper()
		if len(got) != 6+forks || !maps.Equal(got, all) {
			t.Errorf("%s: %v, want each of %v once", what, got, all)
		}
		for id, n := range got {
			if n != 1 {
				t.Errorf("%s: %s came %d times", what, id, n)
			}
		}
	}
	once("webhook", events, events)
	once("mail", to.mailed(), events)
	once("webhook", subjects, subjects)
	once("Slack", to.slacked(), subjects)
	if len(to.bad) != 0 {
		t.Errorf("not verified: %q", to.bad)
	}
}

// checkRoot compares our verified root with what an independent checker finds
// in the server's files.
func checkRoot(t *testing.T, config, storage string, log rekorLog) {
	t.Helper()
	key, err := checkpoint.ParseKey(log.origin, log.publicPEM)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(storage, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	var verifier note.Verifier = key
	check := fsck.New(log.origin, verifier, &client.FileFetcher{Root: storage}, func(bundle []byte) ([][]byte, error) {
		b := &api.EntryBundle{}
		if err := b.UnmarshalText(bundle); err != nil {
			return nil, err
		}
		var hashes [][]byte
		for _, e := range b.Entries {
			hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(e))
		}
		return hashes, nil
	}, fsck.Opts{N: 2})
	if err := check.Check(context.Background()); err != nil {
		t.Fatalf("fsck of the server's files: %v", err)
	}
	opener, err := checkpoint.NewLog(log.origin, verifier)
	if err != nil {
		t.Fatal(err)
	}
	c, err := opener.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	s := status(t, config).Logs[0].Verified
	if root := c.Root(); s.Size != c.Size() || s.Root != fmt.Sprintf("%x", root) {
		t.Errorf("we verified size %d, root %s; fsck checked size %d, root %x", s.Size, s.Root, c.Size(), root)
	}
	// The note library of the log's own implementation agrees with ours too.
	if other, err := fnote.NewVerifier(vkey(key, log)); err != nil || other.KeyHash() != key.KeyHash() {
		t.Errorf("verifier key: %v", err)
	}
}

func vkey(v note.Verifier, log rekorLog) string {
	_, body, _ := strings.Cut(log.publicPEM, "-----BEGIN PUBLIC KEY-----\n")
	der, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.Split(body, "-----END")[0]))
	raw := der[len(der)-32:]
	return fmt.Sprintf("%s+%08x+%s", v.Name(), v.KeyHash(), base64.StdEncoding.EncodeToString(append([]byte{1}, raw...)))
}

func checkMetrics(t *testing.T, health string) {
	t.Helper()
	resp, err := http.Get(health + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(resp.Body)
	for _, want := range []string{
		`sigwarden_log_verified_size{log="acme"} 2000`, `sigwarden_log_scanned_size{log="acme"} 2000`, `sigwarden_log_head_size{log="acme"} 2000`,
		`sigwarden_log_last_poll_success_timestamp_seconds{log="acme"}`, `sigwarden_log_state{log="acme",state="ok"} 1`,
		`sigwarden_entries_scanned_total{log="acme"} 2000`, `sigwarden_entries_undecodable_total{log="acme"} 0`, `sigwarden_entries_key_only_total{log="acme"}`,
		`sigwarden_bytes_fetched_total{log="acme"}`, `sigwarden_findings_total{verdict="unexpected",watch="releases"} 6`,
		`sigwarden_deliveries_total{channel="mail",result="delivered"} 6`, `sigwarden_deliveries_pending{channel="chat"} 0`,
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("metrics have no %s", want)
		}
	}
}

// checkFork wants the fork caught within three polls, exports the evidence and
// verifies it offline.
func checkFork(t *testing.T, config, dir string, log rekorLog, reads *tiles) {
	t.Helper()
	out, _ := sigwarden(t, config, "incidents", "--kind", "fork", "--json")
	var list []struct {
		ID       string
		OpenedAt time.Time `json:"opened_at"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		t.Fatalf("%d forks, %v", len(list), err)
	}
	// The incident bears the time at which its poll began: that one is not in it.
	if polls := reads.pollsUntil(list[0].OpenedAt) + 1; polls > 3 {
		t.Errorf("the fork was caught by poll %d", polls)
	}
	file := filepath.Join(dir, "fork.zip")
	if _, code := sigwarden(t, config, "evidence", "export", list[0].ID, "-o", file); code != 0 {
		t.Fatalf("export: status %d", code)
	}
	if _, code := sigwarden(t, config, "evidence", "verify", file, "--log-key", filepath.Join(dir, "log.pub")); code != 0 {
		t.Errorf("verify: status %d", code)
	}
	other := filepath.Join(dir, "other.pub")
	if err := os.WriteFile(other, []byte(newRekorLog(t, log.origin).publicPEM), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, code := sigwarden(t, config, "evidence", "verify", file, "--log-key", other); code != 4 {
		t.Errorf("verify with another key: status %d, want 4", code)
	}
}
