// Package slack posts events to Slack, as an app with a token or through an
// incoming webhook.
package slack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
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
	// What notifications on a phone show is always markup for an incoming
	// webhook: it holds nothing that a stranger wrote.
	text := slackutilsx.EscapeMessage(fmt.Sprintf("sigwarden: %s, severity %s", e.Type, e.Severity))
	blocks := render(e)
	ctx, asked := notify.Listen(ctx)
	var err error
	if c.api != nil {
		_, _, err = c.api.PostMessageContext(ctx, c.opts.Channel, slack.MsgOptionText(text, false), slack.MsgOptionBlocks(blocks...),
			slack.MsgOptionDisableMarkdown(), slack.MsgOptionDisableLinkUnfurl(), slack.MsgOptionDisableMediaUnfurl())
	} else {
		err = slack.PostWebhookCustomHTTPContext(ctx, c.opts.Webhook, c.opts.Client, &slack.WebhookMessage{Text: text, UnfurlLinks: new(bool), UnfurlMedia: new(bool), Blocks: &slack.Blocks{BlockSet: blocks}})
	}
	if err == nil {
		return nil
	}
	// The library reads one form of Retry-After, with one status.
	if answered := asked.Judge(); answered != nil {
		return answered
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
	if e.Link != "" {
		// A button that opens a page asks nothing of us.
		open := slack.NewButtonBlockElement("", "", plain("Open", 75))
		open.URL = e.Link
		blocks = append(blocks, slack.NewActionBlock("", open))
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

// judge tells what Slack says in an answer of status 200 from failures on the
// way to it.
func judge(err error) error {
	var answer slack.SlackErrorResponse
	if !errors.As(err, &answer) {
		return notify.WithoutURL(err)
	}
	if slices.Contains(refused, answer.Err) {
		return fmt.Errorf("%w: Slack says %q", notify.ErrRefused, notify.Clean(answer.Err, 100))
	}
	return fmt.Errorf("refused by Slack for now: %q", notify.Clean(answer.Err, 100))
}
