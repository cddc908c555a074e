package slack_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/notifytest"
	"github.com/sigwarden/sigwarden/notify/slack"
)

const accepted = `{"ok":true,"channel":"C1","ts":"1.2"}`

func app(t *testing.T, s *notifytest.Service) notify.Notifier {
	t.Helper()
	c, err := slack.New(slack.Options{Token: "xoxb-secret-token", Channel: "C1", APIURL: s.URL, Client: notify.HTTPClient(nil)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func hook(t *testing.T, s *notifytest.Service) notify.Notifier {
	t.Helper()
	c, err := slack.New(slack.Options{Webhook: s.URL + "/services/T0/B0/hook-secret", Client: notify.HTTPClient(nil)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSuite(t *testing.T) {
	t.Run("app", func(t *testing.T) { notifytest.Run(t, accepted, app, "xoxb-secret-token") })
	t.Run("webhook", func(t *testing.T) { notifytest.Run(t, "ok", hook, "hook-secret") })
}

// TestHostileText: nothing of a stranger is markup, a mention or a link.
func TestHostileText(t *testing.T) {
	for name, make := range map[string]func(*testing.T, *notifytest.Service) notify.Notifier{"app": app, "webhook": hook} {
		s := notifytest.NewService(t, accepted)
		if err := make(t, s).Notify(context.Background(), notifytest.Hostile()); err != nil {
			t.Fatal(err)
		}
		var text string
		var blocks []map[string]any
		if name == "app" {
			form, err := url.ParseQuery(s.Requests()[0].Body)
			if err != nil || form.Get("channel") != "C1" {
				t.Fatalf("%v, %v", form, err)
			}
			text = form.Get("text")
			if err := json.Unmarshal([]byte(form.Get("blocks")), &blocks); err != nil {
				t.Fatal(err)
			}
		} else {
			var message struct {
				Text   string
				Blocks []map[string]any
			}
			if err := json.Unmarshal([]byte(s.Requests()[0].Body), &message); err != nil {
				t.Fatal(err)
			}
			text, blocks = message.Text, message.Blocks
		}
		if strings.Contains(text, "<!channel>") || strings.ContainsAny(text, "\r\n\x1b\u202e\x00") {
			t.Errorf("%s: text %q", name, text)
		}
		if len(blocks) < 3 {
			t.Errorf("%s: %d blocks", name, len(blocks))
		}
		data, _ := json.Marshal(blocks)
		if strings.Contains(string(data), "mrkdwn") || strings.ContainsAny(string(data), "\u202e\u200b\u2066") {
			t.Errorf("%s: blocks hold markup or marks of direction: %s", name, data)
		}
		for _, b := range blocks {
			checkLengths(t, b)
		}
	}
}

// checkLengths holds texts against the bounds that Slack documents.
func checkLengths(t *testing.T, block map[string]any) {
	t.Helper()
	max := map[string]int{"header": 150, "section": 3000, "context": 2000}[block["type"].(string)]
	for key, v := range block {
		switch v := v.(type) {
		case map[string]any:
			if text, _ := v["text"].(string); len([]rune(text)) > max || text == "" {
				t.Errorf("%s text of %d characters", block["type"], len(text))
			}
		case []any:
			if key == "fields" && len(v) > 10 {
				t.Errorf("%d fields", len(v))
			}
		}
	}
}

func TestSlackRefuses(t *testing.T) {
	for answer, refused := range map[string]bool{"invalid_blocks": true, "msg_too_long": true, "channel_not_found": false, "invalid_auth": false} {
		s := notifytest.NewService(t, accepted)
		s.Answer(func(w http.ResponseWriter) { io.WriteString(w, `{"ok":false,"error":"`+answer+`"}`) })
		err := app(t, s).Notify(context.Background(), notifytest.Hostile())
		if err == nil || errors.Is(err, notify.ErrRefused) != refused || !strings.Contains(err.Error(), answer) {
			t.Errorf("%s: %v", answer, err)
		}
	}
	for _, bad := range []slack.Options{{}, {Token: "x"}, {Channel: "c"}, {Webhook: "ftp://x"}, {Token: "x", Channel: "c", APIURL: "nowhere"}} {
		if _, err := slack.New(bad); err == nil {
			t.Errorf("%+v accepted", bad)
		}
	}
}
