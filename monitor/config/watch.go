package config

import (
	"maps"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// What says whose entries are looked for, and what is normal.

func (c *Config) readWatch(n ast.Node, path string) {
	f := c.file
	w := Watch{Path: path, Severity: "high", Untrusted: "record"}
	f.mapping(n, path, "a watch", map[string]field{
		"name": f.into(&w.Name),
		"match": func(n ast.Node, p string) {
			f.list(n, p, "match", c.readItem(&w.Match))
			f.describe(func(s *Schema) { s.takes("list", "array").MinItems = 1 })
		},
		"expect":    func(n ast.Node, p string) { f.list(n, p, "expect", c.readExpect(&w)) },
		"silence":   f.duration(&w.Silence),
		"severity":  f.oneOf(&w.Severity, "severity", Severities()...),
		"notify":    f.names(&w.Notify),
		"untrusted": f.oneOf(&w.Untrusted, "way to treat untrusted certificates", "record", "alert", "ignore"),
	}, "name", "match")
	c.Watches = append(c.Watches, w)
}

// ParseWatch reads one watch from a text that a stranger may have sent: a document of its
// own, which names no file and no environment variable.
func ParseWatch(name string, data []byte) (Watch, error) {
	f, top, err := parse(name, data)
	if err != nil {
		return Watch{}, err
	}
	f.sealed = true
	c := newConfig(f)
	c.readWatch(top, "")
	if len(f.issues) > 0 {
		return Watch{}, &Error{f.issues}
	}
	return c.Watches[0], nil
}

func (c *Config) readItem(into *[]Item) field {
	return func(n ast.Node, path string) {
		it := Item{}
		c.file.mapping(n, path, "an item", c.itemFields(&it))
		*into = append(*into, it)
	}
}

// readExpect reads an item of expect: patterns, and terms beside them.
func (c *Config) readExpect(w *Watch) field {
	return func(n ast.Node, path string) {
		f := c.file
		it, t := Item{}, Terms{}
		fields := c.itemFields(&it)
		maps.Copy(fields, map[string]field{
			"digests": c.readList(&t),
			"at_most": func(n ast.Node, p string) {
				t.AtMost = &AtMost{}
				f.mapping(n, p, "at_most", map[string]field{"count": f.whole(&t.AtMost.Count, 1, 1_000_000), "per": f.duration(&t.AtMost.Per)}, "count", "per")
			},
			"once_per": f.into(&t.OncePer),
			"between":  f.texts(&t.Between),
			"valid": func(n ast.Node, p string) {
				f.mapping(n, p, "valid", map[string]field{"from": f.time(&t.From), "until": f.time(&t.Until)})
				if t.From.IsZero() && t.Until.IsZero() || !t.Until.IsZero() && !t.From.Before(t.Until) {
					f.fail(n, p, "valid wants a time from which, a time until which, or both, the first one earlier")
				}
			},
		})
		f.mapping(n, path, "an item", fields)
		w.Expect, w.Terms = append(w.Expect, it), append(w.Terms, t)
	}
}

// defaultEvery and defaultGrace are those of lists of digests.
const (
	defaultEvery = 10 * time.Minute
	defaultGrace = 30 * time.Minute
)

func (c *Config) readList(t *Terms) field {
	return func(n ast.Node, p string) {
		f := c.file
		d := &DigestList{Path: p, Every: defaultEvery, Grace: defaultGrace}
		signed := false
		f.mapping(n, p, "digests", map[string]field{
			"file": f.path(&d.File), "url": f.webAddress(&d.URL), "signature": f.webAddress(&d.Signature), "tls_ca": f.pem(&d.TLSCA),
			"every": f.duration(&d.Every), "grace": f.duration(&d.Grace),
			"signed_by": func(n ast.Node, p string) {
				signed = true
				f.either(n, p, func(n ast.Node, p string) {
					f.mapping(n, p, "signed_by", map[string]field{"subject": f.texts(&d.Subject), "issuer": f.texts(&d.Issuer)}, "subject", "issuer")
				}, f.pem(&d.Key))
			},
		})
		f.exactlyOne("file", "url")
		t.Digests = d
		switch {
		case (d.File == "") == (d.URL == ""):
			f.fail(n, p, "digests wants either a file or a url")
		case d.URL != "" && !signed:
			f.fail(n, p, "digests from a url want \"signed_by\", a public key or {subject, issuer}, since whoever serves the list could put anything on it")
		case d.Signature != "" && !signed:
			f.fail(n, p, "there is a signature, and no \"signed_by\" that says whose it is")
		}
	}
}

func (c *Config) itemFields(it *Item) map[string]field {
	f := c.file
	return map[string]field{
		"subject": f.texts(&it.Subject), "issuer": f.texts(&it.Issuer), "fingerprint": f.texts(&it.Fingerprint),
		"digest": f.texts(&it.Digest), "kind": f.texts(&it.Kind),
		"extensions": func(n ast.Node, p string) {
			it.Extensions = map[string][]string{}
			if f.shape != nil {
				f.describeNames(p, "NAME", f.texts(new([]string)))
				return
			}
			var values []*ast.MappingValueNode
			switch m := n.(type) {
			case *ast.MappingNode:
				values = m.Values
			case *ast.MappingValueNode:
				values = []*ast.MappingValueNode{m}
			default:
				f.fail(n, p, "extensions is a %s, want names with values", f.found(n))
			}
			for _, v := range values {
				name := v.Key.GetToken().Value
				line, col := place(v.Key)
				f.places[p+"."+name] = [2]int{line, col}
				if _, twice := it.Extensions[name]; twice {
					f.fail(v.Key, p, "extension %q is there twice", name)
				}
				var texts []string
				f.texts(&texts)(v.Value, p+"."+name)
				it.Extensions[name] = texts
			}
		},
	}
}
