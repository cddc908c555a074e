package config

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Source is where other people's checkpoints are read: exactly one of Witness,
// Distributor and File is set.
type Source struct {
	Path string // in the configuration
	// Witness is the monitoring prefix of a witness, Distributor the address of a
	// distributor, File a file with a checkpoint or a pattern of such files.
	Witness, Distributor, File string
	// Logs are names of logs; nil: all that are followed.
	Logs  []string
	Every time.Duration
	TLSCA string // PEM text
}

func (c *Config) readSource(n ast.Node, path string) {
	f := c.file
	s := Source{Path: path, Every: time.Minute}
	f.mapping(n, path, "a source", map[string]field{
		"witness": f.webAddress(&s.Witness), "distributor": f.webAddress(&s.Distributor),
		"file": func(n ast.Node, p string) {
			f.path(&s.File)(n, p)
			if _, err := filepath.Match(s.File, ""); err != nil {
				f.fail(n, p, "%q is no pattern: %v", s.File, err)
			}
		},
		"logs": f.names(&s.Logs), "every": f.duration(&s.Every), "tls_ca": f.pem(&s.TLSCA),
	})
	f.exactlyOne("witness", "distributor", "file")
	set := 0
	for _, v := range []string{s.Witness, s.Distributor, s.File} {
		if v != "" {
			set++
		}
	}
	if set != 1 {
		f.fail(n, path, "a source is a witness, a distributor or a file")
	}
	if s.File != "" && s.Logs != nil {
		f.fail(n, path, "a source of files has no logs: whatever log a file is of, it is compared")
	}
	s.Witness, s.Distributor = strings.TrimRight(s.Witness, "/"), strings.TrimRight(s.Distributor, "/")
	c.Sources = append(c.Sources, s)
}

// checkNames checks names of logs that may be those of a trusted root.
func (c *Config) checkNames(path string, names []string, bad func(path, format string, args ...any)) {
	var known []string
	open := len(c.Logs) == 0
	for _, l := range c.Logs {
		known = append(known, l.Name)
		// Those of a trusted root, and the trees of a server, have names of their own.
		open = open || l.Sigstore != "" || l.Type == "rekor-v1"
	}
	for i, name := range names {
		if open {
			return
		}
		found := false
		for _, k := range known {
			found = found || k == name
		}
		if !found {
			bad(path+"["+strconv.Itoa(i)+"]", "no log is called %q%s", name, DidYouMean(name, known))
		}
	}
}
