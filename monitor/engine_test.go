package monitor_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist"
)

func TestScanFindsOurs(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 300)
	e := r.sign(r.log, expectedEvent())
	u := r.sign(r.log, unexpectedEvent())
	forged, err := (*testca.CA)(nil).Issue(expectedEvent())
	if err != nil {
		t.Fatal(err)
	}
	x := r.append(r.log, forged)
	m := r.sign(r.log, testca.Identity{Email: "who@ACME.example", Issuer: "https://accounts.google.com"})
	r.fill(r.log, 500)
	out := r.mustPass()
	if !out.Begun || out.From != 0 || out.Findings != 4 || out.Notifying != 2 || out.Scanned != 804 || out.Head != 804 {
		t.Errorf("%+v", out)
	}
	want := fmt.Sprintf("%d:expected %d:unexpected %d:untrusted %d:unexpected", e, u, x, m)
	if got := r.verdicts(); got != want {
		t.Errorf("findings %s, want %s", got, want)
	}
	if got := r.coverage(); got != "[0,804)" {
		t.Errorf("coverage %s", got)
	}
	r.audit()
	// Nothing new: nothing happens. More: only that is read.
	if out := r.mustPass(); out.Findings != 0 || out.Begun {
		t.Errorf("second pass: %+v", out)
	}
	r.fill(r.log, 10)
	r.sign(r.log, unexpectedEvent())
	r.restart()
	if out := r.mustPass(); out.Findings != 1 || out.Notifying != 1 {
		t.Errorf("third pass: %+v", out)
	}
	if got := r.coverage(); got != "[0,815)" {
		t.Errorf("coverage %s", got)
	}
	r.audit()
	r.wantIncidents("")
	s := r.state()
	if s.Entries != 815 || s.KeyOnly != 0 || s.Undecodable != 0 {
		t.Errorf("counters: %+v", s)
	}
	f := r.findings()[1]
	if f.Reason != "no expect item fits: runner-environment is self-hosted" || f.State != "open" || f.Severity != "critical" || f.SCT != "missing" {
		t.Errorf("finding: %+v", f)
	}
}

func TestStart(t *testing.T) {
	for start, want := range map[string]string{"latest": "", "": "", "first": "[0,700)", "300": "[300,700)", "256": "[256,700)", "700": ""} {
		r := newRig(t)
		r.cfg.Start = start
		r.restart()
		r.fill(r.log, 700)
		r.mustPass()
		if got := r.coverage(); got != want {
			t.Errorf("start %q: coverage %s, want %s", start, got, want)
		}
		u := r.sign(r.log, unexpectedEvent())
		r.fill(r.log, 299)
		r.mustPass()
		if got := r.verdicts(); got != fmt.Sprintf("%d:unexpected", u) {
			t.Errorf("start %q: %s", start, got)
		}
		r.audit()
		// An honest replica that lags behind is no alarm, wherever we began.
		for _, size := range []uint64{999, 750, 699, 512, 100, 1, 0} {
			r.server.Set(locallog.Faults{Size: &size, NoTiles: size%2 == 0})
			if out := r.mustPass(); !out.Older {
				t.Errorf("start %q, older checkpoint of %d: %+v", start, size, out)
			}
		}
		r.wantIncidents("")
	}
	r := newRig(t)
	r.cfg.Start = "701"
	r.restart()
	r.fill(r.log, 700)
	if out := r.once(); out.Err == nil || !strings.Contains(out.Err.Error(), "beyond") {
		t.Errorf("start beyond the log: %v", out.Err)
	}
}

func TestEmptyLog(t *testing.T) {
	r := newRig(t)
	r.mustPass()
	u := r.sign(r.log, unexpectedEvent())
	r.mustPass()
	if got := r.verdicts(); got != fmt.Sprintf("%d:unexpected", u) || r.coverage() != "[0,1)" {
		t.Errorf("%s, %s", got, r.coverage())
	}
	r.audit()
}

func TestConsistencyOnly(t *testing.T) {
	r := newRig(t)
	r.cfg.ConsistencyOnly = true
	r.restart()
	r.fill(r.log, 300)
	r.mustPass()
	r.sign(r.log, unexpectedEvent())
	r.fill(r.log, 900)
	r.mustPass()
	if r.verdicts() != "" || r.coverage() != "" {
		t.Errorf("entries were read: %s, %s", r.verdicts(), r.coverage())
	}
	r.audit()
	fork, _ := r.log.Fork(700)
	r.sign(fork, unexpectedEvent())
	r.fill(fork, 900)
	r.server.Show(fork, nil)
	r.mustPass()
	r.wantIncidents("fork:integrity:open")
}

