package witness

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"

	"filippo.io/mldsa"
)

// maxSecret bounds the text of a signing key.
const maxSecret = 4 << 10

// GenerateKey makes a signing key PRIVATE+KEY+NAME+KEYID+BASE64, and its cosigner. The
// text is the secret itself: 32 random bytes behind the type byte, as other witnesses
// have it.
func GenerateKey(name string, a Algorithm) (secret string, c *Cosigner, err error) {
	seed := make([]byte, 32)
	rand.Read(seed)
	s, err := newLocal(a, seed)
	if err != nil {
		return "", nil, err
	}
	if c, err = NewCosigner(name, a, s); err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, c.id, base64.StdEncoding.EncodeToString(append([]byte{byte(a)}, seed...))), c, nil
}

// ParseSecret reads a signing key PRIVATE+KEY+NAME+KEYID+BASE64. One with the type byte
// of plain Ed25519 notes is taken too. Nothing of the secret is in errors.
func ParseSecret(text string) (*Cosigner, error) {
	text = strings.TrimSpace(text)
	rest, ok := strings.CutPrefix(text, "PRIVATE+KEY+")
	name, rest, ok1 := strings.Cut(rest, "+")
	idText, keyText, ok2 := strings.Cut(rest, "+")
	if !ok || !ok1 || !ok2 || len(text) > maxSecret {
		return nil, fmt.Errorf("%w: want a signing key, PRIVATE+KEY+NAME+KEYID+BASE64, as `sigwarden witness keygen` makes it", ErrKey)
	}
	if !validName(name) || len(name) > maxName {
		return nil, fmt.Errorf("%w: the name of the signing key is empty, too long, or holds white space or '+'", ErrKey)
	}
	id, key, err := splitKey(idText, keyText)
	if err != nil {
		// What is wrong with it may be that the parts are exchanged.
		return nil, fmt.Errorf("%w: what is behind the name is not a key id of 8 hex digits and base64 of a key", ErrKey)
	}
	a, plain := Algorithm(key[0]), key[0] == standard
	if plain {
		a = Ed25519
	}
	s, err := newLocal(a, key[1:])
	if err != nil {
		return nil, err
	}
	c, err := NewCosigner(name, a, s)
	if err != nil {
		return nil, err
	}
	if id != c.id && !(plain && id == keyID(name, append([]byte{standard}, s.Public()...))) {
		return nil, fmt.Errorf("%w: its key id is not the one that the key gives, %08x", ErrKey, c.id)
	}
	return c, nil
}

// local is a key in this process.
type local struct {
	public []byte
	sign   func([]byte) ([]byte, error)
}

func (l *local) Public() []byte { return l.public }

func (l *local) Sign(_ context.Context, message []byte) ([]byte, error) { return l.sign(message) }

func newLocal(a Algorithm, seed []byte) (*local, error) {
	if len(seed) != 32 {
		return nil, fmt.Errorf("%w: the secret has %d bytes, want 32", ErrKey, len(seed))
	}
	switch a {
	case Ed25519:
		key := ed25519.NewKeyFromSeed(seed)
		return &local{key.Public().(ed25519.PublicKey), func(m []byte) ([]byte, error) { return ed25519.Sign(key, m), nil }}, nil
	case MLDSA44:
		key, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), seed)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKey, err)
		}
		return &local{key.PublicKey().Bytes(), func(m []byte) ([]byte, error) { return key.SignDeterministic(m, nil) }}, nil
	}
	return nil, fmt.Errorf("%w: type %s is neither Ed25519 (0x04, 0x01) nor ML-DSA-44 (0x06)", ErrKey, a)
}
