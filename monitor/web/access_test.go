package web

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/watchlist/entry"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// evil is what a stranger may have written anywhere. No page may take any of it for its own.
const evil = "\"'><x-evil onload=alert(1)></textarea></pre></title><script>x-evil</script>{{.}}\u202e\x1b[2J"

// hostileCertificate has such names too.
var hostileCertificate = func() []byte {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	name := pkix.Name{CommonName: evil, Organization: []string{evil}}
	return must(x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(7), Subject: name, NotAfter: time.Now().Add(time.Hour)}, &x509.Certificate{Subject: name}, key.Public(), key))
}()

// world is some data to show, and what is done to it.
type world struct {
	decided  []monitor.Change
	asked    monitor.Filter
	tested   []string
	sessions map[string]monitor.Session
	opts     Options
}

func (w *world) finding(id string) monitor.Finding {
	at := time.Unix(1700000000, 0).UTC()
	index := uint64(7)
	return monitor.Finding{
		ID: id, Log: evil, Origin: evil, Index: 7, LogIndex: &index, Kind: evil, APIVersion: evil, Watch: map[string]string{"f-1": "acme", "f-2": "other"}[id], Verdict: policy.Unexpected, Severity: "high", Reason: evil,
		Identities: []entry.Report{{Subjects: []string{"key"}}, {Subjects: []string{"bytes"}}, {Subjects: []string{evil}, Issuer: evil, Fingerprint: evil, Certificate: &entry.CertificateReport{Extensions: map[string]string{evil: evil}}}},
		Digests:    []string{evil}, SeenAt: at, EventTime: at, State: monitor.StateOpen, Note: evil, By: evil, ChangedAt: &at, Waits: []string{evil}, RuleHash: "sha256:00", Leaf: []byte(`{"a": "` + evil + `"}`), SignedNote: evil + "\n", Proof: []checkpoint.Hash{{1}},
	}
}

