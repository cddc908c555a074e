package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
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
	"testing"
	"time"

	formatslog "github.com/transparency-dev/formats/log"
	formats "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// writeFiles puts files into a folder.
func writeFiles(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// keygen makes a key of a witness, and returns its verifier key.
func keygen(t testing.TB, dir, name, algorithm, file string) string {
	t.Helper()
	out, err := exec.Command(program(t, "sigwarden", "sigwarden"), "witness", "keygen", "--name", name, "--algorithm", algorithm, "-o", filepath.Join(dir, file)).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// hexOrigin is the name of a log in the paths of a monitoring endpoint.
func hexOrigin(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return hex.EncodeToString(sum[:])
}

// cosigned opens a checkpoint with another implementation, and returns the names of
// the witnesses whose cosignatures verify.
func cosigned(t testing.TB, raw []byte, logKey string, witnesses ...string) (size uint64, names []string) {
	t.Helper()
	log, err := formats.NewVerifier(logKey)
	if err != nil {
		t.Fatal(err)
	}
	var others []note.Verifier
	for _, w := range witnesses {
		v, err := formats.NewVerifierForCosignatureV1(w)
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, v)
	}
	cp, _, n, err := formatslog.ParseCheckpoint(raw, log.Name(), log, others...)
	if err != nil {
		return 0, nil
	}
	for _, s := range n.Sigs {
		if s.Name != log.Name() {
			names = append(names, s.Name)
		}
	}
	return cp.Size, names
}

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// vkey is a log's key as a note verifier key.
func (l rekorLog) vkey(t testing.TB) string {
	t.Helper()
	text := strings.Split(strings.TrimSpace(l.publicPEM), "\n")
	der, err := base64.StdEncoding.DecodeString(strings.Join(text[1:len(text)-1], ""))
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewEd25519VerifierKey(l.origin, der[len(der)-32:])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestWitnessOfRekorV2: a real Rekor v2 server asks us for cosignatures, with both
// algorithms; we sign only what was read entry by entry.
func TestWitnessOfRekorV2(t *testing.T) {
	log := newRekorLog(t, "rekor.acme.example")
	dir, storage, port := t.TempDir(), t.TempDir(), freePort(t)
	served := httptest.NewServer(http.FileServer(http.Dir(storage)))
	defer served.Close()
	ed, pq := keygen(t, dir, "witness.acme.example/ed", "ed25519", "ed.key"), keygen(t, dir, "witness.acme.example/pq", "ml-dsa-44", "pq.key")
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	// Rekor reads its log below /api/v2 in production; here the folder is served as it is.
	api := httptest.NewServer(http.StripPrefix("/api/v2", http.FileServer(http.Dir(storage))))
	defer api.Close()
	writeFiles(t, dir, map[string]string{"log.pub": log.publicPEM, "ca.pem": ca.ChainPEM(), "policy": fmt.Sprintf("witness ed %s http://127.0.0.1:%d/w\nquorum ed\n", ed, port),
		"sigwarden.yaml": fmt.Sprintf(`state: state.db
schedule: "@every 1s"
logs: [{name: acme, type: rekor-v2, url: %q, origin: rekor.acme.example, public_key: log.pub, ca: ca.pem, start: first}]
watchlist: [{name: releases, match: [{subject: "https://github.com/acme/*"}]}]
witness:
  listen: "127.0.0.1:%d"
  prefix: /w
  keys: ["file:ed.key", "file:pq.key"]
  audited: true
  operator: ACME
`, api.URL, port)})
	config := filepath.Join(dir, "sigwarden.yaml")
	_, server := log.serve(t, storage, "--witness-policy-path="+filepath.Join(dir, "policy"))
	daemon := start(t, program(t, "sigwarden", "sigwarden"), "run", "-c", config)
	until(t, "the witness answers", 20*time.Second, func() bool { return answers(fmt.Sprintf("http://127.0.0.1:%d/w/witness", port)) })
	if _, about := get(t, fmt.Sprintf("http://127.0.0.1:%d/w/witness", port)); !strings.Contains(about, ed) || !strings.Contains(about, pq) || !strings.Contains(about, "ACME") {
		t.Errorf("about: %s", about)
	}
	for i := range 5 {
		signer := issue(t, ca, testca.Identity{URI: "https://github.com/acme/widget@refs/tags/v1", Issuer: "https://token.actions.githubusercontent.com"})
		if _, err := post(http.DefaultClient, server, signer, fmt.Appendf(nil, "artifact %d %s", i, rand.Text())); err != nil {
			t.Fatal(err)
		}
	}
	var raw string
	until(t, "the log publishes our cosignature", 30*time.Second, func() bool {
		_, raw = get(t, served.URL+"/checkpoint")
		size, names := cosigned(t, []byte(raw), log.vkey(t), ed, pq)
		return size == 5 && len(names) >= 1 && names[0] == "witness.acme.example/ed"
	})
	// What is shown is signed with both keys, and was read before it was signed.
	status, text := get(t, fmt.Sprintf("http://127.0.0.1:%d/w/%s/checkpoint", port, hexOrigin(log.origin)))
	if size, names := cosigned(t, []byte(text), log.vkey(t), ed, pq); status != 200 || size != 5 || len(names) != 2 {
		t.Errorf("%d, size %d by %q", status, size, names)
	}
	out, code := sigwarden(t, config, "findings", "--json")
	var found []struct{ Index int }
	if err := json.Unmarshal([]byte(out), &found); err != nil || code != 0 || len(found) != 5 {
		t.Errorf("%d findings of 5, %v", len(found), err)
	}
	// A second process with the same key is refused, though its state is another one.
	other := t.TempDir()
	text2 := strings.NewReplacer("file:ed.key", "file:"+filepath.Join(dir, "ed.key"), "file:pq.key", "file:"+filepath.Join(dir, "pq.key"), fmt.Sprint(port), fmt.Sprint(freePort(t)),
		"log.pub", filepath.Join(dir, "log.pub"), "ca.pem", filepath.Join(dir, "ca.pem")).Replace(readFile(t, config))
	if err := os.WriteFile(filepath.Join(other, "sigwarden.yaml"), []byte(text2), 0o600); err != nil {
		t.Fatal(err)
	}
	second := exec.Command(program(t, "sigwarden", "sigwarden"), "run", "-c", filepath.Join(other, "sigwarden.yaml"))
	var says bytes.Buffer
	second.Stderr = &says
	if err := second.Run(); err == nil || second.ProcessState.ExitCode() != 1 || !strings.Contains(says.String(), "another process signs with the key witness.acme.example/ed") {
		t.Errorf("%v: %s", err, &says)
	}
	if code := daemon.stop(10 * time.Second); code != 0 {
		t.Errorf("status %d\n%s", code, daemon.output)
	}
	if strings.Contains(daemon.output.String(), "PRIVATE") {
		t.Error("a signing key is in the log")
	}
	if out, code := sigwarden(t, config, "witness", "logs", "--json"); code != 0 || !strings.Contains(out, `"size": 5`) {
		t.Errorf("%d %s", code, out)
	}
}

// TestWitnessOfTessera: a log of tessera, which goes nowhere without cosignatures, and
// which we know from a list alone.
func TestWitnessOfTessera(t *testing.T) {
	dir, storage, port := t.TempDir(), t.TempDir(), freePort(t)
	secret, logKey, err := note.GenerateKey(rand.Reader, "log.tessera.example/one")
	if err != nil {
		t.Fatal(err)
	}
	pq := keygen(t, dir, "witness.acme.example/pq", "ml-dsa-44", "pq.key")
	writeFiles(t, dir, map[string]string{"log.key": secret, "list": "logs/v0\n", "policy": fmt.Sprintf("witness pq %s http://127.0.0.1:%d\nquorum pq\n", pq, port),
		"entry1": "one", "entry2": "two", "entry3": "three", "sigwarden.yaml": fmt.Sprintf(`state: state.db
logs: [{name: local, type: rekor-v2, url: %q, origin: local.example, public_key: local.pub, start: first}]
witness:
  listen: "127.0.0.1:%d"
  keys: ["file:pq.key"]
  lists: [{file: list, every: 1s}]
`, "file://"+storage, port), "local.pub": newRekorLog(t, "local.example").publicPEM})
	daemon := start(t, program(t, "sigwarden", "sigwarden"), "run", "-c", filepath.Join(dir, "sigwarden.yaml"))
	until(t, "the witness answers", 20*time.Second, func() bool { return answers(fmt.Sprintf("http://127.0.0.1:%d/witness", port)) })
	add := func(entry string) error {
		c := exec.Command(program(t, "witness", "posix-oneshot"), "--storage_dir="+storage, "--private_key="+filepath.Join(dir, "log.key"), "--entries="+filepath.Join(dir, entry), "--witness_policy_file="+filepath.Join(dir, "policy"))
		out, err := c.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if status, _ := get(t, fmt.Sprintf("http://127.0.0.1:%d/%s/checkpoint", port, hexOrigin("log.tessera.example/one"))); status != 404 {
		t.Errorf("a log that nobody has named: %d", status)
	}
	writeFiles(t, dir, map[string]string{"list": "logs/v0\nvkey " + logKey + "\nqpd 86400\ncontact tessera\n"})
	until(t, "the list was read", 20*time.Second, func() bool {
		resp, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/add-checkpoint", port), "", strings.NewReader("old 0\n\nlog.tessera.example/one\n"))
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusBadRequest // and not 404
	})
	for i, entry := range []string{"entry1", "entry2", "entry3"} {
		if err := add(entry); err != nil {
			t.Fatalf("%s: %v\n%s", entry, err, daemon.output)
		}
		size, names := cosigned(t, []byte(readFile(t, filepath.Join(storage, "checkpoint"))), logKey, pq)
		if size != uint64(i+1) || len(names) != 1 {
			t.Errorf("size %d by %q", size, names)
		}
	}
	// A list changes nothing of a log that is known.
	_, evil, err := note.GenerateKey(rand.Reader, "log.tessera.example/one")
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, map[string]string{"list": "logs/v0\nvkey " + evil + "\nqpd 86400\ncontact tessera\n", "entry4": "four"})
	until(t, "the change is told", 20*time.Second, func() bool { return strings.Contains(daemon.output.String(), "they stay as they are") })
	if err := add("entry4"); err != nil {
		t.Error(err)
	}
	if code := daemon.stop(10 * time.Second); code != 0 {
		t.Errorf("status %d\n%s", code, daemon.output)
	}
	// Nor does it bring back what a person has taken out.
	config := filepath.Join(dir, "sigwarden.yaml")
	if _, code := sigwarden(t, config, "witness", "disable", "log.tessera.example/one", "--note", "of no interest"); code != 0 {
		t.Fatal(code)
	}
	start(t, program(t, "sigwarden", "sigwarden"), "run", "-c", config)
	until(t, "the witness answers", 20*time.Second, func() bool { return answers(fmt.Sprintf("http://127.0.0.1:%d/witness", port)) })
	time.Sleep(2 * time.Second)
	if status, _ := get(t, fmt.Sprintf("http://127.0.0.1:%d/%s/checkpoint", port, hexOrigin("log.tessera.example/one"))); status != 404 {
		t.Errorf("a log that was taken out: %d", status)
	}
}
