package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
)

func (a *app) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Copy the state to a file, while the daemon goes on", Args: cobra.ExactArgs(1),
		Long: `Copies the state to FILE, which must not exist yet, in one piece and as it was at
one moment; the daemon may run meanwhile. The file holds all that the state does,
and is to be kept as safe. Where there is a witness, its state is copied to
FILE-witness. Keys are not copied: not that which the ledger is signed with
unless it is named as signing.key, nor those of the witness.`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withStore(c.Context(), func(s *setup, st *store.Store) error {
				// The witness first: what the state knows of it is then newer, never older.
				promises := store.WitnessPath(s.cfg.State)
				if _, err := os.Stat(promises); err == nil {
					if err := store.CopyWitness(c.Context(), s.cfg.State, store.WitnessPath(args[0])); err != nil {
						return err
					}
					fmt.Fprintf(a.stderr, "the state of the witness was copied to %s\n", store.WitnessPath(args[0]))
				}
				if err := st.Backup(c.Context(), args[0]); err != nil {
					return err
				}
				fmt.Fprintf(a.stderr, "the state was copied to %s\n", args[0])
				return nil
			})
		},
	}
}

func (a *app) restoreCommand() *cobra.Command {
	var note, by string
	var dry bool
	c := &cobra.Command{
		Use: "restore FILE --note TEXT", Short: "Put a backup in the place of the state, and say what that takes back", Args: cobra.ExactArgs(1),
		Long: `Puts a backup in the place of the state, which is moved aside, and says what it
takes back: entries that are read again, findings, decisions of people. The daemon
must not run. What was notified since the backup may be notified again, and the
ledger says from the next run on that the state was an older copy.

The state of a witness is never replaced: a witness that forgets what it has signed
would sign the opposite. Only where it is gone is FILE-witness put there, and then
nothing is signed until somebody has looked: see sigwarden witness trust.`,
		RunE: func(c *cobra.Command, args []string) error {
			if !dry && strings.TrimSpace(note) == "" {
				return usage(errors.New("restore wants --note: why the state is replaced; with --dry-run it says what that would take back"))
			}
			if err := decider(by, note); err != nil {
				return err
			}
			s, err := a.load()
			if err != nil {
				return err
			}
			return a.restore(c.Context(), s, args[0], by, strings.TrimSpace(note), dry)
		},
	}
	c.Flags().StringVar(&note, "note", "", "why")
	c.Flags().StringVar(&by, "by", whoami(), "who decides")
	c.Flags().BoolVar(&dry, "dry-run", false, "say what it would take back, and change nothing")
	return c
}

func (a *app) restore(ctx context.Context, s *setup, backup, by, note string, dry bool) error {
	kept, err := store.Look(ctx, backup)
	if err != nil {
		return fmt.Errorf("the backup cannot be used, and nothing was changed: %w", err)
	}
	a.sayRollback(ctx, s.cfg.State, kept)
	if dry {
		fmt.Fprintln(a.stderr, "nothing was changed")
		return nil
	}
	now := time.Now()
	aside, err := store.Restore(ctx, backup, s.cfg.State, now)
	for _, path := range aside {
		fmt.Fprintf(a.stderr, "what was there is kept as %s\n", path)
	}
	if err != nil {
		return err
	}
	doubted, err := a.restoreWitness(ctx, backup, s.cfg.State)
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, s.cfg.State, store.Options{Version: version()})
	if err != nil {
		return err
	}
	defer st.Close()
	if err := st.Act(ctx, monitor.Act{By: by, Action: "state-restored", Subject: "state", Detail: map[string]string{"note": note, "seen": kept.Seen.Format(time.RFC3339)}}, now); err != nil {
		return err
	}
	fmt.Fprintln(a.stderr, "the backup is in its place; `sigwarden run` goes on from there, and its ledger says that the state was an older copy")
	if doubted {
		fmt.Fprintln(a.stderr, "the state of the witness was put there too: nothing is signed until you are sure that nothing was signed since the backup; see sigwarden witness trust")
	}
	return nil
}

// sayRollback compares a backup with the state that it is to replace.
func (a *app) sayRollback(ctx context.Context, state string, kept store.Contents) {
	say := func(format string, args ...any) { fmt.Fprintf(a.stdout, format+"\n", args...) }
	when := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return t.Format(time.RFC3339)
	}
	say("backup: the program wrote last at %s; %d findings, %d decisions, %d rows of the ledger", when(kept.Seen), kept.Findings, kept.Decisions, kept.Rows)
	var have store.Contents
	st, err := store.Open(ctx, state, store.Options{Version: version()})
	if err == nil {
		have, err = st.Contents(ctx)
		st.Close()
	}
	switch {
	case errors.Is(err, store.ErrMissing):
		say("state: there is none; what was found and decided after %s, if anything, is not known here", when(kept.Seen))
		return
	case err != nil:
		say("state: it cannot be read (%s); what was found and decided after %s is not known here", safe(err.Error()), when(kept.Seen))
		return
	}
	say("state: the program wrote last at %s; %d findings, %d decisions, %d rows of the ledger", when(have.Seen), have.Findings, have.Decisions, have.Rows)
	lost := false
	less := func(now, then uint64, what string) {
		if now > then {
			lost = true
			say("taken back: %d %s", now-then, what)
		}
	}
	less(have.Findings, kept.Findings, "findings; those of entries that are read again are found again")
	less(have.Decisions, kept.Decisions, "decisions of the audit trail")
	less(have.Rows, kept.Rows, "rows of the ledger")
	for _, id := range slices.Sorted(maps.Keys(have.Logs)) {
		now, then := have.Logs[id], kept.Logs[id]
		if now.HeadSize > then.HeadSize {
			lost = true
			say("taken back: log %s from its verified size %d to %d: a fork between them is seen only if the log still shows it", safe(now.Name), now.HeadSize, then.HeadSize)
		}
		if now.Scanned > then.Scanned {
			lost = true
			say("taken back: log %s is read again from entry %d to %d", safe(now.Name), then.Scanned, now.Scanned-1)
		}
		if now.Halted != "" && then.Halted == "" {
			lost = true
			say("taken back: log %s is halted by incident %s, and would go on", safe(now.Name), now.Halted)
		}
	}
	if !lost {
		say("nothing is taken back that these numbers show")
	}
}

// restoreWitness puts the state of the witness where it is gone, in doubt.
func (a *app) restoreWitness(ctx context.Context, backup, state string) (doubted bool, err error) {
	if _, err := os.Stat(store.WitnessPath(backup)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if _, err := os.Stat(store.WitnessPath(state)); !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(a.stderr, "the state of the witness, %s, stays as it is\n", store.WitnessPath(state))
		return false, err
	}
	return true, store.RestoreWitness(ctx, backup, state, "its state was restored from a backup: what was signed after that is not known")
}
