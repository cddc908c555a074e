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
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// Format names this version of the files.
const Format = "sigwarden-evidence/v1"

// What a file claims.
const (
	ClaimInclusion = "inclusion" // a log contains an entry
	ClaimFork      = "fork"      // a log contradicts itself
	// ClaimBrokenPromise: a Rekor v1 log does not hold what it promised to.
	ClaimBrokenPromise = "broken-promise"
)

// Names of the files in an archive.
const (
	fileClaim      = "evidence.json"
	fileLeaf       = "leaf"
	fileProof      = "entry.tlog-proof"
	fileCheckpoint = "checkpoint"
	fileAuthority  = "authorities.json"
	fileTrustRoot  = "trusted_root.json"
	fileProvenance = "trusted_root.provenance.json"
	fileDivergence = "divergence.json"
	fileSmaller    = "smaller-checkpoint"
	fileLarger     = "larger-checkpoint"
	filePromise    = "promise"
	fileSET        = "promise.sig"
	fileBroken     = "broken-promise.json"
	fileReadme     = "README.txt"
)

// order is that of the files in an archive.
var order = []string{fileClaim, fileLeaf, fileProof, fileCheckpoint, fileAuthority, fileTrustRoot, fileProvenance, fileDivergence, fileSmaller, fileLarger, fileBroken, filePromise, fileSET, fileReadme}

// Claim is evidence.json.
type Claim struct {
	Format string `json:"format"`
	Claim  string `json:"claim"`
	Origin string `json:"origin"`
	// Entry is what is claimed of an entry.
	Entry *EntryClaim `json:"entry,omitempty"`
	// Statement is what sigwarden says beside what is proven: its word only.
	Statement any `json:"statement"`
}

// EntryClaim says which leaf is in the log. What the leaf says is read from it
// by whoever checks, so that better decoders leave old evidence valid.
type EntryClaim struct {
	Index    uint64 `json:"index"`
	LeafHash string `json:"leaf_hash"`
	Size     uint64 `json:"size"`
	Root     string `json:"root"`
}

// print makes evidence.json in the one form that parseClaim takes.
func (c Claim) print() ([]byte, error) {
	doc, err := json.MarshalIndent(c, "", "  ")
	return append(doc, '\n'), err
}

// parseClaim reads evidence.json by round trip: no key twice, none in another
// case, nothing behind it.
func parseClaim(doc []byte) (Claim, error) {
	c, err := decodeClaim(doc)
	if err != nil {
		return Claim{}, err
	}
	if again, err := c.print(); err != nil || !bytes.Equal(again, doc) {
		return Claim{}, errors.New("not in the form in which evidence is written")
	}
	return c, nil
}

func decodeClaim(doc []byte) (Claim, error) {
	var c Claim
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	dec.UseNumber()
	err := dec.Decode(&c)
	return c, err
}

// newClaim prints a claim whose statement may be any document. What JSON cannot
// hold, broken UTF-8, is replaced before it is printed.
func newClaim(c Claim) ([]byte, error) {
	loose, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	clean, err := decodeClaim(loose)
	if err != nil {
		return nil, err
	}
	return clean.print()
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
	// Authorities is the document of the certificate authorities that the entry
	// was judged with (entry.Authorities); may be empty.
	Authorities []byte
	// TrustRoot is the trusted_root.json that these were taken from, and Provenance
	// the document of the TUF metadata that authenticates it; both may be empty.
	TrustRoot, Provenance []byte
	// Statement is a JSON document of what is not proven: the finding.
	Statement any
}

// WriteInclusion writes evidence that a log contains an entry.
func WriteInclusion(w io.Writer, in Inclusion) error {
	leafHash := checkpoint.LeafHash(in.Leaf)
	doc, err := newClaim(Claim{
		Format: Format, Claim: ClaimInclusion, Origin: in.Origin, Statement: in.Statement,
		Entry: &EntryClaim{Index: in.Index, LeafHash: hex.EncodeToString(leafHash[:]), Size: in.Size, Root: hex.EncodeToString(in.Root[:])},
	})
	if err != nil {
		return err
	}
	files := []member{
		{fileClaim, doc},
		{fileLeaf, in.Leaf},
		{fileProof, tlogProof(in.Index, in.Proof, in.Note)},
		{fileCheckpoint, []byte(in.Note)},
	}
	for _, m := range []member{{fileAuthority, in.Authorities}, {fileTrustRoot, in.TrustRoot}, {fileProvenance, in.Provenance}} {
		if len(m.data) > 0 {
			files = append(files, m)
		}
	}
	return writeArchive(w, append(files, member{fileReadme, []byte(inclusionReadme)}))
}

// tlogProof prints a c2sp.org/tlog-proof@v1.
func tlogProof(index uint64, path []checkpoint.Hash, note string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "c2sp.org/tlog-proof@v1\nindex %d\n", index)
	for _, h := range path {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteString("\n" + note)
	return []byte(b.String())
}

