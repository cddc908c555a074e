package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/notify"
)

func (s *Server) incidents(w http.ResponseWriter, r *http.Request) error {
	f, err := asked(r)
	if err != nil {
		return err
	}
	page, err := s.opts.Data.Incidents(r.Context(), f)
	if err != nil {
		return err
	}
	logs, err := s.logNames(r)
	if err != nil {
		return err
	}
	var kinds []string
	for _, k := range monitor.IncidentKinds() {
		kinds = append(kinds, k.Kind)
	}
	newer, older := turned(r, page.Next)
	s.page(w, r, http.StatusOK, "incidents", map[string]any{"Page": page, "Newer": newer, "Older": older,
		"Choices": []choice{choose(r, "kind", "Kind", kinds...), choose(r, "state", "State", monitor.StateOpen, monitor.StateAcknowledged, monitor.StateResolved), choose(r, "log", "Log", logs...)}})
	return nil
}

func (s *Server) incidentPage(w http.ResponseWriter, r *http.Request) error {
	i, err := s.opts.Data.Incident(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	type piece struct {
		Name, Path string
		Size       int
	}
	var list []piece
	for _, e := range i.Evidence {
		list = append(list, piece{e.Name, "/incidents/" + i.ID + "/kept/" + url.PathEscape(e.Name), len(e.Data)})
	}
	resume := ""
	if status, err := s.opts.Status(r.Context()); err == nil && slices.ContainsFunc(status.Logs, func(l monitor.LogStatus) bool { return l.Incident == i.ID }) {
		resume = fmt.Sprintf("sigwarden logs resume '%s' --incident %s", strings.ReplaceAll(i.Log, "'", "'\\''"), i.ID)
	}
	var details bytes.Buffer
	if json.Indent(&details, i.Details, "", "  ") != nil {
		details.Reset()
	}
	data := triageOf(r, i.State, map[string]any{"Title": i.Kind + ": " + clean(i.Log), "Incident": i, "Kept": list, "Exportable": s.opts.Data.Exportable(i), "Resume": resume, "Details": readable(details.Bytes())})
	if monitor.Halts(i.Kind) {
		// They are open just as long as their log is halted.
		data["CanResolve"], data["CanReopen"], data["May"] = false, false, data["May"] == true && data["CanAck"] == true
	}
	s.page(w, r, http.StatusOK, "incident", data)
	return nil
}

func (s *Server) kept(w http.ResponseWriter, r *http.Request) error {
	i, err := s.opts.Data.Incident(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	for _, e := range i.Evidence {
		if e.Name == r.PathValue("name") {
			attach(w, "application/octet-stream", strings.Replace(disposition(e.Name), ".zip", "", 1), e.Data)
			return nil
		}
	}
	return ErrNoPage
}

// pictureFor is how far back the picture of the coverage goes, growthFor the growth of logs.
const (
	pictureFor = 30 * 24 * time.Hour
	growthFor  = 7 * 24 * time.Hour
)

// maxPauses bounds the pauses of a log that are listed.
const maxPauses = 50

func (s *Server) coverage(w http.ResponseWriter, r *http.Request) error {
	now := time.Now().UTC()
	since := now.Add(-pictureFor)
	spans, err := s.opts.Data.Spans(r.Context(), since)
	if err != nil {
		return err
	}
	status, err := s.opts.Status(r.Context())
	if err != nil {
		return err
	}
	type gap struct{ Log, Range, Reason string }
	var gaps []gap
	for _, l := range status.Logs {
		for _, g := range l.Gaps {
			gaps = append(gaps, gap{l.Name, fmt.Sprintf("%d to %d", g.From, g.To-1), g.Reason})
		}
	}
	var logs []map[string]any
	for _, l := range spans {
		var pauses []Span
		for _, x := range slices.Backward(l.Spans) {
			if x.Reason != "" && len(pauses) < maxPauses {
				pauses = append(pauses, x)
			}
		}
		logs = append(logs, map[string]any{"Log": l.Log, "Picture": timeline(l, since, now), "Pauses": pauses})
	}
	s.page(w, r, http.StatusOK, "coverage", map[string]any{"Since": since, "Logs": logs, "Gaps": gaps})
	return nil
}

// watchlist shows the watches, and tries a rule where one was sent.
func (s *Server) watchlist(w http.ResponseWriter, r *http.Request) error {
	list, err := s.opts.Data.Watches(r.Context(), true)
	if err != nil {
		return err
	}
	data := map[string]any{"Watches": list, "MayTry": s.opts.Data.Try != nil, "Rule": "name: try\nmatch:\n  - subject: \"https://github.com/acme/*\"\n"}
	status := http.StatusOK
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := r.ParseForm(); err != nil {
			return fmt.Errorf("%w: the form cannot be read", ErrInvalid)
		}
		data["Rule"] = r.PostFormValue("rule")
		trial, err := s.opts.Data.Try(r.Context(), r.PostFormValue("rule"))
		switch {
		case errors.Is(err, ErrInvalid):
			data["Failure"], status = strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": "), http.StatusUnprocessableEntity
		case errors.Is(err, ErrBusy):
			data["Failure"], status = err.Error(), http.StatusServiceUnavailable
		case err != nil:
			return err
		default:
			data["Trials"] = trial
		}
	}
	s.page(w, r, status, "watchlist", data)
	return nil
}

func (s *Server) channels(w http.ResponseWriter, r *http.Request) error {
	status, err := s.opts.Status(r.Context())
	if err != nil {
		return err
	}
	done := ""
	if name := r.FormValue("tested"); name != "" && slices.ContainsFunc(status.Channels, func(c monitor.ChannelStatus) bool { return c.Name == name }) {
		done = "A test for " + name + " is on its way. It is delivered like any notification: look at the channel, and here again in a moment."
	}
	troubles, err := s.opts.Data.Troubles(r.Context())
	if err != nil {
		return err
	}
	s.page(w, r, http.StatusOK, "channels", map[string]any{"Channels": status.Channels, "Troubles": troubles, "Done": done, "May": visitorOf(r.Context()).may(monitor.ScopeTriage)})
	return nil
}

func (s *Server) testChannel(w http.ResponseWriter, r *http.Request) error {
	v := visitorOf(r.Context())
	if err := s.opts.Data.Test(r.Context(), r.PathValue("name"), v.name); err != nil {
		return err
	}
	s.opts.Log.Info("a test is sent", "channel", r.PathValue("name"), "by", v.name)
	http.Redirect(w, r, "/channels?tested="+url.QueryEscape(r.PathValue("name")), http.StatusSeeOther)
	return nil
}

func (s *Server) witness(w http.ResponseWriter, r *http.Request) error {
	if s.opts.Data.Witness == nil {
		return ErrNoPage
	}
	about, err := s.opts.Data.Witness(r.Context())
	if err != nil {
		return err
	}
	s.page(w, r, http.StatusOK, "witness", map[string]any{"Witness": about, "Title": "Witness " + notify.Clean(about.Name, 200)})
	return nil
}
