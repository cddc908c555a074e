// Package trust reads who is trusted: log keys and certificate authorities,
// from a trusted_root.json or from PEM files.
package trust

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// Bounds of what is read.
const (
	maxRoot = 8 << 20
	maxPEM  = 4 << 20
)

// Authority is a certificate authority, leaf-to-root order, anchor last.
type Authority struct {
	Chain                 []*x509.Certificate
	ValidFrom, ValidUntil time.Time // zero: unbounded
}

// LogKey is the key of a transparency log.
type LogKey struct {
	Origin string
	Key    note.Verifier
}

// Root is a parsed trusted root.
type Root struct {
	Authorities []Authority
	Logs        []LogKey
	// Problems are parts that could not be used, each of which blinds us to
	// nothing else.
	Problems []error
}

// Key returns the keys of a log by its origin.
func (r *Root) Key(origin string) []note.Verifier {
	var keys []note.Verifier
	for _, l := range r.Logs {
		if l.Origin == origin {
			keys = append(keys, l.Key)
		}
	}
	return keys
}

// The parts of dev.sigstore.trustroot.v1.TrustedRoot that are used.
type rootJSON struct {
	MediaType string `json:"mediaType"`
	Tlogs     []struct {
		BaseURL   string  `json:"baseUrl"`
		PublicKey keyJSON `json:"publicKey"`
		LogID     struct {
			KeyID []byte `json:"keyId"`
		} `json:"logId"`
	} `json:"tlogs"`
	CertificateAuthorities []struct {
		URI       string `json:"uri"`
		CertChain struct {
			Certificates []struct {
				RawBytes []byte `json:"rawBytes"`
			} `json:"certificates"`
		} `json:"certChain"`
		ValidFor validJSON `json:"validFor"`
	} `json:"certificateAuthorities"`
}

type keyJSON struct {
	RawBytes []byte `json:"rawBytes"`
}

type validJSON struct {
	Start, End time.Time
}

const mediaType = "application/vnd.dev.sigstore.trustedroot"

// ReadRoot reads a trusted_root.json.
func ReadRoot(path string) (*Root, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxRoot {
		return nil, fmt.Errorf("%s has %d bytes, more than any trusted root", path, info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	root, err := ParseRoot(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return root, nil
}

// ParseRoot parses a trusted root, log by log and authority by authority: one
// that cannot be used becomes a problem and leaves the others as they are. An
// empty root is valid, and trusts nobody.
func ParseRoot(data []byte) (*Root, error) {
	var doc rootJSON
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("not a trusted root: %w", err)
	}
	if !strings.HasPrefix(doc.MediaType, mediaType) {
		return nil, fmt.Errorf("not a trusted root: media type %.80q, want one that begins with %s", doc.MediaType, mediaType)
	}
	r := &Root{}
	for _, t := range doc.Tlogs {
		// SPEC: wire-formats 3.6: base URL without scheme and trailing slash is
		// origin and key name; the key id must be that of the table of note keys.
		_, origin, _ := strings.Cut(t.BaseURL, "://")
		origin = strings.TrimRight(origin, "/")
		key, err := checkpoint.NewVerifier(origin, t.PublicKey.RawBytes)
		if err != nil {
			r.Problems = append(r.Problems, fmt.Errorf("log %.100q: %w", t.BaseURL, err))
			continue
		}
		if len(t.LogID.KeyID) < 4 || fmt.Sprintf("%x", t.LogID.KeyID[:4]) != fmt.Sprintf("%08x", key.KeyHash()) {
			r.Problems = append(r.Problems, fmt.Errorf("log %.100q: its log id begins with %.4x, its key gives %08x", t.BaseURL, t.LogID.KeyID, key.KeyHash()))
			continue
		}
		r.Logs = append(r.Logs, LogKey{origin, key})
	}
	for _, ca := range doc.CertificateAuthorities {
		a := Authority{ValidFrom: ca.ValidFor.Start, ValidUntil: ca.ValidFor.End}
		var err error
		for _, c := range ca.CertChain.Certificates {
			cert, parseErr := x509.ParseCertificate(c.RawBytes)
			err = errors.Join(err, parseErr)
			a.Chain = append(a.Chain, cert)
		}
		if err != nil || len(a.Chain) == 0 {
			r.Problems = append(r.Problems, fmt.Errorf("certificate authority %.100q: no usable chain: %w", ca.URI, errors.Join(err)))
			continue
		}
		r.Authorities = append(r.Authorities, a)
	}
	return r, nil
}

// ParsePEM reads certificate authorities from PEM text. Certificates in
// leaf-to-root order make one authority; each self-signed one ends a chain, so
// that several chains may follow each other.
func ParsePEM(text string) ([]Authority, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("%d bytes, more than any chain of certificates", len(text))
	}
	var all []Authority
	var chain []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if strings.TrimSpace(string(rest)) != "" && len(all)+len(chain) == 0 {
				return nil, errors.New("no PEM block found")
			}
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block is a %q, want a \"CERTIFICATE\"", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, cert)
		if string(cert.RawIssuer) == string(cert.RawSubject) {
			all = append(all, Authority{Chain: chain})
			chain = nil
		}
	}
	if len(chain) > 0 {
		// Without a root the last certificate is trusted as it is.
		all = append(all, Authority{Chain: chain})
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate found")
	}
	return all, nil
}
