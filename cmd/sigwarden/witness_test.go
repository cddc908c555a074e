package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// witnessRig is a daemon's witness that is not served: of one log that is followed.
type witnessRig struct {
	t      *testing.T
	app    *app
	stderr *bytes.Buffer
	log    *locallog.Log
	state  string
}

func newWitnessRig(t *testing.T, more string) *witnessRig {
	t.Helper()
	dir := t.TempDir()
	l, err := locallog.New("log.acme.example")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := l.Append(fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(locallog.NewServer(l))
	t.Cleanup(server.Close)
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	secret, _, err := witness.GenerateKey("witness.acme.example/w1", witness.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`
state: state.db
logs: [{name: acme, type: rekor-v2, url: %q, origin: log.acme.example, public_key: log.pem, ca: ca.pem, start: first}]
witness: {listen: "127.0.0.1:0", keys: ["file:w.key"]%s}
`, server.URL, more)
	for name, data := range map[string]string{"ca.pem": ca.ChainPEM(), "log.pem": l.PublicKeyPEM(), "w.key": secret, "sigwarden.yaml": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := &witnessRig{t: t, stderr: &bytes.Buffer{}, log: l, state: filepath.Join(dir, "state.db")}
	r.app = &app{getenv: os.Getenv, stdout: &bytes.Buffer{}, stderr: r.stderr, configPath: filepath.Join(dir, "sigwarden.yaml")}
	return r
}

// open opens everything as a daemon does, and follows the log for one pass.
func (r *witnessRig) open() (*cosigning, *monitor.Engine, func(), error) {
	r.t.Helper()
	ctx := context.Background()
	s, err := r.app.load()
	if err != nil {
		r.t.Fatal(err)
	}
	st, err := store.Open(ctx, r.state, store.Options{Create: true})
	if err != nil {
		r.t.Fatal(err)
	}
	w, err := r.app.openWitness(ctx, s, st, r.app.logger())
	if err != nil {
		st.Close()
		return nil, nil, nil, err
	}
	engine, err := s.engine(ctx, st, r.app.logger(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	w.engine = engine
	engine.Once(ctx, 20*time.Second)
	return w, engine, func() { w.close(); st.Close() }, nil
}

func (r *witnessRig) request(size uint64) []byte {
	r.t.Helper()
	raw, err := r.log.CheckpointAt(size)
	if err != nil {
		r.t.Fatal(err)
	}
	return (&witness.Request{Note: raw}).Format()
}

func (r *witnessRig) run(args ...string) error {
	r.t.Helper()
	path := r.app.configPath
	c := r.app.command()
	c.SetArgs(append(args, "-c", path))
	return c.ExecuteContext(context.Background())
}

// TestWitnessConnections: whoever holds connections to a witness and asks for nothing keeps nobody out.
func TestWitnessConnections(t *testing.T) {
	r := newWitnessRig(t, "")
	w, _, done, err := r.open()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	address := w.listener.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	deadline := time.Now().Add(20 * time.Second)
	for len(conns) < 600 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		if len(conns)%2 == 0 {
			continue // it has never asked for anything
		}
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		c.SetReadDeadline(deadline)
		if n, err := c.Read(make([]byte, 64)); err != nil || n == 0 {
			t.Fatalf("connection %d: %v", len(conns), err)
		}
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post("http://"+address+"/add-checkpoint", "text/plain", bytes.NewReader(r.request(10)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
	// Of those that wait for nothing some had to go.
	gone := 0
	for _, c := range conns {
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := io.Copy(io.Discard, c); err == nil {
			gone++
		}
	}
	if gone == 0 {
		t.Errorf("all %d connections of one network are kept", len(conns))
	}
}

// TestWitnessRestored: a state of the witness that is older than what the monitor knows of
// it, or that is gone, signs nothing until a person has decided.
func TestWitnessRestored(t *testing.T) {
	ctx := context.Background()
	r := newWitnessRig(t, "")
	if err := r.run("witness", "logs"); err == nil {
		t.Error("a state is made by whoever looks at it")
	}
	w, _, done, err := r.open()
	if err != nil {
		t.Fatal(err)
	}
	if a := w.witness.Add(ctx, r.request(10)); a.Status != 200 {
		t.Fatalf("%+v", a)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	w.keepMark(ended)
	done()
	if _, _, done, err = r.open(); err != nil {
		t.Fatalf("as it was: %v", err)
	}
	done()
	for _, name := range []string{"", "-wal", "-shm"} {
		os.Remove(r.state + "-witness" + name)
	}
	for range 2 { // also once the file is there again
		if _, _, _, err = r.open(); err == nil || !strings.Contains(err.Error(), "is lost") || !strings.Contains(err.Error(), "witness trust --restored") {
			t.Fatalf("%v", err)
		}
	}
	if err := r.run("witness", "trust", "--restored", "--note", "the disk was lost"); err != nil {
		t.Fatal(err)
	}
	if w, _, done, err = r.open(); err != nil {
		t.Fatal(err)
	}
	defer done()
	if a := w.witness.Add(ctx, r.request(10)); a.Status != 200 {
		t.Errorf("%+v", a)
	}
}

// TestWitnessOfFollowed: a list neither changes a log that is followed nor brings back one
// that is halted, or that is not to be signed.
func TestWitnessOfFollowed(t *testing.T) {
	ctx := context.Background()
	for name, more := range map[string]string{"chosen": "", "left out": ", logs: []"} {
		t.Run(name, func(t *testing.T) {
			r := newWitnessRig(t, more)
			w, engine, done, err := r.open()
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			if log := w.logOf("log.acme.example"); (log != nil) != (more == "") {
				t.Fatalf("%v", log)
			}
			other, err := locallog.New("log.acme.example")
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{other.VerifierKey(), r.log.VerifierKey()} {
				if _, _, err := w.promises.AddListed(ctx, key, []witness.Listed{{Key: key, Origin: "log.acme.example", PerDay: 10}}, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.reload(ctx); err != nil {
				t.Fatal(err)
			}
			log := w.logOf("log.acme.example")
			if log == nil || log.Refuse == nil || log.Stopped == nil {
				t.Fatalf("%+v", log)
			}
			raw, _ := r.log.CheckpointAt(10)
			if _, err := log.Open(raw); err != nil {
				t.Errorf("a list has changed its key: %v", err)
			}
			// Halted: whatever names it.
			smaller, _ := r.log.Fork(5)
			for range 5 {
				if _, err := smaller.Append([]byte("other")); err != nil {
					t.Fatal(err)
				}
			}
			evil, _ := smaller.CheckpointAt(10)
			if c, err := engine.Hear(ctx, evil, "a test"); err != nil || c.Verdict != monitor.HeardContradiction {
				t.Fatalf("%+v, %v", c, err)
			}
			if a := w.witness.Add(ctx, r.request(10)); a.Status != 503 || !strings.Contains(a.Body, "halted") {
				t.Errorf("%+v", a)
			}
			if log.Stopped(ctx) == "" {
				t.Error("it is not stopped")
			}
		})
	}
}

// TestWitnessTrust: a person ends a doubt, and the incident with it.
func TestWitnessTrust(t *testing.T) {
	ctx := context.Background()
	r := newWitnessRig(t, "")
	w, _, done, err := r.open()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.promises.Doubt(ctx, "log.acme.example", "a reason", witness.State{}); err != nil {
		t.Fatal(err)
	}
	w.doubted(ctx, "log.acme.example", "a reason")
	done()
	incidents := func() (states []string) {
		st, err := store.Open(ctx, r.state, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		list, err := st.Incidents(ctx, store.Filter{Kind: monitor.KindWitnessDoubt})
		if err != nil {
			t.Fatal(err)
		}
		for _, inc := range list {
			states = append(states, inc.State+" "+inc.Note)
		}
		return states
	}
	if got := fmt.Sprint(incidents()); got != "[open ]" {
		t.Errorf("%s", got)
	}
	if err := r.run("witness", "trust", "log.acme.example"); err == nil {
		t.Error("without a note")
	}
	r.stderr.Reset()
	if err := r.run("witness", "trust", "log.acme.example", "--note", "I have looked"); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(incidents()); got != "[resolved I have looked]" || r.stderr.String() != "log.acme.example: trusted\n" {
		t.Errorf("%s, %q", got, r.stderr)
	}
}

// TestSources: what witnesses, distributors and files have seen is compared.
func TestSources(t *testing.T) {
	ctx := context.Background()
	for name, answers := range map[string]func(path string) bool{
		"witness": func(path string) bool { return path == "/"+witness.PathOf("log.acme.example")+"/checkpoint" },
		"distributor": func(path string) bool {
			return path == "/distributor/v0/logs/"+distributorID("log.acme.example")+"/checkpoint.1"
		},
		"file": nil,
	} {
		t.Run(name, func(t *testing.T) {
			r := newWitnessRig(t, "")
			_, engine, done, err := r.open()
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			fork, err := r.log.Fork(5)
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				if _, err := fork.Append([]byte("other")); err != nil {
					t.Fatal(err)
				}
			}
			show, status := []byte(nil), 404
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if !answers(req.URL.Path) {
					t.Errorf("asked for %s", req.URL.Path)
				}
				w.WriteHeader(status)
				w.Write(show)
			}))
			defer server.Close()
			dir := t.TempDir()
			set := func(raw []byte) {
				show, status = raw, 200
				if err := os.WriteFile(filepath.Join(dir, "a.note"), raw, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l := &sourceReader{Source: map[string]config.Source{"witness": {Witness: server.URL}, "distributor": {Distributor: server.URL}, "file": {File: filepath.Join(dir, "*.note")}}[name],
				client: server.Client(), engine: engine, log: r.app.logger(), failed: map[string]bool{}}
			halted := func() string {
				l.round(ctx)
				return engine.Stopped(ctx, "log.acme.example")
			}
			if halted() != "" {
				t.Error("halted for nothing")
			}
			stranger, err := locallog.New("log.acme.example")
			if err != nil {
				t.Fatal(err)
			}
			forged, _ := stranger.Checkpoint()
			same, _ := r.log.CheckpointAt(10)
			for what, raw := range map[string][]byte{"signed by another key": forged, "the same tree": same, "nonsense": []byte("<html>"), "endless": bytes.Repeat([]byte("x"), 100<<10)} {
				if set(raw); halted() != "" {
					t.Errorf("halted for %s", what)
				}
			}
			evil, err := fork.CheckpointAt(10)
			if err != nil {
				t.Fatal(err)
			}
			if set(evil); !strings.Contains(halted(), "contradicted itself") {
				t.Errorf("not halted: %s", r.stderr)
			}
		})
	}
}

// TestListedRate: a log of a list may ask as often as the list says.
func TestListedRate(t *testing.T) {
	ctx := context.Background()
	r := newWitnessRig(t, "")
	w, _, done, err := r.open()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	listed, err := locallog.New("listed.example")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listed.Append([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.promises.AddListed(ctx, "list", []witness.Listed{{Key: listed.VerifierKey(), Origin: "listed.example", PerDay: 10}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	raw, err := listed.CheckpointAt(1)
	if err != nil {
		t.Fatal(err)
	}
	statuses := map[int]int{}
	for i := range 25 {
		if i%15 == 0 { // what was used is used, though the list is read again
			if err := w.reload(ctx); err != nil {
				t.Fatal(err)
			}
		}
		old := uint64(1)
		if i == 0 {
			old = 0
		}
		statuses[w.witness.Add(ctx, (&witness.Request{Old: old, Note: raw}).Format()).Status]++
	}
	if statuses[200] != 10 || statuses[429] != 15 {
		t.Errorf("%v", statuses)
	}
}
