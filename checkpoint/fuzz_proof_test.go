package checkpoint

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

// bend makes other proofs of one: each three bytes of a script change, drop, repeat or insert a hash, or
// put one from elsewhere in its place.
func bend(path []Hash, script []byte, strange Hash) [][]byte {
	list := slicesOf(path)
	for len(script) >= 3 && len(list) < 70 {
		op, at, by := script[0], int(script[1]), script[2]
		script = script[3:]
		if op%6 == 3 {
			list = slices.Insert(list, at%(len(list)+1), append([]byte(nil), strange[:]...))
			continue
		}
		if len(list) == 0 {
			continue
		}
		at %= len(list)
		switch op % 6 {
		case 0:
			if h := list[at]; len(h) > 0 {
				h[int(by)%len(h)] ^= 1 << (op / 6 % 8)
			}
		case 1:
			list = slices.Delete(list, at, at+1)
		case 2:
			list = slices.Insert(list, at, append([]byte(nil), list[at]...))
		case 4:
			other := int(by) % len(list)
			list[at], list[other] = list[other], list[at]
		case 5:
			list[at] = list[at][:min(int(by), len(list[at]))]
		}
	}
	return list
}

// FuzzProofs: of proofs that are bent, and of sizes and indexes that are not those they were made for,
// exactly those are accepted that an independent implementation accepts, and a frontier that comes out of
// one is that of the leaves.
func FuzzProofs(f *testing.F) {
	const most = 70
	_, verifier := newSigner(f, "log.example")
	l, _ := NewLog("log.example", verifier)
	s := newSim(nil, simLeaves(most, most, false))
	for _, script := range []string{"", "\x00\x00\x00", "\x01\x02\x00", "\x03\x01\x00\x01\x05\x00", "\x04\x00\x01", "\x05\x00\x1f"} {
		f.Add(uint64(6), uint64(11), uint64(6), uint64(11), uint64(4), []byte(script))
		f.Add(uint64(16), uint64(64), uint64(16), uint64(64), uint64(17), []byte(script))
		f.Add(uint64(33), uint64(70), uint64(33), uint64(70), uint64(69), []byte(script))
		f.Add(uint64(33), uint64(70), uint64(1<<62), uint64(1<<63-1), uint64(69), []byte(script))
	}
	f.Fuzz(func(t *testing.T, from, to, oldSize, size, index uint64, script []byte) {
		defer bounds.Hold(t)()
		// A true proof of a tree with up to most leaves is told as one of sizes that may be others.
		to = (to-1)%most + 1
		from, index = from%to, index%to
		old := Checkpoint{log: l.id(), origin: "log.example", size: oldSize, root: s.mth(0, from)}
		next := Checkpoint{log: l.id(), origin: "log.example", size: size, root: s.mth(0, to)}
		oldRoot, root := old.root, next.root
		var path []Hash
		if from > 0 {
			path = s.proof(from, 0, to, true)
		}
		bent := bend(path, script, s.levels[0][index])
		if oldSize > 0 && oldSize < size && size < 1<<63 {
			want := proof.VerifyConsistency(rfc6962.DefaultHasher, oldSize, size, bent, oldRoot[:], root[:])
			if err := Advance(old, next, bent); (err == nil) != (want == nil) {
				t.Errorf("%d -> %d: %v, and another implementation says %v", oldSize, size, err, want)
			}
		}
		if fr := (Frontier{}).Append(s.levels[0][:from]...); fr.Root() != oldRoot {
			t.Fatalf("the frontier of %d leaves has another root", from)
		} else if err := fr.Within(next, bent); err == nil && from > 0 && from < size && size < 1<<63 {
			if want := proof.VerifyConsistency(rfc6962.DefaultHasher, from, size, bent, oldRoot[:], root[:]); want != nil {
				t.Errorf("a frontier of %d is within %d, and another implementation says %v", from, size, want)
			}
		}
		leaf := s.levels[0][index]
		bent = bend(s.path(index, 0, to), script, oldRoot)
		// oldSize is an index now.
		for _, at := range []uint64{index, oldSize} {
			var want error
			if at < size && size < 1<<63 {
				want = proof.VerifyInclusion(rfc6962.DefaultHasher, at, size, leaf[:], bent, root[:])
			} else {
				want = ErrUnproven
			}
			hashes, err := toHashes(bent)
			if err == nil {
				err = next.VerifyInclusion(at, leaf, hashes)
			}
			if (err == nil) != (want == nil) {
				t.Errorf("leaf %d of %d: %v, and another implementation says %v", at, size, err, want)
			}
			fr, err := next.Frontier(at, leaf, bent)
			if (err == nil) != (want == nil) {
				t.Errorf("frontier of %d of %d: %v, and another implementation says %v", at, size, err, want)
			}
			if err == nil && size == to && (fr.Size() != at || fr.Root() != s.mth(0, at)) {
				t.Errorf("the frontier of %d is not that of the leaves", at)
			}
		}
	})
}

