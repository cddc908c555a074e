package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// filterFlags adds the flags that select findings or incidents.
func filterFlags(c *cobra.Command, f *store.Filter, since, until *string) {
	c.Flags().StringVar(&f.Log, "log", "", "of this log")
	c.Flags().StringVar(&f.State, "state", "", "in this state")
	c.Flags().StringVar(&f.Severity, "severity", "", "of this severity")
	c.Flags().StringVar(since, "since", "", "not before this time: 2026-01-31, RFC 3339, or like 24h")
	c.Flags().StringVar(until, "until", "", "before this time")
	c.Flags().IntVar(&f.Limit, "limit", 0, "at most so many, the newest")
}

func parseTimes(f *store.Filter, since, until string) error {
	var err1, err2 error
	now := time.Now()
	f.Since, err1 = parseTime(since, now)
	f.Until, err2 = parseTime(until, now)
	if f.Limit < 0 {
		return usage(errors.New("--limit must not be negative"))
	}
	return errors.Join(err1, err2)
}

// known refuses a word that no finding or incident could have: an empty list
// would look like good news.
func known(flag, word string, words []string) error {
	if word == "" || slices.Contains(words, word) {
		return nil
	}
	return usage(fmt.Errorf("--%s %s is not known%s", flag, safe(word), config.DidYouMean(word, words)))
}

// checkFilter refuses a filter that could select nothing.
func checkFilter(ctx context.Context, s *setup, st *store.Store, f *store.Filter) error {
	logs, watches, err := st.Names(ctx)
	if err != nil {
		return err
	}
	for _, l := range s.cfg.Logs {
		if l.Name != "" {
			logs = append(logs, l.Name)
		}
	}
	for _, w := range s.cfg.Watches {
		watches = append(watches, w.Name)
	}
	return errors.Join(known("log", f.Log, logs), known("watch", f.Watch, watches), checkWords(f))
}

// checkWords refuses what no finding or incident could be.
func checkWords(f *store.Filter) error {
	var kinds, verdicts []string
	for _, k := range monitor.IncidentKinds() {
		kinds = append(kinds, k.Kind)
	}
	for _, v := range policy.Verdicts() {
		verdicts = append(verdicts, string(v))
	}
	return errors.Join(known("kind", f.Kind, kinds), known("verdict", f.Verdict, verdicts),
		known("state", f.State, monitor.States()), known("severity", f.Severity, config.Severities()))
}

// listAndShow builds a command with its default subcommand list, with show, and
// with what people decide.
func (a *app) listAndShow(use, short, prefix string, f *store.Filter, flags func(*cobra.Command), list func(context.Context, source, bool) error, show func(context.Context, source, string, bool) error) *cobra.Command {
	var since, until string
	var asJSON bool
	runList := func(c *cobra.Command, _ []string) error {
		if err := parseTimes(f, since, until); err != nil {
			return err
		}
		return a.withSource(c.Context(), f, func(from source) error { return list(c.Context(), from, asJSON) })
	}
	group := &cobra.Command{Use: use, Short: short, RunE: runList, Args: cobra.NoArgs}
	listing := &cobra.Command{Use: "list", Short: "List them, oldest first", RunE: runList, Args: cobra.NoArgs}
	for _, c := range []*cobra.Command{group, listing} {
		filterFlags(c, f, &since, &until)
		flags(c)
		c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	}
	showing := &cobra.Command{Use: "show ID", Short: "Show one in full", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		return a.withSource(c.Context(), nil, func(from source) error { return show(c.Context(), from, args[0], asJSON) })
	}}
	showing.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	group.AddCommand(listing, showing)
	group.AddCommand(a.triageCommands(prefix)...)
	return group
}

func (a *app) findingsCommand() *cobra.Command {
	var f store.Filter
	group := a.listAndShow("findings", "Entries that watches matched, with every verdict", "f-", &f, func(c *cobra.Command) {
		c.Flags().StringVar(&f.Watch, "watch", "", "of this watch")
		c.Flags().StringVar(&f.Verdict, "verdict", "", "malformed, unexpected, untrusted or expected")
	}, func(ctx context.Context, st source, asJSON bool) error {
		if asJSON {
			array := jsonArray{w: a.stdout}
			err := st.EachFinding(ctx, f, func(x monitor.Finding) error { return array.add(x) })
			return errors.Join(err, array.end())
		}
		t := newTable(a.stdout, "ID\tSEEN\tVERDICT\tSTATE\tWATCH\tENTRY\tSIGNED AS")
		defer t.end()
		return st.EachFinding(ctx, f, func(x monitor.Finding) error {
			t.add(x.ID, stamp(x.SeenAt), string(x.Verdict), x.State, x.Watch, fmt.Sprintf("%s/%d", x.Log, x.Index), x.SignedAs())
			return nil
		})
	}, func(ctx context.Context, st source, id string, asJSON bool) error {
		x, err := st.Finding(ctx, id)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(a.stdout, x)
		}
		a.writeFinding(a.stdout, x)
		return nil
	})
	group.AddCommand(a.reassessCommand(&f))
	return group
}

