package web

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// Access says who may see the page and use the API. The zero value lets in nobody.
type Access struct {
	// Open lets in whoever reaches the server from this machine, for reading and deciding.
	// Names, beside those of this machine, are those by which it may be called: a page from
	// elsewhere that calls itself by a name of its own is not to read it (DNS rebinding).
	Open  bool
	Names []string
	// Tokens lets in who has one.
	Tokens bool
	// Login has people log in; nil: they cannot.
	Login *Login
	// Sessions are the logins that are good.
	Sessions Sessions
}

// Sessions keeps logins, each by a secret.
type Sessions struct {
	Key []byte // cookies are signed with it
	Add func(ctx context.Context, secret string, s monitor.Session) error
	Get func(ctx context.Context, secret string) (monitor.Session, error) // ErrNoSession
	End func(ctx context.Context, secret string) error
}

// ErrNoSession says that no login has a secret, or none that is still good.
var ErrNoSession = errors.New("no such login")

// visitor is who has sent a request.
type visitor struct {
	// name is for the audit trail; key tells visitors apart whose calls are bounded.
	name, key string
	scopes    []string
	watches   []string // that a token is for; nil: all
	secret    string   // of the login; empty: there is none
	person    bool     // has a page before him
	mark      string   // of what was shown when he asked
}

func (v *visitor) may(scope string) bool { return slices.Contains(v.scopes, scope) }

// sees reports whether a visitor may see findings of a watch.
func (v *visitor) sees(watch string) bool {
	return v.watches == nil || slices.Contains(v.watches, watch)
}

// refusal is why somebody is not let in.
type refusal struct {
	status int
	detail string
	header map[string]string
}

func (r *refusal) Error() string { return r.detail }

// known is the key of a visitor in the context of a request.
type known struct{}

func withVisitor(r *http.Request, v *visitor) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), known{}, v))
}

// visitorOf returns who was let in.
func visitorOf(ctx context.Context) *visitor {
	v, _ := ctx.Value(known{}).(*visitor)
	return v
}

// admit returns who has sent a request, if he may do something that wants a scope.
func (s *Server) admit(r *http.Request, scope string) (*visitor, error) {
	v, err := s.who(r)
	if err != nil {
		return nil, err
	}
	if !s.good.allow(v.key) {
		return nil, tooOften()
	}
	if !v.may(scope) {
		return nil, &refusal{status: http.StatusForbidden, detail: fmt.Sprintf("%s may not do that: it wants scope %s", v.name, scope)}
	}
	return v, nil
}

func tooOften() error {
	return &refusal{http.StatusTooManyRequests, "more calls than are answered in a second; try again", map[string]string{"Retry-After": "1"}}
}

// who finds out who has sent a request.
func (s *Server) who(r *http.Request) (*visitor, error) {
	a := &s.opts.Access
	if r.Header.Get("Authorization") != "" && a.Tokens {
		t, err := s.bearer(r)
		if err != nil {
			return nil, err
		}
		return &visitor{name: "token " + t.Name + " (" + t.ID + ")", key: t.ID, scopes: t.Scopes, watches: t.Watches}, nil
	}
	if secret, ok := a.cookie(r); ok {
		session, err := a.Sessions.Get(r.Context(), secret)
		switch {
		case err == nil:
			// What he may do is what the configuration of today says.
			if scopes := a.scopes(session); len(scopes) > 0 {
				return &visitor{name: session.Name, key: "login " + session.Name, scopes: scopes, secret: secret, person: true}, nil
			}
		case !errors.Is(err, ErrNoSession):
			s.opts.Log.Error("the store cannot be read", "error", err)
			return nil, &refusal{status: http.StatusServiceUnavailable, detail: "the store cannot be read; the log of the server says why"}
		}
	}
	if a.Open {
		for _, name := range []string{"Forwarded", "X-Forwarded-For", "Via"} {
			if r.Header.Get(name) != "" {
				return nil, &refusal{status: http.StatusMisdirectedRequest, detail: "this server is open to its own machine only, and a proxy brings somebody from elsewhere: http.access says who may come"}
			}
		}
		if !a.named(r.Host) {
			return nil, &refusal{status: http.StatusMisdirectedRequest, detail: fmt.Sprintf("this server is not called %.100q; http.public_url can name it", r.Host)}
		}
		return &visitor{name: "page on this machine", key: "local", scopes: []string{monitor.ScopeRead, monitor.ScopeTriage}, person: true}, nil
	}
	if !s.bad.allow(network(r.RemoteAddr)) {
		return nil, tooOften()
	}
	out := &refusal{status: http.StatusUnauthorized, detail: "nobody is logged in"}
	if a.Tokens {
		out.detail = "a token is needed: Authorization: Bearer TOKEN. `sigwarden token create` makes one"
		out.header = map[string]string{"WWW-Authenticate": `Bearer realm="sigwarden"`}
	}
	return nil, out
}

