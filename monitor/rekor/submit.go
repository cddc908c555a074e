package rekor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Submitted is what a Rekor v2 server answers to a new entry, all of it unproven.
type Submitted struct {
	Index uint64
	Leaf  []byte
	Path  [][]byte // leaf side first
	Note  []byte   // the checkpoint that it leads to
}

// maxSubmitted bounds the answer.
const maxSubmitted = 1 << 20

// Submit puts a hashedrekord into a log of Rekor v2: the SHA-256 of an artifact, its
// signature by a key of ECDSA on P-256, and that key as DER. The server answers when the
// entry is in a checkpoint.
func Submit(ctx context.Context, client *http.Client, base string, digest [32]byte, signature, spki []byte) (Submitted, error) {
	type verifier struct {
		PublicKey struct {
			RawBytes []byte `json:"rawBytes"`
		} `json:"publicKey"`
		KeyDetails string `json:"keyDetails"`
	}
	type signed struct {
		Content  []byte   `json:"content"`
		Verifier verifier `json:"verifier"`
	}
	var request struct {
		Record struct {
			Digest    []byte `json:"digest"`
			Signature signed `json:"signature"`
		} `json:"hashedRekordRequestV002"`
	}
	request.Record.Digest = digest[:]
	request.Record.Signature = signed{Content: signature, Verifier: verifier{KeyDetails: "PKIX_ECDSA_P256_SHA_256"}}
	request.Record.Signature.Verifier.PublicKey.RawBytes = spki
	body, err := json.Marshal(request)
	if err != nil {
		return Submitted{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(base, "/")+"/api/v2/log/entries", bytes.NewReader(body))
	if err != nil {
		return Submitted{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "sigwarden")
	resp, err := client.Do(req)
	if err != nil {
		return Submitted{}, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxSubmitted+1))
	if err != nil {
		return Submitted{}, err
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		return Submitted{}, fmt.Errorf("%s answered %s: %.200q", req.URL.Host, resp.Status, answer)
	}
	if len(answer) > maxSubmitted {
		return Submitted{}, fmt.Errorf("%s answered with more than %d bytes", req.URL.Host, maxSubmitted)
	}
	return parseSubmitted(answer)
}

// parseSubmitted reads a TransparencyLogEntry in the JSON of protobuf, where numbers of
// 64 bits are strings, and nothing stands for 0.
func parseSubmitted(answer []byte) (Submitted, error) {
	var doc struct {
		CanonicalizedBody []byte `json:"canonicalizedBody"`
		InclusionProof    *struct {
			LogIndex   string   `json:"logIndex"`
			Hashes     [][]byte `json:"hashes"`
			Checkpoint struct {
				Envelope string `json:"envelope"`
			} `json:"checkpoint"`
		} `json:"inclusionProof"`
	}
	if err := json.Unmarshal(answer, &doc); err != nil {
		return Submitted{}, fmt.Errorf("the answer is no entry: %w", err)
	}
	p := doc.InclusionProof
	if p == nil || len(doc.CanonicalizedBody) == 0 {
		return Submitted{}, errors.New("the answer is an entry without its body or its inclusion proof")
	}
	out := Submitted{Leaf: doc.CanonicalizedBody, Path: p.Hashes, Note: []byte(p.Checkpoint.Envelope)}
	if p.LogIndex != "" {
		var err error
		if out.Index, err = strconv.ParseUint(p.LogIndex, 10, 63); err != nil {
			return Submitted{}, fmt.Errorf("the answer has index %.40q", p.LogIndex)
		}
	}
	for _, h := range p.Hashes {
		if len(h) != 32 {
			return Submitted{}, fmt.Errorf("the answer has a hash of %d bytes", len(h))
		}
	}
	return out, nil
}
