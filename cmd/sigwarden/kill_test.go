package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// TestKill kills the real program at random moments of a scan: at the end each
// finding is there exactly once, each alert was sent at least once, and the
// coverage has no gap. SIGWARDEN_KILLS says how often it is killed at least.
func TestKill(t *testing.T) {
	kills, entries := 200, 50000
	if testing.Short() {
		kills, entries = 15, 10000
	}
	if n, err := strconv.Atoi(os.Getenv("SIGWARDEN_KILLS")); err == nil {
		kills = n
	}
	bin := filepath.Join(t.TempDir(), "sigwarden")
	if runtime.GOOS == "windows" {
		bin += ".exe"
	}
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir := t.TempDir()
	l, ours := killLog(t, dir, entries)
	config := fmt.Sprintf(scriptConfig, "a", "file://"+filepath.ToSlash(filepath.Join(dir, "log")))
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, uint64(kills)))
	killed, rounds := 0, 0
	for ; killed < kills; rounds++ {
		// Each round begins with nothing, and the log grows while it is read.
		for _, name := range []string{"a.db", "a.db-wal", "a.db-shm", "a.jsonl"} {
			os.Remove(filepath.Join(dir, name))
		}
		const stages = 5
		for stage := 1; stage <= stages; stage++ {
			part, err := l.Fork(uint64(entries * stage / stages))
			if err != nil {
				t.Fatal(err)
			}
			if err := part.WriteDir(filepath.Join(dir, "log")); err != nil {
				t.Fatal(err)
			}
			for finished := false; !finished; {
				wait := time.Duration(rng.Int64N(int64(200 * time.Millisecond)))
				finished = killAfter(t, bin, filepath.Join(dir, "a.yaml"), wait)
				if !finished {
					killed++
				}
			}
		}
		audit(t, dir, ours, entries)
	}
	t.Logf("%d kills in %d scans of %d entries", killed, rounds, entries)
}

// killAfter runs the program and kills it after a while, unless it has
// finished by then.
func killAfter(t *testing.T, bin, config string, wait time.Duration) (finished bool) {
	t.Helper()
	c := exec.Command(bin, "run", "--once", "-c", config)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case <-time.After(wait):
		c.Process.Signal(syscall.SIGKILL)
		<-done
		return false
	case <-done:
	}
	if code := c.ProcessState.ExitCode(); code != exitOK && code != exitFindings {
		t.Fatalf("exit status %d\n%s", code, stderr.String())
	}
	return true
}

// killLog makes a log of many entries, every 500th of them ours and unexpected.
func killLog(t *testing.T, dir string, entries int) (*locallog.Log, map[uint64]bool) {
	t.Helper()
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, err := locallog.New("a.acme.example")
	if err != nil {
		t.Fatal(err)
	}
	logs := &logs{ca: ca}
	ours := map[uint64]bool{}
	other, err := ca.Issue(testca.Identity{URI: "https://github.com/somebody/else", Issuer: demoIssuer})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := other.HashedRekord([]byte("artifact"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range entries {
		if i%500 == 499 {
			ours[uint64(i)] = true
			if err := logs.sign(l, "unexpected"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		// JSON may end in white space: that makes entries differ.
		if _, err := l.Append(fmt.Appendf(leaf[:len(leaf):len(leaf)], "%*s", i%300, "")); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"ca.pem": ca.ChainPEM(), "a.pem": l.PublicKeyPEM()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return l, ours
}

func audit(t *testing.T, dir string, ours map[uint64]bool, entries int) {
	t.Helper()
	ctx := context.Background()
	st, err := store.Open(ctx, filepath.Join(dir, "a.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	findings, err := st.Findings(ctx, store.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]string{}
	for _, f := range findings {
		if _, twice := seen[f.Index]; twice || !ours[f.Index] {
			t.Errorf("finding at %d is there twice, or is not ours", f.Index)
		}
		seen[f.Index] = f.ID
	}
	if len(seen) != len(ours) {
		t.Errorf("%d findings, want %d", len(seen), len(ours))
	}
	data, err := os.ReadFile(filepath.Join(dir, "a.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	alerts := map[string]int{}
	for _, line := range bytes.Split(bytes.TrimSpace(data), []byte("\n")) {
		var e struct {
			Data struct{ Finding struct{ ID string } }
		}
		if err := json.Unmarshal(line, &e); err != nil {
			continue // cut off by a kill in the middle of a write; it was sent again
		}
		alerts[e.Data.Finding.ID]++
	}
	for index, id := range seen {
		if alerts[id] == 0 {
			t.Errorf("entry %d was never told of", index)
		}
	}
	s := &app{getenv: os.Getenv, stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}, configPath: filepath.Join(dir, "a.yaml")}
	setup, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	engine, err := setup.engine(ctx, st, s.logger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	status, err := engine.Status(ctx, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := status.Logs[0]
	if len(l.Coverage) != 1 || l.Coverage[0] != (monitor.Range{From: 0, To: uint64(entries)}) || len(l.Gaps) != 0 || l.Entries != uint64(entries) {
		t.Errorf("coverage %v, gaps %v, %d entries read", l.Coverage, l.Gaps, l.Entries)
	}
}