func newWorld() *world {
	w := &world{sessions: map[string]monitor.Session{}}
	o := options(&engine{ready: true}, new(error))
	was := o.Status
	o.Status = func(ctx context.Context) (monitor.Status, error) {
		st, err := was(ctx)
		failure := evil
		st.Logs = append(st.Logs, monitor.LogStatus{Name: evil, State: "halted", Error: &failure, Incident: "i-1", Gaps: []monitor.Gap{{Range: monitor.Range{From: 3, To: 5}, Reason: "entry-mismatch"}}})
		st.Channels = append(st.Channels, monitor.ChannelStatus{Name: evil})
		return st, err
	}
	o.API.Token = func(_ context.Context, secret string) (monitor.Token, error) {
		t := map[string]monitor.Token{
			"reader": {ID: "t-1", Name: "reader", Scopes: []string{"read"}}, "decider": {ID: "t-2", Name: "decider", Scopes: []string{"read", "triage"}},
			"some": {ID: "t-3", Name: "some", Scopes: []string{"read", "triage"}, Watches: []string{"acme"}}, "expect": {ID: "t-4", Name: "expect", Scopes: []string{"expect"}},
		}[secret]
		if t.ID == "" {
			return t, ErrNoToken
		}
		return t, nil
	}
	incident := monitor.Incident{ID: "i-1", Class: monitor.Integrity, Kind: monitor.KindFork, Log: evil, Severity: "critical", State: monitor.StateOpen, OpenedAt: time.Unix(1700000000, 0), Summary: evil, Note: evil, By: evil, Details: json.RawMessage(`{"a": ` + string(must(json.Marshal(evil))) + `}`), Evidence: []monitor.Evidence{{Name: "checkpoint", Data: []byte(evil)}}}
	known := func(id string) error {
		if id == "f-1" || id == "f-2" || id == "i-1" {
			return nil
		}
		return ErrNoPage
	}
	o.Data = Data{
		Findings: func(_ context.Context, f monitor.Filter) (monitor.Page[monitor.Finding], error) {
			w.asked = f
			if f.Before == "bad" {
				return monitor.Page[monitor.Finding]{}, fmt.Errorf("%w: no place", ErrInvalid)
			}
			return monitor.Page[monitor.Finding]{Items: []monitor.Finding{w.finding("f-1"), w.finding("f-2")}, Next: "next"}, nil
		},
		Finding: func(_ context.Context, id string) (monitor.Finding, error) { return w.finding(id), known(id) },
		Incidents: func(context.Context, monitor.Filter) (monitor.Page[monitor.Incident], error) {
			return monitor.Page[monitor.Incident]{Items: []monitor.Incident{incident}}, nil
		},
		Incident: func(_ context.Context, id string) (monitor.Incident, error) { return incident, known(id) },
		Count:    func(context.Context, monitor.Filter, int) (int, error) { return 2, nil },
		Triage: func(_ context.Context, id string, c monitor.Change) error {
			w.decided = append(w.decided, c)
			return known(id)
		},
		Evidence:   func(_ context.Context, id string) ([]byte, error) { return []byte("zip"), known(id) },
		Exportable: func(monitor.Incident) bool { return true },
		Checkpoint: func(_ context.Context, log string) ([]byte, error) { return []byte("note"), nil },
		Coverage: func(context.Context, time.Time, time.Time, string) (any, error) {
			return map[string]string{"a": "b"}, nil
		}, CoverageDoc: struct{ A string }{},
		Spans: func(context.Context, time.Time) ([]LogSpans, error) {
			now := time.Now()
			return []LogSpans{{Log: evil, Spans: []Span{{Since: now.Add(-3 * time.Hour), Until: now.Add(-2 * time.Hour), Size: 5}, {Since: now.Add(-2 * time.Hour), Until: now.Add(-time.Hour), Reason: evil}, {Since: now.Add(-time.Hour), Until: now, Size: 9}}}}, nil
		},
		Watches: func(context.Context, bool) ([]Watch, error) {
			return []Watch{{Name: "acme", Severity: "high", Channels: []string{evil}, Rule: evil}, {Name: evil, Rule: "{}"}}, nil
		},
		Try: func(_ context.Context, rule string) ([]Trial, error) {
			if strings.Contains(rule, "bad") {
				return nil, fmt.Errorf("%w: %s", ErrInvalid, evil)
			}
			return []Trial{{Log: evil, Read: 5, Matches: 1, Of: []monitor.Finding{w.finding("f-1")}, Error: evil}}, nil
		},
		Announcements: func(context.Context, string) ([]monitor.Announcement, error) {
			return []monitor.Announcement{{ID: "a-1", Watch: "acme"}, {ID: "a-2", Watch: "other"}}, nil
		},
		Certificates: func([]byte) [][]byte { return [][]byte{nil, []byte(evil), hostileCertificate} },
		Report:       func(context.Context, time.Time, time.Time, string) ([]byte, error) { return []byte("{}"), nil },
		Ledger: func(context.Context, uint64, int) ([]json.RawMessage, error) {
			return []json.RawMessage{[]byte("{}")}, nil
		},
		Troubles: func(context.Context) ([]monitor.Trouble, error) {
			return []monitor.Trouble{{Channel: evil, Subject: "f-1", State: "failed", Error: evil, Attempts: 3}, {Channel: evil, Subject: "i-1", State: "pending", Error: evil}, {Channel: evil}}, nil
		},
		Withdraw: func(context.Context, string, string, string) error { return nil },
		Audit:    func(context.Context, int64, string, int) ([]monitor.AuditRow, error) { return nil, nil },
		Test: func(_ context.Context, channel, by string) error {
			w.tested = append(w.tested, channel+" by "+by)
			return nil
		},
		Mark: func(context.Context) (string, error) { return "", nil },
		Witness: func(context.Context) (*Witness, error) {
			return &Witness{Name: evil, Keys: []string{evil}, Logs: []Signed{{Origin: evil, Root: evil, Doubt: evil}}}, nil
		},
	}
	o.Access = Access{Tokens: true, Login: &Login{PublicURL: "https://sigwarden.example", Scopes: func(c Claims) []string { return strings.Fields(c.Subject) }}, Sessions: Sessions{
		Key: []byte("key"),
		Add: func(_ context.Context, secret string, s monitor.Session) error { w.sessions[secret] = s; return nil },
		Get: func(_ context.Context, secret string) (monitor.Session, error) {
			s, ok := w.sessions[secret]
			if !ok {
				return s, ErrNoSession
			}
			return s, nil
		},
		End: func(_ context.Context, secret string) error { delete(w.sessions, secret); return nil },
	}}
	w.opts = o
	return w
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// pagePaths are all that people can look at, apiPaths all that programs can read.
var (
	pagePaths = []string{"/", "/findings", "/findings/f-1", "/incidents", "/incidents/i-1", "/coverage", "/watchlist", "/channels", "/witness"}
	filePaths = []string{"/findings/f-1/evidence", "/findings/f-1/leaf", "/incidents/i-1/evidence", "/incidents/i-1/kept/checkpoint", "/feeds/incidents.atom", "/feeds/watches/acme.atom"}
	apiPaths  = []string{"/api/v1/status", "/api/v1/logs", "/api/v1/channels", "/api/v1/findings", "/api/v1/findings/f-1", "/api/v1/findings/f-1/evidence", "/api/v1/incidents", "/api/v1/incidents/i-1", "/api/v1/incidents/i-1/evidence", "/api/v1/logs/acme/checkpoint", "/api/v1/coverage?since=2026-01-01T00:00:00Z", "/api/v1/watches", "/api/v1/expectations", "/api/v1/audit", "/api/v1/deliveries", "/api/v1/report?since=2026-01-01T00:00:00Z", "/api/v1/ledger", "/api/v1/witness"}
)

// ask sends a request; header is name, value, ….
func ask(h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "sigwarden.example"
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const form, asJSON = "application/x-www-form-urlencoded", "application/json"

// TestNobody: without a login or a token nothing is told, but that the server lives.
func TestNobody(t *testing.T) {
	w := newWorld()
	h := New(w.opts).Handler()
	for i, path := range append(append(append([]string{"/events", "/nosuch"}, pagePaths...), filePaths...), apiPaths...) {
		for _, header := range [][]string{nil, {"Authorization", "Bearer guess"}, {"Authorization", "Basic cmVhZGVy"}, {"Cookie", "__Host-sigwarden=secret.AAAA"}, {"Cookie", "sigwarden=x"}} {
			from := fmt.Sprintf("192.0.2.%d:1", i) // who guesses is slowed down
			r := httptest.NewRequest("GET", path, nil)
			r.RemoteAddr = from
			for i := 0; i+1 < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
			}
			got := httptest.NewRecorder()
			h.ServeHTTP(got, r)
			if got.Code != http.StatusUnauthorized || strings.Contains(got.Body.String(), "x-evil") {
				t.Errorf("%s %q: %d %s", path, header, got.Code, got.Body)
			}
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/static/style.css"} {
		if got := ask(h, "GET", path, ""); got.Code != http.StatusOK {
			t.Errorf("%s: %d", path, got.Code)
		}
	}
	for path, body := range map[string]string{"/findings/f-1": "action=ack&note=x", "/incidents/i-1": "action=ack&note=x", "/channels/chat/test": "", "/watchlist/try": "rule=x"} {
		if got := ask(h, "POST", path, body, "Content-Type", form); got.Code != http.StatusUnauthorized {
			t.Errorf("POST %s: %d", path, got.Code)
		}
	}
	if got := ask(h, "POST", "/api/v1/findings/f-1/triage", `{"action":"ack","note":"x"}`, "Content-Type", asJSON); got.Code != http.StatusUnauthorized {
		t.Errorf("%d", got.Code)
	}
	if len(w.decided)+len(w.tested) > 0 {
		t.Errorf("%v, %v", w.decided, w.tested)
	}
}

// TestScopes: a token is good for its scopes and its watches, and for nothing else.
func TestScopes(t *testing.T) {
	w := newWorld()
	h := New(w.opts).Handler()
	const triage = "/api/v1/findings/f-1/triage"
	const body = `{"action":"resolve","as":"expected","note":"x"}`
	for _, tc := range []struct {
		token, method, path, body string
		want                      int
	}{
		{"reader", "GET", "/api/v1/findings", "", 200}, {"reader", "GET", "/", "", 200}, {"reader", "POST", triage, body, 403}, {"reader", "DELETE", "/api/v1/expectations/a-1", "", 403},
		{"expect", "GET", "/api/v1/status", "", 403}, {"expect", "GET", "/findings", "", 403}, {"expect", "DELETE", "/api/v1/expectations/a-1", "", 204},
		{"decider", "POST", triage, body, 204}, {"decider", "POST", "/api/v1/incidents/i-1/triage", `{"action":"ack","note":"x"}`, 204},
		{"decider", "POST", triage, `{"action":"resolve","note":""}`, 422}, {"decider", "POST", triage, `{"action":"burn","note":"x"}`, 422}, {"decider", "POST", triage, `{"action":"ack","note":"x","more":1}`, 422}, {"decider", "POST", triage, `{`, 400},
		{"decider", "POST", triage, `{"action":"ack","note":"` + strings.Repeat("x", 20<<10) + `"}`, 413},
		{"decider", "POST", "/api/v1/incidents/f-1/triage", body, 404}, {"decider", "POST", "/api/v1/findings/f-9/triage", body, 404},
		{"some", "GET", "/api/v1/findings", "", 403}, {"some", "GET", "/api/v1/findings?watch=other", "", 403}, {"some", "GET", "/api/v1/findings?watch=acme", "", 200},
		{"some", "GET", "/api/v1/findings/f-1", "", 200}, {"some", "GET", "/api/v1/findings/f-2", "", 404}, {"some", "GET", "/api/v1/findings/f-2/evidence", "", 404}, {"some", "POST", "/api/v1/findings/f-2/triage", body, 404},
		{"some", "GET", "/api/v1/incidents", "", 403}, {"some", "GET", "/api/v1/incidents/i-1/evidence", "", 404}, {"some", "GET", "/api/v1/status", "", 403}, {"some", "GET", "/api/v1/audit", "", 403}, {"some", "GET", "/findings", "", 403},
		{"some", "GET", "/feeds/watches/acme.atom", "", 200}, {"some", "GET", "/feeds/watches/other.atom", "", 404}, {"some", "GET", "/feeds/incidents.atom", "", 403},
	} {
		w.decided = nil
		got := ask(h, tc.method, tc.path, tc.body, "Authorization", "Bearer "+tc.token, "Content-Type", asJSON)
		if got.Code != tc.want {
			t.Errorf("%s %s as %s: %d %.300s, want %d", tc.method, tc.path, tc.token, got.Code, got.Body, tc.want)
		}
		if len(w.decided) > 0 != (tc.want == 204 && tc.method == "POST") {
			t.Errorf("%s %s as %s: decided %+v", tc.method, tc.path, tc.token, w.decided)
		}
		if strings.HasPrefix(tc.path, "/api/") && got.Code >= 400 && got.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s %s", tc.path, got.Header().Get("Content-Type"), got.Body)
		}
	}
	if got := ask(h, "GET", "/api/v1/expectations", "", "Authorization", "Bearer some"); !strings.Contains(got.Body.String(), "a-1") || strings.Contains(got.Body.String(), "a-2") {
		t.Errorf("%s", got.Body)
	}
}

// login begins a session, and returns the cookie for requests.
func login(t *testing.T, w *world, scopes ...string) string {
	t.Helper()
	rec := httptest.NewRecorder()
	claims := must(json.Marshal(Claims{Subject: strings.Join(scopes, " "), Email: "alice@acme.example", Verified: true, By: w.opts.Access.Login.by()}))
	if err := w.opts.Access.begin(t.Context(), rec, monitor.Session{Name: "alice@acme.example", Claims: claims, ExpiresAt: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	c := rec.Result().Cookies()[0]
	if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Name != "__Host-sigwarden" || c.Path != "/" || c.Domain != "" {
		t.Errorf("the cookie is %+v", c)
	}
	return c.Name + "=" + c.Value
}

// TestSessions: a login is good until it ends, for whoever has the cookie and nobody else.
func TestSessions(t *testing.T) {
	w := newWorld()
	h := New(w.opts).Handler()
	cookie := login(t, w, "read", "triage")
	if got := ask(h, "GET", "/findings", "", "Cookie", cookie); got.Code != 200 || !strings.Contains(got.Body.String(), "alice@acme.example") || !strings.Contains(got.Body.String(), "/logout") {
		t.Errorf("%d %s", got.Code, got.Body)
	}
	if got := ask(h, "POST", "/findings/f-1", "action=resolve&as=expected&note=fine", "Cookie", cookie, "Content-Type", form); got.Code != http.StatusSeeOther || got.Header().Get("Location") != "/findings/f-1" || len(w.decided) != 1 || w.decided[0].By != "alice@acme.example" || w.decided[0].Resolution != "expected" {
		t.Errorf("%d %v %+v", got.Code, got.Header(), w.decided)
	}
	reader := login(t, w, "read")
	if got := ask(h, "POST", "/findings/f-1", "action=ack&note=fine", "Cookie", reader, "Content-Type", form); got.Code != 403 {
		t.Errorf("%d", got.Code)
	}
	if got := ask(h, "GET", "/findings/f-1", "", "Cookie", reader); strings.Contains(got.Body.String(), "<form method=\"post\" action=\"/findings") {
		t.Error("who may not decide is asked to")
	}
	// Of another site, by whatever way browsers tell.
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"}} {
		for path, body := range map[string]string{"/findings/f-1": "action=ack&note=x", "/logout": "", "/channels/chat/test": ""} {
			if got := ask(h, "POST", path, body, append([]string{"Cookie", cookie, "Content-Type", form}, header...)...); got.Code != 403 {
				t.Errorf("POST %s with %q: %d", path, header, got.Code)
			}
		}
	}
	if len(w.decided) != 1 || len(w.tested) != 0 {
		t.Errorf("another site has decided: %+v %v", w.decided, w.tested)
	}
	if got := ask(h, "POST", "/channels/chat/test", "", "Cookie", cookie, "Content-Type", form); got.Code != http.StatusSeeOther || len(w.tested) != 1 || w.tested[0] != "chat by alice@acme.example" {
		t.Errorf("%d %q", got.Code, w.tested)
	}
	// A cookie that somebody has made up, or changed.
	for _, bad := range []string{strings.Replace(cookie, ".", ".A", 1), cookie[:len(cookie)-1], strings.Split(cookie, ".")[0], "__Host-sigwarden=", strings.Replace(cookie, "__Host-sigwarden", "sigwarden", 1)} {
		if got := ask(h, "GET", "/findings", "", "Cookie", bad); got.Code != 401 {
			t.Errorf("%s: %d", bad, got.Code)
		}
	}
	if got := ask(h, "POST", "/logout", "", "Cookie", cookie); got.Code != http.StatusSeeOther || !strings.Contains(got.Header().Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("%d %v", got.Code, got.Header())
	}
	if got := ask(h, "GET", "/findings", "", "Cookie", cookie); got.Code != 401 {
		t.Errorf("a copy of the cookie is good after the login has ended: %d", got.Code)
	}
	if got := ask(h, "GET", "/findings", "", "Cookie", reader); got.Code != 200 {
		t.Errorf("another login ended with it: %d", got.Code)
	}
}

// TestOpen: on this machine nobody needs to log in; a page from elsewhere that calls the server
// by a name of its own is told nothing.
func TestOpen(t *testing.T) {
	w := newWorld()
	w.opts.Access = Access{Open: true, Names: []string{"sigwarden.example"}, Tokens: true}
	h := New(w.opts).Handler()
	for host, want := range map[string]int{"127.0.0.1:8480": 200, "localhost": 200, "[::1]:8480": 200, "LOCALHOST:1": 200, "127.9.9.9": 200, "sigwarden.example": 200, "evil.example": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example:80": 421, "": 421, "192.0.2.1": 421} {
		for _, path := range []string{"/", "/api/v1/status", "/findings/f-1/evidence"} {
			if got := ask(h, "GET", path, "", "Host", host); got.Code != want {
				t.Errorf("%s called %q: %d, want %d", path, host, got.Code, want)
			}
		}
	}
	// What needs no login is told nobody either who calls it otherwise.
	for host, want := range map[string]bool{"127.0.0.1:8480": true, "sigwarden.example": true, "evil.example": false} {
		for _, path := range []string{"/metrics", "/readyz"} {
			if got := ask(h, "GET", path, "", "Host", host); (got.Code != 421) != want {
				t.Errorf("%s called %q: %d", path, host, got.Code)
			}
		}
	}
	// A proxy on this machine brings people from elsewhere.
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "Via"} {
		if got := ask(h, "GET", "/", "", "Host", "127.0.0.1:8480", name, "192.0.2.1"); got.Code != 421 || !strings.Contains(got.Body.String(), "http.access") {
			t.Errorf("%s: %d", name, got.Code)
		}
		if got := ask(h, "GET", "/api/v1/status", "", "Host", "127.0.0.1:8480", name, "192.0.2.1", "Authorization", "Bearer reader"); got.Code != 200 {
			t.Errorf("a token behind a proxy, %s: %d", name, got.Code)
		}
	}
	if got := ask(h, "POST", "/findings/f-1", "action=ack&note=x", "Content-Type", form, "Origin", "https://evil.example"); got.Code != 403 || len(w.decided) != 0 {
		t.Errorf("%d %+v", got.Code, w.decided)
	}
	if got := ask(h, "POST", "/findings/f-1", "action=ack&note=x", "Content-Type", form, "Sec-Fetch-Site", "same-origin"); got.Code != http.StatusSeeOther || w.decided[0].By != "page on this machine" {
		t.Errorf("%d %+v", got.Code, w.decided)
	}
	// A token that is not good is not passed over.
	if got := ask(h, "GET", "/api/v1/status", "", "Authorization", "Bearer guess", "Host", "localhost"); got.Code != 401 {
		t.Errorf("%d", got.Code)
	}
}

// TestHostileText: whatever an entry says, no page takes it for its own.
func TestHostileText(t *testing.T) {
	w := newWorld()
	w.opts.Access = Access{Open: true, Names: []string{"sigwarden.example"}}
	h := New(w.opts).Handler()
	check := func(what string, got *httptest.ResponseRecorder, want int) {
		t.Helper()
		// What a form has is given back as it was; it is escaped, and nobody reads it.
		text := regexp.MustCompile(`(?s) (value|href)="[^"]*"|<textarea.*?</textarea>`).ReplaceAllString(got.Body.String(), "")
		if raw := got.Body.String(); strings.Contains(raw, "<x-evil") || strings.Contains(raw, "<script>") {
			t.Errorf("%s holds what a stranger wrote", what)
		}
		if got.Code != want {
			t.Errorf("%s: %d %.300s", what, got.Code, text)
		}
		if strings.Contains(text, "<x-evil") || strings.Contains(text, "<script>") || strings.ContainsAny(text, "\x1b\u202e") || strings.Contains(text, "ZgotmplZ") {
			t.Errorf("%s shows what a stranger wrote as its own", what)
		}
		csp := got.Header().Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") || got.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", what, got.Header())
		}
		if strings.Contains(text, " style=") || strings.Contains(text, " onclick") || strings.Contains(text, "javascript:") {
			t.Errorf("%s needs what the policy forbids", what)
		}
	}
	for _, path := range pagePaths {
		got := ask(h, "GET", path, "")
		check(path, got, 200)
		if !strings.Contains(got.Body.String(), "x-evil") && path != "/witness" && path != "/watchlist" {
			t.Errorf("%s shows nothing of it", path)
		}
	}
	q := url.QueryEscape(evil)
	for _, path := range []string{"/findings?watch=" + q + "&log=" + q + "&state=" + q + "&before=" + q, "/incidents?kind=" + q, "/channels?tested=" + q} {
		check(path, ask(h, "GET", path, ""), 200)
	}
	check("since", ask(h, "GET", "/findings?since="+q, ""), 422)
	check("place", ask(h, "GET", "/findings?before=bad", ""), 422)
	check("missing", ask(h, "GET", "/"+url.PathEscape(evil), ""), 404)
	check("tried", ask(h, "POST", "/watchlist/try", "rule="+q, "Content-Type", form), 200)
	check("tried in vain", ask(h, "POST", "/watchlist/try", "rule=bad"+q, "Content-Type", form), 422)
	for _, path := range []string{"/feeds/incidents.atom", "/feeds/watches/acme.atom"} {
		got := ask(h, "GET", path, "")
		var feed struct {
			Entries []struct {
				Title string `xml:"title"`
			} `xml:"entry"`
		}
		if err := xml.Unmarshal(got.Body.Bytes(), &feed); err != nil || len(feed.Entries) == 0 || !strings.Contains(feed.Entries[0].Title, "x-evil") {
			t.Errorf("%s: %v\n%s", path, err, got.Body)
		}
	}
	for _, path := range filePaths[:4] {
		if got := ask(h, "GET", path, ""); got.Code != 200 || !strings.HasPrefix(got.Header().Get("Content-Disposition"), "attachment; ") || strings.HasPrefix(got.Header().Get("Content-Type"), "text/") {
			t.Errorf("%s: %d %v", path, got.Code, got.Header())
		}
	}
	for _, path := range apiPaths {
		if got := ask(h, "GET", path, ""); got.Code != 200 || strings.Contains(got.Header().Get("Content-Type"), "html") {
			t.Errorf("%s: %d %v", path, got.Code, got.Header())
		}
	}
}

