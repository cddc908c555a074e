package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/evidence"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/web"
)

const (
	demoIssuer  = "https://token.actions.githubusercontent.com"
	demoRelease = "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1.4.0"
	demoEntries = 600
)

const demoConfig = `state: state.db
schedule: "@every 5s"
logs:
  - name: acme-log
    type: rekor-v2
    url: %s
    origin: rekor.acme.example
    public_key: log.pem
    ca: authority.pem
    start: first
watchlist:
  - name: acme-releases
    severity: critical
    match:
      - subject: "https://github.com/acme/*"
      - subject: "*@acme.example"
    expect:
      - subject: "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v*"
        issuer: https://token.actions.githubusercontent.com
        extensions: {runner-environment: github-hosted}
notify:
  channels:
    - name: alerts
      file: {path: alerts.jsonl}
`

func (a *app) demoCommand() *cobra.Command {
	var serve bool
	var listen string
	c := &cobra.Command{
		Use: "demo", Short: "Try everything out with no network and no configuration", Args: cobra.NoArgs,
		Long: `Runs the main job against a real log on this machine: it signs, hashes and serves
like Rekor v2, and holds an expected and a forged signing event. Then the log
forks. Nothing leaves this machine, and nothing stays on it.`,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := os.MkdirTemp("", "sigwarden-demo-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			d := &demo{app: a, dir: dir}
			return d.run(c.Context(), serve, listen)
		},
	}
	c.Flags().BoolVar(&serve, "serve", false, "keep the log and the monitor running, with health and metrics over HTTP, until stopped")
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:8480", "with --serve: the address for health and metrics")
	return c
}

// demo is one try-out.
type demo struct {
	*app
	dir    string
	ca     *testca.CA
	log    *locallog.Log
	server *locallog.Server
	setup  *setup
	store  *store.Store
	engine *monitor.Engine
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.stdout, format+"\n", args...) }

func (d *demo) run(ctx context.Context, serve bool, listen string) error {
	stop, err := d.begin(ctx)
	if err != nil {
		return err
	}
	defer stop()
	d.say("\n2. SCAN. sigwarden fetches the signed checkpoint and every entry, and proves each entry\n   against what the log signed, before it looks at it.")
	if err := d.pass(ctx); err != nil {
		return err
	}
	if err := d.findings(ctx); err != nil {
		return err
	}
	if err := d.alerts(ctx); err != nil {
		return err
	}
	if err := d.fork(ctx); err != nil {
		return err
	}
	d.say("\nThat was the whole job: every entry proven, expected told from unexpected, one alert for what\nmatters, and a lying log caught with evidence that others can check. To watch real logs, copy\nconfig.example.yaml to sigwarden.yaml, and start with `sigwarden check`.")
	if !serve {
		return nil
	}
	return d.serve(ctx, listen)
}

// begin makes the log, the authority and the configuration.
func (d *demo) begin(ctx context.Context) (stop func(), err error) {
	if d.ca, err = testca.New("acme", time.Now()); err != nil {
		return nil, err
	}
	if d.log, err = locallog.New("rekor.acme.example"); err != nil {
		return nil, err
	}
	if err := d.fill(); err != nil {
		return nil, err
	}
	d.server = locallog.NewServer(d.log)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: d.server, ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener)
	files := map[string]string{
		"sigwarden.yaml": fmt.Sprintf(demoConfig, "http://"+listener.Addr().String()),
		"log.pem":        d.log.PublicKeyPEM(), "authority.pem": d.ca.ChainPEM(),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
			server.Close()
			return nil, err
		}
	}
	d.configPath = filepath.Join(d.dir, "sigwarden.yaml")
	if d.setup, err = d.load(); err != nil {
		server.Close()
		return nil, err
	}
	if d.store, err = store.Open(ctx, d.setup.cfg.State, store.Options{Create: true, Exclusive: true}); err != nil {
		server.Close()
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	if d.engine, err = d.setup.engine(ctx, d.store, quiet, nil); err != nil {
		server.Close()
		return nil, err
	}
	d.say("1. A LOG. A transparency log runs on this machine, with %d signing events of many projects.\n   Three of them carry the name of acme, whose releases we watch:", d.log.Size())
	d.say("   - entry 200: the release workflow of acme/widget signed v1.4.0, on GitHub's own machines")
	d.say("   - entry 345: somebody signed as that same workflow on a self-hosted machine: a stolen identity")
	d.say("   - entry 432: somebody made a certificate with that name himself; no authority issued it")
	return func() { d.store.Close(); server.Close() }, nil
}

