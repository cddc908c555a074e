package entry

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/mail"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ssh"
)

// Bounds of keys that are read.
const (
	maxPEM  = 256 << 10
	maxSSH  = 64 << 10
	maxKeys = 100 // of one key ring or TUF root
	// maxCertificates bounds the chain that may follow a certificate.
	maxCertificates = 10
)

// keyFormats is the table of formats that rekord entries name.
var keyFormats = []struct {
	name string
	add  func(d *Decoder, where place, v value) error
}{
	{"x509", (*Decoder).addPEM},
	{"pgp", (*Decoder).addPGP},
	{"ssh", (*Decoder).addSSH},
	{"minisign", (*Decoder).addMinisign},
}

// keyBytes decodes base64 of a key, with a bound.
func (d *Decoder) keyBytes(where place, v value, max int) ([]byte, error) {
	text, err := d.base64(where, v)
	if err != nil {
		return nil, err
	}
	if len(text) > max {
		return nil, fmt.Errorf("%s: %w: %d bytes, more than %d", where, errKey, len(text), max)
	}
	return text, nil
}

// addPEM reads base64 of PEM text: one public key, or a certificate that its
// chain may follow, leaf first.
func (d *Decoder) addPEM(where place, v value) error {
	text, err := d.keyBytes(where, v, maxPEM)
	if err != nil {
		return err
	}
	block, rest := pem.Decode(bytes.TrimSpace(text))
	if block == nil {
		return fmt.Errorf("%s: %w: no PEM block", where, errKey)
	}
	switch block.Type {
	case "PUBLIC KEY":
		err = d.addSPKI(where, block.Bytes)
	case "CERTIFICATE":
		err = d.addDER(where, block.Bytes)
	default:
		return fmt.Errorf("%s: %w: PEM block of type %.40q", where, errKey, block.Type)
	}
	for n := 1; len(bytes.TrimSpace(rest)) > 0; n++ {
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || n == maxCertificates {
			return join(err, fmt.Errorf("%s: %w: something other than a chain of up to %d certificates follows it", where, errKey, maxCertificates))
		}
	}
	return err
}

func (d *Decoder) addSPKI(where place, der []byte) error {
	s := cryptobyte.String(der)
	if !s.SkipASN1(asn1.SEQUENCE) || !s.Empty() {
		return fmt.Errorf("%s is not a DER public key", where)
	}
	d.identity().SPKI = der
	return nil
}

// addSSH reads base64 of an authorized_keys line. An SSH certificate has the
// fingerprint that Rekor gives it, and that of the key in it.
func (d *Decoder) addSSH(where place, v value) error {
	text, err := d.keyBytes(where, v, maxSSH)
	if err != nil {
		return err
	}
	key, comment, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", where, errKey, err)
	}
	id := d.identity()
	id.Format = "ssh"
	id.Prints = append(id.Prints, ssh.FingerprintSHA256(key))
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
		id.Prints = append(id.Prints, ssh.FingerprintSHA256(key))
	}
	if public, ok := key.(ssh.CryptoPublicKey); ok {
		if der, err := x509.MarshalPKIXPublicKey(public.CryptoPublicKey()); err == nil {
			id.SPKI = der
		}
	}
	if isMail(comment) {
		id.Subjects = append(id.Subjects, Subject{Email, comment})
	}
	return nil
}

// isMail reports whether a text is an e-mail address and nothing more.
func isMail(text string) bool {
	a, err := mail.ParseAddress(text)
	return err == nil && a.Address == text && a.Name == ""
}

// addMinisign reads base64 of a minisign or signify key: as Rekor keeps it
// (base64 of "Ed", key id and key), as the text of a key file, or, in old
// entries, the key alone.
func (d *Decoder) addMinisign(where place, v value) error {
	text, err := d.keyBytes(where, v, maxSSH)
	if err != nil {
		return err
	}
	key := text
	if len(text) != ed25519.PublicKeySize {
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(lines[len(lines)-1]))
		if err != nil || len(raw) != 2+8+ed25519.PublicKeySize || string(raw[:2]) != "Ed" {
			return fmt.Errorf("%s: %w: not a minisign key", where, errKey)
		}
		key = raw[2+8:]
	}
	der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(bytes.Clone(key)))
	if err != nil {
		return fmt.Errorf("%s: %w: %w", where, errKey, err)
	}
	id := d.identity()
	id.Format, id.SPKI = "minisign", der
	return nil
}

// oidSignedData is 1.2.840.113549.1.7.2.
var oidSignedData = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02}

// addPKCS7 reads the signer's certificate, the first one, of base64 of a PKCS #7
// signature, in PEM or DER, unless it is one that the entry names already.
func (d *Decoder) addPKCS7(where place, v value) error {
	text, err := d.keyBytes(where, v, maxPEM)
	if err != nil {
		return err
	}
	if block, _ := pem.Decode(text); block != nil {
		text = block.Bytes
	}
	bad := fmt.Errorf("%s: %w: not a PKCS #7 signature with a certificate", where, errKey)
	var info, content, signed, certificates, cert cryptobyte.String
	var oid cryptobyte.String
	var present bool
	s := cryptobyte.String(text)
	set, explicit := asn1.SET, asn1.Tag(0).Constructed().ContextSpecific()
	if !s.ReadASN1(&info, asn1.SEQUENCE) || !info.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) || !bytes.Equal(oid, oidSignedData) ||
		!info.ReadASN1(&content, explicit) || !content.ReadASN1(&signed, asn1.SEQUENCE) || !signed.SkipASN1(asn1.INTEGER) ||
		!signed.SkipASN1(set) || !signed.SkipASN1(asn1.SEQUENCE) || !signed.ReadOptionalASN1(&certificates, &present, explicit) ||
		!present || !certificates.ReadASN1Element(&cert, asn1.SEQUENCE) {
		return bad
	}
	for i := range d.facts.Identities {
		if bytes.Equal(d.facts.Identities[i].Certificate, cert) {
			return nil
		}
	}
	d.facts.Warnings = append(d.facts.Warnings, "the signature was made with another certificate than the one that the entry names")
	return d.addDER(where, cert)
}
