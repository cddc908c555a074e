package notify

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// HTTPClient returns a client for channels: it follows no redirect, since the
// address is the operator's, and verifies the server with roots (nil: those of
// the system).
func HTTPClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Timeout: tryFor,
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
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

// RetryAfter reads both forms of the Retry-After header; 0 without one.
func RetryAfter(header http.Header, now time.Time) time.Duration {
	text := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
