package entry_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ssh"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

func b64(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

func pemOf(kind string, der ...[]byte) []byte {
	var b bytes.Buffer
	for _, d := range der {
		pem.Encode(&b, &pem.Block{Type: kind, Bytes: d})
	}
	return b.Bytes()
}

func sha(data []byte) string { sum := sha256.Sum256(data); return hex.EncodeToString(sum[:]) }

// v1 makes an entry of Rekor v1 from its spec, in which $KEY and $HASH stand
// for a key in base64 and a hash.
func v1(kind, version, spec string, key []byte) []byte {
	hash := `{"algorithm":"sha256","value":"` + sha([]byte("artifact")) + `"}`
	spec = strings.ReplaceAll(strings.ReplaceAll(spec, "$KEY", b64(key)), "$HASH", hash)
	return fmt.Appendf(nil, `{"apiVersion":%q,"kind":%q,"spec":%s}`, version, kind, spec)
}

// pgpRing makes an armored key ring of one or more keys, and returns the
// fingerprints of RSA primary keys.
func pgpRing(t testing.TB, names ...string) (ring []byte, prints []string) {
	t.Helper()
	var b bytes.Buffer
	for _, name := range names {
		e, err := openpgp.NewEntity(name, "", name+"@acme.example", &packet.Config{RSABits: 2048})
		if err != nil {
			t.Fatal(err)
		}
		w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Serialize(w); err != nil {
			t.Fatal(err)
		}
		w.Close()
		b.WriteString("\n")
		prints = append(prints, hex.EncodeToString(e.PrimaryKey.Fingerprint))
	}
	return b.Bytes(), prints
}

// pkcs7 wraps a certificate as a detached SignedData without signers does.
func pkcs7(t testing.TB, cert []byte) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) {
			b.AddBytes([]byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02})
		})
		b.AddASN1(asn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(asn1.SET, func(*cryptobyte.Builder) {})
				b.AddASN1(asn1.SEQUENCE, func(*cryptobyte.Builder) {})
				b.AddASN1(asn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(cert) })
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("PKCS7", der)
}

// keysV1 are keys in every format, each with what it stands for.
type keysV1 struct {
	cert, otherCert              testca.Signer
	spki                         []byte
	pgp                          []byte
	pgpPrints                    []string
	ssh                          []byte
	sshPrint                     string
	ed                           ed25519.PublicKey
	edSPKI                       []byte
	minisign, minisignText, root []byte
}

func makeKeysV1(t testing.TB) keysV1 {
	t.Helper()
	ca := newCA(t)
	k := keysV1{
		cert:      issue(t, ca, testca.Identity{Email: "a@b.example", URI: "https://x.example/", OtherName: "u!d", Issuer: issuer, Extensions: map[int]string{11: "x"}}),
		otherCert: issue(t, ca, testca.Identity{Email: "other@b.example", Issuer: issuer}),
	}
	bare, err := testca.BareKey()
	if err != nil {
		t.Fatal(err)
	}
	if k.spki, err = bare.SPKI(); err != nil {
		t.Fatal(err)
	}
	k.pgp, k.pgpPrints = pgpRing(t, "one", "two")
	if k.ed, _, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if k.edSPKI, err = x509.MarshalPKIXPublicKey(k.ed); err != nil {
		t.Fatal(err)
	}
	sshKey, err := ssh.NewPublicKey(k.ed)
	if err != nil {
		t.Fatal(err)
	}
	k.ssh, k.sshPrint = append(bytes.TrimSpace(ssh.MarshalAuthorizedKey(sshKey)), " me@acme.example\n"...), ssh.FingerprintSHA256(sshKey)
	k.minisign = []byte(b64(append([]byte("Ed12345678"), k.ed...)))
	k.minisignText = []byte("untrusted comment: minisign public key\n" + string(k.minisign) + "\n")
	k.root = fmt.Appendf(nil, `{"signatures":[],"signed":{"_type":"root","keys":{"a":{"keytype":"ed25519","keyval":{"public":"%x"},"scheme":"ed25519"},"b":{"keytype":"ecdsa","keyval":{"public":%q},"scheme":"ecdsa-sha2-nistp256"},"c":{"keytype":"ed25519","keyval":{"public":"%x"}}}}}`, k.ed, pemOf("PUBLIC KEY", k.spki), k.ed)
	return k
}

