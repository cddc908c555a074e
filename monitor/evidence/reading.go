package evidence

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

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
		who := fmt.Sprintf("the leaf names as signer %d a key with fingerprint %s", i+1, r.Fingerprint)
		if r.Certificate != nil {
			who = fmt.Sprintf("the leaf names as signer %d a certificate with fingerprint %s for %q", i+1, r.Fingerprint, r.Subjects)
		}
		if r.Issuer != "" {
			who += fmt.Sprintf(", which names issuer %q", r.Issuer)
		}
		out = append(out, who)
	}
	return out
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
