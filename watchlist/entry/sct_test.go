package entry_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// TestSCT: the promise of a certificate log in a certificate is verified, and
// whatever is wrong with it is told from its absence.
func TestSCT(t *testing.T) {
	ca, stranger := newCA(t), newCA(t)
	ct, err := testca.NewCTLog()
	if err != nil {
		t.Fatal(err)
	}
	other, _ := testca.NewCTLog()
	logOf := func(l *testca.CTLog, from, until time.Time) entry.CTLog {
		t.Helper()
		spki, err := l.SPKI()
		if err != nil {
			t.Fatal(err)
		}
		out, err := entry.NewCTLog(spki, from, until)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	identity := func(ca *testca.CA, ct *testca.CTLog) *entry.Identity {
		t.Helper()
		s := issue(t, ca, testca.Identity{Email: "a@b.example", OtherName: "u!d", Issuer: issuer, Extensions: map[int]string{11: "x"}, CT: ct})
		f, err := entry.Decode(hashedRekord(t, s))
		if err != nil {
			t.Fatal(err)
		}
		return &f.Identities[0]
	}
	trusted := authorities(t, ca)
	now := time.Now()
	for _, tc := range []struct {
		name        string
		authorities *entry.Authorities
		id          *entry.Identity
		want        entry.SCT
	}{
		{"verified", trusted.WithCTLogs(logOf(ct, time.Time{}, time.Time{})), identity(ca, ct), entry.SCTVerified},
		{"within its time", trusted.WithCTLogs(logOf(ct, now.Add(-time.Hour), now.Add(time.Hour))), identity(ca, ct), entry.SCTVerified},
		{"one of two logs", trusted.WithCTLogs(logOf(other, time.Time{}, time.Time{}), logOf(ct, time.Time{}, time.Time{})), identity(ca, ct), entry.SCTVerified},
		{"the log's first time", trusted.WithCTLogs(logOf(ct, now.Add(-time.Hour), now.Add(time.Hour)), logOf(ct, now.Add(time.Hour), time.Time{})), identity(ca, ct), entry.SCTVerified},
		{"the log's second time", trusted.WithCTLogs(logOf(ct, time.Time{}, now.Add(-time.Hour)), logOf(ct, now.Add(-time.Hour), time.Time{})), identity(ca, ct), entry.SCTVerified},
		{"before the log's time", trusted.WithCTLogs(logOf(ct, now.Add(time.Hour), time.Time{})), identity(ca, ct), entry.SCTInvalid},
		{"after the log's time", trusted.WithCTLogs(logOf(ct, time.Time{}, now.Add(-time.Hour))), identity(ca, ct), entry.SCTInvalid},
		{"another log", trusted.WithCTLogs(logOf(ct, time.Time{}, time.Time{})), identity(ca, other), entry.SCTInvalid},
		{"none", trusted.WithCTLogs(logOf(ct, time.Time{}, time.Time{})), identity(ca, nil), entry.SCTMissing},
		{"no log known", trusted, identity(ca, ct), entry.SCTUnchecked},
		{"issuer not trusted", trusted.WithCTLogs(logOf(ct, time.Time{}, time.Time{})), identity(stranger, ct), entry.SCTUnchecked},
		{"self-made", trusted.WithCTLogs(logOf(ct, time.Time{}, time.Time{})), identity(nil, ct), entry.SCTUnchecked},
	} {
		if got := tc.authorities.SCT(tc.id, time.Time{}); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
	if got := trusted.SCT(&entry.Identity{SPKI: []byte{1}}, time.Time{}); got != "" {
		t.Errorf("a bare key: %q", got)
	}
	for _, tc := range [][3]entry.SCT{{"", "", ""}, {"", entry.SCTVerified, entry.SCTVerified}, {entry.SCTMissing, entry.SCTVerified, entry.SCTMissing}, {entry.SCTUnchecked, entry.SCTInvalid, entry.SCTInvalid}} {
		if got := entry.WorstSCT(tc[0], tc[1]); got != tc[2] {
			t.Errorf("worst of %q and %q is %q", tc[0], tc[1], got)
		}
	}
	if _, err := entry.NewCTLog([]byte("x"), time.Time{}, time.Time{}); err == nil {
		t.Error("a key that is none accepted")
	}
}

// TestSCTOfAnotherCertificate: a promise that was made for another certificate
// of the same authority does not verify.
func TestSCTOfAnotherCertificate(t *testing.T) {
	ca := newCA(t)
	ct, err := testca.NewCTLog()
	if err != nil {
		t.Fatal(err)
	}
	first := issue(t, ca, testca.Identity{Email: "a@b.example", Issuer: issuer, CT: ct})
	parsed, err := x509.ParseCertificate(first.Cert)
	if err != nil {
		t.Fatal(err)
	}
	second := issue(t, ca, testca.Identity{Email: "b@b.example", Issuer: issuer, Mangle: func(c *x509.Certificate) {
		for _, e := range parsed.Extensions {
			if e.Id.String() == "1.3.6.1.4.1.11129.2.4.2" {
				c.ExtraExtensions = append(c.ExtraExtensions, e)
			}
		}
	}})
	if bytes.Equal(first.Cert, second.Cert) {
		t.Fatal("one certificate")
	}
	spki, _ := ct.SPKI()
	known, err := entry.NewCTLog(spki, time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := entry.Decode(hashedRekord(t, second))
	if err != nil {
		t.Fatal(err)
	}
	if got := authorities(t, ca).WithCTLogs(known).SCT(&f.Identities[0], time.Time{}); got != entry.SCTInvalid {
		t.Errorf("%s", got)
	}
}

// FuzzSCT puts any list of promises into a certificate of a trusted authority: none of them was signed by a
// log that is known.
func FuzzSCT(f *testing.F) {
	ca := newCA(f)
	ct, err := testca.NewCTLog()
	if err != nil {
		f.Fatal(err)
	}
	spki, err := ct.SPKI()
	if err != nil {
		f.Fatal(err)
	}
	known, err := entry.NewCTLog(spki, time.Time{}, time.Time{})
	if err != nil {
		f.Fatal(err)
	}
	trusted := authorities(f, ca).WithCTLogs(known)
	id := sha256.Sum256(spki)
	// "the id of the log is of 32 bytes" stands for that of the log that is known, which each process makes anew.
	const place = "the id of the log is of 32 bytes"
	one := slices.Concat([]byte{0}, []byte(place), make([]byte, 8), []byte{0, 0, 4, 3, 0, 4}, []byte("sign"))
	list := append([]byte{0, byte(len(one))}, one...)
	f.Add(slices.Concat([]byte{4, byte(len(list) + 2), 0, byte(len(list))}, list))
	f.Add([]byte{4, 2, 0, 0})
	oid := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}
	f.Fuzz(func(t *testing.T, list []byte) {
		defer bounds.Hold(t)()
		list = bytes.ReplaceAll(list, []byte(place), id[:])
		s, err := ca.Issue(testca.Identity{Email: "a@b.example", Issuer: issuer, Mangle: func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oid, Value: list})
		}})
		if err != nil {
			t.Skip(err)
		}
		facts, err := entry.Decode(hashedRekord(t, s))
		if err != nil {
			return
		}
		id := &facts.Identities[0]
		if got := trusted.SCT(id, time.Time{}); got != entry.SCTInvalid && got != entry.SCTUnchecked {
			t.Fatalf("%x: %s", list, got)
		}
	})
}
