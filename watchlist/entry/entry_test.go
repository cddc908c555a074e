package entry_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	stdasn1 "encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

const issuer = "https://token.actions.githubusercontent.com"

func newCA(t testing.TB) *testca.CA {
	t.Helper()
	ca, err := testca.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t testing.TB, ca *testca.CA, id testca.Identity) testca.Signer {
	t.Helper()
	s, err := ca.Issue(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hashedRekord(t testing.TB, s testca.Signer) []byte {
	t.Helper()
	leaf, err := s.HashedRekord([]byte("artifact"))
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func authorities(t testing.TB, ca *testca.CA) *entry.Authorities {
	t.Helper()
	a, err := entry.NewAuthorities(entry.Authority{Chain: ca.Chain()})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestEverySubjectForm(t *testing.T) {
	ca := newCA(t)
	trusted := authorities(t, ca)
	for _, tc := range []struct {
		id   testca.Identity
		want entry.Subject
	}{
		{testca.Identity{Email: "a@acme.example"}, entry.Subject{Type: entry.Email, Value: "a@acme.example"}},
		{testca.Identity{URI: "https://github.com/acme/x"}, entry.Subject{Type: entry.URI, Value: "https://github.com/acme/x"}},
		{testca.Identity{URI: "spiffe://acme.example/sa"}, entry.Subject{Type: entry.URI, Value: "spiffe://acme.example/sa"}},
		{testca.Identity{OtherName: "foo!oidc.local"}, entry.Subject{Type: entry.Username, Value: "foo!oidc.local"}},
		{testca.Identity{DNS: "build.acme.example"}, entry.Subject{Type: entry.DNS, Value: "build.acme.example"}},
		{testca.Identity{IP: "192.0.2.7"}, entry.Subject{Type: entry.IP, Value: "192.0.2.7"}},
		{testca.Identity{IP: "2001:db8::1"}, entry.Subject{Type: entry.IP, Value: "2001:db8::1"}},
	} {
		s := issue(t, ca, tc.id)
		f, err := entry.Decode(hashedRekord(t, s))
		if err != nil {
			t.Fatalf("%+v: %v", tc.want, err)
		}
		if len(f.Identities) != 1 || !slices.Equal(f.Identities[0].Subjects, []entry.Subject{tc.want}) {
			t.Errorf("subjects %+v, want %+v", f.Identities, tc.want)
		}
		if err := trusted.Verify(&f.Identities[0]); err != nil {
			t.Errorf("%+v: not trusted: %v", tc.want, err)
		}
	}
	all := issue(t, ca, testca.Identity{Email: "a@b.example", URI: "https://x.example/", DNS: "d.example", IP: "192.0.2.1", OtherName: "u!d"})
	f, err := entry.Decode(hashedRekord(t, all))
	if err != nil || len(f.Identities[0].Subjects) != 5 {
		t.Errorf("five subjects in one certificate: %v, %v", f.Identities, err)
	}
}

func TestEveryExtension(t *testing.T) {
	ca := newCA(t)
	values := map[int]string{}
	for n := 2; n <= 24; n++ {
		if n != 7 && n != 8 {
			values[n] = fmt.Sprintf("value %d", n)
		}
	}
	values[30] = "from the future"
	s := issue(t, ca, testca.Identity{URI: "https://github.com/acme/x", Issuer: issuer, Extensions: values})
	f, err := entry.Decode(hashedRekord(t, s))
	if err != nil {
		t.Fatal(err)
	}
	id := f.Identities[0]
	if !slices.Equal(id.Issuers, []string{issuer}) {
		t.Errorf("issuers %q", id.Issuers)
	}
	names := entry.ExtensionNames()
	if len(names) != 21 {
		t.Fatalf("%d names of extensions", len(names))
	}
	got := map[string]bool{}
	for _, name := range names {
		v, ok := id.Extension(name)
		if !ok || !strings.HasPrefix(v, "value ") || got[v] {
			t.Errorf("%s: %q, %v", name, v, ok)
		}
		got[v] = true
	}
	if v, _ := id.Extension("1.3.6.1.4.1.57264.1.30"); v != "from the future" {
		t.Errorf("extension .30: %q", v)
	}
	for text, want := range map[string]string{
		"runner-environment": "runner-environment", "1.3.6.1.4.1.57264.1.11": "runner-environment", "1.2.3.4": "1.2.3.4",
		"runner-enviroment": "", "1.3": "", "": "", "1..3": "", "1.02.3": "", "1.3.6.1.4.1.57264.1.99": "1.3.6.1.4.1.57264.1.99",
	} {
		if got, ok := entry.ExtensionName(text); ok != (want != "") || ok && got != want {
			t.Errorf("name of %q: %q, %v", text, got, ok)
		}
	}
	if v, ok := id.Extension("github-workflow-ref"); !ok || v != "value 6" {
		t.Errorf("raw extension .6: %q", v)
	}
}

func TestOddCertificates(t *testing.T) {
	ca := newCA(t)
	ext := func(n int, value []byte) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			oid := stdasn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, n}
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oid, Value: value})
		}
	}
	utf8 := func(s string) []byte { b, _ := stdasn1.MarshalWithParams(s, "utf8"); return b }
	for _, tc := range []struct {
		name      string
		id        testca.Identity
		understod bool
		check     func(entry.Facts) bool
	}{
		{"only the old issuer", testca.Identity{Mangle: ext(1, []byte(issuer))}, true,
			func(f entry.Facts) bool { return slices.Equal(f.Identities[0].Issuers, []string{issuer}) }},
		{"old issuer that looks like DER", testca.Identity{Mangle: ext(1, utf8("x"))}, true,
			func(f entry.Facts) bool { return f.Identities[0].Issuers[0] == string(utf8("x")) }},
		{"issuers that differ", testca.Identity{Mangle: func(c *x509.Certificate) { ext(1, []byte("a"))(c); ext(8, utf8("b"))(c) }}, true,
			func(f entry.Facts) bool { return len(f.Identities[0].Issuers) == 2 && len(f.Warnings) == 1 }},
		{"raw where DER belongs", testca.Identity{Mangle: ext(11, []byte("github-hosted"))}, false, nil},
		{"DER with bytes behind", testca.Identity{Mangle: ext(11, append(utf8("x"), 0))}, false, nil},
		{"unknown number, no text", testca.Identity{Mangle: ext(77, []byte{1, 2})}, true,
			func(f entry.Facts) bool {
				v, _ := f.Identities[0].Extension("1.3.6.1.4.1.57264.1.77")
				return v == "0102"
			}},
		{"extension of somebody else", testca.Identity{Mangle: func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: stdasn1.ObjectIdentifier{1, 2, 3, 4}, Value: utf8("text")})
		}}, true, func(f entry.Facts) bool { v, _ := f.Identities[0].Extension("1.2.3.4"); return v == "text" }},
		{"SCT list", testca.Identity{Mangle: func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: stdasn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: []byte{4, 0}})
		}}, true, func(f entry.Facts) bool { return f.Identities[0].HasSCT }},
		{"broken subject", testca.Identity{Mangle: func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte{0x30, 5, 1} }}, false, nil},
		{"subjects with bytes behind", testca.Identity{Mangle: func(c *x509.Certificate) {
			c.ExtraExtensions[0].Value = append(c.ExtraExtensions[0].Value, 0x87, 4, 192, 0, 2, 1)
		}}, false, func(f entry.Facts) bool {
			return len(f.Identities[0].Subjects) == 1 && f.Identities[0].Subjects[0].Value == "who@acme.example"
		}},
		{"257 subjects", testca.Identity{Mangle: func(c *x509.Certificate) {
			var names []stdasn1.RawValue
			for i := range 257 {
				names = append(names, stdasn1.RawValue{Class: 2, Tag: 1, Bytes: fmt.Appendf(nil, "u%d@x.example", i)})
			}
			c.ExtraExtensions[0].Value, _ = stdasn1.Marshal(names)
		}}, false, func(f entry.Facts) bool { return len(f.Identities[0].Subjects) == 256 }},
		{"otherName of another form beside ours", testca.Identity{Mangle: func(c *x509.Certificate) {
			other, _ := stdasn1.Marshal([]stdasn1.RawValue{
				{Class: 2, Tag: 0, IsCompound: true, Bytes: append([]byte{6, 3, 0x2a, 3, 4}, 0xa0, 3, 0x0c, 1, 'x')},
				{Class: 2, Tag: 1, Bytes: []byte("a@acme.example")},
			})
			c.ExtraExtensions[0].Value = other
		}}, true, func(f entry.Facts) bool {
			return len(f.Identities[0].Subjects) == 1 && f.Identities[0].Subjects[0].Type == entry.Email
		}},
	} {
		if tc.id.Email == "" {
			tc.id.Email = "who@acme.example"
		}
		f, err := entry.Decode(hashedRekord(t, issue(t, ca, tc.id)))
		if (err == nil) != tc.understod {
			t.Errorf("%s: %v", tc.name, err)
		}
		if len(f.Identities) != 1 {
			t.Errorf("%s: the identity is lost", tc.name)
		} else if tc.check != nil && !tc.check(f) {
			t.Errorf("%s: %+v", tc.name, f)
		}
	}
}

