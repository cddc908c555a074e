package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

func (a *app) checkCommand() *cobra.Command {
	var online, asJSON bool
	var explain string
	c := &cobra.Command{
		Use: "check", Short: "Check the configuration; with --online also contact each log and channel", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			if explain != "" {
				return a.explain(c.Context(), s, explain, asJSON)
			}
			for _, w := range s.warnings {
				for i, line := range strings.Split(w, "\n") { // the second one is that of the file
					fmt.Fprintln(a.stderr, map[bool]string{true: "warning: "}[i == 0]+safe(line))
				}
			}
			if err := a.checkCoverage(c.Context(), s); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "the configuration is valid: %s, %d watches, %d channels\n", s.describeLogs(), len(s.watches), len(s.channels))
			if !online {
				return nil
			}
			return a.checkOnline(c.Context(), s)
		},
	}
	c.Flags().StringVar(&explain, "explain", "", "say for the entry in this file which rule says what of it, and why; in any form that inspect takes")
	c.Flags().BoolVar(&asJSON, "json", false, "with --explain: print a JSON array")
	c.Flags().BoolVar(&online, "online", false, "contact each log, and send a test notification to each channel")
	return c
}

// describeLogs says which logs are followed.
func (s *setup) describeLogs() string {
	n := len(s.cfg.Logs)
	if s.instance == nil {
		return fmt.Sprintf("%d logs", n)
	}
	all := "every Rekor log of the trusted root of " + s.roots.name
	if n > 1 {
		all += fmt.Sprintf(", %d more logs", n-1)
	}
	return all
}

// checkCoverage names the scan that a new watch needs, if there is a state.
func (a *app) checkCoverage(ctx context.Context, s *setup) error {
	st, err := store.Open(ctx, s.cfg.State, store.Options{})
	if errors.Is(err, store.ErrMissing) {
		return nil
	}
	if err != nil {
		return err
	}
	defer st.Close()
	engine, err := s.engine(ctx, st, a.logger(), nil)
	if err != nil {
		return err
	}
	if err := engine.CheckStored(ctx); err != nil {
		return err
	}
	missing, err := engine.Uncovered(ctx, st)
	for _, u := range missing {
		fmt.Fprintf(a.stderr, "warning: entries [%d, %d) of %s were read before a watch of today existed. To scan them with it: %s\n", u.From, u.To, safe(u.Log), safe(a.scanHint(u)))
	}
	return err
}

func (a *app) checkOnline(ctx context.Context, s *setup) error {
	tried, failed := 0, 0
	a.contact(ctx, s, true, func(what, name string, err error, good string) {
		tried++
		if err != nil {
			failed++
			good = "failed: " + err.Error()
		}
		fmt.Fprintf(a.stderr, "%s %s: %s\n", what, safe(name), safe(good))
	})
	if failed > 0 {
		return fmt.Errorf("%d of %d did not answer as they should", failed, tried)
	}
	return nil
}

// contact asks each log for what it has signed, and, if it is told to, sends each channel a test
// notification.
func (a *app) contact(ctx context.Context, s *setup, test bool, say func(what, name string, err error, good string)) {
	logs, servers, err := a.reachable(ctx, s)
	if err != nil {
		say("trusted root", s.roots.name, err, "")
	}
	for _, l := range logs {
		try, cancel := context.WithTimeout(ctx, 20*time.Second)
		raw, err := l.Source.Checkpoint(try)
		var c checkpoint.Checkpoint
		if err == nil {
			c, err = l.Log.Open(raw)
		}
		if err == nil {
			_, err = checkpoint.OpenTree(c, func(level uint, index uint64, width int) ([]byte, error) {
				return l.Source.Tile(try, level, index, width)
			})
		}
		cancel()
		say("log", l.Name, err, fmt.Sprintf("signed checkpoint of size %d, and tiles that fit it", c.Size()))
	}
	for _, v := range servers {
		try, cancel := context.WithTimeout(ctx, 20*time.Second)
		trees, err := v.rekor.Trees(try)
		cancel()
		for _, t := range trees {
			_, treeErr := v.signed(t.Note, v.name)
			err = errors.Join(err, treeErr)
		}
		say("log", v.name, err, fmt.Sprintf("%d trees with signed heads", len(trees)))
	}
	if !test {
		return
	}
	for _, ch := range s.channels {
		say("channel", ch.Name, sendTest(ctx, ch), "accepted a test notification")
	}
}

// reachable returns the logs and servers to contact. The trusted root is fetched
// anew, and not kept.
func (a *app) reachable(ctx context.Context, s *setup) (logs []monitor.LogConfig, servers []*server, err error) {
	logs, servers = slices.Clone(s.logs), slices.Clone(s.servers)
	if len(s.late) == 0 && s.instance == nil {
		return logs, servers, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	root, err := s.roots.peek(ctx)
	if err != nil {
		return logs, servers, err
	}
	add := func(m *made, makeErr error) {
		switch {
		case makeErr != nil:
			err = errors.Join(err, makeErr)
		case m.log != nil:
			logs = append(logs, *m.log)
		default:
			servers = append(servers, m.server)
		}
	}
	for _, p := range root.problems() {
		err = errors.Join(err, errors.New(p))
	}
	for _, l := range s.late {
		add(s.makeLog(l, root, nil))
	}
	if g := s.instance; g != nil {
		for _, sh := range g.shards(root, nil, time.Now()) {
			if sh.version == 0 {
				var probeErr error
				if sh.version, probeErr = g.probe(ctx, sh); probeErr != nil {
					err = errors.Join(err, probeErr)
					continue
				}
			}
			add(g.make(sh, root))
		}
	}
	return logs, servers, err
}

func sendTest(ctx context.Context, ch notify.Channel) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return ch.Notify(ctx, testEvent(time.Now()))
}

// contextFor is a bounded context for a last piece of work, also after the
// program was asked to stop.
func contextFor(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), d)
}
