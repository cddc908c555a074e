package checkpoint

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestPromise(t *testing.T) {
	key, other := newECDSA(t), newECDSA(t)
	l, err := NewTree("rekor.example - 7", key.spki)
	if err != nil {
		t.Fatal(err)
	}
	leaf := []byte(`{"kind":"x"}`)
	promise := func(k ecdsaKey) []byte {
		id := sha256.Sum256(k.spki)
		digest := sha256.Sum256(fmt.Appendf(nil, `{"body":"%s","integratedTime":1700000000,"logID":"%x","logIndex":42}`, base64.StdEncoding.EncodeToString(leaf), id))
		sig, err := ecdsa.SignASN1(rand.Reader, k.private, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	if err := l.VerifyPromise(leaf, 1700000000, 42, promise(key)); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"other leaf":  l.VerifyPromise([]byte("x"), 1700000000, 42, promise(key)),
		"other time":  l.VerifyPromise(leaf, 1700000001, 42, promise(key)),
		"other index": l.VerifyPromise(leaf, 1700000000, 43, promise(key)),
		"other key":   l.VerifyPromise(leaf, 1700000000, 42, promise(other)),
		"none":        l.VerifyPromise(leaf, 1700000000, 42, nil),
	} {
		if !errors.Is(err, ErrPromise) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRealPromises verifies the signed entry timestamps, inclusion proofs and
// checkpoints of real bundles of Rekor v1, and refuses those that were altered.
func TestRealPromises(t *testing.T) {
	dir := os.Getenv("SIGWARDEN_REALDATA")
	if dir == "" {
		t.Skip("SIGWARDEN_REALDATA is not set: real bundles are not read")
	}
	var root struct {
		Tlogs []struct {
			PublicKey struct {
				RawBytes []byte `json:"rawBytes"`
			} `json:"publicKey"`
		} `json:"tlogs"`
	}
	readJSON(t, filepath.Join(dir, "trusted_root.production.json"), &root)
	names, err := filepath.Glob(filepath.Join(dir, "*bundle-v1-*.json"))
	if err != nil || len(names) != 6 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		var bundle struct {
			Material struct {
				Entries []struct {
					LogIndex       string `json:"logIndex"`
					IntegratedTime string `json:"integratedTime"`
					Promise        struct {
						SET []byte `json:"signedEntryTimestamp"`
					} `json:"inclusionPromise"`
					Proof struct {
						LogIndex   string   `json:"logIndex"`
						Hashes     [][]byte `json:"hashes"`
						Checkpoint struct {
							Envelope string `json:"envelope"`
						} `json:"checkpoint"`
					} `json:"inclusionProof"`
					Body []byte `json:"canonicalizedBody"`
				} `json:"tlogEntries"`
			} `json:"verificationMaterial"`
		}
		readJSON(t, name, &bundle)
		e := bundle.Material.Entries[0]
		err := func() error {
			origin, _, _ := strings.Cut(e.Proof.Checkpoint.Envelope, "\n")
			l, err := NewTree(origin, root.Tlogs[0].PublicKey.RawBytes)
			if err != nil {
				return err
			}
			c, err := l.Open([]byte(e.Proof.Checkpoint.Envelope))
			if err != nil {
				return err
			}
			index, _ := strconv.ParseUint(e.Proof.LogIndex, 10, 64)
			hashes, err := toHashes(e.Proof.Hashes)
			if err != nil {
				return err
			}
			if err := c.VerifyInclusion(index, LeafHash(e.Body), hashes); err != nil {
				return err
			}
			if index == c.Size()-1 {
				f, err := c.Frontier(index, LeafHash(e.Body), e.Proof.Hashes)
				if err != nil || f.Append(LeafHash(e.Body)).Root() != c.Root() {
					return fmt.Errorf("bootstrap from the last leaf: %w", err)
				}
			}
			at, _ := strconv.ParseInt(e.IntegratedTime, 10, 64)
			logIndex, _ := strconv.ParseUint(e.LogIndex, 10, 64)
			return l.VerifyPromise(e.Body, at, logIndex, e.Promise.SET)
		}()
		if bad := filepath.Base(name)[:4] == "bad-"; bad != (err != nil) {
			t.Errorf("%s: %v", filepath.Base(name), err)
		}
	}
}

func readJSON(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}
