// Package shoutrrr sends events to services that the library of that name knows,
// each through the library's URL for it.
package shoutrrr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/nicholas-fedor/shoutrrr/pkg/router"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"

	"github.com/sigwarden/sigwarden/notify"
)

// services are those that are offered, with the longest text that each takes.
var services = map[string]int{"discord": 1900, "telegram": 3500, "matrix": 16000, "ntfy": 3800, "gotify": 16000, "opsgenie": 14000}

// Channel is one service.
type Channel struct {
	kind    string
	address string
	service types.Service // nil: not made yet
	secrets []string
	most    int
	turn    chan struct{} // services are not made for several callers
	sent    string        // the last event that was accepted; belongs to whoever has the turn
}

// New returns a channel for a service and its URL, like ntfy://ntfy.sh/topic.
func New(kind, address string) (*Channel, error) {
	most, ok := services[kind]
	if !ok {
		return nil, errors.New("is of no known kind")
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != kind || u.Host == "" {
		return nil, fmt.Errorf("url is not of the form %s://…", kind)
	}
	c := &Channel{kind: kind, address: address, secrets: secretsOf(u), most: most, turn: make(chan struct{}, 1)}
	if kind == "matrix" {
		return c, nil // it logs in at once, which is for the first event to do
	}
	if err := c.locate(); err != nil {
		return nil, fmt.Errorf("url: %w", c.scrub(err))
	}
	return c, nil
}

// locate makes the service.
func (c *Channel) locate() error {
	r, err := router.New(log.New(io.Discard, "", 0))
	if err != nil {
		return err
	}
	service, err := r.Locate(c.address)
	if err == nil {
		c.service = service
	}
	return err
}

// OneAtATime: a try does not wait for another one's end within its own time.
func (c *Channel) OneAtATime() bool { return true }

// Notify sends one event. The library knows no contexts: a try that takes too long
// is left behind, and none begins before it has ended.
func (c *Channel) Notify(ctx context.Context, e notify.Event) error {
	e = e.Cleaned()
	text := c.text(e)
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("an earlier try has not ended: %w", ctx.Err())
	}
	if c.sent == e.ID {
		<-c.turn
		return nil // a try that was left behind has come through in the end
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			if broken := recover(); broken != nil {
				done <- fmt.Errorf("the library that sends it has failed: %v", broken)
			}
			<-c.turn
		}()
		if c.service == nil {
			if err := c.locate(); err != nil {
				done <- err
				return
			}
		}
		err := c.service.Send(text, &types.Params{})
		if err == nil {
			c.sent = e.ID
		}
		done <- err
	}()
	select {
	case err := <-done:
		return c.judge(err)
	case <-ctx.Done():
		return fmt.Errorf("the service does not answer: %w", ctx.Err())
	}
}

// text is what people read. Where a service reads markup, the characters that make
// it are shown as others that look alike, or escaped.
func (c *Channel) text(e notify.Event) string {
	link := e.Link
	e.Link = "" // it is to stay one
	plain := e.Plain()
	if c.kind == "discord" || c.kind == "matrix" || c.kind == "telegram" {
		plain = unmarked.Replace(plain)
	}
	if link != "" {
		plain += "\n" + link + "\n"
	}
	if len(plain) > c.most {
		plain = strings.ToValidUTF8(plain[:c.most], "") + "...\n" + notify.Clean(e.Next, 300)
	}
	return plain
}

// unmarked takes the meaning from what services read as markup or mentions: a
// full-width character stands for each.
var unmarked = strings.NewReplacer("@", "\uff20", "<", "\uff1c", ">", "\uff1e", "`", "\uff40", "*", "\uff0a", "_", "\uff3f", "~", "\uff5e", "[", "\uff3b", "]", "\uff3d", "#", "\uff03", "|", "\uff5c", "://", "\uff1a//")

var status = regexp.MustCompile(`\b([45][0-9][0-9])\b`)

// judge tells what is refused for good from what may work later.
func (c *Channel) judge(err error) error {
	if err == nil {
		return nil
	}
	err = c.scrub(err)
	if m := status.FindString(err.Error()); m != "" {
		if code, _ := strconv.Atoi(m); code == 410 || code == 413 {
			return fmt.Errorf("%w: %w", notify.ErrRefused, err)
		}
	}
	return err
}

// secretsOf are the parts of an address that must be in no message.
func secretsOf(u *url.URL) []string {
	var out []string
	add := func(s string) {
		if plain, err := url.QueryUnescape(s); err == nil && plain != s {
			out = append(out, plain)
		}
		out = append(out, s)
	}
	if u.User != nil {
		add(u.User.Username())
		if p, ok := u.User.Password(); ok {
			add(p)
		}
	}
	for _, part := range strings.Split(u.EscapedPath(), "/") {
		add(part)
	}
	for _, values := range u.Query() {
		for _, v := range values {
			add(v)
		}
	}
	if u.Scheme == "discord" {
		add(u.Hostname())
	}
	return out
}

// scrub takes what is secret out of an error.
func (c *Channel) scrub(err error) error {
	text := err.Error()
	for _, s := range c.secrets {
		if len(s) >= 4 {
			text = strings.ReplaceAll(text, s, "[secret]")
			text = strings.ReplaceAll(text, url.QueryEscape(s), "[secret]")
		}
	}
	return errors.New(notify.Clean(text, 400))
}
