// Package rekor speaks the wire of Rekor logs: it fetches bytes, bounded,
// rate-limited and retried, and takes them apart. It knows nothing of trust:
// what it returns is unproven.
package rekor

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Options configure the client of one log. The zero value of every field but
// URL works.
type Options struct {
	// URL is the read prefix of the log: http, https, or for Rekor v2 a
	// directory of tiles as file:///dir.
	URL string
	// UserAgent is sent with every request; default "sigwarden".
	UserAgent string
	// RequestsPerSecond is the ceiling of the request rate; default 50, for
	// Rekor v1 30.
	RequestsPerSecond float64
	// Parallel is the ceiling of requests in flight; default 16, for Rekor v1 64.
	Parallel int
	// RootCAs verify the server's certificate; nil: those of the system.
	RootCAs *x509.CertPool
	// Timeout bounds one request with its answer; default 30s.
	Timeout time.Duration
	// Tries bounds how often one request is made; default 4.
	Tries uint
	// FirstWait is the wait before the second try, which doubles up to 5s and
	// yields to Retry-After; default 250ms.
	FirstWait time.Duration
	// Transport, if not nil, carries requests in place of the network: of tests that repeat
	// exactly. Waits are not spread at random then.
	Transport http.RoundTripper
}

// maxRetryAfter bounds how long a server may make us wait within one request.
const maxRetryAfter = time.Minute

// Stats counts what a client did since it was made.
type Stats struct {
	// Requests that were made; Refused those answered with 429 or 503.
	Requests, Refused, Bytes int64
}

// client fetches resources below one prefix.
type client struct {
	base *url.URL
	http *http.Client
	opts Options
	pace *pace

	requests, refused, bytes atomic.Int64
}

func (c *client) stats() Stats {
	return Stats{Requests: c.requests.Load(), Refused: c.refused.Load(), Bytes: c.bytes.Load()}
}

func newClient(opts Options) (*client, error) {
	base, err := url.Parse(strings.TrimRight(opts.URL, "/"))
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	switch {
	case base.Scheme != "http" && base.Scheme != "https":
		return nil, fmt.Errorf("url %q: want http://, https:// or file:///", base.Redacted())
	case base.Host == "":
		return nil, fmt.Errorf("url %q names no host", base.Redacted())
	case base.RawQuery != "" || base.Fragment != "":
		return nil, fmt.Errorf("url %q: a read prefix has no query and no fragment", base.Redacted())
	}
	setDefault(&opts.UserAgent, "sigwarden")
	setDefault(&opts.RequestsPerSecond, 50)
	setDefault(&opts.Parallel, 16)
	setDefault(&opts.Timeout, 30*time.Second)
	setDefault(&opts.Tries, 4)
	setDefault(&opts.FirstWait, 250*time.Millisecond)
	var transport http.RoundTripper = &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{RootCAs: opts.RootCAs, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // gzip is undone here, where inflated bytes are counted
		MaxIdleConnsPerHost:    opts.Parallel,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		// An answer that waits for memory must not take it here.
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 256 << 10},
	}
	if opts.Transport != nil {
		transport = opts.Transport
	}
	return &client{
		base: base,
		opts: opts,
		http: &http.Client{Transport: transport, CheckRedirect: sameHost},
		pace: newPace(opts.RequestsPerSecond, opts.Parallel),
	}, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// redirectError is a redirect that leads elsewhere: an answer, and not what was
// asked for.
type redirectError struct{ to string }

func (e *redirectError) Error() string {
	return fmt.Sprintf("redirect to %.200q refused: another host or scheme, or more than 3 in a row", e.to)
}

// Refused marks the error for callers that do not know this package.
func (e *redirectError) Refused() bool { return true }

// sameHost lets a server redirect to itself only, and a few times at most.
func sameHost(req *http.Request, via []*http.Request) error {
	if first := via[0].URL; req.URL.Host != first.Host || req.URL.Scheme != first.Scheme {
		return &redirectError{req.URL.Redacted()}
	}
	if len(via) > 3 {
		return &redirectError{req.URL.Redacted()}
	}
	return nil
}

