package simulation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// kind is what an entry is to the watches.
type kind int

const (
	nobody  kind = iota // signed by somebody else
	release             // expected by every rule
	nightly             // expected by some
	stolen              // of ours, and expected by none
)

const github = "https://token.actions.githubusercontent.com"

func identity(k kind) testca.Identity {
	id := testca.Identity{Issuer: github, Extensions: map[int]string{11: "github-hosted"}, NotBefore: epoch.Add(-5 * time.Minute)}
	switch k {
	case nobody:
		id.URI = "https://github.com/somebody/else/.github/workflows/ci.yml@refs/heads/main"
	case release:
		id.URI = "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1"
	case nightly:
		id.URI = "https://github.com/acme/widget/.github/workflows/nightly.yml@refs/heads/main"
	case stolen:
		id.URI = "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1"
		id.Extensions[11] = "self-hosted"
	}
	return id
}

// epoch is when every bubble begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// stock is entries that were signed before any world began, as many of each kind; the key
// pair and certificates are the same in all of them.
type stock struct {
	authorities *entry.Authorities
	entries     [3][4][][]byte  // by the version of Rekor, and by kind
	kinds       map[string]kind // by entry
	leaves      map[*byte]locallog.Hash
}

// put appends an entry of the stock.
func (s *stock) put(to *locallog.Log, e []byte) { to.AppendHashed(e, s.leaves[&e[0]]) }

const stockSize = 24

var newStock = sync.OnceValues(func() (*stock, error) {
	ca, err := testca.New("acme", epoch)
	if err != nil {
		return nil, err
	}
	s := &stock{kinds: map[string]kind{}, leaves: map[*byte]locallog.Hash{}}
	if s.authorities, err = entry.NewAuthorities(entry.Authority{Chain: ca.Chain()}); err != nil {
		return nil, err
	}
	for k := range s.entries[0] {
		for i := range stockSize {
			signer, err := ca.Issue(identity(kind(k)))
			if err != nil {
				return nil, err
			}
			for version, sign := range map[int]func([]byte) ([]byte, error){1: signer.HashedRekordV1, 2: signer.HashedRekord} {
				e, err := sign(fmt.Appendf(nil, "artifact %d of kind %d", i, k))
				if err != nil {
					return nil, err
				}
				s.entries[version][k] = append(s.entries[version][k], e)
				s.kinds[string(e)], s.leaves[&e[0]] = kind(k), locallog.LeafHash(e)
			}
		}
	}
	return s, nil
})

// stocked is the stock, where it is known that it could be made.
func stocked() *stock { return must(newStock()) }

func theStock(t testing.TB) *stock {
	t.Helper()
	s, err := newStock()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// simLog is a log and the server that serves it.
type simLog struct {
	w      *world
	name   string
	host   string // where it is served
	id     string // what the store calls it
	origin string
	opener *checkpoint.Log
	tree   *locallog.Log // as it is
	server *locallog.Server
	source *rekor.V2
	v1     *serverV1 // in place of server and source

	mu        sync.Mutex
	kinds     []kind        // of its entries
	published uint64        // the size of its newest checkpoint
	older     uint64        // by how many entries what is served may be older ...
	olderTill time.Duration // until then
	seen      map[uint64]bool
	// What it does when it lies, and since when; other is what it signs in place of its tree.
	lie    string
	since  time.Duration
	other  *locallog.Log
	shown  *locallog.Log // whose tiles it serves, if those are of neither
	forkd  uint64        // the first entry that differs
	swap   uint64        // the entry in whose place another one is served
	closed bool
}

// stock is entries of a kind, in the form that the log holds.
func (l *simLog) stock(k kind) [][]byte {
	version := 2
	if l.v1 != nil {
		version = 1
	}
	return stocked().entries[version][k]
}

func (w *world) newLog(name string) *simLog {
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, name)
	key := ed25519.NewKeyFromSeed(seed)
	tree, err := locallog.NewWithKey(name+".log.example", key.Public().(ed25519.PublicKey), key)
	if err != nil {
		panic(err)
	}
	l := &simLog{w: w, name: name, host: name, id: tree.Origin(), origin: tree.Origin(), tree: tree, server: locallog.NewServer(tree), seen: map[uint64]bool{}}
	parsed, err := checkpoint.ParseKey(tree.Origin(), tree.PublicKeyPEM())
	if err == nil {
		l.opener, err = checkpoint.NewLog(tree.Origin(), &remembers{Verifier: parsed, was: map[[sha256.Size]byte]bool{}})
	}
	if err == nil {
		l.source, err = rekor.NewV2(rekor.Options{URL: "http://" + name, RequestsPerSecond: 1e6, Transport: w.net})
	}
	if err != nil {
		panic(err)
	}
	return l
}

