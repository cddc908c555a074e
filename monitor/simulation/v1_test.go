package simulation

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// firstV1 is the first seed of worlds whose logs are trees of Rekor v1: entries come ten at a time,
// heads are proven by proofs that the server makes, and the trees that follow each other are of one server.
const (
	firstV1     = 1_000_000_000
	firstListed = 2_000_000_000 // and of those whose witness knows logs from a list: nobody vouches for them
)

// serverV1 is a server of Rekor v1 with its trees, the oldest first.
type serverV1 struct {
	*locallog.V1
	reader *rekor.V1
	trees  []*simLog
	shown  int // how many of them there are for others
	// useless: the inclusion proofs that it serves prove nothing, to the end, for some entries. stubborn:
	// it serves no consistency proofs from some sizes, to the end, but from those that it has signed.
	useless, stubborn bool
	signed            map[uint64]bool
}

// keyV1 makes a key of a name.
func keyV1(name string) *ecdsa.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return must(ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:]))
}

// serve makes a server of trees that hold nothing yet.
func (w *world) serveV1(name string, trees ...*simLog) {
	host := name + ".log.example"
	s := &serverV1{trees: trees, shown: 1, useless: w.source("useless "+name).IntN(3) == 0, stubborn: w.source("stubborn "+name).IntN(3) == 0, signed: map[uint64]bool{}}
	s.V1 = must(locallog.NewV1WithKeys(host, number(trees[0].name)>>1, keyV1(name), keyV1("somebody else")))
	s.reader = must(rekor.NewV1(rekor.Options{URL: "http://" + name, RequestsPerSecond: 1e6, Transport: w.net}))
	for _, l := range trees {
		l.v1, l.host = s, name
		l.origin = fmt.Sprintf("%s - %d", host, number(l.name)>>1)
		l.id = "v1/" + l.origin
		l.opener = must(checkpoint.ForOrigin(l.origin, s.PublicKeyPEM()))
	}
}

// position is the place of a tree among those of its server.
func (l *simLog) position() int { return slices.Index(l.v1.trees, l) }

// appendV1 puts an entry of the tree into the server.
func (l *simLog) appendV1(e []byte) {
	if l.v1 != nil && l.position() < l.v1.shown {
		l.v1.AppendTo(l.position(), e)
	}
}

// rotate ends the tree that grows, and begins the next one.
func (s *serverV1) rotate() {
	next := s.trees[s.shown]
	s.shown++
	s.Rotate(number(next.name) >> 1)
	for i := range next.tree.Size() {
		next.appendV1(must(next.tree.Entry(i)))
	}
}

// lieV1 shows what the log claims in place of its tree.
func (l *simLog) lieV1(fork *locallog.Log, from uint64) {
	var rest [][]byte
	for i := from; i < fork.Size(); i++ {
		rest = append(rest, must(fork.Entry(i)))
	}
	l.v1.Rewrite(from, rest...)
}

// faultsV1 is how the server of a log behaves now.
func (s *serverV1) faultsV1() (f locallog.FaultsV1) {
	l := s.trees[s.shown-1]
	size := l.size()
	l.mu.Lock()
	defer l.mu.Unlock()
	f.Size = &size
	if s.signed[size] = true; s.stubborn {
		f.NoProof = map[uint64]bool{}
		for i := uint64(3); i < size; i += 7 {
			f.NoProof[i] = !s.signed[i]
		}
	}
	if s.useless {
		f.NoPath = map[uint64]bool{}
		for i := uint64(0); i < size; i += 2 {
			f.NoPath[i] = true
		}
	}
	switch l.lie {
	case "other entry":
		f.Alter = map[uint64][]byte{l.swap: l.stock(nobody)[0]}
	case "other tiles":
		f.WrongProofs = true
	case "stranger's signature":
		f.Stranger = true
	}
	return f
}

