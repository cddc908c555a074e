package config

import (
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Publish says in which transparency log heads of the ledger are put; an empty Log: in
// none.
type Publish struct {
	Path string // in the configuration
	// Log is the name, or the origin, of a log of Rekor v2 that is followed; URL where it
	// takes entries, default: where it is read.
	Log, URL string
	Every    time.Duration // default 24h
	TLSCA    string        // PEM text
}

func (c *Config) readLedger(n ast.Node, path string) {
	f, p := c.file, &c.Publish
	p.Every = 24 * time.Hour
	f.mapping(n, path, "ledger", map[string]field{
		"publish": func(n ast.Node, at string) {
			p.Path = at
			f.mapping(n, at, "publish", map[string]field{"log": f.into(&p.Log), "url": f.webAddress(&p.URL), "every": f.duration(&p.Every), "tls_ca": f.pem(&p.TLSCA)}, "log")
			if p.Every < time.Hour {
				f.fail(n, at+".every", "%s is too often: others share the log, and the ledger is signed once an hour", p.Every)
			}
		},
	})
}
