package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"sort"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// Import converts the configuration of rekor-monitor to a watchlist of ours, and
// says what a reader of it should know. What it looks for is what that program
// looks for: its regular expressions fit any part of a value.
//
// Source: rekor-monitor, README and pkg/identity, pkg/fulcio/extensions.
func Import(data []byte) (text []byte, warnings []string, err error) {
	var doc importDoc
	if err := unmarshal(lowerKeys(data), &doc); err != nil {
		return nil, nil, fmt.Errorf("not a configuration of rekor-monitor: %s", yaml.FormatError(err, false, false))
	}
	im := &importer{}
	im.all(doc.Values)
	if len(im.items) == 0 {
		return nil, nil, errors.New("no monitoredValues found: want certIdentities, subjects, fingerprints, or matchers of extensions")
	}
	var b bytes.Buffer
	fmt.Fprint(&b, "# Converted from a configuration of rekor-monitor. Nothing is expected yet:\n# whatever matches is told. Say under `expect` what is normal.\nwatchlist:\n  - name: imported\n    match:\n")
	for _, it := range im.items {
		for i, line := range it {
			lead := "        "
			if i == 0 {
				lead = "      - "
			}
			fmt.Fprintf(&b, "%s%s\n", lead, line)
		}
	}
	return b.Bytes(), im.warnings, nil
}

// unmarshal decodes YAML that is not ours, whatever the library makes of it: it
// fails in its own way on a tag before a list.
func unmarshal(data []byte, into any) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("a value has a tag, or a form, that the YAML library cannot read; write it without")
		}
	}()
	return yaml.Unmarshal(data, into)
}

// keyLine is a key at the beginning of a line. rekor-monitor's own names are in
// several cases, depending on how it was given them.
var keyLine = regexp.MustCompile(`(?m)^(\s*(?:- )?)([A-Za-z]+)(\s*:)`)

func lowerKeys(data []byte) []byte {
	return keyLine.ReplaceAllFunc(data, bytes.ToLower)
}

type importDoc struct {
	Values importValues `yaml:"monitoredvalues"`
}

type importValues struct {
	Identities []struct {
		Subject string    `yaml:"certsubject"`
		Issuers oneOrMany `yaml:"issuers"`
	} `yaml:"certidentities"`
	Subjects     oneOrMany            `yaml:"subjects"`
	Fingerprints oneOrMany            `yaml:"fingerprints"`
	OID          []importMatcher      `yaml:"oidextensions"`
	Fulcio       map[string]oneOrMany `yaml:"fulcioextensions"`
	Custom       []importMatcher      `yaml:"customextensions"`
	Matchers     importMatchers       `yaml:"oidmatchers"`
}

// importMatchers are the three kinds of matchers of extensions.
type importMatchers struct {
	OID    []importMatcher      `yaml:"oidextensions"`
	Fulcio map[string]oneOrMany `yaml:"fulcioextensions"`
	Custom []importMatcher      `yaml:"customextensions"`
}

type importMatcher struct {
	ID     objectID  `yaml:"objectidentifier"`
	Values oneOrMany `yaml:"extensionvalues"`
}

// oneOrMany is a text or a list of texts.
type oneOrMany []string

// UnmarshalYAML implements yaml.BytesUnmarshaler.
func (o *oneOrMany) UnmarshalYAML(data []byte) error {
	var list []string
	if err := unmarshal(data, &list); err == nil {
		*o = list
		return nil
	}
	var one string
	if err := unmarshal(data, &one); err != nil {
		return err
	}
	*o = oneOrMany{one}
	return nil
}

// objectID is a dotted object identifier, or a list of its numbers.
type objectID string

// UnmarshalYAML implements yaml.BytesUnmarshaler.
func (o *objectID) UnmarshalYAML(data []byte) error {
	var numbers []int
	if err := unmarshal(data, &numbers); err == nil && len(numbers) > 0 {
		var parts []string
		for _, n := range numbers {
			parts = append(parts, strconv.Itoa(n))
		}
		*o = objectID(strings.Join(parts, "."))
		return nil
	}
	var text string
	if err := unmarshal(data, &text); err != nil {
		return err
	}
	*o = objectID(strings.TrimSpace(text))
	return nil
}

type importer struct {
	items    [][]string // lines of an item each
	warnings []string
}

func (im *importer) warn(format string, args ...any) {
	im.warnings = append(im.warnings, fmt.Sprintf(format, args...))
}

