package entry

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

// says fails unless an error tells of a bound.
func says(t *testing.T, what string, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want %q", what, err, text)
	}
}

// TestBoundsOfJSON: what is just within the bounds is read, and one more is refused for
// that alone.
func TestBoundsOfJSON(t *testing.T) {
	defer bounds.Hold(t)()
	var p parser
	nested := func(n int) []byte { return []byte(strings.Repeat("[", n) + "1" + strings.Repeat("]", n)) }
	many := func(n int) []byte { return []byte("[1" + strings.Repeat(",1", n-2) + "]") }
	long := func(n int) []byte { return append([]byte("[1]"), bytes.Repeat([]byte(" "), n-3)...) }
	for _, c := range []struct {
		what       string
		good, over []byte
		says       string
	}{
		{"depth", nested(maxDepth), nested(maxDepth + 1), "nested"},
		{"values", many(maxNodes), many(maxNodes + 1), "too many"},
		{"bytes", long(maxBody), long(maxBody + 1), "more than 1048576"},
	} {
		if _, err := p.parse(c.good); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		_, err := p.parse(c.over)
		says(t, c.what, err, c.says)
	}
}

// selfSigned makes a certificate.
func selfSigned(t *testing.T, extensions ...pkix.Extension) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), ExtraExtensions: extensions}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestBoundsOfCertificates: long ones, ones with many extensions, and keys whose use takes long.
func TestBoundsOfCertificates(t *testing.T) {
	defer bounds.Hold(t)()
	padded := func(n int) []byte {
		return selfSigned(t, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: make([]byte, n)})
	}
	var id Identity
	if err := id.parseCertificate(padded(60 << 10)); err != nil {
		t.Errorf("60 KiB: %v", err)
	}
	says(t, "70 KiB", id.parseCertificate(padded(70<<10)), "more than 65536")
	with := func(n int) []byte {
		var list []pkix.Extension
		for i := range n {
			list = append(list, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4, i}, Value: []byte{5, 0}})
		}
		return selfSigned(t, list...)
	}
	id = Identity{}
	if err := id.parseCertificate(with(maxExtensions)); err != nil {
		t.Errorf("%d extensions: %v", maxExtensions, err)
	}
	id = Identity{}
	says(t, "one extension more", id.parseCertificate(with(maxExtensions+1)), "more than 128 extensions")
	// The key of a certificate need not be one that anybody has.
	modulus := new(big.Int).Lsh(big.NewInt(1), maxRSABits+7)
	modulus.SetBit(modulus, 0, 1)
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &rsa.PublicKey{N: modulus, E: 65537}, signer)
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAuthorities(Authority{Chain: []*x509.Certificate{mustParse(t, selfSigned(t))}})
	if err != nil {
		t.Fatal(err)
	}
	id = Identity{}
	if err := id.parseCertificate(der); err != nil {
		t.Fatal(err)
	}
	_, err = a.verifyAnew(&id, time.Now())
	says(t, "RSA key", err, "more than 8192")
}

func mustParse(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestBoundsOfPGP: rings of very many packets, and packets that would have to be inflated.
func TestBoundsOfPGP(t *testing.T) {
	defer bounds.Hold(t)()
	var many bytes.Buffer
	for i := range 10*maxKeys + 1 {
		if err := packet.NewUserId(fmt.Sprint(i), "", "a@b.example").Serialize(&many); err != nil {
			t.Fatal(err)
		}
	}
	d := new(Decoder)
	says(t, "many packets", d.addPackets(&many), "more than 1000 packets")
	var inner, zipped bytes.Buffer
	w, err := packet.SerializeCompressed(nopCloser{&zipped}, packet.CompressionZIP, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := packet.NewUserId("x", "", "hidden@b.example").Serialize(&inner); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(inner.Bytes()); err != nil {
		t.Fatal(err)
	}
	w.Close()
	d = new(Decoder)
	if err := d.addPackets(&zipped); err != nil || len(d.facts.Identities) != 0 {
		t.Errorf("a compressed packet was inflated: %+v, %v", d.facts.Identities, err)
	}
}

type nopCloser struct{ *bytes.Buffer }

func (nopCloser) Close() error { return nil }

// TestBrokenExtensions: one that cannot be read, or that has bytes behind its value, hides no other one.
func TestBrokenExtensions(t *testing.T) {
	names, err := asn1.Marshal([]asn1.RawValue{{Class: 2, Tag: 1, Bytes: []byte("who@acme.example")}})
	if err != nil {
		t.Fatal(err)
	}
	odd := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: []byte{0x0c, 2, 'h', 'i', 0, 0}}
	genuine := selfSigned(t, odd, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: names})
	at := bytes.Index(genuine, []byte{0x06, 3, 0x2a, 3, 4, 0x04, 6, 0x0c})
	for what, change := range map[string]func(der []byte){
		"bytes behind the value": func(der []byte) { der[at+6] = 4 },
		"another tag":            func(der []byte) { der[at] = 0x05 },
		"no value":               func(der []byte) { der[at+5] = 0x0c },
		"too long a value":       func(der []byte) { der[at+6] = 100 },
	} {
		der := bytes.Clone(genuine)
		change(der)
		var id Identity
		says(t, what, id.parseCertificate(der), "bad extension")
		if len(id.Subjects) != 1 || id.Subjects[0].Value != "who@acme.example" {
			t.Errorf("%s: subjects %v", what, id.Subjects)
		}
		if text, ok := id.Extension("1.2.3.4"); ok != (what == "bytes behind the value") || ok && text != "hi" {
			t.Errorf("%s: %q", what, text)
		}
	}
}
