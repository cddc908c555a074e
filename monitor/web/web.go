// Package web serves health, metrics, the API and the page over HTTP.
package web

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
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
	// API is served if its Token is set, to those whom Access.Tokens lets in.
	API API
	// Hear compares a signed checkpoint that somebody has seen; nil: that cannot be
	// asked. ErrNotCheckpoint where no log that is followed has signed it.
	Hear func(ctx context.Context, raw []byte) (monitor.Comparison, error)
	// Data is what the page and the API show, if its Findings is set, to those whom Access
	// lets in.
	Data   Data
	Access Access
	// PublicURL is how people reach the server, without a slash at its end; may be empty.
	PublicURL string
	Version   string
	Log       *slog.Logger
}

// Server serves one process.
type Server struct {
	opts    Options
	handler http.Handler
	good    callers       // of the API, by token
	bad     callers       // those that have none, by network
	logins  callers       // those that log in, by network
	proven  proven        // tokens that were good a moment ago
	asking  callers       // about checkpoints, by network
	all     *rate.Limiter // of those together
	hearing chan struct{} // one for each that is compared now
	news    news
	ending  chan struct{} // closed when the server is to end
}

// New returns a server for the options.
func New(opts Options) *Server {
	s := &Server{opts: opts, all: rate.NewLimiter(asksPerSecond, asksAtOnce), hearing: make(chan struct{}, asksTogether), news: news{mark: opts.Data.Mark}, ending: make(chan struct{})}
	s.asking.perSecond, s.asking.atOnce = asksPerSecond/5, asksAtOnce/5
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(opts), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(opts.Version))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	mux.Handle("GET /readyz", s.called(http.HandlerFunc(s.ready)))
	mux.Handle("GET /metrics", s.called(promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})))
	if opts.API.Token != nil {
		mux.HandleFunc("POST /api/v1/expectations", s.expect)
	}
	if opts.Hear != nil {
		mux.Handle("POST /api/v1/checkpoints", s.called(http.HandlerFunc(s.hear)))
	}
	if opts.Data.Findings != nil {
		s.rest(mux)
		s.site(mux)
	}
	s.handler = http.MaxBytesHandler(s.headed(problems(http.NewCrossOriginProtection().Handler(hurried(tagged(traced(mux)))))), maxRequest)
	return s
}

// called answers nobody who calls a server that is open to its own machine by another name: a
// page from elsewhere in somebody's browser here does, whose name leads to this machine.
func (s *Server) called(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.opts.Access.Open && !s.opts.Access.named(r.Host) {
			http.Error(w, fmt.Sprintf("this server is not called %.100q; http.public_url can name it", r.Host), http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// headed adds what browsers are to hold every answer to.
func (s *Server) headed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if s.opts.Access.secure() {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// maxRequest bounds every request: a signed note is the largest.
const maxRequest = checkpointSize + 1<<10

const (
	// answerFor bounds how long an answer may take to be made, so that whoever waits is told
	// before the connection is given up, which is after writeFor.
	answerFor = 25 * time.Second
	writeFor  = 30 * time.Second
)

// hurried bounds the making of answers; news is told for as long as somebody listens.
func hurried(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			ctx, cancel := context.WithTimeout(r.Context(), answerFor)
			defer cancel()
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}

// tracer makes a span of each request, where somebody collects them.
var tracer = otel.Tracer("github.com/sigwarden/sigwarden/monitor/web")

// traced makes spans of what people and programs ask for. What a stranger says of his own
// trace is not believed.
func traced(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.Path; p == "/healthz" || p == "/readyz" || p == "/metrics" || p == "/events" {
			mux.ServeHTTP(w, r)
			return
		}
		ctx, span := tracer.Start(r.Context(), r.Method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("http.request.method", r.Method)))
		defer span.End()
		r = r.WithContext(ctx)
		mux.ServeHTTP(w, r)
		span.SetName(r.Pattern)
		span.SetAttributes(attribute.String("http.route", r.Pattern))
	})
}

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

// Serve listens until ctx ends, and then shuts down within five seconds.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	listener, connections := Bounded(listener)
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: writeFor, IdleTimeout: idleFor,
		MaxHeaderBytes: 32 << 10,
		ConnState:      connections,
		ErrorLog:       slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		close(s.ending)
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