// remembers is a key that verifies a signature once: the parts of the program, and the auditor, look
// at each note many times.
type remembers struct {
	note.Verifier
	mu  sync.Mutex
	was map[[sha256.Size]byte]bool // by message and signature
}

// Verify implements note.Verifier.
func (r *remembers) Verify(msg, sig []byte) bool {
	both := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, uint64(len(sig))), append(slices.Clone(sig), msg...)...))
	r.mu.Lock()
	defer r.mu.Unlock()
	good, known := r.was[both]
	if !known {
		good = r.Verifier.Verify(msg, sig)
		r.was[both] = good
	}
	return good
}

// config is how a process follows the log.
func (l *simLog) config() monitor.LogConfig {
	cfg := monitor.LogConfig{Name: l.name, ID: l.id, Type: "rekor-v2", Log: l.opener, Start: "first",
		Authorities: must(newStock()).authorities, Schedule: every(pollEvery), URL: "http://" + l.host}
	if l.v1 != nil {
		_, tree, _ := checkpoint.SplitOrigin(l.origin)
		cfg.Type, cfg.Proofs, cfg.Family = "rekor-v1", l.v1.reader.Tree(tree), l.host
	} else {
		cfg.Source = l.source
	}
	return cfg
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// every is a schedule of ticks.
type every time.Duration

func (e every) Next(now time.Time) time.Time {
	return now.Truncate(time.Duration(e)).Add(time.Duration(e))
}

// grow appends entries: now and then one of ours.
func (l *simLog) grow(rng *rand.Rand, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range n {
		if l.closed {
			return
		}
		k := nobody
		if rng.IntN(25) == 0 {
			k = kind(1 + rng.IntN(3))
		}
		e := l.stock(k)[rng.IntN(stockSize)]
		l.appendV1(e)
		if l.other != nil {
			stocked().put(l.other, e)
			if l.shown != nil {
				stocked().put(l.shown, e)
			}
			continue
		}
		stocked().put(l.tree, e)
		l.kinds = append(l.kinds, k)
	}
}

// publish signs the tree as it is.
func (l *simLog) publish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.published, l.older = l.tree.Size(), 0
	if l.other != nil {
		l.published = l.other.Size()
	}
}

// lag serves older checkpoints for a while, as one of several servers behind one name may.
func (l *simLog) lag(by uint64, until time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.older, l.olderTill = by, until
}

// end freezes the log: whatever it has is published.
func (l *simLog) end() {
	l.publish()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tree.Freeze(time.Now())
	l.closed = true
}

// size is what the server says.
func (l *simLog) size() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := l.published
	if l.older > 0 && time.Since(l.w.began) < l.olderTill && size > l.older && l.w.chance(l.name+" older", l.w.net.times(l.name+" older")).IntN(2) == 0 {
		size -= l.older
	}
	return size
}

