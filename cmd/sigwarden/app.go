package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/trust"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// app is what commands share: the world outside, and the parts that a
// configuration is made into. It is the one place that knows all packages.
type app struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
	configPath     string
	verbose        bool
}

// setup is a configuration made into parts.
type setup struct {
	cfg      *config.Config
	list     *watchlist.List
	watches  []monitor.WatchConfig
	logs     []monitor.LogConfig           // those that are spelt out in full
	servers  []*server                     // of Rekor v1
	stats    map[string]func() rekor.Stats // by name of the log
	current  *monitor.Engine
	channels []notify.Channel
	names    []string // of channels
	warnings []string
}

func (a *app) logger() *slog.Logger {
	level := slog.LevelInfo
	if a.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: level}))
}

// load reads the configuration and makes its parts. Everything that is wrong in
// it comes with exit status 2.
func (a *app) load() (*setup, error) {
	path, err := config.Find(a.configPath, os.Lstat)
	if err != nil {
		return nil, usage(err)
	}
	cfg, err := config.Load(path, a.getenv)
	if err != nil {
		return nil, usage(err)
	}
	s := &setup{cfg: cfg, stats: map[string]func() rekor.Stats{}}
	var issues []config.Issue
	issues = append(issues, s.makeWatches()...)
	issues = append(issues, s.makeLogs()...)
	issues = append(issues, s.makeChannels(a.stdout)...)
	if len(issues) > 0 {
		return nil, usage(&config.Error{Issues: issues})
	}
	return s, nil
}

func (s *setup) makeWatches() []config.Issue {
	var rules []watchlist.Watch
	for _, ch := range s.cfg.Notify.Channels {
		s.names = append(s.names, ch.Name)
	}
	items := func(list []config.Item) []watchlist.Item {
		var out []watchlist.Item
		for _, it := range list {
			out = append(out, watchlist.Item(it))
		}
		return out
	}
	for _, w := range s.cfg.Watches {
		rules = append(rules, watchlist.Watch{Name: w.Name, Match: items(w.Match), Expect: items(w.Expect), Untrusted: w.Untrusted})
		channels := w.Notify
		if channels == nil {
			channels = s.names
		}
		s.watches = append(s.watches, monitor.WatchConfig{Severity: w.Severity, Channels: channels})
	}
	list, err := watchlist.Compile(rules)
	if err != nil {
		return s.watchIssues(err)
	}
	s.list = list
	s.warnings = append(s.warnings, watchWarnings(s.cfg)...)
	return nil
}

// watchIssues gives the errors of the compiler their places in the file.
func (s *setup) watchIssues(err error) []config.Issue {
	var out []config.Issue
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []config.Issue{s.cfg.At("watchlist", err.Error())}
	}
	for _, e := range joined.Unwrap() {
		var at *watchlist.Error
		if !errors.As(e, &at) {
			out = append(out, s.cfg.At("watchlist", e.Error()))
			continue
		}
		message := at.Err.Error()
		if _, name, ok := strings.Cut(at.Path, ".extensions."); ok && !strings.Contains(name, "[") {
			message += config.DidYouMean(name, entry.ExtensionNames())
		}
		out = append(out, s.cfg.At("watchlist"+at.Path, message))
	}
	return out
}

func (s *setup) makeLogs() []config.Issue {
	var issues []config.Issue
	root := &trust.Root{}
	if path := s.cfg.Trust.TrustedRoot; path != "" {
		var err error
		if root, err = trust.ReadRoot(path); err != nil {
			return []config.Issue{s.cfg.At("trust.trusted_root", err.Error())}
		}
		for _, p := range root.Problems {
			s.warnings = append(s.warnings, fmt.Sprintf("%s: a part of the trusted root cannot be used: %v", path, p))
		}
		for _, l := range root.CTLogs {
			if _, err := entry.NewCTLog(l.SPKI, l.ValidFrom, l.ValidUntil); err != nil {
				s.warnings = append(s.warnings, fmt.Sprintf("%s: a certificate log of the trusted root cannot be used: %v", path, err))
			}
		}
	}
	for _, l := range s.cfg.Logs {
		if issue := s.makeLog(l, root); issue != nil {
			issues = append(issues, *issue)
		}
	}
	return issues
}

