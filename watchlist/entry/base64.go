package entry

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
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

// decodeGroups decodes groups of eight characters into six bytes each, as many as there are in src
// and as have room in dst with two bytes more: those are written too, and overwritten by the next
// group. Where something is no base64, bad has notBase64 in it.
func decodeGroups(dst, src []byte) (groups int, bad uint32) {
	t, to := sextets, dst
	// Where these stop, what follows finds out why.
	if n := min(len(src)/64, (len(to)-16)/48); wideAtOnce && n > 0 {
		n = decodeWide(&to[0], &src[0], n)
		to, src = to[48*n:], src[64*n:]
	}
	if n := min(len(src)/32, (len(to)-8)/24); blocksAtOnce && n > 0 {
		n = decodeBlocks(&to[0], &src[0], n)
		to, src = to[24*n:], src[32*n:]
	}
	for len(src) >= 8 && len(to) >= 8 {
		s := src[:8:8]
		a := t[0][s[0]] | t[1][s[1]] | t[2][s[2]] | t[3][s[3]]
		b := t[0][s[4]] | t[1][s[5]] | t[2][s[6]] | t[3][s[7]]
		bad |= a | b
		binary.BigEndian.PutUint64(to, uint64(a)<<40|uint64(b)<<16)
		to, src = to[6:], src[8:]
	}
	return (len(dst) - len(to)) / 6, bad
}

// decodeBase64 decodes standard base64 in its one canonical form (RFC 4648,
// section 4: padded, without line ends, unused bits zero) into dst, which must
// have room for base64.StdEncoding.DecodedLen(len(src)) bytes. Most of the time
// of reading an entry would go into it: it is half again as fast as
// encoding/base64, which decodes the last group, and whatever is wrong.
func decodeBase64(dst, src []byte) (int, error) {
	// The last group may be padded.
	groups, bad := decodeGroups(dst, src[:max(0, len(src)-1)])
	n, rest := 6*groups, src[8*groups:]
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

// decodeLine decodes a full line of PEM, 64 characters without padding, into 48 bytes of dst, which
// has room for 50.
func decodeLine(dst, src []byte) bool {
	groups, bad := decodeGroups(dst, src[:64])
	return groups == 8 && bad&notBase64 == 0
}
