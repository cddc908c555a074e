package entry_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// skimmed compares what a skimmer sees in a leaf with what is in it, and reports whether it takes
// it. Whatever it takes has to be understood in full, and to say the same.
func skimmed(t testing.TB, s *entry.Skimmer, leaf []byte) bool {
	t.Helper()
	k, ok := s.Skim(leaf)
	if !ok {
		return false
	}
	f, err := entry.Decode(leaf)
	if err != nil || len(f.Warnings) > 0 || len(f.Identities) != 1 {
		t.Fatalf("skimmed, and yet: %v, %q, %d identities\n%s", err, f.Warnings, len(f.Identities), leaf)
	}
	id := &f.Identities[0]
	var digests []string
	for _, d := range k.Digests {
		digests = append(digests, fmt.Sprintf("sha256:%x", d))
	}
	var extensions []entry.Extension
	for n := range k.Fulcio {
		if value := k.Extension(n); value != nil {
			name, known := entry.ExtensionName(fmt.Sprintf("1.3.6.1.4.1.57264.1.%d", n))
			if !known || entry.ExtensionNumber(name) != n {
				t.Fatalf("extension %d is called %q", n, name)
			}
			extensions = append(extensions, entry.Extension{Name: name, Value: string(value)})
		}
	}
	want := slices.SortedFunc(slices.Values(id.Extensions), func(a, b entry.Extension) int {
		return entry.ExtensionNumber(a.Name) - entry.ExtensionNumber(b.Name)
	})
	var subjects []entry.Subject
	if k.Subject != nil {
		subjects = []entry.Subject{{Type: k.Type, Value: string(k.Subject)}}
	}
	var issuers []string
	if k.Issuer != nil {
		issuers = []string{string(k.Issuer)}
	}
	if k.Kind != f.Kind || !slices.Equal(digests, f.Digests) || k.KeyOnly != f.KeyOnly() || !bytes.Equal(k.SPKI, id.SPKI) || !bytes.Equal(k.Certificate, id.Certificate) ||
		!slices.Equal(extensions, want) || !slices.Equal(subjects, id.Subjects) || !slices.Equal(issuers, id.Issuers) || id.Format != "" {
		t.Fatalf("skimmed as %+v\nwhich is %+v\n%s", k, f, leaf)
	}
	return true
}

// shapes are the leaves that a skimmer takes, made of one certificate or key.
func shapes(der []byte, bare bool) map[string][]byte {
	kind, verifier := "CERTIFICATE", `{"keyDetails":"PKIX_ECDSA_P256_SHA_256","x509Certificate":{"rawBytes":"`+b64(der)+`"}}`
	if bare {
		kind, verifier = "PUBLIC KEY", `{"keyDetails":"PKIX_ED25519","publicKey":{"rawBytes":"`+b64(der)+`"}}`
	}
	sum := sha256.Sum256([]byte("artifact"))
	digest, text := b64(sum[:]), b64(pemOf(kind, der))
	return map[string][]byte{
		"hashedrekord 0.0.2": []byte(`{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":"` + digest + `"},"signature":{"content":"c2ln","verifier":` + verifier + `}}}}`),
		"dsse 0.0.2":         []byte(`{"apiVersion":"0.0.2","kind":"dsse","spec":{"dsseV002":{"payloadHash":{"algorithm":"SHA2_256","digest":"` + digest + `"},"signatures":[{"content":"c2ln","verifier":` + verifier + `}]}}}`),
		"hashedrekord 0.0.1": []byte(`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"` + hex.EncodeToString(sum[:]) + `"}},"signature":{"content":"c2ln","publicKey":{"content":"` + text + `"}}}}`),
		"dsse 0.0.1":         []byte(`{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"` + sha([]byte("envelope")) + `"},"payloadHash":{"algorithm":"sha256","value":"` + hex.EncodeToString(sum[:]) + `"},"signatures":[{"signature":"c2ln","verifier":"` + text + `"}]}}`),
	}
}

func usual(t testing.TB) (cert, mail, key []byte) {
	t.Helper()
	ca := newCA(t)
	ct, err := testca.NewCTLog()
	if err != nil {
		t.Fatal(err)
	}
	extensions := map[int]string{}
	for n := 2; n <= 24; n++ {
		if n != 7 && n != 8 {
			extensions[n] = fmt.Sprintf("value %d", n)
		}
	}
	bare, err := testca.BareKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err = bare.SPKI()
	if err != nil {
		t.Fatal(err)
	}
	return issue(t, ca, testca.Identity{URI: "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1", Issuer: issuer, Extensions: extensions, CT: ct}).Cert,
		issue(t, ca, testca.Identity{Email: "alice@acme.example", Issuer: "https://accounts.google.com"}).Cert, key
}

