package e2e

import (
	"bytes"
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

	"github.com/sigwarden/sigwarden/monitor/attest"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// timestampServer starts a timestamp authority, and returns its address and its chain.
func timestampServer(t *testing.T, dir string) (address, chain string) {
	t.Helper()
	port := freePort(t)
	start(t, program(t, "timestamp", "timestamp-server"), "serve", "--host=127.0.0.1", fmt.Sprintf("--port=%d", port), "--timestamp-signer=memory", "--disable-ntp-monitoring")
	base := fmt.Sprintf("http://127.0.0.1:%d/api/v1/timestamp", port)
	var text []byte
	until(t, "the timestamp authority answers", 20*time.Second, func() bool {
		resp, err := http.Get(base + "/certchain")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		text, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		return err == nil && resp.StatusCode == http.StatusOK
	})
	chain = filepath.Join(dir, "tsa.pem")
	if err := os.WriteFile(chain, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return base, chain
}

// monitored runs sigwarden once against a log with a finding, and returns the path of its
// configuration, to which more is added.
func monitored(t *testing.T, dir, more string) string {
	t.Helper()
	l, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := issue(t, ca, testca.Identity{URI: "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1", Issuer: "https://token.actions.githubusercontent.com"}).HashedRekord([]byte("artifact"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(leaf); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(locallog.NewServer(l))
	t.Cleanup(server.Close)
	config := fmt.Sprintf("state: state.db\nlogs: [{name: main, type: rekor-v2, url: %s, origin: log.example, public_key: log.pem, ca: ca.pem, start: first}]\nwatchlist: [{name: releases, match: [{subject: \"https://github.com/acme/*\"}]}]\nnotify: {channels: [{name: lines, file: {path: lines.jsonl}}]}\n%s", server.URL, more)
	path := filepath.Join(dir, "c.yaml")
	for name, text := range map[string]string{path: config, filepath.Join(dir, "log.pem"): l.PublicKeyPEM(), filepath.Join(dir, "ca.pem"): ca.ChainPEM()} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, code := sigwarden(t, path, "run", "--once"); code != 3 {
		t.Fatalf("status %d", code)
	}
	return path
}

// cosign verifies the signature of a file with the real cosign, which reaches nobody.
func cosign(t *testing.T, dir, file string, args ...string) (output string, ok bool) {
	t.Helper()
	c := exec.Command(program(t, "cosign", "cosign"), append(append([]string{"verify-blob-attestation", "--insecure-ignore-tlog"}, args...), file)...)
	c.Env = append(os.Environ(), "HOME="+dir, "HTTPS_PROXY=http://127.0.0.1:9", "TUF_ROOT="+filepath.Join(dir, "tuf"))
	text, err := c.CombinedOutput()
	return string(text), err == nil
}

// TestCosignAcceptsReports: what sigwarden signs verifies with cosign and the public key,
// and not after an edit; the timestamp of a real authority verifies.
func TestCosignAcceptsReports(t *testing.T) {
	dir := t.TempDir()
	address, chain := timestampServer(t, dir)
	config := monitored(t, dir, fmt.Sprintf("signing: {timestamp: {url: %s, ca: tsa.pem}}\n", address))
	key, code := sigwarden(t, config, "ledger", "key")
	if code != 0 {
		t.Fatal("no key")
	}
	public := filepath.Join(dir, "sigwarden.pub")
	if err := os.WriteFile(public, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := sigwarden(t, config, "findings", "--json")
	id := out[strings.Index(out, `"f-`)+1:]
	id = id[:strings.Index(id, `"`)]
	report, evidence := filepath.Join(dir, "report.html"), filepath.Join(dir, "finding.zip")
	for _, args := range [][]string{{"report", "--since", "1d", "--format", "html", "-o", report, "--sign"}, {"evidence", "export", id, "-o", evidence, "--sign"}} {
		if _, code := sigwarden(t, config, args...); code != 0 {
			t.Fatalf("%v: status %d", args, code)
		}
	}
	accepts := func(file, predicate string) (string, bool) {
		return cosign(t, dir, file, "--key", public, "--bundle", strings.TrimSuffix(file, ".edited")+".sigstore.json", "--type", predicate)
	}
	for file, predicate := range map[string]string{report: attest.ReportType, evidence: attest.EvidenceType} {
		if out, ok := accepts(file, predicate); !ok {
			t.Errorf("cosign refuses %s: %s", file, out)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file+".edited", bytes.Replace(data, []byte("log.example"), []byte("lag.example"), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, ok := accepts(file+".edited", predicate); ok {
			t.Errorf("cosign takes %s after an edit: %s", file, out)
		}
		if out, ok := accepts(file, "https://example.com/another"); ok {
			t.Errorf("cosign takes %s for a statement of another type: %s", file, out)
		}
	}
	text, code := sigwarden(t, config, "report", "verify", report, "--key", public, "--timestamp-ca", chain)
	if code != 0 || !strings.Contains(text, "proven: the key given signed this file") || !strings.Contains(text, "proven: the timestamp authority given saw that signature at 20") {
		t.Errorf("status %d: %s", code, text)
	}
	if text, code := sigwarden(t, config, "report", "verify", report, "--key", public); code != 0 || !strings.Contains(text, "not proven: when it was signed") {
		t.Errorf("status %d: %s", code, text)
	}
	if _, code := sigwarden(t, config, "report", "verify", report+".edited", "--bundle", report+".sigstore.json", "--key", public); code != 4 {
		t.Errorf("an edited report: status %d", code)
	}
	stranger, err := testca.New("stranger", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "stranger.pem")
	if err := os.WriteFile(other, []byte(stranger.ChainPEM()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, code := sigwarden(t, config, "report", "verify", report, "--key", public, "--timestamp-ca", other); code != 4 {
		t.Errorf("another authority for timestamps: status %d", code)
	}
	if text, code := sigwarden(t, config, "evidence", "verify", evidence, "--log-key", filepath.Join(dir, "log.pem"), "--key", public, "--timestamp-ca", chain); code != 0 || !strings.Contains(text, "proven: the timestamp authority given") {
		t.Errorf("status %d: %s", code, text)
	}
}