// TestForks shows forks of every size, while caught up.
func TestForks(t *testing.T) {
	for name, size := range map[string]int{"larger": 900, "equal": 700, "smaller": 650} {
		for _, ourTiles := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s our tiles %v", name, ourTiles), func(t *testing.T) {
				r := newRig(t)
				r.fill(r.log, 700)
				r.mustPass()
				fork, err := r.log.Fork(600)
				if err != nil {
					t.Fatal(err)
				}
				r.sign(fork, unexpectedEvent())
				r.fill(fork, size-601)
				if ourTiles {
					r.server.Show(fork, r.log)
				} else {
					r.server.Show(fork, nil)
				}
				out := r.once()
				if name == "larger" && ourTiles {
					// Nothing shows that the log lies; it only proves nothing.
					for range 2 {
						if out.Err == nil {
							t.Fatal("an unproven checkpoint passed")
						}
						out = r.once()
					}
					if got := r.incidents(); got != "" {
						t.Fatalf("incidents %q: tiles that are not served prove nothing", got)
					}
					return
				}
				if out.Err != nil || out.Halted == "" {
					t.Fatalf("%+v", out)
				}
				r.wantIncidents("fork:integrity:open")
				r.audit()
				verifyFork(t, r)
				// It stays halted, and what the fork signs is collected.
				r.fill(fork, 300)
				r.mustPass()
				if s := r.state(); s.HeadSize != 700 || s.Halted == "" {
					t.Errorf("head moved to %d past a contradiction", s.HeadSize)
				}
				inc, _ := r.store.Incidents(context.Background(), store.Filter{})
				full, _ := r.store.Incident(context.Background(), inc[0].ID)
				if len(full.Evidence) != 4 {
					t.Errorf("%d pieces of evidence, want 4", len(full.Evidence))
				}
				if r.verdicts() != "" {
					t.Errorf("an entry of the fork was matched: %s", r.verdicts())
				}
			})
		}
	}
}

func verifyFork(t *testing.T, r *rig) {
	t.Helper()
	list, err := r.store.Incidents(context.Background(), store.Filter{Kind: "fork"})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d forks, %v", len(list), err)
	}
	inc, err := r.store.Incident(context.Background(), list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	d, err := checkpoint.ParseDivergence(inc.Evidence[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Verify(r.cfg.Log); err != nil {
		t.Errorf("evidence: %v", err)
	}
	other, _ := locallog.New(r.log.Origin())
	key, _ := checkpoint.ParseKey(other.Origin(), other.PublicKeyPEM())
	stranger, _ := checkpoint.NewLog(other.Origin(), key)
	if d.Verify(stranger) == nil {
		t.Error("evidence verifies with another key")
	}
}

// TestForkWhileCatchingUp: the head is ahead of what was read.
func TestForkWhileCatchingUp(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 300)
	r.mustPass()
	r.fill(r.log, 1700)
	r.server.Set(locallog.Faults{Missing: map[uint64]bool{}, Status: 0})
	// Bundles cannot be read, so that only the head moves.
	r.opts.CommitEvery = 1
	r.cfg.Source = noLeaves{r.source()}
	r.restart()
	if out := r.once(); out.Err == nil || out.Head != 2000 || out.Scanned != 300 {
		t.Fatalf("%+v", out)
	}
	fork, _ := r.log.Fork(1000)
	r.sign(fork, unexpectedEvent())
	r.fill(fork, 700)
	r.server.Show(fork, nil)
	r.once()
	r.wantIncidents("fork:integrity:open")
	verifyFork(t, r)
	r.audit()
}

type noLeaves struct{ monitor.TileLog }

func (noLeaves) Leaves(context.Context, uint64, uint64) ([][]byte, error) {
	return nil, errors.New("connection refused")
}

func TestSwappedEntry(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 100)
	hidden := r.sign(r.log, unexpectedEvent())
	seen := r.sign(r.log, unexpectedEvent())
	r.fill(r.log, 500)
	beyond := r.sign(r.log, unexpectedEvent())
	innocent, _ := r.log.Entry(3)
	r.server.Set(locallog.Faults{Swap: map[uint64][]byte{hidden: innocent}})
	out := r.once()
	if out.Err != nil || !out.Missing {
		t.Fatalf("%+v", out)
	}
	r.wantIncidents("entry-mismatch:integrity:open")
	if got, want := r.verdicts(), fmt.Sprintf("%d:unexpected %d:unexpected", seen, beyond); got != want {
		t.Errorf("findings %s, want %s", got, want)
	}
	if got := r.coverage(); got != fmt.Sprintf("[0,603)-[%d,%d)entry-mismatch", hidden, hidden+1) {
		t.Errorf("coverage %s", got)
	}
	r.audit()
	list, _ := r.store.Incidents(context.Background(), store.Filter{})
	inc, _ := r.store.Incident(context.Background(), list[0].ID)
	if len(inc.Evidence) != 3 || !bytes.Equal(inc.Evidence[1].Data, innocent) || !strings.HasPrefix(inc.Evidence[2].Name, monitor.HeldPrefix) {
		t.Error("the bytes that were served are not kept")
	}
	r.mustPass()
	r.server.Set(locallog.Faults{})
	if out := r.mustPass(); out.Missing || out.Findings != 1 {
		t.Errorf("after the true entry is served: %+v", out)
	}
	r.wantIncidents("entry-mismatch:integrity:resolved")
	if got := r.coverage(); got != "[0,603)" {
		t.Errorf("coverage %s", got)
	}
	if got, want := r.verdicts(), fmt.Sprintf("%d:unexpected %d:unexpected %d:unexpected", hidden, seen, beyond); got != want {
		t.Errorf("findings %s, want %s", got, want)
	}
	r.audit()
}

