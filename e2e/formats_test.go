package e2e

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// What sigwarden writes for other programs is what their formats say.

// TestSchema: the schema of the configuration takes what sigwarden takes, each key of the
// example among it, and refuses what it refuses.
func TestSchema(t *testing.T) {
	text, _ := sigwarden(t, "", "config", "schema")
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("configuration.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("configuration.json")
	if err != nil {
		t.Fatal(err)
	}
	valid := func(text string) error {
		data, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(value)
	}
	example, err := os.ReadFile("../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := valid(string(example)); err != nil {
		t.Errorf("config.example.yaml: %v", err)
	}
	for name, text := range map[string]string{
		"nothing but a word": "trust:\nwatchlist: []\n",
		"people":             "http: {listen: \"127.0.0.1:1\", public_url: HTTPS://a.example, access: {oidc: {issuer: https://b.example, client_id: c, read: group:x}}}",
		"a mirror":           "trust: {sigstore: {mirror: https://tuf.acme.example, root: root.json}}",
		"a policy":           "logs: [{name: a, type: rekor-v2, url: https://a.example, policy: p.policy}]",
		"numbers":            "logs: [{name: 1, type: rekor-v1, url: https://a.example, start: 17, parallel: 8, requests_per_second: 0.5}]",
		"every channel":      "notify: {channels: [{name: a, email: {smtp: env:S, from: a@b.example, to: c@d.example}}, {name: b, ntfy: {url: env:N}, quiet: {hours: \"22:00-07:00\"}}]}",
		"keys of a witness":  "witness: {listen: \"127.0.0.1:1\", keys: [\"file:a\", {agent: \"SHA256:x\", name: n}]}",
		"a list of digests":  "watchlist: [{name: a, match: [{subject: [a, b], extensions: {runner-environment: x}}], expect: [{digests: {url: https://a.example/S, signed_by: {subject: a, issuer: b}}}]}]",
	} {
		if err := valid(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"an unknown key":        "watchlst: []",
		"an unknown key inside": "http: {listen: \"127.0.0.1:1\", acces: {}}",
		"a wrong word":          "logs: [{name: a, type: rekor-v3, url: https://a.example}]",
		"a watch of nothing":    "watchlist: [{name: a}]",
		"a match of nothing":    "watchlist: [{name: a, match: []}]",
		"an empty subject":      "watchlist: [{name: a, match: [{subject: \"\"}]}]",
		"an empty one of two":   "watchlist: [{name: a, match: [{subject: [a, \"\"]}]}]",
		"people of none":        "http: {listen: \"127.0.0.1:1\", public_url: https://a.example, access: {oidc: {issuer: https://b.example, client_id: c}}}",
		"an empty list":         "watchlist: [{name: a, match: [{subject: []}]}]",
		"two kinds of channel":  "notify: {channels: [{name: a, file: {path: x}, ntfy: {url: y}}]}",
		"no kind of channel":    "notify: {channels: [{name: a}]}",
		"a number too large":    "logs: [{name: a, type: rekor-v2, url: https://a.example, parallel: 9999}]",
		"a duration":            "retention: {expected: 90}",
		"a key in the file":     "signing: {key: abc}",
		"no address":            "http: {public_url: acme.example}",
	} {
		if valid(text) == nil {
			t.Errorf("the schema takes %s", name)
		}
	}
}

// TestSARIF: what is left for code scanning is SARIF 2.1.0, with what it points to.
func TestSARIF(t *testing.T) {
	_, alerts := served(t)
	dir := t.TempDir()
	// Another state beside the one that runs.
	text, err := os.ReadFile(filepath.Join(alerts, "sigwarden.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"log.pem", "authority.pem"} {
		data, err := os.ReadFile(filepath.Join(alerts, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text = regexp.MustCompile(`(?m)^http:\n(  .*\n)+`).ReplaceAll(text, nil)
	config := filepath.Join(dir, "sigwarden.yaml")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	file, summary := filepath.Join(dir, "out.sarif"), filepath.Join(dir, "summary.md")
	if _, code := sigwarden(t, config, "run", "--once", "--sarif", file, "--summary", summary); code != 3 {
		t.Fatalf("status %d, want 3", code)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r sarif.Report
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := sarifSchema(t).Validate(doc); err != nil {
		t.Errorf("%v\n%s", err, data)
	}
	results := r.Runs[0].Results
	if len(results) == 0 {
		t.Fatalf("no results\n%s", data)
	}
	rules := map[string]bool{}
	for _, rule := range r.Runs[0].Tool.Driver.Rules {
		rules[*rule.ID] = true
	}
	for _, result := range results {
		if result.RuleID == nil || !rules[*result.RuleID] {
			t.Errorf("a result of a rule that is not there: %v", result.RuleID)
		}
		// What GitHub asks for beyond the format.
		if len(result.PartialFingerprints) == 0 || len(result.Locations) != 1 || result.Locations[0].PhysicalLocation.ArtifactLocation.URI == nil {
			t.Errorf("a result without a place or a fingerprint\n%s", data)
		}
	}
}

// sarifSchema is the schema of OASIS, which the module of go-sarif has as a text of its own.
func sarifSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif").Output()
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "schema.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	ast.Inspect(file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && len(lit.Value) > len(text) {
			text = lit.Value
		}
		return true
	})
	if text, err = strconv.Unquote(text); err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("sarif.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("sarif.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}
