package entry

import (
	"bytes"
	"encoding/base64"
	"testing"
)

// FuzzBase64: what is decoded is what the standard decoder makes of it, and
// nothing is taken that is not in canonical form.
func FuzzBase64(f *testing.F) {
	for _, s := range []string{"", "QQ==", "QUI=", "QUJD", "QR==", "QUJDREVGR0hJSktM", "QUJDREVGR0hJSktM\n", "QUJD\nREVGR0hJSktM", "QUJDREVGR0hJSk=M", "QUJDREVGR0hJSktMTQ=", "!!!!!!!!!!!!"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		dst := make([]byte, base64.StdEncoding.DecodedLen(len(src)))
		n, err := decodeBase64(dst, src)
		want, wantErr := strictBase64.DecodeString(string(src))
		canonical := wantErr == nil && base64.StdEncoding.EncodeToString(want) == string(src)
		if (err == nil) != canonical || canonical && !bytes.Equal(dst[:n], want) {
			t.Fatalf("%q: %q, %v; want %q, %v", src, dst[:n], err, want, wantErr)
		}
	})
}
