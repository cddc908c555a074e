package web

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"github.com/sigwarden/sigwarden/monitor"
)

// Login has people log in with a provider of OpenID Connect: authorization code, PKCE, and a
// nonce.
type Login struct {
	Issuer, ClientID, ClientSecret string
	// PublicURL is how people reach this server, without a slash at its end.
	PublicURL string
	// Scopes says what somebody may do; nothing: he is not let in. Groups: it looks at groups.
	Scopes func(c Claims) []string
	Groups bool
	// Session is for how long a login is good.
	Session time.Duration
	Client  *http.Client

	finding  singleflight.Group
	provider atomic.Pointer[provider]
}

// provider is what is known of one.
type provider struct {
	*oidc.Provider
	scopes []string // that it can be asked for
}

// Claims are what a provider says of somebody.
type Claims struct {
	Subject  string `json:"sub"`
	Email    string `json:"email"`
	Verified truth  `json:"email_verified"`
	Groups   names  `json:"groups"`
	// By is who has said it, and to whom; it is ours to set.
	By string `json:"sigwarden_by"`
}

// by names the provider that people log in with now.
func (l *Login) by() string { return l.Issuer + " " + l.ClientID }

// truth is true, or "true" as some providers write it; anything else is not.
type truth bool

func (t *truth) UnmarshalJSON(data []byte) error {
	*t = string(data) == "true" || string(data) == `"true"`
	return nil
}

// names is a list of texts, or one; anything else names nobody.
type names []string

func (n *names) UnmarshalJSON(data []byte) error {
	var one string
	*n = nil
	if json.Unmarshal(data, &one) == nil && one != "" {
		*n = names{one}
		return nil
	}
	var list []any
	_ = json.Unmarshal(data, &list)
	for _, v := range list {
		if text, ok := v.(string); ok {
			*n = append(*n, text)
		}
	}
	return nil
}

// attempt is a login that has begun. The browser that has begun it keeps it, signed: nobody
// else can go on with it, and nothing of it has to be kept here.
type attempt struct {
	State    string    `json:"s"`
	Nonce    string    `json:"n"`
	Verifier string    `json:"v"`
	Back     string    `json:"b"`
	Began    time.Time `json:"t"`
}

const (
	// A login takes attemptFor at most, and comes back to a place of maxBack bytes at most.
	attemptFor = 10 * time.Minute
	maxBack    = 1024
	// providerFor bounds what is asked of a provider.
	providerFor = 10 * time.Second
)

// errLogin says that a login came to nothing, for people.
var errLogin = errors.New("the login came to nothing")

// config asks for groups only where somebody looks at them, and where the provider knows the
// scope: others refuse what they do not know.
func (l *Login) config(p *provider) *oauth2.Config {
	scopes := []string{oidc.ScopeOpenID, "email", "profile"}
	if l.Groups && slices.Contains(p.scopes, "groups") {
		scopes = append(scopes, "groups")
	}
	return &oauth2.Config{ClientID: l.ClientID, ClientSecret: l.ClientSecret, Endpoint: p.Endpoint(), RedirectURL: l.PublicURL + "/login/callback", Scopes: scopes}
}

// discover asks the provider what it can, once that is known not again.
func (l *Login) discover(ctx context.Context) (*provider, error) {
	if p := l.provider.Load(); p != nil {
		return p, nil
	}
	found := l.finding.DoChan("", func() (any, error) {
		// What it fetches keys with later outlives the request.
		p, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), l.Client), l.Issuer)
		if err != nil {
			return nil, err
		}
		var can struct {
			Scopes []string `json:"scopes_supported"`
		}
		if err := p.Claims(&can); err != nil {
			return nil, err
		}
		known := &provider{p, can.Scopes}
		l.provider.Store(known)
		return known, nil
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-found:
		p, _ := r.Val.(*provider)
		return p, r.Err
	}
}

