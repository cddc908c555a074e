package locallog

import (
	"fmt"
	"os"
	"path/filepath"
)

// TilePath returns the path of a tile below a log's prefix (C2SP tlog-tiles).
func TilePath(level uint, index uint64, width int) string {
	return tilePath(fmt.Sprintf("tile/%d/", level), index, width)
}

// BundlePath returns the path of an entry bundle below a log's prefix.
func BundlePath(index uint64, width int) string {
	return tilePath("tile/entries/", index, width)
}

func tilePath(prefix string, index uint64, width int) string {
	name := fmt.Sprintf("%03d", index%1000)
	for index >= 1000 {
		index /= 1000
		name = fmt.Sprintf("x%03d/%s", index%1000, name)
	}
	if width < tileWidth {
		name += fmt.Sprintf(".p/%d", width)
	}
	return prefix + name
}

// WriteDir writes the log at its present size into a directory of tiles, as
// static file servers and file:// URLs serve it: full tiles and bundles, the
// partial ones of this size, and last the checkpoint.
func (l *Log) WriteDir(dir string) error {
	size := l.Size()
	for level := uint(0); size>>(8*level) > 0; level++ {
		count := size >> (8 * level)
		for index := uint64(0); index*tileWidth < count; index++ {
			width := int(min(tileWidth, count-index*tileWidth))
			tile, err := l.Tile(level, index, width)
			if err != nil {
				return err
			}
			if err := writeFile(dir, TilePath(level, index, width), tile); err != nil {
				return err
			}
			if level > 0 {
				continue
			}
			bundle, err := l.Bundle(index, width)
			if err != nil {
				return err
			}
			if err := writeFile(dir, BundlePath(index, width), bundle); err != nil {
				return err
			}
		}
	}
	checkpoint, err := l.CheckpointAt(size)
	if err != nil {
		return err
	}
	return writeFile(dir, "checkpoint", checkpoint)
}

// writeFile replaces a file as a whole, so that no reader sees half of it.
func writeFile(dir, name string, data []byte) error {
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
