package rekor

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

func logOf(t testing.TB, n int) *locallog.Log {
	t.Helper()
	l, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := l.Append(fmt.Appendf(nil, "entry %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func serve(t testing.TB, h http.Handler, change func(*Options)) *V2 {
	t.Helper()
	ts := httptest.NewServer(h)
	t.Cleanup(ts.Close)
	opts := Options{URL: ts.URL + "/", FirstWait: time.Millisecond, RequestsPerSecond: 10000}
	if change != nil {
		change(&opts)
	}
	v, err := NewV2(opts)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// readAllOf reads a log of the given size in every resource it has.
func readAllOf(t *testing.T, v *V2, l *locallog.Log) {
	t.Helper()
	ctx := context.Background()
	size := l.Size()
	for at := uint64(0); at < size; {
		leaves, err := v.Leaves(ctx, at, size)
		if err != nil {
			t.Fatal(err)
		}
		for i, leaf := range leaves {
			if want := fmt.Sprintf("entry %d", at+uint64(i)); string(leaf) != want {
				t.Fatalf("entry %q, want %q", leaf, want)
			}
		}
		at += uint64(len(leaves))
	}
	for level := uint(0); size>>(8*level) > 0; level++ {
		for index := uint64(0); index*256 < size>>(8*level); index++ {
			width := int(min(256, size>>(8*level)-index*256))
			want, _ := l.Tile(level, index, width)
			got, err := v.Tile(ctx, level, index, width)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("tile (%d, %d): %v", level, index, err)
			}
		}
	}
}

func TestReadsAllSources(t *testing.T) {
	l := logOf(t, 600)
	dir := t.TempDir()
	if err := l.WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	v, err := NewV2(Options{URL: "file://" + dir})
	if err != nil {
		t.Fatal(err)
	}
	readAllOf(t, v, l)
	if _, err := v.Leaves(context.Background(), 768, 800); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("bundle without a file: %v", err)
	}
	server := locallog.NewServer(l)
	v = serve(t, server, nil)
	readAllOf(t, v, l)
	server.Set(locallog.Faults{Gzip: true})
	readAllOf(t, v, l)
	// Somebody in between entries: the reader wants an unaligned part.
	if leaves, err := v.Leaves(context.Background(), 300, 310); err != nil || len(leaves) != 10 || string(leaves[0]) != "entry 300" {
		t.Errorf("[300, 310): %d leaves, %v", len(leaves), err)
	}
	if v.Stats().Bytes == 0 || v.Stats().Requests == 0 {
		t.Error("nothing counted")
	}
}

// TestPartialTilesCleanedUp: the log has grown, and the partial tiles of an
// earlier size are gone.
func TestPartialTilesCleanedUp(t *testing.T) {
	l := logOf(t, 512)
	server := locallog.NewServer(l)
	server.Set(locallog.Faults{NoPartials: true})
	v := serve(t, server, nil)
	ctx := context.Background()
	want, _ := l.Tile(0, 1, 40)
	if got, err := v.Tile(ctx, 0, 1, 40); err != nil || !bytes.Equal(got, want) {
		t.Errorf("tile: %v", err)
	}
	if leaves, err := v.Leaves(ctx, 256, 300); err != nil || len(leaves) != 44 {
		t.Errorf("bundle: %d leaves, %v", len(leaves), err)
	}
	if _, err := v.Leaves(ctx, 512, 520); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), ".p/8") {
		t.Errorf("neither partial nor full: %v", err)
	}
}

func TestConditionalCheckpoint(t *testing.T) {
	l := logOf(t, 3)
	statuses := []int{}
	inner := locallog.NewServer(l)
	v := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, r)
		statuses = append(statuses, rec.Code)
		for k, vs := range rec.Header() {
			w.Header()[k] = vs
		}
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes())
	}), nil)
	ctx := context.Background()
	a, err1 := v.Checkpoint(ctx)
	b, err2 := v.Checkpoint(ctx)
	l.Append([]byte("more"))
	c, err3 := v.Checkpoint(ctx)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) || bytes.Equal(b, c) || fmt.Sprint(statuses) != "[200 304 200]" {
		t.Errorf("statuses %v", statuses)
	}
}

