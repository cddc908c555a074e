package web

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/notify"
)

// Feeds are Atom (RFC 4287), the newest first.

type atomFeed struct {
	XMLName xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	ID      string      `xml:"id"`
	Title   string      `xml:"title"`
	Updated string      `xml:"updated"`
	Author  atomPerson  `xml:"author"`
	Links   []atomLink  `xml:"link"`
	Entries []atomEntry `xml:"entry"`
}

type atomPerson struct {
	Name string `xml:"name"`
}

type atomLink struct {
	Rel  string `xml:"rel,attr"`
	Href string `xml:"href,attr"`
}

type atomEntry struct {
	ID      string   `xml:"id"`
	Title   string   `xml:"title"`
	Updated string   `xml:"updated"`
	Link    atomLink `xml:"link"`
	Summary string   `xml:"summary"`
}

// feedLength is how many entries a feed has.
const feedLength = 50

// base is how this server is reached: as it says itself, or as it was asked.
func (s *Server) base(r *http.Request) string {
	if s.opts.PublicURL != "" {
		return s.opts.PublicURL
	}
	return "http://" + r.Host
}

func (s *Server) feed(w http.ResponseWriter, r *http.Request, title string, entries []atomEntry) error {
	f := atomFeed{ID: s.base(r) + r.URL.Path, Title: title, Updated: time.Unix(0, 0).UTC().Format(time.RFC3339), Author: atomPerson{"sigwarden"}, Links: []atomLink{{"self", s.base(r) + r.URL.Path}}, Entries: entries}
	for _, e := range entries {
		f.Updated = max(f.Updated, e.Updated)
	}
	doc, err := xml.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/atom+xml; charset=utf-8")
	fmt.Fprintf(w, "%s%s\n", xml.Header, doc)
	return nil
}

func (s *Server) incidentFeed(w http.ResponseWriter, r *http.Request) error {
	if visitorOf(r.Context()).watches != nil {
		return &refusal{status: http.StatusForbidden, detail: "the token is for some watches only"}
	}
	page, err := s.opts.Data.Incidents(r.Context(), monitor.Filter{Limit: feedLength})
	if err != nil {
		return err
	}
	var entries []atomEntry
	for _, i := range page.Items {
		at := i.OpenedAt
		for _, t := range []*time.Time{i.Resolved, i.ChangedAt} {
			if t != nil && t.After(at) {
				at = *t
			}
		}
		entries = append(entries, atomEntry{"urn:sigwarden:" + i.ID, notify.Clean(fmt.Sprintf("%s (%s): %s", i.Kind, i.State, i.Log), 300), at.UTC().Format(time.RFC3339), atomLink{"alternate", s.base(r) + "/incidents/" + i.ID}, notify.Clean(i.Summary, 2000)})
	}
	return s.feed(w, r, "Incidents of sigwarden", entries)
}

func (s *Server) watchFeed(w http.ResponseWriter, r *http.Request) error {
	name, ok := strings.CutSuffix(r.PathValue("name"), ".atom")
	if !ok || !visitorOf(r.Context()).sees(name) {
		return ErrNoPage
	}
	known, err := s.opts.Data.Watches(r.Context(), false)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(known, func(x Watch) bool { return x.Name == name }) {
		return ErrNoPage
	}
	page, err := s.opts.Data.Findings(r.Context(), monitor.Filter{Watch: name, Limit: feedLength})
	if err != nil {
		return err
	}
	var entries []atomEntry
	for _, f := range page.Items {
		at := f.SeenAt
		if f.ChangedAt != nil && f.ChangedAt.After(at) {
			at = *f.ChangedAt
		}
		entries = append(entries, atomEntry{"urn:sigwarden:" + f.ID, notify.Clean(fmt.Sprintf("%s (%s): %s", f.Verdict, f.State, f.SignedAs()), 300), at.UTC().Format(time.RFC3339), atomLink{"alternate", s.base(r) + "/findings/" + f.ID}, notify.Clean(f.Reason, 2000)})
	}
	return s.feed(w, r, "Findings of watch "+notify.Clean(name, 200), entries)
}
