//go:build linux

package main

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asStranger makes a command one of a user to whom modes mean something, if this is root.
func asStranger(c *exec.Cmd) *exec.Cmd {
	if os.Geteuid() == 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	return c
}

// TestMemoryIsOurs: the running daemon leaves no core, and another process of its own user
// reads neither its environment nor its memory, and cannot trace it. What cannot be learned of a
// program that does nothing against it either shows nothing, and is said.
func TestMemoryIsOurs(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the program, which the race detector does not see")
	}
	dir, err := os.MkdirTemp("", "sigwarden-harden-") // that others can enter, unlike t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "sigwarden")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	silent := httptest.NewServer(http.NotFoundHandler())
	defer silent.Close()
	killLog(t, dir, 1) // its keys
	for _, name := range []string{"a.pem", "ca.pem"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "a.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, scriptConfig, "a", silent.URL), 0o644); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "sleep") // which may be one of many names of a program
	if data, err := os.ReadFile("/bin/sleep"); err != nil || os.WriteFile(plain, data, 0o755) != nil {
		t.Fatal("there is no sleep")
	}
	start := func(name string, args ...string) *exec.Cmd {
		t.Helper()
		// Whoever starts it lets it leave cores.
		c := asStranger(exec.Command("/bin/sh", append([]string{"-c", `ulimit -S -c "$(ulimit -H -c)"; exec "$@"`, "sh", name}, args...)...))
		c.Dir, c.Env = dir, []string{"CANARY=in-the-environment", "HOME=" + dir, "PATH=/usr/bin:/bin"}
		stderr, err := c.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Skipf("cannot run as another user: %v", err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		if name == bin {
			lines, said := bufio.NewScanner(stderr), ""
			for lines.Scan() && !strings.Contains(lines.Text(), "following logs") {
				said += lines.Text() + "\n"
			}
			if !running(c) {
				t.Fatalf("it has ended: %s", said)
			}
			go func() {
				for lines.Scan() {
				}
			}()
		}
		return c
	}
	daemon, other := start(bin, "run", "-c", config), start(plain, "60")
	time.Sleep(100 * time.Millisecond) // until the other one has become sleep
	read := func(c *exec.Cmd, file string) string {
		cat := asStranger(exec.Command("cat", fmt.Sprintf("/proc/%d/%s", c.Process.Pid, file)))
		cat.Env = append(os.Environ(), "LC_ALL=C")
		out, err := cat.CombinedOutput()
		return fmt.Sprint(string(out), err)
	}
	shown := 0
	for what, answered := range map[string]func(*exec.Cmd) bool{
		"what is in its environment":    func(c *exec.Cmd) bool { return strings.Contains(read(c, "environ"), "in-the-environment") },
		"what is in its memory":         func(c *exec.Cmd) bool { return !strings.Contains(read(c, "mem"), "denied") }, // nothing is at its beginning
		"where what is in its memory":   func(c *exec.Cmd) bool { return strings.Contains(read(c, "maps"), "[stack]") },
		"what it does, step by step":    traced,
		"what it held, in a core of it": func(c *exec.Cmd) bool { return leavesCores(t, c) },
	} {
		if !answered(other) {
			t.Logf("%s cannot be learned of any process here: not shown", what)
			continue
		}
		if shown++; answered(daemon) {
			t.Errorf("another process of its user can learn %s", what)
		}
	}
	switch {
	case !running(daemon) || !running(other):
		t.Error("one of them has ended meanwhile, and nobody learns anything of that")
	case shown == 0 && os.Getenv("SIGWARDEN_E2E_REQUIRED") != "":
		t.Error("nothing can be learned of any process here, so that nothing is shown")
	case shown == 0:
		t.Skip("nothing can be learned of any process here, so that nothing is shown")
	}
}

// running reports whether a process has not ended: what has has no command line.
func running(c *exec.Cmd) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.Process.Pid))
	return err == nil && len(line) > 0
}

// traced reports whether a process can be traced.
func traced(c *exec.Cmd) bool {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return false
	}
	said, _ := asStranger(exec.Command("timeout", "-s", "INT", "1", strace, "-p", fmt.Sprint(c.Process.Pid))).CombinedOutput()
	return strings.Contains(string(said), "attached")
}

// leavesCores reports whether a process leaves a core if it is ended so.
func leavesCores(t *testing.T, c *exec.Cmd) bool {
	t.Helper()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if strings.HasPrefix(line, "Max core file size") {
			return strings.Fields(line)[4] != "0"
		}
	}
	t.Fatalf("no limit of cores: %s", limits)
	return false
}
