package checkpoint

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// vectors are the parts of testdata/vectors/tlog-vectors.json used here.
type vectors struct {
	Log struct {
		KeyID  string `json:"key_id_hex"`
		Origin string `json:"origin"`
		VKey   string `json:"vkey"`
	} `json:"log"`
	Entries      []string        `json:"entries"`
	LeafHashes   []HexHash       `json:"leaf_hashes_hex"`
	Roots        map[int]HexHash `json:"roots_hex"`
	Peaks11      []HexHash       `json:"compact_range_11_hex"`
	Checkpoint6  string          `json:"checkpoint_6"`
	Checkpoint11 string          `json:"checkpoint_11"`
	Fork11       string          `json:"checkpoint_11_fork"`
	Checkpoint13 string          `json:"checkpoint_13"`
	Frozen13     string          `json:"checkpoint_13_frozen"`
	Checkpoint0  string          `json:"checkpoint_0"`
	Proof6to11   []HexHash       `json:"consistency_6_11_hex"`
	Proof11to13  []HexHash       `json:"consistency_11_13_hex"`
	Proof8to13   []HexHash       `json:"consistency_8_13_hex_power_of_two"`
	Path4in11    []HexHash       `json:"inclusion_4_in_11_hex"`
	Tile         []byte          `json:"tile_0_000_p_11_base64"`
}

