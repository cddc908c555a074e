package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor/config"
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

// checkSigning reads the signing key of the configuration.
func (s *setup) checkSigning() []config.Issue {
	if s.cfg.Signing.Key.IsZero() {
		return nil
	}
	if _, err := parseSigningKey([]byte(s.cfg.Signing.Key.Reveal())); err != nil {
		return []config.Issue{s.cfg.At("signing.key", err.Error())}
	}
	return nil
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
