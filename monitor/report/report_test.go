package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/redact"
	"github.com/sigwarden/sigwarden/watchlist/entry"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// hostile is what a stranger may have written into an entry.
const hostile = "=cmd|'x' <script>alert(1)</script> | ` \" \x1b[2J \u202e mal@evil.example"

// large makes a report of a quarter with n findings.
func large(t testing.TB, n int) *Report {
	t.Helper()
	since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	until := since.AddDate(0, 3, 0)
	reader := NewReader(since, until)
	var chain ledger.Chain
	add := func(at time.Time, kind, log string, body any) {
		r, err := ledger.New(chain.Size(), chain.Last, at, kind, log, body)
		if err != nil {
			t.Fatal(err)
		}
		line, err := r.Print()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := chain.Add(line); err != nil {
			t.Fatal(err)
		}
		if err := reader.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	add(since.Add(-time.Hour), ledger.KindBegin, "", ledger.Begin{ID: "00"})
	add(since.Add(-time.Hour), ledger.KindStart, "", ledger.Start{Version: "v"})
	size := uint64(0)
	for at := since.Add(-time.Hour); at.Before(until); at = at.Add(time.Hour) {
		for _, log := range []string{"log2025-1.rekor.sigstore.dev", "rekor.sigstore.dev - 1193050959916656506"} {
			grown := size + 1000 + uint64(at.Hour())*50
			add(at.Add(time.Hour), ledger.KindSpan, log, ledger.Span{Name: log, Since: at, Until: at.Add(time.Hour), Polls: 60, Read: []ledger.Range{{From: size, To: grown}}, Head: ledger.Head{Size: grown, Root: checkpoint.HexHash{1, 2, 3}}, LagMax: uint64(at.Day()) * 10, KeyOnly: 1, WatchSet: "w", TrustRoot: "t", Version: "v"})
		}
		size += 1000 + uint64(at.Hour())*50
	}
	add(until, ledger.KindPause, "log2025-1.rekor.sigstore.dev", ledger.Pause{Since: since.AddDate(0, 1, 3), Until: since.AddDate(0, 1, 4), Reason: ledger.PauseUnreachable, Error: "503 " + hostile, Failures: 1440})
	b := New(since, until, until, "v1.2.3", nil)
	b.Watch("releases", "sha256:00", "critical")
	b.Warning("watchlist[0].match[0].digest: never matches")
	verdicts := policy.Verdicts()
	for i := range n {
		at := since.Add(until.Sub(since) / time.Duration(n) * time.Duration(i))
		f := monitor.Finding{ID: fmt.Sprintf("f-%d", i), Log: "log2025-1.rekor.sigstore.dev", Index: uint64(i) * 17, Watch: "releases", Verdict: verdicts[min(i%11, 3)], Severity: "critical", Reason: "no expect item fits: runner-environment is self-hosted",
			Identities: []entry.Report{{Subjects: []string{"https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1"}, Issuer: "https://token.actions.githubusercontent.com"}},
			SeenAt:     at, EventTime: at, EventTimeSource: policy.FromLog, State: monitor.StateOpen}
		if i%100 == 0 {
			f.Identities[0].Subjects, f.Reason, f.Note, f.By = []string{hostile}, hostile, hostile, hostile
		}
		b.Finding(&f)
	}
	resolved := since.AddDate(0, 0, 9)
	b.Incident(monitor.Incident{ID: "i-1", Class: monitor.Integrity, Kind: monitor.KindFork, Log: "log", Severity: "critical", State: "resolved", OpenedAt: since.AddDate(0, 0, 7), Resolved: &resolved, Summary: hostile, Details: json.RawMessage("{}")})
	b.Incident(monitor.Incident{ID: "i-0", OpenedAt: since.AddDate(0, 0, -7), Resolved: new(since.AddDate(0, 0, -6))})
	b.Audit(monitor.AuditRow{N: 1, At: since.AddDate(0, 0, 8), Actor: hostile, Action: "resume", Subject: "i-1", Detail: json.RawMessage(`{}`), Hash: "aa"})
	b.Deliveries([]monitor.ChannelStatus{{Name: "mail", Pending: 3}})
	b.Promises([]Promise{{Origin: "log", Size: 5, Root: "aabbccddeeff00", At: since}})
	r, err := b.Finish(reader.Coverage(), Verify{Ledger: "sigwarden-ledger/00", Rows: chain.Size(), Head: "head\n", PublicKey: "-----BEGIN PUBLIC KEY-----\n"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestFormats: all numbers are there, and what strangers wrote means nothing anywhere.
func TestFormats(t *testing.T) {
	r := large(t, 10000)
	if r.Findings.Total != 10000 || len(r.Findings.List) != 10000 || r.Findings.LeftOut != 0 || r.Incidents.Total != 1 || r.Incidents.ByClass["integrity"] != 1 || len(r.Gaps) != 1 {
		t.Errorf("%d findings, %d listed, %d incidents, gaps %+v", r.Findings.Total, len(r.Findings.List), r.Incidents.Total, r.Gaps)
	}
	sum := uint64(0)
	for _, list := range r.Series.Findings {
		for _, n := range list {
			sum += n
		}
	}
	if sum != 10000 || len(r.Series.Entries) > maxBuckets {
		t.Errorf("the chart has %d findings in %d buckets", sum, len(r.Series.Entries))
	}
	if first, last := r.Findings.List[0].Verdict, r.Findings.List[9999].Verdict; first != "malformed" || last != "expected" {
		t.Errorf("the list goes from %s to %s", first, last)
	}
	out := map[string]string{}
	for _, format := range Formats() {
		var b bytes.Buffer
		if err := r.Write(&b, format); err != nil {
			t.Fatal(err)
		}
		out[format] = b.String()
		if dir := os.Getenv("SIGWARDEN_REPORT_DIR"); dir != "" {
			if err := os.WriteFile(filepath.Join(dir, "report"+Suffixes[format]), b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for format, text := range out {
		if format != "json" && strings.ContainsAny(text, "\x1b\u202e") {
			t.Errorf("%s holds control characters", format)
		}
	}
	if strings.Contains(out["html"], "<script") || strings.Contains(out["html"], "ZgotmplZ") {
		t.Error("the page holds a script, or something that was taken out of it")
	}
	// What is shown as code is code, whatever is in it.
	if markdown := regexp.MustCompile("`` .*? ``|` .*? `").ReplaceAllString(out["markdown"], ""); strings.Contains(markdown, "<script") || strings.Contains(markdown, "x' <") || strings.Contains(markdown, "://") {
		t.Error("Markdown holds HTML")
	}
	rows, err := csv.NewReader(strings.NewReader(out["csv"])).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, row := range rows {
		counts[row[0]]++
		for _, c := range row {
			if c != "" && strings.ContainsRune("=+-@", rune(c[0])) {
				t.Fatalf("a spreadsheet would take %q for a formula", c)
			}
		}
	}
	if counts["finding"] != 10000 || counts["not-covered"] != 1 || counts["incident"] != 1 || counts["decision"] != 1 || counts["read"] != 2 || counts["total"] != 10 || rows[1][0] != "total" || rows[11][0] != "note" || rows[12][0] != "not-covered" {
		t.Errorf("CSV has %v", counts)
	}
	if err := r.Write(new(bytes.Buffer), "xml"); err == nil {
		t.Error("an unknown format was written")
	}
}

// TestLeftOut: more findings than fit are counted, and said to be left out; the worst
// are listed.
func TestLeftOut(t *testing.T) {
	r := large(t, 12000)
	worst := r.Findings.ByVerdict["malformed"] + r.Findings.ByVerdict["unexpected"] + r.Findings.ByVerdict["untrusted"]
	listed := 0
	for _, f := range r.Findings.List {
		if f.Verdict != "expected" {
			listed++
		}
	}
	if r.Findings.Total != 12000 || r.Findings.LeftOut != 2000 || len(r.Findings.List) != MaxListed || listed != worst {
		t.Errorf("%d findings, %d left out, %d of the %d worst listed", r.Findings.Total, r.Findings.LeftOut, listed, worst)
	}
	for format, want := range map[string]string{"html": `data-n="findings.left_out">2000`, "markdown": "2000 findings are not listed", "json": `"left_out": 2000`} {
		var b bytes.Buffer
		if err := r.Write(&b, format); err != nil || !strings.Contains(b.String(), want) {
			t.Errorf("%s does not say what was left out (%v)", format, err)
		}
	}
}

// TestRedacted: no address of a person is left, in whatever text it was.
func TestRedacted(t *testing.T) {
	hide, err := redact.New(bytes.Repeat([]byte("k"), redact.MinKey))
	if err != nil {
		t.Fatal(err)
	}
	since, until := time.Unix(0, 0), time.Unix(86400, 0)
	b := New(since, until, until, "v", hide)
	at := time.Unix(100, 0)
	const who = "a@b.example"
	b.Watch(who, "hash", "high")
	b.Finding(&monitor.Finding{ID: "f-1", Watch: who, Verdict: policy.Unexpected, SeenAt: at, State: "open", Reason: "signed by " + who, Note: "asked " + who, By: who, Identities: []entry.Report{{Subjects: []string{who}, Issuer: "https://id.example/" + who}}})
	b.Incident(monitor.Incident{ID: "i-1", OpenedAt: at, Summary: who, Note: who, By: who, Details: json.RawMessage(`{"x": "\t` + who + `"}`)})
	b.Audit(monitor.AuditRow{At: at, Actor: who, Subject: who, Detail: json.RawMessage(`{"note": "\n` + who + `"}`)})
	b.Warning(who)
	b.Promises([]Promise{{Origin: who, Doubt: who}})
	cov := NewReader(since, until).Coverage()
	cov.Logs = []LogCoverage{{Log: who, Pauses: []Pause{{Since: since, Until: until, Reason: "unreachable", Error: "no route to " + who}}}}
	cov.Rules = []RuleChange{{At: at, Rules: ledger.Rules{Added: []ledger.Rule{{Watch: who, Hash: "h"}}}}}
	r, err := b.Finish(cov, Verify{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Series.Step == 0 || len(r.Series.Entries) == 0 || r.Findings.Total != 1 {
		t.Errorf("more was taken out than addresses: %+v", r.Series)
	}
	hash := hide.Text(who)
	for _, format := range Formats() {
		var out bytes.Buffer
		if err := r.Write(&out, format); err != nil || strings.Contains(out.String(), "b.example") || !strings.Contains(out.String(), hash) {
			t.Errorf("%s: %v\n%s", format, err, out.String())
		}
		if other := strings.NewReplacer(hash, "").Replace(out.String()); strings.Contains(other, "redacted:") {
			t.Errorf("%s: one address has several hashes", format)
		}
	}
}

// TestShortened: what is too long to be sent is sent without lists, and says which.
func TestShortened(t *testing.T) {
	since, until := time.Unix(0, 0), time.Unix(86400, 0)
	b := New(since, until, until, "v", nil)
	for i := range 300 {
		b.Finding(&monitor.Finding{ID: fmt.Sprint("f-", i), Verdict: policy.Unexpected, SeenAt: since})
		b.Audit(monitor.AuditRow{N: int64(i), At: since, Action: "ack"})
	}
	cov := NewReader(since, until).Coverage()
	l := LogCoverage{Log: "main", Pauses: make([]Pause, 300)}
	for range 300 {
		l.Segments = append(l.Segments, Segment{})
	}
	cov.Logs = []LogCoverage{l}
	r, err := b.Finish(cov, Verify{})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := r.Shortened(1 << 30)
	if err != nil || strings.Contains(string(whole), "left_out_sections") {
		t.Errorf("%v", err)
	}
	seen := map[int]bool{}
	for max := len(whole); max > 0; max -= 1000 {
		doc, err := r.Shortened(max)
		if err != nil {
			if max > 30000 {
				t.Errorf("%d: %v", max, err)
			}
			break
		}
		var got Report
		if err := json.Unmarshal(doc, &got); err != nil || len(doc) > max || got.Findings.Total != 300 {
			t.Fatalf("%d bytes of %d: %v", len(doc), max, err)
		}
		seen[len(got.LeftOut)] = true
		if (len(got.Findings.List) == 0) != slices.Contains(got.LeftOut, "findings.list") || got.Coverage.segments() == 0 != (slices.Contains(got.LeftOut, "coverage.logs.segments")) {
			t.Errorf("%v is not all that is missing", got.LeftOut)
		}
	}
	if len(seen) < 4 || len(r.Findings.List) != 300 || r.Coverage.segments() != 300 {
		t.Errorf("%v", seen)
	}
}

// TestStrangersText: what entries say is no formula, no link, and not invisible.
func TestStrangersText(t *testing.T) {
	for text, want := range map[string]string{
		"=1": "'=1", "+1": "'+1", "-1": "'-1", "@x": "'@x", " =1": "' =1", "＝1": "'＝1", "a=1": "a=1", "": "", " ": " ", "é": "é",
	} {
		if got := cell(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	for _, r := range "\u061c\u2060\u2064\u00ad\U000e0041\u202e\ufeff" {
		if got := clean("a" + string(r) + "b"); strings.ContainsRune(got, r) {
			t.Errorf("%U is still there", r)
		}
	}
	for text, want := range map[string]string{
		"https://x.example": "` https://x.example `", "WWW.x.example": "` WWW.x.example `", "@team": "` @team `", "a`b@c|d": "`` a`b@c\\|d ``", `a@b\|c`: "` a@b\\ \\|c `", "[x](y)": `\[x\]\(y\)`, "<b>": "&lt;b&gt;",
	} {
		if got := shown(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// TestGone: what was deleted is said beside the totals, also where it was after the period.
func TestGone(t *testing.T) {
	var r rowsOf
	r.add(t, 0, ledger.KindSpan, ledger.Span{Since: minute(0), Until: minute(10), Polls: 1})
	r.add(t, 5, ledger.KindDeleted, ledger.Deleted{Class: "expected", Before: minute(-100), Count: 7})
	r.add(t, 500, ledger.KindDeleted, ledger.Deleted{Class: "findings", Before: minute(5), Count: 3})
	reader := NewReader(minute(0), minute(10))
	for _, line := range r.lines {
		if err := reader.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	made, err := New(minute(0), minute(10), minute(600), "v", nil).Finish(reader.Coverage(), Verify{})
	if err != nil || len(made.Coverage.Deleted) != 2 {
		t.Fatalf("%+v, %v", made.Coverage.Deleted, err)
	}
	for _, format := range []string{"html", "markdown", "csv"} {
		var out bytes.Buffer
		if err := made.Write(&out, format); err != nil || !strings.Contains(out.String(), "3 of class findings from before") || strings.Contains(out.String(), "7 of class expected from before 2026-02-28T22:20:00Z were deleted") && format == "csv" {
			t.Errorf("%s: %v\n%s", format, err, out.String())
		}
	}
}

// TestChangingHost: a tree of Rekor v1 is one log, whatever its server calls itself.
func TestChangingHost(t *testing.T) {
	since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := NewReader(since, since.Add(4*time.Hour))
	var chain ledger.Chain
	for i := range 4 {
		at := since.Add(time.Duration(i) * time.Hour)
		row, err := ledger.New(chain.Size(), chain.Last, at, ledger.KindSpan, fmt.Sprintf("pod-%d - 12", i/2), ledger.Span{Name: "v1/12", Since: at, Until: at.Add(time.Hour), Polls: 60})
		if err != nil {
			t.Fatal(err)
		}
		line, _ := row.Print()
		if _, err := chain.Add(line); err != nil {
			t.Fatal(err)
		}
		if err := r.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	if cov := r.Coverage(); len(cov.Logs) != 1 || len(cov.Logs[0].Pauses) != 0 || cov.Logs[0].Polls != 240 || cov.Logs[0].Origin != "pod-1 - 12" {
		t.Errorf("%+v", cov.Logs)
	}
}
