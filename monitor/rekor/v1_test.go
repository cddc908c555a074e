package rekor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

func serveV1(t testing.TB, h http.Handler, change func(*Options)) *V1 {
	t.Helper()
	ts := httptest.NewServer(h)
	t.Cleanup(ts.Close)
	opts := Options{URL: ts.URL, FirstWait: time.Millisecond, RequestsPerSecond: 10000}
	if change != nil {
		change(&opts)
	}
	v, err := NewV1(opts)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// shards makes a server of two trees, the first of which has ended.
func shards(t testing.TB, first, second int) *locallog.V1 {
	t.Helper()
	l, err := locallog.NewV1("rekor.example", 3904496407287907110)
	if err != nil {
		t.Fatal(err)
	}
	for i := range first {
		l.Append(fmt.Appendf(nil, "old %d", i))
	}
	l.Rotate(1193050959916656506)
	for i := range second {
		l.Append(fmt.Appendf(nil, "new %d", i))
	}
	return l
}

// TestReadsTrees reads every entry and proof of both trees; the proofs verify
// by another implementation.
func TestReadsTrees(t *testing.T) {
	ctx := context.Background()
	v := serveV1(t, shards(t, 37, 25), nil)
	trees, err := v.Trees(ctx)
	if err != nil || len(trees) != 2 || trees[0].ID != "3904496407287907110" || trees[0].Active || !trees[1].Active || trees[0].Size != 37 || trees[1].Size != 25 {
		t.Fatalf("%+v, %v", trees, err)
	}
	for i, tree := range trees {
		source := v.Tree(tree.ID)
		note, err := source.Checkpoint(ctx)
		if err != nil || !strings.HasPrefix(string(note), fmt.Sprintf("rekor.example - %s\n%d\n", tree.ID, tree.Size)) {
			t.Fatalf("%s, %v", note, err)
		}
		offset, before, err := source.Offset(ctx)
		if err != nil || offset != uint64(i*37) || len(before) != i || i > 0 && !strings.HasPrefix(string(before[0]), "rekor.example - "+trees[0].ID+"\n37\n") {
			t.Fatalf("offset %d, %v", offset, err)
		}
		for at := uint64(0); at < tree.Size; at += 10 {
			entries, err := source.Entries(ctx, offset, at, min(at+10, tree.Size))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				name := map[int]string{0: "old", 1: "new"}[i]
				if string(e.Leaf) != fmt.Sprintf("%s %d", name, e.Index) || e.LogIndex != e.Index+offset || e.Integrated == 0 || len(e.SET) == 0 {
					t.Errorf("%+v", e)
				}
				hash := rfc6962.DefaultHasher.HashLeaf(e.Leaf)
				root, err := proof.RootFromInclusionProof(rfc6962.DefaultHasher, e.Index, tree.Size, hash, e.Path)
				if err != nil || !bytes.Equal(hash, e.Hash) || !bytes.Contains(e.Note, []byte(fmt.Sprintf("\n%s\n", base64Of(root)))) {
					t.Errorf("inclusion proof of %d: %v", e.Index, err)
				}
			}
		}
		for from := uint64(1); from < tree.Size; from++ {
			hashes, err := source.ConsistencyProof(ctx, from, tree.Size)
			if err != nil || len(hashes) == 0 {
				t.Fatalf("consistency from %d: %v", from, err)
			}
		}
	}
	if _, err := v.Tree("7").Checkpoint(ctx); err == nil || !strings.Contains(err.Error(), "tree 7") {
		t.Errorf("a tree that is not there: %v", err)
	}
	if _, err := v.Tree(trees[1].ID).ConsistencyProof(ctx, 5, 1000); !IsLagging(err) {
		t.Errorf("a size that is not known yet: %v", err)
	}
}

func base64Of(b []byte) string { data, _ := json.Marshal(b); return strings.Trim(string(data), `"`) }

// TestLeftOutV1: entries that the server leaves out are seen to be missing, and
// altered ones come with the hash that their id names.
func TestLeftOutV1(t *testing.T) {
	l := shards(t, 10, 30)
	v := serveV1(t, l, nil)
	l.Set(locallog.FaultsV1{Omit: map[uint64]bool{3: true, 9: true}, Alter: map[uint64][]byte{5: []byte("altered")}})
	entries, err := v.Tree("1193050959916656506").Entries(context.Background(), 10, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		if (e.Leaf == nil) != (i == 3 || i == 9) || e.Index != uint64(i) {
			t.Errorf("entry %d: %q", i, e.Leaf)
		}
	}
	if e := entries[5]; string(e.Leaf) != "altered" || !bytes.Equal(e.Hash, rfc6962.DefaultHasher.HashLeaf([]byte("new 5"))) {
		t.Errorf("%+v", e)
	}
	if _, err := v.Tree("1193050959916656506").Entries(context.Background(), 11, 0, 10); err == nil {
		t.Error("a wrong offset went unnoticed")
	}
}

