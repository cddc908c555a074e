package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/lists"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/route"
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
	server         string // that is asked in place of the state file
	tokenFile      string
	verbose        bool
}

// setup is a configuration made into parts.
type setup struct {
	cfg      *config.Config
	list     *watchlist.List
	watches  []monitor.WatchConfig
	lists    *lists.Lists // nil: no rule asks for one
	sources  []lists.Source
	routes   route.Table
	roots    *roots
	logs     []monitor.LogConfig // those that are spelt out in full
	servers  []*server           // of Rekor v1, spelt out in full
	late     []config.Log        // those for which a trusted root is needed that is not here
	instance *instance           // the logs of the trusted root, if they are followed
	clients  *clients
	current  *monitor.Engine
	seen     func(context.Context, checkpoint.Checkpoint) bool // what logs have published
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
	if a.server != "" {
		return nil, usage(errLocal)
	}
	path, err := config.Find(a.configPath, os.Lstat)
	if err != nil {
		return nil, usage(err)
	}
	cfg, err := config.Load(path, a.getenv)
	if err != nil {
		return nil, usage(err)
	}
	s := &setup{cfg: cfg, clients: newClients()}
	var issues []config.Issue
	issues = append(issues, s.makeWatches()...)
	issues = append(issues, s.makeLogs()...)
	issues = append(issues, s.makeChannels(a.stdout)...)
	issues = append(issues, s.makeRoutes()...)
	issues = append(issues, s.checkWitnessKeys()...)
	issues = append(issues, s.checkSigning()...)
	if len(issues) > 0 {
		return nil, usage(&config.Error{Issues: issues})
	}
	s.warnings = append(s.warnings, s.termWarnings(time.Now())...)
	return s, nil
}

func (s *setup) makeWatches() []config.Issue {
	var rules []watchlist.Watch
	var issues []config.Issue
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
		terms, bad := s.makeTerms(w)
		issues = append(issues, bad...)
		s.watches = append(s.watches, monitor.WatchConfig{Severity: w.Severity, Channels: channels, Terms: terms, Silence: w.Silence})
	}
	if len(issues) > 0 {
		return issues
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

// engine makes the engine on a store.
func (s *setup) engine(ctx context.Context, st *store.Store, log *slog.Logger, wake func()) (*monitor.Engine, error) {
	s.roots.log = log
	logs, families, err := s.members(ctx, st)
	if err != nil {
		return nil, err
	}
	incidents, health := s.integrity(), s.health()
	s.readLists(log)
	s.current, err = monitor.New(monitor.Options{
		Store: st, Logs: logs, Families: families, Watches: s.list, WatchConfigs: s.watches, Lists: s.lists, BadLists: s.badLists, ListsRead: s.lists.Tried,
		IncidentChannels: incidents, HealthChannels: health, Route: s.routes.Route, TrustSource: s.roots.name, Wake: wake, Logger: log,
		Seen:       s.seen,
		Escalation: monitor.Escalation{After: s.cfg.Notify.EscalateAfter, To: s.cfg.Notify.EscalateTo},
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
	st, err := store.Open(ctx, s.cfg.State, store.Options{Version: version()})
	if errors.Is(err, store.ErrMissing) {
		return fmt.Errorf("%w: nothing was monitored with this configuration yet; `sigwarden run` begins it", err)
	}
	if err != nil {
		return err
	}
	defer st.Close()
	return f(s, st)
}
