package e2e

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// TestLedgerIsPublished: the signed head of the ledger goes into a real Rekor v2 log, by
// its own API, and the ledger names the entry, which the log holds.
func TestLedgerIsPublished(t *testing.T) {
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	log := newRekorLog(t, "rekor.acme.example")
	dir := t.TempDir()
	storage := filepath.Join(dir, "storage")
	_, url := log.serve(t, storage)
	write(t, url, makeEvents(t, ca)[:3])
	front := httptest.NewServer(&tiles{dir: storage})
	defer front.Close()
	config := filepath.Join(dir, "c.yaml")
	text := fmt.Sprintf("state: state.db\nschedule: \"@every 1s\"\nlogs: [{name: acme, type: rekor-v2, url: %s, origin: %s, public_key: log.pub, ca: ca.pem, start: first}]\nwatchlist: [{name: ledger, match: [{digest: \"sha256:*\"}]}]\nledger: {publish: {log: acme, url: %s}}\n", front.URL, log.origin, url)
	for name, content := range map[string]string{config: text, filepath.Join(dir, "log.pub"): log.publicPEM, filepath.Join(dir, "ca.pem"): ca.ChainPEM()} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, code := sigwarden(t, config, "run", "--once"); code > 3 {
		t.Fatalf("status %d", code)
	}
	daemon := start(t, program(t, "sigwarden", "sigwarden"), "run", "-c", config)
	var row struct {
		Log  string
		Body struct {
			Index    uint64
			LeafHash string `json:"leaf_hash"`
			Head     struct{ Size uint64 }
		}
	}
	until(t, "the ledger says that its head is in the log", 30*time.Second, func() bool {
		out, _ := sigwarden(t, config, "ledger", "show")
		for line := range strings.Lines(out) {
			if strings.Contains(line, `"kind":"published"`) {
				return json.Unmarshal([]byte(line), &row) == nil
			}
		}
		return false
	})
	if row.Log != log.origin || row.Body.Head.Size == 0 {
		t.Errorf("%+v", row)
	}
	// The daemon reads the same log, and finds the entry there as it finds any other.
	until(t, "the entry is found in the log", 30*time.Second, func() bool {
		out, _ := sigwarden(t, config, "findings", "--json")
		var found []struct {
			Index    uint64
			LeafHash string `json:"leaf_hash"`
		}
		if json.Unmarshal([]byte(out), &found) != nil {
			return false
		}
		for _, f := range found {
			if f.Index == row.Body.Index && f.LeafHash == row.Body.LeafHash {
				return true
			}
		}
		return false
	})
	if code := daemon.stop(10 * time.Second); code != 0 {
		t.Errorf("status %d", code)
	}
	if _, code := sigwarden(t, config, "ledger", "verify"); code != 0 {
		t.Errorf("ledger verify: status %d", code)
	}
}