// StatusError is an answer with a status other than 200.
type StatusError struct {
	Status int
	Method string
	Path   string
	Body   string // its beginning, quoted by Error
}

func (e *StatusError) Error() string {
	msg := fmt.Sprintf("%s %s: status %d %s", e.Method, e.Path, e.Status, http.StatusText(e.Status))
	if e.Body != "" {
		msg += fmt.Sprintf(": %.120q", e.Body)
	}
	return msg
}

// Is makes a resource that the log does not have the same error as a file that
// does not exist.
func (e *StatusError) Is(target error) bool {
	return target == fs.ErrNotExist && (e.Status == http.StatusNotFound || e.Status == http.StatusGone)
}

// Refused marks, for callers that do not know this package, an answer that says
// that the log will not serve the resource.
func (e *StatusError) Refused() bool { return !worthRetrying(e) }

// MalformedError is an answer that is not what was asked for: too long, too
// short, or of another form.
type MalformedError struct {
	What   string
	Reason string
}

func (e *MalformedError) Error() string { return e.What + ": " + e.Reason }

// Malformed marks the error for callers that do not know this package.
func (e *MalformedError) Malformed() bool { return true }

// answer is a successful response.
type answer struct {
	body        []byte
	etag        string
	notModified bool
}

// request is one question to a server.
type request struct {
	kind  string // answers of one kind take about as long
	path  string // below base
	body  []byte // JSON to post; nil: GET
	limit int64  // of the inflated answer
	etag  string
	room  func(size int64) (*[]byte, error) // that of LeavesInto
}

func (r request) method() string {
	if r.body != nil {
		return http.MethodPost
	}
	return http.MethodGet
}

// get fetches base/path with at most limit bytes of inflated body.
func (c *client) get(ctx context.Context, kind, path string, limit int64, etag string) (answer, error) {
	return c.do(ctx, request{kind: kind, path: path, limit: limit, etag: etag})
}

// do asks, and tries again after 429, 499, 5xx and broken connections, not after
// other statuses.
func (c *client) do(ctx context.Context, r request) (answer, error) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = c.opts.FirstWait, 5*time.Second
	if c.opts.Transport != nil {
		wait.RandomizationFactor = 0
	}
	var last error
	a, err := backoff.Retry(ctx, func() (answer, error) {
		a, retryAfter, err := c.try(ctx, r)
		last = err
		switch {
		case err == nil:
			return a, nil
		case ctx.Err() != nil || !worthRetrying(err):
			return answer{}, backoff.Permanent(err)
		case retryAfter > 0:
			return answer{}, &backoff.RetryAfterError{Duration: retryAfter}
		}
		return answer{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxTries(c.opts.Tries))
	if err != nil && last != nil {
		// What went wrong says more than that waiting for the next try was cut short.
		err = last
	}
	return a, err
}

func worthRetrying(err error) bool {
	var status *StatusError
	var malformed *MalformedError
	var redirect *redirectError
	switch {
	case errors.As(err, &status):
		// 501: a private server has switched the endpoint off.
		return status.Status == http.StatusTooManyRequests || status.Status == 499 || status.Status >= 500 && status.Status != http.StatusNotImplemented
	case errors.As(err, &malformed), errors.As(err, &redirect):
		return false
	}
	return true
}

// tracer makes a span of each request, where somebody collects them.
var tracer = otel.Tracer("github.com/sigwarden/sigwarden/monitor/rekor")

func (c *client) try(ctx context.Context, r request) (a answer, retryAfter time.Duration, err error) {
	if err := c.pace.begin(ctx); err != nil {
		return answer{}, 0, err
	}
	// Until the answer begins: how long it goes on depends on what was asked for.
	start, out := time.Now(), outcome{kind: r.kind}
	landed := sync.OnceFunc(func() {
		out.retryAfter = retryAfter
		c.pace.done(out)
	})
	defer landed()
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	ctx, span := tracer.Start(ctx, r.method(), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("http.request.method", r.method()), attribute.String("server.address", c.base.Hostname()), attribute.String("url.path", r.path)))
	defer func() {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}()
	req, err := http.NewRequestWithContext(ctx, r.method(), c.base.String()+"/"+r.path, bytes.NewReader(r.body))
	if err != nil {
		return answer{}, 0, err
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Set("Accept-Encoding", "gzip")
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/json")
	}
	if r.etag != "" {
		req.Header.Set("If-None-Match", r.etag)
	}
	c.requests.Add(1)
	resp, err := c.http.Do(req)
	out.took = time.Since(start)
	if err != nil {
		return answer{}, 0, err
	}
	span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified && r.etag != "" {
		out.ok = true
		return answer{notModified: true}, 0, nil
	}
	if resp.StatusCode != http.StatusOK {
		head, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		out.refused = resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable
		if out.refused {
			c.refused.Add(1)
		}
		return answer{}, parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()), &StatusError{resp.StatusCode, r.method(), r.path, strings.TrimSpace(string(head))}
	}
	out.ok = true
	if r.room != nil {
		// Waiting for memory with a place among the requests could wait for somebody who has memory
		// and waits for a place.
		landed()
	}
	body, err := c.read(resp, r)
	if err != nil {
		return answer{}, 0, err
	}
	return answer{body: body, etag: resp.Header.Get("ETag")}, 0, nil
}

