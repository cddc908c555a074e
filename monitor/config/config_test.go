package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/watchlist"
)

const vkey = "log.example+0de4d0ce+AT9iCn4SmL+UrNVOVMsjeSQg50lDEEh0cLGWNlUiDXo5"

const good = `state: state/s.db
schedule: "@every 30s"
logs:
  - name: internal
    type: rekor-v2
    url: https://rekor.acme.example
    public_key: ` + vkey + `
    ca: ca.pem
    start: first
    schedule: "*/5 * * * *"
    requests_per_second: 20
    parallel: 8
    stale_after: 24h
watchlist:
  - name: releases
    match:
      - subject: "https://github.com/acme/*"
        issuer: [https://token.actions.githubusercontent.com, none]
      - extensions: {source-repository-owner-uri: https://github.com/acme}
    expect:
      - subject: x
        issuer: y
    severity: critical
    notify: lines
    untrusted: alert
notify:
  channels:
    - name: lines
      file: {path: "-"}
    - name: hook
      webhook: {url: env:URL, secret: file:secret.txt}
    - name: mail
      email: {smtp: "smtps://u@mail.example:465", password: env:PW, from: a@b.example, to: c@d.example}
    - name: chat
      slack: {webhook: env:URL}
  incidents: [lines]
  health: []
http:
  listen: 127.0.0.1:8480
`

func env(name string) string {
	return map[string]string{"URL": "https://hooks.example/T0/secret", "PW": "hunter2"}[name]
}

func folder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"ca.pem": "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n", "secret.txt": "whsec_abc\n", "empty.txt": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestGoodConfiguration(t *testing.T) {
	dir := folder(t)
	c, err := Parse(filepath.Join(dir, "c.yaml"), []byte(good), env)
	if err != nil {
		t.Fatal(err)
	}
	l := c.Logs[0]
	if l.Origin != "rekor.acme.example" || l.PublicKey != vkey || !strings.Contains(l.CA, "CERTIFICATE") || l.Parallel != 8 || l.StaleAfter != 24*time.Hour || !l.Entries || l.Schedule.Text != "*/5 * * * *" {
		t.Errorf("log: %+v", l)
	}
	if c.State != filepath.Join(dir, "state/s.db") || c.Schedule.Text != "@every 30s" {
		t.Errorf("state %s, schedule %s", c.State, c.Schedule.Text)
	}
	w := c.Watches[0]
	if w.Severity != "critical" || w.Untrusted != "alert" || len(w.Notify) != 1 || len(w.Match) != 2 || len(w.Match[0].Issuer) != 2 || w.Match[1].Extensions["source-repository-owner-uri"][0] != "https://github.com/acme" {
		t.Errorf("watch: %+v", w)
	}
	if got := c.Notify.Channels[1].Webhook; got.Secret.Reveal() != "whsec_abc" || got.URL.Reveal() != env("URL") {
		t.Error("secrets are not read from environment and file")
	}
	if c.Notify.Health == nil || len(c.Notify.Health) != 0 || len(c.Notify.Incidents) != 1 {
		t.Errorf("health %v, incidents %v", c.Notify.Health, c.Notify.Incidents)
	}
	if i := c.At("watchlist[0].match[0].subject[0]", "x"); i.Line != 17 || i.Col != 18 {
		t.Errorf("place of a subject: %d:%d", i.Line, i.Col)
	}
	if i := c.At("watchlist[0].match[0].issuer[1]", "x"); i.Line != 18 || !strings.Contains(i.Source, "issuer") {
		t.Errorf("place of an issuer: %+v", i)
	}
	if i := c.At("watchlist[0].match[1].extensions.source-repository-owner-uri[0]", "x"); i.Line != 19 {
		t.Errorf("place of an extension: %+v", i)
	}
	for _, text := range []string{fmt.Sprint(c.Notify), fmt.Sprintf("%+v %#v %s", c.Notify.Channels[1].Webhook, c.Notify.Channels[1].Webhook, c.Notify.Channels[2].Email.Password)} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "whsec") || strings.Contains(text, "T0") {
			t.Errorf("a secret is printed: %s", text)
		}
	}
	if data, err := json.Marshal(c.Notify.Channels[2].Email); err != nil || strings.Contains(string(data), "hunter2") {
		t.Errorf("a secret is marshalled: %s", data)
	}
}

