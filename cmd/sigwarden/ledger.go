package main

import (
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// signEvery is how often the head of the ledger is signed while the daemon runs.
const signEvery = time.Hour

// beginLedger writes down that logs are followed from now on, and with which rules.
func (s *setup) beginLedger(ctx context.Context, st *store.Store, engine *monitor.Engine, log *slog.Logger) error {
	var watches []ledger.Rule
	documents := map[string][]byte{}
	for i, w := range s.list.Watches() {
		hash := monitor.RuleHash(w, s.watches[i])
		watches = append(watches, ledger.Rule{Watch: w.Name, Hash: hash})
		documents[hash] = monitor.RuleDocument(w, s.watches[i])
	}
	if err := st.KeepRules(ctx, documents); err != nil {
		return err
	}
	now := time.Now()
	followed := map[string]bool{}
	for _, t := range engine.Trusted() {
		followed[ledger.LogKey(t.Log.Origin())] = true
	}
	lost, err := st.Begin(ctx, watches, func(origin string) bool { return followed[ledger.LogKey(origin)] }, now)
	if err != nil {
		return err
	}
	if lost.Lost.Size > 0 {
		inc := monitor.StateRestored(lost, now, monitor.Audience{Channels: s.health(), Route: s.routes.Route})
		log.Error("the state file is an older copy of itself, or another one: "+inc.Summary, "mark", s.cfg.State+"-ledger-mark")
		if err := st.Record(ctx, []monitor.Incident{inc}, nil); err != nil {
			return err
		}
	}
	last, err := st.LastSigned(ctx)
	if err != nil {
		return err
	}
	_, ours, err := s.ledgerKey()
	if err != nil {
		return err
	}
	if last.Note != "" && !ours(last.Note) {
		log.Warn("the ledger was signed with another key until now: whoever checks it with the old public key needs `sigwarden ledger key` of today. A key that stays is named as signing.key", "state", s.cfg.State)
	}
	_, err = s.signLedger(ctx, st)
	return err
}

// ledgerKey returns the key that heads of the ledger are signed with, and what tells whether one
// was.
func (s *setup) ledgerKey() (key crypto.Signer, ours func(note string) bool, err error) {
	if key, err = s.signingKey(true); err != nil {
		return nil, nil, err
	}
	public, err := publicPEM(key)
	return key, func(note string) bool {
		_, err := openHead([]byte(note), public)
		return err == nil
	}, err
}

// signLedger has the head of the ledger signed.
func (s *setup) signLedger(ctx context.Context, st *store.Store) (store.SignedHead, error) {
	key, ours, err := s.ledgerKey()
	if err != nil {
		return store.SignedHead{}, err
	}
	return st.SignLedger(ctx, time.Now(), func(origin, text string) (string, error) { return signNote(key, origin, text) }, ours)
}

// keepLedger signs the head of the ledger every now and then.
func (s *setup) keepLedger(ctx context.Context, st *store.Store, log *slog.Logger) {
	tick := time.NewTicker(signEvery)
	defer tick.Stop()
	s.forget(ctx, st, log)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.forget(ctx, st, log)
			if _, err := s.signLedger(ctx, st); err != nil && ctx.Err() == nil {
				log.Error("the head of the ledger could not be signed; it is tried again in an hour", "error", err)
			}
		}
	}
}

// forgetTogether is how much is deleted in one transaction: others write too.
const forgetTogether = 500

// forget deletes what has been kept for as long as it is to be.
func (s *setup) forget(ctx context.Context, st *store.Store, log *slog.Logger) {
	now := time.Now()
	for class, keep := range map[string]time.Duration{store.ClassExpected: s.cfg.Retention.Expected, store.ClassFindings: s.cfg.Retention.Findings, store.ClassIncidents: s.cfg.Retention.Incidents} {
		if keep == 0 {
			continue
		}
		gone := 0
		for {
			n, err := st.Forget(ctx, class, now.Add(-keep), now, forgetTogether)
			if err != nil {
				if ctx.Err() == nil {
					log.Error("what is old could not be deleted; it is tried again in an hour", "class", class, "error", err)
				}
				break
			}
			if gone += n; n < forgetTogether {
				break
			}
		}
		if gone > 0 {
			log.Info("deleted what was kept for as long as `retention` says; the ledger has a tombstone", "class", class, "count", gone, "older_than", now.Add(-keep).UTC().Format(time.RFC3339))
		}
	}
}

// endLedger writes down that following stops in good order. A daemon makes rows of what
// goes on; single passes leave that to those that come, or the ledger would be all edges.
func (s *setup) endLedger(ctx context.Context, st *store.Store, log *slog.Logger, once bool) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	now := time.Now()
	var err error
	if !once {
		err = st.SealSpans(last, now)
	}
	if err == nil {
		err = st.End(last, now)
	}
	if err == nil {
		_, err = s.signLedger(last, st)
	}
	if err != nil {
		log.Error("the end of this run could not be written into the ledger", "error", err)
	}
}

func (a *app) ledgerCommand() *cobra.Command {
	group := &cobra.Command{Use: "ledger", Short: "The record of what was watched: append-only, chained and signed"}
	group.AddCommand(a.ledgerShowCommand(), a.ledgerVerifyCommand(), a.ledgerKeyCommand())
	return group
}