func TestChains(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	trusted := authorities(t, ca)
	yesterday := time.Now().Add(-20 * time.Hour)
	for _, tc := range []struct {
		name   string
		signer testca.Signer
		want   bool
	}{
		{"ours", issue(t, ca, testca.Identity{Email: "a@b.example"}), true},
		{"long expired now", issue(t, ca, testca.Identity{Email: "a@b.example", NotBefore: yesterday}), true},
		{"before the authority began", issue(t, ca, testca.Identity{Email: "a@b.example", NotBefore: yesterday.AddDate(-1, 0, 0)}), false},
		{"other authority of the same name", issue(t, other, testca.Identity{Email: "a@b.example"}), false},
		{"self-made", issue(t, nil, testca.Identity{Email: "a@b.example"}), false},
		{"not for code signing", issue(t, ca, testca.Identity{Email: "a@b.example", Mangle: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }}), false},
		{"unknown critical extension", issue(t, ca, testca.Identity{Email: "a@b.example", Mangle: func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: stdasn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}}), false},
	} {
		f, err := entry.Decode(hashedRekord(t, tc.signer))
		if err != nil {
			t.Fatal(err)
		}
		err = trusted.Verify(&f.Identities[0])
		if (err == nil) != tc.want {
			t.Errorf("%s: %v", tc.name, err)
		}
		if r := f.Identities[0].Report(err); *r.Certificate.Trusted != tc.want || r.Fingerprint != tc.signer.Fingerprint() {
			t.Errorf("%s: report %+v", tc.name, r)
		}
		if (&entry.Authorities{}).Verify(&f.Identities[0]) == nil {
			t.Error("an empty set of authorities trusts somebody")
		}
	}
	if _, err := entry.NewAuthorities(entry.Authority{}); err == nil {
		t.Error("an authority without a certificate accepted")
	}
}

