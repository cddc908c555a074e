package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/client"
	"github.com/sigwarden/sigwarden/monitor/web"
)

// TestServer: commands that ask a server say what they say of the state file, and the server
// knows who has decided.
func TestServer(t *testing.T) {
	s := newStory(t)
	s.config = "http: {listen: \"127.0.0.1:0\", access: {tokens: true}}\n"
	for range 3 {
		s.sign("https://github.com/acme/widget")
	}
	s.begin("https://github.com/acme/*")
	s.engine.Once(t.Context(), time.Minute)
	a := &app{getenv: os.Getenv, stdout: new(bytes.Buffer), stderr: new(bytes.Buffer), configPath: filepath.Join(s.dir, "c.yaml")}
	log := slog.New(slog.DiscardHandler)
	options, err := a.webOptions(t.Context(), s.setup, s.store, s.engine, s.setup.dispatcher(s.store, log), log)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(web.New(options).Handler())
	defer server.Close()
	command := func(token string, args ...string) (string, string, int) {
		var out, errs bytes.Buffer
		code := run(t.Context(), args, func(name string) string {
			if name == tokenVariable {
				return token
			}
			return os.Getenv(name)
		}, strings.NewReader(""), &out, &errs)
		return out.String(), errs.String(), code
	}
	local := func(args ...string) string {
		t.Helper()
		out, errs, code := command("", append(args, "-c", filepath.Join(s.dir, "c.yaml"))...)
		if code != 0 {
			t.Fatalf("%q: %d %s", args, code, errs)
		}
		return out
	}
	made := local("token", "create", "--name", "ci", "--scope", "read", "--scope", "triage", "--scope", "expect", "--expires", "1h")
	token := strings.TrimSpace(made)
	remote := func(args ...string) (string, string, int) {
		return command(token, append(args, "--server", server.URL)...)
	}
	for _, args := range [][]string{{"findings", "--json"}, {"findings", "--verdict", "unexpected", "--limit", "2", "--json"}, {"incidents", "--json"}} {
		got, errs, code := remote(args...)
		if want := local(args...); code != 0 || got != want {
			t.Errorf("%q: %d %s\n%s\nwant\n%s", args, code, errs, got, want)
		}
	}
	var list []monitor.Finding
	if err := json.Unmarshal([]byte(local("findings", "--json")), &list); err != nil || len(list) != 3 {
		t.Fatalf("%d findings, %v", len(list), err)
	}
	id := list[1].ID
	if got, errs, code := remote("findings", "show", id); code != 0 || strings.Contains(got, "c.yaml") || !strings.Contains(got, "https://github.com/acme/widget") {
		t.Errorf("%d %s\n%s", code, errs, got)
	}
	if _, errs, code := remote("findings", "ack", id, "--note", "seen"); code != 0 || !strings.Contains(errs, id+": acknowledged") {
		t.Errorf("%d %s", code, errs)
	}
	if _, errs, code := remote("findings", "ack", id, "--note", "seen"); code == 0 && !strings.Contains(errs, "acknowledged") {
		t.Errorf("%d %s", code, errs)
	}
	f, err := s.store.Finding(t.Context(), id)
	if err != nil || f.State != monitor.StateAcknowledged || !strings.HasPrefix(f.By, "token ci (") {
		t.Errorf("%s by %q, %v", f.State, f.By, err)
	}
	file := filepath.Join(s.dir, "f.zip")
	if _, errs, code := remote("evidence", "export", id, "-o", file); code != 0 {
		t.Errorf("%d %s", code, errs)
	}
	if out, errs, code := command("", "evidence", "verify", file, "--log-key", filepath.Join(s.dir, "log.pem")); code != 0 || !strings.Contains(out, "that tree contains the leaf") {
		t.Errorf("%d %s", code, errs)
	}
	if got, errs, code := remote("status"); code != 0 || !strings.Contains(got, "main") {
		t.Errorf("%d %s\n%s", code, errs, got)
	}
	if _, errs, code := remote("expect", "add", "--watch", "releases", "--digest", "sha256:"+strings.Repeat("ab", 32)); code != 0 || !strings.Contains(errs, "is expected for watch releases") {
		t.Errorf("%d %s", code, errs)
	}
	period := []string{"--since", "2026-01-01", "--until", "2026-01-02"}
	for _, args := range [][]string{{"audit", "list"}, {"audit", "list", "--json"}, {"audit", "--subject", id}, {"expect", "list"}, {"expect", "list", "--json"}, append([]string{"coverage"}, period...), append([]string{"coverage", "--json"}, period...)} {
		got, errs, code := remote(args...)
		if want := local(args...); code != 0 || got != want || got == "" {
			t.Errorf("%q: %d %s\n%s\nwant\n%s", args, code, errs, got, want)
		}
	}
	if _, errs, code := remote("coverage", "--since", "1d", "--log", "nosuch"); code != 1 || !strings.Contains(errs, "knows no log") {
		t.Errorf("%d %s", code, errs)
	}
	var announced []monitor.Announcement
	if err := json.Unmarshal([]byte(local("expect", "list", "--json")), &announced); err != nil || len(announced) != 1 {
		t.Fatalf("%+v, %v", announced, err)
	}
	if _, errs, code := remote("expect", "remove", announced[0].ID, "--note", "not today"); code != 0 || !strings.Contains(errs, "taken back") {
		t.Errorf("%d %s", code, errs)
	}
	if got := local("audit", "--subject", announced[0].ID); !strings.Contains(got, "token ci (") || !strings.Contains(got, "not today") {
		t.Errorf("%s", got)
	}
	c, err := client.New(server.URL+"/", token, nil)
	if err != nil {
		t.Fatal(err)
	}
	full, err := c.Finding(t.Context(), id)
	if err != nil || len(full.Proof) == 0 || full.SignedNote == "" || !bytes.Equal(full.Leaf, f.Leaf) || len(full.Proof) != len(f.Proof) || full.Proof[0] != f.Proof[0] {
		t.Errorf("%+v, %v", full, err)
	}
	if all, err := client.All(t.Context(), monitor.Filter{}, func(ctx context.Context, f monitor.Filter) (monitor.Page[monitor.Finding], error) {
		f.Limit = 1
		return c.Findings(ctx, f)
	}); err != nil || len(all) != 3 || all[0].ID != list[0].ID || all[2].ID != list[2].ID {
		t.Errorf("%d in pages of one, %v", len(all), err)
	}
	if _, err := c.Finding(t.Context(), "f-nothing"); !client.NotFound(err) {
		t.Errorf("%v", err)
	}
	// What is wrong is said.
	for _, tc := range []struct {
		token string
		args  []string
		code  int
		says  string
	}{
		{"guess", []string{"findings"}, 1, "401"}, {"", []string{"status"}, 1, "a token is needed"}, {token, []string{"findings", "show", "f-nothing"}, 1, "404"},
		{token, []string{"findings", "--verdict", "bad"}, 2, "is not known"}, {token, []string{"run"}, 2, "works on the state file"}, {token, []string{"report", "--since", "1d"}, 2, "works on the state file"},
		{token, []string{"evidence", "export", id, "-o", file, "--sign"}, 2, "made where the state is"},
	} {
		if _, errs, code := command(tc.token, append(tc.args, "--server", server.URL)...); code != tc.code || !strings.Contains(errs, tc.says) {
			t.Errorf("%q: %d %s", tc.args, code, errs)
		}
	}
	if _, errs, code := command(token, "status", "--server", "ftp://x"); code != 2 || !strings.Contains(errs, "is no address of a server") {
		t.Errorf("%d %s", code, errs)
	}
	s.crash()
}
