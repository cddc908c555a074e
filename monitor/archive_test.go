package monitor

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// TestArchiveIsBounded: however many checkpoints a log signs that cannot be judged, some are kept and the
// rest are told of; one that is there stays what it is.
func TestArchiveIsBounded(t *testing.T) {
	log, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	opener, err := checkpoint.ForOrigin(log.Origin(), log.PublicKeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	tn := &turn{}
	tn.desk = desk{runner: &runner{log: slog.New(slog.NewTextHandler(&said, nil))}, batch: &tn.batch}
	archive := func() checkpoint.Checkpoint {
		t.Helper()
		note, err := log.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		c, err := opener.Open(note)
		if err != nil {
			t.Fatal(err)
		}
		tn.batch.Pending = nil
		tn.archive(c, nil)
		tn.archived = append(tn.archived, tn.batch.Pending...)
		return c
	}
	for i := range maxPending + 1 {
		log.Append(fmt.Appendf(nil, "%d", i))
		archive()
	}
	if len(tn.archived) != maxPending || strings.Count(said.String(), "is full") != 1 {
		t.Fatalf("%d are kept, and said is %s", len(tn.archived), said.String())
	}
	// The newest of those that are kept comes again: its tiles may be new.
	c, err := opener.Open([]byte(tn.archived[maxPending-1].Note))
	if err != nil {
		t.Fatal(err)
	}
	tn.batch.Pending = nil
	tn.archive(c, nil)
	if len(tn.batch.Pending) != 1 || tn.batch.Pending[0].Size != c.Size() {
		t.Fatalf("%+v", tn.batch.Pending)
	}
}
