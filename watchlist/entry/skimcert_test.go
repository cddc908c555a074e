package entry

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// certificateOf issues a certificate with all of Fulcio's extensions that testca has.
func certificateOf(t testing.TB) *x509.Certificate {
	t.Helper()
	ca, err := testca.New("ca.example", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	extensions := map[int]string{}
	for n := range extensionNames {
		if n > 1 && n != 7 && n != 8 {
			extensions[n] = "https://github.com/nobody/project"
		}
	}
	s, err := ca.Issue(testca.Identity{URI: "https://github.com/nobody/project/.github/workflows/release.yml@refs/heads/main", Issuer: "https://token.actions.githubusercontent.com", Extensions: extensions})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(s.Cert)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestUsualExtensions holds that the short way is the one that is taken: without it, everything
// would be right, and slow.
func TestUsualExtensions(t *testing.T) {
	short, long := 0, 0
	for _, ext := range certificateOf(t).Extensions {
		der, err := asn1.Marshal(ext)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, rest := cutUsual(der); rest != nil {
			short++
		} else {
			long++
			t.Logf("the long way: %v", ext.Id)
		}
		same(t, der)
	}
	if short < 20 || long > 2 {
		t.Errorf("%d extensions went the short way, %d the long one", short, long)
	}
}

// same holds that an extension is the same both ways, if the short one takes it.
func same(t *testing.T, list []byte) {
	t.Helper()
	kind, n, value, rest := cutUsual(list)
	if rest == nil {
		return
	}
	kind2, n2, value2, rest2 := cutExtension(list)
	if rest2 == nil || kind != kind2 || n != n2 || !bytes.Equal(value, value2) || !bytes.Equal(rest, rest2) || cap(value) != cap(value2) {
		t.Fatalf("%x: %d %d %x %x, by the long way %d %d %x %x", list, kind, n, value, rest, kind2, n2, value2, rest2)
	}
}

func FuzzExtension(f *testing.F) {
	for _, ext := range certificateOf(f).Extensions {
		der, err := asn1.Marshal(ext)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
		for i := range min(len(der), 20) {
			damaged := bytes.Clone(der)
			damaged[i] ^= 1 << (i % 8)
			f.Add(append(damaged, der...))
		}
	}
	f.Fuzz(func(t *testing.T, list []byte) {
		defer bounds.Hold(t)()
		same(t, list)
	})
}
