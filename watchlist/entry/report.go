package entry

import (
	"errors"
	"time"
)

// ErrNotJudged stands for the outcome of Authorities.Verify where nobody was
// asked.
var ErrNotJudged = errors.New("not judged")

// Report is an identity as outputs show it.
type Report struct {
	Subjects    []string `json:"subjects"`
	Issuer      string   `json:"issuer,omitempty"`
	Fingerprint string   `json:"fingerprint"`
	// Fingerprints are all of them, where a key ring has several keys.
	Fingerprints []string `json:"fingerprints,omitempty"`
	// Format is pgp, ssh, minisign or tuf; absent for X.509.
	Format      string             `json:"format,omitempty"`
	Certificate *CertificateReport `json:"certificate"` // null for a bare key
}

// CertificateReport is what an identity's certificate says.
type CertificateReport struct {
	Trusted    *bool             `json:"trusted,omitempty"` // nil: not judged
	Untrusted  string            `json:"untrusted_reason,omitempty"`
	NotBefore  time.Time         `json:"not_before"`
	NotAfter   time.Time         `json:"not_after"`
	Extensions map[string]string `json:"extensions"`
}

// Report shows an identity, with the outcome of Authorities.Verify.
func (id *Identity) Report(untrusted error) Report {
	r := Report{Subjects: []string{}, Format: id.Format}
	for _, s := range id.Subjects {
		r.Subjects = append(r.Subjects, s.Value)
	}
	if len(id.Issuers) > 0 {
		r.Issuer = id.Issuers[len(id.Issuers)-1] // the newer extension's, where they differ
	}
	if prints := id.Fingerprints(); len(prints) > 0 {
		r.Fingerprint = prints[0]
		if len(id.Prints) > 1 {
			r.Fingerprints = prints
		}
	}
	if id.Certificate == nil {
		return r
	}
	r.Certificate = &CertificateReport{NotBefore: id.NotBefore, NotAfter: id.NotAfter, Extensions: map[string]string{}}
	if !errors.Is(untrusted, ErrNotJudged) {
		trusted := untrusted == nil
		r.Certificate.Trusted = &trusted
		if !trusted {
			r.Certificate.Untrusted = untrusted.Error()
		}
	}
	for _, e := range id.Extensions {
		r.Certificate.Extensions[e.Name] = e.Value
	}
	return r
}
