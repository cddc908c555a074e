package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Report is one that is made by a schedule: it covers the time since the one before.
type Report struct {
	Path string // in the configuration
	// Name is how people call it, and begins the names of its files.
	Name     string
	Schedule Schedule
	// Formats are those of the files; default html and json.
	Formats []string
	// Directory is where they are written, signed; empty: nowhere.
	Directory string
	// Notify are the channels that get them; none by default.
	Notify []string
	// Redact is a secret with which e-mail addresses are replaced; empty: they stay.
	Redact Secret
}

// ReportFormats are the formats of reports.
var ReportFormats = []string{"html", "markdown", "json", "csv"}

// reportKinds are the kinds of channels that files can be sent to.
var reportKinds = []string{"email", "webhook", "file"}

func (c *Config) readReport(n ast.Node, path string) {
	f := c.file
	r := Report{Path: path, Formats: []string{"html", "json"}}
	f.mapping(n, path, "a report", map[string]field{
		"name": f.into(&r.Name), "schedule": f.schedule(&r.Schedule), "formats": f.names(&r.Formats), "notify": f.names(&r.Notify),
		"directory": f.path(&r.Directory),
		"redact":    f.secret(&r.Redact),
	}, "name", "schedule")
	if r.Name == "" || strings.ContainsAny(r.Name, `/\:`) || strings.HasPrefix(r.Name, ".") {
		f.fail(n, path, "name %q cannot begin the name of a file", r.Name)
	}
	if r.Directory == "" && len(r.Notify) == 0 {
		f.fail(n, path, "a report wants a directory, or channels to notify")
	}
	c.Reports = append(c.Reports, r)
}

// checkReports checks what only the whole shows.
func (c *Config) checkReports(bad func(path, format string, args ...any)) {
	seen := map[string]bool{}
	for _, r := range c.Reports {
		if seen[r.Name] {
			bad(r.Path+".name", "two reports are called %q", r.Name)
		}
		seen[r.Name] = true
		for i, name := range r.Formats {
			if !slices.Contains(ReportFormats, name) {
				bad(fmt.Sprintf("%s.formats[%d]", r.Path, i), "%q is no format of reports%s", name, DidYouMean(name, ReportFormats))
			}
		}
		for i, name := range r.Notify {
			at := slices.IndexFunc(c.Notify.Channels, func(ch Channel) bool { return ch.Name == name })
			if at >= 0 && !slices.Contains(reportKinds, c.Notify.Channels[at].Kind) {
				bad(fmt.Sprintf("%s.notify[%d]", r.Path, i), "channel %q is of kind %s, which takes no files: want one of %s", name, c.Notify.Channels[at].Kind, strings.Join(reportKinds, ", "))
			}
		}
	}
}
