// Package trust reads who is trusted: log keys and certificate authorities,
// from a trusted_root.json or from PEM files.
package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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
	// URL is the address that the root names; Origin the same without scheme, for
	// Rekor v1 its host.
	URL, Origin string
	Key         note.Verifier
	SPKI        []byte // DER SubjectPublicKeyInfo
	// Version is the major version of the log's API that its key tells: 2 for
	// Ed25519, which Rekor v1 never used; else 0.
	Version int
	// ValidFrom is when the key begins to sign; zero: unbounded. The end of its
	// validity says nothing about the log, and is not read.
	ValidFrom time.Time
}

// CTLog is the key of a certificate transparency log, as DER, and when it was in
// use; zero times: unbounded.
type CTLog struct {
	SPKI                  []byte
	ValidFrom, ValidUntil time.Time
}

// Root is a parsed trusted root.
type Root struct {
	Authorities []Authority
	Logs        []LogKey
	CTLogs      []CTLog
	// Document is the text that was parsed.
	Document []byte
	// Problems are parts that could not be used, each of which blinds us to
	// nothing else.
	Problems []error
	// Unusable are the origins of logs that are named with something that cannot be
	// used, like a key of an unknown kind.
	Unusable []string
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

// Has reports whether a log with a key, as DER, is in the root.
func (r *Root) Has(origin string, spki []byte) bool {
	return slices.ContainsFunc(r.Logs, func(l LogKey) bool { return l.Origin == origin && bytes.Equal(l.SPKI, spki) })
}

// SPKI returns the DER public key of a log by its origin, for Rekor v1 its host;
// nil if it is not in the root.
func (r *Root) SPKI(origin string) []byte {
	for _, l := range r.Logs {
		if l.Origin == origin {
			return l.SPKI
		}
	}
	return nil
}

// The parts of dev.sigstore.trustroot.v1.TrustedRoot that are used. Lists are
// parsed one by one, so that a form which is not known spoils nothing else.
type rootJSON struct {
	MediaType              string            `json:"mediaType"`
	Tlogs                  []json.RawMessage `json:"tlogs"`
	CTLogs                 []json.RawMessage `json:"ctlogs"`
	CertificateAuthorities []json.RawMessage `json:"certificateAuthorities"`
}

type logJSON struct {
	BaseURL   string  `json:"baseUrl"`
	PublicKey keyJSON `json:"publicKey"`
	LogID     struct {
		KeyID []byte `json:"keyId"`
	} `json:"logId"`
}

type authorityJSON struct {
	URI       string `json:"uri"`
	CertChain struct {
		Certificates []struct {
			RawBytes []byte `json:"rawBytes"`
		} `json:"certificates"`
	} `json:"certChain"`
	ValidFor validJSON `json:"validFor"`
}

type keyJSON struct {
	RawBytes []byte    `json:"rawBytes"`
	Details  string    `json:"keyDetails"`
	ValidFor validJSON `json:"validFor"`
}

type validJSON struct {
	Start, End time.Time
}

const mediaType = "application/vnd.dev.sigstore.trustedroot"

// ReadRoot reads a trusted_root.json.
func ReadRoot(path string) (*Root, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRoot+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxRoot {
		return nil, fmt.Errorf("%s has more than %d bytes, as no trusted root has", path, maxRoot)
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
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(data, &keys); err == nil && len(keys) == 0 {
		return &Root{Document: data}, nil // SPEC: interface: an empty root is valid
	}
	if !strings.HasPrefix(doc.MediaType, mediaType) {
		return nil, fmt.Errorf("not a trusted root: media type %.80q, want one that begins with %s", doc.MediaType, mediaType)
	}
	r := &Root{Document: data}
	for i, raw := range doc.Tlogs {
		if origin, err := r.addLog(raw); err != nil {
			r.Unusable = append(r.Unusable, origin)
			r.Problems = append(r.Problems, fmt.Errorf("log %d of the trusted root, %w", i+1, err))
		}
	}
	for i, raw := range doc.CTLogs {
		// The id of such a log is the hash of its key (RFC 6962, 3.2), whatever stands
		// beside it: in staging's root one differs.
		var ct logJSON
		if err := json.Unmarshal(raw, &ct); err != nil {
			r.Problems = append(r.Problems, fmt.Errorf("certificate log %d of the trusted root: %w", i+1, err))
			continue
		}
		r.CTLogs = append(r.CTLogs, CTLog{ct.PublicKey.RawBytes, ct.PublicKey.ValidFor.Start, ct.PublicKey.ValidFor.End})
	}
	for i, raw := range doc.CertificateAuthorities {
		if err := r.addAuthority(raw); err != nil {
			r.Problems = append(r.Problems, fmt.Errorf("certificate authority %d of the trusted root, %w", i+1, err))
		}
	}
	return r, nil
}

// addLog adds one log. Its base URL without scheme and trailing slash is origin
// and key name; its id must be that of the table of note keys (wire-formats 3.6).
func (r *Root) addLog(raw json.RawMessage) (origin string, err error) {
	var t logJSON
	if err := json.Unmarshal(raw, &t); err != nil {
		return originOf(t.BaseURL), fmt.Errorf("%.100q: %w", t.BaseURL, err)
	}
	l := LogKey{URL: t.BaseURL, Origin: originOf(t.BaseURL), SPKI: t.PublicKey.RawBytes, ValidFrom: t.PublicKey.ValidFor.Start}
	if l.Key, err = checkpoint.NewVerifier(l.Origin, l.SPKI); err != nil {
		return l.Origin, fmt.Errorf("%.100q: its key, of kind %.40q, cannot be used: %.80s", t.BaseURL, t.PublicKey.Details, err)
	}
	if len(t.LogID.KeyID) < 4 || fmt.Sprintf("%x", t.LogID.KeyID[:4]) != fmt.Sprintf("%08x", l.Key.KeyHash()) {
		return l.Origin, fmt.Errorf("%.100q: its log id begins with %.4x, its key gives %08x", t.BaseURL, t.LogID.KeyID, l.Key.KeyHash())
	}
	if r.Has(l.Origin, l.SPKI) {
		return l.Origin, nil // one key may be listed for several times of validity
	}
	if pub, err := x509.ParsePKIXPublicKey(l.SPKI); err == nil {
		if _, ok := pub.(ed25519.PublicKey); ok {
			l.Version = 2
		}
	}
	r.Logs = append(r.Logs, l)
	return l.Origin, nil
}

func (r *Root) addAuthority(raw json.RawMessage) error {
	var ca authorityJSON
	err := json.Unmarshal(raw, &ca)
	a := Authority{ValidFrom: ca.ValidFor.Start, ValidUntil: ca.ValidFor.End}
	for _, c := range ca.CertChain.Certificates {
		cert, parseErr := x509.ParseCertificate(c.RawBytes)
		err = errors.Join(err, parseErr)
		a.Chain = append(a.Chain, cert)
	}
	if err == nil {
		err = checkChain(a.Chain)
	}
	if err != nil {
		return fmt.Errorf("%.100q: %w", ca.URI, err)
	}
	r.Authorities = append(r.Authorities, a)
	return nil
}

// maxChain bounds the certificates of one authority.
const maxChain = 10

// checkChain checks that certificates are those of an authority, each issued by
// the next one.
func checkChain(chain []*x509.Certificate) error {
	if len(chain) == 0 || len(chain) > maxChain {
		return fmt.Errorf("chain of %d certificates, want 1 to %d", len(chain), maxChain)
	}
	for i, c := range chain {
		if !c.IsCA {
			return fmt.Errorf("certificate %q is not that of an authority", c.Subject)
		}
		if i > 0 && !bytes.Equal(chain[i-1].RawIssuer, c.RawSubject) {
			return fmt.Errorf("certificate %q was not issued by the next one, %q; want leaf-to-root order", chain[i-1].Subject, c.Subject)
		}
	}
	return nil
}

// ParsePEM reads certificate authorities from PEM text. Certificates in
// leaf-to-root order make one authority; each self-signed one ends a chain, so
// that several chains may follow each other.
func ParsePEM(text string) ([]Authority, error) {
	certs, err := ParseCertificates(text)
	if err != nil {
		return nil, err
	}
	var all []Authority
	var chain []*x509.Certificate
	for _, cert := range certs {
		chain = append(chain, cert)
		if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			all = append(all, Authority{Chain: chain})
			chain = nil
		}
	}
	if len(chain) > 0 {
		// Without a root the last certificate is trusted as it is.
		all = append(all, Authority{Chain: chain})
	}
	for _, a := range all {
		if err := checkChain(a.Chain); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ParseCertificates reads certificates from PEM text: at least one, and nothing
// that is broken or of another type.
func ParseCertificates(text string) ([]*x509.Certificate, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("%d bytes, more than any chain of certificates", len(text))
	}
	var certs []*x509.Certificate
	blocks := strings.Count(text, "-----BEGIN")
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block is a %q, want a \"CERTIFICATE\"", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate found")
	}
	if len(certs) != blocks {
		return nil, fmt.Errorf("%d PEM blocks begin, %d can be read: one is damaged or cut short", blocks, len(certs))
	}
	return certs, nil
}