// kindV1 is an entry of Rekor v1 and what is known of it.
type kindV1 struct {
	name, kind, version, spec string
	key                       []byte
	subjects, prints, digests []string
}

// kindsV1 is every kind with every form of key.
func kindsV1(t testing.TB) []kindV1 {
	k := makeKeysV1(t)
	cert := pemOf("CERTIFICATE", k.cert.Cert)
	certPrint, spkiPrint, edPrint := "sha256:"+sha(k.cert.Cert), "sha256:"+sha(k.spki), "sha256:"+sha(k.edSPKI)
	subjects := []string{"u!d", "a@b.example", "https://x.example/"} // as they stand in the certificate
	artifact := []string{"sha256:" + sha([]byte("artifact"))}
	twice := append(artifact, artifact...)
	mails := []string{"one@acme.example", "two@acme.example"}
	return []kindV1{
		{"hashedrekord, certificate", "hashedrekord", "0.0.1", `{"data":{"hash":$HASH},"signature":{"content":"c2ln","publicKey":{"content":"$KEY"}}}`, cert, subjects, []string{certPrint}, artifact},
		{"hashedrekord, chain", "hashedrekord", "0.0.1", `{"data":{"hash":$HASH},"signature":{"content":"c2ln","publicKey":{"content":"$KEY"}}}`, pemOf("CERTIFICATE", k.cert.Cert, k.otherCert.Cert), subjects, []string{certPrint}, artifact},
		{"hashedrekord, key", "hashedrekord", "0.0.1", `{"data":{"hash":$HASH},"signature":{"content":"c2ln","publicKey":{"content":"$KEY"}}}`, pemOf("PUBLIC KEY", k.spki), nil, []string{spkiPrint}, artifact},
		{"dsse", "dsse", "0.0.1", `{"envelopeHash":$HASH,"payloadHash":$HASH,"signatures":[{"signature":"c2ln","verifier":"$KEY"},{"signature":"c2ln","verifier":"` + b64(pemOf("PUBLIC KEY", k.spki)) + `"}]}`, cert, subjects, []string{certPrint, spkiPrint}, twice},
		{"intoto 0.0.2", "intoto", "0.0.2", `{"content":{"envelope":{"payloadType":"application/vnd.in-toto+json","signatures":[{"publicKey":"$KEY","sig":"YzJsbg=="}]},"hash":$HASH,"payloadHash":$HASH}}`, cert, subjects, []string{certPrint}, twice},
		{"intoto 0.0.1", "intoto", "0.0.1", `{"content":{"hash":$HASH},"publicKey":"$KEY"}`, cert, subjects, []string{certPrint}, artifact},
		{"rekord, x509", "rekord", "0.0.1", `{"data":{"hash":$HASH},"signature":{"content":"c2ln","format":"x509","publicKey":{"content":"$KEY"}}}`, cert, subjects, []string{certPrint}, artifact},
		{"rekord, pgp", "rekord", "0.0.1", `{"data":{"hash":$HASH},"signature":{"content":"c2ln","format":"pgp","publicKey":{"content":"$KEY"}}}`, k.pgp, mails, k.pgpPrints, artifact},
		{"rekord, ssh", "rekord", "0.0.1", `{"data":{"hash":$HASH},"signature":{"content":"c2ln","format":"ssh","publicKey":{"content":"$KEY"}}}`, k.ssh, []string{"me@acme.example"}, []string{k.sshPrint}, artifact},
		{"rekord, minisign", "rekord", "0.0.1", `{"data":{"hash":$HASH},"signature":{"content":"c2ln","format":"minisign","publicKey":{"content":"$KEY"}}}`, k.minisign, nil, []string{edPrint}, artifact},
		{"rekord, minisign file", "rekord", "0.0.1", `{"data":{"hash":$HASH},"signature":{"content":"c2ln","format":"minisign","publicKey":{"content":"$KEY"}}}`, k.minisignText, nil, []string{edPrint}, artifact},
		{"rekord, old minisign", "rekord", "0.0.1", `{"data":{"hash":$HASH},"signature":{"content":"c2ln","format":"minisign","publicKey":{"content":"$KEY"}}}`, k.ed, nil, []string{edPrint}, artifact},
		{"rpm", "rpm", "0.0.1", `{"package":{"hash":$HASH,"headers":{"Name":"x","Epoch":"0"}},"publicKey":{"content":"$KEY"}}`, k.pgp, mails, k.pgpPrints, artifact},
		{"alpine", "alpine", "0.0.1", `{"package":{"hash":$HASH,"pkginfo":{"pkgname":"x"}},"publicKey":{"content":"$KEY"}}`, pemOf("PUBLIC KEY", k.spki), nil, []string{spkiPrint}, artifact},
		{"helm", "helm", "0.0.1", `{"chart":{"hash":$HASH,"provenance":{"signature":{"content":"c2ln"}}},"publicKey":{"content":"$KEY"}}`, k.pgp, mails, k.pgpPrints, artifact},
		{"jar", "jar", "0.0.1", `{"archive":{"hash":$HASH},"signature":{"content":"` + b64(pkcs7(t, k.cert.Cert)) + `","publicKey":{"content":"$KEY"}}}`, cert, subjects, []string{certPrint}, artifact},
		{"jar with another signer", "jar", "0.0.1", `{"archive":{"hash":$HASH},"signature":{"content":"` + b64(pkcs7(t, k.otherCert.Cert)) + `","publicKey":{"content":"$KEY"}}}`, cert, append(slices.Clone(subjects), "other@b.example"), []string{certPrint, "sha256:" + sha(k.otherCert.Cert)}, artifact},
		{"cose", "cose", "0.0.1", `{"data":{"envelopeHash":$HASH,"payloadHash":$HASH},"publicKey":"$KEY"}`, cert, subjects, []string{certPrint}, twice},
		{"tuf", "tuf", "0.0.1", `{"metadata":{"content":"` + b64([]byte("{}")) + `"},"root":{"content":"$KEY"},"spec_version":"1.0"}`, k.root, nil, []string{edPrint, spkiPrint}, []string{"sha256:" + sha([]byte("{}"))}},
		{"tuf, objects", "tuf", "0.0.1", `{"metadata":{"content":{"a":[1]}},"root":{"content":` + string(k.root) + `},"spec_version":"1.0"}`, nil, nil, []string{edPrint, spkiPrint}, []string{"sha256:" + sha([]byte(`{"a":[1]}`))}},
		{"rfc3161", "rfc3161", "0.0.1", `{"tsr":{"content":"$KEY"}}`, []byte("a time stamp"), nil, nil, []string{"sha256:" + sha([]byte("a time stamp"))}},
	}
}

