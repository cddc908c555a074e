package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
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
	c := &Config{State: "sigwarden.db", file: f}
	c.Schedule, _ = ParseSchedule("@every 1m")
	f.mapping(top, "", "the configuration", map[string]field{
		"state":     f.into(&c.State),
		"schedule":  f.schedule(&c.Schedule),
		"contact":   f.contact(&c.Contact),
		"trust":     c.readTrust,
		"logs":      func(n ast.Node, p string) { f.list(n, p, "logs", c.readLog) },
		"watchlist": func(n ast.Node, p string) { f.list(n, p, "watchlist", c.readWatch) },
		"notify":    c.readNotify,
		"http": func(n ast.Node, p string) {
			f.mapping(n, p, "http", map[string]field{"listen": f.into(&c.HTTP.Listen)})
			c.checkListen()
		},
	})
	c.State = f.relative(c.State)
	c.checkAll()
	if len(f.issues) > 0 {
		slices.SortStableFunc(f.issues, func(a, b Issue) int { return a.Line - b.Line })
		return nil, &Error{f.issues}
	}
	return c, nil
}

// publicKey reads a verifier key, PEM text, or the path of either.
func (f *file) publicKey(s *string) field {
	return func(n ast.Node, path string) {
		text, ok := f.text(n, path)
		if !ok {
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

func (c *Config) readWatch(n ast.Node, path string) {
	f := c.file
	w := Watch{Path: path, Severity: "high", Untrusted: "record"}
	f.mapping(n, path, "a watch", map[string]field{
		"name":      f.into(&w.Name),
		"match":     func(n ast.Node, p string) { f.list(n, p, "match", c.readItem(&w.Match)) },
		"expect":    func(n ast.Node, p string) { f.list(n, p, "expect", c.readItem(&w.Expect)) },
		"severity":  f.oneOf(&w.Severity, "severity", Severities()...),
		"notify":    f.names(&w.Notify),
		"untrusted": f.oneOf(&w.Untrusted, "way to treat untrusted certificates", "record", "alert", "ignore"),
	}, "name", "match")
	c.Watches = append(c.Watches, w)
}

func (c *Config) readItem(into *[]Item) field {
	return func(n ast.Node, path string) {
		f := c.file
		it := Item{}
		f.mapping(n, path, "an item", map[string]field{
			"subject": f.texts(&it.Subject), "issuer": f.texts(&it.Issuer), "fingerprint": f.texts(&it.Fingerprint),
			"digest": f.texts(&it.Digest), "kind": f.texts(&it.Kind),
			"extensions": func(n ast.Node, p string) {
				it.Extensions = map[string][]string{}
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
		})
		*into = append(*into, it)
	}
}

func (c *Config) readNotify(n ast.Node, path string) {
	f := c.file
	f.mapping(n, path, "notify", map[string]field{
		"channels":  func(n ast.Node, p string) { f.list(n, p, "channels", c.readChannel) },
		"incidents": f.names(&c.Notify.Incidents),
		"health":    f.names(&c.Notify.Health),
	})
}

func (c *Config) readChannel(n ast.Node, path string) {
	f := c.file
	ch := Channel{Path: path}
	kinds := 0
	kind := func(read field) field {
		return func(n ast.Node, p string) {
			kinds++
			ch.Kind = p[strings.LastIndexByte(p, '.')+1:]
			read(n, p)
		}
	}
	f.mapping(n, path, "a channel", map[string]field{
		"name": f.into(&ch.Name),
		"slack": kind(func(n ast.Node, p string) {
			ch.Slack = &Slack{}
			f.mapping(n, p, "slack", map[string]field{
				"token": f.secret(&ch.Slack.Token), "channel": f.into(&ch.Slack.Channel),
				"webhook": f.secret(&ch.Slack.Webhook), "api_url": f.into(&ch.Slack.APIURL),
			})
			app := !ch.Slack.Token.IsZero() && ch.Slack.Channel != ""
			if app == !ch.Slack.Webhook.IsZero() && len(f.issues) == 0 {
				f.fail(n, p, "slack wants either token and channel, or webhook")
			}
		}),
		"email": kind(func(n ast.Node, p string) {
			ch.Email = &Email{}
			f.mapping(n, p, "email", map[string]field{
				"smtp": f.secret(&ch.Email.SMTP), "password": f.secret(&ch.Email.Password),
				"from": f.address(&ch.Email.From), "tls_ca": f.pem(&ch.Email.TLSCA),
				"to": func(n ast.Node, p string) {
					f.texts(&ch.Email.To)(n, p)
					for _, to := range ch.Email.To {
						if _, err := mail.ParseAddress(to); err != nil {
							f.fail(n, p, "%q is no e-mail address", to)
						}
					}
				},
			}, "smtp", "from", "to")
		}),
		"webhook": kind(func(n ast.Node, p string) {
			ch.Webhook = &Webhook{}
			f.mapping(n, p, "webhook", map[string]field{
				"url": f.secret(&ch.Webhook.URL), "secret": f.secret(&ch.Webhook.Secret), "tls_ca": f.pem(&ch.Webhook.TLSCA),
			}, "url", "secret")
		}),
		"file": kind(func(n ast.Node, p string) {
			ch.File = &File{}
			f.mapping(n, p, "file", map[string]field{"path": f.into(&ch.File.Path)}, "path")
			ch.File.Path = f.relative(ch.File.Path)
		}),
	}, "name")
	if kinds != 1 && len(f.issues) == 0 {
		f.fail(n, path, "a channel is exactly one of %s", strings.Join(ChannelKinds(), ", "))
	}
	c.Notify.Channels = append(c.Notify.Channels, ch)
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
	watches := map[string]bool{}
	for _, w := range c.Watches {
		if watches[w.Name] && w.Name != "" {
			bad(w.Path+".name", "two watches are called %q", w.Name)
		}
		watches[w.Name] = true
		check(w.Path+".notify", w.Notify)
	}
}

func (c *Config) checkListen() {
	_, port, err := net.SplitHostPort(c.HTTP.Listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		c.file.issues = append(c.file.issues, c.file.at("http.listen", fmt.Sprintf("%q is no address like 127.0.0.1:8480", c.HTTP.Listen)))
	}
}
