package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

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
	private   = regexp.MustCompile(`(?i)(notify|token|secret|password|webhook|smtp|slack|email|redact|signing)[a-z_]*["']?\s*:|(^|[^a-z_])key["']?\s*:|xox|whsec_|PRIVATE[+ ]KEY|://[^/\s]*@`)
	keyBegins = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY`)
	keyEnds   = regexp.MustCompile(`-----END [A-Z ]*PRIVATE KEY`)
)

// private reports whether a line may hold a credential: then it is not quoted.
func (f *file) private(line int) bool {
	if private.MatchString(f.lines[line-1]) {
		return true
	}
	for i := line - 1; i >= 0 && (i == line-1 || !keyEnds.MatchString(f.lines[i])); i-- {
		if keyBegins.MatchString(f.lines[i]) {
			return true
		}
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
