package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// TestTooOften: a server that asks for patience gets it, each page is read once, and who has
// none of it is told.
func TestTooOften(t *testing.T) {
	asked, refused := 0, 0
	wait := "0"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked%3 != 0 {
			refused++
			w.Header().Set("Retry-After", wait)
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"detail": "too often"}`)
			return
		}
		page := r.URL.Query().Get("before")
		if page == "" {
			page = "0"
		}
		n := 0
		fmt.Sscan(page, &n)
		if n < 5 {
			w.Header().Set("Link", fmt.Sprintf(`</api/v1/findings?before=%d>; rel="next"`, n+1))
		}
		json.NewEncoder(w).Encode([]monitor.Finding{{ID: fmt.Sprintf("f-%d", n)}})
	}))
	defer server.Close()
	c, err := New(server.URL, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := All(t.Context(), monitor.Filter{}, c.Findings)
	if err != nil || len(all) != 6 || all[0].ID != "f-5" || all[5].ID != "f-0" || refused != 12 {
		t.Errorf("%+v, %d refused, %v", all, refused, err)
	}
	for _, wait = range []string{"", "x", "-1", "3600"} {
		asked = 0
		if _, err := c.Status(t.Context()); err == nil || asked != 1 {
			t.Errorf("Retry-After %q: asked %d times, %v", wait, asked, err)
		}
	}
	wait, asked = "20", 0
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

type busy func(*http.Request) http.Header

func (b busy) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusTooManyRequests, Header: b(r), Body: http.NoBody, Request: r}, nil
}

// TestBusyForLong: a server that has no time for a minute is not waited for any longer, and what
// might be done twice is not asked twice.
func TestBusyForLong(t *testing.T) {
	for name, retry := range map[string]func() string{
		"seconds": func() string { return "20" },
		"a date":  func() string { return time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				c, err := New("http://sigwarden.example", "", &http.Client{Transport: busy(func(*http.Request) http.Header {
					asked++
					return http.Header{"Retry-After": {retry()}}
				})})
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if _, err := c.Status(t.Context()); err == nil || asked != 4 || time.Since(began) != time.Minute {
					t.Errorf("asked %d times in %s: %v", asked, time.Since(began), err)
				}
			})
		})
	}
}
