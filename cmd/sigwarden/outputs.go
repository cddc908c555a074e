package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/report"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

// What a pass tells to a CI system: a summary for people, in Markdown, and SARIF for the
// page that shows what scanners find.

// outputs are the files that a pass leaves.
type outputs struct{ summary, sarif string }

// maxTold bounds what is in these files; what is open for longest is told first, and how many
// more there are.
const maxTold = 1000

// told is what is open when a pass ends.
type told struct {
	status    monitor.Status
	findings  []monitor.Finding
	more      int
	incidents []monitor.Incident
}

// write leaves the files, if there are to be some.
func (o outputs) write(ctx context.Context, s *setup, st *store.Store, engine *monitor.Engine) error {
	if o.summary == "" && o.sarif == "" {
		return nil
	}
	var t told
	var err error
	if t.status, err = engine.Status(ctx, st, s.names); err != nil {
		return err
	}
	full := errors.New("full")
	err = st.EachFinding(ctx, store.Filter{State: monitor.StateOpen}, func(f monitor.Finding) error {
		if len(t.findings) == maxTold {
			return full
		}
		t.findings = append(t.findings, f)
		return nil
	})
	if errors.Is(err, full) {
		t.more, err = t.status.Findings.Open-maxTold, nil
	}
	if err != nil {
		return err
	}
	for _, state := range []string{monitor.StateOpen, monitor.StateAcknowledged} {
		list, err := st.Incidents(ctx, store.Filter{State: state})
		if err != nil {
			return err
		}
		t.incidents = append(t.incidents, list...)
	}
	if o.summary != "" {
		if err := appendFile(o.summary, t.markdown()); err != nil {
			return fmt.Errorf("--summary: %w", err)
		}
	}
	if o.sarif != "" {
		doc, err := json.MarshalIndent(t.sarif(s), "", "  ")
		if err != nil {
			return err
		}
		if err := writeWhole(o.sarif, append(doc, '\n')); err != nil {
			return fmt.Errorf("--sarif: %w", err)
		}
	}
	return nil
}

const (
	// GitHub shows no summary of more than 1 MiB, nor a part of it: what is shown is cut
	// before that. maxSummary leaves room for what other steps have written.
	maxSummary = 800 << 10
	maxCell    = 300
)

// cell is a text of strangers in a table.
func cell(s string) string {
	if runes := []rune(s); len(runes) > maxCell {
		s = string(runes[:maxCell]) + "…"
	}
	return report.InCode(s)
}

// appendFile adds to a file, as summaries of CI jobs are: other steps write to it too.
func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func (t *told) markdown() string {
	var b strings.Builder
	b.WriteString("## sigwarden\n\n")
	if len(t.findings) == 0 && len(t.incidents) == 0 {
		b.WriteString("No finding and no incident is open.\n")
	}
	left := 0
	full := func() bool {
		if b.Len() > maxSummary {
			left++
		}
		return b.Len() > maxSummary
	}
	if len(t.incidents) > 0 {
		fmt.Fprintf(&b, "### %d incidents\n\n| Kind | Class | Log | State | Since | What happened |\n|---|---|---|---|---|---|\n", len(t.incidents))
		for _, i := range t.incidents {
			if !full() {
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", i.Kind, i.Class, cell(i.Log), i.State, stamp(i.OpenedAt), cell(i.Summary))
			}
		}
		if left > 0 {
			fmt.Fprintf(&b, "\n%d more are not listed; `sigwarden incidents` does.\n", left)
		}
		b.WriteString("\n")
	}
	if len(t.findings) > 0 {
		fmt.Fprintf(&b, "### %d open findings\n\n| Verdict | Watch | Signed as | Why | Seen | Id |\n|---|---|---|---|---|---|\n", len(t.findings)+t.more)
		left = t.more
		for _, f := range t.findings {
			if !full() {
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", f.Verdict, cell(f.Watch), cell(f.SignedAs()), cell(f.Reason), stamp(f.SeenAt), f.ID)
			}
		}
		if left > 0 {
			fmt.Fprintf(&b, "\n%d more are not listed; `sigwarden findings --state open` does.\n", left)
		}
		b.WriteString("\n")
	}
	b.WriteString("| Log | State | Verified size | Still to be read | Gaps |\n|---|---|---|---|---|\n")
	for _, l := range t.status.Logs {
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d |\n", cell(l.Name), l.State, l.Verified.Size, l.Lag, len(l.Gaps))
	}
	return b.String() + "\n"
}

