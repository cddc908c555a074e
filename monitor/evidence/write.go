// Package evidence makes and checks evidence files: zip archives that convince
// somebody who has nothing but the keys that he trusts, offline and without sigwarden.
package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// Format names this version of the files.
const Format = "sigwarden-evidence/v1"

// What a file claims.
const (
	ClaimInclusion = "inclusion"  // a log contains an entry
	ClaimFork      = "fork"       // a log contradicts itself
	ClaimSplitView = "split-view" // a log showed others what contradicts what it showed us
	// ClaimBrokenPromise: a Rekor v1 log does not hold what it promised to.
	ClaimBrokenPromise = "broken-promise"
	// ClaimRetiredChanged: a log that had ended has grown.
	ClaimRetiredChanged = "retired-log-changed"
	// ClaimMismatch: a log served entries that are not those of its tree. Nobody has
	// signed what it served: it is the word of whoever made the file.
	ClaimMismatch = "entry-mismatch"
	// ClaimCoverage: a log was watched for a time.
	ClaimCoverage = "coverage"
)

// Claim is evidence.json.
type Claim struct {
	Format string `json:"format"`
	Claim  string `json:"claim"`
	// Origin is that of the log.
	Origin string `json:"origin"`
	// Entry is what is claimed of an entry, Coverage of a stretch of the ledger.
	Entry    *EntryClaim    `json:"entry,omitempty"`
	Coverage *CoverageClaim `json:"coverage,omitempty"`
	// RuleHash is the SHA-256 of rule.json, behind "sha256:".
	RuleHash string `json:"rule_hash,omitempty"`
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
	// Redacted: the leaf itself is left out; whoever has it can compare its hash.
	Redacted bool `json:"redacted,omitempty"`
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
func newClaim(c Claim) (member, error) {
	c.Format = Format
	loose, err := json.Marshal(c)
	if err != nil {
		return member{}, err
	}
	clean, err := decodeClaim(loose)
	if err != nil {
		return member{}, err
	}
	doc, err := clean.print()
	return member{fileClaim, doc}, err
}

// write writes a claim with the files that go with it; empty ones are left out.
func write(w io.Writer, c Claim, files ...member) error {
	doc, err := newClaim(c)
	if err != nil {
		return err
	}
	list := []member{doc, {fileReadme, []byte(readmeOf(c))}}
	for _, m := range files {
		if len(m.data) > 0 || numberable(m.name) == fileServed {
			list = append(list, m)
		}
	}
	sortMembers(list)
	return writeArchive(w, list)
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
	// LogKey is the key that signed it, as DER; may be empty.
	LogKey []byte
	// Promise is the signed entry timestamp of a log of Rekor v1; nil: none.
	Promise *checkpoint.Promise
	// Integrated is when the log took the entry in, if it has signed that.
	Integrated time.Time
	// Authorities is the document of the certificate authorities that the entry
	// was judged with (entry.Authorities); may be empty.
	Authorities []byte
	// TrustRoot is the trusted_root.json that these were taken from, and Provenance
	// the document of the TUF metadata that authenticates it; both may be empty.
	TrustRoot, Provenance []byte
	// Rule is what the rule said; may be empty.
	Rule []byte
	// Statement is a JSON document of what is not proven: the finding.
	Statement any
	// Redacted leaves out the leaf, and whatever else names people.
	Redacted bool
}

// maxChains bounds the signers whose chains are in an archive.
const maxChains = 16

// WriteInclusion writes evidence that a log contains an entry.
func WriteInclusion(w io.Writer, in Inclusion) error {
	leafHash := checkpoint.LeafHash(in.Leaf)
	c := Claim{
		Claim: ClaimInclusion, Origin: in.Origin, Statement: in.Statement,
		Entry: &EntryClaim{Index: in.Index, LeafHash: hex.EncodeToString(leafHash[:]), Size: in.Size, Root: hex.EncodeToString(in.Root[:]), Redacted: in.Redacted},
	}
	files := []member{
		{fileProof, tlogProof(in.Index, in.Proof, in.Note)},
		{fileCheckpoint, []byte(in.Note)},
		{fileAuthority, in.Authorities}, {fileTrustRoot, in.TrustRoot}, {fileProvenance, in.Provenance},
		{fileLogKey, publicPEM(in.LogKey)},
	}
	if in.Redacted {
		return write(w, c, files...)
	}
	if len(in.Rule) > 0 {
		c.RuleHash = fmt.Sprintf("sha256:%x", sha256.Sum256(in.Rule))
	}
	files = append(files, member{fileLeaf, in.Leaf}, member{fileRule, in.Rule})
	if in.Promise != nil {
		files = append(files, member{filePromise, in.Promise.Text()}, member{fileSET, in.Promise.SET})
	}
	chains, err := in.chains()
	if err != nil {
		return err
	}
	return write(w, c, append(files, chains...)...)
}

// chains are the chains of those signers whose certificates a trusted authority
// issued.
func (in *Inclusion) chains() (out []member, err error) {
	if len(in.Authorities) == 0 {
		return nil, nil
	}
	authorities, err := entry.ParseAuthorities(in.Authorities)
	if err != nil {
		return nil, err
	}
	facts, _ := entry.Decode(in.Leaf) // what cannot be decoded has no signers
	for i := range facts.Identities {
		id := &facts.Identities[i]
		chain, err := authorities.Chain(id, in.Integrated)
		if err != nil {
			chain, err = authorities.Chain(id, time.Time{})
		}
		if err != nil || i >= maxChains {
			continue
		}
		out = append(out, member{numberedName(fileChain, uint64(i+1)), chainPEM(chain)})
	}
	return out, nil
}

func chainPEM(chain [][]byte) []byte {
	var b bytes.Buffer
	for _, der := range chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.Bytes()
}

// publicPEM prints a DER SubjectPublicKeyInfo; nothing for nothing.
func publicPEM(der []byte) []byte {
	if len(der) == 0 {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
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

// WriteFork writes evidence that a log has contradicted itself: a ClaimFork, or a
// ClaimSplitView where somebody else was shown the other checkpoint. logKey, as DER,
// may be empty.
func WriteFork(w io.Writer, claim, origin string, d checkpoint.Divergence, logKey []byte, statement any) error {
	divergence, err := printDivergence(d)
	if err != nil {
		return err
	}
	return write(w, Claim{Claim: claim, Origin: origin, Statement: statement},
		member{fileDivergence, divergence}, member{fileSmaller, []byte(d.Smaller)}, member{fileLarger, []byte(d.Larger)}, member{fileLogKey, publicPEM(logKey)})
}

// WriteRetiredChanged writes evidence that a log which had ended has signed another
// tree.
func WriteRetiredChanged(w io.Writer, origin string, frozen, larger, logKey []byte, statement any) error {
	return write(w, Claim{Claim: ClaimRetiredChanged, Origin: origin, Statement: statement},
		member{fileFrozen, frozen}, member{fileLarger, larger}, member{fileLogKey, publicPEM(logKey)})
}

// Served is an entry that a log has served, and that its tree does not hold there.
type Served struct {
	Index uint64
	Leaf  []byte
	// Held is the JSON of a checkpoint.ProvenNode: the hash that the tree holds there;
	// empty: not kept.
	Held []byte
}

// WriteMismatch writes down which entries a log has served that are not those of its
// tree.
func WriteMismatch(w io.Writer, origin string, note []byte, served []Served, logKey []byte, statement any) error {
	files := []member{{fileCheckpoint, note}, {fileLogKey, publicPEM(logKey)}}
	for _, s := range served {
		files = append(files, member{numberedName(fileServed, s.Index), s.Leaf}, member{numberedName(fileHeld, s.Index), s.Held})
	}
	return write(w, Claim{Claim: ClaimMismatch, Origin: origin, Statement: statement}, files...)
}

// WriteBrokenPromise writes evidence that a log holds another entry than the one
// that it promised to.
func WriteBrokenPromise(w io.Writer, origin string, b checkpoint.BrokenPromise, logKey []byte, statement any) error {
	files, err := promiseFiles(b)
	if err != nil {
		return err
	}
	return write(w, Claim{Claim: ClaimBrokenPromise, Origin: origin, Statement: statement}, append(files, member{fileLogKey, publicPEM(logKey)})...)
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
