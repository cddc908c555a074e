package main

import (
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

	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/internal/crash"
	"github.com/sigwarden/sigwarden/monitor/attest"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/redact"
	"github.com/sigwarden/sigwarden/monitor/store"
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
		text, err = makeSigningKey(path, s.cfg.State)
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
func makeSigningKey(path, state string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err := errors.Join(err, store.OwnAs(f.Name(), state), f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	// Of several that do this at once, all use the key of the first.
	crash.Before("a new signing key")
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	crash.After("a new signing key")
	return os.ReadFile(path)
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
		key, err := parseSigningKey([]byte(s.cfg.Signing.Key.Reveal()))
		if err != nil {
			issues = append(issues, s.cfg.At("signing.key", err.Error()))
		} else if _, ok := key.(*ecdsa.PrivateKey); !ok && s.cfg.Publish.Log != "" {
			issues = append(issues, s.cfg.At("ledger.publish", errNotECDSA.Error()))
		}
	}
	if t := s.cfg.Signing.Timestamp; t.URL != "" {
		if _, err := attest.ParseAuthorities(t.CA); err != nil {
			issues = append(issues, s.cfg.At("signing.timestamp.ca", err.Error()))
		}
	} else if s.cfg.Signing.Keyless.URL != "" {
		issues = append(issues, s.cfg.At("signing.keyless", "a certificate is good for ten minutes: without signing.timestamp nobody could tell later that it was when it signed"))
	}
	for _, r := range s.cfg.Reports {
		if r.Redact.IsZero() {
			continue
		}
		if _, err := redact.New([]byte(r.Redact.Reveal())); err != nil {
			issues = append(issues, s.cfg.At(r.Path+".redact", err.Error()))
		}
	}
	return issues
}

// bundleSuffix is behind the name of a file that was signed.
const bundleSuffix = ".sigstore.json"

// signFile writes the signature of a file beside it: a Sigstore bundle that cosign takes
// too.
func (s *setup) signFile(ctx context.Context, path string, data []byte, predicateType string, predicate any) error {
	bundle, err := s.signed(ctx, filepath.Base(path), data, predicateType, predicate)
	if err != nil {
		return err
	}
	return writeWhole(path+bundleSuffix, bundle)
}

// signed returns the signature of a file of a name.
func (s *setup) signed(ctx context.Context, name string, data []byte, predicateType string, predicate any) ([]byte, error) {
	by, err := s.signer(ctx)
	if err != nil {
		return nil, fmt.Errorf("signing %s: %w", name, err)
	}
	var stamp attest.Stamper
	if t := s.cfg.Signing.Timestamp; t.URL != "" {
		authorities, err := attest.ParseAuthorities(t.CA)
		if err != nil {
			return nil, err
		}
		client, err := httpClient(t.TLSCA)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, stampFor)
		defer cancel()
		stamp = attest.Ask(ctx, client, t.URL, authorities)
	}
	bundle, err := attest.Sign(by, name, data, predicateType, predicate, stamp)
	if err != nil {
		return nil, fmt.Errorf("signing %s: %w", name, err)
	}
	return bundle, nil
}

// signer is what signs files: the key, or one that gets a certificate for it.
func (s *setup) signer(ctx context.Context) (attest.Signer, error) {
	k := s.cfg.Signing.Keyless
	if k.URL == "" {
		key, err := s.signingKey(true)
		return attest.Signer{Key: key}, err
	}
	token := k.Token.Reveal()
	if k.File != "" {
		text, err := os.ReadFile(k.File)
		if err != nil {
			return attest.Signer{}, fmt.Errorf("signing.keyless.token: %w", err)
		}
		token = string(text)
	}
	client, err := httpClient(k.TLSCA)
	if err != nil {
		return attest.Signer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, stampFor)
	defer cancel()
	by, err := attest.Keyless(ctx, client, k.URL, strings.TrimSpace(token))
	if err != nil {
		err = fmt.Errorf("signing.keyless: %w", err)
	}
	return by, err
}

// stampFor bounds how long an authority for timestamps may take.
const stampFor = 20 * time.Second

// httpClient makes a client that trusts other authorities for its connections, if some are
// given, and goes nowhere else than it is told.
func httpClient(tlsCA string) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	roots, err := certPool(tlsCA)
	if err != nil {
		return nil, fmt.Errorf("tls_ca: %w", err)
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return &http.Client{Transport: bounded{transport}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// maxAnswer bounds answers of authorities, providers and logs that take entries: libraries read
// them to their end.
const maxAnswer = 4 << 20

// bounded lets no answer be longer than maxAnswer.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
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
