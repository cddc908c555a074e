package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/notify"
)

var ctx = context.Background()

func open(t testing.TB, path string, opts Options) *Store {
	t.Helper()
	s, err := Open(ctx, path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func ack(s *Store, id, note string) error {
	return s.Triage(ctx, id, monitor.Change{To: monitor.StateAcknowledged, By: "alice", Note: note, At: time.Now()}, nil)
}

func batchOf(n int) monitor.Batch {
	var b monitor.Batch
	for i := range n {
		b.Findings = append(b.Findings, monitor.Finding{ID: fmt.Sprintf("f-%d", i), Index: uint64(i), State: "open", SeenAt: time.Unix(int64(i), 0), Leaf: make([]byte, 2000), SignedNote: "note",
			Channels: []string{"c"}})
	}
	return b
}

func TestMissingEmptyAndForeignFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "with space?and#more%.db")
	if _, err := Open(ctx, path, Options{}); !errors.Is(err, ErrMissing) {
		t.Errorf("missing: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was made without permission")
	}
	// What a crash in the middle of creation leaves is no obstacle.
	if err := os.WriteFile(path+".new", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, path, Options{Create: true})
	if !s.Created {
		t.Error("creation is not said")
	}
	s.Close()
	if s := open(t, path, Options{Create: true}); s.Created {
		t.Error("an existing file is said to be new")
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file has another name: %v", err)
	}
	for name, make := range map[string]func(string) error{
		"empty":       func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"text":        func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("hello ", 500)), 0o600) },
		"a directory": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		p := filepath.Join(dir, name)
		if err := make(p); err != nil {
			t.Fatal(err)
		}
		_, err := Open(ctx, p, Options{Create: true})
		if err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(ctx, filepath.Join(dir, "no", "folder.db"), Options{Create: true}); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("no folder: %v", err)
	}
}

func TestNewerSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := open(t, path, Options{Create: true})
	if _, err := s.db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(ctx, path, Options{}); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "99") {
		t.Errorf("%v", err)
	}
}

func TestExclusive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	a := open(t, path, Options{Create: true, Exclusive: true})
	if _, err := Open(ctx, path, Options{Exclusive: true}); !errors.Is(err, ErrLocked) {
		t.Errorf("second daemon: %v", err)
	}
	b := open(t, path, Options{}) // a command beside the daemon
	if _, err := b.Commit(ctx, "log", monitor.State{}, nil, batchOf(1)); err != nil {
		t.Error(err)
	}
	a.Close()
	open(t, path, Options{Exclusive: true})
}

// TestFullDisk: nothing of a batch is kept, the message says what to do, and
// the same batch goes through once there is room.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	open(t, path, Options{Create: true}).Close()
	full := open(t, path, Options{pragmas: "&_pragma=max_page_count(60)"})
	next := monitor.State{Name: "log", Scanned: 5}
	_, err := full.Commit(ctx, "log", monitor.State{}, &next, batchOf(500))
	if err == nil || !strings.Contains(err.Error(), "disk is full") {
		t.Fatalf("full disk: %v", err)
	}
	if next.Version != 0 {
		t.Error("a version was given to a state that was not stored")
	}
	if st, err := full.State(ctx, "log"); err != nil || st.Version != 0 {
		t.Errorf("state %+v, %v", st, err)
	}
	if list, _ := full.Findings(ctx, Filter{}); len(list) != 0 {
		t.Errorf("%d findings of a failed batch", len(list))
	}
	if n, _ := full.PendingDeliveries(ctx); n != 0 {
		t.Errorf("%d deliveries of a failed batch", n)
	}
	full.Close()
	s := open(t, path, Options{})
	rec, err := s.Commit(ctx, "log", monitor.State{}, &next, batchOf(500))
	if err != nil || len(rec.Findings) != 500 || next.Version != 1 {
		t.Errorf("with room: %d findings, %v", len(rec.Findings), err)
	}
}

