// Package witness co-signs checkpoints of transparency logs (C2SP tlog-witness and
// tlog-cosignature), and reads what other witnesses have co-signed. A cosignature says
// that its tree was the largest one that the witness had seen of the log at that time,
// and that it extends everything that was seen before.
package witness

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"filippo.io/mldsa"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// Algorithm is the type byte of a witness's key (C2SP signed-note).
type Algorithm byte

// The algorithms of cosignatures.
const (
	// Ed25519 signs cosignature/v1 messages: the time and the whole text of the note.
	Ed25519 Algorithm = 0x04
	// MLDSA44 signs subtree/v1 messages: the names of both sides, the time, and the
	// tree; no extension lines.
	MLDSA44 Algorithm = 0x06
)

// standard is the type byte of an Ed25519 key for notes; keys of witnesses are found
// written with it.
const standard = 0x01

func (a Algorithm) String() string {
	switch a {
	case Ed25519:
		return "ed25519"
	case MLDSA44:
		return "ml-dsa-44"
	}
	return fmt.Sprintf("0x%02x", byte(a))
}

// signatureSizes are those of a signature alone.
var signatureSizes = map[Algorithm]int{Ed25519: ed25519.SignatureSize, MLDSA44: mldsa.MLDSA44SignatureSize}

const timeSize = 8

// maxName bounds the names that subtree/v1 can hold.
const maxName = 255

// ErrKey says that a text is no key of a witness.
var ErrKey = errors.New("no key of a witness")

// Verifier checks cosignatures of one key. It is a note.Verifier.
type Verifier struct {
	name      string
	algorithm Algorithm
	id        uint32
	public    []byte
	pq        *mldsa.PublicKey
}

// NewVerifier returns the verifier of a public key: 32 bytes of Ed25519, or 1,312 of
// ML-DSA-44.
func NewVerifier(name string, a Algorithm, public []byte) (*Verifier, error) {
	if !validName(name) {
		return nil, fmt.Errorf("%w: %.60q is no name: it must not be empty, nor hold white space or '+'", ErrKey, name)
	}
	v := &Verifier{name: name, algorithm: a, public: public}
	switch a {
	case Ed25519:
		if len(public) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%w: %d bytes, an Ed25519 key has %d", ErrKey, len(public), ed25519.PublicKeySize)
		}
	case MLDSA44:
		var err error
		if v.pq, err = mldsa.NewPublicKey(mldsa.MLDSA44(), public); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKey, err)
		}
		if len(name) > maxName {
			return nil, fmt.Errorf("%w: a name of %d bytes cannot be signed with ML-DSA-44", ErrKey, len(name))
		}
	default:
		return nil, fmt.Errorf("%w: type %s is neither Ed25519 (0x04) nor ML-DSA-44 (0x06)", ErrKey, a)
	}
	v.id = keyID(name, append([]byte{byte(a)}, public...))
	return v, nil
}

// keyID is the first four bytes of a hash over the name and the key with its type
// byte (C2SP signed-note).
func keyID(name string, key []byte) uint32 {
	h := sha256.New()
	h.Write([]byte(name + "\n"))
	h.Write(key)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

func validName(name string) bool {
	return name != "" && utf8.ValidString(name) && strings.IndexFunc(name, unicode.IsSpace) < 0 && !strings.Contains(name, "+")
}

// ParseVerifier reads a verifier key NAME+KEYID+BASE64. One with the type byte of plain
// Ed25519 notes is taken for the cosigner with that key, as other programs do; then its
// key id is that of either.
func ParseVerifier(text string) (*Verifier, error) {
	name, rest, ok1 := strings.Cut(strings.TrimSpace(text), "+")
	idText, keyText, ok2 := strings.Cut(rest, "+")
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("%w: want a verifier key, NAME+KEYID+BASE64", ErrKey)
	}
	id, key, err := splitKey(idText, keyText)
	if err != nil {
		return nil, err
	}
	a := Algorithm(key[0])
	plain := key[0] == standard
	if plain {
		a = Ed25519
	}
	v, err := NewVerifier(name, a, key[1:])
	if err != nil {
		return nil, err
	}
	if id != v.id && !(plain && id == keyID(name, key)) {
		return nil, fmt.Errorf("%w: its key id is %s, but the key gives %08x", ErrKey, idText, v.id)
	}
	return v, nil
}

