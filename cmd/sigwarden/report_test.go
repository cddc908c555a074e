package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/attest"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/report"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// direct reads a log without a network, which simulated time has none of.
type direct struct {
	*locallog.Log
	failure error
	without map[uint64]bool // bundles that are not served
}

func (d *direct) Checkpoint(context.Context) ([]byte, error) {
	if d.failure != nil {
		return nil, d.failure
	}
	return d.Log.Checkpoint()
}

func (d *direct) Leaves(_ context.Context, from, to uint64) (out [][]byte, err error) {
	if d.failure != nil {
		return nil, d.failure
	}
	if d.without[from/checkpoint.TileWidth] {
		return nil, fs.ErrNotExist
	}
	for i := from; i < to; i++ {
		leaf, err := d.Entry(i)
		if err != nil {
			return nil, err
		}
		out = append(out, leaf)
	}
	return out, nil
}

func (d *direct) Tile(_ context.Context, level uint, index uint64, width int) ([]byte, error) {
	return d.Log.Tile(level, index, width)
}

// story is a state file with a history, in simulated time.
type story struct {
	t      *testing.T
	dir    string
	log    *direct
	ca     *testca.CA
	setup  *setup
	store  *store.Store
	engine *monitor.Engine
	config string // more of the configuration
}

func newStory(t *testing.T) *story {
	l, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := &story{t: t, dir: t.TempDir(), log: &direct{Log: l}, ca: ca}
	s.sign("https://github.com/somebody/else")
	return s
}

// begin starts the program with a pattern to watch.
func (s *story) begin(pattern string) {
	s.t.Helper()
	config := fmt.Sprintf("state: state.db\nlogs: [{name: main, type: rekor-v2, url: http://127.0.0.1:1, origin: log.example, public_key: log.pem, ca: ca.pem, start: first}]\nwatchlist: [{name: releases, match: [{subject: %q}]}]\nnotify: {channels: [{name: lines, file: {path: lines.jsonl}}]}\n", pattern) + s.config
	for name, text := range map[string]string{"c.yaml": config, "log.pem": s.log.PublicKeyPEM(), "ca.pem": s.ca.ChainPEM()} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	a := &app{getenv: os.Getenv, stdout: new(bytes.Buffer), stderr: new(bytes.Buffer), configPath: filepath.Join(s.dir, "c.yaml")}
	var err error
	if s.setup, err = a.load(); err != nil {
		s.t.Fatal(err)
	}
	if s.store, err = store.Open(s.t.Context(), s.setup.cfg.State, store.Options{Create: true, Version: "test"}); err != nil {
		s.t.Fatal(err)
	}
	authorities, err := entry.NewAuthorities(entry.Authority{Chain: s.ca.Chain()})
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := checkpoint.ParseKey("log.example", s.log.PublicKeyPEM())
	if err != nil {
		s.t.Fatal(err)
	}
	log, err := checkpoint.NewLog("log.example", key)
	if err != nil {
		s.t.Fatal(err)
	}
	der, err := checkpoint.ParseSPKI(s.log.PublicKeyPEM())
	if err != nil {
		s.t.Fatal(err)
	}
	every, _ := cron.ParseStandard("@every 10m")
	s.engine, err = monitor.New(monitor.Options{Store: s.store, Watches: s.setup.list, WatchConfigs: s.setup.watches, IncidentChannels: []string{"lines"}, HealthChannels: []string{"lines"},
		Logs: []monitor.LogConfig{{Name: "main", ID: "log.example", Type: "rekor-v2", Log: log, Source: s.log, Keys: [][]byte{der}, Schedule: every, Authorities: authorities, Start: "first"}}})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.setup.beginLedger(s.t.Context(), s.store, s.engine, slog.New(slog.DiscardHandler)); err != nil {
		s.t.Fatal(err)
	}
}

// end stops it in good order; crash does not.
func (s *story) end() {
	s.setup.endLedger(s.t.Context(), s.store, slog.New(slog.DiscardHandler), false)
	s.crash()
}

