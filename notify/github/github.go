// Package github keeps issues on GitHub: one for each group of findings that have
// their reason in common, and one for each incident. What comes later is a comment;
// a person alone closes an issue.
package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/sigwarden/sigwarden/notify"
)

const (
	defaultURL = "https://api.github.com"
	apiVersion = "2022-11-28"
	// mainLabel is on every issue; another one names what it is about.
	mainLabel = "sigwarden"
	// pages bounds how many comments are looked through for one that is there.
	pages, perPage = 10, 100
)

// Options configure a channel.
type Options struct {
	// Repository is owner/name, Token one that may write issues there.
	Repository, Token string
	// Labels are put on issues beside sigwarden's own.
	Labels []string
	// APIURL is that of GitHub Enterprise or a gateway; empty: GitHub's own.
	APIURL string
	Client *http.Client
}

// Channel is the issues of a repository.
type Channel struct {
	opts Options
	base string
}

var repository = regexp.MustCompile(`^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$`)

// New returns a channel.
func New(opts Options) (*Channel, error) {
	if !repository.MatchString(opts.Repository) {
		return nil, errors.New("repository is not of the form owner/name")
	}
	if opts.Token == "" {
		return nil, errors.New("token is empty")
	}
	if opts.APIURL == "" {
		opts.APIURL = defaultURL
	}
	if u, err := url.Parse(opts.APIURL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("api_url is no http:// or https:// address")
	}
	return &Channel{opts: opts, base: strings.TrimRight(opts.APIURL, "/") + "/repos/" + opts.Repository + "/issues"}, nil
}

type issue struct {
	Number int    `json:"number"`
	Body   string `json:"body"`
	User   struct {
		Login string `json:"login"`
	} `json:"user"`
}

// marked reports whether an author has written a text that ends with a mark: what
// comes before it, and what others write, may hold anything.
func (i *issue) marked(mark, author string) bool {
	return i.User.Login == author && strings.HasSuffix(strings.TrimSpace(i.Body), mark)
}

// OneAtATime: two events of one group at a time would open two issues.
func (c *Channel) OneAtATime() bool { return true }

func (c *Channel) call(ctx context.Context, method, address string, in, out any) error {
	return notify.Call(ctx, c.opts.Client, method, address, map[string]string{
		"Authorization": "Bearer " + c.opts.Token, "Accept": "application/vnd.github+json", "X-GitHub-Api-Version": apiVersion}, in, out)
}

// Notify opens an issue, or comments on the one that is open. An event that is
// there already, from a try whose answer was lost, is not written again.
func (c *Channel) Notify(ctx context.Context, e notify.Event) error {
	label := mainLabel + ":" + topic(e)
	var open []issue
	query := url.Values{"labels": {label}, "state": {"open"}, "per_page": {"1"}, "sort": {"created"}}
	if err := c.call(ctx, http.MethodGet, c.base+"?"+query.Encode(), nil, &open); err != nil {
		return err
	}
	e = e.Cleaned()
	mark := fmt.Sprintf("<!-- sigwarden event %s -->", e.ID)
	if len(open) == 0 {
		if e.Type == notify.IncidentResolved {
			return nil // whoever closed it knows
		}
		labels := append([]string{mainLabel, label, "severity:" + e.Severity}, c.opts.Labels...)
		return c.call(ctx, http.MethodPost, c.base, map[string]any{"title": "[sigwarden] " + e.Title, "body": text(e) + "\n" + mark, "labels": slices.Compact(labels)}, nil)
	}
	us := open[0].User.Login // only we put our labels on issues
	there := open[0].marked(mark, us)
	comments := fmt.Sprintf("%s/%d/comments", c.base, open[0].Number)
	for page := 1; !there && page <= pages; page++ {
		var list []issue
		if err := c.call(ctx, http.MethodGet, fmt.Sprintf("%s?per_page=%d&page=%d", comments, perPage, page), nil, &list); err != nil {
			return err
		}
		there = slices.ContainsFunc(list, func(i issue) bool { return i.marked(mark, us) })
		if len(list) < perPage {
			break
		}
	}
	if there {
		return nil
	}
	return c.call(ctx, http.MethodPost, comments, map[string]any{"body": text(e) + "\n" + mark}, nil)
}

// topic names what shares one issue.
func topic(e notify.Event) string {
	switch {
	case e.Group != "":
		return e.Group
	case e.Subject != "":
		return e.Subject
	}
	return e.Type
}

// text is an event as a code block, in which neither mentions nor markup nor links
// are read. The fence is longer than any run of its character inside.
func text(e notify.Event) string {
	link := e.Link
	e.Link = "" // it is shown as one, below
	plain := e.Plain()
	fence := "```"
	for strings.Contains(plain, fence) {
		fence += "`"
	}
	out := fence + "text\n" + plain + fence + "\n"
	if link != "" {
		out += "\n" + link + "\n"
	}
	return out
}
