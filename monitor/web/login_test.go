package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"
)

// provider is a provider whose answers a test may bend.
type fakeProvider struct {
	t      *testing.T
	url    string
	key    *ecdsa.PrivateKey
	scopes string // supported; JSON

	id, info map[string]any // claims
	nonce    string         // in place of the one that was asked for
	infoFor  string         // subject in userinfo
	asked    url.Values     // of the last authorization
	proof    url.Values     // of the last exchange
}

func newProvider(t *testing.T) *fakeProvider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &fakeProvider{t: t, key: key, scopes: `["openid", "email", "groups"]`, infoFor: "s-1"}
	keys := &oidctest.Server{PublicKeys: []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: "k", Algorithm: oidc.ES256}}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"issuer": %q, "authorization_endpoint": %[1]q, "token_endpoint": "%[1]s/token", "userinfo_endpoint": "%[1]s/userinfo", "jwks_uri": "%[1]s/keys", "id_token_signing_alg_values_supported": ["ES256"], "scopes_supported": %s}`, p.url, p.scopes)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		p.proof = r.PostForm
		claims := map[string]any{"iss": p.url, "aud": "sigwarden", "sub": "s-1", "exp": time.Now().Add(time.Hour).Unix(), "nonce": p.asked.Get("nonce")}
		for k, v := range p.id {
			claims[k] = v
		}
		if p.nonce != "" {
			claims["nonce"] = p.nonce
		}
		raw, err := json.Marshal(claims)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token": "a", "token_type": "Bearer", "id_token": %q}`, oidctest.SignIDToken(key, "k", oidc.ES256, string(raw)))
	})
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, r *http.Request) {
		info := map[string]any{"sub": p.infoFor}
		for k, v := range p.info {
			info[k] = v
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(info)
	})
	mux.Handle("/keys", keys)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	p.url = server.URL
	keys.SetIssuer(server.URL)
	return p
}

// browser is somebody's; it has cookies.
type browser map[string]string

func (b browser) get(h http.Handler, path string) *httptest.ResponseRecorder {
	var cookies []string
	for name, value := range b {
		cookies = append(cookies, name+"="+value)
	}
	got := ask(h, "GET", path, "", "Cookie", strings.Join(cookies, "; "))
	for _, c := range got.Result().Cookies() {
		if delete(b, c.Name); c.MaxAge >= 0 {
			b[c.Name] = c.Value
		}
	}
	return got
}

// begin goes to the provider, and returns the state that it is to bring back.
func (b browser) begin(t *testing.T, h http.Handler, p *fakeProvider) (state string) {
	t.Helper()
	got := b.get(h, "/login?back=/findings")
	to, err := url.Parse(got.Header().Get("Location"))
	if got.Code != http.StatusSeeOther || err != nil {
		t.Fatalf("%d %s %v", got.Code, got.Body, err)
	}
	p.asked = to.Query()
	return p.asked.Get("state")
}

func loginWorld(p *fakeProvider, read, triage []string) (*world, http.Handler) {
	w := newWorld()
	matches := func(pattern, email string) bool {
		return pattern == email || pattern == "*@acme.example" && strings.HasSuffix(email, "@acme.example")
	}
	groups := strings.Contains(strings.Join(append(read, triage...), " "), "group:")
	w.opts.Access.Login = &Login{Issuer: p.url, ClientID: "sigwarden", PublicURL: "https://sigwarden.example", Session: time.Hour, Client: http.DefaultClient, Groups: groups, Scopes: ScopesFor(read, triage, matches)}
	return w, New(w.opts).Handler()
}

