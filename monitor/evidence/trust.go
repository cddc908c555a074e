package evidence

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// ErrKey says that a key that was given cannot be used: the fault is not that of the
// evidence.
var ErrKey = errors.New("the key given cannot be used")

// errNoKey says that no key was given for what is to be checked.
var errNoKey = errors.New("no key was given for it")

// Trust is whom the one who checks evidence trusts. Its zero value trusts nobody.
type Trust struct {
	// LogKeys and LedgerKeys are public keys, in any form that checkpoint.ParseKey
	// takes.
	LogKeys, LedgerKeys []string
	// Root returns the keys of a log, as PEM, that a trusted root names; nil: none.
	Root func(origin string) []string
	// Authorities are those of a trusted root; nil: none.
	Authorities *entry.Authorities
	// Witnesses are the keys of witnesses.
	Witnesses []*witness.Verifier
	// Embedded trusts the keys and authorities in the file itself: then it shows no
	// more than that the file agrees with itself.
	Embedded bool
}

func (t *Trust) rootKeys(origin string) []string {
	if t.Root == nil {
		return nil
	}
	return t.Root(origin)
}

// log returns the log with an origin and all of some keys; embedded is one in the file
// that is trusted too, or nil. errNoKey if there is none.
func (t *Trust) log(origin string, keys []string, embedded []byte) (*checkpoint.Log, error) {
	if embedded != nil {
		if _, err := checkpoint.ParseSPKI(string(embedded)); err != nil {
			return nil, fmt.Errorf("the key in the file: %w", err)
		}
		keys = append(keys[:len(keys):len(keys)], string(embedded))
	}
	if len(keys) == 0 {
		return nil, errNoKey
	}
	_, _, tree := checkpoint.SplitOrigin(origin)
	var ders [][]byte
	var verifiers []note.Verifier
	seen := map[string]bool{}
	for _, key := range keys {
		der, err := checkpoint.ParseSPKI(key)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKey, err)
		}
		v, err := checkpoint.ParseKey(keyName(origin, tree), key)
		if err != nil {
			return nil, fmt.Errorf("origin %.100q: %w", origin, err)
		}
		if id := fmt.Sprintf("%s %08x", v.Name(), v.KeyHash()); !seen[id] {
			seen[id] = true
			ders, verifiers = append(ders, der), append(verifiers, v)
		}
	}
	if tree {
		return checkpoint.NewTree(origin, ders...)
	}
	return checkpoint.NewLog(origin, verifiers...)
}

func keyName(origin string, tree bool) string {
	if tree {
		host, _, _ := checkpoint.SplitOrigin(origin)
		return host
	}
	return strings.TrimSpace(origin)
}
