// Package attest signs files so that other programs can check them: in-toto statements
// in DSSE envelopes, in Sigstore bundles, as `cosign verify-blob-attestation` takes them,
// with timestamps of RFC 3161.
package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Types of documents.
const (
	mediaType     = "application/vnd.dev.sigstore.bundle.v0.3+json"
	payloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	// ReportType and EvidenceType are the predicate types of this program.
	ReportType   = "https://github.com/sigwarden/sigwarden/report/v1"
	EvidenceType = "https://github.com/sigwarden/sigwarden/evidence/v1"
)

// maxBundle bounds the bytes of a bundle that is read.
const maxBundle = 4 << 20

// ErrSignature says that a bundle does not hold for a file and a key.
var ErrSignature = errors.New("the signature does not hold")

// Statement is an in-toto statement, version 1.
type Statement struct {
	Type          string          `json:"_type"`
	Subject       []Subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Subject is a file that a statement is about.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// bundle is a Sigstore bundle with a DSSE envelope, signed by a bare key or by one of a
// certificate.
type bundle struct {
	MediaType string   `json:"mediaType"`
	Material  material `json:"verificationMaterial"`
	Envelope  envelope `json:"dsseEnvelope"`
}

type material struct {
	PublicKey   *publicKey   `json:"publicKey,omitempty"`
	Certificate *certificate `json:"certificate,omitempty"`
	Timestamps  *timestamps  `json:"timestampVerificationData,omitempty"`
}

type certificate struct {
	Raw []byte `json:"rawBytes"`
}

type publicKey struct {
	Hint string `json:"hint"`
}

type timestamps struct {
	RFC3161 []signedTimestamp `json:"rfc3161Timestamps"`
}

type signedTimestamp struct {
	Token []byte `json:"signedTimestamp"` // a TimeStampResp
}

type envelope struct {
	Payload     []byte      `json:"payload"`
	PayloadType string      `json:"payloadType"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	Sig   []byte `json:"sig"`
	KeyID string `json:"keyid,omitempty"`
}

// pae is what a DSSE signature is over.
func pae(payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

// Stamper asks an authority for a timestamp over data, and returns its response.
type Stamper func(data []byte) ([]byte, error)

// Signer is what signs: a key of ECDSA on P-256 or Ed25519, and where that is known by
// one, its certificate as DER.
type Signer struct {
	Key         crypto.Signer
	Certificate []byte
}

// Sign makes the bundle for a file: a statement of a type about it. stamp, if not nil,
// adds a timestamp.
func Sign(by Signer, name string, data []byte, predicateType string, predicate any, stamp Stamper) ([]byte, error) {
	doc, err := json.Marshal(predicate)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	payload, err := json.Marshal(Statement{
		Type: statementType, Subject: []Subject{{Name: name, Digest: map[string]string{"sha256": hex.EncodeToString(sum[:])}}},
		PredicateType: predicateType, Predicate: doc,
	})
	if err != nil {
		return nil, err
	}
	sig, err := sign(by.Key, pae(payload))
	if err != nil {
		return nil, err
	}
	b := bundle{MediaType: mediaType, Envelope: envelope{Payload: payload, PayloadType: payloadType, Signatures: []signature{{Sig: sig}}}}
	if by.Certificate != nil {
		b.Material.Certificate = &certificate{by.Certificate}
	} else {
		der, err := x509.MarshalPKIXPublicKey(by.Key.Public())
		if err != nil {
			return nil, err
		}
		id := sha256.Sum256(der)
		b.Material.PublicKey = &publicKey{Hint: base64.StdEncoding.EncodeToString(id[:])}
	}
	if stamp != nil {
		token, err := stamp(sig)
		if err != nil {
			return nil, fmt.Errorf("timestamp: %w", err)
		}
		b.Material.Timestamps = &timestamps{RFC3161: []signedTimestamp{{token}}}
	}
	out, err := json.MarshalIndent(b, "", "  ")
	return append(out, '\n'), err
}

func sign(key crypto.Signer, message []byte) ([]byte, error) {
	switch key.Public().(type) {
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return key.Sign(rand.Reader, sum[:], crypto.SHA256)
	case ed25519.PublicKey:
		return key.Sign(rand.Reader, message, crypto.Hash(0))
	}
	return nil, fmt.Errorf("signing key is a %T; want ECDSA or Ed25519", key.Public())
}

func verify(key crypto.PublicKey, message, sig []byte) bool {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(key, sum[:], sig)
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, sig)
	}
	return false
}

// Signed is what a bundle says that holds.
type Signed struct {
	Statement Statement
	// At are the times at which authorities that are trusted saw the signature; Unchecked
	// counts timestamps that no authority was given for.
	At        []time.Time
	Unchecked int
	// Certificate is that of the key that signed, as DER, where no key was given: whose it
	// is, and whether it was valid then, is for the caller to judge.
	Certificate []byte
}

// Verify checks the bundle of a file with a public key, PEM, or, if that is empty, with
// the key of the certificate in it, and its timestamps with the authorities (nil: none is
// trusted). Its errors wrap ErrSignature, but for those about the key given.
func Verify(doc, data []byte, publicKey string, authorities *Authorities) (Signed, error) {
	var out Signed
	bad := func(format string, args ...any) (Signed, error) {
		return Signed{}, fmt.Errorf("%w: %w", ErrSignature, fmt.Errorf(format, args...))
	}
	var key crypto.PublicKey
	if publicKey != "" {
		block, _ := pem.Decode([]byte(publicKey))
		if block == nil || block.Type != "PUBLIC KEY" {
			return out, errors.New(`want a PEM block "PUBLIC KEY"`)
		}
		var err error
		if key, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			return out, err
		}
	}
	if len(doc) > maxBundle {
		return bad("a bundle of %d bytes", len(doc))
	}
	var b bundle
	if err := json.Unmarshal(doc, &b); err != nil {
		return bad("no Sigstore bundle: %w", err)
	}
	if b.MediaType != mediaType || b.Envelope.PayloadType != payloadType || len(b.Envelope.Signatures) != 1 {
		return bad("a bundle of type %.80q with a payload of type %.80q and %d signatures; want %s with an in-toto statement and one", b.MediaType, b.Envelope.PayloadType, len(b.Envelope.Signatures), mediaType)
	}
	if key == nil {
		if b.Material.Certificate == nil {
			return bad("it is signed by a bare key, and no key was given")
		}
		cert, err := x509.ParseCertificate(b.Material.Certificate.Raw)
		if err != nil {
			return bad("its certificate: %w", err)
		}
		key, out.Certificate = cert.PublicKey, cert.Raw
	}
	sig := b.Envelope.Signatures[0].Sig
	if !verify(key, pae(b.Envelope.Payload), sig) {
		return bad("the key did not sign it")
	}
	dec := json.NewDecoder(bytes.NewReader(b.Envelope.Payload))
	if err := dec.Decode(&out.Statement); err != nil || out.Statement.Type != statementType {
		return bad("the payload is no in-toto statement")
	}
	sum := sha256.Sum256(data)
	named := false
	for _, s := range out.Statement.Subject {
		named = named || s.Digest["sha256"] == hex.EncodeToString(sum[:])
	}
	if !named {
		return bad("it is about another file: this one has SHA-256 %x", sum)
	}
	if b.Material.Timestamps == nil {
		return out, nil
	}
	var failures []error
	for _, t := range b.Material.Timestamps.RFC3161 {
		if authorities == nil {
			out.Unchecked++
			continue
		}
		at, err := authorities.Verify(t.Token, sig)
		if err != nil {
			// Perhaps of another authority.
			out.Unchecked, failures = out.Unchecked+1, append(failures, err)
			continue
		}
		out.At = append(out.At, at)
	}
	if len(failures) > 0 && len(out.At) == 0 {
		return bad("timestamp: %w", errors.Join(failures...))
	}
	return out, nil
}