// TestLogins: who a provider vouches for is let in as the configuration says, however the
// provider writes it.
func TestLogins(t *testing.T) {
	for name, c := range map[string]struct {
		id, info map[string]any
		read     []string
		scopes   string
		asks     string // of the provider
		in       bool
	}{
		"by a verified address":            {id: map[string]any{"email": "a@acme.example", "email_verified": true}, read: []string{"*@acme.example"}, in: true, asks: "openid email profile"},
		"verified as a text":               {id: map[string]any{"email": "a@acme.example", "email_verified": "true"}, read: []string{"*@acme.example"}, in: true},
		"not verified":                     {id: map[string]any{"email": "a@acme.example", "email_verified": false}, read: []string{"*@acme.example"}},
		"verified as something else":       {id: map[string]any{"email": "a@acme.example", "email_verified": "yes"}, read: []string{"*@acme.example"}},
		"somebody else":                    {id: map[string]any{"email": "a@evil.example", "email_verified": true}, read: []string{"*@acme.example"}},
		"by an address in userinfo":        {info: map[string]any{"email": "a@acme.example", "email_verified": true}, read: []string{"*@acme.example"}, in: true},
		"by a group":                       {id: map[string]any{"groups": []string{"x", "security"}}, read: []string{"group:security"}, in: true, asks: "openid email profile groups"},
		"by a group as one text":           {id: map[string]any{"groups": "security"}, read: []string{"group:security"}, in: true},
		"by a group in userinfo alone":     {id: map[string]any{"email": "a@acme.example", "email_verified": true}, info: map[string]any{"groups": []any{1, "security"}}, read: []string{"group:security"}, in: true},
		"by a group, without such a scope": {scopes: `["openid"]`, id: map[string]any{"groups": []string{"security"}}, read: []string{"group:security"}, in: true, asks: "openid email profile"},
		"in another group":                 {id: map[string]any{"groups": []string{"securit"}}, read: []string{"group:security"}},
		"by the subject":                   {read: []string{"sub:s-1"}, in: true},
		"by another subject":               {read: []string{"sub:s-2"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			p.id, p.info = c.id, c.info
			if c.scopes != "" {
				p.scopes = c.scopes
			}
			_, h := loginWorld(p, c.read, nil)
			b := browser{}
			state := b.begin(t, h, p)
			if got := p.asked.Get("scope"); c.asks != "" && got != c.asks {
				t.Errorf("asked for %q, want %q", got, c.asks)
			}
			if p.asked.Get("code_challenge_method") != "S256" || p.asked.Get("nonce") == "" {
				t.Errorf("%v", p.asked)
			}
			got := b.get(h, "/login/callback?code=c&state="+state)
			if in := got.Code == http.StatusOK; in != c.in {
				t.Fatalf("%d %s", got.Code, got.Body)
			}
			if p.proof.Get("code_verifier") == "" {
				t.Errorf("%v", p.proof)
			}
			if got := b.get(h, "/findings"); (got.Code == http.StatusOK) != c.in {
				t.Errorf("%d", got.Code)
			}
			if c.in && !strings.Contains(got.Body.String(), "/findings") {
				t.Errorf("it does not lead back:\n%s", got.Body)
			}
		})
	}
}

