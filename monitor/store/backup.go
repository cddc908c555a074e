package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"

	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/internal/crash"
	"github.com/sigwarden/sigwarden/monitor"
)

// A backup is a state file like any other, as it was at one moment, in one piece: it needs no file
// beside it.

// Backup writes a copy of the state to a file that does not exist yet, while others go on using it.
// A crash leaves all of the copy, or nothing of that name.
func (s *Store) Backup(ctx context.Context, to string) (err error) {
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists already, or cannot be looked at; a backup replaces nothing", to)
	}
	building := to + ".new"
	if err := os.Remove(building); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("backup: %w", err)
	}
	// SQLite writes into an empty file, which nobody else may read.
	f, err := os.OpenFile(building, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(building)
		}
	}()
	if err := f.Close(); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if _, err := s.db.ExecContext(ctx, "VACUUM INTO $1", building); err != nil {
		return fmt.Errorf("backup to %s: %w", to, s.explain("copying", err))
	}
	if _, err := look(ctx, building, s.schema); err != nil {
		return fmt.Errorf("the backup that was made is not in order: %w", err)
	}
	if err := syncFile(building); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	crash.Before("a backup")
	if err := os.Rename(building, to); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	crash.After("a backup")
	return syncDir(filepath.Dir(to))
}

// CopyWitness writes a copy of the state of the witness beside a state file, which others may use
// meanwhile; see Store.Backup.
func CopyWitness(ctx context.Context, state, to string) error {
	s, err := Open(ctx, WitnessPath(state), Options{schema: "witness"})
	if err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	defer s.Close()
	return s.Backup(ctx, to)
}

// RestoreWitness puts the copy beside a backup beside a state file that has none: all that it has
// promised is doubted from the start, for a reason, until somebody trusts it.
func RestoreWitness(ctx context.Context, backup, state, reason string) (err error) {
	if _, err := look(ctx, WitnessPath(backup), "witness"); err != nil {
		return err
	}
	building := state + ".restoring"
	file := WitnessPath(building)
	if err := copyFile(WitnessPath(backup), file); err != nil {
		return fmt.Errorf("copying %s: %w", WitnessPath(backup), err)
	}
	defer func() {
		for _, suffix := range []string{"", "-wal", "-shm", ".lock", ".migrate.lock"} {
			os.Remove(file + suffix)
		}
	}()
	w, err := OpenWitness(ctx, building, Options{})
	if err != nil {
		return err
	}
	all, err := w.All(ctx)
	for _, p := range all {
		err = errors.Join(err, w.Doubt(ctx, p.Origin, reason, witness.State{}))
	}
	// Closing the last connection writes the log of changes into the file.
	if err = errors.Join(err, w.Close(), OwnAs(file, state), syncFile(file)); err != nil {
		return err
	}
	crash.Before("restoring the witness")
	if err := os.Rename(file, WitnessPath(state)); err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	crash.After("restoring the witness")
	return syncDir(filepath.Dir(state))
}

// WitnessPath is the file of the witness beside a state file.
func WitnessPath(state string) string { return state + witnessSuffix }

// Contents say how far a state file has come.
type Contents struct {
	// Logs are their states, by id.
	Logs map[string]monitor.State
	// Rows are those of the ledger, Findings and Decisions all that are kept.
	Rows, Findings, Decisions uint64
	// Seen is when the program that follows logs wrote last; zero: never.
	Seen time.Time
}

// Look reads a state file that nobody uses, and changes nothing. All of it is checked: an error says
// what is wrong with it.
func Look(ctx context.Context, path string) (Contents, error) { return look(ctx, path, "migrations") }

