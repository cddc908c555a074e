package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"mime"
	"net/http"
	"strings"
)

// What is done with every answer to a program.

// tagged gives what programs read an ETag, and answers 304 to who has it already.
func tagged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, "/api/v1/") || r.URL.Path == "/api/v1/events" {
			next.ServeHTTP(w, r)
			return
		}
		b := &buffered{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(b, r)
		h := w.Header()
		if b.status == http.StatusOK {
			sum := sha256.Sum256(b.body.Bytes())
			tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:18]) + `"`
			h.Set("ETag", tag)
			for known := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
				if known = strings.TrimPrefix(strings.TrimSpace(known), "W/"); known == tag || known == "*" {
					h.Del("Content-Type")
					h.Del("Content-Length")
					w.WriteHeader(http.StatusNotModified)
					return
				}
			}
		}
		w.WriteHeader(b.status)
		w.Write(b.body.Bytes())
	})
}

// buffered keeps an answer until it is whole.
type buffered struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

// problems gives an error of the router, or of what stands before it, the form that programs
// are told errors in.
func problems(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/api/") || r.URL.Path == "/api/v1/events" {
			next.ServeHTTP(w, r)
			return
		}
		b := &buffered{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(b, r)
		kind, _, _ := mime.ParseMediaType(w.Header().Get("Content-Type"))
		if b.status < 400 || kind == "application/problem+json" {
			w.WriteHeader(b.status)
			steadily(w, b.body.Bytes())
			return
		}
		w.Header().Del("Content-Length")
		detail := strings.TrimSpace(b.body.String())
		switch {
		case b.status == http.StatusNotFound:
			detail = "there is no such path; /api/v1/openapi.json names those that there are"
		case b.status == http.StatusMethodNotAllowed:
			detail = "this path takes " + w.Header().Get("Allow")
		}
		problem(w, b.status, detail)
	})
}

func (b *buffered) WriteHeader(status int)      { b.status = status }
func (b *buffered) Write(p []byte) (int, error) { return b.body.Write(p) }
