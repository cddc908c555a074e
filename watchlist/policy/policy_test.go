package policy_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// world is a world that a test makes up.
type world struct {
	lists     map[string][]string
	announced map[string]span // digest -> when
	admitted  []admission
	err       error
}

type span struct{ from, until time.Time }

type admission struct {
	counter, key string
	index        uint64
	at           time.Time
}

func (w *world) Listed(list string, digests []string) (string, bool) {
	for _, d := range digests {
		if slices.Contains(w.lists[list], d) {
			return d, true
		}
	}
	return "", false
}

func (w *world) Announced(digests []string, at, until time.Time) (string, bool, error) {
	for _, d := range digests {
		if s, ok := w.announced[d]; ok && !until.Before(s.from) && at.Before(s.until) {
			return "the release job", true, w.err
		}
	}
	return "", false, w.err
}

func (w *world) Within(counter string, index uint64, at time.Time, per time.Duration, limit int) (int, error) {
	seen := map[uint64]bool{}
	for _, a := range w.admitted {
		if a.counter == counter && a.index != index && a.at.Sub(at).Abs() < per {
			seen[a.index] = true
		}
	}
	return min(len(seen), limit), w.err
}

func (w *world) Seen(counter, key string, index uint64) (uint64, bool, error) {
	for _, a := range w.admitted {
		if a.counter == counter && a.key == key && a.index != index {
			return a.index, true, w.err
		}
	}
	return 0, false, w.err
}

func (w *world) Admit(counter string, keys []string, index uint64, at time.Time) error {
	for _, k := range append([]string{""}, keys...) {
		w.admitted = append(w.admitted, admission{counter, k, index, at})
	}
	return w.err
}

