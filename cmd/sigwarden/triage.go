package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

// triageCommands are what people decide about findings and incidents.
func (a *app) triageCommands(prefix string) []*cobra.Command {
	var as string
	ack := a.triageCommand(prefix, "ack ID... --note TEXT", "Mark as seen by a person", monitor.StateAcknowledged, nil)
	resolve := a.triageCommand(prefix, "resolve ID... --as WHAT --note TEXT", "Close as "+strings.Join(monitor.Resolutions(), ", "), monitor.StateResolved, &as)
	resolve.Flags().StringVar(&as, "as", "", "what it was: "+strings.Join(monitor.Resolutions(), ", "))
	return []*cobra.Command{ack, resolve, a.triageCommand(prefix, "reopen ID... --note TEXT", "Open again what was acknowledged or resolved", monitor.StateOpen, nil)}
}

func (a *app) triageCommand(prefix, use, short, to string, as *string) *cobra.Command {
	var note, by string
	c := &cobra.Command{Use: use, Short: short, Args: cobra.MinimumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		change := monitor.Change{To: to, Note: strings.TrimSpace(note), By: by, At: time.Now().UTC()}
		if change.Note == "" {
			return usage(fmt.Errorf("%s wants --note: say what was found out", c.Name()))
		}
		if err := decider(by, change.Note); err != nil {
			return err
		}
		for _, id := range args {
			if !strings.HasPrefix(id, prefix) {
				return usage(fmt.Errorf("%s is no id of %s: those begin with %s", safe(id), c.Parent().Name(), prefix))
			}
		}
		if as != nil {
			if change.Resolution = *as; *as == "" {
				return usage(fmt.Errorf("resolve wants --as: %s", strings.Join(monitor.Resolutions(), ", ")))
			}
			if err := known("as", *as, monitor.Resolutions()); err != nil {
				return err
			}
		}
		return a.withSource(c.Context(), nil, func(in source) error {
			// One that cannot be changed must not keep the others.
			var failed []error
			for _, id := range args {
				if err := in.decide(c.Context(), id, change); err != nil {
					failed = append(failed, err)
					continue
				}
				fmt.Fprintf(a.stderr, "%s: %s\n", id, map[string]string{monitor.StateAcknowledged: "acknowledged", monitor.StateResolved: "resolved as " + change.Resolution, monitor.StateOpen: "open again"}[to])
			}
			return errors.Join(failed...)
		})
	}}
	c.Flags().StringVar(&note, "note", "", "what was found out")
	c.Flags().StringVar(&by, "by", whoami(), "who decides; with --server that is whoever the token belongs to")
	return c
}

// maxActor and maxNote bound what the audit trail keeps of a decision.
const (
	maxActor = 100
	maxNote  = 4000
)

// decider refuses names that say nothing of who decides, or are those of others, and
// notes that are none.
func decider(by, note string) error {
	switch {
	case strings.TrimSpace(by) == "":
		return usage(errors.New("--by is empty: say who decides"))
	case len(by) > maxActor:
		return usage(fmt.Errorf("--by has %d bytes, at most %d are kept", len(by), maxActor))
	case by == monitor.Ourselves || strings.HasPrefix(by, tokenActor):
		return usage(fmt.Errorf("--by %s is how the audit trail names what the program, or a token, has done", safe(by)))
	case len(note) > maxNote:
		return usage(fmt.Errorf("the note has %d bytes, at most %d are kept", len(note), maxNote))
	}
	return nil
}

// tokenActor begins the names that the audit trail has for tokens.
const tokenActor = "token "

// whoami is the user that runs the program.
func whoami() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "unknown"
}

// triageTold addresses what people decide to the channels that keep a record of
// their own, and are to know when it is over; the end of an incident to all who heard
// of it.
func (s *setup) triageTold(now time.Time) *store.Told {
	follows := func(name string) bool {
		return slices.ContainsFunc(s.channels, func(ch notify.Channel) bool { return ch.Name == name && notify.FollowsTriage(ch.Notifier) })
	}
	return &store.Told{
		Finding: func(f monitor.Finding) []notify.Delivery {
			channels := slices.Clone(s.hears(f.Watch))
			channels = append(channels, s.cfg.Notify.EscalateTo...)
			slices.Sort(channels)
			var out []notify.Delivery
			for _, name := range slices.Compact(channels) {
				if follows(name) {
					out = append(out, notify.Delivery{Address: notify.Address{Channel: name}, Event: monitor.TriageEvent(f, now)})
				}
			}
			return out
		},
		Incident: func(inc monitor.Incident) []notify.Delivery {
			return monitor.Route(s.routes.Route).TriageIncident(inc, s.integrity(), s.health(), follows, now)
		},
	}
}

