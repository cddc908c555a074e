// Package policy judges entries that belong to a watch: pure functions over
// explicit inputs.
package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Verdict is what an entry means for a watch.
type Verdict string

// The verdicts, the worst first.
const (
	// Malformed: the entry cannot be decoded in full, and its bytes name
	// something that the watch looks for.
	Malformed Verdict = "malformed"
	// Unexpected: it is ours, and nothing that is expected fits it.
	Unexpected Verdict = "unexpected"
	// Untrusted: it says that it is ours, in a certificate that no trusted
	// authority issued.
	Untrusted Verdict = "untrusted"
	// Expected: every identity that is ours is expected.
	Expected Verdict = "expected"
)

// Verdicts lists them, the worst first.
func Verdicts() []Verdict { return []Verdict{Malformed, Unexpected, Untrusted, Expected} }

// Event is what happened, as the terms of expect items look at it.
type Event struct {
	// Time is when it happened, Source how that is known.
	Time   time.Time
	Source TimeSource
	// Index is its place in the log.
	Index uint64
	// Digests are those of the artifact.
	Digests []string
	// Extensions are those of the identity's certificate, by name, that limits look
	// at.
	Extensions map[string]string `json:",omitempty"`
}

// TimeSource says how the time of an event is known.
type TimeSource string

// What tells the time of an event, the best first.
const (
	// FromLog: the log has signed when it took the entry in.
	FromLog TimeSource = "set"
	// FromCertificate: a trusted certificate of a short life says since when it is
	// valid, which for Fulcio's is when the signer proved who it is.
	FromCertificate TimeSource = "certificate"
	// FirstSeen: nobody has signed a time; it is when the entry was first read.
	FirstSeen TimeSource = "seen"
)

// Item is an item of expect whose patterns fit an identity.
type Item struct {
	// Number is its place in expect, from 1 on.
	Number int
	// Terms is what it asks for beside its patterns; nil for nothing.
	Terms *Terms
	// Counter names what its limits count, the same as long as its patterns are.
	Counter string
}

// Identity is what is known of one identity that is a watch's. Its JSON is kept with
// what waits, so that it is judged in the end by the rules of its day.
type Identity struct {
	// Certificate: it has one. Vouched: a trusted authority issued that.
	Certificate, Vouched bool
	// Pinned: a fingerprint or digest makes it ours, whatever a certificate says;
	// Known: a fingerprint does.
	Pinned, Known bool
	// Fits are the items of expect whose patterns fit, in their order.
	Fits []Item
	// Cause and Misfit say why no item fits, where none does: Cause in the words
	// of the rule alone. Untrusted says why nobody vouches.
	Cause, Misfit string
	Untrusted     string
	Event         Event
}

// Judgement is what an entry comes to for a watch.
type Judgement struct {
	Verdict Verdict
	// Reason says why, for people. Cause says it without anything that the entry
	// says: events that have it in common can be told as one.
	Reason, Cause string
	// Time is that of the identity which was decisive.
	Time   time.Time
	Source TimeSource
	// Waits are lists on which the artifact may still appear until Due: the
	// verdict is expected, and not final.
	Waits []string
	Due   time.Time
}

// Pending reports whether the judgement is not final.
func (j *Judgement) Pending() bool { return len(j.Waits) > 0 }

// World is what a judgement depends on beside the entry and the rule. Its methods
// may read a database; an error ends the judgement.
type World interface {
	// Listed returns which of some digests is on a list.
	Listed(list string, digests []string) (string, bool)
	// Announced returns who has announced one of some digests for the watch, for
	// an event at a time; not those who did so only after until.
	Announced(digests []string, at, until time.Time) (by string, ok bool, err error)
	// Within returns how many other entries a counter has let in whose times are
	// less than per away from at; limit is enough.
	Within(counter string, index uint64, at time.Time, per time.Duration, limit int) (int, error)
	// Seen returns the index of another entry that a counter has let in with a key.
	Seen(counter, key string, index uint64) (at uint64, ok bool, err error)
	// Admit remembers that a counter has let in an entry, under keys.
	Admit(counter string, keys []string, index uint64, at time.Time) error
}

// Stateless judges identities whose judgement depends on nothing but the entry
// and the rule; false where the world has a say.
func Stateless(identities []Identity) (Judgement, bool) {
	j, ok := Judgement{}, true
	for i := range identities {
		one, final := identities[i].alone()
		ok = ok && final
		if i == 0 || one.graver(&j) {
			j = one
		}
	}
	return j, ok
}

