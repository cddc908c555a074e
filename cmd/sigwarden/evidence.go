package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/evidence"
	"github.com/sigwarden/sigwarden/monitor/store"
)

func (a *app) evidenceCommand() *cobra.Command {
	var output, key string
	var asJSON bool
	export := &cobra.Command{
		Use: "export ID -o FILE", Short: "Write a file that proves a finding, a fork or a broken promise to somebody else", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" {
				return usage(errors.New("export wants -o FILE"))
			}
			return a.withStore(c.Context(), func(_ *setup, st *store.Store) error {
				var b bytes.Buffer
				if err := a.export(c.Context(), st, args[0], &b); err != nil {
					return err
				}
				if err := os.WriteFile(output, b.Bytes(), 0o644); err != nil {
					return err
				}
				fmt.Fprintf(a.stderr, "%s written; anybody who has the log's key can check it: sigwarden evidence verify %s --log-key KEY\n", output, output)
				return nil
			})
		},
	}
	export.Flags().StringVarP(&output, "output", "o", "", "file to write")
	verify := &cobra.Command{
		Use: "verify FILE --log-key KEY", Short: "Check an evidence file, offline, trusting the log's key alone", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if key == "" {
				return usage(errors.New("verify wants --log-key: a PEM file, PEM text, or a note verifier key"))
			}
			text, err := keyText(key)
			if err != nil {
				return usage(err)
			}
			data, err := a.readInput(c.Context(), args[0])
			if err != nil {
				return err
			}
			res, err := evidence.Verify(data, text)
			if errors.Is(err, evidence.ErrKey) {
				return usage(fmt.Errorf("--log-key: %w", err))
			}
			if err != nil {
				return &status{exitIntegrity, fmt.Errorf("the evidence does not hold: %w", err)}
			}
			if asJSON {
				return printJSON(a.stdout, res)
			}
			for _, p := range res.Proven {
				fmt.Fprintf(a.stdout, "proven: %s\n", safe(p))
			}
			for _, p := range res.Statements {
				fmt.Fprintf(a.stdout, "statement only: %s\n", safe(p))
			}
			return nil
		},
	}
	verify.Flags().StringVar(&key, "log-key", "", "public key of the log")
	verify.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	group := &cobra.Command{Use: "evidence", Short: "Proofs for others"}
	group.AddCommand(export, verify)
	return group
}

// keyText takes a key in any form that public_key takes.
func keyText(key string) (string, error) {
	if strings.Contains(key, "-----BEGIN") || strings.Count(key, "+") >= 2 {
		return key, nil
	}
	data, err := os.ReadFile(strings.TrimPrefix(key, "file:"))
	return string(data), err
}

func (a *app) export(ctx context.Context, st *store.Store, id string, w io.Writer) error {
	if strings.HasPrefix(id, "f-") {
		f, err := st.Finding(ctx, id)
		if err != nil {
			return err
		}
		// What people do with a finding later must not change its evidence.
		f.State, f.Note, f.Resolution, f.By, f.ChangedAt = "", "", "", "", nil
		root := f.TrustRoot
		if root == nil {
			root = &monitor.TrustRoot{}
		}
		return evidence.WriteInclusion(w, evidence.Inclusion{
			TrustRoot: root.Document, Provenance: root.Provenance,
			Origin: f.Origin, Index: f.Index, Leaf: f.Leaf, Proof: f.Proof, Note: f.SignedNote,
			Size: f.Checkpoint.Size, Root: checkpoint.Hash(f.Checkpoint.Root), Authorities: f.Authorities, Statement: map[string]any{"finding": f},
		})
	}
	inc, err := st.Incident(ctx, id)
	if err != nil {
		return err
	}
	kept, ok := inc.Transferable()
	if !ok {
		return fmt.Errorf("incident %s is of kind %s, and nothing was kept that convinces others: evidence for them is made of findings, of forks, and of promises that a log has broken; what was kept of this one is shown by `sigwarden incidents show %s`", id, inc.Kind, id)
	}
	inc.State, inc.Note, inc.Resolved, inc.Resolution, inc.By, inc.ChangedAt = "", "", nil, "", "", nil
	statement := map[string]any{"incident": inc}
	if inc.Kind == monitor.KindFork || inc.Kind == monitor.KindSplitView {
		d, err := checkpoint.ParseDivergence(kept)
		if err != nil {
			return err
		}
		origin, _, _ := strings.Cut(d.Larger, "\n")
		return evidence.WriteFork(w, origin, d, statement)
	}
	b, err := checkpoint.ParseBrokenPromise(kept)
	if err != nil {
		return err
	}
	origin, _, _ := strings.Cut(b.Checkpoint, "\n")
	return evidence.WriteBrokenPromise(w, origin, b, statement)
}
