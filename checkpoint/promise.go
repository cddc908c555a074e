package checkpoint

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
)

// ErrPromise says that a signed entry timestamp does not verify.
var ErrPromise = errors.New("signed entry timestamp does not verify")

// VerifyPromise checks a signed entry timestamp of Rekor v1: the log's signature
// over the entry's leaf, the time at which it was taken in (seconds since 1970)
// and its index over all trees, in the canonical JSON of RFC 8785 (wire-formats
// 2.4). It is a promise that the log holds the entry there; the only time that a
// v1 log signs. Errors wrap ErrPromise.
func (l *Log) VerifyPromise(leaf []byte, integrated int64, logIndex uint64, signature []byte) error {
	if len(l.spki) == 0 {
		return fmt.Errorf("%w: log %s is no tree of Rekor v1", ErrPromise, l.origin)
	}
	for _, der := range l.spki {
		v, err := NewVerifier("promise", der)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrPromise, err)
		}
		id := sha256.Sum256(der)
		text := fmt.Sprintf(`{"body":"%s","integratedTime":%d,"logID":"%x","logIndex":%d}`, base64.StdEncoding.EncodeToString(leaf), integrated, id, logIndex)
		if v.Verify([]byte(text), signature) {
			return nil
		}
	}
	return fmt.Errorf("%w with any known key of log %s", ErrPromise, l.origin)
}
