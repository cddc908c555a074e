package monitor

import (
	"maps"

	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// Metrics are counters since the process began.
type Metrics struct {
	Findings map[[2]string]uint64 // by watch and verdict
}

// newMetrics begins every counter at nothing: what is not there at first cannot be seen to
// grow.
func newMetrics(watches []watchlist.Watch) Metrics {
	m := Metrics{Findings: map[[2]string]uint64{}}
	for _, w := range watches {
		for _, v := range policy.Verdicts() {
			m.Findings[[2]string{w.Name, string(v)}] = 0
		}
	}
	return m
}

// Metrics returns a copy of the counters.
func (e *Engine) Metrics() Metrics {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Metrics{Findings: maps.Clone(e.metrics.Findings)}
}
