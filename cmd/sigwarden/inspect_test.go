package main

import (
	"bytes"
	"encoding/base64"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// realBundles is the folder of real bundles inside the sigstore-go module.
func realBundles(dir string) (string, error) {
	out, err := exec.Command("go", "-C", dir, "list", "-m", "-f", "{{.Dir}}", "github.com/sigstore/sigstore-go").Output()
	return filepath.Join(strings.TrimSpace(string(out)), "pkg", "testing", "data"), err
}

// seen is what inspect has to see in a real object.
type seen struct {
	kind, leaf   string // the leaf hash begins so
	digests      []string
	subject      string
	issuer       string
	print        string // the fingerprint begins so
	trigger, sha string // extensions, for certificates of workflows
	warnings     []string
}

const (
	githubIssuer = "https://token.actions.githubusercontent.com"
	beacon       = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main"
	beaconDigest = "sha256:a0cfc71271d6e278e57cd332ff957c3f7043fdda354c4cbb190a30d56efa01bf"
)

var npmProvenance = seen{kind: "intoto 0.0.2", leaf: "83c4d5305de1", digests: []string{"sha256:0742a6fe2a91eb7e2c274144f6123f59a799732c9d9bfd3b7feac487f72eb44c", "sha256:e0cf85428344d4ff177a8edc431e3f92b448775a2b00b7fcd7a7ab3d2f98ecac"},
	subject: "https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/main", issuer: githubIssuer, print: "sha256:5e38b9a130e5", trigger: "push", sha: "f0b49a04e5a62250e0f60fb128004a73110fe311"}

// checkInspect holds what inspect sees in a file against what it has to see.
func checkInspect(t *testing.T, path string, want seen) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	leaves, err := leavesIn(data)
	if err != nil || len(leaves) != 1 {
		t.Fatalf("%s: %d leaves, %v", path, len(leaves), err)
	}
	d := inspect(leaves[0])
	name := filepath.Base(path)
	if !d.Understood || d.Kind+" "+d.APIVersion != want.kind || !strings.HasPrefix(d.LeafHash, want.leaf) || !slices.Equal(d.Digests, want.digests) || len(d.Identities) != 1 {
		t.Fatalf("%s: %+v, want %+v", name, d, want)
	}
	if want.warnings == nil {
		want.warnings = []string{}
	}
	if !slices.Equal(d.Warnings, want.warnings) {
		t.Errorf("%s: warnings %q, want %q", name, d.Warnings, want.warnings)
	}
	id := d.Identities[0]
	if strings.Join(id.Subjects, " ") != want.subject || id.Issuer != want.issuer || !strings.HasPrefix(id.Fingerprint, want.print) {
		t.Errorf("%s: %+v, want %+v", name, id, want)
	}
	if (want.subject == "") != (id.Certificate == nil) {
		t.Fatalf("%s: certificate %+v", name, id.Certificate)
	}
	if id.Certificate == nil {
		return
	}
	if e := id.Certificate.Extensions; e["build-trigger"] != want.trigger || e["source-repository-digest"] != want.sha {
		t.Errorf("%s: trigger %q, digest %q; want %q, %q", name, e["build-trigger"], e["source-repository-digest"], want.trigger, want.sha)
	}
}