func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := open(t, path, Options{Create: true})
	next := monitor.State{Name: "log"}
	if _, err := s.Commit(ctx, "log", monitor.State{}, &next, batchOf(300)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(data) / 2; i < len(data)/2+20000; i++ {
		data[i] ^= 0x5a
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, path, Options{}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged: %v", err)
	}
	if err := os.WriteFile(path, data[:len(data)/3], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, path, Options{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("truncated: %v", err)
	}
}

// TestReadOnlyDisk: as an ordinary user who may not write.
func TestReadOnlyDisk(t *testing.T) {
	if path := os.Getenv("SIGWARDEN_TEST_READONLY"); path != "" {
		_, err := Open(ctx, path, Options{})
		fmt.Println(err)
		return
	}
	dir, err := os.MkdirTemp("", "readonly")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s.db")
	open(t, path, Options{Create: true}).Close()
	t.Cleanup(func() { os.Chmod(dir, 0o700); os.RemoveAll(dir) })
	for what, modes := range map[string][2]os.FileMode{"file and folder": {0o444, 0o555}, "folder": {0o666, 0o555}, "file": {0o444, 0o777}} {
		os.Chmod(path, modes[0])
		os.Chmod(dir, modes[1])
		// The lock of an earlier run is there, or is not.
		for _, locked := range []bool{false, true} {
			os.Remove(path + ".migrate.lock")
			if locked {
				os.WriteFile(path+".migrate.lock", nil, 0o644)
			}
			if got := openAsNobody(t, path); !strings.Contains(got, "read-only") || !strings.Contains(got, path) {
				t.Errorf("%s: %s", what, got)
			}
		}
	}
}

// TestLeftovers: the files beside a state file that is gone would be read into
// a new one.
func TestLeftovers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := open(t, path, Options{Create: true})
	next := monitor.State{Name: "log"}
	if _, err := s.Commit(ctx, "log", monitor.State{}, &next, batchOf(3)); err != nil {
		t.Fatal(err)
	}
	wal, err := os.ReadFile(path + "-wal") // as a kill leaves it
	if err != nil || len(wal) == 0 {
		t.Fatal(err)
	}
	s.Close()
	os.Remove(path)
	if err := os.WriteFile(path+"-wal", wal, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, create := range []bool{true, false} {
		if _, err := Open(ctx, path, Options{Create: create}); err == nil || errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), path+"-wal") {
			t.Errorf("create %v: %v", create, err)
		}
	}
	os.Remove(path + "-wal")
	s = open(t, path, Options{Create: true})
	if st, err := s.State(ctx, "log"); err != nil || st.Version != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v: findings concern nobody else on the machine", info.Mode())
	}
}

// TestForeignDatabase: one of another program is refused and not touched.
func TestForeignDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE theirs (x)"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	before, _ := os.ReadFile(path)
	if _, err := Open(ctx, path, Options{Create: true, Exclusive: true}); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Errorf("%v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("it was changed")
	}
}

// TestOneLock: a symbolic link does not make a second state of one.
func TestOneLock(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "s.db"), filepath.Join(dir, "link.db")
	open(t, path, Options{Create: true, Exclusive: true})
	if err := os.Symlink(path, link); err != nil {
		t.Skip(err)
	}
	if _, err := Open(ctx, link, Options{Exclusive: true}); !errors.Is(err, ErrLocked) {
		t.Errorf("%v", err)
	}
}

