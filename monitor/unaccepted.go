package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// What becomes of a validly signed checkpoint that does not simply extend the
// head: evidence, the archive, or a wait.

// fork halts the log: two checkpoints contradict each other. Evidence that does
// not convince ourselves is no evidence: then what we kept is damaged.
func (t *turn) fork(d *checkpoint.DivergenceError) error { return t.contradiction(KindFork, d, "") }

// split halts the log: what it has shown to somebody else contradicts what it has shown
// to us.
func (t *turn) split(d *checkpoint.DivergenceError, where string) error {
	return t.contradiction(KindSplitView, d, where)
}

func (t *turn) contradiction(kind string, d *checkpoint.DivergenceError, where string) error {
	e := d.Evidence
	if err := e.Verify(t.way().Log); err != nil {
		return fmt.Errorf("what was kept of log %s does not fold to what the log signed, so that the state file is damaged: restore it from a backup (%w)", t.cfg.Name, err)
	}
	proof, err := json.Marshal(e)
	if err != nil {
		proof = []byte(err.Error())
	}
	smaller, errS := t.way().Log.Open([]byte(e.Smaller))
	larger, errL := t.way().Log.Open([]byte(e.Larger))
	summary := fmt.Sprintf("Log %s has signed two checkpoints that cannot both be true.", t.cfg.Name)
	details := map[string]any{"shape": e.Shape}
	if errS == nil && errL == nil {
		summary = fmt.Sprintf("Log %s has signed two checkpoints, of sizes %d and %d, that cannot both be true: it shows different histories to different people, or has rewritten its own.", t.cfg.Name, smaller.Size(), larger.Size())
		details["smaller"] = TreeHead{smaller.Size(), checkpoint.HexHash(smaller.Root())}
		details["larger"] = TreeHead{larger.Size(), checkpoint.HexHash(larger.Root())}
	}
	if where != "" {
		summary += fmt.Sprintf(" One of them was found at %s.", where)
		details["found_at"] = where
	}
	t.halt(t.raise(kind, summary, details, Evidence{"divergence.json", proof},
		Evidence{"smaller-checkpoint", []byte(e.Smaller)}, Evidence{"larger-checkpoint", []byte(e.Larger)}))
	return nil
}

// retiredChanged halts a log that signed that it has ended, and a larger tree.
func (t *turn) retiredChanged(frozen, larger checkpoint.Checkpoint) {
	ended := "has signed that it has ended"
	if !frozen.Frozen() {
		ended = "was listed as one that has ended"
	}
	summary := fmt.Sprintf("Log %s %s at size %d, and has signed a checkpoint of size %d.", t.cfg.Name, ended, frozen.Size(), larger.Size())
	t.halt(t.raise(KindRetiredChanged, summary, map[string]any{"frozen_size": frozen.Size(), "size": larger.Size(), "smaller": TreeHead{frozen.Size(), checkpoint.HexHash(frozen.Root())}, "larger": TreeHead{larger.Size(), checkpoint.HexHash(larger.Root())}},
		Evidence{"frozen-checkpoint", frozen.Raw()}, Evidence{"larger-checkpoint", larger.Raw()}))
}

func (t *turn) halt(incident string) { t.next.Halted = incident }

// older is a smaller checkpoint: an honest replica that lags, a cache, or a
// log that was rolled back.
func (t *turn) older(c checkpoint.Checkpoint, tiles []checkpoint.Tile, pending bool) {
	t.out.Older = true
	root := checkpoint.HexHash(c.Root())
	if pending {
		t.archive(c, tiles)
	}
	s := t.streak(KindRollback)
	limit := t.staleAfter()
	if t.now.Sub(s.Since) <= limit {
		return
	}
	state := "it is a true prefix of what was verified"
	if pending {
		state = "whether it belongs to the same tree could not be shown yet"
	}
	t.raise(KindRollback, fmt.Sprintf("For %s log %s has kept serving an older checkpoint, now of size %d, than the verified one of size %d; %s.", t.now.Sub(s.Since).Round(time.Minute), t.cfg.Name, c.Size(), t.old.HeadSize, state),
		map[string]any{"since": s.Since, "served": TreeHead{c.Size(), root}, "verified": t.old.HeadSize}, Evidence{"checkpoint", c.Raw()})
}

