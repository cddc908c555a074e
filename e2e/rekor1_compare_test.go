package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-openapi/runtime"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/rekor/pkg/types"
	_ "github.com/sigstore/rekor/pkg/types/alpine/v0.0.1"
	cose1 "github.com/sigstore/rekor/pkg/types/cose/v0.0.1"
	_ "github.com/sigstore/rekor/pkg/types/dsse/v0.0.1"
	_ "github.com/sigstore/rekor/pkg/types/hashedrekord/v0.0.1"
	helm1 "github.com/sigstore/rekor/pkg/types/helm/v0.0.1"
	_ "github.com/sigstore/rekor/pkg/types/intoto/v0.0.1"
	intoto2 "github.com/sigstore/rekor/pkg/types/intoto/v0.0.2"
	_ "github.com/sigstore/rekor/pkg/types/jar/v0.0.1"
	_ "github.com/sigstore/rekor/pkg/types/rekord/v0.0.1"
	_ "github.com/sigstore/rekor/pkg/types/rfc3161/v0.0.1"
	_ "github.com/sigstore/rekor/pkg/types/rpm/v0.0.1"
	_ "github.com/sigstore/rekor/pkg/types/tuf/v0.0.1"

	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// compareTypes holds what we read in an entry against what rekor's own types do.
func compareTypes(t *testing.T, bodies [][]byte) {
	seen := map[string]int{}
	for i, body := range bodies {
		facts, err := entry.Decode(body)
		if err != nil {
			t.Errorf("entry %d: %v", i, err)
			continue
		}
		proposed, err := models.UnmarshalProposedEntry(bytes.NewReader(body), runtime.JSONConsumer())
		if err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		theirs, err := types.UnmarshalEntry(proposed)
		if err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		seen[facts.Kind+" "+facts.APIVersion]++
		if facts.Kind != proposed.Kind() || facts.APIVersion != theirs.APIVersion() {
			t.Errorf("entry %d: %s %s, theirs is %s %s", i, facts.Kind, facts.APIVersion, proposed.Kind(), theirs.APIVersion())
		}
		compareSigners(t, i, facts, theirs)
		compareDigests(t, i, facts, theirs)
	}
	for _, kind := range entry.Kinds() {
		if kind.APIVersion == "0.0.2" && kind.Name != "intoto" || kind.Name == "dsse" && kind.APIVersion != "0.0.1" {
			continue // Rekor v2
		}
		if seen[kind.Name+" "+kind.APIVersion] < 20 {
			t.Errorf("%s %s: %d entries, want 20", kind.Name, kind.APIVersion, seen[kind.Name+" "+kind.APIVersion])
		}
	}
}

// compareSigners wants the same subjects and the same fingerprints.
func compareSigners(t *testing.T, i int, facts entry.Facts, theirs types.EntryImpl) {
	t.Helper()
	if facts.Kind == "rfc3161" {
		if len(facts.Identities) != 0 {
			t.Errorf("entry %d: a time stamp signed by %v", i, facts.Identities)
		}
		return // they have none for it
	}
	keys, err := theirs.Verifiers()
	if err != nil {
		t.Errorf("entry %d (%s): %v", i, facts.Kind, err)
		return
	}
	var subjects, prints, wantSubjects, wantPrints []string
	for _, id := range facts.Identities {
		for _, s := range id.Subjects {
			subjects = append(subjects, s.Value)
		}
		own := id.Fingerprints()
		if id.Certificate != nil {
			own = own[:1] // that of the key is there for those who watch keys
		}
		for _, p := range own {
			prints = append(prints, bare(p))
		}
	}
	for _, k := range keys {
		wantSubjects = append(wantSubjects, k.Subjects()...)
		ids, err := k.Identities()
		if err != nil {
			t.Errorf("entry %d (%s): %v", i, facts.Kind, err)
		}
		for _, id := range ids {
			wantPrints = append(wantPrints, bare(id.Fingerprint))
		}
	}
	same(t, i, facts.Kind+" subjects", subjects, wantSubjects)
	same(t, i, facts.Kind+" fingerprints", prints, wantPrints)
}

// bare is a fingerprint without the name of its hash, which they leave out.
func bare(print string) string {
	return strings.TrimPrefix(strings.TrimPrefix(print, "sha256:"), "SHA256:")
}

func same(t *testing.T, i int, what string, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if got, want = slices.Compact(got), slices.Compact(want); !slices.Equal(got, want) {
		t.Errorf("entry %d: %s %q, theirs are %q", i, what, got, want)
	}
}

