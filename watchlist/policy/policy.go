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
	// Extension returns an extension of the identity's certificate by its name.
	Extension func(name string) (string, bool)
}

// TimeSource says how the time of an event is known.
type TimeSource string

// What tells the time of an event, the best first.
const (
	// FromLog: the log has signed when it took the entry in.
	FromLog TimeSource = "set"
	// FromCertificate: a trusted certificate says since when it is valid, which
	// for Fulcio's is when the signer proved who it is.
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

// Identity is what is known of one identity that is a watch's.
type Identity struct {
	// Certificate: it has one. Vouched: a trusted authority issued that.
	Certificate, Vouched bool
	// Pinned: a fingerprint or digest makes it ours, whatever a certificate says.
	Pinned bool
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
	// an event at a time.
	Announced(digests []string, at time.Time) (by string, ok bool, err error)
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
		if i == 0 || rank(one.Verdict) < rank(j.Verdict) {
			j = one
		}
	}
	return j, ok
}

// Judge judges each identity and returns the worst: an expected identity never
// hides an unexpected one beside it, and one that waits never hides one that does
// not. seen is when the entry was first seen, from which on it may wait for a
// list.
func Judge(identities []Identity, w World, seen time.Time) (Judgement, error) {
	var worst Judgement
	for i := range identities {
		j, final := identities[i].alone()
		if !final {
			var err error
			if j, err = identities[i].judge(w, seen); err != nil {
				return worst, err
			}
		}
		switch {
		case i == 0 || rank(j.Verdict) < rank(worst.Verdict):
			worst = j
		case rank(j.Verdict) == rank(worst.Verdict) && j.Pending() && (!worst.Pending() || j.Due.Before(worst.Due)):
			worst = j
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

// judge asks the world about an identity that no item without state settles.
func (id *Identity) judge(w World, seen time.Time) (Judgement, error) {
	j, _ := id.alone()
	by, announced, err := w.Announced(id.Event.Digests, id.Event.Time)
	if err != nil {
		return j, err
	}
	var causes, reasons []string
	var waiting *Item
	for i := range id.Fits {
		it := &id.Fits[i]
		if !it.Terms.stateful() {
			continue // it was asked before
		}
		cause, reason := it.Terms.refuses(id.Event)
		var keys []string
		if cause == "" {
			if keys, cause, reason, err = it.exceeds(id.Event, w); err != nil {
				return j, err
			}
		}
		how := ""
		if list := it.Terms.Digests; cause == "" && list != nil {
			digest, ok := w.Listed(list.List, id.Event.Digests)
			switch {
			case ok:
				how = fmt.Sprintf(", and %s is on the list %s", digest, list.List)
			case announced:
				how = ", and the artifact was announced by " + by
			default:
				cause, reason = "digests", fmt.Sprintf("the artifact is not on the list %s", list.List)
				if list.Grace > 0 && waiting == nil {
					waiting = it
				}
			}
		}
		if cause != "" {
			causes, reasons = append(causes, cause), append(reasons, fmt.Sprintf("expect item %d fits, but %s", it.Number, reason))
			continue
		}
		j.Verdict, j.Cause, j.Reason = Expected, "an expect item fits", fmt.Sprintf("expect item %d fits%s", it.Number, how)
		return j, it.admit(id.Event, w, keys)
	}
	if announced {
		j.Verdict, j.Cause, j.Reason = Expected, "announced", "the artifact was announced by "+by
		return j, nil
	}
	if waiting != nil {
		list := waiting.Terms.Digests
		j.Verdict, j.Cause, j.Waits, j.Due = Expected, "an expect item fits, but not its digests", id.lists(), seen.Add(list.Grace)
		j.Reason = fmt.Sprintf("expect item %d fits, and until %s the artifact may still appear on the list %s", waiting.Number, j.Due.UTC().Format(time.RFC3339), list.List)
		keys, _, _, err := waiting.exceeds(id.Event, w)
		if err != nil {
			return j, err
		}
		return j, waiting.admit(id.Event, w, keys)
	}
	if len(causes) > 0 {
		j.Cause, j.Reason = "an expect item fits, but not its "+strings.Join(causes, ", "), strings.Join(reasons, "; ")
	}
	return j, nil
}

// lists are those of all items that could still make the identity expected.
func (id *Identity) lists() []string {
	var out []string
	for _, it := range id.Fits {
		if cause, _ := it.Terms.refuses(id.Event); cause == "" && it.Terms.stateful() && it.Terms.Digests != nil {
			out = append(out, it.Terms.Digests.List)
		}
	}
	return out
}

// exceeds asks the counters of an item, and returns the keys under which the
// event is to be remembered.
func (it *Item) exceeds(e Event, w World) (keys []string, cause, reason string, err error) {
	t := it.Terms
	switch {
	case t.OncePer == ByDigest:
		keys = slices.Clone(e.Digests)
	case t.OncePer != "":
		if value, ok := e.Extension(t.OncePer); ok {
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
		return nil, "at_most", fmt.Sprintf("it is for at most %d events in %s, and there were as many before this one", t.AtMost.Count, t.AtMost.Per), err
	}
	return keys, "", "", err
}

// admit remembers an event that the item lets in, if it counts.
func (it *Item) admit(e Event, w World, keys []string) error {
	if !it.Terms.counts() {
		return nil
	}
	return w.Admit(it.Counter, keys, e.Index, e.Time)
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
