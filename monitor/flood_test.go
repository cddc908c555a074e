package monitor_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// flood is a rig whose log holds n events of ours that nothing expects.
func flood(t testing.TB, n int) *rig {
	t.Helper()
	r := newRig(t)
	s, err := r.ca.Issue(unexpectedEvent())
	if err != nil {
		t.Fatal(err)
	}
	entries := make([][]byte, n)
	for i := range entries {
		if entries[i], err = s.HashedRekord(fmt.Appendf(nil, "artifact %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.log.Append(entries...); err != nil {
		t.Fatal(err)
	}
	return r
}

// BenchmarkFlood measures what it costs the engine that a flood of findings is to
// be told: the time for storing them with three channels, over that without any.
func BenchmarkFlood(b *testing.B) {
	const findings, rounds = 10000, 5
	source := flood(b, findings)
	pass := func(channels []string) time.Duration {
		r := newRig(b)
		r.log, r.url, r.ca = source.log, source.url, source.ca
		r.cfg = source.cfg
		r.cfg.Source = source.source()
		r.opts.WatchConfigs = []monitor.WatchConfig{{Severity: "critical", Channels: channels}}
		r.restart()
		begin := time.Now()
		if out := r.mustPass(); out.Findings != findings {
			b.Fatalf("%+v", out)
		}
		return time.Since(begin)
	}
	for b.Loop() {
		var ratios []float64
		pass(nil) // warms up
		for range rounds {
			with, without := pass([]string{"chat", "mail", "hook"}), pass(nil)
			ratios = append(ratios, float64(with)/float64(without))
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[rounds/2], "with:without")
		if ratios[rounds/2] > 1.3 { // a tenth, and what a noisy machine adds
			b.Errorf("channels make the engine slower: %.2f times as long", ratios[rounds/2])
		}
		b.ReportMetric(ratios[rounds-1]-ratios[0], "spread")
	}
}
