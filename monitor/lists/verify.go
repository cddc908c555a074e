package lists

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// ByKey returns a check that a public key, as PEM, has signed a list: the
// signature is the raw one or its base64, over the bytes of the list, as
// `cosign sign-blob --key` and `openssl dgst -sign` make it.
func ByKey(text string) (func(list, signature []byte) error, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("signed_by is no public key in PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("signed_by is no public key: %w", err)
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
	case *rsa.PublicKey:
		if k.N.BitLen() > maxRSABits {
			return nil, fmt.Errorf("signed_by is an RSA key of %d bits, more than %d", k.N.BitLen(), maxRSABits)
		}
	default:
		return nil, fmt.Errorf("signed_by is a key of a kind that is not known (%T)", key)
	}
	return func(list, signature []byte) error {
		text := strings.Join(strings.Fields(string(signature)), "")
		if raw, err := base64.StdEncoding.DecodeString(text); err == nil && verify(key, list, raw) == nil {
			return nil
		}
		return verify(key, list, signature)
	}, nil
}

// maxRSABits bounds keys with which a signature is checked: with longer ones that takes long.
const maxRSABits = 8192

// verify checks a signature over a message, hashed as is usual for the key.
func verify(key crypto.PublicKey, message, signature []byte) error {
	ok := false
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(k, ecdsaHash(k, message), signature)
	case ed25519.PublicKey:
		ok = ed25519.Verify(k, message, signature)
	case *rsa.PublicKey:
		sum := sha256.Sum256(message)
		ok = k.N.BitLen() <= maxRSABits && (rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], signature) == nil || rsa.VerifyPSS(k, crypto.SHA256, sum[:], signature, nil) == nil)
	}
	if !ok {
		return errors.New("it was not made by that key over these bytes")
	}
	return nil
}

func ecdsaHash(k *ecdsa.PublicKey, message []byte) []byte {
	switch bits := k.Curve.Params().BitSize; {
	case bits > 384:
		sum := sha512.Sum512(message)
		return sum[:]
	case bits > 256:
		sum := sha512.Sum384(message)
		return sum[:]
	}
	sum := sha256.Sum256(message)
	return sum[:]
}

// Trusted is a log, and who is trusted for certificates in it.
type Trusted struct {
	Log         *checkpoint.Log
	Authorities *entry.Authorities
}

// ByIdentity returns a check that an identity has signed a list: the signature is
// a Sigstore bundle over it, as `cosign sign-blob --bundle` makes it, whose entry
// is proven to be in one of the logs that trusted returns.
func ByIdentity(subjects, issuers []string, trusted func() []Trusted) (func(list, bundle []byte) error, error) {
	who, err := watchlist.Compile([]watchlist.Watch{{Name: "signer", Match: []watchlist.Item{{Subject: subjects, Issuer: issuers}}}})
	if err != nil {
		return nil, err
	}
	return func(list, raw []byte) error {
		var b bundle
		if err := json.Unmarshal(raw, &b); err != nil {
			return fmt.Errorf("it is no Sigstore bundle: %w", err)
		}
		return b.verify(list, who, trusted())
	}, nil
}

// bundle is what is needed of a Sigstore bundle (dev.sigstore.bundle.v1, as JSON).
type bundle struct {
	Material struct {
		Entries []tlogEntry `json:"tlogEntries"`
	} `json:"verificationMaterial"`
	Message struct {
		Signature []byte `json:"signature"`
	} `json:"messageSignature"`
}

type tlogEntry struct {
	LogIndex   int64string `json:"logIndex"`
	Integrated int64string `json:"integratedTime"`
	Promise    struct {
		SET []byte `json:"signedEntryTimestamp"`
	} `json:"inclusionPromise"`
	Proof struct {
		LogIndex   int64string `json:"logIndex"`
		Hashes     [][]byte    `json:"hashes"`
		Checkpoint struct {
			Envelope string `json:"envelope"`
		} `json:"checkpoint"`
	} `json:"inclusionProof"`
	Body []byte `json:"canonicalizedBody"`
}

