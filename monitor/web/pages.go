package web

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/notify"
)

//go:embed pages/*.tmpl
var templates embed.FS

//go:embed static
var static embed.FS

// maxShown bounds a text of strangers on a page.
const maxShown = 8 << 10

func clean(s any) string { return notify.Clean(fmt.Sprint(s), maxShown) }

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"clean": clean, "stamp": stamp, "join": strings.Join, "signers": func(f monitor.Finding) string { return f.SignedAs() },
	"plus":   func(i int) int { return i + 1 },
	"deref":  func(s *string) string { return *s },
	"stampP": func(t *time.Time) string { return stamp(*t) },
	"stampOr": func(t *time.Time, other string) string {
		if t == nil {
			return other
		}
		return stamp(*t)
	},
	"segment": url.PathEscape,
	"lines": func(s string) string {
		var out []string
		for line := range strings.Lines(s) {
			out = append(out, clean(strings.TrimSuffix(line, "\n")))
		}
		return strings.Join(out, "\n")
	},
}).ParseFS(templates, "pages/*.tmpl"))

// titles are those of pages, by template.
var titles = map[string]string{"overview": "Logs", "findings": "Findings", "finding": "Finding", "incidents": "Incidents", "incident": "Incident", "coverage": "Coverage", "watchlist": "Watchlist", "channels": "Channels", "witness": "Witness", "onward": "Logged in"}

type navItem struct {
	Path, Name string
	Here       bool
}

// page writes one page.
func (s *Server) page(w http.ResponseWriter, r *http.Request, status int, name string, data map[string]any) {
	var main, whole bytes.Buffer
	if err := pages.ExecuteTemplate(&main, name, data); err != nil {
		s.opts.Log.Error("a page cannot be made", "page", name, "error", err)
		http.Error(w, "the page cannot be made; the log of the server says why", http.StatusInternalServerError)
		return
	}
	// What a form has answered, and why there is no page, is not to be fetched anew.
	still := name == "failed" || r.Method != http.MethodGet
	layout := map[string]any{"Title": titles[name], "Main": template.HTML(main.String()), "Version": s.opts.Version, "Still": still}
	if t, ok := data["Title"]; ok {
		layout["Title"] = t
	}
	if back, ok := data["Back"]; ok && name == "onward" {
		layout["Refresh"] = back
	}
	if v := visitorOf(r.Context()); v != nil {
		if !still {
			layout["Mark"] = v.mark
		}
		layout["Who"], layout["Session"], layout["Nav"] = v.name, v.secret != "", s.nav(r)
	}
	if name == "incidents" || name == "overview" {
		layout["Feed"] = "/feeds/incidents.atom"
	}
	if err := pages.ExecuteTemplate(&whole, "layout", layout); err != nil {
		s.opts.Log.Error("a page cannot be made", "page", name, "error", err)
		http.Error(w, "the page cannot be made; the log of the server says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(whole.Bytes())
}

func (s *Server) nav(r *http.Request) []navItem {
	items := []navItem{{"/", "Logs", false}, {"/findings", "Findings", false}, {"/incidents", "Incidents", false}, {"/coverage", "Coverage", false}, {"/watchlist", "Watchlist", false}, {"/channels", "Channels", false}}
	if s.opts.Data.Witness != nil {
		items = append(items, navItem{"/witness", "Witness", false})
	}
	for i := range items {
		p := items[i].Path
		items[i].Here = r.URL.Path == p || p != "/" && strings.HasPrefix(r.URL.Path, p+"/")
	}
	return items
}

// failed tells a person why there is no page.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, err error) {
	no := &refusal{status: http.StatusServiceUnavailable, detail: "The store cannot be read; the log of the server says why."}
	switch {
	case errors.As(err, &no):
	case errors.Is(err, ErrNoPage):
		no = &refusal{status: http.StatusNotFound, detail: "There is no such page, finding or incident."}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(r.Context().Err(), context.DeadlineExceeded):
		no = &refusal{status: http.StatusServiceUnavailable, detail: "It took too long; ask for less."}
	case errors.Is(err, ErrInvalid):
		no = &refusal{status: http.StatusUnprocessableEntity, detail: strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": ")}
	default:
		s.opts.Log.Error("a page cannot be shown", "path", r.URL.Path, "error", err)
	}
	for k, v := range no.header {
		w.Header().Set(k, v)
	}
	login := no.status == http.StatusUnauthorized && s.opts.Access.Login != nil
	if login && r.Header.Get("Authorization") == "" {
		no = &refusal{status: no.status, detail: "You are not logged in."}
	}
	s.page(w, r, no.status, "failed", map[string]any{"Title": http.StatusText(no.status), "Detail": no.detail, "Login": login, "Back": r.URL.RequestURI()})
}

