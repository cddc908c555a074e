package store

import (
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/sigwarden/sigwarden/monitor"
)

// TestUpgrade: a state file of before policies were more than patterns is brought
// up to date with what is in it: findings stay, and what waits is delivered.
func TestUpgrade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dsn, err := dataSource(path, "")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, sub, goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(ctx, 4); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		fmt.Sprintf("PRAGMA application_id = %d", applicationID),
		`INSERT INTO findings (id, log_id, log_name, idx, watch, verdict, severity, state, note, seen_at, size, root, document, leaf, proof) VALUES ('f-1', 'log', 'log', 7, 'w', 'unexpected', 'critical', 'open', '', 5, 8, 'aa', '{"id":"f-1","log":"log","watch":"w","verdict":"unexpected","severity":"critical"}', 'leaf', '')`,
		`INSERT INTO outbox (channel, event_id, event, created_at, attempts, due_at, state, error) VALUES ('chat', 'e-1', '{"id":"e-1","type":"finding.unexpected"}', 5, 3, 5, 'pending', 'timeout')`,
		`INSERT INTO channels (name, last_success) VALUES ('chat', 4)`,
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, path, Options{})
	due, _, err := s.Due(ctx, "chat", time.Now(), 10, nil)
	if err != nil || len(due) != 1 || due[0].Event.ID != "e-1" || due[0].Attempts != 3 {
		t.Errorf("%+v, %v", due, err)
	}
	list, err := s.Findings(ctx, Filter{})
	if err != nil || len(list) != 1 || list[0].State != monitor.StateOpen || list[0].ChangedAt != nil {
		t.Errorf("%+v, %v", list, err)
	}
	// What was told under the old version is not told again, and can be decided.
	if n, err := s.Unroll(ctx, "chat", time.Now(), 10); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := ack(s, "f-1", "seen"); err != nil {
		t.Error(err)
	}
	if head, err := s.VerifyAudit(ctx, monitor.AuditHead{}); err != nil || head.N != 1 {
		t.Errorf("%+v, %v", head, err)
	}
	if c, err := s.Channels(ctx, []string{"chat"}); err != nil || c[0].Pending != 1 || c[0].LastSuccess == nil || c[0].FailingSince == nil {
		t.Errorf("%+v, %v", c, err)
	}
}
