package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// checkpointSize bounds a signed note (wire-formats 7.2).
const checkpointSize = 64 << 10

// hear answers whoever asks whether the tree that he has seen is the one that is seen
// here. The request is a signed note as it is. Nobody needs a token for that: only what
// a log has signed is looked at.
func (s *Server) hear(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if !s.asking.allow(host) || !s.asking.allow("") {
		tooMany(w)
		return
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, checkpointSize))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		problem(w, http.StatusRequestEntityTooLarge, "a signed checkpoint has 65536 bytes at most")
		return
	}
	if err != nil {
		problem(w, http.StatusBadRequest, "the request cannot be read")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	defer cancel()
	c, err := s.opts.Hear(ctx, raw)
	switch {
	case errors.Is(err, monitor.ErrNotCheckpoint):
		c = monitor.Comparison{Verdict: monitor.HeardUnknown, Why: "it is " + monitor.ErrNotCheckpoint.Error()}
	case err != nil:
		s.opts.Log.Error("a checkpoint could not be compared", "error", err)
		problem(w, http.StatusServiceUnavailable, "it could not be compared; the log of the server says why")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(c)
}
