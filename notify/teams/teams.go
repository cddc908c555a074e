// Package teams posts events to Microsoft Teams, as an adaptive card to the address
// of a workflow ("Post to a channel when a webhook request is received").
package teams

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/sigwarden/sigwarden/notify"
)

// Channel is a workflow of Teams.
type Channel struct {
	url    string
	client *http.Client
}

// New returns a channel. apiURL, if not empty, is the gateway that the path of the
// address is asked of.
func New(address, apiURL string, client *http.Client) (*Channel, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("url is no http:// or https:// address of a workflow")
	}
	if apiURL != "" {
		gate, err := url.Parse(apiURL)
		if err != nil || gate.Scheme != "https" && gate.Scheme != "http" || gate.Host == "" {
			return nil, errors.New("api_url is no http:// or https:// address")
		}
		u.Scheme, u.Host = gate.Scheme, gate.Host
	}
	return &Channel{url: u.String(), client: client}, nil
}

// Notify posts one event.
func (c *Channel) Notify(ctx context.Context, e notify.Event) error {
	return notify.Call(ctx, c.client, http.MethodPost, c.url, nil, small(e.Cleaned()), nil)
}

// maxCard bounds a card in bytes: Teams drops messages of over 28 kB, and a workflow
// may have accepted them before.
const maxCard = 24 << 10

// small is the card of an event, with its values cut as far as it has to be.
func small(e notify.Event) map[string]any {
	for most := notify.MaxValue; ; most /= 2 {
		out := card(e)
		if doc, err := notify.Document(out); err != nil || len(doc) <= maxCard || most < 20 {
			return out
		}
		fields := make([]notify.Field, len(e.Fields))
		for i, f := range e.Fields {
			fields[i] = notify.Field{Name: f.Name, Value: notify.Clean(f.Value, most)}
		}
		e.Fields = fields
	}
}

// card is an adaptive card of texts without markup: RichTextBlock reads none, so
// that nothing that a stranger wrote becomes a link or a mention.
func card(e notify.Event) map[string]any {
	text := func(s, weight string) map[string]any {
		return map[string]any{"type": "RichTextBlock", "inlines": []any{map[string]any{"type": "TextRun", "text": s, "weight": weight}}}
	}
	body := []any{text(e.Title, "bolder"), text(e.Summary, "default")}
	for _, f := range e.Fields {
		body = append(body, map[string]any{"type": "RichTextBlock", "spacing": "small", "inlines": []any{
			map[string]any{"type": "TextRun", "text": f.Name + ": ", "weight": "bolder"}, map[string]any{"type": "TextRun", "text": f.Value}}})
	}
	if e.Next != "" {
		body = append(body, text("Severity "+e.Severity+". To see more: "+e.Next, "default"))
	}
	content := map[string]any{"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4", "body": body, "msteams": map[string]any{"width": "Full"}}
	if e.Link != "" {
		content["actions"] = []any{map[string]any{"type": "Action.OpenUrl", "title": "Open", "url": e.Link}}
	}
	return map[string]any{"type": "message", "attachments": []any{map[string]any{"contentType": "application/vnd.microsoft.card.adaptive", "content": content}}}
}
