package main

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "How logs and channels are", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.server != "" {
				from, err := a.remotely()
				if err != nil {
					return err
				}
				status, err := from.Status(c.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, status)
				}
				a.printStatus(status)
				return nil
			}
			return a.withStore(c.Context(), func(s *setup, st *store.Store) error {
				engine, err := s.engine(c.Context(), st, a.logger(), nil)
				if err != nil {
					return err
				}
				status, err := engine.Status(c.Context(), st, s.names)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, status)
				}
				a.printStatus(status)
				missing, err := engine.Uncovered(c.Context(), st)
				for _, u := range missing {
					fmt.Fprintf(a.stdout, "\nEntries [%d, %d) of %s were read before a watch of today existed. To scan them with it:\n    %s\n", u.From, u.To, safe(u.Log), safe(a.scanHint(u)))
				}
				return err
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	return c
}

func (a *app) printStatus(s monitor.Status) {
	t := newTable(a.stdout, "LOG\tSTATE\tVERIFIED\tSCANNED\tLAG\tCOVERAGE\tGAPS\tLAST POLL")
	for _, l := range s.Logs {
		last := "never"
		if l.LastPoll != nil {
			last = stamp(*l.LastPoll)
		}
		t.add(l.Name, l.State, fmt.Sprint(l.Verified.Size), fmt.Sprint(l.Scanned), fmt.Sprint(l.Lag), ranges(l.Coverage), fmt.Sprint(len(l.Gaps)), last)
	}
	t.end()
	for _, l := range s.Logs {
		for _, g := range l.Gaps {
			fmt.Fprintf(a.stdout, "%s: entries [%d, %d) are missing: %s\n", safe(l.Name), g.From, g.To, g.Reason)
		}
		if l.CatchUp != nil {
			fmt.Fprintf(a.stdout, "%s: behind by %d entries; %s\n", safe(l.Name), l.Lag, l.CatchUp)
		}
		if len(l.Backlog) > 0 {
			fmt.Fprintf(a.stdout, "%s: new entries come first; of older ones %s are read behind them\n", safe(l.Name), ranges(l.Backlog))
		}
		if l.Error != nil {
			fmt.Fprintf(a.stdout, "%s: last poll failed: %s\n", safe(l.Name), safe(*l.Error))
		}
		if l.Incident != "" {
			fmt.Fprintf(a.stdout, "%s: halted by incident %s; look at it with %s, then let the log go on with %s\n", safe(l.Name), l.Incident,
				a.withConfig("sigwarden incidents show "+l.Incident), safe(a.resumeHint(l.Name, l.Incident)))
		}
	}
	if len(s.Channels) > 0 {
		fmt.Fprintln(a.stdout)
		t := newTable(a.stdout, "CHANNEL\tPENDING\tFAILED\tLAST SUCCESS")
		for _, ch := range s.Channels {
			last := "never"
			if ch.LastSuccess != nil {
				last = stamp(*ch.LastSuccess)
			}
			t.add(ch.Name, fmt.Sprint(ch.Pending), fmt.Sprint(ch.Failed), last)
		}
		t.end()
	}
	if t := s.Trust; t != nil {
		text := "none yet"
		if t.Refreshed != nil {
			text = "newest at " + stamp(*t.Refreshed)
		}
		if t.Error != nil {
			text += fmt.Sprintf("; tries that have failed since: %d, the last one with: %s", t.Failures, safe(*t.Error))
		}
		fmt.Fprintf(a.stdout, "\nTrusted root of %s: %s\n", safe(t.Source), text)
	}
	fmt.Fprintf(a.stdout, "\nOpen: %d findings, %d incidents\n", s.Findings.Open, s.Incidents.Open)
	if s.Findings.Pending > 0 {
		fmt.Fprintf(a.stdout, "Pending: %d findings that may still come on a list\n", s.Findings.Pending)
	}
}

func ranges(list []monitor.Range) string {
	if len(list) == 0 {
		return "none"
	}
	var out []string
	for _, r := range list {
		out = append(out, fmt.Sprintf("[%d, %d)", r.From, r.To))
	}
	return strings.Join(out, " ")
}

// buildVersion is set by the linker in releases.
var buildVersion string

func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "development"
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			goVersion := "unknown"
			if info, ok := debug.ReadBuildInfo(); ok {
				goVersion = info.GoVersion
			}
			if asJSON {
				return printJSON(a.stdout, map[string]string{"version": version(), "go": goVersion})
			}
			fmt.Fprintf(a.stdout, "sigwarden %s (%s)\n", version(), goVersion)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	return c
}
