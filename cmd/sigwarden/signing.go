package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor/attest"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/evidence"
)

// signingSuffix is behind the name of the state file: the key that heads of the ledger,
// reports and evidence are signed with, unless the configuration names one.
const signingSuffix = "-signing-key"

// errNoSigningKey says that nothing was signed yet.
var errNoSigningKey = errors.New("there is no signing key yet; `sigwarden run` makes it, or name one as signing.key")

// signingKey returns the key to sign with, and makes it if it is to.
func (s *setup) signingKey(create bool) (crypto.Signer, error) {
	if !s.cfg.Signing.Key.IsZero() {
		return parseSigningKey([]byte(s.cfg.Signing.Key.Reveal()))
	}
	path := s.cfg.State + signingSuffix
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		text, err = makeSigningKey(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoSigningKey
	}
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	key, err := parseSigningKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// makeSigningKey makes a key of ECDSA on P-256, the kind that most programs take, in a
// file that only its owner reads. A crash leaves the file whole or not at all.
func makeSigningKey(path string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	return text, os.Rename(path+".new", path)
}

func parseSigningKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New(`signing key: want a PEM block "PRIVATE KEY" (PKCS #8, not encrypted), as openssl genpkey writes it`)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		if key.Curve == elliptic.P256() {
			return key, nil
		}
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("signing key is a %T; want ECDSA on P-256, or Ed25519", key)
}

// checkSigning reads the signing key of the configuration, and the authority for
// timestamps.
func (s *setup) checkSigning() (issues []config.Issue) {
	if !s.cfg.Signing.Key.IsZero() {
		if _, err := parseSigningKey([]byte(s.cfg.Signing.Key.Reveal())); err != nil {
			issues = append(issues, s.cfg.At("signing.key", err.Error()))
		}
	}
	if t := s.cfg.Signing.Timestamp; t.URL != "" {
		if _, err := attest.ParseAuthorities(t.CA); err != nil {
			issues = append(issues, s.cfg.At("signing.timestamp.ca", err.Error()))
		}
	}
	for _, r := range s.cfg.Reports {
		if !r.Redact.IsZero() && len(strings.TrimSpace(r.Redact.Reveal())) < minRedactKey {
			issues = append(issues, s.cfg.At(r.Path+".redact", fmt.Sprintf("has fewer than %d bytes, so that addresses could be guessed; make one with: openssl rand -hex 32", minRedactKey)))
		}
	}
	return issues
}

// bundleSuffix is behind the name of a file that was signed.
const bundleSuffix = ".sigstore.json"

// signFile writes the signature of a file beside it: a Sigstore bundle that cosign takes
// too.
func (s *setup) signFile(ctx context.Context, path string, data []byte, predicateType string, predicate any) (string, error) {
	key, err := s.signingKey(true)
	if err != nil {
		return "", err
	}
	var stamp attest.Stamper
	if t := s.cfg.Signing.Timestamp; t.URL != "" {
		authorities, err := attest.ParseAuthorities(t.CA)
		if err != nil {
			return "", err
		}
		client, err := timestampClient(t.TLSCA)
		if err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(ctx, stampFor)
		defer cancel()
		stamp = attest.Ask(ctx, client, t.URL, authorities)
	}
	bundle, err := attest.Sign(key, filepath.Base(path), data, predicateType, predicate, stamp)
	if err != nil {
		return "", fmt.Errorf("signing %s: %w", path, err)
	}
	return path + bundleSuffix, writeWhole(path+bundleSuffix, bundle)
}

// stampFor bounds how long an authority for timestamps may take.
const stampFor = 20 * time.Second

func timestampClient(tlsCA string) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if tlsCA != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(tlsCA)) {
			return nil, errors.New("signing.timestamp.tls_ca holds no certificate")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// signatureFlags say how the signature of a file is checked.
type signatureFlags struct{ bundle, key, ca string }

func (f *signatureFlags) flags(c *cobra.Command) {
	c.Flags().StringVar(&f.bundle, "bundle", "", "Sigstore bundle with the signature of the file (default FILE"+bundleSuffix+")")
	c.Flags().StringVar(&f.key, "key", "", "public key of whoever signed the file (sigwarden ledger key prints it)")
	c.Flags().StringVar(&f.ca, "timestamp-ca", "", "certificates of the authority for timestamps, PEM")
}

// verify checks the signature of a file, and says what it shows.
func (f *signatureFlags) verify(path string, data []byte, predicateType string) ([]evidence.Line, error) {
	key, err := keyText(f.key)
	if err != nil {
		return nil, usage(fmt.Errorf("--key: %w", err))
	}
	var authorities *attest.Authorities
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err == nil {
			authorities, err = attest.ParseAuthorities(string(text))
		}
		if err != nil {
			return nil, usage(fmt.Errorf("--timestamp-ca: %w", err))
		}
	}
	bundle, err := os.ReadFile(cmp.Or(f.bundle, path+bundleSuffix))
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
	for _, t := range signed.At {
		out = append(out, evidence.Line{Status: evidence.Proven, Text: "the timestamp authority given saw that signature at " + t.Format(time.RFC3339)})
	}
	if signed.Unchecked > 0 {
		out = append(out, evidence.Line{Status: evidence.NotProven, Text: "when it was signed: give the certificates of the timestamp authority as --timestamp-ca"})
	}
	return out, nil
}

// signNote signs a text as a note under a name.
func signNote(key crypto.Signer, name, text string) (string, error) {
	signer, err := checkpoint.NewSigner(name, key)
	if err != nil {
		return "", err
	}
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	return string(signed), err
}

// publicPEM prints the public part of a key.
func publicPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}
