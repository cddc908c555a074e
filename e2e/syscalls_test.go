package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// callsOf returns the names of the system calls that sets of systemd hold.
func callsOf(t *testing.T, sets ...string) map[string]bool {
	t.Helper()
	calls := map[string]bool{}
	for len(sets) > 0 {
		set := sets[0]
		sets = sets[1:]
		if calls[set] {
			continue
		}
		calls[set] = true
		out, err := exec.Command("systemd-analyze", "syscall-filter", "--no-pager", set).Output()
		if err != nil {
			t.Fatalf("%s: %v", set, err)
		}
		for line := range strings.Lines(string(out)) {
			name := strings.TrimSpace(line)
			switch {
			case name == "" || strings.HasPrefix(name, "#") || name == set:
			case strings.HasPrefix(name, "@"):
				sets = append(sets, name)
			default:
				calls[name] = true
			}
		}
	}
	return calls
}

// What strace prints of calls that change what is on a disk by name.
var (
	writing    = regexp.MustCompile(`^\d+ +(open|openat|creat|mkdir|mkdirat|rename|renameat|renameat2|link|linkat|symlink|symlinkat|unlink|unlinkat|truncate|chmod|fchmodat|chown|fchownat|mknod|mknodat)\((.*)`)
	forWriting = regexp.MustCompile(`O_(WRONLY|RDWR|CREAT)`)
	quoted     = regexp.MustCompile(`"([^"]+)"`)
)

