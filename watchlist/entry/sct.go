package entry

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// SCT says whether a certificate was logged for certificate transparency. It is
// a fact and no verdict: a certificate without it can be trusted, and yet nobody
// who reads the certificate log has seen it.
type SCT string

// Outcomes, the worst first.
const (
	SCTInvalid   SCT = "invalid"   // there is one, and none that a known log has signed
	SCTMissing   SCT = "missing"   // there is none
	SCTUnchecked SCT = "unchecked" // nobody knows the log, or the issuer
	SCTVerified  SCT = "verified"
)

// WorstSCT returns the worse of two outcomes; "" stands for none.
func WorstSCT(a, b SCT) SCT {
	for _, s := range []SCT{SCTInvalid, SCTMissing, SCTUnchecked, SCTVerified} {
		if a == s || b == s {
			return s
		}
	}
	return ""
}

// CTLog is a certificate transparency log.
type CTLog struct {
	Key crypto.PublicKey
	// SPKI is the key in DER; its SHA-256 is the log's id.
	SPKI []byte
	// ValidFrom and ValidUntil bound its timestamps; zero: unbounded.
	ValidFrom, ValidUntil time.Time
}

// NewCTLog returns the log with a key, for timestamps of a time.
func NewCTLog(spki []byte, from, until time.Time) (CTLog, error) {
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return CTLog{}, err
	}
	switch key.(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey, ed25519.PublicKey:
	default:
		return CTLog{}, fmt.Errorf("key is a %T", key)
	}
	return CTLog{key, spki, from, until}, nil
}

// WithCTLogs returns the authorities with logs that SCTs are verified with.
func (a *Authorities) WithCTLogs(logs ...CTLog) *Authorities {
	with := *a
	with.ctlogs = map[[sha256.Size]byte][]CTLog{}
	for _, l := range logs {
		id := sha256.Sum256(l.SPKI)
		with.ctlogs[id] = append(with.ctlogs[id], l) // one key may be listed for several times
	}
	return &with
}

// SCT verifies the SCTs that are embedded in an identity's certificate (RFC 6962,
// 3.2 and 3.3). at is as in VerifyAt. A bare key has none: "".
func (a *Authorities) SCT(id *Identity, at time.Time) SCT {
	switch {
	case id.Certificate == nil:
		return ""
	case !id.HasSCT:
		return SCTMissing
	case len(a.ctlogs) == 0:
		return SCTUnchecked
	}
	chain, err := a.verify(id, at)
	if err != nil {
		return SCTUnchecked // the issuer's key is a part of what is signed
	}
	cert, issuer := chain[0], chain[min(1, len(chain)-1)]
	tbs, list, err := precertificate(cert.RawTBSCertificate)
	if err != nil {
		return SCTInvalid
	}
	issuerKey := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	for !list.Empty() {
		var sct cryptobyte.String
		if !list.ReadUint16LengthPrefixed(&sct) {
			return SCTInvalid
		}
		if a.signed(sct, issuerKey, tbs) {
			return SCTVerified
		}
	}
	return SCTInvalid
}

// signed reports whether a known log has signed an SCT over a precertificate.
func (a *Authorities) signed(sct cryptobyte.String, issuerKey [sha256.Size]byte, tbs []byte) bool {
	var version, hash, algorithm uint8
	var logID []byte
	var timestamp uint64
	var extensions, signature cryptobyte.String
	if !sct.ReadUint8(&version) || version != 0 || !sct.ReadBytes(&logID, sha256.Size) || !sct.ReadUint64(&timestamp) ||
		!sct.ReadUint16LengthPrefixed(&extensions) || !sct.ReadUint8(&hash) || !sct.ReadUint8(&algorithm) ||
		!sct.ReadUint16LengthPrefixed(&signature) || !sct.Empty() || timestamp > 1<<52 {
		return false
	}
	at := time.UnixMilli(int64(timestamp))
	known := a.ctlogs[[sha256.Size]byte(logID)]
	used := slices.IndexFunc(known, func(l CTLog) bool {
		return (l.ValidFrom.IsZero() || !at.Before(l.ValidFrom)) && (l.ValidUntil.IsZero() || !at.After(l.ValidUntil))
	})
	if used < 0 {
		return false
	}
	var b cryptobyte.Builder
	b.AddUint8(0) // v1
	b.AddUint8(0) // certificate_timestamp
	b.AddUint64(timestamp)
	b.AddUint16(1) // precert_entry
	b.AddBytes(issuerKey[:])
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(tbs) })
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(extensions) })
	message, err := b.Bytes()
	if err != nil {
		return false
	}
	const sha256Hash, rsaSignature, ecdsaSignature, ed25519Signature, noHash = 4, 1, 3, 7, 8
	digest := sha256.Sum256(message)
	switch key := known[used].Key.(type) {
	case *ecdsa.PublicKey:
		return hash == sha256Hash && algorithm == ecdsaSignature && ecdsa.VerifyASN1(key, digest[:], signature)
	case *rsa.PublicKey:
		return hash == sha256Hash && algorithm == rsaSignature && key.N.BitLen() <= maxRSABits && rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) == nil
	case ed25519.PublicKey:
		return hash == noHash && algorithm == ed25519Signature && ed25519.Verify(key, message, signature)
	}
	return false
}

var errPrecertificate = errors.New("certificate cannot be turned into its precertificate")

// precertificate takes the list of SCTs out of a TBSCertificate, and returns what
// is left with all lengths made anew, and the list (RFC 6962, 3.2).
func precertificate(raw []byte) (tbs []byte, list cryptobyte.String, err error) {
	outer := cryptobyte.String(raw)
	var fields, wrapped, extensions cryptobyte.String
	if !outer.ReadASN1(&fields, asn1.SEQUENCE) || !outer.Empty() {
		return nil, nil, errPrecertificate
	}
	tag3 := asn1.Tag(3).Constructed().ContextSpecific()
	var b cryptobyte.Builder
	found := 0
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for !fields.Empty() && !fields.PeekASN1Tag(tag3) {
			var field cryptobyte.String
			var tag asn1.Tag
			if !fields.ReadAnyASN1Element(&field, &tag) {
				b.SetError(errPrecertificate)
				return
			}
			b.AddBytes(field)
		}
		if !fields.ReadASN1(&wrapped, tag3) || !fields.Empty() || !wrapped.ReadASN1(&extensions, asn1.SEQUENCE) || !wrapped.Empty() {
			b.SetError(errPrecertificate)
			return
		}
		b.AddASN1(tag3, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for !extensions.Empty() {
					var ext, inner, oid, value cryptobyte.String
					if !extensions.ReadASN1Element(&ext, asn1.SEQUENCE) {
						b.SetError(errPrecertificate)
						return
					}
					copied := ext
					if !copied.ReadASN1(&inner, asn1.SEQUENCE) || !inner.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) {
						b.SetError(errPrecertificate)
						return
					}
					if !bytes.Equal(oid, oidSCTList) {
						b.AddBytes(ext)
						continue
					}
					found++
					if !inner.SkipOptionalASN1(asn1.BOOLEAN) || !inner.ReadASN1(&value, asn1.OCTET_STRING) || !value.ReadASN1(&value, asn1.OCTET_STRING) ||
						!value.ReadUint16LengthPrefixed(&list) || !value.Empty() {
						b.SetError(errPrecertificate)
						return
					}
				}
			})
		})
	})
	tbs, err = b.Bytes()
	if err != nil || found != 1 {
		return nil, nil, errPrecertificate
	}
	return tbs, list, nil
}