// TestPathTricks: no path leads out of what is served.
func TestPathTricks(t *testing.T) {
	w := newWorld()
	w.opts.Access = Access{Open: true, Names: []string{"sigwarden.example"}}
	h := New(w.opts).Handler()
	for _, path := range []string{"/static/../web.go", "/static/%2e%2e/web.go", "/static/..%2fweb.go", "/static/", "/static", "/static/pages/layout.tmpl", "/findings/..%2f..%2fetc%2fpasswd", "/findings/f-1/../f-2/evidence/x", "/incidents/i-1/kept/..%2f..%2fsecret", "/feeds/watches/..%2fx.atom", "//evil.example/", "/api/v1/../../etc", "/api/v1/findings/f-1/evidence/x"} {
		r := httptest.NewRequest("GET", "http://sigwarden.example"+path, nil)
		got := httptest.NewRecorder()
		h.ServeHTTP(got, r)
		if got.Code == 200 || strings.Contains(got.Body.String(), "package web") || strings.HasPrefix(got.Header().Get("Location"), "//") || strings.Contains(got.Header().Get("Location"), ":") {
			t.Errorf("%s: %d %v", path, got.Code, got.Header())
		}
	}
	for back, want := range map[string]string{"/findings?x=1": "/findings?x=1", "": "/", "//evil.example": "/", "https://evil.example": "/", "/\\evil.example": "/", "javascript:alert(1)": "/", "/%0d%0aX: y": "/%0d%0aX: y", "findings": "/", "/\tx": "/"} {
		if got := local(back); got != want {
			t.Errorf("%q leads to %q, want %q", back, got, want)
		}
	}
}

