package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/internal/crash"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/attest"
	"github.com/sigwarden/sigwarden/monitor/redact"
	"github.com/sigwarden/sigwarden/monitor/report"
	"github.com/sigwarden/sigwarden/monitor/store"
)

func (a *app) reportCommand() *cobra.Command {
	var p period
	var format, output, secret, pdf string
	var sign bool
	c := &cobra.Command{
		Use: "report --since T [--until T] [--format F]", Short: "Say what was watched and found in a period, with its gaps, for people and programs", Args: cobra.NoArgs,
		Long: `Writes the report of a period: first what was not covered, and why; then coverage,
findings with what became of them, incidents, changes of policy, blind spots,
deliveries, and how to verify it. HTML is one file that needs nothing else.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if !slices.Contains(report.Formats(), format) {
				return usage(fmt.Errorf("--format %q: want one of %s", format, strings.Join(report.Formats(), ", ")))
			}
			if sign && output == "" && pdf == "" {
				return usage(errors.New("--sign wants -o FILE, or --pdf FILE: the signature is written beside it"))
			}
			since, until, err := p.parse(time.Now())
			if err != nil {
				return err
			}
			var hide *redact.Redactor
			if secret != "" {
				if hide, err = readRedactor(secret); err != nil {
					return usage(fmt.Errorf("--redact: %w", err))
				}
			}
			return a.withStore(c.Context(), func(s *setup, st *store.Store) error {
				r, err := s.report(c.Context(), st, since, until, hide)
				if err != nil {
					return err
				}
				if pdf != "" {
					data, err := printPDF(c.Context(), r)
					if err == nil {
						err = writeWhole(pdf, data)
					}
					if err == nil && sign {
						err = s.signFile(c.Context(), pdf, data, attest.ReportType, predicate(r, "pdf"))
					}
					if err != nil || output == "" && !c.Flags().Changed("format") {
						return err
					}
				}
				return a.writeReport(c.Context(), s, r, format, output, sign)
			})
		},
	}
	p.flags(c)
	c.Flags().StringVar(&format, "format", "markdown", "html, markdown, json or csv")
	c.Flags().StringVarP(&output, "output", "o", "", "file to write (default standard output)")
	c.Flags().StringVar(&secret, "redact", "", "file with a secret of at least 32 bytes: replace e-mail addresses by keyed hashes")
	c.Flags().BoolVar(&sign, "sign", false, "sign the file: a Sigstore bundle, FILE"+bundleSuffix+", that cosign verify-blob-attestation takes")
	c.Flags().StringVar(&pdf, "pdf", "", "write a PDF too, with the Chromium that is installed")
	c.AddCommand(a.reportVerifyCommand())
	return c
}

func (a *app) reportVerifyCommand() *cobra.Command {
	var f signatureFlags
	c := &cobra.Command{
		Use: "verify FILE {--key KEY | --certificate-identity SUBJECT}", Short: "Check the signature of a report, offline", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if given, err := f.given(c); err != nil {
				return err
			} else if !given {
				return usage(errors.New("verify wants --key, the public key of whoever made the report, or --certificate-identity"))
			}
			data, err := readFile(args[0])
			if err != nil {
				return usage(err)
			}
			lines, err := f.verify(args[0], data, attest.ReportType)
			for _, line := range lines {
				fmt.Fprintf(a.stdout, "%s: %s\n", statusNames[line.Status], safe(line.Text))
			}
			return err
		},
	}
	f.flags(c)
	return c
}

// predicate is what the signature of a report says beside the digest of the file.
func predicate(r *report.Report, format string) any {
	return map[string]any{"format": r.Format, "rendered": format, "since": r.Since, "until": r.Until, "made_at": r.Made, "not_covered": len(r.Gaps), "findings": r.Findings.ByVerdict, "incidents": r.Incidents.Total,
		"ledger": map[string]any{"origin": r.Verify.Ledger, "rows": r.Verify.Rows, "head": r.Verify.Head}}
}

func (a *app) writeReport(ctx context.Context, s *setup, r *report.Report, format, output string, sign bool) error {
	if output == "" {
		return r.Write(a.stdout, format)
	}
	var b bytes.Buffer
	if err := r.Write(&b, format); err != nil {
		return err
	}
	if err := writeWhole(output, b.Bytes()); err != nil || !sign {
		return err
	}
	return s.signFile(ctx, output, b.Bytes(), attest.ReportType, predicate(r, format))
}

// writeWhole writes a file so that a reader finds the old one or the new one, also after the
// power has failed.
func writeWhole(path string, data []byte) error {
	// A name that nobody knows before: two may write at a time, and no link is followed that somebody
	// has put there.
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // unless it has got its name
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o640)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	crash.Before("a report")
	err = os.Rename(f.Name(), path)
	crash.After("a report")
	return err
}

// report makes the report of a period. What goes on is written into the ledger first,
// and its head is signed, so that what the report says can be checked.
func (s *setup) report(ctx context.Context, st *store.Store, since, until time.Time, hide *redact.Redactor) (*report.Report, error) {
	now := time.Now()
	if err := st.SealSpans(ctx, now); err != nil {
		return nil, err
	}
	signed, err := s.signLedger(ctx, st)
	if err != nil {
		return nil, err
	}
	var hider report.Hider
	if hide != nil {
		hider = hide
	}
	b := report.New(since, until, now, version(), hider)
	for i, w := range s.list.Watches() {
		b.Watch(w.Name, monitor.RuleHash(w, s.watches[i]), s.watches[i].Severity)
	}
	for _, text := range s.warnings {
		b.Warning(text)
	}
	if err := st.EachFinding(ctx, store.Filter{Since: since, Until: until}, func(f monitor.Finding) error {
		b.Finding(&f)
		return nil
	}); err != nil {
		return nil, err
	}
	incidents, err := st.Incidents(ctx, store.Filter{Until: until})
	if err != nil {
		return nil, err
	}
	for _, inc := range incidents {
		b.Incident(inc)
	}
	if err := st.EachAudit(ctx, 1, "", func(row monitor.AuditRow) error {
		b.Audit(row)
		return nil
	}); err != nil {
		return nil, err
	}
	channels, err := st.Channels(ctx, s.names)
	if err != nil {
		return nil, err
	}
	b.Deliveries(channels)
	if err := s.reportWitness(ctx, b); err != nil {
		return nil, err
	}
	cov, err := s.readCoverage(ctx, st, since, until, "")
	if err != nil {
		return nil, err
	}
	verify := report.Verify{Ledger: originOf([]byte(signed.Note)), Rows: signed.Size, Head: signed.Note}
	key, err := s.signingKey(false)
	if err != nil {
		return nil, err
	}
	public, err := publicPEM(key)
	if err != nil {
		return nil, err
	}
	verify.PublicKey = string(public)
	return b.Finish(cov, verify)
}

// reportWitness adds what the witness has co-signed, if there is one.
func (s *setup) reportWitness(ctx context.Context, b *report.Builder) error {
	if s.cfg.Witness.Listen == "" {
		return nil
	}
	promised, err := store.ReadWitness(ctx, s.cfg.State)
	if errors.Is(err, store.ErrMissing) {
		err = nil
	}
	var list []report.Promise
	for _, p := range promised {
		list = append(list, report.Promise(p))
	}
	b.Promises(list)
	return err
}