func hours(t *testing.T, text string) policy.Hours {
	t.Helper()
	h, err := policy.ParseHours(text)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

const (
	listed  = "sha256:aa"
	other   = "sha256:bb"
	list    = "SHA256SUMS"
	another = "other.txt"
)

// TestCases is the table of the policy: what a rule says about an entry at a time.
// The clock is that of a bubble: it begins at midnight UTC of Saturday 2000-01-01,
// and a case says how long after that the event is.
func TestCases(t *testing.T) {
	day, hour := 24*time.Hour, time.Hour
	monday := 2 * day // 2000-01-03
	at := func(d time.Duration) time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d) }
	terms := func(t policy.Terms) []*policy.Terms { return []*policy.Terms{&t} }
	plain := []*policy.Terms{nil}
	between := func(texts ...string) []*policy.Terms {
		var out policy.Terms
		for _, x := range texts {
			out.Between = append(out.Between, hours(t, x))
		}
		return terms(out)
	}
	valid := func(from, until time.Time) []*policy.Terms {
		return terms(policy.Terms{Valid: policy.Span{From: from, Until: until}})
	}
	onList := func(grace time.Duration) []*policy.Terms {
		return terms(policy.Terms{Digests: &policy.Listing{List: list, Grace: grace}})
	}
	atMost := func(n int, per time.Duration) []*policy.Terms {
		return terms(policy.Terms{AtMost: &policy.Rate{Count: n, Per: per}})
	}
	once := func(what string) []*policy.Terms { return terms(policy.Terms{OncePer: what}) }
	before := func(index uint64, d time.Duration, keys ...string) []admission {
		out := []admission{{"c1", "", index, at(d)}}
		for _, k := range keys {
			out = append(out, admission{"c1", k, index, at(d)})
		}
		return out
	}
	many := func(n int, every time.Duration) (out []admission) {
		for i := range n {
			out = append(out, before(uint64(i), time.Duration(i)*every)...)
		}
		return out
	}
	const office = "09:00-18:00 Europe/Berlin Mon-Fri"
	type c struct {
		name    string
		terms   []*policy.Terms // of the items whose patterns fit; nil: none does
		when    time.Duration
		digests []string
		ext     map[string]string
		before  []admission
		world   world
		id      policy.Identity // kind of the identity; zero: vouched
		want    policy.Verdict
		pending time.Duration // until; 0: final
		after   time.Duration // since it was first seen, when it is judged
		reason  string        // a part of it
	}
	announced := func(from, until time.Duration) world {
		return world{announced: map[string]span{other: {at(from), at(until)}}}
	}
	lists := world{lists: map[string][]string{list: {listed}, another: {other}}}
	self := policy.Identity{Certificate: true, Untrusted: "self-made"}
	pinned := policy.Identity{Certificate: true, Pinned: true, Untrusted: "self-made"}
	cases := []c{
		// Patterns alone.
		{name: "an item fits", terms: plain, want: policy.Expected, reason: "expect item 1 fits"},
		{name: "none fits", want: policy.Unexpected, reason: "runner-environment is self-hosted"},
		{name: "self-made, and an item would fit", terms: plain, id: self, want: policy.Untrusted, reason: "self-made"},
		{name: "self-made, and none fits", id: self, want: policy.Untrusted, reason: "not trusted"},
		{name: "self-made, but a fingerprint is ours", id: pinned, want: policy.Unexpected, reason: "self-hosted"},
		{name: "self-made, its fingerprint is ours and expected", terms: plain, id: pinned, want: policy.Expected, reason: "fits"},
		{name: "a bare key that is expected", terms: plain, id: policy.Identity{Pinned: true}, want: policy.Expected, reason: "fits"},

		// valid.
		{name: "before it is valid", terms: valid(at(day), time.Time{}), when: day - 1, want: policy.Unexpected, reason: "valid from 2000-01-02T00:00:00Z on"},
		{name: "when it becomes valid", terms: valid(at(day), time.Time{}), when: day, want: policy.Expected, reason: "fits"},
		{name: "long valid", terms: valid(at(day), time.Time{}), when: 400 * day, want: policy.Expected, reason: "fits"},
		{name: "just before its end", terms: valid(time.Time{}, at(day)), when: day - 1, want: policy.Expected, reason: "fits"},
		{name: "at its end", terms: valid(time.Time{}, at(day)), when: day, want: policy.Unexpected, reason: "valid until 2000-01-02T00:00:00Z"},
		{name: "within both bounds", terms: valid(at(day), at(2*day)), when: day + hour, want: policy.Expected, reason: "fits"},
		{name: "after both bounds", terms: valid(at(day), at(2*day)), when: 3 * day, want: policy.Unexpected, reason: "was valid until"},

		// between.
		{name: "on a Saturday", terms: between(office), when: 11 * hour, want: policy.Unexpected, reason: "Sat 2000-01-01 12:00 CET"},
		{name: "on a Monday at noon", terms: between(office), when: monday + 11*hour, want: policy.Expected, reason: "fits"},
		{name: "when the day begins in Berlin", terms: between(office), when: monday + 8*hour, want: policy.Expected, reason: "fits"},
		{name: "a minute before that", terms: between(office), when: monday + 8*hour - time.Minute, want: policy.Unexpected, reason: "08:59"},
		{name: "the last second of the day", terms: between(office), when: monday + 17*hour - time.Second, want: policy.Expected, reason: "fits"},
		{name: "when the day ends", terms: between(office), when: monday + 17*hour, want: policy.Unexpected, reason: "18:00"},
		{name: "in summer an hour earlier by UTC", terms: between(office), when: monday + 182*day + 7*hour, want: policy.Expected, reason: "fits"},
		{name: "not at the winter's end of the day", terms: between(office), when: monday + 182*day + 16*hour, want: policy.Unexpected, reason: "CEST"},
		{name: "overnight, in the evening", terms: between("22:00-06:00 UTC Mon"), when: monday + 23*hour, want: policy.Expected, reason: "fits"},
		{name: "overnight, the morning after", terms: between("22:00-06:00 UTC Mon"), when: monday + 29*hour, want: policy.Expected, reason: "fits"},
		{name: "overnight, the morning of that day", terms: between("22:00-06:00 UTC Mon"), when: monday + 5*hour, want: policy.Unexpected, reason: "is for 22:00-06:00"},
		{name: "overnight, from Sunday into Monday", terms: between("22:00-06:00 UTC Sun"), when: monday + 5*hour, want: policy.Expected, reason: "fits"},
		{name: "overnight, when it ends", terms: between("22:00-06:00 UTC Mon"), when: monday + 30*hour, want: policy.Unexpected, reason: "06:00"},
		{name: "all day", terms: between("00:00-24:00 Asia/Tokyo Mon"), when: monday - 9*hour, want: policy.Expected, reason: "fits"},
		{name: "all day, by the clocks of Tokyo", terms: between("00:00-24:00 Asia/Tokyo Mon"), when: monday + 15*hour, want: policy.Unexpected, reason: "Tue"},
		{name: "the second of two stretches", terms: between("08:00-09:00 UTC", "20:00-21:00 UTC"), when: 20 * hour, want: policy.Expected, reason: "fits"},
		{name: "between two stretches", terms: between("08:00-09:00 UTC", "20:00-21:00 UTC"), when: 12 * hour, want: policy.Unexpected, reason: "08:00-09:00 UTC or 20:00-21:00 UTC"},
		{name: "a week that goes round", terms: between("00:00-24:00 UTC Sat-Mon"), when: monday, want: policy.Expected, reason: "fits"},
		{name: "days in a list", terms: between("00:00-24:00 UTC Mon,Wed"), when: monday + day, want: policy.Unexpected, reason: "Tue"},

		// digests.
		{name: "on the list", terms: onList(hour), digests: []string{listed}, world: lists, want: policy.Expected, reason: listed + " is on the list SHA256SUMS"},
		{name: "one of two on the list", terms: onList(hour), digests: []string{other, listed}, world: lists, want: policy.Expected, reason: "is on the list"},
		{name: "not on the list yet", terms: onList(hour), digests: []string{other}, world: lists, want: policy.Expected, pending: hour, reason: "may still appear on the list SHA256SUMS"},
		{name: "not on the list, and no patience", terms: onList(0), digests: []string{other}, world: lists, want: policy.Unexpected, reason: "not on the list SHA256SUMS"},
		{name: "without a digest", terms: onList(0), world: lists, want: policy.Unexpected, reason: "not on the list"},
		{name: "a list that was never read", terms: onList(hour), digests: []string{listed}, want: policy.Expected, pending: hour, reason: "may still appear"},
		{name: "on the list of the second item", terms: append(onList(hour), &policy.Terms{Digests: &policy.Listing{List: another, Grace: hour}}), digests: []string{other}, world: lists, want: policy.Expected, reason: "expect item 2 fits, and sha256:bb is on the list other.txt"},
		{name: "on no list, but another item asks for none", terms: append(onList(hour), nil), digests: []string{other}, world: lists, want: policy.Expected, reason: "expect item 2 fits"},
		{name: "on the list, but self-made", terms: onList(hour), digests: []string{listed}, world: lists, id: self, want: policy.Untrusted, reason: "self-made"},
		{name: "on the list, but too early", terms: terms(policy.Terms{Valid: policy.Span{From: at(day)}, Digests: &policy.Listing{List: list, Grace: hour}}), digests: []string{listed}, world: lists, want: policy.Unexpected, reason: "valid from"},
		{name: "does not wait where the hour is wrong", terms: terms(policy.Terms{Between: []policy.Hours{hours(t, office)}, Digests: &policy.Listing{List: list, Grace: hour}}), digests: []string{other}, world: lists, want: policy.Unexpected, reason: "is for 09:00"},

		{name: "still not on the list", terms: onList(hour), digests: []string{other}, world: lists, after: hour - 1, want: policy.Expected, pending: hour, reason: "may still appear"},
		{name: "not on the list in time", terms: onList(hour), digests: []string{other}, world: lists, after: hour, want: policy.Unexpected, reason: "for 1h0m0s the artifact has not come on the list SHA256SUMS"},
		{name: "on the list in the end", terms: onList(hour), digests: []string{listed}, world: lists, after: 5 * hour, want: policy.Expected, reason: "is on the list"},
		{name: "the more patient of two items", terms: append(onList(time.Minute), &policy.Terms{Digests: &policy.Listing{List: another, Grace: 2 * hour}}), digests: []string{"sha256:cc"}, world: lists, want: policy.Expected, pending: 2 * hour, reason: "expect item 1 fits, and until 2000-01-01T02:00:00Z the artifact may still appear on the list SHA256SUMS or other.txt"},
		{name: "when the less patient has given up", terms: append(onList(time.Minute), &policy.Terms{Digests: &policy.Listing{List: another, Grace: 2 * hour}}), digests: []string{"sha256:cc"}, world: lists, after: hour, want: policy.Expected, pending: 2 * hour, reason: "expect item 2 fits, and until"},
		{name: "does not wait for an item that had enough", terms: terms(policy.Terms{Digests: &policy.Listing{List: list, Grace: hour}, OncePer: policy.ByDigest}), digests: []string{listed}, world: lists, before: before(1, 0, "digest="+listed), after: time.Minute, want: policy.Unexpected, reason: "entry 1 was one"},

		// at_most.
		{name: "the first of two", terms: atMost(2, hour), want: policy.Expected, reason: "fits"},
		{name: "the second of two", terms: atMost(2, hour), when: time.Minute, before: many(1, 0), want: policy.Expected, reason: "fits"},
		{name: "the third of two", terms: atMost(2, hour), when: 2 * time.Minute, before: many(2, time.Minute), want: policy.Unexpected, reason: "at most 2 events in 1h0m0s"},
		{name: "the third, when the first is an hour ago", terms: atMost(2, hour), when: hour, before: many(2, time.Minute), want: policy.Expected, reason: "fits"},
		{name: "a nanosecond before that", terms: atMost(2, hour), when: hour - 1, before: many(2, time.Minute), want: policy.Unexpected, reason: "at most 2"},
		{name: "of a time before those that are counted", terms: atMost(1, hour), before: before(1, time.Minute), want: policy.Unexpected, reason: "at most 1"},
		{name: "what others count", terms: atMost(1, hour), before: []admission{{"c2", "", 1, at(0)}}, want: policy.Expected, reason: "fits"},
		{name: "itself, when it is read again", terms: atMost(1, hour), before: before(100, 0), want: policy.Expected, reason: "fits"},
		{name: "too many, but another item fits", terms: append(atMost(1, hour), nil), before: many(1, 0), want: policy.Expected, reason: "expect item 2 fits"},
		{name: "too many for one, not for the other", terms: append(atMost(1, hour), atMost(2, hour)...), before: many(1, 0), want: policy.Expected, reason: "expect item 2 fits"},
		{name: "too many for what is on the list", terms: terms(policy.Terms{Digests: &policy.Listing{List: list, Grace: hour}, AtMost: &policy.Rate{Count: 1, Per: hour}}), digests: []string{listed}, world: lists, before: many(1, 0), want: policy.Unexpected, reason: "at most 1"},
		{name: "too many to wait", terms: terms(policy.Terms{Digests: &policy.Listing{List: list, Grace: hour}, AtMost: &policy.Rate{Count: 1, Per: hour}}), digests: []string{other}, world: lists, before: many(1, 0), want: policy.Unexpected, reason: "at most 1"},

		// once_per.
		{name: "the first of an artifact", terms: once(policy.ByDigest), digests: []string{other}, before: before(1, 0, "digest="+listed), want: policy.Expected, reason: "fits"},
		{name: "an artifact again", terms: once(policy.ByDigest), digests: []string{listed}, before: before(1, 0, "digest="+listed), want: policy.Unexpected, reason: "for sha256:aa entry 1 was one"},
		{name: "an artifact again, long after", terms: once(policy.ByDigest), when: 900 * day, digests: []string{listed}, before: before(1, 0, "digest="+listed), want: policy.Unexpected, reason: "entry 1"},
		{name: "one of two artifacts again", terms: once(policy.ByDigest), digests: []string{other, listed}, before: before(1, 0, "digest="+listed), want: policy.Unexpected, reason: "entry 1"},
		{name: "no artifact", terms: once(policy.ByDigest), want: policy.Unexpected, reason: "one event a digest, and the entry has none"},
		{name: "the first of a tag", terms: once("source-repository-ref"), ext: map[string]string{"source-repository-ref": "refs/tags/v2"}, before: before(1, 0, "source-repository-ref=refs/tags/v1"), want: policy.Expected, reason: "fits"},
		{name: "a tag again", terms: once("source-repository-ref"), ext: map[string]string{"source-repository-ref": "refs/tags/v1"}, before: before(1, 0, "source-repository-ref=refs/tags/v1"), want: policy.Unexpected, reason: "for refs/tags/v1 entry 1 was one"},
		{name: "without a tag", terms: once("source-repository-ref"), want: policy.Unexpected, reason: "one event a source-repository-ref, and the entry has none"},
		{name: "a tag that is called like a digest", terms: once("source-repository-ref"), ext: map[string]string{"source-repository-ref": listed}, before: before(1, 0, "digest="+listed), want: policy.Expected, reason: "fits"},
		{name: "the same entry again", terms: once(policy.ByDigest), digests: []string{listed}, before: before(100, 0, "digest="+listed), want: policy.Expected, reason: "fits"},

		// Announcements.
		{name: "announced, and no item fits", digests: []string{other}, world: announced(0, hour), want: policy.Expected, reason: "announced by the release job"},
		{name: "announced, too late", digests: []string{other}, when: hour, world: announced(0, hour), want: policy.Unexpected, reason: "self-hosted"},
		{name: "announced, another artifact", digests: []string{listed}, world: announced(0, hour), want: policy.Unexpected, reason: "self-hosted"},
		{name: "announced a while after it was signed", digests: []string{other}, world: announced(9*time.Minute, hour), want: policy.Expected, reason: "announced by"},
		{name: "announced long after it was signed", digests: []string{other}, world: announced(11*time.Minute, hour), want: policy.Unexpected, reason: "self-hosted"},
		{name: "announced while it waits", terms: onList(hour), digests: []string{other}, world: announced(59*time.Minute, 2*hour), after: 59 * time.Minute, want: policy.Expected, reason: "announced by"},
		{name: "announced when it had waited", terms: onList(hour), digests: []string{other}, world: announced(61*time.Minute, 2*hour), after: 61 * time.Minute, want: policy.Unexpected, reason: "for 1h1m0s the artifact has not come on the list SHA256SUMS"},
		{name: "announced, a bare key that names itself", digests: []string{other}, id: policy.Identity{Untrusted: "-"}, world: announced(0, hour), want: policy.Unexpected, reason: "self-hosted"},
		{name: "announced, a digest that is watched under a bare key", digests: []string{other}, id: policy.Identity{Pinned: true}, world: announced(0, hour), want: policy.Unexpected, reason: "self-hosted"},
		{name: "announced, a known key", digests: []string{other}, id: policy.Identity{Pinned: true, Known: true}, world: announced(0, hour), want: policy.Expected, reason: "announced by"},
		{name: "announced, self-made for a digest that is watched", digests: []string{other}, id: pinned, world: announced(0, hour), want: policy.Unexpected, reason: "self-hosted"},
		{name: "announced, but self-made", digests: []string{other}, id: self, world: announced(0, hour), want: policy.Untrusted, reason: "self-made"},
		{name: "announced instead of listed", terms: onList(hour), digests: []string{other}, world: announced(0, hour), want: policy.Expected, reason: "announced by"},
		{name: "announced, and more than at_most", terms: atMost(1, hour), digests: []string{other}, before: many(1, 0), world: announced(0, hour), want: policy.Expected, reason: "announced by"},
		{name: "announced, out of hours", terms: between(office), digests: []string{other}, world: announced(0, hour), want: policy.Expected, reason: "announced by"},
	}
	if len(cases) < 60 {
		t.Errorf("%d cases", len(cases))
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(tc.when)
				id := tc.id
				if id.Untrusted == "" && !id.Pinned {
					id.Certificate, id.Vouched = true, true
				}
				id.Cause, id.Misfit = "no expect item fits: runner-environment", "no expect item fits: runner-environment is self-hosted"
				for i, terms := range tc.terms {
					id.Fits = append(id.Fits, policy.Item{Number: i + 1, Terms: terms, Counter: fmt.Sprintf("c%d", i+1)})
				}
				id.Event = policy.Event{Time: time.Now(), Source: policy.FromLog, Index: 100, Digests: slices.Clone(tc.digests), Extensions: tc.ext}
				w := tc.world
				w.admitted = slices.Clone(tc.before)
				// Judged twice, as after a transaction that failed.
				for range 2 {
					j, err := policy.Judge([]policy.Identity{id}, &w, time.Now(), time.Now().Add(tc.after))
					if err != nil {
						t.Fatal(err)
					}
					if j.Verdict != tc.want || !strings.Contains(j.Reason, tc.reason) {
						t.Errorf("%s: %s, want %s: …%s…", j.Verdict, j.Reason, tc.want, tc.reason)
					}
					if j.Cause == "" || j.Source != policy.FromLog || !j.Time.Equal(time.Now()) {
						t.Errorf("cause %q, time %s by %s", j.Cause, j.Time, j.Source)
					}
					if j.Pending() != (tc.pending > 0) || j.Pending() && time.Until(j.Due) != tc.pending {
						t.Errorf("waits for %q until %s", j.Waits, j.Due)
					}
					if got, final := policy.Stateless([]policy.Identity{id}); final && (got.Verdict != j.Verdict || got.Reason != j.Reason) {
						t.Errorf("without the world it is %s (%s)", got.Verdict, got.Reason)
					}
				}
				if !slices.Equal(id.Event.Digests, tc.digests) {
					t.Errorf("the digests were changed: %q", id.Event.Digests)
				}
			})
		})
	}
}