// TestBadConfigurations changes one line of the good one, and wants the error
// at that place.
func TestBadConfigurations(t *testing.T) {
	dir := folder(t)
	for _, tc := range []struct {
		old, new string
		line     int
		want     string
	}{
		{"schedule: \"@every 30s\"", "schedul: \"@every 30s\"", 2, `unknown key "schedul" in the configuration; did you mean "schedule"?`},
		{"    start: first", "    strat: first", 9, `did you mean "start"?`},
		{"    start: first", "    name: again", 9, `already defined`},
		{"    start: first", "    start: -3", 9, `want latest, first or an index`},
		{"    type: rekor-v2", "    type: rekorv2", 5, `did you mean "rekor-v2"?`},
		{"    type: rekor-v2\n    url: https://rekor.acme.example", "    type: rekor-v1\n    url: file:///x\n    origin: x", 6, `is a log of type rekor-v2`},
		{"    type: rekor-v2\n", "", 4, `a log has no "type"`},
		{"    url: https://rekor.acme.example", "    url: rekor.acme.example", 6, "want a url"},
		{"ca: ca.pem", "ca: nosuch.pem", 8, "no such file"},
		{"*/5 * * * *", "0 0 30 2 *", 10, "never fires"},
		{"*/5 * * * *", "61 * * * *", 10, "not a schedule"},
		{"*/5 * * * *", "@every 0s", 10, "shortest time"},
		{"*/5 * * * *", "TZ=UTC @every -1h", 10, "shortest time"},
		{"*/5 * * * *", "TZ=UTC", 10, "not a schedule"},
		{"requests_per_second: 20", "requests_per_second: 0", 11, "no number from"},
		{"requests_per_second: 20", "requests_per_second: many", 11, "no number from"},
		{"stale_after: 24h", "stale_after: 24", 13, "is no time"},
		{"  - name: releases\n    match:", "  - match:", 15, `a watch has no "name"`},
		{"severity: critical", "severity: sever", 23, "is no severity"},
		{"severity: critical", "severity: Critical", 23, `did you mean "critical"?`},
		{"notify: lines", "notify: line", 24, `no channel is called "line"; did you mean "lines"?`},
		{"untrusted: alert", "untrusted: allow", 25, "is no way to treat"},
		{"      - subject: x", "      - subjct: x", 21, `did you mean "subject"?`},
		{"      - subject: x", "      - subject: {a: b}", 21, "want a text, found a mapping"},
		{`file: {path: "-"}`, `fil: {path: "-"}`, 29, `did you mean "file"?`},
		{`file: {path: "-"}`, `slack: {token: x}`, 29, "either token and channel, or webhook"},
		{"secret: file:secret.txt", "secret: file:empty.txt", 31, "is empty"},
		{"secret: file:secret.txt", "secret: file:nosuch.txt", 31, "no such file"},
		{"secret: file:secret.txt", "secret: env:NOTSET", 31, "environment variable NOTSET is not set"},
		{"    - name: hook", "    - name: lines", 30, `two channels are called "lines"`},
		{"from: a@b.example", "from: nobody", 33, "no e-mail address"},
		{"incidents: [lines]", "incidents: [linse]", 36, `did you mean "lines"?`},
		{"listen: 127.0.0.1:8480", "listen: 8480", 39, "is no address"},
		{"schedule: \"@every 30s\"", "contact: \"a b\"", 2, "neither an e-mail address"},
		{"schedule: \"@every 30s\"", "contact: \"(a)@b.example\"", 2, "neither an e-mail address"},
		{"listen: 127.0.0.1:8480", "listen: localhost:99999", 39, "is no address"},
		{"    parallel: 8", "    parallel: 1.5", 12, "no whole number"},
		{"      - subject: x", "      - subject: []", 21, "is an empty list"},
		{"http:\n", "trust: {sigstore: public-god}\nhttp:\n", 38, "did you mean \"public-good\""},
		{"http:\n", "trust: {sigstore: staging, trusted_root: ca.pem}\nhttp:\n", 38, "leave one of them out"},
		{"http:\n", "trust: {sigstore: {mirror: 'https://tuf.acme.example'}}\nhttp:\n", 38, "has no \"root\""},
		{"http:\n", "trust: {sigstore: {mirror: tuf.acme.example, root: ca.pem}}\nhttp:\n", 38, "no address of a TUF repository"},
		{"http:\n", "trust: {sigstore: {mirror: 'https://tuf.acme.example', root: missing.json}}\nhttp:\n", 38, "no such file"},
		{"http:\n", "trust: {monitor_config: missing.json}\nhttp:\n", 38, "no such file"},
		{"  - name: internal\n    type: rekor-v2", "  - sigstore: rekor", 5, "logs of `sigstore:` have their url"},
		{"  - name: internal\n", "  - sigstore: rekor\n  - sigstore: rekor\n  - name: internal\n", 5, "there twice"},
		{"  - name: internal\n", "  - {sigstore: rekor, start: 7}\n  - name: internal\n", 4, "one index cannot be"},
		{"  - name: internal\n", "  - {sigstore: fulcio}\n  - name: internal\n", 4, "kind of logs that a trust root names"},
		{"state: state/s.db", "state: &a state/s.db", 1, "anchors"},
		{"state: state/s.db", "state: [a", 2, ""},
		{"state: state/s.db", "state: ''", 1, "is empty"},
		{"state: state/s.db", "state: a\n---\nstate: b", 0, "2 YAML documents"},
		{"watchlist:\n", "watchlist: 7\nx:\n", 14, "want a list"},
	} {
		text := strings.Replace(good, tc.old, tc.new, 1)
		if text == good {
			t.Fatalf("%q is not in the good configuration", tc.old)
		}
		_, err := Parse(filepath.Join(dir, "c.yaml"), []byte(text), env)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: %v", tc.new, err)
			continue
		}
		found := false
		for _, i := range e.Issues {
			found = found || strings.Contains(i.Message, tc.want) && i.Line == tc.line
		}
		if !found {
			t.Errorf("%q: want %q in line %d, got\n%v", tc.new, tc.want, tc.line, err)
		}
		if strings.Contains(err.Error(), "whsec") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a secret is printed: %v", err)
		}
	}
	for name, text := range map[string]string{
		"empty":                "",
		"comment only":         "# nothing\n",
		"two logs of one name": good[:strings.Index(good, "watchlist:")] + "  - {name: internal, type: rekor-v2, url: 'https://b.example', public_key: '" + vkey + "', ca: ca.pem}\n",
		"two of one origin":    good[:strings.Index(good, "watchlist:")] + "  - {name: b, type: rekor-v2, url: 'https://rekor.acme.example/', public_key: '" + vkey + "', ca: ca.pem}\n",
		"directory, no origin": "logs: [{type: rekor-v2, url: 'file:///x', public_key: '" + vkey + "', ca: ca.pem}]\n",
	} {
		if _, err := Parse(filepath.Join(dir, "c.yaml"), []byte(text), env); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestSigstore: what is not written is the public-good instance with all its logs.
func TestSigstore(t *testing.T) {
	dir := folder(t)
	for text, want := range map[string]Trust{
		"state: x\n":                   {Sigstore: "public-good"},
		"trust: {sigstore: staging}\n": {Sigstore: "staging"},
		"trust: {sigstore: {mirror: 'https://tuf.acme.example/x', root: ca.pem}, monitor_config: secret.txt}\n": {Mirror: "https://tuf.acme.example/x", Root: []byte("-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"), MonitorConfig: []byte("whsec_abc\n")},
		"trust: {trusted_root: r.json}\n":                                           {TrustedRoot: filepath.Join(dir, "r.json")},
		"logs: [{sigstore: rekor, start: latest}]\ntrust: {trusted_root: r.json}\n": {TrustedRoot: filepath.Join(dir, "r.json")},
	} {
		c, err := Parse(filepath.Join(dir, "c.yaml"), []byte(text), env)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if !reflect.DeepEqual(c.Trust, want) {
			t.Errorf("%s: trust %+v", text, c.Trust)
		}
		if len(c.Logs) != 1 || c.Logs[0].Sigstore != "rekor" || !c.Logs[0].Entries || c.Logs[0].Start != "latest" || c.Logs[0].StaleAfter != 24*time.Hour || c.Logs[0].Schedule.Text != "@every 1m" {
			t.Errorf("%s: logs %+v", text, c.Logs)
		}
	}
	c, err := Parse(filepath.Join(dir, "c.yaml"), []byte("logs: [{sigstore: rekor, start: first, stale_after: 48h, entries: false}, {type: rekor-v2, url: 'https://r.example'}]\n"), env)
	if err != nil || len(c.Logs) != 2 || c.Logs[0].StaleAfter != 48*time.Hour || c.Logs[0].Entries || c.Logs[1].StaleAfter != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestSecretsAreNotQuoted: whatever is wrong with a line, a credential in it is
// not printed.
func TestSecretsAreNotQuoted(t *testing.T) {
	const head = "state: s.db\nlogs:\n  - {type: rekor-v2, url: 'https://r.example', public_key: '" + vkey + "', ca: ca.pem}\n"
	for _, channel := range []string{
		"slack: {token: xoxb-SECRET, chanel: C1}",
		"slack: xoxb-SECRET",
		"slack: {tokn: SECRET, channel: C1}",
		"slack: {token: [SECRET], channel: C1}",
		"webhook: {url: https://h.example/SECRET, secret: [x]}",
		"webhook: https://h.example/SECRET",
		"webhook: {url: {a: SECRET}, secret: x}",
		"email: {smtp: 'smtps://u:SECRET@m.example', password: SECRET, from: nobody, to: [a@b.example]}",
		"email: {smtp: 'smtps://m.example', passwd: SECRET, from: a@b.example, to: []}",
		"webhook: {url: env:NOTSET, secret: SECRET}",
		"webhook: {url: &a SECRET, secret: *a}",
		"webhook: {url: SECRET, secret: SECRET",
		"webhok: SECRET",
		"webhook:\n        url: https://h.example/x\n        secrt: SECRET",
		"webhook:\n        url:\n          - SECRET\n        secret: x",
	} {
		for _, layout := range []string{"notify:\n  channels:\n    - name: c\n      %s\n", "notify:\n  channels:\n  - name: c\n    file: {path: x}\n  - name: d\n    %s\nhttp: {listen: '127.0.0.1:1'}\n"} {
			_, err := Parse(filepath.Join(folder(t), "c.yaml"), []byte(head+fmt.Sprintf(layout, channel)), env)
			if err == nil {
				t.Errorf("%s: accepted", channel)
			} else if strings.Contains(err.Error(), "SECRET") {
				t.Errorf("%s: a secret is printed:\n%v", channel, err)
			}
		}
	}
	for _, text := range []string{
		"http: {listen: '127.0.0.1:1', oidc: {issuer: https://i.example, client_id: x, client_secret: SECRET, raed: [a]}}\n",
		"http: {listen: '127.0.0.1:1', oidc: {issuer: https://i.example, client_id: x, client_secret: [SECRET]}}\n",
		"http: {listen: '127.0.0.1:1', oidc: {issuer: 'https://u:SECRET@i.example', client_id: x, client_secret: x}}\n",
		"http: {listen: '127.0.0.1:1', public_url: 'https://u:SECRET@i.example'}\n",
		"signing: {key: SECRET}\n",
		"signing: {key: [SECRET]}\n",
		"signing:\n  key: |\n    -----BEGIN PRIVATE KEY-----\n    SECRET\n  \t SECRET: x\n    -----END PRIVATE KEY-----\n",
		"reports: [{name: r, redact: [SECRET]}]\n",
		"reports: [{name: r, redact: SECRET, every: {x: 1}}]\n",
		"trust: {sigstore: {mirror: 'https://u:SECRET@tuf.example', root: ca.pem}}\n",
		"witness: {keys: ['PRIVATE+KEY+SECRET']}\n",
	} {
		_, err := Parse(filepath.Join(folder(t), "c.yaml"), []byte(head+text), env)
		if err == nil {
			t.Errorf("%s: accepted", text)
		} else if strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: a secret is printed:\n%v", text, err)
		}
	}
	for _, url := range []string{"https://u:SECRET@r.example", "https://u:SECRET@", "file://u:SECRET@x/y"} {
		_, err := Parse(filepath.Join(folder(t), "c.yaml"), []byte(strings.Replace(head, "https://r.example", url, 1)), env)
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", url, err)
		}
	}
	// In a document that is JSON, everything may be on one line.
	_, err := Parse("c.yaml", []byte(`{"stat": "x", "notify": {"channels": [{"name": "c", "webhook": {"url": "SECRET", "secret": "SECRET"}}]}}`), env)
	if err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("%v", err)
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	_, err := Parse("c.yaml", []byte("stat: x\nlogs: [{tipe: a}]\nhttp: {port: 1}\n"), env)
	var e *Error
	if !errors.As(err, &e) || len(e.Issues) < 3 {
		t.Errorf("%v", err)
	}
	if !strings.HasPrefix(err.Error(), "c.yaml:1:1: unknown key \"stat\"") || !strings.Contains(err.Error(), "\n     1 | stat: x") {
		t.Errorf("%v", err)
	}
}