func (s *setup) makeLog(l config.Log, root *trust.Root) *config.Issue {
	fail := func(key string, err error) *config.Issue {
		issue := s.cfg.At(l.Path+"."+key, err.Error())
		return &issue
	}
	authorities, err := makeAuthorities(l.CA, root)
	if err != nil {
		return fail("ca", err)
	}
	roots, err := certPool(l.TLSCA)
	if err != nil {
		return fail("tls_ca", err)
	}
	opts := rekor.Options{URL: l.URL, UserAgent: userAgent(s.cfg.Contact), RequestsPerSecond: l.RequestsPerSecond, Parallel: l.Parallel, RootCAs: roots}
	made := monitor.LogConfig{
		Name: l.Name, Type: l.Type, Authorities: authorities, Start: l.Start,
		ConsistencyOnly: !l.Entries, Schedule: l.Schedule, StaleAfter: l.StaleAfter, Parallel: l.Parallel,
	}
	if l.Type == "rekor-v1" {
		return s.makeServer(l, root, opts, made, fail)
	}
	var keys []note.Verifier
	if l.PublicKey != "" {
		key, err := checkpoint.ParseKey(l.Origin, l.PublicKey)
		if err != nil {
			return fail("public_key", err)
		}
		keys = append(keys, key)
	} else if keys = root.Key(l.Origin); len(keys) == 0 {
		return fail("origin", fmt.Errorf("log %q has no public_key, and the trusted root has none for its origin %q", l.Name, l.Origin))
	}
	if made.Log, err = checkpoint.NewLog(l.Origin, keys...); err != nil {
		return fail("origin", err)
	}
	source, err := rekor.NewV2(opts)
	if err != nil {
		return fail("url", err)
	}
	made.ID, made.Source = l.Origin, source
	if made.Parallel == 0 {
		made.Parallel = 16
	}
	s.logs = append(s.logs, made)
	s.stats[l.Name] = source.Stats
	return nil
}

// userAgent tells operators of logs who asks, and whom to write to.
func userAgent(contact string) string {
	if contact == "" {
		return "sigwarden/" + version()
	}
	return "sigwarden/" + version() + " (" + contact + ")"
}

func makeAuthorities(pem string, root *trust.Root) (*entry.Authorities, error) {
	list := root.Authorities
	if pem != "" {
		var err error
		if list, err = trust.ParsePEM(pem); err != nil {
			return nil, err
		}
	}
	var out []entry.Authority
	for _, a := range list {
		out = append(out, entry.Authority(a))
	}
	authorities, err := entry.NewAuthorities(out...)
	if err != nil {
		return nil, err
	}
	var logs []entry.CTLog
	for _, l := range root.CTLogs {
		if ct, err := entry.NewCTLog(l.SPKI, l.ValidFrom, l.ValidUntil); err == nil {
			logs = append(logs, ct) // one of an unknown kind, of which a warning tells, blinds us to no other
		}
	}
	return authorities.WithCTLogs(logs...), nil
}

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

// engine makes the engine on a store.
func (s *setup) engine(ctx context.Context, st *store.Store, log *slog.Logger, wake func()) (*monitor.Engine, error) {
	logs, families, err := s.members(ctx, st)
	if err != nil {
		return nil, err
	}
	incidents, health := s.cfg.Notify.Incidents, s.health()
	if incidents == nil {
		incidents = s.names
	}
	s.current, err = monitor.New(monitor.Options{
		Store: st, Logs: logs, Families: families, Watches: s.list, WatchConfigs: s.watches,
		IncidentChannels: incidents, HealthChannels: health, Wake: wake, Logger: log,
	})
	return s.current, err
}

// withStore opens the state file of a configuration for a command that reads
// or changes it beside a daemon.
func (a *app) withStore(ctx context.Context, f func(*setup, *store.Store) error) error {
	s, err := a.load()
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, s.cfg.State, store.Options{})
	if errors.Is(err, store.ErrMissing) {
		return fmt.Errorf("%w: nothing was monitored with this configuration yet; `sigwarden run` begins it", err)
	}
	if err != nil {
		return err
	}
	defer st.Close()
	return f(s, st)
}
