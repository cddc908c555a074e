// Package watchlist decides whose an entry is. Rules are compiled once; a
// thousand of them cost hardly more than one, since an index finds the few
// that could fit before any is compared.
package watchlist

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// Item is one description of an identity. All keys that are set must fit it;
// of the patterns of one key, any.
type Item struct {
	// Subject is compared with the subjects of the certificate.
	Subject []string `json:"subject,omitempty"`
	// Issuer is compared with the OIDC issuer; "none" stands for a key.
	Issuer []string `json:"issuer,omitempty"`
	// Fingerprint is sha256:HEX of a certificate or a key (bare hex is taken too),
	// the 40 hex digits of a PGP key, or SHA256: and base64 of an SSH key.
	Fingerprint []string `json:"fingerprint,omitempty"`
	// Digest is ALGORITHM:HEX of an artifact; bare hex is taken by its length.
	Digest []string `json:"digest,omitempty"`
	// Kind is compared with the kind of entry.
	Kind []string `json:"kind,omitempty"`
	// Extensions are compared by name or dotted OID.
	Extensions map[string][]string `json:"extensions,omitempty"`
}

// Watch is one rule: what is ours, and what is normal for it.
type Watch struct {
	Name   string
	Match  []Item
	Expect []Item
	// Untrusted says what becomes of identities that no trusted authority
	// vouches for: "record" (default), "alert" or "ignore".
	Untrusted string
}

// Hash identifies what the rule says, for coverage: it changes when the
// outcome of a scan could change, not with the name. terms are what items of
// expect ask for beside their patterns; nil for nothing.
func (w Watch) Hash(terms any) string { return hashOf(w.rule(terms)) }

// Document is what Hash is the SHA-256 of: JSON.
func (w Watch) Document(terms any) []byte {
	data, _ := json.Marshal(w.rule(terms)) // strings, times and lists of them always marshal
	return data
}

func (w Watch) rule(terms any) any {
	return struct {
		Match, Expect []Item
		Untrusted     string
		Terms         any `json:",omitempty"`
	}{w.Match, w.Expect, w.Untrusted, terms}
}

// Hash identifies what an item says.
func (it Item) Hash() string { return hashOf(it) }