func (a *app) ledgerShowCommand() *cobra.Command {
	var from uint64
	c := &cobra.Command{
		Use: "show", Short: "Print the rows of the ledger, a line of JSON each, as they are hashed", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withStore(c.Context(), func(_ *setup, st *store.Store) error {
				return st.EachLedgerRow(c.Context(), from, 1<<62, func(line []byte) error {
					_, err := fmt.Fprintf(a.stdout, "%s\n", line)
					return err
				})
			})
		},
	}
	c.Flags().Uint64Var(&from, "from", 0, "first row to print")
	return c
}

func (a *app) ledgerVerifyCommand() *cobra.Command {
	var kept, keptKey string
	var asJSON bool
	c := &cobra.Command{
		Use: "verify", Short: "Check that no row of the ledger was changed or removed, and print its signed head", Args: cobra.NoArgs,
		Long: `Checks the chain of all rows, and that it goes on from the heads that were
signed before. Keep the head that this prints somewhere else, and give it back
with --kept later: then even somebody who can write to this machine cannot have
rewritten what came before it.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withStore(c.Context(), func(s *setup, st *store.Store) error {
				return a.verifyLedger(c.Context(), s, st, kept, keptKey, asJSON)
			})
		},
	}
	c.Flags().StringVar(&kept, "kept", "", "file with a head that was kept")
	c.Flags().StringVar(&keptKey, "kept-key", "", "public key that signed it, if signing.key was changed since")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	return c
}

func (a *app) verifyLedger(ctx context.Context, s *setup, st *store.Store, kept, keptKey string, asJSON bool) error {
	key, err := s.signingKey(false)
	if err != nil {
		return err
	}
	public, err := publicPEM(key)
	if err != nil {
		return err
	}
	var known []ledger.Head
	look := func(what string, text, public []byte) error {
		head, err := openHead(text, public)
		if err != nil {
			return &status{exitIntegrity, fmt.Errorf("%s: %w", what, err)}
		}
		known = append(known, ledger.Head{Size: head.Size(), Root: checkpoint.HexHash(head.Root())})
		return nil
	}
	signed, err := st.LastSigned(ctx)
	if err != nil {
		return err
	}
	if signed.Note != "" {
		err := look("the last signed head", []byte(signed.Note), public)
		if errors.Is(err, checkpoint.ErrSignature) && s.otherKey(signed.Note, public) {
			// What it says is compared all the same.
			fmt.Fprintln(a.stderr, "the last head was signed with another key than signing.key is now; its signature is not checked, and it is signed anew")
			var head ledger.Head
			if head, err = headOfNote(signed.Note); err == nil {
				known = append(known, head)
			}
		}
		if err != nil {
			return err
		}
	}
	if kept != "" {
		text, err := os.ReadFile(kept)
		if err != nil {
			return usage(err)
		}
		by := public
		if keptKey != "" {
			key, err := keyText(keptKey)
			if err != nil {
				return usage(fmt.Errorf("--kept-key: %w", err))
			}
			by = []byte(key)
		}
		if err := look(kept, text, by); err != nil {
			return err
		}
	}
	id, chain, err := st.VerifyLedger(ctx, known...)
	if errors.Is(err, ledger.ErrTampered) {
		return &status{exitIntegrity, err}
	}
	if err != nil {
		return err
	}
	if chain.Size() == 0 {
		return errors.New("the ledger is empty; `sigwarden run` begins it")
	}
	// What was written since is signed now, so that it can be kept.
	if signed, err = s.signLedger(ctx, st); err != nil {
		return err
	}
	if asJSON {
		return printJSON(a.stdout, map[string]any{"origin": ledger.Origin(id), "rows": chain.Size(), "root": checkpoint.HexHash(chain.Root()), "signed": signed.Size, "head": signed.Note})
	}
	fmt.Fprintf(a.stderr, "%d rows are as they were written\n", chain.Size())
	_, err = fmt.Fprint(a.stdout, signed.Note)
	return err
}

// otherKey reports whether a head names another key of its ledger as the one that signed it:
// signing.key was changed.
func (s *setup) otherKey(head string, public []byte) bool {
	v, err := checkpoint.ParseKey(originOf([]byte(head)), string(public))
	if err != nil {
		return false
	}
	hash := fmt.Sprintf("%08x", v.KeyHash())
	_, line, _ := strings.Cut(head, "\n\n")
	sig, err := base64.StdEncoding.DecodeString(line[strings.LastIndexByte(strings.TrimSpace(line), ' ')+1 : len(strings.TrimSpace(line))])
	return err == nil && len(sig) > 4 && fmt.Sprintf("%x", sig[:4]) != hash
}

// openHead verifies a signed head of a ledger.
func openHead(text, key []byte) (checkpoint.Checkpoint, error) {
	origin, _, _ := strings.Cut(string(text), "\n")
	log, err := checkpoint.ForOrigin(origin, string(key))
	if err != nil {
		return checkpoint.Checkpoint{}, err
	}
	return log.Open(text)
}

func (a *app) ledgerKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "key", Short: "Print the public key that heads of the ledger, reports and evidence are signed with", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			key, err := s.signingKey(false)
			if err != nil {
				return err
			}
			text, err := publicPEM(key)
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(text)
			return err
		},
	}
}
