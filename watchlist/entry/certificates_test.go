package entry_test

import (
	"bytes"
	"crypto/x509"
	stdasn1 "encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// holdCertificate fails if crypto/x509 reads a name or an issuer in a certificate that we do not.
func holdCertificate(t *testing.T, der []byte) (understood bool) {
	t.Helper()
	leaf, err := testca.Signer{Cert: der, Key: nil}.EntryFor()
	if err != nil {
		t.Fatal(err)
	}
	facts, err := entry.Decode(leaf)
	std, stdErr := x509.ParseCertificate(der)
	if stdErr != nil {
		return false
	}
	if len(facts.Identities) != 1 {
		t.Fatalf("crypto/x509 reads the certificate, we lost it: %v", err)
	}
	if err != nil && strings.Contains(err.Error(), "more than") {
		return true // a bound
	}
	id := facts.Identities[0]
	var want []entry.Subject
	for _, v := range std.EmailAddresses {
		want = append(want, entry.Subject{Type: entry.Email, Value: v})
	}
	for _, v := range std.DNSNames {
		want = append(want, entry.Subject{Type: entry.DNS, Value: v})
	}
	for _, v := range std.IPAddresses {
		want = append(want, entry.Subject{Type: entry.IP, Value: v.String()})
	}
	// The text of a URI, as crypto/x509 does not keep it.
	for _, e := range std.Extensions {
		var names stdasn1.RawValue
		if _, err := stdasn1.Unmarshal(e.Value, &names); !e.Id.Equal(stdasn1.ObjectIdentifier{2, 5, 29, 17}) || err != nil {
			continue
		}
		for rest := names.Bytes; len(rest) > 0; {
			var name stdasn1.RawValue
			if rest, err = stdasn1.Unmarshal(rest, &name); err != nil {
				break
			}
			if name.Class == stdasn1.ClassContextSpecific && name.Tag == 6 && !name.IsCompound && utf8.Valid(name.Bytes) {
				want = append(want, entry.Subject{Type: entry.URI, Value: string(name.Bytes)})
			}
		}
	}
	for _, s := range want {
		if !slices.Contains(id.Subjects, s) {
			t.Fatalf("subject %v is lost: %v, %v", s, id.Subjects, err)
		}
	}
	for _, e := range std.Extensions {
		var text string
		switch e.Id.String() {
		case "1.3.6.1.4.1.57264.1.1":
			text = string(e.Value)
		case "1.3.6.1.4.1.57264.1.8":
			if rest, err := stdasn1.Unmarshal(e.Value, &text); err != nil || len(rest) > 0 {
				continue
			}
		}
		if text != "" && utf8.ValidString(text) && !slices.Contains(id.Issuers, text) {
			t.Fatalf("issuer %q is lost: %q, %v", text, id.Issuers, err)
		}
	}
	return true
}

// FuzzCertificate puts any DER in the place of a certificate: whatever
// crypto/x509 can read, we read, with the same names.
func FuzzCertificate(f *testing.F) {
	ca := newCA(f)
	f.Add(issue(f, ca, testca.Identity{Email: "a@b.example", URI: "https://x.example/y", DNS: "d.example", IP: "192.0.2.1", Issuer: issuer}).Cert)
	f.Add(issue(f, nil, testca.Identity{OtherName: "u!d", Extensions: map[int]string{2: "push", 12: "z"}}).Cert)
	f.Fuzz(func(t *testing.T, der []byte) {
		defer bounds.Hold(t)()
		holdCertificate(t, der)
	})
}

// element is a part of DER; one that holds others has no bytes of its own.
type element struct {
	tag   byte
	bytes []byte
	parts []*element
	more  []byte // that come behind its parts
}

// elements takes DER apart, also what is wrapped in octet strings.
func elements(der []byte) (list []*element, ok bool) {
	for len(der) > 0 {
		var raw stdasn1.RawValue
		rest, err := stdasn1.Unmarshal(der, &raw)
		if err != nil {
			return nil, false
		}
		e := &element{tag: der[0], bytes: raw.Bytes}
		if parts, ok := elements(raw.Bytes); ok && len(parts) > 0 && (raw.IsCompound || der[0] == 0x04 && raw.Bytes[0] == 0x30) {
			e.bytes, e.parts = nil, parts
		}
		list, der = append(list, e), rest
	}
	return list, true
}

func (e *element) der() []byte {
	body := bytes.Clone(e.bytes)
	for _, p := range e.parts {
		body = append(body, p.der()...)
	}
	body = append(body, e.more...)
	head := []byte{e.tag}
	switch n := len(body); {
	case n < 0x80:
		head = append(head, byte(n))
	case n < 0x100:
		head = append(head, 0x81, byte(n))
	default:
		head = append(head, 0x82, byte(n>>8), byte(n))
	}
	return append(head, body...)
}

func (e *element) all() []*element {
	list := []*element{e}
	for _, p := range e.parts {
		list = append(list, p.all()...)
	}
	return list
}

// TestBytesBehindAnything: whatever crypto/x509 does not look at hides nobody, wherever in a certificate
// it is.
func TestBytesBehindAnything(t *testing.T) {
	ca := newCA(t)
	cert := issue(t, ca, testca.Identity{Email: "a@b.example", URI: "https://x.example/y", DNS: "d.example", IP: "192.0.2.1", Issuer: issuer}).Cert
	list, ok := elements(cert)
	if !ok || len(list) != 1 || !bytes.Equal(list[0].der(), cert) {
		t.Fatal("the certificate is not what it was once it is put together again")
	}
	understood := 0
	for i, e := range list[0].all() {
		if len(e.parts) == 0 {
			continue
		}
		for _, more := range [][]byte{{0x05, 0x00}, {0xff}, {0x30, 0x03, 0x01, 0x01, 0xff}} {
			e.more = more
			t.Run(fmt.Sprintf("%d %x", i, more), func(t *testing.T) {
				if holdCertificate(t, list[0].der()) {
					understood++
				}
			})
			e.more = nil
		}
	}
	if understood < 10 {
		t.Errorf("crypto/x509 reads %d of them: nothing is shown", understood)
	}
}
