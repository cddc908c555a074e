package monitor

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// Findings that wait for a list of digests, or for an announcement.

// decideAtOnce bounds what is decided in one transaction.
const decideAtOnce = 500

// Waiting is how findings that wait are decided.
type Waiting struct {
	Store Decisions
	Lists Lists
	Now   time.Time
	// Hears returns the channels of a watch, by its name.
	Hears func(watch string) []string
	Route Route
}

// Reconsider decides findings whose artifact is on a list by now, or whose time is
// over. It returns those that do not wait any more.
func (w *Waiting) Reconsider(ctx context.Context) ([]Finding, error) {
	return w.decide(ctx, w.Now, func(f *Finding) bool {
		if f.PendingUntil == nil || !w.Now.Before(*f.PendingUntil) {
			return true
		}
		return slices.ContainsFunc(f.Waits, func(list string) bool {
			_, ok := world{lists: w.Lists}.Listed(list, f.Digests)
			return ok
		})
	})
}

// Announced decides findings whose artifact was announced: they may be expected for
// good now. It never ends the waiting of another one.
func (w *Waiting) Announced(ctx context.Context, a Announcement) ([]Finding, error) {
	return w.decide(ctx, time.Time{}, func(f *Finding) bool {
		return f.Watch == a.Watch && slices.Contains(f.Digests, a.Digest)
	})
}

// decide judges those findings anew that are chosen, in the order of their logs; at a
// time, or if that is zero, as long as they may still wait.
func (w *Waiting) decide(ctx context.Context, at time.Time, chosen func(*Finding) bool) (done []Finding, err error) {
	pending, err := w.Store.PendingFindings(ctx)
	if err != nil {
		return nil, err
	}
	pending = slices.DeleteFunc(pending, func(f Finding) bool { return !chosen(&f) })
	slices.SortFunc(pending, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.LogID, b.LogID), cmp.Compare(a.Index, b.Index), cmp.Compare(a.Watch, b.Watch))
	})
	for i := range pending {
		pending[i].Channels = w.Hears(pending[i].Watch)
		pending[i].draft = &draft{route: w.Route}
	}
	var failed []error
	for part := range slices.Chunk(pending, decideAtOnce) {
		decided, err := w.Store.Decide(ctx, part, w.Now, func(f *Finding, l Precedents) (bool, error) {
			now := at
			if now.IsZero() && f.PendingUntil != nil {
				now = f.PendingUntil.Add(-1)
			}
			return f.reconsider(l, w.Lists, now)
		})
		done, failed = append(done, decided...), append(failed, err)
	}
	return done, errors.Join(failed...)
}