func (s *story) crash() {
	if err := s.store.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// watch polls every ten minutes.
func (s *story) watch(d time.Duration) {
	for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(10 * time.Minute) {
		s.engine.Once(s.t.Context(), time.Minute)
	}
}

func (s *story) sign(uri string) {
	s.t.Helper()
	who, err := s.ca.Issue(testca.Identity{URI: uri, Issuer: demoIssuer})
	if err != nil {
		s.t.Fatal(err)
	}
	leaf, err := who.HashedRekord(fmt.Appendf(nil, "artifact %d", s.log.Size()))
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.log.Append(leaf); err != nil {
		s.t.Fatal(err)
	}
}

// copyState copies the state file, which must be closed.
func (s *story) copyState(from, to string) {
	data, err := os.ReadFile(filepath.Join(s.dir, from))
	if err == nil {
		err = os.WriteFile(filepath.Join(s.dir, to), data, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		os.Remove(filepath.Join(s.dir, to+suffix))
	}
}

func (s *story) report(since, until time.Time) *report.Report {
	s.t.Helper()
	r, err := s.setup.report(s.t.Context(), s.store, since, until, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// TestReportNamesEveryGap: an outage of the log, one of the program, a crash, a change of
// the rules, entries that were withheld, and a backup that was put back.
func TestReportNamesEveryGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(t)
		start := time.Now()
		time.Sleep(time.Hour)
		began := time.Now()
		s.begin("https://github.com/acme/*")
		s.watch(3 * time.Hour)
		s.sign("https://github.com/acme/widget")
		s.watch(time.Hour)

		s.log.failure = errors.New("no route to the log")
		outage := time.Now()
		s.watch(2 * time.Hour)
		s.log.failure = nil
		back := time.Now()
		s.watch(time.Hour)

		s.end()
		stopped := time.Now()
		time.Sleep(5 * time.Hour)
		s.sign("https://github.com/acme/while-away")
		s.begin("https://github.com/acme/*")
		again := time.Now()
		s.watch(2 * time.Hour)
		s.crash()
		crashed := time.Now()
		time.Sleep(time.Hour)

		s.begin("https://github.com/acme/w*") // the rule was changed
		changed := time.Now()
		s.watch(2 * time.Hour)
		for range 300 {
			s.sign("https://github.com/somebody/else")
		}
		s.log.without = map[uint64]bool{0: true}
		withheld := time.Now()
		s.watch(time.Hour)
		s.log.without = nil
		served := time.Now()
		s.watch(time.Hour)

		s.end()
		s.copyState("state.db", "backup.db")
		copied := time.Now()
		s.begin("https://github.com/acme/w*")
		s.watch(3 * time.Hour)
		s.end()
		s.copyState("backup.db", "state.db")
		s.begin("https://github.com/acme/w*")
		restored := time.Now()
		s.watch(2 * time.Hour)
		end := time.Now()

		var err error
		r := s.report(start, end)
		near := func(a, b time.Time) bool { return a.Sub(b).Abs() <= 10*time.Minute }
		want := func(kind, reason string, since, until time.Time) {
			t.Helper()
			if !slices.ContainsFunc(r.Gaps, func(g report.NotCovered) bool {
				return g.Kind == kind && strings.HasPrefix(g.Reason, reason) && near(g.Since, since) && near(g.Until, until)
			}) {
				t.Errorf("no gap %s, %s from %s to %s in\n%s", kind, reason, since, until, dump(r.Gaps))
			}
		}
		want(report.KindTime, report.ReasonNotYet, start, began)
		want(report.KindTime, ledger.PauseUnreachable+": ", outage, back)
		want(report.KindTime, ledger.PauseNotRunning, stopped, again)
		want(report.KindTime, ledger.PauseNotRunning, crashed, changed)
		want(report.KindEntries, "entry-withheld", withheld, served)
		want(report.KindTime, ledger.PauseRestored, copied, restored)
		want(report.KindRestored, "the state was an older copy", restored, restored)
		if len(r.Gaps) != 7 {
			t.Errorf("%d gaps:\n%s", len(r.Gaps), dump(r.Gaps))
		}
		if c := r.Coverage.Rules; len(c) != 2 || len(c[0].Added) != 1 || len(c[1].Changed) != 1 || !near(c[1].At, changed) || c[1].Changed[0].To != r.Scope.Watches[0].RuleHash {
			t.Errorf("changes of the rules: %s", dump(c))
		}
		if !slices.ContainsFunc(r.Incidents.List, func(i monitor.Incident) bool { return i.Kind == monitor.KindStateRestored }) {
			t.Error("nobody was told that the state was restored")
		}
		// What was logged while nobody was watching was noticed afterwards.
		l := r.Coverage.Logs[0]
		if r.Findings.Total != 2 || l.Entries != s.log.Size() || len(l.Read) != 1 {
			t.Errorf("%d findings, %d of %d entries: %s", r.Findings.Total, l.Entries, s.log.Size(), dump(l.Read))
		}
		away := time.Hour + 2*time.Hour + 5*time.Hour + time.Hour + restored.Sub(copied)
		if total := end.Sub(start) - away; math.Abs(total.Seconds()-l.Watched) > (40 * time.Minute).Seconds() {
			t.Errorf("watched for %v s, want about %s", l.Watched, total)
		}
		// A part of it, and the time that comes.
		if part := s.report(began, outage.Add(-15*time.Minute)); len(part.Gaps) != 0 || len(part.Coverage.Rules) != 1 || part.Findings.Total != 1 {
			t.Errorf("before the outage: %s, %s", dump(part.Gaps), dump(part.Coverage.Rules))
		}
		time.Sleep(2 * time.Hour)
		s.crash()
		if s.store, err = store.Open(t.Context(), s.setup.cfg.State, store.Options{}); err != nil {
			t.Fatal(err)
		}
		later := s.report(restored, time.Now())
		if n := len(later.Gaps); n == 0 || later.Gaps[n-1].Reason != report.ReasonNothingSince || !near(later.Gaps[n-1].Since, end) {
			t.Errorf("nobody polls any more: %s", dump(later.Gaps))
		}
		if _, _, err := s.store.VerifyLedger(t.Context()); err != nil {
			t.Error(err)
		}
		agreement(t, r)
		s.crash()
	})
}

func dump(v any) string {
	text, _ := json.MarshalIndent(v, "", "  ")
	return string(text)
}

var numbers = regexp.MustCompile(`data-n="([^"]+)"(?: data-v="([^"]+)")?>([^<]*)<`)

// agreement compares every number of the page with the JSON document.
func agreement(t *testing.T, r *report.Report) {
	t.Helper()
	var page, doc bytes.Buffer
	for format, w := range map[string]*bytes.Buffer{"html": &page, "json": &doc} {
		if err := r.Write(w, format); err != nil {
			t.Fatal(err)
		}
	}
	var root any
	if err := json.Unmarshal(doc.Bytes(), &root); err != nil {
		t.Fatal(err)
	}
	found := numbers.FindAllStringSubmatch(page.String(), -1)
	if n := strings.Count(page.String(), "data-n="); n != len(found) || n < 25 {
		t.Errorf("%d numbers on the page, %d of them can be read", n, len(found))
	}
	for _, m := range found {
		text := m[3]
		if m[2] != "" {
			text = m[2]
		}
		v := root
		for step := range strings.SplitSeq(m[1], ".") {
			switch node := v.(type) {
			case map[string]any:
				v = node[step]
			case []any:
				i, _ := strconv.Atoi(step)
				v = node[i]
			}
		}
		got, err := strconv.ParseFloat(text, 64)
		if want, ok := v.(float64); !ok || err != nil || want != got {
			if v == nil && got == 0 {
				continue // left out where it is nothing
			}
			t.Errorf("%s is %q on the page, and %v in the document", m[1], text, v)
		}
	}
	if strings.Contains(page.String(), "<script") || strings.Contains(page.String(), "http") && regexp.MustCompile(`(src|href)="?http`).MatchString(page.String()) {
		t.Error("the page needs something from elsewhere, or a script")
	}
}

// TestScheduledReports: each covers the time since the one before, also where the program
// did not run when it was due; files are signed, and channels are told.
func TestScheduledReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(t)
		s.config = "reports: [{name: daily, schedule: \"CRON_TZ=UTC 0 6 * * *\", formats: [html, json, csv, markdown], directory: out, notify: [lines]}]\n"
		s.begin("https://github.com/acme/*")
		run := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			s.setup.makeReports(ctx, s.store, s.setup.cfg.Reports[0], slog.New(slog.DiscardHandler), func() {})
		}
		run(31 * time.Hour) // to 07:00 of the second day
		s.end()
		time.Sleep(71*time.Hour + 10*time.Minute) // three are missed
		s.begin("https://github.com/acme/*")
		run(25 * time.Hour)
		found, _ := filepath.Glob(filepath.Join(s.dir, "out", "*.json"))
		var ends []string
		var last time.Time
		for _, path := range found {
			if strings.HasSuffix(path, bundleSuffix) {
				continue
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var r report.Report
			if err := json.Unmarshal(data, &r); err != nil {
				t.Fatal(err)
			}
			if !last.IsZero() && !r.Since.Equal(last) {
				t.Errorf("a report begins at %s, the one before ended at %s", r.Since, last)
			}
			last = r.Until
			ends = append(ends, r.Until.Format("02 15:04"))
			key, err := s.setup.signingKey(false)
			if err != nil {
				t.Fatal(err)
			}
			public, _ := publicPEM(key)
			bundle, err := os.ReadFile(path + bundleSuffix)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := attest.Verify(bundle, data, string(public), nil); err != nil {
				t.Error(err)
			}
		}
		if got := strings.Join(ends, ", "); got != "01 06:00, 02 06:00, 05 06:00, 06 06:00" {
			t.Errorf("reports end at %s", got)
		}
		if all, _ := filepath.Glob(filepath.Join(s.dir, "out", "*")); len(all) != 4*4*2 {
			t.Errorf("%d files", len(all))
		}
		due, _, err := s.store.Due(t.Context(), "lines", time.Now().Add(time.Hour), 100, nil)
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		for _, q := range due {
			if q.Event.Type == notify.ReportReady {
				told++
				if !json.Valid(q.Event.Data) || q.Event.Files != nil {
					t.Errorf("%s", q.Event.Data)
				}
			}
		}
		if told != 4 {
			t.Errorf("told of %d reports", told)
		}
		s.crash()
	})
}

