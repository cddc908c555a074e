package teams_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/notifytest"
	"github.com/sigwarden/sigwarden/notify/teams"
)

const workflow = "https://prod-7.westeurope.logic.azure.com:443/workflows/0123456789abcdef/triggers/manual/paths/invoke?api-version=2016-06-01&sig=token-in-query"

func TestSuite(t *testing.T) {
	notifytest.Run(t, "", func(t *testing.T, s *notifytest.Service) notify.Notifier {
		c, err := teams.New(workflow, s.URL, notify.HTTPClient(nil))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}, "token-in-query", "0123456789abcdef")
}

// TestCard checks the request that a workflow takes: a message with one adaptive
// card, whose texts are read as they are.
func TestCard(t *testing.T) {
	s := notifytest.NewService(t, "")
	c, err := teams.New(workflow, s.URL, notify.HTTPClient(nil))
	if err != nil {
		t.Fatal(err)
	}
	e := notifytest.Hostile()
	e.Link = "https://sigwarden.acme.example/findings/f-1"
	if err := c.Notify(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	got := s.Requests()[0]
	var m struct {
		Type        string
		Attachments []struct {
			ContentType string
			Content     struct {
				Type, Version string
				Body          []struct {
					Type    string
					Inlines []struct{ Type, Text string }
				}
				Actions []struct{ Type, URL string }
			}
		}
	}
	if err := json.Unmarshal([]byte(got.Body), &m); err != nil || got.Path != "/workflows/0123456789abcdef/triggers/manual/paths/invoke" || m.Type != "message" || len(m.Attachments) != 1 {
		t.Fatalf("%s %s: %v", got.Path, got.Body, err)
	}
	card := m.Attachments[0]
	if card.ContentType != "application/vnd.microsoft.card.adaptive" || card.Content.Type != "AdaptiveCard" || card.Content.Version != "1.4" || len(card.Content.Actions) != 1 || card.Content.Actions[0].URL != e.Link {
		t.Errorf("%+v", card)
	}
	all := ""
	for _, b := range card.Content.Body {
		if b.Type != "RichTextBlock" { // a TextBlock would read Markdown
			t.Errorf("%+v", b)
		}
		for _, i := range b.Inlines {
			all += i.Text + "\n"
		}
	}
	notifytest.Visible(t, "the card", all)
	for _, want := range []string{"Finding for evil", "Signed as: ", e.Next} {
		if !strings.Contains(strings.ReplaceAll(all, ": \n", ": "), want) {
			t.Errorf("no %q in %s", want, all)
		}
	}
	if len(got.Body) > 28<<10 {
		t.Errorf("%d bytes: Teams takes 28 KB", len(got.Body))
	}
}

func TestBadOptions(t *testing.T) {
	for _, tc := range [][2]string{{"", ""}, {"ftp://x", ""}, {workflow, "nowhere"}} {
		if _, err := teams.New(tc[0], tc[1], nil); err == nil || strings.Contains(err.Error(), "token-in-query") {
			t.Errorf("%q: %v", tc, err)
		}
	}
}

// TestSmall: a card is never too large for Teams, which would drop it in silence,
// whatever strangers have written.
func TestSmall(t *testing.T) {
	for _, filler := range []string{"<", "\u202e", "x", "\x00", "\xff", "\u00e9"} {
		s := notifytest.NewService(t, "")
		c, err := teams.New(workflow, s.URL, notify.HTTPClient(nil))
		if err != nil {
			t.Fatal(err)
		}
		e := notifytest.Huge()
		for i := range e.Fields {
			e.Fields[i].Value = strings.Repeat(filler, 5000)
		}
		e.Summary = strings.Repeat(filler, 5000)
		if err := c.Notify(context.Background(), e); err != nil {
			t.Fatal(err)
		}
		if n := len(s.Requests()[0].Body); n > 28<<10 {
			t.Errorf("%q: %d bytes", filler, n)
		}
	}
}
