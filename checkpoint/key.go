package checkpoint

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384 and SHA-512 for signatures by P-384 and P-521 keys
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// Type bytes of verifier keys (C2SP signed-note).
const (
	algEd25519 = 0x01
	algECDSA   = 0x02
)

// maxKeyText bounds the text of a key that ParseKey looks at.
const maxKeyText = 256 << 10

// ParseKey reads a log's public key from a PEM block "PUBLIC KEY", or from a
// note verifier key (name+keyid+base64). name is the key name that signature
// lines of the log carry: for Rekor v2 its origin, for Rekor v1 the host part
// of it. A PEM key takes that name; a verifier key brings its own.
// Ed25519 and ECDSA (P-256, P-384, P-521) are understood.
func ParseKey(name, text string) (note.Verifier, error) {
	if len(text) > maxKeyText {
		return nil, fmt.Errorf("key of %d bytes is larger than any public key", len(text))
	}
	if strings.Contains(text, "-----BEGIN") {
		return parsePEMKey(name, []byte(text))
	}
	return parseVerifierKey(strings.TrimSpace(text))
}

func parsePEMKey(name string, text []byte) (note.Verifier, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no complete PEM block found")
	}
	if block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("PEM block is a %q, want a \"PUBLIC KEY\"", block.Type)
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return nil, errors.New("more than one PEM block, or text after it; want exactly one key")
	}
	return NewVerifier(name, block.Bytes)
}

// ParseSPKI reads a log's public key in any form that ParseKey takes, and
// returns it as DER SubjectPublicKeyInfo.
func ParseSPKI(text string) ([]byte, error) {
	v, err := ParseKey("any", text)
	if err != nil {
		return nil, err
	}
	if v, ok := v.(*ecdsaVerifier); ok {
		return x509.MarshalPKIXPublicKey(v.key)
	}
	if block, _ := pem.Decode([]byte(text)); block != nil {
		return block.Bytes, nil
	}
	_, key, _ := strings.Cut(strings.TrimSpace(text), "+")
	_, key, _ = strings.Cut(key, "+")
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(raw) != 1+ed25519.PublicKeySize {
		return nil, errors.New("verifier key cannot be read")
	}
	return x509.MarshalPKIXPublicKey(ed25519.PublicKey(raw[1:]))
}

// ForOrigin returns the log with an origin and a key in any form that ParseKey
// takes: a tree of Rekor v1 where the origin has its form.
func ForOrigin(origin, key string) (*Log, error) {
	if _, _, ok := SplitOrigin(origin); ok {
		der, err := ParseSPKI(key)
		if err != nil {
			return nil, err
		}
		return NewTree(origin, der)
	}
	v, err := ParseKey(origin, key)
	if err != nil {
		return nil, err
	}
	return NewLog(origin, v)
}

// NewVerifier returns the verifier for a DER SubjectPublicKeyInfo under a key
// name. The key id is made as C2SP signed-note says for Ed25519 (over name,
// type byte and key), and over the DER alone for ECDSA.
func NewVerifier(name string, spki []byte) (note.Verifier, error) {
	if !validKeyName(name) {
		return nil, fmt.Errorf("%q cannot be the name of a key: it must not be empty, nor hold white space or '+'", name)
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		vkey, err := note.NewEd25519VerifierKey(name, pub)
		if err != nil {
			return nil, err
		}
		return note.NewVerifier(vkey)
	case *ecdsa.PublicKey:
		id := sha256.Sum256(spki)
		return &ecdsaVerifier{name: name, id: binary.BigEndian.Uint32(id[:4]), key: pub, hashes: ecdsaHashes(pub)}, nil
	default:
		return nil, fmt.Errorf("public key is a %T; a log signs with Ed25519 or ECDSA", pub)
	}
}

func parseVerifierKey(text string) (note.Verifier, error) {
	name, rest, ok1 := strings.Cut(text, "+")
	idText, keyText, ok2 := strings.Cut(rest, "+")
	if !ok1 || !ok2 {
		return nil, errors.New("neither a PEM public key nor a note verifier key (name+keyid+base64)")
	}
	id, err := hex.DecodeString(idText)
	if err != nil || len(id) != 4 || strings.ToLower(idText) != idText {
		return nil, fmt.Errorf("verifier key: key id %q is not 8 lower-case hex digits", idText)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(keyText)
	if err != nil || len(key) < 2 {
		return nil, errors.New("verifier key: the part after the key id is not base64 of a type byte and a key")
	}
	switch key[0] {
	case algEd25519:
		v, err := note.NewVerifier(text)
		if err != nil {
			return nil, fmt.Errorf("verifier key: %w", err)
		}
		return v, nil
	case algECDSA:
		v, err := NewVerifier(name, key[1:])
		if err != nil {
			return nil, fmt.Errorf("verifier key: %w", err)
		}
		if _, ok := v.(*ecdsaVerifier); !ok {
			return nil, errors.New("verifier key: type byte says ECDSA, the key is of another kind")
		}
		if v.KeyHash() != binary.BigEndian.Uint32(id) {
			return nil, fmt.Errorf("verifier key: key id is %s, but the key gives %08x", idText, v.KeyHash())
		}
		return v, nil
	default:
		return nil, fmt.Errorf("verifier key: type 0x%02x is not a key that a log signs with (Ed25519 0x01, ECDSA 0x02)", key[0])
	}
}

func validKeyName(name string) bool {
	return name != "" && utf8.ValidString(name) && strings.IndexFunc(name, unicode.IsSpace) < 0 && !strings.Contains(name, "+")
}

// ecdsaVerifier checks note signatures of type 0x02: ASN.1 DER over a hash of
// the text.
type ecdsaVerifier struct {
	name   string
	id     uint32
	key    *ecdsa.PublicKey
	hashes []crypto.Hash
}

// ecdsaHashes lists the hashes a signature by the key may use. Rekor hashes
// with SHA-256 whatever the curve; other signers take the curve's own.
func ecdsaHashes(key *ecdsa.PublicKey) []crypto.Hash {
	switch size := key.Curve.Params().BitSize; {
	case size > 384:
		return []crypto.Hash{crypto.SHA256, crypto.SHA512}
	case size > 256:
		return []crypto.Hash{crypto.SHA256, crypto.SHA384}
	}
	return []crypto.Hash{crypto.SHA256}
}

func (v *ecdsaVerifier) Name() string    { return v.name }
func (v *ecdsaVerifier) KeyHash() uint32 { return v.id }

func (v *ecdsaVerifier) Verify(msg, sig []byte) bool {
	for _, hash := range v.hashes {
		h := hash.New()
		h.Write(msg)
		if ecdsa.VerifyASN1(v.key, h.Sum(nil), sig) {
			return true
		}
	}
	return false
}