// graver reports whether a judgement outweighs another: an expected identity never
// hides one beside it that is not, and a self-made one, which anybody can put there,
// never hides one that still waits.
func (j *Judgement) graver(than *Judgement) bool {
	weight := func(j *Judgement) int {
		if j.Pending() {
			return 2*rank(Untrusted) - 1
		}
		return 2 * rank(j.Verdict)
	}
	return weight(j) < weight(than)
}

// admission is an event that an item is to remember.
type admission struct {
	counter string
	keys    []string
	at      time.Time
}

// Judge judges each identity and returns the gravest judgement. seen is when the
// entry was first seen, from which on it may wait for a list, now when it is judged:
// what waits is judged again, until it does not wait any more. Only what is expected
// for good counts towards limits.
func Judge(identities []Identity, w World, seen, now time.Time) (Judgement, error) {
	var worst Judgement
	var waits []string
	var due time.Time
	var admit []admission
	for i := range identities {
		id := &identities[i]
		j, final := id.alone()
		if !final {
			var counts *admission
			var err error
			if j, counts, err = id.judge(w, seen, now); err != nil {
				return worst, err
			}
			if counts != nil {
				admit = append(admit, *counts)
			}
		}
		if i == 0 || j.graver(&worst) {
			worst = j
		}
		if j.Pending() {
			waits = append(waits, j.Waits...)
			if due.IsZero() || j.Due.Before(due) {
				due = j.Due
			}
		}
	}
	if worst.Pending() {
		slices.Sort(waits)
		worst.Waits, worst.Due = slices.Compact(waits), due
		return worst, nil
	}
	if worst.Verdict != Expected {
		return worst, nil
	}
	for _, a := range admit {
		if err := w.Admit(a.counter, a.keys, identities[0].Event.Index, a.at); err != nil {
			return worst, err
		}
	}
	return worst, nil
}

// alone judges an identity by the entry and the rule; false where the world may
// say otherwise.
func (id *Identity) alone() (Judgement, bool) {
	j := Judgement{Time: id.Event.Time, Source: id.Event.Source}
	// Whether somebody vouches is decided before what is expected: anybody can
	// make a certificate that says what an expect item asks for.
	if id.Certificate && !id.Vouched && !id.Pinned {
		j.Verdict, j.Cause = Untrusted, "the certificate names what is watched, but is not trusted"
		j.Reason = j.Cause + ": " + id.Untrusted
		return j, true
	}
	j.Verdict, j.Cause, j.Reason = Unexpected, id.Cause, id.Misfit
	var causes, reasons []string
	for _, it := range id.Fits {
		cause, reason := it.Terms.refuses(id.Event)
		switch {
		case cause != "":
			causes, reasons = append(causes, cause), append(reasons, fmt.Sprintf("expect item %d fits, but %s", it.Number, reason))
		case !it.Terms.stateful():
			j.Verdict, j.Cause = Expected, "an expect item fits"
			j.Reason = fmt.Sprintf("expect item %d fits", it.Number)
			return j, true
		}
	}
	if len(causes) > 0 {
		j.Cause, j.Reason = "an expect item fits, but not its "+strings.Join(causes, ", "), strings.Join(reasons, "; ")
	}
	// An announcement can make expected what no item does.
	return j, false
}

// early is how long before its announcement an artifact may have been signed: a
// certificate is valid for ten minutes, and a job may announce after it has asked
// for one.
const early = 10 * time.Minute

// announced asks who has announced the artifact. That makes expected what a trusted
// authority vouches for, or a known key has signed; names that a key or a self-made
// certificate gives itself are anybody's.
func (id *Identity) announced(w World, seen time.Time) (by string, ok bool, err error) {
	if !id.Known && !(id.Certificate && id.Vouched) {
		return "", false, nil
	}
	until := id.Event.Time.Add(early)
	for _, it := range id.Fits {
		if it.Terms == nil || it.Terms.Digests == nil {
			continue
		}
		if at := seen.Add(it.Terms.Digests.Grace); at.After(until) {
			until = at
		}
	}
	return w.Announced(id.Event.Digests, id.Event.Time, until)
}