// TestKindsV1: every kind with every form of key gives the subjects,
// fingerprints and digests that Rekor knows it by.
func TestKindsV1(t *testing.T) {
	for _, tc := range kindsV1(t) {
		t.Run(tc.name, func(t *testing.T) {
			leaf := v1(tc.kind, tc.version, tc.spec, tc.key)
			f, err := entry.Decode(leaf)
			if err != nil || f.Kind != tc.kind || f.APIVersion != tc.version {
				t.Fatalf("%+v, %v", f, err)
			}
			var subjects, prints []string
			for i := range f.Identities {
				id := &f.Identities[i]
				for _, s := range id.Subjects {
					subjects = append(subjects, s.Value)
				}
				own := id.Fingerprints()
				if id.Format == "" {
					own = own[:1] // and that of its key
				} else if id.Format == "pgp" {
					own = own[:1] // and those of its subkeys
				}
				prints = append(prints, own...)
			}
			if !slices.Equal(subjects, tc.subjects) || !slices.Equal(prints, tc.prints) || !slices.Equal(f.Digests, tc.digests) {
				t.Errorf("subjects %q, fingerprints %q, digests %q", subjects, prints, f.Digests)
			}
			if keyOnly := len(tc.prints) > 0 && len(tc.subjects) == 0; f.KeyOnly() != keyOnly {
				t.Errorf("key only: %v", f.KeyOnly())
			}
		})
	}
}

// pgpOf makes an armored ring of packets, each given by its tag.
func pgpOf(t testing.TB, packets ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		head := []byte{0xc0 | p[0], 0xff, 0, 0, byte((len(p) - 1) >> 8), byte(len(p) - 1)}
		if _, err := w.Write(append(head, p[1:]...)); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return b.Bytes()
}

