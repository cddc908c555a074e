//go:build unix

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// secretsConfig holds a secret in every place that takes one: in the file, from the
// environment, and from files of their own. %[1]s is the address of somebody who tells
// back, in an error, all that he was sent.
const secretsConfig = `state: s.db
logs:
  - {name: a, type: rekor-v2, url: "file://%[2]s/log", origin: a.acme.example, public_key: a.pem, ca: ca.pem, start: first}
watchlist:
  - name: releases
    match: [{subject: "https://github.com/acme/*"}]
notify:
  channels:
    - name: slack-hook
      slack: {webhook: "%[1]s/CANARY01"}
    - name: slack-token
      slack: {token: env:CANARY_SLACK, channel: C1}
    - name: hook
      webhook: {url: "%[1]s/CANARY02", secret: file:hook.secret}
    - name: teams
      teams: {url: "%[1]s/CANARY04"}
    - name: issues
      github: {repository: acme/security, token: CANARY05, api_url: "%[1]s"}
    - name: pager
      pagerduty: {routing_key: CANARY06aaaaaaaaaaaaaaaaaaaaaaaa, api_url: "%[1]s"}
    - name: gotify
      gotify: {url: "gotify://%[3]s/ACANARY07aaaaaa?disabletls=yes"}
    - name: matrix
      matrix: {url: "matrix://user:CANARY08@%[3]s/?rooms=room&disableTLS=yes"}
    - name: ntfy
      ntfy: {url: "ntfy://user:CANARY09@%[3]s/alerts?scheme=http"}
    - name: discord
      discord: {url: "discord://CANARY10@123456789"}
    - name: telegram
      telegram: {url: "telegram://123456789:CANARY11aaaaaaaaaaaaaaaaaaaaaaaaaaa@telegram?chats=@channel"}
    - name: opsgenie
      opsgenie: {url: "opsgenie://api.opsgenie.com/CANARY12"}
    - name: mail
      email: {smtp: "smtp://user@127.0.0.1:1", password: CANARY13, from: a@acme.example, to: [b@acme.example]}
  heartbeat: {url: "%[1]s/CANARY14", every: 1s}
http:
  listen: %[4]s
  public_url: http://localhost
  access:
    tokens: true
    oidc: {issuer: "%[1]s", client_id: x, client_secret: CANARY15, read: ["*@acme.example"]}
witness:
  listen: %[5]s
  keys: [env:CANARY_WITNESS]
signing:
  key: file:signing.pem
reports:
  - {name: r, schedule: "@every 1s", formats: [json], directory: reports, redact: file:redact.secret, notify: [hook]}
`

// forms are those in which a text may stand in something: in any case, in hex, and in base64 at any place
// of a group, as in the header of a user with a password.
func forms(text string) []string {
	list := []string{text, strings.ToLower(text), hex.EncodeToString([]byte(text))}
	for before := range 3 {
		b := base64.StdEncoding.EncodeToString(append(make([]byte, before), text...))
		// Letters that depend on what stands before or behind it are left out.
		list = append(list, b[(before*8+5)/6:(before+len(text))*8/6])
	}
	return list
}