// view is a page that is made, or an error.
type view func(w http.ResponseWriter, r *http.Request) error

// guarded lets in whom a scope is given to.
func (s *Server) guarded(scope string, show view) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := s.admit(r, scope)
		if err == nil && !v.person && !strings.HasPrefix(r.URL.Path, "/feeds/") && v.watches != nil {
			err = &refusal{status: http.StatusForbidden, detail: "the token is for some watches only, and pages show all"}
		}
		if err == nil {
			// What changes from here on is not on the page yet.
			v.mark = s.news.read(r.Context())
			r = withVisitor(r, v)
			err = show(w, r)
		}
		if err != nil {
			s.failed(w, r, err)
		}
	}
}

func (s *Server) site(mux *http.ServeMux) {
	files, _ := fs.Sub(static, "static")
	serve := http.FileServerFS(files)
	mux.HandleFunc("GET /static/{name}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=300")
		r.Header.Del("Range") // thousands of parts of a small file are work for nobody's good
		http.StripPrefix("/static/", serve).ServeHTTP(w, r)
	})
	read, triage := monitor.ScopeRead, monitor.ScopeTriage
	for path, show := range map[string]view{
		"GET /{$}": s.overview, "GET /findings": s.findings, "GET /findings/{id}": s.findingPage, "GET /findings/{id}/evidence": s.download, "GET /findings/{id}/leaf": s.leaf,
		"GET /incidents": s.incidents, "GET /incidents/{id}": s.incidentPage, "GET /incidents/{id}/evidence": s.download, "GET /incidents/{id}/kept/{name}": s.kept,
		"GET /coverage": s.coverage, "GET /watchlist": s.watchlist, "POST /watchlist/try": s.watchlist, "GET /channels": s.channels, "GET /witness": s.witness,
		"GET /feeds/incidents.atom": s.incidentFeed, "GET /feeds/watches/{name}": s.watchFeed, "GET /events": s.events,
	} {
		mux.HandleFunc(path, s.guarded(read, show))
	}
	for path, do := range map[string]view{"POST /findings/{id}": s.triageForm("findings"), "POST /incidents/{id}": s.triageForm("incidents"), "POST /channels/{name}/test": s.testChannel} {
		mux.HandleFunc(path, s.guarded(triage, do))
	}
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		s.guarded(read, func(http.ResponseWriter, *http.Request) error { return ErrNoPage })(w, r)
	})
	// Whoever reloads what a form has answered, or comes back to it from a login, is led to where the form is.
	for path, to := range map[string]string{"GET /watchlist/try": "/watchlist", "GET /channels/{name}/test": "/channels"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusSeeOther) })
	}
	if s.opts.Access.Login != nil {
		mux.HandleFunc("GET /login", s.login)
		mux.HandleFunc("GET /login/callback", s.callback)
		mux.HandleFunc("POST /logout", s.end)
	}
}

