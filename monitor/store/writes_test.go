package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store/simdisk"
	"github.com/sigwarden/sigwarden/notify"
)

// both are the two state files of a process.
type both struct {
	*Store
	witness *Witness
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func openBoth(t *testing.T, d *simdisk.Disk) both {
	t.Helper()
	opts := Options{VFS: simdisk.Name, Now: func() time.Time { return noon }}
	s, err := Open(ctx, d.Path("state.db"), opts)
	if err != nil {
		t.Fatal(err)
	}
	w, err := OpenWitness(ctx, d.Path("state.db"), opts)
	if err != nil {
		t.Fatal(err)
	}
	return both{s, w}
}

func (b both) close() {
	b.witness.Close()
	b.Store.Close()
}

// dump is what two state files hold, but for what is random.
func (b both) dump(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, db := range []*sql.DB{b.db, b.witness.store.db} {
		tables := column(t, db, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
		for _, table := range tables {
			columns := column(t, db, fmt.Sprintf("SELECT name FROM pragma_table_info('%s')", table))
			for i, c := range columns {
				columns[i] = "quote(" + c + ")"
			}
			list := column(t, db, fmt.Sprintf("SELECT %s FROM %s", strings.Join(columns, " || '|' || "), table))
			for i := range list {
				list[i] = random.ReplaceAllString(list[i], "*")
			}
			slices.Sort(list)
			fmt.Fprintf(&out, "%s:\n%s\n", table, strings.Join(list, "\n"))
		}
	}
	return out.String()
}

// random is what differs from one run to the next: hashes over what is random, secrets and ids.
var random = regexp.MustCompile(`[0-9A-Za-z_+/-]{20,}=*`)

func column(t *testing.T, db *sql.DB, query string) (out []string) {
	t.Helper()
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var text sql.NullString
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		out = append(out, text.String)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// furnish makes a state in which every write has something to do.
func furnish(t *testing.T, b both) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	old, err := b.State(ctx, "log")
	must(err)
	next := old
	next.Name, next.Origin, next.Scanned, next.HeadSize, next.Head = "log", "log", 3, 3, "note"
	batch := batchOf(3)
	until := noon.Add(-time.Minute)
	batch.Findings[1].State, batch.Findings[1].PendingUntil = monitor.StatePending, &until
	batch.Findings[2].Severity = "critical"
	batch.Coverage, batch.WatchSet = []monitor.Range{{From: 0, To: 3}}, []string{"rule"}
	batch.Open = []monitor.Incident{{ID: "i-open", LogID: "log", Kind: "stale", State: "open", OpenedAt: noon}, {ID: "i-old", LogID: "log", Kind: "stale", State: "open", OpenedAt: noon.Add(-time.Hour)}}
	_, err = b.Commit(ctx, "log", old, &next, batch)
	must(err)
	must(b.Record(ctx, nil, []monitor.Resolution{{ID: "i-old", At: noon.Add(-30 * time.Minute)}}))
	_, err = b.RecordPoll(ctx, "log", monitor.Poll{At: noon.Add(-time.Minute), WatchSet: []string{"rule"}, Origin: "log", Name: "log"})
	must(err)
	must(b.Enqueue(ctx, []notify.Delivery{delivery("told"), delivery("tried"), {Address: notify.Address{Channel: "d", Digest: true}, Event: notify.Event{ID: "digest", Type: notify.Test, Data: []byte("{}")}}, {Address: notify.Address{Channel: "d"}, Event: notify.Event{ID: "broken", Type: notify.Test, Data: []byte("{}")}}}))
	must(b.Retry(ctx, queued("tried"), noon.Add(time.Hour), "refused"))
	_, err = b.db.Exec("UPDATE outbox SET event = 'x' WHERE event_id = 'broken'")
	must(err)
	must(b.Announce(ctx, monitor.Announcement{ID: "a-1", Watch: "w", Digest: "sha256:" + strings.Repeat("ab", 32), By: "alice", CreatedAt: noon, ExpiresAt: noon.Add(time.Hour)}))
	must(b.AddToken(ctx, monitor.Token{ID: "t-1", Name: "reader", Scopes: []string{"read"}, CreatedAt: noon}, "secret", "alice"))
	must(b.AddSession(ctx, "session", monitor.Session{Name: "alice", Claims: []byte("{}"), ExpiresAt: noon.Add(time.Hour)}, noon))
	_, err = b.KeepHeard(ctx, "log", heardOf("heard"))
	must(err)
	must(b.KeepTrustRoot(ctx, &monitor.TrustRoot{Source: "sigstore", Document: []byte("{}")}, nil, noon))
	must(b.SetWitnessMark(ctx, 1))
	must(b.SealSpans(ctx, noon))
	// It writes a file beside the state as well, which is on no disk of this kind; the head is stored by then.
	_, _ = b.SignLedger(ctx, noon, signed, func(string) bool { return true })
	head, err := b.LastSigned(ctx)
	if must(err); head.Note == "" {
		t.Fatal("no head of the ledger was stored")
	}
	_, err = b.RecordPoll(ctx, "log", monitor.Poll{At: noon.Add(time.Minute), WatchSet: []string{"rule"}, Origin: "log", Name: "log"})
	must(err)
	must(b.witness.Advance(ctx, "log", witness.State{}, witnessed(7, 100)))
	must(b.witness.Doubt(ctx, "doubted", "it lied", witness.State{}))
	_, _, err = b.witness.AddListed(ctx, "list", []witness.Listed{{Key: "k", Origin: "listed", PerDay: 1}}, noon)
	must(err)
}

func delivery(id string) notify.Delivery {
	return notify.Delivery{Address: notify.Address{Channel: "c"}, Event: notify.Event{ID: id, Type: notify.Test, Data: []byte("{}")}}
}

func queued(id string) notify.Queued {
	return notify.Queued{Channel: "c", Event: notify.Event{ID: id}, Created: noon}
}

func heardOf(source string) monitor.Heard {
	return monitor.Heard{Size: 9, Root: checkpoint.HexHash{1}, Note: "note", Source: source, Since: noon}
}

func witnessed(size uint64, at int64) witness.State {
	return witness.State{Size: size, Root: checkpoint.Hash{byte(size)}, Note: []byte("note"), At: at}
}

func signed(_, text string) (string, error) { return text + "\n— k AAAAAAAA\n", nil }

// writes is every method that writes, and something for it to do.
var writes = map[string]func(both) error{
	"Store.Abandon": func(b both) error {
		return b.Abandon(ctx, "c", "gone", monitor.Incident{ID: "i-gone", State: "open", Kind: "delivery-failed", OpenedAt: noon})
	},
	"Store.Accepted": func(b both) error { return b.Accepted(ctx, "c", noon) },
	"Store.Act":      func(b both) error { return b.Act(ctx, monitor.Act{By: "alice", Action: "look", Subject: "x"}, noon) },
	"Store.AddSession": func(b both) error {
		return b.AddSession(ctx, "other", monitor.Session{Name: "bob", Claims: []byte("{}"), ExpiresAt: noon.Add(time.Hour)}, noon)
	},
	"Store.AddToken": func(b both) error {
		return b.AddToken(ctx, monitor.Token{ID: "t-2", Name: "second", Scopes: []string{"read"}, CreatedAt: noon}, "other", "alice")
	},
	"Store.Announce": func(b both) error {
		return b.Announce(ctx, monitor.Announcement{ID: "a-2", Watch: "w", Digest: "sha256:" + strings.Repeat("cd", 32), By: "alice", CreatedAt: noon, ExpiresAt: noon.Add(time.Hour)})
	},
	"Store.Begin": func(b both) error {
		_, err := b.Begin(ctx, []ledger.Rule{{Watch: "w", Hash: "rule"}}, func(string) bool { return true }, noon)
		return err
	},
	"Store.ClockStepped": func(b both) error { return b.ClockStepped(ctx, "c", noon.Add(-time.Hour), -time.Hour) },
	"Store.Commit": func(b both) error {
		old, err := b.State(ctx, "log")
		if err != nil {
			return err
		}
		next := old
		next.Scanned, next.HeadSize = 4, 4
		batch := batchOf(1)
		batch.Findings[0].ID, batch.Findings[0].Index = "f-new", 3
		batch.Coverage, batch.WatchSet = []monitor.Range{{From: 3, To: 4}}, []string{"rule"}
		_, err = b.Commit(ctx, "log", old, &next, batch)
		return err
	},
	"Store.CookieKey": func(b both) error { _, err := b.CookieKey(ctx); return err },
	"Store.Decide": func(b both) error {
		list, err := b.PendingFindings(ctx)
		if err != nil {
			return err
		}
		_, err = b.Decide(ctx, list, noon, func(f *monitor.Finding, _ monitor.Precedents) (bool, error) {
			f.State, f.Verdict, f.PendingUntil = monitor.StateOpen, "unexpected", nil
			return true, nil
		})
		return err
	},
	"Store.Delivered":  func(b both) error { return b.Delivered(ctx, queued("told"), noon) },
	"Store.Due":        func(b both) error { _, _, err := b.Due(ctx, "d", noon, 10, nil); return err },
	"Store.End":        func(b both) error { return b.End(ctx, noon) },
	"Store.EndSession": func(b both) error { return b.EndSession(ctx, "session") },
	"Store.Enqueue":    func(b both) error { return b.Enqueue(ctx, []notify.Delivery{delivery("new")}) },
	"Store.Escalate":   func(b both) error { _, err := b.Escalate(ctx, noon, noon, []string{"c"}); return err },
	"Store.FailDelivery": func(b both) error {
		return b.FailDelivery(ctx, queued("told"), "refused", &monitor.Incident{ID: "i-failed", State: "open", Kind: "delivery-failed", OpenedAt: noon})
	},
	"Store.Fold": func(b both) error {
		return b.Fold(ctx, "c", noon.Add(time.Hour), false, func(groups []notify.Group) []notify.Event {
			return []notify.Event{{ID: fmt.Sprintf("folded-%d", len(groups)), Type: notify.FindingsGrouped, Data: []byte("{}")}}
		})
	},
	"Store.Forget":            func(b both) error { _, err := b.Forget(ctx, ClassIncidents, noon, noon, 10); return err },
	"Store.ForgetHeard":       func(b both) error { return b.ForgetHeard(ctx, "log", heardOf("heard")) },
	"Store.ForgetWitnessMark": func(b both) error { return b.ForgetWitnessMark(ctx) },
	"Store.KeepHeard": func(b both) error {
		h := heardOf("other")
		h.Size = 11
		_, err := b.KeepHeard(ctx, "log", h)
		return err
	},
	"Store.KeepRules": func(b both) error { return b.KeepRules(ctx, map[string][]byte{"rule": []byte("{}")}) },
	"Store.KeepTrustRoot": func(b both) error {
		return b.KeepTrustRoot(ctx, &monitor.TrustRoot{Source: "sigstore", Document: []byte(`{"a":1}`)}, nil, noon)
	},
	"Store.PublishTried": func(b both) error {
		head, err := b.LastSigned(ctx)
		return errors.Join(err, b.PublishTried(ctx, head, noon))
	},
	"Store.Published": func(b both) error {
		head, err := b.LastSigned(ctx)
		return errors.Join(err, b.Published(ctx, head, ledger.Published{Origin: "log", Index: 1}, noon))
	},
	"Store.Record": func(b both) error { return b.Record(ctx, nil, []monitor.Resolution{{ID: "i-open", At: noon}}) },
	"Store.RecordPoll": func(b both) error {
		_, err := b.RecordPoll(ctx, "log", monitor.Poll{At: noon, Err: errors.New("down"), WatchSet: []string{"rule"}, Origin: "log", Name: "log"})
		return err
	},
	"Store.Release":        func(b both) error { return b.Release(ctx, "d") },
	"Store.Reported":       func(b both) error { return b.Reported(ctx, "report", noon, []notify.Delivery{delivery("report")}) },
	"Store.Resume":         func(b both) error { return b.Resume(ctx, "c", noon.Add(100*time.Hour)) },
	"Store.Retry":          func(b both) error { return b.Retry(ctx, queued("told"), noon.Add(time.Hour), "refused") },
	"Store.RevokeToken":    func(b both) error { _, err := b.RevokeToken(ctx, "reader", "alice", noon); return err },
	"Store.SealSpans":      func(b both) error { return b.SealSpans(ctx, noon.Add(2*time.Hour)) },
	"Store.SetWindow":      func(b both) error { return b.SetWindow(ctx, "c", notify.Window{Start: noon, Sent: 1}) },
	"Store.SetWitnessMark": func(b both) error { return b.SetWitnessMark(ctx, 2) },
	"Store.Triage": func(b both) error {
		return b.Triage(ctx, "f-0", monitor.Change{To: monitor.StateAcknowledged, By: "alice", Note: "seen", At: noon}, nil)
	},
	"Store.TrustFailed": func(b both) error {
		return b.TrustFailed(ctx, "sigstore", noon, "down")
	},
	"Store.Unroll":       func(b both) error { _, err := b.Unroll(ctx, "c", noon.Add(time.Hour), 10); return err },
	"Store.WatchedSince": func(b both) error { _, err := b.WatchedSince(ctx, "w", noon); return err },
	"Store.Withdraw":     func(b both) error { return b.Withdraw(ctx, "a-1", "alice", "never mind", noon) },
	"Witness.AddListed": func(b both) error {
		_, _, err := b.witness.AddListed(ctx, "list", []witness.Listed{{Key: "k2", Origin: "second", PerDay: 1}}, noon)
		return err
	},
	"Witness.Disable": func(b both) error { return b.witness.Disable(ctx, "listed", "it is gone") },
	"Witness.Doubt":   func(b both) error { return b.witness.Doubt(ctx, "log", "it lied", witnessed(7, 100)) },
	"Witness.Reject":  func(b both) error { return b.witness.Reject(ctx, "log", []byte("request"), noon) },
	"Witness.Trust":   func(b both) error { return b.witness.Trust(ctx, "doubted") },
	"Witness.commit":  func(b both) error { return b.witness.Advance(ctx, "log", witnessed(7, 100), witnessed(9, 200)) },
}

// TestEveryWriteIsWhole ends the process, and cuts the power, before and after each operation on the disk of
// every method that writes: what it writes is there as a whole, or not at all, and it is there once the method
// has returned. Methods are looked for in the source: none is left out.
func TestEveryWriteIsWhole(t *testing.T) {
	// What is on no disk of this kind is cut off by TestCrashPoints of the program.
	tried := append(slices.Collect(maps.Keys(writes)), "Store.SignLedger")
	slices.Sort(tried)
	if in := writesInSource(t); !slices.Equal(in, tried) {
		t.Errorf("methods that write are %v, and tried are %v", in, tried)
	}
	empty := simdisk.New()
	defer empty.Close()
	first := openBoth(t, empty)
	furnish(t, first)
	first.close()
	// What is left of what was not synced: nothing, half of it, and, as only the process ends, all. They
	// take turns; with SIGWARDEN_THOROUGH=1 each has its turn everywhere.
	shares := []float64{0, 0.5, -1}
	cuts := 0
	for _, name := range slices.Sorted(maps.Keys(writes)) {
		do := writes[name]
		d := empty.Clone()
		b := openBoth(t, d)
		before, made := b.dump(t), d.Ops()
		if err := do(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		ops, after := d.Ops()-made, b.dump(t)
		b.close()
		d.Close()
		if ops == 0 || after == before {
			t.Errorf("%s does nothing", name)
			continue
		}
		for at := 1; at <= ops; at++ {
			for _, fault := range []simdisk.Fault{simdisk.CutBefore, simdisk.CutAfter} {
				for i, share := range shares {
					if every() > 1 && (at+i)%len(shares) != 0 || testing.Short() && at%4 != 1 {
						continue
					}
					d := empty.Clone()
					b := openBoth(t, d)
					d.Inject(nth(at, fault))
					cut := false
					d.OnCut(func() { cut = true })
					err := do(b)
					where := fmt.Sprintf("%s, operation %d of %d, %v, %v kept", name, at, ops, fault, share)
					if !cut {
						t.Fatalf("%s: it was not reached", where)
					}
					b.close()
					if share >= 0 {
						d.PowerFails(rand.New(rand.NewPCG(uint64(at), uint64(fault))), share)
					}
					d.Inject(nil)
					d.Boot()
					b = openBoth(t, d)
					if got := b.dump(t); got != after && (got != before || err == nil) {
						t.Errorf("%s: it returned %v, and there is\n%s", where, err, difference(got, before, after))
					}
					for _, s := range []*Store{b.Store, b.witness.store} {
						if err := s.Check(ctx); err != nil {
							t.Errorf("%s: %v", where, err)
						}
					}
					if _, _, err := b.VerifyLedger(ctx); err != nil {
						t.Errorf("%s: %v", where, err)
					}
					if _, err := b.VerifyAudit(ctx, monitor.AuditHead{}); err != nil {
						t.Errorf("%s: %v", where, err)
					}
					b.close()
					d.Close()
					cuts++
				}
			}
		}
	}
	t.Logf("%d cuts in %d methods", cuts, len(writes))
}

// difference tells the lines of got that are neither in before nor in after.
func difference(got, before, after string) string {
	known := map[string]bool{}
	for line := range strings.Lines(before + after) {
		known[line] = true
	}
	var out strings.Builder
	for line := range strings.Lines(got) {
		if !known[line] {
			out.WriteString(line)
		}
	}
	doc, _ := json.Marshal(out.String())
	return string(doc)
}

// writesInSource are the methods that call write.
func writesInSource(t *testing.T) (list []string) {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil {
				continue
			}
			of, ok := f.Recv.List[0].Type.(*ast.StarExpr)
			if !ok {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if to, ok := call.Fun.(*ast.SelectorExpr); ok && to.Sel.Name == "write" && len(call.Args) == 3 {
					list = append(list, of.X.(*ast.Ident).Name+"."+f.Name.Name)
				}
				return true
			})
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