// TestForgedLogins: a login that another browser has begun, that is over, that was used, or that
// the provider answers wrongly, comes to nothing.
func TestForgedLogins(t *testing.T) {
	p := newProvider(t)
	p.id = map[string]any{"email": "a@acme.example", "email_verified": true}
	w, h := loginWorld(p, []string{"*@acme.example"}, nil)
	refused := func(what string, b browser, path string, status int) {
		t.Helper()
		if got := b.get(h, path); got.Code != status || len(w.sessions) > 0 {
			t.Errorf("%s: %d, %d logins\n%s", what, got.Code, len(w.sessions), got.Body)
		}
	}
	b := browser{}
	state := b.begin(t, h, p)
	refused("another browser", browser{}, "/login/callback?code=c&state="+state, 400)
	other := browser{}
	otherState := other.begin(t, h, p)
	refused("the state of another browser", b, "/login/callback?code=c&state="+otherState, 400)
	refused("a second time after that", b, "/login/callback?code=c&state="+state, 400)

	state = b.begin(t, h, p)
	for name, value := range b {
		doc, mac, _ := strings.Cut(value, ".")
		refused("a changed cookie", browser{name: doc + "A." + mac}, "/login/callback?code=c&state="+state, 400)
		refused("a cookie without its signature", browser{name: doc}, "/login/callback?code=c&state="+state, 400)
		// What is signed for one thing is not good for the other.
		refused("an attempt as a login", browser{strings.TrimSuffix(name, "-login"): value}, "/findings", 401)
	}
	refused("an error of the provider", b, "/login/callback?error=access_denied&state="+state, 403)

	state = b.begin(t, h, p)
	p.nonce = "another"
	refused("the nonce of another login", b, "/login/callback?code=c&state="+state, 403)
	p.nonce = ""
	p.id, p.infoFor = nil, "s-2"
	state = b.begin(t, h, p)
	refused("userinfo of somebody else", b, "/login/callback?code=c&state="+state, 403)

	// One that is over.
	old, err := w.opts.Access.keep(attempt{State: "x", Began: time.Now().Add(-attemptFor - time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	refused("too late", browser{old.Name: old.Value}, "/login/callback?code=c&state=x", 400)
	if !old.Secure || !old.HttpOnly || old.SameSite != http.SameSiteLaxMode || !strings.HasPrefix(old.Name, "__Host-") || old.Path != "/" {
		t.Errorf("%+v", old)
	}
}

// TestTakenOffTheList: who is not in the configuration any more is not let in any more,
// although his login is not over.
func TestTakenOffTheList(t *testing.T) {
	p := newProvider(t)
	p.id = map[string]any{"email": "a@acme.example", "email_verified": true}
	w, h := loginWorld(p, []string{"*@acme.example"}, []string{"a@acme.example"})
	b := browser{}
	state := b.begin(t, h, p)
	b.get(h, "/login/callback?code=c&state="+state)
	if got := b.get(h, "/findings/f-1"); got.Code != 200 || !strings.Contains(got.Body.String(), `action="/findings/f-1"`) {
		t.Fatalf("%d", got.Code)
	}
	matches := func(pattern, email string) bool { return pattern == email }
	w.opts.Access.Login.Scopes = ScopesFor([]string{"a@acme.example"}, nil, matches)
	if got := b.get(h, "/findings/f-1"); got.Code != 200 || strings.Contains(got.Body.String(), `action="/findings/f-1"`) {
		t.Errorf("%d: he still decides", got.Code)
	}
	w.opts.Access.Login.ClientID += "x"
	if got := b.get(h, "/findings/f-1"); got.Code != 401 {
		t.Errorf("%d: a login by another provider is still good", got.Code)
	}
	w.opts.Access.Login.ClientID = strings.TrimSuffix(w.opts.Access.Login.ClientID, "x")
	w.opts.Access.Login.Scopes = ScopesFor([]string{"b@acme.example"}, nil, matches)
	if got := b.get(h, "/findings/f-1"); got.Code != 401 {
		t.Errorf("%d: he still reads", got.Code)
	}
}

// TestStrangersDoNotLockOut: whoever guesses, or asks without a token, keeps nobody from
// logging in, and is not listened to after a while; who has shown a good token goes on.
func TestStrangersDoNotLockOut(t *testing.T) {
	p := newProvider(t)
	w, h := loginWorld(p, []string{"sub:s-1"}, nil)
	asked := 0
	if got := ask(h, "GET", "/api/v1/status", "", "Authorization", "Bearer reader"); got.Code != 200 {
		t.Fatalf("%d", got.Code)
	}
	for range 200 {
		if got := ask(h, "GET", "/api/v1/status", "", "Authorization", "Bearer guess"); got.Code == 429 {
			asked++
		}
	}
	if asked < 100 {
		t.Errorf("%d of 200 guesses were refused unheard", asked)
	}
	if got := ask(h, "GET", "/api/v1/status", "", "Authorization", "Bearer decider"); got.Code != 429 {
		t.Errorf("a guess that is right is answered %d: guessing goes on", got.Code)
	}
	if got := ask(h, "GET", "/api/v1/status", "", "Authorization", "Bearer reader"); got.Code != 200 {
		t.Errorf("who was known is answered %d", got.Code)
	}
	browser{}.begin(t, h, p)
	if len(w.sessions) != 0 {
		t.Error("somebody is in")
	}
}