// TestPGPRings: a key of a kind that is not understood keeps its names, a broken
// packet hides no other, and what is beyond a bound is told of.
func TestPGPRings(t *testing.T) {
	e, err := openpgp.NewEntity("x", "", "x@acme.example", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	if err := e.PrimaryKey.Serialize(&raw); err != nil {
		t.Fatal(err)
	}
	opaque, err := packet.NewOpaqueReader(&raw).Next()
	if err != nil {
		t.Fatal(err)
	}
	key := append([]byte{6}, opaque.Contents...)
	subkey := append([]byte{14}, opaque.Contents...)
	odd := append([]byte{6, 4, 0, 0, 0, 0, 99}, make([]byte, 40)...) // algorithm 99
	user := func(name string) []byte { return append([]byte{13}, name...) }
	many := [][]byte{key}
	for i := range 257 {
		many = append(many, user(fmt.Sprintf("%d <u%d@acme.example>", i, i)))
	}
	print := hex.EncodeToString(e.PrimaryKey.Fingerprint)
	for name, tc := range map[string]struct {
		packets    [][]byte
		identities string
		bad        bool
	}{
		"one":                    {[][]byte{key, user("A <a@acme.example>"), user("b@acme.example")}, "[a@acme.example b@acme.example] " + print, false},
		"unknown key first":      {[][]byte{odd, user("A <a@acme.example>"), key, user("b@acme.example")}, "[a@acme.example] , [b@acme.example] " + print, false},
		"unknown key last":       {[][]byte{key, user("A <a@acme.example>"), odd, user("b@acme.example")}, "[a@acme.example] " + print + ", [b@acme.example] ", false},
		"broken key":             {[][]byte{{6, 4}, user("A <a@acme.example>"), key, user("b@acme.example")}, "[a@acme.example] , [b@acme.example] " + print, true},
		"unknown packet":         {[][]byte{key, {60, 1, 2}, user("A <a@acme.example>")}, "[a@acme.example] " + print, false},
		"subkey":                 {[][]byte{key, subkey, user("A <a@acme.example>")}, "[a@acme.example] " + print + " " + print, false},
		"name without a key":     {[][]byte{user("A <a@acme.example>"), key}, "[] " + print, true},
		"more names than bounds": {many, "", true},
		"more keys than bounds":  {append([][]byte{key}, slices.Repeat([][]byte{subkey}, 100)...), "", true},
		"more rings than bounds": {slices.Repeat([][]byte{key}, 101), "", true},
	} {
		f, err := entry.Decode(v1("rpm", "0.0.1", `{"package":{"hash":$HASH},"publicKey":{"content":"$KEY"}}`, pgpOf(t, tc.packets...)))
		var got []string
		for i := range f.Identities {
			var subjects []string
			for _, s := range f.Identities[i].Subjects {
				subjects = append(subjects, s.Value)
			}
			got = append(got, fmt.Sprintf("%v %s", subjects, strings.Join(f.Identities[i].Prints, " ")))
		}
		if (err != nil) != tc.bad || tc.identities != "" && strings.Join(got, ", ") != tc.identities {
			t.Errorf("%s: %s, %v", name, strings.Join(got, ", "), err)
		}
	}
}

// TestPGPWork: a ring as large as may be takes no time to speak of, whatever it is full of: what is
// compressed stays so, and names and keys are counted.
func TestPGPWork(t *testing.T) {
	defer bounds.Hold(t)()
	for name, packet := range map[string][]byte{"names": {13, 'x'}, "keys": {6, 4}, "subkeys": {14, 4}, "nothing": {60}, "signatures": {2, 4}, "compressed": {8, 1}} {
		// 187,000 bytes are 256 KiB with armor and base64.
		ring := pgpOf(t, slices.Repeat([][]byte{packet}, 187_000/(5+len(packet)))...)
		if len(ring) > 256<<10 || len(ring) < 240<<10 {
			t.Fatalf("%s: %d bytes", name, len(ring))
		}
		if f, err := entry.Decode(v1("rpm", "0.0.1", `{"package":{"hash":$HASH},"publicKey":{"content":"$KEY"}}`, ring)); err == nil || len(f.Identities) > 101 {
			t.Errorf("%s: %d identities, %v", name, len(f.Identities), err)
		}
	}
}

// TestNamedMail: the signer of an archive is known by the e-mail address of the
// certificate's subject too.
func TestNamedMail(t *testing.T) {
	named := func(value any) []byte {
		s := issue(t, newCA(t), testca.Identity{Email: "a@b.example", Mangle: func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "ACME", ExtraNames: []pkix.AttributeTypeAndValue{{Type: []int{1, 2, 840, 113549, 1, 9, 1}, Value: value}}}
		}})
		return s.Cert
	}
	for value, want := range map[any]string{"release@acme.example": "[a@b.example release@acme.example]", "a@b.example": "[a@b.example]", 7: "bad"} {
		der := named(value)
		f, err := entry.Decode(v1("jar", "0.0.1", `{"archive":{"hash":$HASH},"signature":{"content":"`+b64(pkcs7(t, der))+`","publicKey":{"content":"$KEY"}}}`, pemOf("CERTIFICATE", der)))
		var got []string
		for _, s := range f.Identities[0].Subjects {
			got = append(got, s.Value)
		}
		if want == "bad" {
			if err == nil {
				t.Error("an address that is a number is taken")
			}
		} else if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%v: %v, %v", value, got, err)
		}
	}
}