func (a *app) auditCommand() *cobra.Command {
	var asJSON bool
	var subject, head string
	list := func(c *cobra.Command, _ []string) error {
		if subject != "" && !slices.ContainsFunc([]string{"f-", "i-", "a-", "t-"}, func(p string) bool { return strings.HasPrefix(subject, p) }) {
			return usage(fmt.Errorf("--subject %s is no id: those of findings begin with f-, of incidents with i-, of announcements with a-, of tokens with t-", safe(subject)))
		}
		return a.withSource(c.Context(), nil, func(src source) error {
			if asJSON {
				array := jsonArray{w: a.stdout}
				err := src.audit(c.Context(), subject, func(r monitor.AuditRow) error { return array.add(r) })
				return errors.Join(err, array.end())
			}
			t := newTable(a.stdout, "N\tAT\tWHO\tDID\tTO\tDETAIL")
			defer t.end()
			return src.audit(c.Context(), subject, func(r monitor.AuditRow) error {
				t.add(fmt.Sprint(r.N), stamp(r.At), r.Actor, r.Action, r.Subject, string(r.Detail))
				return nil
			})
		})
	}
	group := &cobra.Command{Use: "audit", Short: "The trail of every decision: who, when, what, why", RunE: list, Args: cobra.NoArgs}
	listing := &cobra.Command{Use: "list", Short: "List it, oldest first", RunE: list, Args: cobra.NoArgs}
	for _, c := range []*cobra.Command{group, listing} {
		c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
		c.Flags().StringVar(&subject, "subject", "", "of this finding, incident, announcement or token")
	}
	verify := &cobra.Command{
		Use: "verify", Short: "Check that no line of it was edited or removed",
		Long: `Checks the chain of hashes over the audit trail, and that findings and incidents
are in the states that it speaks of. It prints the head of the trail. Note that
elsewhere, and give it as --head the next time: whoever can write to the state
file could replace the whole trail, but not so that it goes on from that head.
Exit status 4 if it does not hold.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			known, err := parseHead(head)
			if err != nil {
				return usage(err)
			}
			return a.withStore(c.Context(), func(_ *setup, st *store.Store) error {
				got, err := st.VerifyAudit(c.Context(), known)
				if errors.Is(err, store.ErrTampered) {
					return &status{exitIntegrity, err}
				}
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, got)
				}
				fmt.Fprintf(a.stdout, "%d:%s\n", got.N, cmp.Or(got.Hash, "-"))
				fmt.Fprintf(a.stderr, "the audit trail holds: %d lines\n", got.N)
				return nil
			})
		},
	}
	verify.Flags().StringVar(&head, "head", "", "a head that was printed before, N:HASH: the trail must go on from it")
	verify.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	group.AddCommand(listing, verify)
	return group
}

func parseHead(text string) (h monitor.AuditHead, err error) {
	if text == "" {
		return h, nil
	}
	n, hash, ok := strings.Cut(text, ":")
	if h.N, err = strconv.ParseInt(n, 10, 64); !ok || err != nil || h.N < 0 || h.N > 0 && len(hash) != 64 {
		return h, fmt.Errorf("--head %.100q is not of the form N:HASH, as `audit verify` prints it", text)
	}
	h.Hash = hash
	return h, nil
}

// reassessCommand shows what the rules of today would say about findings. It
// changes nothing.
func (a *app) reassessCommand(f *store.Filter) *cobra.Command {
	var since, until string
	var asJSON, all bool
	c := &cobra.Command{
		Use: "reassess", Short: "Show what the rules of today would say about findings, and change nothing",
		Long: `Judges findings anew with the watchlist of today, and prints those that it would
judge otherwise; with --all, every one. What is stored stays as it was: a verdict
is that of the rule at the time. Limits (at_most, once_per) are counted as they
were, and a list is taken as it is now.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := parseTimes(f, since, until); err != nil {
				return err
			}
			return a.withStore(c.Context(), func(s *setup, st *store.Store) error {
				if err := checkFilter(c.Context(), s, st, f); err != nil {
					return err
				}
				engine, err := s.engine(c.Context(), st, a.logger(), nil)
				if err != nil {
					return err
				}
				s.loadLists(c.Context())
				return a.reassess(c.Context(), engine, st, *f, all, asJSON)
			})
		},
	}
	filterFlags(c, f, &since, &until)
	c.Flags().StringVar(&f.Watch, "watch", "", "of this watch")
	c.Flags().StringVar(&f.Verdict, "verdict", "", "with this verdict")
	c.Flags().BoolVar(&all, "all", false, "those too that would be judged as they were")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return c
}

// reassessment is a line of what reassess prints.
type reassessment struct {
	ID       string `json:"id"`
	Watch    string `json:"watch"`
	Verdict  string `json:"verdict"`
	Today    string `json:"today"`
	Reason   string `json:"reason"`
	SameRule bool   `json:"same_rule"`
}

func (a *app) reassess(ctx context.Context, engine *monitor.Engine, st *store.Store, f store.Filter, all, asJSON bool) error {
	array := jsonArray{w: a.stdout}
	var t *table
	if !asJSON {
		t = newTable(a.stdout, "ID\tWATCH\tVERDICT\tTODAY\tREASON OF TODAY")
		defer t.end()
	}
	var ids []string
	if err := st.EachFinding(ctx, f, func(x monitor.Finding) error { ids = append(ids, x.ID); return nil }); err != nil {
		return err
	}
	for _, id := range ids {
		x, err := st.Finding(ctx, id)
		if err != nil {
			return err
		}
		var now monitor.Finding
		err = st.Peek(ctx, x.LogID, func(l monitor.Precedents) (err error) {
			now, err = engine.Reassess(x, l)
			return err
		})
		if err != nil {
			return fmt.Errorf("finding %s: %w", id, err)
		}
		if !all && now.Verdict == x.Verdict {
			continue
		}
		line := reassessment{x.ID, x.Watch, string(x.Verdict), cmp.Or(string(now.Verdict), "no match"), now.Reason, now.RuleHash == x.RuleHash}
		if asJSON {
			if err := array.add(line); err != nil {
				return err
			}
			continue
		}
		t.add(line.ID, line.Watch, line.Verdict, line.Today, line.Reason)
	}
	if asJSON {
		return array.end()
	}
	return nil
}
