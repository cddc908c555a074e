package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/rhysd/actionlint"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// What is in the documentation is run: commands as they stand there, one after the other, and
// files as their first line names them.

// reader is somebody who follows a document: in a folder of their own, with a release of
// theirs in a log, and something that they did not sign behind it.
type reader struct {
	t        *testing.T
	dir, log string // log: what stands for the public instance
	ports    map[string]string
}

// wrapper runs the program; where a configuration follows the public instance, it follows a
// log on this machine in its place.
const wrapper = `#!/bin/sh
set -e
if [ -f sigwarden.yaml ] && [ "$1" != init ] && [ "$1" != config ]; then
	cat sigwarden.yaml > .read.yaml
	grep -q '^logs:' sigwarden.yaml || cat .log.yaml >> .read.yaml
	exec "$PROGRAM" "$@" --config .read.yaml
fi
exec "$PROGRAM" "$@"
`

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{t: t, dir: t.TempDir(), ports: map[string]string{}}
	log, err := locallog.New("log.acme.example")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(locallog.NewServer(log))
	t.Cleanup(server.Close)
	sign := func(uri, runner, what string) []byte {
		repository, _, _ := strings.Cut(uri, "/.github/")
		entry, err := issue(t, ca, testca.Identity{URI: uri, Issuer: "https://token.actions.githubusercontent.com", Extensions: map[int]string{11: runner, 12: repository}}).HashedRekord([]byte(what))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := log.Append(entry); err != nil {
			t.Fatal(err)
		}
		return entry
	}
	const release = "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1.4.0"
	for i := range 20 {
		sign("https://github.com/somebody/else/.github/workflows/a.yml@refs/heads/main", "github-hosted", fmt.Sprint("other ", i))
	}
	signed := sign(release, "github-hosted", "widget 1.4.0")
	sign(release, "self-hosted", "not ours")
	bundle, err := json.Marshal(map[string]any{
		"mediaType":            "application/vnd.dev.sigstore.bundle.v0.3+json",
		"verificationMaterial": map[string]any{"tlogEntries": []any{map[string]any{"canonicalizedBody": base64.StdEncoding.EncodeToString(signed)}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.log = fmt.Sprintf("\nlogs:\n  - name: %s\n    type: rekor-v2\n    url: %s\n    origin: %[1]s\n    public_key: log.pem\n    ca: .ca.pem\n    start: first\n", log.Origin(), server.URL)
	r.write("widget-1.4.0.tar.gz.sigstore.json", string(bundle))
	r.write("log.pem", log.PublicKeyPEM())
	r.write("cosign.pub", log.PublicKeyPEM())
	r.write("SHA256SUMS", strings.Repeat("0", 64)+"  widget-1.4.0.tar.gz\n")
	r.write(".ca.pem", ca.ChainPEM())
	r.write(".log.yaml", r.log)
	r.write("bin/sigwarden", wrapper)
	if err := os.Chmod(filepath.Join(r.dir, "bin/sigwarden"), 0o755); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *reader) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// here gives every address in a text a port that is free.
func (r *reader) here(text string) string {
	return regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllStringFunc(text, func(address string) string {
		if r.ports[address] == "" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				r.t.Fatal(err)
			}
			r.ports[address] = l.Addr().String()
			l.Close()
		}
		return r.ports[address]
	})
}

// run does what a block of commands says; what it leaves running ends with it.
func (r *reader) run(commands string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", r.here(commands))
	c.Dir = r.dir
	c.Env = append(os.Environ(), "PATH="+filepath.Join(r.dir, "bin")+":"+os.Getenv("PATH"), "PROGRAM="+program(r.t, "sigwarden", "sigwarden"))
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	c.Stdout, c.Stderr, c.WaitDelay = &out, &out, 10*time.Second
	if err := c.Start(); err != nil {
		r.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		state, err := c.Process.Wait()
		if err == nil && !state.Success() {
			err = fmt.Errorf("%v", state)
		}
		done <- err
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	// Daemons that the commands have left end, and free their state.
	syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
	for end := time.Now().Add(15 * time.Second); syscall.Kill(-c.Process.Pid, 0) == nil && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
	c.Wait()
	if err != nil {
		r.t.Errorf("%v:\n%s\n%s", err, commands, &out)
	}
}

var block = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// TestDocumentation follows every document from its beginning to its end; a part of the quick
// start is for somebody of its own.
func TestDocumentation(t *testing.T) {
	for _, tool := range []string{"bash", "curl", "jq", "openssl"} {
		needed(t, tool)
	}
	files, err := filepath.Glob("../docs/*.md")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d documents, %v", len(files), err)
	}
	run := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parts := []string{string(data)}
		if filepath.Base(file) == "quickstart.md" {
			parts = strings.Split(string(data), "\n## ")
		}
		for i, part := range parts {
			blocks := block.FindAllStringSubmatch(part, -1)
			if len(blocks) == 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", filepath.Base(file), i), func(t *testing.T) {
				r := newReader(t)
				for _, b := range blocks {
					switch kind, text := b[1], b[2]; kind {
					case "sh":
						run++
						r.run(text)
					case "yaml", "dockerfile":
						r.file(text)
					case "": // a picture
					default:
						t.Errorf("a block of %s, which nobody tries:\n%s", kind, text)
					}
				}
			})
		}
	}
	if run < 12 {
		t.Errorf("%d blocks of commands were run", run)
	}
}

