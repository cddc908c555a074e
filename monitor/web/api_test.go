package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// call posts to the API and returns its answer.
func call(t *testing.T, h http.Handler, header map[string]string, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("POST", "/api/v1/expectations", strings.NewReader(body))
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestExpectations(t *testing.T) {
	broken := error(nil)
	var got []string
	o := options(&engine{}, new(error))
	o.Access.Tokens = true
	o.API = API{
		Token: func(_ context.Context, secret string) (monitor.Token, error) {
			scopes := map[string][]string{"good": {"expect"}, "reader": {"read"}}[secret]
			if scopes == nil && secret != "broken" {
				return monitor.Token{}, ErrNoToken
			}
			var err error
			if secret == "broken" {
				err = fmt.Errorf("/secret/path")
			}
			return monitor.Token{Name: "job", Scopes: scopes, Watches: []string{"acme", "full"}}, err
		},
		Expect: func(_ context.Context, token monitor.Token, watch, digest string, ttl time.Duration, note string) (monitor.Announcement, error) {
			got = append(got, fmt.Sprintf("%s %s %s token %s %s", watch, digest, ttl, token.Name, note))
			switch {
			case watch == "full":
				return monitor.Announcement{}, fmt.Errorf("%w: 10000 wait", ErrFull)
			case digest == "nonsense":
				return monitor.Announcement{}, fmt.Errorf("%w: no digest", ErrInvalid)
			}
			return monitor.Announcement{ID: "a-1", Watch: watch}, broken
		},
	}
	h := New(o).Handler()
	good := map[string]string{"Authorization": "Bearer good", "Content-Type": "application/json; charset=utf-8"}
	with := func(k, v string) map[string]string {
		out := map[string]string{k: v}
		for name, value := range good {
			if name != k {
				out[name] = value
			}
		}
		return out
	}
	const body = `{"watch":"acme","digest":"aa","note":"v1"}`
	for name, tc := range map[string]struct {
		header map[string]string
		body   string
		status int
		says   string
	}{
		"good":                 {good, body, 201, `"id":"a-1"`},
		"with a time to live":  {good, `{"watch":"acme","digest":"aa","ttl":"10m"}`, 201, "a-1"},
		"no token":             {with("Authorization", ""), body, 401, "token create"},
		"basic":                {with("Authorization", "Basic good"), body, 401, "Bearer"},
		"unknown token":        {with("Authorization", "Bearer goo"), body, 401, "revoked"},
		"token for reading":    {with("Authorization", "Bearer reader"), body, 403, "scope expect"},
		"store is broken":      {with("Authorization", "Bearer broken"), body, 503, "log of the server"},
		"another watch":        {good, `{"watch":"other","digest":"aa"}`, 403, "other"},
		"no JSON type":         {with("Content-Type", "text/plain"), body, 415, "application/json"},
		"a form":               {with("Content-Type", "application/x-www-form-urlencoded"), "watch=acme", 415, "JSON"},
		"no JSON":              {good, `{"watch"`, 400, "cannot be read"},
		"no watch":             {good, `{"digest":"aa"}`, 422, "watch is missing"},
		"null":                 {good, `null`, 400, "no JSON object"},
		"a list":               {good, `[]`, 400, "cannot be read"},
		"a number for a time":  {good, `{"watch":"acme","digest":"aa","ttl":7200}`, 400, "ttl is a number, and has to be a text"},
		"a key twice":          {good, `{"watch":"full","watch":"acme","digest":"aa"}`, 400, "twice"},
		"a key in two cases":   {good, `{"watch":"acme","Watch":"full","digest":"aa"}`, 400, "twice"},
		"a key in capitals":    {good, `{"WATCH":"acme","digest":"aa"}`, 400, "otherwise"},
		"unknown key":          {good, `{"watch":"acme","digets":"aa"}`, 400, "digets"},
		"two documents":        {good, body + body, 400, "follows"},
		"too large":            {good, `{"note":"` + strings.Repeat("x", 20<<10) + `"}`, 413, "16384"},
		"no digest":            {good, `{"watch":"acme","digest":"nonsense"}`, 422, "no digest"},
		"no time to live":      {good, `{"watch":"acme","digest":"aa","ttl":"soon"}`, 422, "soon"},
		"full":                 {good, `{"watch":"full","digest":"aa"}`, 429, "10000"},
		"from another website": {with("Sec-Fetch-Site", "cross-site"), body, 403, ""},
	} {
		got = nil
		w := call(t, h, tc.header, tc.body)
		if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.says) || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: %d %s, want %d …%s…", name, w.Code, w.Body, tc.status, tc.says)
		}
		if w.Code >= 400 && tc.says != "" {
			var doc struct{ Status int }
			if w.Header().Get("Content-Type") != "application/problem+json" || json.Unmarshal(w.Body.Bytes(), &doc) != nil || doc.Status != w.Code {
				t.Errorf("%s: %v %s", name, w.Header(), w.Body)
			}
		}
		if (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("%s: %v", name, w.Header())
		}
		if w.Code == 201 && (len(got) != 1 || !strings.Contains(got[0], "token job")) || w.Code < 422 && w.Code >= 400 && len(got) > 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
	broken = fmt.Errorf("/secret/path: disk full")
	if w := call(t, h, good, body); w.Code != 503 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	limited := 0
	for range 200 {
		if w := call(t, h, with("Authorization", "Bearer guess"), body); w.Code == 429 && w.Header().Get("Retry-After") != "" {
			limited++
		}
	}
	if limited < 100 {
		t.Errorf("%d of 200 guesses were slowed down", limited)
	}
	// Who has a token is not slowed down by that, but by his own calls.
	broken = nil
	if w := call(t, h, good, body); w.Code != 201 {
		t.Errorf("%d while others guess", w.Code)
	}
	limited = 0
	for range 200 {
		if w := call(t, h, good, body); w.Code == 429 {
			limited++
		}
	}
	if limited < 100 {
		t.Errorf("%d of 200 calls were slowed down", limited)
	}
	// Without tokens there is no API.
	o.API = API{}
	if w := call(t, New(o).Handler(), good, body); w.Code != 404 {
		t.Errorf("%d", w.Code)
	}
}