// TestEmptyEntryServed: no bytes at all are wrong bytes too.
func TestEmptyEntryServed(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 300)
	r.server.Set(locallog.Faults{Swap: map[uint64][]byte{7: {}}})
	r.mustPass()
	r.wantIncidents("entry-mismatch:integrity:open")
	if got := r.coverage(); got != "[0,300)-[7,8)entry-mismatch" {
		t.Errorf("coverage %s", got)
	}
	r.audit()
}

func TestWithheldEntries(t *testing.T) {
	for name, fault := range map[string]locallog.Faults{
		"missing":   {Missing: map[uint64]bool{1: true}},
		"truncated": {Truncate: map[uint64]int{1: 1000}},
		"empty":     {Truncate: map[uint64]int{1: 0}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.fill(r.log, 300)
			hidden := r.sign(r.log, unexpectedEvent())
			r.fill(r.log, 500)
			beyond := r.sign(r.log, unexpectedEvent())
			r.server.Set(fault)
			for range 2 {
				if out := r.mustPass(); !out.Missing {
					t.Fatalf("%+v", out)
				}
				r.wantIncidents("")
			}
			if got := r.coverage(); got != "[0,802)-[256,512)entry-withheld" {
				t.Errorf("coverage %s", got)
			}
			r.restart()
			r.mustPass()
			r.wantIncidents("entry-withheld:operational:open")
			r.clock.move(25 * time.Hour)
			r.mustPass()
			r.wantIncidents("entry-withheld:integrity:open")
			if got := r.verdicts(); got != fmt.Sprintf("%d:unexpected", beyond) {
				t.Errorf("findings %s", got)
			}
			r.server.Set(locallog.Faults{})
			r.mustPass()
			r.wantIncidents("entry-withheld:integrity:resolved")
			if got, want := r.verdicts(), fmt.Sprintf("%d:unexpected %d:unexpected", hidden, beyond); got != want || r.coverage() != "[0,802)" {
				t.Errorf("findings %s, coverage %s", got, r.coverage())
			}
			r.audit()
		})
	}
}

func TestUnproven(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 700)
	r.mustPass()
	// The log signs a larger tree, and serves tiles of neither.
	other, _ := r.log.Fork(0)
	r.fill(other, 3)
	r.sign(other, unexpectedEvent())
	r.fill(other, 1000)
	r.fill(r.log, 100)
	r.server.Show(r.log, other)
	for i := range 3 {
		if out := r.once(); out.Err == nil || out.Head != 700 {
			t.Fatalf("poll %d: %+v", i, out)
		}
		r.restart()
	}
	r.wantIncidents("unproven:integrity:open")
	r.server.Show(r.log, nil)
	if out := r.mustPass(); out.Head != 800 {
		t.Errorf("%+v", out)
	}
	r.wantIncidents("unproven:integrity:resolved")
	r.audit()
}