// file writes what a document shows, and has it checked by what reads it.
func (r *reader) file(text string) {
	r.t.Helper()
	first, _, _ := strings.Cut(text, "\n")
	name, ok := strings.CutPrefix(first, "# ")
	if !ok {
		r.t.Errorf("a file without a name:\n%s", text)
		return
	}
	r.write(name, r.here(text))
	switch {
	case strings.HasPrefix(name, ".github/workflows/"):
		r.workflow(name, text)
	case name == ".gitlab-ci.yml":
		r.pipeline(text)
	case name == "Dockerfile":
		r.image(text)
	case name == "rekor-monitor.yaml", name == "sigwarden.yaml": // commands below say what of them
	default:
		// A part of a configuration.
		r.write(".part.yaml", r.here(text)+r.log)
		c := exec.Command(program(r.t, "sigwarden", "sigwarden"), "check", "--config", filepath.Join(r.dir, ".part.yaml"))
		out, err := c.CombinedOutput()
		if err != nil || strings.Contains(strings.ReplaceAll(string(out), "no channel is configured", ""), "warning: w") {
			r.t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// image compares where an image takes the program from with where ours has it.
func (r *reader) image(text string) {
	r.t.Helper()
	ours, err := os.ReadFile("../deploy/Dockerfile")
	if err != nil {
		r.t.Fatal(err)
	}
	from := regexp.MustCompile(`(?m)^COPY --from=\S+/sigwarden:\S+ (\S+) /usr/local/bin/sigwarden$`).FindStringSubmatch(text)
	if from == nil || !regexp.MustCompile(`(?m)^ENTRYPOINT \["`+from[1]+`"`).Match(ours) {
		r.t.Errorf("the image does not have what is copied from it\n%s\n%s", text, ours)
	}
}

// workflow has actionlint look at a workflow, and compares what it gives to our action with
// what that takes.
func (r *reader) workflow(name, text string) {
	r.t.Helper()
	linter, err := actionlint.NewLinter(&bytes.Buffer{}, &actionlint.LinterOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	found, err := linter.Lint(name, []byte(text), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range found {
		r.t.Errorf("%s: %v", name, e)
	}
	var action struct{ Inputs map[string]any }
	data, err := os.ReadFile("../action.yml")
	if err == nil {
		err = yaml.Unmarshal(data, &action)
	}
	if err != nil || len(action.Inputs) == 0 {
		r.t.Fatalf("action.yml: %v", err)
	}
	var flow struct {
		Jobs map[string]struct {
			Steps []struct {
				Uses string
				With map[string]any
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text), &flow); err != nil {
		r.t.Fatal(err)
	}
	ours := 0
	for _, job := range flow.Jobs {
		for _, step := range job.Steps {
			if !strings.HasPrefix(step.Uses, "sigwarden/sigwarden@") {
				continue
			}
			ours++
			for key := range step.With {
				if _, ok := action.Inputs[key]; !ok {
					r.t.Errorf("%s: the action has no input %q", name, key)
				}
			}
		}
	}
	if ours == 0 {
		r.t.Errorf("%s does not use the action", name)
	}
}

// pipeline runs what a job of GitLab runs, in a folder of its own.
func (r *reader) pipeline(text string) {
	r.t.Helper()
	var jobs map[string]struct {
		Script []string
		Cache  struct {
			Paths []string
			When  string
		}
		Group string `yaml:"resource_group"`
	}
	if err := yaml.Unmarshal([]byte(text), &jobs); err != nil {
		r.t.Fatal(err)
	}
	r.run("sigwarden init --from-bundle widget-1.4.0.tar.gz.sigstore.json -o sigwarden.yaml")
	for name, job := range jobs {
		script := strings.Join(job.Script, "\n")
		r.run("(" + script + ") && exit 1 || test $? -eq 1") // there is no state yet
		r.run("(" + script + " --init) || test $? -eq 3")
		r.run(script) // what was told is told once
		for _, path := range job.Cache.Paths {
			if _, err := os.Stat(filepath.Join(r.dir, path)); err != nil {
				r.t.Errorf("%s keeps %s: %v", name, path, err)
			}
		}
		if job.Cache.When != "always" || job.Group == "" {
			r.t.Errorf("%s: a run that finds something loses its state, or two runs share one", name)
		}
		// What is not kept is not needed.
		entries, err := os.ReadDir(r.dir)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "sigwarden.db") && !slices.Contains(job.Cache.Paths, e.Name()) {
				r.run("rm " + e.Name())
			}
		}
		r.run(script)
		r.run("sigwarden findings list --json | grep unexpected")
		if !slices.ContainsFunc(job.Script, func(s string) bool { return strings.Contains(s, "--require-state") }) {
			r.t.Errorf("%s begins anew where its cache is lost", name)
		}
	}
}
