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
// reads neither its environment nor its memory, and cannot trace it. The same questions
// about a program that does nothing against it are answered.
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
	config := filepath.Join(dir, "a.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, scriptConfig, "a", silent.URL), 0o644); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain")
	if data, err := os.ReadFile("/bin/sleep"); err != nil || os.WriteFile(plain, data, 0o755) != nil {
		t.Skip("there is no sleep")
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
			lines := bufio.NewScanner(stderr)
			for lines.Scan() && !strings.Contains(lines.Text(), "following logs") {
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
		out, err := asStranger(exec.Command("cat", fmt.Sprintf("/proc/%d/%s", c.Process.Pid, file))).CombinedOutput()
		return fmt.Sprint(string(out), err)
	}
	if got := read(other, "environ"); !strings.Contains(got, "in-the-environment") {
		t.Skipf("processes of one user cannot read each other here: %s", got)
	}
	if got := read(daemon, "environ"); strings.Contains(got, "in-the-environment") || !strings.Contains(got, "denied") {
		t.Errorf("its environment can be read: %q", got)
	}
	if got := read(daemon, "mem"); !strings.Contains(got, "denied") {
		t.Errorf("its memory can be read: %q", got)
	}
	if got := read(daemon, "maps"); strings.Contains(got, "[stack]") {
		t.Errorf("it can be seen where what is in its memory: %q", got)
	}
	if out, err := exec.LookPath("strace"); err == nil {
		said, err := asStranger(exec.Command("timeout", "5", out, "-p", fmt.Sprint(daemon.Process.Pid))).CombinedOutput()
		if err == nil || !strings.Contains(string(said), "not permitted") {
			t.Errorf("it can be traced: %s, %v", said, err)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", daemon.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if strings.HasPrefix(line, "Max core file size") && strings.Join(strings.Fields(line)[4:6], " ") != "0 0" {
			t.Errorf("cores are dumped: %s", line)
		}
	}
}
