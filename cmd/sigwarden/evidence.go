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

	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor/attest"
	"github.com/sigwarden/sigwarden/monitor/evidence"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/trust"
)

func (a *app) evidenceCommand() *cobra.Command {
	group := &cobra.Command{Use: "evidence", Short: "Proofs for others"}
	group.AddCommand(a.evidenceExportCommand(), a.evidenceVerifyCommand())
	return group
}

func (a *app) evidenceExportCommand() *cobra.Command {
	var output, log, redact string
	var sign bool
	var p period
	c := &cobra.Command{
		Use: "export {ID | --coverage LOG --since T} -o FILE", Short: "Write a file that others can check: of a finding, an incident, or a time in which a log was watched", Args: cobra.MaximumNArgs(1),
		Long: `Writes evidence (format sigwarden-evidence/v1): a zip with everything that
somebody needs who has the keys that he trusts, and nothing else, offline. The
same evidence has the same bytes. README.txt in it says what is proven, what is
our word only, and how to check it without sigwarden.

  sigwarden evidence export f-… -o finding.zip
  sigwarden evidence export i-… -o fork.zip
  sigwarden evidence export --coverage NAME --since 30d -o coverage.zip`,
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" {
				return usage(errors.New("export wants -o FILE"))
			}
			if (len(args) == 1) == (log != "") {
				return usage(errors.New("export wants the id of a finding or an incident, or --coverage LOG"))
			}
			x := &exporter{}
			if redact != "" {
				var err error
				if x.redactor, err = readRedactor(redact); err != nil {
					return usage(fmt.Errorf("--redact: %w", err))
				}
			}
			if a.server != "" {
				if log != "" || redact != "" || sign {
					return usage(errors.New("--server: --coverage, --redact and --sign are made where the state is"))
				}
				return a.exportRemotely(c.Context(), args[0], output)
			}
			return a.withStore(c.Context(), func(s *setup, st *store.Store) error {
				x.setup, x.store = s, st
				var b bytes.Buffer
				var err error
				hint := "--log-key KEY"
				if log != "" {
					hint = "--ledger-key KEY --log-key KEY"
					err = x.coverage(c.Context(), log, p, &b)
				} else {
					err = x.export(c.Context(), args[0], &b)
				}
				if err != nil {
					return err
				}
				// What could not be checked is found out here, and not years later.
				if err := x.check(c.Context(), b.Bytes()); err != nil {
					return err
				}
				if err := writeWhole(output, b.Bytes()); err != nil {
					return err
				}
				if sign {
					if err := s.signFile(c.Context(), output, b.Bytes(), attest.EvidenceType, map[string]string{"format": evidence.Format}); err != nil {
						return err
					}
				}
				fmt.Fprintf(a.stderr, "%s written; whoever has the keys can check it: sigwarden evidence verify %s %s\n", output, output, hint)
				return nil
			})
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "file to write")
	c.Flags().StringVar(&log, "coverage", "", "a log: evidence of what was watched of it, with --since and --until")
	c.Flags().StringVar(&redact, "redact", "", "file with a secret of at least 32 bytes: replace e-mail addresses by keyed hashes, and leave out the leaf, which holds them")
	c.Flags().BoolVar(&sign, "sign", false, "sign the file: a Sigstore bundle, FILE"+bundleSuffix+", that cosign verify-blob-attestation takes")
	p.flags(c)
	return c
}

// exportRemotely writes what a server has made.
func (a *app) exportRemotely(ctx context.Context, id, output string) error {
	from, err := a.remotely()
	if err != nil {
		return err
	}
	data, err := from.Evidence(ctx, id)
	if err != nil {
		return err
	}
	if err := writeWhole(output, data); err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "%s written; whoever has the keys can check it: sigwarden evidence verify %s --log-key KEY\n", output, output)
	return nil
}

// verifyFlags say whom to trust.
type verifyFlags struct {
	logKeys, ledgerKeys, witnesses []string
	root                           string
	embedded                       bool
}

