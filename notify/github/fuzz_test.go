package github_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/github"
)

type answers func(*http.Request) *http.Response

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

// FuzzAnswers: whatever the service answers, a try ends, and one that it does not accept is not taken for done.
func FuzzAnswers(f *testing.F) {
	f.Add(200, []byte(`[]`))
	f.Add(200, []byte(`[{"number":1,"body":"x","user":{"login":"a"}}]`))
	f.Add(403, []byte(`{"message":"no"}`))
	f.Add(201, []byte(`[{"number":-1}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		defer bounds.Hold(t)()
		posted := false
		client := &http.Client{Transport: answers(func(r *http.Request) *http.Response {
			posted = posted || r.Method == http.MethodPost
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}
		})}
		c, err := github.New(github.Options{Repository: "acme/security", Token: token, APIURL: "http://github.example", Client: client})
		if err != nil {
			t.Fatal(err)
		}
		err = c.Notify(context.Background(), notify.Event{ID: "e-1", Type: notify.FindingUnexpected, Severity: "high", Title: "t", Data: []byte("{}")})
		if err == nil && (status < 200 || status > 299) {
			t.Errorf("%d %q is taken for done", status, body)
		}
		if err == nil && !posted && !bytes.Contains(body, []byte("e-1")) {
			t.Errorf("nothing was sent, and %q is taken for done", body)
		}
	})
}
