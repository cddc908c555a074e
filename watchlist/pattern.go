package watchlist

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// maxPattern bounds the length of a pattern: nobody's name is that long, and
// regular expressions are compiled.
const maxPattern = 4096

// scope says with which kinds of subject a pattern is compared.
type scope int

const (
	anySubject scope = iota
	onlyEmails       // a glob with "@" and without "://"
	onlyURIs         // a glob with "://"
)

// pattern is a compiled glob or regular expression.
type pattern struct {
	text  string
	scope scope
	// A glob: literal runs between wildcards. '?' is a run of its own.
	glob []globPart
	// re is set instead for a regular expression.
	re *regexp.Regexp
	// prefix and literal, in lower case, must begin and occur in whatever fits.
	prefix, literal string
	exact           bool // the prefix is all of it
	// needs are what patterns are found by: of each list, one text at least is in whatever fits,
	// in lower case and framed as the index has it.
	needs [][]string
}

type globPart struct {
	kind byte // 'l' literal, '*', '?'
	text string
}

// CheckPattern says why a text is no glob or regular expression of a watch; nil if it is one.
func CheckPattern(text string) error {
	_, err := compilePattern(text)
	return err
}

// compilePattern reads a pattern as a configuration has it.
func compilePattern(text string) (*pattern, error) {
	if text == "" {
		return nil, errors.New("is empty: it could never match")
	}
	if len(text) > maxPattern {
		return nil, fmt.Errorf("has %d bytes, more than %d", len(text), maxPattern)
	}
	if expr, ok := strings.CutPrefix(text, "re:"); ok {
		return compileRegexp(text, expr)
	}
	p := &pattern{text: text}
	switch {
	case strings.Contains(text, "://"):
		p.scope = onlyURIs
	case strings.Contains(text, "@"):
		p.scope = onlyEmails
	}
	var run strings.Builder
	flush := func() {
		if run.Len() > 0 {
			p.glob = append(p.glob, globPart{'l', run.String()})
			run.Reset()
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '*', '?':
			flush()
			if n := len(p.glob); c == '?' || n == 0 || p.glob[n-1].kind != '*' {
				p.glob = append(p.glob, globPart{kind: c})
			}
		case '\\':
			if i++; i == len(text) {
				return nil, errors.New(`ends in a lone \: write \\ for a backslash`)
			}
			run.WriteByte(text[i])
		default:
			run.WriteByte(c)
		}
	}
	flush()
	if first := p.glob[0]; first.kind == 'l' {
		p.prefix = asciiLower(first.text)
		p.exact = len(p.glob) == 1
	}
	for i, part := range p.glob {
		if part.kind != 'l' {
			continue
		}
		text := asciiLower(part.text)
		if len(text) > len(p.literal) {
			p.literal = text
		}
		if i == 0 {
			text = "\x00" + text
		}
		if i == len(p.glob)-1 {
			text += "\x00"
		}
		p.needs = append(p.needs, []string{text})
	}
	return p, nil
}

func compileRegexp(text, expr string) (*pattern, error) {
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("is no regular expression of RE2: %w", err)
	}
	p := &pattern{text: text}
	if p.re, err = regexp.Compile(`^(?:` + expr + `)$`); err != nil {
		return nil, fmt.Errorf("is no regular expression of RE2: %w", err)
	}
	parsed = parsed.Simplify()
	p.literal = asciiLower(longestLiteral(parsed))
	if bare, err := regexp.Compile(expr); err == nil {
		prefix, whole := bare.LiteralPrefix()
		if strings.ContainsRune(prefix, utf8.RuneError) {
			prefix, whole = "", false
		}
		p.prefix = asciiLower(prefix)
		p.exact = whole && prefix != ""
		if p.exact {
			p.needs = append(p.needs, []string{"\x00" + p.prefix + "\x00"})
		} else if prefix != "" {
			p.needs = append(p.needs, []string{"\x00" + p.prefix})
		}
	}
	p.needs = append(p.needs, needsOf(parsed)...)
	return p, nil
}

// Weight says what regular expressions in a watch cost, in instructions of a program that
// matches them, about; what repeats counts as often as it may. Globs weigh nothing. What
// cannot be parsed does not either: Compile says why.
func (w Watch) Weight() int {
	total := 0
	each := func(patterns []string) {
		for _, p := range patterns {
			expr, ok := strings.CutPrefix(p, "re:")
			if !ok {
				continue
			}
			if re, err := syntax.Parse(expr, syntax.Perl); err == nil {
				total = min(total+weight(re), maxWeight)
			}
		}
	}
	for _, items := range [][]Item{w.Match, w.Expect} {
		for _, it := range items {
			for _, list := range [][]string{it.Subject, it.Issuer, it.Fingerprint, it.Digest, it.Kind} {
				each(list)
			}
			for _, list := range it.Extensions {
				each(list)
			}
		}
	}
	return total
}

// maxWeight is more than anything that can be used.
const maxWeight = 1 << 30

func weight(re *syntax.Regexp) int {
	total := 1 + len(re.Rune)/8
	for _, sub := range re.Sub {
		total = min(total+weight(sub), maxWeight)
	}
	if re.Op == syntax.OpRepeat {
		times := max(re.Max, re.Min+1)
		if total > maxWeight/times {
			return maxWeight
		}
		total *= times
	}
	return total
}

// longestLiteral returns the longest text that is in every string that the
// expression matches, as far as that is plain to see.
func longestLiteral(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		runes := re.Rune
		if re.Flags&syntax.FoldCase != 0 {
			runes = longestPlain(runes)
		}
		if slices.Contains(runes, utf8.RuneError) {
			return "" // it stands for bytes that are no text, too
		}
		return string(runes)
	case syntax.OpCapture, syntax.OpPlus:
		return longestLiteral(re.Sub[0])
	case syntax.OpConcat:
		longest := ""
		for _, sub := range re.Sub {
			if l := longestLiteral(sub); len(l) > len(longest) {
				longest = l
			}
		}
		return longest
	}
	return ""
}

