package witness_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	formatslog "github.com/transparency-dev/formats/log"
	formats "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/internal/bounds"
)

// vectors are those of testdata/vectors that concern witnesses.
type vectors struct {
	Log        struct{ Origin, VKey string }
	First      string `json:"add_checkpoint_first"`
	Grow       string `json:"add_checkpoint_6_to_11"`
	Again      string `json:"add_checkpoint_11_again"`
	Conflict   string `json:"conflict_body_when_witness_is_at_11"`
	Checkpoint string `json:"checkpoint_11"`
	Fork       string `json:"checkpoint_11_fork"`
	Response   string `json:"response_11"`
	Path       string `json:"witness_monitoring_path"`
	Witness    struct {
		Name, VKey string
		SeedOf     string `json:"seed_of"`
		Time       int64
	}
	MLDSA struct {
		Name, VKey string
		SeedOf     string `json:"seed_of"`
		Line       string `json:"signature_line"`
	} `json:"mldsa44"`
}

func load(t *testing.T) (v vectors) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "vectors", "tlog-vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// secret writes the key of which a vector names the seed.
func secret(t *testing.T, name, vkey, seedOf string) string {
	t.Helper()
	_, rest, _ := strings.Cut(vkey, "+")
	id, key, _ := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	seed := sha256.Sum256([]byte(seedOf))
	return "PRIVATE+KEY+" + name + "+" + id + "+" + base64.StdEncoding.EncodeToString(append(raw[:1], seed[:]...))
}

// TestVectors: requests, answers and cosignatures of both algorithms, byte by byte.
func TestVectors(t *testing.T) {
	v := load(t)
	log, err := checkpoint.ForOrigin(v.Log.Origin, v.Log.VKey)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	r.logs[v.Log.Origin] = &witness.Log{Log: log}
	r.now = time.Unix(v.Witness.Time, 0)
	r.opts.Cosigners = nil
	for _, k := range [][3]string{{v.Witness.Name, v.Witness.VKey, v.Witness.SeedOf}, {v.MLDSA.Name, v.MLDSA.VKey, v.MLDSA.SeedOf}} {
		c, err := witness.ParseSecret(secret(t, k[0], k[1], k[2]))
		if err != nil {
			t.Fatal(err)
		}
		if c.Verifier.String() != k[1] {
			t.Errorf("verifier key %s, want %s", c.Verifier, k[1])
		}
		r.opts.Cosigners = append(r.opts.Cosigners, c)
	}
	r.restart()
	for _, text := range []string{v.First, v.Grow, v.Again} {
		req, err := witness.ParseRequest([]byte(text))
		if err != nil || string(req.Format()) != text {
			t.Errorf("%v: %q", err, req.Format())
		}
	}
	r.want(200, []byte(v.First))
	got := r.want(200, []byte(v.Grow))
	if want := v.Response + strings.TrimSuffix(v.MLDSA.Line, "\n") + "\n"; got.Body != want {
		t.Errorf("answer\n%s\nwant\n%s", got.Body, want)
	}
	if a := r.want(409, []byte(v.Grow)); a.Body != v.Conflict {
		t.Errorf("%q, want %q", a.Body, v.Conflict)
	}
	r.want(200, []byte(v.Again))
	if "/"+witness.PathOf(v.Log.Origin)+"/checkpoint" != v.Path {
		t.Errorf("path %s, want %s", witness.PathOf(v.Log.Origin), v.Path)
	}
	r.want(422, (&witness.Request{Old: 11, Note: []byte(v.Fork)}).Format())
	if len(r.forks) != 1 {
		t.Errorf("%d contradictions", len(r.forks))
	}
}

