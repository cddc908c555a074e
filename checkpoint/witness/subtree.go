package witness

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// Bounds of a sign-subtree request (C2SP tlog-witness).
const (
	// maxSubtreeLines is how many cosignatures of the subtree may come with it, and how
	// many signatures the checkpoint may have.
	maxSubtreeLines = 8
	// MaxSubtreeRequest bounds the bytes of a request.
	MaxSubtreeRequest = MaxRequest + maxSubtreeLines*4<<10
)

// ErrSubtreeRequest says that bytes are no sign-subtree request.
var ErrSubtreeRequest = errors.New("not a sign-subtree request")

// SubtreeRequest asks for a signature over a subtree; nothing in it is verified.
type SubtreeRequest struct {
	Subtree checkpoint.Subtree
	Hash    checkpoint.Hash
	// Lines are cosignatures of the subtree, as they stand there.
	Lines []string
	// Proof leads from the subtree to the tree of the checkpoint
	// (checkpoint.VerifySubtree).
	Proof [][]byte
	// Note is the checkpoint, or its text alone: without signatures and without the empty
	// line before them.
	Note []byte
}

// ParseSubtreeRequest reads a request strictly: what it parsed prints as what it read. Its
// errors are ErrSubtreeRequest.
func ParseSubtreeRequest(body []byte) (r SubtreeRequest, err error) {
	bad := func(format string, args ...any) (SubtreeRequest, error) {
		return SubtreeRequest{}, fmt.Errorf("%w: %s", ErrSubtreeRequest, fmt.Sprintf(format, args...))
	}
	head, rest, ok := bytes.Cut(body, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !ok || len(lines) < 2 {
		return bad("there is no empty line behind a range, a hash and a proof")
	}
	text, ok := strings.CutPrefix(lines[0], "subtree ")
	from, to, ok2 := strings.Cut(text, " ")
	start, ok3 := size(from)
	end, ok4 := size(to)
	if !ok || !ok2 || !ok3 || !ok4 {
		return bad("the first line is not of the form \"subtree START END\", with canonical numbers below 2^63")
	}
	hash, ok := hashLine(lines[1])
	if !ok {
		return bad("the second line is not base64 of the %d bytes of a hash", checkpoint.HashSize)
	}
	r.Subtree, r.Hash, lines = checkpoint.Subtree{Start: start, End: end}, checkpoint.Hash(hash), lines[2:]
	for len(lines) > 0 && strings.HasPrefix(lines[0], "\u2014") {
		if !signatureLine(lines[0]) {
			return bad("cosignature line %d is not of the form \"\u2014 NAME BASE64\"", len(r.Lines)+1)
		}
		r.Lines, lines = append(r.Lines, lines[0]), lines[1:]
	}
	if len(r.Lines) > maxSubtreeLines {
		return bad("%d cosignatures of the subtree, at most %d are allowed", len(r.Lines), maxSubtreeLines)
	}
	if r.Proof, err = proofLines(lines); err != nil {
		return bad("%v", err)
	}
	signed, signatures, ok := bytes.Cut(rest, []byte("\n\n"))
	if ok && bytes.Count(signatures, []byte("\n")) > maxSubtreeLines {
		return bad("the checkpoint has more than %d signatures", maxSubtreeLines)
	}
	if len(signed) == 0 || !bytes.HasSuffix(rest, []byte("\n")) {
		return bad("there is no checkpoint, or no line feed at its end")
	}
	r.Note = rest
	return r, nil
}

// text is what the checkpoint says.
func (r *SubtreeRequest) text() string {
	text, _, _ := strings.Cut(string(r.Note), "\n\n")
	return strings.TrimSuffix(text, "\n") + "\n"
}

// Format returns the bytes of a request.
func (r *SubtreeRequest) Format() []byte {
	out := fmt.Appendf(nil, "subtree %d %d\n%s\n", r.Subtree.Start, r.Subtree.End, base64.StdEncoding.EncodeToString(r.Hash[:]))
	for _, line := range r.Lines {
		out = append(append(out, line...), '\n')
	}
	return append(append(appendProof(out, r.Proof), '\n'), r.Note...)
}

func signatureLine(line string) bool {
	words := strings.Split(line, " ")
	if len(words) != 3 || words[0] != "\u2014" || !validName(words[1]) {
		return false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(words[2])
	return err == nil && len(raw) > 4 && base64.StdEncoding.EncodeToString(raw) == words[2]
}

// SignSubtree decides about a sign-subtree request. What is signed lies in a tree that was
// co-signed before, and has no time: it says nothing new about the log, and moves nothing.
func (w *Witness) SignSubtree(ctx context.Context, body []byte) Answer {
	req, err := ParseSubtreeRequest(body)
	if err != nil {
		return answer(badRequest, "%v", err)
	}
	origin, size, root, err := checkpoint.ParseText(req.text())
	if err != nil {
		return answer(badRequest, "%v", err)
	}
	log := w.opts.Log(origin)
	switch {
	case log == nil:
		return answer(notFound, "this witness does not know the log with that origin")
	case !w.opts.Subtrees():
		a := answer(tooMany, "more subtrees were sent than this witness signs")
		a.Again = time.Second
		return a
	case req.Subtree.Start >= req.Subtree.End || req.Subtree.End > size:
		return answer(badRequest, "[%d, %d) does not lie in a tree of size %d", req.Subtree.Start, req.Subtree.End, size)
	}
	if a, ok := w.signedBefore(ctx, origin, log, size, root, req.Note); !ok {
		return a
	}
	if err := checkpoint.VerifySubtree(size, root, req.Subtree, req.Hash, req.Proof); err != nil {
		return answer(unprocessable, "%v", err)
	}
	var lines strings.Builder
	for _, k := range w.opts.Cosigners {
		if k.algorithm != MLDSA44 || !k.can(origin) {
			continue // the messages of Ed25519 cannot say what is a subtree
		}
		line, err := k.cosignSubtree(ctx, origin, req.Subtree, req.Hash)
		if err != nil {
			return w.broken("a subtree cannot be signed", origin, err)
		}
		lines.WriteString(line)
	}
	if lines.Len() == 0 {
		return answer(badRequest, "an origin of %d bytes cannot be signed with the keys of this witness", len(origin))
	}
	return Answer{Status: ok, Body: lines.String()}
}

// signedBefore reports whether a tree is one that this witness has co-signed: the newest
// one, or one with a cosignature of ours on it. Otherwise it returns the answer, where it
// can the checkpoint that would do.
func (w *Witness) signedBefore(ctx context.Context, origin string, log *Log, size uint64, root checkpoint.Hash, raw []byte) (Answer, bool) {
	state, err := w.opts.Store.State(ctx, origin)
	if err != nil {
		return w.broken("the state of the log cannot be read", origin, err), false
	}
	if state.Doubt != "" {
		return doubted(state.Doubt), false
	}
	// Without a time it is that of a subtree.
	ours := slices.ContainsFunc(Cosignatures(raw, w.verifiers()...), func(s Seen) bool { return s.At != 0 })
	if c, err := log.Open(raw); ours && err == nil && !w.Look(ctx, c) {
		return answer(unavailable, "nothing of this log is signed until the operator of the witness has looked"), false
	}
	newest := state.Note != nil && size == state.Size && root == state.Root
	// What is larger than the state is for add-checkpoint, whoever has signed it.
	if !newest && (!ours || size >= state.Size) {
		a := w.Latest(ctx, origin)
		if a.Status == http.StatusOK {
			a.Status = conflict
		}
		return a, false
	}
	if log.Refuse == nil {
		return Answer{}, true
	}
	c, err := log.Open(state.Note)
	if err != nil {
		return w.broken("the checkpoint that was signed last cannot be read with the log's key of today", origin, err), false
	}
	if reason, again := log.Refuse(ctx, c); reason != "" {
		a := answer(unavailable, "%s", reason)
		a.Again = again
		return a, false
	}
	return Answer{}, true
}
