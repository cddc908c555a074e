package evidence

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

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
func (v *verifier) leaf(l trusted) error {
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
func (v *verifier) integrated(l trusted) (time.Time, error) {
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
	// The text that was signed names the key's hash: what stands in the file is to be it.
	id, err := l.PromiseKey(p.Leaf, p.Integrated, p.LogIndex, set)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", fileSET, err)
	}
	if id != p.LogID {
		return time.Time{}, fmt.Errorf("%s names log %x, and the key is that of log %x", filePromise, p.LogID[:], id[:])
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
