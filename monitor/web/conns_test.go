package web

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// listening serves a world on loopback until the test ends.
func listening(t *testing.T, w *world) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- New(w.opts).Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// TestIdleConnections: connections that wait for nothing keep nobody out, however many there
// are.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	address := listening(t, newWorld())
	for i := range maxConnections + 20 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := conn.Read(make([]byte, 64)); err != nil || n == 0 {
			t.Fatalf("connection %d of those that stay: %v", i, err)
		}
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for range 5 {
		resp, err := client.Get("http://" + address + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// TestConnectionsOfOneNetwork: one that takes more than its share loses what it does not use,
// and then what it asks for; others lose nothing.
func TestConnectionsOfOneNetwork(t *testing.T) {
	c := &conns{most: 100, ofNetwork: 2}
	conn := func(from string) *heard { return &heard{from: from} }
	other := conn("198.51.100.9:1")
	c.state(other, http.StateNew)
	c.state(other, http.StateIdle)
	first, second, third, fourth := conn("192.0.2.1:1"), conn("192.0.2.1:2"), conn("192.0.2.1:3"), conn("192.0.2.1:4")
	for _, one := range []*heard{first, second} {
		c.state(one, http.StateNew)
		c.state(one, http.StateActive)
	}
	c.state(first, http.StateIdle)
	c.state(third, http.StateNew)
	c.state(third, http.StateActive)
	if !first.closed || second.closed || third.closed || other.closed {
		t.Errorf("%v %v %v %v", first, second, third, other)
	}
	c.state(first, http.StateClosed) // as the server says in the end
	c.state(fourth, http.StateNew)
	if !fourth.closed || second.closed || third.closed || other.closed {
		t.Errorf("%v %v %v %v", fourth, second, third, other)
	}
	for _, one := range []*heard{second, third, fourth, other} {
		c.state(one, http.StateClosed)
	}
	if len(c.all) != 0 || len(c.from) != 0 {
		t.Errorf("%v %v", c.all, c.from)
	}
	// Where all together are too many, the one goes that has been idle longest.
	c = &conns{most: 4, ofNetwork: 100}
	var list []*heard
	for i := range 4 {
		list = append(list, conn(fmt.Sprintf("192.0.2.%d:1", i)))
		c.state(list[i], http.StateNew)
		if i != 1 {
			c.state(list[i], http.StateIdle)
		}
	}
	if !list[0].closed || list[1].closed || list[2].closed || list[3].closed {
		t.Errorf("%v", list)
	}
}

// heard is a connection that remembers whether it was closed.
type heard struct {
	net.Conn
	from   string
	closed bool
}

func (h *heard) Close() error { h.closed = true; return nil }
func (h *heard) RemoteAddr() net.Addr {
	a, _ := net.ResolveTCPAddr("tcp", h.from)
	return a
}

// TestTooLong: who asks for what takes too long is told so in time.
func TestTooLong(t *testing.T) {
	w := newWorld()
	w.opts.Data.Coverage = func(ctx context.Context, _, _ time.Time, _ string) (any, error) {
		until, ok := ctx.Deadline()
		if left := time.Until(until); !ok || left > answerFor {
			t.Errorf("%v left", left)
		}
		return nil, fmt.Errorf("reading: %w", context.DeadlineExceeded)
	}
	w.opts.Data.Spans = func(context.Context, time.Time) ([]LogSpans, error) {
		return nil, fmt.Errorf("reading: %w", context.DeadlineExceeded)
	}
	w.opts.Access.Tokens = true
	h := New(w.opts).Handler()
	for _, path := range []string{"/api/v1/coverage?since=2026-01-01T00:00:00Z", "/coverage"} {
		if got := ask(h, "GET", path, "", "Authorization", "Bearer reader"); got.Code != 503 || !strings.Contains(got.Body.String(), "too long") {
			t.Errorf("%s: %d %s", path, got.Code, got.Body)
		}
	}
}

// TestNewOnThePage: a page says as of when it is, so that what changes before it listens is
// not missed; what a form has answered is not fetched again.
func TestNewOnThePage(t *testing.T) {
	w := newWorld()
	mark := `7 "a"`
	w.opts.Data.Mark = func(context.Context) (string, error) { return mark, nil }
	w.opts.Data.Spans = func(context.Context, time.Time) ([]LogSpans, error) {
		mark = "8" // while the page is made
		return nil, nil
	}
	w.opts.Access = Access{Open: true}
	s := New(w.opts)
	h := s.Handler()
	if got := ask(h, "GET", "/coverage", "", "Host", "localhost").Body.String(); !strings.Contains(got, ` data-mark="7 &#34;a&#34;"`) || strings.Contains(got, "data-still") {
		t.Error(got)
	}
	for _, got := range []*httptest.ResponseRecorder{ask(h, "GET", "/nothing", "", "Host", "localhost"), ask(h, "POST", "/watchlist/try", "rule=a", "Host", "localhost", "Content-Type", form)} {
		if text := got.Body.String(); !strings.Contains(text, " data-still") || strings.Contains(text, "data-mark") {
			t.Error(text)
		}
	}
	server := httptest.NewServer(h)
	defer server.Close()
	defer close(s.ending)
	resp, err := http.Get(server.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 100)
	if n, err := resp.Body.Read(buf); err != nil || string(buf[:n]) != "retry: 5000\nevent: mark\ndata: \"8\"\n\n" {
		t.Errorf("%q %v", buf[:n], err)
	}
}
