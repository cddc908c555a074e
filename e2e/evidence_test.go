package e2e

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/monitor/evidence"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// independently runs the verifier that is a shell script.
func independently(t testing.TB, file string, keys ...string) (output string, holds bool) {
	t.Helper()
	for _, name := range []string{"unzip", "openssl", "jq", "xxd", "bash"} {
		needed(t, name)
	}
	out, err := exec.Command("bash", append([]string{"verify-evidence.sh", file}, keys...)...).CombinedOutput()
	return string(out), err == nil
}

// TestIndependentVerifier: a script that knows nothing of sigwarden comes to the same
// about evidence of every kind, as it is and altered.
func TestIndependentVerifier(t *testing.T) {
	script, err := os.ReadFile("verify-evidence.sh")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(script, []byte("\n")); n > 150 {
		t.Errorf("the script has %d lines", n)
	}
	dir := t.TempDir()
	c := exec.Command("go", "-C", "..", "test", "-count=1", "-run", "^TestSamplesToFiles$", "./monitor/evidence")
	c.Env = append(os.Environ(), "SIGWARDEN_EVIDENCE_DIR="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.zip"))
	if len(files) < 13 {
		t.Fatalf("%d samples", len(files))
	}
	for _, file := range files {
		base := strings.TrimSuffix(file, ".zip")
		claim, _ := os.ReadFile(base + ".claim")
		t.Run(string(claim), func(t *testing.T) {
			t.Parallel()
			agree(t, file, base)
		})
	}
}

func agree(t *testing.T, file, base string) {
	keys, flags := []string{base + ".log.pem"}, []string{"--log-key", base + ".log.pem"}
	if info, err := os.Stat(base + ".ledger.pem"); err == nil && info.Size() > 0 {
		keys, flags = append(keys, base+".ledger.pem"), append(flags, "--ledger-key", base+".ledger.pem")
	}
	ours, code := sigwarden(t, "", append([]string{"evidence", "verify", file}, flags...)...)
	theirs, holds := independently(t, file, keys...)
	if code != 0 || !holds {
		t.Fatalf("sigwarden says %d:\n%s\nthe script says %v:\n%s", code, ours, holds, theirs)
	}
	if strings.Contains(ours, "ml-dsa") != strings.Contains(theirs, "unchecked: the cosignature of witness.example/ml-dsa-44") {
		t.Errorf("of ML-DSA lines the script says:\n%s", theirs)
	}
	other := filepath.Join(t.TempDir(), "other.pem")
	if out, err := exec.Command("sh", "-c", "openssl genpkey -algorithm ed25519 | openssl pkey -pubout -out "+other).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, holds := independently(t, file, other, other); holds {
		t.Errorf("the script takes another key:\n%s", out)
	}
	var trusted evidence.Trust
	for i, to := range []*[]string{&trusted.LogKeys, &trusted.LedgerKeys}[:len(keys)] {
		text, _ := os.ReadFile(keys[i])
		*to = []string{string(text)}
	}
	names, contents := unzipped(t, file)
	for _, name := range names {
		// What nobody has signed, and nobody proves, may say anything.
		if strings.HasSuffix(name, ".pem") || strings.HasPrefix(name, "authorities") || strings.HasPrefix(name, "trusted_root") || name == "README.txt" || len(contents[name]) == 0 {
			continue
		}
		for _, at := range []int{0, 20, 60} {
			at %= len(contents[name])
			altered := map[string][]byte{}
			for k, v := range contents {
				altered[k] = v
			}
			altered[name] = bytes.Clone(contents[name])
			altered[name][at] ^= 1
			bad := filepath.Join(t.TempDir(), "altered.zip")
			rezip(t, bad, names, altered)
			out, holds := independently(t, bad, keys...)
			data, _ := os.ReadFile(bad)
			if _, err := evidence.Verify(data, trusted); err == nil {
				t.Errorf("%s, byte %d altered: sigwarden takes it", name, at)
			}
			// A served entry may be anything but what the tree holds.
			if holds && !strings.HasPrefix(name, "served-entry") {
				t.Errorf("%s, byte %d altered: the script takes it:\n%s", name, at, out)
			}
		}
	}
}

// TestScriptIsNotFooled: a file that is made to fool the script does not.
func TestScriptIsNotFooled(t *testing.T) {
	dir := t.TempDir()
	c := exec.Command("go", "-C", "..", "test", "-count=1", "-run", "^TestSamplesToFiles$", "./monitor/evidence")
	c.Env = append(os.Environ(), "SIGWARDEN_EVIDENCE_DIR="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.zip"))
	fooled := map[string]bool{"finding": false, "broken promise": false, "redacted finding": false, "fork node": false, "mismatch": false, "fork prefix": false, "coverage": false}
	for _, file := range files {
		base := strings.TrimSuffix(file, ".zip")
		claim, _ := os.ReadFile(base + ".claim")
		if _, ok := fooled[string(claim)]; ok {
			fooled[string(claim)] = true
		}
		names, contents := unzipped(t, file)
		bad := filepath.Join(dir, "bad.zip")
		keys := []string{base + ".log.pem", base + ".ledger.pem"}
		refuse := func(what string) {
			t.Helper()
			rezip(t, bad, names, contents)
			if out, holds := independently(t, bad, keys...); holds {
				t.Errorf("%s, %s: taken:\n%s", claim, what, out)
			}
		}
		switch string(claim) {
		case "finding":
			whole := contents["chain-1.pem"]
			contents["chain-1.pem"] = []byte("garbage")
			refuse("a chain that is none")
			contents["chain-1.pem"] = whole
			victim := filepath.Join(dir, "victim")
			var b bytes.Buffer
			z := zip.NewWriter(&b)
			h := &zip.FileHeader{Name: "trusted_root.json", Method: zip.Store}
			h.SetMode(os.ModeSymlink | 0o777)
			w, err := z.CreateHeader(h)
			if err != nil {
				t.Fatal(err)
			}
			w.Write([]byte(victim))
			for _, name := range names {
				if name == "trusted_root.json" {
					continue
				}
				if w, err = z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store}); err != nil {
					t.Fatal(err)
				}
				w.Write(contents[name])
			}
			z.Close()
			if err := os.WriteFile(bad, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, holds := independently(t, bad, keys...); holds || !strings.Contains(out, "is not a plain file") {
				t.Errorf("a link in the archive: taken:\n%s", out)
			}
			if _, err := os.Lstat(victim); err == nil {
				t.Error("a link in the archive was written through")
			}
		case "fork node", "mismatch":
			if string(claim) == "mismatch" {
				kept := contents["served-entry-23"]
				names, contents["served-entry-23"] = slices.DeleteFunc(names, func(n string) bool { return n == "served-entry-23" }), nil
				refuse("nothing that was served")
				names, contents["served-entry-23"] = append(names, "served-entry-23"), kept
			}
			for _, name := range names {
				if strings.HasSuffix(name, ".json") && name != "evidence.json" {
					contents[name] = regexp.MustCompile("[0-9a-f]{64}").ReplaceAllFunc(contents[name], bytes.ToUpper)
				}
			}
			refuse("hashes in capitals")
			names, contents = unzipped(t, file)
			names, contents["spare"] = append(names, "spare"), []byte("x")
			refuse("a file that nobody has asked for")
		case "broken promise":
			// A head that counts twice, so that another index is that of the promise.
			var doc struct {
				Before []string `json:"before"`
			}
			if err := json.Unmarshal(contents["broken-promise.json"], &doc); err != nil || len(doc.Before) != 1 {
				t.Fatalf("%v, %d heads", err, len(doc.Before))
			}
			head, _ := json.Marshal(doc.Before[0])
			contents["broken-promise.json"] = bytes.Replace(contents["broken-promise.json"], head, slices.Concat(head, []byte(","), head), 1)
			rezip(t, bad, names, contents)
			if out, holds := independently(t, bad, keys...); holds || !strings.Contains(out, "a tree counts twice") {
				t.Errorf("a head twice: %v\n%s", holds, out)
			}
		case "redacted finding":
			contents["leaf"] = []byte("another leaf")
			names = append(names, "leaf")
			refuse("a leaf beside what is redacted")
		case "fork prefix":
			// Two honest checkpoints of one log, and a node that bash counts round to.
			root := func(name string) string {
				raw, err := base64.StdEncoding.DecodeString(strings.Split(string(contents[name]), "\n")[2])
				if err != nil {
					t.Fatal(err)
				}
				return fmt.Sprintf("%x", raw)
			}
			doc, err := json.Marshal(map[string]any{"shape": "node", "level": 63, "smaller": string(contents["smaller-checkpoint"]), "larger": string(contents["larger-checkpoint"]),
				"in_smaller": map[string]any{"hash": root("smaller-checkpoint"), "path": []string{}}, "in_larger": map[string]any{"hash": root("larger-checkpoint"), "path": []string{}}})
			if err != nil {
				t.Fatal(err)
			}
			contents["divergence.json"] = doc
			refuse("a node above every tree")
		case "coverage":
			contents["evidence.json"] = bytes.Replace(contents["evidence.json"], []byte(`"from_row": 2`), []byte(`"from_row": 1`), 1)
			refuse("another first row")
		}
	}
	for claim, tried := range fooled {
		if !tried {
			t.Errorf("no sample is a %s any more", claim)
		}
	}
}

// TestTwoTreesOfOneKey: the heads of two trees, which one key has signed, are no change of a
// log that had ended.
func TestTwoTreesOfOneKey(t *testing.T) {
	v, err := locallog.NewV1("rekor.example", 7)
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(v)
	defer ts.Close()
	client, err := rekor.NewV1(rekor.Options{URL: ts.URL})
	if err != nil {
		t.Fatal(err)
	}
	head := func(tree string, entries int) []byte {
		for i := range entries {
			v.Append(fmt.Appendf(nil, "entry %d", i))
		}
		raw, err := client.Tree(tree).Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	first := head("7", 5)
	v.Rotate(8)
	second := head("8", 20)
	dir := t.TempDir()
	file, key := filepath.Join(dir, "f.zip"), filepath.Join(dir, "key.pem")
	var b bytes.Buffer
	if err := evidence.WriteRetiredChanged(&b, "rekor.example - 7", first, second, nil, "x"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(file, b.Bytes(), 0o600), os.WriteFile(key, []byte(v.PublicKeyPEM()), 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, holds := independently(t, file, key); holds || !strings.Contains(out, "of another log") {
		t.Errorf("the script: %v\n%s", holds, out)
	}
	if _, err := evidence.Verify(b.Bytes(), evidence.Trust{LogKeys: []string{v.PublicKeyPEM()}}); err == nil {
		t.Error("sigwarden takes it")
	}
}

// TestReadmeCommands: what the text in a file tells to type gives what it says.
func TestReadmeCommands(t *testing.T) {
	dir := t.TempDir()
	c := exec.Command("go", "-C", "..", "test", "-count=1", "-run", "^TestSamplesToFiles$", "./monitor/evidence")
	c.Env = append(os.Environ(), "SIGWARDEN_EVIDENCE_DIR="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tried := 0
	files, _ := filepath.Glob(filepath.Join(dir, "*.claim"))
	for _, file := range files {
		base := strings.TrimSuffix(file, ".claim")
		switch claim, _ := os.ReadFile(file); string(claim) {
		case "finding", "only entry":
			tried++
			typedOfEntry(t, base)
		case "fork prefix":
			tried++
			typedOfFork(t, base)
		}
	}
	if tried != 3 {
		t.Errorf("%d samples were tried", tried)
	}
}

// unpacked writes the files of a sample into a folder, and returns what cuts commands out of
// its README.
func unpacked(t *testing.T, base string) (dir string, typed func(from, to string) string) {
	dir = t.TempDir()
	_, contents := unzipped(t, base+".zip")
	for name, data := range contents {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	readme := string(contents["README.txt"])
	return dir, func(from, to string) string {
		t.Helper()
		_, text, ok1 := strings.Cut(readme, "\n      "+from)
		text, _, ok2 := strings.Cut(text, to+"\n")
		if !ok1 || !ok2 {
			t.Fatalf("no command from %q to %q in\n%s", from, to, readme)
		}
		return from + text + to + "\n"
	}
}

func shell(t *testing.T, script string) []string {
	t.Helper()
	out, err := exec.Command("sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\nof\n%s", err, out, script)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func typedOfEntry(t *testing.T, base string) {
	dir, typed := unpacked(t, base)
	lines := shell(t, "set -eu\ncd "+dir+"\nNAME=log.example KEY="+base+".log.pem\n"+
		strings.ReplaceAll(typed("n=$(grep", "> sig"), "' NAME '", "\" $NAME \"")+
		strings.ReplaceAll(typed("openssl pkeyutl", "-sigfile sig"), "KEY", "$KEY")+
		typed("node() {", "; }")+typed("fold() {", "\n      }")+
		"hash=$("+strings.TrimSpace(typed("{ printf '\\000'; cat leaf", "sha256sum"))+" | cut -d ' ' -f 1)\n"+
		"path=$("+strings.ReplaceAll(strings.TrimSpace(typed("sed '1,2d;/^$/,$d'", "done")), "FILE", "entry")+")\n"+
		"fold $hash $(sed -n 's/^index //p' entry.tlog-proof | head -n 1) $(sed -n 2p checkpoint) $path\n"+
		"fold $hash $(sed -n 2p checkpoint) $(sed -n 2p checkpoint) $path || :\n"+
		typed("sed -n 3p checkpoint", "64"))
	if len(lines) != 4 || lines[0] != "Signature Verified Successfully" || !strings.HasPrefix(lines[1], lines[3]+" 0") || lines[2] != "no such leaf" {
		t.Errorf("%s", strings.Join(lines, "\n"))
	}
}

func typedOfFork(t *testing.T, base string) {
	dir, typed := unpacked(t, base)
	lines := shell(t, "set -eu\ncd "+dir+"\n"+typed("node() {", "; }")+typed("fold() {", "\n      }")+
		typed("N=$(sed -n 2p", "'.in_larger.path[]?' divergence.json)")+
		"for c in larger smaller; do sed -n 3p $c-checkpoint | base64 -d | xxd -p -c 64; done")
	parts := strings.Fields(lines[0])
	if len(lines) != 3 || len(parts) != 3 || parts[0] != lines[1] || parts[1] != "0" || parts[2] == lines[2] {
		t.Errorf("%s", strings.Join(lines, "\n"))
	}
}

func unzipped(t testing.TB, file string) (names []string, contents map[string][]byte) {
	t.Helper()
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	contents = map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		names, contents[f.Name] = append(names, f.Name), data
	}
	return names, contents
}

func rezip(t testing.TB, file string, names []string, contents map[string][]byte) {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range names {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		w.Write(contents[name])
	}
	z.Close()
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
