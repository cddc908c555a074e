package evidence_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor/evidence"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// sample is evidence of one kind, with whom to trust to check all of it.
type sample struct {
	name, claim string
	data        []byte
	trust       evidence.Trust
	proven      []string // begin so
}

func spki(t testing.TB, pemText string) []byte {
	t.Helper()
	der, err := checkpoint.ParseSPKI(pemText)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func opened(t testing.TB, l *locallog.Log, raw []byte) checkpoint.Checkpoint {
	t.Helper()
	log, err := checkpoint.ForOrigin(l.Origin(), l.PublicKeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	c, err := log.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// cosigned adds cosignatures of both algorithms to a checkpoint.
func cosigned(t testing.TB, l *locallog.Log, raw []byte) ([]byte, []*witness.Verifier) {
	t.Helper()
	var keys []*witness.Verifier
	for _, a := range []witness.Algorithm{witness.Ed25519, witness.MLDSA44} {
		_, c, err := witness.GenerateKey("witness.example/"+a.String(), a)
		if err != nil {
			t.Fatal(err)
		}
		line, err := c.Cosign(t.Context(), opened(t, l, raw), time.Unix(1700000000, 0))
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, line...)
		keys = append(keys, c.Verifier)
	}
	return raw, keys
}

// samples makes evidence of every kind.
func samples(t testing.TB) (out []sample) {
	t.Helper()
	l, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := testca.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ca.Issue(testca.Identity{Email: "a@b.example", Issuer: "https://issuer.example"})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := s.HashedRekord([]byte("artifact"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		e := fmt.Appendf(nil, "entry %d", i)
		if i == 23 {
			e = leaf
		}
		l.Append(e)
	}
	authorities, err := entry.NewAuthorities(entry.Authority{Chain: ca.Chain(), ValidFrom: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := authorities.Document()
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := l.Checkpoint()
	raw, keys := cosigned(t, l, plain)
	c := opened(t, l, raw)
	tree, err := checkpoint.OpenTree(c, l.Tile)
	if err != nil {
		t.Fatal(err)
	}
	path, err := tree.LeafPath(23, nil)
	if err != nil {
		t.Fatal(err)
	}
	key := spki(t, l.PublicKeyPEM())
	byLog := evidence.Trust{LogKeys: []string{l.PublicKeyPEM()}, Authorities: authorities, Witnesses: keys}
	in := evidence.Inclusion{Origin: l.Origin(), Index: 23, Leaf: leaf, Proof: path, Note: string(raw), Size: c.Size(), Root: c.Root(), LogKey: key,
		Authorities: doc, TrustRoot: []byte("{}"), Provenance: []byte(`{"repository": "r", "anchor": "a"}`), Rule: []byte(`{"Match":[]}`), Statement: map[string]string{"watch": "w"}}
	add := func(name, claim string, trust evidence.Trust, write func(*bytes.Buffer) error, proven ...string) {
		t.Helper()
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, sample{name, claim, b.Bytes(), trust, proven})
	}
	add("finding", evidence.ClaimInclusion, byLog, func(b *bytes.Buffer) error { return evidence.WriteInclusion(b, in) },
		"the log's key signed a checkpoint", "witness witness.example/ed25519 had seen", "witness witness.example/ml-dsa-44 had seen", "that tree contains the leaf", "the leaf is an entry", "the entry is about", "the leaf names as signer 1 a certificate", "an authority that is trusted issued")
	redacted := in
	redacted.Redacted = true
	add("redacted finding", evidence.ClaimInclusion, byLog, func(b *bytes.Buffer) error { return evidence.WriteInclusion(b, redacted) },
		"the log's key signed a checkpoint", "witness", "witness", "that tree contains a leaf with hash")
	out = append(out, finding1(t), alone(t))
	for _, d := range divergences(t, l) {
		for _, claim := range []string{evidence.ClaimFork, evidence.ClaimSplitView} {
			add(claim+" "+string(d.Shape), claim, byLog, func(b *bytes.Buffer) error {
				return evidence.WriteFork(b, claim, l.Origin(), d, key, map[string]string{"incident": "i-1"})
			}, "the log's key signed both", "both cannot be true (shape of the evidence: "+string(d.Shape))
		}
	}
	data, v1 := broken(t)
	out = append(out, sample{"broken promise", evidence.ClaimBrokenPromise, data, byKey(v1.PublicKeyPEM()), []string{"the log's key signed the promise", "the log's key signed a tree"}})
	frozen, _ := l.Fork(l.Size())
	frozen.Freeze(time.Unix(1700000000, 0))
	ended, _ := frozen.Checkpoint()
	grown, _ := l.Fork(l.Size())
	grown.Append([]byte("more"))
	larger, _ := grown.Checkpoint()
	add("retired log", evidence.ClaimRetiredChanged, byLog, func(b *bytes.Buffer) error {
		return evidence.WriteRetiredChanged(b, l.Origin(), ended, larger, key, "x")
	}, "the log's key signed that log log.example had ended", "the log's key signed another tree")
	hash := checkpoint.LeafHash(leaf)
	held, _ := json.Marshal(checkpoint.ProvenNode{Hash: checkpoint.HexHash(hash), Path: hexes(path)})
	add("mismatch", evidence.ClaimMismatch, byLog, func(b *bytes.Buffer) error {
		return evidence.WriteMismatch(b, l.Origin(), raw, []evidence.Served{{Index: 23, Leaf: []byte("swapped"), Held: held}, {Index: 3, Leaf: nil}}, key, "x")
	}, "the log's key signed a checkpoint", "witness", "witness", "that tree holds at index 23")
	stretch, ledgerKey := stretchOf(t, c, raw, key)
	withLedger := byLog
	withLedger.LedgerKeys = []string{ledgerKey}
	add("coverage", evidence.ClaimCoverage, withLedger, func(b *bytes.Buffer) error { return evidence.WriteCoverage(b, stretch) },
		"the ledger's key signed ledger sigwarden-ledger/00 of 9 rows with row 6 in it, and by the hash that each row has of the one before it rows 2 to 6", "the log's key signed the last of these heads", "witness", "witness")
	// A tree of Rekor v1 whose server called itself something else before.
	moved, movedKey, movedLog := movedStretch(t)
	byBoth := byKey(movedLog)
	byBoth.LedgerKeys = []string{movedKey}
	add("coverage of Rekor v1", evidence.ClaimCoverage, byBoth, func(b *bytes.Buffer) error { return evidence.WriteCoverage(b, moved) },
		"the ledger's key signed ledger sigwarden-ledger/00", "the log's key signed the last of these heads")
	return out
}

func hexes(list []checkpoint.Hash) []checkpoint.HexHash {
	out := make([]checkpoint.HexHash, len(list))
	for i, h := range list {
		out[i] = checkpoint.HexHash(h)
	}
	return out
}

// finding1 is evidence of an entry of Rekor v1, with its promise.
func finding1(t testing.TB) sample {
	t.Helper()
	in, key := inclusion1(t)
	var b bytes.Buffer
	if err := evidence.WriteInclusion(&b, in); err != nil {
		t.Fatal(err)
	}
	return sample{"finding of Rekor v1", evidence.ClaimInclusion, b.Bytes(), byKey(key),
		[]string{"the log's key signed a checkpoint", "that tree contains the leaf", "the leaf is no entry", "the log's key signed that it took the leaf in at"}}
}

// inclusion1 is what such evidence is made of, and the log's key.
func inclusion1(t testing.TB) (evidence.Inclusion, string) {
	t.Helper()
	v, err := locallog.NewV1("rekor.example", 7)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		v.Append(fmt.Appendf(nil, "entry %d", i))
	}
	ts := httptest.NewServer(v)
	defer ts.Close()
	client, err := rekor.NewV1(rekor.Options{URL: ts.URL})
	if err != nil {
		t.Fatal(err)
	}
	tree := client.Tree("7")
	list, err := tree.Entries(t.Context(), 0, 4, 5)
	if err != nil {
		t.Fatal(err)
	}
	e := list[0]
	log, err := checkpoint.ForOrigin("rekor.example - 7", v.PublicKeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	c, err := log.Open(e.Note)
	if err != nil {
		t.Fatal(err)
	}
	id, err := log.PromiseKey(e.Leaf, e.Integrated, e.LogIndex, e.SET)
	if err != nil {
		t.Fatal(err)
	}
	var path []checkpoint.Hash
	for _, h := range e.Path {
		path = append(path, checkpoint.Hash(h))
	}
	return evidence.Inclusion{Origin: "rekor.example - 7", Index: 4, Leaf: e.Leaf, Proof: path, Note: string(e.Note), Size: c.Size(), Root: c.Root(), LogKey: spki(t, v.PublicKeyPEM()),
		Promise: &checkpoint.Promise{Leaf: e.Leaf, Integrated: e.Integrated, LogID: id, LogIndex: e.LogIndex, SET: e.SET}, Integrated: time.Unix(e.Integrated, 0), Statement: "x"}, v.PublicKeyPEM()
}

// alone is evidence of the only entry of a log, whose audit path is empty.
func alone(t testing.TB) sample {
	t.Helper()
	l, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	l.Append([]byte("alone"))
	raw, _ := l.Checkpoint()
	c := opened(t, l, raw)
	var b bytes.Buffer
	if err := evidence.WriteInclusion(&b, evidence.Inclusion{Origin: l.Origin(), Leaf: []byte("alone"), Note: string(raw), Size: 1, Root: c.Root(), LogKey: spki(t, l.PublicKeyPEM()), Statement: "x"}); err != nil {
		t.Fatal(err)
	}
	return sample{"only entry", evidence.ClaimInclusion, b.Bytes(), byKey(l.PublicKeyPEM()), []string{"the log's key signed a checkpoint", "that tree contains the leaf", "the leaf is no entry"}}
}

// divergences are one of each shape.
func divergences(t testing.TB, l *locallog.Log) (out []checkpoint.Divergence) {
	t.Helper()
	fork, _ := l.Fork(30)
	for range 10 {
		fork.Append([]byte("another history"))
	}
	same, _ := fork.Checkpoint()
	raw, _ := l.Checkpoint()
	out = append(out, checkpoint.Divergence{Shape: checkpoint.EqualSize, Smaller: string(raw), Larger: string(same)})
	for range 25 {
		fork.Append([]byte("and more"))
	}
	larger, _ := fork.Checkpoint()
	ours, theirs := opened(t, l, raw), opened(t, l, larger)
	tree, err := checkpoint.OpenTree(ours, l.Tile)
	if err != nil {
		t.Fatal(err)
	}
	known := checkpoint.Known{Head: ours, Peaks: tree.Peaks(), Own: func(uint, uint64) ([]checkpoint.Hash, error) { return nil, nil }}
	known.Scanned, _ = tree.Frontier(l.Size())
	_, _, err = known.Compare(theirs, fork.Tile, nil)
	d, ok := err.(*checkpoint.DivergenceError)
	if !ok || d.Evidence.Shape != checkpoint.Prefix {
		t.Fatal(err)
	}
	out = append(out, d.Evidence)
	other, err := checkpoint.OpenTree(theirs, fork.Tile)
	if err != nil {
		t.Fatal(err)
	}
	node := checkpoint.Divergence{Shape: checkpoint.Node, Smaller: string(raw), Larger: string(larger), Index: 33}
	for _, side := range []struct {
		tree *checkpoint.Tree
		log  *locallog.Log
		into **checkpoint.ProvenNode
	}{{tree, l, &node.InSmaller}, {other, fork, &node.InLarger}} {
		path, err := side.tree.LeafPath(33, nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := side.log.Entry(33)
		if err != nil {
			t.Fatal(err)
		}
		*side.into = &checkpoint.ProvenNode{Hash: checkpoint.HexHash(checkpoint.LeafHash(leaf)), Path: hexes(path)}
	}
	return append(out, node)
}

// stretchOf makes rows 2 to 6 of a ledger of 9.
func stretchOf(t testing.TB, c checkpoint.Checkpoint, raw, logKey []byte) (evidence.Stretch, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	head := ledger.Head{Size: c.Size(), Root: checkpoint.HexHash(c.Root())}
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	var chain ledger.Chain
	var rows [][]byte
	var hashes []checkpoint.Hash
	add := func(kind, log string, body any) {
		at = at.Add(time.Hour)
		r, err := ledger.New(chain.Size(), chain.Last, at, kind, log, body)
		if err != nil {
			t.Fatal(err)
		}
		line, err := r.Print()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := chain.Add(line); err != nil {
			t.Fatal(err)
		}
		rows, hashes = append(rows, line), append(hashes, chain.Last)
	}
	span := ledger.Span{Name: "log", Since: at, Until: at.Add(time.Hour), Polls: 60, Read: []ledger.Range{{From: 0, To: 40}}, Head: head}
	add(ledger.KindBegin, "", ledger.Begin{ID: "00", Version: "v"})
	add(ledger.KindStart, "", ledger.Start{Version: "v"})
	add(ledger.KindSpan, c.Origin(), span)
	add(ledger.KindSpan, "other.example", span)
	add(ledger.KindPause, c.Origin(), ledger.Pause{Since: at, Until: at.Add(time.Hour), Reason: ledger.PauseNotRunning})
	add(ledger.KindGap, c.Origin(), ledger.Gap{Range: ledger.Range{From: 7, To: 8}, Reason: "entry-withheld"})
	add(ledger.KindSpan, c.Origin(), span)
	add(ledger.KindSpan, c.Origin(), span)
	add(ledger.KindStop, "", ledger.Stop{Version: "v"})
	signer, err := checkpoint.NewSigner(ledger.Origin("00"), key)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: ledger.HeadText(ledger.Origin("00"), chain.Size(), chain.Root())}, signer)
	if err != nil {
		t.Fatal(err)
	}
	path, err := checkpoint.PathOver(hashes, 6)
	if err != nil {
		t.Fatal(err)
	}
	return evidence.Stretch{Origin: c.Origin(), Ledger: ledger.Origin("00"), Since: time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC), Until: time.Date(2026, 3, 1, 7, 0, 0, 0, time.UTC),
		Rows: rows[2:7], Head: string(signed), Path: path, LedgerKey: der, Note: raw, LogKey: logKey, Statement: "x"}, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// movedStretch is one of a tree of Rekor v1 whose server calls itself something else now;
// also the keys of the ledger and of the log.
func movedStretch(t testing.TB) (s evidence.Stretch, ledgerKey, logKey string) {
	t.Helper()
	v, err := locallog.NewV1("rekor.example", 8)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		v.Append(fmt.Appendf(nil, "entry %d", i))
	}
	ts := httptest.NewServer(v)
	defer ts.Close()
	client, err := rekor.NewV1(rekor.Options{URL: ts.URL})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := client.Tree("8").Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	log, err := checkpoint.ForOrigin("rekor.example - 8", v.PublicKeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	c, err := log.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	s, ledgerKey = stretchOf(t, c, raw, spki(t, v.PublicKeyPEM()))
	s.Origin = "elsewhere.example - 8"
	return s, ledgerKey, v.PublicKeyPEM()
}

// isKey reports whether a line says which key signed.
func isKey(line string) bool { return keyLine.MatchString(line) }

var keyLine = regexp.MustCompile(`^[a-z.-]+ was signed with the (log|ledger)'s key whose DER form has SHA-256 [0-9a-f]{64}$`)

// TestEveryKind: each verifies with the keys that are trusted, proves just what it
// should, and not with the keys of somebody else.
func TestEveryKind(t *testing.T) {
	kinds := map[string]bool{}
	for _, s := range samples(t) {
		kinds[s.claim] = true
		res, err := evidence.Verify(s.data, s.trust)
		if err != nil || !res.Holds || res.Claim != s.claim {
			t.Errorf("%s: %v, %+v", s.name, err, res)
			continue
		}
		proven := res.Of(evidence.Proven)
		want := fmt.Sprintf("%x", sha256.Sum256(spki(t, s.trust.LogKeys[0])))
		if !slices.ContainsFunc(proven, func(line string) bool { return isKey(line) && strings.HasSuffix(line, want) }) {
			t.Errorf("%s: it does not say which key signed", s.name)
		}
		proven = slices.DeleteFunc(proven, isKey)
		if !slices.EqualFunc(proven, s.proven, strings.HasPrefix) {
			t.Errorf("%s: proven are\n%s", s.name, strings.Join(proven, "\n"))
		}
		if len(res.Of(evidence.Statement)) == 0 {
			t.Errorf("%s: nothing is called a statement", s.name)
		}
		stranger, _ := locallog.New("log.example")
		bad := byKey(stranger.PublicKeyPEM())
		bad.LedgerKeys = bad.LogKeys
		if _, err := evidence.Verify(s.data, bad); err == nil {
			t.Errorf("%s: verifies with the keys of somebody else", s.name)
		}
		if _, err := evidence.Verify(s.data, evidence.Trust{}); err == nil {
			t.Errorf("%s: verifies without any key", s.name)
		}
		res, err = evidence.Verify(s.data, evidence.Trust{Embedded: true})
		if s.name == "broken promise" { // made without its key
			if err == nil {
				t.Errorf("%s: verifies with no key at all", s.name)
			}
		} else if err != nil || !res.EmbeddedTrust {
			t.Errorf("%s: with the keys in it: %v", s.name, err)
		}
	}
	for _, claim := range []string{evidence.ClaimInclusion, evidence.ClaimFork, evidence.ClaimSplitView, evidence.ClaimBrokenPromise, evidence.ClaimRetiredChanged, evidence.ClaimMismatch, evidence.ClaimCoverage} {
		if !kinds[claim] {
			t.Errorf("no sample of %s", claim)
		}
	}
}

// TestKeysOfOthers: a key is taken for the log that it is given for. What two keys have
// signed says nothing of one log, unless both are given as its own, by its name.
func TestKeysOfOthers(t *testing.T) {
	l, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	l.Append([]byte("a"))
	stranger.Append([]byte("b"))
	ours, _ := l.Checkpoint()
	theirs, _ := stranger.Checkpoint()
	var b bytes.Buffer
	d := checkpoint.Divergence{Shape: checkpoint.EqualSize, Smaller: string(ours), Larger: string(theirs)}
	if err := evidence.WriteFork(&b, evidence.ClaimFork, l.Origin(), d, nil, "x"); err != nil {
		t.Fatal(err)
	}
	named := func(name string, l *locallog.Log) string {
		pub, err := x509.ParsePKIXPublicKey(spki(t, l.PublicKeyPEM()))
		if err != nil {
			t.Fatal(err)
		}
		key, err := note.NewEd25519VerifierKey(name, pub.(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	for name, tc := range map[string]struct {
		keys  []string
		holds bool
	}{
		"two keys of no name":          {[]string{l.PublicKeyPEM(), stranger.PublicKeyPEM()}, false},
		"both are the log's":           {[]string{named("log.example", l), named("log.example", stranger)}, true},
		"one is the log's":             {[]string{named("log.example", l), stranger.PublicKeyPEM()}, false},
		"one is another log's":         {[]string{named("log.example", l), named("other.example", stranger)}, false},
		"both are those of other logs": {[]string{named("other.example", l), named("other.example", stranger)}, false},
	} {
		res, err := evidence.Verify(b.Bytes(), evidence.Trust{LogKeys: tc.keys})
		if (err == nil) != tc.holds || res.Holds != tc.holds || !tc.holds && len(res.Claims) > 0 {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
		if tc.holds {
			keys := slices.DeleteFunc(res.Of(evidence.Proven), func(line string) bool { return !isKey(line) })
			if len(keys) != 2 || keys[0][len(keys[0])-64:] == keys[1][len(keys[1])-64:] {
				t.Errorf("two keys have signed, and it says %q", keys)
			}
		}
	}
	if _, err := evidence.Verify(b.Bytes(), evidence.Trust{LogKeys: []string{named("other.example", l)}}); err == nil || !strings.Contains(err.Error(), `those that were given are of "other.example"`) {
		t.Errorf("%v", err)
	}
	root := evidence.Trust{Root: func(string) []string { return []string{l.PublicKeyPEM(), stranger.PublicKeyPEM()} }}
	if _, err := evidence.Verify(b.Bytes(), root); err != nil {
		t.Errorf("both are the log's by the trusted root: %v", err)
	}
}

// TestPromiseOfAnother: who signs promises for another log's tree proves nothing of it, though
// he is trusted for his own.
func TestPromiseOfAnother(t *testing.T) {
	in, key := inclusion1(t)
	other, otherKey := inclusion1(t)
	in.Promise = other.Promise
	var b bytes.Buffer
	if err := evidence.WriteInclusion(&b, in); err != nil {
		t.Fatal(err)
	}
	both := evidence.Trust{LogKeys: []string{key, otherKey}}
	if _, err := evidence.Verify(b.Bytes(), both); err == nil {
		t.Error("the time of an entry is what another key says")
	}
	data, v := broken(t)
	theirs, w := broken(t)
	parsed := func(data []byte) checkpoint.BrokenPromise {
		p, err := checkpoint.ParseBrokenPromise(contents(t, data)["broken-promise.json"])
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	mixed := parsed(data)
	mixed.Promised = parsed(theirs).Promised
	b.Reset()
	if err := evidence.WriteBrokenPromise(&b, "rekor.example - 8", mixed, nil, "x"); err != nil {
		t.Fatal(err)
	}
	both.LogKeys = []string{v.PublicKeyPEM(), w.PublicKeyPEM()}
	if _, err := evidence.Verify(b.Bytes(), both); err == nil {
		t.Error("a log broke what another one had promised")
	}
}

// TestUntoldTimes: times of which no row tells are said, and what rows before could say.
func TestUntoldTimes(t *testing.T) {
	l, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	l.Append([]byte("a"))
	raw, _ := l.Checkpoint()
	s, key := stretchOf(t, opened(t, l, raw), raw, spki(t, l.PublicKeyPEM()))
	s.Since, s.Until = time.Date(2026, 2, 28, 22, 0, 0, 0, time.UTC), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	if err := evidence.WriteCoverage(&b, s); err != nil {
		t.Fatal(err)
	}
	res, err := evidence.Verify(b.Bytes(), evidence.Trust{LogKeys: []string{l.PublicKeyPEM()}, LedgerKeys: []string{key}})
	if err != nil {
		t.Fatal(err)
	}
	got := res.Of(evidence.NotProven)
	for _, want := range []string{
		"whether entries were missing already, or the log was halted, when these rows begin: rows before 2 are not in the archive",
		"whether anybody was watching from 2026-02-28T22:00:00Z to 2026-03-01T00:00:00Z: no row tells of that time",
		"whether anybody was watching from 2026-03-01T01:00:00Z to 2026-03-01T04:00:00Z: no row tells of that time",
		"whether anybody was watching from 2026-03-01T05:00:00Z to 2026-03-01T12:00:00Z: no row tells of that time",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("not said: %s\nbut\n%s", want, strings.Join(got, "\n"))
		}
	}
	if len(got) != 4 {
		t.Errorf("%d things are not proven:\n%s", len(got), strings.Join(got, "\n"))
	}
	s.Ledger = "log.example"
	b.Reset()
	if err := evidence.WriteCoverage(&b, s); err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.Verify(b.Bytes(), evidence.Trust{LedgerKeys: []string{key}}); err == nil || !strings.Contains(err.Error(), "is no ledger") {
		t.Errorf("%v", err)
	}
}

// TestOlderIsNoChange: an old checkpoint, served after the log had ended, is no change.
func TestOlderIsNoChange(t *testing.T) {
	l, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	l.Append([]byte("a"), []byte("b"))
	older, _ := l.CheckpointAt(1)
	l.Freeze(time.Unix(1700000000, 0))
	ended, _ := l.Checkpoint()
	for _, second := range [][]byte{older, ended} {
		var b bytes.Buffer
		if err := evidence.WriteRetiredChanged(&b, l.Origin(), ended, second, nil, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := evidence.Verify(b.Bytes(), byKey(l.PublicKeyPEM())); err == nil {
			t.Error("an honest log is called changed")
		}
	}
}

// TestNoByteCanBeAltered flips every byte of the file of each kind, and every byte of
// what is in it, packed again as if it had been so from the beginning. The former is
// never accepted; the latter proves nothing else than before, if it is.
func TestNoByteCanBeAltered(t *testing.T) {
	for _, s := range samples(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			res, err := evidence.Verify(s.data, s.trust)
			if err != nil {
				t.Fatal(err)
			}
			want := res.Of(evidence.Proven)
			stride := 1
			if testing.Short() {
				stride = 13
			}
			for i := 0; i < len(s.data); i += stride {
				bad := bytes.Clone(s.data)
				bad[i] ^= 1
				if _, err := evidence.Verify(bad, s.trust); err == nil {
					t.Fatalf("byte %d of %d altered: accepted", i, len(s.data))
				}
			}
			files := contents(t, s.data)
			names := evidence.Names(files)
			if !bytes.Equal(evidence.Pack(files, names...), s.data) {
				t.Fatal("the test packs in another form, so that it would show nothing")
			}
			for _, name := range names {
				if strings.HasPrefix(name, "served-entry-") {
					continue // any bytes but those of the entry are not the entry: it proves no more
				}
				whole := files[name]
				for i := 0; i < len(whole); i += stride {
					files[name] = bytes.Clone(whole)
					files[name][i] ^= 1
					res, err := evidence.Verify(evidence.Pack(files, names...), s.trust)
					if err != nil {
						continue
					}
					got := res.Of(evidence.Proven)
					if slices.ContainsFunc(got, func(line string) bool { return !slices.Contains(want, line) }) {
						t.Fatalf("%s, byte %d altered: proven\n%s", name, i, strings.Join(got, "\n"))
					}
					if strings.HasSuffix(name, "checkpoint") || name == "leaf" || name == "promise" || name == "ledger.jsonl" || strings.HasSuffix(name, ".tlog-proof") {
						// Only what nobody has signed may differ: a cosignature becomes unknown.
						if len(got) == len(want) && (i+1 == len(whole) || whole[i+1] != '=') { // bits that base64 does not use
							t.Fatalf("%s, byte %d altered: all is proven as before", name, i)
						}
					}
				}
				files[name] = whole
				rest := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
				if res, err := evidence.Verify(evidence.Pack(files, rest...), s.trust); err == nil && len(res.Of(evidence.Proven)) > len(want) {
					t.Errorf("without %s more is proven", name)
				}
			}
		})
	}
}

// TestSamplesToFiles writes the samples where another verifier can look at them.
func TestSamplesToFiles(t *testing.T) {
	dir := os.Getenv("SIGWARDEN_EVIDENCE_DIR")
	if dir == "" {
		t.Skip("SIGWARDEN_EVIDENCE_DIR names no folder")
	}
	for i, s := range samples(t) {
		base := filepath.Join(dir, fmt.Sprintf("%02d", i))
		for suffix, data := range map[string][]byte{".zip": s.data, ".log.pem": []byte(s.trust.LogKeys[0]), ".ledger.pem": []byte(strings.Join(s.trust.LedgerKeys, "")), ".claim": []byte(s.name)} {
			if err := os.WriteFile(base+suffix, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
