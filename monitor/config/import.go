package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Import converts the configuration of rekor-monitor to a watchlist of ours, and
// says what a reader of it should know. What it looks for is what that program
// looks for: its regular expressions fit any part of a value. extension returns
// the name that our rules have for an extension, given by its name in any form or
// by dotted OID; false if there is none. pattern says why a text is no pattern of a
// watch.
//
// Source: rekor-monitor, README and pkg/identity, pkg/fulcio/extensions.
func Import(data []byte, extension func(string) (string, bool), pattern func(string) error) (text []byte, warnings []string, err error) {
	if !utf8.Valid(data) {
		return nil, nil, errors.New("not a configuration of rekor-monitor: it is not UTF-8, as YAML is")
	}
	im := &importer{resolve: extension, pattern: pattern}
	doc, err := im.parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("not a configuration of rekor-monitor: %s", yaml.FormatError(err, false, false))
	}
	im.all(doc.Values)
	if len(im.items) == 0 {
		problem := "no monitoredValues found that can be watched: want certIdentities, subjects, fingerprints, or matchers of extensions"
		return nil, nil, errors.New(strings.Join(append([]string{problem}, im.warnings...), "; "))
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

// parse reads a document whose keys may be in any case: rekor-monitor's own names
// are in several, depending on how it was given them.
func (im *importer) parse(data []byte) (doc importDoc, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("a value has a tag, or a form, that the YAML library cannot read; write it without")
		}
	}()
	file, err := parser.ParseBytes(data, 0)
	if err != nil || len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return doc, err
	}
	root := file.Docs[0].Body
	im.leftOut(root, "the configuration", "monitoredvalues")
	for _, m := range members(root) {
		if strings.EqualFold(keyOf(m), "monitoredvalues") {
			im.leftOut(m.Value, "monitoredValues", "certidentities", "subjects", "fingerprints", "oidextensions", "fulcioextensions", "customextensions", "oidmatchers")
		}
	}
	ast.Walk(lowerKeys{}, root)
	return doc, yaml.NodeToValue(root, &doc)
}

// leftOut tells of keys of a mapping that are not converted.
func (im *importer) leftOut(node ast.Node, where string, known ...string) {
	var names []string
	for _, m := range members(node) {
		if name := keyOf(m); !slices.Contains(known, strings.ToLower(name)) {
			names = append(names, strconv.Quote(name))
		}
	}
	if len(names) > 0 {
		im.warn("what %s says under %s is not about what is watched, and was left out", where, strings.Join(names, ", "))
	}
}

func members(node ast.Node) []*ast.MappingValueNode {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	case *ast.AnchorNode:
		return members(n.Value)
	case *ast.TagNode:
		return members(n.Value)
	}
	return nil
}

func keyOf(m *ast.MappingValueNode) string {
	if key, ok := m.Key.(*ast.StringNode); ok {
		return key.Value
	}
	return m.Key.String()
}

type lowerKeys struct{}

// Visit implements ast.Visitor.
func (v lowerKeys) Visit(node ast.Node) ast.Visitor {
	if m, ok := node.(*ast.MappingValueNode); ok {
		if key, ok := m.Key.(*ast.StringNode); ok {
			key.Value = strings.ToLower(key.Value)
			key.Token.Value = key.Value
			key.Token.Origin = strings.ToLower(key.Token.Origin)
		}
	}
	return v
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
	resolve  func(string) (string, bool)
	pattern  func(string) error
	items    [][]string // lines of an item each
	warnings []string
}

func (im *importer) warn(format string, args ...any) {
	im.warnings = append(im.warnings, fmt.Sprintf(format, args...))
}

func (im *importer) all(v importValues) {
	for i, id := range v.Identities {
		if id.Subject == "" {
			im.warn("certIdentities[%d] names no certSubject, and was left out", i)
			continue
		}
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
		// Meant for keys, and compared with the names in certificates too.
		if subject, ok := im.expression("subjects", s); ok {
			im.items = append(im.items, []string{"subject: " + subject})
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
	values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })
	if len(values) == 0 {
		im.warn("extension %q names no value, and was left out", name)
		return
	}
	var quoted []string
	for _, v := range values {
		if glob := plainGlob(v); im.usable(fmt.Sprintf("a value of extension %q,", name), v, glob) {
			quoted = append(quoted, strconv.Quote(glob))
		}
	}
	if len(quoted) == 0 {
		return
	}
	switch name {
	case "issuer", "1.3.6.1.4.1.57264.1.1", "1.3.6.1.4.1.57264.1.8":
		im.items = append(im.items, []string{"issuer: [" + strings.Join(quoted, ", ") + "]"})
		return
	}
	ours, ok := im.resolve(name)
	if !ok {
		im.warn("extension %q is none that a rule can name, and was left out", name)
		return
	}
	im.items = append(im.items, []string{fmt.Sprintf("extensions: {%s: [%s]}", strconv.Quote(ours), strings.Join(quoted, ", "))})
}

// usable reports whether a pattern, made of a text, is one that a watchlist may have.
func (im *importer) usable(what, text, pattern string) bool {
	err := im.pattern(pattern)
	if err != nil {
		im.warn("%s %.100q cannot be watched for, and was left out: the pattern made of it %v", what, text, err)
	}
	return err == nil
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
	ssh := strings.TrimPrefix(text, "SHA256:") // which ssh-keygen prints, and others leave out
	sum, err := base64.RawStdEncoding.Strict().DecodeString(ssh)
	switch {
	case hexDigits.MatchString(text) && (len(text) == 64 || len(text) == 40):
	case err == nil && len(sum) == sha256.Size && len(ssh) == 43: // no line ends in it
		text = "SHA256:" + ssh
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
	if err == nil {
		// An expression may end within a quotation, which would swallow what follows.
		if _, err := syntax.Parse("(?:"+text+")", syntax.Perl); err != nil {
			text = parsed.String()
		}
	}
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
	if !im.usable(what, text, "re:"+out) {
		return "", false
	}
	if !begins || !ends {
		im.warn("%s %q fits any value that holds it anywhere, as it did in rekor-monitor (%q, say); to fit the whole value write re:%s", what, text, "x"+example(parsed)+"x", text)
	}
	if dotted(parsed) {
		im.warn("%s %q has a dot that fits any character; write \\. for a dot", what, text)
	}
	return strconv.Quote("re:" + out), true
}

// dotted reports whether a dot in an expression stands for one character: it was
// hardly meant to.
func dotted(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return true
	case syntax.OpConcat, syntax.OpAlternate, syntax.OpCapture:
		return slices.ContainsFunc(re.Sub, dotted)
	}
	return false
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
