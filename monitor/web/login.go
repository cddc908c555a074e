package web

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/sigwarden/sigwarden/monitor"
)

// Login has people log in with a provider of OpenID Connect: authorization code, PKCE, and a
// nonce.
type Login struct {
	Issuer, ClientID, ClientSecret string
	// PublicURL is how people reach this server, without a slash at its end.
	PublicURL string
	// Scopes says what somebody may do; nothing: he is not let in.
	Scopes func(c Claims) []string
	// Session is for how long a login is good.
	Session time.Duration
	Client  *http.Client

	mu       sync.Mutex
	provider *oidc.Provider
	pending  map[string]attempt // by state
}

// Claims are what a provider says of somebody.
type Claims struct {
	Subject  string   `json:"sub"`
	Email    string   `json:"email"`
	Verified bool     `json:"email_verified"`
	Groups   []string `json:"groups"`
}

// attempt is a login that has begun.
type attempt struct {
	verifier, nonce, binding, back string
	began                          time.Time
}

const (
	// A login takes attemptFor at most, and maxAttempts may be under way.
	attemptFor  = 10 * time.Minute
	maxAttempts = 1000
	// providerFor bounds what is asked of a provider.
	providerFor = 10 * time.Second
	// loginCookie binds the login to the browser that began it. It has to come with the way
	// back from the provider, which is another site: Lax.
	loginCookie = "sigwarden-login"
	loginPath   = "/login/"
)

// errLogin says that a login came to nothing, for people.
var errLogin = errors.New("the login came to nothing")

func (l *Login) config(p *oidc.Provider) *oauth2.Config {
	return &oauth2.Config{ClientID: l.ClientID, ClientSecret: l.ClientSecret, Endpoint: p.Endpoint(), RedirectURL: l.PublicURL + "/login/callback", Scopes: []string{oidc.ScopeOpenID, "email", "profile", "groups"}}
}

// discover asks the provider what it can, once that is known not again.
func (l *Login) discover(ctx context.Context) (*oidc.Provider, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.provider != nil {
		return l.provider, nil
	}
	// What it fetches keys with later outlives the request.
	p, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), l.Client), l.Issuer)
	if err == nil {
		l.provider = p
	}
	return p, err
}

// start notes that a login has begun, and returns where it goes on.
func (l *Login) start(p *oidc.Provider, back string, now time.Time) (address, binding string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for state, a := range l.pending {
		if now.Sub(a.began) > attemptFor {
			delete(l.pending, state)
		}
	}
	if len(l.pending) >= maxAttempts {
		return "", "", errors.New("too many logins are under way; try again in some minutes")
	}
	if l.pending == nil {
		l.pending = map[string]attempt{}
	}
	state := rand.Text()
	a := attempt{oauth2.GenerateVerifier(), rand.Text(), rand.Text(), back, now}
	l.pending[state] = a
	return l.config(p).AuthCodeURL(state, oidc.Nonce(a.nonce), oauth2.S256ChallengeOption(a.verifier)), a.binding, nil
}

// take returns the login that a state belongs to, once.
func (l *Login) take(state, binding string, now time.Time) (attempt, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := l.pending[state]
	if !ok || a.binding != binding || now.Sub(a.began) > attemptFor {
		return attempt{}, false
	}
	delete(l.pending, state)
	return a, true
}

// login sends somebody to the provider.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	l := s.opts.Access.Login
	if !s.bad.allow(network(r.RemoteAddr)) {
		s.failed(w, r, tooOften())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), providerFor)
	defer cancel()
	p, err := l.discover(ctx)
	if err != nil {
		s.opts.Log.Error("the provider that people log in with does not answer as it should", "issuer", l.Issuer, "error", err)
		s.failed(w, r, &refusal{status: http.StatusBadGateway, detail: "the provider that people log in with does not answer as it should; the log of the server says why"})
		return
	}
	address, binding, err := l.start(p, local(r.FormValue("back")), time.Now())
	if err != nil {
		s.failed(w, r, &refusal{status: http.StatusServiceUnavailable, detail: err.Error()})
		return
	}
	http.SetCookie(w, &http.Cookie{Name: loginCookie, Value: binding, Path: loginPath, HttpOnly: true, Secure: s.opts.Access.secure(), SameSite: http.SameSiteLaxMode, MaxAge: int(attemptFor.Seconds())})
	http.Redirect(w, r, address, http.StatusSeeOther)
}

