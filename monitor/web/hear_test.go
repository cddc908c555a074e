package web

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/sigwarden/sigwarden/monitor"
)

func TestHear(t *testing.T) {
	o := options(&engine{}, new(error))
	var mu sync.Mutex
	now, most := 0, 0
	release := make(chan struct{})
	o.Hear = func(_ context.Context, raw []byte) (monitor.Comparison, error) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		defer func() { mu.Lock(); now--; mu.Unlock() }()
		switch string(raw) {
		case "stranger":
			return monitor.Comparison{}, monitor.ErrNotCheckpoint
		case "broken":
			return monitor.Comparison{}, errors.New("/secret/path")
		case "slow":
			<-release
		}
		return monitor.Comparison{Verdict: monitor.HeardConsistent, Why: "it is the tree that is known"}, nil
	}
	post := func(h *Server, from, body string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/api/v1/checkpoints", strings.NewReader(body))
		r.RemoteAddr = from
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		h.Handler().ServeHTTP(w, r)
		return w
	}
	for name, tc := range map[string]struct {
		body   string
		status int
		answer string
		header []string
	}{
		"a checkpoint":           {"note", 200, `"verdict":"consistent"`, nil},
		"of an unknown log":      {"stranger", 200, `"verdict":"unknown"`, nil},
		"what cannot be stored":  {"broken", 503, "the log of the server says why", nil},
		"too large":              {strings.Repeat("x", 64<<10+1), 413, "65536", nil},
		"as large as it may be":  {strings.Repeat("x", 64<<10), 200, "consistent", nil},
		"by a page of elsewhere": {"note", 403, "", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}},
	} {
		w := post(New(o), "192.0.2.1:1000", tc.body, tc.header...)
		if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.answer) || strings.Contains(w.Body.String(), "/secret") {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	// One network, however many addresses it has, does not keep others out.
	s := New(o)
	refused := 0
	for i := range 30 {
		if post(s, "[2001:db8:0:1::"+string(rune('a'+i%6))+"]:1000", "note").Code == 429 {
			refused++
		}
	}
	if refused < 15 || refused > 20 {
		t.Errorf("%d of 30 calls of one network are refused, want 20 or little less", refused)
	}
	if w := post(s, "[2001:db8:0:2::a]:1000", "note"); w.Code != 200 {
		t.Errorf("another network: %d %s", w.Code, w.Body)
	}
	// Few are compared at a time.
	s = New(o)
	most = 0
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() { post(s, "192.0.2."+string(rune('1'+i%9))+":1000", "slow") })
	}
	for range 20 {
		release <- struct{}{}
	}
	wg.Wait()
	if most > asksTogether {
		t.Errorf("%d are compared at a time", most)
	}
}
