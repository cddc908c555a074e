// Package testca is a certificate authority like Fulcio, for the demo and for
// tests: it issues short-lived certificates with subjects and extensions as a
// keyless signing event has them, and makes log entries that are really signed.
package testca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

// CA is a root and an intermediate that issues leaf certificates.
type CA struct {
	root, intermediate *x509.Certificate
	key                *ecdsa.PrivateKey // of the intermediate
}

// New makes a certificate authority with fresh keys. Its certificates are
// valid from a day before now for ten years.
func New(name string, now time.Time) (*CA, error) {
	rootKey, root, err := newCA(name, name, now, nil, nil)
	if err != nil {
		return nil, err
	}
	key, intermediate, err := newCA(name, name+" intermediate", now, root, rootKey)
	if err != nil {
		return nil, err
	}
	return &CA{root: root, intermediate: intermediate, key: key}, nil
}

func newCA(org, name string, now time.Time, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{org}, CommonName: name},
		NotBefore:             now.Add(-24 * time.Hour),
		NotAfter:              now.AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	if parent == nil {
		parent, parentKey = template, key
	} else {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return key, cert, err
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

// ChainPEM returns the intermediate and the root, in this order.
func (ca *CA) ChainPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.intermediate.Raw})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.root.Raw}))
}

// Chain returns the certificates of ChainPEM.
func (ca *CA) Chain() []*x509.Certificate { return []*x509.Certificate{ca.intermediate, ca.root} }

// Identity says what a certificate is to carry.
type Identity struct {
	Email     string
	URI       string
	OtherName string // Fulcio's username form, user!domain
	DNS       string
	IP        string
	Issuer    string // OIDC issuer: extensions .1 (raw) and .8 (UTF8String)
	// Extensions by the last number of their OID, from 9 on as UTF8String and
	// up to 6 as raw bytes.
	Extensions map[int]string
	NotBefore  time.Time // default: now
	Lifetime   time.Duration
	// CT, if not nil, logs the certificate and embeds the log's promise (SCT).
	CT *CTLog
	// Mangle, if not nil, may change the template before it is signed.
	Mangle func(*x509.Certificate)
}

// Signer is a key with the certificate that was issued for it.
type Signer struct {
	Key  *ecdsa.PrivateKey
	Cert []byte // DER; nil for a bare key
}

var fulcioOID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1}

// Issue makes a fresh key and a certificate for it. A nil CA makes it
// self-signed, as anybody can.
func (ca *CA) Issue(id Identity) (Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Signer{}, err
	}
	start := id.NotBefore
	if start.IsZero() {
		start = time.Now()
	}
	lifetime := id.Lifetime
	if lifetime == 0 {
		lifetime = 10 * time.Minute
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		NotBefore:    start, NotAfter: start.Add(lifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	san, err := id.san()
	if err != nil {
		return Signer{}, err
	}
	template.ExtraExtensions = append(template.ExtraExtensions, san)
	add := func(n int, value []byte) {
		oid := append(append(asn1.ObjectIdentifier{}, fulcioOID...), n)
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: oid, Value: value})
	}
	if id.Issuer != "" {
		add(1, []byte(id.Issuer))
		add(8, utf8String(id.Issuer))
	}
	for n := range 64 {
		switch value, ok := id.Extensions[n]; {
		case ok && n <= 6:
			add(n, []byte(value))
		case ok:
			add(n, utf8String(value))
		}
	}
	if id.Mangle != nil {
		id.Mangle(template)
	}
	parent, parentKey := template, key
	if ca != nil {
		parent, parentKey = ca.intermediate, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil || id.CT == nil {
		return Signer{Key: key, Cert: der}, err
	}
	precert, err := x509.ParseCertificate(der)
	if err != nil {
		return Signer{}, err
	}
	sct, err := id.CT.promise(precert, parent)
	if err != nil {
		return Signer{}, err
	}
	template.ExtraExtensions = append(template.ExtraExtensions, sct)
	der, err = x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	return Signer{Key: key, Cert: der}, err
}

// CTLog is the key of a certificate transparency log.
type CTLog struct{ key *ecdsa.PrivateKey }

// NewCTLog returns a log with a fresh key.
func NewCTLog() (*CTLog, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return &CTLog{key}, err
}

// SPKI returns the log's key in DER.
func (l *CTLog) SPKI() ([]byte, error) { return x509.MarshalPKIXPublicKey(&l.key.PublicKey) }

// promise makes the extension with one signed certificate timestamp (RFC 6962,
// 3.2 and 3.3).
func (l *CTLog) promise(precert, issuer *x509.Certificate) (pkix.Extension, error) {
	spki, err := l.SPKI()
	if err != nil {
		return pkix.Extension{}, err
	}
	id, issuerKey := sha256.Sum256(spki), sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	stamp := binary.BigEndian.AppendUint64(nil, uint64(precert.NotBefore.UnixMilli()))
	tbs := precert.RawTBSCertificate
	message := slices.Concat([]byte{0, 0}, stamp, []byte{0, 1}, issuerKey[:], []byte{byte(len(tbs) >> 16), byte(len(tbs) >> 8), byte(len(tbs))}, tbs, []byte{0, 0})
	digest := sha256.Sum256(message)
	sig, err := ecdsa.SignASN1(rand.Reader, l.key, digest[:])
	if err != nil {
		return pkix.Extension{}, err
	}
	sized := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
	sct := slices.Concat([]byte{0}, id[:], stamp, []byte{0, 0, 4, 3}, sized(sig))
	value, err := asn1.Marshal(sized(sized(sct)))
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value}, err
}