// TestMalformedV1: an answer that is not what was asked for is said to be, and
// is not asked for again.
func TestMalformedV1(t *testing.T) {
	good := func(change func(id *string, e map[string]any)) string {
		id := "108e9186e8c5677a" + strings.Repeat("ab", 32)
		e := map[string]any{"body": "bmV3", "logIndex": 10, "integratedTime": 1, "verification": map[string]any{"inclusionProof": map[string]any{"logIndex": 0, "hashes": []string{}, "checkpoint": "x"}}}
		change(&id, e)
		text, _ := json.Marshal([]any{map[string]any{id: e}})
		return string(text)
	}
	inclusion := func(e map[string]any) map[string]any {
		return e["verification"].(map[string]any)["inclusionProof"].(map[string]any)
	}
	answers := map[string]string{
		"no JSON":       "<html>",
		"no array":      "{}",
		"not asked for": good(func(_ *string, e map[string]any) { e["logIndex"] = 12 }),
		"before":        good(func(_ *string, e map[string]any) { e["logIndex"] = 9 }),
		"negative":      good(func(_ *string, e map[string]any) { e["logIndex"] = -1 }),
		"other place":   good(func(_ *string, e map[string]any) { inclusion(e)["logIndex"] = 1 }),
		"other tree":    good(func(id *string, _ map[string]any) { *id = "0000000000000001" + strings.Repeat("ab", 32) }),
		"short id":      good(func(id *string, _ map[string]any) { *id = "abcd" }),
		"no body":       good(func(_ *string, e map[string]any) { delete(e, "body") }),
		"no proof":      good(func(_ *string, e map[string]any) { delete(e, "verification") }),
		"bad hash":      good(func(_ *string, e map[string]any) { inclusion(e)["hashes"] = []string{"abc"} }),
		"high tree": good(func(_ *string, e map[string]any) {
			inclusion(e)["hashes"] = strings.Split(strings.Repeat(strings.Repeat("ab", 32)+",", 65), ",")[:65]
		}),
		"twice":    strings.Replace(good(func(*string, map[string]any) {}), "]", ","+good(func(*string, map[string]any) {})[1:], 1),
		"too long": `[{"x":{"body":"` + strings.Repeat("A", 33<<20) + `"}}]`,
	}
	for name, answer := range answers {
		calls := 0
		v := serveV1(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { calls++; w.Write([]byte(answer)) }), nil)
		_, err := v.Tree("1193050959916656506").Entries(context.Background(), 10, 0, 1)
		var malformed *MalformedError
		if !errors.As(err, &malformed) || calls != 1 {
			t.Errorf("%s: %v, asked %d times", name, err, calls)
		}
	}
	for name, answer := range map[string]string{
		"no JSON":   "x",
		"no id":     `{"treeSize":1,"signedTreeHead":"x"}`,
		"float id":  `{"treeSize":1,"treeID":"1.5","signedTreeHead":"x"}`,
		"no note":   `{"treeSize":1,"treeID":"1"}`,
		"same tree": `{"treeSize":1,"treeID":"1","signedTreeHead":"x","inactiveShards":[{"treeSize":1,"treeID":"1","signedTreeHead":"x"}]}`,
		"huge":      `{"treeSize":9223372036854775808,"treeID":"1","signedTreeHead":"x"}`,
		"too long":  strings.Repeat(" ", 2<<20) + "{}",
	} {
		v := serveV1(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(answer)) }), nil)
		if trees, err := v.Trees(context.Background()); err == nil {
			t.Errorf("%s: %+v", name, trees)
		}
	}
}

// TestRetriesV1: busy servers are asked again, refusals are not.
func TestRetriesV1(t *testing.T) {
	for status, want := range map[int]int{429: 4, 499: 4, 500: 4, 503: 4, 400: 1, 404: 1, 422: 1, 501: 1} {
		calls := 0
		v := serveV1(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { calls++; w.WriteHeader(status) }), nil)
		if _, err := v.Tree("1").Entries(context.Background(), 0, 0, 1); err == nil || calls != want {
			t.Errorf("status %d: asked %d times, want %d (%v)", status, calls, want, err)
		}
	}
}
