package entry

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
)

// addTUFRoot reads the keys of TUF root metadata: each is an identity.
func (d *Decoder) addTUFRoot(text []byte) error {
	const where = "spec.root.content"
	// The entry itself is in the memory of the decoder's parser.
	root, err := new(parser).parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	keys := root.member("signed").member("keys")
	if keys.kind != '{' || len(keys.members) == 0 {
		return fmt.Errorf("%s has no keys", where)
	}
	var errs error
	for i, m := range keys.members {
		if i == maxKeys {
			return join(errs, fmt.Errorf("%s has %d keys, more than %d", where, len(keys.members), maxKeys))
		}
		der, err := tufKey(m.value)
		if err != nil {
			errs = join(errs, fmt.Errorf("%s: key %.80q: %w: %w", where, m.name, errKey, err))
			continue
		}
		if !d.hasKey(der) { // one key may have several ids
			id := d.identity()
			id.Format, id.SPKI = "tuf", der
		}
	}
	return errs
}

func (d *Decoder) hasKey(spki []byte) bool {
	for i := range d.facts.Identities {
		if bytes.Equal(d.facts.Identities[i].SPKI, spki) {
			return true
		}
	}
	return false
}

// member returns a member of an object; nothing if there is none.
func (v value) member(name string) value {
	for _, m := range v.members {
		if string(m.name) == name {
			return m.value
		}
	}
	return value{}
}

// tufKey returns the DER SubjectPublicKeyInfo of a TUF key: PEM for RSA and, of
// late, ECDSA; hex of a point or an Ed25519 key otherwise.
func tufKey(v value) ([]byte, error) {
	kind, err := v.member("keytype").str(at("keytype"))
	if err != nil {
		return nil, err
	}
	text, err := v.member("keyval").member("public").str(at("keyval.public"))
	if err != nil {
		return nil, err
	}
	if strings.Contains(text, "-----BEGIN") {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			return nil, fmt.Errorf("bad PEM")
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			key, err = x509.ParsePKCS1PublicKey(block.Bytes)
		}
		if err != nil {
			return nil, err
		}
		return x509.MarshalPKIXPublicKey(key)
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "ed25519":
		if len(raw) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("Ed25519 key of %d bytes", len(raw))
		}
		return x509.MarshalPKIXPublicKey(ed25519.PublicKey(raw))
	case "ecdsa", "ecdsa-sha2-nistp256":
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
		if err != nil {
			return nil, err
		}
		return x509.MarshalPKIXPublicKey(key)
	}
	return nil, fmt.Errorf("key of type %.40q is not known", kind)
}
