package config

import (
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Signing says with which key heads of the ledger, reports and evidence are signed.
type Signing struct {
	Path string // in the configuration; empty: nothing is said
	// Key is a private key as PEM text (PKCS #8), File where it was read, for messages.
	// Empty: the key beside the state file, which is made when it is first needed.
	Key  Secret
	File string
	// Timestamp is the authority that says when something was signed.
	Timestamp Timestamp
}

// Timestamp is an authority for timestamps of RFC 3161; an empty URL: none is asked.
type Timestamp struct {
	URL string
	// CA is PEM text of its certificates, the one that is signed by itself among them.
	CA    string
	TLSCA string // PEM text
}

func (c *Config) readSigning(n ast.Node, path string) {
	f, s := c.file, &c.Signing
	s.Path = path
	f.mapping(n, path, "signing", map[string]field{
		"key": func(n ast.Node, p string) {
			text, ok := f.text(n, p)
			if !ok {
				return
			}
			file, isFile := strings.CutPrefix(text, "file:")
			if !isFile && !strings.HasPrefix(text, "env:") {
				f.fail(n, p, "a signing key does not belong into the configuration: write file:PATH or env:NAME")
				return
			}
			if isFile {
				s.File = f.relative(file)
			}
			f.secret(&s.Key)(n, p)
		},
		"timestamp": func(n ast.Node, p string) {
			f.mapping(n, p, "timestamp", map[string]field{"url": f.webAddress(&s.Timestamp.URL), "ca": f.pem(&s.Timestamp.CA), "tls_ca": f.pem(&s.Timestamp.TLSCA)}, "url", "ca")
		},
	})
}