// TestSecretsStayInside runs the program with a secret in every place that takes one, on
// channels that are dead or that tell everything back, and looks for them in all that it
// prints, logs, serves and writes.
func TestSecretsStayInside(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin", "sigwarden")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<16))
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, "cannot take %s with %v and %s", r.URL, r.Header, body)
	}))
	defer echo.Close()
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	l, _ := killLog(t, dir, 1200)
	if err := l.WriteDir(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	secret, _, err := witness.GenerateKey("w.example/w1", witness.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	signing := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	listen, cosign := free(), free()
	inputs := map[string]string{
		"a.yaml":        fmt.Sprintf(secretsConfig, echo.URL, dir, strings.TrimPrefix(echo.URL, "http://"), listen, cosign),
		"hook.secret":   "whsec_" + base64.StdEncoding.EncodeToString([]byte("CANARY03-and-twelve-more-bytes")),
		"redact.secret": "CANARY16-of-at-least-thirty-two-bytes",
		"signing.pem":   string(signing),
		"token":         "CANARY18",
	}
	for name, text := range inputs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	looked := append(forms("CANARY"), base64.StdEncoding.EncodeToString([]byte("CANARY03-and-twelve-more-bytes"))[:20], strings.SplitN(secret, "+", 5)[4][:20], strings.Split(string(signing), "\n")[1][:40])
	search := func(what string, data []byte) {
		t.Helper()
		for _, s := range looked {
			if at := bytes.Index(data, []byte(s)); at >= 0 {
				t.Errorf("%s: a secret is in it: …%s…", what, data[max(0, at-120):min(len(data), at+60)])
			}
		}
	}
	// Nothing leaves this machine: whoever is asked for elsewhere is asked through this.
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "CANARY_SLACK=xoxb-CANARY17", "CANARY_WITNESS=" + secret,
		"HTTPS_PROXY=http://user:CANARY19@127.0.0.1:1", "HTTP_PROXY=http://user:CANARY19@127.0.0.1:1", "NO_PROXY=127.0.0.1,localhost"}
	command := func(args ...string) *exec.Cmd {
		c := exec.Command(bin, append(args, "-c", filepath.Join(dir, "a.yaml"))...)
		c.Dir, c.Env = dir, env
		return c
	}
	run := func(status int, args ...string) string {
		t.Helper()
		c := command(args...)
		out, _ := c.CombinedOutput()
		search(strings.Join(args, " "), out)
		if len(out) == 0 && status != 0 {
			t.Errorf("%q prints nothing", args)
		}
		// Where nothing was done nothing was shown.
		if got := c.ProcessState.ExitCode(); got != status {
			t.Errorf("%q ends with %d, want %d:\n%.1000s", args, got, status, out)
		}
		return string(out)
	}
	if out := run(0, "check"); !strings.Contains(out, "valid") && !strings.Contains(out, "ok") {
		t.Fatalf("the configuration is not what it should be:\n%s", out)
	}
	run(3, "run", "--once", "-v")
	printed, err := command("token", "create", "--name", "reader", "--scope", "read").Output()
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(string(printed))
	looked = append(looked, token)

	// A report is due.
	st, err := store.Open(t.Context(), filepath.Join(dir, "s.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = st.Reported(t.Context(), "r", time.Now().Add(-time.Hour), nil)
	if err := errors.Join(err, st.Close()); err != nil {
		t.Fatal(err)
	}
	daemon := command("run", "-v")
	said := &lines{}
	daemon.Stdout, daemon.Stderr = said, said
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer daemon.Process.Kill()
	servedUntil := time.Now().Add(20 * time.Second)
	get := func(url, bearer string) ([]byte, error) {
		r, err := http.NewRequest("GET", url, nil)
		if err != nil {
			return nil, err
		}
		if bearer != "" {
			r.Header.Set("Authorization", "Bearer "+bearer)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		var all bytes.Buffer
		fmt.Fprintln(&all, resp.Status, resp.Header)
		_, err = io.Copy(&all, resp.Body)
		return all.Bytes(), err
	}
	for {
		if _, err := get("http://"+listen+"/healthz", ""); err == nil {
			break
		} else if time.Now().After(servedUntil) {
			t.Fatalf("it does not serve: %v\n%s", err, said)
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(4 * time.Second) // deliveries, heartbeats and reports fail a few times
	for _, path := range []string{"/metrics", "/readyz", "/", "/login", "/login/callback?code=CODE&state=x", "/api/v1/status", "/api/v1/deliveries", "/api/v1/channels", "/api/v1/findings", "/api/v1/incidents", "/api/v1/audit", "/api/v1/rules", "/api/v1/openapi.json", "/deliveries", "/channels", "/status"} {
		for _, bearer := range []string{"", token, "CANARY20"} {
			data, err := get("http://"+listen+path, bearer)
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
			search(path, data)
		}
	}
	data, err := get("http://"+cosign+"/witness", "")
	if err != nil {
		t.Error(err)
	}
	search("/witness", data)
	var found []struct {
		ID string `json:"id"`
	}
	out, err := command("findings", "list", "--json").Output()
	if err == nil {
		err = json.Unmarshal(out, &found)
	}
	if err != nil || len(found) == 0 {
		t.Fatalf("findings: %s, %v", out, err)
	}
	for _, c := range []struct {
		status int
		args   string
	}{
		{0, "status"}, {0, "status --json"}, {0, "findings list --json"}, {0, "findings show " + found[0].ID}, {0, "incidents list --json"}, {0, "findings show --json " + found[0].ID},
		{0, "audit list --json"}, {0, "token list"}, {0, "ledger show"}, {0, "ledger key"}, {0, "coverage --since 1d"}, {0, "report --since 1d -o made.md --sign"}, {0, "report --since 1d --format json"},
		{0, "config reload"}, {0, "evidence export " + found[0].ID + " -o evidence.zip"}, {0, "backup copy.db"},
		// What is dead, or tells everything back.
		{1, "check --online"}, {0, "doctor"}, {0, "doctor --json"}, {1, "notify test"}, {1, "notify test hook"}, {1, "notify test mail"}, {1, "status --server " + echo.URL + " --token-file token"},
	} {
		run(c.status, strings.Fields(c.args)...)
	}
	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	daemon.Wait()
	if text := said.String(); !strings.Contains(text, "not accepted") || !strings.Contains(text, "heartbeat") || !strings.Contains(text, "made a report") {
		t.Errorf("nothing failed, so that nothing was shown:\n%.3000s", text)
	}
	search("the log", []byte(said.String()))
	// Whatever it has written. Databases hold texts as they are.
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if _, ours := inputs[rel]; ours || strings.HasPrefix(rel, "bin/") || strings.HasPrefix(rel, "log/") {
			return nil
		}
		data, err := os.ReadFile(path)
		search(rel, data)
		if info, err := d.Info(); err == nil && info.Mode().Perm()&0o077 != 0 && strings.HasPrefix(rel, "s.db") {
			t.Errorf("%s may be read by others: %v", rel, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
