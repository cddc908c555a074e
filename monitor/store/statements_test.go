package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"modernc.org/sqlite"
)

// TestKeptStatements: a connection compiles a text once, hands what it has compiled to one user at a
// time, and keeps neither what has failed nor more than it may.
func TestKeptStatements(t *testing.T) {
	ctx := t.Context()
	dsn, err := dataSource(filepath.Join(t.TempDir(), "some.db"), "")
	if err != nil {
		t.Fatal(err)
	}
	db, err := openSQLite(dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "CREATE TABLE a (n INTEGER PRIMARY KEY, text TEXT); INSERT INTO a VALUES (1, 'one'), (2, 'two'), (3, 'three')"); err != nil {
		t.Fatal(err)
	}
	idle := func() map[string]sqliteStmt {
		t.Helper()
		var kept map[string]sqliteStmt
		c, err := db.Conn(ctx)
		if err == nil {
			defer c.Close()
			err = c.Raw(func(raw any) error { kept = raw.(*keeper).idle; return nil })
		}
		if err != nil {
			t.Fatal(err)
		}
		return kept
	}
	if n := len(idle()); n != 0 {
		t.Errorf("%d statements are kept of what makes a schema", n)
	}

	// Two at a time, one within the other, in one connection.
	const query = "SELECT n, text FROM a WHERE n >= $1 ORDER BY n"
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	read := func(from int, each func(n int)) (all string) {
		t.Helper()
		rows, err := tx.QueryContext(ctx, query, from)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var n int
			var text string
			if err := rows.Scan(&n, &text); err != nil {
				t.Fatal(err)
			}
			all += text + " "
			each(n)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return all
	}
	nobody := func(int) {}
	inner := ""
	if all := read(1, func(n int) { inner += read(n, nobody) + "/" }); all != "one two three " || inner != "one two three /two three /three /" {
		t.Errorf("read %q, and within it %q", all, inner)
	}
	first := ""
	if all := read(2, nobody) + read(1, nobody); all != "two three one two three " {
		t.Errorf("read %q", all)
	}
	// Rows that are left in the middle hold nobody up.
	rows, err := tx.QueryContext(ctx, query, 1)
	if err != nil || !rows.Next() {
		t.Fatal("no row, ", err)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRowContext(ctx, query, 3).Scan(new(int), &first); err != nil || first != "three" {
		t.Errorf("%q, %v", first, err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	one := idle()[query]
	if len(idle()) != 1 || one == nil {
		t.Errorf("kept is %v, want the one that was used", idle())
	}
	if err := db.QueryRowContext(ctx, query, 2).Scan(new(int), &first); err != nil || first != "two" || idle()[query] != one {
		t.Errorf("%q, %v; the same statement again: %v", first, err, idle()[query] == one)
	}

	// One that fails is not kept, and works again.
	const insert = "INSERT INTO a VALUES ($1, $2)"
	for _, c := range []struct {
		n  int
		ok bool
	}{{4, true}, {4, false}, {5, true}} {
		_, err := db.ExecContext(ctx, insert, c.n, "more")
		if _, there := idle()[insert]; (err == nil) != c.ok || there != c.ok {
			t.Errorf("inserting %d: %v, kept: %v", c.n, err, there)
		}
	}
	// Who does not wait for the rest of an answer keeps nothing locked.
	for range 20 {
		ended, end := context.WithCancel(ctx)
		rows, err := db.QueryContext(ended, "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 1000000) SELECT c.n, a.text FROM c, a WHERE a.n = $1", 1)
		if err != nil {
			t.Fatal(err)
		}
		end()
		n := 0
		for rows.Next() {
			n++
		}
		if err := rows.Err(); !errors.Is(err, context.Canceled) || n == 1000000 {
			t.Fatalf("%d rows, %v", n, err)
		}
		var busy, log, done int
		if err := db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done); err != nil || busy != 0 {
			t.Fatalf("busy %d, %v", busy, err)
		}
	}

	// A schema may change between.
	if _, err := db.ExecContext(ctx, "ALTER TABLE a RENAME COLUMN text TO word"); err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRowContext(ctx, query, 1).Scan(new(int), &first); err == nil {
		t.Error("a column that is no more was read")
	}
	if err := db.QueryRowContext(ctx, "SELECT word FROM a WHERE n = 1").Scan(&first); err != nil || first != "one" {
		t.Errorf("%q, %v", first, err)
	}

	// What is not kept any more takes no memory.
	used := func() (n int) {
		t.Helper()
		c, err := db.Conn(ctx)
		if err == nil {
			defer c.Close()
			err = c.Raw(func(raw any) (err error) {
				n, _, err = raw.(*keeper).Unwrap().(sqlite.DBStatus).Status(sqlite.DBStatusStmtUsed, false)
				return err
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	after := 0
	for n := range 4 * mostKept {
		if err := db.QueryRowContext(ctx, fmt.Sprintf("SELECT %d", n)).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(ctx, insert, 5, "twice"); err == nil {
			t.Fatal("inserted")
		}
		if tx, err = db.BeginTx(ctx, nil); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if rows, err = tx.QueryContext(ctx, "SELECT n FROM a"); err != nil || !rows.Next() {
				t.Fatal("no row, ", err)
			}
			defer rows.Close()
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if n == mostKept {
			after = used()
		}
	}
	if n := len(idle()); n != mostKept {
		t.Errorf("%d statements are kept, want %d", n, mostKept)
	}
	if n := used(); n == 0 || n > after+after/10 {
		t.Errorf("statements take %d bytes, and took %d when as many were kept", n, after)
	}
}

// TestEverybodyWrites: more transactions than there are connections end, each with several
// statements; none waits for a connection that another one holds.
func TestEverybodyWrites(t *testing.T) {
	st := open(t, filepath.Join(t.TempDir(), "state.db"), Options{Create: true})
	done := make(chan error)
	const writers = 12
	for n := range writers {
		go func() {
			done <- st.write(t.Context(), "writing", func(tx *sql.Tx) error {
				var have int
				if err := tx.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM watches WHERE name LIKE 'writer%'").Scan(&have); err != nil {
					return err
				}
				_, err := tx.ExecContext(t.Context(), "INSERT INTO watches (name, since) VALUES ($1, $2)", fmt.Sprintf("writer %d", n), have)
				return err
			})
		}()
	}
	for range writers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	var n, distinct int
	if err := st.db.QueryRowContext(t.Context(), "SELECT COUNT(*), COUNT(DISTINCT since) FROM watches WHERE name LIKE 'writer%'").Scan(&n, &distinct); err != nil || n != writers || distinct != writers {
		t.Errorf("%d rows, %d of them different, %v; want %d", n, distinct, err, writers)
	}
}