// needsOf returns lists of texts, in lower case: in every string that the expression matches there
// is one at least of each list, as far as that is plain to see.
func needsOf(re *syntax.Regexp) [][]string {
	switch re.Op {
	case syntax.OpLiteral:
		if text := longestLiteral(re); text != "" {
			return [][]string{{asciiLower(text)}}
		}
	case syntax.OpCapture, syntax.OpPlus:
		return needsOf(re.Sub[0])
	case syntax.OpConcat:
		var all [][]string
		for _, sub := range re.Sub {
			all = append(all, needsOf(sub)...)
		}
		return all
	case syntax.OpAlternate:
		// One of the branches: of each the list whose shortest text is longest.
		var any []string
		for _, sub := range re.Sub {
			var best []string
			for _, oneOf := range needsOf(sub) {
				if best == nil || shortest(oneOf) > shortest(best) {
					best = oneOf
				}
			}
			if best == nil || len(any)+len(best) > maxBranches {
				return nil
			}
			any = append(any, best...)
		}
		return [][]string{any}
	}
	return nil
}

// maxBranches bounds the texts of a list: patterns with more are found by others, or asked.
const maxBranches = 64

func shortest(texts []string) int {
	n := len(texts[0])
	for _, t := range texts {
		n = min(n, len(t))
	}
	return n
}

// longestPlain returns the longest part that folds to ASCII letters alone: what folds beyond ASCII is
// found by asking the expression. K and S have each a third form outside of ASCII.
func longestPlain(runes []rune) []rune {
	var longest []rune
	from := 0
	for i := 0; i <= len(runes); i++ {
		if i < len(runes) && runes[i] < 0x80 && !strings.ContainsRune("kKsS", runes[i]) {
			continue
		}
		if i-from > len(longest) {
			longest = runes[from:i]
		}
		from = i + 1
	}
	return longest
}

// subject is a subject, issuer or extension value ready to be compared.
type subject struct {
	kind  entry.SubjectType // "" for what is no subject
	value string
	lower string
	// [foldFrom, foldTo) is compared without case: the domain of an e-mail
	// address or user name, scheme and host of a URI, all of a host name.
	foldFrom, foldTo int
}

func newSubject(kind entry.SubjectType, value string) subject {
	s := subject{kind: kind, value: value, lower: asciiLower(value)}
	switch {
	case kind == entry.DNS || kind == entry.IP:
		s.foldTo = len(value)
	case kind == entry.Email:
		s.foldFrom, s.foldTo = strings.LastIndexByte(value, '@')+1, len(value)
	case kind == entry.Username:
		s.foldFrom, s.foldTo = strings.LastIndexByte(value, '!')+1, len(value)
	default:
		if i := strings.Index(value, "://"); i > 0 {
			host := value[i+3:]
			if end := strings.IndexAny(host, "/?#"); end >= 0 {
				host = host[:end]
			}
			s.foldTo = i + 3 + len(host)
			if at := strings.LastIndexByte(host, '@'); at >= 0 {
				s.foldFrom = i + 3 + at + 1
			}
		}
	}
	return s
}

// asciiLower folds ASCII letters alone. Host names have no others, and bytes of
// other letters, or of no text at all, must stay where they are.
func asciiLower(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r >= 'A' && r <= 'Z' }) < 0 {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// fits reports whether the pattern fits the whole value.
func (p *pattern) fits(s *subject) bool {
	switch {
	case p.scope == onlyEmails && s.kind != entry.Email && s.kind != "",
		p.scope == onlyURIs && s.kind != entry.URI && s.kind != "":
		return false
	case p.re != nil:
		if p.re.MatchString(s.value) {
			return true
		}
		if s.foldTo == s.foldFrom {
			return false
		}
		folded := s.value[:s.foldFrom] + s.lower[s.foldFrom:s.foldTo] + s.value[s.foldTo:]
		return folded != s.value && p.re.MatchString(folded)
	}
	return p.globFits(s)
}

// globFits matches in time proportional to pattern times value at worst: only
// the last '*' is ever tried again.
func (p *pattern) globFits(s *subject) bool {
	part, at := 0, 0
	star, starAt := -1, 0
	for {
		ok := false
		switch {
		case part == len(p.glob):
			if at == len(s.value) {
				return true
			}
		case p.glob[part].kind == '*':
			star, starAt = part, at
			part++
			continue
		case p.glob[part].kind == '?':
			if size := runeLen(s.value[at:]); size > 0 {
				part, at, ok = part+1, at+size, true
			}
		default:
			if n := len(p.glob[part].text); s.hasAt(at, p.glob[part].text) {
				part, at, ok = part+1, at+n, true
			}
		}
		if ok {
			continue
		}
		if star < 0 || starAt >= len(s.value) {
			return false
		}
		starAt++
		part, at = star+1, starAt
	}
}

func runeLen(s string) int {
	for i := range s {
		if i > 0 {
			return i
		}
	}
	return len(s)
}

// hasAt reports whether text stands at a place of the value, without case
// where that does not count.
func (s *subject) hasAt(at int, text string) bool {
	if len(s.value)-at < len(text) {
		return false
	}
	for i := range len(text) {
		a, b := s.value[at+i], text[i]
		if a != b && (at+i < s.foldFrom || at+i >= s.foldTo || lowerByte(a) != lowerByte(b)) {
			return false
		}
	}
	return true
}

func lowerByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
