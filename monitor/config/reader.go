package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFile bounds a configuration, and every file that it names.
const maxFile = 16 << 20

// file is the text of a configuration and where things stand in it.
type file struct {
	name   string
	lines  []string
	places map[string][2]int // path -> line, column
	issues []Issue
	getenv func(string) string
	// sealed: nothing but this text is read, no file and no environment.
	sealed bool
	// shape is what a key takes, where readers are asked for that and read nothing.
	shape *Schema
}

// At makes an issue of an error at a path like watchlist[0].match[1].subject[0].
// A place that the file does not have stands for the nearest one around it.
func (c *Config) At(path, message string) Issue { return c.file.at(path, message) }

func (f *file) at(path, message string) Issue {
	for p := path; ; {
		if place, ok := f.places[p]; ok {
			return f.issue(place[0], place[1], path, message)
		}
		cut := strings.LastIndexAny(p, ".[")
		if cut < 0 {
			return Issue{File: f.name, Path: path, Message: message}
		}
		p = p[:cut]
	}
}

func (f *file) issue(line, col int, path, message string) Issue {
	i := Issue{File: f.name, Line: line, Col: col, Path: path, Message: message}
	if line >= 1 && line <= len(f.lines) && !f.private(line) {
		i.Source = f.lines[line-1]
	}
	return i
}

// notifyKey begins the section that holds credentials, private lines that may
// hold one wherever they stand: what was misspelt is not known to be a secret.
var (
	notifyKey = regexp.MustCompile(`^(\s*)["']?notify["']?\s*:`)
	otherKey  = regexp.MustCompile(`^(\s*)["']?[A-Za-z_]`)
	private   = regexp.MustCompile(`(?i)\b(notify|token|secret|password|webhook|smtp|slack|email)["']?\s*:|xox|whsec_|PRIVATE\+KEY|://[^/\s]*@`)
)

// private reports whether a line may hold a credential: then it is not quoted.
func (f *file) private(line int) bool {
	if private.MatchString(f.lines[line-1]) {
		return true
	}
	for i := line - 1; i >= 0; i-- {
		if m := notifyKey.FindStringSubmatch(f.lines[i]); m != nil && i < line-1 {
			// In it, unless a key that stands no deeper has ended it.
			for _, l := range f.lines[i+1 : line] {
				if k := otherKey.FindStringSubmatch(l); k != nil && len(k[1]) <= len(m[1]) {
					return false
				}
			}
			return true
		}
	}
	return false
}

// found describes a node in a message; not its text where that may be secret.
func (f *file) found(n ast.Node) string {
	line, _ := place(n)
	if line >= 1 && line <= len(f.lines) && f.private(line) {
		switch n.(type) {
		case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode, *ast.NullNode:
		default:
			return "value"
		}
	}
	return kindOf(n)
}

// fail books what is wrong at a node.
func (f *file) fail(n ast.Node, path, format string, args ...any) {
	if f.shape != nil {
		return
	}
	line, col := place(n)
	f.issues = append(f.issues, f.issue(line, col, path, fmt.Sprintf(format, args...)))
}

func place(n ast.Node) (line, col int) {
	if n == nil || n.GetToken() == nil {
		return 0, 0
	}
	// A mapping's own token is its first colon; the key says more.
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 {
		n = m.Values[0].Key
	}
	if v, ok := n.(*ast.MappingValueNode); ok {
		n = v.Key
	}
	p := n.GetToken().Position
	return p.Line, p.Column
}

// parse reads YAML and returns the mapping at its top.
func parse(name string, data []byte) (*file, ast.Node, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	f := &file{name: name, lines: strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n"), places: map[string][2]int{}}
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		var ye yaml.Error
		if errors.As(err, &ye) && ye.GetToken() != nil {
			p := ye.GetToken().Position
			return nil, nil, &Error{[]Issue{f.issue(p.Line, p.Column, "", ye.GetMessage())}}
		}
		return nil, nil, &Error{[]Issue{{File: name, Message: "not YAML: " + err.Error()}}}
	}
	var bodies []ast.Node
	for _, d := range tree.Docs {
		if d.Body != nil {
			bodies = append(bodies, d.Body)
		}
	}
	if len(bodies) != 1 {
		return nil, nil, &Error{[]Issue{{File: name, Message: fmt.Sprintf("holds %d YAML documents, want one", len(bodies))}}}
	}
	refused := refuse{f}
	ast.Walk(refused, bodies[0])
	return f, bodies[0], nil
}

