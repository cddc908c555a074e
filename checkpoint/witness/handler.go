package witness

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// timeOf returns the time of a signature line that was verified.
func timeOf(s note.Signature) (int64, bool) {
	raw, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil || len(raw) < 4+timeSize {
		return 0, false
	}
	at := binary.BigEndian.Uint64(raw[4:])
	return int64(at), at <= math.MaxInt64
}

// fresh is how old the cosignature of the monitoring endpoint may be. SPEC:
// tlog-witness: at most an hour.
const fresh = 45 * time.Minute

// Handler serves the protocol below a prefix, which is empty or begins with a slash.
func (w *Witness) Handler(prefix string) http.Handler {
	mux := http.NewServeMux()
	prefix = strings.TrimRight(prefix, "/")
	mux.HandleFunc("POST "+prefix+"/add-checkpoint", decided(MaxRequest, w.Add))
	if w.opts.Subtrees != nil {
		mux.HandleFunc("POST "+prefix+"/sign-subtree", decided(MaxSubtreeRequest, w.SignSubtree))
	}
	mux.HandleFunc("GET "+prefix+"/{log}/checkpoint", w.checkpoint)
	mux.HandleFunc("GET "+prefix+"/witness", w.about)
	return mux
}

// decided serves requests whose bodies are bounded.
func decided(limit int64, decide func(context.Context, []byte) Answer) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, limit))
		if err != nil {
			var large *http.MaxBytesError
			if errors.As(err, &large) {
				reply(rw, Answer{Status: http.StatusRequestEntityTooLarge, Body: fmt.Sprintf("the request is larger than %d bytes\n", limit)})
				return
			}
			reply(rw, answer(badRequest, "the request cannot be read"))
			return
		}
		// Whoever asks may go away in between: what was begun is done.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Minute)
		defer cancel()
		reply(rw, decide(ctx, body))
	}
}

func reply(rw http.ResponseWriter, a Answer) {
	h := rw.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if a.Type != "" {
		h.Set("Content-Type", a.Type)
	}
	if a.Again > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((a.Again+time.Second-1)/time.Second), 10))
	}
	rw.WriteHeader(a.Status)
	io.WriteString(rw, a.Body)
}

func (w *Witness) about(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.Header().Set("X-Content-Type-Options", "nosniff")
	io.WriteString(rw, w.opts.About)
}

// PathOf is the name of a log in the paths of a monitoring endpoint.
func PathOf(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return hex.EncodeToString(sum[:])
}

func (w *Witness) checkpoint(rw http.ResponseWriter, r *http.Request) {
	origin, known := w.opts.ByPath(r.PathValue("log"))
	if !known {
		reply(rw, answer(notFound, "this witness knows no log of that name"))
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Minute)
	defer cancel()
	reply(rw, w.Latest(ctx, origin))
}

// Latest returns the newest checkpoint that was co-signed of a log, with our
// cosignatures.
func (w *Witness) Latest(ctx context.Context, origin string) Answer {
	log := w.opts.Log(origin)
	if log == nil {
		return answer(notFound, "this witness does not know the log")
	}
	s := w.of(origin)
	s.Lock()
	state, err := w.opts.Store.State(ctx, origin)
	ageOf := func() (time.Duration, bool) {
		return w.opts.Now().Sub(time.Unix(s.at, 0)), s.lines == "" || s.size != state.Size || s.at != state.At
	}
	age, stale := ageOf()
	s.Unlock()
	// What speaks against signing is asked for without the lock: whoever answers may look
	// at other checkpoints of the log.
	reason := ""
	if err == nil && state.Note != nil && log.Refuse != nil && (stale || age > fresh) {
		var c checkpoint.Checkpoint
		if c, err = log.Open(state.Note); err == nil {
			reason, _ = log.Refuse(ctx, c)
		}
	}
	s.Lock()
	defer s.Unlock()
	if err == nil {
		state, err = w.opts.Store.State(ctx, origin)
	}
	if err != nil {
		return w.broken("the state of the log cannot be read", origin, err)
	}
	if state.Note == nil {
		return answer(notFound, "nothing of this log was signed yet")
	}
	c, err := log.Open(state.Note)
	if err != nil {
		return w.broken("the checkpoint that was signed last cannot be read with the log's key of today", origin, err)
	}
	if state.Doubt != "" {
		reason = state.Doubt
	}
	// It may have been signed meanwhile.
	age, stale = ageOf()
	switch {
	case reason != "" && (stale || age > time.Hour):
		return answer(notFound, "there is no cosignature of this log: %s", reason)
	case reason == "" && (stale || age > fresh):
		if a := w.sign(ctx, origin, s, log, c, state); a.Status != ok {
			return a
		}
	}
	return Answer{Status: ok, Body: string(withLines(c.Raw(), s.lines))}
}

// withLines adds cosignature lines to a signed note. A line of the same key that is there
// already, from an earlier time, would be read in their place.
func withLines(raw []byte, lines string) []byte {
	text, signatures, _ := strings.Cut(string(raw), "\n\n")
	out := []byte(text + "\n\n")
	for line := range strings.Lines(signatures) {
		if !slices.ContainsFunc(strings.Split(lines, "\n"), func(l string) bool { return l != "" && sameKey(line, l) }) {
			out = append(out, line...)
		}
	}
	return append(out, lines...)
}

// sameKey reports whether two signature lines say that they are of one key.
func sameKey(a, b string) bool {
	id := func(line string) string {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3)
		if len(fields) < 3 || len(fields[2]) < 8 {
			return line
		}
		raw, err := base64.StdEncoding.DecodeString(fields[2][:8])
		if err != nil {
			return line
		}
		return fields[1] + string(raw[:4])
	}
	return id(a) == id(b)
}
