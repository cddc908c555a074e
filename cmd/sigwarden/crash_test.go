//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sigwarden/sigwarden/monitor/store"
)

// crasher runs a program that ends itself at a place.
type crasher struct {
	t      *testing.T
	bin    string
	dir    string
	list   string // the places that were passed are added to this file
	at     string // the place; emptied once it was reached
	killed bool
}

// run runs a command until it comes to its end, and returns its status and what it printed.
func (c *crasher) run(args ...string) (code int, out string) {
	c.t.Helper()
	for range 3 {
		cmd := exec.Command(c.bin, append(args, "-c", filepath.Join(c.dir, "a.yaml"))...)
		cmd.Dir = c.dir
		cmd.Env = append(os.Environ(), "SIGWARDEN_CRASH_LIST="+c.list, "SIGWARDEN_CRASH="+c.at)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			c.t.Fatal(err)
		}
		if state, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && state.Signaled() {
			if c.at == "" {
				c.t.Fatalf("it ended by itself: %v", cmd.ProcessState)
			}
			c.at, c.killed = "", true
			continue
		}
		return cmd.ProcessState.ExitCode(), said.String()
	}
	c.t.Fatal("it does not come to its end")
	return 0, ""
}

// must runs a command that has to end with one of some statuses.
func (c *crasher) must(args []string, codes ...int) string {
	c.t.Helper()
	code, out := c.run(args...)
	if !slices.Contains(codes, code) {
		c.t.Fatalf("at %q: %q ended with %d:\n%s", c.at, args, code, out)
	}
	return out
}

