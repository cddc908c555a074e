// Package file appends events to a file, or to standard output, as JSON lines.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/sigwarden/sigwarden/notify"
)

// Channel is a file of JSON lines.
type Channel struct {
	path   string
	stdout io.Writer
	// turn holds one token: who has it may write.
	turn chan struct{}
}

// New returns a channel that appends to path, or writes to stdout if that is "-".
func New(path string, stdout io.Writer) (*Channel, error) {
	if path == "" {
		return nil, fmt.Errorf("path is empty")
	}
	return &Channel{path: path, stdout: stdout, turn: make(chan struct{}, 1)}, nil
}

// Notify appends one line and waits until it is on the disk. The file is opened
// anew each time, so that it may be rotated. A reader that does not read, or a
// disk that hangs, is left behind when ctx ends.
func (c *Channel) Notify(ctx context.Context, e notify.Event) error {
	line, err := e.Body(true)
	if err != nil {
		return fmt.Errorf("%w: %w", notify.ErrRefused, err)
	}
	line = append(line, '\n')
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("an earlier line could not be written yet: %w", ctx.Err())
	}
	written := make(chan error, 1)
	go func() {
		written <- c.write(line)
		<-c.turn
	}()
	select {
	case err := <-written:
		return err
	case <-ctx.Done():
		return fmt.Errorf("nobody takes the line: %w", ctx.Err())
	}
}

func (c *Channel) write(line []byte) error {
	if c.path == "-" {
		_, err := c.stdout.Write(line)
		return err
	}
	f, err := os.OpenFile(c.path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrPermission) {
		// What may only be written to cannot be looked at.
		f, err = os.OpenFile(c.path, os.O_APPEND|os.O_WRONLY, 0o600)
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	regular := err == nil && info.Mode().IsRegular()
	if regular && torn(f, info.Size()) {
		line = append([]byte{'\n'}, line...)
	}
	_, err = f.Write(line)
	if regular { // pipes and terminals cannot be synced
		if syncErr := f.Sync(); err == nil {
			err = syncErr
		}
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// torn reports whether a file ends in the middle of a line: a crash or a full
// disk can cut a write short, and the next line must not become a part of that
// one.
func torn(f *os.File, size int64) bool {
	var last [1]byte
	if size == 0 {
		return false
	}
	_, err := f.ReadAt(last[:], size-1)
	return err == nil && last[0] != '\n'
}
