package simulation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/store/simdisk"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// mangler stands between the engine and a log. A script says what becomes of one answer
// after the other; where it ends, answers come as they are. It holds no key of the log.
type mangler struct {
	server http.Handler

	mu     sync.Mutex
	script []byte
	before []byte // the answer to another request
}

// next takes some bytes of the script; the rest are 0.
func (m *mangler) next(n int) []byte {
	out := make([]byte, n)
	m.script = m.script[copy(out, m.script):]
	return out
}

func (m *mangler) number() int { return int(binary.BigEndian.Uint16(m.next(2))) }

// RoundTrip implements http.RoundTripper.
func (m *mangler) RoundTrip(r *http.Request) (*http.Response, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec := httptest.NewRecorder()
	m.server.ServeHTTP(rec, r)
	resp := rec.Result()
	resp.Request = r
	body := bytes.Clone(rec.Body.Bytes())
	if len(m.script) > 0 {
		switch op := m.next(1)[0]; op % 14 {
		case 1: // a bit flips
			if at := m.number(); len(body) > 0 {
				body[at%len(body)] ^= 1 << (op / 14 % 8)
			}
		case 2: // it is cut off
			body = body[:m.number()%(len(body)+1)]
		case 3: // more comes behind it
			body = append(body, m.next(m.number()%64)...)
		case 4: // it is something else
			body = m.next(m.number() % 512)
		case 5: // a part of it is something else
			if at := m.number(); len(body) > 0 {
				copy(body[at%len(body):], m.next(int(op/14)))
			}
		case 6: // it is the answer to another request
			body, m.before = m.before, body
		case 7:
			resp.StatusCode = []int{204, 206, 301, 304, 400, 403, 404, 410, 429, 500, 501, 503}[m.number()%12]
		case 8: // it says that it is compressed
			resp.Header.Set("Content-Encoding", []string{"gzip", "br", "identity", "gzip, gzip"}[m.number()%4])
		case 9: // it is very long
			resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), strings.NewReader(strings.Repeat("x", 1<<16)), io.LimitReader(endless{}, 64<<20)))
			resp.ContentLength = -1
			return resp, nil
		case 10:
			resp.Header.Set("ETag", string(m.next(3)))
		case 11: // a line, or a field, is there twice
			if at := m.number(); len(body) > 0 {
				at %= len(body)
				end := min(at+int(op), len(body))
				body = append(body[:end:end], body[at:]...)
			}
		case 12: // a digit becomes another one
			for i, from := 0, m.number(); i < len(body); i++ {
				if c := &body[(from+i)%len(body)]; *c >= '0' && *c <= '9' {
					*c = '0' + (*c-'0'+1+op/14%9)%10
					break
				}
			}
		case 13:
			return nil, io.ErrUnexpectedEOF
		}
	}
	m.before = rec.Body.Bytes()
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return resp, nil
}

// endless is bytes without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// conversation is an engine that follows a log through a mangler.
type conversation struct {
	t      testing.TB
	cfg    monitor.LogConfig
	store  *store.Store
	engine *monitor.Engine
	rule   *rule
	// What is true: the root of each size, and the entries.
	root  func(size uint64) checkpoint.Hash
	kinds []kind
}