// TestSkim: what logs hold nearly always is skimmed, without allocating anything, and what is
// unusual in any way is left to Decode.
func TestSkim(t *testing.T) {
	cert, mail, key := usual(t)
	var s entry.Skimmer
	for name, der := range map[string][]byte{"workflow": cert, "mail": mail, "key": key} {
		for kind, leaf := range shapes(der, name == "key") {
			if !skimmed(t, &s, leaf) {
				t.Errorf("%s by %s is not skimmed\n%s", kind, name, leaf)
			}
			if n := testing.AllocsPerRun(10, func() { s.Skim(leaf) }); n != 0 {
				t.Errorf("%s by %s: %v allocations", kind, name, n)
			}
			for what, other := range map[string][]byte{
				"space":         bytes.Replace(leaf, []byte(`"spec":`), []byte(`"spec": `), 1),
				"a member more": bytes.Replace(leaf, []byte(`"spec":`), []byte(`"x":1,"spec":`), 1),
				"an escape":     bytes.Replace(leaf, []byte("c2ln"), []byte(`c2l\u006e`), 1),
				"what follows":  append(bytes.Clone(leaf), ' '),
				"broken off":    leaf[:len(leaf)-1],
				"another kind":  bytes.Replace(leaf, []byte(`"kind":"`), []byte(`"kind":"x`), 1),
				"longer":        append([]byte(strings.Repeat(" ", 1<<20)), leaf...),
			} {
				if _, ok := s.Skim(other); ok {
					t.Errorf("%s by %s with %s is skimmed", kind, name, what)
				}
			}
		}
	}
	ca := newCA(t)
	for name, id := range map[string]testca.Identity{
		"two names":         {Email: "a@b.example", URI: "https://x.example", Issuer: issuer},
		"a host name":       {DNS: "d.example", Issuer: issuer},
		"a user name":       {OtherName: "u!d", Issuer: issuer},
		"another extension": {Email: "a@b.example", Issuer: issuer, Extensions: map[int]string{40: "x"}},
	} {
		for kind, leaf := range shapes(issue(t, ca, id).Cert, false) {
			if _, ok := s.Skim(leaf); ok {
				t.Errorf("%s with %s is skimmed", kind, name)
			}
		}
	}
	// No issuer is usual enough.
	for kind, leaf := range shapes(issue(t, ca, testca.Identity{Email: "a@b.example"}).Cert, false) {
		if !skimmed(t, &s, leaf) {
			t.Errorf("%s without an issuer is not skimmed", kind)
		}
	}
}

// TestSkimOfReal: entries of the public instance are skimmed.
func TestSkimOfReal(t *testing.T) {
	dir := os.Getenv("SIGWARDEN_REALDATA")
	if dir == "" {
		t.Skip("SIGWARDEN_REALDATA is not set: real bundles are not read")
	}
	var s entry.Skimmer
	for _, name := range []string{"bundle-v1-hashedrekord-2023-timestamp-extension.json", "bundle-v1-hashedrekord-2024-shard2605.json", "bundle-v1-dsse-2024-shard1193.json", "bundle-v2-production-hashedrekord002.json", "bundle-v2-staging-alpha1-hashedrekord.json"} {
		if leaf := bodyOf(t, filepath.Join(dir, name)); !skimmed(t, &s, leaf) {
			t.Errorf("%s is not skimmed\n%s", name, leaf)
		}
	}
}

// TestSkimOfDamaged puts other bytes in every place of an entry, and of the certificate in it:
// whatever is still skimmed is what Decode sees.
func TestSkimOfDamaged(t *testing.T) {
	cert, mail, key := usual(t)
	var s entry.Skimmer
	taken, left := 0, 0
	try := func(leaf []byte) {
		if skimmed(t, &s, leaf) {
			taken++
		} else {
			left++
		}
	}
	for _, der := range [][]byte{cert, mail, key} {
		bare := bytes.Equal(der, key)
		for _, leaf := range shapes(der, bare) {
			step := 1
			if len(leaf) > 1500 {
				step = 3
			}
			for i := 0; i < len(leaf); i += step {
				was := leaf[i]
				for _, c := range []byte{'"', '\\', '\n', 'A', '=', was ^ 1, 0x80} {
					leaf[i] = c
					try(leaf)
				}
				leaf[i] = was
			}
		}
		for i := range der {
			was := der[i]
			for _, c := range []byte{was + 1, was - 1, was ^ 0x80, 0, 0xff, 0x30, 0x0c} {
				der[i] = c
				for kind, leaf := range shapes(der, bare) {
					if kind == "hashedrekord 0.0.2" || kind == "dsse 0.0.1" {
						try(leaf)
					}
				}
			}
			der[i] = was
		}
		for i := range len(der) {
			for _, changed := range [][]byte{slices.Delete(bytes.Clone(der), i, i+1), slices.Insert(bytes.Clone(der), i, 0)} {
				try(shapes(changed, bare)["hashedrekord 0.0.2"])
			}
		}
	}
	if taken < 1000 || left < 10000 {
		t.Errorf("%d are skimmed, %d are not: the test shows too little", taken, left)
	}
}

// FuzzSkim: whatever is skimmed is what Decode sees.
func FuzzSkim(f *testing.F) {
	cert, mail, key := usual(f)
	for _, der := range [][]byte{cert, mail, key} {
		for _, leaf := range shapes(der, bytes.Equal(der, key)) {
			f.Add(leaf)
		}
	}
	var s entry.Skimmer // goes on from whatever entry came before
	f.Fuzz(func(t *testing.T, leaf []byte) {
		defer bounds.Hold(t)()
		skimmed(t, &s, leaf)
	})
}

// FuzzSkimCertificate is the same for what base64 hides from a fuzzer.
func FuzzSkimCertificate(f *testing.F) {
	cert, mail, key := usual(f)
	f.Add(cert, false, pemOf("CERTIFICATE", cert))
	f.Add(mail, false, pemOf("CERTIFICATE", mail))
	f.Add(key, true, pemOf("PUBLIC KEY", key))
	var s entry.Skimmer
	f.Fuzz(func(t *testing.T, der []byte, bare bool, text []byte) {
		defer bounds.Hold(t)()
		for kind, leaf := range shapes(der, bare) {
			skimmed(t, &s, leaf)
			if kind == "hashedrekord 0.0.1" {
				was := base64.StdEncoding.EncodeToString(pemOf(map[bool]string{false: "CERTIFICATE", true: "PUBLIC KEY"}[bare], der))
				skimmed(t, &s, bytes.Replace(leaf, []byte(was), []byte(b64(text)), 1))
			}
		}
	})
}
