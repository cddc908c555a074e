package evidence

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// Status says what a line of a Result is worth.
type Status string

// What is said of evidence is one of these.
const (
	Proven    Status = "proven"     // it follows from what keys that are trusted signed
	NotProven Status = "not-proven" // it could not be checked with the keys that were given
	Statement Status = "statement"  // it is the word of whoever made the file
)

// Line is one thing that is said of evidence.
type Line struct {
	Status Status `json:"status"`
	Text   string `json:"text"`
}

// Result says what a file shows.
type Result struct {
	Format string `json:"format"`
	Claim  string `json:"claim"`
	Origin string `json:"origin"`
	// EmbeddedTrust: keys in the file were trusted, so that it shows no more than that
	// it agrees with itself.
	EmbeddedTrust bool `json:"embedded_trust"`
	// Holds: nothing in the file contradicts its claim; what Claims proves is proven.
	Holds  bool   `json:"holds"`
	Error  string `json:"error,omitempty"` // the first thing that does not hold
	Claims []Line `json:"claims"`
}

// Of returns the texts of one status.
func (r *Result) Of(s Status) (texts []string) {
	for _, l := range r.Claims {
		if l.Status == s {
			texts = append(texts, l.Text)
		}
	}
	return texts
}

// verifier checks one file.
type verifier struct {
	trust Trust
	claim Claim
	files map[string][]byte
	res   Result
}

func (v *verifier) proven(format string, args ...any)    { v.say(Proven, format, args...) }
func (v *verifier) notProven(format string, args ...any) { v.say(NotProven, format, args...) }
func (v *verifier) statement(format string, args ...any) { v.say(Statement, format, args...) }
func (v *verifier) say(s Status, format string, args ...any) {
	v.res.Claims = append(v.res.Claims, Line{s, fmt.Sprintf(format, args...)})
}

// embedded returns a key in the file, if such are trusted.
func (v *verifier) embedded(name string) []byte {
	if !v.trust.Embedded {
		return nil
	}
	return v.files[name]
}

// Verify checks an evidence file, trusting nothing in it but what keys that are
// trusted signed. The error names the first thing that does not hold, or is ErrKey.
func Verify(data []byte, trust Trust) (Result, error) {
	v := &verifier{trust: trust, res: Result{Format: Format, EmbeddedTrust: trust.Embedded, Claims: []Line{}}}
	for _, key := range slices.Concat(trust.LogKeys, trust.LedgerKeys) {
		if _, err := checkpoint.ParseKey("any", key); err != nil {
			return v.res, fmt.Errorf("%w: %w", ErrKey, err)
		}
	}
	err := v.verify(data)
	if v.res.Holds = err == nil; err != nil {
		v.res.Error = err.Error()
	}
	return v.res, err
}

func (v *verifier) verify(data []byte) (err error) {
	if v.files, err = readArchive(data); err != nil {
		return err
	}
	if v.claim, err = parseClaim(v.files[fileClaim]); err != nil {
		return fmt.Errorf("%s: %w", fileClaim, err)
	}
	if v.claim.Format != Format {
		return fmt.Errorf("%s: format is %.60q; this program checks %s", fileClaim, v.claim.Format, Format)
	}
	v.res.Claim, v.res.Origin = v.claim.Claim, v.claim.Origin
	check, known := map[string]func() error{
		ClaimInclusion: v.inclusion, ClaimFork: v.fork, ClaimSplitView: v.fork, ClaimBrokenPromise: v.promise,
		ClaimRetiredChanged: v.retired, ClaimMismatch: v.mismatch, ClaimCoverage: v.coverage,
	}[v.claim.Claim]
	if !known {
		return fmt.Errorf("%s: claim %.60q is not one that this program checks", fileClaim, v.claim.Claim)
	}
	if string(v.files[fileReadme]) != readmeOf(v.claim) {
		return fmt.Errorf("%s is not the one that belongs to this claim", fileReadme)
	}
	if v.claim.Entry != nil && v.claim.Claim != ClaimInclusion || v.claim.Coverage != nil && v.claim.Claim != ClaimCoverage || v.claim.RuleHash != "" && v.claim.Claim != ClaimInclusion {
		return fmt.Errorf("%s names what its claim has no use for", fileClaim)
	}
	return check()
}

