//go:build unix

package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// TestDoctorReadsStatus: each thing that can be wrong with logs, channels, the trusted root and the disk, with
// what is to be done.
func TestDoctorReadsStatus(t *testing.T) {
	ago := func(d time.Duration) *time.Time { at := time.Now().Add(-d); return &at }
	failed := "connection refused"
	logOf := func(change func(*monitor.LogStatus)) monitor.Status {
		l := monitor.LogStatus{Name: "a", State: "ok", Verified: monitor.VerifiedHead{Size: 7}, Scanned: 7, LastPoll: ago(time.Minute), Every: time.Minute}
		change(&l)
		return monitor.Status{Logs: []monitor.LogStatus{l}}
	}
	channel := func(c monitor.ChannelStatus) monitor.Status {
		c.Name = "chat"
		return monitor.Status{Channels: []monitor.ChannelStatus{c}}
	}
	root := func(r monitor.TrustStatus) monitor.Status {
		r.Source = "tuf.example"
		return monitor.Status{Trust: &r}
	}
	for name, c := range map[string]struct {
		now                    monitor.Status
		what, level, found, do string
		integrity              bool
	}{
		"log in order":             {now: logOf(func(*monitor.LogStatus) {}), what: "following a", level: levelOK, found: "verified to 7, read to 7"},
		"log is halted":            {now: logOf(func(l *monitor.LogStatus) { l.Incident = "i-1" }), what: "following a", level: levelBroken, found: "halted by incident i-1", do: "incidents show i-1", integrity: true},
		"the last poll failed":     {now: logOf(func(l *monitor.LogStatus) { l.Error = &failed }), what: "following a", level: levelWarning, found: failed, do: "the log itself"},
		"the daemon hangs":         {now: logOf(func(l *monitor.LogStatus) { l.LastPoll = ago(time.Hour) }), what: "following a", level: levelBroken, found: "polled last at", do: "start it again"},
		"a log that has ended":     {now: logOf(func(l *monitor.LogStatus) { l.LastPoll, l.State = ago(time.Hour), "retired" }), what: "following a", level: levelOK, found: "retired"},
		"gaps":                     {now: logOf(func(l *monitor.LogStatus) { l.Gaps = make([]monitor.Gap, 2) }), what: "following a", level: levelWarning, found: "2 ranges", do: "sigwarden status"},
		"channel in order":         {now: channel(monitor.ChannelStatus{Pending: 1}), what: "deliveries to chat", level: levelOK, found: "1 wait"},
		"channel fails":            {now: channel(monitor.ChannelStatus{Pending: 3, FailingSince: ago(time.Hour)}), what: "deliveries to chat", level: levelWarning, found: "the oldest is of", do: "notify test chat"},
		"channel fails since now":  {now: channel(monitor.ChannelStatus{Pending: 3, FailingSince: ago(time.Second)}), what: "deliveries to chat", level: levelOK, found: "3 wait"},
		"channel refused for good": {now: channel(monitor.ChannelStatus{Failed: 2}), what: "deliveries to chat", level: levelWarning, found: "2 were refused", do: "delivery-failed"},
		"root is new":              {now: root(monitor.TrustStatus{Refreshed: ago(time.Hour)}), what: "trusted root of tuf.example", level: levelOK, found: "the newest at"},
		"root is old":              {now: root(monitor.TrustStatus{Refreshed: ago(4 * 24 * time.Hour), Failures: 4, Error: &failed}), what: "trusted root of tuf.example", level: levelWarning, found: "4 tries have failed", do: "repository"},
		"there is no root":         {now: root(monitor.TrustStatus{Failures: 1, Error: &failed}), what: "trusted root of tuf.example", level: levelBroken, found: failed, do: "give `trust` a file"},
	} {
		e := &examination{app: &app{}, setup: &setup{}}
		e.status(c.now, true)
		if len(e.list) != 1 || e.integrity != c.integrity {
			t.Errorf("%s: %+v, integrity %v", name, e.list, e.integrity)
			continue
		}
		if got := e.list[0]; got.What != c.what || got.Level != c.level || !strings.Contains(got.Found, c.found) || !strings.Contains(got.Do, c.do) || (got.Do == "") != (c.do == "") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for free, level := range map[uint64]string{diskLow - 1: levelWarning, diskLow: levelOK} {
		e := &examination{}
		e.disk(free, true)
		if len(e.list) != 1 || e.list[0].Level != level || (e.list[0].Do == "") != (level == levelOK) {
			t.Errorf("%d bytes are free: %+v", free, e.list)
		}
	}
}

// TestDoctorFindsWhatWasChanged: a bit that flips within a value leaves a sound database, and a row that somebody
// has edited too.
func TestDoctorFindsWhatWasChanged(t *testing.T) {
	made := t.TempDir()
	l, _ := killLog(t, made, 1500)
	if err := l.WriteDir(filepath.Join(made, "log")); err != nil {
		t.Fatal(err)
	}
	sigwarden := func(dir string, args ...string) (int, string) {
		var out bytes.Buffer
		code := run(context.Background(), append(args, "-c", filepath.Join(dir, "a.yaml")), func(string) string { return "" }, strings.NewReader(""), &out, &out)
		return code, out.String()
	}
	doctor := func(dir string) (int, string) { return sigwarden(dir, "doctor", "--offline") }
	config := fmt.Sprintf(scriptConfig, "a", "file://"+filepath.ToSlash(filepath.Join(made, "log")))
	if err := os.WriteFile(filepath.Join(made, "a.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := sigwarden(made, "run", "--once"); code != exitFindings {
		t.Fatalf("%d: %s", code, out)
	}
	if code, out := sigwarden(made, "findings", "ack", finding(t, made), "--note", "seen"); code != exitOK {
		t.Fatalf("%d: %s", code, out)
	}
	if code, out := doctor(made); code != exitOK || !strings.Contains(out, "it is whole; 3 findings") {
		t.Fatalf("%d: %s", code, out)
	}
	flip := func(value string) string {
		return "substr(" + value + ", 1, 5) || CASE substr(" + value + ", 6, 1) WHEN 'a' THEN 'b' ELSE 'a' END || substr(" + value + ", 7)"
	}
	for name, c := range map[string]struct {
		edit string
		code int
		says string
	}{
		"a leaf":                           {"UPDATE findings SET leaf = CAST(" + flip("leaf") + " AS BLOB) WHERE rowid = 2", exitFailed, "its leaf is not the one"},
		"a proof":                          {"UPDATE findings SET proof = CAST(" + flip("proof") + " AS BLOB) WHERE rowid = 1", exitFailed, "does not lead to the root"},
		"a proof is cut":                   {"UPDATE findings SET proof = substr(proof, 1, 40) WHERE rowid = 1", exitFailed, "40 bytes"},
		"the index of a finding":           {`UPDATE findings SET document = replace(document, '"index":499', '"index":498')`, exitFailed, "does not lead to the root"},
		"the checkpoint of some":           {"UPDATE notes SET note = replace(note, char(10) || '1500' || char(10), char(10) || '1501' || char(10))", exitFailed, "finding"},
		"the size of a head":               {`UPDATE logs SET state = replace(state, '"head_size":1500', '"head_size":1501')`, exitFailed, "size 1500, and 1501 is noted"},
		"how much was read":                {`UPDATE logs SET state = replace(state, '"scanned":1500', '"scanned":1499')`, exitFailed, "what was read"},
		"hashes of what was read":          {`UPDATE logs SET state = substr(state, 1, instr(state, '"peaks":["') + 9) || CASE substr(state, instr(state, '"peaks":["') + 10, 1) WHEN 'e' THEN 'f' ELSE 'e' END || substr(state, instr(state, '"peaks":["') + 11)`, exitFailed, "do not fold to the root"},
		"what is covered":                  {"UPDATE coverage SET to_idx = to_idx + 1024", exitFailed, "its tree has 1500 entries"},
		"a leaf, and a line of the ledger": {"UPDATE findings SET leaf = zeroblob(8) WHERE rowid = 2; UPDATE ledger SET line = replace(line, 'releases', 'releasez')", exitIntegrity, "its leaf is not the one"},
		"a line of the ledger":             {"UPDATE ledger SET line = replace(line, 'releases', 'releasez')", exitIntegrity, "somebody has written to the state file"},
		"a decision that is gone":          {"UPDATE audit_head SET n = n + 1", exitIntegrity, "somebody has written to the state file"},
	} {
		dir := t.TempDir()
		copyDir(t, made, dir)
		db, err := sql.Open("sqlite", filepath.Join(dir, "a.db"))
		if err != nil {
			t.Fatal(err)
		}
		done, err := db.Exec(c.edit)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 {
			t.Fatalf("%s: %d rows, %v", name, n, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		st, err := store.Open(context.Background(), filepath.Join(dir, "a.db"), store.Options{})
		if err == nil {
			err = st.Check(context.Background())
			st.Close()
		}
		if err != nil {
			t.Errorf("%s: the database itself is not sound: %v", name, err)
		}
		if code, out := doctor(dir); code != c.code || !strings.Contains(out, c.says) || !strings.Contains(out, "what to do: ") {
			t.Errorf("%s: status %d, want %d and %q:\n%s", name, code, c.code, c.says, out)
		}
	}
}
