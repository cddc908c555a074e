package monitor_test

import (
	"context"
	"testing"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// TestLeafTilesAreKept: after a pass of many commits the hashes of the newest leaves are there, those
// of the first commit too.
func TestLeafTilesAreKept(t *testing.T) {
	r := newRig(t)
	r.opts.CommitEvery = 256
	r.fill(r.log, 7*256+20)
	r.restart()
	for range 2 { // the second pass goes on from what the first has kept
		if out := r.once(); out.Err != nil {
			t.Fatal(out.Err)
		}
		size := r.state().Scanned
		for index := range (size + 255) / 256 {
			want := min(size-index*256, 256)
			got, err := r.store.OwnTile(context.Background(), r.cfg.ID, 0, index)
			if err != nil || uint64(len(got)) != want {
				t.Errorf("size %d: tile %d of leaf hashes has %d, want %d; %v", size, index, len(got), want, err)
			}
			for i, h := range got {
				if leaf, _ := r.log.Entry(index*256 + uint64(i)); h != checkpoint.LeafHash(leaf) {
					t.Fatalf("leaf hash %d of tile %d is another", i, index)
				}
			}
		}
		r.fill(r.log, 3*256)
	}
}
