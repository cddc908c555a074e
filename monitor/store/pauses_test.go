package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/monitor"
)

// watch is a log in a state file, with a clock of its own.
type watch struct {
	t  *testing.T
	s  *Store
	at time.Time
	st monitor.State
}

func newWatch(t *testing.T) *watch {
	w := &watch{t: t, s: open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true}), at: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	w.s.now = func() time.Time { return w.at }
	w.start()
	return w
}

// start begins a run of the program.
func (w *watch) start() {
	w.t.Helper()
	if _, err := w.s.Begin(ctx, nil, everything, w.at); err != nil {
		w.t.Fatal(err)
	}
}

// minutes polls once a minute.
func (w *watch) minutes(n int, failure string) {
	w.t.Helper()
	for range n {
		var err error
		if failure != "" {
			err = errors.New(failure)
		}
		poll(w.t, w.s, w.at, err)
		w.at = w.at.Add(time.Minute)
	}
}

// grow makes a tree of another size the head.
func (w *watch) grow(size uint64, change func(*monitor.State), b monitor.Batch) {
	w.t.Helper()
	f := checkpoint.Frontier{}
	for i := range size {
		f = f.Append(checkpoint.LeafHash(fmt.Appendf(nil, "%d", i)))
	}
	next := w.st
	next.Name, next.Origin, next.Head, next.HeadSize, next.HeadPeaks = "log", "log.example", fmt.Sprint("note ", size), size, nil
	for _, p := range f.Peaks() {
		next.HeadPeaks = append(next.HeadPeaks, checkpoint.HexHash(p))
	}
	if change != nil {
		change(&next)
	}
	if _, err := w.s.Commit(ctx, "log", w.st, &next, b); err != nil {
		w.t.Fatal(err)
	}
	w.st = next
}

// told prints the rows about the log, times as minutes since the beginning.
func (w *watch) told() string {
	w.t.Helper()
	var out []string
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	minute := func(at time.Time) int { return int(at.Sub(began).Minutes()) }
	for _, r := range rows(w.t, w.s) {
		switch r.Kind {
		case ledger.KindSpan:
			b := body[ledger.Span](w.t, r)
			out = append(out, fmt.Sprintf("span %d-%d polls %d heads %d-%d read %d", minute(b.Since), minute(b.Until), b.Polls, b.Before.Size, b.Head.Size, b.Entries()))
			var n int
			if err := w.s.db.QueryRow("SELECT COUNT(*) FROM notes WHERE log_id = 'log' AND size = $1 AND root = $2 AND note = $3", b.Head.Size, hexOf(b.Head.Root), fmt.Sprint("note ", b.Head.Size)).Scan(&n); err != nil || n != 1 {
				w.t.Errorf("the note of the head of %s is not kept: %v", out[len(out)-1], err)
			}
		case ledger.KindPause:
			b := body[ledger.Pause](w.t, r)
			out = append(out, fmt.Sprintf("pause %d-%d %s %d", minute(b.Since), minute(b.Until), b.Reason, b.Failures))
		case ledger.KindGap, ledger.KindFilled:
			b := body[ledger.Gap](w.t, r)
			out = append(out, fmt.Sprintf("%s %d-%d %s", r.Kind, b.From, b.To, b.Reason))
		case ledger.KindHalted, ledger.KindResumed, ledger.KindBaseline:
			out = append(out, r.Kind)
		}
	}
	return strings.Join(out, ", ")
}

func (w *watch) want(text string) {
	w.t.Helper()
	if got := w.told(); got != text {
		w.t.Errorf("the ledger says\n%s\nwant\n%s", got, text)
	}
}

func (w *watch) seal() {
	w.t.Helper()
	if err := w.s.SealSpans(ctx, w.at); err != nil {
		w.t.Fatal(err)
	}
}

func readRange(from, to uint64) monitor.Batch {
	return monitor.Batch{Coverage: []monitor.Range{{From: from, To: to}}, WatchSet: []string{"a"}}
}

