package witness

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// Bounds of an add-checkpoint request (C2SP tlog-witness).
const (
	// maxProof is how many hashes a consistency proof may have.
	maxProof = 63
	// MaxRequest bounds the bytes of a request: the note, the proof and the first
	// line.
	MaxRequest = checkpoint.MaxSize + (maxProof+2)*64
)

// ErrRequest says that bytes are no add-checkpoint request.
var ErrRequest = errors.New("not an add-checkpoint request")

// Request is an add-checkpoint request; nothing in it is verified.
type Request struct {
	// Old is the size that the witness is taken to have seen, Proof the RFC 6962
	// consistency proof from it, Note the signed checkpoint to its last byte.
	Old   uint64
	Proof [][]byte
	Note  []byte
}

// Origin returns the first line of the note.
func (r *Request) Origin() string {
	first, _, _ := bytes.Cut(r.Note, []byte("\n"))
	return string(first)
}

// ParseRequest reads a request strictly: what it parsed prints as what it read. Its
// errors are ErrRequest.
func ParseRequest(body []byte) (r Request, err error) {
	bad := func(format string, args ...any) (Request, error) {
		return Request{}, fmt.Errorf("%w: %s", ErrRequest, fmt.Sprintf(format, args...))
	}
	// SPEC: tlog-witness: the first empty line ends the proof; the note has another.
	head, rest, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok {
		return bad("there is no empty line behind the proof")
	}
	lines := strings.Split(string(head), "\n")
	text, ok := strings.CutPrefix(lines[0], "old ")
	if !ok {
		return bad("the first line is not of the form \"old SIZE\"")
	}
	old, ok := size(text)
	if !ok {
		return bad("the old size %.30q is not a canonical number below 2^63", text)
	}
	if r.Proof, err = proofLines(lines[1:]); err != nil {
		return bad("%v", err)
	}
	if len(rest) == 0 {
		return bad("there is no checkpoint")
	}
	r.Old, r.Note = old, rest
	return r, nil
}

// Format returns the bytes of a request.
func (r *Request) Format() []byte {
	return append(append(appendProof(fmt.Appendf(nil, "old %d\n", r.Old), r.Proof), '\n'), r.Note...)
}

// proofLines reads the lines of a proof, a hash in each.
func proofLines(lines []string) (proof [][]byte, err error) {
	if len(lines) > maxProof {
		return nil, fmt.Errorf("%d proof lines, at most %d are allowed", len(lines), maxProof)
	}
	for i, line := range lines {
		hash, ok := hashLine(line)
		if !ok {
			return nil, fmt.Errorf("proof line %d is not base64 of %d bytes", i+1, checkpoint.HashSize)
		}
		proof = append(proof, hash)
	}
	return proof, nil
}

func hashLine(line string) ([]byte, bool) {
	hash, err := base64.StdEncoding.Strict().DecodeString(line)
	return hash, err == nil && len(hash) == checkpoint.HashSize && base64.StdEncoding.EncodeToString(hash) == line
}

func appendProof(out []byte, proof [][]byte) []byte {
	for _, h := range proof {
		out = append(base64.StdEncoding.AppendEncode(out, h), '\n')
	}
	return out
}

// size reads a canonical number below 2^63.
func size(text string) (uint64, bool) {
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil && n <= math.MaxInt64 && strconv.FormatUint(n, 10) == text
}