func (s *Server) overview(w http.ResponseWriter, r *http.Request) error {
	status, err := s.opts.Status(r.Context())
	if err != nil {
		return err
	}
	spans, err := s.opts.Data.Spans(r.Context(), time.Now().Add(-growthFor))
	if err != nil {
		return err
	}
	recent, err := s.opts.Data.Findings(r.Context(), monitor.Filter{Limit: 10})
	if err != nil {
		return err
	}
	type growth struct {
		Log   string
		Chart template.HTML
	}
	var charts []growth
	for _, l := range spans {
		if chart := growthChart(l); chart != "" {
			charts = append(charts, growth{l.Log, chart})
		}
	}
	failing := 0
	for _, c := range status.Channels {
		failing += c.Failed
	}
	s.page(w, r, http.StatusOK, "overview", map[string]any{"Status": status, "Growth": charts, "Recent": recent.Items, "Failing": failing})
	return nil
}

// choice is a list to choose from.
type choice struct {
	Name, Label string
	Options     []option
}

type option struct {
	Value  string
	Chosen bool
}

func choose(r *http.Request, name, label string, values ...string) choice {
	c := choice{Name: name, Label: label}
	chosen := r.FormValue(name)
	if chosen != "" && !slices.Contains(values, chosen) {
		values = append(values, chosen)
	}
	for _, v := range values {
		c.Options = append(c.Options, option{v, v == chosen})
	}
	return c
}

// perPage is how many there are on a page.
const perPage = 50

// asked reads what a list is narrowed down by.
func asked(r *http.Request) (f monitor.Filter, err error) {
	f = monitor.Filter{Watch: r.FormValue("watch"), Log: r.FormValue("log"), Verdict: r.FormValue("verdict"), State: r.FormValue("state"), Kind: r.FormValue("kind"), Severity: r.FormValue("severity"), Before: r.FormValue("before"), Limit: perPage}
	for name, into := range map[string]*time.Time{"since": &f.Since, "until": &f.Until} {
		text := r.FormValue(name)
		if text == "" {
			continue
		}
		if *into, err = time.Parse(time.DateOnly, text); err != nil {
			return f, fmt.Errorf("%w: %s: %.40q is no date like 2026-01-31", ErrInvalid, name, text)
		}
	}
	if !f.Until.IsZero() {
		f.Until = f.Until.AddDate(0, 0, 1) // that day too
	}
	return f, nil
}

// turned makes the links to other pages of a list.
func turned(r *http.Request, next string) (newer, older string) {
	q := r.URL.Query()
	before := q.Get("before")
	q.Del("before")
	here := r.URL.Path
	if before != "" {
		if newer = here; len(q) > 0 {
			newer += "?" + q.Encode()
		}
	}
	if next != "" {
		q.Set("before", next)
		older = here + "?" + q.Encode()
	}
	return newer, older
}

func (s *Server) findings(w http.ResponseWriter, r *http.Request) error {
	f, err := asked(r)
	if err != nil {
		return err
	}
	page, err := s.opts.Data.Findings(r.Context(), f)
	if err != nil {
		return err
	}
	n, err := s.opts.Data.Count(r.Context(), f, MostHits)
	if err != nil {
		return err
	}
	count := fmt.Sprintf("%d findings", n)
	if n >= MostHits {
		count = fmt.Sprintf("%d findings and more", n)
	}
	watches, err := s.opts.Data.Watches(r.Context(), false)
	if err != nil {
		return err
	}
	var names []string
	for _, x := range watches {
		names = append(names, x.Name)
	}
	logs, err := s.logNames(r)
	if err != nil {
		return err
	}
	newer, older := turned(r, page.Next)
	s.page(w, r, http.StatusOK, "findings", map[string]any{"Page": page, "Count": count, "Since": r.FormValue("since"), "Until": r.FormValue("until"), "Newer": newer, "Older": older,
		"Choices": []choice{choose(r, "watch", "Watch", names...), choose(r, "verdict", "Verdict", "malformed", "unexpected", "untrusted", "expected"), choose(r, "state", "State", monitor.States()...), choose(r, "log", "Log", logs...)}})
	return nil
}

