package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

func (a *app) logsCommand() *cobra.Command {
	var incident, note, by string
	var rebaseline bool
	resume := &cobra.Command{
		Use: "resume NAME --incident ID", Short: "Let a halted log go on, after a person has looked at the incident", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if incident == "" {
				return usage(errors.New("resume wants --incident: the id of the incident that halts the log"))
			}
			if err := decider(by, note); err != nil {
				return err
			}
			return a.withStore(c.Context(), func(s *setup, st *store.Store) error {
				engine, err := s.engine(c.Context(), st, a.logger(), nil)
				if err != nil {
					return err
				}
				err = engine.Resume(c.Context(), monitor.Resumption{Log: args[0], Incident: incident, Rebaseline: rebaseline, By: by, Note: strings.TrimSpace(note)})
				if errors.Is(err, monitor.ErrUnknownLog) {
					return usage(err)
				}
				if err != nil {
					return err
				}
				what := "goes on from its verified head"
				if rebaseline {
					what = "has a new baseline at its present head; the old head stays with the incident"
				}
				fmt.Fprintf(a.stderr, "log %s %s\n", args[0], what)
				drain, cancel := context.WithTimeout(c.Context(), drainFor)
				defer cancel()
				log := a.logger()
				s.deliver(drain, st, s.dispatcher(st, log), log, true, false)
				return nil
			})
		},
	}
	resume.Flags().StringVar(&incident, "incident", "", "incident that halts the log")
	resume.Flags().StringVar(&note, "note", "", "what was found out")
	resume.Flags().StringVar(&by, "by", whoami(), "who decides")
	resume.Flags().BoolVar(&rebaseline, "rebaseline", false, "begin anew at the log's present head, with coverage from there on (a private log that was restored from a backup)")
	group := &cobra.Command{Use: "logs", Short: "Operate logs"}
	group.AddCommand(resume)
	return group
}

func (a *app) scanCommand() *cobra.Command {
	var opts monitor.ScanOptions
	c := &cobra.Command{
		Use: "scan --log NAME --from N --to M", Short: "Scan entries [N, M) of a log with the watches of today",
		Long: `Scans entries [N, M) of a log's verified tree with the watches of today: what
they have not covered of them. It may be interrupted and called again, and runs
beside a daemon. Findings are told to the channels unless --quiet is given; a
daemon, or the next run, delivers what this command could not.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if opts.Log == "" {
				return usage(errors.New("scan wants --log"))
			}
			if opts.To != 0 && opts.From >= opts.To {
				return usage(fmt.Errorf("scan: entries from %d to %d are none", opts.From, opts.To))
			}
			return a.withStore(c.Context(), func(s *setup, st *store.Store) error {
				log := a.logger()
				dispatcher := s.dispatcher(st, log)
				engine, err := s.engine(c.Context(), st, log, nil)
				if err != nil {
					return err
				}
				bar := a.progress("scanning " + opts.Log)
				opts.Progress = bar.set
				s.loadLists(c.Context())
				out := engine.Scan(c.Context(), st, opts)
				bar.finish()
				if errors.Is(out.Err, monitor.ErrUnknownLog) {
					return usage(out.Err)
				}
				if out.Err != nil {
					log.Error("the scan could not be finished; call it again to continue", "error", out.Err)
				}
				fmt.Fprintf(a.stderr, "%d new findings, %d of them notify\n", out.Findings, out.Notifying)
				if out.Otherwise > 0 {
					fmt.Fprintf(a.stderr, "%d findings of earlier scans would be judged otherwise by the rules of today; they stay as they were. To see them: %s\n", out.Otherwise, a.withConfig("sigwarden findings reassess"))
				}
				if !opts.Quiet && out.Notifying > 0 {
					drain, cancel := context.WithTimeout(c.Context(), drainFor)
					defer cancel()
					s.deliver(drain, st, dispatcher, log, true, false)
				}
				last, cancel := contextFor(c.Context(), 5*time.Second)
				defer cancel()
				return s.finish(last, st, log, a.exitOf(out))
			})
		},
	}
	c.Flags().StringVar(&opts.Log, "log", "", "name of the log")
	c.Flags().Uint64Var(&opts.From, "from", 0, "first index")
	c.Flags().Uint64Var(&opts.To, "to", 0, "index behind the last one (default: the verified size)")
	c.Flags().BoolVar(&opts.Quiet, "quiet", false, "store findings, but tell nobody")
	c.Flags().DurationVar(&opts.Idle, "timeout", 60*time.Second, "give up after this time without progress")
	return c
}

// progress is a bar on a terminal, and nothing elsewhere.
type progress struct {
	bar   *progressbar.ProgressBar
	w     io.Writer
	shown bool
	text  string
}

func (a *app) progress(text string) *progress {
	f, ok := a.stderr.(*os.File)
	return &progress{w: a.stderr, text: text, shown: ok && term.IsTerminal(int(f.Fd()))}
}

func (p *progress) set(done, total uint64) {
	if !p.shown || total == 0 {
		return
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(int64(total), progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(p.text),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("entries"), progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100*time.Millisecond))
	}
	p.bar.Set64(int64(done))
}

func (p *progress) finish() {
	if p.bar != nil {
		fmt.Fprintln(p.w)
	}
}

func (a *app) notifyCommand() *cobra.Command {
	test := &cobra.Command{
		Use: "test [CHANNEL]", Short: "Send a test notification to one channel, or to all", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			found, failed := false, 0
			for _, ch := range s.channels {
				if len(args) == 1 && args[0] != ch.Name {
					continue
				}
				found = true
				if err := sendTest(c.Context(), ch); err != nil {
					failed++
					fmt.Fprintf(a.stderr, "%s: failed: %s\n", ch.Name, safe(err.Error()))
					continue
				}
				fmt.Fprintf(a.stderr, "%s: accepted\n", ch.Name)
			}
			switch {
			case !found && len(args) == 1:
				return usage(fmt.Errorf("no channel is called %q", args[0]))
			case !found:
				return usage(errNoChannels)
			case failed > 0:
				return fmt.Errorf("%d channels did not accept the test", failed)
			}
			return nil
		},
	}
	group := &cobra.Command{Use: "notify", Short: "Channels for notifications"}
	group.AddCommand(test)
	return group
}

func testEvent(now time.Time) notify.Event {
	return notify.Event{
		ID: fmt.Sprintf("e-test-%x", now.UnixNano()), Type: notify.Test, Time: now.UTC(), Severity: "info",
		Title: "Test notification", Summary: "If you can read this, sigwarden can reach you here.", Data: []byte(`{}`), Next: "sigwarden status",
	}
}
