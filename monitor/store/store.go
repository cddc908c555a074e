// Package store keeps what the monitor knows in one SQLite file: states of
// logs, findings, incidents with their evidence, coverage, and the outbox of
// notifications. All SQL is here. Times are stored as microseconds.
package store

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/sigwarden/sigwarden/internal/crash"
)

//go:embed migrations/*.sql witness/*.sql
var migrations embed.FS

// Errors of Open. They are wrapped with the file's name and what to do.
var (
	ErrMissing = errors.New("state file does not exist")
	ErrNewer   = errors.New("state file was written by a newer version of sigwarden")
	ErrLocked  = errors.New("another sigwarden is running on this state file")
)

// Options of Open.
type Options struct {
	// Create makes a state file that does not exist; otherwise that is ErrMissing.
	Create bool
	// Exclusive keeps every other exclusive user out until Close: the daemon.
	Exclusive bool
	// Version is that of the program, for the ledger.
	Version string
	// VFS, if not empty, is the file system of SQLite's on which an empty or a complete state
	// file is, in place of the machine's: of tests, that let disks fail. Nothing else is known
	// of it, so that it is not locked.
	VFS string
	// Now is the clock; default time.Now.
	Now func() time.Time
	// pragmas are added to the connection; tests fill disks with them.
	pragmas string
	// schema is the folder of its migrations; default migrations.
	schema string
}

// Store is an open state file. All methods may be called by several goroutines.
type Store struct {
	db      *sql.DB
	path    string
	schema  string
	version string
	vfs     string
	lock    *flock.Flock
	Created bool // by this Open
	run     run  // of the program that follows logs
	now     func() time.Time
}

// Open opens a state file, brings its schema up to date, and checks that it
// can be read.
func Open(ctx context.Context, path string, opts Options) (*Store, error) {
	// One file has one lock, whatever names lead to it.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	s := &Store{path: path, schema: cmp.Or(opts.schema, "migrations"), version: cmp.Or(opts.Version, "unknown"), vfs: opts.VFS, now: opts.Now}
	if s.now == nil {
		s.now = time.Now
	}
	if s.vfs == "" {
		if err := s.look(opts); err != nil {
			return nil, err
		}
	}
	if opts.Exclusive && s.vfs == "" {
		s.lock = flock.New(path + ".lock")
		ok, err := s.lock.TryLock()
		if err != nil {
			return nil, s.notWritable(err)
		}
		if !ok {
			return nil, fmt.Errorf("%s: %w; stop it, or give this one a state of its own", path, ErrLocked)
		}
	}
	if s.Created {
		if err := s.create(ctx, opts); err != nil {
			s.Close()
			return nil, err
		}
	}
	if err := s.open(ctx, path, opts); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Followed reports whether an exclusive user, the daemon, has a state file open.
func Followed(path string) (bool, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if _, err := os.Stat(path + ".lock"); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	lock := flock.New(path + ".lock")
	free, err := lock.TryLock()
	if err != nil {
		return false, fmt.Errorf("state file %s: %w", path, err)
	}
	return !free, lock.Unlock()
}

// look finds out whether there is a state file, and whether it can be one.
func (s *Store) look(opts Options) error {
	info, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.absent(opts)
	case err != nil:
		return fmt.Errorf("state file: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("state file %s is a directory or a device; name a file", s.path)
	case info.Size() == 0:
		// An empty file is what a failed copy leaves; taking it for a new state
		// would forget everything without a word.
		return fmt.Errorf("state file %s is empty: it was truncated. Restore it from a backup, or remove it to begin anew", s.path)
	}
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return s.notWritable(err)
	}
	defer f.Close()
	return s.ours(f)
}

