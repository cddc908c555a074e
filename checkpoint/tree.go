package checkpoint

import (
	"errors"
	"fmt"
	"math/bits"
)

// Tree reads the hashes of one signed tree. Tiles come from whoever serves
// them; each is authenticated from the signed root downwards before any hash
// of it is returned. It may be used by several goroutines at a time.
type Tree struct {
	head   Checkpoint
	served TileReader
	// What a monitor knows of the tree by itself: the leaves [0, scanned) of it
	// through own. Nil for a tree that is only known as it is served.
	own     OwnTiles
	scanned uint64
	// split is a place at which nodes that span it are put together from their
	// halves, since the parts on its left are known without any tile.
	split uint64
	fault error // of reading own tiles: our store's fault, never the log's

	mu    lock
	known map[node]Hash // proven peaks, and subtrees that link scanned to head
	tiles map[tileID][]Hash
	order []tileID // of level 0 and 1 tiles, oldest first
}

// lock is a lock under which tiles are fetched. Unlike with a sync.Mutex, whoever waits for it
// is seen to wait, so that made-up time goes on (testing/synctest).
type lock chan struct{}

func (l lock) Lock()   { l <- struct{}{} }
func (l lock) Unlock() { <-l }

type tileID struct {
	level uint
	index uint64
}

// maxCachedTiles bounds the low tiles that a Tree remembers. Those above are
// few: 8 kB for each 16 million leaves.
const maxCachedTiles = 64

var errNotKept = errors.New("hash is not among those kept")

// newTree returns a tree whose peaks are proven already.
func newTree(head Checkpoint, peaks []Hash, served TileReader) *Tree {
	t := &Tree{head: head, served: served, mu: make(lock, 1), known: make(map[node]Hash), tiles: make(map[tileID][]Hash)}
	for i, n := range cover(0, head.size) {
		t.known[n] = peaks[i]
	}
	return t
}

// OpenTree reads the right edge of a served tree, one tile a level, and proves
// it against the root of head. The error is that of served, or wraps ErrTile.
func OpenTree(head Checkpoint, served TileReader) (*Tree, error) {
	t := &Tree{head: head, served: served, mu: make(lock, 1), known: make(map[node]Hash), tiles: make(map[tileID][]Hash)}
	var peaks []Hash
	for level := uint(0); head.size>>(tileHeight*level) > 0; level++ {
		width := int(head.size >> (tileHeight * level) % TileWidth)
		if width == 0 {
			continue
		}
		index := head.size >> (tileHeight * (level + 1))
		raw, err := served(level, index, width)
		if err != nil {
			return nil, err
		}
		hashes, err := parseTile(raw, width)
		if err != nil {
			return nil, fmt.Errorf("tile (%d, %d): %w", level, index, err)
		}
		t.tiles[tileID{level, index}] = hashes
		peaks = append(peaksOf(hashes), peaks...)
	}
	if foldPeaks(peaks) != head.root {
		return nil, fmt.Errorf("%w: the right edge of the tiles does not fold to the root of size %d", ErrTile, head.size)
	}
	for i, n := range cover(0, head.size) {
		t.known[n] = peaks[i]
	}
	return t, nil
}

// peaksOf returns the roots of the perfect subtrees over the hashes of a
// partial tile, largest first.
func peaksOf(hashes []Hash) []Hash {
	var peaks []Hash
	for _, n := range cover(0, uint64(len(hashes))) {
		peaks = append(peaks, PerfectRoot(hashes[n.start():n.end()]))
	}
	return peaks
}

// Head returns the checkpoint that the tree is authenticated by.
func (t *Tree) Head() Checkpoint { return t.head }

// Peaks returns the proven peaks of the tree, largest first.
func (t *Tree) Peaks() []Hash {
	t.mu.Lock()
	defer t.mu.Unlock()
	var peaks []Hash
	for _, n := range cover(0, t.head.size) {
		peaks = append(peaks, t.known[n])
	}
	return peaks
}

// Tile returns the authenticated hashes of a tile, as many as the tree has.
// The error is that of the TileReader, or wraps ErrTile.
func (t *Tree) Tile(level uint, index uint64) ([]Hash, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tile(level, index)
}