// TestSeveral: an identity that is expected never hides one that is not, and one
// that waits is waited for.
func TestSeveral(t *testing.T) {
	now := time.Now()
	fits := func(terms *policy.Terms) policy.Identity {
		return policy.Identity{Certificate: true, Vouched: true, Fits: []policy.Item{{Number: 1, Terms: terms}}, Event: policy.Event{Time: now}}
	}
	expected, waits := fits(nil), fits(&policy.Terms{Digests: &policy.Listing{List: "l", Grace: time.Hour}})
	waitsLess := fits(&policy.Terms{Digests: &policy.Listing{List: "m", Grace: time.Minute}})
	unexpected := policy.Identity{Certificate: true, Vouched: true, Cause: "no", Misfit: "no expect item fits"}
	selfMade := policy.Identity{Certificate: true, Untrusted: "self-made", Fits: expected.Fits}
	for _, tc := range []struct {
		name  string
		ids   []policy.Identity
		want  policy.Verdict
		waits time.Duration
	}{
		{"one of two unexpected", []policy.Identity{expected, unexpected}, policy.Unexpected, 0},
		{"in the other order", []policy.Identity{unexpected, expected}, policy.Unexpected, 0},
		{"self-made beside expected", []policy.Identity{expected, selfMade}, policy.Untrusted, 0},
		{"self-made beside unexpected", []policy.Identity{selfMade, unexpected}, policy.Unexpected, 0},
		{"expected beside one that waits", []policy.Identity{expected, waits}, policy.Expected, time.Hour},
		{"one that waits beside expected", []policy.Identity{waits, expected}, policy.Expected, time.Hour},
		{"two that wait", []policy.Identity{waits, waitsLess}, policy.Expected, time.Minute},
		{"one that waits beside unexpected", []policy.Identity{waits, unexpected}, policy.Unexpected, 0},
		{"one that waits beside self-made", []policy.Identity{selfMade, waits}, policy.Expected, time.Hour},
		{"self-made beside one that waits", []policy.Identity{waits, selfMade}, policy.Expected, time.Hour},
	} {
		j, err := policy.Judge(tc.ids, &world{}, now, now)
		if err != nil || j.Verdict != tc.want || j.Pending() != (tc.waits > 0) || j.Pending() && j.Due.Sub(now) != tc.waits {
			t.Errorf("%s: %+v, %v", tc.name, j, err)
		}
	}
}

