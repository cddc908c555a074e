package evidence

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// Result says what a file proves.
type Result struct {
	Claim  string `json:"claim"`
	Origin string `json:"origin"`
	// Proven follows from what the key signed; Statements are sigwarden's word.
	Proven     []string `json:"proven"`
	Statements []string `json:"statements"`
}

// Verify checks an evidence file, trusting nothing in it but what key signed.
// key is a PEM public key or a note verifier key. The error names the first
// thing that does not hold.
func Verify(data []byte, key string) (Result, error) {
	all := []string{fileClaim, fileLeaf, fileProof, fileCheckpoint, fileAuthority, fileDivergence, fileSmaller, fileLarger, fileReadme}
	files, err := readArchive(data, all...)
	if err != nil {
		return Result{}, err
	}
	var claim Claim
	dec := json.NewDecoder(bytes.NewReader(files[fileClaim]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&claim); err != nil {
		return Result{}, fmt.Errorf("%s: %w", fileClaim, err)
	}
	if claim.Format != Format {
		return Result{}, fmt.Errorf("%s: format is %.60q; this program checks %s", fileClaim, claim.Format, Format)
	}
	verifier, err := checkpoint.ParseKey(claim.Origin, key)
	if err != nil {
		return Result{}, fmt.Errorf("the key given: %w", err)
	}
	l, err := checkpoint.NewLog(claim.Origin, verifier)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", fileClaim, err)
	}
	res := Result{Claim: claim.Claim, Origin: claim.Origin, Proven: []string{}, Statements: []string{}}
	switch claim.Claim {
	case ClaimInclusion:
		return verifyInclusion(res, l, claim, files)
	case ClaimFork:
		return verifyFork(res, l, claim, files)
	}
	return res, fmt.Errorf("%s: claim %.60q is not one that this program checks", fileClaim, claim.Claim)
}

// only checks that an archive has what its claim needs, and nothing else.
func only(files map[string][]byte, optional string, names ...string) error {
	for _, name := range names {
		if _, ok := files[name]; !ok {
			return fmt.Errorf("archive has no %q", name)
		}
	}
	extra := len(files) - len(names)
	if _, ok := files[optional]; ok {
		extra--
	}
	if extra > 0 {
		return errors.New("archive holds files that its claim has no use for")
	}
	return nil
}

func verifyInclusion(res Result, l *checkpoint.Log, claim Claim, files map[string][]byte) (Result, error) {
	if err := only(files, fileAuthority, fileClaim, fileLeaf, fileProof, fileCheckpoint, fileReadme); err != nil {
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
	want := describe(files[fileLeaf])
	want.Index, want.LeafHash, want.Size, want.Root = index, hex.EncodeToString(leafHash[:]), c.Size(), hex.EncodeToString(root[:])
	a, err1 := json.Marshal(want)
	b, err2 := json.Marshal(*claim.Entry)
	if err := errors.Join(err1, err2); err != nil {
		return res, err
	}
	if !bytes.Equal(a, b) {
		return res, fmt.Errorf("%s says something of the entry that the leaf does not", fileClaim)
	}
	res.Proven = append(res.Proven, fmt.Sprintf("that tree contains the leaf, with hash %s, at index %d", want.LeafHash, index),
		fmt.Sprintf("the leaf is an entry of kind %q, version %q, with the identities and digests named in %s", want.Kind, want.APIVersion, fileClaim))
	res.Statements = append(res.Statements, "which watch it belongs to, the verdict, and when it was seen", "whether its certificates were trusted, and by which authorities")
	return res, nil
}

func verifyFork(res Result, l *checkpoint.Log, claim Claim, files map[string][]byte) (Result, error) {
	if err := only(files, "", fileClaim, fileDivergence, fileSmaller, fileLarger, fileReadme); err != nil {
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