// callback is where the provider sends people back to.
func (s *Server) callback(w http.ResponseWriter, r *http.Request) {
	l := s.opts.Access.Login
	refuse := func(status int, err error) {
		s.opts.Log.Warn("a login came to nothing", "error", err, "from", network(r.RemoteAddr))
		s.failed(w, r, &refusal{status: status, detail: errLogin.Error() + "; the log of the server says why"})
	}
	if !s.bad.allow(network(r.RemoteAddr)) {
		s.failed(w, r, tooOften())
		return
	}
	binding := ""
	if c, err := r.Cookie(loginCookie); err == nil {
		binding = c.Value
	}
	a, ok := l.take(r.FormValue("state"), binding, time.Now())
	if !ok {
		refuse(http.StatusBadRequest, errors.New("it was not begun in this browser, or too long ago"))
		return
	}
	if said := r.FormValue("error"); said != "" {
		refuse(http.StatusForbidden, fmt.Errorf("the provider says %.100q: %.200q", said, r.FormValue("error_description")))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), providerFor)
	defer cancel()
	claims, err := l.claims(ctx, a, r.FormValue("code"))
	if err != nil {
		refuse(http.StatusForbidden, err)
		return
	}
	scopes := l.Scopes(claims)
	if len(scopes) == 0 {
		refuse(http.StatusForbidden, fmt.Errorf("http.access.oidc lets nobody in who is %.100q, e-mail %.100q (verified: %v), groups %.300q", claims.Subject, claims.Email, claims.Verified, claims.Groups))
		return
	}
	session := monitor.Session{Name: claims.name(), Scopes: scopes, ExpiresAt: time.Now().Add(l.Session)}
	if err := s.opts.Access.begin(r.Context(), w, session); err != nil {
		s.opts.Log.Error("a login cannot be stored", "error", err)
		s.failed(w, r, &refusal{status: http.StatusServiceUnavailable, detail: "the login cannot be stored; the log of the server says why"})
		return
	}
	s.opts.Log.Info("somebody has logged in", "name", session.Name, "scopes", scopes)
	http.SetCookie(w, &http.Cookie{Name: loginCookie, Path: loginPath, MaxAge: -1, HttpOnly: true, Secure: s.opts.Access.secure(), SameSite: http.SameSiteLaxMode})
	// A redirect would still be on the way from another site, where the browser keeps a
	// strict cookie to itself. A page of this site leads on.
	s.page(w, r, http.StatusOK, "onward", map[string]any{"Back": a.back})
}

// claims exchanges a code, and verifies what the provider says.
func (l *Login) claims(ctx context.Context, a attempt, code string) (c Claims, err error) {
	ctx = oidc.ClientContext(ctx, l.Client)
	p, err := l.discover(ctx)
	if err != nil {
		return c, err
	}
	token, err := l.config(p).Exchange(ctx, code, oauth2.VerifierOption(a.verifier))
	if err != nil {
		return c, fmt.Errorf("exchanging the code: %w", err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := p.Verifier(&oidc.Config{ClientID: l.ClientID}).Verify(ctx, raw)
	if err != nil {
		return c, err
	}
	if id.Nonce != a.nonce {
		return c, errors.New("the provider answered another login")
	}
	if err := id.Claims(&c); err != nil || c.Email != "" {
		return c, err
	}
	// Some tell the rest only to who asks with the token.
	info, err := p.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return c, fmt.Errorf("asking who it is: %w", err)
	}
	if info.Subject != c.Subject {
		return c, errors.New("the provider told of somebody else than of who has logged in")
	}
	return c, info.Claims(&c)
}

// name is how somebody is called in the audit trail.
func (c *Claims) name() string {
	if c.Verified && c.Email != "" {
		return c.Email
	}
	return "login " + c.Subject // it may be any text: it must not pass for somebody else
}

// ScopesFor returns what lists of people may do: each names e-mail addresses, as globs, which
// the provider has verified, groups as group:NAME, and single ones as sub:ID. Who may decide
// may read.
func ScopesFor(read, triage []string, matches func(pattern, email string) bool) func(Claims) []string {
	listed := func(list []string, c Claims) bool {
		return slices.ContainsFunc(list, func(who string) bool {
			if name, ok := strings.CutPrefix(who, "group:"); ok {
				return slices.Contains(c.Groups, name)
			}
			if id, ok := strings.CutPrefix(who, "sub:"); ok {
				return c.Subject == id
			}
			return c.Verified && matches(who, c.Email)
		})
	}
	return func(c Claims) []string {
		switch {
		case listed(triage, c):
			return []string{monitor.ScopeRead, monitor.ScopeTriage}
		case listed(read, c):
			return []string{monitor.ScopeRead}
		}
		return nil
	}
}
