package trust

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/trust/trusttest"
)

// document is a trusted root with one log.
func document(t *testing.T, url string) []byte {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := trusttest.TrustedRoot(nil, trusttest.Log{URL: url, SPKI: spki})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

type tufRig struct {
	*testing.T
	repo   *trusttest.Repository
	client Repository
}

func newTUF(t *testing.T) *tufRig {
	t.Helper()
	repo, err := trusttest.New()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(repo)
	t.Cleanup(server.Close)
	return &tufRig{t, repo, Repository{Name: "acme", URL: server.URL, Root: repo.Root(), Scratch: t.TempDir(), UserAgent: "sigwarden/test"}}
}

func (r *tufRig) publish(targets map[string][]byte) {
	r.Helper()
	if err := r.repo.Publish(targets); err != nil {
		r.Fatal(err)
	}
}

// want fetches, and wants a document, or none.
func (r *tufRig) want(doc []byte) Fetched {
	r.Helper()
	got, err := r.client.Fetch(context.Background())
	if doc == nil && err == nil {
		r.Fatal("accepted")
	}
	if doc != nil && (err != nil || !bytes.Equal(got.Root, doc)) {
		r.Fatalf("%s, %v", got.Root, err)
	}
	if err == nil {
		r.client.Known = &got.Provenance
	}
	return got
}

// TestFetch follows a repository over everything that may happen to it.
func TestFetch(t *testing.T) {
	r := newTUF(t)
	r.want(nil) // it has no trusted root yet
	one, two := document(t, "https://one.acme.example"), document(t, "https://two.acme.example")
	signing := []byte(`{"rekorTlogUrls":[{"url":"https://one.acme.example","majorApiVersion":1}]}`)
	r.publish(map[string][]byte{"trusted_root.json": one, "signing_config.v0.2.json": signing})
	got := r.want(one)
	if len(got.Signing) != 1 || !bytes.Equal(got.Signing[0], signing) || got.Provenance.Versions["targets"] != 2 || got.Provenance.Versions["root"] != 1 || len(got.Provenance.Metadata) != 3 {
		t.Errorf("signing %q, versions %v", got.Signing, got.Provenance.Versions)
	}
	older := r.repo.Files()
	r.publish(map[string][]byte{"trusted_root.json": two})
	r.want(two)

	// An older state is a rollback, and is refused.
	newer := r.repo.Files()
	r.repo.Restore(older)
	r.want(nil)
	r.repo.Restore(newer)
	r.want(two)

	// The root rotates twice; the chain from the first one on authenticates all.
	for range 2 {
		if err := r.repo.RotateRoot(); err != nil {
			t.Fatal(err)
		}
	}
	r.publish(map[string][]byte{"trusted_root.json": one})
	got = r.want(one)
	if got.Provenance.Versions["root"] != 3 {
		t.Errorf("versions %v", got.Provenance.Versions)
	}
	authenticate(t, r.repo.Root(), got)

	// No answer, and answers of somebody else.
	r.repo.Down(true)
	r.want(nil)
	r.repo.Down(false)
	stranger := newTUF(t)
	stranger.publish(map[string][]byte{"trusted_root.json": two})
	files := r.repo.Files()
	r.repo.Restore(stranger.repo.Files())
	r.want(nil)
	// A target that was altered on its way.
	bad := map[string][]byte{}
	for name, data := range files {
		if strings.HasSuffix(name, ".trusted_root.json") {
			data = bytes.Replace(data, []byte("acme"), []byte("evil"), 1)
		}
		bad[name] = data
	}
	r.repo.Restore(bad)
	r.want(nil)
	r.repo.Restore(files)
	r.want(one)
	// What is known is damaged: it is fetched anew.
	for _, data := range [][]byte{nil, {}, []byte("{"), []byte(`{"signed":{}}`)} {
		damaged := Provenance{Metadata: map[string][]byte{"timestamp.json": data, "snapshot.json": data, "targets.json": data}}
		r.client.Known = &damaged
		r.want(one)
	}
	// No place for temporary files but the one that is named.
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "nosuch"))
	r.want(one)
	if left, err := os.ReadDir(r.client.Scratch); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	r.client.Scratch = ""
	r.want(nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.client.Fetch(ctx); err == nil {
		t.Error("fetched after the end")
	}
}