// TestFormats: what we sign verifies with another implementation, and the other way
// round, for both algorithms, with and without extension lines.
func TestFormats(t *testing.T) {
	l := newTree(t, "log.example/one", 50)
	verifier, err := note.NewVerifier(l.key)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []witness.Algorithm{witness.Ed25519, witness.MLDSA44} {
		secret, c, err := witness.GenerateKey("witness.example/w", a)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := formats.NewVerifierForCosignatureV1(c.Verifier.String())
		if err != nil {
			t.Fatal(err)
		}
		signer, err := formats.NewSignerForCosignatureV1(secret)
		if err != nil {
			t.Fatal(err)
		}
		for _, extensions := range [][]string{nil, {"Log frozen \u2014 Mon Jan  5 12:00:00 UTC 2026", "two"}} {
			raw := l.note(t, 42, extensions...)
			cp, err := l.log(t).Open(raw)
			if err != nil {
				t.Fatal(err)
			}
			at := time.Unix(1_800_000_000, 0)
			line, err := c.Cosign(context.Background(), cp, at)
			if err != nil {
				t.Fatal(err)
			}
			_, _, n, err := formatslog.ParseCheckpoint(append(append([]byte(nil), raw...), line...), l.signer.Name(), verifier, theirs)
			if err != nil || len(n.Sigs) != 2 {
				t.Fatalf("%s: %v", a, err)
			}
			for _, s := range n.Sigs {
				if s.Name == c.Name() {
					if seen, err := formats.CoSigV1Timestamp(s); err != nil || !seen.Equal(at) {
						t.Errorf("%s: %s, %v", a, seen, err)
					}
				}
			}
			n, err = note.Open(raw, note.VerifierList(verifier))
			if err != nil {
				t.Fatal(err)
			}
			both, err := note.Sign(n, signer)
			if err != nil {
				t.Fatal(err)
			}
			if seen := witness.Cosignatures(both, c.Verifier); len(seen) != 1 || time.Since(time.Unix(seen[0].At, 0)).Abs() > time.Minute {
				t.Errorf("%s: %+v", a, seen)
			}
		}
	}
}

// TestBadSignatures: no bit of a cosignature, and nothing that it is over, can be
// changed.
func TestBadSignatures(t *testing.T) {
	l := newTree(t, "log.example/one", 50)
	raw := l.note(t, 42)
	cp, err := l.log(t).Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []witness.Algorithm{witness.Ed25519, witness.MLDSA44} {
		_, c, err := witness.GenerateKey("w", a)
		if err != nil {
			t.Fatal(err)
		}
		line, err := c.Cosign(context.Background(), cp, time.Unix(1_800_000_000, 0))
		if err != nil {
			t.Fatal(err)
		}
		signature, err := base64.StdEncoding.DecodeString(strings.Fields(line)[2])
		if err != nil {
			t.Fatal(err)
		}
		signature = signature[4:]
		text := cp.Text()
		if !c.Verify([]byte(text), signature) {
			t.Fatal("does not verify")
		}
		for i := 0; i < len(signature); i += 1 + len(signature)/50 {
			broken := append([]byte(nil), signature...)
			broken[i] ^= 1
			if c.Verify([]byte(text), broken) {
				t.Errorf("%s: byte %d changed, and it verifies", a, i)
			}
		}
		for _, bad := range [][]byte{nil, signature[:len(signature)-1], append(append([]byte(nil), signature...), 0), signature[8:]} {
			if c.Verify([]byte(text), bad) {
				t.Errorf("%s: %d bytes verify", a, len(bad))
			}
		}
		for _, other := range []string{strings.Replace(text, "42", "43", 1), strings.Replace(text, "one", "two", 1), "", "\n", text + "x\n\n"} {
			if c.Verify([]byte(other), signature) {
				t.Errorf("%s: verifies over %q", a, other)
			}
		}
		// Extension lines are under the one, and not under the other (5.3).
		if got := c.Verify([]byte(text+"extension\n"), signature); got != (a == witness.MLDSA44) {
			t.Errorf("%s over an extension: %v", a, got)
		}
		again, err := witness.NewVerifier("other", a, keyBytes(t, c))
		if err != nil {
			t.Fatal(err)
		}
		// The name is under the one, and not under the other (5.2).
		if got := again.Verify([]byte(text), signature); got != (a == witness.Ed25519) {
			t.Errorf("%s under another name: %v", a, got)
		}
	}
}

func keyBytes(t *testing.T, c *witness.Cosigner) []byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(strings.SplitN(c.Verifier.String(), "+", 3)[2])
	if err != nil {
		t.Fatal(err)
	}
	return raw[1:]
}

