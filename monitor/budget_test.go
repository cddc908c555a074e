package monitor_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// TestMemoryIsShared: a log whose bundles are as large as can be, and wrong, and one that promises
// as much and then says nothing, keep no other log from being read, nor themselves from being read
// as far as they can be.
func TestMemoryIsShared(t *testing.T) {
	var wrong bytes.Buffer
	for range 256 {
		wrong.Write(binary.BigEndian.AppendUint16(nil, 48_000))
		wrong.Write(make([]byte, 48_000))
	}
	for name, answer := range map[string]http.HandlerFunc{
		"large and wrong": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(wrong.Len()))
			w.Write(wrong.Bytes())
		},
		"never ends": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "16777472")
			w.Write([]byte("xx"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.fill(r.log, 40*256)
			ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				if strings.Contains(q.URL.Path, "/tile/entries/") {
					answer(w, q)
					return
				}
				r.server.ServeHTTP(w, q)
			}))
			defer ts.Close()
			bad, err := rekor.NewV2(rekor.Options{URL: ts.URL, FirstWait: time.Millisecond, RequestsPerSecond: 1e6, Tries: 2, Timeout: 10 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			r.cfg.Source, r.cfg.Parallel, r.cfg.Schedule = bad, 16, every(5*time.Millisecond)
			honest, err := locallog.New("honest.example")
			if err != nil {
				t.Fatal(err)
			}
			r.fill(honest, 256)
			other := httptest.NewServer(locallog.NewServer(honest))
			defer other.Close()
			opener, err := checkpoint.ForOrigin(honest.Origin(), honest.PublicKeyPEM())
			if err != nil {
				t.Fatal(err)
			}
			source, err := rekor.NewV2(rekor.Options{URL: other.URL, FirstWait: time.Millisecond, RequestsPerSecond: 1e6, Tries: 2})
			if err != nil {
				t.Fatal(err)
			}
			opts := r.opts
			opts.Store = r.store
			opts.Logs = []monitor.LogConfig{r.cfg, {Name: "honest", ID: honest.Origin(), Type: "rekor-v2", Log: opener, Source: source, Authorities: trust(t, r.ca), Start: "first", Parallel: 4, Schedule: every(5 * time.Millisecond)}}
			engine, err := monitor.New(opts)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { engine.Run(ctx); close(done) }()
			defer func() { cancel(); <-done }()
			scanned := func(id string) uint64 {
				st, err := r.store.State(context.Background(), id)
				if err != nil {
					t.Fatal(err)
				}
				return st.Scanned
			}
			until := func(what string, ok func() bool) {
				t.Helper()
				for stop := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
					if time.Now().After(stop) {
						t.Fatalf("%s: not within half a minute; %d and %d entries are read, after %d requests to the bad one", what, scanned(r.cfg.ID), scanned(honest.Origin()), bad.Stats().Requests)
					}
				}
			}
			until("bundles are under way", func() bool { return bad.Stats().Requests > 10 })
			// The honest one grows while the other has taken what it can.
			r.fill(honest, 20*256)
			until("the honest log is read", func() bool { return scanned(honest.Origin()) == 21*256 })
			if name == "large and wrong" {
				until("the other one is gone past", func() bool { return scanned(r.cfg.ID) == 40*256 })
			}
		})
	}
}