// WriteFork writes evidence that a log has contradicted itself.
func WriteFork(w io.Writer, origin string, d checkpoint.Divergence, statement any) error {
	doc, err := newClaim(Claim{Format: Format, Claim: ClaimFork, Origin: origin, Statement: statement})
	if err != nil {
		return err
	}
	divergence, err := printDivergence(d)
	if err != nil {
		return err
	}
	return writeArchive(w, []member{
		{fileClaim, doc},
		{fileDivergence, divergence},
		{fileSmaller, []byte(d.Smaller)},
		{fileLarger, []byte(d.Larger)},
		{fileReadme, []byte(forkReadme)},
	})
}

// WriteBrokenPromise writes evidence that a log holds another entry than the one
// that it promised to.
func WriteBrokenPromise(w io.Writer, origin string, b checkpoint.BrokenPromise, statement any) error {
	doc, err := newClaim(Claim{Format: Format, Claim: ClaimBrokenPromise, Origin: origin, Statement: statement})
	if err != nil {
		return err
	}
	files, err := promiseFiles(b)
	if err != nil {
		return err
	}
	return writeArchive(w, slices.Concat([]member{{fileClaim, doc}}, files, []member{{fileReadme, []byte(promiseReadme)}}))
}

// promiseFiles are the evidence of a broken promise, and its parts for whoever
// checks them without this program.
func promiseFiles(b checkpoint.BrokenPromise) ([]member, error) {
	doc, err := b.Print()
	if err != nil {
		return nil, err
	}
	path := make([]checkpoint.Hash, len(b.Held.Path))
	for i, h := range b.Held.Path {
		path[i] = checkpoint.Hash(h)
	}
	return []member{
		{fileProof, tlogProof(b.Index, path, b.Checkpoint)},
		{fileCheckpoint, []byte(b.Checkpoint)},
		{fileBroken, doc},
		{filePromise, b.Promised.Text()},
		{fileSET, b.Promised.SET},
	}, nil
}

func printDivergence(d checkpoint.Divergence) ([]byte, error) {
	doc, err := json.MarshalIndent(d, "", "  ")
	return append(doc, '\n'), err
}

type member struct {
	name string
	data []byte
}

// firstDate stands for no time at all: 1980-01-01, the first that zip can hold.
const firstDate = 1<<5 | 1

// writeArchive writes files in their order, uncompressed and at one time, so
// that the same evidence has the same bytes.
func writeArchive(w io.Writer, files []member) error {
	z := zip.NewWriter(w)
	for _, f := range files {
		// Raw, so that sizes stand before the contents: some readers need that.
		h := &zip.FileHeader{Name: f.name, Method: zip.Store, CRC32: crc32.ChecksumIEEE(f.data), CompressedSize64: uint64(len(f.data)), UncompressedSize64: uint64(len(f.data))}
		//lint:ignore SA1019 what is raw takes the old field alone
		h.ModifiedDate = firstDate
		fw, err := z.CreateRaw(h)
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
	// A server of Rekor v1 may answer with 32 MiB, and a leaf may be in the archive
	// three times in base64.
	maxArchive = 128 << 20
	maxFiles   = 10
)

// readArchive takes an archive apart. It takes what writeArchive makes of the
// same contents, byte by byte, and nothing else: whatever a zip can hide shows
// as a difference.
func readArchive(data []byte) (map[string][]byte, error) {
	if len(data) > maxArchive {
		return nil, fmt.Errorf("file has %d bytes, more than any evidence", len(data))
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("not a zip archive: %w", err)
	}
	if len(z.File) > maxFiles {
		return nil, fmt.Errorf("archive holds %d files, more than evidence does", len(z.File))
	}
	var list []member
	for _, f := range z.File {
		if f.Method != zip.Store || f.UncompressedSize64 > uint64(len(data)) {
			return nil, fmt.Errorf("%.80q is compressed, or too large", f.Name)
		}
		r, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("%.80q: %w", f.Name, err)
		}
		content, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return nil, fmt.Errorf("%.80q: %w", f.Name, err)
		}
		list = append(list, member{f.Name, content})
	}
	for i, m := range list {
		at := slices.Index(order, m.name)
		if at < 0 || i > 0 && at <= slices.Index(order, list[i-1].name) {
			return nil, fmt.Errorf("archive holds a file %.80q that does not belong there, or not in this place", m.name)
		}
	}
	var again bytes.Buffer
	if err := writeArchive(&again, list); err != nil || !bytes.Equal(again.Bytes(), data) {
		return nil, errors.New("archive is not in the form in which evidence is written: it was packed anew, or altered")
	}
	files := map[string][]byte{}
	for _, m := range list {
		files[m.name] = m.data
	}
	return files, nil
}
