package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// distributor is a stand-in that checks the documented request: the log's signature and
// that of the witness in the path, and no other.
type distributor struct {
	t       *testing.T
	logKey  string
	origin  string
	witness map[string]string // verifier keys by name
	mu      sync.Mutex
	latest  string
	size    uint64
}

func (d *distributor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sum := sha256.Sum256([]byte("o:" + d.origin))
	prefix := "/distributor/v0/logs/" + hex.EncodeToString(sum[:]) + "/"
	rest, ok := strings.CutPrefix(r.URL.Path, prefix)
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == "GET" && rest == "checkpoint.1" && d.latest != "":
		io.WriteString(w, d.latest)
	case r.Method == "PUT":
		name := strings.TrimSuffix(strings.TrimPrefix(rest, "byWitness/"), "/checkpoint")
		body, _ := io.ReadAll(r.Body)
		size, names := cosigned(d.t, body, d.logKey, d.witness[name])
		if len(names) != 1 || names[0] != name || strings.Count(string(body), "\n\u2014 ") != 2 || size < d.size {
			d.t.Errorf("PUT %s: size %d by %q\n%s", r.URL.EscapedPath(), size, names, body)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		d.latest, d.size = string(body), size
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (d *distributor) has() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size
}

// omniwitness starts one that knows a log, and returns where it is and its key.
func omniwitness(t *testing.T, dir, name, origin, logKey string) (url, key string) {
	t.Helper()
	key = keygen(t, dir, name, "ed25519", strings.ReplaceAll(name, "/", "-"))
	writeFiles(t, dir, map[string]string{name[:2] + "logs.yaml": fmt.Sprintf("Logs:\n  - Origin: %q\n    URL: http://127.0.0.1:9/\n    PublicKey: %s\n    Feeder: none\n", origin, logKey)})
	port := freePort(t)
	c := exec.Command(program(t, "witness", "omniwitness"), fmt.Sprintf("--listen=127.0.0.1:%d", port), fmt.Sprintf("--metrics_listen=127.0.0.1:%d", freePort(t)), "--db_file="+filepath.Join(dir, name[:2]+".db"),
		"--private_key_path="+filepath.Join(dir, strings.ReplaceAll(name, "/", "-")), "--additional_logs="+filepath.Join(dir, name[:2]+"logs.yaml"))
	c.Env = append(os.Environ(), "HTTPS_PROXY=http://127.0.0.1:9")
	p := startCommand(t, c)
	url = fmt.Sprintf("http://127.0.0.1:%d", port)
	until(t, "omniwitness answers: "+p.output.String(), 20*time.Second, func() bool {
		resp, err := http.Post(url+"/add-checkpoint", "", strings.NewReader("x"))
		if err != nil {
			return false
		}
		resp.Body.Close()
		return true
	})
	return url, key
}

// submitted asks an omniwitness for a first cosignature, or for that of a size that it
// knows.
func submitted(t *testing.T, url string, old uint64, note []byte) (int, string) {
	t.Helper()
	resp, err := http.Post(url+"/add-checkpoint", "", strings.NewReader(string((&witness.Request{Old: old, Note: note}).Format())))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// TestFeedAndSplitView: of a log that does not ask we bring what we have co-signed to a
// distributor and to a real omniwitness. Then the log shows another tree to a second
// omniwitness than to us.
func TestFeedAndSplitView(t *testing.T) {
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	log, err := locallog.New("rekor.acme.example")
	if err != nil {
		t.Fatal(err)
	}
	grow := func(l *locallog.Log, n int, who string) {
		t.Helper()
		signer := issue(t, ca, testca.Identity{Email: who})
		for i := range n {
			entry, err := signer.HashedRekord(fmt.Appendf(nil, "%s %d %d", who, l.Size(), i))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Append(entry); err != nil {
				t.Fatal(err)
			}
		}
	}
	grow(log, 100, "a@other.example")
	server := locallog.NewServer(log)
	ts := httptest.NewServer(server)
	defer ts.Close()
	dir, port, api := t.TempDir(), freePort(t), freePort(t)
	ours := keygen(t, dir, "witness.acme.example/pq", "ml-dsa-44", "pq.key")
	friend, friendKey := omniwitness(t, dir, "w1.example/friend", log.Origin(), log.VerifierKey())
	victim, victimKey := omniwitness(t, dir, "w2.example/victim", log.Origin(), log.VerifierKey())
	d := &distributor{t: t, logKey: log.VerifierKey(), origin: log.Origin(), witness: map[string]string{"witness.acme.example/pq": ours}}
	ds := httptest.NewServer(d)
	defer ds.Close()
	if err := os.Mkdir(filepath.Join(dir, "seen"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, map[string]string{"log.pub": log.PublicKeyPEM(), "ca.pem": ca.ChainPEM(), "sigwarden.yaml": fmt.Sprintf(`state: state.db
schedule: "@every 1s"
logs: [{name: acme, type: rekor-v2, url: %q, origin: rekor.acme.example, public_key: log.pub, ca: ca.pem, start: first}]
sources:
  - {distributor: %q, every: 1s}
  - {file: "seen/*", every: 1s}
witness:
  listen: "127.0.0.1:%d"
  keys: ["file:pq.key"]
  feed_every: 1s
  distributors: [%q]
  submit_to: [{url: %q, key: %q}]
http: {listen: "127.0.0.1:%d"}
`, ts.URL, ds.URL, port, ds.URL, friend, friendKey, api)})
	config := filepath.Join(dir, "sigwarden.yaml")
	daemon := start(t, program(t, "sigwarden", "sigwarden"), "run", "-c", config)
	for _, size := range []uint64{100, 164, 300} {
		if n := int(size - log.Size()); n > 0 {
			grow(log, n, "a@other.example")
		}
		until(t, fmt.Sprintf("the distributor has size %d", size), 30*time.Second, func() bool { return d.has() == size })
		note, err := log.CheckpointAt(size)
		if err != nil {
			t.Fatal(err)
		}
		until(t, fmt.Sprintf("omniwitness knows size %d", size), 30*time.Second, func() bool {
			status, lines := submitted(t, friend, size, note)
			_, names := cosigned(t, append(note, lines...), log.VerifierKey(), friendKey)
			return status == http.StatusOK && len(names) == 1
		})
	}
	ask := func(note []byte) (c struct{ Verdict, Why, Incident string }) {
		t.Helper()
		resp, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/api/v1/checkpoints", api), "text/plain", strings.NewReader(string(note)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&c); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%d %v", resp.StatusCode, err)
		}
		return c
	}
	older, _ := log.CheckpointAt(77)
	if c := ask(older); c.Verdict != "behind" {
		t.Errorf("%+v", c)
	}
	if c := ask([]byte("nonsense")); c.Verdict != "unknown" {
		t.Errorf("%+v", c)
	}

	// Another tree, of a size that ours has not reached, for the victim alone.
	fork, err := log.Fork(200)
	if err != nil {
		t.Fatal(err)
	}
	grow(fork, 150, "evil@other.example")
	note, err := fork.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	status, lines := submitted(t, victim, 0, note)
	if _, names := cosigned(t, append(note, lines...), log.VerifierKey(), victimKey); status != http.StatusOK || len(names) != 1 {
		t.Fatalf("%d %s", status, lines)
	}
	writeFiles(t, filepath.Join(dir, "seen"), map[string]string{"victim": string(note) + lines})
	until(t, "it is heard of", 10*time.Second, func() bool { return ask(note).Verdict == "unknown" })
	grow(log, 60, "a@other.example") // beyond it
	before := server.Requests()
	type incident struct{ ID, Kind, State string }
	var list []incident
	until(t, "the split view is noticed", 10*time.Second, func() bool {
		out, _ := sigwarden(t, config, "incidents", "--json")
		list = nil
		return json.Unmarshal([]byte(out), &list) == nil && len(list) > 0
	})
	if len(list) != 1 || list[0].Kind != "split-view" || list[0].State != "open" {
		t.Errorf("%+v", list)
	}
	t.Logf("noticed after %d requests to the log", server.Requests()-before)
	if c := ask(note); c.Verdict != "contradiction" || c.Incident != list[0].ID {
		t.Errorf("%+v", c)
	}
	// Nothing of the log is co-signed any more, and the evidence convinces a stranger.
	signed, err := log.CheckpointAt(300)
	if err != nil {
		t.Fatal(err)
	}
	if status, body := submitted(t, fmt.Sprintf("http://127.0.0.1:%d", port), 300, signed); status != http.StatusServiceUnavailable {
		t.Errorf("%d %s", status, body)
	}
	evidence := filepath.Join(dir, "evidence.zip")
	if _, code := sigwarden(t, config, "evidence", "export", list[0].ID, "-o", evidence); code != 0 {
		t.Error(code)
	}
	if out, code := sigwarden(t, config, "evidence", "verify", evidence, "--log-key", filepath.Join(dir, "log.pub")); code != 0 {
		t.Errorf("%d %s", code, out)
	}
	if code := daemon.stop(10 * time.Second); code != 0 {
		t.Errorf("status %d\n%s", code, daemon.output)
	}
}
