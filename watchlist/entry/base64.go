package entry

import (
	"bytes"
	"encoding/base64"
	"fmt"
)

var strictBase64 = base64.StdEncoding.Strict()

// sextets gives what a character of base64 stands for in each of the four
// places of a group, already shifted to its place; notBase64 for all others.
var sextets = makeSextets()

const notBase64 = 1 << 31

func makeSextets() *[4][256]uint32 {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	t := new([4][256]uint32)
	for place := range t {
		for c := range t[place] {
			t[place][c] = notBase64
		}
		for i, c := range []byte(alphabet) {
			t[place][c] = uint32(i) << (18 - 6*place)
		}
	}
	return t
}

// decodeBase64 decodes standard base64 in its one canonical form (RFC 4648,
// section 4: padded, without line ends, unused bits zero) into dst, which must
// have room for base64.StdEncoding.DecodedLen(len(src)) bytes. Most of the time
// of reading an entry would go into it: it is half again as fast as
// encoding/base64, which decodes the last group, and whatever is wrong.
func decodeBase64(dst, src []byte) (int, error) {
	t := sextets
	n, rest, bad := 0, src, uint32(0)
	for len(rest) > 8 {
		s := rest[:8:8]
		a := t[0][s[0]] | t[1][s[1]] | t[2][s[2]] | t[3][s[3]]
		b := t[0][s[4]] | t[1][s[5]] | t[2][s[6]] | t[3][s[7]]
		bad |= a | b
		d := dst[n : n+6 : n+6]
		d[0], d[1], d[2], d[3], d[4], d[5] = byte(a>>16), byte(a>>8), byte(a), byte(b>>16), byte(b>>8), byte(b)
		n += 6
		rest = rest[8:]
	}
	if bad&notBase64 != 0 {
		rest, n = src, 0 // encoding/base64 says where
	}
	// The standard decoder skips line ends, which no canonical form has.
	if bytes.IndexByte(rest, '\n') >= 0 || bytes.IndexByte(rest, '\r') >= 0 {
		return 0, fmt.Errorf("it holds line ends")
	}
	m, err := strictBase64.Decode(dst[n:], rest)
	return n + m, err
}