func look(ctx context.Context, path, schema string) (c Contents, err error) {
	s := &Store{path: path, schema: schema}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return c, err
	case !info.Mode().IsRegular():
		return c, fmt.Errorf("%s is a directory or a device; name a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return c, err
	}
	err = s.ours(f)
	f.Close()
	if err != nil {
		return c, err
	}
	dsn, err := fileURL(path, "mode=ro&immutable=1")
	if err != nil {
		return c, err
	}
	if s.db, err = openSQLite(dsn); err != nil {
		return c, s.explain("opening", err)
	}
	defer s.db.Close()
	if err := s.Check(ctx); err != nil {
		return c, err
	}
	var have, newest int64
	if err := s.db.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version").Scan(&have); err != nil {
		return c, s.explain("reading the schema version of", err)
	}
	steps, err := fs.Glob(migrations, schema+"/*.sql")
	if err != nil {
		return c, err
	}
	if _, err := fmt.Sscanf(filepath.Base(steps[len(steps)-1]), "%d_", &newest); err != nil {
		return c, err
	}
	if have > newest {
		return c, fmt.Errorf("%s has schema %d, this program knows %d: %w; use that version", path, have, newest, ErrNewer)
	}
	return s.Contents(ctx)
}

// Contents say how far the state has come.
func (s *Store) Contents(ctx context.Context) (c Contents, err error) {
	have := func(table string) (yes bool) {
		var n int
		err = errors.Join(err, s.explain("reading", s.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1", table).Scan(&n)))
		return n > 0
	}
	count := func(what *uint64, query string) {
		err = errors.Join(err, s.explain("reading", s.db.QueryRowContext(ctx, query).Scan(what)))
	}
	// Tables of later versions are not there in a backup from before the upgrade.
	if have("logs") {
		var logsErr error
		c.Logs, logsErr = s.States(ctx)
		err = errors.Join(err, logsErr)
	}
	if have("findings") {
		count(&c.Findings, "SELECT COUNT(*) FROM findings")
	}
	if have("audit") {
		count(&c.Decisions, "SELECT COUNT(*) FROM audit")
	}
	if have("ledger_head") {
		var seen uint64
		count(&c.Rows, "SELECT COALESCE(MAX(size), 0) FROM ledger_head")
		if count(&seen, "SELECT COALESCE(MAX(seen), 0) FROM ledger_head"); seen > 0 {
			c.Seen = time.UnixMicro(int64(seen)).UTC()
		}
	}
	return c, err
}

// Check reads all of a state, and says what is damaged.
func (s *Store) Check(ctx context.Context) error {
	var verdict string
	if err := s.db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&verdict); err != nil {
		return s.explain("checking", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("state file %s is damaged (%s)", s.path, verdict)
	}
	return nil
}

// Restore puts a backup in the place of a state file that nobody uses. What was there is moved
// aside, to names that are returned. A crash leaves one or the other.
func Restore(ctx context.Context, backup, path string, at time.Time) (aside []string, err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if _, err := Look(ctx, backup); err != nil {
		return nil, err
	}
	lock := flock.New(path + ".lock")
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w", path, err)
	}
	if !ok {
		return nil, fmt.Errorf("%s: %w; stop it first", path, ErrLocked)
	}
	defer lock.Unlock()
	building := path + ".new"
	if err := copyFile(backup, building); err != nil {
		return nil, fmt.Errorf("copying %s: %w", backup, err)
	}
	like := path
	if _, err := os.Stat(like); errors.Is(err, fs.ErrNotExist) {
		like = filepath.Dir(path) // a new machine
	}
	if err := OwnAs(building, like); err != nil {
		return nil, err
	}
	// The file goes before its log of changes: what a crash leaves between is no state file, and
	// is told as that (absent).
	old := path + ".before-" + at.UTC().Format("20060102T150405Z")
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		crash.Before("restoring: moving what is there away")
		err := os.Rename(path+suffix, old+suffix)
		crash.After("restoring: moving what is there away")
		switch {
		case err == nil:
			aside = append(aside, old+suffix)
		case !errors.Is(err, fs.ErrNotExist):
			return aside, fmt.Errorf("state file %s could not be moved aside: %w", path+suffix, err)
		}
	}
	crash.Before("restoring")
	if err := os.Rename(building, path); err != nil {
		return aside, fmt.Errorf("state file: %w", err)
	}
	crash.After("restoring")
	return aside, syncDir(filepath.Dir(path))
}

// copyFile copies a file to a new one that nobody else may read, down to the disk.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			os.Remove(to)
		}
	}()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Sync()
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncDir makes a change of names last, where folders can be synced.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil || runtime.GOOS == "windows" {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