func TestSecretsStaySecret(t *testing.T) {
	secret, c, err := witness.GenerateKey("witness.example/one", witness.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.SplitN(strings.TrimPrefix(secret, "PRIVATE+KEY+"), "+", 3)
	name, id, key := parts[0], parts[1], parts[2]
	for _, text := range []string{
		"PRIVATE+KEY+" + key + "+" + id + "+" + name, "PRIVATE+KEY+" + name + "+" + key + "+" + id, "PRIVATE+KEY+" + name + "+" + key,
		"PRIVATE+KEY+" + key, key, "PRIVATE+KEY+" + name + "+00000000+" + key, "PRIVATE+KEY+" + name + "+" + id + "+!" + key,
		"PRIVATE+KEY+" + name + " " + key + "+" + id + "+" + key,
	} {
		_, err := witness.ParseSecret(text)
		if err == nil {
			t.Fatalf("%q was taken", text)
		}
		for at := 0; at+8 <= len(key); at++ {
			if strings.Contains(err.Error(), key[at:at+8]) {
				t.Errorf("%q shows what is secret: %v", text, err)
			}
		}
	}
	if got, err := witness.ParseSecret(secret); err != nil || got.String() != c.String() {
		t.Error(err)
	}
}

func TestKeys(t *testing.T) {
	secret, c, err := witness.GenerateKey("w.example/1", witness.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := witness.ParseSecret(secret + "\n"); err != nil || again.Verifier.String() != c.Verifier.String() {
		t.Errorf("%v", err)
	}
	if v, err := witness.ParseVerifier(" " + c.Verifier.String() + "\n"); err != nil || !v.SameKey(c.Verifier) || v.KeyHash() != c.KeyHash() {
		t.Errorf("%v", err)
	}
	// A key as other programs write it, for plain notes.
	plain, vkey, err := note.GenerateKey(nil, "w.example/1")
	if err != nil {
		t.Fatal(err)
	}
	a, err1 := witness.ParseSecret(plain)
	b, err2 := witness.ParseVerifier(vkey)
	if err1 != nil || err2 != nil || a.Verifier.String() != b.String() || a.Algorithm() != witness.Ed25519 {
		t.Errorf("%v, %v", err1, err2)
	}
	cut := secret[:len(secret)-8]
	for _, bad := range []string{"", "PRIVATE", secret[1:], cut, secret + "AAAA", strings.Replace(secret, "w.example", "v.example", 1), strings.Replace(secret, "+Key", "", 1) + "x", "PRIVATE+KEY+w+00000000+AAAA", strings.Repeat("x", 5000)} {
		if _, err := witness.ParseSecret(bad); err == nil || len(cut) > 40 && strings.Contains(err.Error(), cut[len(cut)-20:]) {
			t.Errorf("%.30q: %v", bad, err)
		}
	}
	v := c.Verifier.String()
	for _, bad := range []string{"", "w", "w+1+2", v[1:], v[:len(v)-4], strings.ToUpper(v), v + "\x00", strings.Replace(v, "+", "+0", 1), "w x" + v, "+" + v} {
		if _, err := witness.ParseVerifier(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := witness.NewVerifier(strings.Repeat("x", 256), witness.MLDSA44, make([]byte, 1312)); err == nil {
		t.Error("a name that cannot be signed")
	}
	if _, _, err := witness.GenerateKey("w", 0x05); err == nil {
		t.Error("an unknown algorithm")
	}
}

func FuzzParseRequest(f *testing.F) {
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "vectors", "tlog-vectors.json"))
	if err != nil {
		f.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{v.First, v.Grow, v.Again, "old 0\n\nx", "old 00\n\nx", "old 1\n" + strings.Repeat("A", 43) + "=\n\nx"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		defer bounds.Hold(t)()
		r, err := witness.ParseRequest(body)
		if err != nil {
			return
		}
		if string(r.Format()) != string(body) {
			t.Errorf("%q prints as %q", body, r.Format())
		}
		if len(r.Proof) > 63 {
			t.Errorf("%d hashes", len(r.Proof))
		}
	})
}

func FuzzParseVerifier(f *testing.F) {
	f.Add("witness.example/w1+864ecb78+BIq7TCXCJOjL0ExSzlHso4kpMqPKKGIkMb4+a0fyP06w")
	f.Fuzz(func(t *testing.T, text string) {
		defer bounds.Hold(t)()
		v, err := witness.ParseVerifier(text)
		if err != nil {
			return
		}
		again, err := witness.ParseVerifier(v.String())
		if err != nil || again.String() != v.String() {
			t.Errorf("%q: %v", v, err)
		}
		v.Verify([]byte("x\n1\n"+hex.EncodeToString([]byte(text))+"\n"), []byte(text))
	})
}

// TestMonotone: in a day of an unsteady clock, restarts and lagging senders, no
// cosignature is earlier, or smaller, than one before it.
func TestMonotone(t *testing.T) { testMonotone(t) }