func newConversation(t testing.TB, cfg monitor.LogConfig) *conversation {
	t.Helper()
	d := freshDisk(t)
	t.Cleanup(d.Close)
	st, err := store.Open(context.Background(), d.Path("state.db"), store.Options{VFS: simdisk.Name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	c := &conversation{t: t, cfg: cfg, store: st, rule: must(makeRules[0]())[0]}
	c.restart()
	return c
}

func (c *conversation) restart() {
	e, err := monitor.New(monitor.Options{Store: c.store, Watches: c.rule.list, WatchConfigs: []monitor.WatchConfig{c.rule.config}, Logs: []monitor.LogConfig{c.cfg}, CommitEvery: 100})
	if err != nil {
		c.t.Fatal(err)
	}
	c.engine = e
}

func (c *conversation) pass() monitor.Outcome {
	return c.engine.Once(context.Background(), 10*time.Second)[0]
}

// audit holds what is stored against what is true. At the end everything was read.
func (c *conversation) audit(end bool) {
	c.t.Helper()
	ctx := context.Background()
	st, err := c.store.State(ctx, c.cfg.ID)
	if err != nil {
		c.t.Fatal(err)
	}
	if st.Head == "" {
		if end {
			c.t.Fatal("nothing was verified")
		}
		return
	}
	head, err := c.cfg.Log.Open([]byte(st.Head))
	if err != nil || head.Size() != st.HeadSize || head.Size() > uint64(len(c.kinds)) || head.Root() != c.root(head.Size()) {
		c.t.Fatalf("the verified head of size %d is not the log's: %v", st.HeadSize, err)
	}
	if st.Scanned > st.HeadSize || end && st.Scanned != uint64(len(c.kinds)) {
		c.t.Fatalf("%d entries are read of %d, of %d in all", st.Scanned, st.HeadSize, len(c.kinds))
	}
	covered, err := c.store.Coverage(ctx, c.cfg.ID, c.rule.hash)
	if err != nil {
		c.t.Fatal(err)
	}
	gaps, err := c.store.Gaps(ctx, c.cfg.ID)
	if err != nil || end && len(gaps) > 0 {
		c.t.Fatalf("gaps %v, %v", gaps, err)
	}
	in := func(list []monitor.Range, i uint64) bool {
		for _, r := range list {
			if i >= r.From && i < r.To {
				return true
			}
		}
		return false
	}
	var missing []monitor.Range
	for _, g := range gaps {
		missing = append(missing, g.Range)
	}
	list, err := c.store.Findings(ctx, store.Filter{})
	if err != nil {
		c.t.Fatal(err)
	}
	found := map[uint64]bool{}
	for _, short := range list {
		f, err := c.store.Finding(ctx, short.ID)
		if err != nil {
			c.t.Fatal(err)
		}
		note, err := c.cfg.Log.Open([]byte(f.SignedNote))
		if err == nil {
			err = note.VerifyInclusion(f.Index, checkpoint.LeafHash(f.Leaf), f.Proof)
		}
		if err != nil || found[f.Index] || f.Index >= uint64(len(c.kinds)) || c.kinds[f.Index] == nobody || (f.Verdict == "expected") != c.rule.expected[c.kinds[f.Index]] {
			c.t.Fatalf("finding at %d: %v, twice: %v, %s", f.Index, err, found[f.Index], f.Verdict)
		}
		found[f.Index] = true
	}
	for i, k := range c.kinds[:st.Scanned] {
		at := uint64(i)
		if !in(covered, at) && !in(missing, at) {
			c.t.Fatalf("entry %d was passed over", i)
		}
		if in(covered, at) && k != nobody && !found[at] {
			c.t.Fatalf("entry %d is ours, was covered, and was not found", i)
		}
	}
	incidents, err := c.store.Incidents(ctx, store.Filter{})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, i := range incidents {
		switch i.Kind {
		case monitor.KindFork, monitor.KindSplitView, monitor.KindRetiredChanged:
			c.t.Fatalf("whoever holds no key of a log makes it contradict itself: %s", i.Summary)
		}
	}
}

// converse lets the engine poll a log that grows, through a mangler, and then without it.
func (c *conversation) converse(m *mangler, script []byte, grow func()) {
	c.t.Helper()
	m.script = script
	for n := 0; n < 4 && (n == 0 || len(m.script) > 0); n++ {
		c.pass()
		c.audit(false)
		grow()
		if n%2 == 1 {
			c.restart()
		}
	}
	m.script = nil
	// A range that was not answered for is passed over after a few polls, and read later.
	for range 6 {
		if out := c.pass(); out.Err == nil && !out.Missing {
			break
		}
	}
	c.audit(true)
}

// scripts are where the fuzzers begin.
func scripts(f *testing.F) {
	f.Helper()
	f.Add([]byte{})
	for op := range byte(14) {
		for _, skip := range []int{0, 1, 2, 3, 5, 8} {
			f.Add(append(make([]byte, skip), op, 0, 40, op+14, 1, 3, op+28, 0, 0))
		}
	}
}

// FuzzConversation: an engine on a log with tiles, all of whose answers may be anything.
func FuzzConversation(f *testing.F) {
	scripts(f)
	stock := must(newStock())
	f.Fuzz(func(t *testing.T, script []byte) {
		defer bounds.Hold(t)()
		log := must(locallog.New("fuzz.example"))
		m := &mangler{server: locallog.NewServer(log)}
		source, err := rekor.NewV2(rekor.Options{URL: "http://fuzz.example", RequestsPerSecond: 1e6, Tries: 1, Transport: m})
		if err != nil {
			t.Fatal(err)
		}
		key, err := checkpoint.ParseKey(log.Origin(), log.PublicKeyPEM())
		if err != nil {
			t.Fatal(err)
		}
		opener, err := checkpoint.NewLog(log.Origin(), key)
		if err != nil {
			t.Fatal(err)
		}
		c := newConversation(t, monitor.LogConfig{Name: "fuzz", ID: log.Origin(), Type: "rekor-v2", Log: opener, Source: source, Authorities: stock.authorities, Start: "first", Parallel: 1})
		c.root = func(size uint64) checkpoint.Hash { return checkpoint.Hash(must(log.Root(size))) }
		grow := func() {
			for range 90 {
				k := kind(0)
				if n := len(c.kinds); n%30 == 7 {
					k = kind(n / 30 % 4)
				}
				must(log.Append(stock.entries[2][k][len(c.kinds)%stockSize]))
				c.kinds = append(c.kinds, k)
			}
		}
		grow()
		c.converse(m, script, grow)
	})
}

// FuzzConversationV1: the same with a tree of Rekor v1, which proves each answer.
func FuzzConversationV1(f *testing.F) {
	scripts(f)
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	authorities := must(entry.NewAuthorities(entry.Authority{Chain: ca.Chain()}))
	var entries [4][][]byte
	for k := range entries {
		for i := range 6 {
			id := identity(kind(k))
			id.NotBefore = time.Time{}
			s := must(ca.Issue(id))
			entries[k] = append(entries[k], must(s.HashedRekordV1(fmt.Appendf(nil, "artifact %d of %d", i, k))))
		}
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		defer bounds.Hold(t)()
		const tree = 1193050959916656506
		log := must(locallog.NewV1("fuzz.example", tree))
		m := &mangler{server: log}
		server, err := rekor.NewV1(rekor.Options{URL: "http://fuzz.example", RequestsPerSecond: 1e6, Tries: 1, Transport: m})
		if err != nil {
			t.Fatal(err)
		}
		origin := fmt.Sprintf("fuzz.example - %d", tree)
		opener, err := checkpoint.ForOrigin(origin, log.PublicKeyPEM())
		if err != nil {
			t.Fatal(err)
		}
		c := newConversation(t, monitor.LogConfig{Name: "fuzz", ID: origin, Type: "rekor-v1", Log: opener, Proofs: server.Tree(fmt.Sprint(tree)), Authorities: authorities, Start: "first", Parallel: 1})
		var hashes []checkpoint.Hash
		c.root = func(size uint64) checkpoint.Hash { return rootOf(hashes[:size]) }
		grow := func() {
			for range 23 {
				k := kind(0)
				if n := len(c.kinds); n%10 == 7 {
					k = kind(n / 10 % 4)
				}
				e := entries[k][len(c.kinds)%6]
				log.Append(e)
				hashes, c.kinds = append(hashes, checkpoint.LeafHash(e)), append(c.kinds, k)
			}
		}
		grow()
		c.converse(m, script, grow)
	})
}

// rootOf is MTH of RFC 6962, 2.1.
func rootOf(hashes []checkpoint.Hash) checkpoint.Hash {
	switch len(hashes) {
	case 0:
		return checkpoint.EmptyRoot
	case 1:
		return hashes[0]
	}
	k := 1
	for k*2 < len(hashes) {
		k *= 2
	}
	left, right := rootOf(hashes[:k]), rootOf(hashes[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
}
