//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sigwarden/sigwarden/checkpoint/witness"
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
		c.must([]string{"findings", "resolve", id, "--as", "incident", "--note", "a key was stolen"}, exitOK, exitFailed, exitUsage)
		c.must([]string{"findings", "reopen", id, "--note", "it was not"}, exitOK, exitFailed, exitUsage)
		c.must([]string{"findings", "ack", id, "--note", "seen again"}, exitOK, exitFailed, exitUsage)
		// A token that nobody has got to know is ended, and made anew.
		c.must([]string{"token", "create", "--name", "job", "--scope", "read"}, exitOK, exitFailed, exitUsage)
		c.must([]string{"token", "revoke", "job"}, exitOK, exitFailed, exitUsage)
		if list := c.must([]string{"token", "list"}, exitOK); strings.Count(list, "job") != 1 || !strings.Contains(list, "revoked") {
			c.t.Errorf("the token was not ended, or there are several:\n%s", list)
		}
		c.must([]string{"expect", "add", "--watch", "releases", "--digest", "sha256:" + strings.Repeat("cd", 32), "--note", "not at all"}, exitOK)
		for id := range announced(c, "not at all") {
			c.must([]string{"expect", "remove", id, "--note", "wrong"}, exitOK, exitFailed, exitUsage)
		}
		if left := announced(c, "not at all"); len(left) > 0 {
			c.t.Errorf("still announced: %v", left)
		}
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
	// A copy takes the place of the state, and of that of the witness, which is gone; then the log is read
	// on from there, and the witness signs nothing until somebody has looked.
	restore := func(c *crasher) {
		if err := os.Remove(filepath.Join(c.dir, "a.db-witness")); err != nil {
			c.t.Fatal(err)
		}
		c.must([]string{"restore", filepath.Join(c.dir, "copy.db"), "--note", "test"}, exitOK)
		w, err := store.OpenWitness(context.Background(), filepath.Join(c.dir, "a.db"), store.Options{})
		if err != nil {
			c.t.Fatal(err)
		}
		if st, err := w.State(context.Background(), promised); err != nil || st.Size != 7 || st.Doubt == "" {
			c.t.Errorf("what the witness has promised: %+v, %v", st, err)
		}
		w.Close()
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
	w, err := store.OpenWitness(context.Background(), filepath.Join(backedUp, "a.db"), store.Options{Create: true})
	if err == nil {
		err = errors.Join(w.Advance(context.Background(), promised, witness.State{}, witness.State{Size: 7, Root: [32]byte{1}, Note: []byte("note"), At: 99}), w.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	before.must([]string{"backup", filepath.Join(backedUp, "copy.db")}, exitOK)

	visited, ran := map[string]bool{}, 0
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
			ran++
			maps.Insert(visited, maps.All(named(places)))
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
	if ran < 3 || t.Failed() {
		return // not all of them
	}
	for place, file := range placesOfTheSource(t) {
		// The witness ends its own program there (TestCrashPoints of its package).
		if !visited[place] && !strings.HasPrefix(file, "checkpoint/witness/") {
			t.Errorf("nothing comes by %q of %s", place, file)
		}
	}
}

// promised is a log that a witness has co-signed.
const promised = "log.example"

// named is places without what is before and after them.
func named(places map[string]int) map[string]bool {
	names := map[string]bool{}
	for place := range places {
		_, name, _ := strings.Cut(place, " ")
		names[name] = true
	}
	return names
}

// placesOfTheSource are the places that the source names, and its files. Transactions bear the names of what
// makes them: TestEveryWriteIsWhole finds those in the source.
func placesOfTheSource(t *testing.T) map[string]string {
	t.Helper()
	root := os.DirFS("../..")
	literal := regexp.MustCompile(`crash\.(?:Before|After)\("([^"]+)"\)`)
	places := map[string]string{}
	err := fs.WalkDir(root, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := fs.ReadFile(root, file)
		for _, m := range literal.FindAllSubmatch(text, -1) {
			places[string(m[1])] = file
		}
		return err
	})
	if err != nil || len(places) < 9 {
		t.Fatalf("%d places in the source, %v", len(places), err)
	}
	return places
}

// announced are the announcements with a note, by their ids.
func announced(c *crasher, note string) map[string]bool {
	c.t.Helper()
	var list []struct{ ID, Note string }
	out := c.must([]string{"expect", "list", "--json"}, exitOK)
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		c.t.Fatalf("%v: %s", err, out)
	}
	ids := map[string]bool{}
	for _, e := range list {
		if e.Note == note {
			ids[e.ID] = true
		}
	}
	return ids
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
