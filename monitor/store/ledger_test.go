package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// unsigned stands for a signature: what is signed is tested elsewhere.
func unsigned(_, text string) (string, error) { return text + "\n— nobody AAAAAAA=\n", nil }

func anybody(string) bool { return true }

// everything is followed.
func everything(string) bool { return true }

// rows returns the rows of some kinds, all for none.
func rows(t *testing.T, s *Store, kinds ...string) (out []ledger.Row) {
	t.Helper()
	if err := s.EachLedgerRow(ctx, 0, 1<<62, func(line []byte) error {
		r, err := ledger.Parse(line)
		if err == nil && (len(kinds) == 0 || strings.Contains(strings.Join(kinds, " "), r.Kind)) {
			out = append(out, r)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func body[T any](t *testing.T, r ledger.Row) T {
	t.Helper()
	b, err := ledger.Read[T](r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// followed begins a log of some size, and returns its state.
func followed(t *testing.T, s *Store, size uint64) monitor.State {
	t.Helper()
	var hashes []checkpoint.Hash
	for i := range size {
		hashes = append(hashes, checkpoint.LeafHash(fmt.Appendf(nil, "%d", i)))
	}
	f := checkpoint.Frontier{}.Append(hashes...)
	st := monitor.State{Name: "log", Origin: "log.example", Head: "note", HeadSize: size}
	for _, p := range f.Peaks() {
		st.HeadPeaks = append(st.HeadPeaks, checkpoint.HexHash(p))
	}
	if _, err := s.Commit(ctx, "log", monitor.State{}, &st, monitor.Batch{}); err != nil {
		t.Fatal(err)
	}
	return st
}

func poll(t *testing.T, s *Store, at time.Time, err error) {
	t.Helper()
	if _, err := s.RecordPoll(ctx, "log", monitor.Poll{At: at, Err: err, Every: time.Minute, Origin: "log.example", Name: "log"}); err != nil {
		t.Fatal(err)
	}
}

// TestLedgerTampering: every way to change what was written is noticed.
func TestLedgerTampering(t *testing.T) {
	for name, change := range map[string]string{
		"a row edited":                "UPDATE ledger SET line = REPLACE(line, '\"entry-withheld\"', '\"entry-mismatch\"') WHERE kind = 'gap'",
		"a row removed":               "DELETE FROM ledger WHERE n = 2",
		"the last row removed":        "DELETE FROM ledger WHERE n = (SELECT MAX(n) FROM ledger)",
		"rows exchanged":              "UPDATE ledger SET line = (SELECT line FROM ledger WHERE n = 1) WHERE n = 2",
		"the end cut off":             "DELETE FROM ledger WHERE n > 1; UPDATE ledger_head SET size = 2",
		"a row written in other form": "UPDATE ledger SET line = line || ' ' WHERE n = 1",
		"a head of other peaks":       "UPDATE ledger_head SET peaks = (SELECT RANDOMBLOB(LENGTH(peaks)) FROM ledger_head)",
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
			st := followed(t, s, 100)
			at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			if _, err := s.Begin(ctx, []ledger.Rule{{Watch: "w", Hash: "h"}}, everything, at); err != nil {
				t.Fatal(err)
			}
			next := st
			if _, err := s.Commit(ctx, "log", st, &next, monitor.Batch{SetGaps: []monitor.Gap{{Range: monitor.Range{From: 7, To: 8}, Reason: "entry-withheld"}}}); err != nil {
				t.Fatal(err)
			}
			poll(t, s, at, nil)
			if err := errors.Join(s.SealSpans(ctx, at.Add(time.Minute)), s.End(ctx, at.Add(time.Minute))); err != nil {
				t.Fatal(err)
			}
			id, chain, err := s.VerifyLedger(ctx)
			if err != nil || id == "" || chain.Size() < 6 {
				t.Fatalf("%q, %d rows, %v", id, chain.Size(), err)
			}
			known := ledger.Head{Size: chain.Size(), Root: checkpoint.HexHash(chain.Root())}
			if _, err := s.db.Exec(change); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.VerifyLedger(ctx, known); !errors.Is(err, ledger.ErrTampered) {
				t.Errorf("not noticed: %v", err)
			}
		})
	}
}

// TestRewrittenLedger: who writes all of it anew is found out by a head that was kept.
func TestRewrittenLedger(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	other := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	var known ledger.Head
	for i, s := range []*Store{s, other} {
		for range 5 + i {
			if _, err := s.Begin(ctx, nil, everything, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		_, chain, err := s.VerifyLedger(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			known = ledger.Head{Size: chain.Size(), Root: checkpoint.HexHash(chain.Root())}
		}
	}
	if _, _, err := s.VerifyLedger(ctx, known); err != nil {
		t.Error(err)
	}
	if _, _, err := other.VerifyLedger(ctx, known); !errors.Is(err, ledger.ErrTampered) {
		t.Errorf("%v", err)
	}
	// A proof of each row under the head, by the same functions as for any log.
	_, chain, _ := other.VerifyLedger(ctx)
	for n, r := range rows(t, other) {
		line, _ := r.Print()
		path, err := other.LedgerPath(ctx, uint64(n), chain.Size())
		if err != nil {
			t.Fatal(err)
		}
		f := checkpoint.Frontier{}
		if err := other.EachLedgerRow(ctx, 0, chain.Size(), func(line []byte) error { f = f.Append(checkpoint.LeafHash(line)); return nil }); err != nil || f.Root() != chain.Root() {
			t.Fatal("another root")
		}
		if len(path) == 0 || checkpoint.LeafHash(line) == (checkpoint.Hash{}) {
			t.Errorf("row %d: no path", n)
		}
	}
	if _, err := other.LedgerPath(ctx, chain.Size(), chain.Size()); err == nil {
		t.Error("a path of a row that is not there")
	}
}

// TestLedgerBesideOthers: processes that write at once leave one chain.
func TestLedgerBesideOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	open(t, path, Options{Create: true}).Close()
	var wg sync.WaitGroup
	for range 4 {
		s := open(t, path, Options{})
		wg.Go(func() {
			for range 10 {
				if _, err := s.Begin(ctx, nil, everything, time.Now()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s := open(t, path, Options{})
	if _, chain, err := s.VerifyLedger(ctx); err != nil || chain.Size() != 41 {
		t.Errorf("%d rows, %v", chain.Size(), err)
	}
}

// TestSpans: a log that is polled has a row an hour; one that is not, a row for the pause
// with its reason; another watchlist ends a span.
func TestSpans(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true, Version: "v1"})
	st := followed(t, s, 100)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s.now = func() time.Time { return at }
	minutes := func(n int, err error) {
		for range n {
			poll(t, s, at, err)
			at = at.Add(time.Minute)
		}
	}
	read := func(from, to uint64, watches ...string) {
		next := st
		if _, err := s.Commit(ctx, "log", st, &next, monitor.Batch{Coverage: []monitor.Range{{From: from, To: to}}, WatchSet: watches, Trust: "root"}); err != nil {
			t.Fatal(err)
		}
		st = next
	}
	read(0, 50, "a")
	minutes(61, nil)
	if list := rows(t, s, ledger.KindSpan); len(list) != 1 {
		t.Fatalf("%d spans in an hour", len(list))
	} else if b := body[ledger.Span](t, list[0]); b.Polls != 61 || b.Failures != 0 || b.Entries() != 50 || b.WatchSet != setHash([]string{"a"}) || b.TrustRoot != "root" || b.Version != "v1" || b.Head.Size != 100 || list[0].Log != "log.example" {
		t.Errorf("%+v", b)
	}
	read(50, 60, "a")
	read(60, 70, "b")
	list := rows(t, s, ledger.KindSpan)
	if b := body[ledger.Span](t, list[len(list)-1]); len(list) != 2 || b.Entries() != 10 || b.WatchSet != setHash([]string{"a"}) {
		t.Errorf("%d spans, the last %+v", len(list), b)
	}
	minutes(5, nil)
	last := at.Add(-time.Minute)
	minutes(30, errors.New("503"))
	minutes(1, nil)
	pauses := rows(t, s, ledger.KindPause)
	if len(pauses) != 1 {
		t.Fatalf("%d pauses", len(pauses))
	}
	if p := body[ledger.Pause](t, pauses[0]); p.Reason != ledger.PauseUnreachable || p.Failures != 30 || p.Error != "503" || !p.Since.Equal(last) || !p.Until.Equal(at.Add(-time.Minute)) {
		t.Errorf("%+v", p)
	}
	// Ten minutes are none.
	minutes(10, errors.New("503"))
	minutes(1, nil)
	if n := len(rows(t, s, ledger.KindPause)); n != 1 {
		t.Errorf("%d pauses", n)
	}
	// The program stops, and is started an hour later.
	if err := errors.Join(s.SealSpans(ctx, at), s.End(ctx, at)); err != nil {
		t.Fatal(err)
	}
	at = at.Add(time.Hour)
	if _, err := s.Begin(ctx, nil, everything, at); err != nil {
		t.Fatal(err)
	}
	minutes(1, nil)
	pauses = rows(t, s, ledger.KindPause)
	if p := body[ledger.Pause](t, pauses[len(pauses)-1]); len(pauses) != 2 || p.Reason != ledger.PauseNotRunning {
		t.Errorf("%d pauses, the last %+v", len(pauses), p)
	}
	// A clock that was set back does not make time that was watched twice.
	at = at.Add(-30 * time.Minute)
	minutes(2, nil)
	if pauses = rows(t, s, ledger.KindPause); len(pauses) != 3 {
		t.Errorf("%d pauses", len(pauses))
	}
	if open, err := s.OpenSpans(ctx, at); err != nil || len(open) != 1 || open[0].Polls != 2 {
		t.Errorf("%+v, %v", open, err)
	}
}

// TestGapRows: a gap is written down when it is new and when it is filled, and not each
// time that it is tried again.
func TestGapRows(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	st := followed(t, s, 100)
	gap := func(from, to uint64) monitor.Gap {
		return monitor.Gap{Range: monitor.Range{From: from, To: to}, Reason: "entry-withheld"}
	}
	for _, step := range []struct {
		set, filled []monitor.Gap
		want        string
	}{
		{set: []monitor.Gap{gap(7, 9)}, want: "gap 7 9"},
		{set: []monitor.Gap{gap(7, 9)}, want: "gap 7 9"},
		{set: []monitor.Gap{gap(7, 9)}, filled: []monitor.Gap{gap(7, 9)}, want: "gap 7 9"},
		{set: []monitor.Gap{gap(8, 9)}, filled: []monitor.Gap{gap(7, 9)}, want: "gap 7 9, gap-filled 7 8"},
		{filled: []monitor.Gap{gap(8, 9)}, want: "gap 7 9, gap-filled 7 8, gap-filled 8 9"},
	} {
		next := st
		if _, err := s.Commit(ctx, "log", st, &next, monitor.Batch{SetGaps: step.set, FilledGaps: step.filled}); err != nil {
			t.Fatal(err)
		}
		st = next
		var got []string
		for _, r := range rows(t, s, ledger.KindGap, ledger.KindFilled) {
			b := body[ledger.Gap](t, r)
			got = append(got, fmt.Sprint(r.Kind, " ", b.From, " ", b.To))
		}
		if text := strings.Join(got, ", "); text != step.want {
			t.Errorf("%s, want %s", text, step.want)
		}
	}
}

// TestFailedBatchLeavesNoRow: what did not happen is not in the ledger, and what did
// happen is, though nobody was told.
func TestFailedBatchLeavesNoRow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := open(t, path, Options{Create: true})
	st := followed(t, s, 100)
	_, before, _ := s.VerifyLedger(ctx)
	s.Close()
	full := open(t, path, Options{pragmas: "&_pragma=max_page_count(70)"})
	next := st
	next.Halted = "i-1"
	b := batchOf(500)
	if _, err := full.Commit(ctx, "log", st, &next, b); err == nil {
		t.Fatal("a full disk took it")
	}
	full.Close()
	s = open(t, path, Options{})
	if _, after, err := s.VerifyLedger(ctx); err != nil || after.Root() != before.Root() {
		t.Errorf("%d rows before, %d after: %v", before.Size(), after.Size(), err)
	}
	if _, err := s.Commit(ctx, "log", st, &next, b); err != nil {
		t.Fatal(err)
	}
	s.Close() // persisted, and the caller died
	s = open(t, path, Options{})
	if list := rows(t, s, ledger.KindHalted); len(list) != 1 || body[ledger.Halt](t, list[0]).Incident != "i-1" {
		t.Errorf("%v", list)
	}
	if _, err := s.Commit(ctx, "log", st, &next, b); !errors.Is(err, monitor.ErrConflict) {
		t.Errorf("%v", err)
	}
	if list := rows(t, s, ledger.KindHalted); len(list) != 1 {
		t.Errorf("repeated: %v", list)
	}
}

// TestRestoredState: an older copy of the state is noticed by the mark beside it, and one
// that goes on is not taken for it.
func TestRestoredState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	begin := func(want uint64) {
		t.Helper()
		s := open(t, path, Options{Create: true})
		lost, err := s.Begin(ctx, nil, everything, time.Now())
		if err != nil || lost.Lost.Size != want {
			t.Fatalf("lost %+v, %v; want %d", lost, err, want)
		}
		if _, err := s.SignLedger(ctx, time.Now(), unsigned, anybody); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	begin(0)
	copied, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin(0)
	begin(0)
	if err := os.WriteFile(path, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	// Nobody but who follows logs can cover that up.
	restored := open(t, path, Options{})
	if _, err := restored.SignLedger(ctx, time.Now(), unsigned, anybody); !errors.Is(err, ErrOlderCopy) {
		t.Errorf("%v", err)
	}
	restored.Close()
	begin(4)
	begin(0) // it is told once
	s := open(t, path, Options{})
	if list := rows(t, s, ledger.KindRestored); len(list) != 1 || body[ledger.Restored](t, list[0]).Kept != 2 {
		t.Errorf("%v", list)
	}
	s.Close()
	// A new file under an old mark is noticed too, and a mark that cannot be read is said.
	for _, suffix := range []string{"", "-wal", "-shm"} {
		os.Remove(path + suffix)
	}
	begin(5)
	if err := os.WriteFile(path+markSuffix, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, Options{})
	if _, err := s.Begin(ctx, nil, everything, time.Now()); !errors.Is(err, ErrMark) {
		t.Errorf("%v", err)
	}
}

// TestForget: what is old is deleted by its class, with a tombstone; what somebody still
// needs is not, and the audit trail stays whole.
func TestForget(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	old, now := time.Now().AddDate(0, 0, -100), time.Now()
	var b monitor.Batch
	add := func(id string, v policy.Verdict, state string, at time.Time) {
		b.Findings = append(b.Findings, monitor.Finding{ID: id, Watch: "w", Verdict: v, State: state, SeenAt: at, EventTime: at, Leaf: []byte("x"), SignedNote: "note", Index: uint64(len(b.Findings))})
	}
	add("f-expected", policy.Expected, monitor.StateClosed, old)
	add("f-expected-new", policy.Expected, monitor.StateClosed, now)
	add("f-resolved", policy.Unexpected, monitor.StateOpen, old)
	add("f-open", policy.Unexpected, monitor.StateOpen, old)
	add("f-last", policy.Unexpected, monitor.StateOpen, now)
	b.Findings = append(b.Findings, unexpected(0, "w", "told", "mail"))
	b.Findings[5].ID, b.Findings[5].SeenAt, b.Findings[5].EventTime = "f-waits", old, old
	b.Open = []monitor.Incident{{ID: "i-old", Kind: monitor.KindStale, State: monitor.StateOpen, OpenedAt: old, Evidence: []monitor.Evidence{{Name: "x", Data: []byte("x")}}}, {ID: "i-open", Kind: monitor.KindStale, State: monitor.StateOpen, OpenedAt: old}}
	if _, err := s.Commit(ctx, "log", monitor.State{}, nil, b); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"f-resolved", "f-waits"} {
		if err := s.Triage(ctx, id, monitor.Change{To: monitor.StateResolved, Resolution: monitor.AsExpected, By: "bob", Note: "n", At: old.Add(time.Hour)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Record(ctx, nil, []monitor.Resolution{{ID: "i-old", At: old.Add(time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	for class, want := range map[string]int{ClassExpected: 1, ClassFindings: 1, ClassIncidents: 1} {
		if n, err := s.Forget(ctx, class, now.AddDate(0, 0, -90), now, 500); err != nil || n != want {
			t.Errorf("%s: %d, %v", class, n, err)
		}
		if n, err := s.Forget(ctx, class, now.AddDate(0, 0, -90), now, 500); err != nil || n != 0 {
			t.Errorf("%s again: %d, %v", class, n, err)
		}
	}
	for id, there := range map[string]bool{"f-expected": false, "f-resolved": false, "f-expected-new": true, "f-open": true, "f-waits": true, "f-last": true} {
		if _, err := s.Finding(ctx, id); errors.Is(err, ErrNotFound) == there {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := s.Incident(ctx, "i-old"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := s.Incident(ctx, "i-open"); err != nil {
		t.Error(err)
	}
	if list := rows(t, s, ledger.KindDeleted); len(list) != 3 {
		t.Errorf("%d tombstones", len(list))
	}
	if _, err := s.VerifyAudit(ctx, monitor.AuditHead{}); err != nil {
		t.Error(err)
	}
	// Without a word of it, what is gone is noticed.
	if _, err := s.db.Exec("DELETE FROM findings WHERE id = 'f-waits'"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.VerifyAudit(ctx, monitor.AuditHead{}); !errors.Is(err, ErrTampered) {
		t.Errorf("%v", err)
	}
	if _, err := s.Forget(ctx, "everything", now, now, 1); err == nil {
		t.Error("an unknown class")
	}
}

// TestSlowPolls: a log that is asked seldom, by its schedule or since it has ended, was
// watched all the same.
func TestSlowPolls(t *testing.T) {
	for name, tc := range map[string]struct {
		every, apart time.Duration
		frozen       string
		pauses       int
	}{
		"hourly":           {every: time.Hour, apart: time.Hour},
		"hourly, late":     {every: time.Hour, apart: 4 * time.Hour, pauses: 3},
		"ended":            {every: time.Minute, apart: 24*time.Hour + 144*time.Minute, frozen: "note"},
		"ended, not asked": {every: time.Minute, apart: 30 * time.Hour, frozen: "note", pauses: 3},
	} {
		s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
		st := followed(t, s, 10)
		next := st
		next.Frozen = tc.frozen
		if _, err := s.Commit(ctx, "log", st, &next, monitor.Batch{}); err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for range 4 {
			if _, err := s.RecordPoll(ctx, "log", monitor.Poll{At: at, Every: tc.every, Origin: "log.example"}); err != nil {
				t.Fatal(err)
			}
			at = at.Add(tc.apart)
		}
		if n := len(rows(t, s, ledger.KindPause)); n != tc.pauses {
			t.Errorf("%s: %d pauses, want %d", name, n, tc.pauses)
		}
	}
}
