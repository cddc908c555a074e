package checkpoint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"testing"
)

// simProver answers as a Rekor v1 server does, of one tree at one size.
type simProver struct {
	t      testing.TB
	s      *simLog
	size   uint64
	proofs bool // answers with proofs
	paths  bool
}

func (p simProver) Consistency(from, to uint64) ([][]byte, error) {
	if !p.proofs || to > p.size {
		return nil, errNotServed
	}
	return slicesOf(p.s.proof(from, 0, to, true)), nil
}

func (p simProver) Path(index uint64) (Hash, [][]byte, []byte, error) {
	if !p.paths || index >= p.size {
		return Hash{}, nil, nil, errNotServed
	}
	return p.s.levels[0][index], slicesOf(p.s.path(index, 0, p.size)), p.s.note(p.t, p.size), nil
}

// TestCompareProven: over sizes around powers of two and places of divergence, a
// fork is called exactly where there is one and its evidence verifies, whether
// the server answers with its own tree, ours, or not at all.
func TestCompareProven(t *testing.T) {
	signer, verifier := newSigner(t, "log.example")
	l, err := NewLog("log.example", verifier)
	if err != nil {
		t.Fatal(err)
	}
	const most = 70
	ours := newSim(signer, simLeaves(most, most, false))
	verdicts := map[string]int{}
	for _, head := range []uint64{1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 32, 33, 63, 64, 65} {
		for _, scanned := range []uint64{0, head / 2, head} {
			k := ours.monitor(t, l, 0, scanned, head)
			k.Peaks, k.Link = nil, nil // a log without tiles gives none
			for _, size := range []uint64{1, 2, 3, 4, 8, 15, 16, 17, 32, 33, 64, 65, 70} {
				for _, fork := range []uint64{0, 1, 7, 15, 16, 30, 63, most} {
					theirs := newSim(signer, simLeaves(most, fork, true))
					next := theirs.checkpoint(t, l, size)
					honest := fork >= min(size, head)
					for which, server := range []*simLog{theirs, ours} {
						for answers := range 4 {
							p := simProver{t, server, most, answers&1 != 0, answers&2 != 0}
							err := k.CompareProven(next, p, l.Open)
							name := fmt.Sprintf("head %d, scanned %d, size %d, fork at %d, server %d, answers %d", head, scanned, size, fork, which, answers)
							verdicts[judged(t, name, l, err, honest, size, head)]++
						}
					}
				}
			}
		}
	}
	t.Log(verdicts)
	for _, v := range []string{"extends", "older", "fork", "pending", "unproven", "no answer"} {
		if verdicts[v] == 0 {
			t.Errorf("the test never saw the verdict %q", v)
		}
	}
}

func judged(t *testing.T, name string, l *Log, err error, honest bool, size, head uint64) string {
	t.Helper()
	var fork *DivergenceError
	switch {
	case errors.As(err, &fork):
		if honest {
			t.Errorf("%s: an honest log is called a fork", name)
		}
		if err := fork.Evidence.Verify(l); err != nil {
			t.Errorf("%s: evidence: %v", name, err)
		}
		return "fork"
	case err == nil:
		if !honest || size < head {
			t.Errorf("%s: accepted", name)
		}
		return "extends"
	case errors.Is(err, ErrOlder):
		if !honest || size >= head {
			t.Errorf("%s: taken as older", name)
		}
		return "older"
	case errors.Is(err, ErrPending):
		return "pending"
	case errors.Is(err, ErrUnproven):
		return "unproven"
	case errors.Is(err, errNotServed):
		return "no answer"
	}
	t.Errorf("%s: %v", name, err)
	return ""
}

