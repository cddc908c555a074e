package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/trust"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// What follows the logs of a configuration.

// clients are the readers of logs: one each for as long as the program runs, so
// that its pace and its counters last.
type clients struct {
	mu    sync.Mutex
	v1    map[string]*rekor.V1 // by name
	v2    map[string]*rekor.V2
	stats map[string]func() rekor.Stats
}

func newClients() *clients {
	return &clients{v1: map[string]*rekor.V1{}, v2: map[string]*rekor.V2{}, stats: map[string]func() rekor.Stats{}}
}

func (c *clients) openV1(name string, opts rekor.Options) (*rekor.V1, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := name + " " + opts.URL
	if v := c.v1[key]; v != nil {
		return v, nil
	}
	v, err := rekor.NewV1(opts)
	if err == nil {
		c.v1[key], c.stats[name] = v, v.Stats
	}
	return v, err
}

func (c *clients) openV2(name string, opts rekor.Options) (*rekor.V2, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := name + " " + opts.URL
	if v := c.v2[key]; v != nil {
		return v, nil
	}
	v, err := rekor.NewV2(opts)
	if err == nil {
		c.v2[key], c.stats[name] = v, v.Stats
	}
	return v, err
}

// bytes returns what was received, by name of the log or server.
func (c *clients) bytes() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]int64{}
	for name, stats := range c.stats {
		out[name] = stats().Bytes
	}
	return out
}

// keyError is what is wrong with one key of a log's configuration.
type keyError struct {
	key string
	error
}

func (e *keyError) Unwrap() error { return e.error }

// made is what follows a log of the configuration: one log, or a server.
type made struct {
	log    *monitor.LogConfig
	server *server
}

func (s *setup) makeLogs() []config.Issue {
	var issues []config.Issue
	if issue := s.makeRoots(userAgent(s.cfg.Contact)); issue != nil {
		return []config.Issue{*issue}
	}
	var reads []trust.Service
	if doc := s.cfg.Trust.MonitorConfig; doc != nil {
		var err error
		if reads, err = trust.ParseMonitorConfig(doc); err != nil {
			issues = append(issues, s.cfg.At("trust.monitor_config", err.Error()))
		}
	}
	for _, l := range s.cfg.Logs {
		switch {
		case l.Sigstore != "":
			s.instance = &instance{setup: s, item: l, reads: reads, versions: map[string]int{}}
			if _, err := s.options(l, ""); err != nil {
				issues = append(issues, s.logIssue(l, err))
			}
			continue
		case s.roots.pinned == nil && needsRoot(l):
			s.late = append(s.late, l)
			if _, err := s.makeLog(l, nil, nil); err != nil {
				issues = append(issues, s.logIssue(l, err))
			}
			continue
		}
		m, err := s.makeLog(l, s.roots.pinned, nil)
		if err != nil {
			issues = append(issues, s.logIssue(l, err))
			continue
		}
		if m.server != nil {
			s.servers = append(s.servers, m.server)
		} else {
			s.logs = append(s.logs, *m.log)
		}
	}
	return issues
}

// needsRoot reports whether a log takes its key or its authorities from the
// trusted root.
func needsRoot(l config.Log) bool { return l.PublicKey == "" || l.CA == "" && l.Entries }

func (s *setup) logIssue(l config.Log, err error) config.Issue {
	path := l.Path
	var at *keyError
	if errors.As(err, &at) {
		path += "." + at.key
	}
	return s.cfg.At(path, err.Error())
}

// options are those of a log's client.
func (s *setup) options(l config.Log, url string) (rekor.Options, error) {
	opts := rekor.Options{URL: url, UserAgent: userAgent(s.cfg.Contact), RequestsPerSecond: l.RequestsPerSecond, Parallel: l.Parallel}
	var err error
	if opts.RootCAs, err = certPool(l.TLSCA); err != nil {
		return opts, &keyError{"tls_ca", err}
	}
	return opts, nil
}

// certPool makes a pool of PEM text; nil, which stands for the system's, of none.
func certPool(pem string) (*x509.CertPool, error) {
	if pem == "" {
		return nil, nil
	}
	certs, err := trust.ParseCertificates(pem)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, nil
}

