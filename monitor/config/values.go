package config

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// The readers of single values: each checks one, says what is wrong with it, and describes itself
// where a schema is asked for.

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
			f.fail(n, path, "%s", noAddress(*s, "http:// or https:// address"))
		}
	}
}

// noAddress says that a text is no address of a kind. A password in it is not printed, and
// belongs into none: addresses are printed with whatever they are about.
func noAddress(text, kind string) string {
	if strings.Contains(text, "@") {
		return "a user name or a password belongs into no " + kind + ": it would be printed wherever that is named"
	}
	return fmt.Sprintf("%q is no %s", text, kind)
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
