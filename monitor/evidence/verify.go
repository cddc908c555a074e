package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// Result says what a file proves.
type Result struct {
	Claim  string `json:"claim"`
	Origin string `json:"origin"`
	// Proven follows from what the key signed; Statements are sigwarden's word.
	Proven     []string `json:"proven"`
	Statements []string `json:"statements"`
}

// ErrKey says that the key given is none: nothing was checked.
var ErrKey = errors.New("the key given cannot be used")

// Verify checks an evidence file, trusting nothing in it but what key signed.
// key is a PEM public key or a note verifier key. The error names the first
// thing that does not hold, or is ErrKey.
func Verify(data []byte, key string) (Result, error) {
	if _, err := checkpoint.ParseKey("any", key); err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrKey, err)
	}
	files, err := readArchive(data)
	if err != nil {
		return Result{}, err
	}
	claim, err := parseClaim(files[fileClaim])
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", fileClaim, err)
	}
	if claim.Format != Format {
		return Result{}, fmt.Errorf("%s: format is %.60q; this program checks %s", fileClaim, claim.Format, Format)
	}
	l, err := checkpoint.ForOrigin(claim.Origin, key)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", fileClaim, err)
	}
	res := Result{Claim: claim.Claim, Origin: claim.Origin, Proven: []string{}, Statements: []string{}}
	switch claim.Claim {
	case ClaimInclusion:
		return verifyInclusion(res, l, claim, files)
	case ClaimFork:
		return verifyFork(res, l, claim, files)
	case ClaimBrokenPromise:
		return verifyPromise(res, l, claim, files)
	}
	return res, fmt.Errorf("%s: claim %.60q is not one that this program checks", fileClaim, claim.Claim)
}

// only checks that an archive has what its claim needs, and nothing else.
func only(files map[string][]byte, optional []string, names ...string) error {
	for _, name := range names {
		if _, ok := files[name]; !ok {
			return fmt.Errorf("archive has no %q", name)
		}
	}
	for name := range files {
		if !slices.Contains(optional, name) && !slices.Contains(names, name) {
			return fmt.Errorf("archive holds a file %.80q that its claim has no use for", name)
		}
	}
	return nil
}

func verifyInclusion(res Result, l *checkpoint.Log, claim Claim, files map[string][]byte) (Result, error) {
	if err := only(files, []string{fileAuthority, fileTrustRoot, fileProvenance}, fileClaim, fileLeaf, fileProof, fileCheckpoint, fileReadme); err != nil {
		return res, err
	}
	if string(files[fileReadme]) != inclusionReadme {
		return res, fmt.Errorf("%s is not the one that belongs to this format", fileReadme)
	}
	if claim.Entry == nil {
		return res, fmt.Errorf("%s names no entry", fileClaim)
	}
	index, path, raw, err := parseTlogProof(files[fileProof])
	if err != nil {
		return res, fmt.Errorf("%s: %w", fileProof, err)
	}
	if !bytes.Equal(raw, files[fileCheckpoint]) {
		return res, fmt.Errorf("%s and the one in %s differ", fileCheckpoint, fileProof)
	}
	c, err := l.Open(raw)
	if err != nil {
		return res, fmt.Errorf("%s: %w", fileCheckpoint, err)
	}
	res.Proven = append(res.Proven, fmt.Sprintf("the key given signed a checkpoint of log %s with %d entries", l.Origin(), c.Size()))
	leafHash := checkpoint.LeafHash(files[fileLeaf])
	if err := c.VerifyInclusion(index, leafHash, path); err != nil {
		return res, fmt.Errorf("%s: the leaf is not at index %d of that tree: %w", fileProof, index, err)
	}
	root := c.Root()
	want := EntryClaim{Index: index, LeafHash: hex.EncodeToString(leafHash[:]), Size: c.Size(), Root: hex.EncodeToString(root[:])}
	if *claim.Entry != want {
		return res, fmt.Errorf("%s names another leaf or checkpoint than those beside it", fileClaim)
	}
	res.Proven = append(res.Proven, fmt.Sprintf("that tree contains the leaf, with hash %s, at index %d", want.LeafHash, index))
	facts, err := entry.Decode(files[fileLeaf])
	res.Proven = append(res.Proven, reading(&facts, err)...)
	judged, err := judgedBy(files[fileAuthority], &facts)
	if err != nil {
		return res, fmt.Errorf("%s: %w", fileAuthority, err)
	}
	res.Statements = append(res.Statements, "which watch it belongs to, the verdict, and when it was seen: everything below \"statement\" in "+fileClaim)
	res.Statements = append(res.Statements, judged...)
	return res, trustedRoot(&res, files)
}

