package corpus

import (
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// TestEntries: every entry is one that sigwarden understands in full, of the kinds and as
// different as was asked for, and each time the same.
func TestEntries(t *testing.T) {
	for _, v1 := range []bool{false, true} {
		c, err := New(Options{Certificates: 300, Seed: 7, V1: v1})
		if err != nil {
			t.Fatal(err)
		}
		kinds, prints, leaves, size := map[string]int{}, map[string]bool{}, map[[32]byte]bool{}, 0
		authority, err := entry.NewAuthorities(entry.Authority{Chain: c.CA.Chain()})
		if err != nil {
			t.Fatal(err)
		}
		const n = 3000
		m := c.Maker()
		for i, leaf := range c.Leaves(0, n) {
			f, err := entry.Decode(leaf)
			if err != nil || len(f.Identities) != 1 || len(f.Warnings) > 0 {
				t.Fatalf("entry %d: %v %q\n%s", i, err, f.Warnings, leaf)
			}
			id := &f.Identities[0]
			kind := f.Kind + " " + f.APIVersion
			if f.KeyOnly() {
				kind += " key"
			} else if len(id.Issuers) != 1 || len(id.Subjects) != 1 || !id.HasSCT || strings.Contains(id.Subjects[0].Value, "\x00") {
				t.Fatalf("%+v", id)
			} else if i < 5 && authority.Verify(id) == nil {
				t.Error("a certificate that nobody has signed is trusted")
			}
			kinds[kind]++
			for _, p := range id.Fingerprints() {
				prints[p] = true
			}
			leaves[sha256.Sum256(leaf)] = true
			size += len(leaf)
			if string(m.Append(nil, uint64(i))) != string(leaf) {
				t.Fatalf("entry %d is another one the second time", i)
			}
		}
		t.Logf("%v, %d fingerprints, %d bytes an entry", kinds, len(prints), size/n)
		if len(leaves) != n || len(kinds) != 3 || len(prints) < 2*300 || len(prints) > 5*300 {
			t.Errorf("%d different entries, kinds %v, %d fingerprints", len(leaves), kinds, len(prints))
		}
	}
}