// int64string is a number that protobuf's JSON writes as a string.
type int64string int64

func (n *int64string) UnmarshalJSON(data []byte) error {
	v, err := strconv.ParseInt(strings.Trim(string(data), `"`), 10, 64)
	if err != nil || v < 0 {
		return fmt.Errorf("%.40q is no number", data)
	}
	*n = int64string(v)
	return nil
}

// verify checks that the bundle proves what it is to prove.
func (b *bundle) verify(list []byte, who *watchlist.List, trusted []Trusted) error {
	if len(b.Material.Entries) == 0 {
		return errors.New("the bundle holds no log entry")
	}
	if len(trusted) == 0 {
		return errors.New("no log is known yet in which it could be")
	}
	e := &b.Material.Entries[0]
	facts, err := entry.Decode(e.Body)
	if err != nil {
		return fmt.Errorf("its log entry: %w", err)
	}
	sum := sha256.Sum256(list)
	if digest := "sha256:" + hex.EncodeToString(sum[:]); !slices.Contains(facts.Digests, digest) || facts.Kind != "hashedrekord" {
		return fmt.Errorf("its log entry is not about this list, which has digest %s", digest)
	}
	if len(facts.Identities) != 1 || facts.Identities[0].Certificate == nil {
		return errors.New("its log entry holds no certificate")
	}
	id := &facts.Identities[0]
	cert, err := x509.ParseCertificate(id.Certificate)
	if err != nil {
		return fmt.Errorf("its certificate: %w", err)
	}
	if err := verify(cert.PublicKey, list, b.Message.Signature); err != nil {
		return err
	}
	in, err := e.included(trusted)
	if err != nil {
		return err
	}
	at := time.Time{}
	if len(e.Promise.SET) > 0 {
		if err := in.Log.VerifyPromise(e.Body, int64(e.Integrated), uint64(e.LogIndex), e.Promise.SET); err != nil {
			return fmt.Errorf("its signed entry timestamp: %w", err)
		}
		at = time.Unix(int64(e.Integrated), 0)
	}
	if err := in.Authorities.VerifyAt(id, at); err != nil {
		return fmt.Errorf("its certificate is not trusted: %w", err)
	}
	if len(who.Match(&facts)) == 0 {
		return fmt.Errorf("it is by %s, and not by whom signed_by names", signerOf(id))
	}
	return nil
}

func signerOf(id *entry.Identity) string {
	var names []string
	for _, s := range id.Subjects {
		names = append(names, fmt.Sprintf("%.200q", s.Value))
	}
	return strings.Join(names, ", ")
}

// included proves the entry to be in one of the logs.
func (e *tlogEntry) included(trusted []Trusted) (Trusted, error) {
	note := []byte(e.Proof.Checkpoint.Envelope)
	var last error
	for _, t := range trusted {
		if origin, _, _ := bytes.Cut(note, []byte("\n")); string(origin) != t.Log.Origin() {
			continue
		}
		c, err := t.Log.Open(note)
		if err == nil {
			path := make([]checkpoint.Hash, len(e.Proof.Hashes))
			for i, h := range e.Proof.Hashes {
				if len(h) != checkpoint.HashSize {
					return t, fmt.Errorf("hash %d of its inclusion proof has %d bytes", i, len(h))
				}
				path[i] = checkpoint.Hash(h)
			}
			if err = c.VerifyInclusion(uint64(e.Proof.LogIndex), checkpoint.LeafHash(e.Body), path); err == nil {
				return t, nil
			}
		}
		last = fmt.Errorf("its log entry is not proven to be in the log: %w", err)
	}
	if last == nil {
		last = fmt.Errorf("its log entry is in a log that is not followed here, or has no checkpoint (%.200q)", firstLine(string(note)))
	}
	return Trusted{}, last
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
