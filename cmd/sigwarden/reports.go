package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor/attest"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/report"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

// makeReports makes a report each time that it is due. One that was due while the program
// did not run is made when it starts; it covers all of the time since the one before.
func (s *setup) makeReports(ctx context.Context, st *store.Store, r config.Report, log *slog.Logger, wake func()) {
	log = log.With("report", r.Name)
	for {
		last, err := st.ReportedUntil(ctx, r.Name)
		if err == nil {
			due := r.Schedule.Next(last.Local()) // a schedule is in local time
			if last.IsZero() {
				due = r.Schedule.Next(time.Now())
				last = due.Add(-r.Schedule.Next(due).Sub(due))
			}
			if !pause(ctx, time.Until(due)) {
				return
			}
			until := time.Now()
			if next := r.Schedule.Next(due); !until.After(next) {
				until = due // whole periods follow each other; where more were missed, one covers all
			}
			if err = s.makeReport(ctx, st, r, last, until); err == nil {
				log.Info("made a report", "since", last.UTC().Format(time.RFC3339), "until", until.UTC().Format(time.RFC3339))
				wake()
				continue
			}
		}
		if ctx.Err() != nil {
			return
		}
		log.Error("a report could not be made; that is tried again", "error", err)
		if !pause(ctx, time.Minute) {
			return
		}
	}
}

// makeReport makes one report, writes it and puts it into the outbox.
func (s *setup) makeReport(ctx context.Context, st *store.Store, r config.Report, since, until time.Time) error {
	var hide *redactor
	if !r.Redact.IsZero() {
		hide = &redactor{[]byte(strings.TrimSpace(r.Redact.Reveal()))}
	}
	made, err := s.report(ctx, st, since, until, hide)
	if err != nil {
		return err
	}
	var files []notify.File
	for _, format := range r.Formats {
		var b bytes.Buffer
		if err := made.Write(&b, format); err != nil {
			return err
		}
		name := fmt.Sprintf("%s-%s%s", r.Name, until.UTC().Format("20060102T150405Z"), report.Suffixes[format])
		files = append(files, notify.File{Name: name, Type: mediaTypes[format], Data: b.Bytes()})
		if r.Directory == "" {
			continue
		}
		if err := os.MkdirAll(r.Directory, 0o755); err != nil {
			return err
		}
		path := filepath.Join(r.Directory, name)
		if err := writeWhole(path, b.Bytes()); err != nil {
			return err
		}
		if _, err := s.signFile(ctx, path, b.Bytes(), attest.ReportType, predicate(made, format)); err != nil {
			return err
		}
	}
	var deliveries []notify.Delivery
	if len(r.Notify) == 0 {
		return st.Reported(ctx, r.Name, until, nil)
	}
	e, err := reportEvent(r.Name, made)
	if err != nil {
		return err
	}
	for _, name := range r.Notify {
		at := slices.IndexFunc(s.cfg.Notify.Channels, func(ch config.Channel) bool { return ch.Name == name })
		to := e
		if at >= 0 && s.cfg.Notify.Channels[at].Kind == "email" {
			to.Files = files
		}
		deliveries = append(deliveries, notify.Delivery{Address: notify.Address{Channel: name}, Event: to})
	}
	return st.Reported(ctx, r.Name, until, deliveries)
}

var mediaTypes = map[string]string{"html": "text/html; charset=utf-8", "markdown": "text/markdown; charset=utf-8", "json": "application/json", "csv": "text/csv; charset=utf-8"}

// maxReportData bounds the document of a report that programs get; a longer one leaves
// out the list of findings, and says so.
const maxReportData = 4 << 20

// reportEvent tells of a report. Programs get its document.
func reportEvent(name string, r *report.Report) (notify.Event, error) {
	doc, err := json.Marshal(r)
	if err == nil && len(doc) > maxReportData {
		short := *r
		short.Findings.LeftOut, short.Findings.List = short.Findings.Total, []report.Finding{}
		doc, err = json.Marshal(&short)
	}
	if err == nil && len(doc) > maxReportData {
		err = errors.New("the report is too long to be sent; write it to a directory")
	}
	id := sha256.Sum256(fmt.Appendf(nil, "report\x00%s\x00%d", name, r.Until.UnixMicro()))
	e := notify.Event{
		ID: fmt.Sprintf("e-%x", id[:10]), Type: notify.ReportReady, Time: r.Made, Severity: "info",
		Title:   fmt.Sprintf("Report %s, %s to %s", name, at(r.Since), at(r.Until)),
		Summary: fmt.Sprintf("%d things were not covered. %d signing events were found, and %d incidents were open.", len(r.Gaps), r.Findings.Total, r.Incidents.Total),
		Next:    fmt.Sprintf("sigwarden report --since %s --until %s", at(r.Since), at(r.Until)),
		Data:    fmt.Appendf(nil, `{"report": %s}`, doc),
	}
	for _, c := range r.Findings.Verdicts() {
		e.Fields = append(e.Fields, notify.Field{Name: c.Name, Value: fmt.Sprint(c.N)})
	}
	for i, g := range r.Gaps {
		if i == 5 {
			e.Fields = append(e.Fields, notify.Field{Name: "Not covered", Value: fmt.Sprintf("and %d more", len(r.Gaps)-i)})
			break
		}
		e.Fields = append(e.Fields, notify.Field{Name: "Not covered", Value: fmt.Sprintf("%s %s, %s to %s: %s", g.Log, g.Kind, at(g.Since), at(g.Until), g.Why())})
	}
	return e, err
}
