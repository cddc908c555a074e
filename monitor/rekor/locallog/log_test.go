package locallog_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

func fill(t *testing.T, l *locallog.Log, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if _, err := l.Append(fmt.Appendf(nil, "entry %d", i)); err != nil {
			t.Fatal(err)
		}
	}
}

func opener(t *testing.T, l *locallog.Log) *checkpoint.Log {
	t.Helper()
	key, err := checkpoint.ParseKey(l.Origin(), l.PublicKeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := checkpoint.ParseKey("", l.VerifierKey()); err != nil || again.KeyHash() != key.KeyHash() {
		t.Fatalf("verifier key: %v", err)
	}
	c, err := checkpoint.NewLog(l.Origin(), key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTreesOfEverySize: what the log signs at any size is what its tiles fold to.
func TestTreesOfEverySize(t *testing.T) {
	l, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	fill(t, l, 0, 1200)
	open := opener(t, l)
	var frontier checkpoint.Frontier
	for size := uint64(0); size <= 1200; size++ {
		raw, err := l.CheckpointAt(size)
		if err != nil {
			t.Fatal(err)
		}
		c, err := open.Open(raw)
		if err != nil {
			t.Fatal(err)
		}
		if c.Root() != frontier.Root() {
			t.Fatalf("root of size %d is not that of its entries", size)
		}
		if _, err := checkpoint.OpenTree(c, l.Tile); err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		if size < 1200 {
			e, _ := l.Entry(size)
			frontier = frontier.Append(checkpoint.LeafHash(e))
		}
	}
	if _, err := l.CheckpointAt(1201); err == nil {
		t.Error("signed a size that it has not")
	}
}

func TestFilesAndHTTPServeTheSame(t *testing.T) {
	l, _ := locallog.New("log.example")
	fill(t, l, 0, 700)
	dir := t.TempDir()
	if err := l.WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	server := locallog.NewServer(l)
	ts := httptest.NewServer(server)
	defer ts.Close()
	count := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		count++
		name, _ := filepath.Rel(dir, path)
		want, _ := os.ReadFile(path)
		resp, err := http.Get(ts.URL + "/api/v2/" + filepath.ToSlash(name))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		got, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 200 || string(got) != string(want) {
			t.Errorf("%s: status %d, %d bytes, want %d", name, resp.StatusCode, len(got), len(want))
		}
		return nil
	})
	if err != nil || count != 1+4+3 {
		t.Errorf("%d files: %v", count, err)
	}
	for _, path := range []string{"tile/0/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/64/000", "tile/0/x000/000", "tile/entries/003", "checkpoint/", "tile/1/001"} {
		resp, err := http.Get(ts.URL + "/api/v2/" + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, resp.StatusCode)
		}
	}
}

func TestPaths(t *testing.T) {
	for want, got := range map[string]string{
		"tile/0/005":                  locallog.TilePath(0, 5, 256),
		"tile/3/x001/x234/067":        locallog.TilePath(3, 1234067, 256),
		"tile/entries/x001/000.p/255": locallog.BundlePath(1000, 255),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestForkAndFreeze(t *testing.T) {
	l, _ := locallog.New("log.example")
	fill(t, l, 0, 300)
	fork, err := l.Fork(280)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, fork, 1000, 1020)
	a, _ := l.Root(280)
	b, _ := fork.Root(280)
	c, _ := l.Root(300)
	d, _ := fork.Root(300)
	if a != b || c == d {
		t.Error("the fork does not share its beginning, or shares its end")
	}
	open := opener(t, l)
	raw, _ := fork.Checkpoint()
	if _, err := open.Open(raw); err != nil {
		t.Errorf("the fork signs with another key: %v", err)
	}
	l.Freeze(time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC))
	raw, _ = l.Checkpoint()
	if got, err := open.Open(raw); err != nil || !got.Frozen() {
		t.Errorf("frozen: %v", err)
	}
}
