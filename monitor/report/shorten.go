package report

import (
	"encoding/json"
	"fmt"

	"github.com/sigwarden/sigwarden/monitor"
)

// maxSummed bounds the things that are not covered in a summary.
const maxSummed = 100

// Shortened returns the document of a report in at most max bytes. Of one that is longer it
// leaves out lists, one after the other, and names those that it has left out; what counts
// stays.
func (r *Report) Shortened(max int) ([]byte, error) {
	short := *r
	for _, leave := range []func(){
		func() {},
		func() { short.Findings.LeftOut, short.Findings.List = short.Findings.Total, []Finding{} },
		func() { short.Coverage = r.Coverage.withoutSegments() },
		func() { short.Decisions = []Decision{} },
		func() {
			short.Gaps = short.Gaps[:min(len(short.Gaps), maxSummed)]
			short.Incidents.List, short.Scope.Watches, short.Blind.Warnings, short.Deliveries = []monitor.Incident{}, []Watch{}, []string{}, []monitor.ChannelStatus{}
			c := &short.Coverage
			c.Logs, c.Rules, c.Runs, c.Trust, c.Restored, c.Deleted, short.Witness = []LogCoverage{}, []RuleChange{}, []Run{}, []TrustChange{}, []Restoration{}, []Tombstone{}, nil
			short.Series = Series{}
		},
	} {
		leave()
		short.LeftOut = r.lacks(&short)
		doc, err := json.Marshal(&short)
		if err != nil || len(doc) <= max {
			return doc, err
		}
	}
	return nil, fmt.Errorf("the report is longer than %d bytes even without its lists", max)
}

// lacks names the sections of a report that another one of it has less in.
func (r *Report) lacks(short *Report) (out []string) {
	for _, s := range []struct {
		name      string
		have, has int
	}{
		{"not_covered", len(r.Gaps), len(short.Gaps)},
		{"scope.watches", len(r.Scope.Watches), len(short.Scope.Watches)},
		{"coverage.logs", len(r.Coverage.Logs), len(short.Coverage.Logs)},
		{"coverage.logs.segments", r.Coverage.segments(), short.Coverage.segments()},
		{"coverage.rule_changes", len(r.Coverage.Rules), len(short.Coverage.Rules)},
		{"coverage.runs", len(r.Coverage.Runs), len(short.Coverage.Runs)},
		{"coverage.trust_changes", len(r.Coverage.Trust), len(short.Coverage.Trust)},
		{"coverage.restored", len(r.Coverage.Restored), len(short.Coverage.Restored)},
		{"coverage.deleted", len(r.Coverage.Deleted), len(short.Coverage.Deleted)},
		{"deliveries", len(r.Deliveries), len(short.Deliveries)},
		{"findings.list", len(r.Findings.List), len(short.Findings.List)},
		{"incidents.list", len(r.Incidents.List), len(short.Incidents.List)},
		{"decisions", len(r.Decisions), len(short.Decisions)},
		{"blind_spots.warnings", len(r.Blind.Warnings), len(short.Blind.Warnings)},
		{"series", len(r.Series.Entries), len(short.Series.Entries)},
	} {
		if s.has < s.have {
			out = append(out, s.name)
		}
	}
	if short.Witness == nil && r.Witness != nil {
		out = append(out, "witness")
	}
	return out
}

func (c *Coverage) segments() (n int) {
	for _, l := range c.Logs {
		n += len(l.Segments)
	}
	return n
}

func (c Coverage) withoutSegments() Coverage {
	logs := make([]LogCoverage, len(c.Logs))
	for i, l := range c.Logs {
		l.Segments = []Segment{}
		logs[i] = l
	}
	c.Logs = logs
	return c
}
