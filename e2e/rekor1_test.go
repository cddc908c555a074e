package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	rekortuf "github.com/sigstore/rekor/pkg/pki/tuf"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// between stands between sigwarden and the server, and can alter what it says.
type between struct {
	proxy *httputil.ReverseProxy

	mu      sync.Mutex
	altered map[uint64][]byte // body by global index
	omitted map[uint64]bool
}

func newBetween(t testing.TB, to string) *between {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	b := &between{proxy: httputil.NewSingleHostReverseProxy(target)}
	b.proxy.ModifyResponse = b.modify
	b.proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	return b
}

func (b *between) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Header.Del("Accept-Encoding") // bodies are read here
	b.proxy.ServeHTTP(w, r)
}

func (b *between) modify(resp *http.Response) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !strings.HasPrefix(resp.Request.URL.Path, "/api/v1/log/entries") || resp.StatusCode != http.StatusOK || len(b.altered)+len(b.omitted) == 0 {
		return nil
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	resp.Body.Close()
	var list []map[string]map[string]any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&list); err != nil {
		return fmt.Errorf("%s: %w", resp.Request.URL, err)
	}
	list = slices.DeleteFunc(list, func(m map[string]map[string]any) bool {
		for _, e := range m {
			index, err := strconv.ParseUint(e["logIndex"].(json.Number).String(), 10, 64)
			if err != nil {
				return false
			}
			if body, ok := b.altered[index]; ok {
				e["body"] = base64.StdEncoding.EncodeToString(body)
			}
			return b.omitted[index]
		}
		return false
	})
	if data, err = json.Marshal(list); err != nil {
		return err
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
	resp.Header.Set("Content-Length", strconv.Itoa(len(data)))
	return nil
}

// watches are those that have to find an upload, with the verdict of each.
func (a *artist) watches(u upload) map[string]string {
	found := map[string]string{}
	switch u.kind {
	case "hashedrekord", "rekord x509", "intoto:0.0.1", "jar":
		found["release"] = "expected"
	case "dsse", "intoto":
		found["release"], found["bare"] = "expected", "unexpected"
	case "rekord pgp", "rpm", "helm":
		found["mail"], found["pgp"] = "unexpected", "unexpected"
	case "rekord ssh":
		found["ssh"] = "unexpected"
	case "rekord minisign":
		found["minisign"] = "unexpected"
	case "alpine":
		found["rsa"] = "unexpected"
	case "cose":
		found["bare"] = "unexpected"
	case "tuf":
		found["tuf"] = "unexpected"
	}
	if u.sha != "" {
		found["artifacts"] = "unexpected"
	}
	return found
}

// configV1 writes a configuration with a watch for each way to name a signer.
func (a *artist) configV1(dir, url, publicPEM string, uploads []upload) string {
	a.t.Helper()
	root, err := rekortuf.NewPublicKey(bytes.NewReader(a.tuf.Root()))
	a.check(err)
	rootKeys, err := root.Identities()
	a.check(err)
	var text strings.Builder
	fmt.Fprintf(&text, `state: state.db
schedule: "@every 1s"
contact: security@acme.example
logs:
  - name: acme
    type: rekor-v1
    url: %s
    public_key: log.pub
    ca: ca.pem
    start: first
    requests_per_second: 200
    parallel: 8
http:
  listen: 127.0.0.1:%d
notify:
  channels:
    - name: lines
      file: {path: %s}
watchlist:
  - name: release
    match: [{subject: %q}]
    expect: [{subject: %q, issuer: %q}]
`, url, freePort(a.t), filepath.Join(dir, "lines.json"), artistMail, artistMail, issuer)
	for name, item := range map[string]string{
		"mail": fmt.Sprintf("subject: %q", pgpMail), "pgp": fmt.Sprintf("fingerprint: %q", a.pgpPrint()),
		"ssh": fmt.Sprintf("fingerprint: %q", a.sshPrint()), "minisign": fmt.Sprintf("fingerprint: %q", print256(a, a.mini.Public())),
		"bare": fmt.Sprintf("fingerprint: %q", print256(a, &a.bare.Key.PublicKey)), "rsa": fmt.Sprintf("fingerprint: %q", print256(a, &a.rsa.PublicKey)),
		"tuf": fmt.Sprintf("fingerprint: %q", "sha256:"+rootKeys[0].Fingerprint),
	} {
		fmt.Fprintf(&text, "  - {name: %s, match: [{%s}]}\n", name, item)
	}
	text.WriteString("  - name: artifacts\n    match:\n      - digest:\n")
	for _, u := range uploads {
		if u.sha != "" {
			fmt.Fprintf(&text, "          - sha256:%s\n", u.sha)
		}
	}
	config := filepath.Join(dir, "sigwarden.yaml")
	for name, content := range map[string]string{config: text.String(), filepath.Join(dir, "log.pub"): publicPEM, filepath.Join(dir, "ca.pem"): a.ca.ChainPEM()} {
		a.check(os.WriteFile(name, []byte(content), 0o600))
	}
	return config
}

