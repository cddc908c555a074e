package entry

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// The kinds of Rekor v1 (rekor, pkg/types; wire-formats 2.6). Members that the
// schemas allow and a log does not keep are named, and not read. A signature
// itself was checked by the log, and is not read either.

func decodeHashedRekord001(d *Decoder, spec value) error {
	signature, ok, err := d.artifact(spec)
	if !ok {
		return err
	}
	return join(err, d.addWrapped(at("spec.signature.publicKey"), signature[0], d.addPEM))
}

// artifact reads what hashedrekord and rekord have in common, the hash of an
// artifact, and returns publicKey and format of the signature.
func (d *Decoder) artifact(spec value) (signature [maxNames]value, ok bool, err error) {
	parts, ok, err := spec.object(at("spec"), "data", "signature")
	if !ok {
		return signature, false, err
	}
	data, _, err2 := parts[0].object(at("spec.data"), "hash", "content", "url")
	signature, ok, err3 := parts[1].object(at("spec.signature"), "publicKey", "format", "content", "url")
	return signature, ok, join(err, err2, err3, d.addHash(at("spec.data.hash"), data[0]))
}

// addWrapped reads a key that stands in an object of its own as "content".
func (d *Decoder) addWrapped(where place, v value, add func(place, value) error) error {
	parts, ok, err := v.object(where, "content", "url")
	if !ok {
		return err
	}
	where.rest += ".content"
	return join(err, add(where, parts[0]))
}

func decodeRekord001(d *Decoder, spec value) error {
	signature, ok, errs := d.artifact(spec)
	if !ok {
		return errs
	}
	format, err := signature[1].str(at("spec.signature.format"))
	if err != nil {
		return join(errs, err)
	}
	for _, f := range keyFormats {
		if f.name == format {
			return join(errs, d.addWrapped(at("spec.signature.publicKey"), signature[0], func(where place, v value) error { return f.add(d, where, v) }))
		}
	}
	return join(errs, fmt.Errorf("spec.signature.format %.40q is not known", format))
}

func decodeDSSE001(d *Decoder, spec value) error {
	parts, ok, err := spec.object(at("spec"), "payloadHash", "envelopeHash", "signatures", "proposedContent")
	if !ok {
		return err
	}
	errs := join(err, d.addHash(at("spec.payloadHash"), parts[0]), d.addHash(at("spec.envelopeHash"), parts[1]))
	return join(errs, d.eachSignature("spec.signatures", parts[2], func(where place, s value) error {
		fields, ok, err := s.object(where, "verifier", "signature")
		if !ok {
			return err
		}
		where.rest = ".verifier"
		return join(err, d.addPEM(where, fields[0]))
	}))
}

// eachSignature reads a list of signatures: one that is bad hides none of the
// others.
func (d *Decoder) eachSignature(path string, list value, add func(place, value) error) error {
	if list.kind != '[' || len(list.items) == 0 {
		return fmt.Errorf("%s is missing or empty", path)
	}
	var errs error
	for i, s := range list.items {
		if i == maxSignatures {
			return join(errs, fmt.Errorf("%s has %d items, more than %d", path, len(list.items), maxSignatures))
		}
		errs = join(errs, add(place{path, i, ""}, s))
	}
	return errs
}

func decodeIntoto001(d *Decoder, spec value) error {
	parts, ok, err := spec.object(at("spec"), "content", "publicKey")
	if !ok {
		return err
	}
	content, _, err2 := parts[0].object(at("spec.content"), "hash", "payloadHash", "envelope")
	errs := join(err, err2, d.addHash(at("spec.content.hash"), content[0]))
	if content[1].kind != 0 { // old entries have none
		errs = join(errs, d.addHash(at("spec.content.payloadHash"), content[1]))
	}
	return join(errs, d.addPEM(at("spec.publicKey"), parts[1]))
}

func decodeIntoto002(d *Decoder, spec value) error {
	parts, ok, err := spec.object(at("spec"), "content")
	if !ok {
		return err
	}
	content, ok, err2 := parts[0].object(at("spec.content"), "envelope", "payloadHash", "hash")
	if !ok {
		return join(err, err2)
	}
	errs := join(err, err2, d.addHash(at("spec.content.payloadHash"), content[1]))
	if content[2].kind != 0 {
		errs = join(errs, d.addHash(at("spec.content.hash"), content[2]))
	}
	envelope, ok, err := content[0].object(at("spec.content.envelope"), "signatures", "payloadType", "payload")
	if !ok {
		return join(errs, err)
	}
	return join(errs, err, d.eachSignature("spec.content.envelope.signatures", envelope[0], func(where place, s value) error {
		fields, ok, err := s.object(where, "publicKey", "sig", "keyid")
		if !ok {
			return err
		}
		where.rest = ".publicKey"
		return join(err, d.addPEM(where, fields[0]))
	}))
}

func decodeCOSE001(d *Decoder, spec value) error {
	parts, ok, err := spec.object(at("spec"), "data", "publicKey", "message")
	if !ok {
		return err
	}
	data, _, err2 := parts[0].object(at("spec.data"), "payloadHash", "envelopeHash", "aad")
	return join(err, err2, d.addHash(at("spec.data.payloadHash"), data[0]), d.addHash(at("spec.data.envelopeHash"), data[1]), d.addPEM(at("spec.publicKey"), parts[1]))
}

