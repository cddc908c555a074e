package entry

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math"

	"golang.org/x/crypto/cryptobyte"
)

// Skim is what a watchlist can be interested in of an entry of the usual shape. All of it is
// memory that the next entry overwrites.
type Skim struct {
	// Kind is that of Facts.
	Kind string
	// Digests are the SHA-256 hashes of Facts.Digests.
	Digests [][32]byte
	// KeyOnly says that a bare key has signed; otherwise there is a Certificate, and one Subject
	// of it, an e-mail address or a URI. Issuer is nil where it names none.
	KeyOnly           bool
	SPKI, Certificate []byte
	Subject           []byte
	Type              SubjectType
	Issuer            []byte
	// Fulcio says where in Certificate Fulcio's extensions are, by ExtensionNumber.
	Fulcio [len(extensionNames)]Place
}

// Place is a part of a certificate, up to To; zero where there is none.
type Place struct{ From, To uint16 }

// Extension returns the value of one of Fulcio's extensions, by ExtensionNumber; nil: there is
// none of that number.
func (k *Skim) Extension(number int) []byte {
	at := k.Fulcio[number]
	if at.To == 0 {
		return nil
	}
	return k.Certificate[at.From:at.To]
}

// Skimmer reads entries of the shapes that logs hold nearly always, in one pass and without
// allocating anything: hashedrekord and dsse of Rekor v1 and v2 as the servers write them, with
// one signature, by a certificate as Fulcio issues them or by a bare key. It is not for use by
// several goroutines.
//
// Its invariant: what it takes, Decode understands in full, with one identity and without
// warnings, and sees the same in it. Whatever is unusual in any way it leaves to Decode, which
// decides alone what an entry says. So it compares with what is expected, byte by byte, and
// judges nothing.
type Skimmer struct {
	skim    Skim
	digests [2][32]byte
	der     []byte // what base64 was decoded to
	pem     []byte // the PEM text of Rekor v1
}

// The parts of entries, in the order in which canonical JSON (RFC 8785) has them.
const (
	skimHashed2   = `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":"`
	skimDSSE2     = `{"apiVersion":"0.0.2","kind":"dsse","spec":{"dsseV002":{"payloadHash":{"algorithm":"SHA2_256","digest":"`
	skimHashed1   = `{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"`
	skimDSSE1     = `{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"`
	skimPayload1  = `"},"payloadHash":{"algorithm":"sha256","value":"`
	skimVerifier2 = `","verifier":{"keyDetails":"`
	certificate2  = `","x509Certificate":{"rawBytes":"`
	key2          = `","publicKey":{"rawBytes":"`

	beginCertificate = "-----BEGIN CERTIFICATE-----\n"
	endCertificate   = "-----END CERTIFICATE-----\n"
	beginKey         = "-----BEGIN PUBLIC KEY-----\n"
	endKey           = "-----END PUBLIC KEY-----\n"
)

// Skim reads a leaf; false: it is for Decode.
func (s *Skimmer) Skim(leaf []byte) (*Skim, bool) {
	k := &s.skim
	*k = Skim{Digests: s.digests[:0]}
	ok := false
	switch {
	case len(leaf) > maxBody:
	case hasPrefix(leaf, skimHashed2):
		k.Kind = "hashedrekord"
		ok = s.body2(leaf[len(skimHashed2):], `"},"signature":{"content":"`, `"}}}}}}`)
	case hasPrefix(leaf, skimDSSE2):
		k.Kind = "dsse"
		ok = s.body2(leaf[len(skimDSSE2):], `"},"signatures":[{"content":"`, `"}}}]}}}`)
	case hasPrefix(leaf, skimHashed1):
		k.Kind = "hashedrekord"
		rest, good := s.hexDigest(leaf[len(skimHashed1):])
		if rest, good = cutPrefix(rest, `"}},"signature":{"content":"`, good); good {
			if rest, good = skipText(rest, `","publicKey":{"content":"`); good {
				ok = s.pemText(rest, `"}}}}`)
			}
		}
	case hasPrefix(leaf, skimDSSE1):
		k.Kind = "dsse"
		envelope, good := cutHex(leaf[len(skimDSSE1):])
		rest, good := cutPrefix(leaf[len(skimDSSE1)+len(envelope):], skimPayload1, good)
		if good {
			// Decode has the hash of the payload first.
			if rest, good = s.hexDigest(rest); good && s.addHex(envelope) {
				if rest, good = cutPrefix(rest, `"},"signatures":[{"signature":"`, true); good {
					if rest, good = skipText(rest, `","verifier":"`); good {
						ok = s.pemText(rest, `"}]}}`)
					}
				}
			}
		}
	}
	return k, ok
}

