package web

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// certificate is what a page shows of one beyond what is stored of it.
type certificate struct {
	Serial, Issuer, Key, PEM string
}

// certificates are those in an entry, by the place of their identity; nil where there is none,
// or none that can be read.
func certificates(leaf []byte) []*certificate {
	facts, _ := entry.Decode(leaf) // what cannot be decoded is shown raw
	out := make([]*certificate, len(facts.Identities))
	for i, id := range facts.Identities {
		if id.Certificate == nil {
			continue
		}
		c := &certificate{PEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Certificate}))}
		if cert, err := x509.ParseCertificate(id.Certificate); err == nil {
			c.Serial, c.Issuer, c.Key = fmt.Sprintf("%x", cert.SerialNumber), cert.Issuer.String(), cert.PublicKeyAlgorithm.String()
		}
		out[i] = c
	}
	return out
}
