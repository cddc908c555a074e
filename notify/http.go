package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

// HTTPClient returns a client for channels: it follows no redirect, since the
// address is the operator's, and verifies the server with roots (nil: those of
// the system).
func HTTPClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Timeout: tryFor,
		Transport: listening{&http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// PlainClient is HTTPClient for documents of any size: whoever reads an answer bounds
// it.
func PlainClient(roots *x509.CertPool) *http.Client {
	c := HTTPClient(roots)
	c.Transport = c.Transport.(listening).next
	return c
}

// maxAnswer bounds the body of an answer.
const maxAnswer = 1 << 20

// Asked is what the other side answered to a request with the context of Listen.
type Asked struct{ wait, status atomic.Int64 }

// Judge is StatusError for the answer that was heard; nil without one.
func (a *Asked) Judge() error {
	status := int(a.status.Load())
	if status == 0 {
		return nil
	}
	header := http.Header{}
	if wait := a.wait.Load(); wait > 0 {
		header.Set("Retry-After", strconv.FormatInt((wait+int64(time.Second)-1)/int64(time.Second), 10))
	}
	return StatusError(status, header)
}

type askedKey struct{}

// Listen returns a context for requests whose answers' Retry-After is noted:
// libraries keep that header to themselves.
func Listen(ctx context.Context) (context.Context, *Asked) {
	a := &Asked{}
	return context.WithValue(ctx, askedKey{}, a), a
}

// listening notes what an answer asks for, and bounds its body.
type listening struct{ next http.RoundTripper }

func (l listening) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if a, ok := req.Context().Value(askedKey{}).(*Asked); ok {
		a.status.Store(int64(resp.StatusCode))
		a.wait.Store(int64(RetryAfter(resp.Header, time.Now())))
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}

// WithoutURL takes the address out of an error of net/http: it may hold a
// secret.
func WithoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// StatusError judges an HTTP status: nil for 2xx, a *RetryError where the other
// side names a wait, ErrRefused where trying again is of no use.
func StatusError(status int, header http.Header) error {
	if status >= 200 && status < 300 {
		return nil
	}
	err := fmt.Errorf("the other side answered %d %s", status, http.StatusText(status))
	if status >= 300 && status < 400 {
		err = fmt.Errorf("%w: redirects are not followed; configure the final address", err)
	}
	switch status {
	case http.StatusGone, http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if wait := RetryAfter(header, time.Now()); wait > 0 {
		return &RetryError{After: wait, Err: err}
	}
	return err
}

// RetryAfter reads both forms of the Retry-After header, up to a year, or when
// GitHub's limit ends where nothing remains of it; 0 without either.
func RetryAfter(header http.Header, now time.Time) time.Duration {
	const most = 365 * 24 * time.Hour
	if header.Get("Retry-After") == "" && header.Get("X-RateLimit-Remaining") == "0" {
		if at, err := strconv.ParseInt(header.Get("X-RateLimit-Reset"), 10, 64); err == nil {
			return min(max(time.Unix(at, 0).Sub(now), 0), most)
		}
	}
	text := header.Get("Retry-After")
	seconds, err := strconv.ParseUint(text, 10, 63)
	if errors.Is(err, strconv.ErrRange) || err == nil && seconds > uint64(most/time.Second) {
		return most
	}
	if err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), most)
	}
	return 0
}

// Document is a value in JSON, no longer than it has to be: nobody reads it as HTML.
func Document(v any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}

// Call sends a JSON document, if in is not nil, and reads the answer into out, if
// that is not nil. Its error is judged like StatusError, and holds nothing of the
// address.
func Call(ctx context.Context, client *http.Client, method, address string, header map[string]string, in, out any) error {
	var body io.Reader
	if in != nil {
		doc, err := Document(in)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		body = bytes.NewReader(doc)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return errors.New("the configured address cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "sigwarden")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := client.Do(req)
	if err != nil {
		return WithoutURL(err)
	}
	defer resp.Body.Close()
	answer, readErr := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err := StatusError(resp.StatusCode, resp.Header); err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	if readErr == nil {
		readErr = json.Unmarshal(answer, out)
	}
	if readErr != nil {
		return fmt.Errorf("the answer cannot be read: %w", WithoutURL(readErr))
	}
	return nil
}
