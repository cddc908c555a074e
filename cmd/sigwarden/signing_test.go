package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

// TestAnswersAreBounded: whoever signs, times, logs in or takes entries cannot answer without
// an end, nor send us elsewhere.
func TestAnswersAreBounded(t *testing.T) {
	defer bounds.Hold(t)()
	elsewhere := false
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/elsewhere":
			elsewhere = true
		case "/whole":
			io.WriteString(w, strings.Repeat("x", maxAnswer))
		default:
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
					return
				}
			}
		}
	}))
	defer ts.Close()
	client, err := httpClient("")
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) (int, int, error) {
		resp, err := client.Get(ts.URL + path)
		if err != nil {
			return 0, 0, err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		return resp.StatusCode, len(data), err
	}
	if _, n, err := get("/endless"); err == nil || n > maxAnswer {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, n, err := get("/whole"); err != nil || n != maxAnswer {
		t.Errorf("%d bytes, %v", n, err)
	}
	if status, _, err := get("/redirect"); status != http.StatusFound || err != nil || elsewhere {
		t.Errorf("status %d, %v, elsewhere: %v", status, err, elsewhere)
	}
}
