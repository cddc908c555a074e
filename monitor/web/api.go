package web

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sigwarden/sigwarden/monitor"
)

// API is what the HTTP API does for those who have a token.
type API struct {
	// Token returns the token that has a secret; ErrNoToken if none is good.
	Token func(ctx context.Context, secret string) (monitor.Token, error)
	// Expect announces an artifact that is about to be signed. What is wrong with
	// the request is an ErrInvalid; ErrFull says that there are too many already.
	Expect func(ctx context.Context, t monitor.Token, watch, digest string, ttl time.Duration, note string) (monitor.Announcement, error)
}

// Errors of API.
var (
	ErrNoToken = errors.New("no such token")
	ErrInvalid = errors.New("not valid")
	ErrFull    = errors.New("too many")
)

const (
	// callsPerSecond and callsAtOnce bound what one token may change, and how fast one
	// address may guess tokens.
	callsPerSecond = 10
	callsAtOnce    = 50
	// maxCallers bounds how many of those are told apart.
	maxCallers = 4096
	maxBody    = 16 << 10
	defaultTTL = 2 * time.Hour
)

// callers bounds the calls of each of many.
type callers struct {
	perSecond rate.Limit // 0: callsPerSecond ...
	atOnce    int        // and callsAtOnce

	mu   sync.Mutex
	seen map[string]*rate.Limiter
}

// allow reports whether one of them may call now.
func (c *callers) allow(name string) bool { return c.of(name).Allow() }

// spent reports whether one of them may not call now, and counts nothing.
func (c *callers) spent(name string) bool { return c.of(name).Tokens() < 1 }

func (c *callers) of(name string) *rate.Limiter {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.seen[name]
	if l == nil {
		if c.seen == nil {
			c.seen = map[string]*rate.Limiter{}
		}
		if len(c.seen) >= maxCallers {
			c.forget()
		}
		l = rate.NewLimiter(cmp.Or(c.perSecond, callsPerSecond), cmp.Or(c.atOnce, callsAtOnce))
		c.seen[name] = l
	}
	return l
}

// forget makes room: those who have not called for a while are as good as new, and where all
// have, some of them begin anew.
func (c *callers) forget() {
	for name, l := range c.seen {
		if l.Tokens() >= float64(l.Burst()) {
			delete(c.seen, name)
		}
	}
	for name := range c.seen {
		if len(c.seen) < maxCallers*3/4 {
			return
		}
		delete(c.seen, name)
	}
}

func tooMany(w http.ResponseWriter) { refuse(w, tooOften()) }

// problem answers with an error in the form of RFC 9457.
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": detail})
}

// allowed returns the token that a request comes with, if it is good for a scope;
// otherwise it has answered.
func (s *Server) allowed(w http.ResponseWriter, r *http.Request, scope string) (t monitor.Token, ok bool) {
	err := error(&refusal{status: http.StatusUnauthorized, detail: "this server takes no tokens: http.access.tokens lets in who has one"})
	if s.opts.Access.Tokens {
		t, err = s.bearer(r)
	}
	switch {
	case err != nil:
	case !s.good.allow(t.ID):
		err = tooOften()
	case !t.Allows(scope, ""):
		err = &refusal{status: http.StatusForbidden, detail: fmt.Sprintf("the token is not for scope %s", scope)}
	}
	if err != nil {
		refuse(w, err)
	}
	return t, err == nil
}

// refuse answers a program that is not let in.
func refuse(w http.ResponseWriter, err error) {
	var no *refusal
	if !errors.As(err, &no) {
		no = &refusal{status: http.StatusInternalServerError, detail: "something went wrong; the log of the server says what"}
	}
	for k, v := range no.header {
		w.Header().Set(k, v)
	}
	problem(w, no.status, no.detail)
}

// body reads a JSON document strictly; otherwise it has answered.
func body(w http.ResponseWriter, r *http.Request, into any) bool {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		problem(w, http.StatusUnsupportedMediaType, "the body has to be JSON, with Content-Type: application/json")
		return false
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = strictly(data, into)
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		problem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", maxBody))
	case err != nil:
		problem(w, http.StatusBadRequest, "the body cannot be read: "+err.Error())
	}
	return err == nil
}

// strictly reads a JSON object with keys that are known, to the letter, each once.
func strictly(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) && kind.Field != "" {
			return fmt.Errorf("%s is a %s, and has to be a text", kind.Field, kind.Value)
		}
		return err
	}
	if _, more := decoder.Token(); !errors.Is(more, io.EOF) {
		return errors.New("something follows the document")
	}
	keys := json.NewDecoder(bytes.NewReader(data))
	if first, err := keys.Token(); err != nil || first != json.Delim('{') {
		return errors.New("it is no JSON object")
	}
	seen := map[string]bool{}
	for keys.More() {
		key, err := keys.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string)
		if seen[strings.ToLower(name)] || name != strings.ToLower(name) {
			return fmt.Errorf("key %.40q is there twice, or is written otherwise than it has to be", name)
		}
		seen[strings.ToLower(name)] = true
		var value json.RawMessage
		if err := keys.Decode(&value); err != nil {
			return err
		}
	}
	return nil
}

// expectation is an artifact that is about to be signed.
type expectation struct {
	Watch  string `json:"watch" doc:"name of the watch that it belongs to"`
	Digest string `json:"digest" doc:"sha256:HEX, or HEX"`
	TTL    string `json:"ttl,omitempty" doc:"for how long it is announced, like 90m; default 2h"`
	Note   string `json:"note,omitempty"`
}

// expect announces an artifact that is about to be signed.
func (s *Server) expect(w http.ResponseWriter, r *http.Request) {
	token, ok := s.allowed(w, r, monitor.ScopeExpect)
	if !ok {
		return
	}
	var in expectation
	if !body(w, r, &in) {
		return
	}
	ttl := defaultTTL
	if in.TTL != "" {
		var err error
		if ttl, err = time.ParseDuration(in.TTL); err != nil {
			problem(w, http.StatusUnprocessableEntity, fmt.Sprintf("ttl %.40q is no time like 90m or 2h", in.TTL))
			return
		}
	}
	if in.Watch == "" {
		problem(w, http.StatusUnprocessableEntity, "watch is missing: the name of the watch that the artifact belongs to")
		return
	}
	if !token.Allows(monitor.ScopeExpect, in.Watch) {
		problem(w, http.StatusForbidden, fmt.Sprintf("the token is not for watch %.100q", in.Watch))
		return
	}
	a, err := s.opts.API.Expect(r.Context(), token, in.Watch, in.Digest, ttl, in.Note)
	switch {
	case errors.Is(err, ErrInvalid):
		problem(w, http.StatusUnprocessableEntity, strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": "))
	case errors.Is(err, ErrFull):
		problem(w, http.StatusTooManyRequests, err.Error())
	case err != nil:
		s.opts.Log.Error("an announcement cannot be stored", "error", err)
		problem(w, http.StatusServiceUnavailable, "it cannot be stored; the log of the server says why")
	default:
		s.opts.Log.Info("an artifact was announced", "watch", a.Watch, "digest", a.Digest, "by", a.By, "expires", a.ExpiresAt)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(a)
	}
}
