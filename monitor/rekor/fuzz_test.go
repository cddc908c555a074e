package rekor

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

// always answers every request with the same.
type always struct {
	status int
	header http.Header
	body   []byte
}

func (a always) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a.status, Header: a.header.Clone(), Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body)), Request: r}, nil
}

// answers are seeds: what is sent, and how it is said to be encoded.
func answers(f *testing.F, bodies ...string) {
	f.Helper()
	for _, b := range bodies {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		z.Write([]byte(b))
		z.Close()
		f.Add(200, "", []byte(b))
		f.Add(200, "gzip", packed.Bytes())
		f.Add(200, "gzip", append(packed.Bytes(), packed.Bytes()...))
	}
	f.Add(429, "", []byte("slow down"))
	f.Add(304, "br", []byte{})
}

// server answers as a fuzzer says. It never asks to wait: a client would.
func server(status int, encoding string, body []byte) Options {
	header := http.Header{}
	if encoding != "" {
		header.Set("Content-Encoding", encoding)
	}
	return Options{URL: "http://log.example", RequestsPerSecond: 1e6, Tries: 1, Transport: always{status, header, body}}
}

// FuzzAnswersV1: whatever a server of Rekor v1 answers, what is returned has the form of what was asked for.
func FuzzAnswersV1(f *testing.F) {
	id := strings.Repeat("0123456789abcdef", 5)
	proof := `"verification":{"signedEntryTimestamp":"c2V0","inclusionProof":{"logIndex":3,"rootHash":"","treeSize":7,"hashes":["` + strings.Repeat("ab", 32) + `"],"checkpoint":"log.example - 1\n7\n"}}`
	answers(f,
		`{"treeSize":7,"treeID":"1","signedTreeHead":"log.example - 1\n7\nAAAA\n","inactiveShards":[{"treeSize":3,"treeID":"2","signedTreeHead":"log.example - 2\n3\nAAAA\n"}]}`,
		`{"rootHash":"","hashes":["`+strings.Repeat("ab", 32)+`","`+strings.Repeat("CD", 32)+`"]}`,
		`[{"`+id+`":{"body":"bmV3","integratedTime":1700000000,"logID":"x","logIndex":6,`+proof+`}}]`,
		`[{"`+id[16:]+`":{"body":"bmV3","integratedTime":1700000000,"logIndex":7,`+proof+`}},{"`+id+`":{"body":"","logIndex":8}}]`,
	)
	f.Fuzz(func(t *testing.T, status int, encoding string, body []byte) {
		defer bounds.Hold(t)()
		ctx := context.Background()
		v, err := NewV1(server(status, encoding, body))
		if err != nil {
			t.Fatal(err)
		}
		trees, err := v.Trees(ctx)
		if err == nil && len(trees) == 0 {
			t.Error("a server without a tree")
		}
		for _, tree := range trees {
			if tree.ID == "" || len(tree.Note) == 0 {
				t.Errorf("a tree without id or head: %+v", tree)
			}
		}
		tree := v.Tree("1")
		if offset, before, err := tree.Offset(ctx); err == nil && (offset > 1<<63-1 || len(before) >= len(trees)) {
			t.Errorf("%d entries in %d trees before it, of %d", offset, len(before), len(trees))
		}
		if hashes, err := tree.ConsistencyProof(ctx, 3, 7); err == nil {
			for _, h := range hashes {
				if len(h) != hashSize || len(hashes) > 64 {
					t.Errorf("%d hashes, one of %d bytes", len(hashes), len(h))
				}
			}
		}
		entries, err := tree.Entries(ctx, 3, 3, 8)
		for i, e := range entries {
			if err != nil || e.Index != uint64(3+i) || e.LogIndex != uint64(6+i) || e.Leaf != nil && len(e.Hash) != hashSize {
				t.Errorf("%+v, %v", e, err)
			}
			for _, h := range e.Path {
				if len(h) != hashSize || len(e.Path) > 64 {
					t.Errorf("%d hashes, one of %d bytes", len(e.Path), len(h))
				}
			}
		}
	})
}

// FuzzAnswersV2: the same of a log with tiles.
func FuzzAnswersV2(f *testing.F) {
	answers(f, "log.example\n7\nAAAA\n\n— log.example AAAA\n", strings.Repeat("hash", 8*7), "\x00\x03new\x00\x03old\x00\x00\x00\x01x")
	f.Fuzz(func(t *testing.T, status int, encoding string, body []byte) {
		defer bounds.Hold(t)()
		ctx := context.Background()
		v, err := NewV2(server(status, encoding, body))
		if err != nil {
			t.Fatal(err)
		}
		if note, err := v.Checkpoint(ctx); err == nil && len(note) > 1<<20 {
			t.Errorf("a checkpoint of %d bytes", len(note))
		}
		if tile, err := v.Tile(ctx, 0, 0, 7); err == nil && len(tile) != 7*hashSize {
			t.Errorf("a tile of %d bytes", len(tile))
		}
		if leaves, err := v.Leaves(ctx, 256, 260); err == nil && len(leaves) != 4 {
			t.Errorf("%d leaves in place of 4", len(leaves))
		}
	})
}

// FuzzSubmitted: what a server answers to a new entry.
func FuzzSubmitted(f *testing.F) {
	hash := base64.StdEncoding.EncodeToString(make([]byte, 32))
	f.Add([]byte(`{"logIndex":"6","canonicalizedBody":"bmV3","inclusionProof":{"logIndex":"6","treeSize":"7","hashes":["` + hash + `"],"checkpoint":{"envelope":"log.example\n7\n"}}}`))
	f.Add([]byte(`{"canonicalizedBody":"bmV3","inclusionProof":{"logIndex":"-1"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		defer bounds.Hold(t)()
		s, err := parseSubmitted(body)
		if err != nil {
			return
		}
		for _, h := range s.Path {
			if len(h) != hashSize {
				t.Errorf("a hash of %d bytes", len(h))
			}
		}
		if len(s.Leaf) == 0 || s.Index > 1<<63-1 {
			t.Errorf("%+v", s)
		}
	})
}

// FuzzRetryAfter: nobody makes a request wait for longer than is allowed.
func FuzzRetryAfter(f *testing.F) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, text := range []string{"", "1", "-1", "9999999999999999999999", now.Add(time.Hour).Format(http.TimeFormat), "Fri, 31 Dec 9999 23:59:59 GMT", "Monday, 02-Jan-06 15:04:05 GMT"} {
		f.Add(text, now.Unix())
	}
	f.Fuzz(func(t *testing.T, text string, at int64) {
		defer bounds.Hold(t)()
		if wait := parseRetryAfter(text, time.Unix(at, 0)); wait < 0 || wait > maxRetryAfter {
			t.Errorf("%q: %s", text, wait)
		}
	})
}

// FuzzTilePath: the server of the tests and the client agree on where tiles are.
func FuzzTilePath(f *testing.F) {
	for _, i := range []uint64{0, 255, 1000, 1234067, 1 << 40, 1<<56 - 1} {
		f.Add(i)
	}
	f.Fuzz(func(t *testing.T, index uint64) {
		defer bounds.Hold(t)()
		path := tilePath("tile/0/", index)
		var back uint64
		for _, part := range strings.Split(strings.TrimPrefix(path, "tile/0/"), "/") {
			var n uint64
			if _, err := fmt.Sscanf(strings.TrimPrefix(part, "x"), "%03d", &n); err != nil || n > 999 {
				t.Fatalf("%d is at %s", index, path)
			}
			back = back*1000 + n
		}
		if back != index {
			t.Errorf("%d is at %s", index, path)
		}
	})
}
