package witness_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// tree is a log in memory. Its hashes and proofs are those of the definitions in
// RFC 6962, 2.1, and of no code that is tested here.
type tree struct {
	signer note.Signer
	key    string // verifier key
	leaves [][32]byte
	mu     *sync.Mutex
	memo   map[[2]int][32]byte
}

func newTree(t testing.TB, origin string, size int) *tree {
	t.Helper()
	secret, key, err := note.GenerateKey(nil, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	l := &tree{signer: signer, key: key, mu: &sync.Mutex{}, memo: map[[2]int][32]byte{}}
	l.grow(size, 0)
	return l
}

// grow appends leaves of a history.
func (l *tree) grow(n int, history byte) {
	for range n {
		var b [10]byte
		b[1] = history
		binary.BigEndian.PutUint64(b[2:], uint64(len(l.leaves)))
		l.leaves = append(l.leaves, sha256.Sum256(b[:]))
	}
}

// fork returns another history of the same log, which goes its own way from a size on.
func (l *tree) fork(size int, history byte) *tree {
	other := &tree{signer: l.signer, key: l.key, leaves: append([][32]byte(nil), l.leaves[:size]...), mu: &sync.Mutex{}, memo: map[[2]int][32]byte{}}
	other.grow(len(l.leaves)-size, history)
	return other
}

func split(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}

func (l *tree) hash(from, to int) [32]byte {
	switch to - from {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return l.leaves[from]
	}
	if h, ok := l.memo[[2]int{from, to}]; ok {
		return h
	}
	k := split(to - from)
	a, b := l.hash(from, from+k), l.hash(from+k, to)
	h := sha256.Sum256(append(append([]byte{1}, a[:]...), b[:]...))
	l.memo[[2]int{from, to}] = h
	return h
}

func (l *tree) root(size int) [32]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hash(0, size)
}

// proof is PROOF(m, D[n]).
func (l *tree) proof(m, n int) [][]byte {
	if m == 0 || m == n {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var sub func(m, from, to int, whole bool) [][]byte
	sub = func(m, from, to int, whole bool) [][]byte {
		if m == to-from {
			if whole {
				return nil
			}
			h := l.hash(from, to)
			return [][]byte{h[:]}
		}
		k := split(to - from)
		if m <= k {
			h := l.hash(from+k, to)
			return append(sub(m, from, from+k, whole), h[:])
		}
		h := l.hash(from, from+k)
		return append(sub(m-k, from+k, to, false), h[:])
	}
	return sub(m, 0, n, true)
}

func (l *tree) note(t testing.TB, size int, extensions ...string) []byte {
	t.Helper()
	root := l.root(size)
	return l.sign(t, fmt.Sprintf("%s\n%d\n%s\n%s", l.signer.Name(), size, base64.StdEncoding.EncodeToString(root[:]), strings.Join(append(extensions, ""), "\n")))
}

func (l *tree) sign(t testing.TB, text string) []byte {
	t.Helper()
	raw, err := note.Sign(&note.Note{Text: text}, l.signer)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (l *tree) request(t testing.TB, from, to int) []byte {
	t.Helper()
	r := witness.Request{Old: uint64(from), Proof: l.proof(from, to), Note: l.note(t, to)}
	return r.Format()
}

func (l *tree) log(t testing.TB) *checkpoint.Log {
	t.Helper()
	out, err := checkpoint.ForOrigin(l.signer.Name(), l.key)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// rig is a witness with two keys on a real store.
type rig struct {
	t       testing.TB
	dir     string
	store   *store.Witness
	opts    witness.Options
	witness *witness.Witness
	logs    map[string]*witness.Log
	now     time.Time
	forks   []*checkpoint.DivergenceError
	doubts  []string
	bad     [][]byte
	before  func() // a contradiction is kept; nil: nothing
}

func newRig(t testing.TB, logs ...*tree) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), logs: map[string]*witness.Log{}, now: time.Unix(1_800_000_000, 0)}
	for _, a := range []witness.Algorithm{witness.Ed25519, witness.MLDSA44} {
		_, c, err := witness.GenerateKey("witness.example/"+a.String(), a)
		if err != nil {
			t.Fatal(err)
		}
		r.opts.Cosigners = append(r.opts.Cosigners, c)
	}
	for _, l := range logs {
		r.logs[l.signer.Name()] = &witness.Log{Log: l.log(t)}
	}
	r.opts.Log = func(origin string) *witness.Log { return r.logs[origin] }
	r.opts.ByPath = func(path string) (string, bool) {
		for origin := range r.logs {
			if witness.PathOf(origin) == path {
				return origin, true
			}
		}
		return "", false
	}
	r.opts.Now = func() time.Time { return r.now }
	r.opts.Contradiction = func(_ context.Context, _ string, e *checkpoint.DivergenceError) {
		if r.before != nil {
			r.before()
		}
		r.forks = append(r.forks, e)
	}
	r.opts.Doubted = func(_ context.Context, _, reason string) { r.doubts = append(r.doubts, reason) }
	r.opts.Rejected = func(_ context.Context, _ string, request []byte) { r.bad = append(r.bad, request) }
	r.restart()
	t.Cleanup(func() { r.store.Close() })
	return r
}

// restart makes a new witness on the same file, as a new process would.
func (r *rig) restart() {
	r.t.Helper()
	if r.store != nil {
		r.store.Close()
	}
	var err error
	if r.store, err = store.OpenWitness(context.Background(), filepath.Join(r.dir, "state.db"), store.Options{Create: true}); err != nil {
		r.t.Fatal(err)
	}
	opts := r.opts
	if opts.Store == nil {
		opts.Store = r.store
	}
	if r.witness, err = witness.New(opts); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) add(body []byte) witness.Answer {
	return r.witness.Add(context.Background(), body)
}

// want adds a checkpoint and checks the status.
func (r *rig) want(status int, body []byte) witness.Answer {
	r.t.Helper()
	a := r.add(body)
	if a.Status != status {
		r.t.Fatalf("status %d, want %d: %s", a.Status, status, a.Body)
	}
	return a
}

// times checks cosignature lines on a note and returns their times.
func (r *rig) times(raw []byte, lines string) []int64 {
	r.t.Helper()
	var keys []*witness.Verifier
	for _, c := range r.opts.Cosigners {
		keys = append(keys, c.Verifier)
	}
	seen := witness.Cosignatures(append(append([]byte(nil), raw...), lines...), keys...)
	if len(seen) != len(keys) {
		r.t.Fatalf("%d of %d cosignatures verify", len(seen), len(keys))
	}
	var out []int64
	for _, s := range seen {
		out = append(out, s.At)
	}
	return out
}
