package main

import (
	"bytes"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// The repository checks itself.

const module = "github.com/sigwarden/sigwarden/"

// allowed is the order of imports: what each package may import of ours, in
// files that are not tests. docs/architecture.md shows it as a picture.
var allowed = map[string][]string{
	"internal/bounds":               {},
	"internal/crash":                {},
	"checkpoint":                    {"checkpoint/lanes"},
	"checkpoint/lanes":              {},
	"checkpoint/witness":            {"checkpoint", "internal/crash"},
	"checkpoint/ledger":             {"checkpoint"},
	"watchlist/entry":               {},
	"watchlist":                     {"watchlist/entry"},
	"watchlist/policy":              {"watchlist/entry"},
	"notify":                        {"internal/crash"},
	"notify/slack":                  {"notify"},
	"notify/email":                  {"notify"},
	"notify/webhook":                {"notify"},
	"notify/file":                   {"notify"},
	"notify/github":                 {"notify"},
	"notify/pagerduty":              {"notify"},
	"notify/teams":                  {"notify"},
	"notify/syslog":                 {"notify"},
	"notify/exec":                   {"notify"},
	"notify/shoutrrr":               {"notify"},
	"notify/route":                  {"notify"},
	"notify/notifytest":             {"notify"},
	"monitor":                       {"checkpoint", "checkpoint/ledger", "watchlist", "watchlist/entry", "watchlist/policy", "notify"},
	"monitor/config":                {},
	"monitor/rekor":                 {},
	"monitor/rekor/locallog":        {},
	"monitor/rekor/locallog/testca": {},
	"monitor/trust":                 {"checkpoint"},
	"monitor/trust/trusttest":       {"checkpoint"},
	"monitor/store":                 {"internal/crash", "monitor", "checkpoint", "checkpoint/witness", "checkpoint/ledger", "watchlist/entry", "notify"},
	"monitor/store/simdisk":         {},
	"monitor/evidence":              {"checkpoint", "checkpoint/witness", "checkpoint/ledger", "watchlist/entry"},
	"monitor/report":                {"monitor", "checkpoint/ledger", "watchlist/policy", "notify"},
	"monitor/redact":                {},
	"monitor/client":                {"monitor", "checkpoint"},
	"monitor/attest":                {},
	"monitor/lists":                 {"checkpoint", "watchlist", "watchlist/entry"},
	"monitor/web":                   {"monitor", "notify", "watchlist", "checkpoint/witness"},
}

// goFiles calls f with every Go file of the module, by path from its root.
func goFiles(t *testing.T, f func(path string, data []byte)) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && rel != "." || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err == nil {
			f(filepath.ToSlash(rel), data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImportOrder(t *testing.T) {
	seen := map[string]bool{}
	goFiles(t, func(path string, data []byte) {
		dir := strings.TrimSuffix(path, "/"+filepath.Base(path))
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(dir, "cmd/") || strings.HasPrefix(dir, "e2e") {
			return
		}
		may, known := allowed[dir]
		if !known {
			t.Errorf("%s: package %s is not in the order of imports", path, dir)
			return
		}
		seen[dir] = true
		file, err := parser.ParseFile(token.NewFileSet(), path, data, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range file.Imports {
			name, ours := strings.CutPrefix(strings.Trim(imp.Path.Value, `"`), module)
			if ours && !slices.Contains(may, name) {
				t.Errorf("%s imports %s: not in the order of imports", path, name)
			}
		}
	})
	for dir := range allowed {
		if !seen[dir] {
			t.Errorf("package %s does not exist", dir)
		}
	}
}

func TestFormatted(t *testing.T) {
	goFiles(t, func(path string, data []byte) {
		want, err := format.Source(data)
		if err != nil || !bytes.Equal(want, data) {
			t.Errorf("%s is not formatted: %v", path, err)
		}
	})
}

// TestNamedTestsExist: the tests and scripts that documents name are there.
func TestNamedTestsExist(t *testing.T) {
	tests := map[string]bool{}
	goFiles(t, func(path string, data []byte) {
		if strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/notifytest/") {
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w*)\(`).FindAllSubmatch(data, -1) {
				tests[string(m[1])] = true
			}
		}
	})
	named := 0
	for _, doc := range []string{"docs/security.md", "docs/reliability.md"} {
		text := read(t, doc)
		for _, m := range regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(text, -1) {
			if named++; !tests[m[1]] {
				t.Errorf("%s names %s, which does not exist", doc, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`\b([a-z0-9]+\.txtar)`).FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join("testdata", "script", m[1])); m[1] != "x.txtar" && err != nil {
				t.Errorf("%s names %s: %v", doc, m[1], err)
			}
		}
	}
	if named < 100 {
		t.Errorf("documents name %d tests", named)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestTablesAreDocumented: whatever can be configured or told is named in the
// example configuration and in the README.
func TestTablesAreDocumented(t *testing.T) {
	example, readme := read(t, "config.example.yaml"), read(t, "README.md")
	want := func(word string) {
		t.Helper()
		if !strings.Contains(example, word) {
			t.Errorf("%q is missing in config.example.yaml", word)
		}
		if !strings.Contains(readme, word) {
			t.Errorf("%q is missing in README.md", word)
		}
	}
	for _, kind := range config.ChannelKinds() {
		if !strings.Contains(example, " "+kind+":") || !strings.Contains(readme, "`"+kind+"`") || channelMakers[kind] == nil {
			t.Errorf("channel %q is missing in config.example.yaml, in README.md or in the table of makers", kind)
		}
	}
	for _, kind := range entry.Kinds() {
		want(kind.Name)
	}
	for _, kind := range monitor.IncidentKinds() {
		if !strings.Contains(readme, "`"+kind.Kind+"`") {
			t.Errorf("incident %q is missing in README.md", kind.Kind)
		}
	}
	want("rekor-v2")
}

func TestExampleConfigurationIsValid(t *testing.T) {
	a := &app{getenv: func(string) string { return "" }, configPath: filepath.Join("..", "..", "config.example.yaml"), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	s, err := a.load()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.logs) != 1 || len(s.watches) != 1 || len(s.warnings) != 0 {
		t.Errorf("%d logs, %d watches, warnings %q", len(s.logs), len(s.watches), s.warnings)
	}
}

// TestRunBook: every kind of incident has its section, and no other thing has one.
func TestRunBook(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "runbook.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := strings.Split(string(text), "\n## ")[1:]
	kinds := map[string]bool{}
	for _, k := range monitor.IncidentKinds() {
		kinds[k.Kind] = true
	}
	for _, s := range sections {
		name, body, _ := strings.Cut(s, "\n")
		if !kinds[name] {
			t.Errorf("section %q is no kind of incident, or is there twice", name)
		}
		delete(kinds, name)
		for _, part := range []string{"**Means.**", "**First ten minutes.**", "**Preserve.**"} {
			if strings.Count(body, part) != 1 {
				t.Errorf("%s has no part %s", name, part)
			}
		}
	}
	for name := range kinds {
		t.Errorf("%s has no section", name)
	}
}

// TestConfigurationPage: docs/configuration.md has the keys that the program has.
func TestConfigurationPage(t *testing.T) {
	if read(t, filepath.Join("docs", "configuration.md")) != config.Describe().Markdown() {
		t.Error("docs/configuration.md is not what the program reads: write it anew with `go run ./cmd/sigwarden config schema --format markdown > docs/configuration.md`")
	}
}
