package config

import (
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Retention is how long things are kept; 0: for ever. What is open, or waits for
// somebody, is always kept.
type Retention struct {
	// Expected are findings that are as expected, Findings the others once they are
	// resolved or were never told, Incidents resolved ones with their evidence.
	Expected, Findings, Incidents time.Duration
}

// minRetention is how long everything is kept at least.
const minRetention = 24 * time.Hour

func (c *Config) readRetention(n ast.Node, path string) {
	f, r := c.file, &c.Retention
	kept := func(d *time.Duration) field {
		return func(n ast.Node, p string) {
			if f.duration(d)(n, p); *d != 0 && *d < minRetention {
				f.fail(n, p, "%s is too short: whoever looks tomorrow is to find what was there today; want at least %s", *d, minRetention)
			}
		}
	}
	f.mapping(n, path, "retention", map[string]field{"expected": kept(&r.Expected), "findings": kept(&r.Findings), "incidents": kept(&r.Incidents)})
}