func splitKey(idText, keyText string) (uint32, []byte, error) {
	id, err := hex.DecodeString(idText)
	if err != nil || len(id) != 4 || strings.ToLower(idText) != idText {
		return 0, nil, fmt.Errorf("%w: key id %.20q is not 8 lower-case hex digits", ErrKey, idText)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(keyText)
	if err != nil || len(key) < 2 || base64.StdEncoding.EncodeToString(key) != keyText {
		return 0, nil, fmt.Errorf("%w: the part behind the key id is not base64 of a type byte and a key", ErrKey)
	}
	return binary.BigEndian.Uint32(id), key, nil
}

// Name returns the name of the key, as signature lines have it.
func (v *Verifier) Name() string { return v.name }

// KeyHash returns the key id.
func (v *Verifier) KeyHash() uint32 { return v.id }

// Algorithm returns that of the key.
func (v *Verifier) Algorithm() Algorithm { return v.algorithm }

// String returns the verifier key, NAME+KEYID+BASE64.
func (v *Verifier) String() string {
	return fmt.Sprintf("%s+%08x+%s", v.name, v.id, base64.StdEncoding.EncodeToString(append([]byte{byte(v.algorithm)}, v.public...)))
}

// Fingerprint returns a hash of the key material in hex, whatever names it.
func (v *Verifier) Fingerprint() string {
	sum := sha256.Sum256(append([]byte{byte(v.algorithm)}, v.public...))
	return hex.EncodeToString(sum[:])
}

// SameKey reports whether two verifiers have the same key material, whatever names it.
func (v *Verifier) SameKey(o *Verifier) bool {
	return v.algorithm == o.algorithm && string(v.public) == string(o.public)
}

// Verify checks a signature, time and all, over the text of a note.
func (v *Verifier) Verify(text, signature []byte) bool {
	at, raw, ok := v.split(signature)
	if !ok {
		return false
	}
	m, err := message(v.algorithm, v.name, string(text), at)
	return err == nil && v.verify(m, raw)
}

func (v *Verifier) verify(message, raw []byte) bool {
	if v.algorithm == Ed25519 {
		return ed25519.Verify(v.public, message, raw)
	}
	return mldsa.Verify(v.pq, message, raw, nil) == nil
}

// VerifySubtree checks a signature line over a subtree, as Witness.SignSubtree answers
// it, by a key of ML-DSA-44.
func (v *Verifier) VerifySubtree(line, origin string, s checkpoint.Subtree, h checkpoint.Hash) bool {
	words := strings.Split(strings.TrimSuffix(line, "\n"), " ")
	if len(words) != 3 || words[1] != v.name || v.algorithm != MLDSA44 {
		return false
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(words[2])
	if err != nil || len(signature) < 4 || binary.BigEndian.Uint32(signature) != v.id {
		return false
	}
	at, raw, ok := v.split(signature[4:])
	if !ok || at != 0 {
		return false
	}
	m, err := subtreeMessage(v.name, origin, s, h, 0)
	return err == nil && v.verify(m, raw)
}

// split takes a signature of the algorithm apart. SPEC: tlog-cosignature: times are
// below 2^63.
func (v *Verifier) split(signature []byte) (at uint64, raw []byte, ok bool) {
	if len(signature) != timeSize+signatureSizes[v.algorithm] {
		return 0, nil, false
	}
	at = binary.BigEndian.Uint64(signature)
	return at, signature[timeSize:], at <= math.MaxInt64
}

// message is what is signed for the text of a note at a time, in seconds since 1970.
func message(a Algorithm, name, text string, at uint64) ([]byte, error) {
	if a == Ed25519 {
		return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text), nil
	}
	origin, size, root, err := checkpoint.ParseText(text)
	if err != nil {
		return nil, err
	}
	return subtreeMessage(name, origin, checkpoint.Subtree{End: size}, root, at)
}

// subtreeMessage is what ML-DSA-44 signs.
func subtreeMessage(name, origin string, s checkpoint.Subtree, h checkpoint.Hash, at uint64) ([]byte, error) {
	if len(origin) > maxName || len(name) > maxName {
		return nil, fmt.Errorf("an origin of %d bytes, or a name of %d, cannot be signed with ML-DSA-44", len(origin), len(name))
	}
	m := []byte("subtree/v1\n\x00")
	m = append(append(m, byte(len(name))), name...)
	m = binary.BigEndian.AppendUint64(m, at)
	m = append(append(m, byte(len(origin))), origin...)
	m = binary.BigEndian.AppendUint64(m, s.Start)
	m = binary.BigEndian.AppendUint64(m, s.End)
	return append(m, h[:]...), nil
}

// Signer signs messages with the private key of one algorithm. Sign may be called by
// several goroutines at a time.
type Signer interface {
	// Public returns the public key: 32 bytes of Ed25519, 1,312 of ML-DSA-44.
	Public() []byte
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// Cosigner makes cosignatures with one key.
type Cosigner struct {
	*Verifier
	signer Signer
}

// NewCosigner returns the cosigner with a name and a key.
func NewCosigner(name string, a Algorithm, s Signer) (*Cosigner, error) {
	v, err := NewVerifier(name, a, s.Public())
	if err != nil {
		return nil, err
	}
	return &Cosigner{v, s}, nil
}

// can reports whether the key can sign for a log: ML-DSA-44 names it in at most 255 bytes.
func (c *Cosigner) can(origin string) bool {
	return c.algorithm != MLDSA44 || len(origin) <= maxName
}

// Cosign returns the signature line for a checkpoint at a time, with its line feed. What
// the signer returns is verified before anybody sees it.
func (c *Cosigner) Cosign(ctx context.Context, cp checkpoint.Checkpoint, at time.Time) (string, error) {
	seconds := at.Unix()
	if seconds <= 0 {
		return "", fmt.Errorf("the time %s cannot be signed", at.UTC().Format(time.RFC3339))
	}
	m, err := message(c.algorithm, c.name, cp.Text(), uint64(seconds))
	if err != nil {
		return "", err
	}
	return c.line(ctx, m, uint64(seconds))
}

// cosignSubtree returns the signature line for a subtree. SPEC: tlog-witness,
// sign-subtree: its time is zero, so that nobody can take it for one that says which
// tree was the largest at some time.
func (c *Cosigner) cosignSubtree(ctx context.Context, origin string, s checkpoint.Subtree, h checkpoint.Hash) (string, error) {
	m, err := subtreeMessage(c.name, origin, s, h, 0)
	if err != nil {
		return "", err
	}
	return c.line(ctx, m, 0)
}

// line signs a message and returns the line that says so.
func (c *Cosigner) line(ctx context.Context, m []byte, at uint64) (string, error) {
	raw, err := c.signer.Sign(ctx, m)
	if err != nil {
		return "", fmt.Errorf("signing with key %s: %w", c.name, err)
	}
	if len(raw) != signatureSizes[c.algorithm] || !c.verify(m, raw) {
		return "", fmt.Errorf("signing with key %s: what was returned is no signature by it", c.name)
	}
	signature := append(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, c.id), at), raw...)
	return fmt.Sprintf("\u2014 %s %s\n", c.name, base64.StdEncoding.EncodeToString(signature)), nil
}
