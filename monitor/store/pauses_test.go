package store

import (
	"errors"
	"fmt"
	"path/filepath"
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
	if _, err := w.s.Begin(ctx, nil, w.at); err != nil {
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
