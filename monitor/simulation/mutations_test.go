package simulation

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var mutations = flag.String("mutations", "", "put deliberate bugs in, those whose names match this expression, and see whether they are found")

// wrongs is what a seed prints that has broken a promise.
var wrongs = regexp.MustCompile(`seed \d+:\n\s+\[`)

// enough is within how many seeds a deliberate bug is found.
const enough = 1000

// mutation is a deliberate bug.
type mutation struct {
	name  string
	edits []edit
}

type edit struct{ file, old, new string }

// readMutations reads the list.
func readMutations(t *testing.T) (list []mutation) {
	t.Helper()
	data, err := os.ReadFile("testdata/mutations.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split(string(data), "\n== ")[1:] {
		name, rest, _ := strings.Cut(block, "\n")
		m := mutation{name: name}
		for _, part := range strings.Split("\n"+rest, "\n--- ")[1:] {
			file, change, _ := strings.Cut(part, "\n")
			from, to, ok := strings.Cut(change, "\n+++\n")
			if !ok {
				t.Fatalf("%s: an edit has two texts, with +++ between them", name)
			}
			m.edits = append(m.edits, edit{file, from, strings.TrimRight(to, "\n")})
		}
		list = append(list, m)
	}
	return list
}

// apply writes the files with a bug into a folder, and returns what the compiler reads in
// place of the true ones.
func (m mutation) apply(t *testing.T, root, dir string) (overlay string) {
	t.Helper()
	changed := map[string]string{}
	for _, e := range m.edits {
		path := filepath.Join(root, e.file)
		text, ok := changed[path]
		if !ok {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text = string(data)
		}
		if n := strings.Count(text, e.old); n != 1 {
			t.Fatalf("%s: the text is %d times in %s, want it once:\n%s", m.name, n, e.file, e.old)
		}
		changed[path] = strings.Replace(text, e.old, e.new, 1)
	}
	replace := map[string]string{}
	for path, text := range changed {
		to := filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(path, root), string(filepath.Separator), "_"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[path] = to
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay
}

// TestMutationsApply: the texts that the list changes are there.
func TestMutationsApply(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	list := readMutations(t)
	if len(list) < 10 {
		t.Errorf("%d deliberate bugs", len(list))
	}
	for _, m := range list {
		m.apply(t, root, t.TempDir())
	}
}

// TestMutations builds the simulation with each deliberate bug and runs it until it fails:
//
//	go test ./monitor/simulation -run 'TestMutations$' -count=1 -v -timeout 0 -mutations .
func TestMutations(t *testing.T) {
	if *mutations == "" {
		t.Skip("takes long; -mutations . runs it")
	}
	wanted, err := regexp.Compile(*mutations)
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range readMutations(t) {
		if !wanted.MatchString(m.name) {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			dir := t.TempDir()
			bin := filepath.Join(dir, "simulation.test")
			build := exec.Command("go", "test", "-c", "-overlay", m.apply(t, root, dir), "-o", bin, ".")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			began := time.Now()
			const some = 50 // at a time
			begin := 1
			switch {
			case strings.HasPrefix(m.name, "Rekor v1: "):
				begin = firstV1
			case strings.HasPrefix(m.name, "A listed log: "):
				begin = firstListed
			}
			for from := begin; from < begin+enough; from += some {
				out, err := exec.Command(bin, "-test.run", "^TestSeeds$", "-test.timeout", "10m", "-first", fmt.Sprint(from), "-seeds", fmt.Sprint(some)).CombinedOutput()
				if err == nil {
					continue
				}
				text := string(out)
				if !wrongs.MatchString(text) {
					t.Fatalf("it ended, and not since the auditor found something wrong:\n%.2000s", text)
				}
				if at := strings.Index(text, "seed "); at >= 0 {
					text = text[at:]
				}
				first, _, _ := strings.Cut(text, "\nagain")
				t.Logf("found within %d seeds, in %s: %.300s", from+some-begin, time.Since(began).Round(time.Second), strings.Join(strings.Fields(first), " "))
				return
			}
			t.Errorf("not found within %d seeds", enough)
		})
	}
}
