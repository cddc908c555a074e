package watchlist

import (
	"strings"

	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// Explained says how an item compares with an identity.
type Explained struct {
	// Number is its place in match or expect, from 1 on.
	Number int
	Fits   bool
	// Why names the keys that do not fit, with what was found.
	Why string
}

// ExplainMatch compares an identity with each item of a watch's match. index is as
// in Ours.
func (l *List) ExplainMatch(watch int, f *entry.Facts, index int) []Explained {
	var out []Explained
	for _, it := range l.items {
		if it.watch == watch {
			out = append(out, it.explain(f, index, nil))
		}
	}
	return out
}

// ExplainExpect does so with each item of expect; vouched is as in Fits.
func (l *List) ExplainExpect(watch int, f *entry.Facts, index int, vouched bool) []Explained {
	var out []Explained
	for _, it := range l.watches[watch].expect {
		out = append(out, it.explain(f, index, func(v *view) []misfit { return it.doubts(v, vouched) }))
	}
	return out
}

func (it *item) explain(f *entry.Facts, index int, doubts func(*view) []misfit) Explained {
	v := view{facts: f}
	if index >= 0 {
		v.id = &f.Identities[index]
	}
	bad := it.misfits(&v, false)
	if doubts != nil {
		bad = append(bad, doubts(&v)...)
	}
	var why []string
	for _, m := range bad {
		why = append(why, m.text)
	}
	return Explained{it.index + 1, len(bad) == 0, strings.Join(why, "; ")}
}
