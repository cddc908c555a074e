// Package redact replaces e-mail addresses by keyed hashes: who has the key can tell which
// address a hash stands for, and the same address has the same hash.
package redact

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MinKey is how many bytes a key has at least: addresses can be guessed, so that it must
// not be.
const MinKey = 32

// Redactor replaces addresses.
type Redactor struct{ key []byte }

// New returns a Redactor with a key; white space around it does not count.
func New(key []byte) (*Redactor, error) {
	key = bytes.TrimSpace(key)
	if len(key) < MinKey {
		return nil, fmt.Errorf("has fewer than %d bytes, so that addresses could be guessed; make one with: openssl rand -hex 32", MinKey)
	}
	return &Redactor{key}, nil
}

// JSON replaces the addresses in every string of a document, keys among them.
func (r *Redactor) JSON(doc []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	return json.Marshal(r.value(v))
}

func (r *Redactor) value(v any) any {
	switch v := v.(type) {
	case string:
		return r.Text(v)
	case []any:
		for i := range v {
			v[i] = r.value(v[i])
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[r.Text(k)] = r.value(x)
		}
		return out
	}
	return v
}

// Text replaces the addresses in a text; one that is a JSON document itself is taken as
// one, since escapes would hide where an address begins.
//
// What is like an address and none stays: the ref behind a workflow (x.yml@refs/heads/main), a
// version or a commit behind a path (actions/checkout@v4), a digest of an image (@sha256:…). In
// doubt it is replaced.
func (r *Redactor) Text(s string) string {
	if trimmed := strings.TrimLeft(s, " \t\r\n\ufeff"); strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[") {
		if doc, err := r.JSON([]byte(trimmed)); err == nil && json.Valid([]byte(trimmed)) {
			return string(doc)
		}
	}
	encoded := strings.Contains(s, "=?") // RFC 2047
	var out strings.Builder
	done := 0 // what is behind it was not written yet
	for at := 0; at < len(s); {
		width := atSign(s[at:], encoded)
		if width == 0 {
			at++
			continue
		}
		end := at
		if end > done && s[end-1] == '\\' && s[at] == '@' {
			end-- // escaped, as in a pattern
		}
		from, path := localBefore(s, done, end)
		to := domainBehind(s, at+width)
		domain := s[at+width : to]
		if from == end || domain == "" || noAddress(domain, s[to:], path) {
			at += width
			continue
		}
		out.WriteString(s[done:from])
		out.WriteString(r.hash(s[from:end] + "@" + domain))
		done, at = to, to
	}
	return out.String() + s[done:]
}

func (r *Redactor) hash(address string) string {
	if plain, err := url.PathUnescape(address); err == nil {
		address = plain
	}
	mac := hmac.New(sha256.New, r.key)
	mac.Write([]byte(strings.ToLower(address)))
	return "redacted:" + hex.EncodeToString(mac.Sum(nil))
}

// atSign is the width of the sign that a text begins with, in any of its forms; 0 for none.
func atSign(s string, encoded bool) int {
	if s[0] != '@' && s[0] != '%' && s[0] != '\\' && s[0] != '&' && s[0] != '=' && s[0] < 0x80 {
		return 0
	}
	for _, sign := range []string{"@", "%40", "%2540", "\uff20", "\ufe6b", `\u0040`, `\x40`, "&#64;", "&#x40;", "&commat;"} {
		if strings.HasPrefix(s, sign) {
			return len(sign)
		}
	}
	if encoded && strings.HasPrefix(s, "=40") {
		return len("=40")
	}
	return 0
}

// maxQuoted bounds the part of an address that is in quotes.
const maxQuoted = 320

// localBefore returns where the local part of an address begins that ends at a place
// (RFC 5322, 3.4.1: a dot-atom, or a quoted string), and whether it looks like a path. Where
// something ends there that no address has, as a comment does, all of it up to white space
// is taken.
func localBefore(s string, least, end int) (from int, path bool) {
	if end > least && s[end-1] == '"' {
		for i := end - 2; i >= least && end-i < maxQuoted; i-- {
			if s[i] == '"' && (i == 0 || s[i-1] != '\\') {
				return i, false
			}
		}
	}
	if end > least && strings.IndexByte(`")>]}'@`, s[end-1]) >= 0 {
		from = least + strings.LastIndexAny(s[least:end], " \t\r\n") + 1
		return from, false
	}
	from = end
	for from > least {
		c, size := utf8.DecodeLastRuneInString(s[least:from])
		if !(unicode.IsLetter(c) || unicode.IsDigit(c) || c >= 0x80 && !unicode.IsSpace(c) || strings.ContainsRune("!#$%&'*+-/=?^_`{|}~.", c)) {
			break
		}
		from -= size
	}
	path = strings.Contains(s[from:end], "/")
	if strings.HasPrefix(s[from:end], "//") {
		// In a URI it is the last part of the path, or of the query.
		from += strings.LastIndexAny(s[from:end], "/?&=") + 1
	}
	return from, path
}

// domainBehind returns where the domain ends that begins at a place: a name, of one label
// too, or an address in brackets; of a pattern, all up to white space.
func domainBehind(s string, from int) int {
	rest := s[from:]
	if strings.HasPrefix(rest, "[") {
		if n := strings.IndexByte(rest, ']'); n > 1 && n < 64 {
			return from + n + 1
		}
	}
	if rest != "" && strings.IndexByte(`([*<{\`, rest[0]) >= 0 {
		if n := strings.IndexAny(rest, " \t\r\n"); n >= 0 {
			return from + n
		}
		return len(s)
	}
	to := from
	for to < len(s) {
		c, size := utf8.DecodeRuneInString(s[to:])
		// An escaped dot is that of a pattern; format characters are not seen.
		if c == '\\' && strings.HasPrefix(s[to+size:], ".") {
			to += size
			continue
		}
		if !(unicode.IsLetter(c) || unicode.IsDigit(c) || unicode.IsMark(c) || unicode.Is(unicode.Cf, c) || strings.ContainsRune("-._\u3002\uff0e\uff61", c)) {
			break
		}
		to += size
	}
	return from + len(strings.TrimRight(s[from:to], ".-_\\"))
}

var (
	version = regexp.MustCompile(`^v?[0-9]+(\.[0-9]+)*$`)
	ipv4    = regexp.MustCompile(`^[0-9]+(\.[0-9]+){3}$`)
	commit  = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	digest  = regexp.MustCompile(`^sha(1|256|384|512)$`)
)

// noAddress reports whether what is behind the sign is no domain; path says that a path is
// before it.
func noAddress(domain, rest string, path bool) bool {
	return digest.MatchString(domain) && strings.HasPrefix(rest, ":") ||
		path && (domain == "refs" && strings.HasPrefix(rest, "/") || version.MatchString(domain) && !ipv4.MatchString(domain) || commit.MatchString(domain))
}
