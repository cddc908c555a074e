package web

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// certificate is what a page shows of one beyond what is stored of it.
type certificate struct {
	Serial, Issuer, Key, PEM string
}

// certificates are those of identities; nil where one has none.
func certificates(list [][]byte) []*certificate {
	out := make([]*certificate, len(list))
	for i, der := range list {
		if der == nil {
			continue
		}
		c := &certificate{PEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
		if cert, err := x509.ParseCertificate(der); err == nil {
			c.Serial, c.Issuer, c.Key = fmt.Sprintf("%x", cert.SerialNumber), cert.Issuer.String(), cert.PublicKeyAlgorithm.String()
		}
		out[i] = c
	}
	return out
}