// TestFrontiersByProof: the frontier of every size is found by a consistency proof, but for the few
// that no such proof shows, and by nothing else.
func TestFrontiersByProof(t *testing.T) {
	signer, verifier := newSigner(t, "log.example")
	l, _ := NewLog("log.example", verifier)
	const most = 70
	s := newSim(signer, simLeaves(most, most, false))
	for n := uint64(1); n <= most; n++ {
		c := s.checkpoint(t, l, n)
		for m := uint64(0); m <= n+1; m++ {
			from, ok := c.FrontierFrom(m)
			if want := m != 0 && m <= n && !(m == 1 && n > 1) && !(n == 3 && m > 1); ok != want {
				t.Fatalf("%d in %d: %v", m, n, ok)
			}
			if !ok {
				if _, err := c.FrontierBy(m, nil); !errors.Is(err, ErrUnproven) {
					t.Fatalf("%d in %d: %v", m, n, err)
				}
				continue
			}
			var proof [][]byte
			if from < n {
				proof = slicesOf(s.proof(from, 0, n, true))
			}
			got, err := c.FrontierBy(m, proof)
			if err != nil || got.Root() != s.mth(0, m) || got.Size() != m || len(got.Peaks()) != bits.OnesCount64(m) {
				t.Fatalf("%d in %d: %v", m, n, err)
			}
			for i := range proof {
				bad := slices.Clone(proof)
				bad[i] = append([]byte{}, proof[i]...)
				bad[i][0] ^= 1
				if _, err := c.FrontierBy(m, bad); !errors.Is(err, ErrUnproven) {
					t.Fatalf("%d in %d, hash %d altered: %v", m, n, i, err)
				}
			}
			for _, bad := range [][][]byte{append(slices.Clone(proof), make([]byte, HashSize)), append(slices.Clone(proof), nil), proof[min(1, len(proof)):]} {
				if len(bad) == 0 && len(proof) == 0 {
					continue
				}
				if _, err := c.FrontierBy(m, bad); !errors.Is(err, ErrUnproven) {
					t.Fatalf("%d in %d, with %d hashes for %d: %v", m, n, len(bad), len(proof), err)
				}
			}
		}
	}
}

// TestPaths: what proves a stretch of leaves gives each of them its inclusion proof, the one that the
// log would give.
func TestPaths(t *testing.T) {
	signer, verifier := newSigner(t, "log.example")
	l, _ := NewLog("log.example", verifier)
	const most = 40
	s := newSim(signer, simLeaves(most, most, false))
	leaves := s.levels[0]
	frontier := Frontier{}
	for from := uint64(0); from < most; from++ {
		for n := from + 1; n <= most; n++ {
			c := s.checkpoint(t, l, n)
			for to := from + 1; to <= n; to++ {
				var proof [][]byte
				if to < n {
					proof = slicesOf(s.proof(to, 0, n, true))
				}
				p, err := c.NewPaths(frontier, leaves[from:to], proof)
				if err != nil {
					t.Fatalf("[%d, %d) in %d: %v", from, to, n, err)
				}
				for i := from; i < to; i++ {
					if got, err := p.Path(i); err != nil || !slices.Equal(got, s.path(i, 0, n)) {
						t.Fatalf("%d of [%d, %d) in %d: %v", i, from, to, n, err)
					}
				}
				for _, i := range []uint64{from - 1, to, 1 << 63} {
					if _, err := p.Path(i); !errors.Is(err, ErrUnproven) {
						t.Fatalf("%d, beside [%d, %d) in %d: %v", i, from, to, n, err)
					}
				}
			}
		}
		frontier = frontier.Append(leaves[from])
	}
}

