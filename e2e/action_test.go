package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// action is a composite action, as far as it is run here.
type action struct {
	Inputs map[string]struct {
		Default     string
		Description string
	}
	Runs struct {
		Using string
		Steps []struct {
			ID, Name, If, Uses, Shell, Run string
			Env, With                      map[string]string
		}
	}
}

// TestAction runs what the action runs, step by step as GitHub does: the first run begins the
// state, one that has lost it fails, what was found fails the job, and is told once.
func TestAction(t *testing.T) {
	needed(t, "bash")
	data, err := os.ReadFile("../action.yml")
	if err != nil {
		t.Fatal(err)
	}
	var a action
	if err := yaml.UnmarshalWithOptions(data, &a, yaml.Strict()); err != nil && !strings.Contains(err.Error(), "unknown field") {
		t.Fatal(err)
	}
	if a.Runs.Using != "composite" || len(a.Runs.Steps) < 6 {
		t.Fatalf("%+v", a)
	}
	r := newReader(t)
	r.run("sigwarden init --from-bundle widget-1.4.0.tar.gz.sigstore.json -o sigwarden.yaml && cat .log.yaml >> sigwarden.yaml")
	// run goes through the steps, and returns the status of the job, and its outputs.
	expression := regexp.MustCompile(`\$\{\{ *(toJSON\()?([a-z_.]+)\)? *\}\}`)
	keys := map[string]bool{} // of the cache
	run := func(inputs map[string]string) (code int, outputs, summary string) {
		t.Helper()
		values := map[string]string{"github.action_path": repository(t), "github.workflow": "watch, hourly", "github.job": "read", "steps.run.outputs.status": ""}
		for name := range values {
			if v, ok := inputs[name]; ok {
				values[name] = v
			}
		}
		for name, in := range a.Inputs {
			values["inputs."+name] = in.Default
			if v, ok := inputs[name]; ok {
				values["inputs."+name] = v
			}
		}
		temp := t.TempDir()
		files := map[string]string{"GITHUB_OUTPUT": filepath.Join(temp, "output"), "GITHUB_STEP_SUMMARY": filepath.Join(temp, "summary"), "RUNNER_TEMP": temp}
		for _, step := range a.Runs.Steps {
			if step.Run == "" || strings.Contains(step.If, "inputs.sigwarden == ''") {
				continue // others' actions; and what builds the program
			}
			c := exec.Command("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step.Run)
			c.Dir = r.dir
			c.Env = append(os.Environ(), "GITHUB_ACTIONS=true")
			for name, path := range files {
				c.Env = append(c.Env, name+"="+path)
			}
			if strings.Contains(step.Run, "${{") {
				t.Errorf("step %q puts an expression into a script: whoever writes its value writes the script", step.Name)
			}
			for name, text := range step.Env {
				c.Env = append(c.Env, name+"="+expression.ReplaceAllStringFunc(text, func(e string) string {
					found := expression.FindStringSubmatch(e)
					value, ok := values[found[2]]
					if !ok {
						t.Errorf("step %q knows no %s", step.Name, e)
					}
					if found[1] != "" {
						quoted, _ := json.Marshal(value)
						value = string(quoted)
					}
					return value
				}))
			}
			out, err := c.CombinedOutput()
			t.Logf("%s\n%s", step.Name, out)
			written, _ := os.ReadFile(files["GITHUB_OUTPUT"])
			for line := range strings.Lines(string(written)) {
				if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && step.ID != "" {
					values["steps."+step.ID+".outputs."+name] = value
				}
			}
			if err != nil {
				code = c.ProcessState.ExitCode()
				break
			}
		}
		keys[values["steps.name.outputs.key"]] = true
		text, _ := os.ReadFile(files["GITHUB_STEP_SUMMARY"])
		return code, values["steps.run.outputs.status"], string(text)
	}
	with := map[string]string{"sigwarden": program(t, "sigwarden", "sigwarden")}
	if code, status, _ := run(with); code != 1 || status != "1" {
		t.Errorf("without a state: the job ends with %d, the action says %q", code, status)
	}
	begin := map[string]string{"sigwarden": with["sigwarden"], "init": "true"}
	code, status, summary := run(begin)
	if code != 3 || status != "3" || !strings.Contains(summary, "### 1 open findings") {
		t.Errorf("what was found: the job ends with %d, the action says %q\n%s", code, status, summary)
	}
	if _, err := os.Stat(filepath.Join(r.dir, a.Inputs["sarif"].Default)); err != nil {
		t.Error(err)
	}
	if code, status, summary := run(with); code != 0 || status != "0" || !strings.Contains(summary, "### 1 open findings") {
		t.Errorf("the next run: the job ends with %d, the action says %q\n%s", code, status, summary)
	}
	if code, status, _ := run(map[string]string{"sigwarden": with["sigwarden"], "config": "nosuch.yaml"}); code == 0 || status == "0" {
		t.Errorf("without a configuration: %d, %q", code, status)
	}
	// What is kept is told apart by workflow, job, configuration and file, and never holds the
	// signing key.
	if len(keys) != 2 {
		t.Errorf("%v of two configurations", keys)
	}
	for _, other := range []map[string]string{{"github.workflow": "a", "github.job": "b-c"}, {"github.workflow": "a-b", "github.job": "c"}, {"state": "nosuch.db"}} {
		other["sigwarden"] = with["sigwarden"]
		run(other)
	}
	for key := range keys {
		if len(keys) != 5 || !regexp.MustCompile(`^sigwarden-state-[0-9a-f]{32}$`).MatchString(key) {
			t.Errorf("%d keys, one is %q", len(keys), key)
		}
	}
	caches := 0
	for _, step := range a.Runs.Steps {
		if strings.Contains(step.Uses, "actions/cache/") {
			caches++
			key := step.With["key"]
			if !strings.HasPrefix(key, "${{ steps.name.outputs.key }}-") || !strings.Contains(key, "github.run_id") || !strings.Contains(step.With["path"], "!${{ inputs.state }}-signing-key") {
				t.Errorf("step %q: %+v", step.Name, step.With)
			}
		}
	}
	if caches != 2 {
		t.Errorf("%d steps with the cache", caches)
	}
}