// TestReportIsTriedAgain: one that cannot be made is made later, for the period that it was
// due for, and not more and more often.
func TestReportIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(t)
		s.config = "reports: [{name: daily, schedule: \"CRON_TZ=UTC 0 6 * * *\", formats: [json], directory: out}]\n"
		s.begin("https://github.com/acme/*")
		blocked := filepath.Join(s.dir, "out")
		if err := os.WriteFile(blocked, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		run := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			s.setup.makeReports(ctx, s.store, s.setup.cfg.Reports[0], slog.New(slog.NewTextHandler(&log, nil)), func() {})
		}
		run(16 * time.Hour)
		if n := strings.Count(log.String(), "tried again"); n < 10 || n > 20 {
			t.Errorf("tried %d times in ten hours", n)
		}
		if err := os.Remove(blocked); err != nil {
			t.Fatal(err)
		}
		run(2 * time.Hour)
		found, _ := filepath.Glob(filepath.Join(s.dir, "out", "*.json"))
		if len(found) != 2 || filepath.Base(found[0]) != "daily-20000101T060000Z.json" {
			t.Fatalf("%v", found)
		}
		data, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		var r report.Report
		if err := json.Unmarshal(data, &r); err != nil || r.Until.Sub(r.Since) != 24*time.Hour {
			t.Errorf("from %s to %s, %v", r.Since, r.Until, err)
		}
		s.crash()
	})
}

