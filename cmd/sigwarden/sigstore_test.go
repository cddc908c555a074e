package main

import (
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor/trust"
)

// TestOldLogs: a log was there before us if the first root named it, and it was
// in use then: keys are published ahead of their time.
func TestOldLogs(t *testing.T) {
	first := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	root := &inForce{firstAt: first, first: &trust.Root{Logs: []trust.LogKey{
		{Origin: "always"},
		{Origin: "old", ValidFrom: first.Add(-time.Hour)},
		{Origin: "announced", ValidFrom: first.Add(time.Hour)},
	}}}
	for origin, want := range map[string]bool{"always": true, "old": true, "announced": false, "later": false} {
		if got := root.old(origin); got != want {
			t.Errorf("%s: old %v", origin, got)
		}
	}
}