// refuse books what a configuration has no use for.
type refuse struct{ f *file }

func (r refuse) Visit(n ast.Node) ast.Visitor {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode, *ast.TagNode:
		r.f.fail(n, "", "anchors, aliases and tags are not used in a configuration")
		return nil
	}
	return r
}

// field reads the value of one key. Where the file has a shape, it says there what the key
// takes instead, and reads nothing: n is nil then.
type field func(n ast.Node, path string)

// mapping reads a mapping with known keys. It books keys that are not known,
// and those that must be there and are not.
func (f *file) mapping(n ast.Node, path, what string, fields map[string]field, required ...string) {
	if f.shape != nil {
		f.describeKeys(path, fields, required)
		return
	}
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	case *ast.NullNode:
	default:
		f.fail(n, path, "%s is a %s, want keys with values", what, f.found(n))
		return
	}
	seen := map[string]bool{}
	for _, v := range values {
		key := v.Key.GetToken().Value
		child := strings.TrimPrefix(path+"."+key, ".")
		if seen[key] {
			f.fail(v.Key, child, "key %q is there twice in %s", key, what)
			continue
		}
		seen[key] = true
		line, col := place(v.Key)
		f.places[child] = [2]int{line, col}
		read, ok := fields[key]
		if !ok {
			var known []string
			for k := range fields {
				known = append(known, k)
			}
			f.fail(v.Key, child, "unknown key %q in %s%s", key, what, DidYouMean(key, known))
			continue
		}
		read(v.Value, child)
	}
	for _, key := range required {
		if !seen[key] {
			line, col := place(n)
			if p, ok := f.places[path]; ok && line == 0 {
				line, col = p[0], p[1]
			}
			f.issues = append(f.issues, f.issue(line, col, path, fmt.Sprintf("%s has no %q", what, key)))
		}
	}
}

// list reads a sequence.
func (f *file) list(n ast.Node, path, what string, read field) {
	if f.shape != nil {
		f.describeItems(path, read)
		return
	}
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		if _, null := n.(*ast.NullNode); !null {
			f.fail(n, path, "%s is a %s, want a list", what, f.found(n))
		}
		return
	}
	for i, v := range s.Values {
		child := fmt.Sprintf("%s[%d]", path, i)
		line, col := place(v)
		f.places[child] = [2]int{line, col}
		read(v, child)
	}
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "mapping"
	case *ast.SequenceNode:
		return "list"
	case *ast.NullNode:
		return "missing value"
	}
	return "value " + strconv.Quote(n.GetToken().Value)
}

// either reads keys with values, or something shorter that stands for them.
func (f *file) either(n ast.Node, path string, keys, short field) {
	if f.shape != nil {
		f.describeEither(path, keys, short)
		return
	}
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		keys(n, path)
	default:
		short(n, path)
	}
}

// text reads a scalar as it is written: 1.10 stays 1.10.
func (f *file) text(n ast.Node, path string) (string, bool) {
	if f.shape != nil {
		f.shape.takes("text", "string", "number", "boolean")
		return "", false
	}
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, true
	case *ast.LiteralNode:
		return s.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	f.fail(n, path, "want a text, found a %s", f.found(n))
	return "", false
}

func (f *file) into(s *string) field {
	return func(n ast.Node, path string) {
		if text, ok := f.text(n, path); ok {
			if text == "" {
				f.fail(n, path, "is empty")
			}
			*s = text
		}
		f.describe(func(shape *Schema) { shape.byDefault(*s, *s != "") })
	}
}

// path reads where a file is.
func (f *file) path(s *string) field {
	return func(n ast.Node, path string) {
		f.into(s)(n, path)
		f.describe(func(shape *Schema) { shape.takes("file", "string") })
		*s = f.relative(*s)
	}
}