// body2 reads what follows the beginning of an entry of Rekor v2: digest, signature, verifier.
func (s *Skimmer) body2(rest []byte, signature, end string) bool {
	const digest = 44 // characters
	if len(rest) < digest {
		return false
	}
	var sum [33]byte
	if n, err := decodeBase64(sum[:], rest[:digest]); err != nil || n != 32 {
		return false
	}
	s.skim.Digests = append(s.skim.Digests, [32]byte(sum[:32]))
	rest, ok := cutPrefix(rest[digest:], signature, true)
	if !ok {
		return false
	}
	if rest, ok = skipText(rest, skimVerifier2); !ok {
		return false
	}
	at := bytes.IndexByte(rest, '"')
	if at < 0 || !plainText(rest[:at]) { // the name of an algorithm
		return false
	}
	rest, bare := rest[at:], false
	if hasPrefix(rest, certificate2) {
		rest = rest[len(certificate2):]
	} else if rest, bare = cutPrefix(rest, key2, true); !bare {
		return false
	}
	// What follows the base64 is known, so that nobody has to look for its end: a quotation mark
	// in it is no base64.
	if rest, ok = cutSuffix(rest, end); !ok {
		return false
	}
	der, ok := s.decoded(&s.der, rest)
	if !ok {
		return false
	}
	if bare {
		return s.bareKey(der)
	}
	return s.skim.certificate(der)
}

// decoded decodes base64 into one of the buffers.
func (s *Skimmer) decoded(buf *[]byte, text []byte) ([]byte, bool) {
	if n := base64.StdEncoding.DecodedLen(len(text)); cap(*buf) < n {
		*buf = make([]byte, max(n, 4096))
	}
	n, err := decodeBase64((*buf)[:cap(*buf)], text)
	return (*buf)[:n], err == nil && n > 0
}

// pemText reads base64 of PEM with one certificate or key, as servers of Rekor v1 write it.
func (s *Skimmer) pemText(rest []byte, end string) bool {
	rest, ok := cutSuffix(rest, end)
	if !ok {
		return false
	}
	text, ok := s.decoded(&s.pem, rest)
	if !ok {
		return false
	}
	bare, close := false, endCertificate
	if hasPrefix(text, beginCertificate) {
		text = text[len(beginCertificate):]
	} else if text, bare = cutPrefix(text, beginKey, true); bare {
		close = endKey
	} else {
		return false
	}
	if text, ok = cutSuffix(text, close); !ok {
		return false
	}
	der, ok := s.lines(text)
	if !ok {
		return false
	}
	if bare {
		return s.bareKey(der)
	}
	return s.skim.certificate(der)
}

// lines decodes the lines of PEM: 64 characters each, the last one may be shorter (RFC 7468).
func (s *Skimmer) lines(text []byte) ([]byte, bool) {
	const line, decoded = 64, 48
	if cap(s.der) < len(text)+8 {
		s.der = make([]byte, max(len(text)+8, 4096))
	}
	out, n := s.der[:cap(s.der)], 0
	for len(text) > line+1 {
		if text[line] != '\n' || !decodeLine(out[n:], text[:line]) {
			return nil, false
		}
		n += decoded
		text = text[line+1:]
	}
	if len(text) < 2 || text[len(text)-1] != '\n' {
		return nil, false
	}
	m, err := decodeBase64(out[n:], text[:len(text)-1])
	return out[:n+m], err == nil && m > 0
}

func (s *Skimmer) bareKey(der []byte) bool {
	if _, rest, ok := cutDER(der, 0x30); !ok || len(rest) > 0 {
		return false
	}
	s.skim.KeyOnly, s.skim.SPKI = true, der
	return true
}

// hexDigest reads 64 hex digits in lower case.
func (s *Skimmer) hexDigest(rest []byte) ([]byte, bool) {
	digits, ok := cutHex(rest)
	return rest[len(digits):], ok && s.addHex(digits)
}

// cutHex returns as many digits as a SHA-256 has.
func cutHex(rest []byte) ([]byte, bool) {
	const digits = 64
	if len(rest) < digits {
		return nil, false
	}
	return rest[:digits], true
}

func (s *Skimmer) addHex(digits []byte) bool {
	var sum [32]byte
	_, err := hex.Decode(sum[:], digits)
	s.skim.Digests = append(s.skim.Digests, sum)
	return err == nil
}

func hasPrefix(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
}