func TestBadSignature(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 10)
	r.mustPass()
	stranger, _ := locallog.New(r.log.Origin())
	r.fill(stranger, 20)
	r.server.Show(stranger, nil)
	for range 2 {
		if out := r.once(); !errors.Is(out.Err, checkpoint.ErrSignature) {
			t.Fatalf("%+v", out)
		}
	}
	r.wantIncidents("")
	r.once()
	r.wantIncidents("bad-signature:integrity:open")
	r.clock.move(time.Hour)
	r.once()
	r.wantIncidents("bad-signature:integrity:open")
	r.server.Show(r.log, nil)
	r.mustPass()
	r.wantIncidents("bad-signature:integrity:resolved")
	r.audit()
}

func TestUnreachable(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 10)
	r.mustPass()
	for name, fault := range map[string]locallog.Faults{"500": {Status: 500}, "a web page": {HTML: true}, "404": {Status: 404}} {
		r.server.Set(fault)
		for range 3 {
			r.clock.move(5 * time.Minute)
			if out := r.once(); out.Err == nil {
				t.Fatalf("%s: %+v", name, out)
			}
		}
		if strings.Contains(r.incidents(), "open") {
			t.Fatalf("%s: opened after ten minutes: %s", name, r.incidents())
		}
		r.clock.move(5 * time.Minute)
		r.once()
		if !strings.HasSuffix(r.incidents(), "unreachable:operational:open") {
			t.Fatalf("%s: %s", name, r.incidents())
		}
		r.server.Set(locallog.Faults{})
		r.mustPass()
		if strings.Contains(r.incidents(), "open") {
			t.Fatalf("%s: %s", name, r.incidents())
		}
		r.clock.move(7 * time.Hour) // what comes again after that is no flapping
	}
}

// TestFlapping: a log that comes and goes is told of a few times, then stays open
// until it has been calm for a while, and its recovery is told once.
func TestFlapping(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 10)
	r.mustPass()
	poll := func(down bool, polls int) {
		t.Helper()
		fault := locallog.Faults{}
		if down {
			fault.Status = 500
		}
		r.server.Set(fault)
		for range polls {
			r.clock.move(5 * time.Minute)
			r.once()
			r.restart()
		}
	}
	for range 12 {
		poll(true, 4)
		poll(false, 1)
	}
	r.wantIncidents("unreachable:operational:resolved unreachable:operational:resolved unreachable:operational:open")
	poll(false, 5)
	poll(true, 4) // not calm for long enough
	poll(false, 6)
	r.wantIncidents("unreachable:operational:resolved unreachable:operational:resolved unreachable:operational:open")
	poll(false, 1)
	r.wantIncidents("unreachable:operational:resolved unreachable:operational:resolved unreachable:operational:resolved")
	list, err := r.store.Incidents(context.Background(), store.Filter{})
	if err != nil || !strings.Contains(list[2].Note, "come and gone 3 times") {
		t.Errorf("%+v, %v", list, err)
	}
	r.wantDeliveries("mail", notify.IncidentOpened, notify.IncidentResolved, notify.IncidentOpened, notify.IncidentResolved, notify.IncidentOpened, notify.IncidentResolved)
}

func TestStaleAndRollback(t *testing.T) {
	r := newRig(t)
	r.cfg.StaleAfter = time.Hour
	r.restart()
	r.fill(r.log, 600)
	r.mustPass()
	r.clock.move(59 * time.Minute)
	r.mustPass()
	r.wantIncidents("")
	r.clock.move(2 * time.Minute)
	r.mustPass()
	r.wantIncidents("stale:operational:open")
	r.fill(r.log, 1)
	r.mustPass()
	r.wantIncidents("stale:operational:resolved")
	size := uint64(500)
	r.server.Set(locallog.Faults{Size: &size})
	r.mustPass()
	r.clock.move(61 * time.Minute)
	r.mustPass()
	r.wantIncidents("stale:operational:resolved rollback:operational:open")
	r.server.Set(locallog.Faults{})
	r.fill(r.log, 1)
	r.mustPass()
	r.wantIncidents("stale:operational:resolved rollback:operational:resolved")
	r.audit()
}

func TestFrozenLogThatGrows(t *testing.T) {
	r := newRig(t)
	r.cfg.StaleAfter = time.Hour
	r.restart()
	r.fill(r.log, 300)
	r.mustPass()
	r.log.Freeze(r.clock.now())
	r.mustPass()
	r.clock.move(48 * time.Hour)
	r.mustPass()
	r.wantIncidents("") // a retired log is never stale
	fork, _ := r.log.Fork(300)
	r.fill(fork, 1)
	r.server.Show(fork, nil)
	if out := r.mustPass(); out.Halted == "" {
		t.Errorf("%+v", out)
	}
	r.wantIncidents("retired-log-changed:integrity:open")
	if s := r.state(); s.HeadSize != 300 {
		t.Errorf("head moved to %d", s.HeadSize)
	}
}

