// Package notifytest is the suite that every channel over HTTP must pass.
package notifytest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/sigwarden/sigwarden/notify"
)

// Service is a stand-in for the other side, which answers as it is told.
type Service struct {
	URL string

	mu     sync.Mutex
	answer func(http.ResponseWriter)
	got    []Request
}

// Request is what came in.
type Request struct {
	Path   string
	Header http.Header
	Body   string
}

// NewService starts a service that accepts everything with the body given.
func NewService(t testing.TB, accept string) *Service {
	s := &Service{answer: func(w http.ResponseWriter) { io.WriteString(w, accept) }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.got = append(s.got, Request{r.URL.Path, r.Header, string(body)})
		answer := s.answer
		s.mu.Unlock()
		answer(w)
	}))
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Answer changes how the service answers.
func (s *Service) Answer(f func(http.ResponseWriter)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// Requests returns what came in so far.
func (s *Service) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.got...)
}

// Hostile is an event with whatever a stranger can write into a log.
func Hostile() notify.Event {
	evil := "evil\r\nBcc: victim@acme.example\r\n\r\n<!channel> *bold* <https://evil.example|click> `code` @here \x1b[2J\u202egnp.exe \u200b\u2066 \x00 \xff =cmd()"
	return notify.Event{
		ID: "e-hostile", Type: notify.FindingUnexpected, Time: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC), Severity: "critical",
		Title: "Finding for " + evil, Summary: evil + strings.Repeat(" long", 2000), Next: "sigwarden findings show f-1",
		Fields: []notify.Field{{Name: "Signed as", Value: evil}, {Name: evil, Value: strings.Repeat("x", 5000)}, {Name: "Empty", Value: ""}},
		Data:   document(evil),
	}
}

// maxHuge bounds the request that tells of Huge: webhooks get the document, and
// people what they can read.
const maxHuge = 128 << 10

// Huge is an event that tells of very many others.
func Huge() notify.Event {
	e := Hostile()
	e.ID, e.Type, e.Title, e.Group = "e-huge", notify.FindingsGrouped, "10000 unexpected signing events for watch releases", "0011223344556677"
	for i := range 300 {
		e.Fields = append(e.Fields, notify.Field{Name: fmt.Sprint("Number ", i), Value: strings.Repeat("evil ", 1000)})
	}
	return e
}

// document is JSON with the text of a stranger in it.
func document(evil string) []byte {
	doc, err := json.Marshal(map[string]any{"finding": map[string]string{"id": "f-1", "subject": evil + "\u009b2J\x7f\U000e0041"}})
	if err != nil {
		return nil // maps of strings always marshal; no document fails every channel
	}
	return doc
}

// Visible fails where bytes that a channel sent hold a character that shows
// nothing or moves others.
func Visible(t *testing.T, what string, sent string) {
	t.Helper()
	if at := strings.IndexFunc(sent, func(r rune) bool {
		return r != '\n' && (r < 0x20 || r >= 0x7f && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp))
	}); at >= 0 {
		t.Errorf("%s holds %+q", what, sent[at:min(at+20, len(sent))])
	}
}

