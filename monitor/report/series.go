package report

import (
	"time"

	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// Series are numbers over time, in buckets of one length.
type Series struct {
	From    time.Time     `json:"from"`
	Step    time.Duration `json:"-"`
	Seconds float64       `json:"step_seconds"`
	// Entries are those that were read, by when they were; Lag is the largest number of
	// entries that were signed and not read.
	Entries []uint64 `json:"entries"`
	Lag     []uint64 `json:"lag_max"`
	// Findings are by verdict, by when they were seen.
	Findings map[string][]uint64 `json:"findings"`
}

// point is a finding.
type point struct {
	at      time.Time
	verdict string
}

// steps are the lengths of buckets; a chart has at most maxBuckets.
var steps = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 28 * 24 * time.Hour}

const maxBuckets = 100

func series(since, until time.Time, cov *Coverage, points []point) Series {
	step := steps[0]
	for _, s := range steps {
		if step = s; until.Sub(since) <= time.Duration(maxBuckets)*s {
			break
		}
	}
	for until.Sub(since) > time.Duration(maxBuckets)*step {
		step *= 2
	}
	n := int((until.Sub(since) + step - 1) / step)
	s := Series{From: since, Step: step, Seconds: step.Seconds(), Entries: make([]uint64, n), Lag: make([]uint64, n), Findings: map[string][]uint64{}}
	for _, v := range policy.Verdicts() {
		s.Findings[string(v)] = make([]uint64, n)
	}
	bucket := func(at time.Time) int { return min(max(int(at.Sub(since)/step), 0), n-1) }
	for _, l := range cov.Logs {
		for i := range l.Segments {
			seg := &l.Segments[i]
			at := bucket(seg.Until)
			s.Entries[at] += seg.Entries()
			for k := bucket(seg.Since); k <= at; k++ {
				s.Lag[k] = max(s.Lag[k], seg.LagMax)
			}
		}
	}
	for _, p := range points {
		if list := s.Findings[p.verdict]; list != nil {
			list[bucket(p.at)]++
		}
	}
	return s
}
