package notify_test

import (
	"context"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/notifytest"
)

func TestTemplates(t *testing.T) {
	tmpl, err := notify.NewTemplate(`[{{.Severity | upper}}] {{.Title}}`, "{{.Summary}}\n{{range .Fields}}- {{.Name}}: {{.Value}}\n{{end}}{{if .Link}}See {{.Link}}{{end}}")
	if err != nil {
		t.Fatal(err)
	}
	got := &inbox{}
	e := notifytest.Hostile()
	e.Path = "/findings/f-1"
	if err := notify.Dress(got, "https://sigwarden.acme.example/", tmpl).Notify(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	told := got.got[0].Cleaned()
	notifytest.Visible(t, "the title", told.Title)
	notifytest.Visible(t, "the text", got.got[0].Plain())
	if !strings.HasPrefix(told.Title, "[CRITICAL] Finding for evil") || told.Fields == nil || len(told.Fields) != 0 || !strings.Contains(told.Summary, "- Signed as: evil") || told.ID != e.ID || string(told.Data) != string(e.Data) {
		t.Errorf("%+v", told)
	}
	if told.Link != "https://sigwarden.acme.example/findings/f-1" {
		t.Errorf("link %q", told.Link)
	}
	for _, bad := range [][2]string{{"{{.Titel}}", ""}, {"{{", ""}, {"", `{{index .Fields 3}}`}, {"", `{{template "x"}}`}, {"", "{{.Fields.Nope}}"}} {
		if _, err := notify.NewTemplate(bad[0], bad[1]); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	// One that makes too much is cut, and one that fails on an event does not keep it back.
	long, err := notify.NewTemplate("", `{{range .Fields}}{{range $.Fields}}{{range $.Fields}}{{.Value}}{{end}}{{end}}{{end}}`)
	if err != nil {
		t.Fatal(err)
	}
	if err := notify.Dress(got, "", long).Notify(context.Background(), e); err != nil || len(strings.Join(got.got[1].Lines, "\n")) > 8<<10 {
		t.Errorf("%v, %d lines", err, len(got.got[1].Lines))
	}
	picky, err := notify.NewTemplate("", `{{if eq .Type "finding.malformed"}}{{index .Fields 99}}{{end}}`)
	if err != nil {
		t.Fatal(err)
	}
	e.Type = notify.FindingMalformed
	if err := notify.Dress(got, "", picky).Notify(context.Background(), e); err != nil || got.got[2].Summary != e.Summary {
		t.Errorf("%v, %+v", err, got.got[2])
	}
}