// others returns hashedrekord entries that nobody watches.
func others(t testing.TB, ca *testca.CA, n int) [][]byte {
	t.Helper()
	other := issue(t, ca, testca.Identity{URI: "https://github.com/somebody/else@refs/heads/main", Issuer: issuer})
	return parallel(t, 2, n, func(i int) ([]byte, error) {
		return other.HashedRekordV1(fmt.Appendf(nil, "of somebody else %d %p", i, &other))
	})
}

type key struct {
	global uint64
	watch  string
}

type finding struct {
	Log, Watch, Verdict, Reason string
	Index                       uint64
	LogIndex                    uint64    `json:"log_index"`
	LeafHash                    string    `json:"leaf_hash"`
	IntegratedAt                time.Time `json:"integrated_at"`
	Identities                  []struct{ Subjects []string }
}

func findings(t testing.TB, config string) map[key]finding {
	t.Helper()
	out, _ := sigwarden(t, config, "findings", "--json")
	var list []finding
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	got := map[key]finding{}
	for _, f := range list {
		k := key{f.LogIndex, f.Watch}
		if _, twice := got[k]; twice {
			t.Errorf("%v was found twice", k)
		}
		got[k] = f
	}
	return got
}

func compareFindings(t *testing.T, got map[key]finding, want map[key]string) {
	t.Helper()
	for k, verdict := range want {
		if f := got[k]; f.Verdict != verdict || f.IntegratedAt.IsZero() {
			t.Errorf("%v: verdict %q (%s), integrated at %s; want %q", k, f.Verdict, f.Reason, f.IntegratedAt, verdict)
		}
	}
	for k, f := range got {
		if _, ok := want[k]; !ok {
			t.Errorf("%v: %s, wanted nothing", k, f.Verdict)
		}
	}
}