func cutPrefix(b []byte, prefix string, ok bool) ([]byte, bool) {
	if !ok || !hasPrefix(b, prefix) {
		return b, false
	}
	return b[len(prefix):], true
}

func cutSuffix(b []byte, suffix string) ([]byte, bool) {
	n := len(b) - len(suffix)
	if n < 0 || string(b[n:]) != suffix {
		return b, false
	}
	return b[:n], true
}

// skipText skips a JSON string that nobody reads, the signature, and what follows it.
func skipText(b []byte, then string) ([]byte, bool) {
	at := bytes.IndexByte(b, '"')
	if at < 0 || !plainText(b[:at]) {
		return b, false
	}
	return cutPrefix(b[at:], then, true)
}

// plainText reports whether the inside of a JSON string stands for itself.
func plainText(b []byte) bool { return plainASCII(b) && bytes.IndexByte(b, '\\') < 0 }

// ExtensionNumber returns N for the name of Fulcio's extension 1.3.6.1.4.1.57264.1.N; 0 if it
// is none.
func ExtensionNumber(name string) int {
	for n, known := range extensionNames {
		if known == name && name != "" {
			return n
		}
	}
	return 0
}

// cutDER takes an element with a tag of one byte off b: a definite length in as few bytes as
// can be, below 64 kB.
func cutDER(b []byte, tag byte) (content, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != tag {
		return nil, nil, false
	}
	head, n := 2, int(b[1])
	if n >= 0x80 {
		switch {
		case n == 0x81 && len(b) > 2 && b[2] >= 0x80:
			head, n = 3, int(b[2])
		case n == 0x82 && len(b) > 3 && b[2] != 0:
			head, n = 4, int(b[2])<<8|int(b[3])
		default:
			return nil, nil, false
		}
	}
	if n += head; n > len(b) {
		return nil, nil, false
	}
	return b[head:n], b[n:], true
}

// certificate walks a certificate as Fulcio issues them.
func (k *Skim) certificate(der []byte) bool {
	const (
		integer, sequence, explicit3, context0 = 0x02, 0x30, 0xa3, 0xa0
	)
	cert, rest, ok := cutDER(der, sequence)
	if !ok || len(rest) > 0 || len(der) > math.MaxUint16 {
		return false
	}
	tbs, _, ok := cutDER(cert, sequence)
	if !ok {
		return false
	}
	if len(tbs) > 0 && tbs[0] == context0 { // version
		if _, tbs, ok = cutDER(tbs, context0); !ok {
			return false
		}
	}
	var validity []byte
	for i, tag := range [...]byte{integer, sequence, sequence, sequence, sequence} { // serial, algorithm, issuer, validity, subject
		var content []byte
		if content, tbs, ok = cutDER(tbs, tag); !ok {
			return false
		}
		if i == 3 {
			validity = content
		}
	}
	if !skimValidity(validity) {
		return false
	}
	before := tbs
	if _, tbs, ok = cutDER(tbs, sequence); !ok {
		return false
	}
	k.Certificate, k.SPKI = der, before[:len(before)-len(tbs)]
	wrapped, rest, ok := cutDER(tbs, explicit3)
	if !ok || len(rest) > 0 {
		return false
	}
	extensions, rest, ok := cutDER(wrapped, sequence)
	return ok && len(rest) == 0 && k.extensions(extensions) && k.Subject != nil
}

// skimValidity reports whether a validity is two times of the usual form.
func skimValidity(validity []byte) bool {
	if len(validity) != 2*15 {
		return false
	}
	return plainDay(validity[:15]) && plainDay(validity[15:]) || readsAsTimes(validity)
}

func readsAsTimes(validity []byte) bool {
	s := cryptobyte.String(validity)
	_, ok := readPlainTime(&s)
	if ok {
		_, ok = readPlainTime(&s)
	}
	return ok
}

// plainDay reports whether a UTCTime is of the form YYMMDDhhmmssZ, on one of the days that every
// month has.
func plainDay(b []byte) bool {
	if b[0] != 0x17 || b[1] != 13 || b[14] != 'Z' {
		return false
	}
	for _, c := range b[2:14] {
		if c-'0' > 9 {
			return false
		}
	}
	two := func(i int) byte { return (b[i]-'0')*10 + b[i+1] - '0' }
	month, day := two(4), two(6)
	return month >= 1 && month <= 12 && day >= 1 && day <= 28 && two(8) < 24 && two(10) < 60 && two(12) < 60
}

