package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// checkpointSize bounds a signed note (wire-formats 7.2).
const checkpointSize = 64 << 10

// What strangers may ask together: a fifth of that is for each network, so that none keeps
// the others out. A checkpoint that is compared may cost the log some requests.
const (
	asksPerSecond = 10
	asksAtOnce    = 50
	asksTogether  = 4
)

// network is what the callers of one are told by: an address, or the /64 of it.
func network(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	a := at.Addr().Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

// hear answers whoever asks whether the tree that he has seen is the one that is seen
// here. The request is a signed note as it is. Nobody needs a token for that: only what
// a log has signed is looked at.
func (s *Server) hear(w http.ResponseWriter, r *http.Request) {
	if !s.asking.allow(network(r.RemoteAddr)) || !s.all.Allow() {
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
	select {
	case s.hearing <- struct{}{}:
		defer func() { <-s.hearing }()
	case <-ctx.Done():
		tooMany(w)
		return
	}
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