func loadVectors(t testing.TB) (vectors, *Log) {
	t.Helper()
	data, err := os.ReadFile("../testdata/vectors/tlog-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	key, err := ParseKey("", v.Log.VKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLog(v.Log.Origin, key)
	if err != nil {
		t.Fatal(err)
	}
	return v, l
}

func plain(list []HexHash) (out []Hash) {
	for _, h := range list {
		out = append(out, Hash(h))
	}
	return out
}

func slicesOf(list []Hash) (out [][]byte) {
	for _, h := range list {
		out = append(out, append([]byte(nil), h[:]...))
	}
	return out
}

func open(t testing.TB, l *Log, raw string) Checkpoint {
	t.Helper()
	c, err := l.Open([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestVectors(t *testing.T) {
	v, l := loadVectors(t)
	f := Frontier{}
	for i, e := range v.Entries {
		h := LeafHash([]byte(e))
		if h != Hash(v.LeafHashes[i]) {
			t.Fatalf("leaf hash %d differs", i)
		}
		f = f.Append(h)
		if f.Root() != Hash(v.Roots[i+1]) {
			t.Fatalf("root of size %d differs", i+1)
		}
		if i == 10 {
			for j, p := range f.Peaks() {
				if p != Hash(v.Peaks11[j]) {
					t.Errorf("peak %d of 11 differs", j)
				}
			}
		}
	}
	c0, c6, c11, c13 := open(t, l, v.Checkpoint0), open(t, l, v.Checkpoint6), open(t, l, v.Checkpoint11), open(t, l, v.Checkpoint13)
	if c0.Root() != EmptyRoot || c13.Root() != f.Root() {
		t.Error("roots of checkpoints differ")
	}
	frozen := open(t, l, v.Frozen13)
	if !frozen.Frozen() || c13.Frozen() || !frozen.Same(c13) {
		t.Error("the frozen checkpoint is not told apart, or not seen to be the same tree")
	}
	fork := open(t, l, v.Fork11)
	var d *DivergenceError
	for _, tc := range []struct {
		name      string
		old, next Checkpoint
		proof     []Hash
		want      error
	}{
		{"6 to 11", c6, c11, plain(v.Proof6to11), nil},
		{"11 to 13", c11, c13, plain(v.Proof11to13), nil},
		{"0 to 13", c0, c13, nil, nil},
		{"0 to 13 with a proof", c0, c13, plain(v.Proof8to13), ErrUnproven},
		{"same", c11, c11, nil, nil},
		{"frozen after", c13, frozen, nil, nil},
		{"older", c11, c6, plain(v.Proof6to11), ErrOlder},
		{"proof of another pair", c6, c13, plain(v.Proof6to11), ErrUnproven},
		{"no proof", c6, c13, nil, ErrUnproven},
		{"too long", c11, c13, append(plain(v.Proof11to13), Hash{}), ErrUnproven},
		{"equal size, other root", c11, fork, nil, d},
		{"fork, then larger", fork, c13, plain(v.Proof11to13), d},
	} {
		err := Advance(tc.old, tc.next, slicesOf(tc.proof))
		if tc.want == error(d) {
			var got *DivergenceError
			if !errors.As(err, &got) {
				t.Errorf("%s: %v, want a divergence", tc.name, err)
			} else if err := got.Evidence.Verify(l); err != nil {
				t.Errorf("%s: evidence: %v", tc.name, err)
			}
		} else if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	f4, err := c11.Frontier(4, Hash(v.LeafHashes[4]), slicesOf(plain(v.Path4in11)))
	if err != nil || f4.Root() != Hash(v.Roots[4]) {
		t.Errorf("frontier of 4 out of a path in 11: %v", err)
	}
	if err := c11.VerifyInclusion(4, Hash(v.LeafHashes[4]), plain(v.Path4in11)); err != nil {
		t.Error(err)
	}
	if err := c11.VerifyInclusion(5, Hash(v.LeafHashes[4]), plain(v.Path4in11)); !errors.Is(err, ErrUnproven) {
		t.Errorf("leaf 4 at index 5: %v", err)
	}
	if hashes, err := parseTile(v.Tile, 11); err != nil || PerfectRoot(hashes) != c11.Root() {
		t.Errorf("tile: %v", err)
	}
}

// sign makes a note of any text, as a log would that does not care.
func sign(t testing.TB, s note.Signer, text string) string {
	t.Helper()
	raw, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestOpenIsStrict(t *testing.T) {
	signer, verifier := newSigner(t, "log.example")
	stranger, _ := newSigner(t, "witness.example")
	sameName, _ := newSigner(t, "log.example")
	l, err := NewLog("log.example", verifier)
	if err != nil {
		t.Fatal(err)
	}
	root := base64.StdEncoding.EncodeToString(make([]byte, 32))
	empty := base64.StdEncoding.EncodeToString(EmptyRoot[:])
	good := "log.example\n5\n" + root + "\n"
	cosigned, err := note.Sign(&note.Note{Text: good}, stranger, signer)
	if err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(sign(t, signer, good), "log.example\n5", "log.example\n6", 1)
	for _, tc := range []struct {
		name, raw string
		want      error
	}{
		{"plain", sign(t, signer, good), nil},
		{"extension line", sign(t, signer, good+"Timestamp: 1\n"), nil},
		{"extension with a dash", sign(t, signer, good+"Log frozen \u2014 Mon Jan  5 12:00:00 UTC 2026\n"), nil},
		{"size 0", sign(t, signer, "log.example\n0\n"+empty+"\n"), nil},
		{"cosignature first", string(cosigned), nil},
		{"size 0, other root", sign(t, signer, "log.example\n0\n"+root+"\n"), ErrMalformed},
		{"leading zero", sign(t, signer, "log.example\n05\n"+root+"\n"), ErrMalformed},
		{"plus sign", sign(t, signer, "log.example\n+5\n"+root+"\n"), ErrMalformed},
		{"negative", sign(t, signer, "log.example\n-5\n"+root+"\n"), ErrMalformed},
		{"2^63", sign(t, signer, "log.example\n9223372036854775808\n"+root+"\n"), ErrMalformed},
		{"2^64", sign(t, signer, "log.example\n18446744073709551616\n"+root+"\n"), ErrMalformed},
		{"short root", sign(t, signer, "log.example\n5\nAAAA\n"), ErrMalformed},
		{"root of 33 bytes", sign(t, signer, "log.example\n5\n"+base64.StdEncoding.EncodeToString(make([]byte, 33))+"\n"), ErrMalformed},
		{"root not canonical", sign(t, signer, "log.example\n5\n"+root[:42]+"B=\n"), ErrMalformed},
		{"root in URL alphabet", sign(t, signer, "log.example\n5\n"+strings.Replace(root, "AA", "_-", 1)+"\n"), ErrMalformed},
		{"space after size", sign(t, signer, "log.example\n5 \n"+root+"\n"), ErrMalformed},
		{"empty origin", sign(t, signer, "\n5\n"+root+"\n"), ErrMalformed},
		{"empty extension", sign(t, signer, good+"\nx\n"), ErrMalformed},
		{"two lines", sign(t, signer, "log.example\n5\n"), ErrMalformed},
		{"other origin", sign(t, signer, "log2.example\n5\n"+root+"\n"), ErrOrigin},
		{"origin in other case", sign(t, signer, "Log.example\n5\n"+root+"\n"), ErrOrigin},
		{"only a stranger's signature", sign(t, stranger, good), ErrSignature},
		{"other key of our name", sign(t, sameName, good), ErrSignature},
		{"altered after signing", forged, ErrSignature},
		{"no signature", good, ErrMalformed},
		{"empty", "", ErrMalformed},
		{"HTML", "<html><body>502</body></html>\n", ErrMalformed},
		{"CR LF", strings.ReplaceAll(sign(t, signer, good), "\n", "\r\n"), ErrMalformed},
		{"not UTF-8", "\xff" + sign(t, signer, good), ErrMalformed},
		{"too large", sign(t, signer, good+strings.Repeat("x", MaxSize)+"\n"), ErrMalformed},
	} {
		c, err := l.Open([]byte(tc.raw))
		if !errors.Is(err, tc.want) || tc.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if err == nil && string(c.Raw()) != tc.raw || err != nil && !c.IsZero() {
			t.Errorf("%s: raw bytes are not those opened", tc.name)
		}
	}
}

func TestKeys(t *testing.T) {
	edPub, _, _ := ed25519.GenerateKey(rand.Reader)
	edSPKI, _ := x509.MarshalPKIXPublicKey(edPub)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	rsaSPKI, _ := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	pemOf := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	ed, err := ParseKey("log.example", pemOf("PUBLIC KEY", edSPKI))
	if err != nil {
		t.Fatal(err)
	}
	// SPEC: C2SP signed-note: key id = H(name, LF, type byte, key)[:4].
	want := sha256.Sum256(append([]byte("log.example\n\x01"), edPub...))
	if ed.KeyHash() != binary.BigEndian.Uint32(want[:]) || ed.Name() != "log.example" {
		t.Errorf("Ed25519 key id %08x", ed.KeyHash())
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, _ := ecdsa.GenerateKey(curve, rand.Reader)
		spki, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
		id := sha256.Sum256(spki)
		vkey := fmt.Sprintf("log.example+%x+%s", id[:4], base64.StdEncoding.EncodeToString(append([]byte{2}, spki...)))
		for _, text := range []string{pemOf("PUBLIC KEY", spki), vkey, vkey + "\n"} {
			v, err := ParseKey("log.example", text)
			if err != nil {
				t.Fatalf("%s: %v", curve.Params().Name, err)
			}
			if v.KeyHash() != binary.BigEndian.Uint32(id[:]) {
				t.Errorf("%s: key id %08x is not that of the DER", curve.Params().Name, v.KeyHash())
			}
			digest := sha256.Sum256([]byte("text\n"))
			sig, _ := ecdsa.SignASN1(rand.Reader, key, digest[:])
			if !v.Verify([]byte("text\n"), sig) || v.Verify([]byte("texT\n"), sig) {
				t.Errorf("%s: signatures are not told apart", curve.Params().Name)
			}
		}
	}
	vkey := fmt.Sprintf("log.example+%08x+%s", ed.KeyHash(), base64.StdEncoding.EncodeToString(append([]byte{1}, edPub...)))
	if _, err := ParseKey("", vkey); err != nil {
		t.Error(err)
	}
	for name, text := range map[string]string{
		"RSA":                pemOf("PUBLIC KEY", rsaSPKI),
		"certificate":        pemOf("CERTIFICATE", edSPKI),
		"two keys":           pemOf("PUBLIC KEY", edSPKI) + pemOf("PUBLIC KEY", edSPKI),
		"cut off":            pemOf("PUBLIC KEY", edSPKI)[:60],
		"no DER":             pemOf("PUBLIC KEY", []byte("x")),
		"wrong key id":       strings.Replace(vkey, fmt.Sprintf("%08x", ed.KeyHash()), "00000000", 1),
		"upper-case key id":  fmt.Sprintf("log.example+%08X+%s", 0xabcdef01, "AQ=="),
		"cosignature key":    fmt.Sprintf("log.example+%08x+%s", 1, base64.StdEncoding.EncodeToString(append([]byte{4}, edPub...))),
		"no key":             "",
		"not base64":         "log.example+00000000+!!!!",
		"larger than a key":  pemOf("PUBLIC KEY", edSPKI) + strings.Repeat(" ", 300<<10),
		"space in the name":  strings.Replace(vkey, "log.", "log ", 1),
		"ECDSA of a bad key": "log.example+00000000+" + base64.StdEncoding.EncodeToString([]byte{2, 3, 4}),
	} {
		if v, err := ParseKey("log.example", text); err == nil {
			t.Errorf("%s: accepted as %s+%08x", name, v.Name(), v.KeyHash())
		}
	}
}

// TestRealCheckpoints opens signed checkpoints of the public instance.
func TestRealCheckpoints(t *testing.T) {
	dir := os.Getenv("SIGWARDEN_REALDATA")
	if dir == "" {
		t.Skip("SIGWARDEN_REALDATA is not set: real checkpoints are not read")
	}
	data, err := os.ReadFile(filepath.Join(dir, "checkpoints-real.json"))
	if err != nil {
		t.Fatal(err)
	}
	var real struct {
		LogKeys     []string `json:"log_vkeys"`
		Checkpoints []struct {
			Origin   string `json:"origin"`
			Size     uint64 `json:"size"`
			Root     []byte `json:"root_base64"`
			Envelope string `json:"envelope"`
		} `json:"checkpoints"`
	}
	if err := json.Unmarshal(data, &real); err != nil {
		t.Fatal(err)
	}
	var keys []note.Verifier
	for _, text := range real.LogKeys {
		key, err := ParseKey("", text)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	opened := 0
	for _, c := range real.Checkpoints {
		l, err := NewLog(c.Origin, keys...)
		if _, _, ok := SplitOrigin(c.Origin); ok {
			l, err = ForOrigin(c.Origin, real.LogKeys[0]) // that of Rekor v1
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := l.Open([]byte(c.Envelope))
		if errors.Is(err, ErrSignature) && strings.Contains(c.Origin, "alpha1") {
			continue // its key is in the staging trust root only
		}
		if err != nil {
			t.Errorf("%s of size %d: %v", c.Origin, c.Size, err)
			continue
		}
		opened++
		root := got.Root()
		if got.Size() != c.Size || hex.EncodeToString(root[:]) != hex.EncodeToString(c.Root) {
			t.Errorf("%s: size %d, root %x", c.Origin, got.Size(), root)
		}
	}
	if opened < 10 {
		t.Errorf("only %d of %d real checkpoints opened", opened, len(real.Checkpoints))
	}
}
