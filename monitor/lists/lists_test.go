package lists

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

const one = "4f0c27d2c3b7a1f8e0a3b6c9d2e5f80112233445566778899aabbccddeeff001"

func TestParse(t *testing.T) {
	got, err := Parse([]byte("\ufeff# a comment\r\n\r\n" +
		one + "\n" +
		"sha256:" + strings.ToUpper(strings.Replace(one, "4f", "5f", 1)) + "\n" +
		strings.Replace(one, "4f", "6f", 1) + "  widget.tar.gz\n" +
		strings.Replace(one, "4f", "7f", 1) + " *widget with spaces.zip\n" +
		`\` + strings.Replace(one, "4f", "8f", 1) + `  odd\nname` + "\n" +
		"SHA256 (widget (1).iso) = " + strings.Replace(one, "4f", "9f", 1) + "\n" +
		strings.Repeat("ab", 64) + "  big\n" + strings.Repeat("ab", 20) + "  old\n" + one))
	if err != nil || len(got) != 8 {
		t.Fatalf("%v, %v", got, err)
	}
	for _, want := range []string{"sha256:" + one, "sha256:5f" + one[2:], "sha256:9f" + one[2:], "sha512:" + strings.Repeat("ab", 64), "sha1:" + strings.Repeat("ab", 20)} {
		if !got[want] {
			t.Errorf("no %s", want)
		}
	}
	for _, bad := range []string{"widget.tar.gz", one[:63], one + "0", "md5:" + strings.Repeat("a", 32), "sha512:" + one, "MD5 (x) = " + one, "<html>", one + "\nwidget", "g" + one[1:]} {
		if got, err := Parse([]byte(bad)); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
	var many strings.Builder
	for i := range maxDigests + 1 {
		fmt.Fprintf(&many, "%064x\n", i)
	}
	if _, err := Parse([]byte(many.String())); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%v", err)
	}
	if _, err := Parse([]byte(strings.Repeat("a", 2<<20))); err == nil {
		t.Error("an endless line")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(one + "  file\nSHA256 (x) = " + one))
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		got, err := Parse(data)
		if err != nil {
			return
		}
		for d := range got {
			again, err := Parse([]byte(d))
			if err != nil || len(again) != 1 || !again[d] {
				t.Errorf("%q: %v, %v", d, again, err)
			}
		}
	})
}

func publicPEM(t *testing.T, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestByKey(t *testing.T) {
	list := []byte(one + "\n")
	sum256, sum384, sum512 := sha256.Sum256(list), sha512.Sum384(list), sha512.Sum512(list)
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	must := func(sig []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	pss := must(rsa.SignPSS(rand.Reader, r, crypto.SHA256, sum256[:], nil))
	for name, tc := range map[string]struct {
		key crypto.PublicKey
		sig []byte
	}{
		"P-256":   {&p256.PublicKey, must(ecdsa.SignASN1(rand.Reader, p256, sum256[:]))},
		"P-384":   {&p384.PublicKey, must(ecdsa.SignASN1(rand.Reader, p384, sum384[:]))},
		"P-521":   {&p521.PublicKey, must(ecdsa.SignASN1(rand.Reader, p521, sum512[:]))},
		"Ed25519": {ed.Public(), ed25519.Sign(ed, list)},
		"RSA":     {&r.PublicKey, must(rsa.SignPKCS1v15(rand.Reader, r, crypto.SHA256, sum256[:]))},
		"RSA-PSS": {&r.PublicKey, pss},
	} {
		verify, err := ByKey(publicPEM(t, tc.key))
		if err != nil {
			t.Fatal(err)
		}
		encoded := []byte(base64.StdEncoding.EncodeToString(tc.sig) + "\n")
		for _, sig := range [][]byte{tc.sig, encoded} {
			if err := verify(list, sig); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := verify(append([]byte{'#', '\n'}, list...), sig); err == nil {
				t.Errorf("%s: another list is taken", name)
			}
		}
		broken := append([]byte{}, tc.sig...)
		broken[len(broken)/2] ^= 1
		for _, sig := range [][]byte{nil, {}, broken, []byte("no signature")} {
			if err := verify(list, sig); err == nil {
				t.Errorf("%s: %x is taken", name, sig)
			}
		}
	}
	for _, bad := range []string{"", "no key", publicPEM(t, &p256.PublicKey)[:80], strings.Replace(publicPEM(t, &p256.PublicKey), "MF", "AA", 1)} {
		if _, err := ByKey(bad); err == nil {
			t.Errorf("%q", bad)
		}
	}
}

// TestURL: a list is taken with its signature only, and one that cannot be had or
// verified any more stays as it was.
func TestURL(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	verify, err := ByKey(publicPEM(t, &key.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	sign := func(list string) string {
		sum := sha256.Sum256([]byte(list))
		sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(sig)
	}
	var list, signature atomic.Pointer[string]
	put := func(l, s string) { list.Store(&l); signature.Store(&s) }
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := *list.Load()
		if strings.HasSuffix(r.URL.Path, ".sig") {
			text = *signature.Load()
		}
		switch text {
		case "gone":
			w.WriteHeader(404)
		case "endless":
			for range maxList/4096 + 10 {
				w.Write(make([]byte, 4096))
			}
		default:
			io.WriteString(w, text)
		}
	}))
	defer ts.Close()
	changes := 0
	l := New([]Source{{Name: "l", URL: ts.URL + "/SHA256SUMS", Signature: ts.URL + "/SHA256SUMS.sig", Every: time.Hour, Verify: verify, Client: ts.Client()}}, slog.New(slog.DiscardHandler), func() { changes++ })
	other := strings.Replace(one, "4f", "5f", 1)
	on := func(digest string) bool { _, ok := l.Listed("l", []string{"sha512:x", "sha256:" + digest}); return ok }
	if on(one) {
		t.Error("on a list that was never read")
	}
	put(one, sign(one))
	l.Load(context.Background())
	if !on(one) || on(other) || l.States()[0].Err != nil || l.States()[0].Digests != 1 || changes != 1 {
		t.Fatalf("%+v, %d changes", l.States(), changes)
	}
	for name, bad := range map[string][2]string{
		"another signature":  {one + "\n" + other, sign(one)},
		"no signature":       {one + "\n" + other, "gone"},
		"no list":            {"gone", sign(one)},
		"no end":             {"endless", sign(one)},
		"a signed web page":  {"<html>", sign("<html>")},
		"an empty signature": {one + "\n" + other, ""},
	} {
		put(bad[0], bad[1])
		l.Load(context.Background())
		if s := l.States()[0]; !on(one) || on(other) || s.Err == nil || s.Failing.IsZero() || s.Read.IsZero() {
			t.Errorf("%s: %+v", name, s)
		}
	}
	put(other, sign(other))
	l.Load(context.Background())
	if s := l.States()[0]; on(one) || !on(other) || s.Err != nil || !s.Failing.IsZero() {
		t.Errorf("%+v", s)
	}
	if _, ok := l.Listed("unknown", []string{"sha256:" + other}); ok {
		t.Error("on a list that there is not")
	}
}

// TestFile: a file is read again once it has changed, soon.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "SHA256SUMS")
	changed := make(chan struct{}, 10)
	l := New([]Source{{Name: "l", File: path}}, slog.New(slog.DiscardHandler), func() { changed <- struct{}{} })
	l.Load(context.Background())
	if <-changed; l.States()[0].Err == nil {
		t.Error("a file that there is not")
	}
	write := func(text string) {
		t.Helper()
		// Anew beside it and moved there, as release jobs do.
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		l.Load(context.Background())
	}
	write(one)
	if _, ok := l.Listed("l", []string{"sha256:" + one}); !ok {
		t.Error("not listed")
	}
	<-changed
	l.Load(context.Background())
	if len(changed) != 0 {
		t.Error("told without a change")
	}
	write("nonsense")
	<-changed
	if _, ok := l.Listed("l", []string{"sha256:" + one}); !ok || l.States()[0].Err == nil {
		t.Errorf("%+v", l.States())
	}
	write(strings.Replace(one, "4f", "5f", 1))
	<-changed
	if _, ok := l.Listed("l", []string{"sha256:" + one}); ok || l.States()[0].Err != nil {
		t.Errorf("%+v", l.States())
	}
}

// TestBounds: a list that is read as it is may have so many bytes, and no more; a key that
// takes long to check with is refused.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "SHA256SUMS")
	l := New([]Source{{Name: "l", File: path, Every: time.Hour}}, slog.New(slog.DiscardHandler), func() {})
	for _, over := range []int{0, 1} {
		line := []byte(one + "\n")
		data := append(line, bytes.Repeat([]byte("#\n"), (maxList-len(line))/2)...)
		if data = append(data, bytes.Repeat([]byte("\n"), maxList-len(data)+over)...); len(data) != maxList+over {
			t.Fatal(len(data))
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		held := bounds.Hold(t)
		l.Load(context.Background())
		held()
		if err := l.States()[0].Err; (err != nil) != (over > 0) {
			t.Errorf("%d bytes: %v", maxList+over, err)
		}
	}
	modulus := new(big.Int).Lsh(big.NewInt(1), maxRSABits+7)
	modulus.SetBit(modulus, 0, 1)
	if _, err := ByKey(publicPEM(t, &rsa.PublicKey{N: modulus, E: 65537})); err == nil || !strings.Contains(err.Error(), "more than 8192") {
		t.Errorf("a long key: %v", err)
	}
}