// TestScalarsStayAsWritten: YAML's numbers are texts here.
func TestScalarsStayAsWritten(t *testing.T) {
	for _, text := range []string{"1.10", "010", "1_000", "0x1F", "yes", "true"} {
		c, err := Parse(filepath.Join(folder(t), "c.yaml"), []byte(strings.Replace(good, `"https://github.com/acme/*"`, text, 1)), env)
		if err != nil || c.Watches[0].Match[0].Subject[0] != text {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("a: [1, {b: c}]\n---\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		c, err := Parse("c.yaml", data, func(string) string { return "x" })
		if err == nil && len(c.Logs) == 0 {
			t.Fatal("accepted without a log")
		}
	})
}

// FuzzParseWatch: a rule of a stranger is one watch, which reaches nothing outside itself, or an error.
func FuzzParseWatch(f *testing.F) {
	f.Add([]byte("name: try\nmatch:\n  - subject: \"*@acme.example\"\nexpect:\n  - {subject: a@acme.example, issuer: https://accounts.google.com, at_most: {count: 1, per: 1h}}\n"))
	f.Add([]byte("name: ${HOME}\nmatch:\n  - digest: [${file:/etc/passwd}]\nsilence: 1h\n"))
	f.Add([]byte("a: &a [*a, *a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		w, err := ParseWatch("rule", data)
		if err != nil {
			return
		}
		one := watchlist.Watch{Name: w.Name}
		for _, it := range w.Match {
			one.Match = append(one.Match, watchlist.Item(it))
		}
		if _, err := watchlist.Compile([]watchlist.Watch{one}); w.Name == "" || len(w.Match) == 0 && err == nil {
			t.Errorf("%q is taken for %+v", data, w)
		}
	})
}

// FuzzParseSchedule: a schedule that is taken fires, and not more than once a second.
func FuzzParseSchedule(f *testing.F) {
	for _, text := range []string{"@hourly", "@every 1m30s", "*/5 9-17 * * 1-5", "TZ=Europe/Berlin 0 8 * * *", "0 0 30 2 *", "CRON_TZ=UTC @every 1s", "TZ="} {
		f.Add(text)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		defer bounds.Hold(t)()
		s, err := ParseSchedule(text)
		if err != nil {
			return
		}
		first := s.Next(now)
		if !first.After(now) || s.Next(first).Sub(first) < minEvery {
			t.Errorf("%q fires at %s and %s", text, first, s.Next(first))
		}
	})
}