// TestNeverAnswered: a log that has not answered once is told of from the first attempt on,
// also while it goes on, and whoever only reads knows of no more than the last attempt.
func TestNeverAnswered(t *testing.T) {
	w := newWatch(t)
	w.minutes(30, "no route")
	if open, err := w.s.OpenSpans(ctx, w.at); err != nil || len(open) != 1 || open[0].Name != "log" || len(open[0].Pauses) != 1 || open[0].Pauses[0].Error != "no route" {
		t.Errorf("%+v, %v", open, err)
	}
	w.seal()
	w.want("pause 0-30 unreachable 30")
	w.minutes(10, "no route")
	w.s.run.begun = false // another process looks
	w.seal()
	w.want("pause 0-30 unreachable 30, pause 30-39 unreachable 10")
	w.grow(5, nil, readRange(0, 5))
	w.minutes(2, "")
	w.s.run.begun = true
	w.seal()
	// Since nothing failed behind what was told, what follows is not known to have.
	w.want("pause 0-30 unreachable 30, pause 30-39 unreachable 10, pause 39-40 late 0, span 40-41 polls 2 heads 5-5 read 5")
}

// TestReadsAfterAnOutage: what is read behind one is told behind it, with the head of then,
// also where the watchlist was changed.
func TestReadsAfterAnOutage(t *testing.T) {
	for _, set := range []string{"a", "b"} {
		w := newWatch(t)
		w.grow(5, nil, readRange(0, 5))
		w.minutes(10, "")
		w.minutes(60, "503")
		b := readRange(5, 9)
		b.WatchSet = []string{set}
		w.grow(9, nil, monitor.Batch{})
		w.grow(9, nil, b)
		w.minutes(5, "")
		w.seal()
		w.want("span 0-9 polls 10 heads 5-5 read 5, pause 9-70 unreachable 60, span 70-74 polls 5 heads 5-9 read 4")
	}
	// The log did not grow, and the backlog is read all the same.
	w := newWatch(t)
	w.grow(9, nil, readRange(0, 5))
	w.minutes(10, "")
	w.minutes(60, "503")
	if _, err := w.s.Commit(ctx, "log", w.st, nil, readRange(5, 9)); err != nil {
		t.Fatal(err)
	}
	w.minutes(5, "")
	w.seal()
	w.want("span 0-9 polls 10 heads 9-9 read 5, pause 9-70 unreachable 60, span 70-74 polls 5 heads 9-9 read 4")
}

// TestReasons: an outage, and times in which the program did not run, are told apart.
func TestReasons(t *testing.T) {
	w := newWatch(t)
	w.grow(5, nil, monitor.Batch{})
	w.minutes(10, "")
	w.minutes(20, "503") // 10 to 29
	w.at = w.at.Add(30 * time.Minute)
	w.start() // at 60
	w.minutes(20, "504")
	w.at = w.at.Add(40 * time.Minute)
	w.start() // at 120
	w.minutes(1, "")
	w.seal()
	w.want("span 0-9 polls 10 heads 5-5 read 0, pause 9-29 unreachable 20, pause 29-60 not-running 0, pause 60-79 unreachable 20, pause 79-120 not-running 0, span 120-120 polls 1 heads 5-5 read 0")
	// Started anew at once, it is an outage.
	w.minutes(1, "")
	w.minutes(10, "503")
	w.start()
	w.minutes(10, "503")
	w.minutes(1, "")
	w.seal()
	if got := w.told(); !strings.HasSuffix(got, "pause 121-142 unreachable 20, span 142-142 polls 1 heads 5-5 read 0") {
		t.Error(got)
	}
}

