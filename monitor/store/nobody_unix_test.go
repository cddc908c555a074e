//go:build unix

package store

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// openAsNobody opens a state file in a process that is not root, to whom modes
// mean nothing, and returns what it printed.
func openAsNobody(t *testing.T, path string) string {
	t.Helper()
	c := exec.Command("/proc/self/exe", "-test.run", "^TestReadOnlyDisk$")
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		c.Path = os.Args[0]
	}
	c.Dir = "/"
	c.Env = append(os.Environ(), "SIGWARDEN_TEST_READONLY="+path)
	if os.Geteuid() == 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Skipf("cannot run as another user: %v %s", err, out)
	}
	return string(out)
}
