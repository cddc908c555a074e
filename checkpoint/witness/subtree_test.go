package witness_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/internal/bounds"
)

// subtree is a request for [start, end) in the tree of a size. A start other than 0 must
// be one of a single leaf, or of a perfect subtree: its proof is then an audit path.
func (l *tree) subtree(t testing.TB, start, end, size int, note []byte) *witness.SubtreeRequest {
	t.Helper()
	l.mu.Lock()
	r := &witness.SubtreeRequest{Subtree: checkpoint.Subtree{Start: uint64(start), End: uint64(end)}, Hash: l.hash(start, end), Note: note}
	var path func(from, to int) [][]byte
	path = func(from, to int) [][]byte {
		if from == start && to == end {
			return nil
		}
		k := split(to - from)
		if end <= from+k {
			h := l.hash(from+k, to)
			return append(path(from, from+k), h[:])
		}
		h := l.hash(from, from+k)
		return append(path(from+k, to), h[:])
	}
	if n := end - start; start > 0 && n > 0 && n&(n-1) == 0 && start%n == 0 {
		r.Proof = path(0, size)
	}
	l.mu.Unlock()
	if start == 0 {
		r.Proof = l.proof(end, size)
	}
	return r
}

func TestSignSubtree(t *testing.T) {
	l, unknown := newTree(t, "log.example/one", 300), newTree(t, "log.example/two", 10)
	r := newRig(t, l)
	allowed := true
	r.opts.Subtrees = func() bool { return allowed }
	r.restart()
	ts := httptest.NewServer(r.witness.Handler("/w1"))
	defer ts.Close()
	post := func(body []byte) (int, string, string) {
		resp, err := http.Post(ts.URL+"/w1/sign-subtree", "", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		out, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, resp.Header.Get("Content-Type"), string(out)
	}
	textOf := func(size int) []byte { // without signatures
		text, _, _ := strings.Cut(string(l.note(t, size)), "\n\n")
		return []byte(text + "\n")
	}
	if status, _, text := post(l.subtree(t, 0, 8, 100, textOf(100)).Format()); status != 404 || !strings.Contains(text, "nothing of this log was signed") {
		t.Errorf("before anything was signed: %d %s", status, text)
	}
	first := r.want(200, l.request(t, 0, 100))
	r.now = r.now.Add(time.Minute)
	r.want(200, l.request(t, 100, 200))
	cosigned := append(l.note(t, 100), first.Body...)
	ours := strings.SplitAfter(first.Body, "\n")

	wrong := l.subtree(t, 8, 16, 200, textOf(200))
	wrong.Hash[3] ^= 1
	many := l.subtree(t, 8, 16, 200, textOf(200))
	for range 9 {
		many.Lines = append(many.Lines, "\u2014 someone AAAAAAA=")
	}
	long := l.subtree(t, 8, 16, 200, textOf(200))
	for range 64 {
		long.Proof = append(long.Proof, make([]byte, 32))
	}
	line := string(l.note(t, 200))
	line = line[strings.LastIndex(line, "\u2014"):]
	for name, tc := range map[string]struct {
		body   []byte
		status int
		answer string
	}{
		"empty":                           {nil, 400, "empty line"},
		"add-checkpoint":                  {l.request(t, 100, 200), 400, "sign-subtree"},
		"no hash":                         {[]byte("subtree 0 8\n\n" + string(textOf(200))), 400, "empty line"},
		"a leading zero":                  {[]byte(strings.Replace(string(l.subtree(t, 0, 8, 200, textOf(200)).Format()), "subtree 0 8", "subtree 00 8", 1)), 400, "canonical"},
		"nine cosignatures":               {many.Format(), 400, "at most 8"},
		"a line that is no signature":     {[]byte(strings.Replace(string(many.Format()), "\u2014 someone AAAAAAA=", "\u2014 someone", 1)), 400, "cosignature line 1"},
		"too many proof lines":            {long.Format(), 400, "at most 63"},
		"nine signatures":                 {l.subtree(t, 8, 16, 200, append(textOf(200), "\n"+strings.Repeat(line, 9)...)).Format(), 400, "more than 8"},
		"no checkpoint":                   {l.subtree(t, 8, 16, 200, nil).Format(), 400, "no checkpoint"},
		"a checkpoint of one line":        {l.subtree(t, 8, 16, 200, []byte("log.example/one\n")).Format(), 400, "lines"},
		"nothing":                         {l.subtree(t, 8, 8, 200, textOf(200)).Format(), 400, "does not lie"},
		"beyond the tree":                 {l.subtree(t, 0, 201, 300, textOf(200)).Format(), 400, "does not lie"},
		"an unknown log":                  {unknown.subtree(t, 0, 1, 10, unknown.note(t, 10)).Format(), 404, "does not know"},
		"another hash":                    {wrong.Format(), 422, "verify"},
		"no subtree":                      {l.subtree(t, 7, 9, 200, textOf(200)).Format(), 422, "no subtree"},
		"the newest, without signatures":  {l.subtree(t, 8, 16, 200, textOf(200)).Format(), 200, "ml-dsa-44"},
		"the newest, with the log's":      {l.subtree(t, 0, 77, 200, l.note(t, 200)).Format(), 200, "ml-dsa-44"},
		"all of it":                       {l.subtree(t, 0, 200, 200, textOf(200)).Format(), 200, "ml-dsa-44"},
		"an older one that we signed":     {l.subtree(t, 64, 96, 100, cosigned).Format(), 200, "ml-dsa-44"},
		"with our line alone":             {l.subtree(t, 64, 96, 100, append(textOf(100), "\n"+ours[1]...)).Format(), 200, "ml-dsa-44"},
		"an older one that we did not":    {l.subtree(t, 64, 96, 100, l.note(t, 100)).Format(), 409, "\n200\n"},
		"an older one, another's line":    {l.subtree(t, 64, 96, 100, []byte(string(textOf(100))+"\n"+strings.Replace(ours[1], "witness.example", "witness.another", 1))).Format(), 409, "\n200\n"},
		"our line below another tree":     {l.subtree(t, 64, 96, 120, append(textOf(120), "\n"+ours[1]...)).Format(), 409, "\n200\n"},
		"a larger one":                    {l.subtree(t, 64, 96, 300, l.note(t, 300)).Format(), 409, "\n200\n"},
		"a body that is too large for it": {l.subtree(t, 8, 16, 200, bytes.Repeat([]byte("x"), witness.MaxSubtreeRequest)).Format(), 413, "larger"},
	} {
		status, kind, text := post(tc.body)
		if status != tc.status || !strings.Contains(text, tc.answer) || !strings.HasPrefix(kind, "text/plain") {
			t.Errorf("%s: %d %s %q, want %d %q", name, status, kind, text, tc.status, tc.answer)
		}
		if status == 200 && !checkLine(r, tc.body, text) {
			t.Errorf("%s: what was signed does not verify", name)
		}
		if status == 409 && len(r.times([]byte(text), "")) != 2 {
			t.Errorf("%s: what is known is not co-signed", name)
		}
	}
	// It moves nothing.
	if s, err := r.store.State(context.Background(), "log.example/one"); err != nil || s.Size != 200 || s.Doubt != "" {
		t.Errorf("%+v, %v", s, err)
	}
	allowed = false
	body := l.subtree(t, 8, 16, 200, textOf(200)).Format()
	if status, _, text := post(body); status != 429 {
		t.Errorf("too often: %d %s", status, text)
	}
	allowed = true
	r.logs["log.example/one"].Refuse = func(context.Context, checkpoint.Checkpoint) (string, time.Duration) { return "the log is halted", 0 }
	if status, _, text := post(body); status != 503 || !strings.Contains(text, "halted") {
		t.Errorf("of a halted log: %d %s", status, text)
	}
	r.logs["log.example/one"].Refuse = nil
	if err := r.store.Doubt(context.Background(), "log.example/one", "a reason", witness.State{}); err != nil {
		t.Fatal(err)
	}
	if status, _, text := post(body); status != 503 || !strings.Contains(text, "a reason") {
		t.Errorf("of a doubted log: %d %s", status, text)
	}
}

// checkLine reports whether an answer is a cosignature of the subtree of a request, and of
// no other one.
func checkLine(r *rig, body []byte, line string) bool {
	req, err := witness.ParseSubtreeRequest(body)
	k := r.opts.Cosigners[1].Verifier
	if err != nil || strings.Count(line, "\n") != 1 {
		return false
	}
	other := req.Subtree
	other.End++
	return k.VerifySubtree(line, "log.example/one", req.Subtree, req.Hash) && !k.VerifySubtree(line, "log.example/one", other, req.Hash) &&
		!k.VerifySubtree(line, "log.example/two", req.Subtree, req.Hash) && !k.VerifySubtree(line, "log.example/one", req.Subtree, checkpoint.Hash{}) &&
		!r.opts.Cosigners[0].VerifySubtree(line, "log.example/one", req.Subtree, req.Hash)
}

// TestSubtreeRestored: a cosignature of ours that is larger than the state ends the
// signing of the log, wherever it comes from.
func TestSubtreeRestored(t *testing.T) {
	l := newTree(t, "log.example/one", 300)
	r := newRig(t, l)
	r.opts.Subtrees = func() bool { return true }
	r.restart()
	lost := newRig(t, l)
	lost.opts.Cosigners = r.opts.Cosigners
	lost.restart()
	later := lost.want(200, l.request(t, 0, 200))
	r.want(200, l.request(t, 0, 100))
	a := r.witness.SignSubtree(context.Background(), l.subtree(t, 8, 16, 200, append(l.note(t, 200), later.Body...)).Format())
	if a.Status != 503 || len(r.doubts) != 1 {
		t.Errorf("%d %s, %d doubts", a.Status, a.Body, len(r.doubts))
	}
}

// TestSubtreeKeys: Ed25519 cannot sign what is a subtree.
func TestSubtreeKeys(t *testing.T) {
	r := newRig(t, newTree(t, "log.example/one", 3))
	ts := httptest.NewServer(r.witness.Handler(""))
	defer ts.Close()
	resp, err := http.Post(ts.URL+"/sign-subtree", "", nil)
	if err != nil || resp.StatusCode != 404 {
		t.Errorf("where it is off: %v, %v", resp, err)
	}
	opts := r.opts
	opts.Store, opts.Subtrees, opts.Cosigners = r.store, func() bool { return true }, opts.Cosigners[:1]
	if _, err := witness.New(opts); err == nil || !strings.Contains(err.Error(), "ML-DSA-44") {
		t.Error(err)
	}
}

// FuzzParseSubtreeRequest: what was parsed prints as what was read.
func FuzzParseSubtreeRequest(f *testing.F) {
	hash := base64.StdEncoding.EncodeToString(make([]byte, 32))
	f.Add([]byte("subtree 8 13\n" + hash + "\n\u2014 x AAAAAAA=\n" + hash + "\n\nlog.example\n14\n" + hash + "\n"))
	f.Add([]byte("subtree 0 1\n" + hash + "\n\nlog.example\n1\n" + hash + "\n\n\u2014 x AAAAAAA=\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		defer bounds.Hold(t)()
		r, err := witness.ParseSubtreeRequest(body)
		if err != nil {
			return
		}
		if !bytes.Equal(r.Format(), body) {
			t.Fatalf("%q prints as %q", body, r.Format())
		}
		if len(r.Lines) > 8 || len(r.Proof) > 63 {
			t.Fatal("a bound does not hold")
		}
	})
}

// TestSubtreeOfOthers holds our proofs and signatures against other implementations: an
// audit path is a proof of one leaf.
func TestSubtreeOfOthers(t *testing.T) {
	l := newTree(t, "log.example/one", 90)
	root := l.root(90)
	for i := range 90 {
		q := l.subtree(t, i, i+1, 90, nil)
		if i == 0 {
			continue // there it is written as a consistency proof
		}
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(i), 90, q.Hash[:], q.Proof, root[:]); err != nil {
			t.Fatal(err)
		}
		if err := checkpoint.VerifySubtree(90, root, q.Subtree, q.Hash, q.Proof); err != nil {
			t.Fatal(err)
		}
	}
}
