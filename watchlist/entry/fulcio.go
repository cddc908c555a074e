package entry

import (
	"bytes"
	stdasn1 "encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds of a certificate that is read.
const (
	maxCertificate = 64 << 10
	maxSubjects    = 256
	maxExtensions  = 128
)

// extensionNames are Fulcio's extensions 1.3.6.1.4.1.57264.1.N, by N
// (sigstore/fulcio, docs/oid-info.md). Those below 8 hold raw bytes, the
// others a DER UTF8String. 1 and 8 are the issuer, 7 occurs in subjects only.
var extensionNames = [...]string{
	2: "github-workflow-trigger", 3: "github-workflow-sha", 4: "github-workflow-name", 5: "github-workflow-repository", 6: "github-workflow-ref",
	9: "build-signer-uri", 10: "build-signer-digest", 11: "runner-environment", 12: "source-repository-uri", 13: "source-repository-digest",
	14: "source-repository-ref", 15: "source-repository-identifier", 16: "source-repository-owner-uri", 17: "source-repository-owner-identifier",
	18: "build-config-uri", 19: "build-config-digest", 20: "build-trigger", 21: "run-invocation-uri",
	22: "source-repository-visibility-at-signing", 23: "deployment-environment", 24: "token-subject",
}

const fulcioArc = "1.3.6.1.4.1.57264.1."

// ExtensionNames returns the names of Fulcio's extensions, as watches use them.
func ExtensionNames() []string {
	var names []string
	for _, name := range extensionNames {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// ExtensionName returns the name under which Identity.Extensions holds an
// extension that is given by name or by dotted OID; false if it is neither.
func ExtensionName(text string) (string, bool) {
	for _, name := range extensionNames {
		if text == name && name != "" {
			return name, true
		}
	}
	if n, ok := strings.CutPrefix(text, fulcioArc); ok {
		if i, err := strconv.Atoi(n); err == nil && i >= 0 && i < len(extensionNames) && extensionNames[i] != "" {
			return extensionNames[i], true
		}
	}
	if text == fulcioArc+"1" || text == fulcioArc+"8" || text == fulcioArc+"7" || strings.HasPrefix(text, "2.5.29.") {
		return "", false // the issuer and the subjects have keys of their own; the rest says nothing of anybody
	}
	parts := strings.Split(text, ".")
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 31); err != nil || len(p) > 1 && p[0] == '0' {
			return "", false
		}
	}
	return text, len(parts) > 2
}

// DER of object identifiers that are compared as bytes.
var (
	oidFulcio   = []byte{0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01}       // 1.3.6.1.4.1.57264.1
	oidUsername = []byte{0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x07} // 1.3.6.1.4.1.57264.1.7
	oidSAN      = []byte{0x55, 0x1d, 0x11}                                           // 2.5.29.17
	oidCE       = []byte{0x55, 0x1d}                                                 // 2.5.29
	oidMail     = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01}       // 1.2.840.113549.1.9.1
	oidSCTList  = []byte{0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02} // 1.3.6.1.4.1.11129.2.4.2
)

var (
	errCertificate = errors.New("certificate cannot be read")
	errSubject     = fmt.Errorf("%w: bad subject alternative name", errCertificate)
)

// ParseCertificate reads a DER certificate that comes from elsewhere than an
// entry, as one in an entry is read. The error says what of it could not be read.
func ParseCertificate(der []byte) (Identity, error) {
	var id Identity
	err := id.parseCertificate(der)
	return id, err
}

