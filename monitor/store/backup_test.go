package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor"
)

// TestBackup takes copies while batches are committed: each is a state as it was between two of
// them, with as many findings as its log was moved on by.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "s.db"), Options{Create: true, Exclusive: true})
	var wg sync.WaitGroup
	stop := make(chan bool)
	wg.Go(func() {
		st := monitor.State{}
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			b := batchOf(3)
			for i := range b.Findings {
				b.Findings[i].ID = fmt.Sprintf("f-%d-%d", n, i)
			}
			next := st
			next.Name, next.Scanned, next.HeadSize = "log", st.Scanned+3, st.Scanned+3
			if _, err := s.Commit(ctx, "log", st, &next, b); err != nil {
				t.Error(err)
				return
			}
			st = next
		}
	})
	beside := open(t, filepath.Join(dir, "s.db"), Options{}) // a command while the daemon runs
	last := uint64(0)
	for i := range 10 {
		to := filepath.Join(dir, fmt.Sprintf("b%d.db", i))
		if err := beside.Backup(ctx, to); err != nil {
			t.Fatal(err)
		}
		c, err := Look(ctx, to)
		if err != nil {
			t.Fatal(err)
		}
		if c.Findings != c.Logs["log"].Scanned || c.Findings < last {
			t.Errorf("copy %d holds %d findings, of a log read to %d; the one before held %d", i, c.Findings, c.Logs["log"].Scanned, last)
		}
		last = c.Findings
		if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	if last == 0 {
		t.Error("nothing was written meanwhile")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "b*")); len(left) != 10 {
		t.Errorf("files: %v", left)
	}
}

func TestBackupReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "s.db"), Options{Create: true})
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(ctx, there); err == nil || !strings.Contains(err.Error(), "replaces nothing") {
		t.Errorf("%v", err)
	}
	if data, _ := os.ReadFile(there); string(data) != "mine" {
		t.Errorf("%q", data)
	}
	if err := s.Backup(ctx, filepath.Join(dir, "no", "folder")); err == nil {
		t.Error("a backup into a folder that is not there")
	}
}

func TestRestore(t *testing.T) {
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "s.db"), filepath.Join(dir, "b.db")
	s := open(t, path, Options{Create: true, Exclusive: true})
	if _, err := s.Commit(ctx, "log", monitor.State{}, &monitor.State{Name: "log", Scanned: 5}, batchOf(5)); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(ctx, backup); err != nil {
		t.Fatal(err)
	}
	old, err := s.State(ctx, "log")
	if err != nil {
		t.Fatal(err)
	}
	next := old
	next.Scanned = 9
	if _, err := s.Commit(ctx, "log", old, &next, batchOf(9)); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(ctx, backup, path, time.Now()); !errors.Is(err, ErrLocked) {
		t.Errorf("while it is used: %v", err)
	}
	s.Close()
	// A log of changes that was left is not read into the copy.
	if err := os.WriteFile(path+"-wal", []byte("left"), 0o600); err != nil {
		t.Fatal(err)
	}
	aside, err := Restore(ctx, backup, path, time.Unix(0, 0))
	if err != nil || !slices.Equal(aside, []string{path + ".before-19700101T000000Z", path + ".before-19700101T000000Z-wal"}) {
		t.Fatalf("%v, %v", aside, err)
	}
	again := open(t, path, Options{})
	if st, err := again.State(ctx, "log"); err != nil || st.Scanned != 5 {
		t.Errorf("%+v, %v", st, err)
	}
	os.Remove(aside[1])
	if c, err := Look(ctx, aside[0]); err != nil || c.Logs["log"].Scanned != 9 || c.Findings != 9 {
		t.Errorf("what was there: %+v, %v", c, err)
	}
	// What is no backup is put nowhere.
	for name, data := range map[string][]byte{"empty": nil, "text": bytes.Repeat([]byte("no "), 1000), "cut": cut(t, backup), "flipped": flipped(t, backup)} {
		bad := filepath.Join(dir, name)
		if err := os.WriteFile(bad, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(ctx, bad, path, time.Now()); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
	newer := filepath.Join(dir, "newer.db")
	if err := again.Backup(ctx, newer); err != nil {
		t.Fatal(err)
	}
	s = open(t, newer, Options{})
	if _, err := s.db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Restore(ctx, newer, path, time.Now()); !errors.Is(err, ErrNewer) {
		t.Errorf("of a newer version: %v", err)
	}
	if st, err := again.State(ctx, "log"); err != nil || st.Scanned != 5 {
		t.Errorf("after refused ones: %+v, %v", st, err)
	}
	// On a new machine there is nothing to move aside.
	if aside, err := Restore(ctx, backup, filepath.Join(dir, "new.db"), time.Now()); err != nil || len(aside) != 0 {
		t.Errorf("%v, %v", aside, err)
	}
}

func cut(t *testing.T, path string) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data[:len(data)/2]
}

// flipped has other bytes in the middle of a page of a table.
func flipped(t *testing.T, path string) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for page := 4096; page < len(data); page += 4096 {
		for i := range 64 {
			data[page+i] ^= 0xff
		}
	}
	return data
}

// TestRestoredWitness: what was promised is in doubt from the first moment, and a state that is
// there is not replaced.
func TestRestoredWitness(t *testing.T) {
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "s.db"), filepath.Join(dir, "b.db")
	open(t, path, Options{Create: true}).Close()
	w, err := OpenWitness(ctx, path, Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	promise := witness.State{Size: 7, Root: [32]byte{1}, Note: []byte("note"), At: 99}
	if err := w.Advance(ctx, "log.example", witness.State{}, promise); err != nil {
		t.Fatal(err)
	}
	if err := CopyWitness(ctx, path, WitnessPath(backup)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(dir, "new.db")
	open(t, elsewhere, Options{Create: true}).Close()
	if err := RestoreWitness(ctx, backup, elsewhere, "it was restored"); err != nil {
		t.Fatal(err)
	}
	got, err := OpenWitness(ctx, elsewhere, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	st, err := got.State(ctx, "log.example")
	if err != nil || st.Size != 7 || st.Doubt != "it was restored" {
		t.Errorf("%+v, %v", st, err)
	}
	later := promise
	later.Size, later.At = 8, 100
	if err := got.Advance(ctx, "log.example", promise, later); !errors.Is(err, witness.ErrConflict) {
		t.Errorf("signed while it is in doubt: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*restoring*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