// archive keeps a validly signed checkpoint that was not accepted: what the log
// has signed once can contradict what it signs later.
func (t *turn) archive(c checkpoint.Checkpoint, tiles []checkpoint.Tile) {
	known := slices.ContainsFunc(t.archived, func(p Pending) bool { return p.Size == c.Size() && p.Root == checkpoint.HexHash(c.Root()) })
	if !known && len(t.archived) >= maxPending {
		t.log.Warn("the archive of checkpoints that could not be judged is full; this one is not kept", "size", c.Size())
		return
	}
	t.batch.Pending = append(t.batch.Pending, Pending{Note: string(c.Raw()), Size: c.Size(), Root: checkpoint.HexHash(c.Root()), Tiles: tiles, Since: t.now.UTC()})
}

// contradictsArchive compares a checkpoint with those of its size that could not
// be judged yet.
func (t *turn) contradictsArchive(ctx context.Context, c checkpoint.Checkpoint) error {
	fork, where, err := t.rival(ctx, c)
	switch {
	case err != nil || fork == nil:
		return err
	case where == fromLog:
		return t.fork(fork)
	}
	return t.split(fork, where)
}

func (t *turn) staleAfter() time.Duration {
	if t.cfg.StaleAfter > 0 {
		return t.cfg.StaleAfter
	}
	return defaultStale
}

// judgePending judges archived checkpoints again, with what is known by now.
func (t *turn) judgePending(ctx context.Context, known checkpoint.Known) error {
	pending, err := t.opts.Store.Pending(ctx, t.cfg.ID)
	if err != nil {
		return err
	}
	t.archived = pending
	for _, p := range pending {
		if p.Size > known.Head.Size() {
			continue // its turn comes when the head has reached it
		}
		c, err := t.way().Log.Open([]byte(p.Note))
		if err != nil {
			return fmt.Errorf("archived checkpoint of size %d: %w", p.Size, err)
		}
		_, _, err = t.compare(ctx, known, c, archived(p.Tiles))
		var fork *checkpoint.DivergenceError
		switch {
		case errors.As(err, &fork):
			return t.fork(fork)
		case err == nil, errors.Is(err, checkpoint.ErrOlder):
			t.batch.Judged = append(t.batch.Judged, p)
		}
	}
	return nil
}

// archived reads the tiles that were kept with a checkpoint.
func archived(tiles []checkpoint.Tile) checkpoint.TileReader {
	return func(level uint, index uint64, width int) ([]byte, error) {
		for _, tile := range tiles {
			if tile.Level == level && tile.Index == index && len(tile.Hashes) == width {
				raw := make([]byte, 0, width*checkpoint.HashSize)
				for _, h := range tile.Hashes {
					raw = append(raw, h[:]...)
				}
				return raw, nil
			}
		}
		return nil, errors.New("tile was not archived")
	}
}

func (t *turn) unproven(head, c checkpoint.Checkpoint, err error) {
	if s := t.streak(KindUnproven); s.Polls >= strikes {
		t.raise(KindUnproven, fmt.Sprintf("For %d polls in a row log %s has signed a larger checkpoint, now of size %d, and served nothing that proves that it extends the verified one of size %d.", s.Polls, t.cfg.Name, c.Size(), head.Size()),
			map[string]any{"since": s.Since, "polls": s.Polls, "size": c.Size(), "verified": head.Size(), "error": shorten(err.Error())},
			Evidence{"verified-checkpoint", head.Raw()}, Evidence{"unproven-checkpoint", c.Raw()})
	}
}

func (t *turn) stale() {
	quiet := t.now.Sub(t.next.HeadAt)
	if t.cfg.StaleAfter <= 0 || t.next.Frozen != "" || quiet <= t.cfg.StaleAfter {
		return
	}
	t.raise(KindStale, fmt.Sprintf("Log %s has shown no newer checkpoint than the one of size %d for %s.", t.cfg.Name, t.next.HeadSize, quiet.Round(time.Minute)),
		map[string]any{"size": t.next.HeadSize, "since": t.next.HeadAt})
}