// TestNewBaselineMeanwhile: what a scan read of a tree is not recorded for the
// one that has taken its place.
func TestNewBaselineMeanwhile(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	old := monitor.State{Name: "log"}
	if _, err := s.Commit(ctx, "log", monitor.State{}, &old, monitor.Batch{}); err != nil {
		t.Fatal(err)
	}
	next := old
	next.Epoch = "another tree"
	if _, err := s.Commit(ctx, "log", old, &next, monitor.Batch{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(ctx, "log", old, nil, batchOf(1)); !errors.Is(err, monitor.ErrConflict) {
		t.Errorf("%v", err)
	}
	if _, err := s.Commit(ctx, "log", next, nil, batchOf(1)); err != nil {
		t.Error(err)
	}
}

func TestAcknowledgeTwice(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	if _, err := s.Commit(ctx, "log", monitor.State{}, nil, batchOf(1)); err != nil {
		t.Fatal(err)
	}
	list, err := s.Findings(ctx, Filter{})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	for _, note := range []string{"first", "second"} {
		if err := ack(s, list[0].ID, note); err != nil {
			t.Fatal(err)
		}
	}
	if list, _ = s.Findings(ctx, Filter{}); list[0].Note != "first / second" {
		t.Errorf("note %q", list[0].Note)
	}
	if err := ack(s, "f-nope", "x"); !errors.Is(err, ErrNotFound) || strings.Contains(err.Error(), "writing") {
		t.Errorf("%v", err)
	}
}

// TestBrokenDelivery: one row that cannot be read does not block its lane.
func TestBrokenDelivery(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	for i, doc := range []string{"{", `{"id":"good"}`} {
		if _, err := s.db.Exec("INSERT INTO outbox (channel, event_id, event, created_at, attempts, due_at, state, error) VALUES ('c', $1, $2, 0, 0, 0, 'pending', '')", fmt.Sprint(i), doc); err != nil {
			t.Fatal(err)
		}
	}
	due, next, err := s.Due(ctx, "c", time.Now(), 10, nil)
	if err != nil || len(due) != 1 || due[0].Event.ID != "good" || !next.IsZero() {
		t.Errorf("%+v, %v, %v", due, next, err)
	}
	if c, err := s.Channels(ctx, []string{"c"}); err != nil || c[0].Pending != 1 || c[0].Failed != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	// What was tried in vain is shown: given up first, then what is tried again, and not what
	// nobody has tried yet.
	later := time.Now().Add(time.Hour)
	due[0].Event.ID = "1"
	if err := s.Retry(ctx, due[0], later, "refused"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec("INSERT INTO outbox (channel, event_id, event, created_at, attempts, due_at, state, error) VALUES ('c', 'new', '{}', 0, 0, 0, 'pending', '')"); err != nil {
		t.Fatal(err)
	}
	got, err := s.Troubles(ctx, []string{"other", "c"}, 5)
	if err != nil || len(got) != 2 || got[0].State != "failed" || !strings.Contains(got[0].Error, "cannot be read") || got[1].State != "pending" || got[1].Attempts != 1 || got[1].Error != "refused" || got[1].DueAt.Unix() != later.Unix() {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.Troubles(ctx, []string{"c"}, 0); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestHeldDeliveries: what is held is left out, and takes no place of others.
func TestHeldDeliveries(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	for i, id := range []string{"a", "b", "c", "d"} {
		if err := s.Enqueue(ctx, []notify.Delivery{{Address: notify.Address{Channel: "c", Due: time.Unix(int64(i+1), 0)}, Event: notify.Event{ID: id}}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		limit int
		held  []string
		want  string
	}{
		{2, nil, "[a b]"}, {2, []string{"a"}, "[b c]"}, {2, []string{"a", "c"}, "[b d]"}, {2, []string{"b", "elsewhere", "gone"}, "[a c]"},
		{4, []string{"d"}, "[a b c]"}, {4, []string{"a", "b", "c", "d"}, "[]"}, {0, []string{"a"}, "[]"},
	} {
		held := map[string]bool{}
		for _, id := range c.held {
			held[id] = true
		}
		due, next, err := s.Due(ctx, "c", time.Unix(100, 0), c.limit, held)
		got := []string{}
		for _, q := range due {
			got = append(got, q.Event.ID)
		}
		if err != nil || fmt.Sprint(got) != c.want || !next.IsZero() {
			t.Errorf("up to %d but for %v: %v, %v, %v, want %s", c.limit, c.held, got, next, err, c.want)
		}
	}
}

// TestManyUnreadable: however many deliveries cannot be read, those behind them are due.
func TestManyUnreadable(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	var all []notify.Delivery
	for i := range 10 {
		all = append(all, notify.Delivery{Address: notify.Address{Channel: "c", Due: time.Unix(int64(i+1), 0)}, Event: notify.Event{ID: fmt.Sprint("e", i)}})
	}
	if err := s.Enqueue(ctx, all); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec("UPDATE outbox SET event = 'x' WHERE event_id < 'e8'"); err != nil {
		t.Fatal(err)
	}
	due, _, err := s.Due(ctx, "c", time.Unix(100, 0), 3, nil)
	if err != nil || len(due) == 0 || due[0].Event.ID != "e8" {
		t.Errorf("%+v, %v", due, err)
	}
	failed := 0
	if err := s.db.QueryRow("SELECT COUNT(*) FROM outbox WHERE state = 'failed' AND error <> ''").Scan(&failed); err != nil || failed != 8 {
		t.Errorf("%d set aside, %v", failed, err)
	}
}

func TestCoverageMerges(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	add := func(set []string, from, to uint64) {
		t.Helper()
		if _, err := s.Commit(ctx, "log", monitor.State{}, nil, monitor.Batch{Coverage: []monitor.Range{{From: from, To: to}}, WatchSet: set}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(watch, want string) {
		t.Helper()
		got, err := s.Coverage(ctx, "log", watch)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("coverage of %s: %v (%v), want %s", watch, got, err, want)
		}
	}
	add([]string{"a", "b"}, 10, 20)
	add([]string{"b", "a"}, 20, 30) // touches
	want("a", "[{10 30}]")
	add([]string{"a", "b"}, 40, 50)
	add([]string{"a", "b"}, 28, 42) // bridges
	want("b", "[{10 50}]")
	add([]string{"a"}, 45, 60) // another set that holds a
	want("a", "[{10 60}]")
	want("b", "[{10 50}]")
	add([]string{"a"}, 70, 70) // nothing
	want("a", "[{10 60}]")
	want("c", "[]")
	if _, err := s.Commit(ctx, "log", monitor.State{}, nil, monitor.Batch{Reset: true}); err != nil {
		t.Fatal(err)
	}
	want("a", "[]")
}

func TestFindingsAreStoredOnce(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	b := batchOf(3)
	b.Findings[0].Proof = []checkpoint.Hash{{1}, {2}}
	for i, want := range []int{3, 0} {
		rec, err := s.Commit(ctx, "log", monitor.State{}, nil, b)
		if err != nil || len(rec.Findings) != want {
			t.Errorf("commit %d: %d new, %v", i, len(rec.Findings), err)
		}
	}
	if n, _ := s.PendingDeliveries(ctx); n != 3 {
		t.Errorf("%d deliveries", n)
	}
	f, err := s.Finding(ctx, "f-0")
	if err != nil || len(f.Proof) != 2 || len(f.Leaf) != 2000 || f.SignedNote != "note" {
		t.Errorf("%+v, %v", f, err)
	}
	if list, err := s.Findings(ctx, Filter{Limit: 2}); err != nil || len(list) != 2 || list[0].ID != "f-1" || list[1].ID != "f-2" {
		t.Errorf("newest two, oldest first: %v, %v", list, err)
	}
	if list, _ := s.Findings(ctx, Filter{Since: time.Unix(1, 0), Until: time.Unix(2, 0)}); len(list) != 1 || list[0].ID != "f-1" {
		t.Errorf("by time: %v", list)
	}
	if err := ack(s, "f-1", "seen"); err != nil {
		t.Fatal(err)
	}
	if f, _ := s.Finding(ctx, "f-1"); f.State != "acknowledged" || f.Note != "seen" {
		t.Errorf("%+v", f)
	}
	if open, _, _ := s.CountOpen(ctx); open != 2 {
		t.Errorf("%d open", open)
	}
	if err := ack(s, "f-9", "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// TestEvidenceIsBounded: what a log makes us keep is bounded, by incident and by log.
func TestEvidenceIsBounded(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	many := func(prefix string, n int) (list []monitor.Evidence) {
		for i := range n {
			list = append(list, monitor.Evidence{Name: fmt.Sprint(prefix, i), Data: []byte(fmt.Sprint(i))})
		}
		return list
	}
	next := monitor.State{Name: "log"}
	b := monitor.Batch{Open: []monitor.Incident{{ID: "i-1", LogID: "log", Kind: monitor.KindEntryMismatch, State: "open", OpenedAt: time.Now(), Evidence: many("first-", 20)}}}
	if _, err := s.Commit(ctx, "log", monitor.State{}, &next, b); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{monitor.CollectedPrefix, "served-"} {
		old, err := s.State(ctx, "log")
		if err != nil {
			t.Fatal(err)
		}
		next := old
		if _, err := s.Commit(ctx, "log", old, &next, monitor.Batch{Collect: map[string][]monitor.Evidence{"i-1": many(prefix, 200)}}); err != nil {
			t.Fatal(err)
		}
		inc, err := s.Incident(ctx, "i-1")
		if err != nil {
			t.Fatal(err)
		}
		want := maxEvidence
		if prefix == monitor.CollectedPrefix {
			want = maxCollected
		}
		if len(inc.Evidence) != want {
			t.Errorf("%d pieces of evidence after %s…, want %d", len(inc.Evidence), prefix, want)
		}
	}
	w, err := OpenWitness(ctx, filepath.Join(t.TempDir(), "w.db"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range 50 {
		if err := w.Reject(ctx, "log.example", fmt.Appendf(nil, "request %d", i), time.Unix(int64(i), 0)); err != nil {
			t.Fatal(err)
		}
	}
	var n int
	if err := w.store.db.QueryRow("SELECT COUNT(*) FROM rejected").Scan(&n); err != nil || n != maxRejected {
		t.Errorf("%d requests are kept, %v; want %d", n, err, maxRejected)
	}
}
