package watchlist

import "strings"

// What can be said of rules without any entry, for warnings about them.

// Disjoint returns the key for which no value fits both of two items, so that no
// identity with one value a key could be both's; empty if there is none. Regular
// expressions are compared with plain values only.
func Disjoint(a, b Item) string {
	for _, k := range []struct {
		name string
		a, b []string
	}{
		{"subject", a.Subject, b.Subject}, {"issuer", a.Issuer, b.Issuer}, {"kind", a.Kind, b.Kind}, {"fingerprint", a.Fingerprint, b.Fingerprint}, {"digest", a.Digest, b.Digest},
	} {
		if len(k.a) > 0 && len(k.b) > 0 && !anyMeets(k.a, k.b) {
			return k.name
		}
	}
	for name, patterns := range a.Extensions {
		if other, ok := b.Extensions[name]; ok && !anyMeets(patterns, other) {
			return name
		}
	}
	return ""
}

func anyMeets(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if meets(x, y) {
				return true
			}
		}
	}
	return false
}

// meets reports whether some text may fit both of two patterns.
func meets(a, b string) bool {
	if strings.HasPrefix(a, "re:") || strings.HasPrefix(b, "re:") {
		return regexpMeets(a, b)
	}
	if !prefixesMeet(a, b) {
		return false // nearly all pairs of a long watchlist
	}
	if (isMailGlob(a) && isURIGlob(b)) || (isURIGlob(a) && isMailGlob(b)) {
		return false
	}
	return globsMeet(globTokens(a), globTokens(b))
}

// prefixesMeet compares what is before the first wildcard of each.
func prefixesMeet(a, b string) bool {
	for i := 0; i < len(a) && i < len(b); i++ {
		x, y := a[i], b[i]
		if x >= 0x80 || y >= 0x80 || strings.IndexByte(`*?\`, x) >= 0 || strings.IndexByte(`*?\`, y) >= 0 {
			return true
		}
		if x != y && asciiLowerByte(x) != asciiLowerByte(y) {
			return false
		}
	}
	return true
}

func asciiLowerByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

func isURIGlob(s string) bool  { return strings.Contains(s, "://") }
func isMailGlob(s string) bool { return strings.Contains(s, "@") && !isURIGlob(s) }

// regexpMeets compares an expression with a text that has no wildcards; nothing is
// known of two expressions.
func regexpMeets(a, b string) bool {
	if strings.HasPrefix(b, "re:") {
		a, b = b, a
	}
	if strings.HasPrefix(b, "re:") || strings.ContainsAny(b, `*?\`) {
		return true
	}
	p, err := compilePattern(a)
	if err != nil {
		return true
	}
	s := newSubject("", b)
	return p.fits(&s)
}

// token is a character of a glob, in lower case, or a wildcard.
type token struct {
	char     rune
	any, one bool // * and ?
}

func globTokens(glob string) []token {
	var out []token
	escaped := false
	for _, r := range strings.ToLower(glob) {
		switch {
		case escaped:
			out, escaped = append(out, token{char: r}), false
		case r == '\\':
			escaped = true
		case r == '*':
			out = append(out, token{any: true})
		case r == '?':
			out = append(out, token{one: true})
		default:
			out = append(out, token{char: r})
		}
	}
	return out
}

// globsMeet reports whether some text fits both globs, by going through both at
// the same time: reach[j] says that what a has passed so far may be what the first
// j tokens of b have.
func globsMeet(a, b []token) bool {
	reach := make([]bool, len(b)+1)
	closeOver(reach, b, 0)
	for _, x := range a {
		next := make([]bool, len(b)+1)
		if x.any {
			// Whatever b goes on with, this one takes.
			on := false
			for j := range next {
				on = on || reach[j]
				next[j] = on
			}
			reach = next
			continue
		}
		for j, y := range b {
			if !reach[j] {
				continue
			}
			switch {
			case y.any:
				next[j] = true // b stays where it is
			case y.one || x.one || x.char == y.char:
				next[j+1] = true
			}
		}
		spread(next, b)
		reach = next
	}
	return reach[len(b)]
}

// closeOver begins at a place, and passes the stars that stand for nothing.
func closeOver(reach []bool, b []token, at int) {
	reach[at] = true
	spread(reach, b)
}

func spread(reach []bool, b []token) {
	for j, y := range b {
		if reach[j] && y.any {
			reach[j+1] = true
		}
	}
}

// everybody are patterns that fit the names of very many.
var everybody = map[string]bool{
	"re:.*": true, "re:.+": true, "re:^.*$": true, "re:^.+$": true, "*@*": true, "*://*": true, "https://*": true,
	"https://github.com/*": true, "https://gitlab.com/*": true, "*.com": true, "*@gmail.com": true,
}

// Broad says why an item of match claims what is not one's own; empty if it does
// not.
func (it Item) Broad() string {
	all := func(patterns []string) bool {
		for _, p := range patterns {
			if everybody[p] || strings.Trim(p, "*") == "" {
				return true
			}
		}
		return false
	}
	narrow := func(patterns []string) bool { return len(patterns) > 0 && !all(patterns) }
	for _, patterns := range it.Extensions {
		if narrow(patterns) {
			return ""
		}
	}
	switch {
	case narrow(it.Subject) || narrow(it.Fingerprint) || narrow(it.Digest):
		return ""
	case len(it.Subject) > 0:
		return "it claims everybody whose name has that form"
	case narrow(it.Issuer):
		return "it claims everything that is signed through its issuer"
	case narrow(it.Kind):
		return "it claims every entry of its kind"
	}
	return "it claims every entry"
}
