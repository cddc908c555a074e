package exec_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/exec"
	"github.com/sigwarden/sigwarden/notify/notifytest"
)

// script is a program of a few lines of shell.
func script(t *testing.T, text string) *exec.Channel {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the programs of these tests are shell scripts")
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := exec.New([]string{path, "an argument", "$(reboot)"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestProgram(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	t.Setenv("SLACK_TOKEN", "a-secret-of-ours")
	c := script(t, "cat > "+out+"\nenv > "+out+".env\nprintf '%s\\n' \"$@\" > "+out+".args\n")
	e := notifytest.Hostile()
	if err := c.Notify(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	var doc struct{ ID, Type string }
	if err != nil || json.Unmarshal(data, &doc) != nil || doc.ID != e.ID || doc.Type != e.Type {
		t.Errorf("%s, %v", data, err)
	}
	notifytest.Visible(t, "its input", string(data))
	env, _ := os.ReadFile(out + ".env")
	if strings.Contains(string(env), "a-secret-of-ours") || !strings.Contains(string(env), "SIGWARDEN_EVENT_ID="+e.ID) {
		t.Errorf("its environment: %s", env)
	}
	if args, _ := os.ReadFile(out + ".args"); string(args) != "an argument\n$(reboot)\n" {
		t.Errorf("its arguments: %s", args)
	}
}

func TestFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		text    string
		refused bool
		says    string
	}{
		"fails":            {"echo no room >&2; exit 1", false, "no room"},
		"fails for now":    {"exit 75", false, "75"},
		"refuses for good": {"echo never; exit 100", true, "never"},
		"is killed":        {"kill -9 $$", false, "killed"},
		"talks too much":   {"head -c 10000000 /dev/zero | tr '\\0' x; exit 1", false, "xxx"},
		"says odd things":  {"printf '\\033[2J\\r\\nevil'; exit 1", false, `\x1b[2J`},
	} {
		err := script(t, tc.text).Notify(context.Background(), notifytest.Hostile())
		if err == nil || errors.Is(err, notify.ErrRefused) != tc.refused || !strings.Contains(strings.ReplaceAll(err.Error(), `\\`, `\`), tc.says) || len(err.Error()) > 600 {
			t.Errorf("%s: %v", name, err)
		}
	}
	// One that does not read is no failure of its own.
	if err := script(t, "exit 0").Notify(context.Background(), notifytest.Hostile()); err != nil {
		t.Errorf("does not read: %v", err)
	}
	// Nor is one that leaves something behind which holds its output open.
	if err := script(t, "sleep 10 & exit 0").Notify(context.Background(), notifytest.Hostile()); err != nil {
		t.Errorf("leaves something behind: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	pid := filepath.Join(t.TempDir(), "pid")
	if err := script(t, "sleep 60 & echo $! > "+pid+"; sleep 60").Notify(ctx, notifytest.Hostile()); err == nil || !strings.Contains(err.Error(), "in time") {
		t.Errorf("hangs: %v", err)
	}
	data, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	// What it has started ends with it.
	for range 100 {
		if state, err := os.ReadFile("/proc/" + strings.TrimSpace(string(data)) + "/stat"); err != nil || strings.Contains(string(state), ") Z ") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("its child goes on")
}

func TestBadCommands(t *testing.T) {
	for _, command := range [][]string{nil, {""}, {"/no/such/program"}, {t.TempDir()}} {
		if _, err := exec.New(command); err == nil {
			t.Errorf("%q", command)
		}
	}
}
