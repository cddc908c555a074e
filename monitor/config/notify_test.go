package config

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const telling = `logs: []
watchlist:
  - name: releases
    match: [{subject: "*@acme.example"}]
    silence: 36h
    expect:
      - subject: "*@acme.example"
        issuer: https://accounts.google.com
        digests: {url: "https://acme.example/SHA256SUMS", every: 5m, grace: 10m, signed_by: {subject: "*@acme.example", issuer: https://accounts.google.com}}
        at_most: {count: 5, per: 1h}
        once_per: digest
        between: "09:00-18:00 Europe/Berlin Mon-Fri"
        valid: {from: 2026-01-01, until: "2026-07-01T12:00:00+02:00"}
notify:
  escalate_after: 1h
  escalate_to: [pager]
  heartbeat: {url: env:URL}
  channels:
    - name: chat
      slack: {webhook: env:URL}
      hears: {severity: high, watch: releases, class: [finding, integrity], kind: unexpected}
      group_window: 5m
      quiet: {hours: "22:00-07:00 UTC"}
      digest: {schedule: "@daily"}
      self_test: "@weekly"
      template: {title: "{{.Title}}"}
    - name: pager
      pagerduty: {routing_key: env:URL}
    - name: program
      exec: {command: [/bin/true, --now]}
    - name: push
      ntfy: {url: env:URL}
http: {listen: "127.0.0.1:8480", public_url: "https://sigwarden.acme.example"}
`

func TestTelling(t *testing.T) {
	c, err := Parse(filepath.Join(t.TempDir(), "c.yaml"), []byte(telling), env)
	if err != nil {
		t.Fatal(err)
	}
	w := c.Watches[0]
	terms := w.Terms[0]
	if w.Silence != 36*time.Hour || len(w.Terms) != len(w.Expect) || terms.AtMost.Count != 5 || terms.AtMost.Per != time.Hour || terms.OncePer != "digest" || len(terms.Between) != 1 {
		t.Errorf("%+v", w)
	}
	if d := terms.Digests; d.Every != 5*time.Minute || d.Grace != 10*time.Minute || len(d.Subject) != 1 || d.Key != "" {
		t.Errorf("%+v", d)
	}
	if terms.From.UTC() != time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) || terms.Until.UTC() != time.Date(2026, 7, 1, 10, 0, 0, 0, time.UTC) {
		t.Errorf("%s to %s", terms.From, terms.Until)
	}
	n := c.Notify
	if n.EscalateAfter != time.Hour || n.EscalateTo[0] != "pager" || n.Heartbeat.Every != 5*time.Minute || n.Heartbeat.URL.Reveal() != env("URL") || c.HTTP.PublicURL == "" {
		t.Errorf("%+v", n)
	}
	chat := n.Channels[0]
	if chat.Hears.Severity != "high" || chat.Hears.Watches[0] != "releases" || len(chat.Hears.Classes) != 2 || chat.GroupWindow != 5*time.Minute || chat.Quiet.Below != "high" || chat.Digest.Below != "medium" || chat.SelfTest.Schedule == nil || chat.Template.Title == "" {
		t.Errorf("%+v", chat)
	}
	if n.Channels[1].GroupWindow != 10*time.Minute || n.Channels[2].GroupWindow != 0 || n.Channels[3].Kind != "ntfy" || n.Channels[3].Service == nil {
		t.Errorf("%+v", n.Channels[1:])
	}
}

func TestBadTelling(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct{ old, new, want string }{
		{"silence: 36h", "silence: long", "is no time"},
		{", signed_by: {subject: \"*@acme.example\", issuer: https://accounts.google.com}", "", "whoever serves the list"},
		{", issuer: https://accounts.google.com}}", "}}", `has no "issuer"`},
		{`url: "https://acme.example/SHA256SUMS"`, `url: "https://acme.example/SHA256SUMS", file: x`, "either a file or a url"},
		{`url: "https://acme.example/SHA256SUMS"`, `url: "ftp://acme.example/SHA256SUMS"`, "no http:// or https://"},
		{`url: "https://acme.example/SHA256SUMS"`, `url: "https://u:p@acme.example/SHA256SUMS"`, "no http:// or https://"},
		{"{count: 5, per: 1h}", "{count: 0, per: 1h}", "no whole number"},
		{"{count: 5, per: 1h}", "{count: 5}", `has no "per"`},
		{"from: 2026-01-01,", "from: soon,", "is no time"},
		{"from: 2026-01-01,", "from: 2027-01-01,", "the first one earlier"},
		{`{from: 2026-01-01, until: "2026-07-01T12:00:00+02:00"}`, "{}", "a time from which"},
		{"escalate_to: [pager]", "", "need each other"},
		{"escalate_to: [pager]", "escalate_to: [pagr]", `did you mean "pager"`},
		{"heartbeat: {url: env:URL}", "heartbeat: {url: nowhere}", "no http:// or https://"},
		{"severity: high, watch: releases", "severity: highest, watch: releases", "no severity"},
		{"watch: releases", "watch: release", `did you mean "releases"`},
		{"class: [finding, integrity]", "class: [findings]", `did you mean "finding"`},
		{`schedule: "@daily"`, `schedule: "0 0 30 2 *"`, "never fires"},
		{"self_test: \"@weekly\"", "self_test: weekly", "not a schedule"},
		{"exec: {command: [/bin/true, --now]}", "exec: {command: [/bin/true]}\n      group_window: 1m", "every event as it is"},
		{"exec: {command: [/bin/true, --now]}", "exec: {command: []}", "empty list"},
		{"public_url: \"https://sigwarden.acme.example\"", "public_url: sigwarden", "no http:// or https://"},
		{"once_per: digest", "once_pre: digest", `did you mean "once_per"`},
	} {
		text := strings.Replace(telling, tc.old, tc.new, 1)
		if text == telling {
			t.Fatalf("%q is not in the configuration", tc.old)
		}
		_, err := Parse(filepath.Join(dir, "c.yaml"), []byte(text), env)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), tc.want) || e.Issues[0].Line == 0 {
			t.Errorf("%q: want %q, got %v", tc.new, tc.want, err)
		}
	}
}
