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

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
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

// smallDisk is a disk of its own with a state on it.
type smallDisk struct {
	dir  string
	log  string
	tree *locallog.Log
	ours map[uint64]bool
}

func newSmallDisk(t *testing.T) *smallDisk {
	t.Helper()
	d := &smallDisk{dir: t.TempDir(), log: filepath.Join(t.TempDir(), "log")}
	if err := syscall.Mount("tmpfs", d.dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("a small disk cannot be made: %v", err) // that takes root, and more than a container is given
	}
	t.Cleanup(func() { syscall.Unmount(d.dir, 0) })
	d.tree, d.ours = killLog(t, d.dir, 1500)
	if err := os.WriteFile(filepath.Join(d.dir, "a.yaml"), fmt.Appendf(nil, scriptConfig, "a", "file://"+filepath.ToSlash(d.log)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := d.once(t, 600); code != exitFindings {
		t.Fatalf("%d: %s", code, out)
	}
	return d
}

// once lets the program read the first entries of the log.
func (d *smallDisk) once(t *testing.T, entries uint64) (code int, said string) {
	t.Helper()
	part, err := d.tree.Fork(entries)
	if err == nil {
		err = part.WriteDir(d.log)
	}
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code = run(context.Background(), []string{"run", "--once", "-c", filepath.Join(d.dir, "a.yaml")}, func(string) string { return "" }, strings.NewReader(""), &out, &out)
	return code, out.String()
}

// TestReadOnlyDiskOfProgram: a disk that the kernel has made read-only, as it does after errors.
func TestReadOnlyDiskOfProgram(t *testing.T) {
	d := newSmallDisk(t)
	remount := func(how uintptr) {
		t.Helper()
		if err := syscall.Mount("", d.dir, "", syscall.MS_REMOUNT|how, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	if code, out := d.once(t, 1500); code != exitFailed || !strings.Contains(out, "read-only") || !strings.Contains(out, "a.db") {
		t.Errorf("%d: %s", code, out)
	}
	remount(0)
	if code, out := d.once(t, 1500); code != exitFindings {
		t.Errorf("%d: %s", code, out)
	}
	audit(t, d.dir, d.ours, 1500)
}

// onFullDisk lets the program go on when its disk has little room left, and reports whether that was too little.
func onFullDisk(t *testing.T, room int64) (full bool) {
	t.Helper()
	d := newSmallDisk(t)
	filler, err := os.Create(filepath.Join(d.dir, "filler"))
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
	switch code, out := d.once(t, 1500); code {
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
	if code, out := d.once(t, 1500); code != exitFindings {
		t.Errorf("%d: %s", code, out)
	}
	audit(t, d.dir, d.ours, 1500)
	return full
}
