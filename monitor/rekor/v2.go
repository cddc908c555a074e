package rekor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"
)

// Bounds of what a Rekor v2 log serves.
const (
	maxCheckpoint = 64 << 10
	tileWidth     = 256
	hashSize      = 32
	maxEntry      = 1<<16 - 1
	maxBundle     = tileWidth * (2 + maxEntry)
)

// V2 reads a Rekor v2 log: a checkpoint, hash tiles and entry bundles as C2SP
// tlog-tiles lays them out, over HTTP or from a directory. It may be used by
// several goroutines at a time.
type V2 struct {
	files  *files  // one of both is set
	client *client // one of both is set

	mu         sync.Mutex
	etag       string
	checkpoint []byte // the answer that etag belongs to
}

// NewV2 returns the reader of a log. For http and https URLs the resources are
// below URL/api/v2/; a file URL names a directory of tiles as they are.
func NewV2(opts Options) (*V2, error) {
	if strings.HasPrefix(opts.URL, "file:") {
		f, err := newFiles(opts.URL)
		if err != nil {
			return nil, err
		}
		return &V2{files: f}, nil
	}
	c, err := newClient(opts)
	if err != nil {
		return nil, err
	}
	return &V2{client: c}, nil
}

// Stats counts requests made and bytes received, as they came over the wire.
func (v *V2) Stats() Stats {
	if v.files != nil {
		return Stats{Requests: v.files.reads.Load(), Bytes: v.files.bytes.Load()}
	}
	return v.client.stats()
}

// Checkpoint returns the log's newest signed note, unproven. Over HTTP it asks
// whether the last one has changed.
func (v *V2) Checkpoint(ctx context.Context) ([]byte, error) {
	if v.files != nil {
		return v.files.read(ctx, "checkpoint", maxCheckpoint, nil)
	}
	v.mu.Lock()
	etag, last := v.etag, v.checkpoint
	v.mu.Unlock()
	a, err := v.client.get(ctx, "checkpoint", "api/v2/checkpoint", maxCheckpoint, etag)
	if err != nil {
		return nil, err
	}
	if a.notModified {
		return last, nil
	}
	v.mu.Lock()
	v.etag, v.checkpoint = a.etag, a.body
	v.mu.Unlock()
	return a.body, nil
}

// Tile returns the bytes of a hash tile of the given width (1 to 256). Where
// the log has cleaned a partial tile up, they are cut from the full one. A tile
// that the log does not have gives an error that is fs.ErrNotExist.
func (v *V2) Tile(ctx context.Context, level uint, index uint64, width int) ([]byte, error) {
	body, full, err := v.fetch(ctx, fmt.Sprintf("tile/%d/", level), index, width, tileWidth*hashSize, nil)
	if err != nil {
		return nil, err
	}
	want := width
	if full {
		want = tileWidth
	}
	if len(body) != want*hashSize {
		return nil, &MalformedError{fmt.Sprintf("tile (%d, %d)", level, index), fmt.Sprintf("%d bytes, want %d hashes of %d", len(body), want, hashSize)}
	}
	return body[:width*hashSize], nil
}

// Leaves returns the entries [from, to), or those of them that are in the
// bundle of from; unproven. to must not be beyond the size of the tree. A bundle that
// the log does not have gives an error that is fs.ErrNotExist, one that is no
// bundle of the right count a MalformedError. The entries share one buffer.
func (v *V2) Leaves(ctx context.Context, from, to uint64) ([][]byte, error) {
	return v.LeavesInto(ctx, from, to, nil)
}

// LeavesInto is Leaves into memory of the caller: the entries are good until it is used again.
// room, if not nil, is asked for it when an answer begins; size is how long that is said to be, 0
// if that is not said. What room returns is grown where it is too small; nil: the answer gets
// memory of its own.
func (v *V2) LeavesInto(ctx context.Context, from, to uint64, room func(size int64) (*[]byte, error)) ([][]byte, error) {
	if from >= to {
		return nil, fmt.Errorf("entries [%d, %d): nothing asked for", from, to)
	}
	index := from / tileWidth
	first := index * tileWidth
	width := int(min(to-first, tileWidth))
	body, full, err := v.fetch(ctx, "tile/entries/", index, width, maxBundle, room)
	if err != nil {
		return nil, err
	}
	count := width
	if full {
		count = tileWidth
	}
	entries, err := parseBundle(body, count)
	if err != nil {
		return nil, &MalformedError{fmt.Sprintf("entry bundle %d", index), err.Error()}
	}
	return entries[from-first : width], nil
}

// fetch gets a tile or bundle, and the full one where a partial one is gone.
//
// SPEC: tlog-tiles: a partial tile may be removed once the full one exists;
// clients then take what they need from that.
func (v *V2) fetch(ctx context.Context, prefix string, index uint64, width int, limit int64, room func(int64) (*[]byte, error)) (body []byte, full bool, err error) {
	if width < 1 || width > tileWidth {
		return nil, false, fmt.Errorf("width %d: a tile has 1 to %d", width, tileWidth)
	}
	path := tilePath(prefix, index)
	if width < tileWidth {
		body, err = v.read(ctx, fmt.Sprintf("%s.p/%d", path, width), limit, room)
		if err == nil || !gone(err) {
			return body, false, err
		}
	}
	body, fullErr := v.read(ctx, path, limit, room)
	if fullErr != nil && err != nil && gone(fullErr) && (errors.Is(err, fs.ErrNotExist) || !errors.Is(fullErr, fs.ErrNotExist)) {
		fullErr = err // speak of the tile that was asked for
	}
	return body, true, fullErr
}

// gone reports whether a resource is not there. Object stores answer 403 for
// one that is not there to clients that may not list it.
func gone(err error) bool {
	var status *StatusError
	return errors.Is(err, fs.ErrNotExist) || errors.As(err, &status) && status.Status == http.StatusForbidden
}

func (v *V2) read(ctx context.Context, path string, limit int64, room func(int64) (*[]byte, error)) ([]byte, error) {
	if v.files != nil {
		return v.files.read(ctx, path, limit, room)
	}
	kind := "tile"
	if limit == maxBundle {
		kind = "bundle"
	}
	a, err := v.client.do(ctx, request{kind: kind, path: "api/v2/" + path, limit: limit, room: room})
	return a.body, err
}

// tilePath encodes a tile's index (C2SP tlog-tiles): 1234067 is x001/x234/067.
func tilePath(prefix string, index uint64) string {
	path := fmt.Sprintf("%03d", index%1000)
	for index >= 1000 {
		index /= 1000
		path = fmt.Sprintf("x%03d/%s", index%1000, path)
	}
	return prefix + path
}

// parseBundle takes an entry bundle apart: count entries, each after its length
// in two bytes, big-endian, and nothing after the last.
func parseBundle(body []byte, count int) ([][]byte, error) {
	entries := make([][]byte, 0, count)
	for rest := body; len(rest) > 0; {
		if len(entries) == count {
			return nil, fmt.Errorf("%d bytes after the last of %d entries", len(rest), count)
		}
		if len(rest) < 2 {
			return nil, fmt.Errorf("broken off in the length of entry %d", len(entries))
		}
		n := int(binary.BigEndian.Uint16(rest))
		rest = rest[2:]
		if len(rest) < n {
			return nil, fmt.Errorf("broken off in entry %d: %d bytes of %d", len(entries), len(rest), n)
		}
		entries = append(entries, rest[:n:n])
		rest = rest[n:]
	}
	if len(entries) != count {
		return nil, fmt.Errorf("%d entries, want %d", len(entries), count)
	}
	return entries, nil
}