// TestTextExtensions: plain text is text in whichever form a library gave it.
func TestTextExtensions(t *testing.T) {
	for want, value := range map[string][]byte{
		"acme": {19, 4, 'a', 'c', 'm', 'e'}, "ia5": {22, 3, 'i', 'a', '5'}, "utf8": {12, 4, 'u', 't', 'f', '8'},
		"020107": {2, 1, 7}, "130561636d65": {19, 5, 'a', 'c', 'm', 'e'},
	} {
		s := issue(t, newCA(t), testca.Identity{Email: "a@b.example", Mangle: func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: []int{1, 3, 6, 1, 4, 1, 99999, 1}, Value: value})
		}})
		id, err := entry.ParseCertificate(s.Cert)
		if got, _ := id.Extension("1.3.6.1.4.1.99999.1"); err != nil || got != want {
			t.Errorf("%q, want %q, %v", got, want, err)
		}
	}
}

// TestBadPartsV1: whatever is wrong is said, and hides nothing else.
func TestBadPartsV1(t *testing.T) {
	k := makeKeysV1(t)
	cert := b64(pemOf("CERTIFICATE", k.cert.Cert))
	f, err := entry.Decode(v1("dsse", "0.0.1", `{"envelopeHash":$HASH,"payloadHash":$HASH,"signatures":[{"signature":"x","verifier":"AAAA"},{"signature":"x","verifier":"`+cert+`"},{"verifier":7},{"signature":"x","verifier":"$KEY"}]}`, pemOf("PUBLIC KEY", k.spki)))
	if err == nil || len(f.Identities) != 2 || len(f.Digests) != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	ok := `{"data":{"hash":$HASH},"signature":{"content":"c2ln","format":"pgp","publicKey":{"content":"$KEY"}}}`
	for name, tc := range map[string]struct {
		kind, spec string
		key        []byte
		identities int
	}{
		"no spec":             {"rekord", `7`, nil, 0},
		"unknown format":      {"rekord", strings.Replace(ok, `"pgp"`, `"pkcs7"`, 1), k.pgp, 0},
		"no format":           {"rekord", strings.Replace(ok, `"format":"pgp",`, ``, 1), k.pgp, 0},
		"unknown member":      {"rekord", strings.Replace(ok, `"data"`, `"more":1,"data"`, 1), k.pgp, 2},
		"bad hash":            {"rekord", strings.Replace(ok, `$HASH`, `{"algorithm":"sha256","value":"00"}`, 1), k.pgp, 2},
		"unknown hash":        {"rekord", strings.Replace(ok, `$HASH`, `{"algorithm":"md5","value":"00"}`, 1), k.pgp, 2},
		"pgp: nothing":        {"rekord", ok, []byte("nothing"), 0},
		"pgp: empty":          {"rekord", ok, nil, 0},
		"pgp: too large":      {"rekord", ok, bytes.Repeat(k.pgp, 200), 0},
		"pgp: cut":            {"rekord", ok, k.pgp[:len(k.pgp)-400], 2},
		"ssh: nothing":        {"rekord", strings.Replace(ok, "pgp", "ssh", 1), []byte("ssh-rsa"), 0},
		"ssh: too large":      {"rekord", strings.Replace(ok, "pgp", "ssh", 1), append(bytes.Clone(k.ssh), make([]byte, 65<<10)...), 0},
		"minisign: nothing":   {"rekord", strings.Replace(ok, "pgp", "minisign", 1), []byte("RWQ="), 0},
		"x509: two keys":      {"rekord", strings.Replace(ok, "pgp", "x509", 1), pemOf("PUBLIC KEY", k.spki, k.spki), 1},
		"x509: private key":   {"rekord", strings.Replace(ok, "pgp", "x509", 1), pemOf("PRIVATE KEY", k.spki), 0},
		"x509: long chain":    {"rekord", strings.Replace(ok, "pgp", "x509", 1), pemOf("CERTIFICATE", slices.Repeat([][]byte{k.cert.Cert}, 11)...), 1},
		"x509: too large":     {"rekord", strings.Replace(ok, "pgp", "x509", 1), append(pemOf("PUBLIC KEY", k.spki), bytes.Repeat([]byte(" "), 257<<10)...), 0},
		"no signatures":       {"dsse", `{"envelopeHash":$HASH,"payloadHash":$HASH,"signatures":[]}`, nil, 0},
		"too many signatures": {"dsse", `{"envelopeHash":$HASH,"payloadHash":$HASH,"signatures":[` + strings.TrimSuffix(strings.Repeat(`{"signature":"x","verifier":"$KEY"},`, 65), ",") + `]}`, pemOf("PUBLIC KEY", k.spki), 64},
		"jar: no pkcs7":       {"jar", `{"archive":{"hash":$HASH},"signature":{"content":"c2ln","publicKey":{"content":"$KEY"}}}`, pemOf("CERTIFICATE", k.cert.Cert), 1},
		"tuf: no keys":        {"tuf", `{"metadata":{"content":{}},"root":{"content":{}},"spec_version":"1"}`, nil, 0},
		"tuf: one bad key":    {"tuf", `{"metadata":{"content":{}},"root":{"content":"$KEY"}}`, bytes.Replace(k.root, []byte(`"ecdsa"`), []byte(`"quantum"`), 1), 2},
		"tuf: bad base64":     {"tuf", `{"metadata":{"content":"?"},"root":{"content":"$KEY"}}`, k.root, 2},
		"rfc3161: nothing":    {"rfc3161", `{"tsr":{}}`, nil, 0},
	} {
		f, err := entry.Decode(v1(tc.kind, "0.0.1", tc.spec, tc.key))
		if name == "tuf: one bad key" { // PEM says what it is, whatever its type is called
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || len(f.Identities) != tc.identities {
			t.Errorf("%s: %d identities, %v", name, len(f.Identities), err)
		}
	}
}

// FuzzKeysV1 puts any bytes in the place of a key of any format.
func FuzzKeysV1(f *testing.F) {
	k := makeKeysV1(f)
	formats := []string{"x509", "pgp", "ssh", "minisign"}
	for i, key := range [][]byte{pemOf("CERTIFICATE", k.cert.Cert), k.pgp, k.ssh, k.minisign, k.root, pkcs7(f, k.cert.Cert)} {
		f.Add(byte(i), key)
	}
	f.Fuzz(func(t *testing.T, which byte, key []byte) {
		defer bounds.Hold(t)()
		var leaf []byte
		switch n := int(which) % 6; n {
		case 4:
			leaf = v1("tuf", "0.0.1", `{"metadata":{"content":{}},"root":{"content":"$KEY"},"spec_version":"1"}`, key)
		case 5:
			leaf = v1("jar", "0.0.1", `{"archive":{"hash":$HASH},"signature":{"content":"$KEY","publicKey":{"content":"`+b64(pemOf("PUBLIC KEY", k.spki))+`"}}}`, key)
		default:
			leaf = v1("rekord", "0.0.1", `{"data":{"hash":$HASH},"signature":{"content":"c2ln","format":"`+formats[n]+`","publicKey":{"content":"$KEY"}}}`, key)
		}
		facts, err := entry.Decode(leaf)
		if err == nil && len(facts.Identities) == 0 {
			t.Fatalf("understood, and nobody signed: %q", key)
		}
		for i := range facts.Identities {
			facts.Identities[i].Report(entry.ErrNotJudged)
		}
	})
}