// TestWhatIsCounted: limits count what is expected for good, and nothing else.
func TestWhatIsCounted(t *testing.T) {
	now := time.Now()
	limited := func(terms policy.Terms) policy.Identity {
		return policy.Identity{Certificate: true, Vouched: true, Fits: []policy.Item{{Number: 1, Terms: &terms, Counter: "c"}}, Event: policy.Event{Time: now, Index: 7, Digests: []string{listed}}}
	}
	counts := limited(policy.Terms{OncePer: policy.ByDigest})
	waits := limited(policy.Terms{OncePer: policy.ByDigest, Digests: &policy.Listing{List: list, Grace: time.Hour}})
	unexpected := policy.Identity{Certificate: true, Vouched: true, Cause: "no", Misfit: "no expect item fits", Event: counts.Event}
	selfMade := policy.Identity{Certificate: true, Untrusted: "self-made", Event: counts.Event}
	for _, tc := range []struct {
		name  string
		ids   []policy.Identity
		after time.Duration
		lists map[string][]string
		want  int
	}{
		{"expected", []policy.Identity{counts}, 0, nil, 1},
		{"beside an unexpected one", []policy.Identity{counts, unexpected}, 0, nil, 0},
		{"beside a self-made one", []policy.Identity{selfMade, counts}, 0, nil, 0},
		{"while it waits", []policy.Identity{waits}, 0, nil, 0},
		{"when it has waited in vain", []policy.Identity{waits}, time.Hour, nil, 0},
		{"when it is on the list", []policy.Identity{waits}, time.Minute, map[string][]string{list: {listed}}, 1},
		{"on the list beside one that waits", []policy.Identity{waits, limited(policy.Terms{Digests: &policy.Listing{List: another, Grace: time.Hour}})}, 0, map[string][]string{list: {listed}}, 0},
	} {
		w := &world{lists: tc.lists}
		if _, err := policy.Judge(tc.ids, w, now, now.Add(tc.after)); err != nil {
			t.Fatal(err)
		}
		seen := map[uint64]bool{}
		for _, a := range w.admitted {
			seen[a.index] = true
		}
		if len(seen) != tc.want || tc.want > 0 && !seen[7] {
			t.Errorf("%s: %+v", tc.name, w.admitted)
		}
	}
}

