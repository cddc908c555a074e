package watchlist

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// minLiteral is the shortest part of a pattern that is looked for in bytes
// that could not be decoded: shorter ones are in everything.
const minLiteral = 4

// Bounds of the search in undecodable bytes.
const (
	rawDepth = 3 // how often base64 in base64 is undone
	// rawBudget bounds the bytes that are looked at for one entry; of a long one,
	// rawTimes what it has: itself and what is wrapped in it once or twice.
	rawBudget = 4 << 20
	rawTimes  = 4
	minRun    = 8 // characters of base64 that are worth undoing
)

// rawSearch looks for what watches name in bytes that nobody understands. It
// is two automata (Aho and Corasick): one over lower-case text, one over the
// bytes of hashes.
type rawSearch struct {
	text, bytes automaton
}

func newRawSearch(items []*item) *rawSearch {
	r := &rawSearch{}
	for _, it := range items {
		for _, p := range it.tellingPatterns() {
			if _, digits, ok := strings.Cut(p.prefix, ":"); ok && p.exact && len(it.fingerprint)+len(it.digest) > 0 {
				if sum, err := hex.DecodeString(digits); err == nil {
					r.bytes.add(string(sum), it.watch)
					r.text.add(digits, it.watch)
					continue
				}
			}
			for _, text := range p.telling() {
				r.text.add(text, it.watch)
			}
		}
	}
	r.text.build()
	r.bytes.build()
	return r
}

// tellingPatterns are those of one key of the item, of which one is in whatever fits it, since all keys
// must: of the first key whose patterns all tell something, and of several extensions the one that tells
// most. Where there is none, they are those of a key of which some do. Fingerprints come last: what has
// one does not hold it, as a rule.
func (it *item) tellingPatterns() []*pattern {
	keys := [][]*pattern{it.digest, it.subject}
	extensions := slices.Clone(it.extensions)
	slices.SortStableFunc(extensions, func(a, b extensionItem) int { return cmp.Compare(leastTold(b.patterns), leastTold(a.patterns)) })
	for _, e := range extensions {
		keys = append(keys, e.patterns)
	}
	if !it.noIssuer {
		keys = append(keys, it.issuer)
	}
	keys = append(keys, it.fingerprint)
	for _, patterns := range keys {
		if leastTold(patterns) > 0 {
			return patterns
		}
	}
	for _, patterns := range keys {
		if slices.ContainsFunc(patterns, func(p *pattern) bool { return len(p.telling()) > 0 }) {
			return patterns
		}
	}
	return nil
}

// leastTold is the length of the shortest text that tells of one of the patterns; 0: one tells nothing,
// or there is none.
func leastTold(patterns []*pattern) int {
	least := 0
	for i, p := range patterns {
		n := 0
		if texts := p.telling(); len(texts) > 0 {
			n = shortest(texts)
		}
		if i == 0 || n < least {
			least = n
		}
	}
	return least
}

// telling are texts of which one at least is in whatever fits, in lower case and long enough to tell:
// one that is in all of it or, of an expression with branches, one of each. None: only the expression
// itself could tell.
func (p *pattern) telling() []string {
	if len(p.literal) >= minLiteral {
		return []string{p.literal}
	}
	var best []string
	for _, oneOf := range p.needs {
		var texts []string
		for _, text := range oneOf {
			texts = append(texts, strings.Trim(text, "\x00"))
		}
		if n := shortest(texts); n >= minLiteral && (best == nil || n > shortest(best)) {
			best = texts
		}
	}
	return best
}

// RawHit says that bytes that could not be decoded name something of a watch.
type RawHit struct {
	Watch int
	// Found is the part of a pattern, or the hex of a hash, that was found.
	Found string
}

// MatchRaw looks in the raw bytes of an entry, and in what base64 in them
// decodes to, up to three times over, for literal parts of patterns and for
// hashes. It returns at most one hit a watch, in the order of the list.
func (l *List) MatchRaw(leaf []byte) []RawHit {
	found := make(map[int]string)
	budget := max(rawBudget, rawTimes*len(leaf))
	l.raw.search(leaf, 0, &budget, found)
	var hits []RawHit
	for i := range l.watches {
		if text, ok := found[i]; ok {
			hits = append(hits, RawHit{i, text})
		}
	}
	return hits
}