// TestRangesAndTunnels: nobody is sent a file in thousands of parts, and nobody is led to take a
// connection for a tunnel, behind which a proxy would see no more requests.
func TestRangesAndTunnels(t *testing.T) {
	h := New(newWorld().opts).Handler()
	whole := ask(h, "GET", "/static/style.css", "")
	parts := ask(h, "GET", "/static/style.css", "", "Range", "bytes=0-0"+strings.Repeat(",2-2", 2000))
	if parts.Code != 200 || parts.Body.String() != whole.Body.String() || whole.Body.Len() < 1000 {
		t.Errorf("%d, %d bytes, and %d bytes as a whole", parts.Code, parts.Body.Len(), whole.Body.Len())
	}
	for _, path := range []string{"/", "/static/style.css", "/metrics", "/healthz", "/findings", "/login", "/api/v1/findings", "/api/v1/checkpoints", "/openapi.json"} {
		if got := ask(h, "CONNECT", path, "", "Authorization", "Bearer reader"); got.Code < 400 {
			t.Errorf("CONNECT %s: %d", path, got.Code)
		}
	}
}

// TestETags: who has a document is not sent it again.
func TestETags(t *testing.T) {
	w := newWorld()
	h := New(w.opts).Handler()
	got := ask(h, "GET", "/api/v1/findings", "", "Authorization", "Bearer reader")
	tag := got.Header().Get("ETag")
	if tag == "" || !strings.Contains(got.Header().Get("Link"), `before=next`) || !strings.Contains(got.Header().Get("Link"), `rel="next"`) {
		t.Fatalf("%v", got.Header())
	}
	var list []struct{ ID string }
	if err := json.Unmarshal(got.Body.Bytes(), &list); err != nil || len(list) != 2 || list[0].ID != "f-2" {
		t.Errorf("%v %+v", err, list)
	}
	for _, known := range []string{tag, `"other", ` + tag, "W/" + tag, "*"} {
		if again := ask(h, "GET", "/api/v1/findings", "", "Authorization", "Bearer reader", "If-None-Match", known); again.Code != 304 || again.Body.Len() > 0 {
			t.Errorf("%s: %d %d bytes", known, again.Code, again.Body.Len())
		}
	}
	if again := ask(h, "GET", "/api/v1/findings", "", "Authorization", "Bearer reader", "If-None-Match", `"other"`); again.Code != 200 {
		t.Errorf("%d", again.Code)
	}
	// Who may not read it is not told that it is the same.
	if again := ask(h, "GET", "/api/v1/findings", "", "If-None-Match", "*"); again.Code != 401 {
		t.Errorf("%d", again.Code)
	}
}

