package monitor

import (
	"context"
	"fmt"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// prover asks a log for proofs, for the pure code in checkpoint.
type prover struct {
	ctx context.Context
	r   *runner
	// kept, if not nil, are answers that are not asked for again.
	kept *keptProofs
}

// keptProofs is what a log has answered to questions about one head.
type keptProofs struct {
	served  map[sizes][][]byte
	refused map[uint64]error // by the size whose frontier is not shown
	row     int              // how many were refused in a row
	last    error            // why
}

// begin forgets what was served; what was refused is not asked for again.
func (k *keptProofs) begin() { k.served, k.row = nil, 0 }

// sizes are those of two trees.
type sizes struct{ from, to uint64 }

// maxRefused bounds how many refusals are kept, before all are forgotten: a pass may read a whole log.
const maxRefused = 1 << 14

func (k *keptProofs) refuse(size uint64, err error) {
	if k.refused == nil || len(k.refused) >= maxRefused {
		k.refused = map[uint64]error{}
	}
	k.refused[size], k.last = err, err
	k.row++
}

// Consistency implements checkpoint.Prover.
func (p prover) Consistency(from, to uint64) ([][]byte, error) {
	if from == to {
		return nil, nil
	}
	key := sizes{from, to}
	if p.kept != nil && p.kept.served[key] != nil {
		return p.kept.served[key], nil
	}
	proof, err := p.r.way().Proofs.ConsistencyProof(p.ctx, from, to)
	p.r.moved(err)
	if err == nil && p.kept != nil {
		if p.kept.served == nil {
			p.kept.served = map[sizes][][]byte{}
		}
		p.kept.served[key] = proof
	}
	return proof, provesNothing(err)
}

// Path implements checkpoint.Prover.
func (p prover) Path(index uint64) (checkpoint.Hash, [][]byte, []byte, error) {
	offset, _, err := p.r.way().Proofs.Offset(p.ctx)
	if err != nil {
		return checkpoint.Hash{}, nil, nil, err
	}
	list, err := p.r.way().Proofs.Entries(p.ctx, offset, index, index+1)
	p.r.moved(err)
	switch {
	case err != nil:
		return checkpoint.Hash{}, nil, nil, provesNothing(err)
	case len(list) != 1 || list[0].Leaf == nil || len(list[0].Hash) != checkpoint.HashSize:
		return checkpoint.Hash{}, nil, nil, fmt.Errorf("the log does not serve entry %d", index)
	}
	return checkpoint.Hash(list[0].Hash), list[0].Path, list[0].Note, nil
}

// provesNothing marks an answer that is none: it proves as little as one that is
// wrong.
func provesNothing(err error) error {
	if isMalformed(err) {
		return fmt.Errorf("%w: %w", checkpoint.ErrUnproven, err)
	}
	return err
}

// frontierAt returns the frontier of the first leaves of a checkpoint's tree,
// proven under it.
func (r *runner) frontierAt(ctx context.Context, c checkpoint.Checkpoint, size uint64) (checkpoint.Frontier, error) {
	return prover{ctx: ctx, r: r}.frontierAt(c, size)
}

func (p prover) frontierAt(c checkpoint.Checkpoint, size uint64) (checkpoint.Frontier, error) {
	switch {
	case size == 0:
		return checkpoint.Frontier{}, nil
	case size > c.Size():
		return checkpoint.Frontier{}, fmt.Errorf("a tree of %d entries has no first %d", c.Size(), size)
	}
	// A consistency proof needs no entry: one that is withheld must not stand in the way.
	if from, ok := c.FrontierFrom(size); ok {
		proof, err := p.Consistency(from, c.Size())
		if err != nil {
			return checkpoint.Frontier{}, err
		}
		return c.FrontierBy(size, proof)
	}
	// What is left needs the path of a leaf, which leads to the newest note.
	index := min(size, c.Size()-1)
	leaf, path, raw, err := p.Path(index)
	if err != nil && index == size { // the one before it does as well
		index--
		leaf, path, raw, err = p.Path(index)
	}
	if err != nil {
		return checkpoint.Frontier{}, err
	}
	newest, err := p.r.way().Log.Open(raw)
	if err != nil {
		return checkpoint.Frontier{}, err
	}
	if newest.Size() < c.Size() {
		return checkpoint.Frontier{}, fmt.Errorf("a replica of the log that has %d entries answered for a tree of %d", newest.Size(), c.Size())
	}
	proof, err := p.Consistency(c.Size(), newest.Size())
	if err != nil {
		return checkpoint.Frontier{}, err
	}
	if err := checkpoint.Advance(c, newest, proof); err != nil {
		return checkpoint.Frontier{}, err
	}
	f, err := newest.Frontier(index, leaf, path)
	if err == nil && index < size {
		f = f.Append(leaf)
	}
	return f, err
}
