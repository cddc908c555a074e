package config

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
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

func TestImport(t *testing.T) {
	text, warnings, err := Import([]byte(foreign))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(filepath.Join(folder(t), "c.yaml"), append(text, "logs:\n  - {type: rekor-v2, url: 'https://r.example', public_key: '"+vkey+"', ca: ca.pem}\n"...), env)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	items := c.Watches[0].Match
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
	if len(items[1].Issuer) != 2 || len(items[0].Issuer) != 0 || !slices.Equal(items[3].Issuer, []string{"none"}) || items[4].Fingerprint[0][:4] != "A0B1" || len(items[5].Fingerprint[0]) != 40 {
		t.Errorf("%+v", items[:6])
	}
	if e := items[6].Extensions["build-config-uri"]; !slices.Equal(e, []string{"https://example.com/owner/repository/build-config.yml"}) || items[7].Issuer[0] != "https://issuer.example" {
		t.Errorf("%+v", items[6:8])
	}
	for i, name := range map[int]string{8: "1.3.6.1.4.1.57264.1.9", 9: "runner-environment", 10: "1.3.6.1.4.1.57264.1.11", 11: "1.2.3.4"} {
		if len(items[i].Extensions[name]) != 1 {
			t.Errorf("item %d: %+v, want %s", i, items[i], name)
		}
	}
	if e := items[8].Extensions["1.3.6.1.4.1.57264.1.9"][0]; e != `https://github.com/slsa/\*@v1` {
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

func TestImportRefuses(t *testing.T) {
	for _, text := range []string{"", "monitoredValues: {}", "state: x", "- a", "monitoredValues: [", "monitoredValues: {certIdentities: 7}"} {
		if out, _, err := Import([]byte(text)); err == nil {
			t.Errorf("%q: %s", text, out)
		}
	}
}

// FuzzImport: what comes out is a watchlist that can be read.
func FuzzImport(f *testing.F) {
	f.Add([]byte(foreign))
	f.Add([]byte("monitoredValues:\n  subjects:\n   !- s")) // the library panics
	dir := folder(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		text, _, err := Import(data)
		if err != nil {
			return
		}
		if _, err := Parse(filepath.Join(dir, "c.yaml"), append(text, "logs:\n  - {type: rekor-v2, url: 'https://r.example', public_key: '"+vkey+"', ca: ca.pem}\n"...), env); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	})
}