// TestOneBadEntry: one undecodable entry among 256 hides none of the others,
// and is told of if it names what is watched.
func TestOneBadEntry(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 100)
	a := r.sign(r.log, unexpectedEvent())
	bad, _ := r.log.Append([]byte(`{"apiVersion":"0.0.9","kind":"future","spec":{"x":"` + base64.StdEncoding.EncodeToString([]byte("signed by https://github.com/acme/widget")) + `"}}`))
	junk, _ := r.log.Append([]byte("junk"))
	b := r.sign(r.log, expectedEvent())
	r.fill(r.log, 152)
	if r.log.Size() != 256 {
		t.Fatal(r.log.Size())
	}
	r.mustPass()
	want := fmt.Sprintf("%d:unexpected %d:malformed %d:expected", a, bad, b)
	if got := r.verdicts(); got != want {
		t.Errorf("findings %s, want %s", got, want)
	}
	s := r.state()
	if s.Undecodable != 2 || s.Kinds["future 0.0.9"] != 1 || s.Entries != 256 {
		t.Errorf("counted %d undecodable, %v, of %d entries", s.Undecodable, s.Kinds, s.Entries)
	}
	r.wantIncidents("undecodable:operational:open undecodable:operational:open")
	r.log.Append([]byte("more junk"))
	r.mustPass()
	r.wantIncidents("undecodable:operational:open undecodable:operational:open")
	_ = junk
	r.audit()
}

// TestEntryThatBreaksReaders: an entry at which a parser gives up for good ends nothing, and is told.
func TestEntryThatBreaksReaders(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 100)
	a := r.sign(r.log, expectedEvent())
	r.fill(r.log, 155)
	mend := r.engine.Break()
	r.mustPass()
	if got, want := r.verdicts(), fmt.Sprintf("%d:malformed", a); got != want || r.coverage() != "[0,256)" {
		t.Errorf("findings %s, want %s; coverage %s", got, want, r.coverage())
	}
	if f := r.findings()[0]; !strings.Contains(f.Reason, "it breaks what reads entries") || !strings.Contains(f.Reason, "https://github.com/acme/") {
		t.Error(f.Reason)
	}
	if s := r.state(); s.Undecodable != 1 || len(s.Kinds) != 1 || s.Kinds["entries that break what reads entries, which is a fault of this program"] != 1 || s.Entries != 256 {
		t.Errorf("counted %d undecodable, %v, of %d entries", s.Undecodable, s.Kinds, s.Entries)
	}
	// One that cannot be decoded in full either is counted once.
	odd, err := r.log.Entry(a)
	if err != nil {
		t.Fatal(err)
	}
	r.log.Append(bytes.Replace(odd, []byte(`{`), []byte(`{"more":1,`), 1))
	r.mustPass()
	if s := r.state(); s.Undecodable != 2 || len(s.Kinds) != 2 || s.Entries != 257 {
		t.Errorf("counted %d undecodable, %v, of %d entries", s.Undecodable, s.Kinds, s.Entries)
	}
	mend()
	b := r.sign(r.log, expectedEvent())
	if r.mustPass(); r.verdicts() != fmt.Sprintf("%d:malformed %d:malformed %d:expected", a, a+156, b) {
		t.Errorf("findings %s", r.verdicts())
	}
	r.audit()
}

// TestOddEntryIsNotExpected: what cannot be decoded in full is expected by nobody, also where only an
// expression tells whose it is.
func TestOddEntryIsNotExpected(t *testing.T) {
	r := newRig(t)
	ours := watchlist.Item{Subject: []string{`re:[g-i][s-u].*`}, Issuer: []string{"re:.+"}}
	list, err := watchlist.Compile([]watchlist.Watch{{Name: "releases", Match: []watchlist.Item{ours}, Expect: []watchlist.Item{ours}}})
	if err != nil {
		t.Fatal(err)
	}
	r.opts.Watches = list
	r.restart()
	good := r.sign(r.log, expectedEvent())
	leaf, err := r.log.Entry(good)
	if err != nil {
		t.Fatal(err)
	}
	odd := bytes.Replace(leaf, []byte(`{`), []byte(`{"more":1,`), 1)
	if len(list.MatchRaw(odd)) > 0 {
		t.Fatal("its bytes tell whose it is: nothing is shown")
	}
	r.log.Append(odd)
	if r.mustPass(); r.verdicts() != "0:expected 1:malformed" {
		t.Errorf("findings %s", r.verdicts())
	}
}