// TestLastDue: the first report has the whole period before.
func TestLastDue(t *testing.T) {
	now := time.Date(2026, 3, 15, 12, 30, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"CRON_TZ=UTC 0 6 * * *":  "2026-03-15T06:00:00Z",
		"CRON_TZ=UTC 0 0 1 * *":  "2026-03-01T00:00:00Z",
		"CRON_TZ=UTC 0 0 1 1 *":  "2026-01-01T00:00:00Z",
		"CRON_TZ=UTC 0 0 29 2 *": "2024-02-29T00:00:00Z",
		"CRON_TZ=UTC * * * * *":  "2026-03-15T12:30:00Z",
		"CRON_TZ=UTC 0 0 30 2 *": "2026-03-15T12:30:00Z",
	} {
		schedule, err := cron.ParseStandard(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := at(lastDue(config.Schedule{Schedule: schedule, Text: text}, now)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// TestAttached: what is too large for a mail is named, and its signature goes with what is
// not.
func TestAttached(t *testing.T) {
	files := []notify.File{{Name: "a.html", Data: make([]byte, 3<<20)}, {Name: "a.html.sigstore.json"}, {Name: "a.json", Data: make([]byte, 9<<20)}, {Name: "a.json.sigstore.json"}, {Name: "a.csv", Data: make([]byte, 1<<20)}, {Name: "a.csv.sigstore.json"}}
	e := attach(notify.Event{}, files)
	var names []string
	for _, f := range e.Files {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, " "); got != "a.html a.html.sigstore.json a.csv a.csv.sigstore.json" || len(e.Fields) != 1 || e.Fields[0].Value != "a.json, 9 MB" {
		t.Errorf("%s, %+v", got, e.Fields)
	}
}

// TestWriteWhole: a file is there as a whole or as it was, whoever writes it at the same time, and nothing else
// is left.
func TestWriteWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "report.json")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				if err := writeWhole(path, bytes.Repeat([]byte{byte('a' + i)}, 10000)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := os.ReadFile(path)
	if err != nil || len(got) != 10000 || strings.Trim(string(got), string(got[:1])) != "" {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(filepath.Join(dir, "folder"), []byte("x")); err == nil {
		t.Error("a folder is in the way, and nobody says so")
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
}
