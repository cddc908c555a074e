package config

import (
	"net"
	"net/url"
	glob "path"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// HTTP is where health, metrics, the API and the page are served; Listen empty: nowhere.
type HTTP struct {
	Path   string // in the configuration
	Listen string
	// PublicURL is how people reach it, for links in messages, and for logins.
	PublicURL string
	// Page serves the page, and what the API can read, true by default. Without it there are
	// health and metrics, checkpoints to be compared, and announcements with a token.
	Page bool
	// Access says who may see the page and use the API. On an address of this machine alone
	// nobody needs to say so.
	Access Access
}

// Access is who may use the page and the API.
type Access struct {
	// Tokens lets those in that `token create` makes.
	Tokens bool
	// OIDC has people log in; an empty Issuer: they cannot.
	OIDC OIDC
}

// Given reports whether anybody is let in.
func (a *Access) Given() bool { return a.Tokens || a.OIDC.Issuer != "" }

// OIDC is a provider of OpenID Connect that people log in with.
type OIDC struct {
	Path     string // in the configuration
	Issuer   string
	ClientID string
	// ClientSecret may be empty: a public client, with PKCE.
	ClientSecret Secret
	// Read may see everything, Triage may decide too. Each is a list of e-mail addresses, as
	// globs, of group:NAME and of sub:ID.
	Read, Triage []string
	// Session is for how long a login is good, 12 hours by default.
	Session time.Duration
	TLSCA   string // PEM text
}

const (
	defaultSession = 12 * time.Hour
	maxSession     = 7 * 24 * time.Hour
)

func (c *Config) readHTTP(n ast.Node, path string) {
	f, h := c.file, &c.HTTP
	h.Path = path
	f.mapping(n, path, "http", map[string]field{
		"listen": f.listenAddress(&h.Listen), "public_url": f.webAddress(&h.PublicURL), "page": f.boolean(&h.Page),
		"access": func(n ast.Node, p string) {
			f.mapping(n, p, "access", map[string]field{"tokens": f.boolean(&h.Access.Tokens), "oidc": c.readOIDC})
		},
	})
}

func (c *Config) readOIDC(n ast.Node, path string) {
	f, o := c.file, &c.HTTP.Access.OIDC
	o.Path, o.Session = path, defaultSession
	f.mapping(n, path, "oidc", map[string]field{
		"issuer": f.webAddress(&o.Issuer), "client_id": f.into(&o.ClientID), "client_secret": f.secret(&o.ClientSecret), "read": f.texts(&o.Read), "triage": f.texts(&o.Triage),
		"session": f.duration(&o.Session), "tls_ca": f.pem(&o.TLSCA),
	}, "issuer", "client_id")
	f.someOfKeys("read", "triage")
	if o.Session < time.Minute || o.Session > maxSession {
		f.fail(n, path+".session", "%s is not from a minute to %s", o.Session, maxSession)
	}
	if len(o.Read)+len(o.Triage) == 0 {
		f.fail(n, path, "oidc lets nobody in: want read or triage, lists of e-mail addresses like \"*@acme.example\", of group:NAME or sub:ID")
	}
	for _, list := range []struct {
		key   string
		items []string
	}{{"read", o.Read}, {"triage", o.Triage}} {
		for _, who := range list.items {
			kind, name, named := strings.Cut(who, ":")
			if named && (kind == "group" || kind == "sub") && name != "" {
				continue
			}
			if _, err := glob.Match(who, ""); err == nil && !named && strings.Contains(who, "@") {
				continue
			}
			f.fail(n, path+"."+list.key, "%q is no e-mail address like \"*@acme.example\", and no group:NAME or sub:ID", who)
		}
	}
	if u, err := url.Parse(o.Issuer); err == nil && u.Scheme == "http" && !Loopback(net.JoinHostPort(u.Hostname(), "0")) {
		f.fail(n, path+".issuer", "%q is not https: whoever is in between could say who logs in", o.Issuer)
	}
}

// checkHTTP checks what only the whole shows.
func (c *Config) checkHTTP(bad func(path, format string, args ...any)) {
	h := &c.HTTP
	if h.Access.OIDC.Issuer != "" && h.PublicURL == "" {
		bad(h.Access.OIDC.Path, "oidc wants http.public_url: the provider sends people back to PUBLIC_URL/login/callback")
	}
	if u, err := url.Parse(h.PublicURL); h.Access.OIDC.Issuer != "" && err == nil && u.Scheme == "http" && !Loopback(net.JoinHostPort(u.Hostname(), "0")) {
		bad(h.Path+".public_url", "%q is not https: whoever is in between could take over what people log in with", h.PublicURL)
	}
	if h.Listen != "" && h.Page && !h.Access.Given() && !Loopback(h.Listen) {
		bad(h.Path+".listen", "%s is reached by others, and http.access does not say who may see the page and use the API. Name them (http.access.tokens, http.access.oidc), listen on 127.0.0.1 behind a proxy that does, or write http.page: false for health and metrics alone", h.Listen)
	}
}

// Loopback reports whether an address, HOST:PORT, can be reached from this machine alone.
func Loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
