package notify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/template"
	"time"
)

// Template overrides the texts of a channel for people.
type Template struct{ title, body *template.Template }

// maxTemplated bounds what a template makes.
const maxTemplated = 8 << 10

// NewTemplate reads templates of text/template over an Event; an empty one leaves
// the text as it is. They are tried on events of every kind.
func NewTemplate(title, body string) (*Template, error) {
	t := &Template{}
	for _, part := range []struct {
		name, text string
		into       **template.Template
	}{{"title", title, &t.title}, {"body", body, &t.body}} {
		if part.text == "" {
			continue
		}
		parsed, err := template.New(part.name).Option("missingkey=error").Funcs(template.FuncMap{"lower": strings.ToLower, "upper": strings.ToUpper, "join": strings.Join}).Parse(part.text)
		if err != nil {
			return nil, err
		}
		*part.into = parsed
	}
	for _, e := range samples() {
		if _, err := t.apply(e); err != nil {
			return nil, fmt.Errorf("fails on an event of type %s: %w", e.Type, err)
		}
	}
	return t, nil
}

// samples are events as they come, to try templates on.
func samples() []Event {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	finding := Event{ID: "e-1", Type: FindingUnexpected, Time: at, Severity: "high", Title: "unexpected signing event for watch releases", Summary: "Entry 1 is yours.",
		Fields: []Field{{"Signed as", "https://github.com/acme/widget"}}, Next: "sigwarden findings show f-1", Link: "https://sigwarden.acme.example/findings/f-1", Subject: "f-1", Group: "0011223344556677", Data: []byte("{}")}
	bare := Event{ID: "e-2", Type: IncidentOpened, Time: at, Severity: "low", Title: "operational incident opened", Data: []byte("{}")}
	return []Event{finding, bare}
}

// apply returns the event with the texts that the templates make.
func (t *Template) apply(e Event) (Event, error) {
	if t == nil {
		return e, nil
	}
	in := e.Cleaned()
	run := func(tmpl *template.Template) (string, error) {
		var b bounded
		err := tmpl.Execute(&b, in)
		if errors.Is(err, errTooLong) {
			err = nil
		}
		return strings.TrimSpace(b.String()), err
	}
	if t.title != nil {
		text, err := run(t.title)
		if err != nil {
			return e, err
		}
		e.Title = text
	}
	if t.body != nil {
		text, err := run(t.body)
		if err != nil {
			return e, err
		}
		e.Summary, e.Fields, e.Lines = "", nil, strings.Split(text, "\n")
	}
	return e, nil
}

var errTooLong = errors.New("the text is too long")

// bounded takes so much text and no more.
type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxTemplated - b.Len(); len(p) > room {
		b.Builder.Write(p[:room])
		return room, errTooLong
	}
	return b.Builder.Write(p)
}

// Dress returns a channel whose events have links below base, if that is not
// empty, and the texts of a template, if there is one.
func Dress(n Notifier, base string, t *Template) Notifier {
	if base == "" && t == nil {
		return n
	}
	return &dressed{n, strings.TrimRight(base, "/"), t}
}

type dressed struct {
	next Notifier
	base string
	t    *Template
}

func (d *dressed) Notify(ctx context.Context, e Event) error {
	if d.base != "" && e.Path != "" {
		e.Link = d.base + e.Path
	}
	told, err := d.t.apply(e)
	if err != nil {
		// The alert matters more than its looks.
		told = e
	}
	return d.next.Notify(ctx, told)
}

func (d *dressed) OneAtATime() bool { return oneAtATime(d.next) }

func (d *dressed) FollowsTriage() bool { return FollowsTriage(d.next) }
