package config

import (
	"errors"
	"fmt"
	"io/fs"

	"net/mail"
	"net/url"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// ErrNoFile says that no configuration file was found.
var ErrNoFile = errors.New("no configuration file found")

// DefaultPaths are where a configuration is looked for when none is named.
var DefaultPaths = []string{"sigwarden.yaml", "/etc/sigwarden/sigwarden.yaml"}

// Find returns the configuration file to use: the one that is named, or the
// first of the default ones that exists.
func Find(named string, lstat func(string) (fs.FileInfo, error)) (string, error) {
	if named != "" {
		return named, nil
	}
	for _, p := range DefaultPaths {
		// One that is there and cannot be read must not be passed over for another.
		if _, err := lstat(p); !errors.Is(err, fs.ErrNotExist) {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: looked for %s; name one with --config", ErrNoFile, strings.Join(DefaultPaths, " and "))
}

// Load reads and checks a configuration file. What is wrong in it comes as an
// *Error with every place.
func Load(path string, getenv func(string) string) (*Config, error) {
	data, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("configuration %w", err)
	}
	if err != nil {
		return nil, err
	}
	return Parse(path, data, getenv)
}

// Parse is Load for the text of a file; name is its path.
func Parse(name string, data []byte, getenv func(string) string) (*Config, error) {
	f, top, err := parse(name, data)
	if err != nil {
		return nil, err
	}
	f.getenv = getenv
	c := newConfig(f)
	c.read(top)
	c.State = f.relative(c.State)
	c.checkAll()
	if len(f.issues) > 0 {
		slices.SortStableFunc(f.issues, func(a, b Issue) int { return a.Line - b.Line })
		return nil, &Error{f.issues}
	}
	return c, nil
}

// newConfig is what stands in an empty file.
func newConfig(f *file) *Config {
	c := &Config{State: "sigwarden.db", file: f, HTTP: HTTP{Page: true}}
	c.Schedule, _ = ParseSchedule("@every 1m")
	return c
}

// read reads every key that there is.
func (c *Config) read(top ast.Node) {
	f := c.file
	f.mapping(top, "", "the configuration", map[string]field{
		"state":     f.into(&c.State),
		"schedule":  f.schedule(&c.Schedule),
		"contact":   f.contact(&c.Contact),
		"trust":     c.readTrust,
		"logs":      func(n ast.Node, p string) { f.list(n, p, "logs", c.readLog) },
		"watchlist": func(n ast.Node, p string) { f.list(n, p, "watchlist", c.readWatch) },
		"notify":    c.readNotify,
		"witness":   c.readWitness,
		"sources":   func(n ast.Node, p string) { f.list(n, p, "sources", c.readSource) },
		"signing":   c.readSigning,
		"retention": c.readRetention,
		"ledger":    c.readLedger,
		"reports":   func(n ast.Node, p string) { f.list(n, p, "reports", c.readReport) },
		"http":      c.readHTTP,
	})
}

// publicKey reads a verifier key, PEM text, or the path of either.
func (f *file) publicKey(s *string) field {
	return func(n ast.Node, path string) {
		text, ok := f.text(n, path)
		if !ok {
			f.describe(func(shape *Schema) { shape.takes("PEM text, verifier key, or file", "string") })
			return
		}
		if strings.Count(text, "+") >= 2 && !strings.Contains(text, "-----BEGIN") && !strings.HasPrefix(text, "file:") {
			*s = text
			return
		}
		if strings.HasPrefix(text, "env:") {
			v, err := f.resolve(text)
			if err != nil {
				f.fail(n, path, "%v", err)
			}
			*s = v
			return
		}
		f.pem(s)(n, path)
	}
}

func (f *file) address(s *string) field {
	return func(n ast.Node, path string) {
		f.into(s)(n, path)
		if _, err := mail.ParseAddress(*s); err != nil {
			f.fail(n, path, "%q is no e-mail address", *s)
		}
	}
}

// contact reads an address that goes into a header.
func (f *file) contact(s *string) field {
	return func(n ast.Node, path string) {
		f.into(s)(n, path)
		_, err := mail.ParseAddress(*s)
		u, urlErr := url.Parse(*s)
		web := urlErr == nil && u.Scheme == "https" && u.Host != ""
		if err != nil && !web || strings.ContainsFunc(*s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("()<>", r) }) {
			f.fail(n, path, "%q is neither an e-mail address nor an https:// address", *s)
		}
	}
}

// checkAll checks what only the whole shows.
func (c *Config) checkAll() {
	f := c.file
	bad := func(path, format string, args ...any) {
		f.issues = append(f.issues, f.at(path, fmt.Sprintf(format, args...)))
	}
	c.checkLogs(bad)
	c.checkWitness(bad)
	c.checkReports(bad)
	c.checkHTTP(bad)
	channels := map[string]bool{}
	var known []string
	for _, ch := range c.Notify.Channels {
		if channels[ch.Name] && ch.Name != "" {
			bad(ch.Path+".name", "two channels are called %q", ch.Name)
		}
		channels[ch.Name] = true
		known = append(known, ch.Name)
		if ch.File != nil && strings.HasPrefix(ch.File.Path, c.State) {
			bad(ch.Path+".file.path", "%s is, or may become, a file of the state; write alerts elsewhere", ch.File.Path)
		}
	}
	check := func(path string, list []string) {
		for i, name := range list {
			if !channels[name] {
				bad(fmt.Sprintf("%s[%d]", path, i), "no channel is called %q%s", name, DidYouMean(name, known))
			}
		}
	}
	check("notify.incidents", c.Notify.Incidents)
	check("notify.health", c.Notify.Health)
	check("notify.escalate_to", c.Notify.EscalateTo)
	for _, r := range c.Reports {
		check(r.Path+".notify", r.Notify)
	}
	watches := map[string]bool{}
	var watchNames []string
	for _, w := range c.Watches {
		if watches[w.Name] && w.Name != "" {
			bad(w.Path+".name", "two watches are called %q", w.Name)
		}
		watches[w.Name] = true
		check(w.Path+".notify", w.Notify)
		watchNames = append(watchNames, w.Name)
	}
	for _, ch := range c.Notify.Channels {
		for i, name := range ch.Hears.Watches {
			if !watches[name] {
				bad(fmt.Sprintf("%s.hears.watch[%d]", ch.Path, i), "no watch is called %q%s", name, DidYouMean(name, watchNames))
			}
		}
	}
}
