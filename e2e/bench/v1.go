package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sigwarden/sigwarden/e2e/bench/corpus"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// history reads a log of Rekor v1 whose answers take a while, and compares its speed with what its
// requests allow: ten entries each, so many at a time.
func (b *bench) history() (float64, string, error) {
	const (
		entries, parallel = 20_000, 32
		perRequest        = 10
		wait              = 50 * time.Millisecond
	)
	c, err := corpus.New(corpus.Options{Certificates: 10_000, V1: true})
	if err != nil {
		return 0, "", err
	}
	log, err := locallog.NewV1("rekor.example", 1234)
	if err != nil {
		return 0, "", err
	}
	log.Append(c.Leaves(0, entries)...)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, "", err
	}
	server := &http.Server{Handler: slowly(remembering(log), wait)}
	go server.Serve(listener)
	defer server.Close()
	key, ca := filepath.Join(b.dir, "v1.pub"), filepath.Join(b.dir, "v1.pem")
	for path, text := range map[string]string{key: log.PublicKeyPEM(), ca: c.CA.ChainPEM()} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return 0, "", err
		}
	}
	var o outcome
	for range 2 { // the first makes the answers
		o, err = b.scan(setting{entries: entries, config: fmt.Sprintf("  - {name: bench, type: rekor-v1, url: 'http://%s', public_key: %q, ca: %q, start: first, requests_per_second: 10000, parallel: %d}\n", listener.Addr(), key, ca, parallel)})
		if err != nil {
			return 0, "", err
		}
	}
	allowed := perRequest * parallel / wait.Seconds()
	return o.rate / allowed, fmt.Sprintf("%.0f of %.0f entries/s", o.rate, allowed), nil
}

// slowly lets every answer wait.
func slowly(h http.Handler, wait time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(wait)
		h.ServeHTTP(w, r)
	})
}

// remembering gives the answer to the same question again: to make one, a server signs twenty times.
func remembering(h http.Handler) http.Handler {
	var mu sync.Mutex
	answers := map[string]*httptest.ResponseRecorder{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		key := r.Method + " " + r.URL.String() + "\n" + string(asked)
		mu.Lock()
		answer := answers[key]
		mu.Unlock()
		if answer == nil {
			r.Body = io.NopCloser(bytes.NewReader(asked))
			answer = httptest.NewRecorder()
			h.ServeHTTP(answer, r)
			mu.Lock()
			answers[key] = answer
			mu.Unlock()
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes())
	})
}
