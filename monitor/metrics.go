package monitor

import "maps"

// Metrics are counters since the process began.
type Metrics struct {
	Findings map[[2]string]uint64 // by watch and verdict
}

func newMetrics() Metrics { return Metrics{Findings: map[[2]string]uint64{}} }

// Metrics returns a copy of the counters.
func (e *Engine) Metrics() Metrics {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Metrics{Findings: maps.Clone(e.metrics.Findings)}
}
