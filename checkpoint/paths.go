package checkpoint

import (
	"fmt"
	"math/bits"
	"slices"
)

// Paths makes the inclusion proofs of leaves that follow on each other, of what proves all of them
// together: nothing more is asked of the log.
//
//	before: peaks │ leaves │ hashes of a consistency proof, to the end of the tree
type Paths struct {
	c      Checkpoint
	from   uint64
	leaves []Hash
	known  map[span]Hash
}

// span is the leaves [from, to) below a node.
type span struct{ from, to uint64 }

// NewPaths takes the frontier before the leaves and the RFC 6962 consistency proof from behind them
// to the tree of c; empty, where they are its last ones. The error wraps ErrUnproven.
func (c Checkpoint) NewPaths(before Frontier, leaves []Hash, proof [][]byte) (*Paths, error) {
	p := &Paths{c: c, from: before.size, leaves: leaves, known: map[span]Hash{}}
	behind := p.from + uint64(len(leaves))
	if len(leaves) == 0 || behind > c.size {
		return nil, fmt.Errorf("%w: [%d, %d) are no leaves of a tree of %d", ErrUnproven, p.from, behind, c.size)
	}
	for i, n := range cover(0, p.from) {
		p.known[span{n.start(), n.end()}] = before.peaks[i]
	}
	hashes, err := toHashes(proof)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	rest, ok := p.take(behind, span{0, c.size}, true, hashes)
	if !ok || len(rest) > 0 {
		return nil, fmt.Errorf("%w: a consistency proof from %d to %d has not %d hashes", ErrUnproven, behind, c.size, len(hashes))
	}
	return p, nil
}

// take takes from a proof what stands in it for the leaves of s, of which the old tree has the first
// ones up to an end; whole: all that it has (RFC 6962, 2.1.2, SUBPROOF). Left of the end is what
// the frontier and the leaves have too.
func (p *Paths) take(end uint64, s span, whole bool, proof []Hash) (rest []Hash, ok bool) {
	if end == s.to {
		if whole {
			return proof, true
		}
		return proof[min(1, len(proof)):], len(proof) > 0
	}
	middle := s.middle()
	if end <= middle {
		rest, ok = p.take(end, span{s.from, middle}, whole, proof)
		if ok = ok && len(rest) > 0; ok {
			p.known[span{middle, s.to}] = rest[0]
		}
	} else {
		rest, ok = p.take(end, span{middle, s.to}, false, proof)
		ok = ok && len(rest) > 0
	}
	return rest[min(1, len(rest)):], ok
}

// middle is where the subtrees of a node part.
func (s span) middle() uint64 { return s.from + 1<<(bits.Len64(s.to-s.from-1)-1) }

// Path returns the inclusion proof of one of the leaves, verified under c. The error wraps
// ErrUnproven.
func (p *Paths) Path(index uint64) ([]Hash, error) {
	if index < p.from || index-p.from >= uint64(len(p.leaves)) {
		return nil, fmt.Errorf("%w: leaf %d is none of [%d, %d)", ErrUnproven, index, p.from, p.from+uint64(len(p.leaves)))
	}
	var path []Hash
	for s := (span{0, p.c.size}); s.to-s.from > 1; {
		middle := s.middle()
		here, beside := span{s.from, middle}, span{middle, s.to}
		if index >= middle {
			here, beside = beside, here
		}
		h, ok := p.hash(beside)
		if !ok {
			return nil, fmt.Errorf("%w: nothing leads to the hash of leaves [%d, %d)", ErrUnproven, beside.from, beside.to)
		}
		path, s = append(path, h), here
	}
	slices.Reverse(path)
	return path, p.c.VerifyInclusion(index, p.leaves[index-p.from], path)
}

// hash computes the hash of a node, of those below it that are known.
func (p *Paths) hash(s span) (h Hash, ok bool) {
	if h, ok = p.known[s]; ok {
		return h, true
	}
	if s.to-s.from == 1 {
		if ok = s.from >= p.from && s.from-p.from < uint64(len(p.leaves)); ok {
			h = p.leaves[s.from-p.from]
		}
		return h, ok
	}
	middle := s.middle()
	left, ok := p.hash(span{s.from, middle})
	if !ok {
		return h, false
	}
	right, ok := p.hash(span{middle, s.to})
	if ok {
		h = nodeHash(left, right)
		p.known[s] = h
	}
	return h, ok
}