func (im *importer) all(v importValues) {
	for _, id := range v.Identities {
		subject, ok := im.expression("certSubject", id.Subject)
		if !ok {
			continue
		}
		item := []string{"subject: " + subject}
		if len(id.Issuers) > 0 {
			list := im.expressions("issuers", id.Issuers)
			if list == "" {
				continue
			}
			item = append(item, "issuer: "+list)
		}
		im.items = append(im.items, item)
	}
	for _, s := range v.Subjects {
		// Those of keys without a certificate.
		if subject, ok := im.expression("subjects", s); ok {
			im.items = append(im.items, []string{"subject: " + subject, "issuer: none"})
		}
	}
	for _, f := range v.Fingerprints {
		im.fingerprint(f)
	}
	for _, m := range []importMatchers{{v.OID, v.Fulcio, v.Custom}, v.Matchers} {
		var names []string
		for name := range m.Fulcio {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			im.extension(name, m.Fulcio[name])
		}
		for _, c := range append(m.OID, m.Custom...) {
			im.extension(string(c.ID), c.Values)
		}
	}
}

// extension adds an item for an extension, whose values are compared as a whole.
func (im *importer) extension(name string, values []string) {
	if len(values) == 0 {
		im.warn("extension %s names no value, and was left out", name)
		return
	}
	var quoted []string
	for _, v := range values {
		quoted = append(quoted, strconv.Quote(plainGlob(v)))
	}
	switch name {
	case "issuer", "1.3.6.1.4.1.57264.1.1", "1.3.6.1.4.1.57264.1.8":
		im.items = append(im.items, []string{"issuer: [" + strings.Join(quoted, ", ") + "]"})
		return
	}
	im.items = append(im.items, []string{fmt.Sprintf("extensions: {%s: [%s]}", strconv.Quote(name), strings.Join(quoted, ", "))})
}

// plainGlob is the glob that fits a text and nothing else.
func plainGlob(text string) string {
	text = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(text)
	if strings.HasPrefix(text, "re:") {
		text = `\` + text
	}
	return text
}

var hexDigits = regexp.MustCompile(`^[0-9A-Fa-f]+$`)

func (im *importer) fingerprint(text string) {
	switch {
	case hexDigits.MatchString(text) && (len(text) == 64 || len(text) == 40):
	case strings.HasPrefix(text, "SHA256:"):
	case len(text) == 43: // what ssh-keygen prints behind SHA256:
		text = "SHA256:" + text
	default:
		im.warn("fingerprint %q can never match, and was left out: it is neither 64 hex digits of a key or certificate, 40 of a PGP key, nor that of an SSH key", text)
		return
	}
	im.items = append(im.items, []string{"fingerprint: " + strconv.Quote(text)})
}

func (im *importer) expressions(what string, list []string) string {
	var out []string
	for _, s := range list {
		if e, ok := im.expression(what, s); ok {
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		return ""
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// expression turns a regular expression that fits any part of a value into one
// that fits the whole. Where it has no anchors it is wider than it looks.
func (im *importer) expression(what, text string) (string, bool) {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil || text == "" {
		im.warn("%s %q is no regular expression, and was left out", what, text)
		return "", false
	}
	begins, ends := anchors(parsed.Simplify())
	out := "(?:" + text + ")"
	if !begins {
		out = "(?s:.*)" + out
	}
	if !ends {
		out += "(?s:.*)"
	}
	if !begins || !ends {
		im.warn("%s %q fits any value that holds it anywhere, as it did in rekor-monitor (%q, say); to fit the whole value write re:%s", what, text, "x"+example(parsed)+"x", text)
	}
	return strconv.Quote("re:" + out), true
}

// anchors reports whether an expression holds on to the beginning and the end of
// a text.
func anchors(re *syntax.Regexp) (begins, ends bool) {
	switch re.Op {
	case syntax.OpBeginText:
		return true, false
	case syntax.OpEndText:
		return false, true
	case syntax.OpCapture:
		return anchors(re.Sub[0])
	case syntax.OpConcat:
		begins, _ = anchors(re.Sub[0])
		_, ends = anchors(re.Sub[len(re.Sub)-1])
		return begins, ends
	case syntax.OpAlternate:
		begins, ends = true, true
		for _, sub := range re.Sub {
			b, e := anchors(sub)
			begins, ends = begins && b, ends && e
		}
		return begins, ends
	case syntax.OpStar:
		// .* at an end reaches it by itself.
		all := re.Sub[0].Op == syntax.OpAnyChar || re.Sub[0].Op == syntax.OpAnyCharNotNL
		return all, all
	}
	return false, false
}

// example is a text that an expression fits, for a warning.
func example(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpConcat:
		var b strings.Builder
		for _, sub := range re.Sub {
			b.WriteString(example(sub))
		}
		return b.String()
	case syntax.OpCapture, syntax.OpPlus:
		return example(re.Sub[0])
	case syntax.OpAlternate:
		return example(re.Sub[0])
	case syntax.OpCharClass:
		return string(re.Rune[0])
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return "-"
	case syntax.OpRepeat:
		return strings.Repeat(example(re.Sub[0]), min(re.Min, 8))
	}
	return ""
}
