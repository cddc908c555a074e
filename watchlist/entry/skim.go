package entry

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
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