// TestRekorV1 follows the real server over the change of its tree, with entries
// of every kind, and then through a proxy that lies.
func TestRekorV1(t *testing.T) {
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r := newRekorV1(t)
	a := newArtist(t, ca)
	uploads, crowd := a.gallery(20), others(t, ca, 2800)
	front := newBetween(t, r.url)
	server := httptest.NewServer(front)
	defer server.Close()
	dir := t.TempDir()
	config := a.configV1(dir, server.URL, r.publicPEM, uploads)
	run := func() *process {
		p := start(t, program(t, "sigwarden", "sigwarden"), "run", "-c", config)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the daemon printed:\n%s", p.output)
			}
		})
		until(t, "the daemon is ready", 20*time.Second, func() bool { p.lives(); return answers("http://" + healthAddress(t, config) + "/readyz") })
		return p
	}
	daemon := run()

	want, at := map[key]string{}, map[string]uint64{} // by UUID
	uuids := make([]string, len(uploads))
	write := func(from, to int, bodies [][]byte) {
		done := make(chan struct{})
		go func() { defer close(done); r.propose(bodies) }()
		type place struct {
			index uint64
			uuid  string
		}
		for i, p := range parallel(t, 4, to-from, func(i int) (p place, err error) { p.index, p.uuid, err = r.upload(uploads[from+i]); return }) {
			uuids[from+i], at[p.uuid] = p.uuid, p.index
			for w, verdict := range a.watches(uploads[from+i]) {
				want[key{p.index, w}] = verdict
			}
		}
		<-done
	}
	half := len(uploads) / 2
	write(0, half, crowd[:1500])
	// The server changes its tree and its name while the daemon reads, and the
	// daemon is killed amid.
	r.rotate("rekor-7d9f8")
	daemon.kill()
	daemon = run()
	write(half, len(uploads), crowd[1500:])

	total := uint64(len(uploads) + len(crowd))
	until(t, "everything was scanned", time.Minute, func() bool {
		daemon.lives()
		s := status(t, config)
		return len(s.Logs) == 2 && s.Logs[0].Scanned+s.Logs[1].Scanned == total
	})
	if total < 3000 {
		t.Fatalf("%d entries are too few", total)
	}
	compareFindings(t, findings(t, config), want)
	for i, log := range status(t, config).Logs {
		if state := []string{"retired", "ok"}[i]; log.State != state || len(log.Coverage) != 1 || log.Coverage[0].From != 0 || log.Coverage[0].To != log.Verified.Size || len(log.Gaps) != 0 {
			t.Errorf("tree %d: %+v, want it %s and covered in full", i, log, state)
		}
	}
	if code := daemon.stop(10 * time.Second); code != 0 {
		t.Errorf("the daemon stopped with status %d\n%s", code, daemon.output)
	}
	if out, _ := sigwarden(t, config, "incidents", "--json"); strings.Contains(out, `"integrity"`) {
		t.Errorf("incidents: %s", out)
	}

	bodies := r.served(total)
	t.Run("rekor's own types", func(t *testing.T) { compareTypes(t, bodies) })
	t.Run("rekor-cli search", func(t *testing.T) { compareSearch(t, r, bodies, uploads, uuids, at) })
	t.Run("lies", func(t *testing.T) {
		lies(t, a, front, server.URL, r.publicPEM, bodies, uploads, uuids, at, maps.Clone(want))
	})
}

// lies has one body altered, so that it would be ours, and one of ours left out.
func lies(t *testing.T, a *artist, front *between, url, publicPEM string, bodies [][]byte, uploads []upload, uuids []string, at map[string]uint64, want map[key]string) {
	omit := at[uuids[slices.IndexFunc(uploads, func(u upload) bool { return u.kind == "rpm" })]]
	ours := at[uuids[0]]
	var alter uint64
	for alter = 500; len(want) > 0; alter++ { // of somebody else
		if _, found := want[key{alter, "artifacts"}]; !found && bytes.Contains(bodies[alter], []byte(`"hashedrekord"`)) {
			break
		}
	}
	dir := t.TempDir()
	config := a.configV1(dir, url, publicPEM, uploads)
	front.mu.Lock()
	front.altered, front.omitted = map[uint64][]byte{alter: bodies[ours]}, map[uint64]bool{omit: true}
	front.mu.Unlock()
	// Withholding is told of when three polls have seen it.
	for range 3 {
		if _, code := sigwarden(t, config, "run", "--once"); code != 4 {
			t.Errorf("run --once: status %d, want 4", code)
		}
	}
	out, _ := sigwarden(t, config, "incidents", "--json")
	var incidents []struct{ Class, Kind, State, Summary string }
	if err := json.Unmarshal([]byte(out), &incidents); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, i := range incidents {
		kinds[i.Kind]++
		t.Logf("%s %s: %s", i.Class, i.Kind, i.Summary)
	}
	if !maps.Equal(kinds, map[string]int{"entry-mismatch": 1, "entry-withheld": 1}) {
		t.Errorf("incidents %v", kinds)
	}
	// Everything that can be proven is found, and nothing else.
	maps.DeleteFunc(want, func(k key, _ string) bool { return k.global == omit })
	compareFindings(t, findings(t, config), want)
	gaps, scanned := 0, uint64(0)
	for _, log := range status(t, config).Logs {
		gaps, scanned = gaps+len(log.Gaps), scanned+log.Scanned
	}
	if gaps != 2 || scanned != uint64(len(bodies)) {
		t.Errorf("%d gaps, %d of %d entries scanned", gaps, scanned, len(bodies))
	}
}