func (a *app) writeFinding(w io.Writer, x monitor.Finding) {
	event := monitor.FindingEvent(x)
	event.Next = "" // it is this
	fmt.Fprint(w, event.Plain())
	fmt.Fprintf(w, "\nState: %s\n", stateOf(x.State, x.Resolution, x.By, x.ChangedAt))
	if x.PendingUntil != nil && x.State == monitor.StatePending {
		fmt.Fprintf(w, "Pending: until %s it may come on %s; after that it is unexpected\n", stamp(*x.PendingUntil), safe(strings.Join(x.Waits, " or ")))
	}
	if x.Note != "" {
		fmt.Fprintf(w, "Note: %s\n", safe(x.Note))
	}
	fmt.Fprintf(w, "Evidence for others: %s\n", a.withConfig(fmt.Sprintf("sigwarden evidence export %s -o %s.zip", x.ID, x.ID)))
}

func (a *app) writeIncident(w io.Writer, x monitor.Incident) {
	event := monitor.IncidentEvent(notify.IncidentOpened, x, x.OpenedAt)
	event.Next = "" // it is this
	event.Title = fmt.Sprintf("%s incident, %s: %s", x.Class, x.State, x.Kind)
	fmt.Fprint(w, event.Plain())
	fmt.Fprintf(w, "\nState: %s\nDetails: %s\n", stateOf(x.State, x.Resolution, x.By, x.ChangedAt), safe(string(x.Details)))
	if x.Resolved != nil {
		fmt.Fprintf(w, "Resolved: %s\n", stamp(*x.Resolved))
	}
	if x.Note != "" {
		fmt.Fprintf(w, "Note: %s\n", safe(x.Note))
	}
	for _, e := range x.Evidence {
		fmt.Fprintf(w, "Kept: %s (%d bytes)\n", safe(e.Name), len(e.Data))
	}
	if len(x.Evidence) > 0 {
		fmt.Fprintf(w, "To see what was kept: %s\n", a.withConfig("sigwarden incidents show "+x.ID+" --kept NAME"))
	}
	if slices.Contains(exportable, x.Kind) {
		fmt.Fprintf(w, "Evidence for others: %s\n", a.withConfig(fmt.Sprintf("sigwarden evidence export %s -o %s.zip", x.ID, x.ID)))
	}
}

// stateOf says a state, and who brought it about.
func stateOf(state, resolution, by string, at *time.Time) string {
	if resolution != "" {
		state += " as " + resolution
	}
	if by != "" && at != nil {
		state += fmt.Sprintf(", by %s at %s", safe(by), stamp(*at))
	}
	return state
}

func (a *app) incidentsCommand() *cobra.Command {
	var f store.Filter
	var kept string
	c := a.listAndShow("incidents", "What is or was wrong with a log, or with the monitoring itself", "i-", &f, func(c *cobra.Command) {
		c.Flags().StringVar(&f.Kind, "kind", "", "of this kind")
	}, func(ctx context.Context, st source, asJSON bool) error {
		list, err := st.Incidents(ctx, f)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(a.stdout, list)
		}
		t := newTable(a.stdout, "ID\tOPENED\tCLASS\tKIND\tSTATE\tSEVERITY\tLOG")
		for _, x := range list {
			t.add(x.ID, stamp(x.OpenedAt), x.Class, x.Kind, x.State, x.Severity, x.Log)
		}
		t.end()
		return nil
	}, func(ctx context.Context, st source, id string, asJSON bool) error {
		x, err := st.Incident(ctx, id)
		if err != nil {
			return err
		}
		if kept != "" {
			return a.printKept(x, kept)
		}
		if asJSON {
			return printJSON(a.stdout, withKept(x))
		}
		a.writeIncident(a.stdout, x)
		return nil
	})
	for _, sub := range c.Commands() {
		if sub.Name() == "show" {
			sub.Flags().StringVar(&kept, "kept", "", "print this piece of the evidence as it was kept")
		}
	}
	return c
}

// printKept prints one piece of evidence, byte by byte.
func (a *app) printKept(x monitor.Incident, name string) error {
	var names []string
	for _, e := range x.Evidence {
		if e.Name == name {
			_, err := a.stdout.Write(e.Data)
			return err
		}
		names = append(names, e.Name)
	}
	return known("kept", name, names)
}

// withKept is the document of an incident with its evidence in it.
func withKept(x monitor.Incident) any {
	type piece struct {
		Name string `json:"name"`
		Data []byte `json:"data"` // base64
	}
	kept := []piece{}
	for _, e := range x.Evidence {
		kept = append(kept, piece{e.Name, e.Data})
	}
	return struct {
		monitor.Incident
		Kept []piece `json:"kept"`
	}{x, kept}
}
