package e2e

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// TestFlood: somebody logs ten thousand entries with our subject at once, and one with
// that of another watch. People get few messages, which speak of all of them, on Slack
// and by mail; a webhook gets every event; the store has every finding.
func TestFlood(t *testing.T) {
	const flood = 10000
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	log, err := locallog.New("rekor.acme.example")
	if err != nil {
		t.Fatal(err)
	}
	thief := issue(t, ca, testca.Identity{URI: "https://github.com/acme/widget@refs/heads/evil", Issuer: "https://token.actions.githubusercontent.com"})
	entries := make([][]byte, flood)
	for i := range entries {
		if entries[i], err = thief.HashedRekord(fmt.Appendf(nil, "malware %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	other, err := issue(t, ca, testca.Identity{Email: "root@precious.example", Issuer: "https://accounts.google.com"}).HashedRekord([]byte("what it hides"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(append(entries, other)...); err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(locallog.NewServer(log))
	defer ts.Close()
	to := newReceivers(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "sigwarden.yaml")
	for name, content := range map[string]string{"log.pub": log.PublicKeyPEM(), "ca.pem": ca.ChainPEM(), "sigwarden.yaml": fmt.Sprintf(`state: state.db
schedule: "@every 1s"
logs: [{name: acme, type: rekor-v2, url: %q, origin: rekor.acme.example, public_key: log.pub, ca: ca.pem, start: first}]
watchlist:
  - {name: releases, severity: critical, match: [{subject: "https://github.com/acme/*"}]}
  - {name: precious, severity: critical, match: [{subject: "*@precious.example"}]}
notify:
  channels:
    - {name: chat, slack: {token: xoxb-secret-token, channel: C123, api_url: %q}}
    - {name: mail, email: {smtp: %q, from: sigwarden@acme.example, to: security@acme.example}}
    - {name: hook, webhook: {url: %q, secret: %q}}
`, ts.URL, to.slackURL, to.smtp, to.hookURL, to.secret)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	daemon := start(t, program(t, "sigwarden", "sigwarden"), "run", "-c", config)
	until(t, "the webhook has every event", 3*time.Minute, func() bool { return len(to.hooked()) >= flood+1 })
	until(t, "people were told", time.Minute, func() bool { return len(to.mailed()) >= 11 && told(to) >= flood+1 })
	time.Sleep(2 * time.Second) // and no more
	to.mu.Lock()
	slack, bad := len(to.slack), to.bad
	all := strings.Join(to.slack, "\n")
	to.mu.Unlock()
	if slack > 15 || len(to.mailed()) > 15 || told(to) != flood+1 {
		t.Errorf("%d messages on Slack that speak of %d, %d mails", slack, told(to), len(to.mailed()))
	}
	if !strings.Contains(all, "for watch precious") {
		t.Error("the flood of one watch hides the other")
	}
	seen := map[string]bool{}
	for _, h := range to.hooked() {
		seen[h.Data.Finding.ID] = true
	}
	if len(seen) != flood+1 || len(to.hooked()) != flood+1 || len(bad) > 0 {
		t.Errorf("the webhook got %d events of %d findings; %q", len(to.hooked()), len(seen), bad)
	}
	if out, code := sigwarden(t, config, "findings", "--verdict", "unexpected"); code != 0 || strings.Count(out, "unexpected") != flood+1 {
		t.Errorf("%d findings, status %d", strings.Count(out, "unexpected"), code)
	}
	if code := daemon.stop(10 * time.Second); code != 0 {
		t.Errorf("status %d", code)
	}
}

var groupTitle = regexp.MustCompile(`"(\d+) unexpected signing events? for watch `)

// told counts the findings that the messages on Slack speak of.
func told(to *receivers) (n int) {
	to.mu.Lock()
	defer to.mu.Unlock()
	for _, blocks := range to.slack {
		m := groupTitle.FindStringSubmatch(blocks)
		if m == nil {
			n++
			continue
		}
		count, _ := strconv.Atoi(m[1])
		n += count
	}
	return n
}
