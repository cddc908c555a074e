package entry

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// maxSignatures bounds the signatures of one envelope that are read.
const maxSignatures = 64

// join is errors.Join, which costs even where there is nothing to join.
func join(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return errors.Join(errs...)
		}
	}
	return nil
}

// decodeHashedRekord002 reads hashedrekord 0.0.2 (rekor-tiles,
// hashedrekord.proto): a digest and one signature over it.
func decodeHashedRekord002(d *Decoder, spec value) error {
	outer, ok, err := spec.object(at("spec"), "hashedRekordV002")
	if !ok {
		return err
	}
	parts, ok, err2 := outer[0].object(at("spec.hashedRekordV002"), "data", "signature")
	if !ok {
		return join(err, err2)
	}
	return join(err, err2, d.addDigest(at("spec.hashedRekordV002.data"), parts[0]), d.addSignature(at("spec.hashedRekordV002.signature"), parts[1]))
}

// decodeDSSE002 reads dsse 0.0.2 (rekor-tiles, dsse.proto): the hash of an
// envelope's payload and its signatures.
func decodeDSSE002(d *Decoder, spec value) error {
	outer, ok, err := spec.object(at("spec"), "dsseV002")
	if !ok {
		return err
	}
	parts, ok, err2 := outer[0].object(at("spec.dsseV002"), "payloadHash", "signatures")
	if !ok {
		return join(err, err2)
	}
	errs := join(err, err2, d.addDigest(at("spec.dsseV002.payloadHash"), parts[0]))
	signatures := parts[1]
	if signatures.kind != '[' || len(signatures.items) == 0 {
		errs = join(errs, errors.New("spec.dsseV002.signatures is missing or empty"))
	}
	for i, s := range signatures.items {
		if i == maxSignatures {
			errs = join(errs, fmt.Errorf("spec.dsseV002.signatures has %d items, more than %d", len(signatures.items), maxSignatures))
			break
		}
		errs = join(errs, d.addSignature(place{"spec.dsseV002.signatures", i, ""}, s))
	}
	return errs
}

// digestKinds gives the names of hash algorithms and their lengths in bytes.
var digestKinds = []struct {
	algorithm, name string
	length          int
}{
	{"SHA2_256", "sha256", 32},
	{"SHA2_384", "sha384", 48},
	{"SHA2_512", "sha512", 64},
}

func (d *Decoder) addDigest(where place, v value) error {
	parts, ok, extra := v.object(where, "algorithm", "digest")
	if !ok {
		return extra
	}
	if parts[0].kind != '"' {
		return fmt.Errorf("%s.algorithm is missing, or not a string", where)
	}
	for _, known := range digestKinds {
		if known.algorithm != string(parts[0].text) {
			continue
		}
		digest, err := d.base64(where, parts[1])
		if err != nil {
			return err
		}
		if len(digest) != known.length {
			return fmt.Errorf("%s.digest has %d bytes, %s has %d", where, len(digest), known.name, known.length)
		}
		text := d.room(len(known.name) + 1 + 2*len(digest))
		n := copy(text, known.name)
		text[n] = ':'
		hex.Encode(text[n+1:], digest)
		d.facts.Digests = append(d.facts.Digests, textOf(text))
		return extra
	}
	return fmt.Errorf("%s.algorithm %.40q is not known", where, parts[0].text)
}

// addSignature reads a signature with its verifier. The signature itself was
// checked by the log and is not read.
func (d *Decoder) addSignature(where place, v value) error {
	parts, ok, extra := v.object(where, "content", "verifier")
	if !ok {
		return extra
	}
	where.rest = ".verifier"
	verifier, ok, extra2 := parts[1].object(where, "keyDetails", "publicKey", "x509Certificate")
	if !ok {
		return join(extra, extra2)
	}
	err := join(extra, extra2)
	if verifier[1].kind == 0 && verifier[2].kind == 0 {
		err = join(err, fmt.Errorf("%s has neither publicKey nor x509Certificate", where))
	}
	if verifier[1].kind != 0 && verifier[2].kind != 0 {
		err = join(err, fmt.Errorf("%s has both publicKey and x509Certificate", where))
	}
	if verifier[1].kind != 0 {
		where.rest = ".verifier.publicKey"
		err = join(err, d.addKey(where, verifier[1]))
	}
	if verifier[2].kind != 0 {
		where.rest = ".verifier.x509Certificate"
		err = join(err, d.addCertificate(where, verifier[2]))
	}
	return err
}

func (d *Decoder) addKey(where place, v value) error {
	der, err := d.rawBytes(where, v)
	if der == nil {
		return err
	}
	return join(err, d.addSPKI(where, der))
}

func (d *Decoder) addCertificate(where place, v value) error {
	der, err := d.rawBytes(where, v)
	if der == nil {
		return err
	}
	return join(err, d.addDER(where, der))
}

// addDER reads a DER certificate.
func (d *Decoder) addDER(where place, der []byte) error {
	id := d.identity()
	err := id.parseCertificate(der)
	if err != nil {
		err = fmt.Errorf("%s: %w", where, err)
	}
	if id.Certificate == nil {
		d.facts.Identities = d.facts.Identities[:len(d.facts.Identities)-1]
	} else if len(id.Issuers) > 1 {
		d.facts.Warnings = append(d.facts.Warnings, fmt.Sprintf("inconsistent issuer: the certificate names both %.200q and %.200q", id.Issuers[0], id.Issuers[1]))
	}
	return err
}

func (d *Decoder) rawBytes(where place, v value) ([]byte, error) {
	parts, ok, extra := v.object(where, "rawBytes")
	if !ok {
		return nil, extra
	}
	der, err := d.base64(where, parts[0])
	if err != nil {
		return nil, join(err, extra)
	}
	return der, extra
}
