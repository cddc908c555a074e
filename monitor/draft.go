package monitor

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// draft is what is needed to judge a finding in the transaction that stores it,
// where what came before it is known.
type draft struct {
	waiting
	lists Lists
	route Route
}

// waiting is what a finding that waits for a list is judged by again, in JSON: what
// the rule of its day asks for, not that of the day on which it is decided.
type waiting struct {
	Identities []policy.Identity // nil: it is judged
	Suffix     string            // of the reason
	Untrusted  string            // key of the watch
	Quiet      bool              // nobody is to be told
}

// Lists tells whether artifacts are on lists.
type Lists interface {
	// Listed returns which of some digests is on a list.
	Listed(list string, digests []string) (digest string, ok bool)
}

// Precedents is what a store knows that judgements depend on.
type Precedents interface {
	// Announced returns who has announced one of some digests for a watch, for an
	// event at a time; not those who did so only after until.
	Announced(watch string, digests []string, at, until time.Time) (by string, ok bool, err error)
	// Within, Seen and Admit are those of policy.World, for one log.
	Within(counter string, index uint64, at time.Time, per time.Duration, limit int) (int, error)
	Seen(counter, key string, index uint64) (at uint64, ok bool, err error)
	Admit(counter string, keys []string, index uint64, at time.Time) error
}

// world is a ledger as the policy of one watch sees it.
type world struct {
	Precedents
	lists Lists
	watch string
}

func (w world) Listed(list string, digests []string) (string, bool) {
	if w.lists == nil {
		return "", false
	}
	return w.lists.Listed(list, digests)
}

func (w world) Announced(digests []string, at, until time.Time) (string, bool, error) {
	return w.Precedents.Announced(w.watch, digests, at, until)
}

// Settle judges a finding, if that was not done yet, by what the ledger knows.
// Called again it comes to the same. It returns whether the finding is kept.
func (f *Finding) Settle(l Precedents) (keep bool, err error) { return f.settle(l, f.SeenAt) }

// settle is Settle at a time; what waits may not have to wait any more.
func (f *Finding) settle(l Precedents, now time.Time) (keep bool, err error) {
	if f.draft == nil {
		return true, nil
	}
	if f.draft.Identities != nil {
		j, err := policy.Judge(f.draft.Identities, world{l, f.draft.lists, f.Watch}, f.SeenAt, now)
		if err != nil {
			return false, err
		}
		f.take(j)
	}
	return policy.Stores(f.Verdict, f.draft.Untrusted), nil
}

// reconsider judges a finding that waits once more, by the rule of its day. It
// returns whether anything has changed.
func (f *Finding) reconsider(l Precedents, lists Lists, now time.Time) (changed bool, err error) {
	before := *f
	f.draft = &draft{lists: lists, route: f.draft.route}
	if err := json.Unmarshal(f.Waiting, &f.draft.waiting); err != nil || len(f.draft.Identities) == 0 {
		if f.PendingUntil != nil && now.Before(*f.PendingUntil) {
			return false, nil
		}
		f.take(policy.Judgement{Verdict: policy.Unexpected, Cause: "what it waited for cannot be read", Reason: "what it waited for cannot be read any more", Time: f.EventTime, Source: f.EventTimeSource})
		return true, nil
	}
	if _, err := f.settle(l, now); err != nil {
		return false, err
	}
	return f.State != StatePending || !slices.Equal(f.Waits, before.Waits) || !f.PendingUntil.Equal(*before.PendingUntil), nil
}

// Quiet reports whether nobody is to be told of the finding, now or later.
func (f *Finding) Quiet() bool { return f.draft != nil && f.draft.Quiet }

// Addresses are where the finding is told, and when.
func (f *Finding) Addresses(now time.Time) []notify.Address {
	var route Route
	if f.draft != nil {
		route = f.draft.route
	}
	return route.addresses(f.Channels, notify.About{Class: notify.ClassFinding, Kind: string(f.Verdict), Severity: f.Severity, Watch: f.Watch}, now)
}

// remark adds to the reason, whether it is known already or not.
func (f *Finding) remark(text string) {
	f.Reason += text
	f.draft.Suffix += text
}

// take books a judgement.
func (f *Finding) take(j policy.Judgement) {
	f.Verdict, f.Cause, f.Reason = j.Verdict, j.Cause, shorten(j.Reason+f.draft.Suffix)
	f.EventTime, f.EventTimeSource = j.Time.UTC(), j.Source
	f.Waits, f.PendingUntil, f.Waiting = j.Waits, nil, nil
	switch {
	case policy.Notifies(j.Verdict, f.draft.Untrusted):
		f.State = StateOpen
	case j.Pending():
		f.State = StatePending
		due := j.Due.UTC()
		f.PendingUntil, f.Waiting = &due, marshal(f.draft.waiting)
	default:
		f.State = StateClosed
	}
}
