package attest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/sigstore/timestamp-authority/v2/pkg/verification"
)

// maxToken bounds the bytes of a timestamp.
const maxToken = 256 << 10

// Authorities are timestamp authorities that are trusted.
type Authorities struct {
	leaves               []*x509.Certificate // none: the token brings its own
	roots, intermediates []*x509.Certificate
}

// ParseAuthorities reads the chains of authorities, PEM, in any order: certificates that
// are signed by themselves are trusted.
func ParseAuthorities(text string) (*Authorities, error) {
	a := &Authorities{}
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("timestamp authority: %w", err)
		}
		switch {
		case bytes.Equal(c.RawIssuer, c.RawSubject):
			a.roots = append(a.roots, c)
		case c.IsCA:
			a.intermediates = append(a.intermediates, c)
		default:
			a.leaves = append(a.leaves, c)
		}
	}
	if len(a.roots) == 0 {
		return nil, errors.New("timestamp authority: no certificate that is signed by itself, as PEM, so that nothing is trusted")
	}
	return a, nil
}

// Verify checks a TimeStampResp over data, and returns the time that it tells.
func (a *Authorities) Verify(token, data []byte) (time.Time, error) {
	return a.verify(token, data, nil)
}

func (a *Authorities) verify(token, data []byte, nonce *big.Int) (time.Time, error) {
	if len(token) > maxToken {
		return time.Time{}, fmt.Errorf("a token of %d bytes", len(token))
	}
	opts := verification.VerifyOpts{Intermediates: a.intermediates, Roots: a.roots, Nonce: nonce}
	var failures []error
	for _, leaf := range append(slices.Clone(a.leaves), nil) { // nil: the one that the token brings
		opts.TSACertificate = leaf
		ts, err := verification.VerifyTimestampResponse(token, bytes.NewReader(data), opts)
		if err == nil {
			return ts.Time.UTC(), nil
		}
		failures = append(failures, err)
	}
	return time.Time{}, errors.Join(failures...)
}

// Ask returns a Stamper that asks an authority at an address (RFC 3161, 3.4). What it
// answers is verified before it is taken.
func Ask(ctx context.Context, client *http.Client, address string, authorities *Authorities) Stamper {
	return func(data []byte) ([]byte, error) {
		nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
		if err != nil {
			return nil, err
		}
		request, err := timestamp.CreateRequest(bytes.NewReader(data), &timestamp.RequestOptions{Hash: crypto.SHA256, Certificates: true, Nonce: nonce})
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(request))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/timestamp-query")
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		token, err := io.ReadAll(io.LimitReader(resp.Body, maxToken+1))
		if err != nil {
			return nil, err
		}
		if resp.StatusCode/100 != 2 {
			return nil, fmt.Errorf("the authority answered %s: %.200q", resp.Status, token)
		}
		if _, err := authorities.verify(token, data, nonce); err != nil {
			return nil, fmt.Errorf("what the authority answered does not hold: %w", err)
		}
		return token, nil
	}
}
