package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/monitor/attest"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/redact"
	"github.com/sigwarden/sigwarden/monitor/report"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

const (
	// settle is how long after the end of its period a report is made: what was judged at the
	// end is stored a moment later.
	settle = 2 * time.Minute
	// A report that cannot be made is tried again after retryFirst, then after twice as long
	// each time, up to retryMost.
	retryFirst, retryMost = time.Minute, time.Hour
	// maxPeriods bounds how many periods that were missed are looked through.
	maxPeriods = 100000
)

// makeReports makes a report each time that it is due. One that was due while the program
// did not run is made when it starts; it covers all of the time since the one before.
func (s *setup) makeReports(ctx context.Context, st *store.Store, r config.Report, log *slog.Logger, wake func()) {
	log = log.With("report", r.Name)
	wait := retryFirst
	var since, until time.Time // of one that could not be made yet
	for {
		var err error
		if until.IsZero() {
			since, until, err = s.nextReport(ctx, st, r)
		}
		if err == nil && ctx.Err() == nil {
			err = s.makeReport(ctx, st, r, since, until)
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			log.Info("made a report", "since", at(since), "until", at(until))
			wake()
			wait, until = retryFirst, time.Time{}
			continue
		}
		log.Error("a report could not be made; that is tried again", "in", wait, "error", err)
		if !pause(ctx, wait) {
			return
		}
		wait = min(2*wait, retryMost)
	}
}

// nextReport waits until a report is due, and returns its period: whole ones follow each
// other, and where more were missed, one covers all.
func (s *setup) nextReport(ctx context.Context, st *store.Store, r config.Report) (since, until time.Time, err error) {
	since, err = st.ReportedUntil(ctx, r.Name)
	if err != nil {
		return since, until, err
	}
	if since.IsZero() {
		// The first one has a whole period too, and says since when anything was watched.
		since = lastDue(r.Schedule, time.Now())
		if err := st.Reported(ctx, r.Name, since, nil); err != nil {
			return since, until, err
		}
	}
	if until = r.Schedule.Next(since.Local()); until.IsZero() { // a schedule is in local time
		return since, until, fmt.Errorf("schedule %q is never due", r.Schedule.Text)
	}
	pause(ctx, time.Until(until.Add(settle)))
	now := time.Now()
	for range maxPeriods {
		next := r.Schedule.Next(until)
		if next.IsZero() || next.Add(settle).After(now) {
			break
		}
		until = next
	}
	return since, until, nil
}

// lastDue is when something was due last before a time; the time itself if that is not
// known.
func lastDue(schedule config.Schedule, now time.Time) time.Time {
	const day = 24 * time.Hour
	for _, back := range []time.Duration{time.Hour, day, 8 * day, 32 * day, 367 * day, 5 * 366 * day} {
		last := schedule.Next(now.Add(-back))
		if last.IsZero() || last.After(now) {
			continue
		}
		for range maxPeriods {
			next := schedule.Next(last)
			if next.IsZero() || next.After(now) {
				break
			}
			last = next
		}
		return last
	}
	return now
}

// makeReport makes one report, writes it and puts it into the outbox.
func (s *setup) makeReport(ctx context.Context, st *store.Store, r config.Report, since, until time.Time) error {
	var hide *redact.Redactor
	if !r.Redact.IsZero() {
		var err error
		if hide, err = redact.New([]byte(r.Redact.Reveal())); err != nil {
			return fmt.Errorf("%s.redact %w", r.Path, err)
		}
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
		signature, err := s.signed(ctx, name, b.Bytes(), attest.ReportType, predicate(made, format))
		if err != nil {
			return err
		}
		files = append(files, notify.File{Name: name, Type: mediaTypes[format], Data: b.Bytes()}, notify.File{Name: name + bundleSuffix, Type: "application/json", Data: signature})
	}
	if r.Directory != "" {
		if err := os.MkdirAll(r.Directory, 0o755); err != nil {
			return err
		}
		for _, f := range files {
			if err := writeWhole(filepath.Join(r.Directory, f.Name), f.Data); err != nil {
				return err
			}
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
			to = attach(to, files)
		}
		deliveries = append(deliveries, notify.Delivery{Address: notify.Address{Channel: name}, Event: to})
	}
	return st.Reported(ctx, r.Name, until, deliveries)
}

var mediaTypes = map[string]string{"html": "text/html; charset=utf-8", "markdown": "text/markdown; charset=utf-8", "json": "application/json", "csv": "text/csv; charset=utf-8"}

// maxAttached bounds the files of a mail together: servers refuse what is larger than about
// 20 MB, and the encoding of mails adds a third.
const maxAttached = 10 << 20

// attach adds files with their signatures to what is mailed, and says which were too large.
func attach(e notify.Event, files []notify.File) notify.Event {
	size := 0
	for pair := range slices.Chunk(files, 2) {
		n := 0
		for _, f := range pair {
			n += len(f.Data)
		}
		if size+n > maxAttached {
			e.Fields = append(e.Fields[:len(e.Fields):len(e.Fields)], notify.Field{Name: "Too large to be attached", Value: fmt.Sprintf("%s, %d MB", pair[0].Name, n>>20)})
			continue
		}
		size += n
		e.Files = append(e.Files, pair...)
	}
	return e
}

// maxReportData bounds the document of a report that programs get.
const maxReportData = 4 << 20

// reportEvent tells of a report. Programs get its document.
func reportEvent(name string, r *report.Report) (notify.Event, error) {
	doc, err := r.Shortened(maxReportData)
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