// TestHaltedIsNotWatched: polls of a halted log that succeed show nothing.
func TestHaltedIsNotWatched(t *testing.T) {
	w := newWatch(t)
	w.grow(5, nil, monitor.Batch{})
	w.minutes(10, "")
	w.grow(5, func(st *monitor.State) { st.Halted = "i-1" }, monitor.Batch{})
	w.minutes(100, "")
	if open, err := w.s.OpenSpans(ctx, w.at); err != nil || len(open) != 1 || open[0].Polls != 0 || len(open[0].Pauses) != 1 || open[0].Pauses[0].Reason != ledger.PauseHalted {
		t.Errorf("%+v, %v", open, err)
	}
	w.seal()
	w.want("halted, span 0-10 polls 11 heads 5-5 read 0, pause 10-110 halted 0")
	w.minutes(20, "")
	w.grow(5, func(st *monitor.State) { st.Halted = "" }, monitor.Batch{})
	w.minutes(2, "")
	w.seal()
	w.want("halted, span 0-10 polls 11 heads 5-5 read 0, pause 10-110 halted 0, pause 110-130 halted 0, resumed, span 130-131 polls 2 heads 5-5 read 0")
}

// TestCommitsAreNoPolls: what is read, or verified, while polls fail ends an outage for a moment
// only.
func TestCommitsAreNoPolls(t *testing.T) {
	w := newWatch(t)
	w.grow(9, nil, readRange(0, 1))
	w.minutes(10, "")
	w.minutes(15, "503") // 10 to 24
	w.grow(9, nil, readRange(1, 2))
	w.minutes(12, "503")
	w.minutes(5, "")
	w.seal()
	w.want("span 0-9 polls 10 heads 9-9 read 1, pause 9-25 unreachable 15, span 25-25 polls 0 heads 9-9 read 1, pause 25-37 unreachable 12, span 37-41 polls 5 heads 9-9 read 0")
	// A halted log stays halted, whatever is scanned of it.
	w.grow(9, func(st *monitor.State) { st.Halted = "i-1" }, monitor.Batch{})
	w.minutes(30, "")
	w.grow(9, nil, readRange(2, 3))
	w.minutes(30, "")
	w.grow(9, func(st *monitor.State) { st.Halted = "" }, monitor.Batch{})
	w.minutes(2, "")
	w.seal()
	if got := w.told(); !strings.HasSuffix(got, "halted, span 41-42 polls 1 heads 9-9 read 0, pause 42-72 halted 0, span 72-72 polls 0 heads 9-9 read 1, pause 72-102 halted 0, resumed, span 102-103 polls 2 heads 9-9 read 0") {
		t.Error(got)
	}
}

