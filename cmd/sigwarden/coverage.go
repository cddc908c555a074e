package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/monitor/report"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// period are the flags --since and --until.
type period struct{ since, until string }

func (p *period) flags(c *cobra.Command) {
	c.Flags().StringVar(&p.since, "since", "", "begin of the period: a date, an RFC 3339 time, or how long ago, like 30d (needed)")
	c.Flags().StringVar(&p.until, "until", "", "end of the period, not included (default now)")
}

// parse returns the period; it does not reach into the future.
func (p *period) parse(now time.Time) (since, until time.Time, err error) {
	if p.since == "" {
		return since, until, usage(errors.New("--since is needed: a date like 2026-01-31, an RFC 3339 time, or how long ago, like 30d"))
	}
	if since, err = parseTime(p.since, now); err != nil {
		return since, until, usage(fmt.Errorf("--since: %w", err))
	}
	if until = now; p.until != "" {
		if until, err = parseTime(p.until, now); err != nil {
			return since, until, usage(fmt.Errorf("--until: %w", err))
		}
	}
	if until.After(now) {
		until = now
	}
	if !since.Before(until) {
		return since, until, usage(fmt.Errorf("--since %s is not before --until %s: the period is empty", since.Format(time.RFC3339), until.Format(time.RFC3339)))
	}
	return since.UTC(), until.UTC(), nil
}

func (a *app) coverageCommand() *cobra.Command {
	var p period
	var log string
	var asJSON bool
	c := &cobra.Command{
		Use: "coverage --since T [--until T]", Short: "Say what was watched in a period: gaps first, with their reasons", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			since, until, err := p.parse(time.Now())
			if err != nil {
				return err
			}
			return a.withSource(c.Context(), nil, func(src source) error {
				cov, err := src.coverage(c.Context(), since, until, log)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, cov)
				}
				return writeCoverage(a.stdout, cov)
			})
		},
	}
	p.flags(c)
	c.Flags().StringVar(&log, "log", "", "only this log")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	return c
}

// readCoverage reads the ledger, and what is still going on.
func (s *setup) readCoverage(ctx context.Context, st *store.Store, since, until time.Time, log string) (report.Coverage, error) {
	r := report.NewReader(since, until)
	open, err := st.ReadLedger(ctx, time.Now(), r.Add)
	if err != nil {
		return report.Coverage{}, err
	}
	for _, sp := range open {
		r.Open(sp.Origin, sp.Span, sp.Pauses)
	}
	for _, l := range s.cfg.Logs {
		if l.Sigstore == "" {
			r.Expect(l.Name, l.Origin) // also one that was never asked
		}
	}
	// Those of a trusted root are known once it was read; that it was not is an incident.
	states, err := st.States(ctx)
	if err != nil {
		return report.Coverage{}, err
	}
	for _, state := range states {
		if state.Family != "" {
			r.Expect(state.Name, state.Origin)
		}
	}
	cov := r.Coverage()
	if log == "" {
		return cov, nil
	}
	for _, l := range cov.Logs {
		if l.Log == log || l.Origin == log {
			cov.Logs = []report.LogCoverage{l}
			return cov, nil
		}
	}
	return cov, usage(fmt.Errorf("the ledger knows no log %q", log))
}

// writeCoverage prints it for people: what is missing comes first.
func writeCoverage(w io.Writer, cov report.Coverage) error {
	out := &sticky{Writer: w}
	fmt.Fprintf(out, "From %s to %s\n", at(cov.Since), at(cov.Until))
	for _, r := range cov.Restored {
		fmt.Fprintf(out, "%s: THE STATE WAS AN OLDER COPY OF ITSELF: of %d rows of the ledger at most %d were left; what was recorded after them is lost\n", at(r.At), r.Lost.Size, r.Kept)
	}
	for _, l := range cov.Logs {
		fmt.Fprintf(out, "\n%s\n", safe(l.Log))
		for _, p := range l.Pauses {
			fmt.Fprintf(out, "  NOT WATCHED  %s to %s (%s): %s\n", at(p.Since), at(p.Until), p.Until.Sub(p.Since).Round(time.Second), safe(p.Why()))
		}
		for _, g := range l.Gaps {
			fmt.Fprintf(out, "  NOT READ     entries %s, %s since %s, %s\n", report.Ranges([]ledger.Range{g.Range}), g.Reason, at(g.Since), g.End())
		}
		for _, h := range l.Halts {
			until := "still"
			if h.Until != nil {
				until = "until " + at(*h.Until)
			}
			fmt.Fprintf(out, "  HALTED       since %s, %s, by incident %s\n", at(h.Since), until, h.Incident)
		}
		fmt.Fprintf(out, "  watched      %s of %s, %d polls, %d of them failed\n", (time.Duration(l.Watched) * time.Second).String(), cov.Until.Sub(cov.Since).Round(time.Second), l.Polls+l.Failures, l.Failures)
		for _, f := range l.Former {
			fmt.Fprintf(out, "  FORMER TREE  until %s, of %d entries (root %x): read %s\n", at(f.Until), f.Last.Size, f.Last.Root[:], report.Ranges(f.Read))
		}
		fmt.Fprintf(out, "  read         %d entries: %s\n", l.Entries, report.Ranges(l.Read))
		if l.KeyOnly+l.Undecodable > 0 {
			fmt.Fprintf(out, "  of them      %d name no identity, %d could not be decoded\n", l.KeyOnly, l.Undecodable)
		}
		fmt.Fprintf(out, "  heads        %d to %d (root %x); at most %d entries behind\n", l.First.Size, l.Last.Size, l.Last.Root[:], l.LagMax)
	}
	if len(cov.Logs) == 0 {
		fmt.Fprintln(out, "\nNo log was followed.")
	}
	if len(cov.Rules)+len(cov.Trust)+len(cov.Deleted) > 0 {
		fmt.Fprintln(out, "\nChanges")
	}
	for _, c := range cov.Rules {
		for _, r := range c.Added {
			fmt.Fprintf(out, "  %s watch %s was added: rule %s\n", at(c.At), safe(r.Watch), r.Hash)
		}
		for _, r := range c.Changed {
			fmt.Fprintf(out, "  %s watch %s was changed: from rule %s to %s\n", at(c.At), safe(r.Watch), r.From, r.To)
		}
		for _, r := range c.Removed {
			fmt.Fprintf(out, "  %s watch %s was removed: rule %s\n", at(c.At), safe(r.Watch), r.Hash)
		}
	}
	for _, c := range cov.Trust {
		fmt.Fprintf(out, "  %s a trusted root of %s came into force: %s\n", at(c.At), safe(c.Source), c.To)
	}
	for _, d := range cov.Deleted {
		fmt.Fprintf(out, "  %s %d of class %s from before %s were deleted\n", at(d.At), d.Count, d.Class, at(d.Before))
	}
	return out.failure()
}

// at prints a time as it can be given back to --since.
func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }
