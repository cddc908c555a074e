package checkpoint

import (
	"errors"
	"fmt"
)

// Tiles are those of C2SP tlog-tiles: 256 hashes wide, 8 levels of the tree
// high. Hash i of tile level L is the root of the perfect subtree of 256^L
// leaves that starts at i*256^L.
const (
	tileHeight = 8
	// TileWidth is the number of hashes in a full tile, and of entries in a
	// full entry bundle.
	TileWidth = 1 << tileHeight
)

// ErrTile says that a served hash tile does not fit a signed root: it was
// altered, is of another tree, or is no tile at all. It is found in errors of
// reading a tree whose tiles were served, never where tiles were not served.
var ErrTile = errors.New("served hash tile does not fit the signed tree")

// TileReader returns the bytes of a hash tile as a log served them: width
// hashes of 32 bytes. They need not be proven by anybody. An error means that
// no tile could be had, and is passed on as it is.
type TileReader func(level uint, index uint64, width int) ([]byte, error)

// OwnTiles returns those hashes of a tile that a monitor computed or proved
// itself, as many as it kept (up to 256, none if the tile was never kept).
// They are trusted. An error means that the store could not be read.
type OwnTiles func(level uint, index uint64) ([]Hash, error)

// Tile is a part of a tree's hashes.
type Tile struct {
	Level  uint
	Index  uint64
	Hashes []Hash
}

// tileWidth returns how many hashes the tile has in a tree of the given size;
// 0 if it has none.
func tileWidth(size uint64, level uint, index uint64) int {
	if level > 7 {
		return 0
	}
	count := size >> (tileHeight * level)
	switch first := index * TileWidth; {
	case index > count/TileWidth || first >= count:
		return 0
	case count-first >= TileWidth:
		return TileWidth
	default:
		return int(count - first)
	}
}

// tileOf returns the tile that a node is computed from, and the range of its
// hashes below that node.
func tileOf(n node) (level uint, index uint64, from, to int) {
	level = n.level / tileHeight
	span := n.level % tileHeight
	first := n.index << span
	from = int(first % TileWidth)
	return level, first / TileWidth, from, from + 1<<span
}

func parseTile(raw []byte, width int) ([]Hash, error) {
	if len(raw) != width*HashSize {
		return nil, fmt.Errorf("%w: %d bytes, want %d hashes of %d", ErrTile, len(raw), width, HashSize)
	}
	hashes := make([]Hash, width)
	for i := range hashes {
		hashes[i] = Hash(raw[i*HashSize:])
	}
	return hashes, nil
}