// parseCertificate walks a DER certificate and takes what an identity needs.
// It checks less than crypto/x509 does, on purpose: a certificate that is odd
// in a place that does not matter must not hide its subject. A certificate
// whose outer form is broken leaves the identity without Certificate; one with a
// broken extension gives all the others, and an error.
func (id *Identity) parseCertificate(der []byte) error {
	if len(der) > maxCertificate {
		return fmt.Errorf("%w: %d bytes, more than %d", errCertificate, len(der), maxCertificate)
	}
	var cert, tbs, serial, validity, name, spki cryptobyte.String
	input := cryptobyte.String(der)
	if !input.ReadASN1(&cert, asn1.SEQUENCE) || !input.Empty() || !cert.ReadASN1(&tbs, asn1.SEQUENCE) {
		return fmt.Errorf("%w: not one DER sequence", errCertificate)
	}
	if !tbs.SkipOptionalASN1(asn1.Tag(0).Constructed().ContextSpecific()) ||
		!tbs.ReadASN1(&serial, asn1.INTEGER) || !tbs.SkipASN1(asn1.SEQUENCE) || // signature algorithm
		!tbs.SkipASN1(asn1.SEQUENCE) || !tbs.ReadASN1(&validity, asn1.SEQUENCE) ||
		!tbs.ReadASN1(&name, asn1.SEQUENCE) || !tbs.ReadASN1Element(&spki, asn1.SEQUENCE) {
		return fmt.Errorf("%w: its fields are not those of X.509", errCertificate)
	}
	id.Certificate, id.SPKI, id.name = der, spki, name
	var errs []error
	var ok1, ok2 bool
	id.NotBefore, ok1 = readTime(&validity)
	id.NotAfter, ok2 = readTime(&validity)
	if !ok1 || !ok2 || !validity.Empty() {
		errs = append(errs, fmt.Errorf("%w: bad validity", errCertificate))
	}
	if !tbs.SkipOptionalASN1(asn1.Tag(1).ContextSpecific()) || !tbs.SkipOptionalASN1(asn1.Tag(2).ContextSpecific()) {
		errs = append(errs, fmt.Errorf("%w: bad unique identifiers", errCertificate))
	}
	var wrapped, extensions cryptobyte.String
	var present bool
	// Others look at nothing behind the list.
	odd := !tbs.ReadOptionalASN1(&wrapped, &present, asn1.Tag(3).Constructed().ContextSpecific()) || !tbs.Empty()
	if present {
		odd = !wrapped.ReadASN1(&extensions, asn1.SEQUENCE) || !wrapped.Empty() || odd
	}
	if odd {
		errs = append(errs, fmt.Errorf("%w: bad list of extensions", errCertificate))
	}
	var seen seenOIDs
	broken := false
	for !extensions.Empty() {
		var ext, oid, value cryptobyte.String
		if !readShort(&extensions, &ext, asn1.SEQUENCE) {
			errs = append(errs, fmt.Errorf("%w: bad list of extensions", errCertificate))
			break
		}
		if seen.count == maxExtensions {
			errs = append(errs, fmt.Errorf("%w: more than %d extensions", errCertificate, maxExtensions))
			break
		}
		read := readShort(&ext, &oid, asn1.OBJECT_IDENTIFIER) && (!ext.PeekASN1Tag(asn1.BOOLEAN) || ext.SkipASN1(asn1.BOOLEAN)) &&
			readShort(&ext, &value, asn1.OCTET_STRING)
		if seen.twice(oid) {
			errs = append(errs, fmt.Errorf("%w: an extension is there twice", errCertificate))
		}
		// Others, crypto/x509 among them, look at nothing behind a value.
		broken = broken || !read || !ext.Empty()
		if !read {
			continue
		}
		if err := id.addExtension(oid, value); err != nil {
			errs = append(errs, err)
		}
	}
	if broken {
		errs = append(errs, fmt.Errorf("%w: bad extension", errCertificate))
	}
	return errors.Join(errs...)
}

// seenOIDs notices an object identifier that comes again.
type seenOIDs struct {
	count  int
	fulcio uint64 // a bit for each of Fulcio's numbers below 64
	others [][]byte
	first  [8][]byte // room for as many as there usually are
}

func (s *seenOIDs) twice(oid []byte) bool {
	s.count++
	if n := fulcioNumber(oid); n > 0 && n < 64 {
		bit := uint64(1) << n
		twice := s.fulcio&bit != 0
		s.fulcio |= bit
		return twice
	}
	for _, other := range s.others {
		if bytes.Equal(other, oid) {
			return true
		}
	}
	if s.others == nil {
		s.others = s.first[:0]
	}
	s.others = append(s.others, oid)
	return false
}

// fulcioNumber returns N of 1.3.6.1.4.1.57264.1.N, or 0.
func fulcioNumber(oid []byte) int {
	if len(oid) == len(oidFulcio)+1 && oid[len(oid)-1] < 0x80 && bytes.HasPrefix(oid, oidFulcio) {
		return int(oid[len(oid)-1])
	}
	return 0
}

