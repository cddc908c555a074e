package route_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/notifytest"
	"github.com/sigwarden/sigwarden/notify/route"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

func TestRoute(t *testing.T) {
	night, err := policy.ParseHours("22:00-07:00 UTC")
	if err != nil {
		t.Fatal(err)
	}
	morning, err := policy.ParseHours("07:00-08:00 UTC Mon-Fri")
	if err != nil {
		t.Fatal(err)
	}
	daily, err := cron.ParseStandard("0 9 * * *")
	if err != nil {
		t.Fatal(err)
	}
	table := route.Table{
		"all":      {},
		"grave":    {Severity: "high"},
		"acme":     {Watches: []string{"acme"}},
		"findings": {Classes: []string{"finding"}},
		"forks":    {Kinds: []string{"fork"}},
		"sleeper":  {Quiet: []route.Hours{night, morning}, QuietBelow: "high"},
		"digest":   {Digest: daily, DigestBelow: "medium"},
	}
	all := []string{"all", "grave", "acme", "findings", "forks", "sleeper", "digest", "unknown"}
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	finding := notify.About{Class: "finding", Kind: "unexpected", Severity: "critical", Watch: "acme"}
	mild := finding
	mild.Severity, mild.Watch = "low", "other"
	fork := notify.About{Class: "integrity", Kind: "fork", Severity: "critical"}
	down := notify.About{Class: "operational", Kind: "unreachable", Severity: "low"}
	for name, tc := range map[string]struct {
		about notify.About
		now   time.Time
		want  string
	}{
		"a critical finding":       {finding, noon, "all grave acme findings sleeper digest unknown"},
		"a mild one of another":    {mild, noon, "all findings sleeper digest(2026-11-25 09:00) unknown"},
		"a fork":                   {fork, noon, "all grave acme forks sleeper digest unknown"},
		"a log that is down":       {down, noon, "all acme sleeper digest(2026-11-25 09:00) unknown"},
		"that, at night":           {down, noon.Add(11 * time.Hour), "all acme sleeper@2026-11-25 08:00 digest(2026-11-25 09:00) unknown"},
		"that, on Saturday night":  {down, noon.Add(3*24*time.Hour + 23*time.Hour), "all acme sleeper digest(2026-11-29 09:00) unknown"},
		"that, on Friday, late":    {down, noon.Add(3*24*time.Hour + 11*time.Hour), "all acme sleeper@2026-11-28 07:00 digest(2026-11-28 09:00) unknown"},
		"a fork at night":          {fork, noon.Add(11 * time.Hour), "all grave acme forks sleeper digest unknown"},
		"just before the digest":   {down, noon.Add(-3*time.Hour - time.Second), "all acme sleeper digest(2026-11-24 09:00) unknown"},
		"when the digest is made":  {down, noon.Add(-3 * time.Hour), "all acme sleeper digest(2026-11-25 09:00) unknown"},
		"of no severity at all":    {notify.About{Class: "operational", Kind: "x"}, noon, "all acme sleeper digest(2026-11-25 09:00) unknown"},
		"an unknown severity even": {notify.About{Class: "operational", Kind: "x", Severity: "dire"}, noon, "all acme sleeper digest(2026-11-25 09:00) unknown"},
	} {
		var got []string
		for _, a := range table.Route(all, tc.about, tc.now) {
			s := a.Channel
			if a.Digest {
				s += a.Due.UTC().Format("(2006-01-02 15:04)")
			} else if !a.Due.IsZero() {
				s += a.Due.UTC().Format("@2006-01-02 15:04")
			}
			got = append(got, s)
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %s, want %s", name, strings.Join(got, " "), tc.want)
		}
	}
}

// TestQuietForEver: hours that never end do not hold anything back for ever.
func TestQuietForEver(t *testing.T) {
	always, err := policy.ParseHours("00:00-24:00 UTC")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	got := route.Table{"c": {Quiet: []route.Hours{always}, QuietBelow: "high"}}.Route([]string{"c"}, notify.About{Severity: "low"}, now)
	if len(got) != 1 || got[0].Due.Sub(now) > 8*24*time.Hour {
		t.Errorf("%+v", got)
	}
}

func groups(n int) []notify.Group {
	var out []notify.Group
	for i := range n {
		out = append(out, notify.Group{About: notify.About{Class: "finding", Kind: "unexpected", Severity: []string{"low", "critical", "high"}[i%3], Watch: fmt.Sprint("w", i)},
			Cause: "no expect item fits: issuer", Count: 10 + i, First: []string{"log/1 by evil\r\n: x (f-1)", "log/2"}, Since: time.Unix(1e9, 0), Until: time.Unix(1e9+60, 0)})
	}
	return out
}

func TestFold(t *testing.T) {
	now := time.Unix(1e9+100, 0)
	for n, want := range map[int]int{1: 1, 2: 2, 3: 3, 4: 4, 5: 4, 300: 4} {
		got := route.Fold(groups(n), false, now)
		if len(got) != want {
			t.Errorf("%d groups are %d events, want %d", n, len(got), want)
		}
		seen := map[string]bool{}
		for _, e := range got {
			if seen[e.ID] || e.ID == "" || e.Next == "" || e.Title == "" || !strings.Contains(e.Summary, "kept") {
				t.Errorf("%+v", e)
			}
			seen[e.ID] = true
			notifytest.Visible(t, "the event", e.Plain())
		}
		if n >= 2 && got[0].Severity != "critical" {
			t.Errorf("the gravest does not come first: %+v", got[0])
		}
	}
	one := route.Fold(groups(1), false, now)[0]
	if one.Title != "10 unexpected signing events for watch w0" || !strings.Contains(one.Plain(), "8 more") || one.Group == "" || one.Next != "sigwarden findings --watch w0 --verdict unexpected --since 2001-09-09T01:46:40Z" {
		t.Errorf("%+v", one)
	}
	// A flood of one watch, for many reasons, hides no other watch.
	flood := groups(60)
	for i := range flood {
		flood[i].Severity, flood[i].Watch, flood[i].Cause = "critical", "flooded", fmt.Sprint("cause ", i)
	}
	flood = append(flood, notify.Group{About: notify.About{Class: "finding", Kind: "unexpected", Severity: "critical", Watch: "precious"}, Cause: "x", Count: 1, First: []string{"log/7 by thief (f-7)"}, Since: now, Until: now})
	for range 20 {
		flood = append(flood, notify.Group{About: notify.About{Class: "finding", Kind: "unexpected", Severity: "critical", Watch: fmt.Sprint("also-", len(flood))}, Cause: "x", Count: 2, Since: now, Until: now})
	}
	hidden := route.Fold(flood, false, now)
	if hidden[0].Title != "1 unexpected signing event for watch precious" {
		t.Errorf("%q comes first", hidden[0].Title)
	}
	for i := 61; i < 81; i++ {
		name := fmt.Sprint("also-", i)
		if !slices.ContainsFunc(hidden, func(e notify.Event) bool {
			return strings.Contains(e.Title, name) || strings.Contains(notify.Clean(e.Summary, 900), name+" 2")
		}) {
			t.Errorf("watch %s is named nowhere", name)
		}
	}
	digest := route.Fold(groups(7), true, now)
	if len(digest) != 1 || digest[0].Type != notify.DigestDue || digest[0].Title != "Digest: 91 findings" {
		t.Errorf("%+v", digest)
	}
}