// TestStoreFaults lets every commit fail in both forms, "failed" and "failed
// but was persisted", and checks that nothing is lost and nothing told twice.
func TestStoreFaults(t *testing.T) {
	for _, persisted := range []bool{false, true} {
		for nth := 1; nth <= 8; nth++ {
			r := newRig(t)
			r.fill(r.log, 600)
			a := r.sign(r.log, unexpectedEvent())
			r.fill(r.log, 600)
			b := r.sign(r.log, unexpectedEvent())
			faulty := &faultyStore{Store: r.store, nth: nth, persisted: persisted}
			r.opts.Store, r.opts.CommitEvery = faulty, 256
			r.restart()
			failed := false
			for range 3 {
				failed = r.once().Err != nil || failed
			}
			if !failed && faulty.count >= nth {
				t.Errorf("commit %d failed without a word", nth)
			}
			if got, want := r.verdicts(), fmt.Sprintf("%d:unexpected %d:unexpected", a, b); got != want || r.coverage() != "[0,1202)" {
				t.Errorf("fault at commit %d (persisted %v): %s, %s", nth, persisted, got, r.coverage())
			}
			pending, err := r.store.Channels(context.Background(), []string{"chat", "mail"})
			if err != nil || pending[0].Pending != 2 || pending[1].Pending != 2 {
				t.Errorf("fault at commit %d (persisted %v): %+v deliveries, %v", nth, persisted, pending, err)
			}
			r.wantIncidents("")
			r.audit()
		}
	}
}

type faultyStore struct {
	*store.Store
	nth, count int
	persisted  bool
}

func (f *faultyStore) Commit(ctx context.Context, id string, old monitor.State, next *monitor.State, b monitor.Batch) (monitor.Recorded, error) {
	f.count++
	if f.count != f.nth {
		return f.Store.Commit(ctx, id, old, next, b)
	}
	if f.persisted {
		if _, err := f.Store.Commit(ctx, id, old, next, b); err != nil {
			return monitor.Recorded{}, err
		}
	}
	return monitor.Recorded{}, errors.New("disk on fire")
}

// TestTwoEnginesOnOneStore: the slower one notices and changes nothing.
func TestTwoEnginesOnOneStore(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 10)
	r.mustPass()
	ctx := context.Background()
	old := r.state()
	next := old
	next.Scanned = 3
	stale := old
	stale.Version--
	if _, err := r.store.Commit(ctx, r.cfg.ID, stale, &next, monitor.Batch{Findings: []monitor.Finding{{ID: "f-x"}}}); !errors.Is(err, monitor.ErrConflict) {
		t.Errorf("commit on an older version: %v", err)
	}
	if _, err := r.store.Commit(ctx, r.cfg.ID, monitor.State{}, &next, monitor.Batch{}); !errors.Is(err, monitor.ErrConflict) {
		t.Errorf("commit on no version: %v", err)
	}
	if r.state().Scanned != 10 || len(r.findings()) != 0 {
		t.Error("a lost race left something behind")
	}
}

// TestShutdownKeepsProgress stops in the middle of a scan.
func TestShutdownKeepsProgress(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 5000)
	r.opts.CommitEvery = 512
	ctx, cancel := context.WithCancel(context.Background())
	r.cfg.Parallel = 1 // so that the first bundles are among those that were fetched
	r.cfg.Source = &stopAfter{TileLog: r.source(), n: 9, stop: cancel}
	r.restart()
	out := r.engine.Once(ctx, 20*time.Second)[0]
	if !errors.Is(out.Err, context.Canceled) {
		t.Fatalf("%+v", out)
	}
	s := r.state()
	if s.Scanned == 0 || s.Scanned == 5000 {
		t.Errorf("scanned %d", s.Scanned)
	}
	r.wantIncidents("")
	r.audit()
	r.cfg.Source = r.source()
	r.restart()
	r.mustPass()
	if got := r.coverage(); got != "[0,5000)" {
		t.Errorf("coverage %s", got)
	}
	r.audit()
}

type stopAfter struct {
	monitor.TileLog
	n    int
	stop func()
}

