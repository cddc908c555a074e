package rekor

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

// TestBoundsV1: answers that are good but for their length are refused for that, and those
// that are just short enough are taken.
func TestBoundsV1(t *testing.T) {
	ctx := context.Background()
	hash := strings.Repeat("ab", 32)
	for _, c := range []struct {
		name  string
		doc   string
		limit int
		get   func(v *V1) error
	}{
		{"trees", `{"treeSize":1,"treeID":"1","signedTreeHead":"x"}`, maxLogInfo, func(v *V1) error { _, err := v.Trees(ctx); return err }},
		{"a proof", `{"hashes":["` + hash + `"]}`, maxProof, func(v *V1) error { _, err := v.Tree("1").ConsistencyProof(ctx, 1, 2); return err }},
		{"entries", `[{"` + "0000000000000001" + hash + `":{"body":"bmV3","logIndex":0,"integratedTime":1,"verification":{"inclusionProof":{"logIndex":0,"hashes":[],"checkpoint":"x"}}}}]`, maxRetrieve,
			func(v *V1) error { _, err := v.Tree("1").Entries(ctx, 0, 0, 1); return err }},
	} {
		for _, over := range []int{0, 1} {
			v := serveV1(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				// The white space comes first: whoever stops reading has read no document.
				for left := c.limit - len(c.doc) + over; left > 0; left -= 1 << 20 {
					w.Write(bytes.Repeat([]byte(" "), min(left, 1<<20)))
				}
				w.Write([]byte(c.doc))
			}), nil)
			held := bounds.Hold(t)
			err := c.get(v)
			held()
			var malformed *MalformedError
			switch {
			case over == 0 && err != nil:
				t.Errorf("%s of %d bytes: %v", c.name, c.limit, err)
			case over == 1 && (!errors.As(err, &malformed) || !strings.Contains(err.Error(), fmt.Sprintf("longer than %d bytes", c.limit))):
				t.Errorf("%s of a byte more: %v", c.name, err)
			}
		}
	}
	for name, answer := range map[string]string{
		"no JSON": "x", "no hash": `{"hashes":["zz"]}`, "a short hash": `{"hashes":["abab"]}`, "numbers": `{"hashes":[1]}`,
		"a tree too high": `{"hashes":["` + strings.Repeat(hash+`","`, 64) + hash + `"]}`,
	} {
		v := serveV1(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(answer)) }), nil)
		var malformed *MalformedError
		if _, err := v.Tree("1").ConsistencyProof(ctx, 1, 2); !errors.As(err, &malformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Each tree has a possible size, and all of them together have not.
	v := serveV1(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"treeSize":1,"treeID":"3","signedTreeHead":"x","inactiveShards":[{"treeSize":%[1]d,"treeID":"1","signedTreeHead":"x"},{"treeSize":%[1]d,"treeID":"2","signedTreeHead":"x"}]}`, uint64(1)<<62)
	}), nil)
	if offset, _, err := v.Tree("3").Offset(ctx); err == nil {
		t.Errorf("indexes from %d on", offset)
	}
}

// TestBoundsOfAnswers: a bundle that is too long is refused by its length, before anything
// takes it apart; a server cannot keep somebody busy with compressed nothing, or with
// redirects to itself.
func TestBoundsOfAnswers(t *testing.T) {
	defer bounds.Hold(t)()
	ctx := context.Background()
	v := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, maxBundle+1)) }), nil)
	if _, err := v.Leaves(ctx, 0, 256); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a long bundle: %v", err)
	}
	var empty bytes.Buffer
	gzip.NewWriter(&empty).Close()
	var sent atomic.Int64
	v = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		members := bytes.Repeat(empty.Bytes(), 1000)
		for {
			n, err := w.Write(members)
			sent.Add(int64(n))
			if err != nil || sent.Load() > 64<<20 {
				return
			}
		}
	}), func(o *Options) { o.Tries = 1 })
	if raw, err := v.Checkpoint(ctx); err == nil && len(raw) > 0 || sent.Load() > 64<<20 {
		t.Errorf("compressed nothing, %d MB of it: %q, %v", sent.Load()>>20, raw, err)
	}
	asked := 0
	v = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, fmt.Sprint("/again/", asked), http.StatusFound)
	}), nil)
	if _, err := v.Checkpoint(ctx); err == nil || asked > 4 || !strings.Contains(err.Error(), "redirect") {
		t.Errorf("%d redirects to itself: %v", asked, err)
	}
}

// TestEndlessAnswers: whatever is asked for, an answer without an end, and one that is of half a gigabyte once
// it is inflated, is read as far as its bound and no further.
func TestEndlessAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector takes long for so many bytes, and nothing runs beside anything else")
	}
	ctx := context.Background()
	const most = 512 << 20
	var bomb bytes.Buffer
	z, err := gzip.NewWriterLevel(&bomb, gzip.BestSpeed)
	for range most >> 20 {
		if err == nil {
			_, err = z.Write(make([]byte, 1<<20))
		}
	}
	if err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	for _, zipped := range []bool{false, true} {
		var sent atomic.Int64
		answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if zipped {
				w.Header().Set("Content-Encoding", "gzip")
				w.Write(bomb.Bytes())
				return
			}
			for chunk := make([]byte, 64<<10); sent.Load() < most; {
				n, err := w.Write(chunk)
				if sent.Add(int64(n)); err != nil {
					return
				}
			}
		})
		v2, v1 := serve(t, answer, func(o *Options) { o.Tries = 1 }), serveV1(t, answer, func(o *Options) { o.Tries = 1 })
		for what, get := range map[string]func() error{
			"checkpoint": func() error { _, err := v2.Checkpoint(ctx); return err },
			"tile":       func() error { _, err := v2.Tile(ctx, 0, 0, 256); return err },
			"bundle":     func() error { _, err := v2.Leaves(ctx, 0, 256); return err },
			"trees":      func() error { _, err := v1.Trees(ctx); return err },
			"proof":      func() error { _, err := v1.Tree("1").ConsistencyProof(ctx, 1, 2); return err },
			"entries":    func() error { _, err := v1.Tree("1").Entries(ctx, 0, 0, 1); return err },
		} {
			sent.Store(0)
			held := bounds.Hold(t)
			if err := get(); err == nil {
				t.Errorf("%s (gzip %v): taken", what, zipped)
			}
			held()
			if n := sent.Load(); n > most/4 {
				t.Errorf("%s: %d MB were read", what, n>>20)
			}
		}
	}
}
