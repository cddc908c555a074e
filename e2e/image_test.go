package e2e

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/goccy/go-yaml"
)

// documents returns the documents of some YAML, by kind.
func documents(t *testing.T, text string) map[string]map[string]any {
	t.Helper()
	out := map[string]map[string]any{}
	d := yaml.NewDecoder(strings.NewReader(text))
	for {
		var doc map[string]any
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if kind, ok := doc["kind"].(string); ok {
			out[kind] = doc
		}
	}
}

// value follows keys and indexes into a document.
func value(t *testing.T, doc any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch key := step.(type) {
		case string:
			m, _ := doc.(map[string]any)
			doc = m[key]
		case int:
			l, _ := doc.([]any)
			if key >= len(l) {
				t.Fatalf("%v: no such item", path)
			}
			doc = l[key]
		}
	}
	return doc
}

// TestManifests: what is deployed by hand and what the chart makes are held to the same, and
// the configuration that comes with the chart is one that sigwarden takes.
func TestManifests(t *testing.T) {
	out, err := exec.Command(program(t, "helm", "helm"), "template", "sigwarden", "../deploy/helm/sigwarden").Output()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := os.ReadFile("../deploy/kubernetes/sigwarden.yaml")
	if err != nil {
		t.Fatal(err)
	}
	chart, manifests := documents(t, string(out)), documents(t, string(plain))
	pod := []any{"spec", "template", "spec"}
	container := append(append([]any{}, pod...), "containers", 0)
	for _, path := range [][]any{
		append(append([]any{}, pod...), "securityContext"), append(append([]any{}, pod...), "automountServiceAccountToken"), append(append([]any{}, pod...), "terminationGracePeriodSeconds"),
		append(append([]any{}, container...), "securityContext"), append(append([]any{}, container...), "args"), append(append([]any{}, container...), "ports"), append(append([]any{}, container...), "volumeMounts"),
		append(append([]any{}, container...), "livenessProbe"), append(append([]any{}, container...), "readinessProbe"), append(append([]any{}, container...), "startupProbe"), append(append([]any{}, container...), "resources"),
		{"spec", "replicas"}, {"spec", "volumeClaimTemplates"},
	} {
		a, b := value(t, chart["StatefulSet"], path...), value(t, manifests["StatefulSet"], path...)
		if a == nil || !reflect.DeepEqual(a, b) {
			t.Errorf("%v: the chart has %v, the manifests %v", path, a, b)
		}
	}
	config, _ := value(t, chart["ConfigMap"], "data", "sigwarden.yaml").(string)
	if !strings.Contains(config, "state: /data/state.db") {
		t.Fatalf("the chart's configuration:\n%s", config)
	}
	file := filepath.Join(t.TempDir(), "sigwarden.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program(t, "sigwarden", "sigwarden"), "check", "--config", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, config)
	}
}

// TestImage runs the program where there is nothing else, as nobody, as the Dockerfile has it:
// names of time zones are known, the state is written, and signals end it.
func TestImage(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to leave everything behind")
	}
	recipe, err := os.ReadFile("../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"FROM scratch\n", "COPY --chmod=0555 sigwarden /sigwarden\n", "USER 65532:65532\n", `ENTRYPOINT ["/sigwarden"]`, `CMD ["run", "--config", "/etc/sigwarden/sigwarden.yaml"]`} {
		if !bytes.Contains(recipe, []byte(want)) {
			t.Errorf("the Dockerfile has no %q", want)
		}
	}
	root, err := os.MkdirTemp("", "image")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	binary, err := os.ReadFile(program(t, "sigwarden", "sigwarden"))
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(t)
	for name, data := range map[string][]byte{
		"sigwarden":                    binary,
		"etc/sigwarden/sigwarden.yaml": []byte("state: /data/state.db\nschedule: \"CRON_TZ=Europe/Berlin 0 6 * * *\"\nwatchlist: [{name: w, match: [{subject: a}], expect: [{subject: a, issuer: b, between: \"09:00-18:00 Europe/Berlin Mon-Fri\"}]}]\n" + strings.ReplaceAll(strings.ReplaceAll(r.log, "log.pem", "/etc/sigwarden/log.pem"), ".ca.pem", "/etc/sigwarden/ca.pem")),
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o555); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{"log.pem": "log.pem", ".ca.pem": "ca.pem"} {
		data, err := os.ReadFile(filepath.Join(r.dir, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "etc/sigwarden", to), data, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(root, "data"), 65532, 65532); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		c := exec.Command("/sigwarden", args...)
		c.Dir, c.Env = "/data", []string{}
		c.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		out, err := c.CombinedOutput()
		return string(out), err
	}
	for _, args := range [][]string{{"version"}, {"check", "--config", "/etc/sigwarden/sigwarden.yaml"}, {"run", "--once", "--config", "/etc/sigwarden/sigwarden.yaml"}, {"status", "--config", "/etc/sigwarden/sigwarden.yaml"}} {
		if out, err := run(args...); err != nil {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
	info, err := os.Stat(filepath.Join(root, "data/state.db"))
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != 65532 {
		t.Errorf("%v, %v", info, err)
	}
}
