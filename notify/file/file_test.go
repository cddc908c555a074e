package file_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/notify/file"
	"github.com/sigwarden/sigwarden/notify/notifytest"
)

func TestLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alerts.jsonl")
	var stdout bytes.Buffer
	for _, name := range []string{path, "-"} {
		c, err := file.New(name, &stdout)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := c.Notify(context.Background(), notifytest.Hostile()); err != nil {
				t.Fatal(err)
			}
		}
	}
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(data, stdout.Bytes()) {
		t.Fatalf("file and standard output differ: %v", err)
	}
	notifytest.Visible(t, "the file", string(data))
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	for _, line := range lines {
		var doc map[string]any
		if err := json.Unmarshal([]byte(line), &doc); err != nil || doc["id"] != "e-hostile" || doc["type"] != "finding.unexpected" {
			t.Errorf("line %q: %v", line, err)
		}
	}
	if len(lines) != 3 {
		t.Errorf("%d lines", len(lines))
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	c, _ := file.New(filepath.Join(t.TempDir(), "none", "x"), nil)
	if c.Notify(context.Background(), notifytest.Hostile()) == nil {
		t.Error("wrote into a folder that does not exist")
	}
	if _, err := file.New("", nil); err == nil {
		t.Error("empty path accepted")
	}
}

// TestTorn cuts the last line short, as a crash in the middle of a write does:
// what is written next must be a line of its own.
func TestTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alerts.jsonl")
	c, err := file.New(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	notify := func() {
		t.Helper()
		if err := c.Notify(context.Background(), notifytest.Hostile()); err != nil {
			t.Fatal(err)
		}
	}
	notify()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{1, 10, len(whole) - 1} {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		notify()
		notify()
		want := string(whole[:cut]) + "\n" + string(whole) + string(whole)
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("cut after %d bytes: %q, %v", cut, got, err)
		}
	}
}

// TestNobodyReads writes into a pipe without a reader, and to devices that
// cannot be synced.
func TestNobodyReads(t *testing.T) {
	r, w := io.Pipe()
	defer r.Close()
	c, err := file.New("-", w)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if err := c.Notify(ctx, notifytest.Hostile()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want that the wait was cut short", err)
		}
		cancel()
	}
	if runtime.GOOS == "windows" {
		return
	}
	c, err = file.New("/dev/null", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Notify(context.Background(), notifytest.Hostile()); err != nil {
		t.Errorf("a device that cannot be synced: %v", err)
	}
}