// TestSystemCalls runs the daemon under strace, from its first scan over alerts, its page and
// a new configuration to its end: whatever it asks the system for, its unit allows; and it
// opens nothing for writing but below its state's folder.
func TestSystemCalls(t *testing.T) {
	needed(t, "systemd-analyze")
	strace := needed(t, "strace")
	unit, err := os.ReadFile("../deploy/systemd/sigwarden.service")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^SystemCallFilter=(~?)(.*)$`).FindAllStringSubmatch(string(unit), -1) {
		for name := range callsOf(t, strings.Fields(m[2])...) {
			allowed[name] = m[1] == ""
		}
	}
	if !allowed["openat"] || allowed["reboot"] || allowed["ptrace"] {
		t.Fatalf("the filter is not understood: %v", allowed)
	}
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	log, err := locallog.New("rekor.acme.example")
	if err != nil {
		t.Fatal(err)
	}
	entry, err := issue(t, ca, testca.Identity{URI: "https://github.com/acme/widget@refs/heads/evil", Issuer: issuer}).HashedRekord([]byte("malware"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(entry); err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(locallog.NewServer(log))
	defer ts.Close()
	hooked := make(chan struct{}, 100)
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hooked <- struct{}{} }))
	defer hook.Close()
	dir, err := os.MkdirTemp("", "sigwarden-calls-") // that another user can enter, unlike t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	port, witnessPort := freePort(t), freePort(t)
	secret, _, err := witness.GenerateKey("witness.acme.example/w1", witness.Ed25519)
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
	config, trace := filepath.Join(dir, "sigwarden.yaml"), filepath.Join(dir, "trace")
	for name, text := range map[string]string{"log.pub": log.PublicKeyPEM(), "ca.pem": ca.ChainPEM(), "witness.key": secret, "signing.pem": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "sigwarden.yaml": fmt.Sprintf(`state: state/state.db
schedule: "@every 1s"
logs: [{name: acme, type: rekor-v2, url: %q, origin: rekor.acme.example, public_key: log.pub, ca: ca.pem, start: first}]
watchlist:
  - {name: releases, severity: critical, match: [{subject: "https://github.com/acme/*"}]}
notify:
  channels:
    - {name: hook, webhook: {url: %q, secret: whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0}}
    - {name: lines, file: {path: state/alerts.jsonl}}
http: {listen: "127.0.0.1:%d"}
witness: {listen: "127.0.0.1:%d", keys: ["file:witness.key"]}
signing: {key: file:signing.pem}
reports:
  - {name: often, schedule: "@every 1s", formats: [json, html], directory: state/reports}
`, ts.URL, hook.URL, port, witnessPort)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A report is due.
	st, err := store.Open(t.Context(), filepath.Join(state, "state.db"), store.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	err = st.Reported(t.Context(), "often", time.Now().Add(-time.Hour), nil)
	if err := errors.Join(err, st.Close()); err != nil {
		t.Fatal(err)
	}
	// As the unit runs it: not as root, for whom SQLite gives files to others.
	binary, err := os.ReadFile(program(t, "sigwarden", "sigwarden"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "sigwarden"), binary, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	run := exec.Command(strace, "-f", "-qq", "-s", "300", "-o", trace, filepath.Join(dir, "sigwarden"), "run", "-c", config)
	files, err := filepath.Glob(filepath.Join(state, "*"))
	if err != nil {
		t.Fatal(err)
	}
	anybody(t, run, append(files, dir, state, config, filepath.Join(dir, "log.pub"), filepath.Join(dir, "ca.pem"), filepath.Join(dir, "witness.key"), filepath.Join(dir, "signing.pem"))...)
	if run.SysProcAttr != nil {
		// The program lets nobody look into it but root: strace stays that, so that it sees names.
		u, err := user.LookupId(fmt.Sprint(run.SysProcAttr.Credential.Uid))
		if err != nil {
			t.Fatal(err)
		}
		run.SysProcAttr = nil
		run.Args = slices.Insert(run.Args, 1, "-u", u.Username)
	}
	daemon := startCommand(t, run)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", daemon.output)
		}
	})
	until(t, "somebody was told", 20*time.Second, func() bool { return len(hooked) > 0 })
	until(t, "it serves", 20*time.Second, func() bool { return answers(fmt.Sprintf("http://127.0.0.1:%d/metrics", port)) })
	note, err := log.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it co-signs", 20*time.Second, func() bool {
		resp, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/add-checkpoint", witnessPort), "text/plain", strings.NewReader("old 0\n\n"+string(note)))
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	until(t, "it writes reports", 20*time.Second, func() bool {
		made, _ := filepath.Glob(filepath.Join(state, "reports", "*"))
		return len(made) >= 2
	})
	if out, code := sigwarden(t, config, "config", "reload"); code != 0 {
		t.Errorf("status %d: %s", code, out)
	}
	// The program itself is asked to end, not the one that looks at it.
	pids, err := exec.Command("pgrep", "-P", fmt.Sprint(daemon.Process.Pid)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("kill", "-TERM", strings.TrimSpace(string(pids))).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	select {
	case <-daemon.done:
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	seen, wrote := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(string(data)) {
		if m := regexp.MustCompile(`^\d+ +([a-z_0-9]+)\(`).FindStringSubmatch(line); m != nil {
			seen[m[1]] = true
		}
		if m := writing.FindStringSubmatch(line); m != nil && !strings.Contains(m[2], "= -1") && (!strings.HasPrefix(m[1], "open") || forWriting.MatchString(m[2])) {
			// Of a rename both names count.
			for _, path := range quoted.FindAllStringSubmatch(m[2], -1) {
				wrote[path[1]] = true
			}
		}
	}
	for name := range seen {
		if !allowed[name] {
			t.Errorf("it calls %s, which the unit does not allow", name)
		}
	}
	if len(seen) < 30 || !seen["openat"] || !seen["connect"] {
		t.Errorf("only %d calls were seen: %v", len(seen), seen)
	}
	for name := range wrote {
		if !strings.HasPrefix(name, state+"/") && !strings.HasPrefix(name, "state/") && name != "/dev/null" && !strings.HasPrefix(name, "/proc/self/") {
			t.Errorf("it writes %s, outside of its state's folder", name)
		}
	}
	if !wrote[filepath.Join(state, "state.db")] || !slices.ContainsFunc(slices.Collect(maps.Keys(wrote)), func(name string) bool { return strings.Contains(name, "reports/") }) {
		t.Errorf("of what it wrote not all is seen: %v", slices.Sorted(maps.Keys(wrote)))
	}
	var names []string
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	t.Logf("%d system calls: %s", len(names), strings.Join(names, " "))
}