// BareKey makes a signer without a certificate.
func BareKey() (Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return Signer{Key: key}, err
}

// san encodes the subject alternative name by hand, since crypto/x509 knows no
// otherName. It is critical, as in every certificate without a subject.
func (id Identity) san() (pkix.Extension, error) {
	var names []asn1.RawValue
	add := func(tag int, b []byte) {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: b})
	}
	if id.OtherName != "" {
		oid, err := asn1.Marshal(append(append(asn1.ObjectIdentifier{}, fulcioOID...), 7))
		if err != nil {
			return pkix.Extension{}, err
		}
		value, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: utf8String(id.OtherName)})
		if err != nil {
			return pkix.Extension{}, err
		}
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: append(oid, value...)})
	}
	if id.Email != "" {
		add(1, []byte(id.Email))
	}
	if id.DNS != "" {
		add(2, []byte(id.DNS))
	}
	if id.URI != "" {
		if _, err := url.Parse(id.URI); err != nil {
			return pkix.Extension{}, err
		}
		add(6, []byte(id.URI))
	}
	if ip := net.ParseIP(id.IP); ip != nil {
		if v4 := ip.To4(); v4 != nil {
			ip = v4
		}
		add(7, ip)
	}
	value, err := asn1.Marshal(names)
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: value}, err
}

func utf8String(s string) []byte {
	der, err := asn1.MarshalWithParams(s, "utf8")
	if err != nil {
		return nil
	}
	return der
}

// SignArtifact signs the SHA-256 digest of an artifact, and returns both.
func (s Signer) SignArtifact(artifact []byte) (digest [32]byte, sig []byte, err error) {
	digest = sha256.Sum256(artifact)
	sig, err = ecdsa.SignASN1(rand.Reader, s.Key, digest[:])
	return digest, sig, err
}

// HashedRekord returns the log entry, hashedrekord 0.0.2 in canonical JSON, for
// a signature over an artifact.
func (s Signer) HashedRekord(artifact []byte) ([]byte, error) {
	digest, sig, err := s.SignArtifact(artifact)
	if err != nil {
		return nil, err
	}
	return s.entry(digest[:], sig)
}

// HashedRekordV1 returns the entry of Rekor v1, hashedrekord 0.0.1.
func (s Signer) HashedRekordV1(artifact []byte) ([]byte, error) {
	digest, sig, err := s.SignArtifact(artifact)
	if err != nil {
		return nil, err
	}
	block := &pem.Block{Type: "CERTIFICATE", Bytes: s.Cert}
	if s.Cert == nil {
		if block.Bytes, err = s.SPKI(); err != nil {
			return nil, err
		}
		block.Type = "PUBLIC KEY"
	}
	return fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"%x"}},"signature":{"content":%q,"publicKey":{"content":%q}}}}`,
		digest, b64(sig), b64(pem.EncodeToMemory(block))), nil
}

// EntryFor returns an entry of the signer's certificate with nothing really
// signed, for tests of what reads entries.
func (s Signer) EntryFor() ([]byte, error) {
	return s.entry(make([]byte, sha256.Size), []byte("unsigned"))
}

func (s Signer) entry(digest, sig []byte) ([]byte, error) {
	verifier, err := s.verifier()
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":%q},"signature":{"content":%q,"verifier":%s}}}}`,
		b64(digest), b64(sig), verifier), nil
}

// DSSE returns the log entry, dsse 0.0.2 in canonical JSON, for an envelope
// that all the signers signed.
func DSSE(payloadType string, payload []byte, signers ...Signer) ([]byte, error) {
	pae := fmt.Sprintf("DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
	var signatures []string
	for _, s := range signers {
		_, sig, err := s.SignArtifact([]byte(pae))
		if err != nil {
			return nil, err
		}
		verifier, err := s.verifier()
		if err != nil {
			return nil, err
		}
		signatures = append(signatures, fmt.Sprintf(`{"content":%q,"verifier":%s}`, b64(sig), verifier))
	}
	hash := sha256.Sum256(payload)
	return fmt.Appendf(nil, `{"apiVersion":"0.0.2","kind":"dsse","spec":{"dsseV002":{"payloadHash":{"algorithm":"SHA2_256","digest":%q},"signatures":[%s]}}}`,
		b64(hash[:]), strings.Join(signatures, ",")), nil
}

func (s Signer) verifier() (string, error) {
	if s.Cert != nil {
		return fmt.Sprintf(`{"keyDetails":"PKIX_ECDSA_P256_SHA_256","x509Certificate":{"rawBytes":%q}}`, b64(s.Cert)), nil
	}
	der, err := s.SPKI()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`{"keyDetails":"PKIX_ECDSA_P256_SHA_256","publicKey":{"rawBytes":%q}}`, b64(der)), nil
}

// SPKI returns the DER SubjectPublicKeyInfo of the signer's key.
func (s Signer) SPKI() ([]byte, error) { return x509.MarshalPKIXPublicKey(&s.Key.PublicKey) }

// Fingerprint returns "sha256:" and the hex SHA-256 of the certificate, or of
// the key where there is none.
func (s Signer) Fingerprint() string {
	der := s.Cert
	if der == nil {
		der, _ = s.SPKI()
	}
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