// SARIF 2.1.0 (OASIS), as far as it is used.
type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool struct {
		Driver sarifDriver `json:"driver"`
	} `json:"tool"`
	Results []sarifResult `json:"results"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version"`
	URI     string      `json:"informationUri"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID         string            `json:"id"`
	Short      sarifText         `json:"shortDescription"`
	Full       sarifText         `json:"fullDescription"`
	Help       sarifText         `json:"help"`
	Properties map[string]any    `json:"properties"`
	Defaults   map[string]string `json:"defaultConfiguration"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	Rule         string            `json:"ruleId"`
	Level        string            `json:"level"`
	Message      sarifText         `json:"message"`
	Locations    []sarifLocation   `json:"locations"`
	Fingerprints map[string]string `json:"partialFingerprints"`
}

type sarifLocation struct {
	Physical struct {
		Artifact struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
		Region struct {
			Line int `json:"startLine"`
		} `json:"region"`
	} `json:"physicalLocation"`
}

// scores are what code scanning makes severities of.
var scores = map[string]string{"critical": "9.5", "high": "8.0", "medium": "5.0", "low": "3.0", "info": "1.0"}

func levelOf(severity string) string {
	switch severity {
	case "critical", "high":
		return "error"
	case "medium":
		return "warning"
	}
	return "note"
}

func (t *told) sarif(s *setup) sarifLog {
	run := sarifRun{Results: []sarifResult{}}
	d := &run.Tool.Driver
	d.Name, d.Version, d.URI, d.Rules = "sigwarden", version(), "https://github.com/sigwarden/sigwarden", []sarifRule{}
	rule := func(id, short, full, help, severity string) {
		if slices.ContainsFunc(d.Rules, func(r sarifRule) bool { return r.ID == id }) {
			return
		}
		d.Rules = append(d.Rules, sarifRule{ID: id, Short: sarifText{short}, Full: sarifText{full}, Help: sarifText{help}, Properties: map[string]any{"tags": []string{"security", "supply-chain"}, "security-severity": cmp.Or(scores[severity], "5.0")}, Defaults: map[string]string{"level": levelOf(severity)}})
	}
	add := func(id, severity, text, fingerprint, at string) {
		r := sarifResult{Rule: id, Level: levelOf(severity), Message: sarifText{notify.Clean(text, 2000)}, Fingerprints: map[string]string{"sigwarden/v1": fingerprint}}
		issue := s.cfg.At(at, "")
		var loc sarifLocation
		loc.Physical.Artifact.URI, loc.Physical.Region.Line = filepath.ToSlash(relativeTo(issue.File)), max(issue.Line, 1)
		r.Locations = []sarifLocation{loc}
		run.Results = append(run.Results, r)
	}
	for _, i := range t.incidents {
		id := "incident/" + i.Kind
		rule(id, "Incident "+i.Kind, "Something is wrong with a log, or with the monitoring itself: "+i.Kind+".", "sigwarden incidents show ID, and the run-book of this kind.", i.Severity)
		add(id, i.Severity, i.Summary, i.ID, "logs")
	}
	for _, f := range t.findings {
		id := "finding/" + string(f.Verdict)
		rule(id, "Signing event: "+string(f.Verdict), "A log holds a signing event that a watch claims, and that is "+string(f.Verdict)+".", "sigwarden findings show ID; acknowledge or resolve it when it is known what it was.", f.Severity)
		at := "watchlist"
		if n := slices.IndexFunc(s.cfg.Watches, func(w config.Watch) bool { return w.Name == f.Watch }); n >= 0 {
			at = s.cfg.Watches[n].Path
		}
		add(id, f.Severity, fmt.Sprintf("%s: signed as %s: %s (entry %d of %s, %s)", f.Watch, f.SignedAs(), f.Reason, f.Index, f.Log, f.ID), f.ID, at)
	}
	return sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}}
}

// relativeTo makes a path one below the folder that the program runs in, where it is: a page of
// a repository knows files by that.
func relativeTo(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return filepath.Base(path)
	}
	if abs, err := filepath.Abs(path); err == nil {
		if rel, err := filepath.Rel(here, abs); err == nil && filepath.IsLocal(rel) {
			return rel
		}
	}
	return filepath.Base(path)
}
