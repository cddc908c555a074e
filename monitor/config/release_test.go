package config

import (
	"strconv"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

func TestFromReleases(t *testing.T) {
	uri := func(text string) []SignerSubject { return []SignerSubject{{Value: text, URI: true}} }
	own := map[string]string{"source-repository-uri": "https://github.com/acme/widget", "source-repository-identifier": "1", "run-invocation-uri": "https://github.com/acme/widget/actions/runs/1"}
	tests := map[string]struct {
		signer        Signer
		match, expect string
	}{
		"tag of a version": {Signer{Subjects: uri("https://github.com/acme/widget/.github/workflows/r.yml@refs/tags/v1.2.3"), Issuer: "https://i.example", Extensions: own},
			`- extensions: {source-repository-uri: "https://github.com/acme/widget"} - subject: "https://github.com/acme/widget/*"`,
			`- subject: "https://github.com/acme/widget/.github/workflows/r.yml@refs/tags/v*" issuer: "https://i.example" extensions: source-repository-uri: "https://github.com/acme/widget" source-repository-identifier: "1"`},
		"tag that is a number": {Signer{Subjects: uri("https://github.com/acme/widget/.github/workflows/r.yml@refs/tags/1.2.3"), Issuer: "https://i.example", Extensions: own},
			`- extensions: {source-repository-uri: "https://github.com/acme/widget"} - subject: "https://github.com/acme/widget/*"`,
			`- subject: "re:https://github\\.com/acme/widget/\\.github/workflows/r\\.yml@refs/tags/[0-9][^/]*" issuer: "https://i.example" extensions: source-repository-uri: "https://github.com/acme/widget" source-repository-identifier: "1"`},
		"workflow that others use too": {Signer{Subjects: uri("https://github.com/slsa/generator/.github/workflows/g.yml@refs/tags/release-2.0"), Issuer: "https://i.example", Extensions: own},
			`- extensions: {source-repository-uri: "https://github.com/acme/widget"}`,
			`- subject: "https://github.com/slsa/generator/.github/workflows/g.yml@refs/tags/release-*" issuer: "https://i.example" extensions: source-repository-uri: "https://github.com/acme/widget" source-repository-identifier: "1"`},
		"old certificate": {Signer{Subjects: uri("https://github.com/acme/widget/.github/workflows/r.yml@refs/heads/2.0"), Issuer: "https://i.example", Extensions: map[string]string{"github-workflow-repository": "acme/widget"}},
			`- extensions: {github-workflow-repository: "acme/widget"} - subject: "https://github.com/acme/widget/*"`,
			`- subject: "https://github.com/acme/widget/.github/workflows/r.yml@refs/heads/2.0" issuer: "https://i.example" extensions: github-workflow-repository: "acme/widget"`},
		"address": {Signer{Subjects: []SignerSubject{{Value: "a@acme.example", Mail: true}}, Issuer: "https://i.example"},
			`- subject: "a@acme.example"`, `- subject: "a@acme.example" issuer: "https://i.example"`},
		"no issuer, two names": {Signer{Subjects: []SignerSubject{{Value: "a*"}, {Value: "spiffe://acme/b", URI: true}}},
			`- subject: "a\\*" - subject: "spiffe://acme/b"`, `- subject: ["a\\*", "spiffe://acme/b"] issuer: "none"`},
		"name that looks like an address": {Signer{Subjects: []SignerSubject{{Value: "a@b!acme.example"}}, Issuer: "https://i.example"},
			`- subject: "re:a@b!acme\\.example"`, `- subject: "re:a@b!acme\\.example" issuer: "https://i.example"`},
		"key": {Signer{Fingerprint: "sha256:00"}, `- fingerprint: "sha256:00"`, `- fingerprint: "sha256:00"`},
	}
	for name, test := range tests {
		test.signer.From = "r.json"
		text := string(FromReleases([]Signer{test.signer, test.signer}, false))
		_, list, _ := strings.Cut(text, "    match:\n")
		match, rest, _ := strings.Cut(list, "    expect:\n")
		expect, _, _ := strings.Cut(rest, "# Who")
		flat := func(s string) string { return strings.Join(strings.Fields(s), " ") }
		if flat(match) != test.match || flat(expect) != test.expect {
			t.Errorf("%s: match %s\nexpect %s", name, flat(match), flat(expect))
		}
	}
	if text := string(FromReleases([]Signer{{From: "a", Fingerprint: "sha256:00"}}, true)); !strings.Contains(text, "sigstore: staging") {
		t.Errorf("staging: %s", text)
	}
}

// FuzzFromReleases: whatever signers are called, the configuration can be read,
// and holds their names as they are.
func FuzzFromReleases(f *testing.F) {
	for _, value := range []string{"a", "a\"b\\c", "x\n  - y", "\x00\a\b\f\v\x1b\x7f", "\u0085\u2028\ufeff\U0001f600", "- {a: b} # &x *y !z", "bos\xff", "https://h/w@refs/tags/v1", "re:x", "none", "*?\\"} {
		f.Add(value, value)
	}
	f.Fuzz(func(t *testing.T, subject, value string) {
		defer bounds.Hold(t)()
		s := Signer{From: "r.json", Subjects: []SignerSubject{{Value: subject}}, Issuer: "https://i.example", Extensions: map[string]string{"source-repository-uri": value}}
		if !s.Writable() || subject == "" || value == "" {
			return
		}
		cfg, err := Parse("c.yaml", FromReleases([]Signer{s}, false), env)
		if err != nil {
			t.Fatal(err)
		}
		w := cfg.Watches[0]
		if got := w.Match[0].Extensions["source-repository-uri"]; len(w.Match) != 1 || len(got) != 1 || got[0] != plainGlob(value) {
			t.Errorf("%q, want the pattern of %q", got, value)
		}
		want, _ := strconv.Unquote(s.Subjects[0].pattern())
		if got := w.Expect[0].Subject; len(w.Expect) != 1 || len(got) != 1 || got[0] != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}
