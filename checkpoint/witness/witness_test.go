package witness_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
)

// post sends a request over real HTTP.
func (r *rig) post(url string, body []byte) (status int, header http.Header, text string) {
	r.t.Helper()
	resp, err := http.Post(url+"/add-checkpoint", "", strings.NewReader(string(body)))
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(out)
}

// TestEveryRow is the table of C2SP tlog-witness, add-checkpoint: each row with the bytes
// of the request and the answer.
func TestEveryRow(t *testing.T) {
	l := newTree(t, "log.example/one", 300)
	stranger := newTree(t, "log.example/one", 300) // same origin, another key
	unknown := newTree(t, "log.example/two", 10)
	r := newRig(t, l)
	ts := httptest.NewServer(r.witness.Handler("/w1"))
	defer ts.Close()
	url := ts.URL + "/w1"
	if status, _, text := r.post(url, l.request(t, 0, 100)); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	root := l.root(100)
	hash := base64.StdEncoding.EncodeToString(root[:])
	body := func(head string, note []byte) []byte { return append([]byte(head), note...) }
	// A line of the log's key that does not verify makes the whole note invalid, though
	// one behind it does.
	good, other := string(l.note(t, 120)), string(l.note(t, 121))
	line := func(note string) string { return note[strings.LastIndex(note, "\u2014"):] }
	badLine := strings.TrimSuffix(good, line(good)) + line(other) + line(good)
	for name, tc := range map[string]struct {
		body   []byte
		status int
		answer string
	}{
		"1 empty":                       {nil, 400, "empty line"},
		"1 no old line":                 {body("\n", l.note(t, 120)), 400, "old SIZE"},
		"1 old without a size":          {body("old \n\n", l.note(t, 120)), 400, "canonical"},
		"1 leading zero":                {body("old 0100\n\n", l.note(t, 120)), 400, "canonical"},
		"1 a sign":                      {body("old +100\n\n", l.note(t, 120)), 400, "canonical"},
		"1 beyond 2^63":                 {body("old 9223372036854775808\n\n", l.note(t, 120)), 400, "canonical"},
		"1 carriage returns":            {body("old 100\r\n\r\n", l.note(t, 120)), 400, ""},
		"1 a short hash":                {body("old 100\nAAAA\n\n", l.note(t, 120)), 400, "proof line 1"},
		"1 a hash that is no base64":    {body("old 100\n"+hash[:43]+"!\n\n", l.note(t, 120)), 400, "proof line 1"},
		"1 a hash of other base64":      {body("old 100\n"+hash[:42]+"9=\n\n", l.note(t, 120)), 400, "proof line 1"},
		"1 a carriage return in a hash": {body("old 100\n"+hash+"\r\n\n", l.note(t, 120)), 400, "proof line 1"},
		"1 64 proof lines":              {body("old 100\n"+strings.Repeat(hash+"\n", 64)+"\n", l.note(t, 120)), 400, "64 proof lines"},
		"1 no checkpoint":               {body("old 100\n\n", nil), 400, "no checkpoint"},
		"1 no empty line":               {body("old 100\n", []byte("log.example/one\n")), 400, "empty line"},
		"1 a checkpoint of two lines":   {body("old 100\n\n", l.sign(t, "log.example/one\n120\n")), 400, "lines"},
		"1 a size with a leading zero":  {body("old 100\n\n", l.sign(t, "log.example/one\n0120\n"+hash+"\n")), 400, "canonical"},
		"1 too large":                   {body("old 100\n\n", l.sign(t, "log.example/one\n120\n"+hash+"\n"+strings.Repeat("x", 70<<10)+"\n")), 413, "larger"},
		"2 unknown origin":              {unknown.request(t, 0, 5), 404, "does not know"},
		"2 unknown origin, no sense":    {body("old 0\n\n", []byte("log.example/three\n")), 404, "does not know"},
		"3 signed by nobody known":      {stranger.request(t, 100, 120), 403, "no known key"},
		"3 no signature":                {body("old 100\n\n", []byte("log.example/one\n120\n"+hash+"\n\n\u2014 x AAAAAAA=\n")), 403, "no known key"},
		"3 a bad line of a known key":   {body("old 120\n\n", []byte(badLine)), 403, "does not verify"},
		"4 old beyond the checkpoint":   {body("old 121\n\n", l.note(t, 120)), 400, "larger"},
		"5 old is too small":            {l.request(t, 99, 120), 409, "100\n"},
		"5 old is too large":            {l.request(t, 101, 120), 409, "100\n"},
		"5 first contact again":         {l.request(t, 0, 120), 409, "100\n"},
		"5 before a bad proof":          {body("old 99\n"+hash+"\n\n", l.note(t, 120)), 409, "100\n"},
		"5 before an empty tree":        {body("old 0\n\n", l.sign(t, "log.example/one\n0\n"+hash+"\n")), 409, "100\n"},
		"7 no proof":                    {body("old 100\n\n", l.note(t, 120)), 422, "proof"},
		"7 a wrong proof":               {body("old 100\n"+strings.Repeat(hash+"\n", len(l.proof(100, 120)))+"\n", l.note(t, 120)), 422, "proof"},
		"7 a proof too long":            {append([]byte("old 100\n"+hash+"\n"), l.request(t, 100, 120)[len("old 100\n"):]...), 422, "proof"},
		"7 a proof of another size":     {(&witness.Request{Old: 100, Proof: l.proof(100, 121), Note: l.note(t, 120)}).Format(), 422, "proof"},
		"7 a proof for an equal size":   {body("old 100\n"+hash+"\n\n", l.note(t, 100)), 422, "nothing is to be proven"},
	} {
		status, header, text := r.post(url, tc.body)
		if status != tc.status || !strings.Contains(text, tc.answer) || (tc.status == 409 && text != tc.answer) {
			t.Errorf("%s: %d %q, want %d %q", name, status, text, tc.status, tc.answer)
		}
		if (header.Get("Content-Type") == "text/x.tlog.size") != (status == 409) {
			t.Errorf("%s: content type %q", name, header.Get("Content-Type"))
		}
	}
	// Nothing of that has moved anything, and of the bad proofs one a minute is kept.
	if s, err := r.store.State(context.Background(), "log.example/one"); err != nil || s.Size != 100 || s.Doubt != "" || len(r.forks)+len(r.doubts) != 0 || len(r.bad) != 1 {
		t.Errorf("%+v, %v, %d forks, %d doubts, %d rejected", s, err, len(r.forks), len(r.doubts), len(r.bad))
	}
	// 8: again the same tree, with a fresh time; then larger ones, with each kind of proof.
	r.now = r.now.Add(time.Minute)
	for _, step := range [][2]int{{100, 100}, {100, 120}, {120, 128}, {128, 129}, {129, 256}, {256, 257}, {257, 300}} {
		status, _, text := r.post(url, l.request(t, step[0], step[1]))
		if status != 200 || strings.Count(text, "\n") != 2 {
			t.Fatalf("%v: %d %s", step, status, text)
		}
		for _, at := range r.times(l.note(t, step[1]), text) {
			if at != r.now.Unix() {
				t.Errorf("%v: signed at %d, want %d", step, at, r.now.Unix())
			}
		}
	}
	// The monitoring endpoint.
	get := func(path string) (int, string) {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		out, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(out)
	}
	status, text := get("/" + witness.PathOf("log.example/one") + "/checkpoint")
	if status != 200 || len(r.times([]byte(text), "")) != 2 {
		t.Errorf("%d %s", status, text)
	}
	if c, err := l.log(t).Open([]byte(text)); err != nil || c.Size() != 300 {
		t.Errorf("%d, %v", c.Size(), err)
	}
	for path, want := range map[string]int{"/" + witness.PathOf("log.example/two") + "/checkpoint": 404, "/x/checkpoint": 404, "/add-checkpoint": 405, "/": 404, "/witness": 200} {
		if status, _ := get(path); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
}

// TestOtherMethods: what is asked in another way is refused; a CONNECT that is not would be a tunnel for a proxy.
func TestOtherMethods(t *testing.T) {
	h := newRig(t, newTree(t, "log.example/one", 1)).witness.Handler("/w1")
	for _, path := range []string{"/w1/add-checkpoint", "/w1/sign-subtree", "/w1/log.example/checkpoint", "/w1/witness", "/"} {
		for _, method := range []string{"CONNECT", "PUT", "DELETE", "OPTIONS", "TRACE"} {
			got := httptest.NewRecorder()
			h.ServeHTTP(got, httptest.NewRequest(method, "http://witness.example"+path, nil))
			if got.Code < 400 {
				t.Errorf("%s %s: %d", method, path, got.Code)
			}
		}
	}
}

// TestEmptyTree: row 6, and a log that begins with nothing.
func TestEmptyTree(t *testing.T) {
	l := newTree(t, "log.example/one", 5)
	r := newRig(t, l)
	root := l.root(3)
	r.want(422, append([]byte("old 0\n\n"), l.sign(t, "log.example/one\n0\n"+base64.StdEncoding.EncodeToString(root[:])+"\n")...))
	r.want(422, append([]byte("old 0\n"+base64.StdEncoding.EncodeToString(root[:])+"\n\n"), l.note(t, 5)...))
	r.want(200, l.request(t, 0, 0))
	r.want(200, l.request(t, 0, 0))
	r.want(200, l.request(t, 0, 3))
	r.want(409, l.request(t, 0, 5))
	r.want(200, l.request(t, 3, 5))
}

// TestFork: what shows that a log has forked is handed on, nothing of it is signed any
// more, and no other log suffers.
func TestFork(t *testing.T) {
	for name, tc := range map[string]struct{ seen, from, to, fork int }{
		"at one size":           {100, 100, 100, 50},
		"to a larger tree":      {100, 100, 120, 50},
		"behind a power of two": {64, 64, 120, 10},
	} {
		t.Run(name, func(t *testing.T) {
			l, bystander := newTree(t, "log.example/one", 200), newTree(t, "log.example/two", 20)
			r := newRig(t, l, bystander)
			r.want(200, l.request(t, 0, tc.seen))
			forked := l.fork(tc.fork, 1)
			// What shows it is kept first: if that is all that is done before a crash, it is
			// looked at once more.
			r.before = func() {
				if s, err := r.store.State(context.Background(), "log.example/one"); err != nil || s.Doubt != "" {
					t.Errorf("it is doubted before what shows why is kept: %+v, %v", s, err)
				}
			}
			a := r.want(422, forked.request(t, tc.from, tc.to))
			if len(r.forks) != 1 && name != "behind a power of two" {
				t.Fatalf("%d contradictions: %s", len(r.forks), a.Body)
			}
			if len(r.forks) == 0 {
				// RFC 6962 leaves out the only peak: this proof shows nothing.
				r.want(200, l.request(t, tc.seen, 150))
				return
			}
			if err := r.forks[0].Evidence.Verify(l.log(t)); err != nil {
				t.Errorf("the evidence does not verify: %v", err)
			}
			r.want(503, l.request(t, tc.seen, 150))
			r.restart()
			r.want(503, l.request(t, tc.seen, 150))
			r.want(200, bystander.request(t, 0, 20))
			if err := r.store.Trust(context.Background(), "log.example/one"); err != nil {
				t.Fatal(err)
			}
			r.want(200, l.request(t, tc.seen, 150))
		})
	}
}

// TestClock: times never go back, neither of one log nor of all, nor over a restart.
func TestClock(t *testing.T) {
	a, b := newTree(t, "log.example/a", 20), newTree(t, "log.example/b", 20)
	r := newRig(t, a, b)
	r.want(200, a.request(t, 0, 5))
	r.now = r.now.Add(-time.Second)
	if got := r.want(503, a.request(t, 5, 6)); got.Again == 0 || !strings.Contains(got.Body, "stepped back") {
		t.Errorf("%+v", got)
	}
	r.want(503, b.request(t, 0, 5))
	r.restart()
	r.want(503, a.request(t, 5, 6))
	if s, _ := r.store.State(context.Background(), "log.example/a"); s.Size != 5 {
		t.Errorf("%+v", s)
	}
	r.now = r.now.Add(time.Second)
	r.want(200, a.request(t, 5, 6))
}

// TestRestored: a state that was restored from an older copy is noticed by our own
// cosignatures, and signs nothing; once a person has looked, nothing smaller or earlier
// than those.
func TestRestored(t *testing.T) {
	ctx := context.Background()
	l := newTree(t, "log.example/one", 100)
	with := func(size int, lines string) []byte { return append(l.note(t, size), lines...) }
	for name, show := range map[string]func(r *rig, published []byte){
		"in a request": func(r *rig, published []byte) {
			c, _ := l.log(r.t).Open(published)
			r.want(503, (&witness.Request{Old: 10, Proof: l.proof(10, int(c.Size())), Note: published}).Format())
		},
		"published by the log": func(r *rig, published []byte) {
			c, err := l.log(r.t).Open(published)
			if err != nil || r.witness.Look(ctx, c) {
				r.t.Errorf("taken for well: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, l)
			r.want(200, l.request(t, 0, 10))
			later := newRig(t, l)
			later.opts.Cosigners, later.now = r.opts.Cosigners, r.now.Add(time.Hour)
			later.restart()
			published := with(50, later.want(200, l.request(t, 0, 50)).Body)

			// What is known already, or not ours, is well.
			c, err := l.log(t).Open(with(10, r.want(200, l.request(t, 10, 10)).Body))
			if err != nil || !r.witness.Look(ctx, c) {
				t.Errorf("%v", err)
			}
			stranger := newRig(t, l)
			if c, err := l.log(t).Open(with(60, stranger.want(200, l.request(t, 0, 60)).Body)); err != nil || !r.witness.Look(ctx, c) {
				t.Errorf("another witness's: %v", err)
			}
			show(r, published)
			if len(r.doubts) != 1 || !strings.Contains(r.doubts[0], "restored") {
				t.Errorf("%q", r.doubts)
			}
			r.want(503, l.request(t, 10, 20))
			r.restart()
			r.want(503, l.request(t, 10, 20))
			// One more that is larger, while it is doubted already: nothing below that is
			// signed later.
			later.now = later.now.Add(time.Minute)
			show(r, with(55, later.want(200, l.request(t, 50, 55)).Body))
			if len(r.doubts) != 2 {
				t.Errorf("%q", r.doubts)
			}
			if err := r.store.Trust(ctx, "log.example/one"); err != nil {
				t.Fatal(err)
			}
			r.want(409, l.request(t, 10, 20))
			if a := r.want(409, l.request(t, 50, 54)); a.Body != "55\n" {
				t.Errorf("%s", a.Body)
			}
			r.want(503, l.request(t, 55, 60)) // its clock is an hour behind
			r.now = r.now.Add(time.Hour)
			r.want(503, l.request(t, 55, 60)) // and a minute
			r.now = r.now.Add(time.Minute)
			r.want(200, l.request(t, 55, 60))
			if err := r.store.Trust(ctx, "log.example/one"); err == nil {
				t.Error("what is not doubted is trusted")
			}
		})
	}
}

// faulty is a store that fails, in the two forms: nothing was done, or it was.
type faulty struct {
	witness.Store
	fails, persists bool
}

func (f *faulty) Advance(ctx context.Context, origin string, old, next witness.State) error {
	if !f.fails {
		return f.Store.Advance(ctx, origin, old, next)
	}
	if f.persists {
		if err := f.Store.Advance(ctx, origin, old, next); err != nil {
			return err
		}
	}
	return errors.New("the disk did not sync")
}

// TestDisk: nothing is signed that was not stored, and after that everything goes on.
func TestDisk(t *testing.T) {
	for _, persists := range []bool{false, true} {
		l := newTree(t, "log.example/one", 100)
		r := newRig(t, l)
		f := &faulty{Store: r.store, persists: persists}
		r.opts.Store = f
		w, err := witness.New(r.opts)
		if err != nil {
			t.Fatal(err)
		}
		r.witness = w
		r.want(200, l.request(t, 0, 10))
		f.fails = true
		if a := r.want(503, l.request(t, 10, 20)); strings.Contains(a.Body, "\u2014") || strings.Contains(a.Body, "disk") {
			t.Errorf("%s", a.Body)
		}
		f.fails = false
		if persists {
			if a := r.want(409, l.request(t, 10, 20)); a.Body != "20\n" {
				t.Errorf("%s", a.Body)
			}
			r.want(200, l.request(t, 20, 20))
		} else {
			r.want(200, l.request(t, 10, 20))
		}
	}
}

// TestRefused: a halted log, one that is asked for too often, and one whose key of today
// does not open what was signed.
func TestRefused(t *testing.T) {
	l := newTree(t, "log.example/one", 100)
	r := newRig(t, l)
	r.want(200, l.request(t, 0, 10))
	log := r.logs["log.example/one"]
	asked := 0
	log.Refuse = func(_ context.Context, c checkpoint.Checkpoint) (string, time.Duration) {
		asked++
		return fmt.Sprintf("the log is halted (%d)", c.Size()), 7 * time.Second
	}
	if a := r.want(503, l.request(t, 10, 20)); a.Again != 7*time.Second || a.Body != "the log is halted (20)\n" {
		t.Errorf("%+v", a)
	}
	if a := r.witness.Latest(context.Background(), "log.example/one"); a.Status != 200 {
		t.Errorf("what was signed before is not shown: %+v", a)
	}
	// Nobody without a signature of the log comes so far.
	asked = 0
	r.want(403, append([]byte("old 10\n\n"), newTree(t, "log.example/one", 20).note(t, 20)...))
	if asked != 0 {
		t.Error("asked for a stranger")
	}
	// Nor is anybody asked for what is not signed anyway.
	r.want(409, l.request(t, 9, 20))
	r.want(422, append([]byte("old 10\n\n"), l.note(t, 20)...))
	if asked != 0 {
		t.Error("asked for what does not fit")
	}
	// One that is halted while it waits for its turn.
	log.Refuse = func(context.Context, checkpoint.Checkpoint) (string, time.Duration) {
		log.Stopped = func(context.Context) string { return "halted just now" }
		return "", 0
	}
	if a := r.want(503, l.request(t, 10, 20)); a.Body != "halted just now\n" {
		t.Errorf("%+v", a)
	}
	log.Refuse, log.Stopped = nil, nil
	used := 0
	log.Allow = func() bool { used++; return false }
	if a := r.want(429, l.request(t, 10, 20)); a.Again == 0 {
		t.Errorf("%+v", a)
	}
	r.want(403, append([]byte("old 10\n\n"), newTree(t, "log.example/one", 20).note(t, 20)...))
	if used != 1 {
		t.Error("a stranger uses up what the log may ask")
	}
	log.Allow = nil
	other := newTree(t, "log.example/one", 100)
	r.logs["log.example/one"] = &witness.Log{Log: other.log(t)}
	r.want(503, other.request(t, 10, 20))
}

// TestLongOrigin: ML-DSA-44 cannot name an origin of more than 255 bytes; then Ed25519
// alone signs, and where there is no such key nothing is promised.
func TestLongOrigin(t *testing.T) {
	l := newTree(t, "log.example/"+strings.Repeat("x", 250), 20)
	r := newRig(t, l)
	a := r.want(200, l.request(t, 0, 10))
	if len(witness.Cosignatures(append(l.note(t, 10), a.Body...), r.opts.Cosigners[0].Verifier)) != 1 || strings.Count(a.Body, "\n") != 1 {
		t.Errorf("%s", a.Body)
	}
	pq := newRig(t, l)
	pq.opts.Cosigners = pq.opts.Cosigners[1:]
	pq.restart()
	pq.want(400, l.request(t, 0, 10))
	if s, err := pq.store.State(context.Background(), l.signer.Name()); err != nil || s.Note != nil {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestFresh: what the monitoring endpoint shows is never older than an hour, and it signs
// no oftener for whoever asks.
func TestFresh(t *testing.T) {
	l := newTree(t, "log.example/one", 100)
	r := newRig(t, l)
	ctx := context.Background()
	if a := r.witness.Latest(ctx, "log.example/one"); a.Status != 404 {
		t.Errorf("%+v", a)
	}
	r.want(200, l.request(t, 0, 10))
	first := r.now.Unix()
	latest := func(want int64) {
		t.Helper()
		a := r.witness.Latest(ctx, "log.example/one")
		if a.Status != 200 {
			t.Fatalf("%+v", a)
		}
		for _, at := range r.times([]byte(a.Body), "") {
			if at != want {
				t.Errorf("signed at %d, want %d", at, want)
			}
		}
	}
	r.now = r.now.Add(40 * time.Minute)
	latest(first)
	r.now = r.now.Add(6 * time.Minute)
	latest(r.now.Unix())
	r.restart()
	latest(r.now.Unix())
	// A note that carries old lines of ours has the new ones in their place.
	carrying := append(l.note(t, 20), r.want(200, l.request(t, 10, 20)).Body...)
	r.now = r.now.Add(time.Minute)
	r.want(200, (&witness.Request{Old: 20, Note: carrying}).Format())
	latest(r.now.Unix())
}