func TestInspectModuleBundles(t *testing.T) {
	dir, err := realBundles(".")
	if err != nil {
		t.Fatal(err)
	}
	dsse := seen{kind: "intoto 0.0.2", leaf: "6cba4f2b6621", digests: []string{"sha256:8a75f6c8dc4d9f407285bb49d3e019a5e666f43499c2707d9289aa27c3c2a67e", "sha256:66b3dcfca659e5d505602c3c9af8fd2bf6a4afacac33b175e1d7e0ecab10f890"},
		subject: "brian@dehamer.com", issuer: "https://github.com/login/oauth", print: "sha256:c2030ffd6944"}
	for name, want := range map[string]seen{
		"sigstore.js@2.0.0-provenance": npmProvenance,
		"dsse":                         dsse,
		"dsse-2sigs":                   dsse, // the second signature was added to the bundle, not to the log
		"othername": {kind: "hashedrekord 0.0.1", leaf: "d18a0b811c72", digests: []string{"sha256:bc103b4a84971ef6459b294a2b98568a2bfb72cded09d4acd1e16366a401f95b"},
			subject: "foo!oidc.local", issuer: "http://oidc.local:8080", print: "sha256:6e77828b8e93"},
	} {
		checkInspect(t, filepath.Join(dir, "bundles", name+".sigstore.json"), want)
	}
	// One without a log entry: no monitor can ever see it.
	data, err := os.ReadFile(filepath.Join(dir, "bundles", "public-key-validity.sigstore.json"))
	if err != nil {
		t.Fatal(err)
	}
	if leaves, err := leavesIn(data); err == nil {
		t.Errorf("a bundle that was never logged has %d leaves", len(leaves))
	}
}

