package monitor

import (
	"fmt"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// quorum holds the cosignatures of a checkpoint against the policy of its log. Too few of
// them are told of, and are no reason not to believe the log, unless its policy requires
// them: then it returns an error, and the checkpoint is judged, but not believed.
func (t *turn) quorum(c checkpoint.Checkpoint) error {
	if t.cfg.Quorum == nil {
		return nil
	}
	at := t.now
	if c.Frozen() {
		// A log that has ended is not co-signed again.
		at = time.Time{}
	}
	lack := t.cfg.Quorum(c.Raw(), at)
	if lack == nil {
		delete(t.next.Streaks, KindCosignatures)
		t.settle(KindCosignatures, "The log publishes enough cosignatures again.")
		return nil
	}
	if s := t.streak(KindCosignatures); s.Polls >= strikes {
		effect := "Its checkpoints are believed all the same."
		if t.cfg.RequireQuorum {
			effect = "Its checkpoints are not believed, as its policy requires."
		}
		t.raise(KindCosignatures, fmt.Sprintf("For %d polls in a row log %s has published a checkpoint without the cosignatures that its policy asks for: %s. %s", s.Polls, t.cfg.Name, shorten(lack.Error()), effect),
			map[string]any{"since": s.Since, "polls": s.Polls, "lack": shorten(lack.Error())})
	}
	if !t.cfg.RequireQuorum {
		return nil
	}
	t.hold = true
	return fmt.Errorf("%w its checkpoint of size %d lacks cosignatures: %w", errAnswered, c.Size(), lack)
}