// judge asks the world about an identity that no item without state settles. What it
// returns beside the judgement is to be admitted, if the entry is expected.
func (id *Identity) judge(w World, seen, now time.Time) (Judgement, *admission, error) {
	j, _ := id.alone()
	by, announced, err := id.announced(w, seen)
	if err != nil {
		return j, nil, err
	}
	var causes, reasons []string
	waiting := 0 // number of the first item that waits
	for i := range id.Fits {
		it := &id.Fits[i]
		if !it.Terms.stateful() {
			continue // it was asked before
		}
		cause, reason := it.Terms.refuses(id.Event)
		var keys []string
		if cause == "" {
			if keys, cause, reason, err = it.exceeds(id.Event, w); err != nil {
				return j, nil, err
			}
		}
		how := ""
		if list := it.Terms.Digests; cause == "" && list != nil {
			digest, ok := w.Listed(list.List, id.Event.Digests)
			due := seen.Add(list.Grace)
			switch {
			case ok:
				how = fmt.Sprintf(", and %s is on the list %s", digest, list.List)
			case announced:
				how = ", and the artifact was announced by " + by
			case now.Before(due):
				cause, reason = "digests", ""
				j.Waits = append(j.Waits, list.List)
				if waiting == 0 {
					waiting = it.Number
				}
				if due.After(j.Due) {
					j.Due = due
				}
			case list.Grace > 0:
				cause, reason = "digests", fmt.Sprintf("for %s the artifact has not come on the list %s", now.Sub(seen).Round(time.Second), list.List)
			default:
				cause, reason = "digests", fmt.Sprintf("the artifact is not on the list %s", list.List)
			}
		}
		if cause == "" {
			j.Verdict, j.Cause, j.Reason = Expected, "an expect item fits", fmt.Sprintf("expect item %d fits%s", it.Number, how)
			j.Waits, j.Due = nil, time.Time{}
			if !it.Terms.counts() {
				return j, nil, nil
			}
			return j, &admission{it.Counter, keys, id.Event.Time}, nil
		}
		causes = append(causes, cause)
		if reason != "" {
			reasons = append(reasons, fmt.Sprintf("expect item %d fits, but %s", it.Number, reason))
		}
	}
	switch {
	case announced:
		j.Verdict, j.Cause, j.Reason = Expected, "announced", "the artifact was announced by "+by
		j.Waits, j.Due = nil, time.Time{}
	case j.Pending():
		j.Verdict, j.Cause = Expected, "an expect item fits, but not its digests"
		j.Reason = fmt.Sprintf("expect item %d fits, and until %s the artifact may still appear on the list %s", waiting, j.Due.UTC().Format(time.RFC3339), strings.Join(j.Waits, " or "))
	case len(causes) > 0:
		j.Cause, j.Reason = "an expect item fits, but not its "+strings.Join(causes, ", "), strings.Join(reasons, "; ")
	}
	return j, nil, nil
}

// exceeds asks the counters of an item, and returns the keys under which the
// event is to be remembered.
func (it *Item) exceeds(e Event, w World) (keys []string, cause, reason string, err error) {
	t := it.Terms
	switch {
	case t.OncePer == ByDigest:
		keys = slices.Clone(e.Digests)
	case t.OncePer != "":
		if value, ok := e.Extensions[t.OncePer]; ok {
			keys = []string{value}
		}
	}
	if t.OncePer != "" && len(keys) == 0 {
		return nil, "once_per", fmt.Sprintf("it is for one event a %s, and the entry has none", t.OncePer), nil
	}
	for i, key := range keys {
		keys[i] = t.OncePer + "=" + key
		at, ok, err := w.Seen(it.Counter, keys[i], e.Index)
		if err != nil || ok {
			return nil, "once_per", fmt.Sprintf("it is for one event a %s, and for %s entry %d was one", t.OncePer, key, at), err
		}
	}
	if t.AtMost == nil {
		return keys, "", "", nil
	}
	n, err := w.Within(it.Counter, e.Index, e.Time, t.AtMost.Per, t.AtMost.Count)
	if n >= t.AtMost.Count {
		return nil, "at_most", fmt.Sprintf("it is for at most %d events in %s, and there were as many that close to it", t.AtMost.Count, t.AtMost.Per), err
	}
	return keys, "", "", err
}

func rank(v Verdict) int {
	for i, other := range Verdicts() {
		if v == other {
			return i
		}
	}
	return -1
}

// What becomes of untrusted identities (a watch's `untrusted` key).
const (
	Record = "record"
	Alert  = "alert"
	Ignore = "ignore"
)

// Notifies reports whether a finding with this verdict is told to people.
func Notifies(v Verdict, untrusted string) bool {
	return v == Malformed || v == Unexpected || v == Untrusted && untrusted == Alert
}

// Stores reports whether a finding with this verdict is kept, or only counted.
func Stores(v Verdict, untrusted string) bool {
	return v != Untrusted || untrusted != Ignore
}