func (id *Identity) addExtension(oid, value cryptobyte.String) error {
	switch {
	case bytes.Equal(oid, oidSAN):
		return id.addSubjects(value)
	case bytes.Equal(oid, oidSCTList):
		id.HasSCT = true
		return nil
	case bytes.HasPrefix(oid, oidFulcio) && len(oid) > len(oidFulcio):
		return id.addFulcio(oid, value)
	case bytes.HasPrefix(oid, oidCE):
		return nil // what every certificate has: key usage, key ids, constraints
	}
	name, ok := dotted(oid)
	if !ok {
		return fmt.Errorf("%w: bad object identifier", errCertificate)
	}
	text, ok := derString(value)
	if !ok {
		text, ok = looseString(value)
	}
	if !ok {
		text = hex.EncodeToString(value)
	}
	id.Extensions = append(id.Extensions, Extension{name, text})
	return nil
}

// addNamedMail adds the emailAddress of the certificate's subject, which signers
// of archives have in place of an alternative name (PKCS #9, RFC 2985, 5.2.1).
func (id *Identity) addNamedMail() error {
	bad := fmt.Errorf("%w: bad subject name", errCertificate)
	for name := cryptobyte.String(id.name); !name.Empty(); {
		var set cryptobyte.String
		if !name.ReadASN1(&set, asn1.SET) {
			return bad
		}
		for !set.Empty() {
			var attribute, oid, text cryptobyte.String
			var tag asn1.Tag
			if !set.ReadASN1(&attribute, asn1.SEQUENCE) || !attribute.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) || !attribute.ReadAnyASN1(&text, &tag) {
				return bad
			}
			mail := Subject{Email, textOf(text)}
			switch {
			case !bytes.Equal(oid, oidMail) || slices.Contains(id.Subjects, mail):
			case tag != asn1.IA5String && tag != asn1.UTF8String && tag != asn1.PrintableString:
				return bad
			case len(id.Subjects) == maxSubjects:
				return fmt.Errorf("%w: more than %d subjects", errCertificate, maxSubjects)
			default:
				id.Subjects = append(id.Subjects, mail)
			}
		}
	}
	return nil
}

// addFulcio reads an extension of Fulcio's by its number: what is raw and what
// is DER is never guessed, since raw text can by chance be DER too.
func (id *Identity) addFulcio(oid, value cryptobyte.String) error {
	number := fulcioNumber(oid)
	name := ""
	if number < len(extensionNames) {
		name = extensionNames[number]
	}
	known := name != ""
	if !known && number != 1 && number != 8 {
		var ok bool
		if name, ok = dotted(oid); !ok {
			return fmt.Errorf("%w: bad object identifier", errCertificate)
		}
	}
	var text string
	var bad error
	switch {
	case number >= 1 && number <= 6:
		if !utf8.Valid(value) {
			return fmt.Errorf("%w: extension %s%d is not text", errCertificate, fulcioArc, number)
		}
		text = textOf(value)
	default:
		var ok bool
		text, ok = derString(value)
		if !ok && (known || number == 8) {
			bad = fmt.Errorf("%w: extension %s%d is not a DER UTF8String", errCertificate, fulcioArc, number)
			if text, ok = looseString(value); !ok { // which others may read all the same
				return bad
			}
		}
		if !ok {
			text = hex.EncodeToString(value)
		}
	}
	if number == 1 || number == 8 {
		if len(id.Issuers) == 0 || id.Issuers[0] != text {
			id.Issuers = append(id.Issuers, text)
		}
		return bad
	}
	id.Extensions = append(id.Extensions, Extension{name, text})
	return bad
}

// readShort is s.ReadASN1, quicker for what has fewer than 128 bytes.
func readShort(s, out *cryptobyte.String, tag asn1.Tag) bool {
	b := *s
	if len(b) < 2 || b[0] != byte(tag) || b[1] >= 0x80 {
		return s.ReadASN1(out, tag)
	}
	end := 2 + int(b[1])
	if len(b) < end {
		return false
	}
	*out, *s = b[2:end], b[end:]
	return true
}

// derString reads a DER UTF8String that is the whole of value.
func derString(value cryptobyte.String) (string, bool) {
	var text cryptobyte.String
	if !readShort(&value, &text, asn1.UTF8String) || !value.Empty() || !plainASCII(text) && !utf8.Valid(text) {
		return "", false
	}
	return textOf(text), true
}

// looseString reads the other forms of text that Go's verifiers read, by the same function: those of
// ASCII and Latin-1 among them.
func looseString(value []byte) (text string, ok bool) {
	rest, err := stdasn1.Unmarshal(value, &text)
	return text, err == nil && len(rest) == 0
}

