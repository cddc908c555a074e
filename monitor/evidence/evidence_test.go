package evidence_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/internal/bounds"
	"github.com/sigwarden/sigwarden/monitor/evidence"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// byKey trusts one log key.
func byKey(key string) evidence.Trust { return evidence.Trust{LogKeys: []string{key}} }

// broken returns evidence of a broken promise, and the server that it is about.
func broken(t testing.TB) ([]byte, *locallog.V1) {
	t.Helper()
	v, err := locallog.NewV1("rekor.example", 7)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		v.Append(fmt.Appendf(nil, "old %d", i))
	}
	v.Rotate(8)
	for i := range 20 {
		v.Append(fmt.Appendf(nil, "entry %d", i))
	}
	v.Set(locallog.FaultsV1{Alter: map[uint64][]byte{11: []byte("promised")}, Promise: true})
	ts := httptest.NewServer(v)
	defer ts.Close()
	client, err := rekor.NewV1(rekor.Options{URL: ts.URL})
	if err != nil {
		t.Fatal(err)
	}
	tree := client.Tree("8")
	offset, before, err := tree.Offset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := tree.Entries(t.Context(), offset, 11, 12)
	if err != nil {
		t.Fatal(err)
	}
	e := list[0]
	l, err := checkpoint.ForOrigin("rekor.example - 8", v.PublicKeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	var path []checkpoint.Hash
	for _, h := range e.Path {
		path = append(path, checkpoint.Hash(h))
	}
	b, err := checkpoint.NewBrokenPromise(l, checkpoint.Promise{Leaf: e.Leaf, Integrated: e.Integrated, LogIndex: e.LogIndex, SET: e.SET}, checkpoint.Hash(e.Hash), path, 11, e.Note, before)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := evidence.WriteBrokenPromise(&out, "rekor.example - 8", b, nil, map[string]string{"incident": "i-1"}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), v
}

// TestBrokenPromise: evidence of it verifies with the log's key and no other,
// and none of its parts can be left out, altered or taken from elsewhere.
func TestBrokenPromise(t *testing.T) {
	data, v := broken(t)
	res, err := evidence.Verify(data, byKey(v.PublicKeyPEM()))
	if err != nil || res.Claim != evidence.ClaimBrokenPromise || len(res.Of(evidence.Proven)) != 3 || len(res.Of(evidence.Statement)) != 2 {
		t.Fatalf("%+v, %v", res, err)
	}
	other, foreign := broken(t)
	if _, err := evidence.Verify(data, byKey(foreign.PublicKeyPEM())); err == nil {
		t.Error("verifies with another key")
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if _, err := evidence.Verify(bad, byKey(v.PublicKeyPEM())); err == nil {
			t.Fatalf("byte %d of %d altered: accepted", i, len(data))
		}
	}
	names := []string{"evidence.json", "entry.tlog-proof", "checkpoint", "broken-promise.json", "promise", "promise.sig", "README.txt"}
	if !bytes.Equal(evidence.Pack(contents(t, data), names...), data) {
		t.Fatal("the test packs in another form, so that it would show nothing")
	}
	for i, name := range names {
		rest := slices.Delete(slices.Clone(names), i, i+1)
		if _, err := evidence.Verify(evidence.Pack(contents(t, data), rest...), byKey(v.PublicKeyPEM())); err == nil {
			t.Errorf("without %s: accepted", name)
		}
		files := contents(t, data)
		files[name] = append(files[name], '\n')
		if _, err := evidence.Verify(evidence.Pack(files, names...), byKey(v.PublicKeyPEM())); err == nil {
			t.Errorf("%s altered: accepted", name)
		}
		files[name] = contents(t, other)[name]
		if _, err := evidence.Verify(evidence.Pack(files, names...), byKey(v.PublicKeyPEM())); err == nil && name != "README.txt" && name != "evidence.json" {
			t.Errorf("%s of another log: accepted", name)
		}
	}
	for old, altered := range map[string]string{"- 8": "- 7", "rekor.example - 8": "rekor.example", `"statement"`: `"entry": {"index": 1, "leaf_hash": "", "size": 1, "root": ""}, "statement"`} {
		files := contents(t, data)
		files["evidence.json"] = []byte(strings.Replace(string(files["evidence.json"]), old, altered, 1))
		if _, err := evidence.Verify(evidence.Pack(files, names...), byKey(v.PublicKeyPEM())); err == nil {
			t.Errorf("%s: accepted", altered)
		}
	}
}

// TestHostileSubject: an entry whose subject is no text at all must still make
// evidence that verifies.
func TestHostileSubject(t *testing.T) {
	for _, subject := range []string{"bos\xff@acme.example", "\ufffd@acme.example", "<&>\u2028\x00@acme.example"} {
		l, _ := locallog.New("log.example")
		leaf := []byte("not an entry: " + subject)
		l.Append(leaf)
		raw, _ := l.Checkpoint()
		key, _ := checkpoint.ParseKey("log.example", l.PublicKeyPEM())
		open, _ := checkpoint.NewLog("log.example", key)
		c, err := open.Open(raw)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := evidence.WriteInclusion(&b, evidence.Inclusion{Origin: "log.example", Leaf: leaf, Note: string(raw), Size: c.Size(), Root: c.Root(), Statement: map[string]string{"subject": subject}}); err != nil {
			t.Fatal(err)
		}
		if _, err := evidence.Verify(b.Bytes(), byKey(l.PublicKeyPEM())); err != nil {
			t.Errorf("%q: %v", subject, err)
		}
	}
}