// TestCrashPoints ends the real program before and after each effect that outlives it, the
// first time and the last that it comes by (each time with SIGWARDEN_THOROUGH=1), and lets it go on: nothing is lost, nothing is
// there twice, everything is told.
func TestCrashPoints(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the program, which the race detector does not see")
	}
	bin := filepath.Join(t.TempDir(), "sigwarden")
	if out, err := exec.Command("go", "build", "-tags", "crashpoints", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	made := t.TempDir()
	const entries = 1500
	l, ours := killLog(t, made, entries)
	if err := os.WriteFile(filepath.Join(made, "a.yaml"), fmt.Appendf(nil, scriptConfig, "a", "file://"+filepath.ToSlash(filepath.Join(made, "log"))), 0o600); err != nil {
		t.Fatal(err)
	}
	grow := func(dir string, n int) {
		t.Helper()
		part, err := l.Fork(uint64(n))
		if err == nil {
			err = part.WriteDir(filepath.Join(dir, "log"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	scan := func(c *crasher) {
		for stage := 1; stage <= 3; stage++ {
			grow(c.dir, entries*stage/3)
			c.must([]string{"run", "--once"}, exitOK, exitFindings)
		}
		audit(c.t, c.dir, ours, entries)
		c.must([]string{"ledger", "verify"}, exitOK)
	}
	// What people do, with a state that a scan has left.
	people := func(c *crasher) {
		id := finding(c.t, c.dir)
		// Who decides twice is told that it is decided.
		c.must([]string{"findings", "ack", id, "--note", "seen"}, exitOK, exitFailed, exitUsage)
		c.must([]string{"expect", "add", "--watch", "releases", "--digest", "sha256:" + strings.Repeat("ab", 32), "--note", "soon"}, exitOK)
		c.must([]string{"report", "--since", "2d", "-o", filepath.Join(c.dir, "report.md"), "--sign"}, exitOK)
		// A backup that is there is not replaced.
		c.must([]string{"backup", filepath.Join(c.dir, "copy.db")}, exitOK, exitFailed)
		if st, err := store.Open(context.Background(), filepath.Join(c.dir, "copy.db"), store.Options{}); err != nil {
			c.t.Error(err)
		} else {
			if err := st.Check(context.Background()); err != nil {
				c.t.Error(err)
			}
			st.Close()
		}
		if list := c.must([]string{"findings", "list", "--state", "acknowledged"}, exitOK); !strings.Contains(list, id) {
			c.t.Errorf("%s is not acknowledged:\n%s", id, list)
		}
		if list := c.must([]string{"expect", "list"}, exitOK); !strings.Contains(list, "soon") {
			c.t.Errorf("nothing is announced:\n%s", list)
		}
		c.must([]string{"audit", "verify"}, exitOK)
		signed, err := os.ReadFile(filepath.Join(c.dir, "report.md.sigstore.json"))
		if err != nil || !json.Valid(signed) {
			c.t.Errorf("the signature of the report: %v, %q", err, signed)
		}
		if err := os.Remove(filepath.Join(c.dir, "copy.db")); err != nil {
			c.t.Error(err)
		}
		audit(c.t, c.dir, ours, entries)
	}
	// A copy takes the place of the state; then the log is read on from there.
	restore := func(c *crasher) {
		c.must([]string{"restore", filepath.Join(c.dir, "copy.db"), "--note", "test"}, exitOK)
		c.must([]string{"run", "--once"}, exitOK, exitFindings, exitFailed)
		c.must([]string{"run", "--once"}, exitOK, exitFindings)
		audit(c.t, c.dir, ours, entries)
	}
	// Prepared states, made without any crash.
	scanned := t.TempDir()
	copyDir(t, made, scanned)
	before := &crasher{t: t, bin: bin, dir: scanned}
	retarget(t, scanned)
	scan(before)
	backedUp := t.TempDir()
	copyDir(t, scanned, backedUp)
	retarget(t, backedUp)
	before.dir = backedUp
	before.must([]string{"backup", filepath.Join(backedUp, "copy.db")}, exitOK)

	for _, s := range []struct {
		name string
		from string
		do   func(*crasher)
	}{{"scan", made, scan}, {"people", scanned, people}, {"restore", backedUp, restore}} {
		t.Run(s.name, func(t *testing.T) {
			fresh := func(t *testing.T) *crasher {
				dir := t.TempDir()
				copyDir(t, s.from, dir)
				retarget(t, dir)
				return &crasher{t: t, bin: bin, dir: dir, list: filepath.Join(dir, "places")}
			}
			c := fresh(t)
			s.do(c)
			places := passes(t, c.list)
			if len(places) < 4 {
				t.Fatalf("places: %v", places)
			}
			done := 0
			for _, place := range slices.Sorted(maps.Keys(places)) {
				nths := slices.Compact([]int{1, places[place]})
				if os.Getenv("SIGWARDEN_THOROUGH") != "" {
					nths = nil
					for n := range places[place] {
						nths = append(nths, n+1)
					}
				}
				for _, nth := range nths {
					c := fresh(t)
					c.at = place + "#" + strconv.Itoa(nth)
					name := c.at
					s.do(c)
					if t.Failed() {
						t.Fatalf("after a crash %s", name)
					}
					if !c.killed {
						t.Errorf("it did not come by %s", name)
					}
					done++
				}
			}
			t.Logf("%d crashes at %d places: %v", done, len(places), slices.Sorted(maps.Keys(places)))
		})
	}
}

// passes counts how often one process came by each place, at most.
func passes(t *testing.T, list string) map[string]int {
	t.Helper()
	data, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	one := map[string]int{}
	most := map[string]int{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		_, place, _ := strings.Cut(line, " ")
		one[line]++
		most[place] = max(most[place], one[line])
	}
	return most
}

// finding returns the id of something that is open.
func finding(t *testing.T, dir string) string {
	t.Helper()
	st, err := store.Open(context.Background(), filepath.Join(dir, "a.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	list, err := st.Findings(context.Background(), store.Filter{})
	if err != nil || len(list) == 0 {
		t.Fatalf("%d findings, %v", len(list), err)
	}
	return list[0].ID
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	for _, name := range []string{"a.db", "a.db-witness", "copy.db"} {
		if err := os.Chmod(filepath.Join(to, name), 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// retarget lets the configuration in a folder name the log that is in it.
func retarget(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), fmt.Appendf(nil, scriptConfig, "a", "file://"+filepath.ToSlash(filepath.Join(dir, "log"))), 0o600); err != nil {
		t.Fatal(err)
	}
}