// LeafPath returns the RFC 6962 audit path of the leaf at index, from the
// leaf hashes of its bundle, which must have been proven, and from tiles
// above it. leaves are those of the whole bundle, as far as the tree reaches.
func (t *Tree) LeafPath(index uint64, leaves []Hash) ([]Hash, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(leaves) != TileWidth {
		return t.path(node{0, index})
	}
	var path []Hash
	level := leaves
	for i := index % TileWidth; len(level) > 1; i >>= 1 {
		path = append(path, level[i^1])
		up := make([]Hash, len(level)/2)
		for j := range up {
			up[j] = nodeHash(level[2*j], level[2*j+1])
		}
		level = up
	}
	rest, err := t.path(node{tileHeight, index / TileWidth})
	if err != nil {
		return nil, err
	}
	return append(path, rest...), nil
}

// Frontier returns the proven frontier of the leaves [0, size) of the tree.
func (t *Tree) Frontier(size uint64) (Frontier, error) {
	if size > t.head.size {
		return Frontier{}, fmt.Errorf("size %d is beyond the tree's %d", size, t.head.size)
	}
	hashes, err := t.nodes(0, size)
	if err != nil {
		return Frontier{}, err
	}
	return Frontier{size: size, peaks: hashes}, nil
}

// ConsistencyProof returns the RFC 6962 proof that the tree of the first size leaves is
// a prefix of the tree; empty where nothing is to be proven. size may be any up to the
// tree's.
func (t *Tree) ConsistencyProof(size uint64) ([]Hash, error) {
	if size > t.head.size {
		return nil, fmt.Errorf("size %d is beyond the tree's %d", size, t.head.size)
	}
	if size == 0 || size == t.head.size {
		return nil, nil
	}
	// The node that ends at the size, and its path; a peak that is all of the smaller tree
	// is left out.
	level := uint(bits.TrailingZeros64(size))
	last := node{level, (size - 1) >> level}
	path, err := t.lockedPath(last)
	if err != nil || size == 1<<level {
		return path, err
	}
	h, err := t.lockedNode(last)
	return append([]Hash{h}, path...), err
}

// nodes returns the roots of the perfect subtrees that make up [from, to).
func (t *Tree) nodes(from, to uint64) ([]Hash, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var hashes []Hash
	for _, n := range cover(from, to) {
		h, err := t.node(n)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, h)
	}
	return hashes, nil
}

func (t *Tree) lockedNode(n node) (Hash, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.node(n)
}

func (t *Tree) lockedPath(n node) ([]Hash, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.path(n)
}

// node returns the proven hash of a perfect subtree of the tree.
func (t *Tree) node(n node) (Hash, error) {
	if h, ok := t.known[n]; ok {
		return h, nil
	}
	if n.end() > t.head.size {
		return Hash{}, fmt.Errorf("node (%d, %d) is beyond size %d", n.level, n.index, t.head.size)
	}
	if n.start() < t.split && t.split < n.end() {
		left, err := t.node(node{n.level - 1, 2 * n.index})
		if err != nil {
			return Hash{}, err
		}
		right, err := t.node(node{n.level - 1, 2*n.index + 1})
		if err != nil {
			return Hash{}, err
		}
		return nodeHash(left, right), nil
	}
	if t.own != nil {
		h, err := t.ownNode(n)
		if !errors.Is(err, errNotKept) {
			return h, err
		}
	}
	level, index, from, to := tileOf(n)
	hashes, err := t.tile(level, index)
	if err != nil {
		return Hash{}, err
	}
	return PerfectRoot(hashes[from:to]), nil
}

// ownNode computes a node from what the monitor kept itself, or returns
// errNotKept.
func (t *Tree) ownNode(n node) (Hash, error) {
	if n.end() > t.scanned {
		return Hash{}, errNotKept
	}
	level, index, from, to := tileOf(n)
	hashes, err := t.own(level, index)
	if err != nil {
		t.fault = fmt.Errorf("own tile (%d, %d): %w", level, index, err)
		return Hash{}, t.fault
	}
	if len(hashes) < to {
		return Hash{}, errNotKept
	}
	return PerfectRoot(hashes[from:to]), nil
}

