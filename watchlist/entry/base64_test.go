package entry

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

// everyWay calls test with all that the processor has for base64, and with ever less of it.
func everyWay(test func()) {
	wide, blocks := wideAtOnce, blocksAtOnce
	defer func() { wideAtOnce, blocksAtOnce = wide, blocks }()
	test()
	wideAtOnce = false
	test()
	blocksAtOnce = false
	test()
}

// TestBase64Everywhere puts every byte into every place of texts of every length up to some blocks,
// and compares what comes of it with encoding/base64.
func TestBase64Everywhere(t *testing.T) { everyWay(func() { base64Everywhere(t) }) }

func base64Everywhere(t *testing.T) {
	t.Helper()
	raw := make([]byte, 150)
	for i := range raw {
		raw[i] = byte(i*73 + i>>2)
	}
	check := func(src []byte) {
		t.Helper()
		// Nothing may be written behind what there is room for.
		room := bytes.Repeat([]byte{0xaa}, base64.StdEncoding.DecodedLen(len(src))+40)
		dst := room[: len(room)-40 : len(room)-40]
		n, err := decodeBase64(dst, src)
		want, wantErr := strictBase64.DecodeString(string(src))
		canonical := wantErr == nil && base64.StdEncoding.EncodeToString(want) == string(src)
		if (err == nil) != canonical || canonical && !bytes.Equal(dst[:n], want) {
			t.Fatalf("%q: %q, %v; want %q, %v", src, dst[:n], err, want, wantErr)
		}
		if len(bytes.Trim(room[len(room)-40:], "\xaa")) > 0 {
			t.Fatalf("%q: written behind the end", src)
		}
	}
	for n := range raw {
		check([]byte(base64.StdEncoding.EncodeToString(raw[:n])))
	}
	for _, n := range []int{24, 47, 48, 60, 75, 100, 121} {
		src := []byte(base64.StdEncoding.EncodeToString(raw[:n]))
		for i := range src {
			was := src[i]
			for c := range 256 {
				src[i] = byte(c)
				check(src)
			}
			src[i] = was
		}
	}
	line := make([]byte, 50)
	src := []byte(base64.StdEncoding.EncodeToString(raw[:48]))
	if !decodeLine(line, src) || !bytes.Equal(line[:48], raw[:48]) {
		t.Errorf("%x", line)
	}
	for i := range src {
		was := src[i]
		for _, c := range []byte{'=', '\n', ' ', 0x80, '-', '_', 0} {
			if src[i] = c; decodeLine(line, src) {
				t.Errorf("%q is a line", src)
			}
		}
		src[i] = was
	}
}

// FuzzBase64: what is decoded is what the standard decoder makes of it, and
// nothing is taken that is not in canonical form.
func FuzzBase64(f *testing.F) {
	for _, s := range []string{"", "QQ==", "QUI=", "QUJD", "QR==", "QUJDREVGR0hJSktM", "QUJDREVGR0hJSktM\n", "QUJD\nREVGR0hJSktM", "QUJDREVGR0hJSk=M", "QUJDREVGR0hJSktMTQ=", "!!!!!!!!!!!!", strings.Repeat("QUJD", 40), strings.Repeat("z/+9", 33)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		defer bounds.Hold(t)()
		want, wantErr := strictBase64.DecodeString(string(src))
		canonical := wantErr == nil && base64.StdEncoding.EncodeToString(want) == string(src)
		everyWay(func() {
			dst := make([]byte, base64.StdEncoding.DecodedLen(len(src)))
			n, err := decodeBase64(dst, src)
			if (err == nil) != canonical || canonical && !bytes.Equal(dst[:n], want) {
				t.Fatalf("%q: %q, %v; want %q, %v", src, dst[:n], err, want, wantErr)
			}
		})
	})
}
