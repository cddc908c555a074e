package evidence

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
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
	keys  keySet // of the log that the claim is about, tried now
	noKey error  // why there is none
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
		// What was found before the first thing that does not hold would mislead.
		v.res.Error, v.res.Claims = err.Error(), []Line{}
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
	sets, err := v.trust.sets(v.claim.Origin, v.trust.LogKeys, v.embedded(fileLogKey))
	if errors.Is(err, errNoKey) {
		v.noKey = err
		return check()
	}
	if err != nil {
		return err
	}
	// All of it has to hold with one set of keys.
	var failures []error
	for _, set := range sets {
		v.keys, v.res.Claims = set, []Line{}
		if err = check(); err == nil {
			return nil
		}
		failures = append(failures, err)
	}
	for _, err := range failures {
		if !errors.Is(err, checkpoint.ErrSignature) {
			return err // a key of the log, and something is wrong with what it signed
		}
	}
	return failures[0]
}

// log returns the log that the claim is about.
func (v *verifier) log() (trusted, error) {
	if v.noKey != nil {
		return trusted{}, fmt.Errorf("log %.100q: what was given to trust has no key of it (%w)", v.claim.Origin, v.noKey)
	}
	return logOf(v.claim.Origin, v.keys)
}

// open opens a checkpoint of the log that the claim names: a tree of Rekor v1 is known by
// its id, whatever its server calls itself, but what is said of it is to be true.
func (v *verifier) open(l trusted, name string) (checkpoint.Checkpoint, error) {
	c, err := l.Open(v.files[name])
	if err == nil && c.Origin() != v.claim.Origin {
		err = fmt.Errorf("it is of %.100q, and %s names %.100q", c.Origin(), fileClaim, v.claim.Origin)
	}
	if err != nil {
		return c, fmt.Errorf("%s: %w", name, err)
	}
	v.signedBy(l, "log", name, v.files[name])
	return c, nil
}

// signedBy says which key signed a checkpoint: one that is given without a name is trusted
// for whatever log it is given for.
func (v *verifier) signedBy(l trusted, whose, name string, raw []byte) {
	v.proven("%s was signed with the %s's key whose DER form has SHA-256 %s", name, whose, l.signer(raw))
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
