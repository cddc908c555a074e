// Package file appends events to a file, or to standard output, as JSON lines.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/sigwarden/sigwarden/notify"
)

// Channel is a file of JSON lines.
type Channel struct {
	path   string
	stdout io.Writer
	mu     sync.Mutex
}

// New returns a channel that appends to path, or writes to stdout if that is "-".
func New(path string, stdout io.Writer) (*Channel, error) {
	if path == "" {
		return nil, fmt.Errorf("path is empty")
	}
	return &Channel{path: path, stdout: stdout}, nil
}

// Notify appends one line and waits until it is on the disk. The file is opened
// anew each time, so that it may be rotated.
func (c *Channel) Notify(_ context.Context, e notify.Event) error {
	line, err := e.Body(true)
	if err != nil {
		return fmt.Errorf("%w: %w", notify.ErrRefused, err)
	}
	line = append(line, '\n')
	c.mu.Lock()
	defer c.mu.Unlock()
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
	if torn(f) {
		line = append([]byte{'\n'}, line...)
	}
	_, err = f.Write(line)
	if syncErr := f.Sync(); err == nil {
		err = syncErr
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// torn reports whether a file ends in the middle of a line: a crash can cut a
// write short, and the next line must not become a part of that one.
func torn(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], info.Size()-1)
	return err == nil && last[0] != '\n'
}
