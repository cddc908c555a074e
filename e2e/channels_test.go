package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// certificate writes a self-signed certificate for loopback, and its key.
func certificate(t testing.TB, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSyslog: a real syslog server understands what comes over each transport.
func TestSyslog(t *testing.T) {
	rsyslogd := needed(t, "rsyslogd", "/usr/sbin/rsyslogd")
	dir := t.TempDir()
	certificate(t, dir)
	udp, tcp, tls := freePort(t), freePort(t), freePort(t)
	conf := fmt.Sprintf(`
global(workDirectory=%[1]q maxMessageSize="64k"
  DefaultNetstreamDriverCAFile="%[1]s/cert.pem" DefaultNetstreamDriverCertFile="%[1]s/cert.pem" DefaultNetstreamDriverKeyFile="%[1]s/key.pem")
module(load="imudp")
module(load="imptcp")
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.Authmode="anon")
template(name="parts" type="list") {
  property(name="inputname") constant(value=" ") property(name="pri") constant(value=" ") property(name="app-name") constant(value=" ")
  property(name="msgid") constant(value=" ") property(name="structured-data") constant(value=" ") property(name="timereported" dateFormat="rfc3339") constant(value=" ")
  property(name="msg") constant(value="\n")
}
ruleset(name="all") { action(type="omfile" file="%[1]s/out" template="parts") }
input(type="imudp" address="127.0.0.1" port="%[2]d" ruleset="all")
input(type="imptcp" address="127.0.0.1" port="%[3]d" ruleset="all")
input(type="imtcp" address="127.0.0.1" port="%[4]d" ruleset="all")
`, dir, udp, tcp, tls)
	if err := os.WriteFile(filepath.Join(dir, "rsyslog.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	server := start(t, rsyslogd, "-n", "-f", filepath.Join(dir, "rsyslog.conf"), "-i", filepath.Join(dir, "pid"))
	config := filepath.Join(dir, "sigwarden.yaml")
	text := fmt.Sprintf(`logs: [{name: a, type: rekor-v2, url: "http://127.0.0.1:1", public_key: %q, ca: %q}]
watchlist: [{name: w, match: [{subject: "*@acme.example"}]}]
notify:
  channels:
    - {name: udp, syslog: {url: "udp://127.0.0.1:%d"}}
    - {name: tcp, syslog: {url: "tcp://127.0.0.1:%d", facility: authpriv}}
    - {name: tls, syslog: {url: "tls://127.0.0.1:%d", tls_ca: cert.pem}}
`, newRekorLog(t, "a.acme.example").publicPEM, "cert.pem", udp, tcp, tls)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "rsyslog listens", 20*time.Second, func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", tls))
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	if _, code := sigwarden(t, config, "notify", "test"); code != 0 {
		t.Fatalf("status %d\n%s", code, server.output)
	}
	var out string
	until(t, "three messages", 20*time.Second, func() bool {
		data, _ := os.ReadFile(filepath.Join(dir, "out"))
		out = string(data)
		return strings.Count(out, "\n") >= 3
	})
	for _, want := range []string{`(?m)^imudp 134 `, `(?m)^imptcp 86 `, `(?m)^imtcp 134 `} {
		m := regexp.MustCompile(want + `sigwarden test \[sigwarden@32473 id="e-test-[0-9a-f]+" type="test" severity="info"\] \S+ .*"type":"test"`)
		if !m.MatchString(out) {
			t.Errorf("no %s in\n%s", m, out)
		}
	}
}

// TestAnnounceOverHTTP: a release job announces through the daemon what it is
// about to sign, and what it then signs is expected.
func TestAnnounceOverHTTP(t *testing.T) {
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	log, err := locallog.New("rekor.acme.example")
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(locallog.NewServer(log))
	defer ts.Close()
	dir, port := t.TempDir(), freePort(t)
	config := filepath.Join(dir, "sigwarden.yaml")
	for name, content := range map[string]string{"log.pub": log.PublicKeyPEM(), "ca.pem": ca.ChainPEM(), "SHA256SUMS": "", "sigwarden.yaml": fmt.Sprintf(`state: state.db
schedule: "@every 1s"
logs: [{name: acme, type: rekor-v2, url: %q, origin: rekor.acme.example, public_key: log.pub, ca: ca.pem, start: first}]
watchlist:
  - name: releases
    match: [{subject: "https://github.com/acme/*"}]
    expect:
      - {subject: "https://github.com/acme/*", issuer: "https://token.actions.githubusercontent.com", digests: {file: SHA256SUMS, grace: 24h}}
http: {listen: "127.0.0.1:%d"}
`, ts.URL, port)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	daemon := start(t, program(t, "sigwarden", "sigwarden"), "run", "-c", config)
	until(t, "the daemon answers", 20*time.Second, func() bool { return answers(fmt.Sprintf("http://127.0.0.1:%d/readyz", port)) })
	secret, code := sigwarden(t, config, "token", "create", "--name", "job", "--scope", "expect", "--watch", "releases")
	if code != 0 {
		t.Fatal(code)
	}
	signer := issue(t, ca, testca.Identity{URI: "https://github.com/acme/widget@refs/tags/v1", Issuer: "https://token.actions.githubusercontent.com"})
	entry, err := signer.HashedRekord([]byte("v1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(entry); err != nil {
		t.Fatal(err)
	}
	state := func() (s struct{ State, Verdict, Reason string }) {
		out, code := sigwarden(t, config, "findings", "--json")
		var list []struct{ State, Verdict, Reason string }
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
			t.Fatal(err, code, out)
		}
		if len(list) > 0 {
			s = list[0]
		}
		return s
	}
	until(t, "the finding waits for its list", 20*time.Second, func() bool { return state().State == "pending" })
	announce := func(token string) (int, string) {
		body := `{"watch":"releases","digest":"3bfc269594ef649228e9a74bab00f042efc91d5acc6fbee31a382e80d42388fe","ttl":"30m","note":"v1"}`
		req, err := http.NewRequest("POST", fmt.Sprintf("http://127.0.0.1:%d/api/v1/expectations", port), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(answer)
	}
	if code, answer := announce("sigwarden_guess"); code != 401 {
		t.Errorf("%d %s", code, answer)
	}
	if code, answer := announce(strings.TrimSpace(secret)); code != 201 || !strings.Contains(answer, `"by":"token job (t-`) {
		t.Fatalf("%d %s", code, answer)
	}
	if s := state(); s.State != "closed" || s.Verdict != "expected" || !strings.Contains(s.Reason, "token job") {
		t.Errorf("%+v", s)
	}
	if code := daemon.stop(10 * time.Second); code != 0 {
		t.Errorf("status %d\n%s", code, daemon.output)
	}
	if strings.Contains(daemon.output.String(), strings.TrimSpace(secret)) {
		t.Error("the token is in the log of the daemon")
	}
	if out, code := sigwarden(t, config, "audit", "verify"); code != 0 || !strings.HasPrefix(out, "3:") {
		t.Errorf("%d %s", code, out)
	}
}
