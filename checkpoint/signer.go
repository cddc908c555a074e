package checkpoint

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"

	"golang.org/x/mod/sumdb/note"
)

// signer signs notes under a name.
type signer struct {
	note.Verifier
	key  crypto.Signer
	hash crypto.Hash // 0: the message is signed as it is
}

// NewSigner returns a signer of notes under a key name, by a private key of a kind
// that NewVerifier knows. ECDSA signs the SHA-256 of the text, as Rekor does.
func NewSigner(name string, key crypto.Signer) (note.Signer, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	v, err := NewVerifier(name, spki)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	s := &signer{Verifier: v, key: key}
	if _, ok := key.Public().(*ecdsa.PublicKey); ok {
		s.hash = crypto.SHA256
	} else if _, ok := key.Public().(ed25519.PublicKey); !ok {
		return nil, fmt.Errorf("signing key is a %T; want Ed25519 or ECDSA", key.Public())
	}
	return s, nil
}

// Sign returns the signature alone, as it stands behind the key id in a note.
func (s *signer) Sign(msg []byte) ([]byte, error) {
	if s.hash == 0 {
		return s.key.Sign(rand.Reader, msg, crypto.Hash(0))
	}
	sum := sha256.Sum256(msg)
	return s.key.Sign(rand.Reader, sum[:], s.hash)
}
