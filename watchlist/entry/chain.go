package entry

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Bounds of chain verification.
const (
	maxChain   = 10
	maxRSABits = 8192
)

// Authority is a certificate authority that is trusted for a time.
type Authority struct {
	// Chain is in leaf-to-root order: the last certificate is the anchor.
	Chain []*x509.Certificate
	// ValidFrom and ValidUntil bound when it may have issued; zero: unbounded.
	ValidFrom, ValidUntil time.Time
}

// Authorities verifies certificates of entries. The zero value trusts nobody.
type Authorities struct {
	list   []authority
	ctlogs map[[sha256.Size]byte][]CTLog // by id
	known  *verdicts                     // nil for the zero value
}

// verdicts remembers what became of certificates a moment ago: an entry is asked about more than
// once, and one certificate may have signed many entries.
type verdicts struct {
	mu   sync.Mutex
	seen map[verdictKey]verdict
}

// verdictKey is all that a verdict depends on, beside the authorities.
type verdictKey struct {
	certificate [sha256.Size]byte
	named       bool // the alternative names were read
	at          time.Time
}

type verdict struct {
	chain []*x509.Certificate
	err   error
}

// maxVerdicts bounds what is remembered: some megabytes.
const maxVerdicts = 512

func (v *verdicts) of(k verdictKey) (verdict, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	found, ok := v.seen[k]
	return found, ok
}

func (v *verdicts) keep(k verdictKey, is verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.seen == nil || len(v.seen) >= maxVerdicts {
		v.seen = map[verdictKey]verdict{} // what is asked again soon is soon there again
	}
	v.seen[k] = is
}

type authority struct {
	Authority
	roots, intermediates *x509.CertPool
}

// NewAuthorities prepares authorities for use, once.
func NewAuthorities(list ...Authority) (*Authorities, error) {
	a := &Authorities{known: &verdicts{}}
	for i, ca := range list {
		if len(ca.Chain) == 0 || len(ca.Chain) > maxChain {
			return nil, fmt.Errorf("certificate authority %d has a chain of %d certificates, want 1 to %d", i, len(ca.Chain), maxChain)
		}
		prepared := authority{ca, x509.NewCertPool(), x509.NewCertPool()}
		last := len(ca.Chain) - 1
		prepared.roots.AddCert(ca.Chain[last])
		for _, c := range ca.Chain[:last] {
			prepared.intermediates.AddCert(c)
		}
		a.list = append(a.list, prepared)
	}
	return a, nil
}

// authorityDocument is one authority in Document.
type authorityDocument struct {
	Chain      [][]byte   `json:"chain"`
	ValidFrom  *time.Time `json:"valid_from,omitempty"`
	ValidUntil *time.Time `json:"valid_until,omitempty"`
}

// Document prints the authorities as JSON, to be kept with what was judged by
// them: a list of {"chain": [base64 of DER, leaf to root], "valid_from",
// "valid_until"}. ParseAuthorities reads it.
func (a *Authorities) Document() ([]byte, error) {
	docs := []authorityDocument{}
	for _, ca := range a.list {
		var d authorityDocument
		for _, c := range ca.Chain {
			d.Chain = append(d.Chain, c.Raw)
		}
		for at, to := range map[*time.Time]**time.Time{&ca.ValidFrom: &d.ValidFrom, &ca.ValidUntil: &d.ValidUntil} {
			if utc := at.UTC(); !at.IsZero() {
				*to = &utc
			}
		}
		docs = append(docs, d)
	}
	return json.MarshalIndent(docs, "", "  ")
}

// ParseAuthorities reads what Document prints, and nothing else.
func ParseAuthorities(document []byte) (*Authorities, error) {
	var docs []authorityDocument
	if err := json.Unmarshal(document, &docs); err != nil {
		return nil, fmt.Errorf("certificate authorities: %w", err)
	}
	var list []Authority
	for i, d := range docs {
		var ca Authority
		for _, der := range d.Chain {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, fmt.Errorf("certificate authority %d: %w", i, err)
			}
			ca.Chain = append(ca.Chain, c)
		}
		if d.ValidFrom != nil {
			ca.ValidFrom = *d.ValidFrom
		}
		if d.ValidUntil != nil {
			ca.ValidUntil = *d.ValidUntil
		}
		list = append(list, ca)
	}
	a, err := NewAuthorities(list...)
	if err != nil {
		return nil, err
	}
	if again, err := a.Document(); err != nil || !bytes.Equal(again, document) {
		return nil, errors.New("certificate authorities: not in the form in which they are printed")
	}
	return a, nil
}

var (
	errNoAuthority = errors.New("no trusted certificate authority issued it")
	oidSANDotted   = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// Verify is VerifyAt the certificate's own NotBefore: a Rekor v2 log tells no
// time, and a certificate of ten minutes is long expired when it is read.
func (a *Authorities) Verify(id *Identity) error { return a.VerifyAt(id, time.Time{}) }

// VerifyAt checks that a trusted authority issued the identity's certificate for
// code signing, and that all of the chain was valid at a time (zero: the
// certificate's NotBefore). The error says why it is not trusted.
func (a *Authorities) VerifyAt(id *Identity, at time.Time) error {
	_, err := a.verify(id, at)
	return err
}

// Chain returns the chain that VerifyAt accepts, as DER, leaf to root.
func (a *Authorities) Chain(id *Identity, at time.Time) ([][]byte, error) {
	chain, err := a.verify(id, at)
	var out [][]byte
	for _, c := range chain {
		out = append(out, c.Raw)
	}
	return out, err
}

// verify returns the chain that was accepted, leaf to root, which is not to be changed.
func (a *Authorities) verify(id *Identity, at time.Time) (chain []*x509.Certificate, err error) {
	if id.Certificate == nil {
		return nil, errors.New("a bare key has no certificate")
	}
	if a.known == nil {
		return a.verifyAnew(id, at)
	}
	k := verdictKey{sha256.Sum256(id.Certificate), len(id.Subjects) > 0, at.UTC()}
	if v, ok := a.known.of(k); ok {
		return v.chain, v.err
	}
	chain, err = a.verifyAnew(id, at)
	a.known.keep(k, verdict{chain, err})
	return chain, err
}

func (a *Authorities) verifyAnew(id *Identity, at time.Time) (chain []*x509.Certificate, err error) {
	cert, err := x509.ParseCertificate(id.Certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate cannot be parsed: %w", err)
	}
	if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
		return nil, fmt.Errorf("RSA key of %d bits, more than %d", key.N.BitLen(), maxRSABits)
	}
	if len(id.Subjects) > 0 {
		// crypto/x509 knows no otherName and then calls the whole extension
		// unhandled; here it was read.
		cert.UnhandledCriticalExtensions = slices.DeleteFunc(cert.UnhandledCriticalExtensions, oidSANDotted.Equal)
	}
	if at.IsZero() {
		at = cert.NotBefore
	}
	failure := errNoAuthority
	for i := range a.list {
		ca := &a.list[i]
		if !ca.ValidFrom.IsZero() && at.Before(ca.ValidFrom) || !ca.ValidUntil.IsZero() && at.After(ca.ValidUntil) {
			continue
		}
		chains, err := cert.Verify(x509.VerifyOptions{
			Roots: ca.roots, Intermediates: ca.intermediates, CurrentTime: at,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		})
		if err == nil {
			return chains[0], nil
		}
		var unknown x509.UnknownAuthorityError
		if !errors.As(err, &unknown) {
			failure = err
		}
	}
	return nil, failure
}
