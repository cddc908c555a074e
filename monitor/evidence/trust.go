package evidence

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
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

// trusted is a log with the keys that are trusted for it.
type trusted struct {
	*checkpoint.Log
	ders [][]byte
}

// keySet are keys of one log. Several are, if each was given for that log by its name; a key
// that was given without one may be that of any log, and is a set by itself: what two of
// them have signed says nothing of one log.
type keySet []string

// sets returns the sets of keys that may be those of a log; errNoKey if there is none.
func (t *Trust) sets(origin string, keys []string, embedded []byte) ([]keySet, error) {
	_, _, tree := checkpoint.SplitOrigin(origin)
	bound := keySet(t.rootKeys(origin))
	var out []keySet
	var others []string
	for _, key := range keys {
		v, err := checkpoint.ParseKey(keyName(origin, tree), key)
		switch {
		case err != nil:
			return nil, fmt.Errorf("origin %.100q: %w", origin, err)
		case v.Name() != keyName(origin, tree):
			others = append(others, fmt.Sprintf("%.100q", v.Name()))
		case strings.Contains(key, "-----BEGIN"):
			out = append(out, keySet{key})
		default:
			bound = append(bound, key)
		}
	}
	if len(bound) > 0 {
		out = append([]keySet{bound}, out...)
	}
	if embedded != nil {
		if _, err := checkpoint.ParseSPKI(string(embedded)); err != nil {
			return nil, fmt.Errorf("the key in the file: %w", err)
		}
		out = append(out, keySet{string(embedded)})
	}
	switch {
	case len(out) == 0 && len(others) > 0:
		return nil, fmt.Errorf("%w: those that were given are of %s", errNoKey, strings.Join(others, ", "))
	case len(out) == 0:
		return nil, errNoKey
	}
	return out, nil
}

// logOf returns the log with an origin and the keys of a set.
func logOf(origin string, keys keySet) (trusted, error) {
	_, _, tree := checkpoint.SplitOrigin(origin)
	var out trusted
	var verifiers []note.Verifier
	for _, key := range keys {
		der, err := checkpoint.ParseSPKI(key)
		if err != nil {
			return trusted{}, fmt.Errorf("%w: %w", ErrKey, err)
		}
		v, err := checkpoint.NewVerifier(keyName(origin, tree), der)
		if err != nil {
			return trusted{}, fmt.Errorf("origin %.100q: %w", origin, err)
		}
		if !slices.ContainsFunc(out.ders, func(o []byte) bool { return bytes.Equal(o, der) }) {
			out.ders, verifiers = append(out.ders, der), append(verifiers, v)
		}
	}
	var err error
	if tree {
		out.Log, err = checkpoint.NewTree(origin, out.ders...)
	} else {
		out.Log, err = checkpoint.NewLog(origin, verifiers...)
	}
	return out, err
}

// signer returns the SHA-256 of the key, as DER, that signed a checkpoint which the log
// opens.
func (l trusted) signer(raw []byte) string {
	for _, der := range l.ders {
		one, err := checkpoint.ForOrigin(l.Origin(), string(publicPEM(der)))
		if err != nil {
			continue
		}
		if _, err := one.Open(raw); err == nil {
			return fmt.Sprintf("%x", sha256.Sum256(der))
		}
	}
	return "unknown"
}

func keyName(origin string, tree bool) string {
	if tree {
		host, _, _ := checkpoint.SplitOrigin(origin)
		return host
	}
	return strings.TrimSpace(origin)
}
