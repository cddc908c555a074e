package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/monitor/web"
)

// TestRulesThatAreNotTried: a rule of somebody who only reads does not take the process away
// from the logs.
func TestRulesThatAreNotTried(t *testing.T) {
	for name, c := range map[string][2]string{
		"long":    {"name: a\nmatch:\n  - subject: \"" + strings.Repeat("a", maxRule) + "\"\n", "too long"},
		"heavy":   {"name: a\nmatch:\n  - subject: ['re:(?:a.?){960,1000}', 're:(?:b.?){960,1000}', 're:(?:c.?){960,1000}', 're:(?:d.?){960,1000}', 're:(?:e.?){960,1000}', 're:(?:f.?){960,1000}', 're:(?:g.?){960,1000}']\n", "too heavy"},
		"no YAML": {"name: [", "rule"},
	} {
		_, err := new(trials).try(t.Context(), c[0])
		if !errors.Is(err, web.ErrInvalid) || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
