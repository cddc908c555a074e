package e2e

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestUnit: the systemd unit leaves little to whoever takes the process over.
func TestUnit(t *testing.T) {
	analyze := needed(t, "systemd-analyze")
	out, err := exec.Command(analyze, "security", "--offline=yes", "--no-pager", "../deploy/systemd/sigwarden.service").CombinedOutput()
	m := regexp.MustCompile(`Overall exposure level for sigwarden\.service: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if score, err := strconv.ParseFloat(string(m[1]), 64); err != nil || score > 2.0 {
		t.Errorf("the exposure level is %s", m[1])
	}
	t.Logf("exposure level %s", m[1])
	// The program in its place, every directive is known.
	unit, err := os.ReadFile("../deploy/systemd/sigwarden.service")
	if err != nil {
		t.Fatal(err)
	}
	here := filepath.Join(t.TempDir(), "sigwarden.service")
	if err := os.WriteFile(here, bytes.ReplaceAll(unit, []byte("/usr/bin/sigwarden"), []byte(program(t, "sigwarden", "sigwarden"))), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", "--man=no", here).CombinedOutput(); err != nil || strings.Contains(string(out), "Unknown") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAlerts: the rules are those that Prometheus takes, and speak of metrics that there are.
func TestAlerts(t *testing.T) {
	promtool := program(t, "promtool", "promtool")
	if out, err := exec.Command(promtool, "check", "rules", "../deploy/prometheus/sigwarden.rules.yaml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// What fires when: a server that is gone, and a channel that is behind; not one that is quiet.
	tests := filepath.Join(t.TempDir(), "tests.yaml")
	file, err := filepath.Abs("../deploy/prometheus/sigwarden.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tests, []byte(strings.ReplaceAll(alertTests, "RULES", file)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "test", "rules", tests).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	address, _ := served(t)
	resp, err := http.Get(address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(promtool, "check", "metrics")
	c.Stdin = bytes.NewReader(metrics)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	rules, err := os.ReadFile("../deploy/prometheus/sigwarden.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	board, err := os.ReadFile("../deploy/grafana/sigwarden.json")
	if err != nil || !json.Valid(board) {
		t.Fatalf("the dashboard: %v", err)
	}
	rules = append(rules, board...)
	for _, name := range regexp.MustCompile(`sigwarden_[a-z_]+`).FindAllString(string(rules), -1) {
		if !bytes.Contains(metrics, []byte("# TYPE "+name+" ")) {
			t.Errorf("a rule speaks of %s, which there is not", name)
		}
	}
	for _, name := range []string{"sigwarden_build_info{", "go_goroutines ", "process_resident_memory_bytes "} {
		if !bytes.Contains(metrics, []byte("\n"+name)) {
			t.Errorf("no metric %s", name)
		}
	}
}

const alertTests = `
rule_files: [RULES]
evaluation_interval: 1m
tests:
  - name: gone
    interval: 1m
    input_series: [{series: 'other', values: '1x30'}]
    alert_rule_test:
      - {eval_time: 20m, alertname: SigwardenDown, exp_alerts: [{exp_labels: {job: sigwarden, severity: critical}, exp_annotations: {summary: sigwarden does not answer, description: Nobody reads the logs while it is down. What they sign meanwhile is read when it runs again.}}]}
  - name: well
    interval: 1m
    input_series:
      - {series: 'up{job="sigwarden"}', values: '1x90'}
      - {series: 'sigwarden_deliveries_pending{channel="chat"}', values: '7x90'}
      - {series: 'sigwarden_deliveries_due{channel="chat"}', values: '0x90'}
      - {series: 'sigwarden_deliveries_due{channel="mail"}', values: '3x90'}
    alert_rule_test:
      - {eval_time: 60m, alertname: SigwardenDown, exp_alerts: []}
      - {eval_time: 60m, alertname: SigwardenDeliveriesWait, exp_alerts: [{exp_labels: {channel: mail, severity: warning}, exp_annotations: {summary: channel mail does not accept what it is to be told, description: 3 notifications wait. They are tried again; nothing is lost.}}]}
`

// TestChart: helm takes the chart, and what it makes runs as nobody.
func TestChart(t *testing.T) {
	helm := program(t, "helm", "helm")
	run := func(args ...string) string {
		c := exec.Command(helm, args...)
		c.Env = append(os.Environ(), "HOME="+t.TempDir())
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("lint", "--strict", "../deploy/helm/sigwarden")
	plain := run("template", "w", "../deploy/helm/sigwarden")
	for _, want := range []string{"kind: StatefulSet", "kind: ConfigMap", "kind: Service", "runAsNonRoot: true", "readOnlyRootFilesystem: true", `image: "sigwarden:latest"`, "state: /data/state.db"} {
		if !strings.Contains(plain, want) {
			t.Errorf("the chart makes no %q:\n%s", want, plain)
		}
	}
	full := run("template", "w", "../deploy/helm/sigwarden", "--set", "monitoring.enabled=true,image.digest=sha256:aa,secretFiles=s,envFrom={a,b},storage.class=fast,imagePullSecrets={p},config.http.access.tokens=true,config.http.page=true")
	for _, want := range []string{"kind: ServiceMonitor", `image: "sigwarden@sha256:aa"`, `secretName: "s"`, `secretRef: {name: "a"}`, `storageClassName: "fast"`, `- {name: "p"}`, "tokens: true"} {
		if !strings.Contains(full, want) {
			t.Errorf("the chart makes no %q:\n%s", want, full)
		}
	}
	// Access to a page that is not there is a mistake.
	c := exec.Command(helm, "template", "w", "../deploy/helm/sigwarden", "--set", "config.http.access.tokens=true")
	c.Env = append(os.Environ(), "HOME="+t.TempDir())
	if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "set it to true") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRelease: goreleaser takes its configuration, and what it builds is one file that needs
// nothing, of at most 60 MB, that knows its version.
func TestRelease(t *testing.T) {
	goreleaser := program(t, "goreleaser", "goreleaser")
	dir := filepath.Join(t.TempDir(), "sigwarden")
	for _, args := range [][]string{
		{"git", "clone", "--quiet", "--depth=1", "file://" + repository(t), dir},
		{goreleaser, "check"},
		{goreleaser, "build", "--snapshot", "--single-target", "--skip=before", "--output", "sigwarden"},
	} {
		c := exec.Command(args[0], args[1:]...)
		if args[0] == goreleaser {
			c.Dir = dir
		}
		c.Env = append(os.Environ(), "GORELEASER_CURRENT_TAG=v1.2.3")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	binary := filepath.Join(dir, "sigwarden")
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 60_000_000 {
		t.Errorf("%d bytes", info.Size())
	}
	t.Logf("%.1f MB", float64(info.Size())/1e6)
	file, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if libs, err := file.ImportedLibraries(); err != nil || len(libs) > 0 || file.Section(".interp") != nil {
		t.Errorf("it needs %q, %v", libs, err)
	}
	out, err := exec.Command(binary, "version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "1.2.") {
		t.Errorf("%v: %s", err, out)
	}
}

// repository is where this source is.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
