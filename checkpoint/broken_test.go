package checkpoint

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

// promised is a promise of an entry, signed with a key.
func promised(t testing.TB, k ecdsaKey, leaf string, logIndex uint64) Promise {
	t.Helper()
	p := Promise{Leaf: []byte(leaf), Integrated: 1700000000, LogID: sha256.Sum256(k.spki), LogIndex: logIndex}
	digest := sha256.Sum256(p.Text())
	sig, err := ecdsa.SignASN1(rand.Reader, k.private, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	p.SET = sig
	return p
}

// treeHead signs a tree.
func treeHead(t testing.TB, k ecdsaKey, tree string, size uint64, root Hash) []byte {
	return k.sign(t, "rekor.example", fmt.Sprintf("rekor.example - %s\n%d\n%s\n", tree, size, base64.StdEncoding.EncodeToString(root[:])))
}

func TestBrokenPromise(t *testing.T) {
	key, stranger := newECDSA(t), newECDSA(t)
	l, err := NewTree("rekor.example - 9", stranger.spki, key.spki)
	if err != nil {
		t.Fatal(err)
	}
	left, held := LeafHash([]byte("left")), LeafHash([]byte("held"))
	note := treeHead(t, key, "9", 2, nodeHash(left, held))
	first, second := treeHead(t, key, "7", 30, left), treeHead(t, key, "8", 10, left)
	make := func(p Promise, before ...[]byte) (BrokenPromise, error) {
		return NewBrokenPromise(l, p, held, []Hash{left}, 1, note, before)
	}
	for name, before := range map[string][][]byte{"first tree": nil, "third tree": {first, second}} {
		b, err := make(promised(t, key, "promised", 1+uint64(len(before))*20), before...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		doc, err := b.Print()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseBrokenPromise(doc)
		if err != nil || again.Verify(l) != nil {
			t.Errorf("%s: %v, %v", name, err, again.Verify(l))
		}
		// Whoever has that key alone is convinced; whoever has another is not.
		alone, _ := NewTree("rekor.example - 9", key.spki)
		other, _ := NewTree("rekor.example - 9", stranger.spki)
		if b.Verify(alone) != nil || b.Verify(other) == nil {
			t.Errorf("%s: %v", name, b.Verify(alone))
		}
	}

	good, err := make(promised(t, key, "promised", 41), first, second)
	if err != nil {
		t.Fatal(err)
	}
	foreign := treeHead(t, stranger, "8", 10, left)
	for name, alter := range map[string]func(b *BrokenPromise){
		"promise kept":          func(b *BrokenPromise) { b.Promised = promised(t, key, "held", 41) },
		"promise of nobody":     func(b *BrokenPromise) { b.Promised.SET = nil },
		"promise of a stranger": func(b *BrokenPromise) { b.Promised = promised(t, newECDSA(t), "promised", 41) },
		"promise for elsewhere": func(b *BrokenPromise) { b.Promised = promised(t, key, "promised", 42) },
		"promised leaf":         func(b *BrokenPromise) { b.Promised.Leaf = []byte("x") },
		"promised time":         func(b *BrokenPromise) { b.Promised.Integrated++ },
		"promised index":        func(b *BrokenPromise) { b.Promised.LogIndex++ },
		"log id":                func(b *BrokenPromise) { b.Promised.LogID[0]++ },
		"log id of another key": func(b *BrokenPromise) { b.Promised.LogID = sha256.Sum256(stranger.spki) },
		"leaf hash":             func(b *BrokenPromise) { b.Held.Hash[0]++ },
		"path":                  func(b *BrokenPromise) { b.Held.Path = nil },
		"path too long":         func(b *BrokenPromise) { b.Held.Path = append(b.Held.Path, b.Held.Path...) },
		"index":                 func(b *BrokenPromise) { b.Index = 0 },
		"index of no tree":      func(b *BrokenPromise) { b.Index = 1<<64 - 1 },
		"checkpoint":            func(b *BrokenPromise) { b.Checkpoint = strings.Replace(b.Checkpoint, "\n2\n", "\n3\n", 1) },
		"no checkpoint":         func(b *BrokenPromise) { b.Checkpoint = "" },
		"checkpoint of a tree":  func(b *BrokenPromise) { b.Checkpoint = b.Before[0] },
		"trees before left out": func(b *BrokenPromise) { b.Before = b.Before[:1] },
		"tree before twice": func(b *BrokenPromise) {
			b.Before = []string{string(second), string(second), string(second), string(second)}
		},
		"tree before by stranger": func(b *BrokenPromise) { b.Before = []string{string(first), string(foreign)} },
		"tree before no note":     func(b *BrokenPromise) { b.Before[1] = "x" },
		"tree itself before": func(b *BrokenPromise) {
			b.Before = append(b.Before, string(note))
			b.Promised = promised(t, key, "promised", 43)
		},
		"too many before": func(b *BrokenPromise) {
			b.Before = nil
			for i := range maxBefore + 1 {
				b.Before = append(b.Before, string(treeHead(t, key, fmt.Sprint(100+i), 0, EmptyRoot)))
			}
			b.Promised = promised(t, key, "promised", 1)
		},
		"more before than there can be": func(b *BrokenPromise) {
			b.Before = []string{string(treeHead(t, key, "10", 1<<63-1, left)), string(treeHead(t, key, "11", 1<<63-1, left)), string(treeHead(t, key, "12", 2, left))}
			b.Promised = promised(t, key, "promised", 1)
		},
	} {
		b := good
		b.Before = append([]string{}, good.Before...)
		b.Held.Path = append([]HexHash{}, good.Held.Path...)
		alter(&b)
		// A log with both keys: the stranger's signs trees and promises as well,
		// where the test does not say that it may not.
		trusting := l
		if strings.Contains(name, "stranger") {
			trusting, _ = NewTree("rekor.example - 9", key.spki)
		}
		if err := b.Verify(trusting); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}

	doc, _ := good.Print()
	for name, bad := range map[string]string{
		"a rest":       string(doc) + " ",
		"a key twice":  strings.Replace(string(doc), `"index"`, `"index": 1, "index"`, 1),
		"unknown key":  strings.Replace(string(doc), `"index"`, `"x": 1, "index"`, 1),
		"key in caps":  strings.Replace(string(doc), `"index"`, `"INDEX"`, 1),
		"hash in caps": strings.Replace(string(doc), fmt.Sprintf("%x", held[:]), fmt.Sprintf("%X", held[:]), 1),
		"nothing":      "",
	} {
		if _, err := ParseBrokenPromise([]byte(bad)); err == nil || bad == string(doc) {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzBrokenPromise: nothing is proven that the key has not signed.
func FuzzBrokenPromise(f *testing.F) {
	key, mine := newECDSA(f), newECDSA(f)
	l, err := NewTree("rekor.example - 9", mine.spki)
	if err != nil {
		f.Fatal(err)
	}
	signed, err := NewTree("rekor.example - 9", key.spki)
	if err != nil {
		f.Fatal(err)
	}
	left, held := LeafHash([]byte("left")), LeafHash([]byte("held"))
	b, err := NewBrokenPromise(signed, promised(f, key, "promised", 31), held, []Hash{left}, 1, treeHead(f, key, "9", 2, nodeHash(left, held)), [][]byte{treeHead(f, key, "7", 30, left)})
	if err != nil {
		f.Fatal(err)
	}
	doc, _ := b.Print()
	f.Add(doc)
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		b, err := ParseBrokenPromise(data)
		if err != nil {
			return
		}
		if b.Verify(l) == nil {
			t.Fatal("verified what this key has not signed")
		}
		if again, err := b.Print(); err != nil || string(again) != string(data) {
			t.Fatal("not the form in which it is written")
		}
		_ = b.Verify(signed)
	})
}