// trustedRoot says what the archive says of the trusted root in force: the word
// of whoever made it, until somebody follows the metadata beside it.
func trustedRoot(res *Result, files map[string][]byte) error {
	root, provenance := files[fileTrustRoot], files[fileProvenance]
	if root == nil {
		if provenance != nil {
			return fmt.Errorf("%s is there, and no %s", fileProvenance, fileTrustRoot)
		}
		return nil
	}
	sum := sha256.Sum256(root)
	res.Statements = append(res.Statements, fmt.Sprintf("the trusted root in force was %s, with SHA-256 %x", fileTrustRoot, sum))
	if provenance == nil {
		return nil
	}
	var doc struct {
		Repository string `json:"repository"`
		Anchor     string `json:"anchor"`
	}
	if err := json.Unmarshal(provenance, &doc); err != nil {
		return fmt.Errorf("%s: %w", fileProvenance, err)
	}
	res.Statements = append(res.Statements, fmt.Sprintf("it was fetched from the TUF repository %q, beginning with root metadata of SHA-256 %q; %s holds the metadata that authenticates it", doc.Repository, doc.Anchor, fileProvenance))
	return nil
}

// reading says what the leaf says, as this program understands it.
func reading(f *entry.Facts, err error) []string {
	if f.Kind == "" {
		return []string{"the leaf is no entry that this program understands"}
	}
	out := []string{fmt.Sprintf("the leaf is an entry of kind %q, version %q", f.Kind, f.APIVersion)}
	if err != nil {
		out = append(out, "this program does not understand the entry in full")
	}
	for _, d := range f.Digests {
		out = append(out, "the entry is about an artifact with digest "+d)
	}
	for i := range f.Identities {
		r := f.Identities[i].Report(entry.ErrNotJudged)
		who := fmt.Sprintf("signer %d is a key with fingerprint %s", i+1, r.Fingerprint)
		if r.Certificate != nil {
			who = fmt.Sprintf("signer %d is a certificate with fingerprint %s for %q", i+1, r.Fingerprint, r.Subjects)
		}
		if r.Issuer != "" {
			who += fmt.Sprintf(", which names issuer %q", r.Issuer)
		}
		out = append(out, who)
	}
	return out
}

// judgedBy verifies the certificates with the authorities in the archive, which
// are the word of whoever made it.
func judgedBy(document []byte, f *entry.Facts) ([]string, error) {
	if document == nil {
		return nil, nil
	}
	authorities, err := entry.ParseAuthorities(document)
	if err != nil {
		return nil, err
	}
	var out []string
	for i := range f.Identities {
		if f.Identities[i].Certificate == nil {
			continue
		}
		verdict := "issued the certificate of"
		if err := authorities.Verify(&f.Identities[i]); err != nil {
			verdict = "did not issue the certificate of"
		}
		out = append(out, fmt.Sprintf("the authorities in %s, if you trust them, %s signer %d (judged at the beginning of its validity, since the log tells no time)", fileAuthority, verdict, i+1))
	}
	return out, nil
}

