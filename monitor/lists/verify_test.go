package lists_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor/lists"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

const issuer = "https://token.actions.githubusercontent.com"

// instance is a log and an authority.
type instance struct {
	ca      *testca.CA
	log     *locallog.Log
	trusted lists.Trusted
}

func newInstance(t testing.TB, origin string) instance {
	t.Helper()
	ca, err := testca.New("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, err := locallog.New(origin)
	if err != nil {
		t.Fatal(err)
	}
	key, err := checkpoint.ParseKey(l.Origin(), l.PublicKeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	log, err := checkpoint.NewLog(l.Origin(), key)
	if err != nil {
		t.Fatal(err)
	}
	authorities, err := entry.NewAuthorities(entry.Authority{Chain: ca.Chain()})
	if err != nil {
		t.Fatal(err)
	}
	return instance{ca, l, lists.Trusted{Log: log, Authorities: authorities}}
}

// bundle is what signing a list gives: parts of it may be changed.
type bundle struct {
	body, signature, note []byte
	path                  []checkpoint.Hash
	index                 uint64
}

func (b bundle) json() []byte {
	var hashes []string
	for _, h := range b.path {
		hashes = append(hashes, base64.StdEncoding.EncodeToString(h[:]))
	}
	doc, _ := json.Marshal(map[string]any{
		"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
		"verificationMaterial": map[string]any{"tlogEntries": []any{map[string]any{
			"logIndex": fmt.Sprint(b.index), "integratedTime": "0", "canonicalizedBody": b.body,
			"inclusionProof": map[string]any{"logIndex": fmt.Sprint(b.index), "treeSize": "4", "hashes": hashes, "checkpoint": map[string]any{"envelope": string(b.note)}},
		}}},
		"messageSignature": map[string]any{"signature": b.signature},
	})
	return doc
}

func (in instance) sign(t testing.TB, list []byte, subject string, ca *testca.CA) bundle {
	t.Helper()
	s, err := ca.Issue(testca.Identity{URI: subject, Issuer: issuer})
	if err != nil {
		t.Fatal(err)
	}
	body, err := s.HashedRekord(list)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := in.log.Append(fmt.Appendf(nil, "filler %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	index, err := in.log.Append(body)
	if err != nil {
		t.Fatal(err)
	}
	note, err := in.log.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	c, err := in.trusted.Log.Open(note)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := checkpoint.OpenTree(c, func(level uint, index uint64, width int) ([]byte, error) { return in.log.Tile(level, index, width) })
	if err != nil {
		t.Fatal(err)
	}
	leaves, err := tree.Tile(0, index/256)
	if err != nil {
		t.Fatal(err)
	}
	path, err := tree.LeafPath(index, leaves)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(list)
	signature, err := ecdsa.SignASN1(rand.Reader, s.Key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return bundle{body, signature, note, path, index}
}

// TestByIdentity: a list is good only with a bundle over it, by whom it has to be,
// with a certificate that counts, in a log that is followed.
func TestByIdentity(t *testing.T) {
	in, other := newInstance(t, "rekor.acme.example"), newInstance(t, "rekor.other.example")
	list := []byte("a list\n")
	const subject = "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1"
	check, err := lists.ByIdentity([]string{"https://github.com/acme/*"}, []string{issuer}, func() []lists.Trusted { return []lists.Trusted{other.trusted, in.trusted} })
	if err != nil {
		t.Fatal(err)
	}
	good := in.sign(t, list, subject, in.ca)
	if err := check(list, good.json()); err != nil {
		t.Fatal(err)
	}
	if err := check([]byte("another list\n"), good.json()); err == nil || !strings.Contains(err.Error(), "not about this list") {
		t.Errorf("another list: %v", err)
	}
	alter := func(f func(*bundle)) []byte {
		b := good
		f(&b)
		return b.json()
	}
	elsewhere := newInstance(t, "rekor.acme.example") // of the same name
	for name, tc := range map[string]struct {
		raw  []byte
		says string
	}{
		"no bundle":            {[]byte("no bundle"), "no Sigstore bundle"},
		"an empty one":         {[]byte("{}"), "no log entry"},
		"no proof":             {alter(func(b *bundle) { b.path = b.path[1:] }), "not proven"},
		"another place":        {alter(func(b *bundle) { b.index-- }), "not proven"},
		"a short hash":         {[]byte(strings.Replace(string(good.json()), `"hashes":["`, `"hashes":["AAAA","`, 1)), "3 bytes"},
		"no checkpoint":        {alter(func(b *bundle) { b.note = nil }), "not followed"},
		"an altered note":      {alter(func(b *bundle) { b.note = []byte(strings.Replace(string(b.note), "\n4\n", "\n5\n", 1)) }), "not proven"},
		"another signature":    {alter(func(b *bundle) { b.signature = in.sign(t, list, subject, in.ca).signature }), "not made by that key"},
		"no signature":         {alter(func(b *bundle) { b.signature = nil }), "not made by that key"},
		"another body":         {alter(func(b *bundle) { b.body = []byte("{}") }), "log entry"},
		"by somebody else":     {in.sign(t, list, "https://github.com/other/x", in.ca).json(), "not by whom"},
		"by a stranger's CA":   {in.sign(t, list, subject, other.ca).json(), "not trusted"},
		"self-made":            {in.sign(t, list, subject, nil).json(), "not trusted"},
		"in a log of the name": {elsewhere.sign(t, list, subject, in.ca).json(), "not proven"},
		"in an unknown log":    {newInstance(t, "rekor.unknown.example").sign(t, list, subject, in.ca).json(), "not followed"},
		"in the log of others": {other.sign(t, list, subject, in.ca).json(), "not trusted"},
	} {
		if err := check(list, tc.raw); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want …%s…", name, err, tc.says)
		}
	}
	nobody, err := lists.ByIdentity([]string{"*"}, []string{issuer}, func() []lists.Trusted { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := nobody(list, good.json()); err == nil {
		t.Error("without any log that is followed")
	}
	if _, err := lists.ByIdentity([]string{"re:("}, []string{issuer}, nil); err == nil {
		t.Error("an expression that does not compile")
	}
}

func FuzzBundle(f *testing.F) {
	in := newInstance(f, "rekor.acme.example")
	list := []byte("a list\n")
	check, err := lists.ByIdentity([]string{"https://github.com/acme/*"}, []string{issuer}, func() []lists.Trusted { return []lists.Trusted{in.trusted} })
	if err != nil {
		f.Fatal(err)
	}
	// $1 in an input stands for what the right one signed, $2 for what somebody else did; each process has
	// its own.
	good, stranger := in.sign(f, list, "https://github.com/acme/x", in.ca), in.sign(f, list, "https://github.com/other/x", in.ca)
	if err := check(list, good.json()); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("$2"), uint16(0), []byte{})
	for at := range uint16(80) {
		f.Add([]byte("$1"), at*40, []byte("AAAA"))
	}
	f.Fuzz(func(t *testing.T, raw []byte, at uint16, over []byte) {
		defer bounds.Hold(t)()
		raw = bytes.ReplaceAll(bytes.ReplaceAll(raw, []byte("$1"), good.json()), []byte("$2"), stranger.json())
		if int(at) < len(raw) {
			copy(raw[at:], over)
		}
		if check(list, raw) != nil {
			return
		}
		if check([]byte("another list\n"), raw) == nil {
			t.Errorf("%s is taken for two lists", raw)
		}
		var doc struct {
			Material struct {
				Entries []struct {
					Body []byte `json:"canonicalizedBody"`
				} `json:"tlogEntries"`
			} `json:"verificationMaterial"`
		}
		if err := json.Unmarshal(raw, &doc); err != nil || len(doc.Material.Entries) == 0 || !bytes.Equal(doc.Material.Entries[0].Body, good.body) {
			t.Errorf("%s is taken: %v", raw, err)
		}
	})
}

// FuzzKey puts anything in the place of a key and of a signature over a list.
func FuzzKey(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), []byte("list"), []byte("MEUCIQ=="))
	f.Add("log.example+00000000+AAAA", []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, text string, list, signature []byte) {
		defer bounds.Hold(t)()
		check, err := lists.ByKey(text)
		if err == nil && check(list, signature) == nil {
			t.Errorf("%q holds for %q by %q", signature, list, text)
		}
	})
}
