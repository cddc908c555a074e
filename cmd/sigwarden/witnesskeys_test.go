package main

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/handler"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// pluginKey is the key of the plugin that the tests are.
func pluginKey() ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("a key of tests"))
	return ed25519.NewKeyFromSeed(seed[:])
}

// plugin is a program of sigstore's KMS plugin protocol; the test binary runs it under
// the name sigstore-kms-acmetest.
type plugin struct{ signature.SignerVerifier }

func (plugin) CreateKey(context.Context, string) (crypto.PublicKey, error) {
	return nil, fmt.Errorf("no keys are made here")
}

func (plugin) CryptoSigner(context.Context, func(error)) (crypto.Signer, crypto.SignerOpts, error) {
	return nil, nil, fmt.Errorf("not here")
}
func (plugin) SupportedAlgorithms() []string { return []string{"ed25519"} }
func (plugin) DefaultAlgorithm() string      { return "ed25519" }

func pluginMain() {
	args, err := handler.GetPluginArgs(os.Args)
	if err != nil {
		handler.WriteErrorResponse(os.Stdout, err)
		os.Exit(1)
	}
	if args.InitOptions.KeyResourceID != "acmetest://key-1" && args.InitOptions.KeyResourceID != "key-1" {
		handler.WriteErrorResponse(os.Stdout, fmt.Errorf("there is no key %s", args.InitOptions.KeyResourceID))
		os.Exit(1)
	}
	sv, err := signature.LoadED25519SignerVerifier(pluginKey())
	if err != nil {
		os.Exit(1)
	}
	if _, err := handler.Dispatch(os.Stdout, os.Stdin, args, plugin{sv}); err != nil {
		os.Exit(1)
	}
}

// cosigns checks that a key signs, and that others can verify it.
func cosigns(t *testing.T, a *app, k config.WitnessKey, public ed25519.PublicKey) {
	t.Helper()
	c, err := a.cosigner(k)
	if err != nil {
		t.Fatal(err)
	}
	v, err := witness.NewVerifier(k.Name, witness.Ed25519, public)
	if err != nil || !v.SameKey(c.Verifier) {
		t.Fatalf("%s, %v", c.Verifier, err)
	}
	l, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := l.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	log, err := checkpoint.ForOrigin("log.example", l.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	cp, err := log.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	line, err := c.Cosign(context.Background(), cp, time.Now())
	if err != nil || len(witness.Cosignatures(append(raw, line...), v)) != 1 {
		t.Errorf("%q, %v", line, err)
	}
}

// agents are an SSH agent in this process, and the real one where it is installed.
func agents(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	dir, err := os.MkdirTemp("", "agent") // sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ring := agent.NewKeyring()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(ring, conn)
		}
	}()
	out["in this process"] = socket
	if path, err := exec.LookPath("ssh-agent"); err == nil {
		socket := filepath.Join(dir, "real")
		c := exec.Command(path, "-D", "-a", socket)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		for range 100 {
			if _, err := os.Stat(socket); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		out["ssh-agent"] = socket
	} else {
		t.Log("ssh-agent is not installed: not tried with it")
	}
	return out
}

func TestAgentKeys(t *testing.T) {
	for name, socket := range agents(t) {
		t.Run(name, func(t *testing.T) {
			_, private, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := agent.NewClient(conn).Add(agent.AddedKey{PrivateKey: &private}); err != nil {
				t.Fatal(err)
			}
			key, err := ssh.NewPublicKey(private.Public())
			if err != nil {
				t.Fatal(err)
			}
			a := &app{getenv: func(string) string { return socket }}
			cosigns(t, a, config.WitnessKey{Agent: ssh.FingerprintSHA256(key), Name: "witness.example/a"}, private.Public().(ed25519.PublicKey))
			if _, err := a.cosigner(config.WitnessKey{Agent: "SHA256:nope", Name: "w"}); err == nil || !strings.Contains(err.Error(), "ssh-add -l") {
				t.Errorf("%v", err)
			}
		})
	}
	for _, socket := range []string{"", filepath.Join(t.TempDir(), "gone")} {
		a := &app{getenv: func(string) string { return socket }}
		if _, err := a.cosigner(config.WitnessKey{Agent: "SHA256:x", Name: "w"}); err == nil {
			t.Errorf("%q", socket)
		}
	}
}

func TestPluginKeys(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "sigstore-kms-acmetest")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	cosigns(t, &app{}, config.WitnessKey{Plugin: "acmetest://key-1", Name: "witness.example/p"}, pluginKey().Public().(ed25519.PublicKey))
	for _, bad := range []string{"acmetest://key-2", "nowhere://key-1", "key-1"} {
		if _, err := (&app{}).cosigner(config.WitnessKey{Plugin: bad, Name: "w"}); err == nil {
			t.Errorf("%s", bad)
		}
	}
}

// TestLockKey: of two that would sign with one key, whatever their states, one is told.
func TestLockKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("x"), 0o400); err != nil {
		t.Fatal(err)
	}
	_, c, err := witness.GenerateKey("w", witness.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []config.WitnessKey{{File: file}, {Agent: "x"}} {
		release, err := lockKey(k, c.Verifier)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lockKey(k, c.Verifier); err == nil || !strings.Contains(err.Error(), "another process signs with the key w") {
			t.Errorf("%+v: %v", k, err)
		}
		release()
		again, err := lockKey(k, c.Verifier)
		if err != nil {
			t.Errorf("%+v: %v", k, err)
		} else {
			again()
		}
	}
}