func (a *app) evidenceVerifyCommand() *cobra.Command {
	var f verifyFlags
	var signed signatureFlags
	var asJSON bool
	c := &cobra.Command{
		Use: "verify FILE", Short: "Check an evidence file, offline, trusting only the keys that you give", Args: cobra.ExactArgs(1),
		Long: `Checks an evidence file. Everything that it claims is printed as one of:
proven (it follows from what keys that you trust have signed), not proven (it
cannot be checked with the keys given), statement only (the word of whoever made
the file). Exit status 4: the evidence does not hold.

A key is a PEM file, PEM text, or a note verifier key; several may be given.`,
		RunE: func(c *cobra.Command, args []string) error {
			t, err := f.trust()
			if err != nil {
				return usage(err)
			}
			checkSignature, err := signed.given(c)
			if err != nil {
				return err
			}
			data, err := a.readInput(c.Context(), args[0])
			if err != nil {
				return err
			}
			res, err := evidence.Verify(data, t)
			if err == nil && checkSignature {
				lines, wrong := signed.verify(args[0], data, attest.EvidenceType)
				if st := (*status)(nil); wrong != nil && (!errors.As(wrong, &st) || st.code != exitIntegrity) {
					return wrong
				}
				if res.Claims = append(res.Claims, lines...); wrong != nil {
					err, res.Holds, res.Error, res.Claims = wrong, false, wrong.Error(), []evidence.Line{}
				}
			}
			if errors.Is(err, evidence.ErrKey) {
				return usage(err)
			}
			if asJSON {
				if err := printJSON(a.stdout, res); err != nil {
					return err
				}
			} else {
				writeResult(a.stdout, res, err == nil)
			}
			if err != nil {
				return &status{exitIntegrity, fmt.Errorf("the evidence does not hold: %w", err)}
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&f.logKeys, "log-key", nil, "public key of the log")
	c.Flags().StringArrayVar(&f.ledgerKeys, "ledger-key", nil, "public key of the ledger (sigwarden ledger key prints it)")
	c.Flags().StringArrayVar(&f.witnesses, "witness-key", nil, "verifier key of a witness, to check its cosignatures")
	c.Flags().StringVar(&f.root, "trusted-root", "", "trusted_root.json whose log keys and certificate authorities to trust")
	c.Flags().BoolVar(&f.embedded, "allow-embedded-trust", false, "trust the keys in the file itself: shows only that it agrees with itself")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	signed.flags(c)
	return c
}

// trust makes what the flags name.
func (f *verifyFlags) trust() (t evidence.Trust, err error) {
	if len(f.logKeys)+len(f.ledgerKeys) == 0 && f.root == "" && !f.embedded {
		return t, errors.New("verify wants to know whom to trust: --log-key (a PEM file, PEM text, or a note verifier key), --trusted-root FILE, or for coverage --ledger-key; --allow-embedded-trust trusts what is in the file itself")
	}
	t.Embedded = f.embedded
	for _, list := range []struct {
		flag string
		from []string
		to   *[]string
	}{{"--log-key", f.logKeys, &t.LogKeys}, {"--ledger-key", f.ledgerKeys, &t.LedgerKeys}} {
		for _, key := range list.from {
			text, err := keyText(key)
			if err != nil {
				return t, fmt.Errorf("%s: %w", list.flag, err)
			}
			*list.to = append(*list.to, text)
		}
	}
	for _, key := range f.witnesses {
		text, err := keyText(key)
		if err != nil {
			return t, fmt.Errorf("--witness-key: %w", err)
		}
		v, err := witness.ParseVerifier(text)
		if err != nil {
			return t, fmt.Errorf("--witness-key: %w", err)
		}
		t.Witnesses = append(t.Witnesses, v)
	}
	if f.root == "" {
		return t, nil
	}
	root, err := trust.ReadRoot(f.root)
	if err != nil {
		return t, fmt.Errorf("--trusted-root: %w", err)
	}
	if t.Authorities, err = newAuthorities(root.Authorities, root.CTLogs); err != nil {
		return t, fmt.Errorf("--trusted-root: %w", err)
	}
	t.Root = rootKeys(root)
	return t, nil
}

// keyText takes a key in any form that public_key takes.
func keyText(key string) (string, error) {
	if strings.Contains(key, "-----BEGIN") || strings.Count(key, "+") >= 2 {
		return key, nil
	}
	data, err := os.ReadFile(strings.TrimPrefix(key, "file:"))
	return string(data), err
}

// statusNames are what people read.
var statusNames = map[evidence.Status]string{evidence.Proven: "proven", evidence.NotProven: "not proven", evidence.Statement: "statement only"}

// writeResult prints what evidence shows, for people.
func writeResult(w io.Writer, res evidence.Result, holds bool) {
	if res.EmbeddedTrust {
		fmt.Fprintln(w, "TRUSTING THE KEYS IN THE FILE ITSELF: whoever made it may have made them too. What is called proven below shows only that the file agrees with itself.")
	}
	if !holds {
		return // what was proven before the first thing that does not hold would mislead
	}
	for _, status := range []evidence.Status{evidence.Proven, evidence.NotProven, evidence.Statement} {
		for _, text := range res.Of(status) {
			fmt.Fprintf(w, "%s: %s\n", statusNames[status], safe(text))
		}
	}
}