// loginCookie is that of an attempt. It has to come with the way back from the provider, which
// is another site: Lax.
func (a *Access) loginCookie(value string) *http.Cookie {
	c := &http.Cookie{Name: a.cookieName() + "-login", Value: value, Path: "/", HttpOnly: true, Secure: a.secure(), SameSite: http.SameSiteLaxMode, MaxAge: int(attemptFor.Seconds())}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

// keep makes a cookie of an attempt.
func (a *Access) keep(at attempt) (*http.Cookie, error) {
	doc, err := json.Marshal(at)
	if err != nil {
		return nil, err
	}
	text := base64.RawURLEncoding.EncodeToString(doc)
	return a.loginCookie(text + "." + base64.RawURLEncoding.EncodeToString(a.sign("attempt\x00"+text))), nil
}

// kept returns the attempt that a browser comes back from.
func (a *Access) kept(r *http.Request, now time.Time) (at attempt, ok bool) {
	c, err := r.Cookie(a.loginCookie("").Name)
	if err != nil {
		return at, false
	}
	text, mac, _ := strings.Cut(c.Value, ".")
	given, err := base64.RawURLEncoding.DecodeString(mac)
	if err != nil || !hmac.Equal(given, a.sign("attempt\x00"+text)) {
		return at, false
	}
	doc, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(doc, &at) != nil {
		return at, false
	}
	age := now.Sub(at.Began)
	return at, age >= 0 && age <= attemptFor && subtle.ConstantTimeCompare([]byte(at.State), []byte(r.FormValue("state"))) == 1
}

// login sends somebody to the provider.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	l := s.opts.Access.Login
	if !s.logins.allow(network(r.RemoteAddr)) {
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
	at := attempt{rand.Text(), rand.Text(), oauth2.GenerateVerifier(), local(r.FormValue("back")), time.Now()}
	cookie, err := s.opts.Access.keep(at)
	if err != nil {
		s.failed(w, r, err)
		return
	}
	http.SetCookie(w, cookie)
	http.Redirect(w, r, l.config(p).AuthCodeURL(at.State, oidc.Nonce(at.Nonce), oauth2.S256ChallengeOption(at.Verifier)), http.StatusSeeOther)
}

// callback is where the provider sends people back to.
func (s *Server) callback(w http.ResponseWriter, r *http.Request) {
	l := s.opts.Access.Login
	refuse := func(status int, err error) {
		s.opts.Log.Warn("a login came to nothing", "error", err, "from", network(r.RemoteAddr))
		s.failed(w, r, &refusal{status: status, detail: errLogin.Error() + "; the log of the server says why"})
	}
	if !s.logins.allow(network(r.RemoteAddr)) {
		s.failed(w, r, tooOften())
		return
	}
	a, ok := s.opts.Access.kept(r, time.Now())
	http.SetCookie(w, s.opts.Access.loginCookie("")) // it is good once
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
	claims.By = l.by()
	scopes := l.Scopes(claims)
	if len(scopes) == 0 {
		refuse(http.StatusForbidden, fmt.Errorf("http.access.oidc lets nobody in who is %.100q, e-mail %.100q (verified: %v), groups %.300q", claims.Subject, claims.Email, claims.Verified, claims.Groups))
		return
	}
	doc, err := json.Marshal(claims)
	if err != nil {
		refuse(http.StatusForbidden, err)
		return
	}
	session := monitor.Session{Name: claims.name(), Claims: doc, ExpiresAt: time.Now().Add(l.Session)}
	if err := s.opts.Access.begin(r.Context(), w, session); err != nil {
		s.opts.Log.Error("a login cannot be stored", "error", err)
		s.failed(w, r, &refusal{status: http.StatusServiceUnavailable, detail: "the login cannot be stored; the log of the server says why"})
		return
	}
	s.opts.Log.Info("somebody has logged in", "name", session.Name, "scopes", scopes)
	// A redirect would still be on the way from another site, where the browser keeps a
	// strict cookie to itself. A page of this site leads on.
	s.page(w, r, http.StatusOK, "onward", map[string]any{"Back": a.Back})
}

// claims exchanges a code, and verifies what the provider says.
func (l *Login) claims(ctx context.Context, a attempt, code string) (c Claims, err error) {
	ctx = oidc.ClientContext(ctx, l.Client)
	p, err := l.discover(ctx)
	if err != nil {
		return c, err
	}
	token, err := l.config(p).Exchange(ctx, code, oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return c, fmt.Errorf("exchanging the code: %w", err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := p.Verifier(&oidc.Config{ClientID: l.ClientID}).Verify(ctx, raw)
	if err != nil {
		return c, err
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(a.Nonce)) != 1 {
		return c, errors.New("the provider answered another login")
	}
	if err := id.Claims(&c); err != nil || c.Email != "" && (len(c.Groups) > 0 || !l.Groups) {
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
	err = info.Claims(&c)
	return c, err
}

// name is how somebody is called in the audit trail.
func (c *Claims) name() string {
	if bool(c.Verified) && c.Email != "" {
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
			return bool(c.Verified) && matches(who, c.Email)
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