func (r *rawSearch) search(data []byte, depth int, budget *int, found map[int]string) {
	if *budget -= len(data); *budget < 0 {
		return
	}
	note := func(data []byte) {
		r.text.run(data, true, func(watch int, key string) { found[watch] = key })
		r.bytes.run(data, false, func(watch int, key string) { found[watch] = hex.EncodeToString([]byte(key)) })
	}
	note(data)
	// The same without what JSON may write differently, and without line ends:
	// PEM breaks base64 into lines.
	if plain := unescaped(data); len(plain) != len(data) {
		note(plain)
		data = plain
	}
	if depth == rawDepth {
		return
	}
	for len(data) > 0 {
		n := 0
		for n < len(data) && isBase64(data[n]) {
			n++
		}
		if n >= minRun {
			r.searchRun(data[:n], depth, budget, found)
		}
		data = data[min(n+1, len(data)):]
	}
}

// unescaped undoes JSON's escapes wherever they stand, and leaves line ends out.
func unescaped(data []byte) []byte {
	out := make([]byte, 0, len(data))
	for i := 0; i < len(data); i++ {
		c := data[i]
		switch {
		case c == '\r' || c == '\n':
			continue
		case c != '\\' || i+1 == len(data):
			out = append(out, c)
			continue
		}
		i++
		switch c := data[i]; c {
		case 'n', 'r', 't', 'b', 'f':
		case 'u':
			if i+4 < len(data) {
				if n, err := strconv.ParseUint(string(data[i+1:i+5]), 16, 16); err == nil {
					out = utf8.AppendRune(out, rune(n))
					i += 4
					continue
				}
			}
			out = append(out, '\\', c)
		default:
			out = append(out, c)
		}
	}
	return out
}

// searchRun undoes a run of base64. Where it begins is not known when bytes
// are broken, so that all four places in a group are tried.
func (r *rawSearch) searchRun(run []byte, depth int, budget *int, found map[int]string) {
	clean := make([]byte, len(run))
	for i, c := range run {
		switch c {
		case '-':
			c = '+'
		case '_':
			c = '/'
		}
		clean[i] = c
	}
	for offset := range 4 {
		part := clean[min(offset, len(clean)):]
		out := make([]byte, base64.RawStdEncoding.DecodedLen(len(part)))
		// A last group of one character stands for nothing.
		if len(part)%4 == 1 {
			part = part[:len(part)-1]
		}
		if n, err := base64.RawStdEncoding.Decode(out, part); err == nil && n > 0 {
			r.search(out[:n], depth+1, budget, found)
		}
	}
}

func isBase64(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '-' || c == '_'
}

// automaton finds many keys in one pass.
type automaton struct {
	states []acState
}

type acState struct {
	next    map[byte]int
	fail    int
	out     int // the nearest state on the way of fail that ends a key; 0: none
	key     string
	watches []int
}

func (a *automaton) add(key string, watch int) {
	if len(a.states) == 0 {
		a.states = []acState{{next: map[byte]int{}}}
	}
	at := 0
	for i := range len(key) {
		next, ok := a.states[at].next[key[i]]
		if !ok {
			next = len(a.states)
			a.states[at].next[key[i]] = next
			a.states = append(a.states, acState{next: map[byte]int{}})
		}
		at = next
	}
	a.states[at].key = key
	a.states[at].watches = append(a.states[at].watches, watch)
}

// build links each state to the longest suffix of it that is a state too.
func (a *automaton) build() {
	if len(a.states) == 0 {
		return
	}
	var queue []int
	for _, s := range a.states[0].next {
		queue = append(queue, s)
	}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for c, s := range a.states[at].next {
			queue = append(queue, s)
			f := a.step(a.states[at].fail, c)
			a.states[s].fail = f
			a.states[s].out = f
			if a.states[f].key == "" {
				a.states[s].out = a.states[f].out
			}
		}
	}
}

func (a *automaton) step(at int, c byte) int {
	for {
		if next, ok := a.states[at].next[c]; ok {
			return next
		}
		if at == 0 {
			return 0
		}
		at = a.states[at].fail
	}
}

func (a *automaton) run(data []byte, fold bool, yield func(watch int, key string)) {
	if len(a.states) == 0 {
		return
	}
	at := 0
	for _, c := range data {
		if fold {
			c = lowerByte(c)
		}
		at = a.step(at, c)
		for s := at; s != 0; s = a.states[s].out {
			for _, w := range a.states[s].watches {
				yield(w, a.states[s].key)
			}
		}
	}
}