// decodePackage reads rpm and alpine: a package and the key that signed it.
func decodePackage(add func(*Decoder, place, value) error) decoder {
	return func(d *Decoder, spec value) error {
		parts, ok, err := spec.object(at("spec"), "package", "publicKey")
		if !ok {
			return err
		}
		pkg, _, err2 := parts[0].object(at("spec.package"), "hash", "headers", "pkginfo", "content")
		return join(err, err2, d.addHash(at("spec.package.hash"), pkg[0]),
			d.addWrapped(at("spec.publicKey"), parts[1], func(where place, v value) error { return add(d, where, v) }))
	}
}

func decodeHelm001(d *Decoder, spec value) error {
	parts, ok, err := spec.object(at("spec"), "chart", "publicKey")
	if !ok {
		return err
	}
	chart, _, err2 := parts[0].object(at("spec.chart"), "hash", "provenance")
	return join(err, err2, d.addHash(at("spec.chart.hash"), chart[0]),
		d.addWrapped(at("spec.publicKey"), parts[1], d.addPGP))
}

// decodeJAR001 reads a signed JAR. The log takes publicKey from the PKCS #7
// signature beside it; that one may name another signer all the same.
func decodeJAR001(d *Decoder, spec value) error {
	parts, ok, err := spec.object(at("spec"), "archive", "signature")
	if !ok {
		return err
	}
	archive, _, err2 := parts[0].object(at("spec.archive"), "hash", "content", "url")
	errs := join(err, err2, d.addHash(at("spec.archive.hash"), archive[0]))
	signature, ok, err := parts[1].object(at("spec.signature"), "publicKey", "content")
	if !ok {
		return join(errs, err)
	}
	errs = join(errs, err, d.addWrapped(at("spec.signature.publicKey"), signature[0], d.addPEM))
	errs = join(errs, d.addPKCS7(at("spec.signature.content"), signature[1]))
	for i := range d.facts.Identities {
		errs = join(errs, d.facts.Identities[i].addNamedMail())
	}
	return errs
}

func decodeTUF001(d *Decoder, spec value) error {
	parts, ok, err := spec.object(at("spec"), "metadata", "root", "spec_version")
	if !ok {
		return err
	}
	metadata, _, err2 := parts[0].object(at("spec.metadata"), "content")
	root, _, err3 := parts[1].object(at("spec.root"), "content")
	errs := join(err, err2, err3)
	if text, err := d.document(at("spec.metadata.content"), metadata[0]); err != nil {
		errs = join(errs, err)
	} else {
		// The log keeps metadata in canonical form: its hash is that of the bytes.
		sum := sha256.Sum256(text)
		d.facts.Digests = append(d.facts.Digests, "sha256:"+hex.EncodeToString(sum[:]))
	}
	text, err := d.document(at("spec.root.content"), root[0])
	if err != nil {
		return join(errs, err)
	}
	return join(errs, d.addTUFRoot(text))
}

// document returns the text of a JSON document that stands in an entry as an
// object, or as base64: the log keeps bytes in a field of any type.
func (d *Decoder) document(where place, v value) ([]byte, error) {
	if v.kind == '{' {
		return v.text, nil
	}
	return d.base64(where, v)
}

func decodeRFC3161001(d *Decoder, spec value) error {
	parts, ok, err := spec.object(at("spec"), "tsr")
	if !ok {
		return err
	}
	tsr, ok, err2 := parts[0].object(at("spec.tsr"), "content")
	if !ok {
		return join(err, err2)
	}
	der, err3 := d.base64(at("spec.tsr.content"), tsr[0])
	if err3 == nil {
		sum := sha256.Sum256(der)
		d.facts.Digests = append(d.facts.Digests, "sha256:"+hex.EncodeToString(sum[:]))
	}
	return join(err, err2, err3)
}

// hashLengths are the hex digits of the hashes that Rekor v1 names.
var hashLengths = map[string]int{"sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}

// addHash reads a hash as Rekor v1 writes it: algorithm and hex.
func (d *Decoder) addHash(where place, v value) error {
	parts, ok, extra := v.object(where, "algorithm", "value")
	if !ok {
		return extra
	}
	algorithm, err := parts[0].str(where)
	if err != nil {
		return join(extra, err)
	}
	text, err := parts[1].str(where)
	if err != nil {
		return join(extra, err)
	}
	algorithm, text = strings.ToLower(algorithm), strings.ToLower(text)
	length, known := hashLengths[algorithm]
	if !known {
		return join(extra, fmt.Errorf("%s.algorithm %.40q is not known", where, algorithm))
	}
	if _, err := hex.DecodeString(text); err != nil || len(text) != length {
		return join(extra, fmt.Errorf("%s.value is not the hex of a %s", where, algorithm))
	}
	d.facts.Digests = append(d.facts.Digests, algorithm+":"+text)
	return extra
}

var errKey = errors.New("key cannot be read")
