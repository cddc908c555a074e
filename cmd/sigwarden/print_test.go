package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/sigwarden/sigwarden/monitor"
)

// hostile is what a stranger may write into a log: it would clear a terminal, write over what
// stands there, and turn the order of letters around.
const hostile = "evil\x1b[2J\x1b]0;title\x07\u009b31m\x7f\r\u202egpj\u200b"

// visible fails if a terminal would do anything with a text but show it.
func visible(t *testing.T, what, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && (unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r)) {
			t.Errorf("%s holds %U:\n%q", what, r, text)
			return
		}
	}
}

// TestTerminal: nothing that strangers write reaches a terminal as it is: not in tables, not
// in JSON, not in errors, not in what is shown of an entry.
func TestTerminal(t *testing.T) {
	f := monitor.Finding{ID: "f-1", Log: hostile, Watch: hostile, Reason: hostile, Digests: []string{hostile}}
	var out bytes.Buffer
	if err := printJSON(&out, f); err != nil {
		t.Fatal(err)
	}
	visible(t, "JSON", out.String())
	var back monitor.Finding
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Reason != hostile {
		t.Errorf("it says something else: %q, %v", back.Reason, err)
	}
	out.Reset()
	list := jsonArray{w: &out}
	if err := list.add(f); err != nil {
		t.Fatal(err)
	}
	if err := list.end(); err != nil {
		t.Fatal(err)
	}
	visible(t, "an array", out.String())
	visible(t, "a text", safeLines("one: "+hostile+"\n\ttwo: "+hostile))
	if got := safeLines("a.yaml:1:1: bad\n     1 | state: x\n         ^"); got != "a.yaml:1:1: bad\n     1 | state: x\n         ^" {
		t.Errorf("%q", got)
	}
	// As commands print it: a file that is no entry, and one whose name is hostile.
	dir := t.TempDir()
	entry := filepath.Join(dir, "entry")
	if err := os.WriteFile(entry, []byte(`{"apiVersion":"0.0.1","kind":"`+hostile+`","spec":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"inspect", entry}, {"inspect", entry, "--json"}, {"inspect", filepath.Join(dir, hostile)}, {"run", "-c", filepath.Join(dir, hostile)}} {
		var stdout, stderr bytes.Buffer
		run(t.Context(), args, func(string) string { return "" }, strings.NewReader(""), &stdout, &stderr)
		visible(t, strings.Join(args, " "), stdout.String()+stderr.String())
	}
}
