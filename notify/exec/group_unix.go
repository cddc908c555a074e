//go:build unix

package exec

import (
	osexec "os/exec"
	"syscall"
)

// own makes the program the first of a process group of its own, all of which is
// killed with it: what it has started must not outlive it.
func own(cmd *osexec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