// TestLongerLimits: an outage is judged by how often the log was asked until then: not by the
// schedule of after it, nor by that of a log that has ended meanwhile.
func TestLongerLimits(t *testing.T) {
	for name, end := range map[string]func(w *watch){
		"ended": func(w *watch) {
			w.grow(9, func(st *monitor.State) { st.Frozen = "note" }, monitor.Batch{})
			w.minutes(1, "")
		},
		"slower": func(w *watch) {
			if _, err := w.s.RecordPoll(ctx, "log", monitor.Poll{At: w.at, Every: 6 * time.Hour, Origin: "log.example"}); err != nil {
				t.Fatal(err)
			}
			w.at = w.at.Add(time.Minute)
		},
	} {
		w := newWatch(t)
		w.grow(9, nil, monitor.Batch{})
		w.minutes(10, "")
		w.minutes(600, "503")
		end(w)
		w.seal()
		if got := w.told(); !strings.Contains(got, "pause 9-610 unreachable 600") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestLongPass: a pass that takes longer than polls may be apart is one in which the log is
// watched, and what it reads is counted where it was read.
func TestLongPass(t *testing.T) {
	w := newWatch(t)
	w.grow(5, nil, readRange(0, 5))
	w.minutes(10, "")
	w.grow(1000, nil, monitor.Batch{})
	for i := range uint64(30) {
		w.grow(1000, func(st *monitor.State) { st.KeyOnly++ }, readRange(5+i, 6+i))
		w.at = w.at.Add(time.Minute)
	}
	w.minutes(1, "")
	w.seal()
	w.want("span 0-40 polls 11 heads 5-1000 read 35")
	// Counters stand with what was read.
	w.minutes(60, "503")
	w.grow(1000, func(st *monitor.State) { st.KeyOnly += 3 }, readRange(40, 44))
	w.minutes(1, "")
	w.seal()
	list := rows(t, w.s, ledger.KindSpan)
	first, last := body[ledger.Span](t, list[0]), body[ledger.Span](t, list[len(list)-1])
	if first.KeyOnly != 30 || last.KeyOnly != 3 || last.Entries() != 4 {
		t.Errorf("%+v %+v", first, last)
	}
}

// TestManyRanges: a log that serves every other entry makes rows, and not one that is too long.
func TestManyRanges(t *testing.T) {
	w := newWatch(t)
	var b monitor.Batch
	b.WatchSet = []string{"a"}
	for i := range uint64(20000) {
		b.Coverage = append(b.Coverage, monitor.Range{From: 1500000000 + 2*i, To: 1500000000 + 2*i + 1})
	}
	w.grow(5, nil, monitor.Batch{})
	w.minutes(1, "")
	w.grow(5, nil, b)
	w.minutes(1, "")
	w.seal()
	n := uint64(0)
	for _, r := range rows(t, w.s, ledger.KindSpan) {
		s := body[ledger.Span](t, r)
		if n += s.Entries(); len(s.Read) > maxRanges {
			t.Errorf("%d ranges in a row", len(s.Read))
		}
	}
	if n != 20000 {
		t.Errorf("%d entries", n)
	}
}

// TestSkippedBacklog: what was to be read later, and is not any more, is missing.
func TestSkippedBacklog(t *testing.T) {
	w := newWatch(t)
	w.grow(100, func(st *monitor.State) { st.Scanned, st.Backlog = 100, []monitor.Range{{From: 0, To: 50}} }, monitor.Batch{})
	w.grow(100, func(st *monitor.State) { st.Backlog = []monitor.Range{{From: 20, To: 50}} }, readRange(0, 20))
	w.want("")
	w.grow(101, func(st *monitor.State) { st.Scanned, st.Backlog = 101, nil }, monitor.Batch{})
	w.want("gap 20-50 skipped")
	// Worked off to its end, nothing is.
	w.grow(101, func(st *monitor.State) { st.Backlog = []monitor.Range{{From: 5, To: 9}} }, monitor.Batch{})
	w.grow(101, func(st *monitor.State) { st.Backlog = nil }, monitor.Batch{Coverage: []monitor.Range{{From: 5, To: 8}}, WatchSet: []string{"a"}, SetGaps: []monitor.Gap{{Range: monitor.Range{From: 8, To: 9}, Reason: "entry-withheld"}}})
	w.want("gap 20-50 skipped, gap 8-9 entry-withheld")
}

// TestClockBackAndForward: a clock that was wrong for a moment takes nothing of the time that
// was watched before.
func TestClockBackAndForward(t *testing.T) {
	w := newWatch(t)
	w.grow(5, nil, monitor.Batch{})
	w.minutes(60, "")
	right := w.at
	w.at = w.at.AddDate(0, 0, -30)
	w.minutes(1, "")
	w.at = right
	w.minutes(2, "")
	w.seal()
	got := w.told()
	if !strings.Contains(got, "pause 59-60 late 0") || strings.Count(got, "pause") != 2 {
		t.Error(got)
	}
}

// TestLeftTree: what was not read of a tree that is left has a row.
func TestLeftTree(t *testing.T) {
	w := newWatch(t)
	w.grow(100, func(st *monitor.State) { st.Scanned, st.Backlog = 80, []monitor.Range{{From: 10, To: 20}} }, readRange(0, 10))
	w.minutes(3, "")
	w.grow(100, func(st *monitor.State) { st.Halted = "i-1" }, monitor.Batch{})
	w.minutes(30, "")
	w.grow(50, func(st *monitor.State) { st.Halted, st.Epoch, st.Scanned, st.Backlog = "", "other", 0, nil }, monitor.Batch{Reset: true})
	w.grow(50, nil, readRange(0, 50))
	w.minutes(3, "")
	w.seal()
	w.want("halted, span 0-3 polls 4 heads 100-100 read 10, pause 3-33 halted 0, resumed, gap 10-20 tree-left, gap 80-100 tree-left, baseline, span 33-35 polls 3 heads 50-50 read 50")
}

// TestGapReasons: a gap whose reason changes is told anew; parts that were read are told as
// they are.
func TestGapReasons(t *testing.T) {
	w := newWatch(t)
	gap := func(from, to uint64, reason string) monitor.Gap {
		return monitor.Gap{Range: monitor.Range{From: from, To: to}, Reason: reason}
	}
	w.grow(100, nil, monitor.Batch{SetGaps: []monitor.Gap{gap(10, 30, "entry-withheld")}})
	w.want("gap 10-30 entry-withheld")
	// The middle was read, one entry is another one than the tree holds.
	w.grow(100, nil, monitor.Batch{FilledGaps: []monitor.Gap{gap(10, 30, "entry-withheld")}, SetGaps: []monitor.Gap{gap(10, 15, "entry-withheld"), gap(29, 30, "entry-mismatch")}})
	w.want("gap 10-30 entry-withheld, gap-filled 15-29 entry-withheld, gap 29-30 entry-mismatch")
	w.grow(100, nil, monitor.Batch{SetGaps: []monitor.Gap{gap(10, 15, "entry-mismatch")}})
	w.want("gap 10-30 entry-withheld, gap-filled 15-29 entry-withheld, gap 29-30 entry-mismatch, gap 10-15 entry-mismatch")
	w.grow(100, nil, monitor.Batch{FilledGaps: []monitor.Gap{gap(10, 15, "entry-mismatch"), gap(29, 30, "entry-mismatch")}})
	w.want("gap 10-30 entry-withheld, gap-filled 15-29 entry-withheld, gap 29-30 entry-mismatch, gap 10-15 entry-mismatch, gap-filled 10-15 entry-mismatch, gap-filled 29-30 entry-mismatch")
}

// TestSpansTellTheTruth: whatever happens, in whatever order, a span claims no time that was
// not watched, all time since the first attempt is told of once, and every entry that was read
// is in one row, not before it was.
func TestSpansTellTheTruth(t *testing.T) {
	seeds := uint64(15)
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 7))
		w := newWatch(t)
		began := w.at
		var successes []time.Time
		type stretch struct{ since, until time.Time }
		var halts []stretch
		reads := map[uint64]time.Time{} // by first index
		var asked time.Time
		size, next := uint64(10), uint64(0)
		halted := false
		grow := func() {
			size += 1 + r.Uint64N(5)
			w.grow(size, nil, monitor.Batch{})
		}
		read := func() {
			n := r.Uint64N(4) + 1
			reads[next] = w.at
			b := readRange(next, next+n)
			if r.IntN(3) == 0 {
				b.WatchSet = []string{fmt.Sprint(r.IntN(2))}
			}
			w.grow(size, nil, b)
			next += n
		}
		for w.at.Sub(began) < 8*time.Hour {
			phase := time.Duration(1+r.IntN(90)) * time.Minute
			end := w.at.Add(phase)
			switch kind := r.IntN(7); {
			case kind == 0: // down
				if w.st.Version == 0 && asked.IsZero() {
					continue
				}
				if r.IntN(2) == 0 {
					w.seal()
				}
				w.at = end
				w.s.run.begun = false
				if r.IntN(3) == 0 {
					w.seal() // a report by another process
				}
				w.start()
			case kind == 1 && w.st.Version > 0 && !halted:
				from := w.at
				w.grow(size, func(st *monitor.State) { st.Halted = "i" }, monitor.Batch{})
				successes = append(successes, from)
				for ; w.at.Before(end); w.at = w.at.Add(time.Minute) {
					poll(t, w.s, w.at, nil)
					if r.IntN(20) == 0 {
						w.seal()
					}
				}
				w.grow(size, func(st *monitor.State) { st.Halted = "" }, monitor.Batch{})
				halts = append(halts, stretch{from, w.at})
			case kind < 4: // outage
				for ; w.at.Before(end); w.at = w.at.Add(time.Minute) {
					if asked.IsZero() {
						asked = w.at
					}
					if r.IntN(10) == 0 && w.st.Version > 0 {
						read()
					}
					poll(t, w.s, w.at, errors.New("503"))
					if r.IntN(30) == 0 {
						w.seal()
					}
				}
			default:
				for ; w.at.Before(end); w.at = w.at.Add(time.Minute) {
					if asked.IsZero() {
						asked = w.at
					}
					if w.st.Version == 0 || r.IntN(3) == 0 {
						grow()
					}
					if r.IntN(2) == 0 {
						read()
					}
					poll(t, w.s, w.at, nil)
					successes = append(successes, w.at)
					if r.IntN(60) == 0 {
						w.seal()
					}
				}
			}
		}
		w.seal()
		var told []stretch
		seen := map[uint64]bool{}
		for _, row := range rows(t, w.s, ledger.KindSpan, ledger.KindPause) {
			if row.Kind == ledger.KindPause {
				p := body[ledger.Pause](t, row)
				told = append(told, stretch{p.Since, p.Until})
				if p.Reason == ledger.PauseNotRunning {
					for _, at := range successes {
						if at.After(p.Since) && at.Before(p.Until) {
							t.Fatalf("seed %d: did not run from %s to %s, and polled at %s", seed, p.Since, p.Until, at)
						}
					}
				}
				continue
			}
			s := body[ledger.Span](t, row)
			told = append(told, stretch{s.Since, s.Until})
			// Within a span no two successes are further apart than the limit.
			last := s.Since
			for _, at := range successes {
				if at.Before(s.Since) || at.After(s.Until) {
					continue
				}
				if at.Sub(last) > pauseAfter {
					t.Fatalf("seed %d: watched from %s to %s, and nothing succeeded from %s to %s", seed, s.Since, s.Until, last, at)
				}
				last = at
			}
			if s.Until.Sub(last) > pauseAfter {
				t.Fatalf("seed %d: watched from %s to %s, and nothing succeeded since %s", seed, s.Since, s.Until, last)
			}
			for _, h := range halts {
				if s.Since.Before(h.until) && h.since.Before(s.Until) {
					t.Fatalf("seed %d: watched from %s to %s, and halted from %s to %s", seed, s.Since, s.Until, h.since, h.until)
				}
			}
			for _, x := range s.Read {
				for i := x.From; i < x.To; i++ {
					if at, first := reads[i]; first {
						if seen[i] || at.Before(s.Since) || at.Sub(s.Until) > pauseAfter {
							t.Fatalf("seed %d: entry %d was read at %s, and stands in a span from %s to %s (again: %v)", seed, i, at, s.Since, s.Until, seen[i])
						}
						seen[i] = true
					}
				}
			}
		}
		if len(seen) != len(reads) {
			t.Fatalf("seed %d: %d reads, %d in rows", seed, len(reads), len(seen))
		}
		slices.SortStableFunc(told, func(a, b stretch) int { return a.since.Compare(b.since) })
		at := asked
		for _, x := range told {
			if x.since.After(at) {
				t.Fatalf("seed %d: nothing is told of %s to %s", seed, at, x.since)
			}
			if x.since.Before(at) && x.until.After(x.since) && x.since.Before(at.Add(-time.Minute)) {
				t.Fatalf("seed %d: %s to %s is told twice\n%s", seed, x.since, at, w.told())
			}
			if x.until.After(at) {
				at = x.until
			}
		}
		if w.at.Sub(at) > pauseAfter {
			t.Fatalf("seed %d: nothing is told since %s, until %s", seed, at, w.at)
		}
		if _, _, err := w.s.VerifyLedger(ctx); err != nil {
			t.Fatal(err)
		}
		w.s.Close()
	}
}
