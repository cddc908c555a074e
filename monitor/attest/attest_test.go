package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

func keys(t testing.TB) map[string]crypto.Signer {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"ecdsa": p256, "ed25519": ed}
}

func public(t testing.TB, key crypto.Signer) string {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// TestBundles: what was signed holds for the file and the key, and for nothing else; no
// byte of what is signed can be altered.
func TestBundles(t *testing.T) {
	all := keys(t)
	for name, key := range all {
		file := []byte("a report")
		doc, err := Sign(Signer{Key: key}, "report.html", file, ReportType, map[string]string{"since": "x"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Verify(doc, file, public(t, key), nil)
		if err != nil || got.Statement.PredicateType != ReportType || got.Statement.Subject[0].Name != "report.html" || string(got.Statement.Predicate) != `{"since":"x"}` {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if _, err := Verify(doc, []byte("A report"), public(t, key), nil); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: another file: %v", name, err)
		}
		if _, err := Verify(doc, file, public(t, keys(t)[name]), nil); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: another key: %v", name, err)
		}
		if _, err := Verify(doc, file, "no key", nil); err == nil || errors.Is(err, ErrSignature) {
			t.Errorf("%s: no key: %v", name, err)
		}
		var b bundle
		if err := json.Unmarshal(doc, &b); err != nil {
			t.Fatal(err)
		}
		for _, part := range []*[]byte{&b.Envelope.Payload, &b.Envelope.Signatures[0].Sig} {
			whole := *part
			for i := range whole {
				*part = bytes.Clone(whole)
				(*part)[i] ^= 1
				bad, _ := json.Marshal(b)
				if _, err := Verify(bad, file, public(t, key), nil); !errors.Is(err, ErrSignature) {
					t.Fatalf("%s: byte %d altered: %v", name, i, err)
				}
			}
			*part = whole
		}
		for old, altered := range map[string]string{mediaType: "application/json", payloadType: "text/plain", `"signatures": [`: `"signatures": [{"sig": "AA=="}, `} {
			if _, err := Verify([]byte(strings.Replace(string(doc), old, altered, 1)), file, public(t, key), nil); !errors.Is(err, ErrSignature) {
				t.Errorf("%s: %s: %v", name, altered, err)
			}
		}
		for over, want := range map[int]error{0: nil, 1: ErrSignature} {
			padded := append(bytes.Clone(doc), bytes.Repeat([]byte(" "), maxBundle-len(doc)+over)...)
			if _, err := Verify(padded, file, public(t, key), nil); !errors.Is(err, want) {
				t.Errorf("%s: %d bytes: %v", name, len(padded), err)
			}
		}
	}
}

// TestTimestampsThatFail: what an authority answers wrong is not taken.
func TestTimestampsThatFail(t *testing.T) {
	key := keys(t)["ecdsa"]
	down := errors.New("down")
	if _, err := Sign(Signer{Key: key}, "f", nil, ReportType, nil, func([]byte) ([]byte, error) { return nil, down }); !errors.Is(err, down) {
		t.Error(err)
	}
	doc, err := Sign(Signer{Key: key}, "f", nil, ReportType, nil, func([]byte) ([]byte, error) { return []byte("no token"), nil })
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Verify(doc, nil, public(t, key), nil); err != nil || got.Unchecked != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Verify(doc, nil, public(t, key), &Authorities{}); !errors.Is(err, ErrSignature) {
		t.Errorf("a token that is none: %v", err)
	}
	if _, err := ParseAuthorities("nothing"); err == nil {
		t.Error("an authority of nothing")
	}
}

// TestTokenBounds: what is longer than any token is not parsed, from whomever it comes.
func TestTokenBounds(t *testing.T) {
	defer bounds.Hold(t)()
	if _, err := (&Authorities{}).Verify(make([]byte, maxToken+1), nil); err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Error(err)
	}
	var sent int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n, _ := io.Copy(w, io.LimitReader(rand.Reader, 64<<20))
		sent = n
	}))
	defer server.Close()
	if _, err := Ask(t.Context(), server.Client(), server.URL, &Authorities{})([]byte("data")); err == nil || !strings.Contains(err.Error(), fmt.Sprint(maxToken+1)) {
		t.Errorf("a token without an end: %v", err)
	}
	server.Close()
	if sent == 64<<20 {
		t.Error("all of it was read")
	}
}

// FuzzVerify: of all documents those hold that say what was signed. $1 in an input stands for a signed one,
// which each process makes anew.
func FuzzVerify(f *testing.F) {
	f.Add([]byte(`{"mediaType":"`+mediaType+`"}`), uint16(0), []byte{})
	f.Add([]byte("$1"), uint16(0), []byte{})
	for at := range uint16(20) {
		f.Add([]byte("$1"), at*40, []byte("AAAA"))
	}
	file := []byte("a report")
	all := keys(f)
	docs, want := map[string][]byte{}, map[string]bundle{}
	for name, key := range all {
		doc, err := Sign(Signer{Key: key}, "report.html", file, ReportType, map[string]string{"since": "x"}, nil)
		if err != nil {
			f.Fatal(err)
		}
		var b bundle
		if err := json.Unmarshal(doc, &b); err != nil {
			f.Fatal(err)
		}
		docs[name], want[name] = doc, b
	}
	f.Fuzz(func(t *testing.T, doc []byte, at uint16, over []byte) {
		defer bounds.Hold(t)()
		for name, key := range all {
			filled := bytes.ReplaceAll(doc, []byte("$1"), docs[name])
			if int(at) < len(filled) {
				copy(filled[at:], over)
			}
			got, err := Verify(filled, file, public(t, key), nil)
			if err != nil {
				continue
			}
			var b bundle
			if err := json.Unmarshal(filled, &b); err != nil || !bytes.Equal(b.Envelope.Payload, want[name].Envelope.Payload) || string(got.Statement.Predicate) != `{"since":"x"}` {
				t.Fatalf("%q holds, and nobody signed it", filled)
			}
		}
	})
}

// FuzzAnswers: what authorities that issue certificates and timestamps answer, and tokens.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"signedCertificateEmbeddedSct":{"chain":{"certificates":["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]}}}`))
	f.Add([]byte("eyJ.eyJzdWIiOiJhIiwiZW1haWwiOiJiIn0.c2ln"))
	f.Add([]byte{0x30, 0x03, 0x02, 0x01, 0x00})
	f.Add([]byte{0x30, 0x80, 0x30, 0x03, 0x02, 0x01, 0x00, 0x30, 0x80})
	f.Fuzz(func(t *testing.T, answer []byte) {
		defer bounds.Hold(t)()
		if cert, err := issued(answer); err == nil && cert == nil {
			t.Error("neither a certificate nor an error")
		}
		if subject, err := subjectOf(string(answer)); err == nil && subject == "" {
			t.Error("a token of nobody")
		}
		if a, err := ParseAuthorities(string(answer)); err == nil && len(a.roots) == 0 {
			t.Error("authorities that trust nothing")
		}
		if _, err := (&Authorities{}).Verify(answer, []byte("data")); err == nil {
			t.Errorf("%x is a timestamp, and nobody is trusted", answer)
		}
	})
}