// tile returns a served tile after proving it: a full one by its parent's
// hash, a partial one by the peaks that lie over it.
func (t *Tree) tile(level uint, index uint64) ([]Hash, error) {
	id := tileID{level, index}
	if hashes, ok := t.tiles[id]; ok {
		return hashes, nil
	}
	width := tileWidth(t.head.size, level, index)
	if width == 0 {
		return nil, fmt.Errorf("tile (%d, %d) is beyond size %d", level, index, t.head.size)
	}
	if t.served == nil {
		return nil, errNotKept
	}
	var want []Hash
	if width == TileWidth {
		parent, err := t.node(node{tileHeight * (level + 1), index})
		if err != nil {
			return nil, err
		}
		want = []Hash{parent}
	} else {
		first := index * TileWidth
		for _, n := range cover(first, first+uint64(width)) {
			want = append(want, t.known[node{n.level + tileHeight*level, n.index}])
		}
	}
	raw, err := t.served(level, index, width)
	if err != nil {
		return nil, err
	}
	hashes, err := parseTile(raw, width)
	if err != nil {
		return nil, fmt.Errorf("tile (%d, %d): %w", level, index, err)
	}
	got := []Hash{PerfectRoot(hashes)}
	if width != TileWidth {
		got = peaksOf(hashes)
	}
	for i := range got {
		if got[i] != want[i] {
			return nil, fmt.Errorf("tile (%d, %d): %w", level, index, ErrTile)
		}
	}
	t.remember(id, hashes)
	return hashes, nil
}

func (t *Tree) remember(id tileID, hashes []Hash) {
	t.tiles[id] = hashes
	if id.level > 1 {
		return
	}
	t.order = append(t.order, id)
	if len(t.order) > maxCachedTiles {
		delete(t.tiles, t.order[0])
		t.order = t.order[1:]
	}
}

// path returns the audit path of a node, which may be the last, partial one
// of its level.
func (t *Tree) path(n node) ([]Hash, error) {
	var path []Hash
	last := (t.head.size - 1) >> n.level
	for last > 0 {
		switch {
		case n.index&1 == 1:
			h, err := t.node(node{n.level, n.index - 1})
			if err != nil {
				return nil, err
			}
			path = append(path, h)
		case n.index < last:
			h, err := t.edgeNode(node{n.level, n.index + 1})
			if err != nil {
				return nil, err
			}
			path = append(path, h)
		}
		n = node{n.level + 1, n.index >> 1}
		last >>= 1
	}
	return path, nil
}

// edgeNode returns the hash of a node that may be cut off by the end of the
// tree: then the fold of the peaks below it.
func (t *Tree) edgeNode(n node) (Hash, error) {
	if n.end() <= t.head.size {
		return t.node(n)
	}
	var peaks []Hash
	for _, p := range cover(n.start(), t.head.size) {
		h, err := t.node(p)
		if err != nil {
			return Hash{}, err
		}
		peaks = append(peaks, h)
	}
	return foldPeaks(peaks), nil
}

// EdgeTiles returns the last tile of each level in a tree of the given size,
// proven: what a monitor keeps to go on from there as if it had read all.
func (t *Tree) EdgeTiles(size uint64) ([]Tile, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var tiles []Tile
	for level := uint(0); size>>(tileHeight*level) > 0; level++ {
		width := size >> (tileHeight * level) % TileWidth
		if width == 0 {
			continue
		}
		index := size >> (tileHeight * (level + 1))
		hashes, err := t.tile(level, index)
		if err != nil {
			return nil, err
		}
		tiles = append(tiles, Tile{level, index, hashes[:width]})
	}
	return tiles, nil
}

// proven returns the served tiles that were proven, for an archive of a tree
// that could not be judged yet.
func (t *Tree) proven() []Tile {
	t.mu.Lock()
	defer t.mu.Unlock()
	var tiles []Tile
	for id, hashes := range t.tiles {
		tiles = append(tiles, Tile{id.level, id.index, hashes})
	}
	return tiles
}

// Link returns the proven perfect subtrees that make up [from, size) of the
// tree, as Known.Link holds them.
func (t *Tree) Link(from uint64) ([]Hash, error) { return t.nodes(from, t.head.size) }
