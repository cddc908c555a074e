package monitor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// source wraps what a log answers, to see that it does.
func (r *runner) checkpoint(ctx context.Context) ([]byte, error) {
	var raw []byte
	var err error
	if r.way().Proofs != nil {
		raw, err = r.way().Proofs.Checkpoint(ctx)
	} else {
		raw, err = r.way().Source.Checkpoint(ctx)
	}
	r.moved(err)
	return raw, err
}

// leaves reads entries, into room where the source can.
func (r *runner) leaves(ctx context.Context, from, to uint64, room func(size int64) (*[]byte, error)) (leaves [][]byte, err error) {
	if source, ok := r.way().Source.(roomyLog); ok {
		leaves, err = source.LeavesInto(ctx, from, to, room)
	} else if _, err = room(0); err == nil {
		leaves, err = r.way().Source.Leaves(ctx, from, to)
	}
	r.moved(err)
	return leaves, err
}

// roomyLog is a TileLog that can put entries into memory which is used again.
type roomyLog interface {
	// LeavesInto is Leaves into memory that room is asked for when an answer begins, by its size
	// or 0, and that is grown; nil: memory of its own.
	LeavesInto(ctx context.Context, from, to uint64, room func(size int64) (*[]byte, error)) ([][]byte, error)
}

// served reads tiles for the pure code in checkpoint.
func (r *runner) served(ctx context.Context) checkpoint.TileReader {
	return func(level uint, index uint64, width int) ([]byte, error) {
		if raw, ok := r.ahead.LoadAndDelete(aheadTile{level, index, width}); ok {
			return raw.([]byte), nil
		}
		raw, err := r.way().Source.Tile(ctx, level, index, width)
		r.moved(err)
		if isMalformed(err) {
			// An answer that is no tile proves nothing, like a tile that does not fit.
			return nil, fmt.Errorf("%w: %w", checkpoint.ErrTile, err)
		}
		return raw, err
	}
}

// aheadTile names a tile.
type aheadTile struct {
	level uint
	index uint64
	width int
}

// fetchAhead fetches a tile of the tree that will be asked for soon, if there is one. What becomes
// of it is seen then: it is as unproven as one that is fetched in its turn.
func (s *span) fetchAhead(ctx context.Context, level uint, index uint64) {
	width := int(min(s.tree.Head().Size()>>(8*level)-index*checkpoint.TileWidth, checkpoint.TileWidth))
	if width == 0 {
		return
	}
	if raw, err := s.way().Source.Tile(ctx, level, index, width); err == nil {
		s.ahead.Store(aheadTile{level, index, width}, raw)
	}
}

func (r *runner) own(ctx context.Context) checkpoint.OwnTiles {
	return func(level uint, index uint64) ([]checkpoint.Hash, error) {
		return r.opts.Store.OwnTile(ctx, r.cfg.ID, level, index)
	}
}

func (r *runner) moved(err error) {
	if err == nil {
		r.progress.Add(1)
	}
}

// isMalformed recognises an answer that is not what was asked for.
func isMalformed(err error) bool {
	var m interface{ Malformed() bool }
	return errors.As(err, &m) && m.Malformed()
}

// withheld recognises that a log answered, and does not serve what its tree
// commits to.
func withheld(err error) bool {
	var refused interface{ Refused() bool }
	return errors.Is(err, fs.ErrNotExist) || isMalformed(err) || errors.Is(err, checkpoint.ErrTile) || errors.As(err, &refused) && refused.Refused()
}

// shorten keeps remote text in messages readable.
func shorten(s string) string {
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
