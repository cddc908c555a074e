package main

import (
	"archive/zip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/trust/trusttest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sigwarden": main, "sigstore-kms-acmetest": pluginMain})
}

// TestScripts runs the program as its users do, against real logs over HTTP
// that the scripts command: see (*logs).command.
func TestScripts(t *testing.T) {
	bundles, err := realBundles(".")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"), RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			ca, err := testca.New("acme", time.Now())
			if err != nil {
				return err
			}
			l := &logs{ca: ca, dir: e.WorkDir, logs: map[string]*locallog.Log{}, servers: map[string]*locallog.Server{}, urls: map[string]string{}}
			e.Values["logs"] = l
			e.Setenv("SIGSTORE", bundles)
			e.Defer(l.close)
			return os.WriteFile(filepath.Join(e.WorkDir, "ca.pem"), []byte(ca.ChainPEM()), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": wantStatus,
			"logv1": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Check(ts.Value("logs").(*logs).commandV1(args))
			},
			"tuf": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Check(ts.Value("logs").(*logs).commandTUF(args))
			},
			"unpack": unpack,
			"wrap":   wrapLeaf,
			"log": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Check(ts.Value("logs").(*logs).command(ts, args))
			},
		},
	})
}

// wantStatus is `status N program args…`: the program must exit with status N.
func wantStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N program args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// unpack is `unpack ZIP NAME FILE`: it takes one file out of an archive.
func unpack(ts *testscript.TestScript, neg bool, args []string) {
	z, err := zip.OpenReader(ts.MkAbs(args[0]))
	ts.Check(err)
	defer z.Close()
	f, err := z.Open(args[1])
	ts.Check(err)
	data, err := io.ReadAll(f)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), data, 0o600))
}

// wrapLeaf is `wrap LEAF FORMAT FILE`: it puts a leaf, in base64, into text.
func wrapLeaf(ts *testscript.TestScript, neg bool, args []string) {
	leaf := ts.ReadFile(args[0])
	text := strings.ReplaceAll(args[1], "LEAF", base64.StdEncoding.EncodeToString([]byte(leaf)))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(text), 0o600))
}

const scriptConfig = `state: %[1]s.db
logs:
  - name: %[1]s
    type: rekor-v2
    url: %[2]s
    origin: %[1]s.acme.example
    public_key: %[1]s.pem
    ca: ca.pem
    start: first
watchlist:
  - name: releases
    match: [{subject: "https://github.com/acme/*"}]
    expect:
      - subject: "https://github.com/acme/widget/*"
        issuer: https://token.actions.githubusercontent.com
        extensions: {runner-environment: github-hosted}
notify:
  channels:
    - name: lines
      file: {path: %[1]s.jsonl}
`

// logs are the logs of one script, by name.
type logs struct {
	ca      *testca.CA
	dir     string
	logs    map[string]*locallog.Log
	servers map[string]*locallog.Server
	v1      *locallog.V1
	tuf     *trusttest.Repository
	urls    map[string]string // by origin
	stop    []func()
}

func (l *logs) close() {
	for _, f := range l.stop {
		f()
	}
}

// command is `log VERB NAME args…`:
//
//	new NAME             a log; NAME.pem is its key, NAME.yaml a configuration for it
//	fill NAME N          N entries of others
//	sign NAME WHAT       an event of ours: expected, unexpected or forged
//	bundle NAME FILE     the entry in a Sigstore bundle
//	fork NAME AT SIZE    from now on another history from AT on is served
//	serve NAME SIZE      an older checkpoint is served
//	swap NAME INDEX      another entry is served at INDEX
//	down NAME            every answer is 500
//	freeze NAME          the log ends
//	heal NAME            all is well again, with the first history
func (l *logs) command(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: log VERB NAME args...")
	}
	verb, name, args := args[0], args[1], args[2:]
	if verb == "new" {
		return l.create(ts, name)
	}
	log, server := l.logs[name], l.servers[name]
	if log == nil {
		return fmt.Errorf("no log %q", name)
	}
	var numbers []uint64
	for _, a := range args {
		n, err := strconv.ParseUint(a, 10, 64)
		if err != nil && verb != "sign" && verb != "bundle" {
			return err
		}
		numbers = append(numbers, n)
	}
	switch verb {
	case "bundle":
		leaves, err := leavesIn([]byte(ts.ReadFile(args[0])))
		if err != nil {
			return err
		}
		_, err = log.Append(leaves...)
		return err
	case "fill":
		return l.fill(log, int(numbers[0]))
	case "sign":
		return l.sign(log, args[0])
	case "fork":
		fork, err := log.Fork(numbers[0])
		if err != nil {
			return err
		}
		for fork.Size() < numbers[1] {
			if _, err := fork.Append(fmt.Appendf(nil, "rewritten %d", fork.Size())); err != nil {
				return err
			}
		}
		server.Show(fork, nil)
	case "serve":
		server.Set(locallog.Faults{Size: &numbers[0]})
	case "swap":
		server.Set(locallog.Faults{Swap: map[uint64][]byte{numbers[0]: []byte("swapped")}})
	case "freeze":
		log.Freeze(time.Now())
	case "down":
		server.Set(locallog.Faults{Status: 500})
	case "heal":
		server.Show(log, nil)
		server.Set(locallog.Faults{})
	default:
		return fmt.Errorf("no verb %q", verb)
	}
	return nil
}

func (l *logs) create(ts *testscript.TestScript, name string) error {
	log, err := locallog.New(name + ".acme.example")
	if err != nil {
		return err
	}
	server := locallog.NewServer(log)
	http := httptest.NewServer(server)
	l.stop = append(l.stop, http.Close)
	l.logs[name], l.servers[name], l.urls[log.Origin()] = log, server, http.URL
	config := fmt.Sprintf(scriptConfig, name, http.URL)
	if err := os.WriteFile(filepath.Join(l.dir, name+".yaml"), []byte(config), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, name+".pem"), []byte(log.PublicKeyPEM()), 0o600)
}

func (l *logs) fill(log *locallog.Log, n int) error {
	s, err := l.ca.Issue(testca.Identity{URI: "https://github.com/somebody/else", Issuer: demoIssuer})
	if err != nil {
		return err
	}
	for range n {
		e, err := s.HashedRekord(fmt.Appendf(nil, "artifact %d", log.Size()))
		if err != nil {
			return err
		}
		if _, err := log.Append(e); err != nil {
			return err
		}
	}
	return nil
}

func (l *logs) sign(log *locallog.Log, what string) error {
	s, err := l.signer(what)
	if err != nil {
		return err
	}
	e, err := s.HashedRekord(fmt.Appendf(nil, "release %d", log.Size()))
	if err != nil {
		return err
	}
	_, err = log.Append(e)
	return err
}

// signer makes who signs an event of ours: expected, unexpected or forged.
func (l *logs) signer(what string) (testca.Signer, error) {
	env, ca := "github-hosted", l.ca
	switch what {
	case "unexpected":
		env = "self-hosted"
	case "forged":
		ca = nil
	case "expected":
	default:
		return testca.Signer{}, fmt.Errorf("no event %q", what)
	}
	return ca.Issue(testca.Identity{URI: demoRelease, Issuer: demoIssuer, Extensions: map[int]string{11: env}})
}
