package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/monitor/attest"
	"github.com/sigwarden/sigwarden/monitor/evidence"
	"github.com/sigwarden/sigwarden/monitor/trust"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// signatureFlags say how the signature of a file is checked.
type signatureFlags struct{ bundle, key, ca, root, subject, issuer string }

// given reports whether a signature is to be checked. What says how, and not whose, is a
// mistake.
func (f *signatureFlags) given(c *cobra.Command) (bool, error) {
	for _, name := range []string{"bundle", "key", "certificate-identity", "certificate-oidc-issuer", "signer-root", "timestamp-ca"} {
		if flag := c.Flags().Lookup(name); flag.Changed && flag.Value.String() == "" {
			return false, usage(fmt.Errorf("--%s is empty: nothing would be checked with it", name))
		}
	}
	who := f.key != "" || f.subject != ""
	for _, flag := range []struct{ name, value string }{{"--bundle", f.bundle}, {"--timestamp-ca", f.ca}, {"--signer-root", f.root}, {"--certificate-oidc-issuer", f.issuer}} {
		if !who && flag.value != "" {
			return false, usage(fmt.Errorf("%s wants --key or --certificate-identity beside it, which say whose signature is to be checked", flag.name))
		}
		if f.key != "" && flag.value != "" && (flag.name == "--signer-root" || flag.name == "--certificate-oidc-issuer") {
			return false, usage(fmt.Errorf("%s goes with --certificate-identity, and not with --key", flag.name))
		}
	}
	if f.key != "" && f.subject != "" {
		return false, usage(errors.New("give --key or --certificate-identity: a file is signed by one of them"))
	}
	return who, nil
}

func (f *signatureFlags) flags(c *cobra.Command) {
	c.Flags().StringVar(&f.bundle, "bundle", "", "Sigstore bundle with the signature of the file (default FILE"+bundleSuffix+")")
	c.Flags().StringVar(&f.key, "key", "", "public key of whoever signed the file (sigwarden ledger key prints it)")
	c.Flags().StringVar(&f.subject, "certificate-identity", "", "in place of --key: the subject of the certificate of whoever signed, with --certificate-oidc-issuer, --signer-root and --timestamp-ca")
	c.Flags().StringVar(&f.issuer, "certificate-oidc-issuer", "", "the issuer that the certificate names")
	c.Flags().StringVar(&f.root, "signer-root", "", "trusted_root.json, or PEM, of the certificate authorities to trust for signers")
	c.Flags().StringVar(&f.ca, "timestamp-ca", "", "certificates of the authority for timestamps, PEM")
}

// verify checks the signature of a file, and says what it shows.
func (f *signatureFlags) verify(path string, data []byte, predicateType string) ([]evidence.Line, error) {
	key := ""
	if f.key != "" {
		var err error
		if key, err = keyText(f.key); err != nil {
			return nil, usage(fmt.Errorf("--key: %w", err))
		}
	} else if f.issuer == "" || f.root == "" || f.ca == "" {
		return nil, usage(errors.New("--certificate-identity wants --certificate-oidc-issuer, --signer-root and --timestamp-ca beside it: who signed, vouched for by whom, and when"))
	}
	var authorities *attest.Authorities
	if f.ca != "" {
		text, err := readFile(f.ca)
		if err == nil {
			authorities, err = attest.ParseAuthorities(string(text))
		}
		if err != nil {
			return nil, usage(fmt.Errorf("--timestamp-ca: %w", err))
		}
	}
	bundle, err := readFile(cmp.Or(f.bundle, path+bundleSuffix))
	if err != nil {
		return nil, usage(fmt.Errorf("--bundle: %w", err))
	}
	signed, err := attest.Verify(bundle, data, key, authorities)
	if errors.Is(err, attest.ErrSignature) {
		return nil, &status{exitIntegrity, err}
	}
	if err != nil {
		return nil, usage(fmt.Errorf("--key: %w", err))
	}
	if signed.Statement.PredicateType != predicateType {
		return nil, &status{exitIntegrity, fmt.Errorf("%w: it is a statement of type %.100q, and not of %s", attest.ErrSignature, signed.Statement.PredicateType, predicateType)}
	}
	out := []evidence.Line{{Status: evidence.Proven, Text: "the key given signed this file"}}
	if key == "" {
		if err := f.identity(signed); err != nil {
			return nil, err
		}
		out[0].Text = fmt.Sprintf("%s, whom %s has vouched for, signed this file", f.subject, f.issuer)
	}
	for _, t := range signed.At {
		out = append(out, evidence.Line{Status: evidence.Proven, Text: "the timestamp authority given saw that signature at " + t.Format(time.RFC3339)})
	}
	if f.ca != "" && len(signed.At) == 0 {
		out = append(out, evidence.Line{Status: evidence.NotProven, Text: "when it was signed: the bundle has no timestamp"})
	}
	if signed.Unchecked > 0 && f.ca != "" {
		out = append(out, evidence.Line{Status: evidence.NotProven, Text: "what another timestamp in the bundle says: it is of no authority in --timestamp-ca, or does not hold"})
	} else if signed.Unchecked > 0 {
		out = append(out, evidence.Line{Status: evidence.NotProven, Text: "when it was signed: give the certificates of the timestamp authority as --timestamp-ca"})
	}
	return out, nil
}

// identity checks whose certificate it was that signed, and that it was valid then.
func (f *signatureFlags) identity(signed attest.Signed) error {
	bad := func(err error) error {
		return &status{exitIntegrity, fmt.Errorf("%w: %w", attest.ErrSignature, err)}
	}
	authorities, err := f.authorities()
	if err != nil {
		return usage(fmt.Errorf("--signer-root: %w", err))
	}
	id, err := entry.ParseCertificate(signed.Certificate)
	if err != nil {
		return bad(err)
	}
	if len(signed.At) == 0 {
		return bad(errors.New("it has no timestamp, so that nobody knows whether its certificate was valid then"))
	}
	for _, at := range signed.At {
		if err := authorities.VerifyAt(&id, at); err != nil {
			return bad(fmt.Errorf("its certificate at %s: %w", at.Format(time.RFC3339), err))
		}
	}
	named := slices.ContainsFunc(id.Subjects, func(s entry.Subject) bool { return s.Value == f.subject })
	if !named || !slices.Contains(id.Issuers, f.issuer) {
		return bad(fmt.Errorf("it was signed by %q of %q", id.Report(entry.ErrNotJudged).Subjects, id.Issuers))
	}
	return nil
}

// authorities reads whom to trust for signers.
func (f *signatureFlags) authorities() (*entry.Authorities, error) {
	text, err := readFile(f.root)
	if err != nil {
		return nil, err
	}
	if strings.Contains(string(text), "-----BEGIN") {
		list, err := trust.ParsePEM(string(text))
		if err != nil {
			return nil, err
		}
		return newAuthorities(list, nil)
	}
	root, err := trust.ParseRoot(text)
	if err != nil {
		return nil, err
	}
	return newAuthorities(root.Authorities, root.CTLogs)
}
