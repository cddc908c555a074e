package watchlist

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// skimIndex is what a list is asked for about nearly every entry of a log.
type skimIndex struct {
	// fulcio are the indexes of Fulcio's extensions that are looked at, by number.
	fulcio []numbered
	// sums are the fingerprints and digests of SHA-256.
	sums map[[sha256.Size]byte]bool
}

type numbered struct {
	number int
	*index
}

func (l *List) newSkimIndex() (s skimIndex) {
	for name, x := range l.extensions {
		// The others are in no entry that is skimmed.
		if n := entry.ExtensionNumber(name); n > 0 {
			s.fulcio = append(s.fulcio, numbered{n, x})
		}
	}
	s.sums = map[[sha256.Size]byte]bool{}
	for text := range l.hashes {
		if digits, ok := strings.CutPrefix(text, "sha256:"); ok {
			if sum, err := hex.DecodeString(digits); err == nil && len(sum) == sha256.Size {
				s.sums[[sha256.Size]byte(sum)] = true
			}
		}
	}
	return s
}

// MayMatch reports whether Match could find anything in an entry that was skimmed. It is true now
// and then where Match finds nothing, and never false where Match finds something.
func (l *List) MayMatch(s *entry.Skim) bool {
	if len(l.globHashes) > 0 {
		return true
	}
	if s.Subject != nil && l.subjects.any() && l.subjects.may(s.Subject) {
		return true
	}
	if s.Issuer == nil {
		if len(l.noIssuer) > 0 {
			return true
		}
	} else if l.issuers.any() && l.issuers.may(s.Issuer) {
		return true
	}
	for _, x := range l.skim.fulcio {
		if value := s.Extension(x.number); value != nil && x.may(value) {
			return true
		}
	}
	if l.kinds.any() && l.kinds.may([]byte(s.Kind)) {
		return true
	}
	if len(l.skim.sums) == 0 {
		return false
	}
	for _, sum := range s.Digests {
		if l.skim.sums[sum] {
			return true
		}
	}
	if !l.fingerprints {
		return false
	}
	return l.skim.sums[sha256.Sum256(s.SPKI)] || s.Certificate != nil && l.skim.sums[sha256.Sum256(s.Certificate)]
}

// any reports whether there is a pattern.
func (x *index) any() bool { return len(x.always) > 0 || x.long.ids != nil || x.short.ids != nil }
