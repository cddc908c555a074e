package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// lines are what a program says, while it goes on.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// TestReload: the real program takes configurations while its log grows, and refuses wrong ones;
// each entry of ours is found once, by the watches that were in force.
func TestReload(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGHUP")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "sigwarden")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	full, ours := killLog(t, dir, 6000)
	grow := func(n uint64) *locallog.Log {
		t.Helper()
		part, err := full.Fork(n)
		if err == nil {
			err = part.WriteDir(filepath.Join(dir, "log"))
		}
		if err != nil {
			t.Fatal(err)
		}
		return part
	}
	grow(1000)
	path := filepath.Join(dir, "a.yaml")
	base := "schedule: '@every 1s'\n" + fmt.Sprintf(scriptConfig, "a", "file://"+filepath.ToSlash(filepath.Join(dir, "log")))
	write := func(more string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(base+more), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	command := func(want int, args ...string) string {
		t.Helper()
		c := exec.Command(bin, append(args, "-c", path)...)
		c.Dir = dir
		out, _ := c.CombinedOutput()
		if got := c.ProcessState.ExitCode(); got != want {
			t.Fatalf("%v: status %d, want %d\n%s", args, got, want, out)
		}
		return string(out)
	}
	if out := command(exitFailed, "config", "reload"); !strings.Contains(out, "no daemon runs") {
		t.Error(out)
	}
	var said lines
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	daemon := exec.CommandContext(ctx, bin, "run", "-c", path)
	daemon.Dir, daemon.Stderr = dir, &said
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer daemon.Wait()
	defer cancel()
	hear := func(n int, text string) {
		t.Helper()
		for stop := time.Now().Add(time.Minute); strings.Count(said.String(), text) < n; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(stop) {
				t.Fatalf("not said %d times: %s\n%s", n, text, said.String())
			}
		}
	}
	hear(1, "following logs")

	// By command, in force when it returns.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	grow(2000)
	write("http: {listen: '127.0.0.1:0'}\n")
	if out := command(exitOK, "config", "reload"); !strings.Contains(out, "in force") {
		t.Error(out)
	}
	hear(1, "the new configuration is in force")
	hear(1, "serving health")

	// By signal.
	grow(3000)
	write("")
	daemon.Process.Signal(syscall.SIGHUP)
	hear(2, "the new configuration is in force")

	// What is wrong is refused: by the command itself, by the daemon, and where it shows only when
	// it is put in force.
	grow(4000)
	write("nonsense: 1\n")
	if out := command(exitUsage, "config", "reload"); !strings.Contains(out, "nonsense") {
		t.Error(out)
	}
	daemon.Process.Signal(syscall.SIGHUP)
	hear(1, "the new configuration is refused, and the old one goes on")
	write("http: {listen: '" + listener.Addr().String() + "'}\n")
	if out := command(exitUsage, "config", "reload"); !strings.Contains(out, "the daemon refuses the configuration") || !strings.Contains(out, "address already in use") {
		t.Error(out)
	}
	hear(1, "could not be put in force, and the old one goes on")
	os.WriteFile(path, []byte(strings.Replace(base, "a.db", "other.db", 1)), 0o600)
	daemon.Process.Signal(syscall.SIGHUP)
	hear(1, "start it again, to change that")

	// The old one has gone on, and a good one is taken again.
	grow(5000)
	write("")
	command(exitOK, "config", "reload")
	hear(3, "the new configuration is in force")
	grow(6000)
	for stop := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		out := command(exitOK, "status", "--json")
		if strings.Contains(out, `"scanned": 6000`) {
			break
		}
		if time.Now().After(stop) {
			t.Fatalf("%s\n%s", out, said.String())
		}
	}
	daemon.Process.Signal(os.Interrupt)
	if err := daemon.Wait(); err != nil {
		t.Errorf("%v\n%s", err, said.String())
	}
	audit(t, dir, ours, 6000)
	if left, _ := filepath.Glob(filepath.Join(dir, "*-reload*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
