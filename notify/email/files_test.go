package email

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/notify"
)

// TestFiles: what goes with an event is attached under its name and type.
func TestFiles(t *testing.T) {
	c, err := New(Options{SMTP: "smtp://mail.example:25", From: "sigwarden@acme.example", To: []string{"a@acme.example"}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.message(notify.Event{ID: "e-1", Title: "Report", Files: []notify.File{{Name: "monthly.html", Type: "text/html; charset=utf-8", Data: []byte("<p>hello</p>")}}}, "a@acme.example")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`attachment; filename="monthly.html"`, "text/html", "PHA+aGVsbG88L3A+"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}