// read returns the inflated body, or an error once it has more than limit
// bytes, inflated or not.
func (c *client) read(resp *http.Response, asked request) ([]byte, error) {
	path, limit := asked.path, asked.limit
	// Compressing cannot make random bytes much longer than they are.
	wire := &countingReader{r: io.LimitReader(resp.Body, limit+limit/100+1024), n: &c.bytes}
	var r io.Reader = wire
	switch enc := resp.Header.Get("Content-Encoding"); enc {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(wire)
		if err != nil {
			return nil, &MalformedError{path, "not gzip, though sent as such"}
		}
		defer z.Close()
		r = z
	default:
		return nil, &MalformedError{path, fmt.Sprintf("content encoding %.40q is not understood (gzip and identity are)", enc)}
	}
	// The length that a server promises is believed only as far as the limit, and is not that of
	// what it was compressed from.
	size, promised := min(max(resp.ContentLength, 0), limit), int64(0)
	if r == wire {
		promised = size
	}
	room, err := roomFor(asked.room, promised)
	if err != nil {
		return nil, err
	}
	size += 512
	body, err := readAll(io.LimitReader(r, limit+1), size, room)
	if err != nil {
		var corrupt flate.CorruptInputError
		if errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.As(err, &corrupt) {
			return nil, &MalformedError{path, "broken gzip"}
		}
		return nil, fmt.Errorf("%s: answer broke off after %d bytes: %w", path, len(body), err)
	}
	if int64(len(body)) > limit {
		return nil, &MalformedError{path, fmt.Sprintf("answer is longer than %d bytes", limit)}
	}
	return body, nil
}

// roomFor asks for memory.
func roomFor(room func(int64) (*[]byte, error), size int64) (*[]byte, error) {
	if room == nil {
		return nil, nil
	}
	return room(size)
}

// readAll is io.ReadAll with a first buffer of the expected size, or in room, if that is not nil.
func readAll(r io.Reader, size int64, room *[]byte) (buf []byte, err error) {
	if room != nil {
		buf = (*room)[:0]
		defer func() { *room = buf }()
	}
	if int64(cap(buf)) < size {
		buf = make([]byte, 0, size)
	}
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
	}
}

type countingReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// parseRetryAfter reads both forms of the header (RFC 9110, 10.2.3); 0 where
// it says nothing, and never more than maxRetryAfter.
func parseRetryAfter(text string, now time.Time) time.Duration {
	var wait time.Duration
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
