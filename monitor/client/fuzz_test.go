package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor"
)

// always answers every request with the same.
type always func() *http.Response

func (a always) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := a()
	resp.Request = r
	return resp, nil
}

// FuzzAnswers: whatever a server answers, asking ends: with what was asked for, or with an error.
func FuzzAnswers(f *testing.F) {
	f.Add(200, "application/json", `</api/v1/findings?before=a%20b>; rel="next"`, []byte(`[{"id":"f-1","state":"open"}]`))
	f.Add(200, "application/json", `</api/v1/findings?before=x>; rel="next"`, []byte(`[]`))
	f.Add(200, "application/json", "", []byte(`{"id":"f-1","leaf":"AAAA","inclusion_proof":["00"],"checkpoint_note":"x"}`))
	f.Add(200, "application/json", "", bytes.Repeat([]byte(`[{"n":1},{"n":1}]`), 1))
	f.Add(404, "application/problem+json", "", []byte(`{"status":404,"title":"Not Found","detail":"no such finding"}`))
	f.Add(403, "application/problem+json; charset=utf-8", "", []byte(`{"status":"x"}`))
	f.Fuzz(func(t *testing.T, status int, kind, link string, body []byte) {
		defer bounds.Hold(t)()
		ctx := context.Background()
		header := http.Header{"Content-Type": {kind}, "Link": {link}}
		hc := &http.Client{Transport: always(func() *http.Response {
			return &http.Response{StatusCode: status, Status: "x", Header: header.Clone(), Body: io.NopCloser(bytes.NewReader(body))}
		})}
		c, err := New("http://sigwarden.example", "token", hc)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Status(ctx)
		if e := (*Error)(nil); status/100 == 2 && errors.As(err, &e) {
			t.Errorf("%d is taken for a failure", status)
		}
		if _, err := All(ctx, monitor.Filter{Limit: 3}, c.Findings); status/100 != 2 && err == nil {
			t.Errorf("%d is taken for a list", status)
		}
		if _, err := c.Incident(ctx, "i-1"); status/100 != 2 && err == nil {
			t.Errorf("%d is taken for an incident", status)
		}
		c.Finding(ctx, "f-1")
		c.Announcements(ctx, "w")
		rows := 0
		c.EachAudit(ctx, "", func(monitor.AuditRow) error { rows++; return nil })
		if rows > len(body) {
			t.Errorf("%d rows in %d bytes", rows, len(body))
		}
	})
}

// TestEndlessLists: a server that leads in circles does not keep anybody for ever.
func TestEndlessLists(t *testing.T) {
	bounded := func(name string, f func() error) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- f() }()
		select {
		case err := <-done:
			if !errors.Is(err, errEndless) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it does not end", name)
		}
	}
	n := 0
	bounded("empty pages", func() error {
		_, err := All(t.Context(), monitor.Filter{}, func(context.Context, monitor.Filter) (monitor.Page[int], error) {
			n++
			return monitor.Page[int]{Next: string(rune('a' + n%7))}, nil
		})
		return err
	})
	bounded("pages in a circle", func() error {
		_, err := All(t.Context(), monitor.Filter{}, func(_ context.Context, f monitor.Filter) (monitor.Page[int], error) {
			return monitor.Page[int]{Items: []int{1}, Next: map[string]string{"": "a", "a": "b", "b": "c", "c": "a"}[f.Before]}, nil
		})
		return err
	})
	bounded("one page again and again", func() error {
		_, err := All(t.Context(), monitor.Filter{}, func(context.Context, monitor.Filter) (monitor.Page[int], error) {
			return monitor.Page[int]{Items: []int{1}, Next: "a"}, nil
		})
		return err
	})
	rows := append(append([]byte{'['}, bytes.Repeat([]byte(`{"n":1},`), 999)...), `{"n":1}]`...)
	c, err := New("http://sigwarden.example", "", &http.Client{Transport: always(func() *http.Response {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(rows))}
	})})
	if err != nil {
		t.Fatal(err)
	}
	bounded("the same rows again", func() error { return c.EachAudit(t.Context(), "", func(monitor.AuditRow) error { return nil }) })
}