func (s *stopAfter) Leaves(ctx context.Context, from, to uint64) ([][]byte, error) {
	if from >= 256*uint64(s.n) {
		s.stop()
	}
	return s.TileLog.Leaves(ctx, from, to)
}

// TestNoProgress gives up on a log that answers nothing, and no other.
func TestNoProgress(t *testing.T) {
	r := newRig(t)
	r.server.Set(locallog.Faults{Stall: time.Minute})
	start := time.Now()
	out := r.engine.Once(context.Background(), 200*time.Millisecond)[0]
	if out.Err == nil || !strings.Contains(out.Err.Error(), "no progress") || time.Since(start) > 15*time.Second {
		t.Errorf("%+v after %s", out, time.Since(start))
	}
}

func TestLagging(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 100)
	r.mustPass()
	r.cfg.Source = noLeaves{r.source()}
	r.restart()
	for range 4 {
		r.fill(r.log, 6000)
		r.clock.move(6 * time.Minute)
		r.once()
	}
	if got := r.incidents(); !strings.Contains(got, "lagging:operational:open") {
		t.Fatalf("incidents %q", got)
	}
	list, _ := r.store.Incidents(context.Background(), store.Filter{Kind: "lagging"})
	if !strings.Contains(list[0].Summary, "never catch up") {
		t.Errorf("summary %q", list[0].Summary)
	}
	r.cfg.Source = r.source()
	r.restart()
	r.mustPass()
	if strings.Contains(r.incidents(), "open") {
		t.Errorf("incidents %q", r.incidents())
	}
}

func TestResume(t *testing.T) {
	for _, rebaseline := range []bool{false, true} {
		r := newRig(t)
		r.fill(r.log, 400)
		first := r.sign(r.log, unexpectedEvent())
		r.mustPass()
		fork, _ := r.log.Fork(300)
		for range 200 {
			r.sign(fork, testca.Identity{Email: "x@other.example"})
		}
		r.server.Show(fork, nil)
		out := r.mustPass()
		ctx := context.Background()
		if err := r.engine.Resume(ctx, monitor.Resumption{Log: "acme", Incident: "i-other", Rebaseline: rebaseline}); !errors.Is(err, monitor.ErrNotHalted) {
			t.Errorf("resume with another incident: %v", err)
		}
		if err := r.engine.Resume(ctx, monitor.Resumption{Log: "nobody", Incident: out.Halted, Rebaseline: rebaseline}); !errors.Is(err, monitor.ErrUnknownLog) {
			t.Errorf("resume of another log: %v", err)
		}
		if !rebaseline {
			r.server.Show(r.log, nil)
		}
		if err := r.engine.Resume(ctx, monitor.Resumption{Log: "acme", Incident: out.Halted, Rebaseline: rebaseline, By: "alice", Note: "looked into it"}); err != nil {
			t.Fatal(err)
		}
		r.wantIncidents("fork:integrity:resolved")
		var acts []string
		err := r.store.EachAudit(ctx, 1, out.Halted, func(row monitor.AuditRow) error {
			acts = append(acts, row.Action+" by "+row.Actor)
			return nil
		})
		if want := map[bool]string{false: "[resume by alice]", true: "[rebaseline by alice]"}[rebaseline]; err != nil || fmt.Sprint(acts) != want {
			t.Errorf("the audit trail says %v (%v), want %s", acts, err, want)
		}
		for _, to := range []string{monitor.StateOpen, monitor.StateResolved} {
			c := monitor.Change{To: to, Resolution: map[string]string{monitor.StateResolved: monitor.AsIncident}[to], By: "bob", Note: "n", At: time.Now()}
			if err := r.store.Triage(ctx, out.Halted, c, nil); err == nil {
				t.Errorf("an incident whose log goes on can be changed to %s", to)
			}
		}
		if _, err := r.store.VerifyAudit(ctx, monitor.AuditHead{}); err != nil {
			t.Error(err)
		}
		if rebaseline {
			r.log = fork
			if r.coverage() != "" {
				t.Errorf("coverage of the former tree is claimed for the new one: %s", r.coverage())
			}
			r.sign(fork, unexpectedEvent())
			inc, _ := r.store.Incident(ctx, out.Halted)
			if last := inc.Evidence[len(inc.Evidence)-2]; last.Name != "head-before-rebaseline" || len(last.Data) == 0 {
				t.Errorf("the old head is not kept: %+v", inc.Evidence)
			}
		} else {
			r.sign(r.log, unexpectedEvent())
		}
		r.mustPass()
		want := fmt.Sprintf("%d:unexpected %d:unexpected", first, first+1)
		if rebaseline {
			want = fmt.Sprintf("%d:unexpected %d:unexpected", first, 500)
		}
		if got := r.verdicts(); got != want {
			t.Errorf("rebaseline %v: %s, want %s", rebaseline, got, want)
		}
		if !rebaseline {
			r.audit()
		}
	}
}

