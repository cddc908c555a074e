package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// The commands of a witness.

func (a *app) witnessCommand() *cobra.Command {
	group := &cobra.Command{Use: "witness", Short: "Co-sign checkpoints of logs"}
	group.AddCommand(a.keygenCommand(), a.witnessLogsCommand(), a.witnessTrustCommand(), a.witnessDisableCommand("disable", "Take a log of a list out", true), a.witnessDisableCommand("enable", "Put a log of a list back", false))
	return group
}

func (a *app) keygenCommand() *cobra.Command {
	var name, algorithm, out string
	c := &cobra.Command{
		Use: "keygen --name NAME", Short: "Make a key for a witness",
		Long: `Makes a signing key and writes it to a file that nobody else can read. What it
prints is the verifier key, to be published. NAME is that of the witness, like
witness.acme.example/w1: a domain of yours and a path. One key is for one
witness: never sign with it elsewhere.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			algorithms := map[string]witness.Algorithm{"ed25519": witness.Ed25519, "ml-dsa-44": witness.MLDSA44}
			if err := known("algorithm", algorithm, []string{"ed25519", "ml-dsa-44"}); err != nil {
				return err
			}
			if name == "" {
				return usage(errors.New("keygen wants --name, that of the witness, like witness.acme.example/w1"))
			}
			if out == "" {
				out = strings.NewReplacer("/", "-", string(os.PathSeparator), "-").Replace(name) + ".key"
			}
			secret, key, err := witness.GenerateKey(name, algorithms[algorithm])
			if err != nil {
				return usage(err)
			}
			f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return fmt.Errorf("the signing key cannot be written, and an existing file is never overwritten: %w", err)
			}
			_, err = fmt.Fprintln(f, secret)
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "the signing key is in %s; keep it, and name it under witness.keys as file:%s. The verifier key, to be published:\n", safe(out), safe(out))
			fmt.Fprintln(a.stdout, key.Verifier)
			return nil
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the witness")
	c.Flags().StringVar(&algorithm, "algorithm", "ml-dsa-44", "ml-dsa-44 or ed25519")
	c.Flags().StringVarP(&out, "output", "o", "", "file for the signing key (default: the name, with .key behind it)")
	return c
}

// withPromises opens the state of a witness, which no daemon may have just now.
func (a *app) withPromises(ctx context.Context, do func(*setup, *store.Witness) error) error {
	s, err := a.load()
	if err != nil {
		return err
	}
	p, err := store.OpenWitness(ctx, s.cfg.State, store.Options{})
	if err != nil {
		return err
	}
	defer p.Close()
	return do(s, p)
}

func (a *app) witnessLogsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "logs", Short: "List what was co-signed last of each log; not while the daemon runs", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return a.withPromises(c.Context(), func(_ *setup, p *store.Witness) error {
			all, err := p.All(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.stdout, all)
			}
			t := newTable(a.stdout, "ORIGIN\tSIZE\tSIGNED\tDOUBT")
			defer t.end()
			for _, x := range all {
				t.add(x.Origin, fmt.Sprint(x.Size), stamp(x.At), x.Doubt)
			}
			return nil
		})
	}}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return c
}

func (a *app) witnessTrustCommand() *cobra.Command {
	var note, by string
	var restored bool
	c := &cobra.Command{
		Use: "trust ORIGIN --note TEXT", Short: "Sign a log again that was doubted, after a person has looked",
		Long: `Ends the doubt about a log: its checkpoints are co-signed again. Nothing smaller,
and nothing with an earlier time, is signed than what is known to have been
signed before. With --restored, and without an origin, it takes the state of the
witness as it is, though the monitor knows that something was signed later. The
daemon must not run meanwhile.`,
		Args: cobra.MaximumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
			if restored == (len(args) == 1) {
				return usage(errors.New("witness trust wants the origin of a log, or --restored"))
			}
			if restored {
				return a.trustRestored(c.Context(), note, by)
			}
			return a.decideWitness(c.Context(), "witness-trust", "trusted", args[0], note, by, func(s *setup, p *store.Witness, st *store.Store) error {
				if err := p.Trust(c.Context(), args[0]); err != nil {
					return err
				}
				return s.settleDoubt(c.Context(), st, args[0], by, note)
			})
		},
	}
	c.Flags().StringVar(&note, "note", "", "what was found out")
	c.Flags().StringVar(&by, "by", whoami(), "who decides")
	c.Flags().BoolVar(&restored, "restored", false, "take the state of the witness as it is")
	return c
}

// settleDoubt resolves the incidents about a log that is signed again.
func (s *setup) settleDoubt(ctx context.Context, st *store.Store, origin, by, note string) error {
	all, err := st.Incidents(ctx, store.Filter{Kind: monitor.KindWitnessDoubt})
	if err != nil {
		return err
	}
	for _, inc := range all {
		var d struct{ Origin string }
		if inc.State == monitor.StateResolved || json.Unmarshal(inc.Details, &d) != nil || d.Origin != origin {
			continue
		}
		now := time.Now().UTC()
		change := monitor.Change{To: monitor.StateResolved, Resolution: monitor.AsIncident, By: by, Note: note, At: now}
		if err := st.Triage(ctx, inc.ID, change, s.triageTold(now)); err != nil {
			return err
		}
	}
	return nil
}

// trustRestored lets a witness go on with an older state, or with none.
func (a *app) trustRestored(ctx context.Context, note, by string) error {
	if strings.TrimSpace(note) == "" {
		return usage(errors.New("--note is missing: say why"))
	}
	if err := decider(by, note); err != nil {
		return err
	}
	s, err := a.load()
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, s.cfg.State, store.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	if err := st.Act(ctx, monitor.Act{By: by, Action: "witness-trust", Subject: "restored", Detail: map[string]string{"note": note}}, time.Now()); err != nil {
		return err
	}
	if err := st.ForgetWitnessMark(ctx); err != nil {
		return err
	}
	fmt.Fprintln(a.stderr, "the state of the witness is taken as it is")
	return nil
}

func (a *app) witnessDisableCommand(use, short string, out bool) *cobra.Command {
	var note, by string
	c := &cobra.Command{Use: use + " ORIGIN --note TEXT", Short: short + "; no list changes that", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		return a.decideWitness(c.Context(), "witness-"+use, use+"d", args[0], note, by, func(_ *setup, p *store.Witness, _ *store.Store) error {
			reason := ""
			if out {
				reason = by + ": " + note
			}
			return p.Disable(c.Context(), args[0], reason)
		})
	}}
	c.Flags().StringVar(&note, "note", "", "why")
	c.Flags().StringVar(&by, "by", whoami(), "who decides")
	return c
}

// decideWitness does what a person has decided of a log, and writes it down.
func (a *app) decideWitness(ctx context.Context, action, done, origin, note, by string, do func(*setup, *store.Witness, *store.Store) error) error {
	if strings.TrimSpace(note) == "" {
		return usage(errors.New("--note is missing: say why"))
	}
	if err := decider(by, note); err != nil {
		return err
	}
	return a.withPromises(ctx, func(s *setup, p *store.Witness) error {
		st, err := store.Open(ctx, s.cfg.State, store.Options{})
		if err != nil {
			return fmt.Errorf("the audit trail cannot be written, so that nothing was done: %w", err)
		}
		defer st.Close()
		if err := do(s, p, st); err != nil {
			return err
		}
		if err := st.Act(ctx, monitor.Act{By: by, Action: action, Subject: origin, Detail: map[string]string{"note": note}}, time.Now()); err != nil {
			return fmt.Errorf("it was done, but cannot be written into the audit trail: %w", err)
		}
		fmt.Fprintf(a.stderr, "%s: %s\n", safe(origin), done)
		return nil
	})
}
