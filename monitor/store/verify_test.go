package store

import (
	"path/filepath"
	"testing"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
)

// TestVerifyBesideDaemon: a head that moves, and what is covered with it, are looked at as of one moment.
func TestVerifyBesideDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := open(t, path, Options{Create: true})
	beside := open(t, path, Options{})
	done := make(chan error, 1)
	go func() {
		old := monitor.State{}
		for size := uint64(1); size <= 400; size++ {
			next := old
			next.Head, next.HeadSize = checkpoint.FormatText("log", size, checkpoint.Hash{1})+"\n", size
			batch := monitor.Batch{Coverage: []monitor.Range{{From: size - 1, To: size}}, WatchSet: []string{"rule"}}
			_, err := s.Commit(ctx, "log", old, &next, batch)
			if err == nil {
				old, err = s.State(ctx, "log")
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for n := 0; ; n++ {
		if err := beside.Verify(ctx); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil || n < 5 {
				t.Errorf("looked %d times: %v", n, err)
			}
			return
		default:
		}
	}
}
