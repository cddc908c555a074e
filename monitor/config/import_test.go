package config

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

const foreign = `startIndex: 1000
monitoredValues:
  certIdentities:
    - certSubject: user@domain\.com
    - certSubject: ^other@domain\.com$
      issuers:
        - https://accounts\.google\.com
        - ^https://github\.com/login$
    - certSubject: https://github\.com/actions/starter/.*
      issuers: [^https://token\.actions\.githubusercontent\.com$]
    - certSubject: "("
  subjects:
    - subject@domain\.com
  fingerprints:
    - A0B1C2D3E4F5
    - A0B1C2D3E4F5A0B1C2D3E4F5A0B1C2D3E4F5A0B1C2D3E4F5A0B1C2D3E4F5A0B1
    - 0123456789abcdef0123456789abcdef01234567
  fulcioExtensions:
    build-config-uri:
      - https://example.com/owner/repository/build-config.yml
    issuer: https://issuer.example
  customExtensions:
    - objectIdentifier: 1.3.6.1.4.1.57264.1.9
      extensionValues: https://github.com/slsa/*@v1
  oidMatchers:
    oidExtensions:
      - objectIdentifier: [1, 3, 6, 1, 4, 1, 57264, 1, 11]
        extensionValues: [self-hosted]
    customExtensions:
      - objectIdentifier: 1.2.3.4
        extensionValues: [x]
    fulcioExtensions:
      runner-environment: [github-hosted]
outputIdentities: identities.txt
`

// named is what the command gives Import, without names in other forms.
func named(text string) (string, bool) {
	if strings.EqualFold(text, "BuildTrigger") {
		return "build-trigger", true
	}
	return entry.ExtensionName(text)
}

// watches compiles what Import returned, as the program does when it starts.
func watches(t testing.TB, dir string, text []byte) []Watch {
	t.Helper()
	c, err := Parse(filepath.Join(dir, "c.yaml"), append(text, "logs:\n  - {type: rekor-v2, url: 'https://r.example', public_key: '"+vkey+"', ca: ca.pem}\n"...), env)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var list []watchlist.Watch
	for _, w := range c.Watches {
		out := watchlist.Watch{Name: w.Name}
		for _, it := range w.Match {
			out.Match = append(out.Match, watchlist.Item{Subject: it.Subject, Issuer: it.Issuer, Fingerprint: it.Fingerprint, Extensions: it.Extensions})
		}
		list = append(list, out)
	}
	if _, err := watchlist.Compile(list); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c.Watches
}

func TestImport(t *testing.T) {
	text, warnings, err := Import([]byte(foreign), named, watchlist.CheckPattern)
	if err != nil {
		t.Fatal(err)
	}
	items := watches(t, folder(t), text)[0].Match
	if len(items) != 12 {
		t.Fatalf("%d items:\n%s", len(items), text)
	}
	fits := func(item int, subject string) bool {
		expr, ok := strings.CutPrefix(items[item].Subject[0], "re:")
		return ok && regexp.MustCompile(`^(?:`+expr+`)$`).MatchString(subject)
	}
	for i, tc := range []struct {
		item    int
		subject string
		want    bool
	}{
		{0, "user@domain.com", true}, {0, "xuser@domain.community", true}, {0, "user@domainxcom", false},
		{1, "other@domain.com", true}, {1, "xother@domain.com", false},
		{2, "https://github.com/actions/starter/x@refs/tags/v1", true}, {2, "http://evil/?https://github.com/actions/starter/", true},
		{3, "subject@domain.com", true},
	} {
		if fits(tc.item, tc.subject) != tc.want {
			t.Errorf("%d: %s fits %q: want %v", i, items[tc.item].Subject, tc.subject, tc.want)
		}
	}
	if len(items[1].Issuer) != 2 || len(items[0].Issuer) != 0 || len(items[3].Issuer) != 0 || items[4].Fingerprint[0][:4] != "A0B1" || len(items[5].Fingerprint[0]) != 40 {
		t.Errorf("%+v", items[:6])
	}
	if e := items[6].Extensions["build-config-uri"]; !slices.Equal(e, []string{"https://example.com/owner/repository/build-config.yml"}) || items[7].Issuer[0] != "https://issuer.example" {
		t.Errorf("%+v", items[6:8])
	}
	for i, name := range map[int]string{8: "build-signer-uri", 9: "runner-environment", 10: "runner-environment", 11: "1.2.3.4"} {
		if len(items[i].Extensions[name]) != 1 {
			t.Errorf("item %d: %+v, want %s", i, items[i], name)
		}
	}
	if e := items[8].Extensions["build-signer-uri"][0]; e != `https://github.com/slsa/\*@v1` {
		t.Errorf("a value that is no glob became %q", e)
	}
	// One for each that is wider than it looks, none for those with anchors, and
	// one for each that was left out.
	all := strings.Join(warnings, "\n")
	for text, want := range map[string]bool{`user@domain`: true, `"^other`: false, `accounts`: true, `"^https://github`: false, `starter`: true, `token`: false, `subject@domain`: true, `"("`: true, `A0B1C2D3E4F5"`: true, `xuser@domain.comx`: true} {
		if strings.Contains(all, text) != want {
			t.Errorf("warnings name %s: want %v\n%s", text, want, all)
		}
	}
}