func (s *Store) absent(opts Options) error {
	// SQLite would read what it finds there into the new file.
	for _, suffix := range []string{"-wal", "-journal"} {
		if info, err := os.Stat(s.path + suffix); err == nil && info.Size() > 0 {
			return fmt.Errorf("state file %s is gone, and %s is still there: it holds what was written last to it. Put the file back; or, to begin anew, remove %s and %s-shm too", s.path, s.path+suffix, s.path+suffix, s.path)
		}
	}
	if !opts.Create {
		return fmt.Errorf("%s: %w", s.path, ErrMissing)
	}
	if _, err := os.Stat(filepath.Dir(s.path)); err != nil {
		return fmt.Errorf("state file %s: its folder cannot be used: %w", s.path, err)
	}
	s.Created = true
	return nil
}

// notWritable explains that the state file, or its folder, cannot be written:
// SQLite needs both, also to read.
func (s *Store) notWritable(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("state file %s: %s (%w)", s.path, diskFull, err)
	}
	return fmt.Errorf("state file %s: it, or its folder, is read-only for this user, and both must be writable, also to read it: %w", s.path, err)
}

// create makes a new state file beside its place and moves it there once its
// schema is complete: a crash leaves all of it, or nothing.
func (s *Store) create(ctx context.Context, opts Options) error {
	building := s.path + ".new"
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(building + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("state file: %w", err)
		}
	}
	// What is in it concerns nobody else on this machine.
	f, err := os.OpenFile(building, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return s.notWritable(err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	if err := s.open(ctx, building, opts); err != nil {
		return err
	}
	if _, err := s.db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID)); err != nil {
		return s.explain("creating", err)
	}
	// Closing the last connection writes the log of changes into the file.
	if err := s.db.Close(); err != nil {
		return s.explain("creating", err)
	}
	s.db = nil
	crash.Before("a new state file")
	if err := os.Rename(building, s.path); err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	crash.After("a new state file")
	return nil
}

// connections is how many may read at once, one of them may write.
const connections = 4

func (s *Store) open(ctx context.Context, path string, opts Options) error {
	more := opts.pragmas
	if s.vfs != "" {
		more += "&vfs=" + s.vfs
	}
	dsn, err := dataSource(path, more)
	if err != nil {
		return err
	}
	if s.db, err = openSQLite(dsn); err != nil {
		return s.explain("opening", err)
	}
	s.db.SetMaxOpenConns(connections)
	s.db.SetMaxIdleConns(connections) // with what they have compiled
	if err := s.migrate(ctx); err != nil {
		return err
	}
	var verdict string
	if err := s.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return s.explain("checking", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("state file %[1]s is damaged (%[2]s). Restore it from a backup, and remove %[1]s-wal and %[1]s-shm first; a copy of all three is worth keeping for the findings in it", s.path, verdict)
	}
	return nil
}

// applicationID marks our files in SQLite's header: "sigw".
const applicationID = 0x73696777

// ours refuses a database of somebody else. It reads the header itself:
// opening it would already change it.
func (s *Store) ours(f *os.File) error {
	var header [72]byte
	if n, err := io.ReadFull(f, header[:]); err != nil || !bytes.HasPrefix(header[:n], []byte("SQLite format 3\x00")) {
		return fmt.Errorf("state file %s is damaged, or no state file. Restore it from a backup, and remove the files beside it that end in -wal and -shm first", s.path)
	}
	if id := binary.BigEndian.Uint32(header[68:]); id != applicationID {
		return fmt.Errorf("%s is a database of another program (application id %#x); name a file of sigwarden's own as `state`", s.path, id)
	}
	return nil
}

// dataSource names the file for the driver: pragmas there hold for every
// connection, and transactions take the write lock when they begin.
func dataSource(path, more string) (string, error) {
	return fileURL(path, "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_txlock=immediate"+more)
}

// fileURL names a file for the driver, whatever is in its path.
func fileURL(path, query string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	abs = filepath.ToSlash(abs)
	if runtime.GOOS == "windows" && !strings.HasPrefix(abs, "/") {
		abs = "/" + abs
	}
	return (&url.URL{Scheme: "file", Path: abs, RawQuery: query}).String(), nil
}

