package monitor

import (
	"context"
	"fmt"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// What a log of proofs has promised: signed entry timestamps.

// brokenPromise returns evidence that the log has signed a promise for bytes
// which its tree does not hold at their index. Nil if it has signed none, or if
// the sizes of the trees before this one are not signed, or not those that are
// known: without them, the index that was promised may be another one.
func (p *provenReader) brokenPromise(ctx context.Context, e *ServedEntry) *Evidence {
	_, path, err := p.included(e)
	if err != nil || !p.knownBefore(ctx) {
		return nil
	}
	promise := checkpoint.Promise{Leaf: e.Leaf, Integrated: e.Integrated, LogIndex: e.LogIndex, SET: e.SET}
	b, err := checkpoint.NewBrokenPromise(p.way().Log, promise, checkpoint.Hash(e.Hash), path, e.Index, e.Note, p.before)
	if err != nil {
		return nil
	}
	doc, err := b.Print()
	if err != nil {
		return nil
	}
	return &Evidence{fmt.Sprintf("%s%d.json", brokenPromisePrefix, e.Index), doc}
}

// knownBefore reports whether the trees that were listed before this one go with
// those of the server that were verified: somebody in between may leave out a
// tree, or show an earlier head of it.
func (p *provenReader) knownBefore(ctx context.Context) bool {
	for _, other := range p.all() {
		if other == p.runner || p.cfg.Family == "" || other.cfg.Family != p.cfg.Family {
			continue
		}
		st, err := p.opts.Store.State(ctx, other.cfg.ID)
		if err != nil {
			return false
		}
		if st.Head == "" {
			continue
		}
		listed := false
		for _, raw := range p.before {
			if c, err := other.way().Log.Open(raw); err == nil {
				listed = c.Size() >= st.HeadSize
				break
			}
		}
		// One that is not listed comes after this tree, if this one has ended.
		if !listed && !p.retired.Load() {
			return false
		}
	}
	return true
}

// included opens the note of an entry and verifies that it commits to the hash
// which the entry's id names.
func (p *provenReader) included(e *ServedEntry) (checkpoint.Checkpoint, []checkpoint.Hash, error) {
	note, err := p.way().Log.Open(e.Note)
	if err != nil {
		return note, nil, err
	}
	path := make([]checkpoint.Hash, len(e.Path))
	for i, h := range e.Path {
		if len(h) != checkpoint.HashSize {
			return note, nil, fmt.Errorf("hash %d of the path has %d bytes", i, len(h))
		}
		path[i] = checkpoint.Hash(h)
	}
	return note, path, note.VerifyInclusion(e.Index, checkpoint.Hash(e.Hash), path)
}

// promiseOf is the signed entry timestamp of an entry, with the key that signed it.
func (p *provenReader) promiseOf(e *ServedEntry) *checkpoint.Promise {
	id, err := p.way().Log.PromiseKey(e.Leaf, e.Integrated, e.LogIndex, e.SET)
	if err != nil {
		return nil
	}
	return &checkpoint.Promise{Leaf: e.Leaf, Integrated: e.Integrated, LogID: id, LogIndex: e.LogIndex, SET: e.SET}
}
