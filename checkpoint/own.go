package checkpoint

import "fmt"

// KeptLeafTiles is how many tiles of leaf hashes before the last, partial one
// a monitor keeps: the last 65,536 leaves, 2 MB. They are what tells an honest
// replica that lags from a fork without any help from the log.
const KeptLeafTiles = 256

// Chunk is a run of proven leaves within one bundle of 256.
type Chunk struct {
	// Leaves are the leaf hashes. Empty where only the root of a full bundle is
	// known, because its entries were withheld.
	Leaves []Hash
	// Root is the root of the full bundle, if the chunk is one, else zero.
	Root Hash
}

// Len returns the number of leaves in the chunk.
func (c Chunk) Len() int {
	if len(c.Leaves) == 0 {
		return TileWidth
	}
	return len(c.Leaves)
}

// Grow appends proven chunks, in order, to a frontier, and returns the new
// frontier with the own tiles that changed, to be kept in the same
// transaction. Tiles of leaf hashes that lie too far back are left out.
func Grow(f Frontier, own OwnTiles, chunks []Chunk) (Frontier, []Tile, error) {
	g := grower{own: own, size: f.size}
	for _, c := range chunks {
		var err error
		switch {
		case c.Root == (Hash{}):
			f = f.Append(c.Leaves...)
		case f.size%TileWidth != 0 || (len(c.Leaves) != 0 && len(c.Leaves) != TileWidth):
			return Frontier{}, nil, fmt.Errorf("a full bundle of %d leaves does not begin at %d", len(c.Leaves), f.size)
		default:
			if f, err = f.AppendPerfect(tileHeight, c.Root); err != nil {
				return Frontier{}, nil, err
			}
		}
		if err := g.add(c); err != nil {
			return Frontier{}, nil, err
		}
		g.size = f.size
	}
	oldest := uint64(0)
	if last := f.size / TileWidth; last > KeptLeafTiles {
		oldest = last - KeptLeafTiles
	}
	return f, g.changed(oldest), nil
}

// grower keeps the last tile of each level while hashes are appended.
type grower struct {
	own   OwnTiles
	size  uint64
	edges []*Tile // by level; nil: not yet loaded
	full  []Tile
}

func (g *grower) add(c Chunk) error {
	if len(c.Leaves) == 0 {
		return g.push(1, c.Root)
	}
	edge, err := g.edge(0)
	if err != nil {
		return err
	}
	if len(edge.Hashes)+len(c.Leaves) > TileWidth {
		return fmt.Errorf("%d leaves from %d on cross the end of a bundle", len(c.Leaves), g.size)
	}
	edge.Hashes = append(edge.Hashes, c.Leaves...)
	if len(edge.Hashes) < TileWidth {
		return nil
	}
	root := c.Root
	if root == (Hash{}) {
		root = PerfectRoot(edge.Hashes)
	}
	g.finish(0)
	return g.push(1, root)
}

// push appends one hash at a level, and carries upwards.
func (g *grower) push(level uint, h Hash) error {
	edge, err := g.edge(level)
	if err != nil {
		return err
	}
	edge.Hashes = append(edge.Hashes, h)
	if len(edge.Hashes) < TileWidth {
		return nil
	}
	root := PerfectRoot(edge.Hashes)
	g.finish(level)
	return g.push(level+1, root)
}

// finish sets a full tile aside and begins the next one of its level.
func (g *grower) finish(level uint) {
	done := *g.edges[level]
	g.full = append(g.full, done)
	g.edges[level] = &Tile{Level: level, Index: done.Index + 1}
}

func (g *grower) edge(level uint) (*Tile, error) {
	for uint(len(g.edges)) <= level {
		g.edges = append(g.edges, nil)
	}
	if g.edges[level] == nil {
		// Before the first change of this level its edge is that of g.size:
		// sizes below the chunk that carries up to here are multiples of 256^level.
		count := g.size >> (tileHeight * level)
		tile := &Tile{Level: level, Index: count / TileWidth}
		if width := int(count % TileWidth); width > 0 {
			kept, err := g.own(level, tile.Index)
			if err != nil {
				return nil, err
			}
			if len(kept) < width {
				return nil, fmt.Errorf("own tile (%d, %d) holds %d hashes, size %d needs %d", level, tile.Index, len(kept), g.size, width)
			}
			tile.Hashes = append(tile.Hashes, kept[:width]...)
		}
		g.edges[level] = tile
	} else if level == 0 {
		// A bundle whose leaves are not known skips its leaf tile.
		if index := g.size / TileWidth; index > g.edges[0].Index {
			g.edges[0] = &Tile{Level: 0, Index: index}
		}
	}
	return g.edges[level], nil
}

// changed returns the tiles to keep, leaf tiles from oldest on only.
func (g *grower) changed(oldest uint64) []Tile {
	var tiles []Tile
	for _, t := range g.full {
		if t.Level > 0 || t.Index >= oldest {
			tiles = append(tiles, t)
		}
	}
	for _, t := range g.edges {
		if t != nil && len(t.Hashes) > 0 {
			tiles = append(tiles, *t)
		}
	}
	return tiles
}