// FuzzKeys: whatever is taken for a key of a log can be said again, and verifies nothing by itself.
func FuzzKeys(f *testing.F) {
	v, _ := loadVectors(f)
	f.Add("log.example", v.Log.VKey)
	f.Add("rekor.example - 1193050959916656506", v.Log.VKey)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			f.Fatal(err)
		}
		f.Add("log.example", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	}
	f.Fuzz(func(t *testing.T, origin, text string) {
		defer bounds.Hold(t)()
		key, err := ParseKey(origin, text)
		if err == nil {
			if !validKeyName(key.Name()) {
				t.Errorf("a key is called %q", key.Name())
			}
			if key.Verify([]byte("x"), nil) || key.Verify(nil, make([]byte, 64)) || key.Verify(nil, []byte(text)) {
				t.Error("something that nobody signed verifies")
			}
		}
		if der, err := ParseSPKI(text); err == nil {
			again, err := ParseSPKI(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
			if err != nil || string(again) != string(der) {
				t.Errorf("the key of %q reads as another one when it is said again: %v", text, err)
			}
		}
		if l, err := ForOrigin(origin, text); err == nil {
			if l.Origin() != origin {
				t.Errorf("the log of %q is called %q", origin, l.Origin())
			}
			if _, err := l.Open([]byte(origin + "\n1\n" + strings.Repeat("A", 43) + "=\n\n— " + origin + " AAAAAAAA\n")); err == nil {
				t.Error("a checkpoint is taken that nobody signed")
			}
		}
	})
}

// FuzzPromise: of all promises those are taken that the log made.
func FuzzPromise(f *testing.F) {
	key := newECDSA(f)
	l, err := NewTree("rekor.example - 7", key.spki)
	if err != nil {
		f.Fatal(err)
	}
	leaf := []byte(`{"kind":"x"}`)
	digest := sha256.Sum256(fmt.Appendf(nil, `{"body":"%s","integratedTime":1700000000,"logID":"%x","logIndex":42}`, base64.StdEncoding.EncodeToString(leaf), sha256.Sum256(key.spki)))
	sig, err := ecdsa.SignASN1(rand.Reader, key.private, digest[:])
	if err != nil {
		f.Fatal(err)
	}
	if err := l.VerifyPromise(leaf, 1700000000, 42, sig); err != nil {
		f.Fatal(err)
	}
	f.Add(leaf, int64(1700000000), uint64(42), []byte{})
	f.Add(leaf, int64(-1), uint64(1<<63), []byte{0, 1, 2})
	f.Fuzz(func(t *testing.T, body []byte, at int64, index uint64, bend []byte) {
		defer bounds.Hold(t)()
		bent := append([]byte(nil), sig...)
		for len(bend) >= 2 {
			bent[int(bend[0])%len(bent)] ^= bend[1]
			bend = bend[2:]
		}
		for _, signature := range [][]byte{bent, body, bend} {
			if l.VerifyPromise(body, at, index, signature) == nil && (!bytes.Equal(body, leaf) || at != 1700000000 || index != 42) {
				t.Fatal("a promise is taken that nobody made")
			}
		}
	})
}
