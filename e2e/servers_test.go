// Package e2e runs sigwarden against real servers: Rekor v2, Rekor v1 on Trillian,
// PostgreSQL and Redis, a mail server, and receivers of Slack messages and signed
// webhooks. Everything listens on loopback.
package e2e

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// built caches programs: each is built once a run, and the build cache does the
// rest.
var built struct {
	sync.Mutex
	dir   string
	paths map[string]string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// program builds a program and returns its path: "sigwarden", or the name of a
// folder in tools with the name of a binary that its tool lines make.
func program(t testing.TB, name, binary string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "sigwarden-e2e-")
		if err != nil {
			t.Fatal(err)
		}
		built.dir, built.paths = dir, map[string]string{}
	}
	if p, ok := built.paths[name]; ok {
		return filepath.Join(p, binary)
	}
	out := filepath.Join(built.dir, name)
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	var c *exec.Cmd
	if name == "sigwarden" {
		c = exec.Command("go", "-C", "..", "build", "-trimpath", "-o", filepath.Join(out, binary), "./cmd/sigwarden")
	} else {
		c = exec.Command("go", "-C", filepath.Join("tools", name), "build", "-trimpath", "-o", out+"/", "tool")
	}
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", name, err, text)
	}
	built.paths[name] = out
	return filepath.Join(out, binary)
}

// freePort returns a port on loopback that nobody listens on just now.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// process is a program that was started, and is stopped with the test.
type process struct {
	*exec.Cmd
	t      testing.TB
	output *lockedBuffer
	done   chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t testing.TB, path string, args ...string) *process {
	t.Helper()
	return startCommand(t, exec.Command(path, args...))
}

func startCommand(t testing.TB, c *exec.Cmd) *process {
	t.Helper()
	p := &process{Cmd: c, t: t, output: &lockedBuffer{}, done: make(chan struct{})}
	p.Stdout, p.Stderr = p.output, p.output
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.Wait(); close(p.done) }()
	t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	p.Process.Signal(syscall.SIGKILL)
	<-p.done
}

// stop asks a program to stop, and returns its exit status.
func (p *process) stop(within time.Duration) int {
	p.t.Helper()
	p.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(within):
		p.t.Fatalf("%s did not stop within %s\n%s", filepath.Base(p.Path), within, p.output)
	}
	return p.ProcessState.ExitCode()
}

// until waits for something to be so.
func until(t testing.TB, what string, within time.Duration, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after %s", what, within)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func answers(url string) bool {
	resp, err := http.Get(url)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// rekorLog is the key and origin of a Rekor v2 log.
type rekorLog struct {
	origin             string
	keyFile, publicPEM string // the signing key's file, the public key's text
}

func newRekorLog(t testing.TB, origin string) rekorLog {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "log.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		t.Fatal(err)
	}
	return rekorLog{origin, file, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))}
}

// serve starts a real Rekor v2 server on a directory, and returns the address
// that entries are written to.
func (l rekorLog) serve(t testing.TB, dir string, more ...string) (*process, string) {
	t.Helper()
	port := freePort(t)
	args := []string{"serve", "--http-address=127.0.0.1", fmt.Sprintf("--http-port=%d", port),
		"--grpc-address=127.0.0.1", fmt.Sprintf("--grpc-port=%d", freePort(t)), fmt.Sprintf("--http-metrics-port=%d", freePort(t)),
		"--hostname=" + l.origin, "--storage-dir=" + dir, "--signer-filepath=" + l.keyFile, "--checkpoint-interval=100ms", "--log-level=error"}
	p := start(t, program(t, "rekor", "posix"), append(args, more...)...)
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	until(t, "the Rekor server answers", 20*time.Second, func() bool {
		select {
		case <-p.done:
			t.Fatalf("the Rekor server ended: %s", p.output)
		default:
		}
		return answers(url + "/healthz")
	})
	return p, url
}
