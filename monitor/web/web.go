// Package web serves health, metrics and the API over HTTP.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"

	"github.com/sigwarden/sigwarden/monitor"
)

// Engine is what is asked of the engine.
type Engine interface {
	Ready() bool
	Metrics() monitor.Metrics
}

// Options configure a Server.
type Options struct {
	Engine Engine
	// Status reads how everything is.
	Status func(ctx context.Context) (monitor.Status, error)
	// OpenIncidents counts incidents that are not resolved, by class and kind.
	OpenIncidents func(ctx context.Context) (map[[2]string]int, error)
	// Bytes returns what was fetched, by log; Deliveries what became of
	// deliveries since the process began, by channel and result.
	Bytes      func() map[string]int64
	Deliveries func() map[[2]string]int64
	// API is served if its Token is set.
	API API
	// Hear compares a signed checkpoint that somebody has seen; nil: that cannot be
	// asked. ErrNotCheckpoint where no log that is followed has signed it.
	Hear func(ctx context.Context, raw []byte) (monitor.Comparison, error)
	// Show, if not nil, returns a finding or an incident as text for people, by its
	// id; ErrNoPage for one that there is not.
	Show func(ctx context.Context, id string) (string, error)
	Log  *slog.Logger
}

// Server serves one process.
type Server struct {
	opts    Options
	handler http.Handler
	good    callers       // of the API, by token
	bad     callers       // those that have none, by address
	asking  callers       // about checkpoints, by network
	all     *rate.Limiter // of those together
	hearing chan struct{} // one for each that is compared now
}

// New returns a server for the options.
func New(opts Options) *Server {
	s := &Server{opts: opts, all: rate.NewLimiter(asksPerSecond, asksAtOnce), hearing: make(chan struct{}, asksTogether)}
	s.asking.perSecond, s.asking.atOnce = asksPerSecond/5, asksAtOnce/5
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(opts))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	s.routes(mux)
	if opts.Hear != nil {
		mux.HandleFunc("POST /api/v1/checkpoints", s.hear)
	}
	if opts.Show != nil {
		mux.HandleFunc("GET /findings/{id}", s.show)
		mux.HandleFunc("GET /incidents/{id}", s.show)
	}
	s.handler = http.MaxBytesHandler(http.NewCrossOriginProtection().Handler(mux), maxRequest)
	return s
}

// maxRequest bounds every request: a signed note is the largest.
const maxRequest = checkpointSize + 1<<10

// Handler returns what is served.
func (s *Server) Handler() http.Handler { return s.handler }

// ready says whether a first pass over every log was tried, and how each log is.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	status, err := s.opts.Status(ctx)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	switch {
	case err != nil:
		s.opts.Log.Error("the store cannot be read", "error", err)
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "not ready: the store cannot be read; the log of this process says why")
		return
	case !s.opts.Engine.Ready():
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "not ready: the first pass over every log is not done yet")
	default:
		fmt.Fprintln(w, "ready")
	}
	for _, l := range status.Logs {
		fmt.Fprintf(w, "%s: %s, verified %d, scanned %d\n", l.Name, l.State, l.Verified.Size, l.Scanned)
	}
}

// ErrNoPage is returned by Options.Show.
var ErrNoPage = errors.New("no such finding or incident")

// show is where the links of messages lead.
func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	text, err := s.opts.Show(ctx, r.PathValue("id"))
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	switch {
	case errors.Is(err, ErrNoPage):
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintln(w, ErrNoPage)
	case err != nil:
		s.opts.Log.Error("the store cannot be read", "error", err)
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "the store cannot be read; the log of this process says why")
	default:
		fmt.Fprint(w, text)
	}
}

// Serve listens until ctx ends, and then shuts down within five seconds.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 32 << 10,
		ErrorLog:       slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(last); err != nil {
			server.Close()
		}
	})
	err := server.Serve(listener)
	if stop() {
		return err // it was not asked to end
	}
	// Serve returns when the end begins; requests are still answered.
	<-closed
	return nil
}
