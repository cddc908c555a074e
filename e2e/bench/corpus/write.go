package corpus

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

const tileWidth = 256

// writer writes a directory of tiles.
type writer struct {
	dir    string
	levels [][]checkpoint.Hash // of the tile that grows, by level
	full   []uint64            // tiles written, by level
	size   uint64
}

// WriteDir writes a log of n entries to dir/log, and its key and authority to dir/log.pub and
// dir/ca.pem. From entry `different` on, a multiple of 256 if it is not 0, bundles come again as
// links to those before: a log of any size takes no more room than so many entries.
func (c *Corpus) WriteDir(dir string, n, different uint64) error {
	log, err := c.log()
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"ca.pem": c.CA.ChainPEM(), "log.pub": log.PublicKeyPEM()} {
		if err := write(filepath.Join(dir, name), []byte(text)); err != nil {
			return err
		}
	}
	w := &writer{dir: filepath.Join(dir, "log")}
	m := c.Maker()
	var again [][]checkpoint.Hash // the hashes of bundles that come again
	var bundle, leaf []byte
	for from := uint64(0); from < n; from += tileWidth {
		count := min(tileWidth, n-from)
		if k := from / tileWidth; different != 0 && from >= different && count == tileWidth {
			first := k % (different / tileWidth)
			path := filepath.Join(w.dir, locallog.BundlePath(k, tileWidth))
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return err
			}
			if err := os.Link(filepath.Join(w.dir, locallog.BundlePath(first, tileWidth)), path); err != nil {
				return err
			}
			if err := w.push(0, again[first]...); err != nil {
				return err
			}
			continue
		}
		bundle = bundle[:0]
		hashes := make([]checkpoint.Hash, count)
		for i := range hashes {
			leaf = m.Append(leaf[:0], from+uint64(i))
			hashes[i] = checkpoint.LeafHash(leaf)
			bundle = append(binary.BigEndian.AppendUint16(bundle, uint16(len(leaf))), leaf...)
		}
		if err := write(filepath.Join(w.dir, locallog.BundlePath(from/tileWidth, int(count))), bundle); err != nil {
			return err
		}
		if different != 0 {
			again = append(again, hashes)
		}
		if err := w.push(0, hashes...); err != nil {
			return err
		}
	}
	w.size = n
	root, err := w.finish()
	if err != nil {
		return err
	}
	note, err := log.SignHead(n, locallog.Hash(root))
	if err != nil {
		return err
	}
	return write(filepath.Join(w.dir, "checkpoint"), note)
}

// push adds hashes to a level, and what is full of it to a tile.
func (w *writer) push(level int, hashes ...checkpoint.Hash) error {
	if level == len(w.levels) {
		w.levels, w.full = append(w.levels, nil), append(w.full, 0)
	}
	for _, h := range hashes {
		w.levels[level] = append(w.levels[level], h)
		if len(w.levels[level]) < tileWidth {
			continue
		}
		if err := w.tile(level); err != nil {
			return err
		}
		root := checkpoint.PerfectRoot(w.levels[level])
		w.levels[level] = w.levels[level][:0]
		w.full[level]++
		if err := w.push(level+1, root); err != nil {
			return err
		}
	}
	return nil
}

// tile writes the tile that grows.
func (w *writer) tile(level int) error {
	var data []byte
	for _, h := range w.levels[level] {
		data = append(data, h[:]...)
	}
	return write(filepath.Join(w.dir, locallog.TilePath(uint(level), w.full[level], len(w.levels[level]))), data)
}

// finish writes the partial tiles, and returns the root.
func (w *writer) finish() (checkpoint.Hash, error) {
	f := checkpoint.Frontier{}
	for level := len(w.levels) - 1; level >= 0; level-- {
		for _, h := range w.levels[level] {
			var err error
			if f, err = f.AppendPerfect(uint(8*level), h); err != nil {
				return checkpoint.Hash{}, err
			}
		}
		if len(w.levels[level]) > 0 {
			if err := w.tile(level); err != nil {
				return checkpoint.Hash{}, err
			}
		}
	}
	if f.Size() != w.size {
		return checkpoint.Hash{}, fmt.Errorf("the tiles are of a tree of size %d, not %d", f.Size(), w.size)
	}
	return f.Root(), nil
}

func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}