func TestInspectRealData(t *testing.T) {
	dir := os.Getenv("SIGWARDEN_REALDATA")
	if dir == "" {
		t.Skip("SIGWARDEN_REALDATA is not set: real bundles are not read")
	}
	v1of2023 := seen{kind: "hashedrekord 0.0.1", leaf: "86407f5cc9c6", digests: []string{beaconDigest}, subject: beacon, issuer: githubIssuer, print: "sha256:1cfaecf4c039", trigger: "workflow_dispatch", sha: "af785b6d3b0fa0c0aa1305faee7ce6036e8d90c4"}
	v1of2024 := seen{kind: "hashedrekord 0.0.1", leaf: "aee3c920bb11", digests: []string{beaconDigest}, subject: beacon, issuer: githubIssuer, print: "sha256:1d14e1e52767", trigger: "workflow_dispatch", sha: "c7b3dfb335f051e1c86bda4c716fac97df62ad81"}
	staging := seen{kind: "hashedrekord 0.0.2", leaf: "78470eff2921", digests: []string{beaconDigest}, subject: beacon, issuer: githubIssuer, print: "sha256:bb2b81c4f07d", trigger: "workflow_dispatch", sha: "9739798945b2a848e911bcf1dddb97298cade0b1"}
	for name, want := range map[string]seen{
		// What is wrong with the bad ones is in their proofs: inspect verifies none.
		"bad-bundle-v1-checkpoint-keyhint":                v1of2023,
		"bad-bundle-v1-inclusion-hash":                    v1of2024,
		"bundle-v1-hashedrekord-2023-timestamp-extension": v1of2023,
		"bundle-v1-hashedrekord-2024-shard2605":           v1of2024,
		"bundle-v1-dsse-2024-shard1193": {kind: "dsse 0.0.1", leaf: "875d33538d49", digests: []string{"sha256:d6b209ba9dde3b1ee5edebb88d1b1b917b72eeb614328e7ba667f5b7ab70e987", "sha256:5608b4de188cd2cf3b6d79691c3160fd6feeec897b34a8e48fcf465323c23a73"},
			subject: beacon, issuer: githubIssuer, print: "sha256:08e159b42a87", trigger: "workflow_dispatch", sha: "82a3bfe6dd50fe9c71d6315eae66da15307856cf"},
		"bundle-v1-intoto002-npm-provenance": npmProvenance,
		"bundle-v2-production-hashedrekord002": {kind: "hashedrekord 0.0.2", leaf: "0d094aafa297", digests: []string{"sha256:68e656b251e67e8358bef8483ab0d51c6619f3e7a1a9f0e75838d41ff368f728"},
			print: "sha256:316bc733d37f", warnings: []string{"signed with a bare key: no watch for a subject can see this entry"}},
		"bundle-v2-staging-alpha1-hashedrekord":              staging,
		"bundle-v2-staging-alpha1-one-synthetic-cosignature": staging,
	} {
		checkInspect(t, filepath.Join(dir, name+".json"), want)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*bundle-*.json"))
	if err != nil || len(files) != 9 {
		t.Errorf("%d bundles, %v: want the 9 above", len(files), err)
	}
}

// FuzzInspect: whatever file is looked at, something is said of each of its entries, and the
// configuration that is made of a release is one.
func FuzzInspect(f *testing.F) {
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	for _, id := range []testca.Identity{
		{URI: demoRelease, Issuer: demoIssuer, Extensions: map[int]string{11: "release", 12: "https://github.com/acme/app"}},
		{Email: "someone@acme.example", Issuer: "https://accounts.acme.example"},
	} {
		who, err := ca.Issue(id)
		if err != nil {
			f.Fatal(err)
		}
		leaf, err := who.HashedRekord([]byte("a release"))
		if err != nil {
			f.Fatal(err)
		}
		keyAlone := who
		keyAlone.Cert = nil
		old, err := keyAlone.HashedRekordV1([]byte("a release"))
		if err != nil {
			f.Fatal(err)
		}
		for _, leaf := range [][]byte{leaf, old} {
			f.Add([]byte(`{"verificationMaterial":{"certificate":{"rawBytes":"` + base64.StdEncoding.EncodeToString(who.Cert) + `"},"tlogEntries":[{"canonicalizedBody":"` + base64.StdEncoding.EncodeToString(leaf) + `","inclusionProof":{"checkpoint":{"envelope":"log.sigstage.dev - 7\n1\n"}}}]}}`))
		}
	}
	f.Add([]byte(`{"mediaType":"x","verificationMaterial":{"tlogEntries":[{"canonicalizedBody":"e30="}]}}`))
	f.Add([]byte(`[{"` + strings.Repeat("0", 80) + `":{"body":"e30="}}]`))
	f.Add([]byte(`{"canonicalizedBody":"e30="}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		leaves, err := leavesIn(data)
		if err == nil && len(leaves) == 0 {
			t.Error("neither an entry nor an error")
		}
		for _, leaf := range leaves {
			d := inspect(leaf)
			if !d.Understood && len(d.Warnings) == 0 {
				t.Errorf("%q is not understood, and nobody says why", leaf)
			}
			var out bytes.Buffer
			(&app{stdout: &out}).printInspected(d)
			if i := strings.IndexFunc(out.String(), func(r rune) bool { return r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 }); i >= 0 {
				t.Errorf("what is printed has a control character: %q", out.String())
			}
		}
		staging := slices.ContainsFunc(originsIn(data), func(origin string) bool { return instanceOf(origin) == "staging" })
		signers, err := (&app{stderr: io.Discard}).signersIn("some.json", data)
		if err != nil {
			return
		}
		if len(signers) == 0 {
			t.Error("neither a signer nor an error")
		}
		made := config.FromReleases(signers, staging)
		if _, err := config.Parse("made.yaml", made, func(string) string { return "" }); err != nil {
			t.Errorf("made of a release:\n%s\n%v", made, err)
		}
	})
}

// FuzzValues: what people write for times, heads and keys.
func FuzzValues(f *testing.F) {
	for _, text := range []string{"", "2026-01-31", "2026-01-31T12:00:00Z", "24h", "30d", "99999d", "-1d", "7:" + strings.Repeat("a", 64), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		f.Add(text)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		defer bounds.Hold(t)()
		if d, err := parseDays(text); err == nil && text != "" && d <= 0 {
			t.Errorf("%q is %s", text, d)
		}
		if h, err := parseHead(text); err == nil && (h.N < 0 || h.N > 0 && len(h.Hash) != 64) {
			t.Errorf("%q is %+v", text, h)
		}
		if at, err := parseTime(text, now); err == nil && text != "" && at.IsZero() {
			t.Errorf("%q is no time and no error", text)
		}
		if key, err := parseSigningKey([]byte(text)); err == nil && key == nil {
			t.Errorf("%q is no key and no error", text)
		}
	})
}
