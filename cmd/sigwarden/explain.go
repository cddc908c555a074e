package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/entry"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// explained is what one watch says of one identity of an entry.
type explained struct {
	Entry    int      `json:"entry"`
	Watch    string   `json:"watch"`
	Identity string   `json:"identity"`
	Trusted  string   `json:"trusted"`
	Ours     bool     `json:"ours"`
	Match    []item   `json:"match"`
	Expect   []item   `json:"expect"`
	Verdict  string   `json:"verdict,omitempty"` // where it is ours
	Reason   string   `json:"reason,omitempty"`
	Open     []string `json:"depends_on,omitempty"` // what is known only when it is read in a log
}

type item struct {
	Number int    `json:"number"`
	Fits   bool   `json:"fits"`
	Why    string `json:"why,omitempty"`
}

func itemsOf(list []watchlist.Explained) []item {
	out := []item{}
	for _, x := range list {
		out = append(out, item(x))
	}
	return out
}

// explain prints which rule says what of the entries in a file, and why.
func (a *app) explain(ctx context.Context, s *setup, name string, asJSON bool) error {
	data, err := a.readInput(ctx, name)
	if err != nil {
		return err
	}
	leaves, err := leavesIn(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	trusted, err := a.authorities(ctx, s)
	if err != nil {
		return err
	}
	var all []explained
	for n, leaf := range leaves {
		facts, err := entry.Decode(leaf)
		if err != nil {
			fmt.Fprintf(a.stderr, "entry %d cannot be decoded in full: %s\nIt would be malformed for each watch that looks for something in its bytes.\n", n+1, safe(err.Error()))
		}
		for w, rule := range s.list.Watches() {
			all = append(all, s.explainEntry(n+1, w, rule, &facts, trusted)...)
		}
	}
	if asJSON {
		return printJSON(a.stdout, all)
	}
	for _, x := range all {
		a.printExplained(x)
	}
	return nil
}

// authorities returns whose certificates count, as far as that is known here.
func (a *app) authorities(ctx context.Context, s *setup) ([]*entry.Authorities, error) {
	var out []*entry.Authorities
	for _, l := range s.logs {
		out = append(out, l.Authorities)
	}
	st, err := store.Open(ctx, s.cfg.State, store.Options{})
	if errors.Is(err, store.ErrMissing) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	defer st.Close()
	engine, err := s.engine(ctx, st, a.logger(), nil)
	if err != nil {
		return nil, err
	}
	for _, t := range engine.Trusted() {
		out = append(out, t.Authorities)
	}
	return out, nil
}

// vouched asks everybody whose certificates count.
func vouched(id *entry.Identity, trusted []*entry.Authorities) (text string, ok bool) {
	if id.Certificate == nil {
		return "a key without a certificate", true
	}
	why := "no authority is known here: run it once, or give a log its ca"
	for _, a := range trusted {
		if a == nil {
			continue
		}
		err := a.Verify(id)
		if err == nil {
			return "its certificate is trusted", true
		}
		why = err.Error()
	}
	return "its certificate is not trusted: " + why, false
}

func (s *setup) explainEntry(n, w int, rule watchlist.Watch, facts *entry.Facts, trusted []*entry.Authorities) []explained {
	hits := s.list.Match(facts)
	at := slices.IndexFunc(hits, func(h watchlist.Hit) bool { return h.Watch == w })
	var out []explained
	identities := len(facts.Identities)
	for i := range max(identities, 1) {
		index, who, ok := i, "an entry that names nobody", true
		x := explained{Entry: n, Watch: rule.Name}
		var id *entry.Identity
		if identities == 0 {
			index = -1
		} else {
			id = &facts.Identities[i]
			r := id.Report(entry.ErrNotJudged)
			if who = strings.Join(r.Subjects, ", "); who == "" {
				who = "key " + r.Fingerprint
			}
			x.Trusted, ok = vouched(id, trusted)
		}
		x.Identity = who
		x.Match = itemsOf(s.list.ExplainMatch(w, facts, index))
		x.Expect = itemsOf(s.list.ExplainExpect(w, facts, index, ok))
		if at >= 0 {
			for _, ours := range hits[at].Ours {
				if ours.Index == index {
					x.Ours = true
					s.judge(&x, w, facts, id, ours, ok)
				}
			}
		}
		out = append(out, x)
	}
	return out
}

// judge says the verdict, as far as the entry and the rule alone decide it.
func (s *setup) judge(x *explained, w int, facts *entry.Facts, id *entry.Identity, ours watchlist.Ours, trusted bool) {
	p := policy.Identity{Certificate: id != nil && id.Certificate != nil, Vouched: trusted, Pinned: ours.Pinned, Known: ours.Known, Untrusted: x.Trusted}
	p.Event = policy.Event{Time: time.Now(), Source: policy.FirstSeen, Digests: facts.Digests}
	if p.Certificate && trusted {
		p.Event.Time, p.Event.Source = id.NotBefore, policy.FromCertificate
	}
	fits, cause, misfit := s.list.Fits(w, facts, ours.Index, trusted)
	p.Cause, p.Misfit = cause, misfit
	timed := false
	for _, i := range fits {
		it := policy.Item{Number: i + 1}
		if terms := s.watches[w].Terms; i < len(terms) {
			it.Terms = terms[i]
		}
		p.Fits = append(p.Fits, it)
		timed = timed || it.Terms.Timed()
		if !it.Terms.Open(p.Event) {
			continue // its hours or dates refuse, whatever was before
		}
		for what, set := range map[string]bool{"digests": it.Terms.Digests != nil, "at_most": it.Terms.AtMost != nil, "once_per": it.Terms.OncePer != ""} {
			if set {
				x.Open = append(x.Open, fmt.Sprintf("%s of expect item %d", what, i+1))
			}
		}
	}
	slices.Sort(x.Open)
	j, final := policy.Stateless([]policy.Identity{p})
	x.Verdict, x.Reason = string(j.Verdict), j.Reason
	if !final && len(x.Open) > 0 {
		x.Verdict, x.Reason = "", "an item fits by its patterns; the rest depends on what was before"
	}
	if timed {
		how := map[policy.TimeSource]string{policy.FirstSeen: "now", policy.FromCertificate: "since its certificate is valid"}[p.Event.Source]
		x.Open = append(x.Open, fmt.Sprintf("the time of the event: here it is taken to be %s, %s; a log that signs a time has the say", how, p.Event.Time.UTC().Format(time.RFC3339)))
	}
	if !final {
		x.Open = append(x.Open, "announcements")
	}
}

func (a *app) printExplained(x explained) {
	fmt.Fprintf(a.stdout, "entry %d, watch %s, signed as %s\n", x.Entry, safe(x.Watch), safe(x.Identity))
	if x.Trusted != "" {
		fmt.Fprintf(a.stdout, "  %s\n", safe(x.Trusted))
	}
	show := func(what string, list []item) {
		for _, it := range list {
			says := "fits"
			if !it.Fits {
				says = "does not fit: " + it.Why
			}
			fmt.Fprintf(a.stdout, "  %s item %d %s\n", what, it.Number, safe(says))
		}
	}
	show("match", x.Match)
	if !x.Ours {
		fmt.Fprintf(a.stdout, "  so it is not this watch's\n\n")
		return
	}
	show("expect", x.Expect)
	verdict := x.Verdict
	if verdict == "" {
		verdict = "not to be told here"
	}
	fmt.Fprintf(a.stdout, "  verdict: %s: %s\n", verdict, safe(x.Reason))
	if len(x.Open) > 0 {
		fmt.Fprintf(a.stdout, "  decided when it is read in a log: %s\n", strings.Join(x.Open, ", "))
	}
	fmt.Fprintln(a.stdout)
}
