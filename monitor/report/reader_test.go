package report

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
)

var began = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func minute(n int) time.Time { return began.Add(time.Duration(n) * time.Minute) }

// rowsOf makes a ledger of rows, each at a minute.
type rowsOf struct {
	chain ledger.Chain
	lines [][]byte
}

func (r *rowsOf) add(t *testing.T, at int, kind string, body any) *rowsOf {
	t.Helper()
	row, err := ledger.New(r.chain.Size(), r.chain.Last, minute(at), kind, "log.example", body)
	if err != nil {
		t.Fatal(err)
	}
	line, err := row.Print()
	if err == nil {
		_, err = r.chain.Add(line)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.lines = append(r.lines, line)
	return r
}

func (r *rowsOf) read(t *testing.T, since, until int) LogCoverage {
	t.Helper()
	reader := NewReader(minute(since), minute(until))
	for _, line := range r.lines {
		if err := reader.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	cov := reader.Coverage()
	if len(cov.Logs) != 1 {
		t.Fatalf("%d logs", len(cov.Logs))
	}
	return cov.Logs[0]
}

func ranged(from, to uint64) ledger.Range { return ledger.Range{From: from, To: to} }

func gapTexts(l LogCoverage) string {
	var out []string
	for _, g := range l.Gaps {
		out = append(out, fmt.Sprintf("%d-%d %s %s", g.From, g.To, g.Reason, g.End()))
	}
	return strings.Join(out, ", ")
}

// TestGapsInParts: what is read of a gap ends that part of it; another reason is no other
// gap.
func TestGapsInParts(t *testing.T) {
	var r rowsOf
	r.add(t, 0, ledger.KindSpan, ledger.Span{Since: minute(0), Until: minute(0), Polls: 1})
	r.add(t, 1, ledger.KindGap, ledger.Gap{Range: ranged(10, 30), Reason: "entry-withheld"})
	r.add(t, 5, ledger.KindFilled, ledger.Gap{Range: ranged(15, 25), Reason: "entry-withheld"})
	r.add(t, 6, ledger.KindGap, ledger.Gap{Range: ranged(8, 12), Reason: "entry-mismatch"})
	l := r.read(t, 0, 10)
	if got := gapTexts(l); got != "8-10 entry-mismatch missing still, 10-12 entry-mismatch missing still, 12-15 entry-withheld missing still, 15-25 entry-withheld read after all 2026-03-01T00:05:00Z, 25-30 entry-withheld missing still" {
		t.Error(got)
	}
	for _, g := range l.Gaps {
		if want := map[bool]time.Time{true: minute(6), false: minute(1)}[g.From == 8]; !g.Since.Equal(want) {
			t.Errorf("%+v", g)
		}
	}
	r.add(t, 7, ledger.KindFilled, ledger.Gap{Range: ranged(8, 30), Reason: "entry-withheld"})
	if l = r.read(t, 8, 10); len(l.Gaps) != 0 {
		t.Error(gapTexts(l))
	}
	if l = r.read(t, 6, 10); len(l.Gaps) != 4 {
		t.Error(gapTexts(l))
	}
}

// TestFormerTree: indexes of two trees are not mixed, and what was missing in one that was
// left is missing in no later period.
func TestFormerTree(t *testing.T) {
	head := func(size uint64) ledger.Head {
		return ledger.Head{Size: size, Root: checkpoint.HexHash{byte(size)}}
	}
	var r rowsOf
	r.add(t, 20, ledger.KindSpan, ledger.Span{Since: minute(0), Until: minute(20), Polls: 20, Read: []ledger.Range{ranged(0, 80)}, Head: head(100)})
	r.add(t, 21, ledger.KindHalted, ledger.Halt{Incident: "i-1"})
	r.add(t, 30, ledger.KindPause, ledger.Pause{Since: minute(20), Until: minute(30), Reason: ledger.PauseHalted})
	r.add(t, 30, ledger.KindResumed, ledger.Halt{Incident: "i-1"})
	r.add(t, 30, ledger.KindGap, ledger.Gap{Range: ranged(80, 100), Reason: ledger.GapLeft})
	r.add(t, 30, ledger.KindBaseline, ledger.Baseline{Before: head(100), Head: head(50)})
	r.add(t, 60, ledger.KindSpan, ledger.Span{Since: minute(30), Until: minute(60), Polls: 30, Read: []ledger.Range{ranged(0, 50)}, Head: head(50)})
	l := r.read(t, 0, 60)
	if len(l.Former) != 1 || Ranges(l.Former[0].Read) != "0 to 79" || l.Former[0].Last != head(100) || Ranges(l.Read) != "0 to 49" || l.Entries != 130 {
		t.Errorf("%+v", l)
	}
	if got := gapTexts(l); got != "80-100 tree-left never read: the log goes on in another tree since 2026-03-01T00:30:00Z" {
		t.Error(got)
	}
	if l.Watched != (50 * time.Minute).Seconds() {
		t.Errorf("watched %v s", l.Watched)
	}
	later := r.read(t, 31, 60)
	if len(later.Former)+len(later.Gaps)+len(later.Pauses) != 0 || later.Entries != 50 {
		t.Errorf("%+v", later)
	}
	// Who halts is told once.
	r2, err := New(minute(0), minute(60), minute(60), "v", nil).Finish(Coverage{Since: minute(0), Until: minute(60), Logs: []LogCoverage{l}}, Verify{})
	if err != nil || len(r2.Gaps) != 2 || r2.Gaps[0].Kind != KindHalted || r2.Gaps[1].Kind != KindEntries {
		t.Errorf("%+v", r2.Gaps)
	}
}

// TestExpectedLog: a log that is to be followed, and of which nothing is known, is not left
// out; a pause that was written down in parts is one.
func TestExpectedLog(t *testing.T) {
	reader := NewReader(minute(0), minute(60))
	reader.Open("log.example", ledger.Span{Name: "asked"}, []ledger.Pause{{Since: minute(10), Until: minute(20), Reason: ledger.PauseUnreachable, Failures: 3, Error: "no route"}, {Since: minute(20), Until: minute(60), Reason: ledger.PauseUnreachable, Failures: 4}})
	reader.Expect("asked", "log.example")
	reader.Expect("never", "never.example")
	logs := reader.Coverage().Logs
	if len(logs) != 2 || logs[0].Log != "asked" || logs[1].Log != "never" {
		t.Fatalf("%+v", logs)
	}
	if p := logs[0].Pauses; len(p) != 2 || p[0].Reason != ReasonNotYet || !p[0].Until.Equal(minute(10)) || p[1].Failures != 7 || p[1].Error != "no route" || !p[1].Until.Equal(minute(60)) || logs[0].Failures != 7 {
		t.Errorf("%+v", logs[0])
	}
	if p := logs[1].Pauses; len(p) != 1 || p[0].Reason != ReasonNotYet || logs[1].Watched != 0 {
		t.Errorf("%+v", logs[1])
	}
}