// log returns the log that the claim is about.
func (v *verifier) log() (*checkpoint.Log, error) {
	l, err := v.trust.log(v.claim.Origin, slices.Concat(v.trust.LogKeys, v.trust.rootKeys(v.claim.Origin)), v.embedded(fileLogKey))
	if errors.Is(err, errNoKey) {
		return nil, fmt.Errorf("log %.100q: what was given to trust has no key of it", v.claim.Origin)
	}
	return l, err
}

// open opens a checkpoint of the log that the claim names: a tree of Rekor v1 is known by
// its id, whatever its server calls itself, but what is said of it is to be true.
func (v *verifier) open(l *checkpoint.Log, name string) (checkpoint.Checkpoint, error) {
	c, err := l.Open(v.files[name])
	if err == nil && c.Origin() != v.claim.Origin {
		err = fmt.Errorf("it is of %.100q, and %s names %.100q", c.Origin(), fileClaim, v.claim.Origin)
	}
	if err != nil {
		return c, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// only checks that an archive has what its claim needs, and nothing else.
func (v *verifier) only(optional []string, names ...string) error {
	for _, name := range names {
		if _, ok := v.files[name]; !ok {
			return fmt.Errorf("archive has no %q", name)
		}
	}
	for name := range v.files {
		kind := name
		if p := numberable(name); p != "" {
			kind = p
		}
		if !slices.Contains(optional, kind) && !slices.Contains(names, name) {
			return fmt.Errorf("archive holds a file %.80q that its claim has no use for", name)
		}
	}
	return nil
}

func (v *verifier) inclusion() error {
	claim, files := v.claim, v.files
	if claim.Entry == nil {
		return fmt.Errorf("%s names no entry", fileClaim)
	}
	needed, optional := []string{fileClaim, fileProof, fileCheckpoint, fileReadme}, []string{fileAuthority, fileTrustRoot, fileProvenance, fileLogKey}
	if !claim.Entry.Redacted {
		needed, optional = append(needed, fileLeaf), append(optional, fileChain, fileRule, filePromise, fileSET)
	}
	if err := v.only(optional, needed...); err != nil {
		return err
	}
	l, err := v.log()
	if err != nil {
		return err
	}
	index, path, raw, err := parseTlogProof(files[fileProof])
	if err != nil {
		return fmt.Errorf("%s: %w", fileProof, err)
	}
	if !bytes.Equal(raw, files[fileCheckpoint]) {
		return fmt.Errorf("%s and the one in %s differ", fileCheckpoint, fileProof)
	}
	c, err := v.open(l, fileCheckpoint)
	if err != nil {
		return err
	}
	v.proven("the log's key signed a checkpoint of log %s with %d entries", l.Origin(), c.Size())
	v.cosignatures(raw)
	var leafHash checkpoint.HexHash
	if claim.Entry.Redacted {
		if err := leafHash.UnmarshalText([]byte(claim.Entry.LeafHash)); err != nil {
			return fmt.Errorf("%s: %w", fileClaim, err)
		}
	} else {
		leafHash = checkpoint.HexHash(checkpoint.LeafHash(files[fileLeaf]))
	}
	if err := c.VerifyInclusion(index, checkpoint.Hash(leafHash), path); err != nil {
		return fmt.Errorf("%s: the leaf is not at index %d of that tree: %w", fileProof, index, err)
	}
	root := c.Root()
	want := EntryClaim{Index: index, LeafHash: hex.EncodeToString(leafHash[:]), Size: c.Size(), Root: hex.EncodeToString(root[:]), Redacted: claim.Entry.Redacted}
	if *claim.Entry != want {
		return fmt.Errorf("%s names another leaf or checkpoint than those beside it", fileClaim)
	}
	if claim.Entry.Redacted {
		v.proven("that tree contains a leaf with hash %s at index %d", want.LeafHash, index)
		v.notProven("what the leaf says: it was left out, to protect people. Whoever has it can hash it")
	} else {
		v.proven("that tree contains the leaf, with hash %s, at index %d", want.LeafHash, index)
		if err := v.leaf(l); err != nil {
			return err
		}
	}
	v.statement("which watch it belongs to, the verdict, and when it was seen: everything below \"statement\" in %s", fileClaim)
	if err := v.rule(); err != nil {
		return err
	}
	return v.trustedRoot()
}

// leaf reads the leaf, and judges its signers.
func (v *verifier) leaf(l *checkpoint.Log) error {
	facts, err := entry.Decode(v.files[fileLeaf])
	for _, text := range reading(&facts, err) {
		v.proven("%s", text)
	}
	integrated, err := v.integrated(l)
	if err != nil {
		return err
	}
	if err := v.chains(&facts); err != nil {
		return err
	}
	return v.signers(&facts, integrated)
}

// integrated checks the log's promise, and returns when it took the entry in; zero:
// the file has none.
func (v *verifier) integrated(l *checkpoint.Log) (time.Time, error) {
	text, set := v.files[filePromise], v.files[fileSET]
	if text == nil && set == nil {
		return time.Time{}, nil
	}
	var doc struct {
		IntegratedTime int64              `json:"integratedTime"`
		LogID          checkpoint.HexHash `json:"logID"`
		LogIndex       uint64             `json:"logIndex"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", filePromise, err)
	}
	p := checkpoint.Promise{Leaf: v.files[fileLeaf], Integrated: doc.IntegratedTime, LogID: doc.LogID, LogIndex: doc.LogIndex, SET: set}
	if !bytes.Equal(p.Text(), text) {
		return time.Time{}, fmt.Errorf("%s is not about the leaf, or not in the form in which logs sign", filePromise)
	}
	if err := l.VerifyPromise(p.Leaf, p.Integrated, p.LogIndex, set); err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", fileSET, err)
	}
	at := time.Unix(p.Integrated, 0).UTC()
	v.proven("the log's key signed that it took the leaf in at %s, as entry %d over all its trees", stamp(at), p.LogIndex)
	return at, nil
}

// maxRSABits bounds the work that a key in a file makes.
const maxRSABits = 8192

// chains checks that the chains in the archive are those of the leaf's signers, each
// certificate signed by the next one.
func (v *verifier) chains(f *entry.Facts) error {
	for name, text := range v.files {
		if numberable(name) != fileChain {
			continue
		}
		_, n, _ := place(name)
		if n < 1 || n > uint64(len(f.Identities)) {
			return fmt.Errorf("%s: the leaf has no signer %d", name, n)
		}
		var chain [][]byte
		for rest := text; len(rest) > 0; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				return fmt.Errorf("%s: not PEM", name)
			}
			chain = append(chain, block.Bytes)
		}
		if !bytes.Equal(chainPEM(chain), text) || len(chain) == 0 || !bytes.Equal(chain[0], f.Identities[n-1].Certificate) {
			return fmt.Errorf("%s does not begin with the certificate of signer %d, or is not in the form in which evidence is written", name, n)
		}
		for i := range chain {
			cert, err := x509.ParseCertificate(chain[i])
			issuer := cert
			if err == nil && i+1 < len(chain) {
				issuer, err = x509.ParseCertificate(chain[i+1])
			}
			if err == nil {
				if key, ok := issuer.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
					err = fmt.Errorf("RSA key of %d bits, more than %d", key.N.BitLen(), maxRSABits)
				}
			}
			if err == nil && (i+1 < len(chain) || i > 0) {
				err = issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
			}
			if err != nil {
				return fmt.Errorf("%s: certificate %d: %w", name, i+1, err)
			}
		}
	}
	return nil
}

// signers judges the certificates, by authorities that are trusted, or else by those in
// the archive, which are the word of whoever made it.
func (v *verifier) signers(f *entry.Facts, integrated time.Time) error {
	var inside *entry.Authorities
	if doc := v.files[fileAuthority]; doc != nil {
		var err error
		if inside, err = entry.ParseAuthorities(doc); err != nil {
			return fmt.Errorf("%s: %w", fileAuthority, err)
		}
	}
	when := "at the beginning of its validity, since the log tells no time"
	if !integrated.IsZero() {
		when = "when the log took it in"
	}
	for i := range f.Identities {
		id := &f.Identities[i]
		if id.Certificate == nil {
			continue
		}
		given := v.trust.Authorities
		if given == nil && v.trust.Embedded {
			given = inside
		}
		switch {
		case given == nil:
			v.notProven("who issued the certificate of signer %d: no trusted root was given", i+1)
		case given.VerifyAt(id, integrated) == nil:
			v.proven("an authority that is trusted issued the certificate of signer %d, and it was valid %s", i+1, when)
		default:
			v.notProven("who issued the certificate of signer %d: no authority that is trusted, valid %s (%v)", i+1, when, given.VerifyAt(id, integrated))
		}
		if inside != nil {
			verdict := "issued the certificate of"
			if inside.VerifyAt(id, integrated) != nil {
				verdict = "did not issue the certificate of"
			}
			v.statement("the authorities in %s, if you trust them, %s signer %d (judged %s)", fileAuthority, verdict, i+1, when)
		}
	}
	return nil
}

// rule says what the entry was judged by.
func (v *verifier) rule() error {
	rule := v.files[fileRule]
	if rule == nil && v.claim.RuleHash == "" {
		return nil
	}
	if hash := fmt.Sprintf("sha256:%x", sha256.Sum256(rule)); hash != v.claim.RuleHash {
		return fmt.Errorf("%s has SHA-256 %s, and %s names %.80q", fileRule, hash, fileClaim, v.claim.RuleHash)
	}
	v.statement("it was judged by the rule in %s, %s", fileRule, v.claim.RuleHash)
	return nil
}

// trustedRoot says what the archive says of the trusted root in force: the word
// of whoever made it, until somebody follows the metadata beside it.
func (v *verifier) trustedRoot() error {
	root, provenance := v.files[fileTrustRoot], v.files[fileProvenance]
	if root == nil {
		if provenance != nil {
			return fmt.Errorf("%s is there, and no %s", fileProvenance, fileTrustRoot)
		}
		return nil
	}
	v.statement("the trusted root in force was %s, with SHA-256 %x", fileTrustRoot, sha256.Sum256(root))
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
	v.statement("it was fetched from the TUF repository %q, beginning with root metadata of SHA-256 %q; %s holds the metadata that authenticates it", doc.Repository, doc.Anchor, fileProvenance)
	return nil
}

// cosignatures says what the other signature lines of a checkpoint are worth.
func (v *verifier) cosignatures(raw []byte) {
	checked := map[string]bool{}
	for _, s := range witness.Cosignatures(raw, v.trust.Witnesses...) {
		checked[fmt.Sprintf("%s %08x", s.By.Name(), s.By.KeyHash())] = true
		v.proven("witness %s had seen this tree at %s, and none that contradicts it (%s)", s.By.Name(), stamp(time.Unix(s.At, 0)), s.By.Algorithm())
	}
	_, _, tree := checkpoint.SplitOrigin(v.claim.Origin)
	own := keyName(v.claim.Origin, tree)
	at := bytes.LastIndex(raw, []byte("\n\n"))
	for line := range strings.Lines(string(raw[at+2:])) {
		parts := strings.Fields(line)
		if len(parts) != 3 || parts[1] == own {
			continue
		}
		sig, err := base64.StdEncoding.DecodeString(parts[2])
		if err != nil || len(sig) < 5 {
			continue
		}
		// A cosignature is a time and an Ed25519 signature, or a longer one of ML-DSA-44.
		size := len(sig) - 4
		if id := fmt.Sprintf("%s %x", parts[1], sig[:4]); !checked[id] && (size == 72 || size > 2000) {
			v.notProven("a cosignature by %.100q (key id %x): no key of it was given, or it does not verify", parts[1], sig[:4])
		}
	}
}

func (v *verifier) fork() error {
	if err := v.only([]string{fileLogKey}, fileClaim, fileDivergence, fileSmaller, fileLarger, fileReadme); err != nil {
		return err
	}
	l, err := v.log()
	if err != nil {
		return err
	}
	d, err := checkpoint.ParseDivergence(v.files[fileDivergence])
	if err != nil {
		return fmt.Errorf("%s: %w", fileDivergence, err)
	}
	if again, err := printDivergence(d); err != nil || !bytes.Equal(again, v.files[fileDivergence]) {
		return fmt.Errorf("%s is not in the form in which evidence is written", fileDivergence)
	}
	if d.Smaller != string(v.files[fileSmaller]) || d.Larger != string(v.files[fileLarger]) {
		return fmt.Errorf("the checkpoints in %s are not those beside it", fileDivergence)
	}
	if err := d.Verify(l); err != nil {
		return fmt.Errorf("%s: %w", fileDivergence, err)
	}
	if _, err := v.open(l, fileLarger); err != nil {
		return err
	}
	v.proven("the log's key signed both checkpoints of log %s", l.Origin())
	v.proven("both cannot be true (shape of the evidence: %s)", d.Shape)
	v.cosignatures(v.files[fileSmaller])
	v.cosignatures(v.files[fileLarger])
	v.statement("when and where the checkpoints were served")
	if v.claim.Claim == ClaimSplitView {
		v.statement("that one of them was shown to somebody else and not to whoever made this file")
	}
	return nil
}

func (v *verifier) retired() error {
	if err := v.only([]string{fileLogKey}, fileClaim, fileFrozen, fileLarger, fileReadme); err != nil {
		return err
	}
	l, err := v.log()
	if err != nil {
		return err
	}
	frozen, err := v.open(l, fileFrozen)
	if err != nil {
		return err
	}
	larger, err := l.Open(v.files[fileLarger])
	if err != nil {
		return fmt.Errorf("%s: %w", fileLarger, err)
	}
	if larger.Size() == frozen.Size() && larger.Root() == frozen.Root() {
		return errors.New("both checkpoints are of one tree: nothing has changed")
	}
	if frozen.Frozen() {
		v.proven("the log's key signed that log %s had ended with %d entries", l.Origin(), frozen.Size())
	} else {
		v.proven("the log's key signed a tree of log %s with %d entries", l.Origin(), frozen.Size())
		v.statement("that the log was listed as one that had ended, when it had this tree")
	}
	v.proven("the log's key signed another tree of the same log, with %d entries", larger.Size())
	v.statement("which of the two was signed first, and when and where both were served: an honest log may serve an old checkpoint after the one that ended it")
	return nil
}

func (v *verifier) mismatch() error {
	if err := v.only([]string{fileServed, fileHeld, fileLogKey}, fileClaim, fileCheckpoint, fileReadme); err != nil {
		return err
	}
	l, err := v.log()
	if err != nil {
		return err
	}
	c, err := v.open(l, fileCheckpoint)
	if err != nil {
		return err
	}
	v.proven("the log's key signed a checkpoint of log %s with %d entries", l.Origin(), c.Size())
	v.cosignatures(v.files[fileCheckpoint])
	for _, name := range sortedNames(v.files, fileServed, fileHeld) {
		prefix := numberable(name)
		_, index, _ := place(name)
		if prefix == fileHeld {
			if _, ok := v.files[numberedName(fileServed, index)]; !ok {
				return fmt.Errorf("%s is there, and no %s", name, numberedName(fileServed, index))
			}
			continue
		}
		if err := v.served(c, index, v.files[name]); err != nil {
			return err
		}
	}
	v.statement("that the log served these bytes as its entries: it has signed nothing of the kind. This is the word of whoever made the file, and convinces nobody else")
	return nil
}

// served compares what was served with what the tree holds.
func (v *verifier) served(c checkpoint.Checkpoint, index uint64, leaf []byte) error {
	name := numberedName(fileHeld, index)
	got := checkpoint.LeafHash(leaf)
	doc, ok := v.files[name]
	if !ok {
		v.notProven("which hash the tree holds at index %d; what was served hashes to %x", index, got[:])
		return nil
	}
	held, path, err := parseHeld(doc)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := c.VerifyInclusion(index, held, path); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if held == got {
		return fmt.Errorf("%s: the tree holds at index %d just what was served", name, index)
	}
	v.proven("that tree holds at index %d a leaf with hash %x, and %s, which hashes to %x, is not it", index, held[:], numberedName(fileServed, index), got[:])
	return nil
}

// parseHeld reads what json.Marshal makes of a checkpoint.ProvenNode.
func parseHeld(doc []byte) (h checkpoint.Hash, path []checkpoint.Hash, err error) {
	var n checkpoint.ProvenNode
	if err := json.Unmarshal(doc, &n); err != nil {
		return h, nil, err
	}
	if again, err := json.Marshal(n); err != nil || !bytes.Equal(again, doc) {
		return h, nil, errors.New("not in the form in which evidence is written")
	}
	for _, p := range n.Path {
		path = append(path, checkpoint.Hash(p))
	}
	return checkpoint.Hash(n.Hash), path, nil
}

// sortedNames lists the files of some numbered kinds, in the order of the archive.
func sortedNames(files map[string][]byte, prefixes ...string) []string {
	var list []member
	for name := range files {
		if slices.Contains(prefixes, numberable(name)) {
			list = append(list, member{name: name})
		}
	}
	sortMembers(list)
	var out []string
	for _, m := range list {
		out = append(out, m.name)
	}
	return out
}

func (v *verifier) promise() error {
	if err := v.only([]string{fileLogKey}, fileClaim, fileProof, fileCheckpoint, fileBroken, filePromise, fileSET, fileReadme); err != nil {
		return err
	}
	l, err := v.log()
	if err != nil {
		return err
	}
	b, err := checkpoint.ParseBrokenPromise(v.files[fileBroken])
	if err != nil {
		return fmt.Errorf("%s: %w", fileBroken, err)
	}
	parts, err := promiseFiles(b)
	if err != nil {
		return fmt.Errorf("%s: %w", fileBroken, err)
	}
	for _, m := range parts {
		if !bytes.Equal(v.files[m.name], m.data) {
			return fmt.Errorf("%s is not the one in %s", m.name, fileBroken)
		}
	}
	if err := b.Verify(l); err != nil {
		return fmt.Errorf("%s: %w", fileBroken, err)
	}
	if _, err := v.open(l, fileCheckpoint); err != nil {
		return err
	}
	promised := checkpoint.LeafHash(b.Promised.Leaf)
	v.proven("the log's key signed the promise to hold the leaf with hash %x at index %d over all trees", promised[:], b.Promised.LogIndex)
	v.proven("the log's key signed a tree of log %s that holds a leaf with hash %x at index %d", l.Origin(), b.Held.Hash[:], b.Index)
	order := "that both name one place, so that the promise is broken: that this tree is the first of its server"
	if len(b.Before) > 0 {
		order = fmt.Sprintf("that both name one place, so that the promise is broken: that the trees whose signed heads are in %s (%d of them) are all that come before this one, and had ended with %d entries in all", fileBroken, len(b.Before), b.Promised.LogIndex-b.Index)
	}
	v.statement("%s (no signature says so, and an honest log looks like this to whoever is told of other trees: compare with what those know who followed the log)", order)
	v.statement("when and where both were served")
	return nil
}
