package watchlist

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

const gh = "https://token.actions.githubusercontent.com"

func compile(t testing.TB, items ...Item) *List {
	t.Helper()
	l, err := Compile([]Watch{{Name: "w", Match: items}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func identity(kind entry.SubjectType, value, issuer string, extensions ...entry.Extension) *entry.Facts {
	id := entry.Identity{Certificate: []byte{1}, Subjects: []entry.Subject{{Type: kind, Value: value}}, Extensions: extensions}
	if issuer != "" {
		id.Issuers = []string{issuer}
	}
	return &entry.Facts{Kind: "hashedrekord", Identities: []entry.Identity{id}}
}

func TestGlobs(t *testing.T) {
	for _, tc := range []struct {
		pattern string
		kind    entry.SubjectType
		value   string
		want    bool
	}{
		{"a@acme.example", entry.Email, "a@acme.example", true},
		{"a@acme.example", entry.Email, "a@ACME.example", true},
		{"a@ACME.example", entry.Email, "a@acme.example", true},
		{"A@acme.example", entry.Email, "a@acme.example", false},
		{"*@acme.example", entry.Email, "x.y@acme.example", true},
		{"*@acme.example", entry.Email, "x@evil-acme.example", false},
		{"*@acme.example", entry.Email, "x@acme.example.evil", false},
		{"*@acme.example", entry.URI, "https://evil.example/x@acme.example", false},
		{"*@acme.example", entry.Username, "x@acme.example", false},
		{"*@*.acme.example", entry.Email, "a@Sub.Acme.Example", true},
		{"https://github.com/acme/*", entry.URI, "https://github.com/acme/widget/.github/workflows/r.yml@refs/tags/v1", true},
		{"https://github.com/acme/*", entry.URI, "https://GITHUB.com/acme/widget", true},
		{"https://github.com/acme/*", entry.URI, "https://github.com/ACME/widget", false},
		{"https://github.com/acme/*", entry.URI, "https://github.com/acme", false},
		{"https://github.com/acme/*", entry.URI, "https://github.com.evil.example/acme/x", false},
		{"https://github.com/acme/*", entry.Email, "https://github.com/acme/x", false},
		{"*://github.com/acme/*", entry.URI, "http://github.com/acme/x", true},
		{"https://*@refs/tags/v*", entry.URI, "https://github.com/a/b@refs/tags/v1.2", true},
		{"*.acme.example", entry.DNS, "BUILD.acme.example", true},
		{"*.acme.example", entry.DNS, "acme.example", false},
		{"foo!oidc.local", entry.Username, "foo!OIDC.local", true},
		{"foo!oidc.local", entry.Username, "Foo!oidc.local", false},
		{"192.0.2.*", entry.IP, "192.0.2.77", true},
		{"*", entry.Email, "anybody@x.example", true},
		{"*", entry.URI, "https://x/", true},
		{"?@x.example", entry.Email, "a@x.example", true},
		{"?@x.example", entry.Email, "\u00e4@x.example", true},
		{"?@x.example", entry.Email, "ab@x.example", false},
		{"?@x.example", entry.Email, "@x.example", false},
		{`a\*@x.example`, entry.Email, "a*@x.example", true},
		{`a\*@x.example`, entry.Email, "ab@x.example", false},
		{`a\\@x.example`, entry.Email, `a\@x.example`, true},
		{"a*b*c@x.example", entry.Email, "a1b2b3c@x.example", true},
		{"a*b*c@x.example", entry.Email, "a1c2b3@x.example", false},
		{"a**b@x.example", entry.Email, "ab@x.example", true},
		{`re:user@domain\.com`, entry.Email, "user@domain.com", true},
		{`re:user@domain\.com`, entry.Email, "xuser@domain.community", false},
		{`re:user@domain\.com`, entry.Email, "user@DOMAIN.com", true},
		{`re:.*@acme\.example`, entry.URI, "https://x.example/@acme.example", true},
		{`re:https://github\.com/(acme|beta)/.*`, entry.URI, "https://github.com/beta/x", true},
		{`re:a|b`, entry.Email, "a", true},
		{`re:a|b`, entry.Email, "ab", false},
		{`re:(?i)ACME@x`, entry.Email, "acme@x", true},
		{"caf\u00e9@x.example", entry.Email, "caf\u00e9@x.example", true},
		{"\u212a@x.example", entry.Email, "k@x.example", false}, // the Kelvin sign is no k
	} {
		got := len(compile(t, Item{Subject: []string{tc.pattern}}).Match(identity(tc.kind, tc.value, gh))) > 0
		if got != tc.want {
			t.Errorf("%q fits %s %q: %v, want %v", tc.pattern, tc.kind, tc.value, got, tc.want)
		}
	}
}

func TestItems(t *testing.T) {
	uri := "https://github.com/acme/widget"
	hosted := entry.Extension{Name: "runner-environment", Value: "self-hosted"}
	owner := entry.Extension{Name: "source-repository-owner-uri", Value: "https://github.com/acme"}
	f := identity(entry.URI, uri, gh, hosted, owner)
	f.Digests = []string{"sha256:" + strings.Repeat("ab", 32)}
	key := &entry.Facts{Kind: "hashedrekord", Identities: []entry.Identity{{SPKI: []byte{1}}}}
	for _, tc := range []struct {
		name string
		item Item
		f    *entry.Facts
		want bool
	}{
		{"subject and issuer", Item{Subject: []string{uri}, Issuer: []string{gh}}, f, true},
		{"subject and other issuer", Item{Subject: []string{uri}, Issuer: []string{"https://accounts.google.com"}}, f, false},
		{"list of subjects", Item{Subject: []string{"x", uri}}, f, true},
		{"list of issuers", Item{Subject: []string{uri}, Issuer: []string{"none", gh}}, f, true},
		{"issuer alone", Item{Issuer: []string{gh}}, f, true},
		{"issuer glob", Item{Issuer: []string{"https://*.githubusercontent.com"}}, f, true},
		{"none for a key", Item{Issuer: []string{"none"}}, key, true},
		{"none for a certificate", Item{Issuer: []string{"none"}}, f, false},
		{"extension", Item{Extensions: map[string][]string{"source-repository-owner-uri": {"https://github.com/acme"}}}, f, true},
		{"extension by OID", Item{Extensions: map[string][]string{"1.3.6.1.4.1.57264.1.16": {"https://github.com/acme"}}}, f, true},
		{"extension in another case", Item{Extensions: map[string][]string{"source-repository-owner-uri": {"https://github.com/ACME"}}}, f, false},
		{"two extensions", Item{Extensions: map[string][]string{"source-repository-owner-uri": {"*"}, "runner-environment": {"github-hosted"}}}, f, false},
		{"extension that is not there", Item{Extensions: map[string][]string{"build-trigger": {"*"}}}, f, false},
		{"digest", Item{Digest: []string{"sha256:" + strings.Repeat("AB", 32)}}, f, true},
		{"digest without algorithm", Item{Digest: []string{strings.Repeat("ab", 32)}}, f, true},
		{"digest and subject", Item{Digest: []string{strings.Repeat("ab", 32)}, Subject: []string{"y"}}, f, false},
		{"digest glob", Item{Digest: []string{"sha256:abab*"}}, f, true},
		{"kind", Item{Kind: []string{"hashed*"}}, key, true},
		{"other kind", Item{Kind: []string{"dsse"}}, key, false},
	} {
		l := compile(t, tc.item)
		if got := len(l.Match(tc.f)) > 0; got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	// An entry without any identity can still be ours by its digest.
	bare := &entry.Facts{Kind: "x", Digests: f.Digests}
	hits := compile(t, Item{Digest: []string{f.Digests[0]}}).Match(bare)
	if len(hits) != 1 || hits[0].Ours[0].Index != -1 || !hits[0].Ours[0].Pinned {
		t.Errorf("digest alone: %+v", hits)
	}
}

func TestFingerprints(t *testing.T) {
	leaf, err := base64.StdEncoding.DecodeString("MAMCAQE=") // SEQUENCE { INTEGER 1 }
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":%q},"signature":{"content":"","verifier":{"keyDetails":"x","publicKey":{"rawBytes":%q}}}}}}`,
		base64.StdEncoding.EncodeToString(make([]byte, 32)), base64.StdEncoding.EncodeToString(leaf))
	f, err := entry.Decode([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	print := f.Identities[0].Fingerprints()[0]
	for text, want := range map[string]bool{print: true, strings.ToUpper(strings.TrimPrefix(print, "sha256:")): true, print[:20] + "*": true, "sha256:" + strings.Repeat("0", 64): false} {
		hits := compile(t, Item{Fingerprint: []string{text}}).Match(&f)
		if (len(hits) == 1) != want {
			t.Errorf("%s: %v", text, hits)
		}
	}
}

// TestForeignFingerprints: those of PGP and SSH keys in the forms in which
// people have them.
func TestForeignFingerprints(t *testing.T) {
	const pgp, ssh = "0123456789abcdef0123456789abcdef01234567", "SHA256:AbCdEfGhIjKlMnOpQrStUvWxYz0123456789+/AbCd0"
	f := &entry.Facts{Kind: "rekord", Identities: []entry.Identity{{Format: "pgp", Prints: []string{"ff", pgp}}, {Format: "ssh", Prints: []string{ssh}}}}
	for text, want := range map[string]bool{
		pgp: true, "0x" + strings.ToUpper(pgp): true, "0123 4567 89AB CDEF 0123  4567 89AB CDEF 0123 4567": true, strings.Repeat("0", 40): false,
		ssh: true, "SHA256:" + strings.ToLower(ssh[7:]): false,
	} {
		if hits := compile(t, Item{Fingerprint: []string{text}}).Match(f); (len(hits) == 1) != want {
			t.Errorf("%s: %v", text, hits)
		}
	}
}

// expected asks for what fits an identity.
func (l *List) expected(watch int, f *entry.Facts, index int, vouched bool) (bool, string) {
	items, _, reason := l.Fits(watch, f, index, vouched)
	return len(items) > 0, reason
}

func TestExpected(t *testing.T) {
	l, err := Compile([]Watch{{Name: "w", Match: []Item{{Subject: []string{"https://github.com/acme/*"}}},
		Expect: []Item{
			{Subject: []string{"https://github.com/acme/widget@refs/tags/v*"}, Issuer: []string{gh}, Extensions: map[string][]string{"runner-environment": {"github-hosted"}}},
			{Fingerprint: []string{strings.Repeat("00", 32)}},
		}}, {Name: "none", Match: []Item{{Subject: []string{"x"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	at := func(env string) *entry.Facts {
		return identity(entry.URI, "https://github.com/acme/widget@refs/tags/v1", gh, entry.Extension{Name: "runner-environment", Value: env})
	}
	if ok, why := l.expected(0, at("github-hosted"), 0, true); !ok {
		t.Error(why)
	}
	if ok, why := l.expected(0, at("self-hosted"), 0, true); ok || why != "no expect item fits: runner-environment is self-hosted" {
		t.Error(why)
	}
	if ok, why := l.expected(0, at("github-hosted"), 0, false); ok || !strings.Contains(why, "not trusted") {
		t.Errorf("an untrusted certificate is expected: %s", why)
	}
	if ok, _ := l.expected(1, at("github-hosted"), 0, true); ok {
		t.Error("a watch without expect expects something")
	}
	// Anybody can make a key that has a name.
	l, err = Compile([]Watch{{Name: "w", Match: []Item{{Subject: []string{"*@acme.example"}}}, Expect: []Item{{Subject: []string{"release@acme.example"}, Issuer: []string{"none"}}}},
		{Name: "pinned", Match: []Item{{Subject: []string{"*@acme.example"}}}, Expect: []Item{{Subject: []string{"release@acme.example"}, Issuer: []string{"none"}, Fingerprint: []string{strings.Repeat("ab", 20)}}}}})
	if err != nil {
		t.Fatal(err)
	}
	key := identity(entry.Email, "release@acme.example", "")
	key.Identities[0].Certificate, key.Identities[0].Issuers, key.Identities[0].Format = nil, nil, "pgp"
	key.Identities[0].Prints = []string{strings.Repeat("ab", 20)}
	if ok, why := l.expected(0, key, 0, true); ok || !strings.Contains(why, "fingerprint") {
		t.Errorf("whoever calls himself so is expected: %s", why)
	}
	if ok, why := l.expected(1, key, 0, true); !ok {
		t.Errorf("a known key is not expected: %s", why)
	}
}

// TestMatchRawOfLongEntries: however long an entry is, it is searched, and what
// is wrapped in it too.
func TestMatchRawOfLongEntries(t *testing.T) {
	l := compile(t, Item{Subject: []string{"https://github.com/acme/*"}})
	text := strings.Repeat(".", 5<<20) + "https://github.com/acme/widget"
	for name, leaf := range map[string]string{
		"plain": "{broken" + text, "base64": "{broken" + base64.StdEncoding.EncodeToString([]byte(text)),
		"twice": "{broken" + base64.StdEncoding.EncodeToString([]byte("["+base64.StdEncoding.EncodeToString([]byte(text))+"]")),
	} {
		if len(l.MatchRaw([]byte(leaf))) != 1 {
			t.Errorf("%s: not found", name)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	for _, tc := range []struct {
		path string
		w    Watch
	}{
		{"[0].match", Watch{}},
		{"[0].match[0]", Watch{Match: []Item{{}}}},
		{"[0].match[0].subject[1]", Watch{Match: []Item{{Subject: []string{"a", ""}}}}},
		{"[0].match[0].subject[0]", Watch{Match: []Item{{Subject: []string{"re:("}}}}},
		{"[0].match[0].subject[0]", Watch{Match: []Item{{Subject: []string{`a\`}}}}},
		{"[0].match[0].subject[0]", Watch{Match: []Item{{Subject: []string{strings.Repeat("a", maxPattern+1)}}}}},
		{"[0].match[0].fingerprint[0]", Watch{Match: []Item{{Fingerprint: []string{"sha256:4f0c"}}}}},
		{"[0].match[0].fingerprint[0]", Watch{Match: []Item{{Fingerprint: []string{"md5:" + strings.Repeat("0", 32)}}}}},
		{"[0].match[0].fingerprint[0]", Watch{Match: []Item{{Fingerprint: []string{"SHA256:abc"}}}}},
		{"[0].match[0].digest[0]", Watch{Match: []Item{{Digest: []string{"sha256:" + strings.Repeat("g", 64)}}}}},
		{"[0].match[0].extensions.runner-enviroment", Watch{Match: []Item{{Extensions: map[string][]string{"runner-enviroment": {"x"}}}}}},
		{"[0].expect[0]", Watch{Match: []Item{{Kind: []string{"x"}}}, Expect: []Item{{Subject: []string{"x"}}}}},
		{"[0].expect[0]", Watch{Match: []Item{{Kind: []string{"x"}}}, Expect: []Item{{}}}},
	} {
		_, err := Compile([]Watch{tc.w})
		var e *Error
		if !errors.As(err, &e) || e.Path != tc.path {
			t.Errorf("%+v: %v, want an error at %s", tc.w, err, tc.path)
		}
	}
}

func TestHash(t *testing.T) {
	a := Watch{Name: "a", Match: []Item{{Subject: []string{"x"}}}}
	b := Watch{Name: "b", Match: []Item{{Subject: []string{"x"}}}}
	c := Watch{Name: "a", Match: []Item{{Subject: []string{"y"}}}}
	if a.Hash(nil) != b.Hash(nil) || a.Hash(nil) == c.Hash(nil) || !strings.HasPrefix(a.Hash(nil), "sha256:") {
		t.Error("the hash of a rule is not that of what it says")
	}
}

func TestMatchRaw(t *testing.T) {
	print := strings.Repeat("9f", 32)
	sum, _ := hex.DecodeString(print)
	l, err := Compile([]Watch{
		{Name: "mail", Match: []Item{{Subject: []string{"*@acme.example"}}}},
		{Name: "repo", Match: []Item{{Subject: []string{"https://github.com/acme/*"}, Issuer: []string{gh}}}},
		{Name: "key", Match: []Item{{Fingerprint: []string{print}}}},
		{Name: "re", Match: []Item{{Subject: []string{`re:.*-release@corp\.example`}}}},
		{Name: "short", Match: []Item{{Subject: []string{"a*b"}}}},
		{Name: "owner", Match: []Item{{Extensions: map[string][]string{"source-repository-owner-uri": {"https://gitlab.com/beta"}}}}},
		{Name: "branches", Match: []Item{{Subject: []string{`re:https://github\.com/gamma/.*|.*@gamma\.example|urn:.*`}}}},
		{Name: "folds", Match: []Item{{Subject: []string{`re:(?i)delta\.kiosk@x\.y`}}}},
		{Name: "issuer", Match: []Item{{Issuer: []string{"https://login.epsilon.example"}, Kind: []string{"dsse"}}}},
		{Name: "any subject", Match: []Item{{Subject: []string{"*"}, Extensions: map[string][]string{"source-repository-owner-uri": {"https://zeta.example/org"}}}}},
		{Name: "any subject of an issuer", Match: []Item{{Subject: []string{"re:.+"}, Issuer: []string{"https://login.eta.example"}}}},
		{Name: "two extensions", Match: []Item{{Extensions: map[string][]string{"source-repository-owner-uri": {"https://theta.example/org"}, "runner-environment": {"self-hosted"}}}}},
		{Name: "key of somebody", Match: []Item{{Fingerprint: []string{strings.Repeat("7e", 32)}, Subject: []string{"kappa-signer@x.example"}}}},
		{Name: "or no issuer", Match: []Item{{Subject: []string{"iota-releases@*", "*"}, Issuer: []string{"none", "https://login.iota.example"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, tc := range []struct {
		name, leaf string
		want       string
	}{
		{"plain", "{broken a@ACME.example", "0"},
		{"nothing", "{broken", ""},
		{"base64", `{"x":"` + b64("who: bob@acme.example") + `"`, "0"},
		{"twice", `"` + b64("["+b64("bob@acme.example!")+"]") + `"`, "0"},
		{"three times", b64("[" + b64("["+b64("bob@acme.example!")+"]") + "]"), "0"},
		{"four times is not looked at", b64("[" + b64("["+b64("["+b64("bob@acme.example!")+"]")+"]") + "]"), ""},
		{"out of step", "z" + b64("who: bob@acme.example"), "0"},
		{"URL alphabet", strings.NewReplacer("+", "-", "/", "_").Replace(b64("\xff\xfe\xfb https://github.com/acme/x \xff\xfb")), "1"},
		{"hash as hex", "x " + strings.ToUpper(print), "2"},
		{"hash as bytes", "x " + string(sum), "2"},
		{"hash in base64", `{"digest":"` + base64.StdEncoding.EncodeToString(sum) + `"`, "2"},
		{"part of an expression", "big-release@corp.example", "3"},
		{"extension", "https://gitlab.com/beta", "5"},
		{"several", "a@acme.example https://github.com/acme/", "01"},
		{"issuer alone says nothing", gh, ""},
		{"one branch", "https://GITHUB.com/gamma/x", "6"},
		{"another branch", "who@gamma.example", "6"},
		{"letters with a third form", "x Delta.kiOSK@X.Y", "7"},
		{"an issuer, and nothing else to look for", "https://login.epsilon.example", "8"},
		{"an extension, where subjects tell nothing", "https://zeta.example/org", "9"},
		{"an issuer, where subjects tell nothing", "https://login.eta.example", "10"},
		{"the extension that tells most", "https://theta.example/org", "11"},
		{"one that strangers have too", "self-hosted", ""},
		{"a subject, where fingerprints are in nothing", "kappa-signer@x.example", "12"},
		{"what tells in part", "iota-releases@x.example", "13"},
		{"an issuer that is not needed", "https://login.iota.example", ""},
	} {
		got := ""
		for _, h := range l.MatchRaw([]byte(tc.leaf)) {
			got += fmt.Sprint(h.Watch)
			if h.Found == "" {
				t.Errorf("%s: nothing said about what was found", tc.name)
			}
		}
		if got != tc.want {
			t.Errorf("%s: watches %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestIndexFindsAll compares the indexed search with asking every item.
func TestIndexFindsAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	word := func() string {
		return []string{"a", "ab", "B", "acme", "x.y", "@", "://", "/", "*", "?", "-", "!", "ACME", "k"}[rng.IntN(14)]
	}
	words := func() string {
		s := ""
		for range 1 + rng.IntN(6) {
			s += word()
		}
		return s
	}
	// Expressions that fit much of what words make, in ways in which they can be put together.
	expression := func() string {
		q := func() string { return regexp.QuoteMeta(strings.NewReplacer("*", "q", "?", "r").Replace(words())) }
		return "re:" + []string{q() + ".*", ".*" + q() + ".*", "(" + q() + "|" + q() + ").*", ".*(" + q() + "|" + q() + ")", q() + "?.*", "(?i).*" + q() + ".*", "(" + q() + ")+.*", "(?:.*" + q() + "){1,3}.*", q() + "{0}.*", ".*" + q()}[rng.IntN(10)]
	}
	kinds := []entry.SubjectType{entry.Email, entry.URI, entry.DNS, entry.Username}
	matched, skimmed, maybe := 0, 0, 0
	for range 3000 {
		var watches []Watch
		for range 1 + rng.IntN(8) {
			it := Item{}
			if rng.IntN(3) > 0 {
				it.Subject = []string{words(), words()}
			}
			if rng.IntN(3) == 0 {
				it.Subject = append(it.Subject, expression())
			}
			if rng.IntN(10) == 0 {
				it.Digest = []string{fmt.Sprintf("%064x", rng.IntN(3))}
			}
			if rng.IntN(3) == 0 {
				it.Extensions = map[string][]string{"build-trigger": {words()}}
			}
			if rng.IntN(4) == 0 || len(it.Subject)+len(it.Extensions) == 0 {
				it.Issuer = []string{[]string{words(), "none", "*"}[rng.IntN(3)]}
			}
			if rng.IntN(6) == 0 {
				it.Kind = []string{words()}
			}
			watches = append(watches, Watch{Match: []Item{it}})
		}
		l, err := Compile(watches)
		if err != nil {
			t.Fatal(err)
		}
		value := strings.NewReplacer("*", "q", "?", "r").Replace(words())
		f := identity(kinds[rng.IntN(len(kinds))], value, "", entry.Extension{Name: "build-trigger", Value: words()})
		f.Kind = words()
		if rng.IntN(2) == 0 {
			f.Identities[0].Issuers = []string{words()}
		}
		sum := [32]byte{31: byte(rng.IntN(4))}
		f.Digests = []string{fmt.Sprintf("sha256:%x", sum)}
		got := map[int]bool{}
		for _, h := range l.Match(f) {
			got[h.Watch] = true
		}
		if id := &f.Identities[0]; id.Subjects[0].Type == entry.Email || id.Subjects[0].Type == entry.URI {
			s := &entry.Skim{Kind: f.Kind, Digests: [][32]byte{sum}, Subject: []byte(id.Subjects[0].Value), Type: id.Subjects[0].Type, Certificate: id.Certificate}
			if len(id.Issuers) > 0 {
				s.Issuer = []byte(id.Issuers[0])
			}
			setExtension(s, "build-trigger", id.Extensions[0].Value)
			skimmed++
			if l.MayMatch(s) {
				maybe++
			} else if len(got) > 0 {
				t.Fatalf("%+v on %+v: there is a match, and MayMatch says that there is none", watches, f)
			}
		}
		for _, it := range l.items {
			v := view{facts: f, id: &f.Identities[0]}
			if want := it.fits(&v); want != got[it.watch] {
				t.Fatalf("%+v on %+v: index says %v, comparing says %v", watches[it.watch], f, got[it.watch], want)
			} else if want {
				matched++
			}
		}
	}
	if matched < 500 || maybe < 300 || skimmed-maybe < 300 {
		t.Errorf("only %d matches, %d of %d skimmed may match: the test shows too little", matched, maybe, skimmed)
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("*@acme.example", "a@acme.example")
	f.Add(`re:a(b|c)\d`, "ab1")
	f.Add(`\*?`, "*x")
	f.Fuzz(func(t *testing.T, text, value string) {
		defer bounds.Hold(t)()
		p, err := compilePattern(text)
		if err != nil {
			return
		}
		for _, kind := range []entry.SubjectType{"", entry.Email, entry.URI, entry.DNS, entry.Username} {
			s := newSubject(kind, value)
			if !p.fits(&s) {
				continue
			}
			var x index
			x.add(p, 1)
			x.build()
			found := false
			x.find(s.lower, func(int) { found = true })
			if !found {
				t.Fatalf("%q fits %q, but the index does not find it", text, value)
			}
		}
	})
}

// FuzzMatchRaw: what a watch looks for is found in bytes that nobody understands, whatever stands around
// it, plain or wrapped in base64 up to three times.
func FuzzMatchRaw(f *testing.F) {
	sum := strings.Repeat("\x9f", 32)
	l, err := Compile([]Watch{
		{Name: "repo", Match: []Item{{Subject: []string{"https://github.com/acme/*"}}}},
		{Name: "key", Match: []Item{{Fingerprint: []string{hex.EncodeToString([]byte(sum))}}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	for wraps := range byte(4) {
		f.Add([]byte(`{"x":"`), []byte(`"}`), wraps, false)
		f.Add([]byte("aGVsbG8"), []byte("\\n\\u0041=="), wraps, true)
	}
	f.Fuzz(func(t *testing.T, before, behind []byte, wraps byte, key bool) {
		defer bounds.Hold(t)()
		if len(before)+len(behind) > 48<<10 {
			return // an entry is as long as that at most
		}
		want, text := 0, "https://github.com/acme/widget"
		if key {
			want, text = 1, sum
		}
		leaf := string(before) + text + string(behind)
		for range wraps % 4 {
			leaf = "[" + base64.StdEncoding.EncodeToString([]byte(leaf)) + "]"
		}
		hits := l.MatchRaw([]byte(leaf))
		if !slices.ContainsFunc(hits, func(h RawHit) bool { return h.Watch == want }) {
			t.Errorf("%q is not found in %.200q", text, leaf)
		}
		// The same, and what is around it is not wrapped with it. An escape before it would be read with
		// its first letters, by everybody who reads JSON.
		if bytes.ContainsRune(before[max(0, len(before)-5):], '\\') {
			return
		}
		inner := base64.StdEncoding.EncodeToString([]byte(text))
		hits = l.MatchRaw([]byte(string(before) + inner + string(behind)))
		if !slices.ContainsFunc(hits, func(h RawHit) bool { return h.Watch == want }) {
			t.Errorf("%q is not found in %.200q", inner, string(before)+inner+string(behind))
		}
	})
}

// TestMayMatchIsSelective: what looks like everybody else's is not asked about, whatever is on the
// list, and nothing is allocated for it.
func TestMayMatchIsSelective(t *testing.T) {
	var watches []Watch
	for i := range 2000 {
		watches = append(watches, Watch{Match: []Item{
			{Subject: []string{fmt.Sprintf("https://github.com/nobody%d/*", i), fmt.Sprintf("*@nobody%d.example", i)}, Issuer: []string{gh}},
			{Subject: []string{fmt.Sprintf(`re:https://github\.com/(none|nobody)-%d/[a-z-]+/\.github/workflows/[a-z]+\.yml@refs/(heads|tags)/.*`, i)}},
			{Subject: []string{fmt.Sprintf("https://github.com/who/%d/.github/workflows/release.yml@refs/heads/main", i)}},
			{Extensions: map[string][]string{"source-repository-owner-uri": {fmt.Sprintf("https://github.com/nobody%d", i)}}},
			{Fingerprint: []string{fmt.Sprintf("%064x", i)}},
		}})
	}
	l, err := Compile(watches)
	if err != nil {
		t.Fatal(err)
	}
	maybe := 0
	s := entry.Skim{Kind: "hashedrekord", Digests: make([][32]byte, 1), Issuer: []byte(gh), Type: entry.URI, Certificate: []byte("c"), SPKI: []byte("k")}
	s.Digests[0][0] = 1
	for i := range 2000 {
		other := strings.Map(func(r rune) rune { return r - '0' + 'k' }, fmt.Sprint(1000000+i))
		s.Subject = fmt.Appendf(nil, "https://github.com/%s/project/.github/workflows/release.yml@refs/heads/main", other)
		setExtension(&s, "source-repository-owner-uri", "https://github.com/"+other)
		if l.MayMatch(&s) {
			maybe++
		}
	}
	if maybe > 20 {
		t.Errorf("%d of 2000 entries that are nobody's are asked about", maybe)
	}
	if n := testing.AllocsPerRun(10, func() { l.MayMatch(&s) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	s.Subject = []byte("https://GitHub.com/NoBody77/x")
	if !l.MayMatch(&s) {
		t.Error("nobody77 is not found")
	}
}

// setExtension makes a certificate of nothing but the value of an extension.
func setExtension(s *entry.Skim, name, value string) {
	s.Certificate = []byte("c" + value)
	s.Fulcio[entry.ExtensionNumber(name)] = entry.Place{From: 1, To: uint16(len(s.Certificate))}
}

// BenchmarkMatch compares a list of one watch with one of a thousand; the
// ratio of both is what counts.
func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 1000} {
		var watches []Watch
		for i := range n {
			watches = append(watches, Watch{Match: []Item{
				{Subject: []string{fmt.Sprintf("https://github.com/org%d/*", i)}, Issuer: []string{gh}},
				{Subject: []string{fmt.Sprintf("*@org%d.example", i)}},
				{Fingerprint: []string{fmt.Sprintf("%064x", i)}},
			}})
		}
		l, err := Compile(watches)
		if err != nil {
			b.Fatal(err)
		}
		f := identity(entry.URI, "https://github.com/somebody/project/.github/workflows/release.yml@refs/tags/v1.2.3", gh)
		b.Run(fmt.Sprintf("watches=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if len(l.Match(f)) != 0 {
					b.Fatal("matched")
				}
			}
		})
		b.Run(fmt.Sprintf("skimmed/watches=%d", n), func(b *testing.B) {
			s := entry.Skim{Kind: "hashedrekord", Subject: []byte(f.Identities[0].Subjects[0].Value), Type: entry.URI, Issuer: []byte(gh)}
			b.ReportAllocs()
			for b.Loop() {
				if l.MayMatch(&s) {
					b.Fatal("it may match")
				}
			}
		})
	}
}

// TestMatchRawThroughEscapes: PEM breaks base64 into lines, and JSON may write
// any letter as an escape.
func TestMatchRawThroughEscapes(t *testing.T) {
	l := compile(t, Item{Subject: []string{"https://github.com/acme/*"}})
	inner := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", 45) + "https://github.com/acme/widget" + strings.Repeat("y", 90)))
	for step := range 64 {
		var lines []string
		for rest := strings.Repeat("A", step) + inner; rest != ""; {
			n := min(64, len(rest))
			lines = append(lines, rest[:n])
			rest = rest[n:]
		}
		pem := "-----BEGIN CERTIFICATE-----\n" + strings.Join(lines, "\n") + "\n-----END"
		for name, leaf := range map[string]string{
			"PEM":                   pem,
			"PEM in JSON":           `{"pem":"` + strings.ReplaceAll(pem, "\n", `\n`) + `"`,
			"PEM in base64":         `{"pem":"` + base64.StdEncoding.EncodeToString([]byte(pem)) + `"`,
			"slashes escaped":       `{"x":"https:\/\/github.com\/acme\/widget"`,
			"letters escaped":       `{"x":"https://github.com/\u0061cme/widget"`,
			"base64 partly escaped": `{"x":"` + strings.Replace(inner, inner[10:11], fmt.Sprintf(`\u%04x`, inner[10]), 1) + `"`,
		} {
			if len(l.MatchRaw([]byte(leaf))) != 1 {
				t.Errorf("%s, step %d: not found", name, step)
			}
		}
	}
}

func TestFoldedExpressions(t *testing.T) {
	for expr, value := range map[string]string{
		`re:(?i).*m\x{fc}ller@acme\.example`: "M\u00dcLLER@acme.example",
		`re:(?i)kelvin@x`:                    "\u212aelvin@x",
		`re:(?i)acme@x`:                      "ACME@X",
	} {
		if len(compile(t, Item{Subject: []string{expr}}).Match(identity(entry.Email, value, ""))) != 1 {
			t.Errorf("%s does not fit %q", expr, value)
		}
	}
}

func TestExtensionsThatCanNeverMatch(t *testing.T) {
	for _, oid := range []string{"1.3.6.1.4.1.57264.1.1", "1.3.6.1.4.1.57264.1.8", "2.5.29.17"} {
		if _, err := Compile([]Watch{{Match: []Item{{Extensions: map[string][]string{oid: {"*"}}}}}}); err == nil {
			t.Errorf("%s accepted", oid)
		}
	}
}

// TestWeight: what repeats counts as often as it may, in every place where a pattern can stand.
func TestWeight(t *testing.T) {
	for pattern, want := range map[string][2]int{"https://*": {0, 0}, "re:a": {1, 4}, "re:(abc){1000}": {1000, 4000}, "re:((a{10}){10}){10}": {1000, 5000}, "re:(a{1000}": {0, 0}, `re:(\pL{500})?`: {500, 1 << 20}} {
		item := Item{Subject: []string{pattern}}
		one := Watch{Match: []Item{item}}.Weight()
		if one < want[0] || one > want[1] {
			t.Errorf("%s weighs %d, want %d to %d", pattern, one, want[0], want[1])
		}
		all := Watch{Match: []Item{{Subject: []string{pattern, pattern}, Issuer: []string{pattern}, Fingerprint: []string{pattern}, Digest: []string{pattern}, Kind: []string{pattern}, Extensions: map[string][]string{"a": {pattern}}}}, Expect: []Item{item}}.Weight()
		if all != 8*one {
			t.Errorf("%s eight times weighs %d, and once %d", pattern, all, one)
		}
	}
	nested := "a"
	for range 6 {
		nested = "(?:" + nested + "){0,900}"
	}
	if n := (Watch{Match: []Item{{Subject: []string{"re:" + nested}}}}).Weight(); n != 0 && n < 1<<20 {
		t.Errorf("%d", n) // the parser refuses what repeats so often
	}
}