// texts reads a text or a list of texts. An empty list is refused: as a rule it
// would fit nothing, or be no rule at all.
func (f *file) texts(out *[]string) field {
	return func(n ast.Node, path string) {
		f.names(out)(n, path)
		f.describe(func(shape *Schema) {
			shape.AnyOf[0].MinLength, shape.AnyOf[1].MinItems, shape.AnyOf[1].Items.MinLength = 1, 1, 1
		})
		if *out != nil && len(*out) == 0 {
			f.fail(n, path, "is an empty list; name at least one value, or leave the key out")
		}
	}
}

// names is texts, where none at all is meant by an empty list.
func (f *file) names(out *[]string) field {
	return func(n ast.Node, path string) {
		if f.shape != nil {
			f.shape.lists(*out)
			return
		}
		if _, ok := n.(*ast.SequenceNode); ok {
			*out = []string{}
			f.list(n, path, path, func(v ast.Node, child string) {
				if text, ok := f.text(v, child); ok {
					*out = append(*out, text)
				}
			})
			return
		}
		line, col := place(n)
		f.places[path+"[0]"] = [2]int{line, col}
		if text, ok := f.text(n, path); ok {
			*out = []string{text}
		}
	}
}

func (f *file) oneOf(s *string, what string, known ...string) field {
	return func(n ast.Node, path string) {
		text, ok := f.text(n, path)
		if !ok {
			f.describe(func(shape *Schema) { shape.words(known).byDefault(*s, *s != "") })
			return
		}
		for _, k := range known {
			if text == k {
				*s = text
				return
			}
		}
		f.fail(n, path, "%q is no %s%s", text, what, DidYouMean(text, known))
	}
}