// TestKept: what waits is judged by the same after it was stored.
func TestKept(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	id := policy.Identity{Certificate: true, Vouched: true, Pinned: true, Known: true, Cause: "c", Misfit: "m", Untrusted: "u",
		Event: policy.Event{Time: now, Source: policy.FromLog, Index: 7, Digests: []string{listed}, Extensions: map[string]string{"a": "b"}},
		Fits: []policy.Item{{Number: 3, Counter: "c", Terms: &policy.Terms{Valid: policy.Span{From: now, Until: now}, Between: []policy.Hours{hours(t, "22:00-06:00 Europe/Berlin Mon-Fri")},
			Digests: &policy.Listing{List: list, Grace: time.Hour}, AtMost: &policy.Rate{Count: 1, Per: time.Hour}, OncePer: "a"}}}}
	doc, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	var again policy.Identity
	if err := json.Unmarshal(doc, &again); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(id, again) {
		t.Errorf("%+v, it was %+v", again, id)
	}
}

// TestWorldFails: what cannot be read is no verdict.
func TestWorldFails(t *testing.T) {
	w := &world{err: fmt.Errorf("the disk is gone")}
	for _, terms := range []*policy.Terms{{AtMost: &policy.Rate{Count: 1, Per: time.Hour}}, {OncePer: policy.ByDigest}, nil} {
		id := policy.Identity{Certificate: true, Vouched: true, Event: policy.Event{Time: time.Now(), Digests: []string{"sha256:aa"}}}
		if terms != nil {
			id.Fits = []policy.Item{{Number: 1, Terms: terms, Counter: "c"}}
		}
		if j, err := policy.Judge([]policy.Identity{id}, w, time.Now(), time.Now()); err == nil {
			t.Errorf("%+v: %+v", terms, j)
		}
	}
}