// TestImportForms: the same in every form of YAML, and what cannot be converted is
// told of and leaves the rest as it is.
func TestImportForms(t *testing.T) {
	for name, tc := range map[string]struct {
		text, want string
		warnings   []string
	}{
		"flow":          {"monitoredValues: {certIdentities: [{certSubject: ^a$, issuers: [^i$]}]}", "subject re:(?:^a$) issuer re:(?:^i$)", nil},
		"JSON":          {`{"monitoredValues": {"certIdentities": [{"certSubject": "^a$"}], "fulcioExtensions": {"BuildTrigger": ["push"]}}}`, "subject re:(?:^a$), build-trigger push", nil},
		"wide list":     {"monitoredValues:\n  certIdentities:\n    -   certSubject: ^a$\n", "subject re:(?:^a$)", nil},
		"lower case":    {"monitoredvalues:\n  certidentities:\n  - certsubject: ^a$\n", "subject re:(?:^a$)", nil},
		"quotation":     {`monitoredValues: {subjects: ['^\Qa.b']}`, `subject re:(?:\Aa\.b)(?s:.*)`, []string{"anywhere"}},
		"dot":           {"monitoredValues: {subjects: ['^.*@acme.example$']}", "subject re:(?:^.*@acme.example$)", []string{"fits any character"}},
		"no subject":    {"monitoredValues: {subjects: [^a$], certIdentities: [{certSubjct: x}]}", "subject re:(?:^a$)", []string{"certIdentities[0] names no certSubject"}},
		"bad extension": {"monitoredValues: {subjects: [^a$], fulcioExtensions: {nosuch: [x]}, customExtensions: [{objectIdentifier: 2.5.29.17, extensionValues: [x]}]}", "subject re:(?:^a$)", []string{`"nosuch" is none`, `"2.5.29.17" is none`}},
		"too long":      {"monitoredValues: {subjects: [^a$, ^" + strings.Repeat("b", 5000) + "$], fulcioExtensions: {BuildTrigger: [push, " + strings.Repeat("c", 4097) + "], RunInvocationURI: [" + strings.Repeat("d", 4097) + "]}}", "subject re:(?:^a$), build-trigger push", []string{`subjects "^bbb`, `"buildtrigger", "ccc`, `"runinvocationuri", "ddd`}},
		"other keys":    {"serverURL: x\nmonitoredValues: {subjects: [^a$], subjcts: [b]}\noutputIdentities: y", "subject re:(?:^a$)", []string{`"serverURL", "outputIdentities"`, `"subjcts"`}},
	} {
		text, warnings, err := Import([]byte(tc.text), named, watchlist.CheckPattern)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, it := range watches(t, folder(t), text)[0].Match {
			item := ""
			for _, s := range it.Subject {
				item += " subject " + s
			}
			for _, s := range it.Issuer {
				item += " issuer " + s
			}
			for name, values := range it.Extensions {
				item += " " + name + " " + strings.Join(values, " ")
			}
			got = append(got, strings.TrimSpace(item))
		}
		all := strings.Join(warnings, "\n")
		ok := strings.Join(got, ", ") == tc.want && len(warnings) == len(tc.warnings)
		for _, w := range tc.warnings {
			ok = ok && strings.Contains(all, w)
		}
		if !ok {
			t.Errorf("%s: %s\n%s", name, strings.Join(got, ", "), all)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	for _, text := range []string{"", "monitoredValues: {}", "state: x", "- a", "monitoredValues: [", "monitoredValues: {certIdentities: 7}", "monitoredValues: {subjects: [a, \"p\xffq\"]}"} {
		if out, _, err := Import([]byte(text), named, watchlist.CheckPattern); err == nil {
			t.Errorf("%q: %s", text, out)
		}
	}
}

// FuzzImport: what comes out is a watchlist that can be read.
func FuzzImport(f *testing.F) {
	f.Add([]byte(foreign))
	f.Add([]byte("monitoredValues:\n  subjects:\n   !- s")) // the library panics
	f.Add([]byte("monitoredValues: {fulcioExtensions: {build-config-uri: ['']}}"))
	dir := folder(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		text, _, err := Import(data, named, watchlist.CheckPattern)
		if err != nil {
			return
		}
		watches(t, dir, text)
	})
}
