package trust

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"encoding/json"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"strconv"

	"github.com/sigwarden/sigwarden/watchlist/entry"
)

func b64(pemText string) []string {
	var out []string
	for _, block := range strings.Split(pemText, "-----BEGIN ")[1:] {
		_, body, _ := strings.Cut(block, "-----\n")
		body, _, _ = strings.Cut(body, "-----END")
		out = append(out, strings.ReplaceAll(body, "\n", ""))
	}
	return out
}

// trustedRoot is a root that names a log and an authority, and more that cannot be used.
func trustedRoot(t testing.TB, l *locallog.Log, ca *testca.CA) string {
	t.Helper()
	key := b64(l.PublicKeyPEM())[0]
	certs := b64(ca.ChainPEM())
	vkey := strings.Split(l.VerifierKey(), "+")
	id := base64.StdEncoding.EncodeToString(append(hexBytes(vkey[1]), make([]byte, 28)...))
	return `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[
	 {"baseUrl":"https://log.acme.example/","publicKey":{"rawBytes":"` + key + `"},"logId":{"keyId":"` + id + `"}},
	 {"baseUrl":"https://log.acme.example","publicKey":{"rawBytes":"` + key + `"},"logId":{"keyId":"AAAAAA=="}},
	 {"baseUrl":"https://future.example","publicKey":{"rawBytes":"AAAA","keyDetails":"ML_DSA_44"},"logId":{"keyId":"AAAA"}}],
	 "certificateAuthorities":[
	 {"uri":"x","certChain":{"certificates":[{"rawBytes":"` + certs[0] + `"},{"rawBytes":"` + certs[1] + `"}]},"validFor":{"start":"2022-04-14T21:38:40Z","end":"2030-01-01T00:00:00.5Z"}},
	 {"uri":"broken","certChain":{"certificates":[{"rawBytes":"AAAA"}]}},
	 {"uri":"empty"}],
	 "unknownField":{"x":1}}`
}

func TestRootIsReadPartByPart(t *testing.T) {
	l, err := locallog.New("log.acme.example")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	doc := trustedRoot(t, l, ca)
	r, err := ParseRoot([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Logs) != 1 || len(r.Key("log.acme.example")) != 1 || len(r.Authorities) != 1 || len(r.Problems) != 4 {
		t.Errorf("%d logs, %d authorities, problems %v", len(r.Logs), len(r.Authorities), r.Problems)
	}
	if a := r.Authorities[0]; len(a.Chain) != 2 || a.ValidFrom.IsZero() || a.ValidUntil.Year() != 2030 {
		t.Errorf("%+v", a)
	}
	for name, text := range map[string]string{"no JSON": "x", "another document": `{"a":1}`, "media type": `{"mediaType":"text/plain"}`} {
		if _, err := ParseRoot([]byte(text)); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
	if r, err := ParseRoot([]byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)); err != nil || len(r.Authorities)+len(r.Logs) != 0 {
		t.Errorf("an empty root: %v", err)
	}
	if _, err := ReadRoot(filepath.Join(t.TempDir(), "none.json")); !os.IsNotExist(err) {
		t.Errorf("missing file: %v", err)
	}
	two := ca.ChainPEM() + ca.ChainPEM()
	if list, err := ParsePEM(two); err != nil || len(list) != 2 || len(list[0].Chain) != 2 {
		t.Errorf("two chains: %v, %v", list, err)
	}
	for name, text := range map[string]string{"nothing": "", "no PEM": "hello", "a key": l.PublicKeyPEM()} {
		if _, err := ParsePEM(text); err == nil {
			t.Errorf("%s accepted as certificates", name)
		}
	}
}

func hexBytes(s string) []byte {
	out := make([]byte, len(s)/2)
	for i := range out {
		for _, c := range s[2*i : 2*i+2] {
			out[i] = out[i]<<4 | byte(strings.IndexRune("0123456789abcdef", c))
		}
	}
	return out
}

func TestRealRoots(t *testing.T) {
	dir := os.Getenv("SIGWARDEN_REALDATA")
	if dir == "" {
		t.Skip("SIGWARDEN_REALDATA is not set: real trust roots are not read")
	}
	for name, logs := range map[string]int{"trusted_root.production.json": 2, "trusted_root.staging.json": 5} {
		r, err := ReadRoot(filepath.Join(dir, name))
		if err != nil || len(r.Problems) != 0 || len(r.Logs) != logs || len(r.Authorities) == 0 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// TestRealCertificates verifies real certificates of the public instance, and the
// promises of its certificate log in them, with its real trusted root.
func TestRealCertificates(t *testing.T) {
	dir := os.Getenv("SIGWARDEN_REALDATA")
	if dir == "" {
		t.Skip("SIGWARDEN_REALDATA is not set: real certificates are not read")
	}
	root, err := ReadRoot(filepath.Join(dir, "trusted_root.production.json"))
	if err != nil || len(root.Problems) != 0 || len(root.CTLogs) != 2 || len(root.Authorities) != 2 || len(root.Logs) != 2 {
		t.Fatalf("%+v, %v", root, err)
	}
	var list []entry.Authority
	for _, a := range root.Authorities {
		list = append(list, entry.Authority(a))
	}
	authorities, err := entry.NewAuthorities(list...)
	if err != nil {
		t.Fatal(err)
	}
	var logs []entry.CTLog
	for _, l := range root.CTLogs {
		ct, err := entry.NewCTLog(l.SPKI, l.ValidFrom, l.ValidUntil)
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, ct)
	}
	authorities = authorities.WithCTLogs(logs...)
	names, _ := filepath.Glob(filepath.Join(dir, "bundle-v1-*.json"))
	if len(names) != 4 {
		t.Fatal(names)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var bundle struct {
			Material struct {
				Entries []struct {
					Body []byte `json:"canonicalizedBody"`
					Time string `json:"integratedTime"`
				} `json:"tlogEntries"`
			} `json:"verificationMaterial"`
		}
		if err := json.Unmarshal(data, &bundle); err != nil {
			t.Fatal(err)
		}
		e := bundle.Material.Entries[0]
		seconds, _ := strconv.ParseInt(e.Time, 10, 64)
		at := time.Unix(seconds, 0)
		f, err := entry.Decode(e.Body)
		if err != nil {
			t.Fatal(err)
		}
		id := &f.Identities[0]
		if err := authorities.VerifyAt(id, at); err != nil {
			t.Errorf("%s: %v", filepath.Base(name), err)
		}
		if got := authorities.SCT(id, at); got != entry.SCTVerified {
			t.Errorf("%s: SCT %s", filepath.Base(name), got)
		}
		if authorities.VerifyAt(id, at.Add(time.Hour)) == nil {
			t.Errorf("%s: valid an hour later", filepath.Base(name))
		}
	}
}
