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
	// Keyless has reports and evidence signed by a certificate in place of the key.
	Keyless Keyless
}

// Keyless is a Fulcio that is asked for a certificate; an empty URL: none is.
type Keyless struct {
	URL string
	// Token is an identity token; File is where it is read each time, since it is not good
	// for long.
	Token Secret
	File  string
	TLSCA string // PEM text
}

// Timestamp is an authority for timestamps of RFC 3161; an empty URL: none is asked.
type Timestamp struct {
	URL string
	// CA is PEM text of its certificates, the one that is signed by itself among them.
	CA    string
	TLSCA string // PEM text
}

// privateKey reads where a signing key is, in one of some forms.
func (f *file) privateKey(forms string, key *Secret, path *string) field {
	return func(n ast.Node, p string) {
		text, ok := f.text(n, p)
		if !ok {
			f.describe(func(shape *Schema) { shape.takes("file:PATH or env:NAME", "string").Pattern = "^(file|env):" })
			return
		}
		file, isFile := strings.CutPrefix(text, "file:")
		if !isFile && !strings.HasPrefix(text, "env:") {
			f.fail(n, p, "a signing key does not belong into the configuration: write %s", forms)
			return
		}
		if isFile {
			*path = f.relative(file)
		}
		f.secret(key)(n, p)
	}
}

func (c *Config) readSigning(n ast.Node, path string) {
	f, s := c.file, &c.Signing
	s.Path = path
	f.mapping(n, path, "signing", map[string]field{
		"key": f.privateKey("file:PATH or env:NAME", &s.Key, &s.File),
		"keyless": func(n ast.Node, p string) {
			k := &s.Keyless
			f.mapping(n, p, "keyless", map[string]field{"url": f.webAddress(&k.URL), "tls_ca": f.pem(&k.TLSCA), "token": func(n ast.Node, p string) {
				text, ok := f.text(n, p)
				if !ok {
					f.describe(func(shape *Schema) { shape.takes("file:PATH or env:NAME", "string").Pattern = "^(file|env):" })
					return
				}
				if file, isFile := strings.CutPrefix(text, "file:"); isFile {
					k.File = f.relative(file)
					return
				}
				if !strings.HasPrefix(text, "env:") {
					f.fail(n, p, "an identity token does not belong into the configuration: write file:PATH or env:NAME")
					return
				}
				f.secret(&k.Token)(n, p)
			}}, "url", "token")
		},
		"timestamp": func(n ast.Node, p string) {
			f.mapping(n, p, "timestamp", map[string]field{"url": f.webAddress(&s.Timestamp.URL), "ca": f.pem(&s.Timestamp.CA), "tls_ca": f.pem(&s.Timestamp.TLSCA)}, "url", "ca")
		},
	})
}
