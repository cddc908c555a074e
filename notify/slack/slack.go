// Package slack posts events to Slack, as an app with a token or through an
// incoming webhook.
package slack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/slack-go/slack"
	"github.com/slack-go/slack/slackutilsx"

	"github.com/sigwarden/sigwarden/notify"
)

// Options configure a channel: Token and Channel, or Webhook.
type Options struct {
	Token, Channel string
	Webhook        string
	// APIURL is that of a private gateway.
	APIURL string
	Client *http.Client
}

// Channel is a Slack channel.
type Channel struct {
	opts Options
	api  *slack.Client
}

// New returns a Slack channel.
func New(opts Options) (*Channel, error) {
	for what, address := range map[string]string{"webhook": opts.Webhook, "api_url": opts.APIURL} {
		if u, err := url.Parse(address); address != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			return nil, fmt.Errorf("%s is no http:// or https:// address", what)
		}
	}
	c := &Channel{opts: opts}
	if opts.Webhook != "" {
		return c, nil
	}
	if opts.Token == "" || opts.Channel == "" {
		return nil, errors.New("want token and channel, or webhook")
	}
	options := []slack.Option{slack.OptionHTTPClient(opts.Client)}
	if opts.APIURL != "" {
		options = append(options, slack.OptionAPIURL(strings.TrimRight(opts.APIURL, "/")+"/"))
	}
	c.api = slack.New(opts.Token, options...)
	return c, nil
}

// Notify posts one event.
func (c *Channel) Notify(ctx context.Context, e notify.Event) error {
	e = e.Cleaned()
	text := slackutilsx.EscapeMessage(e.Title)
	blocks := render(e)
	var err error
	if c.api != nil {
		_, _, err = c.api.PostMessageContext(ctx, c.opts.Channel, slack.MsgOptionText(text, false), slack.MsgOptionBlocks(blocks...),
			slack.MsgOptionDisableMarkdown(), slack.MsgOptionDisableLinkUnfurl(), slack.MsgOptionDisableMediaUnfurl())
	} else {
		err = slack.PostWebhookCustomHTTPContext(ctx, c.opts.Webhook, c.opts.Client, &slack.WebhookMessage{Text: text, Blocks: &slack.Blocks{BlockSet: blocks}})
	}
	return judge(err)
}

// render makes blocks of plain text alone: nothing that a stranger wrote is
// ever read as a mention, a link or markup.
func render(e notify.Event) []slack.Block {
	plain := func(s string, max int) *slack.TextBlockObject {
		if s == "" {
			s = "-"
		}
		return slack.NewTextBlockObject(slack.PlainTextType, cut(s, max), false, false)
	}
	// Slack's bounds: 150 characters in a header, 3,000 in a section, 2,000 in
	// a field, 10 fields in a section, 50 blocks.
	blocks := []slack.Block{slack.NewHeaderBlock(plain(e.Title, 150)), slack.NewSectionBlock(plain(e.Summary, 3000), nil, nil)}
	for from := 0; from < len(e.Fields); from += 10 {
		var fields []*slack.TextBlockObject
		for _, f := range e.Fields[from:min(from+10, len(e.Fields))] {
			fields = append(fields, plain(f.Name+": "+f.Value, 2000))
		}
		blocks = append(blocks, slack.NewSectionBlock(nil, fields, nil))
	}
	if e.Next != "" {
		blocks = append(blocks, slack.NewContextBlock("", plain("Severity "+e.Severity+". To see more: "+e.Next, 2000)))
	}
	return blocks
}

func cut(s string, max int) string {
	if runes := []rune(s); len(runes) > max {
		return string(runes[:max-3]) + "..."
	}
	return s
}

// refused are answers to a message that no later try would change.
var refused = []string{"invalid_blocks", "msg_too_long", "msg_blocks_too_long", "no_text"}

func judge(err error) error {
	var limited *slack.RateLimitedError
	var status slack.StatusCodeError
	var answer slack.SlackErrorResponse
	switch {
	case err == nil:
		return nil
	case errors.As(err, &limited):
		return &notify.RetryError{After: limited.RetryAfter, Err: errors.New("rate-limited by Slack")}
	case errors.As(err, &status):
		return notify.StatusError(status.Code, nil)
	case errors.As(err, &answer):
		for _, r := range refused {
			if answer.Err == r {
				return fmt.Errorf("%w: Slack says %q", notify.ErrRefused, notify.Clean(answer.Err, 100))
			}
		}
		return fmt.Errorf("refused by Slack for now: %q", notify.Clean(answer.Err, 100))
	}
	return notify.WithoutURL(err)
}
