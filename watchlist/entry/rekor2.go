package entry

import (
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// maxSignatures bounds the signatures of one envelope that are read.
const maxSignatures = 64

// decodeHashedRekord002 reads hashedrekord 0.0.2 (rekor-tiles,
// hashedrekord.proto): a digest and one signature over it.
func decodeHashedRekord002(spec value, f *Facts) error {
	outer, err := spec.object("spec", "hashedRekordV002")
	if outer == nil {
		return err
	}
	parts, err2 := outer[0].object("spec.hashedRekordV002", "data", "signature")
	if parts == nil {
		return errors.Join(err, err2)
	}
	return errors.Join(err, err2,
		f.addDigest("spec.hashedRekordV002.data", parts[0]),
		f.addSignature("spec.hashedRekordV002.signature", parts[1]))
}

// decodeDSSE002 reads dsse 0.0.2 (rekor-tiles, dsse.proto): the hash of an
// envelope's payload and its signatures.
func decodeDSSE002(spec value, f *Facts) error {
	outer, err := spec.object("spec", "dsseV002")
	if outer == nil {
		return err
	}
	parts, err2 := outer[0].object("spec.dsseV002", "payloadHash", "signatures")
	if parts == nil {
		return errors.Join(err, err2)
	}
	errs := []error{err, err2, f.addDigest("spec.dsseV002.payloadHash", parts[0])}
	signatures := parts[1]
	if signatures.kind != '[' || len(signatures.items) == 0 {
		errs = append(errs, errors.New("spec.dsseV002.signatures is missing or empty"))
	}
	for i, s := range signatures.items {
		if i == maxSignatures {
			errs = append(errs, fmt.Errorf("spec.dsseV002.signatures has %d items, more than %d", len(signatures.items), maxSignatures))
			break
		}
		errs = append(errs, f.addSignature(fmt.Sprintf("spec.dsseV002.signatures[%d]", i), s))
	}
	return errors.Join(errs...)
}

// digestLengths gives the names of hash algorithms and their lengths in bytes.
var digestLengths = map[string]struct {
	name   string
	length int
}{
	"SHA2_256": {"sha256", 32},
	"SHA2_384": {"sha384", 48},
	"SHA2_512": {"sha512", 64},
}

func (f *Facts) addDigest(where string, v value) error {
	parts, extra := v.object(where, "algorithm", "digest")
	if parts == nil {
		return extra
	}
	algorithm, err := parts[0].str(where + ".algorithm")
	if err != nil {
		return err
	}
	known, ok := digestLengths[algorithm]
	if !ok {
		return fmt.Errorf("%s.algorithm %.40q is not known", where, algorithm)
	}
	digest, err := decodeBase64(where+".digest", parts[1])
	if err != nil {
		return err
	}
	if len(digest) != known.length {
		return fmt.Errorf("%s.digest has %d bytes, %s has %d", where, len(digest), known.name, known.length)
	}
	f.Digests = append(f.Digests, known.name+":"+hex.EncodeToString(digest))
	return extra
}

// addSignature reads a signature with its verifier. The signature itself was
// checked by the log and is not read.
func (f *Facts) addSignature(where string, v value) error {
	parts, extra := v.object(where, "content", "verifier")
	if parts == nil {
		return extra
	}
	where += ".verifier"
	verifier, extra2 := parts[1].object(where, "keyDetails", "publicKey", "x509Certificate")
	if verifier == nil {
		return errors.Join(extra, extra2)
	}
	errs := []error{extra, extra2}
	if verifier[1].kind == 0 && verifier[2].kind == 0 {
		errs = append(errs, fmt.Errorf("%s has neither publicKey nor x509Certificate", where))
	}
	if verifier[1].kind != 0 && verifier[2].kind != 0 {
		errs = append(errs, fmt.Errorf("%s has both publicKey and x509Certificate", where))
	}
	if verifier[1].kind != 0 {
		errs = append(errs, f.addKey(where+".publicKey", verifier[1]))
	}
	if verifier[2].kind != 0 {
		errs = append(errs, f.addCertificate(where+".x509Certificate", verifier[2]))
	}
	return errors.Join(errs...)
}

func (f *Facts) addKey(where string, v value) error {
	der, err := rawBytes(where, v)
	if der == nil {
		return err
	}
	s := cryptobyte.String(der)
	if !s.SkipASN1(asn1.SEQUENCE) || !s.Empty() {
		return errors.Join(err, fmt.Errorf("%s is not a DER public key", where))
	}
	f.Identities = append(f.Identities, Identity{SPKI: der})
	return err
}

func (f *Facts) addCertificate(where string, v value) error {
	der, err := rawBytes(where, v)
	if der == nil {
		return err
	}
	id, err2 := parseCertificate(der)
	if err2 != nil {
		err2 = fmt.Errorf("%s: %w", where, err2)
	}
	if id.Certificate != nil {
		if len(id.Issuers) > 1 {
			f.Warnings = append(f.Warnings, fmt.Sprintf("inconsistent issuer: the certificate names both %.200q and %.200q", id.Issuers[0], id.Issuers[1]))
		}
		f.Identities = append(f.Identities, id)
	}
	return errors.Join(err, err2)
}

func rawBytes(where string, v value) ([]byte, error) {
	parts, extra := v.object(where, "rawBytes")
	if parts == nil {
		return nil, extra
	}
	der, err := decodeBase64(where+".rawBytes", parts[0])
	if err != nil {
		return nil, errors.Join(err, extra)
	}
	return der, extra
}