// fill writes the entries of the log: those of others, and three of ours.
func (d *demo) fill() error {
	others, err := d.ca.Issue(testca.Identity{URI: "https://github.com/somebody/else/.github/workflows/ci.yml@refs/heads/main", Issuer: demoIssuer})
	if err != nil {
		return err
	}
	events := map[int]struct {
		ca  *testca.CA
		env string
	}{200: {d.ca, "github-hosted"}, 345: {d.ca, "self-hosted"}, 432: {nil, "github-hosted"}}
	for i := range demoEntries {
		signer := others
		if event, ours := events[i]; ours {
			if signer, err = event.ca.Issue(testca.Identity{URI: demoRelease, Issuer: demoIssuer, Extensions: map[int]string{11: event.env, 16: "https://github.com/acme"}}); err != nil {
				return err
			}
		}
		e, err := signer.HashedRekord(fmt.Appendf(nil, "artifact %d", i))
		if err != nil {
			return err
		}
		if _, err := d.log.Append(e); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) pass(ctx context.Context) error {
	for _, out := range d.engine.Once(ctx, 20*time.Second) {
		if out.Err != nil {
			return out.Err
		}
	}
	status, err := d.engine.Status(ctx, d.store, d.setup.names)
	if err != nil {
		return err
	}
	l := status.Logs[0]
	d.say("   Verified: %d entries, root %x, covered: %s, state: %s.", l.Verified.Size, l.Verified.Root[:], ranges(l.Coverage), l.State)
	return nil
}

func (d *demo) findings(ctx context.Context) error {
	list, err := d.store.Findings(ctx, store.Filter{})
	if err != nil {
		return err
	}
	d.say("\n3. FINDINGS. What is ours, and whether it was to be expected:")
	for _, f := range list {
		d.say("   entry %d: %s\n     %s", f.Index, strings.ToUpper(string(f.Verdict)), safe(f.Reason))
	}
	return nil
}

func (d *demo) alerts(ctx context.Context) error {
	drain, cancel := context.WithTimeout(ctx, drainFor)
	defer cancel()
	d.setup.dispatcher(d.store, slog.New(slog.DiscardHandler)).Drain(drain)
	data, err := os.ReadFile(filepath.Join(d.dir, "alerts.jsonl"))
	if err != nil {
		return err
	}
	d.say("\n4. ALERTS. The expected event stays quiet, and so does the one that nobody vouches for: it is\n   recorded, since anybody can make such a certificate. One message went out:")
	for _, line := range bytes.Split(bytes.TrimSpace(data), []byte("\n")) {
		var event struct {
			Type string
			Data struct {
				Finding struct {
					ID    string
					Index uint64
				}
			}
		}
		if err := json.Unmarshal(line, &event); err != nil {
			return err
		}
		d.say("   %s: entry %d, finding %s", event.Type, event.Data.Finding.Index, event.Data.Finding.ID)
	}
	return nil
}

// fork lets the log show another history, and checks the evidence of that.
func (d *demo) fork(ctx context.Context) error {
	d.say("\n5. A FORK. Now the log rewrites its history from entry 345 on, as if the stolen signature had\n   never been there, signs that with its real key, and serves it.")
	fork, err := d.log.Fork(345)
	if err != nil {
		return err
	}
	for i := range 400 {
		if _, err := fork.Append(fmt.Appendf(nil, `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"rewritten":%d}}`, i)); err != nil {
			return err
		}
	}
	d.server.Show(fork, nil)
	for _, out := range d.engine.Once(ctx, 20*time.Second) {
		if out.Err != nil {
			return out.Err
		}
	}
	list, err := d.store.Incidents(ctx, store.Filter{Kind: monitor.KindFork})
	if err != nil {
		return err
	}
	if len(list) != 1 {
		return fmt.Errorf("the fork was not noticed: %d incidents", len(list))
	}
	d.say("   CAUGHT: incident %s, %s.\n   %s", list[0].ID, list[0].Kind, safe(list[0].Summary))
	var b bytes.Buffer
	if err := (&exporter{store: d.store}).export(ctx, list[0].ID, &b); err != nil {
		return err
	}
	res, err := evidence.Verify(b.Bytes(), evidence.Trust{LogKeys: []string{d.log.PublicKeyPEM()}})
	if err != nil {
		return err
	}
	d.say("   The log is halted at the history that was proven. The evidence, a file of %d bytes, convinces\n   anybody who has the log's public key and nothing else:", b.Len())
	for _, p := range res.Of(evidence.Proven) {
		d.say("   - proven: %s", safe(p))
	}
	return nil
}

// serve keeps the honest log growing and the monitor on it.
func (d *demo) serve(ctx context.Context, listen string) error {
	incidents, err := d.store.Incidents(ctx, store.Filter{Kind: monitor.KindFork})
	if err != nil {
		return err
	}
	d.server.Show(d.log, nil)
	for _, inc := range incidents {
		if err := d.engine.Resume(ctx, monitor.Resumption{Log: "acme-log", Incident: inc.ID, By: monitor.Ourselves, Note: "the demonstration goes on"}); err != nil {
			return err
		}
	}
	log := d.logger()
	dispatcher := d.setup.dispatcher(d.store, log)
	if d.engine, err = d.setup.engine(ctx, d.store, log, dispatcher.Wake); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	d.say("\nServing: http://%[1]s/ (the page), http://%[1]s/healthz, http://%[1]s/metrics. The log grows; alerts\nare in %[2]s. Stop with Ctrl-C.", listener.Addr(), filepath.Join(d.dir, "alerts.jsonl"))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() { dispatcher.Run(ctx) })
	wg.Go(func() { d.engine.Run(ctx) })
	wg.Go(func() { cancel(d.grow(ctx)) })
	served, err := d.webOptions(ctx, d.setup, d.store, d.engine, dispatcher, log)
	if err == nil {
		served.Access.Open = config.Loopback(listen)
		err = web.New(served).Serve(ctx, listener)
	}
	cancel(err)
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// grow signs an event every few seconds, some of them ours and few unexpected.
func (d *demo) grow(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		id := testca.Identity{URI: "https://github.com/somebody/else", Issuer: demoIssuer}
		if n%5 == 0 {
			id = testca.Identity{URI: demoRelease, Issuer: demoIssuer, Extensions: map[int]string{11: "github-hosted"}}
		}
		if n%30 == 0 {
			id.Extensions[11] = "self-hosted"
		}
		s, err := d.ca.Issue(id)
		if err != nil {
			return err
		}
		e, err := s.HashedRekord(fmt.Appendf(nil, "artifact %d", d.log.Size()))
		if err != nil {
			return err
		}
		if _, err := d.log.Append(e); err != nil {
			return err
		}
	}
}