func (s *Store) migrate(ctx context.Context) error {
	if s.vfs == "" {
		// Two processes must not create the schema at once: goose has no lock here.
		lock := flock.New(s.path + ".migrate.lock")
		if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
			return s.notWritable(err)
		}
		defer lock.Unlock()
	}
	if err := s.db.PingContext(ctx); err != nil {
		return s.explain("opening", err)
	}
	sub, err := fs.Sub(migrations, s.schema)
	if err != nil {
		return err
	}
	if s.upToDate(ctx, sub) {
		return nil
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, s.db, sub, goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	have, newest, err := p.GetVersions(ctx)
	if err != nil {
		return s.explain("reading the schema version of", err)
	}
	if have > newest {
		return fmt.Errorf("%s has schema %d, this program knows %d: %w; use that version, or restore a backup from before the upgrade", s.path, have, newest, ErrNewer)
	}
	if have == newest {
		return nil
	}
	if _, err := p.Up(ctx); err != nil {
		return s.explain("bringing the schema up to date of", err)
	}
	return nil
}

// upToDate reports whether the newest migration was made, which one question tells; goose asks several.
func (s *Store) upToDate(ctx context.Context, sub fs.FS) bool {
	names, err := fs.Glob(sub, "*.sql")
	if err != nil {
		return false
	}
	newest, have := int64(0), int64(0)
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return false
		}
		newest = max(newest, version)
	}
	err = s.db.QueryRowContext(ctx, "SELECT MAX(version_id) FROM "+goose.DefaultTablename).Scan(&have)
	return err == nil && have == newest
}

// Close releases the file.
func (s *Store) Close() error {
	var err error
	if s.db != nil {
		err = s.db.Close()
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Unlock())
	}
	return err
}

const diskFull = "the disk is full. Nothing was lost: free some space; the same work is done again"

// explain says what a stranger can do about an error of the database.
func (s *Store) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	advice := ""
	var e *sqlite.Error
	if errors.As(err, &e) {
		code := e.Code() & 0xff
		if e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE {
			code = sqlite3.SQLITE_FULL // there is no room for the index of the log of changes
		}
		switch code {
		case sqlite3.SQLITE_FULL:
			advice = diskFull
		case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
			advice = "the file or its folder is read-only for this user, or missing. Make both writable"
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			advice = "the file is damaged or no state file. Restore it from a backup, and remove the files beside it that end in -wal and -shm first"
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			advice = "another process holds the file for too long. Find it and stop it"
		case sqlite3.SQLITE_IOERR:
			advice = "the disk reported an error. Check it"
		}
	}
	if advice == "" {
		return fmt.Errorf("%s state file %s: %w", doing, s.path, err)
	}
	return fmt.Errorf("%s state file %s: %s (%w)", doing, s.path, advice, err)
}

// write runs f in one transaction. After an error nothing of it is kept.
func (s *Store) write(ctx context.Context, doing string, f func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return s.explain(doing, err)
	}
	if err := f(tx); err != nil {
		tx.Rollback()
		if e := (*sqlite.Error)(nil); !errors.As(err, &e) {
			return err // not the database's
		}
		return s.explain(doing, err)
	}
	where := crash.Caller(0)
	crash.Before(where)
	if err := tx.Commit(); err != nil {
		tx.Rollback()
		return s.explain(doing, err)
	}
	crash.After(where)
	return nil
}

// querier is a database or a transaction, for reading.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// snapshot lets a function read everything as of one moment. It keeps nobody from
// writing.
func (s *Store) snapshot(ctx context.Context, f func(querier) error) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return s.explain("reading", err)
	}
	defer tx.Rollback()
	return f(tx)
}

func micros(t time.Time) int64 { return t.UnixMicro() }

func timeOf(us int64) time.Time { return time.UnixMicro(us).UTC() }

func timeOrNil(us sql.NullInt64) *time.Time {
	if !us.Valid {
		return nil
	}
	at := timeOf(us.Int64)
	return &at
}

func timeOrZero(us sql.NullInt64) time.Time {
	if !us.Valid {
		return time.Time{}
	}
	return timeOf(us.Int64)
}
