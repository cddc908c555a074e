package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// manyFindings makes a state file with n findings, fast: one transaction, straight into the
// table.
func manyFindings(t testing.TB, n int) *Store {
	t.Helper()
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	var b monitor.Batch
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	states := []string{monitor.StateOpen, monitor.StateClosed, monitor.StateClosed, monitor.StateClosed}
	verdicts := []policy.Verdict{policy.Unexpected, policy.Expected, policy.Expected, policy.Untrusted}
	for i := range n {
		b.Findings = append(b.Findings, monitor.Finding{ID: fmt.Sprintf("f-%08d", i), Log: fmt.Sprint("log-", i%3), Watch: fmt.Sprint("watch-", i%7), Verdict: verdicts[i%4], State: states[i%4], Severity: []string{"high", "low"}[i%2],
			SeenAt: at.Add(time.Duration(i/5) * time.Second), EventTime: at, Index: uint64(i), Leaf: make([]byte, 2000), SignedNote: "note", Identities: nil})
		if len(b.Findings) == 20000 || i+1 == n {
			if _, err := s.Commit(ctx, "log", monitor.State{}, nil, b); err != nil {
				t.Fatal(err)
			}
			b.Findings = b.Findings[:0]
		}
	}
	return s
}

// TestPages: pages follow each other without a gap or a repeat, for every filter, also
// while others write.
func TestPages(t *testing.T) {
	s := manyFindings(t, 1000)
	for _, f := range []Filter{{}, {Watch: "watch-3"}, {State: monitor.StateOpen}, {Verdict: "untrusted", Log: "log-1"}, {Severity: "low", Since: time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC), Until: time.Date(2026, 1, 1, 0, 2, 0, 0, time.UTC)}, {Watch: "none"}} {
		want, err := s.Findings(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		f.Limit = 37
		seen := 0
		for {
			page, err := s.FindingsPage(ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range page.Items {
				if seen++; seen > len(want) || x.ID != want[len(want)-seen].ID {
					t.Fatalf("%+v: %s is the %dth of %d", f, x.ID, seen, len(want))
				}
			}
			if f.Before = page.Next; f.Before == "" {
				break
			}
		}
		if seen != len(want) {
			t.Errorf("%+v: %d of %d", f, seen, len(want))
		}
		f.Before = ""
		for _, most := range []int{1, 1 << 20} {
			if n, err := s.CountFindings(ctx, f, most); err != nil || n != min(most, len(want)) {
				t.Errorf("%+v: counted %d of %d, %v", f, n, len(want), err)
			}
		}
	}
	for _, bad := range []string{"x", "====", place(1), place("a", "b", 1, "c"), place(1, "a", 1, "c") + "A", place(1, "a", "1", "c")} {
		if _, err := s.FindingsPage(ctx, Filter{Before: bad}); !errors.Is(err, ErrPlace) {
			t.Errorf("%q: %v", bad, err)
		}
		if _, err := s.IncidentsPage(ctx, Filter{Before: bad}); !errors.Is(err, ErrPlace) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if page, err := s.FindingsPage(ctx, Filter{Limit: 1 << 20}); err != nil || len(page.Items) != monitor.MaxPage || page.Next == "" {
		t.Errorf("%d on a page, %v", len(page.Items), err)
	}
}

// TestIncidentPages: the same for incidents.
func TestIncidentPages(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	var list []monitor.Incident
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 25 {
		list = append(list, monitor.Incident{ID: fmt.Sprintf("i-%02d", i), Kind: []string{monitor.KindStale, monitor.KindLagging}[i%2], State: monitor.StateOpen, OpenedAt: at.Add(time.Duration(i/3) * time.Minute)})
	}
	if err := s.Record(ctx, list, nil); err != nil {
		t.Fatal(err)
	}
	f := Filter{Limit: 4, Kind: monitor.KindStale}
	seen := 24
	for {
		page, err := s.IncidentsPage(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range page.Items {
			if x.ID != list[seen].ID {
				t.Fatalf("%s, want %s", x.ID, list[seen].ID)
			}
			seen -= 2
		}
		if f.Before = page.Next; f.Before == "" {
			break
		}
	}
	if seen != -2 {
		t.Errorf("ended before %d", seen)
	}
}

// TestPagesReadIndexes: no filter reads the table, or sorts, before it knows what is on the
// page.
func TestPagesReadIndexes(t *testing.T) {
	s := manyFindings(t, 10)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for mask := range 1 << 7 {
		var f Filter
		for i, set := range []func(){
			func() { f.Watch = "w" }, func() { f.Log = "l" }, func() { f.Verdict = "v" }, func() { f.State = "s" }, func() { f.Severity = "x" },
			func() { f.Since, f.Until = at, at.Add(time.Hour) }, func() { f.Before = place(1, "a", 2, "b") },
		} {
			if mask>>i&1 == 1 {
				set()
			}
		}
		query, args, err := findingsPage(f)
		if err != nil {
			t.Fatal(err)
		}
		count := findingsWhere(f)
		for q, args := range map[string][]any{query: args, "SELECT 1 FROM findings" + count.String() + " LIMIT 10": count.args} {
			plan := explained(t, s, q, args)
			inner := plan
			for _, line := range strings.Split(inner, "\n") {
				scan := strings.Contains(line, "SCAN findings")
				if scan && !strings.Contains(line, "USING COVERING INDEX") || strings.Contains(line, "AUTOMATIC") {
					t.Errorf("%s\nreads the table:\n%s", q, plan)
				}
			}
			// The page itself, of which there is one, may be put into order.
			if strings.Count(plan, "TEMP B-TREE") > 1 {
				t.Errorf("%s\nsorts what it reads:\n%s", q, plan)
			}
		}
	}
}

func explained(t *testing.T, s *Store, query string, args []any) string {
	t.Helper()
	rows, err := s.db.Query("EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatalf("%v of %s", err, query)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		out = append(out, detail)
	}
	return strings.Join(out, "\n")
}

// BenchmarkPages: a page of 100,000 findings, against reading all of them.
func BenchmarkPages(b *testing.B) {
	s := manyFindings(b, 100000)
	for name, f := range map[string]Filter{"newest": {}, "open": {State: monitor.StateOpen}, "rare": {Watch: "watch-3", Verdict: "untrusted", Log: "log-1", Severity: "low"}} {
		f.Limit = 50
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.FindingsPage(b.Context(), f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			if err := s.EachFinding(b.Context(), Filter{}, func(monitor.Finding) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// FuzzPlace: a place that is taken is one that a page was given, to the letter.
func FuzzPlace(f *testing.F) {
	f.Add(place(int64(1700000000000000), "f-1"), "ns")
	f.Add(place(int64(-1), int64(7)), "nn")
	f.Add("W10", "")
	f.Fuzz(func(t *testing.T, text, kinds string) {
		defer bounds.Hold(t)()
		keys, err := parsePlace(text, kinds)
		if err == nil && (place(keys...) != text || len(keys) != len(kinds)) {
			t.Errorf("%q, %q: %v", text, kinds, keys)
		}
	})
}