// Run lets a channel go through everything that another side can do. make
// returns the channel for a service; secrets must be in no error.
func Run(t *testing.T, accept string, make func(t *testing.T, service *Service) notify.Notifier, secrets ...string) {
	ctx := context.Background()
	event := Hostile()
	check := func(t *testing.T, err error) {
		t.Helper()
		if err == nil {
			return
		}
		for _, s := range secrets {
			if strings.Contains(err.Error(), s) {
				t.Errorf("a secret is in the error: %v", err)
			}
		}
	}
	t.Run("accepts", func(t *testing.T) {
		s := NewService(t, accept)
		n := make(t, s)
		var after []int
		for range 2 {
			if err := n.Notify(ctx, event); err != nil {
				t.Fatal(err)
			}
			after = append(after, len(s.Requests()))
		}
		if after[0] == 0 || after[1] != 2*after[0] {
			t.Errorf("%d requests, and %d in all after the second", after[0], after[1])
		}
	})
	t.Run("a huge group", func(t *testing.T) {
		s := NewService(t, accept)
		if err := make(t, s).Notify(ctx, Huge()); err != nil {
			t.Fatal(err)
		}
		for _, r := range s.Requests() {
			if len(r.Body) > maxHuge {
				t.Errorf("%d bytes in one request", len(r.Body))
			}
		}
	})
	for _, status := range []int{301, 400, 401, 403, 404, 500, 502, 503} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			s := NewService(t, accept)
			s.Answer(func(w http.ResponseWriter) {
				w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
				w.WriteHeader(status)
			})
			err := make(t, s).Notify(ctx, event)
			check(t, err)
			if err == nil || errors.Is(err, notify.ErrRefused) {
				t.Errorf("status %d: %v, want an error that is tried again", status, err)
			}
			if len(s.Requests()) != 1 {
				t.Errorf("%d requests: the dispatcher tries again, not the channel", len(s.Requests()))
			}
		})
	}
	for name, tc := range map[string]struct {
		header   string
		from, to time.Duration
	}{
		"seconds":   {"7", 7 * time.Second, 7 * time.Second},
		"a date":    {time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), 59 * time.Minute, time.Hour},
		"for ever":  {"99999999999999999999999", 24 * time.Hour, 1 << 62},
		"the past":  {time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), 0, 0},
		"below 0":   {"-1", 0, 0},
		"no number": {"soon", 0, 0},
	} {
		for _, status := range []int{429, 503} {
			t.Run(fmt.Sprintf("asks to wait %s with %d", name, status), func(t *testing.T) {
				s := NewService(t, accept)
				s.Answer(func(w http.ResponseWriter) {
					w.Header().Set("Retry-After", tc.header)
					w.WriteHeader(status)
				})
				err := make(t, s).Notify(ctx, event)
				check(t, err)
				if err == nil || errors.Is(err, notify.ErrRefused) || strings.Contains(err.Error(), "pars") {
					t.Errorf("%v", err)
				}
				var retry *notify.RetryError
				if errors.As(err, &retry) != (tc.to > 0) || retry != nil && (retry.After < tc.from || retry.After > tc.to) {
					t.Errorf("%v", err)
				}
			})
		}
	}
	t.Run("answers without end", func(t *testing.T) {
		s := NewService(t, accept)
		s.Answer(func(w http.ResponseWriter) {
			w.Write([]byte(`{"ok":false,"error":"`))
			chunk := bytes.Repeat([]byte("x"), 64<<10)
			for range 1024 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		})
		check(t, make(t, s).Notify(ctx, event))
	})
	t.Run("gone for good", func(t *testing.T) {
		s := NewService(t, accept)
		s.Answer(func(w http.ResponseWriter) { w.WriteHeader(http.StatusGone) })
		err := make(t, s).Notify(ctx, event)
		check(t, err)
		if !errors.Is(err, notify.ErrRefused) {
			t.Errorf("410: %v", err)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		s := NewService(t, accept)
		release := newRelease(t)
		s.Answer(func(http.ResponseWriter) { <-release })
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		err := make(t, s).Notify(ctx, event)
		check(t, err)
		if err == nil {
			t.Error("delivered to a service that never answered")
		}
	})
	t.Run("is not there", func(t *testing.T) {
		s := NewService(t, accept)
		n := make(t, s)
		s.Answer(func(w http.ResponseWriter) {
			if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
				c.Close()
			}
		})
		err := n.Notify(ctx, event)
		check(t, err)
		if err == nil || errors.Is(err, notify.ErrRefused) {
			t.Errorf("closed connection: %v", err)
		}
	})
}

func newRelease(t *testing.T) chan struct{} {
	c := make(chan struct{})
	t.Cleanup(func() { close(c) })
	return c
}