func contents(t testing.TB, data []byte) map[string][]byte {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		out[f.Name], _ = io.ReadAll(r)
		r.Close()
	}
	return out
}

// rebuild packs altered contents in the order given.
func rebuild(t *testing.T, files map[string][]byte, method uint16, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range names {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		w.Write(files[name])
	}
	z.Close()
	return b.Bytes()
}

func TestStrictArchives(t *testing.T) {
	all := samples(t)
	trust := all[0].trust
	inclusion := all[0].data
	fork := all[slices.IndexFunc(all, func(s sample) bool { return s.name == "fork prefix" })].data
	in := contents(t, inclusion)
	names := evidence.Names(in)
	forkNames := evidence.Names(contents(t, fork))
	alter := func(name string, f func(string) string) []byte {
		files := map[string][]byte{}
		for k, v := range in {
			files[k] = v
		}
		files[name] = []byte(f(string(in[name])))
		return evidence.Pack(files, names...)
	}
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	in["../evil"] = []byte("x")
	in["extra"] = []byte("x")
	divergence := func(old, new string) []byte {
		files := contents(t, fork)
		files["divergence.json"] = []byte(strings.Replace(string(files["divergence.json"]), old, new, 1))
		return evidence.Pack(files, forkNames...)
	}
	if !bytes.Equal(alter("leaf", func(s string) string { return s }), inclusion) || !bytes.Equal(divergence("", ""), fork) {
		t.Fatal("the test packs in another form, so that it would show nothing")
	}
	for name, data := range map[string][]byte{
		"not a zip":               []byte("hello"),
		"empty":                   nil,
		"packed anew":             rebuild(t, in, zip.Store, names...),
		"other order":             evidence.Pack(in, append([]string{names[1], names[0]}, names[2:]...)...),
		"something before it":     append([]byte("#!/bin/sh\n"), inclusion...),
		"something behind it":     append(bytes.Clone(inclusion), 'x'),
		"twice":                   evidence.Pack(in, append(slices.Clone(names), "leaf")...),
		"path outside":            evidence.Pack(in, append(slices.Clone(names), "../evil")...),
		"extra file":              evidence.Pack(in, append(slices.Clone(names), "extra")...),
		"file missing":            evidence.Pack(in, names[:3]...),
		"file of a fork":          evidence.Pack(contents(t, fork), forkNames[:len(forkNames)-1]...),
		"other version":           alter("evidence.json", replace("evidence/v1", "evidence/v2")),
		"other claim":             alter("evidence.json", replace(`"inclusion"`, `"coverage"`)),
		"other index":             alter("evidence.json", replace(`"index": 23`, `"index": 24`)),
		"other origin":            alter("evidence.json", replace("log.example", "lag.example")),
		"unknown key":             alter("evidence.json", replace(`"claim"`, `"clam": 1, "claim"`)),
		"a key twice":             alter("evidence.json", replace(`  "entry": {`, "  \"entry\": {\"index\": 7},\n  \"entry\": {")),
		"a key in capitals":       alter("evidence.json", replace(`"origin"`, `"Origin": "x", "origin"`)),
		"a key twice in the word": alter("evidence.json", replace(`"watch"`, `"watch": "x", "watch"`)),
		"a second document":       alter("evidence.json", func(s string) string { return s + "{}\n" }),
		"garbage behind it":       alter("evidence.json", func(s string) string { return s + "}" }),
		"index in the proof":      alter("entry.tlog-proof", replace("index 23", "index 023")),
		"other leaf":              alter("leaf", func(s string) string { return s + " " }),
		"other readme":            alter("README.txt", replace("proven", "shown")),
		"no authorities":          alter("authorities.json", func(string) string { return "anything" }),
		"authorities with a rest": alter("authorities.json", func(s string) string { return s + " " }),
		"divergence with a rest":  divergence("\n}\n", "\n}\n}\n"),
		"divergence, key twice":   divergence(`"shape"`, `"SHAPE": "node", "shape"`),
		"zip bomb":                append(bytes.Clone(inclusion), make([]byte, 17<<20)...),
	} {
		if res, err := evidence.Verify(data, trust); err == nil {
			t.Errorf("%s: accepted: %+v", name, res)
		}
	}
}

