package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/monitor"
)

// TestSummaryIsBounded: a stranger who fills it does not make it vanish; what is left out is
// counted.
func TestSummaryIsBounded(t *testing.T) {
	long := strings.Repeat("`|ü", 4000)
	var out told
	for i := range maxTold {
		out.findings = append(out.findings, monitor.Finding{ID: fmt.Sprintf("f-%04d", i), Watch: long, Reason: long})
		out.incidents = append(out.incidents, monitor.Incident{ID: fmt.Sprintf("i-%04d", i), Summary: long, Log: long})
	}
	out.more = 7
	text := out.markdown()
	if len(text) > 1000<<10 {
		t.Errorf("%d bytes", len(text))
	}
	listed := strings.Count(text, " f-")
	if want := fmt.Sprintf("%d more are not listed; `sigwarden findings", maxTold-listed+out.more); !strings.Contains(text, want) {
		t.Errorf("%d are listed, and it does not say %q", listed, want)
	}
	if !strings.Contains(text, "more are not listed; `sigwarden incidents`") {
		t.Error("incidents are left out without a word")
	}
}
