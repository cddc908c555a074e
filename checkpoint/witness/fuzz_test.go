package witness_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/internal/bounds"
)

// In inputs, $1 and $2 stand for cosignatures and so on that each process makes anew, with keys of its own.

// cosigned makes keys of every algorithm, two checkpoints of a log, and for each of these the lines of the keys.
func cosigned(f *testing.F) (keys []*witness.Verifier, notes [2]checkpoint.Checkpoint, lines [2]string) {
	f.Helper()
	l := newTree(f, "log.example/a", 8)
	for i, size := range []int{7, 8} {
		var err error
		if notes[i], err = l.log(f).Open(l.note(f, size)); err != nil {
			f.Fatal(err)
		}
	}
	for _, a := range []witness.Algorithm{witness.Ed25519, witness.MLDSA44} {
		_, c, err := witness.GenerateKey("witness.example/"+a.String(), a)
		if err != nil {
			f.Fatal(err)
		}
		for i, n := range notes {
			line, err := c.Cosign(f.Context(), n, time.Unix(1_800_000_000, 0))
			if err != nil {
				f.Fatal(err)
			}
			lines[i] += line
		}
		keys = append(keys, c.Verifier)
	}
	return keys, notes, lines
}

// filled puts texts in the places of $1 and so on.
func filled(input []byte, texts ...string) []byte {
	for i, text := range texts {
		input = bytes.ReplaceAll(input, fmt.Appendf(nil, "$%d", i+1), []byte(text))
	}
	return input
}

// FuzzSubmit puts any answer in the place of another witness's: only lines are returned that its key signed,
// and only over the checkpoint that was sent.
func FuzzSubmit(f *testing.F) {
	keys, notes, lines := cosigned(f)
	line, other := lines[0], lines[1]
	f.Add(200, "text/plain", []byte("$1"))
	f.Add(200, "", []byte("$2$1— x AAAA\n\n"))
	f.Add(409, "text/x.tlog.size", []byte("18\n"))
	f.Add(409, "text/plain", []byte("18\n"))
	f.Add(500, "text/plain", []byte(strings.Repeat("x", 2000)))
	f.Fuzz(func(t *testing.T, status int, kind string, answer []byte) {
		defer bounds.Hold(t)()
		answer = filled(answer, line, other)
		client := &http.Client{Transport: answers(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(bytes.NewReader(answer)), Request: r}, nil
		})}
		got, err := witness.Submit(context.Background(), client, "http://witness.example/add-checkpoint", witness.Request{Note: notes[0].Raw()}, keys...)
		var stale *witness.StaleError
		switch {
		case errors.As(err, &stale):
			if text := strings.TrimSuffix(string(answer), "\n"); status != 409 || strconv.FormatUint(stale.Size, 10) != text {
				t.Errorf("%d %q is taken for size %d", status, answer, stale.Size)
			}
		case err == nil:
			for l := range strings.Lines(got) {
				if !strings.Contains(line, l) {
					t.Errorf("a line is taken that was not signed: %q", l)
				}
			}
		}
	})
}

// answers carries requests in place of the network.
type answers func(*http.Request) (*http.Response, error)

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzCosignatures: of notes of any form those lines count that a witness signed.
func FuzzCosignatures(f *testing.F) {
	keys, notes, all := cosigned(f)
	body, lines := notes[0].Text(), all[0]
	f.Add([]byte("$1\n$2"))
	f.Add([]byte("$1\n$2$2"))
	f.Add([]byte("$1\n— log.example/a AAAAAAAA\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		defer bounds.Hold(t)()
		raw = filled(raw, body, lines)
		for _, s := range witness.Cosignatures(raw, keys...) {
			signed := body + "\n"
			if s.By.Algorithm() == witness.MLDSA44 {
				signed = body // the tree alone: extension lines may follow
			}
			if !bytes.HasPrefix(raw, []byte(signed)) || s.At != 1_800_000_000 {
				t.Errorf("a cosignature of %s at %s is seen in %q", s.By, time.Unix(s.At, 0), raw)
			}
		}
	})
}

// FuzzParseSecret: whatever is read as a signing key signs, and what is not is not repeated in the error.
func FuzzParseSecret(f *testing.F) {
	_, notes, _ := cosigned(f)
	var secrets []string
	for _, a := range []witness.Algorithm{witness.Ed25519, witness.MLDSA44} {
		secret, _, err := witness.GenerateKey("witness.example/w", a)
		if err != nil {
			f.Fatal(err)
		}
		secrets = append(secrets, secret)
	}
	for _, text := range []string{"$1", "$2", "$1A", "+$1", "PRIVATE+KEY+x+00000000+AAAA"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		defer bounds.Hold(t)()
		text = string(filled([]byte(text), secrets...))
		c, err := witness.ParseSecret(text)
		if err != nil {
			for _, s := range append(secrets, text) {
				key := s[strings.LastIndexByte(s, '+')+1:]
				for i := 0; i+12 <= len(key) && len(key) > 40; i++ {
					if strings.Contains(err.Error(), key[i:i+12]) {
						t.Fatalf("the error has %q of the secret", key[i:i+12])
					}
				}
			}
			return
		}
		line, err := c.Cosign(t.Context(), notes[0], time.Unix(1, 0))
		if err != nil || len(witness.Cosignatures([]byte(notes[0].Text()+"\n"+line), c.Verifier)) != 1 {
			t.Fatalf("the key of %q signs what does not verify: %v", text, err)
		}
	})
}
