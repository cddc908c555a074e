package web

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestProblems: whatever refuses a program says so in the form of RFC 9457, the router and what
// stands before it too.
func TestProblems(t *testing.T) {
	w := newWorld()
	h := New(w.opts).Handler()
	for name, c := range map[string]struct {
		method, path, body string
		header             []string
		status             int
	}{
		"no such path":         {"GET", "/api/v1/nosuch", "", nil, 404},
		"no such version":      {"GET", "/api/v9/status", "", nil, 404},
		"a wrong method":       {"DELETE", "/api/v1/status", "", nil, 405},
		"from another site":    {"POST", "/api/v1/findings/f-1/triage", "{}", []string{"Content-Type", asJSON, "Sec-Fetch-Site", "cross-site"}, 403},
		"no token":             {"GET", "/api/v1/status", "", []string{"Authorization", ""}, 401},
		"a wrong number":       {"GET", "/api/v1/findings?limit=x", "", nil, 422},
		"no such finding":      {"GET", "/api/v1/findings/f-9", "", nil, 404},
		"too large a document": {"POST", "/api/v1/expectations", strings.Repeat(" ", maxBody+1), []string{"Content-Type", asJSON, "Authorization", "Bearer expect"}, 413},
	} {
		header := append([]string{"Authorization", "Bearer reader"}, c.header...)
		got := ask(h, c.method, c.path, c.body, header...)
		var doc struct {
			Status int
			Detail string
		}
		if err := json.Unmarshal(got.Body.Bytes(), &doc); err != nil || got.Code != c.status || doc.Status != c.status || doc.Detail == "" || got.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %v\n%s", name, got.Code, got.Header(), got.Body)
		}
	}
}

// TestNamesInPaths: a name may hold what divides paths, and its links lead to it.
func TestNamesInPaths(t *testing.T) {
	const name = "team/chat?x#y %z"
	w := newWorld()
	w.opts.Data.Watches = func(context.Context, bool) ([]Watch, error) { return []Watch{{Name: name, Rule: "{}"}}, nil }
	h := New(w.opts).Handler()
	cookie := login(t, w, "read", "triage")
	page := ask(h, "GET", "/watchlist", "", "Cookie", cookie).Body.String()
	_, link, _ := strings.Cut(page, `href="/feeds/watches/`)
	link, _, _ = strings.Cut(link, `"`)
	if got := ask(h, "GET", "/feeds/watches/"+link, "", "Cookie", cookie); got.Code != 200 || !strings.Contains(got.Header().Get("Content-Type"), "atom") {
		t.Errorf("%s: %d %s", link, got.Code, got.Body)
	}
	if got := ask(h, "POST", "/channels/team%2Fchat%3Fx%23y%20%25z/test", "", "Cookie", cookie, "Content-Type", form); got.Code != http.StatusSeeOther || len(w.tested) != 1 || !strings.HasPrefix(w.tested[0], name+" by") {
		t.Errorf("%d %q", got.Code, w.tested)
	}
	for _, path := range []string{"/watchlist/try", "/channels/team%2Fchat/test"} {
		if got := ask(h, "GET", path, "", "Cookie", cookie); got.Code != http.StatusSeeOther {
			t.Errorf("GET %s: %d", path, got.Code)
		}
	}
}

// TestSharedWatches: what one visitor does not see is not taken from others.
func TestSharedWatches(t *testing.T) {
	w := newWorld()
	list := []Watch{{Name: "acme"}, {Name: "other"}, {Name: "third"}}
	w.opts.Data.Watches = func(context.Context, bool) ([]Watch, error) { return list, nil }
	h := New(w.opts).Handler()
	var all sync.WaitGroup
	for range 8 {
		for token, want := range map[string]int{"some": 1, "reader": 3} {
			all.Go(func() {
				var got []Watch
				if err := json.Unmarshal(ask(h, "GET", "/api/v1/watches", "", "Authorization", "Bearer "+token).Body.Bytes(), &got); err != nil || len(got) != want || slices.ContainsFunc(got, func(w Watch) bool { return w.Name == "" }) {
					t.Errorf("%s sees %+v, %v", token, got, err)
				}
			})
		}
	}
	all.Wait()
}

// TestListeners: one visitor does not take the places of all.
func TestListeners(t *testing.T) {
	w := newWorld()
	s := New(w.opts)
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	listen := func(token string) int {
		r, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "sigwarden.example"
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp.StatusCode
	}
	for i := range maxEars {
		if got := listen("reader"); got != 200 {
			t.Fatalf("listener %d: %d", i, got)
		}
	}
	if got := listen("reader"); got != 503 {
		t.Errorf("one more of the same: %d", got)
	}
	if got := listen("decider"); got != 200 {
		t.Errorf("somebody else: %d", got)
	}
}