func TestRetries(t *testing.T) {
	l := logOf(t, 3)
	ctx := context.Background()
	for _, tc := range []struct {
		name   string
		faults locallog.Faults
		tries  int64
		works  bool
	}{
		{"two 500s", locallog.Faults{Status: 500, FailFirst: 2}, 3, true},
		{"429 with Retry-After", locallog.Faults{Status: 429, RetryAfter: "0", FailFirst: 1}, 2, true},
		{"503 for good", locallog.Faults{Status: 503}, 4, false},
		{"499", locallog.Faults{Status: 499}, 4, false},
		{"broken connection once", locallog.Faults{Hangup: true, FailFirst: 1}, 2, true},
		{"403", locallog.Faults{Status: 403}, 1, false},
		{"400", locallog.Faults{Status: 400}, 1, false},
		{"404", locallog.Faults{Status: 404}, 1, false},
		{"elsewhere", locallog.Faults{Redirect: "http://127.0.0.2:1/x"}, 1, false},
		{"https to http", locallog.Faults{Redirect: "https://127.0.0.1/x"}, 1, false},
		{"endless", locallog.Faults{Endless: true}, 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := locallog.NewServer(l)
			server.Set(tc.faults)
			v := serve(t, server, nil)
			body, err := v.Checkpoint(ctx)
			if (err == nil) != tc.works || tc.works && len(body) == 0 {
				t.Errorf("error %v", err)
			}
			if got := server.Requests(); got != tc.tries {
				t.Errorf("%d requests, want %d", got, tc.tries)
			}
			if err != nil && tc.faults.Status == 404 != errors.Is(err, fs.ErrNotExist) {
				t.Errorf("not told apart from a missing resource: %v", err)
			}
			if tc.faults.Status > 404 && !strings.Contains(fmt.Sprint(err), fmt.Sprint(tc.faults.Status)) && !tc.works {
				t.Errorf("the error does not name the status: %v", err)
			}
		})
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	server := locallog.NewServer(logOf(t, 3))
	server.Set(locallog.Faults{Status: 429, RetryAfter: "1", FailFirst: 1})
	v := serve(t, server, nil)
	start := time.Now()
	if _, err := v.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	if waited := time.Since(start); waited < 900*time.Millisecond {
		t.Errorf("came back after %s, was asked to wait 1s", waited)
	}
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"7": 7 * time.Second, "Mon, 05 Jan 2026 12:00:09 GMT": 9 * time.Second, "": 0, "-5": 0, "soon": 0,
		"86400": maxRetryAfter, "Mon, 05 Jan 2026 11:00:00 GMT": 0, "99999999999999999999": 0,
	} {
		if got := parseRetryAfter(text, now); got != want {
			t.Errorf("Retry-After %q: %s, want %s", text, got, want)
		}
	}
}

func TestStalledServer(t *testing.T) {
	server := locallog.NewServer(logOf(t, 3))
	server.Set(locallog.Faults{Stall: time.Minute})
	v := serve(t, server, func(o *Options) { o.Timeout = 20 * time.Millisecond; o.Tries = 2 })
	if _, err := v.Checkpoint(context.Background()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that never answers: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := v.Checkpoint(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestBounds answers each kind of request with one byte more than its bound,
// plain and as a gzip bomb.
func TestBounds(t *testing.T) {
	ctx := context.Background()
	for _, zipped := range []bool{false, true} {
		answerWith := func(n int) *V2 {
			return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !zipped {
					w.Write(make([]byte, n))
					return
				}
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				z.Write(make([]byte, n))
				z.Close()
			}), nil)
		}
		for what, get := range map[string]func() error{
			"checkpoint": func() error { _, err := answerWith(maxCheckpoint + 1).Checkpoint(ctx); return err },
			"tile":       func() error { _, err := answerWith(8193).Tile(ctx, 0, 0, 256); return err },
			"short tile": func() error { _, err := answerWith(8191).Tile(ctx, 0, 0, 256); return err },
			"bundle":     func() error { _, err := answerWith(maxBundle+1).Leaves(ctx, 0, 256); return err },
			"more":       func() error { _, err := answerWith(512+2).Leaves(ctx, 0, 256); return err },
			"fewer":      func() error { _, err := answerWith(512-2).Leaves(ctx, 0, 256); return err },
			"half":       func() error { _, err := answerWith(511).Leaves(ctx, 0, 256); return err },
		} {
			held := bounds.Hold(t)
			err := get()
			held()
			var malformed *MalformedError
			if !errors.As(err, &malformed) || !malformed.Malformed() {
				t.Errorf("%s (gzip %v): %v", what, zipped, err)
			}
		}
		if leaves, err := answerWith(512).Leaves(ctx, 0, 256); err != nil || len(leaves) != 256 {
			t.Errorf("256 empty entries (gzip %v): %d, %v", zipped, len(leaves), err)
		}
	}
	for _, encoding := range []string{"br", "zstd", "gzip, gzip", "gzip"} {
		v := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", encoding)
			w.Write([]byte("not of that encoding"))
		}), nil)
		var malformed *MalformedError
		if _, err := v.Checkpoint(ctx); !errors.As(err, &malformed) {
			t.Errorf("%s: %v", encoding, err)
		}
	}
}

func TestURLs(t *testing.T) {
	for _, bad := range []string{"", "rekor.example", "ftp://rekor.example", "https://", "https://rekor.example?x=1", "file://host/dir", "file:dir", "https://rekor.example#x", "http://[::1"} {
		if _, err := NewV2(Options{URL: bad}); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
	if _, err := NewV2(Options{URL: "https://user:secret@rekor.example?q"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("password in the error: %v", err)
	}
}

// FuzzBundle: whatever parses gives the same bytes again.
func FuzzBundle(f *testing.F) {
	f.Add([]byte{0, 1, 'a', 0, 0}, 2)
	f.Add([]byte{}, 1)
	f.Add([]byte{255, 255, 'a'}, 1)
	f.Fuzz(func(t *testing.T, body []byte, count int) {
		defer bounds.Hold(t)()
		if count < 1 || count > tileWidth {
			return
		}
		entries, err := parseBundle(body, count)
		if err != nil {
			return
		}
		var again []byte
		for _, e := range entries {
			again = append(again, byte(len(e)>>8), byte(len(e)))
			again = append(again, e...)
		}
		if len(entries) != count || !bytes.Equal(again, body) {
			t.Fatalf("%x parses as %d entries, %x", body, len(entries), again)
		}
	})
}