// someOf reads one or several of some words.
func (f *file) someOf(out *[]string, what string, known ...string) field {
	return func(n ast.Node, path string) {
		f.texts(out)(n, path)
		f.describe(func(shape *Schema) {
			for _, s := range []*Schema{shape.AnyOf[0], shape.AnyOf[1].Items} {
				s.words(known)
			}
		})
		for i, text := range *out {
			if !slices.Contains(known, text) {
				f.issues = append(f.issues, f.at(fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%q is no %s%s", text, what, DidYouMean(text, known))))
			}
		}
	}
}

// time reads RFC 3339 or a date, which stands for its first second in UTC.
func (f *file) time(t *time.Time) field {
	return func(n ast.Node, path string) {
		text, ok := f.text(n, path)
		if !ok {
			f.describe(func(shape *Schema) { shape.takes("date or time", "string") })
			return
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			at, err = time.Parse(time.DateOnly, text)
		}
		if err != nil {
			f.fail(n, path, "%q is no time: want one like 2026-01-31 or 2026-01-31T12:00:00Z", text)
		}
		*t = at
	}
}

// webAddress reads an http or https address that is no secret.
func (f *file) webAddress(s *string) field {
	return func(n ast.Node, path string) {
		f.into(s)(n, path)
		f.describe(func(shape *Schema) { shape.takes("address", "string").Pattern = "^[hH][tT][tT][pP][sS]?://" })
		if u, err := url.Parse(*s); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
			f.fail(n, path, "%q is no http:// or https:// address", *s)
		}
	}
}

func (f *file) boolean(b *bool) field {
	return func(n ast.Node, path string) {
		if f.shape != nil {
			f.shape.takes("true or false", "boolean").byDefault(*b, true)
			return
		}
		if v, ok := n.(*ast.BoolNode); ok {
			*b = v.Value
			return
		}
		f.fail(n, path, "want true or false, found a %s", f.found(n))
	}
}

func (f *file) duration(d *time.Duration) field {
	return func(n ast.Node, path string) {
		text, ok := f.text(n, path)
		if !ok {
			f.describe(func(shape *Schema) {
				shape.takes("duration", "string").byDefault(short(*d), *d != 0).Pattern = `^([0-9]+(\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h))+$`
			})
			return
		}
		v, err := time.ParseDuration(text)
		if err != nil || v <= 0 {
			f.fail(n, path, "%q is no time: want one like 90s, 10m or 24h", text)
			return
		}
		*d = v
	}
}

func (f *file) number(out *float64, lowest, highest float64) field {
	return func(n ast.Node, path string) {
		text, ok := f.text(n, path)
		if !ok {
			f.describe(func(shape *Schema) { shape.takes("number", "number").between(lowest, highest) })
			return
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || !(v >= lowest && v <= highest) {
			f.fail(n, path, "%q is no number from %g to %g", text, lowest, highest)
			return
		}
		*out = v
	}
}

func (f *file) whole(out *int, lowest, highest int) field {
	return func(n ast.Node, path string) {
		text, ok := f.text(n, path)
		if !ok {
			f.describe(func(shape *Schema) { shape.takes("whole number", "integer").between(float64(lowest), float64(highest)) })
			return
		}
		v, err := strconv.Atoi(text)
		if err != nil || v < lowest || v > highest {
			f.fail(n, path, "%q is no whole number from %d to %d", text, lowest, highest)
			return
		}
		*out = v
	}
}

func (f *file) schedule(s *Schedule) field {
	return func(n ast.Node, path string) {
		text, ok := f.text(n, path)
		if !ok {
			f.describe(func(shape *Schema) { shape.takes("schedule", "string").byDefault(s.Text, s.Text != "") })
			return
		}
		v, err := ParseSchedule(text)
		if err != nil {
			f.fail(n, path, "%q: %v", text, err)
			return
		}
		*s = v
	}
}

// secret reads a credential: as it is, from env:NAME or from file:PATH.
func (f *file) secret(s *Secret) field {
	return func(n ast.Node, path string) {
		text, ok := f.text(n, path)
		if !ok {
			f.describe(func(shape *Schema) { shape.Takes = "secret" })
			return
		}
		value, err := f.resolve(text)
		if err != nil {
			f.fail(n, path, "%v", err)
			return
		}
		*s = Secret{value}
	}
}

func (f *file) resolve(text string) (string, error) {
	if f.sealed {
		return "", errSealed
	}
	if name, ok := strings.CutPrefix(text, "env:"); ok {
		if v := f.getenv(name); v != "" {
			return v, nil
		}
		return "", fmt.Errorf("environment variable %s is not set", name)
	}
	if path, ok := strings.CutPrefix(text, "file:"); ok && !strings.HasPrefix(text, "file://") {
		data, err := f.contentsOf(path)
		if err != nil {
			return "", err
		}
		v := strings.TrimRight(string(data), "\r\n")
		if v == "" {
			return "", fmt.Errorf("file %s is empty", path)
		}
		return v, nil
	}
	if text == "" {
		return "", errors.New("is empty")
	}
	return text, nil
}

// pem reads PEM text, or the file whose path it is.
func (f *file) pem(s *string) field {
	return func(n ast.Node, path string) {
		text, ok := f.text(n, path)
		if !ok {
			f.describe(func(shape *Schema) { shape.takes("PEM text or file", "string") })
			return
		}
		if strings.Contains(text, "-----BEGIN") {
			*s = text
			return
		}
		data, err := f.contentsOf(strings.TrimPrefix(text, "file:"))
		if err != nil {
			f.fail(n, path, "%v", err)
			return
		}
		*s = string(data)
	}
}

// relative makes a path relative to the configuration file.
func (f *file) relative(path string) string {
	if path == "" || path == "-" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(f.name), path)
}

// errSealed refuses what would be read from elsewhere.
var errSealed = errors.New("a rule that is tried stands for itself: it reads no file and no environment variable")

// contentsOf reads a file that the configuration names.
func (f *file) contentsOf(path string) ([]byte, error) {
	if f.sealed {
		return nil, errSealed
	}
	return readBounded(f.relative(path))
}

// readBounded reads a file, whatever it says of its own size.
func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.IsDir() {
		return nil, errors.Join(err, fmt.Errorf("%s is a directory", path))
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, err
}