// TestBadPaths: of what proves nothing no path is made.
func TestBadPaths(t *testing.T) {
	signer, verifier := newSigner(t, "log.example")
	l, _ := NewLog("log.example", verifier)
	s := newSim(signer, simLeaves(40, 40, false))
	c, leaves := s.checkpoint(t, l, 37), s.levels[0]
	before := Frontier{}.Append(leaves[:11]...)
	proof := slicesOf(s.proof(17, 0, 37, true))
	for name, bad := range map[string]func() (*Paths, error){
		"no leaves":           func() (*Paths, error) { return c.NewPaths(before, nil, proof) },
		"leaves that are not": func() (*Paths, error) { return c.NewPaths(before, leaves[11:40], nil) },
		"no proof":            func() (*Paths, error) { return c.NewPaths(before, leaves[11:17], nil) },
		"one hash too few":    func() (*Paths, error) { return c.NewPaths(before, leaves[11:17], proof[:len(proof)-1]) },
		"one too many": func() (*Paths, error) {
			return c.NewPaths(before, leaves[11:17], append(slices.Clone(proof), proof[0]))
		},
		"hashes too short":   func() (*Paths, error) { return c.NewPaths(before, leaves[11:17], [][]byte{{1}}) },
		"too many hashes":    func() (*Paths, error) { return c.NewPaths(before, leaves[11:17], make([][]byte, 1000)) },
		"a proof of the end": func() (*Paths, error) { return c.NewPaths(before, leaves[11:37], proof) },
	} {
		if _, err := bad(); !errors.Is(err, ErrUnproven) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string]func() (*Paths, error){
		"another leaf":     func() (*Paths, error) { return c.NewPaths(before, append([]Hash{{1}}, leaves[12:17]...), proof) },
		"another frontier": func() (*Paths, error) { return c.NewPaths(Frontier{}.Append(leaves[1:12]...), leaves[11:17], proof) },
		"another proof": func() (*Paths, error) {
			return c.NewPaths(before, leaves[11:17], append(slices.Clone(proof[:len(proof)-1]), make([]byte, HashSize)))
		},
	} {
		p, err := bad()
		if err == nil {
			_, err = p.Path(13)
		}
		if !errors.Is(err, ErrUnproven) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTreeIdentity: a tree of Rekor v1 is known by its id and key, whatever its
// server calls itself.
func TestTreeIdentity(t *testing.T) {
	key := newECDSA(t)
	l, err := NewTree("rekor.example - 1193050959916656506", key.spki)
	if err != nil {
		t.Fatal(err)
	}
	open := func(origin string, name string) (Checkpoint, error) {
		return l.Open(key.sign(t, name, origin+"\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"))
	}
	a, err := open("rekor.example - 1193050959916656506", "rekor.example")
	if err != nil {
		t.Fatal(err)
	}
	b, err := open("rekor-00001-deployment-56bf7777c9-jds5x - 1193050959916656506", "rekor-00001-deployment-56bf7777c9-jds5x")
	if err != nil || !a.Same(b) || Advance(a, b, nil) != nil {
		t.Errorf("another host: %v", err)
	}
	for origin, name := range map[string]string{
		"rekor.example - 6364419738405537866":  "rekor.example", // another tree
		"rekor.example - 01193050959916656506": "rekor.example",
		"rekor.example":                        "rekor.example",
		" - 1193050959916656506":               "x",
		"a b - 1193050959916656506":            "a",
		"rekor.example -1193050959916656506":   "rekor.example",
	} {
		if _, err := open(origin, name); !errors.Is(err, ErrOrigin) {
			t.Errorf("%q: %v", origin, err)
		}
	}
	if _, err := open("rekor.example - 1193050959916656506", "other.example"); !errors.Is(err, ErrSignature) {
		t.Errorf("name of another host: %v", err)
	}
	for _, text := range []string{key.pem, key.vkey("rekor.example")} {
		l, err := ForOrigin("rekor.example - 7", text)
		if err != nil || l.Origin() != "rekor.example - 7" {
			t.Errorf("%v", err)
		}
	}
	if _, err := NewTree("rekor.example", key.spki); err == nil {
		t.Error("an origin without a tree accepted")
	}
}

// ecdsaKey signs notes as a Rekor v1 server does.
type ecdsaKey struct {
	private *ecdsa.PrivateKey
	spki    []byte
	pem     string
}

func newECDSA(t testing.TB) ecdsaKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return ecdsaKey{private, spki, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))}
}

func (k ecdsaKey) vkey(name string) string {
	id := sha256.Sum256(k.spki)
	return fmt.Sprintf("%s+%x+%s", name, id[:4], base64.StdEncoding.EncodeToString(append([]byte{2}, k.spki...)))
}

func (k ecdsaKey) sign(t testing.TB, name, text string) []byte {
	t.Helper()
	digest := sha256.Sum256([]byte(text))
	sig, err := ecdsa.SignASN1(rand.Reader, k.private, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256(k.spki)
	return []byte(text + "\n\u2014 " + name + " " + base64.StdEncoding.EncodeToString(append(id[:4:4], sig...)) + "\n")
}