// bearer returns the token that a request comes with.
func (s *Server) bearer(r *http.Request) (t monitor.Token, err error) {
	from := network(r.RemoteAddr)
	refused := func(detail, challenge string) (monitor.Token, error) {
		if !s.bad.allow(from) {
			return t, tooOften()
		}
		return t, &refusal{http.StatusUnauthorized, detail, map[string]string{"WWW-Authenticate": challenge}}
	}
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || strings.TrimSpace(secret) == "" {
		return refused("a token is needed: Authorization: Bearer TOKEN. `sigwarden token create` makes one", `Bearer realm="sigwarden"`)
	}
	secret = strings.TrimSpace(secret)
	// A network that has guessed too often is not listened to, but for tokens that were good a
	// moment ago: a stranger does not lock out those who share his address.
	if !s.proven.has(secret) && s.bad.spent(from) {
		return t, tooOften()
	}
	t, err = s.opts.API.Token(r.Context(), secret)
	if err == nil {
		s.proven.add(secret)
	}
	if errors.Is(err, ErrNoToken) {
		s.proven.drop(secret)
		return refused("the token is not known, has expired, or was revoked", `Bearer realm="sigwarden", error="invalid_token"`)
	}
	if err != nil {
		s.opts.Log.Error("the store cannot be read", "error", err)
		return t, &refusal{status: http.StatusServiceUnavailable, detail: "the store cannot be read; the log of the server says why"}
	}
	return t, nil
}

// proven remembers secrets that were good a moment ago, by their hashes. It admits nobody.
type proven struct {
	mu   sync.Mutex
	seen map[[sha256.Size]byte]time.Time
}

// provenFor is how long they are remembered, maxProven how many.
const (
	provenFor = 10 * time.Minute
	maxProven = 1024
)

func (p *proven) has(secret string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.seen[sha256.Sum256([]byte(secret))]
	return ok && time.Since(at) < provenFor
}

func (p *proven) add(secret string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil || len(p.seen) >= maxProven {
		p.seen = map[[sha256.Size]byte]time.Time{} // each is soon there again
	}
	p.seen[sha256.Sum256([]byte(secret))] = time.Now()
}

func (p *proven) drop(secret string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.seen, sha256.Sum256([]byte(secret)))
}

// scopes are what somebody who has logged in may do now; none: he is not let in any more.
func (a *Access) scopes(session monitor.Session) []string {
	var c Claims
	if a.Login == nil || json.Unmarshal(session.Claims, &c) != nil {
		return nil
	}
	if c.By != a.Login.by() {
		return nil // another provider has said it: one of today is to say it again
	}
	return a.Login.Scopes(c)
}

// named reports whether a server that is open to this machine may be called so.
func (a *Access) named(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		return true
	}
	return strings.EqualFold(host, "localhost") || slices.ContainsFunc(a.Names, func(n string) bool { return strings.EqualFold(n, host) })
}

// cookieName is that of the login. One that only travels encrypted has another, so that a
// server beside this one cannot set it.
func (a *Access) cookieName() string {
	if a.secure() {
		return "__Host-sigwarden"
	}
	return "sigwarden"
}

func (a *Access) secure() bool {
	return a.Login != nil && strings.HasPrefix(a.Login.PublicURL, "https:")
}

// cookie returns the secret of the login that a request comes with: a cookie is the secret
// and its HMAC.
func (a *Access) cookie(r *http.Request) (secret string, ok bool) {
	if a.Sessions.Get == nil {
		return "", false
	}
	c, err := r.Cookie(a.cookieName())
	if err != nil {
		return "", false
	}
	secret, mac, _ := strings.Cut(c.Value, ".")
	given, err := base64.RawURLEncoding.DecodeString(mac)
	return secret, err == nil && hmac.Equal(given, a.sign(secret))
}

func (a *Access) sign(secret string) []byte {
	mac := hmac.New(sha256.New, a.Sessions.Key)
	mac.Write([]byte("sigwarden login\x00" + secret))
	return mac.Sum(nil)
}

// begin logs somebody in.
func (a *Access) begin(ctx context.Context, w http.ResponseWriter, session monitor.Session) error {
	secret := rand.Text()
	if err := a.Sessions.Add(ctx, secret, session); err != nil {
		return err
	}
	http.SetCookie(w, a.newCookie(secret+"."+base64.RawURLEncoding.EncodeToString(a.sign(secret)), time.Until(session.ExpiresAt)))
	return nil
}

func (a *Access) newCookie(value string, keep time.Duration) *http.Cookie {
	c := &http.Cookie{Name: a.cookieName(), Value: value, Path: "/", HttpOnly: true, Secure: a.secure(), SameSite: http.SameSiteStrictMode, MaxAge: int(keep.Seconds())}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

// end logs somebody out: the cookie is good for nothing any more, whoever has a copy.
func (s *Server) end(w http.ResponseWriter, r *http.Request) {
	a := &s.opts.Access
	if secret, ok := a.cookie(r); ok {
		if err := a.Sessions.End(r.Context(), secret); err != nil {
			s.opts.Log.Error("a login cannot be ended", "error", err)
			s.failed(w, r, &refusal{status: http.StatusServiceUnavailable, detail: "the login could not be ended; the log of the server says why"})
			return
		}
	}
	http.SetCookie(w, a.newCookie("", 0))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// local makes a place on this server of what somebody wants to come back to; "/" if it is
// none.
func local(path string) string {
	u, err := url.Parse(path)
	if err != nil || len(path) > maxBack || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t") {
		return "/"
	}
	return path
}