// authenticate checks a trusted root with what is kept as its provenance, and
// the first root metadata alone.
func authenticate(t *testing.T, first []byte, got Fetched) {
	t.Helper()
	root, err := new(metadata.Metadata[metadata.RootType]).FromBytes(first)
	if err != nil {
		t.Fatal(err)
	}
	for n := 2; n <= int(got.Provenance.Versions["root"]); n++ {
		next, err := new(metadata.Metadata[metadata.RootType]).FromBytes(got.Provenance.Metadata[string(rune('0'+n))+".root.json"])
		if err == nil {
			err = root.VerifyDelegate("root", next)
		}
		if err == nil {
			err = next.VerifyDelegate("root", next)
		}
		if err != nil {
			t.Fatal(err)
		}
		root = next
	}
	targets, err := new(metadata.Metadata[metadata.TargetsType]).FromBytes(got.Provenance.Metadata["targets.json"])
	if err == nil {
		err = root.VerifyDelegate("targets", targets)
	}
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(got.Root)
	if !bytes.Equal(targets.Signed.Targets["trusted_root.json"].Hashes["sha256"], sum[:]) {
		t.Error("the targets name another trusted root")
	}
}

// TestFetchHostile: redirects elsewhere and files without end are refused.
func TestFetchHostile(t *testing.T) {
	defer bounds.Hold(t)()
	r := newTUF(t)
	r.publish(map[string][]byte{"trusted_root.json": document(t, "https://one.acme.example")})
	elsewhere := httptest.NewServer(r.repo)
	defer elsewhere.Close()
	asked := r.repo.Requests()
	redirect := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, elsewhere.URL+req.URL.Path, http.StatusFound)
	}))
	defer redirect.Close()
	client := r.client
	client.URL = redirect.URL
	if _, err := client.Fetch(context.Background()); err == nil || r.repo.Requests() != asked {
		t.Errorf("a redirect was followed: %v", err)
	}
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "root.json") {
			http.NotFound(w, req)
			return
		}
		for range 4096 {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}))
	defer endless.Close()
	client.URL = endless.URL
	if _, err := client.Fetch(context.Background()); err == nil || !strings.Contains(err.Error(), "more than the") {
		t.Errorf("%v", err)
	}
	// Not even somebody who has the key of timestamps can have as much read as they like.
	greedy, err := r.repo.Sign(metadata.TIMESTAMP, []byte(`{"_type":"timestamp","spec_version":"1.0.31","version":9,"expires":"2099-01-01T00:00:00Z","meta":{"snapshot.json":{"version":9,"length":9223372036854775806}}}`))
	if err != nil {
		t.Fatal(err)
	}
	var written atomic.Int64
	flood := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch path.Base(req.URL.Path) {
		case "timestamp.json":
			w.Write(greedy)
		case "9.snapshot.json":
			for range 1024 {
				n, err := w.Write(make([]byte, 64<<10))
				if written.Add(int64(n)); err != nil {
					return
				}
			}
		default:
			http.NotFound(w, req)
		}
	}))
	client.URL = flood.URL
	_, err = client.Fetch(context.Background())
	flood.Close()
	if n := written.Load(); err == nil || !strings.Contains(err.Error(), "more than the 2000000 bytes") || n < maxMetadata || n > 5*maxRoot {
		t.Errorf("%d bytes were read: %v", n, err)
	}
	// Nor stop the program by what they leave out.
	files := r.repo.Files()
	for name, data := range map[string]string{
		"timestamp.json":  `{"_type":"timestamp","spec_version":"1.0.31","version":9,"expires":"2099-01-01T00:00:00Z","meta":{"targets.json":{"version":9}}}`,
		"2.snapshot.json": `{"_type":"snapshot","spec_version":"1.0.31","version":2,"expires":"2099-01-01T00:00:00Z","meta":{"targets.json":null}}`,
	} {
		lacking := maps.Clone(files)
		if lacking[name], err = r.repo.Sign(strings.TrimPrefix(strings.TrimSuffix(name, ".json"), "2."), []byte(data)); err != nil {
			t.Fatal(err)
		}
		r.repo.Restore(lacking)
		if _, err := r.client.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "lack what TUF asks for") {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.repo.Restore(files)
	r.publish(map[string][]byte{"trusted_root.json": document(t, "https://one.acme.example")})
	// Object stores answer 403 for what is not there.
	forbidden := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "2.root.json") {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		r.repo.ServeHTTP(w, req)
	}))
	defer forbidden.Close()
	client.URL = forbidden.URL
	if _, err := client.Fetch(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestParseRootOneByOne: what is not understood blinds to nothing else.
func TestParseRootOneByOne(t *testing.T) {
	var doc map[string]any
	if err := json.Unmarshal(document(t, "https://one.acme.example"), &doc); err != nil {
		t.Fatal(err)
	}
	good := doc["tlogs"].([]any)[0]
	doc["tlogs"] = []any{
		map[string]any{"baseUrl": "https://pq.acme.example", "publicKey": map[string]any{"rawBytes": "AAAA", "keyDetails": "ML_DSA_44"}},
		map[string]any{"baseUrl": 7}, "text",
		map[string]any{"baseUrl": "https://when.acme.example", "publicKey": map[string]any{"validFor": map[string]any{"start": "soon"}}},
		good, good,
	}
	doc["ctlogs"] = []any{7}
	doc["certificateAuthorities"] = []any{7, map[string]any{"uri": "https://empty.acme.example"}}
	text, _ := json.Marshal(doc)
	root, err := ParseRoot(text)
	if err != nil || len(root.Logs) != 1 || root.Logs[0].Origin != "one.acme.example" || root.Logs[0].Version != 2 || len(root.Problems) != 7 {
		t.Errorf("%+v, %v, %v", root.Logs, root.Problems, err)
	}
}

func TestInstances(t *testing.T) {
	for _, name := range []string{"public-good", "staging"} {
		r, ok := Instance(name)
		if !ok || !strings.HasPrefix(r.URL, "https://tuf-repo-cdn.sigst") || len(r.Root) == 0 || len(r.Anchor()) != 64 {
			t.Errorf("%s: %v", name, r.URL)
		}
	}
	if _, ok := Instance("other"); ok {
		t.Error("an unknown instance is known")
	}
}

func TestParseConfigs(t *testing.T) {
	const good = `{"rekorLogs":[{"readUrl":"https://r.example/x","logOrigin":"a.example","majorApiVersion":2},{"readUrl":"http://h.example","logOrigin":"h.example - 123","majorApiVersion":1}],"ctLogs":[]}`
	got, err := ParseMonitorConfig([]byte(good))
	want := []Service{{"a.example", "https://r.example/x", 2}, {"h.example", "http://h.example", 1}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	snake := strings.NewReplacer("rekorLogs", "rekor_logs", "readUrl", "read_url", "logOrigin", "log_origin", "majorApiVersion", "major_api_version").Replace(good)
	if got, err := ParseMonitorConfig([]byte(snake)); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"rekorLogs":[{}]}`, `{"rekorLogs":[{"logOrigin":"a"}]}`, `{"rekorLogs":[{"logOrigin":"a","readUrl":"ftp://x"}]}`, `{"rekorLogs":[{"logOrigin":"a","readUrl":"https://x"}]}`, `{"rekorLogs":[{"logOrigin":"a","readUrl":"https://x","majorApiVersion":3}]}`} {
		if got, err := ParseMonitorConfig([]byte(bad)); err == nil {
			t.Errorf("%s: %v", bad, got)
		}
	}
	services, err := ParseSigningConfig([]byte(`{"rekorTlogUrls":[{"url":"https://a.example/","majorApiVersion":2}]}`))
	if err != nil || len(services) != 1 || generation(services, "a.example") != 2 || generation(services, "b.example") != 0 {
		t.Errorf("%v, %v", services, err)
	}
	if _, err := ParseSigningConfig([]byte("x")); err == nil {
		t.Error("accepted")
	}
}

// TestRootBounds: a trusted root that is larger than any is not parsed, from a file or from a repository.
func TestRootBounds(t *testing.T) {
	defer bounds.Hold(t)()
	large := append(document(t, "https://log.example"), bytes.Repeat([]byte(" "), maxRoot)...)
	path := filepath.Join(t.TempDir(), "trusted_root.json")
	for n, good := range map[int]bool{maxRoot: true, maxRoot + 1: false} {
		if err := os.WriteFile(path, large[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadRoot(path); (err == nil) != good || !good && !strings.Contains(err.Error(), "more than") {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	r := newTUF(t)
	r.publish(map[string][]byte{"trusted_root.json": large[:maxRoot+1]})
	if _, err := r.client.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("from a repository: %v", err)
	}
	r.publish(map[string][]byte{"trusted_root.json": large[:maxRoot]})
	r.want(large[:maxRoot])
	// As much as is read, of what takes most memory to parse.
	timestamp, err := r.repo.Sign(metadata.TIMESTAMP, []byte(`{"_type":"timestamp","spec_version":"1.0.31","version":9,"expires":"2099-01-01T00:00:00Z","meta":{"snapshot.json":{"version":9,"length":9223372036854775806}}}`))
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = `{"signatures":[],"signed":{"_type":"snapshot","x":[{}`, `]}}`
	files := r.repo.Files()
	files["timestamp.json"], files["9.snapshot.json"] = timestamp, []byte(begin+strings.Repeat(",{}", (maxMetadata-len(begin)-len(end))/3)+end)
	r.repo.Restore(files)
	r.client.Known = nil
	if _, err := r.client.Fetch(t.Context()); err == nil || strings.Contains(err.Error(), "more than") {
		t.Errorf("large metadata: %v", err)
	}
	for n, good := range map[int]bool{maxPEM: true, maxPEM + 1: false} {
		if _, err := ParseCertificates(strings.Repeat(" ", n)); good == strings.Contains(err.Error(), "more than any chain") {
			t.Errorf("%d bytes of PEM: %v", n, err)
		}
	}
}

// handler is what answers in place of the network.
type handler struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (h handler) RoundTrip(req *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, req)
	res := answer.Result()
	res.Request = req
	return res, req.Context().Err()
}

// FuzzFetch: whatever a repository serves in place of one of its files, and even if it is signed with
// that file's key, nothing is taken for the trusted root but what the signer of targets chose.
func FuzzFetch(f *testing.F) {
	repo, err := trusttest.New()
	if err != nil {
		f.Fatal(err)
	}
	root := func(comment string) (doc []byte, hash string) {
		doc = []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","comment":"` + comment + `"}`)
		sum := sha256.Sum256(doc)
		return doc, hex.EncodeToString(sum[:])
	}
	genuine, genuineHash := root("genuine")
	second, secondHash := root("second")
	if err := repo.Publish(map[string][]byte{rootTarget: genuine}); err != nil {
		f.Fatal(err)
	}
	files := repo.Files()
	files["targets/"+secondHash+"."+rootTarget] = second
	repo.Restore(files)
	places := []struct{ role, name string }{
		{metadata.TIMESTAMP, "timestamp.json"}, {metadata.SNAPSHOT, "2.snapshot.json"}, {metadata.TARGETS, "2.targets.json"}, {metadata.ROOT, "2.root.json"},
		{"", "targets/" + genuineHash + "." + rootTarget},
	}
	const common = `"spec_version":"1.0.31","version":2,"expires":"2099-01-01T00:00:00Z"`
	for _, seed := range []struct {
		place byte
		part  string
	}{
		{0, `{"_type":"timestamp",` + common + `,"meta":{"snapshot.json":{"version":2}}}`},
		{0, `{"_type":"timestamp",` + common + `,"meta":{"snapshot.json":{"version":2,"length":9223372036854775807,"hashes":{"sha256":"00"}}}}`},
		{1, `{"_type":"snapshot",` + common + `,"meta":{"targets.json":{"version":2}}}`},
		{1, `{"_type":"snapshot",` + common + `,"meta":{"targets.json":{"version":2,"length":-1},"more.json":{"version":9}}}`},
		{2, `{"_type":"targets",` + common + `,"targets":{"trusted_root.json":{"length":` + strconv.Itoa(len(second)) + `,"hashes":{"sha256":"` + secondHash + `"}}}}`},
		{2, `{"_type":"targets",` + common + `,"targets":{"trusted_root.json":{"length":3,"hashes":{"sha256":"00"}}},"delegations":{"keys":{},"roles":[{"name":"more","keyids":[],"threshold":1,"terminating":false,"paths":["*"]}]}}`},
		{3, `{"_type":"root",` + common + `,"consistent_snapshot":true,"keys":{},"roles":{}}`},
		{4, string(second)},
	} {
		f.Add(seed.place, true, []byte(seed.part))
		f.Add(seed.place, false, []byte(`{"signatures":[{"keyid":"00","sig":"00"}],"signed":`+seed.part+`}`))
	}
	network := http.DefaultTransport
	http.DefaultTransport = handler{repo}
	f.Cleanup(func() { http.DefaultTransport = network })
	client := Repository{Name: "acme", URL: "https://tuf.acme.example", Root: repo.Root(), Scratch: f.TempDir(), UserAgent: "sigwarden/test"}
	known, err := client.Fetch(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, which byte, signed bool, data []byte) {
		defer bounds.Hold(t)()
		place := places[int(which)%len(places)]
		if signed && place.role != "" {
			made, err := repo.Sign(place.role, data)
			if err != nil {
				return
			}
			data = made
		}
		other := maps.Clone(files)
		other[place.name] = data
		repo.Restore(other)
		client := client
		for _, client.Known = range []*Provenance{nil, &known.Provenance} {
			got, err := client.Fetch(t.Context())
			if err != nil {
				continue
			}
			chosen := signed && place.role == metadata.TARGETS && bytes.Equal(got.Root, second)
			if !bytes.Equal(got.Root, genuine) && !chosen {
				t.Errorf("%q is taken for the trusted root", got.Root)
			}
			authenticate(t, repo.Root(), got)
		}
	})
}

// FuzzParseRoot: whatever is served, parsing ends, and what it returns has keys.
func FuzzParseRoot(f *testing.F) {
	l, err := locallog.New("log.acme.example")
	if err != nil {
		f.Fatal(err)
	}
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(trustedRoot(f, l, ca)))
	f.Add([]byte(ca.ChainPEM()))
	f.Add([]byte(`{"rekorTlogUrls":[{"url":"https://a.example/","majorApiVersion":2}],"rekorLogs":[{"logOrigin":"a","readUrl":"https://x","majorApiVersion":2}]}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[{"baseUrl":"https://x","publicKey":{"rawBytes":"AA=="}}],"ctlogs":[{}],"certificateAuthorities":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		ParseMonitorConfig(data)
		ParseSigningConfig(data)
		if list, err := ParsePEM(string(data)); err == nil {
			for _, a := range list {
				if checkChain(a.Chain) != nil {
					t.Errorf("a chain is taken that is none: %+v", a)
				}
			}
		}
		root, err := ParseRoot(data)
		if err != nil {
			return
		}
		for _, l := range root.Logs {
			if l.Key == nil || l.Origin == "" || l.ValidFrom.After(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)) {
				t.Errorf("%+v", l)
			}
		}
	})
}
