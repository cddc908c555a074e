package locallog

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves a log over HTTP below /api/v2/, as Rekor v2 does, and
// misbehaves as it is told.
type Server struct {
	requests atomic.Int64

	mu     sync.Mutex
	log    *Log
	tiles  *Log // where the tiles come from; nil: log
	faults Faults
}

// Faults is how a server misbehaves. The zero value is an honest server.
type Faults struct {
	// Size, if not nil, signs the log at this earlier size: a roll-back or a
	// lagging replica.
	Size *uint64
	// Checkpoint, if not nil, is served as it is.
	Checkpoint []byte
	// Swap serves other bytes for single entries, by index.
	Swap map[uint64][]byte
	// Missing answers 404 for entry bundles, by bundle index.
	Missing map[uint64]bool
	// Truncate cuts entry bundles off after as many bytes, by bundle index.
	Truncate map[uint64]int
	// NoPartials answers 404 for partial tiles and bundles, as servers do that
	// have cleaned them up.
	NoPartials bool
	// NoTiles answers 404 for every hash tile.
	NoTiles bool
	// Gzip compresses entry bundles whether the client asked for it or not.
	Gzip bool
	// Stall waits before it answers, or until the client has gone.
	Stall time.Duration
	// Status answers everything with this status; RetryAfter is sent with it.
	Status     int
	RetryAfter string
	// FailFirst answers the first requests with Status only; 0: all of them.
	FailFirst int
	// HTML answers everything with 200 and a web page.
	HTML bool
	// Endless answers everything with bytes that never end.
	Endless bool
	// Redirect answers everything with a redirect to this address.
	Redirect string
	// Hangup closes the connection in the middle of every answer.
	Hangup bool
}

// NewServer returns a server for the log that behaves well.
func NewServer(l *Log) *Server { return &Server{log: l} }

// Set changes how the server misbehaves.
func (s *Server) Set(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

// Show replaces the log that is served, and the log whose tiles are served
// (nil: the same), as when a fork answers in the place of the log.
func (s *Server) Show(l, tiles *Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log, s.tiles = l, tiles
}

// Requests returns how many requests came in so far.
func (s *Server) Requests() int64 { return s.requests.Load() }

func (s *Server) state() (l, tiles *Log, f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults.FailFirst > 0 {
		s.faults.FailFirst--
		f = s.faults
		if s.faults.FailFirst == 0 {
			s.faults.Status, s.faults.Hangup, s.faults.HTML = 0, false, false
		}
	} else {
		f = s.faults
	}
	tiles = s.tiles
	if tiles == nil {
		tiles = s.log
	}
	return s.log, tiles, f
}

// ServeHTTP serves /api/v2/checkpoint, /api/v2/tile/… and /api/v2/tile/entries/….
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	l, tiles, f := s.state()
	if f.Stall > 0 {
		select {
		case <-time.After(f.Stall):
		case <-r.Context().Done():
			return
		}
	}
	if misbehave(w, r, f) {
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/api/v2/")
	if !ok || r.Method != http.MethodGet {
		http.NotFound(w, r)
		return
	}
	if path == "checkpoint" {
		serveCheckpoint(w, r, l, f)
		return
	}
	level, index, width, err := parseTilePath(path)
	if err != nil || f.NoPartials && width < tileWidth {
		http.NotFound(w, r)
		return
	}
	if level < 0 {
		serveBundle(w, r, tiles, f, index, width)
		return
	}
	body, err := tiles.Tile(uint(level), index, width)
	if err != nil || f.NoTiles {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Write(body)
}

// misbehave answers in the ways that have nothing to do with what was asked.
func misbehave(w http.ResponseWriter, r *http.Request, f Faults) bool {
	switch {
	case f.Hangup:
		hangUp(w)
	case f.Redirect != "":
		http.Redirect(w, r, f.Redirect, http.StatusFound)
	case f.HTML:
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html><body>Service under maintenance</body></html>\n")
	case f.Endless:
		chunk := []byte(strings.Repeat("endless\n", 1<<10))
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				break
			}
		}
	case f.Status != 0:
		if f.RetryAfter != "" {
			w.Header().Set("Retry-After", f.RetryAfter)
		}
		http.Error(w, http.StatusText(f.Status), f.Status)
	default:
		return false
	}
	return true
}

// hangUp promises a long answer, begins it, and closes the connection.
func hangUp(w http.ResponseWriter) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return
	}
	conn, buf, err := hijacker.Hijack()
	if err != nil {
		return
	}
	buf.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ncut off")
	buf.Flush()
	conn.Close()
}

func serveCheckpoint(w http.ResponseWriter, r *http.Request, l *Log, f Faults) {
	size := l.Size()
	if f.Size != nil {
		size = *f.Size
	}
	body, err := l.CheckpointAt(size)
	if f.Checkpoint != nil {
		body, err = f.Checkpoint, nil
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	sum := sha256.Sum256(body)
	etag := `"` + hex.EncodeToString(sum[:8]) + `"`
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "no-cache")
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(body)
}

func serveBundle(w http.ResponseWriter, r *http.Request, l *Log, f Faults, index uint64, width int) {
	var entries [][]byte
	for i := range uint64(width) {
		e, err := l.Entry(index*tileWidth + i)
		if err != nil || f.Missing[index] {
			http.NotFound(w, r)
			return
		}
		if other, ok := f.Swap[index*tileWidth+i]; ok {
			e = other
		}
		entries = append(entries, e)
	}
	body := encodeBundle(entries)
	if cut, ok := f.Truncate[index]; ok {
		body = body[:min(cut, len(body))]
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if !f.Gzip {
		w.Write(body)
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	z.Write(body)
	z.Close()
}

// parseTilePath reads tile/<L>/<N>[.p/<W>]; level -1 stands for "entries".
func parseTilePath(path string) (level int, index uint64, width int, err error) {
	bad := errors.New("not the path of a tile")
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok {
		return 0, 0, 0, bad
	}
	kind, rest, _ := strings.Cut(rest, "/")
	level = -1
	if kind != "entries" {
		if level, err = strconv.Atoi(kind); err != nil || level < 0 || level > 63 {
			return 0, 0, 0, bad
		}
	}
	width = tileWidth
	if name, w, ok := strings.Cut(rest, ".p/"); ok {
		if width, err = strconv.Atoi(w); err != nil || width < 1 || width >= tileWidth {
			return 0, 0, 0, bad
		}
		rest = name
	}
	for _, part := range strings.Split(rest, "/") {
		n, err := strconv.ParseUint(strings.TrimPrefix(part, "x"), 10, 64)
		if err != nil || n > 999 || index > 1<<50 {
			return 0, 0, 0, bad
		}
		index = index*1000 + n
	}
	want := TilePath(uint(max(level, 0)), index, width)
	if level < 0 {
		want = BundlePath(index, width)
	}
	if want != path {
		return 0, 0, 0, bad
	}
	return level, index, width, nil
}