// TestSelections: what a list is narrowed down by reaches the store, from pages and programs, and
// the link to the next page asks for the same.
func TestSelections(t *testing.T) {
	w := newWorld()
	h := New(w.opts).Handler()
	at := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)
	got := ask(h, "GET", "/api/v1/findings?watch=w&log=l&verdict=unexpected&state=open&severity=high&since=2026-01-31T00:00:00Z&until=2026-02-01T00:00:00Z&limit=7&before=b", "", "Authorization", "Bearer reader")
	want := monitor.Filter{Watch: "w", Log: "l", Verdict: "unexpected", State: "open", Severity: "high", Since: at, Until: at.AddDate(0, 0, 1), Limit: 7, Before: "b"}
	if got.Code != 200 || w.asked != want {
		t.Errorf("%d %+v, want %+v", got.Code, w.asked, want)
	}
	next, _, _ := strings.Cut(strings.TrimPrefix(got.Header().Get("Link"), "<"), ">")
	ask(h, "GET", next, "", "Authorization", "Bearer reader")
	if want.Before = "next"; w.asked != want {
		t.Errorf("the next page asks for %+v, want %+v", w.asked, want)
	}
	ask(h, "GET", "/findings?watch=w&log=l&verdict=unexpected&state=open&severity=high&since=2026-01-31&until=2026-01-31&before=b", "", "Authorization", "Bearer reader")
	if want.Before, want.Limit = "b", perPage; w.asked != want {
		t.Errorf("a page asks for %+v, want %+v", w.asked, want)
	}
	for _, bad := range []string{"limit=0", "limit=501", "limit=x", "verdict=bad", "state=bad", "severity=bad", "since=yesterday"} {
		if got := ask(h, "GET", "/api/v1/findings?"+bad, "", "Authorization", "Bearer reader"); got.Code != 422 {
			t.Errorf("%s: %d", bad, got.Code)
		}
	}
}

// TestDescription: the OpenAPI document names every operation, with its scope and its errors.
func TestDescription(t *testing.T) {
	w := newWorld()
	h := New(w.opts).Handler()
	got := ask(h, "GET", "/api/v1/openapi.json", "")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Security    []map[string][]string
			Responses   map[string]any
		}
	}
	if err := json.Unmarshal(got.Body.Bytes(), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Fatalf("%d %v %s", got.Code, err, doc.OpenAPI)
	}
	if len(doc.Paths) < 17 || doc.Paths["/api/v1/expectations"]["post"].OperationID == "" {
		t.Errorf("%d paths", len(doc.Paths))
	}
	for path, operations := range doc.Paths {
		for method, op := range operations {
			if len(op.Security) != 1 || len(op.Security[0]["token"]) != 1 || op.Responses["401"] == nil && path != "/api/v1/expectations" {
				t.Errorf("%s %s: %+v", method, path, op)
			}
		}
	}
	for _, path := range apiPaths {
		if path, _, _ = strings.Cut(path, "?"); doc.Paths[strings.NewReplacer("f-1", "{id}", "i-1", "{id}", "logs/acme", "logs/{name}").Replace(path)]["get"].OperationID == "" {
			t.Errorf("%s is not described", path)
		}
	}
}
