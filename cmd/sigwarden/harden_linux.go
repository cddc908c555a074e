package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps the memory of the process, which holds keys and tokens, to itself: no core is
// dumped, and other processes of the same user can neither trace it nor read its memory and
// environment. Programs that it starts may be traced again, and dump no core either.
func harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("core dumps and tracing could not be switched off: %w", err)
	}
	// Where this is not permitted, as in a sandbox, the line above is enough.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	return nil
}