// compareDigests wants every digest of the artifact that their type knows, and
// none besides. That all are in the log's index is for compareSearch to see.
func compareDigests(t *testing.T, i int, facts entry.Facts, theirs types.EntryImpl) {
	t.Helper()
	artifact, err := theirs.ArtifactHash()
	if err != nil {
		t.Errorf("entry %d (%s): %v", i, facts.Kind, err)
	}
	want := []string{artifact}
	switch theirs := theirs.(type) {
	case *cose1.V001Entry:
		// The message itself, from which they make this index key, is not served.
		want = append(want, *theirs.CoseObj.Data.EnvelopeHash.Algorithm+":"+*theirs.CoseObj.Data.EnvelopeHash.Value)
	case *helm1.V001Entry: // their index keys need the provenance file, which is not served
	case *intoto2.V002Entry: // their index leaves this hash out
		want = append(want, *theirs.IntotoObj.Content.Hash.Algorithm+":"+*theirs.IntotoObj.Content.Hash.Value)
	default:
		index, err := theirs.IndexKeys()
		if err != nil {
			t.Errorf("entry %d (%s): %v", i, facts.Kind, err)
		}
		keys := map[string]bool{} // an envelope's index holds hashes of keys in the same form
		for _, id := range facts.Identities {
			for kind, der := range map[string][]byte{"CERTIFICATE": id.Certificate, "PUBLIC KEY": id.SPKI} {
				keys["sha256:"+hexSHA(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))] = true
			}
		}
		for _, k := range index {
			if algorithm, _, found := strings.Cut(k, ":"); found && strings.HasPrefix(algorithm, "sha") && !keys[k] {
				want = append(want, k)
			}
		}
	}
	same(t, i, facts.Kind+" digests", slices.Clone(facts.Digests), want)
}

// compareSearch asks the log's own index, on Redis, for what we found: each
// address, key and digest has to lead to the entry.
func compareSearch(t *testing.T, r *rekorV1, bodies [][]byte, uploads []upload, uuids []string, at map[string]uint64) {
	search := func(args ...string) []string {
		out, err := r.cli(append([]string{"search"}, args...)...)
		if err != nil {
			t.Error(err)
			return nil
		}
		var doc struct{ UUIDs []string }
		if err := json.Unmarshal(out, &doc); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return doc.UUIDs
	}
	known := map[string][]string{} // one answer serves all that ask alike
	contains := func(u upload, uuid string, args ...string) {
		t.Helper()
		query := strings.Join(args, " ")
		if _, asked := known[query]; !asked {
			known[query] = search(args...)
		}
		if !slices.ContainsFunc(known[query], func(found string) bool { return leafOf(found) == leafOf(uuid) }) {
			t.Errorf("%s %d (%s) is not found by %s", u.kind, at[uuid], uuid, query)
		}
	}
	for i, u := range uploads {
		facts, err := entry.Decode(bodies[at[uuids[i]]])
		if err != nil {
			t.Fatal(err)
		}
		if u.sha != "" && !slices.Contains(facts.Digests, "sha256:"+u.sha) {
			t.Errorf("%s %d: digests %q without %s", u.kind, at[uuids[i]], facts.Digests, u.sha)
		}
		for _, digest := range facts.Digests {
			// What the client cannot look up: the hash of this kind's envelope, which is
			// not in the index, and that of TUF metadata, which is there without the
			// name of its algorithm.
			if (u.kind == "intoto" || u.kind == "tuf") && digest != "sha256:"+u.sha {
				continue
			}
			contains(u, uuids[i], "--sha", strings.TrimPrefix(digest, "sha256:"))
		}
		if u.email != "" && u.kind != "jar" {
			contains(u, uuids[i], "--email", u.email)
		}
		switch {
		case u.key == "":
		case u.kind == "dsse" || strings.HasPrefix(u.kind, "intoto"):
			// The server files the keys of envelopes in another form than that in
			// which it looks up keys.
			pemKey, err := os.ReadFile(u.key)
			if err != nil {
				t.Fatal(err)
			}
			contains(u, uuids[i], "--sha", hexSHA(pemKey))
		default:
			contains(u, uuids[i], "--public-key", u.key, "--pki-format", u.format)
		}
	}
}

// leafOf is the leaf hash in a UUID, which may begin with the tree's id.
func leafOf(uuid string) string { return uuid[max(0, len(uuid)-2*sha256.Size):] }