// addSubjects reads the subject alternative names (RFC 5280, 4.2.1.6).
func (id *Identity) addSubjects(value cryptobyte.String) error {
	var names cryptobyte.String
	if !value.ReadASN1(&names, asn1.SEQUENCE) {
		return errSubject
	}
	var errs []error
	if !value.Empty() {
		errs = append(errs, errSubject) // crypto/x509 looks no further, and takes the names
	}
	for !names.Empty() {
		var name cryptobyte.String
		var tag asn1.Tag
		if !names.ReadAnyASN1(&name, &tag) {
			return errors.Join(append(errs, errSubject)...)
		}
		if len(id.Subjects) == maxSubjects {
			return errors.Join(append(errs, fmt.Errorf("%w: more than %d subjects", errCertificate, maxSubjects))...)
		}
		var subject Subject
		switch tag {
		case asn1.Tag(1).ContextSpecific():
			subject = Subject{Email, textOf(name)}
		case asn1.Tag(2).ContextSpecific():
			subject = Subject{DNS, textOf(name)}
		case asn1.Tag(6).ContextSpecific():
			subject = Subject{URI, textOf(name)}
		case asn1.Tag(7).ContextSpecific():
			addr, ok := netip.AddrFromSlice(name)
			if !ok {
				errs = append(errs, errSubject)
				continue
			}
			subject = Subject{IP, addr.Unmap().String()}
		case asn1.Tag(0).Constructed().ContextSpecific():
			user, ours, ok := otherName(name)
			if !ok {
				errs = append(errs, errSubject)
			}
			if !ours || !ok {
				continue // a form of other authorities
			}
			subject = Subject{Username, user}
		case asn1.Tag(1).Constructed().ContextSpecific(), asn1.Tag(2).Constructed().ContextSpecific(),
			asn1.Tag(6).Constructed().ContextSpecific(), asn1.Tag(7).Constructed().ContextSpecific():
			errs = append(errs, errSubject) // texts in pieces, which BER allows and DER does not
			continue
		default:
			continue // directory names and the like name nobody whom a watch can name
		}
		id.Subjects = append(id.Subjects, subject)
	}
	return errors.Join(errs...)
}

// otherName reads Fulcio's user!domain form; ours is false for other forms.
func otherName(name cryptobyte.String) (user string, ours, ok bool) {
	var oid, wrapped cryptobyte.String
	if !name.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) {
		return "", false, false
	}
	if !bytes.Equal(oid, oidUsername) {
		return "", false, true
	}
	if !name.ReadASN1(&wrapped, asn1.Tag(0).Constructed().ContextSpecific()) || !name.Empty() {
		return "", true, false
	}
	user, ok = derString(wrapped)
	return user, true, ok
}

// readPlainTime reads the one form of UTCTime that nearly all certificates have,
// YYMMDDhhmmssZ, and leaves every other to readTime.
func readPlainTime(s *cryptobyte.String) (t time.Time, ok bool) {
	const length = 13
	b := []byte(*s)
	if len(b) < 2+length || b[0] != byte(asn1.UTCTime) || b[1] != length || b[1+length] != 'Z' {
		return t, false
	}
	var n [6]int
	for i := range n {
		hi, lo := b[2+2*i]-'0', b[3+2*i]-'0'
		if hi > 9 || lo > 9 {
			return t, false
		}
		n[i] = int(hi)*10 + int(lo)
	}
	year := 2000 + n[0]
	if n[0] >= 50 {
		year -= 100 // RFC 5280, 4.1.2.5.1
	}
	t = time.Date(year, time.Month(n[1]), n[2], n[3], n[4], n[5], 0, time.UTC)
	if t.Day() != n[2] || int(t.Month()) != n[1] || t.Hour() != n[3] || t.Minute() != n[4] || t.Second() != n[5] {
		return time.Time{}, false
	}
	*s = (*s)[2+length:]
	return t, true
}

// readTime reads a UTCTime or GeneralizedTime.
func readTime(s *cryptobyte.String) (t time.Time, ok bool) {
	if t, ok := readPlainTime(s); ok {
		return t, true
	}
	if s.PeekASN1Tag(asn1.UTCTime) {
		ok = s.ReadASN1UTCTime(&t)
	} else {
		ok = s.ReadASN1GeneralizedTime(&t)
	}
	return t.UTC(), ok
}

// dotted prints the contents of a DER object identifier.
func dotted(oid cryptobyte.String) (string, bool) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(oid) })
	der, err := b.Bytes()
	if err != nil {
		return "", false
	}
	s := cryptobyte.String(der)
	var id stdasn1.ObjectIdentifier
	if !s.ReadASN1ObjectIdentifier(&id) {
		return "", false
	}
	return id.String(), true
}