func hashOf(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return "" // strings, times and lists of them always marshal
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Error is a rule that cannot be compiled, with its place in the form of
// [0].match[1].subject[0].
type Error struct {
	Path string
	Err  error
}

func (e *Error) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// List is a compiled watchlist. It may be used by several goroutines.
type List struct {
	watches []watch
	items   []*item // all items of match; their ids are their places here
	// By what an item is found: the most telling key that it has.
	subjects, issuers, kinds index
	extensions               map[string]*index
	hashes                   map[string][]int // fingerprints and digests
	globHashes               []int            // items with a fingerprint or digest that is a glob
	noIssuer                 []int            // items that want no issuer, and have nothing more telling
	fingerprints             bool             // whether any item needs fingerprints
	skim                     skimIndex
	raw                      *rawSearch
}

type watch struct {
	Watch
	expect []*item
}

// item is a compiled Item.
type item struct {
	watch       int
	index       int // its place in match or expect
	subject     []*pattern
	issuer      []*pattern
	noIssuer    bool
	fingerprint []*pattern
	digest      []*pattern
	kind        []*pattern
	extensions  []extensionItem
}

type extensionItem struct {
	name     string
	patterns []*pattern
}

// Compile checks and compiles rules. Its error joins one *Error for every
// place that is wrong.
func Compile(watches []Watch) (*List, error) {
	l := &List{extensions: make(map[string]*index), hashes: make(map[string][]int)}
	var errs []error
	for i, w := range watches {
		compiled := watch{Watch: w}
		if len(w.Match) == 0 {
			errs = append(errs, &Error{fmt.Sprintf("[%d].match", i), errors.New("is empty: nothing could ever match")})
		}
		for j, it := range w.Match {
			c, bad := compileItem(it, fmt.Sprintf("[%d].match[%d]", i, j))
			c.watch, c.index = i, j
			errs = append(errs, bad...)
			if len(bad) == 0 {
				l.add(c)
			}
		}
		for j, it := range w.Expect {
			path := fmt.Sprintf("[%d].expect[%d]", i, j)
			c, bad := compileItem(it, path)
			c.watch, c.index = i, j
			errs = append(errs, bad...)
			if len(it.Subject) > 0 && len(it.Issuer) == 0 {
				errs = append(errs, &Error{path, errors.New("names a subject but no issuer: any issuer could vouch for that subject")})
			}
			compiled.expect = append(compiled.expect, c)
		}
		l.watches = append(l.watches, compiled)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, x := range append(slices.Collect(maps.Values(l.extensions)), &l.subjects, &l.issuers, &l.kinds) {
		x.build()
	}
	l.skim = l.newSkimIndex()
	l.raw = newRawSearch(l.items)
	return l, nil
}

// Watches returns the rules that the list was compiled from.
func (l *List) Watches() []Watch {
	out := make([]Watch, len(l.watches))
	for i, w := range l.watches {
		out[i] = w.Watch
	}
	return out
}

func compileItem(it Item, path string) (*item, []error) {
	c := &item{}
	var errs []error
	compile := func(key string, texts []string, normalise func(string) (string, error)) []*pattern {
		var out []*pattern
		for i, text := range texts {
			var p *pattern
			norm, err := text, error(nil)
			if normalise != nil {
				norm, err = normalise(text)
			}
			if err == nil {
				p, err = compilePattern(norm)
			}
			if err != nil {
				errs = append(errs, &Error{fmt.Sprintf("%s.%s[%d]", path, key, i), fmt.Errorf("%.200q %w", text, err)})
				continue
			}
			out = append(out, p)
		}
		return out
	}
	c.subject = compile("subject", it.Subject, func(s string) (string, error) {
		if ip, err := netip.ParseAddr(s); err == nil {
			return ip.Unmap().String(), nil // as certificates' addresses are written
		}
		return s, nil
	})
	issuers := slices.DeleteFunc(slices.Clone(it.Issuer), func(s string) bool {
		c.noIssuer = c.noIssuer || s == "none"
		return s == "none"
	})
	c.issuer = compile("issuer", issuers, nil)
	c.fingerprint = compile("fingerprint", it.Fingerprint, normaliseFingerprint)
	c.digest = compile("digest", it.Digest, func(s string) (string, error) { return normaliseHash(s, digestAlgorithms...) })
	c.kind = compile("kind", it.Kind, nil)
	names := make([]string, 0, len(it.Extensions))
	for name := range it.Extensions {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		known, ok := entry.ExtensionName(name)
		if !ok {
			errs = append(errs, &Error{path + ".extensions." + name, fmt.Errorf("%.100q is neither the name of a Fulcio extension nor a dotted OID", name)})
			continue
		}
		c.extensions = append(c.extensions, extensionItem{known, compile("extensions."+name, it.Extensions[name], nil)})
	}
	if len(it.Subject)+len(it.Issuer)+len(it.Fingerprint)+len(it.Digest)+len(it.Kind)+len(it.Extensions) == 0 {
		errs = append(errs, &Error{path, errors.New("has no key: it would fit everything")})
	}
	return c, errs
}

// hashLengths gives the hex digits of the hashes that entries hold.
var hashLengths = map[string]int{"sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}

// digestAlgorithms are those of digests in entries, the one that is meant by bare
// hex of its length.
var digestAlgorithms = []string{"sha256", "sha384", "sha512", "sha1"}

// NormaliseDigest brings the digest of one artifact into the form in which entries
// have it: ALGORITHM:HEX.
func NormaliseDigest(text string) (string, error) {
	out, err := normaliseHash(text, digestAlgorithms...)
	if err == nil && (strings.HasPrefix(out, "re:") || strings.ContainsAny(out, "*?")) {
		err = errors.New("stands for several artifacts: name one")
	}
	return out, err
}

// normaliseFingerprint brings a fingerprint into the form in which entries have
// it: sha256:HEX for certificates and keys, 40 hex digits for PGP, SHA256: and
// base64 without padding for SSH.
func normaliseFingerprint(text string) (string, error) {
	if digest, ok := strings.CutPrefix(text, "SHA256:"); ok && len(digest) == 43 {
		if _, err := base64.RawStdEncoding.Strict().DecodeString(digest); err == nil {
			return text, nil
		}
	}
	pgp := strings.TrimPrefix(strings.ToLower(strings.ReplaceAll(text, " ", "")), "0x")
	if _, err := hex.DecodeString(pgp); err == nil && len(pgp) == 40 {
		return pgp, nil
	}
	out, err := normaliseHash(text, "sha256")
	if err != nil {
		err = fmt.Errorf("%w (or 40 hex digits for a PGP key, SHA256: and base64 for an SSH key)", err)
	}
	return out, err
}

// normaliseHash brings a fingerprint or digest into the form algorithm:hex, in
// lower case. One with wildcards or a regular expression stays as it is.
func normaliseHash(text string, algorithms ...string) (string, error) {
	if strings.HasPrefix(text, "re:") {
		return text, nil
	}
	lower := strings.ToLower(text)
	algorithm, digits, ok := strings.Cut(lower, ":")
	if !ok {
		digits = lower
		for _, a := range algorithms {
			if len(digits) == hashLengths[a] {
				algorithm = a
			}
		}
	}
	if !slices.Contains(algorithms, algorithm) {
		return "", fmt.Errorf("is not of the form %s:HEX", strings.Join(algorithms, ":HEX or "))
	}
	if strings.ContainsAny(digits, "*?") {
		return algorithm + ":" + digits, nil
	}
	if _, err := hex.DecodeString(digits); err != nil || len(digits) != hashLengths[algorithm] {
		return "", fmt.Errorf("could never match: %s has %d hex digits", algorithm, hashLengths[algorithm])
	}
	return algorithm + ":" + digits, nil
}

// add files an item of match under its most telling key.
func (l *List) add(it *item) {
	id := len(l.items)
	l.items = append(l.items, it)
	l.fingerprints = l.fingerprints || len(it.fingerprint) > 0
	file := func(x *index, patterns []*pattern) {
		for _, p := range patterns {
			x.add(p, id)
		}
	}
	switch {
	case len(it.fingerprint)+len(it.digest) > 0:
		patterns := it.fingerprint
		if len(patterns) == 0 {
			patterns = it.digest
		}
		for _, p := range patterns {
			if !p.exact || p.re != nil {
				l.globHashes = append(l.globHashes, id)
				break
			}
			l.hashes[p.prefix] = append(l.hashes[p.prefix], id)
		}
	case len(it.subject) > 0:
		file(&l.subjects, it.subject)
	case len(it.extensions) > 0:
		e := it.extensions[0]
		if l.extensions[e.name] == nil {
			l.extensions[e.name] = &index{}
		}
		file(l.extensions[e.name], e.patterns)
	case len(it.issuer) > 0 || it.noIssuer:
		file(&l.issuers, it.issuer)
		if it.noIssuer {
			l.noIssuer = append(l.noIssuer, id)
		}
	default:
		file(&l.kinds, it.kind)
	}
}