func TestParseHours(t *testing.T) {
	for _, text := range []string{"", "09:00", "09:00-18:00", "9-18 UTC", "09:00-25:00 UTC", "09:60-18:00 UTC", "09:00-09:00 UTC", "09:00-18:00 Nowhere/City", "09:00-18:00 Local", "09:00-18:00 UTC Someday", "09:00-18:00 UTC Mon-", "24:00-01:00 UTC", "-1:00-02:00 UTC", "09:00-18:00 ../etc/passwd", "09:0-18:00 UTC"} {
		if h, err := policy.ParseHours(text); err == nil {
			t.Errorf("%q: %+v", text, h)
		}
	}
	at := time.Date(2026, 11, 24, 23, 30, 0, 0, time.UTC) // a Tuesday
	for text, want := range map[string]string{
		"22:00-06:00 UTC":           "2026-11-25T06:00:00Z",
		"23:00-24:00 UTC":           "2026-11-25T00:00:00Z",
		"22:00-06:00 Europe/Berlin": "2026-11-25T05:00:00Z",
		"00:00-06:00 Europe/Berlin": "2026-11-25T05:00:00Z",
		"08:00-09:00 UTC":           "2026-11-24T23:30:00Z",
	} {
		if got := hours(t, text).Until(at).UTC().Format(time.RFC3339); got != want {
			t.Errorf("%s ends %s, want %s", text, got, want)
		}
	}
}