func TestScanCoversHistory(t *testing.T) {
	r := newRig(t)
	r.cfg.Start = "latest"
	r.restart()
	a := r.sign(r.log, unexpectedEvent())
	r.fill(r.log, 1500)
	b := r.sign(r.log, expectedEvent())
	r.fill(r.log, 77)
	r.mustPass()
	r.fill(r.log, 100)
	r.mustPass()
	if r.verdicts() != "" {
		t.Fatal(r.verdicts())
	}
	ctx := context.Background()
	r.server.Set(locallog.Faults{Missing: map[uint64]bool{3: true}})
	calls := 0
	out := r.engine.Scan(ctx, r.store, monitor.ScanOptions{Log: "acme", From: 0, To: 1579, Progress: func(done, total uint64) { calls++ }})
	if out.Err != nil || out.Findings != 2 || out.Notifying != 1 || !out.Missing || calls < 5 {
		t.Fatalf("%+v, %d calls", out, calls)
	}
	if got := r.verdicts(); got != fmt.Sprintf("%d:unexpected %d:expected", a, b) {
		t.Error(got)
	}
	if got := r.coverage(); got != "[0,1679)-[768,1024)entry-withheld" {
		t.Errorf("coverage %s", got)
	}
	r.server.Set(locallog.Faults{})
	r.mustPass()
	if got := r.coverage(); got != "[0,1679)" {
		t.Errorf("coverage %s", got)
	}
	// All is covered: nothing is read again.
	before := r.server.Requests()
	if out := r.engine.Scan(ctx, r.store, monitor.ScanOptions{Log: "acme", From: 0}); out.Err != nil || r.server.Requests() != before {
		t.Errorf("%+v, %d requests", out, r.server.Requests()-before)
	}
	for _, bad := range []monitor.ScanOptions{{Log: "acme", From: 9, To: 9}, {Log: "acme", To: 5000}, {Log: "x", To: 5}} {
		if out := r.engine.Scan(ctx, r.store, bad); out.Err == nil {
			t.Errorf("%+v accepted", bad)
		}
	}
	r.audit()
}

// TestNewWatchHasNotCoveredYesterday adds a watch, and follows the command
// that the engine then names.
func TestNewWatchHasNotCoveredYesterday(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 300)
	other := r.sign(r.log, testca.Identity{Email: "bob@beta.example", Issuer: "https://accounts.google.com"})
	r.mustPass()
	ctx := context.Background()
	if missing, err := r.engine.Uncovered(ctx, r.store); err != nil || len(missing) != 0 {
		t.Errorf("%v, %v", missing, err)
	}
	watches := append(r.opts.Watches.Watches(), watchlist.Watch{Name: "beta", Match: []watchlist.Item{{Subject: []string{"*@beta.example"}}}})
	list, err := watchlist.Compile(watches)
	if err != nil {
		t.Fatal(err)
	}
	r.opts.Watches = list
	r.opts.WatchConfigs = append(r.opts.WatchConfigs, monitor.WatchConfig{Severity: "high"})
	r.restart()
	r.fill(r.log, 100)
	r.mustPass()
	missing, err := r.engine.Uncovered(ctx, r.store)
	if err != nil || len(missing) != 1 || missing[0] != (monitor.Uncovered{Log: "acme", Range: monitor.Range{To: 301}}) {
		t.Fatalf("%v, %v", missing, err)
	}
	status, err := r.engine.Status(ctx, r.store, []string{"chat"})
	if err != nil || fmt.Sprint(status.Logs[0].Coverage) != "[{301 401}]" || status.Logs[0].State != "ok" {
		t.Errorf("%+v, %v", status, err)
	}
	if out := r.engine.Scan(ctx, r.store, monitor.ScanOptions{Log: "acme", From: missing[0].From, To: missing[0].To}); out.Err != nil {
		t.Fatal(out.Err)
	}
	if missing, _ := r.engine.Uncovered(ctx, r.store); len(missing) != 0 {
		t.Errorf("%v", missing)
	}
	if got := r.verdicts(); got != fmt.Sprintf("%d:unexpected", other) {
		t.Error(got)
	}
}