func TestDSSEAndKeys(t *testing.T) {
	ca := newCA(t)
	key, err := testca.BareKey()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := testca.DSSE("application/vnd.in-toto+json", []byte("{}"), issue(t, ca, testca.Identity{Email: "a@b.example"}), key)
	if err != nil {
		t.Fatal(err)
	}
	f, err := entry.Decode(leaf)
	if err != nil || f.Kind != "dsse" || len(f.Identities) != 2 || len(f.Digests) != 1 || f.KeyOnly() {
		t.Fatalf("%+v, %v", f, err)
	}
	// SHA-256 of the payload "{}".
	if f.Digests[0] != "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" {
		t.Errorf("digest %s", f.Digests[0])
	}
	if got := f.Identities[1].Fingerprints(); !slices.Equal(got, []string{key.Fingerprint()}) {
		t.Errorf("fingerprints %q", got)
	}
	f, err = entry.Decode(hashedRekord(t, key))
	if err != nil || !f.KeyOnly() {
		t.Errorf("bare key: %+v, %v", f, err)
	}
	// One bad signature hides none of the others.
	bad := bytes.Replace(leaf, []byte(`"signatures":[`), []byte(`"signatures":[{"content":"","verifier":{"publicKey":{"rawBytes":"!"}}},`), 1)
	f, err = entry.Decode(bad)
	if err == nil || len(f.Identities) != 2 {
		t.Errorf("with one bad signature: %d identities, %v", len(f.Identities), err)
	}
}