func (s *Server) logNames(r *http.Request) (names []string, err error) {
	status, err := s.opts.Status(r.Context())
	for _, l := range status.Logs {
		names = append(names, l.Name)
	}
	return names, err
}

// triageOf is what the form for decisions needs.
func triageOf(r *http.Request, state string, data map[string]any) map[string]any {
	open, acked, resolved := state == monitor.StateOpen, state == monitor.StateAcknowledged, state == monitor.StateResolved
	data["May"] = visitorOf(r.Context()).may(monitor.ScopeTriage) && (open || acked || resolved)
	data["CanAck"], data["CanResolve"], data["CanReopen"] = open, open || acked, acked || resolved
	data["Resolutions"], data["Path"] = monitor.Resolutions(), r.URL.Path
	return data
}

func (s *Server) findingPage(w http.ResponseWriter, r *http.Request) error {
	f, err := s.finding(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	s.page(w, r, http.StatusOK, "finding", triageOf(r, f.State, map[string]any{"Title": fmt.Sprintf("%s: %s", f.Verdict, clean(f.Watch)), "Finding": f, "Raw": readable(f.Leaf), "Certificates": certificates(s.opts.Data.Certificates(f.Leaf))}))
	return nil
}

// maxRaw bounds a raw entry on a page.
const maxRaw = 64 << 10

// readable shows bytes: JSON in lines, anything else with escapes.
func readable(raw []byte) string {
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") == nil {
		raw = b.Bytes()
	}
	cut := ""
	if len(raw) > maxRaw {
		raw, cut = raw[:maxRaw], "\n(the rest is in the download)"
	}
	var out strings.Builder
	for line := range strings.Lines(string(raw)) {
		out.WriteString(notify.Clean(strings.TrimSuffix(line, "\n"), maxRaw) + "\n")
	}
	return out.String() + cut
}

func (s *Server) triageForm(what string) view {
	return func(w http.ResponseWriter, r *http.Request) error {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := r.ParseForm(); err != nil {
			return fmt.Errorf("%w: the form cannot be read", ErrInvalid)
		}
		d := decision{Action: r.PostFormValue("action"), Note: r.PostFormValue("note")}
		if d.Action == "resolve" {
			d.As = r.PostFormValue("as")
		}
		if len(d.Note) > maxNote {
			return fmt.Errorf("%w: the note is longer than %d bytes", ErrInvalid, maxNote)
		}
		if err := s.decide(r.Context(), what, r.PathValue("id"), d); err != nil {
			return err
		}
		http.Redirect(w, r, "/"+what+"/"+url.PathEscape(r.PathValue("id")), http.StatusSeeOther)
		return nil
	}
}

// maxNote bounds what somebody says of a decision.
const maxNote = 4000

func (s *Server) download(w http.ResponseWriter, r *http.Request) error {
	data, err := s.evidence(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	attach(w, "application/zip", disposition(r.PathValue("id")), data)
	return nil
}

func attach(w http.ResponseWriter, kind, disposition string, data []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", disposition)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	steadily(w, data)
}

// steadily writes what may be long: each part of it in time, and not the whole.
func steadily(w http.ResponseWriter, data []byte) {
	const part = 256 << 10
	out := http.NewResponseController(w)
	for len(data) > 0 {
		n := min(part, len(data))
		// Where a writer has no deadline, that of the server holds.
		_ = out.SetWriteDeadline(time.Now().Add(writeFor))
		if _, err := w.Write(data[:n]); err != nil {
			return
		}
		data = data[n:]
	}
}

func (s *Server) leaf(w http.ResponseWriter, r *http.Request) error {
	f, err := s.finding(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	attach(w, "application/octet-stream", strings.Replace(disposition(f.ID), ".zip", ".leaf", 1), f.Leaf)
	return nil
}