// makeLog makes what follows a log, with the keys given, as DER, or those that
// the configuration or else the root has for it. Without a root it checks what
// can be checked, and returns nil where one is needed.
func (s *setup) makeLog(l config.Log, root *inForce, keys [][]byte) (*made, error) {
	opts, err := s.options(l, l.URL)
	if err != nil {
		return nil, err
	}
	cfg := monitor.LogConfig{
		Name: l.Name, Type: l.Type, Start: l.Start, ConsistencyOnly: !l.Entries,
		Schedule: l.Schedule, StaleAfter: l.StaleAfter, Parallel: l.Parallel, URL: l.URL,
	}
	var policy *witness.Policy
	// Trees of Rekor v1 are followed without: they publish no cosignatures.
	if p := l.Policy; p != nil && l.Type != rekorV1 {
		if policy, err = witness.ParsePolicy(p.Text); err != nil {
			return nil, &keyError{"policy", err}
		}
		cfg.RequireQuorum = p.Require
		cfg.Quorum = func(raw []byte, now time.Time) error { return policy.Check(raw, now, p.MaxAge) }
	}
	if cfg.Authorities, err = makeAuthorities(l.CA, root); err != nil {
		return nil, &keyError{"ca", err}
	}
	if l.CA == "" && root != nil {
		cfg.TrustRoot = root.kept
	}
	if l.PublicKey != "" {
		if keys, err = configuredKey(l); err != nil {
			return nil, &keyError{"public_key", err}
		}
	} else if keys == nil && root != nil {
		for _, k := range root.Logs {
			if k.Origin == l.Origin {
				keys = append(keys, k.SPKI)
			}
		}
		if keys == nil {
			return nil, &keyError{"origin", fmt.Errorf("log %q has no public_key, and the trusted root has none for its origin %q", l.Name, l.Origin)}
		}
	}
	cfg.Keys = keys
	if l.Type == rekorV1 {
		if cfg.Parallel == 0 {
			cfg.Parallel = 64
		}
		reader, err := s.clients.openV1(l.Name, opts)
		if err != nil {
			return nil, &keyError{"url", err}
		}
		cfg.Family = l.Name
		return &made{server: &server{name: l.Name, family: l.Name, rekor: reader, keys: keys, template: cfg}}, nil
	}
	switch {
	case strings.HasPrefix(cfg.URL, "file:"):
		// Nobody is waited for: more than there are processors only take memory.
		cfg.Parallel = runtime.GOMAXPROCS(0) + 1
	case cfg.Parallel == 0:
		cfg.Parallel = 16
	}
	reader, err := s.clients.openV2(l.Name, opts)
	if err != nil {
		return nil, &keyError{"url", err}
	}
	cfg.ID, cfg.Source = l.Origin, reader
	if keys == nil {
		return nil, nil
	}
	var verifiers []note.Verifier
	for _, der := range keys {
		key, err := checkpoint.NewVerifier(l.Origin, der)
		if err != nil {
			return nil, &keyError{"origin", err}
		}
		verifiers = append(verifiers, key)
	}
	if text := l.PublicKey; text != "" {
		// A verifier key brings its own name.
		if verifiers[0], err = checkpoint.ParseKey(l.Origin, text); err != nil {
			return nil, &keyError{"public_key", err}
		}
	}
	if cfg.Log, err = checkpoint.NewLog(l.Origin, verifiers...); err != nil {
		return nil, &keyError{"origin", err}
	}
	if policy != nil && !names(policy, keys) {
		return nil, &keyError{"policy", fmt.Errorf("it names the keys of other logs, and not one of log %q: it is a policy for another log", l.Name)}
	}
	return &made{log: &cfg}, nil
}

// names reports whether a policy is for a log with one of the keys, as DER. One that names
// no log is for any.
func names(p *witness.Policy, keys [][]byte) bool {
	return len(p.Logs) == 0 || slices.ContainsFunc(p.Logs, func(text string) bool {
		der, err := checkpoint.ParseSPKI(text)
		return err == nil && slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, der) })
	})
}

func configuredKey(l config.Log) ([][]byte, error) {
	der, err := checkpoint.ParseSPKI(l.PublicKey)
	return [][]byte{der}, err
}

// userAgent tells operators of logs who asks, and whom to write to.
func userAgent(contact string) string {
	if contact == "" {
		return "sigwarden/" + version()
	}
	return "sigwarden/" + version() + " (" + contact + ")"
}

// makeAuthorities takes certificate authorities from PEM text, or where there is
// none from a root, which may be nil.
func makeAuthorities(pem string, root *inForce) (*entry.Authorities, error) {
	var list []trust.Authority
	var ctLogs []trust.CTLog
	if root != nil {
		list, ctLogs = root.Authorities, root.CTLogs
	}
	if pem != "" {
		var err error
		if list, err = trust.ParsePEM(pem); err != nil {
			return nil, err
		}
	}
	return newAuthorities(list, ctLogs)
}

