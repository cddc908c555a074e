package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// TestAuditTampering: an edit of any column of any row, a removed row wherever it
// was, one that was put in between, and a state that was changed without a row are
// noticed.
func TestAuditTampering(t *testing.T) {
	for name, edit := range map[string]string{
		"time":                    "UPDATE audit SET at = at + 1 WHERE n = 2",
		"actor":                   "UPDATE audit SET actor = 'mallory' WHERE n = 1",
		"action":                  "UPDATE audit SET action = 'ack' WHERE n = 3",
		"subject":                 "UPDATE audit SET subject = 'f-9' WHERE n = 2",
		"detail":                  "UPDATE audit SET detail = replace(detail, 'why', 'because') WHERE n = 2",
		"hash":                    "UPDATE audit SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE n = 1",
		"first row gone":          "DELETE FROM audit WHERE n = 1",
		"row in the middle gone":  "DELETE FROM audit WHERE n = 2",
		"last row gone":           "DELETE FROM audit WHERE n = 3",
		"all rows gone":           "DELETE FROM audit",
		"rows renumbered":         "DELETE FROM audit WHERE n = 1; UPDATE audit SET n = n - 1",
		"a row too many":          "INSERT INTO audit SELECT 4, at, actor, action, subject, detail, hash FROM audit WHERE n = 3",
		"the head gone":           "DELETE FROM audit_head",
		"the head moved back":     "DELETE FROM audit WHERE n = 3; UPDATE audit_head SET n = 2, hash = (SELECT hash FROM audit WHERE n = 2)",
		"a finding reopened":      "UPDATE findings SET state = 'open' WHERE id = 'f-1'",
		"a finding not decided":   "UPDATE findings SET state = 'open', changed_by = '', changed_at = NULL WHERE id = 'f-1'",
		"a finding closed":        "UPDATE findings SET state = 'resolved', changed_by = 'alice', changed_at = 1 WHERE id = 'f-3'",
		"who it was":              "UPDATE audit SET actor = actor || ' ' WHERE n = 2",
		"a decision of ourselves": "UPDATE audit SET actor = 'sigwarden' WHERE n = 2",
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
			if _, err := s.Commit(ctx, "log", monitor.State{}, nil, batchOf(4)); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				c := monitor.Change{To: monitor.StateResolved, Resolution: monitor.AsExpected, By: "alice", Note: "why", At: time.Now()}
				if err := s.Triage(ctx, fmt.Sprint("f-", i), c, nil); err != nil {
					t.Fatal(err)
				}
			}
			if head, err := s.VerifyAudit(ctx, monitor.AuditHead{}); err != nil || head.N != 3 {
				t.Fatalf("before: %+v, %v", head, err)
			}
			for statement := range strings.SplitSeq(edit, ";") {
				if _, err := s.db.Exec(statement); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.VerifyAudit(ctx, monitor.AuditHead{}); !errors.Is(err, ErrTampered) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestStoredBesideTheTrail: what was changed in the tables themselves is noticed,
// though the trail is as it was.
func TestStoredBesideTheTrail(t *testing.T) {
	for name, edit := range map[string]string{
		"a finding resolved":      "UPDATE findings SET state = 'resolved' WHERE id = 'f-3'",
		"a finding put away":      "UPDATE findings SET state = 'closed' WHERE id = 'f-3'",
		"resolved as another":     "UPDATE findings SET resolution = 'false-positive' WHERE id = 'f-0'",
		"resolved by another":     "UPDATE findings SET changed_by = 'bob' WHERE id = 'f-0'",
		"an incident resolved":    "UPDATE incidents SET state = 'resolved', resolution = 'expected' WHERE id = 'i-1'",
		"an incident seen":        "UPDATE incidents SET state = 'acknowledged' WHERE id = 'i-2'",
		"a token made":            "INSERT INTO tokens (id, name, scopes, watches, hash, created_at) VALUES ('t-2', 'mine', 'expect', 'null', 'ab', 1)",
		"a token that may more":   "UPDATE tokens SET scopes = 'expect triage'",
		"a token revived":         "UPDATE tokens SET revoked_at = NULL WHERE id = 't-1'",
		"a token gone":            "DELETE FROM tokens",
		"an announcement made":    "INSERT INTO announcements (id, watch, digest, announcer, note, created_at, expires_at) VALUES ('a-2', 'w', 'sha256:00', 'me', '', 1, 2)",
		"an announcement changed": "UPDATE announcements SET digest = 'sha256:01'",
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
			b, now := batchOf(4), time.Now()
			for _, id := range []string{"i-1", "i-2", "i-3"} {
				b.Open = append(b.Open, monitor.Incident{ID: id, Kind: monitor.KindUndecodable, State: monitor.StateOpen})
			}
			change := func(id, to, as string) error {
				return s.Triage(ctx, id, monitor.Change{To: to, Resolution: as, By: "alice", Note: "why", At: now}, nil)
			}
			_, err := s.Commit(ctx, "log", monitor.State{}, nil, b)
			expires := now.Add(time.Hour)
			a, announceErr := monitor.Announce("w", "sha256:00", time.Hour, "job", "", now)
			for _, err := range []error{err, announceErr,
				change("f-0", monitor.StateResolved, monitor.AsExpected), change("f-1", monitor.StateAcknowledged, ""), change("f-1", monitor.StateOpen, ""),
				change("i-1", monitor.StateAcknowledged, ""), change("i-3", monitor.StateAcknowledged, ""),
				s.Record(ctx, nil, []monitor.Resolution{{ID: "i-3", At: now}}),
				s.AddToken(ctx, monitor.Token{ID: "t-0", Name: "ci", Scopes: []string{monitor.ScopeExpect}, CreatedAt: now, ExpiresAt: &expires}, "secret", "alice"),
				s.AddToken(ctx, monitor.Token{ID: "t-1", Name: "old", Scopes: []string{monitor.ScopeExpect}, CreatedAt: now}, "secret2", "alice"),
				second(s.RevokeToken(ctx, "old", "alice", now)), s.Announce(ctx, a),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.VerifyAudit(ctx, monitor.AuditHead{}); err != nil {
				t.Fatalf("before: %v", err)
			}
			if res, err := s.db.Exec(edit); err != nil {
				t.Fatal(err)
			} else if n, _ := res.RowsAffected(); n == 0 {
				t.Fatal("nothing was changed")
			}
			if _, err := s.VerifyAudit(ctx, monitor.AuditHead{}); !errors.Is(err, ErrTampered) {
				t.Errorf("%v", err)
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }

// TestWithdrawn: an announcement that was taken back makes nothing expected, and the
// trail says who did that.
func TestWithdrawn(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	now := time.Now()
	a, err := monitor.Announce("w", "sha256:00", time.Hour, "job", "", now)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Announce(ctx, a); err != nil {
		t.Fatal(err)
	}
	announced := func() (ok bool) {
		t.Helper()
		if err := s.Peek(ctx, "log", func(l monitor.Precedents) (err error) {
			_, ok, err = l.Announced("w", []string{"sha256:00"}, now, now.Add(time.Minute))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if !announced() {
		t.Error("not announced")
	}
	if err := s.Withdraw(ctx, a.ID, "alice", "stolen", now); err != nil {
		t.Fatal(err)
	}
	if err := s.Withdraw(ctx, a.ID, "alice", "stolen", now); !errors.Is(err, ErrNotFound) || announced() {
		t.Errorf("%v, announced %v", err, announced())
	}
	if head, err := s.VerifyAudit(ctx, monitor.AuditHead{}); err != nil || head.N != 2 {
		t.Errorf("%+v, %v", head, err)
	}
}

// TestVerifyAuditBesideWriters: what others write meanwhile is no tampering.
func TestVerifyAuditBesideWriters(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	if _, err := s.Commit(ctx, "log", monitor.State{}, nil, batchOf(1)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for i := range 100 {
			to := []string{monitor.StateAcknowledged, monitor.StateOpen}[i%2]
			if err := s.Triage(ctx, "f-0", monitor.Change{To: to, By: "alice", At: time.Now()}, nil); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		if _, err := s.VerifyAudit(ctx, monitor.AuditHead{}); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

func TestTriage(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	b := batchOf(2)
	b.Findings[1].State = monitor.StateClosed
	b.Open = []monitor.Incident{{ID: "i-fork", Kind: monitor.KindFork, State: "open"}, {ID: "i-odd", Kind: monitor.KindUndecodable, State: "open"}}
	if _, err := s.Commit(ctx, "log", monitor.State{}, nil, b); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		id, to, as, bad string
	}{
		{"f-1", monitor.StateAcknowledged, "", "told to nobody"},
		{"f-0", monitor.StateOpen, "", "nothing to reopen"},
		{"f-0", monitor.StateAcknowledged, "", ""},
		{"f-0", monitor.StateResolved, "whatever", "no resolution"},
		{"f-0", monitor.StateResolved, monitor.AsIncident, ""},
		{"f-0", monitor.StateAcknowledged, "", "reopen it first"},
		{"f-0", monitor.StateOpen, "", ""},
		{"i-fork", monitor.StateResolved, monitor.AsFalsePositive, "logs resume"},
		{"i-fork", monitor.StateAcknowledged, "", ""},
		{"i-odd", monitor.StateResolved, monitor.AsExpected, ""},
		{"f-7", monitor.StateAcknowledged, "", "not found"},
		{"i-7", monitor.StateAcknowledged, "", "not found"},
	} {
		err := s.Triage(ctx, tc.id, monitor.Change{To: tc.to, Resolution: tc.as, By: "bob", Note: "n", At: time.Now()}, nil)
		if (err != nil) != (tc.bad != "") || err != nil && !strings.Contains(err.Error(), tc.bad) {
			t.Errorf("%s to %s: %v, want %q", tc.id, tc.to, err, tc.bad)
		}
	}
	if f, err := s.Finding(ctx, "f-0"); err != nil || f.State != "open" || f.By != "bob" || f.ChangedAt == nil || f.Note != "n / n / n" {
		t.Errorf("%+v, %v", f, err)
	}
	if i, err := s.Incident(ctx, "i-odd"); err != nil || i.State != "resolved" || i.Resolution != monitor.AsExpected || i.Resolved == nil {
		t.Errorf("%+v, %v", i, err)
	}
	// Only what was done is in the trail.
	if head, err := s.VerifyAudit(ctx, monitor.AuditHead{}); err != nil || head.N != 5 {
		t.Errorf("%+v, %v", head, err)
	}
}

// unexpected is a finding that is told at a channel.
func unexpected(i int, watch, cause string, channels ...string) monitor.Finding {
	return monitor.Finding{ID: fmt.Sprintf("f-%s-%s-%d", watch, cause, i), Log: "log", Index: uint64(i), Watch: watch, Verdict: policy.Unexpected, Severity: "high", Cause: cause, Reason: cause + " in full",
		State: monitor.StateOpen, SeenAt: time.Unix(int64(i), 0), Leaf: []byte("leaf"), SignedNote: "note", Channels: channels}
}

func TestRolls(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	commit := func(list ...monitor.Finding) {
		t.Helper()
		if _, err := s.Commit(ctx, "log", monitor.State{}, nil, monitor.Batch{Findings: list}); err != nil {
			t.Fatal(err)
		}
	}
	var list []monitor.Finding
	for i := range 30 {
		list = append(list, unexpected(i, []string{"a", "b"}[i%2], []string{"x", "y", "z"}[i%3], "people", "program"))
	}
	commit(list[:20]...)
	commit(list[:25]...) // a repeat brings nothing twice
	quiet := list[25]
	quiet.Channels = nil
	commit(quiet)
	commit(list[26:]...)
	later := time.Now().Add(time.Second)
	w, err := s.Rolled(ctx, "program", later)
	if err != nil || w.Rolled != 29 || w.Fresh != 0 {
		t.Fatalf("%+v, %v", w, err)
	}
	// Unrolled in parts, each comes once.
	seen := map[string]bool{}
	for made := 0; made < 29; {
		n, err := s.Unroll(ctx, "program", later, 4)
		if err != nil || n == 0 || n > 4 {
			t.Fatalf("%d more after %d, %v", n, made, err)
		}
		made += n
	}
	due, _, err := s.Due(ctx, "program", later, 100, nil)
	for _, q := range due {
		seen[q.Event.Subject] = true
		if q.Event.Type != notify.FindingUnexpected || q.Event.ID == "" {
			t.Errorf("%+v", q.Event)
		}
	}
	if err != nil || len(due) != 29 || len(seen) != 29 || seen[quiet.ID] {
		t.Errorf("%d due, %d different, %v", len(due), len(seen), err)
	}
	if n, err := s.Unroll(ctx, "program", later, 100); n != 0 || err != nil {
		t.Errorf("%d more, %v", n, err)
	}
	// Folded, all of them are counted once, by watch and cause.
	if n, err := s.Unroll(ctx, "people", later, 3); n != 3 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	var groups []notify.Group
	err = s.Fold(ctx, "people", later, false, func(g []notify.Group) []notify.Event {
		groups = g
		return []notify.Event{{ID: "e-group", Type: notify.FindingsGrouped}}
	})
	total := 0
	for _, g := range groups {
		total += g.Count
		if g.Watch == "" || g.Cause == "" || len(g.First) != min(g.Count, 5) || g.Since.IsZero() || !strings.Contains(g.First[0], g.Cause+" in full") {
			t.Errorf("%+v", g)
		}
	}
	if err != nil || total != 26 || len(groups) != 6 {
		t.Errorf("%d in %d groups, %v", total, len(groups), err)
	}
	if w, err = s.Rolled(ctx, "people", later); err != nil || w.Rolled != 0 || w.Fresh != 4 {
		t.Errorf("%+v, %v", w, err)
	}
	if n, err := s.PendingDeliveries(ctx); n != 33 || err != nil {
		t.Errorf("%d wait, %v", n, err)
	}
	// What is told of is kept.
	if open, _, err := s.CountOpen(ctx); open != 30 || err != nil {
		t.Errorf("%d open, %v", open, err)
	}
	if err := s.Abandon(ctx, "program", "gone", monitor.Incident{ID: "i-gone"}); err != nil {
		t.Fatal(err)
	}
	if names, err := s.Waiting(ctx); err != nil || len(names) != 1 {
		t.Errorf("%q, %v", names, err)
	}
}

func TestTokens(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	now := time.Now().UTC().Truncate(time.Microsecond)
	until := now.Add(time.Hour)
	token := monitor.Token{ID: "t-1", Name: "job", Scopes: []string{"expect"}, Watches: []string{"a"}, CreatedAt: now, ExpiresAt: &until}
	if err := s.AddToken(ctx, token, "secret", "alice"); err != nil {
		t.Fatal(err)
	}
	if err := s.AddToken(ctx, monitor.Token{ID: "t-2", Name: "job", CreatedAt: now}, "other", "alice"); err == nil {
		t.Error("two of one name")
	}
	got, err := s.Token(ctx, "secret", now)
	if err != nil || !got.Allows("expect", "a") || got.Allows("expect", "b") || got.Allows("read", "") || got.Allows("triage", "a") {
		t.Errorf("%+v, %v", got, err)
	}
	for what, ask := range map[string]func() error{
		"another secret": func() error { _, err := s.Token(ctx, "secre", now); return err },
		"none":           func() error { _, err := s.Token(ctx, "", now); return err },
		"expired":        func() error { _, err := s.Token(ctx, "secret", until); return err },
		"its hash":       func() error { _, err := s.Token(ctx, tokenHash("secret"), now); return err },
	} {
		if err := ask(); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	var kept string
	if err := s.db.QueryRow("SELECT id || name || scopes || watches || hash FROM tokens").Scan(&kept); err != nil || strings.Contains(kept, "secret") {
		t.Errorf("%q, %v", kept, err)
	}
	if _, err := s.RevokeToken(ctx, "job", "alice", now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Token(ctx, "secret", now); !errors.Is(err, ErrNotFound) {
		t.Errorf("revoked: %v", err)
	}
	if _, err := s.RevokeToken(ctx, "job", "alice", now); !errors.Is(err, ErrNotFound) {
		t.Errorf("revoked twice: %v", err)
	}
	if head, err := s.VerifyAudit(ctx, monitor.AuditHead{}); err != nil || head.N != 2 {
		t.Errorf("%+v, %v", head, err)
	}
}

// TestAnnouncementsAreBounded: a token that was stolen cannot fill the disk.
func TestAnnouncementsAreBounded(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	now := time.Now()
	if _, err := s.db.Exec("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < $1) INSERT INTO announcements SELECT 'a-' || i, 'w', 'sha256:' || i, 'x', '', 0, $2 FROM c", maxAnnouncements, micros(now.Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	announce := func(watch string, at time.Time) error {
		a, err := monitor.Announce(watch, "sha256:aa", time.Hour, "x", "", at)
		if err != nil {
			t.Fatal(err)
		}
		return s.Announce(ctx, a)
	}
	if err := announce("w", now); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	if err := announce("v", now); err != nil {
		t.Error(err)
	}
	if err := announce("w", now.Add(2*time.Hour)); err != nil {
		t.Error(err)
	}
	for _, ttl := range []time.Duration{0, -time.Hour, monitor.MaxTTL + 1} {
		if _, err := monitor.Announce("w", "sha256:aa", ttl, "x", "", now); err == nil {
			t.Errorf("a time to live of %s", ttl)
		}
	}
	if _, err := monitor.Announce("w", "sha256:aa", time.Hour, "x", strings.Repeat("n", 1001), now); err == nil {
		t.Error("an endless note")
	}
}