func verifyFork(res Result, l *checkpoint.Log, claim Claim, files map[string][]byte) (Result, error) {
	if err := only(files, nil, fileClaim, fileDivergence, fileSmaller, fileLarger, fileReadme); err != nil {
		return res, err
	}
	if string(files[fileReadme]) != forkReadme {
		return res, fmt.Errorf("%s is not the one that belongs to this format", fileReadme)
	}
	if claim.Entry != nil {
		return res, fmt.Errorf("%s names an entry, which a fork has no use for", fileClaim)
	}
	d, err := checkpoint.ParseDivergence(files[fileDivergence])
	if err != nil {
		return res, fmt.Errorf("%s: %w", fileDivergence, err)
	}
	if again, err := printDivergence(d); err != nil || !bytes.Equal(again, files[fileDivergence]) {
		return res, fmt.Errorf("%s is not in the form in which evidence is written", fileDivergence)
	}
	if d.Smaller != string(files[fileSmaller]) || d.Larger != string(files[fileLarger]) {
		return res, fmt.Errorf("the checkpoints in %s are not those beside it", fileDivergence)
	}
	if err := d.Verify(l); err != nil {
		return res, fmt.Errorf("%s: %w", fileDivergence, err)
	}
	res.Proven = append(res.Proven, fmt.Sprintf("the key given signed both checkpoints of log %s", l.Origin()),
		fmt.Sprintf("both cannot be true (shape of the evidence: %s)", d.Shape))
	res.Statements = append(res.Statements, "when and where the checkpoints were served")
	return res, nil
}

func verifyPromise(res Result, l *checkpoint.Log, claim Claim, files map[string][]byte) (Result, error) {
	if err := only(files, nil, fileClaim, fileProof, fileCheckpoint, fileBroken, filePromise, fileSET, fileReadme); err != nil {
		return res, err
	}
	if string(files[fileReadme]) != promiseReadme {
		return res, fmt.Errorf("%s is not the one that belongs to this format", fileReadme)
	}
	if claim.Entry != nil {
		return res, fmt.Errorf("%s names an entry, which a broken promise has no use for", fileClaim)
	}
	b, err := checkpoint.ParseBrokenPromise(files[fileBroken])
	if err != nil {
		return res, fmt.Errorf("%s: %w", fileBroken, err)
	}
	parts, err := promiseFiles(b)
	if err != nil {
		return res, fmt.Errorf("%s: %w", fileBroken, err)
	}
	for _, m := range parts {
		if !bytes.Equal(files[m.name], m.data) {
			return res, fmt.Errorf("%s is not the one in %s", m.name, fileBroken)
		}
	}
	if err := b.Verify(l); err != nil {
		return res, fmt.Errorf("%s: %w", fileBroken, err)
	}
	promised := checkpoint.LeafHash(b.Promised.Leaf)
	res.Proven = append(res.Proven,
		fmt.Sprintf("the key given signed the promise to hold the leaf with hash %x at index %d over all trees", promised[:], b.Promised.LogIndex),
		fmt.Sprintf("the key given signed a tree of log %s that holds a leaf with hash %x at index %d", l.Origin(), b.Held.Hash[:], b.Index))
	order := "that both name one place, so that the promise is broken: that this tree is the first of its server"
	if len(b.Before) > 0 {
		order = fmt.Sprintf("that both name one place, so that the promise is broken: that the trees whose signed heads are in %s (%d of them) are all that come before this one, and had ended with %d entries in all", fileBroken, len(b.Before), b.Promised.LogIndex-b.Index)
	}
	res.Statements = append(res.Statements, order+" (no signature says so, and an honest log looks like this to whoever is told of other trees: compare with what those know who followed the log)", "when and where both were served")
	return res, nil
}

// parseTlogProof reads a c2sp.org/tlog-proof@v1 strictly.
func parseTlogProof(data []byte) (index uint64, path []checkpoint.Hash, note []byte, err error) {
	head, rest, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok {
		return 0, nil, nil, errors.New("no blank line before the checkpoint")
	}
	lines := strings.Split(string(head), "\n")
	if len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return 0, nil, nil, errors.New("not a c2sp.org/tlog-proof@v1")
	}
	text, ok := strings.CutPrefix(lines[1], "index ")
	index, parseErr := strconv.ParseUint(text, 10, 63)
	if !ok || parseErr != nil || strconv.FormatUint(index, 10) != text {
		return 0, nil, nil, fmt.Errorf("second line %.40q is not an index", lines[1])
	}
	for _, line := range lines[2:] {
		h, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(h) != checkpoint.HashSize {
			return 0, nil, nil, fmt.Errorf("line %.60q is not a hash", line)
		}
		path = append(path, checkpoint.Hash(h))
	}
	return index, path, rest, nil
}
