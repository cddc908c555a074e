package watchlist

import (
	"slices"
	"strings"

	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// Hit says that identities of an entry are a watch's.
type Hit struct {
	// Watch is the place of the watch in the list.
	Watch int
	// Ours are the identities that an item of match fits.
	Ours []Ours
}

// Ours is one identity that a watch claims. Index is its place in
// Facts.Identities, or -1 where an entry names no identity at all.
type Ours struct {
	Index int
	// Pinned says that a fingerprint or digest made it ours: then it is ours
	// whether or not anybody vouches for its certificate. Known says that a
	// fingerprint did.
	Pinned, Known bool
}

// Match finds the watches that an entry belongs to, in the order of the list.
func (l *List) Match(f *entry.Facts) []Hit {
	var hits []Hit
	if len(f.Identities) == 0 {
		none := view{facts: f}
		hits = l.matchOne(hits, &none, -1)
	}
	for i := range f.Identities {
		v := view{facts: f, id: &f.Identities[i]}
		hits = l.matchOne(hits, &v, i)
	}
	slices.SortFunc(hits, func(a, b Hit) int { return a.Watch - b.Watch })
	return hits
}

// view is an identity with its entry, ready to be compared; parts of it are
// prepared when they are first asked for.
type view struct {
	facts    *entry.Facts
	id       *entry.Identity // nil: an entry without any
	subjects []subject
	issuers  []subject
	ready    bool
}

func (v *view) prepare() {
	if v.ready || v.id == nil {
		return
	}
	v.ready = true
	for _, s := range v.id.Subjects {
		v.subjects = append(v.subjects, newSubject(s.Type, s.Value))
	}
	for _, i := range v.id.Issuers {
		v.issuers = append(v.issuers, newSubject("", i))
	}
}

func (v *view) fingerprints() []string {
	if v.id == nil {
		return nil
	}
	return v.id.Fingerprints()
}

func (l *List) matchOne(hits []Hit, v *view, at int) []Hit {
	v.prepare()
	var tried []int
	try := func(id int) {
		if slices.Contains(tried, id) {
			return
		}
		tried = append(tried, id)
		if it := l.items[id]; it.fits(v) {
			hits = addHit(hits, it, at)
		}
	}
	for i := range v.subjects {
		l.subjects.find(v.subjects[i].lower, try)
	}
	for i := range v.issuers {
		l.issuers.find(v.issuers[i].lower, try)
	}
	if len(v.issuers) == 0 {
		for _, id := range l.noIssuer {
			try(id)
		}
	}
	if len(l.extensions) > 0 && v.id != nil {
		for _, e := range v.id.Extensions {
			if x := l.extensions[e.Name]; x != nil {
				x.find(e.Value, try)
			}
		}
	}
	if len(l.hashes) > 0 {
		for _, d := range v.facts.Digests {
			for _, id := range l.hashes[d] {
				try(id)
			}
		}
		if l.fingerprints {
			for _, p := range v.fingerprints() {
				for _, id := range l.hashes[asciiLower(p)] { // SSH's have both cases
					try(id)
				}
			}
		}
	}
	for _, id := range l.globHashes {
		try(id)
	}
	l.kinds.find(v.facts.Kind, try)
	return hits
}

func addHit(hits []Hit, it *item, at int) []Hit {
	known := len(it.fingerprint) > 0
	pinned := known || len(it.digest) > 0
	i := slices.IndexFunc(hits, func(h Hit) bool { return h.Watch == it.watch })
	if i < 0 {
		return append(hits, Hit{Watch: it.watch, Ours: []Ours{{at, pinned, known}}})
	}
	ours := &hits[i].Ours
	for j := range *ours {
		if (*ours)[j].Index == at {
			(*ours)[j].Pinned = (*ours)[j].Pinned || pinned
			(*ours)[j].Known = (*ours)[j].Known || known
			return hits
		}
	}
	*ours = append(*ours, Ours{at, pinned, known})
	return hits
}

// fits reports whether every key of the item fits the identity.
func (it *item) fits(v *view) bool { return len(it.misfits(v, true)) == 0 }

// misfit is a key that does not fit, and what was found there, for people.
type misfit struct{ key, text string }

// misfits returns the keys that do not fit, with what was found there; only the
// first one, without that, if it is enough.
func (it *item) misfits(v *view, first bool) []misfit {
	v.prepare()
	var bad []misfit
	check := func(ok bool, key string, found func() string) bool {
		switch {
		case ok:
		case first:
			bad = append(bad, misfit{key: key})
		default:
			bad = append(bad, misfit{key, key + " is " + found()})
		}
		return !ok && first
	}
	if len(it.subject) > 0 && check(anyFits(it.subject, v.subjects), "subject", func() string { return listed(v.subjects) }) {
		return bad
	}
	if len(it.issuer) > 0 || it.noIssuer {
		ok := it.noIssuer && len(v.issuers) == 0 || anyFits(it.issuer, v.issuers)
		if check(ok, "issuer", func() string { return listed(v.issuers) }) {
			return bad
		}
	}
	if len(it.fingerprint) > 0 && check(anyText(it.fingerprint, v.fingerprints()), "fingerprint", func() string { return strings.Join(v.fingerprints(), ", ") }) {
		return bad
	}
	if len(it.digest) > 0 && check(anyText(it.digest, v.facts.Digests), "digest", func() string { return strings.Join(v.facts.Digests, ", ") }) {
		return bad
	}
	if len(it.kind) > 0 && check(anyText(it.kind, []string{v.facts.Kind}), "kind", func() string { return v.facts.Kind }) {
		return bad
	}
	for _, e := range it.extensions {
		value, ok := "", false
		if v.id != nil {
			value, ok = v.id.Extension(e.name)
		}
		s := newSubject("", value)
		if check(ok && anyFits(e.patterns, []subject{s}), e.name, func() string {
			if !ok {
				return "not set"
			}
			return value
		}) {
			return bad
		}
	}
	return bad
}

func anyFits(patterns []*pattern, subjects []subject) bool {
	for _, p := range patterns {
		for i := range subjects {
			if p.fits(&subjects[i]) {
				return true
			}
		}
	}
	return false
}

func anyText(patterns []*pattern, texts []string) bool {
	for _, p := range patterns {
		for _, t := range texts {
			if s := (subject{value: t, lower: asciiLower(t)}); p.fits(&s) {
				return true
			}
		}
	}
	return false
}

func listed(subjects []subject) string {
	if len(subjects) == 0 {
		return "none"
	}
	var out []string
	for _, s := range subjects {
		out = append(out, s.value)
	}
	return strings.Join(out, ", ")
}

// usesClaims reports whether the item believes what a certificate says.
func (it *item) usesClaims() bool {
	return len(it.subject)+len(it.issuer)+len(it.extensions) > 0
}

// doubts says why what an identity claims of itself is not believed, where the item
// needs that.
func (it *item) doubts(v *view, vouched bool) []misfit {
	switch {
	case v.id == nil || !it.usesClaims():
	case v.id.Certificate != nil && !vouched:
		return []misfit{{"certificate", "the certificate is not trusted"}}
	case v.id.Certificate == nil && len(it.fingerprint)+len(it.digest) == 0:
		return []misfit{{"fingerprint", "the key names its holder itself, as anybody's can: only with its fingerprint can it be expected"}}
	}
	return nil
}

// Fits returns the places in expect, from 0 on, of the items that an identity
// which is a watch's fits; if there are none, why, and the same in the words of
// the rule alone. index is as in Ours. vouched says whether a trusted authority
// issued its certificate: what an untrusted certificate says never makes anything
// expected, nor does the name that a bare key gives itself.
func (l *List) Fits(watch int, f *entry.Facts, index int, vouched bool) (items []int, cause, reason string) {
	v := view{facts: f}
	if index >= 0 {
		v.id = &f.Identities[index]
	}
	w := &l.watches[watch]
	if len(w.expect) == 0 {
		cause = "the watch expects nothing"
		return nil, cause, cause + ": whatever matches is unexpected"
	}
	var best []misfit
	for i, it := range w.expect {
		bad := append(it.misfits(&v, false), it.doubts(&v, vouched)...)
		if len(bad) == 0 {
			items = append(items, i)
		} else if best == nil || len(bad) < len(best) {
			best = bad
		}
	}
	if len(items) > 0 {
		return items, "", ""
	}
	var keys, found []string
	for _, m := range best {
		keys, found = append(keys, m.key), append(found, m.text)
	}
	return nil, "no expect item fits: " + strings.Join(keys, ", "), "no expect item fits: " + strings.Join(found, "; ")
}