// TestArchiveBounds: what is larger than any evidence is not looked at, and nothing is inflated.
func TestArchiveBounds(t *testing.T) {
	defer bounds.Hold(t)()
	s := samples(t)[0]
	in := contents(t, s.data)
	many := map[string][]byte{}
	var names []string
	for i := range 101 {
		name := fmt.Sprintf("served-entry-%d", i)
		many[name], names = nil, append(names, name)
	}
	bomb := maps.Clone(in)
	bomb["leaf"] = make([]byte, 8<<20)
	large := make([]byte, 128<<20+1)
	// Millions of files, of whose number modulo 65,536 the end speaks.
	header := append([]byte("PK\x01\x02"), make([]byte, 42)...)
	listed := bytes.Repeat(header, 65536*20+1)
	endless := append(bytes.Clone(listed), "PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00"...)
	endless = binary.LittleEndian.AppendUint32(endless, uint32(len(listed)))
	endless = append(endless, make([]byte, 6)...)
	defer bounds.Hold(t)()
	for says, data := range map[string][]byte{
		"more than any evidence":        large,
		"not a zip archive":             large[:128<<20],
		"or a list of them of":          endless,
		"holds 101 files":               evidence.Pack(many, names...),
		"is compressed, or too large":   rebuild(t, in, zip.Deflate, evidence.Names(in)...),
		`"leaf" is compressed, or too `: rebuild(t, map[string][]byte{"leaf": bomb["leaf"]}, zip.Deflate, "leaf"),
		"packed anew":                   rebuild(t, in, zip.Store, evidence.Names(in)...),
	} {
		if _, err := evidence.Verify(data, s.trust); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%d bytes: %v, want …%s…", len(data), err, says)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("PK"))
	data, _ := broken(f)
	f.Add(data)
	l, _ := locallog.New("log.example")
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		if _, err := evidence.Verify(data, byKey(l.PublicKeyPEM())); err == nil {
			t.Fatal("verified what no log signed")
		}
	})
}

// FuzzAltered alters what is in files of every kind, and packs it again as it has to be: whatever is
// accepted proves nothing that was not proven before. What anybody may write into a file are statements.
func FuzzAltered(f *testing.F) {
	all := samples(f)
	for i := range all {
		for file := range byte(4) {
			f.Add(byte(i), file, uint16(40), byte(file), []byte("x"))
		}
		f.Add(byte(i), byte(0), uint16(2), byte(2), []byte(`"format":"x",`))
	}
	var proven [][]string
	for _, s := range all {
		res, err := evidence.Verify(s.data, s.trust)
		if err != nil {
			f.Fatalf("%s: %v", s.name, err)
		}
		proven = append(proven, res.Of(evidence.Proven))
	}
	f.Fuzz(func(t *testing.T, which, file byte, at uint16, op byte, text []byte) {
		defer bounds.Hold(t)()
		s := all[int(which)%len(all)]
		files := contents(t, s.data)
		names := evidence.Names(files)
		name := names[int(file)%len(names)]
		if strings.HasPrefix(name, "served-entry-") {
			return // nobody signed what a server served
		}
		old := files[name]
		from := int(at) % (len(old) + 1)
		switch op % 4 {
		case 0: // in place of as much
			to := min(from+len(text), len(old))
			files[name] = slices.Concat(old[:from], text[:to-from], old[to:])
		case 1: // left out
			to := min(from+int(op/4)+1, len(old))
			files[name] = slices.Concat(old[:from], old[to:])
		case 2: // put in between
			files[name] = slices.Concat(old[:from], text, old[from:])
		case 3: // the whole
			files[name] = text
		}
		res, err := evidence.Verify(evidence.Pack(files, names...), s.trust)
		if err != nil {
			return
		}
		// Less may be proven: a line of a witness that does not verify counts for nothing.
		for _, line := range res.Of(evidence.Proven) {
			if !slices.Contains(proven[int(which)%len(all)], line) {
				t.Errorf("%s, with %s altered at %d by %q (%d), proves that %s", s.name, name, from, text, op, line)
			}
		}
	})
}

// TestReadmesAreFrozen: the texts are a part of the format. Whoever has a file of a version
// must be able to check it with every later program: a change here is another version.
func TestReadmesAreFrozen(t *testing.T) {
	want := map[string]string{}
	for _, s := range samples(t) {
		text := contents(t, s.data)["README.txt"]
		if got := fmt.Sprintf("%x", sha256.Sum256(text))[:16]; frozen[s.name] != got {
			want[s.name] = got
		}
	}
	if len(want) > 0 {
		t.Errorf("texts of version %s were changed: %#v", evidence.Format, want)
	}
}

// frozen are the first digits of the SHA-256 of the texts, by sample.
var frozen = map[string]string{
	"broken promise":        "f9e91a36c4ab4f2c",
	"coverage":              "884a99850c12f882",
	"coverage of Rekor v1":  "884a99850c12f882",
	"finding":               "b0e7003c93de4b54",
	"finding of Rekor v1":   "b0e7003c93de4b54",
	"fork equal-size":       "bbcab5224d84b04d",
	"fork node":             "bbcab5224d84b04d",
	"fork prefix":           "bbcab5224d84b04d",
	"mismatch":              "8b96903a29385bf4",
	"only entry":            "b0e7003c93de4b54",
	"redacted finding":      "7ddcf17b288ae7c5",
	"retired log":           "180062edc74662bf",
	"split-view equal-size": "ae9da38a48e454ee",
	"split-view node":       "ae9da38a48e454ee",
	"split-view prefix":     "ae9da38a48e454ee",
}
