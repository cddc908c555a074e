package entry

import (
	"encoding/binary"
	"math"

	"golang.org/x/crypto/cryptobyte"
)

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

// Kinds of extensions: what they are numbered within.
const (
	ofFulcio  = iota // 1.3.6.1.4.1.57264.1
	ofGeneral        // 2.5.29
	ofLog            // the promise of a certificate log, by itself
	kindsOfExtensions
)

// extensions reads the extensions of a certificate: each at most once, Fulcio's, the promise of a
// log, and those that every certificate has.
func (k *Skim) extensions(list []byte) bool {
	const maxUsual = 64
	var seen [kindsOfExtensions]uint64
	for count := 0; len(list) > 0; count++ {
		kind, n, value, rest := cutUsual(list)
		if rest == nil {
			kind, n, value, rest = cutExtension(list)
		}
		if rest == nil || count == maxUsual || n >= 64 || seen[kind]&(1<<n) != 0 {
			return false
		}
		list = rest
		seen[kind] |= 1 << n
		switch {
		case kind == ofFulcio:
			if !plainASCII(value) {
				return false
			}
			k.Fulcio[n] = k.place(value)
		case kind == ofGeneral && n == int(oidSAN[2]):
			if !k.subject(value) {
				return false
			}
		}
	}
	// The issuer has two numbers, that of today last.
	const old, today = 1, 8
	before, now := k.Extension(old), k.Extension(today)
	k.Fulcio[old], k.Fulcio[today] = Place{}, Place{}
	if k.Issuer = now; now == nil {
		k.Issuer = before
	}
	return before == nil || now == nil || string(before) == string(now)
}

// place returns where in the certificate a part of it is: nothing that is cut off gets less
// capacity than there is.
func (k *Skim) place(part []byte) Place {
	from := cap(k.Certificate) - cap(part)
	return Place{uint16(from), uint16(from + len(part))}
}

// The beginnings of extensions: 06, the length of the object, the object but for its last byte.
const (
	fulcioObject    = 0x060a_2b060104_0183
	fulcioObjectEnd = 0x83bf30_01 // which has one byte in common with that
	generalObject   = 0x0603_551d
)

// cutUsual takes an extension off a list that is shorter than 128 bytes and is one of Fulcio's or
// of 2.5.29, as nearly all of them are, in fewer steps than cutExtension, to which it comes to the
// same. Without rest it is for that.
func cutUsual(list []byte) (kind, n int, value, rest []byte) {
	const shortest = 16
	if len(list) < shortest || list[0] != 0x30 || list[1] >= 0x80 {
		return 0, 0, nil, nil
	}
	end := 2 + int(list[1])
	if end > len(list) {
		return 0, 0, nil, nil
	}
	at := 0 // the value's tag
	switch {
	case binary.BigEndian.Uint64(list[2:]) == fulcioObject && binary.BigEndian.Uint32(list[9:]) == fulcioObjectEnd:
		kind, n, at = ofFulcio, int(list[13]), 14
	case binary.BigEndian.Uint32(list[2:]) == generalObject:
		kind, n, at = ofGeneral, int(list[6]), 7
		if list[7] == 0x01 && list[8] == 1 { // critical, or not
			at = 10
		}
	default:
		return 0, 0, nil, nil
	}
	if end < at+2 || list[at] != 0x04 || int(list[at+1]) != end-at-2 {
		return 0, 0, nil, nil
	}
	value = list[at+2 : end]
	if kind == ofFulcio {
		switch {
		case n == 0 || n == 7 || n >= len(extensionNames):
			return 0, 0, nil, nil
		case n >= 8: // a DER UTF8String; those before are the bytes themselves
			if len(value) < 2 || value[0] != 0x0c || int(value[1]) != len(value)-2 {
				return 0, 0, nil, nil
			}
			value = value[2:]
		}
	}
	return kind, n, value, list[end:]
}

// cutExtension takes an extension off a list; no rest: it is none of those that are known here.
func cutExtension(list []byte) (kind, n int, value, rest []byte) {
	const boolean, octets, object, sequence = 0x01, 0x04, 0x06, 0x30
	ext, rest, ok := cutDER(list, sequence)
	if !ok {
		return 0, 0, nil, nil
	}
	oid, ext, ok := cutDER(ext, object)
	if ok && len(ext) > 0 && ext[0] == boolean { // critical, or not
		_, ext, ok = cutDER(ext, boolean)
	}
	if ok {
		value, ext, ok = cutDER(ext, octets)
	}
	if !ok || len(ext) > 0 {
		return 0, 0, nil, nil
	}
	switch {
	case len(oid) == len(oidFulcio)+1 && string(oid[:len(oidFulcio)]) == string(oidFulcio):
		kind, n = ofFulcio, int(oid[len(oidFulcio)])
		if n == 0 || n == 7 || n >= len(extensionNames) {
			return 0, 0, nil, nil
		}
		if n >= 8 {
			if value, ext, ok = cutDER(value, 0x0c); !ok || len(ext) > 0 {
				return 0, 0, nil, nil
			}
		}
		return kind, n, value, rest
	case len(oid) == 3 && oid[0] == oidCE[0] && oid[1] == oidCE[1]:
		return ofGeneral, int(oid[2]), value, rest
	case string(oid) == string(oidSCTList):
		return ofLog, 0, value, rest
	}
	return 0, 0, nil, nil
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