// extensions reads the extensions of a certificate: each at most once, Fulcio's, the promise of a
// log, and those that every certificate has.
func (k *Skim) extensions(list []byte) bool {
	const (
		boolean, octets, object, sequence = 0x01, 0x04, 0x06, 0x30
		maxUsual                          = 64
	)
	var seen [3]uint64 // of Fulcio's, of 2.5.29, of others
	var issuer [2][]byte
	for count := 0; len(list) > 0; count++ {
		if count == maxUsual {
			return false
		}
		if n, value, rest := cutFulcio(list); n > 0 {
			if seen[0]&(1<<n) != 0 || !plainASCII(value) {
				return false
			}
			seen[0] |= 1 << n
			k.Fulcio[n] = k.place(value)
			list = rest
			continue
		}
		ext, rest, ok := cutDER(list, sequence)
		if !ok {
			return false
		}
		list = rest
		oid, ext, ok := cutDER(ext, object)
		if !ok {
			return false
		}
		if len(ext) > 0 && ext[0] == boolean { // critical, or not
			if _, ext, ok = cutDER(ext, boolean); !ok {
				return false
			}
		}
		value, ext, ok := cutDER(ext, octets)
		if !ok || len(ext) > 0 {
			return false
		}
		var class, n int
		switch {
		case len(oid) == len(oidFulcio)+1 && string(oid[:len(oidFulcio)]) == string(oidFulcio):
			class, n = 0, int(oid[len(oidFulcio)])
			if n == 0 || n == 7 || n >= len(extensionNames) {
				return false
			}
			if n >= 8 { // a DER UTF8String; those before are the bytes themselves
				if value, ext, ok = cutDER(value, 0x0c); !ok || len(ext) > 0 {
					return false
				}
			}
			if !plainASCII(value) {
				return false
			}
			switch n {
			case 1:
				issuer[0] = value
			case 8:
				issuer[1] = value
			default:
				k.Fulcio[n] = k.place(value)
			}
		case len(oid) == 3 && oid[0] == oidCE[0] && oid[1] == oidCE[1]:
			class, n = 1, int(oid[2])
			if n == int(oidSAN[2]) && !k.subject(value) {
				return false
			}
		case string(oid) == string(oidSCTList):
			class, n = 2, 0
		default:
			return false
		}
		if n >= 64 || seen[class]&(1<<n) != 0 {
			return false
		}
		seen[class] |= 1 << n
	}
	k.Issuer = issuer[0]
	if issuer[1] != nil {
		if issuer[0] != nil && string(issuer[0]) != string(issuer[1]) {
			return false
		}
		k.Issuer = issuer[1]
	}
	return true
}

// place returns where in the certificate a part of it is: nothing that is cut off gets less
// capacity than there is.
func (k *Skim) place(part []byte) Place {
	from := cap(k.Certificate) - cap(part)
	return Place{uint16(from), uint16(from + len(part))}
}

// cutFulcio takes one of Fulcio's extensions, whose length and number are below 128 and which are
// not critical, off a list. They are most of a certificate, so that this is worth its while: n is
// 0 where extensions is to find out what is there.
func cutFulcio(list []byte) (n int, value, rest []byte) {
	// 30 length, 06 0a and the object, 04 length, the value
	const at, object, ending = 16, 0x060a_2b060104_0183, 0x83bf30_01
	if len(list) < at || list[0] != 0x30 || list[1] >= 0x80 {
		return 0, nil, nil
	}
	end := 2 + int(list[1])
	if end < at || end > len(list) ||
		binary.BigEndian.Uint64(list[2:]) != object || binary.BigEndian.Uint32(list[9:]) != ending ||
		list[14] != 0x04 || int(list[15]) != end-at {
		return 0, nil, nil
	}
	n, value = int(list[13]), list[at:end]
	switch {
	case n <= 1 || n == 7 || n == 8 || n >= len(extensionNames): // 1 and 8 are issuers
		return 0, nil, nil
	case n > 8: // a DER UTF8String
		if len(value) < 2 || value[0] != 0x0c || int(value[1]) != len(value)-2 {
			return 0, nil, nil
		}
		value = value[2:]
	}
	return n, value, list[end:]
}

// subject reads a list of alternative names with one name.
func (k *Skim) subject(value []byte) bool {
	names, rest, ok := cutDER(value, 0x30)
	if !ok || len(rest) > 0 || len(names) == 0 {
		return false
	}
	switch names[0] {
	case 0x81:
		k.Type = Email
	case 0x86:
		k.Type = URI
	default:
		return false
	}
	k.Subject, rest, ok = cutDER(names, names[0])
	return ok && len(rest) == 0
}