// TestParseWatch: a rule from elsewhere stands for itself. It reaches no file, no environment
// variable, and no other part of a configuration, however it is written.
func TestParseWatch(t *testing.T) {
	const good = "name: try\nmatch:\n  - subject: \"*@acme.example\"\nexpect:\n  - {subject: a@acme.example, issuer: https://accounts.google.com, at_most: {count: 1, per: 1h}}\n"
	w, err := ParseWatch("rule", []byte(good))
	if err != nil || w.Name != "try" || len(w.Match) != 1 || len(w.Expect) != 1 {
		t.Fatalf("%+v, %v", w, err)
	}
	t.Setenv("SECRET", "from the environment")
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"expect: [{digests: {file: x, signed_by: /dev/zero}}]", "expect: [{digests: {file: x, tls_ca: " + file + "}}]", "expect: [{digests: {file: x, signed_by: env:SECRET}}]",
		"expect: [{digests: {file: x, signed_by: /nosuchfile}}]",
	} {
		_, err := ParseWatch("rule", []byte("name: try\nmatch: [{subject: a}]\n"+text))
		if err == nil || !strings.Contains(err.Error(), "reads no file") || strings.Contains(err.Error(), "no such file") {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{
		"", "a", "[]", "name: a\rstate: /tmp/x\rmatch: [{subject: a}]", "name: a\u0085state: x\nmatch: [{subject: a}]", "name: a\u2028state: x\nmatch: [{subject: a}]\u2028trust: {}",
		"name: a\nmatch: [{subject: a}]\nstate: x", "name: a\nmatch: [{subject: a}]\n---\nname: b", "watchlist: []",
	} {
		if w, err := ParseWatch("rule", []byte(text)); err == nil && strings.Contains(text, "state") && !strings.Contains(w.Name, "state") || err == nil && !strings.Contains(text, "state") {
			t.Errorf("%q is taken: %+v", text, w)
		}
	}
}

// TestEndlessFile: a file that says it is empty, and never ends, is not read to its end.
func TestEndlessFile(t *testing.T) {
	if _, err := readBounded("/dev/zero"); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("%v", err)
	}
}
