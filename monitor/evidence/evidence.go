// Package evidence makes and checks evidence files: zip archives that convince
// somebody who has nothing but the log's key, offline and without sigwarden.
package evidence

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// Format names this version of the files.
const Format = "sigwarden-evidence/v1"

// What a file claims.
const (
	ClaimInclusion = "inclusion" // a log contains an entry
	ClaimFork      = "fork"      // a log contradicts itself
)

// Names of the files in an archive.
const (
	fileClaim      = "evidence.json"
	fileLeaf       = "leaf"
	fileProof      = "entry.tlog-proof"
	fileCheckpoint = "checkpoint"
	fileAuthority  = "authorities.pem"
	fileDivergence = "divergence.json"
	fileSmaller    = "smaller-checkpoint"
	fileLarger     = "larger-checkpoint"
	fileReadme     = "README.txt"
)

// Claim is evidence.json.
type Claim struct {
	Format string `json:"format"`
	Claim  string `json:"claim"`
	Origin string `json:"origin"`
	// Entry is what is claimed of an entry.
	Entry *EntryClaim `json:"entry,omitempty"`
	// Statement is what sigwarden says beside what is proven: its word only.
	Statement json.RawMessage `json:"statement"`
}

// EntryClaim says which entry is in the log, and what its leaf says.
type EntryClaim struct {
	Index      uint64         `json:"index"`
	LeafHash   string         `json:"leaf_hash"`
	Size       uint64         `json:"size"`
	Root       string         `json:"root"`
	Kind       string         `json:"kind"`
	APIVersion string         `json:"api_version"`
	Digests    []string       `json:"digests"`
	Identities []entry.Report `json:"identities"`
}

// Inclusion is what evidence of an entry is made of.
type Inclusion struct {
	Origin string
	Index  uint64
	Leaf   []byte
	Proof  []checkpoint.Hash
	Note   string // the signed checkpoint
	// Size and Root are those of the note.
	Size uint64
	Root checkpoint.Hash
	// Authorities are the certificate authorities in force, as PEM; may be empty.
	Authorities string
	// Statement is a JSON document of what is not proven: the finding.
	Statement any
}

// WriteInclusion writes evidence that a log contains an entry.
func WriteInclusion(w io.Writer, in Inclusion) error {
	statement, err := json.Marshal(in.Statement)
	if err != nil {
		return err
	}
	leafHash := checkpoint.LeafHash(in.Leaf)
	claim := describe(in.Leaf)
	claim.Index, claim.LeafHash = in.Index, hex.EncodeToString(leafHash[:])
	claim.Size, claim.Root = in.Size, hex.EncodeToString(in.Root[:])
	doc, err := json.MarshalIndent(Claim{Format: Format, Claim: ClaimInclusion, Origin: in.Origin, Entry: &claim, Statement: statement}, "", "  ")
	if err != nil {
		return err
	}
	files := []member{
		{fileClaim, append(doc, '\n')},
		{fileLeaf, in.Leaf},
		{fileProof, tlogProof(in)},
		{fileCheckpoint, []byte(in.Note)},
	}
	if in.Authorities != "" {
		files = append(files, member{fileAuthority, []byte(in.Authorities)})
	}
	return writeArchive(w, append(files, member{fileReadme, []byte(inclusionReadme)}))
}

// describe decodes a leaf without any trust: what it says, and nothing more.
func describe(leaf []byte) EntryClaim {
	facts, _ := entry.Decode(leaf) // what cannot be decoded is not claimed
	claim := EntryClaim{Kind: facts.Kind, APIVersion: facts.APIVersion, Digests: facts.Digests, Identities: []entry.Report{}}
	if claim.Digests == nil {
		claim.Digests = []string{}
	}
	nobody := &entry.Authorities{}
	for i := range facts.Identities {
		claim.Identities = append(claim.Identities, facts.Identities[i].Report(nobody.Verify(&facts.Identities[i])))
	}
	for i := range claim.Identities {
		if c := claim.Identities[i].Certificate; c != nil {
			c.Trusted, c.Untrusted = false, "not judged here"
		}
	}
	return claim
}

// tlogProof prints a c2sp.org/tlog-proof@v1.
func tlogProof(in Inclusion) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "c2sp.org/tlog-proof@v1\nindex %d\n", in.Index)
	for _, h := range in.Proof {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteString("\n" + in.Note)
	return []byte(b.String())
}

// WriteFork writes evidence that a log has contradicted itself.
func WriteFork(w io.Writer, origin string, d checkpoint.Divergence, statement any) error {
	text, err := json.Marshal(statement)
	if err != nil {
		return err
	}
	doc, err := json.MarshalIndent(Claim{Format: Format, Claim: ClaimFork, Origin: origin, Statement: text}, "", "  ")
	if err != nil {
		return err
	}
	divergence, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	return writeArchive(w, []member{
		{fileClaim, append(doc, '\n')},
		{fileDivergence, append(divergence, '\n')},
		{fileSmaller, []byte(d.Smaller)},
		{fileLarger, []byte(d.Larger)},
		{fileReadme, []byte(forkReadme)},
	})
}

type member struct {
	name string
	data []byte
}

// writeArchive writes files in their order, uncompressed and without times, so
// that the same evidence has the same bytes.
func writeArchive(w io.Writer, files []member) error {
	z := zip.NewWriter(w)
	for _, f := range files {
		fw, err := z.CreateHeader(&zip.FileHeader{Name: f.name, Method: zip.Store})
		if err != nil {
			return err
		}
		if _, err := fw.Write(f.data); err != nil {
			return err
		}
	}
	return z.Close()
}

// Bounds of an archive that is read.
const (
	maxArchive = 16 << 20
	maxFiles   = 16
)

// readArchive takes an archive apart, strictly: known names, each once,
// uncompressed.
func readArchive(data []byte, known ...string) (map[string][]byte, error) {
	if len(data) > maxArchive {
		return nil, fmt.Errorf("file has %d bytes, more than any evidence", len(data))
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("not a zip archive: %w", err)
	}
	if len(z.File) > maxFiles || z.Comment != "" {
		return nil, errors.New("archive holds more than evidence does")
	}
	files := map[string][]byte{}
	for _, f := range z.File {
		ok := false
		for _, name := range known {
			ok = ok || f.Name == name
		}
		switch _, twice := files[f.Name]; {
		case !ok:
			return nil, fmt.Errorf("archive holds a file %.80q that does not belong there", f.Name)
		case twice:
			return nil, fmt.Errorf("archive holds %q twice", f.Name)
		case f.Method != zip.Store || f.UncompressedSize64 != f.CompressedSize64 || f.UncompressedSize64 > maxArchive:
			return nil, fmt.Errorf("%q is compressed, or too large", f.Name)
		}
		r, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("%q: %w", f.Name, err)
		}
		content, err := io.ReadAll(io.LimitReader(r, maxArchive+1))
		r.Close()
		if err != nil {
			return nil, fmt.Errorf("%q: %w", f.Name, err)
		}
		files[f.Name] = content
	}
	return files, nil
}