// newAuthorities makes authorities ready to verify with, and the logs of certificates
// whose keys are understood.
func newAuthorities(list []trust.Authority, ctLogs []trust.CTLog) (*entry.Authorities, error) {
	var out []entry.Authority
	for _, a := range list {
		out = append(out, entry.Authority(a))
	}
	authorities, err := entry.NewAuthorities(out...)
	if err != nil {
		return nil, err
	}
	var logs []entry.CTLog
	for _, l := range ctLogs {
		if ct, err := entry.NewCTLog(l.SPKI, l.ValidFrom, l.ValidUntil); err == nil {
			logs = append(logs, ct) // one of an unknown kind, of which an incident tells, blinds us to no other
		}
	}
	return authorities.WithCTLogs(logs...), nil
}

// members returns the logs that are known, those of servers and of the trusted
// root from the state file: commands beside the daemon ask nobody; and what has
// to be asked as families.
func (s *setup) members(ctx context.Context, st *store.Store) ([]monitor.LogConfig, []monitor.Family, error) {
	logs := slices.Clone(s.logs)
	states, err := st.States(ctx)
	if err != nil {
		return nil, nil, err
	}
	var families []monitor.Family
	family := func(name string, schedule config.Schedule, list func(context.Context) ([]monitor.LogConfig, error)) {
		families = append(families, monitor.Family{Name: name, Schedule: schedule, List: list})
	}
	for _, v := range s.servers {
		known, err := v.remembered(states)
		if err != nil {
			return nil, nil, err
		}
		logs = append(logs, known...)
		family(v.name, config.Schedule{Schedule: v.template.Schedule}, func(ctx context.Context) ([]monitor.LogConfig, error) {
			states, err := st.States(ctx)
			if err != nil {
				return nil, err
			}
			return v.listOrRemembered(ctx, states)
		})
	}
	if len(s.late) == 0 && s.instance == nil {
		return logs, families, nil
	}
	root, err := s.roots.stored(ctx, st)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range s.late {
		if root != nil {
			m, err := s.makeLate(l, root, states)
			if err != nil {
				// The others do not wait for it; asking its family says it again.
				s.roots.log.Warn("a log cannot be followed", "log", l.Name, "error", err)
			} else if m.log != nil {
				logs = append(logs, *m.log)
			} else if known, err := m.server.remembered(states); err != nil {
				return nil, nil, err
			} else {
				logs = append(logs, known...)
			}
		}
		family(l.Name, l.Schedule, func(ctx context.Context) ([]monitor.LogConfig, error) { return s.listLate(ctx, st, l) })
	}
	if g := s.instance; g != nil {
		if root != nil {
			known, err := g.remembered(root, states)
			if err != nil {
				return nil, nil, err
			}
			logs = append(logs, known...)
		}
		family("trusted root", g.item.Schedule, func(ctx context.Context) ([]monitor.LogConfig, error) { return g.list(ctx, st) })
	}
	return logs, families, nil
}

// listLate returns a log that needs the trusted root, as the one in force has it.
func (s *setup) listLate(ctx context.Context, st *store.Store, l config.Log) ([]monitor.LogConfig, error) {
	root, err := s.roots.current(ctx, st)
	if err != nil {
		return nil, err
	}
	states, err := st.States(ctx)
	if err != nil {
		return nil, err
	}
	m, err := s.makeLate(l, root, states)
	if err != nil {
		return nil, err
	}
	if m.log != nil {
		return []monitor.LogConfig{*m.log}, nil
	}
	return m.server.listOrRemembered(ctx, states)
}

// makeLate makes what follows a log that needs the trusted root. One whose key
// has gone from it is followed with the key that is known.
func (s *setup) makeLate(l config.Log, root *inForce, states map[string]monitor.State) (*made, error) {
	named := l.PublicKey != "" || slices.ContainsFunc(root.Logs, func(k trust.LogKey) bool { return k.Origin == l.Origin })
	var keys [][]byte
	for id, st := range states {
		if !named && (id == l.Origin || st.Family == l.Name) {
			keys = append(keys, st.Keys...)
		}
	}
	m, err := s.makeLog(l, root, keys)
	if err == nil && m.log != nil {
		m.log.Removed = !named
	} else if err == nil {
		m.server.template.Removed = !named
	}
	return m, err
}