// planLie lets a log lie from a time on.
func (w *world) planLie(rng *rand.Rand, l *simLog, at time.Duration, do func(time.Duration, string, func())) {
	lie := []string{"fork", "fork at the same size", "smaller fork", "other entry", "stranger's signature", "other tiles"}[rng.IntN(6)]
	back, more, seed := uint64(1+rng.IntN(30)), 1+rng.IntN(40), rng.Uint64()
	// Half of them hold still from then on, so that nothing but the lie itself is there to see.
	still := rng.IntN(2) == 0
	do(at, "lie: "+lie, func() {
		w.audit.accused(l)
		if lie != "fork at the same size" {
			l.publish()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		size := min(l.tree.Size(), l.published)
		if size <= back+1 {
			w.count("lie: nothing to lie about")
			return
		}
		rng := rand.New(rand.NewPCG(seed, 1))
		fork := must(l.tree.Fork(size - back))
		grown := int(back)
		switch lie {
		case "fork", "other tiles":
			grown += more
		case "smaller fork":
			grown = max(1, grown-1)
		}
		for i := range grown {
			e := l.stock(nobody)[rng.IntN(stockSize)]
			if i == 0 {
				// What is there in its place must differ.
				e = l.stock(stolen)[rng.IntN(stockSize)]
				if old := must(l.tree.Entry(size - back)); bytes.Equal(old, e) {
					e = l.stock(nobody)[0]
				}
			}
			stocked().put(fork, e)
		}
		l.lie, l.since, l.forkd, l.closed = lie, time.Since(w.began), size-back, still
		w.count("lie told: " + lie)
		switch lie {
		case "fork", "fork at the same size", "smaller fork", "other tiles":
			if l.v1 != nil {
				l.lieV1(fork, l.forkd)
				l.other, l.published = fork, fork.Size()
				return
			}
		}
		switch lie {
		case "fork", "fork at the same size", "smaller fork":
			l.server.Show(fork, nil)
			l.other, l.published = fork, fork.Size()
		case "other tiles":
			shown := must(fork.Fork(size - back))
			for i := range grown {
				stocked().put(shown, l.stock(release)[i%stockSize])
			}
			l.server.Show(fork, shown)
			l.other, l.shown, l.published = fork, shown, fork.Size()
		case "other entry":
			// One that was not read yet.
			stocked().put(l.tree, l.stock(stolen)[0])
			l.appendV1(l.stock(stolen)[0])
			l.kinds = append(l.kinds, stolen)
			l.published, l.swap = l.tree.Size(), l.tree.Size()-1
		}
	})
}

// limit is in how many polls its lie is found: in the first that shows it, or in three where one could
// be a bad network.
func (l *simLog) limit() int {
	switch {
	case l.lie == "other tiles", l.lie == "stranger's signature":
		return patience
	}
	return 1
}

// faults is how its server behaves now.
func (l *simLog) faults() (f locallog.Faults) {
	size := l.size()
	f.Size = &size
	l.mu.Lock()
	defer l.mu.Unlock()
	switch l.lie {
	case "other entry":
		f.Swap = map[uint64][]byte{l.swap: l.stock(nobody)[0]}
	case "stranger's signature":
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
		stranger := must(locallog.NewWithKey(l.tree.Origin(), key.Public().(ed25519.PublicKey), key))
		f.Checkpoint = must(stranger.SignHead(size, must(l.tree.Root(size))))
	}
	return f
}

// network carries requests to the servers of the logs.
type network struct {
	w *world

	mu        sync.Mutex
	asked     map[string]int
	corrupted map[string][]time.Time // when something of a log was
	trouble   map[string]*trouble    // by host
	over      bool
	calmed    time.Time
	looks     map[string][]time.Time // by host: when checkpoints were asked for once everything works
}

// stopped reports whether the world is about to end.
func (n *network) stopped() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.over && time.Since(n.calmed) > time.Minute
}

func (n *network) begin(host string, t *trouble) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trouble[host] = t
}

// looked notes that a server has told its newest checkpoint.
func (n *network) looked(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.over {
		n.looks[host] = append(n.looks[host], time.Now())
	}
}

// polls returns how many polls, which have ended since, began with a server's newest checkpoint once everything
// worked. A poll may ask for it several times.
func (n *network) polls(host string) (polls int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var last time.Time
	for _, at := range n.looks[host] {
		if at.Sub(last) > pollEvery/2 && time.Since(at) > pollEvery/2 {
			polls++
		}
		last = at
	}
	return polls
}

// calm ends every trouble for good.
func (n *network) calm() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.over, n.calmed = true, time.Now()
}

// times counts.
func (n *network) times(what string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked[what]++
	return n.asked[what]
}

// now is what is wrong with the way to a server.
func (n *network) now(host string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t := n.trouble[host]; !n.over && t.lasts(n.w) {
		return t.kind
	}
	return ""
}

// mayCorrupt reports whether an answer of an honest log may be altered on its way: in two polls, which may
// follow each other. After a third nobody could tell that from a log that lies.
func (n *network) mayCorrupt(log string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.corrupted[log]
	if len(before) == 2 || len(before) == 1 && time.Since(before[0]) < pollEvery/2 {
		return false
	}
	n.corrupted[log] = append(before, time.Now())
	return true
}

var errOutage = errors.New("connection refused")