func FuzzParseHours(f *testing.F) {
	for _, s := range []string{"09:00-18:00 Europe/Berlin Mon-Fri", "22:00-06:00 UTC Sat,Sun", "00:00-24:00 Asia/Tokyo"} {
		f.Add(s, int64(0))
	}
	f.Fuzz(func(t *testing.T, text string, at int64) {
		defer bounds.Hold(t)()
		h, err := policy.ParseHours(text)
		if err != nil {
			return
		}
		when := time.Unix(at%(1<<34), 0)
		if until := h.Until(when); h.Contains(when) && !until.After(when) || !h.Contains(when) && !until.Equal(when) {
			t.Errorf("%q at %s ends %s", text, when, until)
		}
	})
}

func TestNotifiesAndStores(t *testing.T) {
	for _, v := range policy.Verdicts() {
		for _, untrusted := range []string{"", policy.Record, policy.Alert, policy.Ignore} {
			wantNotify := v == policy.Malformed || v == policy.Unexpected || v == policy.Untrusted && untrusted == policy.Alert
			wantStore := !(v == policy.Untrusted && untrusted == policy.Ignore)
			if policy.Notifies(v, untrusted) != wantNotify || policy.Stores(v, untrusted) != wantStore {
				t.Errorf("%s with untrusted %q: notifies %v, stored %v", v, untrusted, policy.Notifies(v, untrusted), policy.Stores(v, untrusted))
			}
		}
	}
}
