//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestFullDiskOfProgram: on a disk that is full, or becomes so, the program says that and ends with 1; once there is
// room the same work is done again.
func TestFullDiskOfProgram(t *testing.T) {
	full := 0
	for _, room := range []int64{0, 32 << 10, 64 << 10, 128 << 10, 512 << 10} {
		if onFullDisk(t, room) {
			full++
		}
	}
	if full < 3 {
		t.Errorf("the disk was full %d times", full)
	}
}

// onFullDisk lets the program go on when its disk has little room left, and reports whether that was too little.
func onFullDisk(t *testing.T, room int64) (full bool) {
	t.Helper()
	dir := t.TempDir()
	l, ours := killLog(t, dir, 1500)
	disk := filepath.Join(dir, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
		if os.Getenv("SIGWARDEN_E2E_REQUIRED") != "" {
			t.Fatalf("a small disk cannot be made: %v", err)
		}
		t.Skipf("a small disk cannot be made: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, 0) })
	config := filepath.Join(disk, "a.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, scriptConfig, "a", "file://"+filepath.ToSlash(filepath.Join(dir, "log"))), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.pem", "ca.pem"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(disk, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	once := func(entries uint64) (int, string) {
		t.Helper()
		part, err := l.Fork(entries)
		if err == nil {
			err = part.WriteDir(filepath.Join(dir, "log"))
		}
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		code := run(context.Background(), []string{"run", "--once", "-c", config}, func(string) string { return "" }, strings.NewReader(""), &out, &out)
		return code, out.String()
	}
	if code, out := once(600); code != exitFindings {
		t.Fatalf("%d: %s", code, out)
	}
	filler, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	info, statErr := filler.Stat()
	if statErr != nil || !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err, statErr)
	}
	if err := errors.Join(filler.Truncate(max(info.Size()-room, 0)), filler.Close()); err != nil {
		t.Fatal(err)
	}
	switch code, out := once(1500); code {
	case exitFailed:
		if full = true; !strings.Contains(out, "the disk is full. Nothing was lost: free some space; the same work is done again") {
			t.Errorf("with %d kB: %s", room>>10, out)
		}
	case exitFindings:
		return false
	default:
		t.Errorf("with %d kB: %d: %s", room>>10, code, out)
	}
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	if code, out := once(1500); code != exitFindings {
		t.Errorf("%d: %s", code, out)
	}
	audit(t, disk, ours, 1500)
	return full
}