func TestNotUnderstood(t *testing.T) {
	good := string(hashedRekord(t, issue(t, newCA(t), testca.Identity{Email: "a@b.example"})))
	replace := func(old, new string) string {
		t.Helper()
		if !strings.Contains(good, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	for name, leaf := range map[string]string{
		"empty":                  "",
		"no JSON":                "hello",
		"array":                  "[1]",
		"two documents":          good + good,
		"broken off":             good[:len(good)-1],
		"kind twice":             replace(`"kind":"hashedrekord"`, `"kind":"hashedrekord","kind":"dsse"`),
		"kind in another case":   replace(`"kind":"hashedrekord"`, `"kind":"hashedrekord","Kind":"dsse"`),
		"kind escaped twice":     replace(`"kind":"hashedrekord"`, `"kind":"hashedrekord","k\u0069nd":"dsse"`),
		"unknown kind":           replace(`"kind":"hashedrekord"`, `"kind":"identity"`),
		"unknown version":        replace("0.0.2", "0.0.3"),
		"no kind":                replace(`"kind":"hashedrekord",`, ``),
		"kind is a number":       replace(`"kind":"hashedrekord"`, `"kind":7`),
		"unknown member":         replace(`"apiVersion"`, `"extra":1,"apiVersion"`),
		"unknown verifier":       replace(`"verifier":{`, `"verifier":{"pgp":{},`),
		"both verifiers":         replace(`"verifier":{`, `"verifier":{"publicKey":{"rawBytes":"MAA="},`),
		"no verifier":            replace(`x509Certificate`, `keyDetail`),
		"unknown algorithm":      replace("SHA2_256", "MD5"),
		"digest too short":       replace(`"digest":"`, `"digest":"AAAA","x":"`),
		"base64 with line end":   replace(`"digest":"`, `"digest":"\n`),
		"base64 not canonical":   replace(`="}`, `=="}`),
		"control character":      replace("hashedrekord", "hashed\x01rekord"),
		"not UTF-8":              replace("hashedrekord", "hashed\xffrekord"),
		"lone surrogate is text": replace("hashedrekord", `\ud800`),
		"nested too deep":        deep,
		"too many values":        `[` + strings.Repeat("1,", 20000) + `1]`,
		"larger than 1 MiB":      `"` + strings.Repeat("x", 1<<20) + `"`,
		"certificate over 64 KiB": replace(`"x509Certificate":{"rawBytes":"`, `"x509Certificate":{"rawBytes":"`+
			strings.Repeat("AAAA", 22000)),
	} {
		f, err := entry.Decode([]byte(leaf))
		if err == nil {
			t.Errorf("%s: understood: %+v", name, f)
		}
		if unknown := errors.Is(err, entry.ErrKind); unknown != (strings.HasPrefix(name, "unknown kind") || strings.HasPrefix(name, "unknown version") || strings.HasPrefix(name, "lone")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Escapes are no reason to misread an entry.
	f, err := entry.Decode([]byte(replace("hashedrekord", `hashed\u0072ekord`)))
	if err != nil || f.Kind != "hashedrekord" {
		t.Errorf("escaped: %+v, %v", f, err)
	}
}

// bodyOf returns the entry of a Sigstore bundle.
func bodyOf(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var bundle struct {
		VerificationMaterial struct {
			TlogEntries []struct {
				CanonicalizedBody []byte `json:"canonicalizedBody"`
			} `json:"tlogEntries"`
		} `json:"verificationMaterial"`
	}
	if err := json.Unmarshal(data, &bundle); err != nil {
		t.Fatal(err)
	}
	return bundle.VerificationMaterial.TlogEntries[0].CanonicalizedBody
}

// TestRealBundles decodes entries of the public instance.
func TestRealBundles(t *testing.T) {
	dir := os.Getenv("SIGWARDEN_REALDATA")
	if dir == "" {
		t.Skip("SIGWARDEN_REALDATA is not set: real bundles are not read")
	}
	const artifact = "sha256:a0cfc71271d6e278e57cd332ff957c3f7043fdda354c4cbb190a30d56efa01bf"
	beacon := []string{"https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main"}
	for name, want := range map[string]struct {
		kind, version, issuer string
		subjects, digests     []string
	}{
		"bundle-v1-hashedrekord-2023-timestamp-extension.json": {"hashedrekord", "0.0.1", issuer, beacon, []string{artifact}},
		"bundle-v1-hashedrekord-2024-shard2605.json":           {"hashedrekord", "0.0.1", issuer, beacon, []string{artifact}},
		"bundle-v1-dsse-2024-shard1193.json": {"dsse", "0.0.1", issuer, beacon,
			[]string{"sha256:d6b209ba9dde3b1ee5edebb88d1b1b917b72eeb614328e7ba667f5b7ab70e987", "sha256:5608b4de188cd2cf3b6d79691c3160fd6feeec897b34a8e48fcf465323c23a73"}},
		"bundle-v1-intoto002-npm-provenance.json":    {"intoto", "0.0.2", issuer, []string{"https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/main"}, nil},
		"bundle-v2-production-hashedrekord002.json":  {"hashedrekord", "0.0.2", "", nil, nil},
		"bundle-v2-staging-alpha1-hashedrekord.json": {"hashedrekord", "0.0.2", issuer, beacon, []string{artifact}},
	} {
		f, err := entry.Decode(bodyOf(t, filepath.Join(dir, name)))
		if err != nil || f.Kind != want.kind || f.APIVersion != want.version || len(f.Identities) != 1 || len(f.Warnings) != 0 {
			t.Errorf("%s: %+v, %v", name, f, err)
			continue
		}
		r := f.Identities[0].Report(entry.ErrNotJudged)
		if !slices.Equal(r.Subjects, want.subjects) && len(r.Subjects)+len(want.subjects) > 0 || r.Issuer != want.issuer || want.digests != nil && !slices.Equal(f.Digests, want.digests) {
			t.Errorf("%s: subjects %q, issuer %q, digests %q", name, r.Subjects, r.Issuer, f.Digests)
		}
		if production := strings.Contains(name, "production"); production != f.KeyOnly() {
			t.Errorf("%s: key only: %v", name, f.KeyOnly())
		}
	}
}

// sameFacts compares what two decoders say.
func sameFacts(a, b entry.Facts) bool {
	show := func(f entry.Facts) string {
		out := fmt.Sprintf("%q %q %q %q", f.Kind, f.APIVersion, f.Digests, f.Warnings)
		for i := range f.Identities {
			id := &f.Identities[i]
			out += fmt.Sprintf("|%q %q %q %x %x %s %s %v", id.Subjects, id.Issuers, id.Extensions, id.Certificate, id.SPKI, id.NotBefore, id.NotAfter, id.HasSCT)
		}
		return out
	}
	return show(a) == show(b)
}

// TestDecoderForgets: nothing of one entry shows in the facts of the next.
func TestDecoderForgets(t *testing.T) {
	ca := newCA(t)
	rich := issue(t, ca, testca.Identity{Email: "a@b.example", URI: "https://x.example/", OtherName: "u!d", Issuer: issuer, Extensions: map[int]string{11: "x", 16: "y", 40: "z"}})
	poor := issue(t, ca, testca.Identity{DNS: "d.example"})
	key, err := testca.BareKey()
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := testca.DSSE("t", []byte("p"), rich, poor, key)
	if err != nil {
		t.Fatal(err)
	}
	leaves := [][]byte{hashedRekord(t, rich), hashedRekord(t, poor), hashedRekord(t, key), envelope, []byte("junk"), []byte(`{"kind":"x","apiVersion":"1"}`), {},
		[]byte(`{"apiVersion":"0.0.2","kind":"dsse","spec":{"dsseV002":{"signatures":[{"verifier":{"x509Certificate":{"rawBytes":""}}}]}}}`)}
	var d entry.Decoder
	for i := range 200 {
		leaf := leaves[(i*i+i/3)%len(leaves)]
		want, wantErr := entry.Decode(leaf)
		got, err := d.Decode(leaf)
		if fmt.Sprint(err) != fmt.Sprint(wantErr) || !sameFacts(want, *got) {
			t.Fatalf("entry %d: %+v (%v), want %+v (%v)", i, *got, err, want, wantErr)
		}
	}
	allocs := testing.AllocsPerRun(100, func() { d.Decode(leaves[0]) })
	if allocs > 8 {
		t.Errorf("%v allocations for an entry", allocs)
	}
}

// FuzzDecode: no bytes make the decoder panic, and what it understands is
// JSON to others too.
func FuzzDecode(f *testing.F) {
	ca := newCA(f)
	s := issue(f, ca, testca.Identity{Email: "a@b.example", OtherName: "u!d", Issuer: issuer, Extensions: map[int]string{11: "x"}})
	f.Add(hashedRekord(f, s))
	leaf, _ := testca.DSSE("t", []byte("p"), s)
	f.Add(leaf)
	f.Add([]byte(`{"kind":"a","apiVersion":"\u00e4","spec":[1.5e3,true,null,"\\"]}`))
	for _, k := range kindsV1(f) {
		f.Add(v1(k.kind, k.version, k.spec, k.key))
	}
	trust := &entry.Authorities{}
	var again entry.Decoder // goes on from whatever entry came before
	f.Fuzz(func(t *testing.T, leaf []byte) {
		defer bounds.Hold(t)()
		facts, err := entry.Decode(leaf)
		reused, err2 := again.Decode(leaf)
		if fmt.Sprint(err) != fmt.Sprint(err2) || !sameFacts(facts, *reused) {
			t.Fatalf("a used decoder says %+v (%v), a new one %+v (%v)", *reused, err2, facts, err)
		}
		if err == nil && !json.Valid(leaf) {
			t.Fatalf("understood what is no JSON: %q", leaf)
		}
		for i := range facts.Identities {
			facts.Identities[i].Report(trust.Verify(&facts.Identities[i]))
		}
	})
}

// FuzzAuthorities: what is read as a document of authorities is what it prints, and the certificates that
// those verify are those of theirs.
func FuzzAuthorities(f *testing.F) {
	ca := newCA(f)
	doc, err := authorities(f, ca).Document()
	if err != nil {
		f.Fatal(err)
	}
	facts, err := entry.Decode(hashedRekord(f, issue(f, ca, testca.Identity{Email: "a@b.example", Issuer: issuer})))
	if err != nil {
		f.Fatal(err)
	}
	id := &facts.Identities[0]
	// $1 stands for the document, $2 for a certificate of the authority, which each process makes anew.
	root := b64(ca.Chain()[len(ca.Chain())-1].Raw)
	f.Add([]byte("$1"))
	f.Add(bytes.ReplaceAll(doc, []byte(root), []byte("$2")))
	f.Add([]byte("[]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		data = bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("$1"), doc), []byte("$2"), []byte(root))
		a, err := entry.ParseAuthorities(data)
		if err != nil {
			return
		}
		if again, err := a.Document(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%q prints as %q, %v", data, again, err)
		}
		if a.Verify(id) == nil && !bytes.Contains(data, []byte(root)) {
			t.Fatal("a certificate is trusted whose authority is not among them")
		}
	})
}

// TestVerdictsAreKept: a certificate is verified once for each time that it is asked about, and
// what is remembered is never that of another, of another time, or of other authorities.
func TestVerdictsAreKept(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	trust := func(ca *testca.CA) *entry.Authorities {
		a, err := entry.NewAuthorities(entry.Authority{Chain: ca.Chain()})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a, b := trust(ca), trust(other)
	parse := func(s testca.Signer) *entry.Identity {
		id, err := entry.ParseCertificate(s.Cert)
		if err != nil {
			t.Fatal(err)
		}
		return &id
	}
	ours, theirs := parse(issue(t, ca, testca.Identity{Email: "a@b.example", Issuer: issuer})), parse(issue(t, other, testca.Identity{Email: "a@b.example", Issuer: issuer}))
	user := parse(issue(t, ca, testca.Identity{OtherName: "u!d", Issuer: issuer}))
	unread := *user
	unread.Subjects = nil // as if its names had not been read
	late := ours.NotAfter.Add(time.Hour)
	for range 3 {
		for i, c := range []struct {
			a  *entry.Authorities
			id *entry.Identity
			at time.Time
			ok bool
		}{{a, ours, time.Time{}, true}, {b, ours, time.Time{}, false}, {a, theirs, time.Time{}, false}, {b, theirs, time.Time{}, true}, {a, ours, late, false}, {a, ours, late.In(time.FixedZone("x", 3600)), false}, {a, user, time.Time{}, true}, {a, &unread, time.Time{}, false}} {
			if err := c.a.VerifyAt(c.id, c.at); (err == nil) != c.ok {
				t.Errorf("case %d: %v", i, err)
			}
			if chain, err := c.a.Chain(c.id, c.at); (err == nil) != c.ok || c.ok && len(chain) != 3 {
				t.Errorf("case %d: a chain of %d, %v", i, len(chain), err)
			}
		}
	}
	// More than are remembered.
	changed := *ours
	for i := range 2000 {
		changed.Certificate = append(slices.Clone(ours.Certificate), byte(i), byte(i>>8))
		if a.Verify(&changed) == nil {
			t.Fatal("a certificate with something behind it is trusted")
		}
	}
	if err := a.Verify(ours); err != nil {
		t.Error(err)
	}
}

func BenchmarkVerify(b *testing.B) {
	ca := newCA(b)
	a, err := entry.NewAuthorities(entry.Authority{Chain: ca.Chain()})
	if err != nil {
		b.Fatal(err)
	}
	id, err := entry.ParseCertificate(issue(b, ca, testca.Identity{Email: "a@b.example", Issuer: issuer}).Cert)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := a.Verify(&id); err != nil {
			b.Fatal(err)
		}
	}
}
