// Package exec hands events to a program: the JSON of a webhook on its standard
// input. Status 0 means accepted, 75 (EX_TEMPFAIL) or any other that it is tried
// again, 100 that it is refused for good.
package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"time"

	"github.com/sigwarden/sigwarden/notify"
)

const (
	// refused is the status of a program that will never take an event.
	refused = 100
	// maxOutput bounds what is kept of what it says.
	maxOutput = 4 << 10
	// killAfter is how long it may take to end once it was asked to.
	killAfter = 2 * time.Second
)

// Channel is a program.
type Channel struct {
	command []string
	env     []string
}

// OneAtATime: a program does not run beside itself.
func (c *Channel) OneAtATime() bool { return true }

// New returns a channel that runs a command with its arguments; no shell reads
// them. Of the environment it has PATH, HOME, LANG and TMPDIR: credentials of ours
// are none of its business.
func New(command []string) (*Channel, error) {
	if len(command) == 0 || command[0] == "" {
		return nil, errors.New("command is empty")
	}
	path, err := osexec.LookPath(command[0])
	if err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	c := &Channel{command: append([]string{path}, command[1:]...)}
	for _, name := range []string{"PATH", "HOME", "LANG", "TMPDIR", "SystemRoot"} {
		if v, ok := os.LookupEnv(name); ok {
			c.env = append(c.env, name+"="+v)
		}
	}
	return c, nil
}

// Notify runs the program once. It is killed when ctx ends.
func (c *Channel) Notify(ctx context.Context, e notify.Event) error {
	body, err := e.Body(true)
	if err != nil {
		return fmt.Errorf("%w: %w", notify.ErrRefused, err)
	}
	cmd := osexec.CommandContext(ctx, c.command[0], c.command[1:]...)
	cmd.Env = append(c.env, "SIGWARDEN_EVENT_ID="+notify.Clean(e.ID, 100), "SIGWARDEN_EVENT_TYPE="+notify.Clean(e.Type, 100), "SIGWARDEN_SEVERITY="+notify.Clean(e.Severity, 20))
	cmd.Stdin = bytes.NewReader(append(body, '\n'))
	said := &bounded{}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.WaitDelay = killAfter
	own(cmd)
	err = cmd.Run()
	var exit *osexec.ExitError
	switch {
	case err == nil, errors.Is(err, osexec.ErrWaitDelay) && ctx.Err() == nil && cmd.ProcessState.Success():
		return nil // what it has left behind may go on writing; nobody listens
	case ctx.Err() != nil:
		return fmt.Errorf("the program did not end in time: %w", ctx.Err())
	case errors.As(err, &exit) && exit.ExitCode() == refused:
		return fmt.Errorf("%w: the program says %q", notify.ErrRefused, said.String())
	}
	return fmt.Errorf("the program failed (%w) and said %q", err, said.String())
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

func (b *bounded) String() string { return notify.Clean(b.Buffer.String(), 300) }