// RoundTrip implements http.RoundTripper.
func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	log := n.w.logs[slices.IndexFunc(n.w.logs, func(l *simLog) bool { return l.host == r.URL.Host })]
	what := r.URL.Host + r.URL.Path + r.URL.RawQuery
	if r.GetBody != nil {
		what += string(must(io.ReadAll(must(r.GetBody()))))
	}
	rng := n.w.chance(what, n.times(what))
	kind := n.now(log.host)
	delay := time.Duration(1+rng.IntN(50)) * time.Millisecond
	if kind == "slow answers" && rng.IntN(2) == 0 {
		n.w.count("answer: slow")
		delay = time.Duration(rng.Int64N(int64(40 * time.Second)))
	}
	if err := wait(r.Context(), delay); err != nil {
		return nil, err
	}
	switch {
	case kind == "outage":
		n.w.count("answer: none")
		return nil, errOutage
	case kind == "refusal" && rng.IntN(2) == 0:
		n.w.count("answer: 503")
		return n.status(r, 503, ""), nil
	case kind == "too many requests" && rng.IntN(2) == 0:
		n.w.count("answer: 429")
		return n.status(r, 429, []string{"", "1", "20"}[rng.IntN(3)]), nil
	case kind == "odd answers" && rng.IntN(3) == 0:
		n.w.count("answer: 500")
		return n.status(r, 500, ""), nil
	}
	rec := httptest.NewRecorder()
	if log.v1 != nil {
		f := log.v1.faultsV1()
		if kind == "odd answers" && (r.Method == http.MethodPost || strings.HasSuffix(r.URL.Path, "/proof")) {
			n.w.count("answer: " + log.v1.oddly(n.w.source("odd "+log.host), &f))
		}
		log.v1.answerV1(rec, r, f)
	} else {
		log.server.Set(log.faults())
		log.server.ServeHTTP(rec, r)
	}
	resp := rec.Result()
	resp.Request = r
	body := rec.Body.Bytes()
	intact := true
	switch {
	case kind == "odd answers" && rng.IntN(3) == 0 && len(body) > 1:
		n.w.count("answer: cut off")
		intact = false
		body = body[:rng.IntN(len(body))]
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), errReader{io.ErrUnexpectedEOF}))
	case kind == "corrupt bytes" && rng.IntN(3) == 0 && len(body) > 0 && resp.StatusCode == 200 && n.mayCorrupt(log.name):
		n.w.count("answer: corrupt")
		intact = false
		body[rng.IntN(len(body))] ^= 1 << rng.IntN(8)
		resp.Body = io.NopCloser(bytes.NewReader(body))
		resp.Header.Del("ETag")
	}
	if intact && resp.StatusCode < 400 && (strings.HasSuffix(r.URL.Path, "/checkpoint") || r.URL.Path == "/api/v1/log") {
		n.looked(log.host)
	}
	switch {
	case log.v1 != nil && r.Method == http.MethodPost:
		log.v1.came(body)
	case intact && resp.StatusCode == 200:
		log.served(r.URL.Path)
	}
	return resp, nil
}

func (n *network) status(r *http.Request, status int, after string) *http.Response {
	h := http.Header{}
	if after != "" {
		h.Set("Retry-After", after)
	}
	return &http.Response{StatusCode: status, Header: h, Body: http.NoBody, Request: r, ProtoMajor: 1, ProtoMinor: 1}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// served notes the entries that somebody was given as they are.
func (l *simLog) served(path string) {
	rest, ok := strings.CutPrefix(path, "/api/v2/tile/entries/")
	if !ok {
		return
	}
	rest, width, partial := strings.Cut(rest, ".p/")
	index, n := uint64(0), 256
	for _, part := range strings.Split(rest, "/") {
		v, err := strconv.ParseUint(strings.TrimPrefix(part, "x"), 10, 64)
		if err != nil {
			return
		}
		index = index*1000 + v
	}
	if partial {
		n, _ = strconv.Atoi(width)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range uint64(n) {
		if at := index*256 + i; l.lie != "other entry" || at != l.swap {
			l.seen[at] = true
		}
	}
}

// truth is the tree that a process is right to believe: the one that it was shown first.
func (l *simLog) truth(size uint64, root checkpoint.Hash) bool {
	if size > l.tree.Size() {
		return false
	}
	r, err := l.tree.Root(size)
	return err == nil && checkpoint.Hash(r) == root
}

// alternative reports whether a head is one of the other history.
func (l *simLog) alternative(size uint64, root checkpoint.Hash) bool {
	l.mu.Lock()
	other := l.other
	l.mu.Unlock()
	if other == nil || size > other.Size() {
		return false
	}
	r, err := other.Root(size)
	return err == nil && checkpoint.Hash(r) == root
}

// ask makes a request to co-sign the newest checkpoint, of either history.
func (l *simLog) ask(ctx context.Context, from uint64, other bool) (note []byte, proof [][]byte, err error) {
	l.mu.Lock()
	tree, size := l.tree, l.published
	if other && l.other != nil {
		tree = l.other
	}
	l.mu.Unlock()
	size = min(size, tree.Size())
	if size == 0 || from > size {
		return nil, nil, errors.New("nothing to ask for")
	}
	if l.v1 != nil {
		note = l.v1.SignHead(number(l.name)>>1, size, must(tree.Root(size)))
	} else if note, err = tree.CheckpointAt(size); err != nil {
		return nil, nil, err
	}
	c, err := l.opener.Open(note)
	if err != nil {
		return nil, nil, err
	}
	known, err := checkpoint.OpenTree(c, func(level uint, index uint64, width int) ([]byte, error) { return tree.Tile(level, index, width) })
	if err != nil {
		return nil, nil, err
	}
	if from == 0 {
		return note, nil, nil
	}
	hashes, err := known.ConsistencyProof(from)
	for _, h := range hashes {
		proof = append(proof, h[:])
	}
	return note, proof, err
}
