package watchlist

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

func TestMeets(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"abc", "abc", true}, {"abc", "ABC", true}, {"abc", "abd", false}, {"abc", "ab", false},
		{"a*", "*c", true}, {"a*", "b*", false}, {"*", "anything", true}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"a*c", "a?c", true},
		{"a*b*d", "a?c", false}, {"a*b*c", "a?c", true}, {"a*b*c", "a??c", true}, {"*a*", "*b*", true}, {"*a", "*b", false}, {`a\*`, "ab", false}, {`a\*`, "a?", true},
		{"https://github.com/acme/*", "https://github.com/acme/widget/*@refs/tags/v*", true},
		{"https://github.com/acme/*", "https://github.com/other/*", false},
		{"*@acme.example", "https://github.com/*@acme.example", false},
		{"*@acme.example", "release@*", true},
		{"re:x+", "xx", true}, {"re:x+", "xy", false}, {"xy", "re:x+", false}, {"re:x+", "re:y+", true}, {"re:x+", "y*", true},
	} {
		if got := meets(tc.a, tc.b); got != tc.want {
			t.Errorf("%s and %s: %v", tc.a, tc.b, got)
		}
		if got := meets(tc.b, tc.a); got != tc.want {
			t.Errorf("%s and %s: %v", tc.b, tc.a, got)
		}
	}
}

// FuzzMeets: whatever fits both of two globs shows that they meet.
func FuzzMeets(f *testing.F) {
	f.Add("a*", "*b", "axb")
	f.Add("a?c", "a*c", "abc")
	f.Add(`\**`, "*?", "*x")
	f.Fuzz(func(t *testing.T, a, b, text string) {
		defer bounds.Hold(t)()
		p, errA := compilePattern(a)
		q, errB := compilePattern(b)
		if errA != nil || errB != nil || strings.HasPrefix(a, "re:") || strings.HasPrefix(b, "re:") {
			return
		}
		s := newSubject("", text)
		if p.fits(&s) && q.fits(&s) && !meets(a, b) {
			t.Errorf("%q fits %q and %q", text, a, b)
		}
		if meets(a, b) != meets(b, a) {
			t.Errorf("%q and %q meet one way only", a, b)
		}
	})
}

func TestDisjointAndBroad(t *testing.T) {
	acme := Item{Subject: []string{"https://github.com/acme/*"}, Issuer: []string{gh}}
	for key, other := range map[string]Item{
		"":        {Subject: []string{"https://github.com/acme/widget@*"}},
		"subject": {Subject: []string{"https://github.com/other/*"}},
		"issuer":  {Issuer: []string{"https://accounts.google.com"}},
	} {
		if got := Disjoint(acme, other); got != key {
			t.Errorf("%+v: %q", other, got)
		}
	}
	hosted := Item{Extensions: map[string][]string{"runner-environment": {"github-hosted"}}}
	if got := Disjoint(hosted, Item{Extensions: map[string][]string{"runner-environment": {"self-*"}}}); got != "runner-environment" {
		t.Errorf("%q", got)
	}
	for _, it := range []Item{acme, {Fingerprint: []string{strings.Repeat("0", 64)}}, {Subject: []string{"*"}, Extensions: map[string][]string{"source-repository-uri": {"x"}}}} {
		if why := it.Broad(); why != "" {
			t.Errorf("%+v: %s", it, why)
		}
	}
	for _, it := range []Item{{Subject: []string{"*"}}, {Issuer: []string{gh}}, {Kind: []string{"dsse"}}, {Subject: []string{"re:.*"}, Issuer: []string{gh}}, {Digest: []string{"sha256:*", "*"}}} {
		if why := it.Broad(); why == "" {
			t.Errorf("%+v is narrow", it)
		}
	}
}

// BenchmarkOverlaps compares each of 500 watches with each other, as a check of the
// configuration does.
func BenchmarkOverlaps(b *testing.B) {
	var items []Item
	for i := range 500 {
		items = append(items, Item{Subject: []string{fmt.Sprintf("https://github.com/org-%d/*/.github/workflows/release.yml@refs/tags/v*", i)}, Issuer: []string{gh}})
	}
	for b.Loop() {
		for i, x := range items {
			for _, y := range items[i+1:] {
				if Disjoint(x, y) == "" {
					b.Fatal(x, y)
				}
			}
		}
	}
}