// oddly is how a server answers that works badly, in the same way over a world: what it leaves out, or
// proves wrongly, it has.
func (s *serverV1) oddly(rng *rand.Rand, f *locallog.FaultsV1) (what string) {
	way, every := rng.IntN(5), 2+rng.Uint64N(5)
	from := rng.Uint64N(every)
	some, others := map[uint64]bool{}, map[uint64]bool{}
	for i := range s.trees[s.shown-1].tree.Size() {
		some[i], others[i] = i%every == from, i%every != from
	}
	switch way {
	case 0:
		f.NoPath = some
		return "wrong paths"
	case 1:
		f.Omit = some
		return "entries left out"
	case 2:
		f.Omit, f.NoPath = some, others
		return "entries left out, wrong paths"
	case 3:
		f.Omit, f.NoProof = some, some
		return "entries left out, proofs refused"
	}
	f.WrongTimes = true
	return "wrong times"
}

// answerV1 serves a request.
func (s *serverV1) answerV1(w http.ResponseWriter, r *http.Request, f locallog.FaultsV1) {
	s.Set(f)
	s.ServeHTTP(w, r)
}

// came notes the entries that an answer brought as they are, whatever else in it was altered on its way.
func (s *serverV1) came(body []byte) {
	var list []map[string]struct {
		Body     []byte `json:"body"`
		LogIndex uint64 `json:"logIndex"`
	}
	if json.Unmarshal(body, &list) != nil {
		return
	}
	for _, object := range list {
		for _, e := range object {
			at := e.LogIndex
			for i, l := range s.trees[:s.shown] {
				if n := l.tree.Size(); at >= n && i < s.shown-1 {
					at -= n
					continue
				}
				l.mu.Lock()
				for _, tree := range []*locallog.Log{l.tree, l.other} {
					if tree != nil && at < tree.Size() && bytes.Equal(must(tree.Entry(at)), e.Body) {
						l.seen[at] = true
					}
				}
				l.mu.Unlock()
				break
			}
		}
	}
}

// before is how many entries the trees before one hold.
func (l *simLog) before() (n uint64) {
	for _, t := range l.v1.trees[:l.position()] {
		n += t.tree.Size()
	}
	return n
}

// findingV1 audits what a finding of a tree has besides: its index among all of the server, and the
// signed time.
func (a *auditor) findingV1(l *simLog, f monitor.Finding) {
	if want := l.before() + f.Index; f.LogIndex == nil || *f.LogIndex != want {
		a.w.wrong("%s: the finding at %d does not have index %d among all", l.name, f.Index, want)
	}
	if (f.Integrated == nil) != (f.Promise == nil) {
		a.w.wrong("%s: the finding at %d has a time without a promise, or a promise without a time", l.name, f.Index)
	}
	if p := f.Promise; p != nil {
		if err := l.opener.VerifyPromise(f.Leaf, f.Integrated.Unix(), p.LogIndex, p.SET); err != nil || p.Integrated != f.Integrated.Unix() {
			a.w.wrong("%s: the time of the finding at %d is not signed: %v", l.name, f.Index, err)
		}
	}
}

// shows is the incidents that tell a lie of a log by its name.
func (l *simLog) shows() []string {
	switch {
	case l.lie == "other entry":
		return []string{monitor.KindEntryMismatch}
	case l.lie == "stranger's signature":
		return []string{monitor.KindBadSignature}
	case l.lie == "other tiles":
		return []string{monitor.KindUnproven, monitor.KindFork, monitor.KindSplitView}
	}
	return []string{monitor.KindFork, monitor.KindSplitView}
}

// list asks the server for its trees.
func (s *serverV1) list(ctx context.Context, st *store.Store) ([]monitor.LogConfig, error) {
	trees, err := s.reader.Trees(ctx)
	if err != nil {
		return nil, err
	}
	states, err := st.States(ctx)
	if err != nil {
		return nil, err
	}
	known := slices.ContainsFunc(s.trees, func(l *simLog) bool { return states[l.id].Head != "" })
	var out []monitor.LogConfig
	var bad []error
	for _, t := range trees {
		at := slices.IndexFunc(s.trees, func(l *simLog) bool { return strings.HasSuffix(l.origin, " - "+t.ID) })
		if at < 0 {
			bad = append(bad, fmt.Errorf("there is no tree %s", t.ID))
			continue
		}
		cfg := s.trees[at].config()
		if _, err := cfg.Log.Open(t.Note); err != nil {
			bad = append(bad, err)
			continue
		}
		cfg.New, cfg.Retired = known && states[cfg.ID].Head == "", !t.Active
		out = append(out, cfg)
	}
	return out, errors.Join(bad...)
}
