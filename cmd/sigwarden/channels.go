package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/email"
	"github.com/sigwarden/sigwarden/notify/exec"
	"github.com/sigwarden/sigwarden/notify/file"
	"github.com/sigwarden/sigwarden/notify/github"
	"github.com/sigwarden/sigwarden/notify/pagerduty"
	"github.com/sigwarden/sigwarden/notify/route"
	"github.com/sigwarden/sigwarden/notify/shoutrrr"
	"github.com/sigwarden/sigwarden/notify/slack"
	"github.com/sigwarden/sigwarden/notify/syslog"
	"github.com/sigwarden/sigwarden/notify/teams"
	"github.com/sigwarden/sigwarden/notify/webhook"
)

// channelMakers is the table of all kinds of channels, as config.ChannelKinds
// names them.
var channelMakers = map[string]func(ch config.Channel, stdout io.Writer) (notify.Notifier, error){
	"slack": func(ch config.Channel, _ io.Writer) (notify.Notifier, error) {
		return slack.New(slack.Options{Token: ch.Slack.Token.Reveal(), Channel: ch.Slack.Channel, Webhook: ch.Slack.Webhook.Reveal(), APIURL: ch.Slack.APIURL, Client: notify.HTTPClient(nil)})
	},
	"email": func(ch config.Channel, _ io.Writer) (notify.Notifier, error) {
		roots, err := certPool(ch.Email.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		return email.New(email.Options{SMTP: ch.Email.SMTP.Reveal(), Password: ch.Email.Password.Reveal(), From: ch.Email.From, To: ch.Email.To, RootCAs: roots})
	},
	"webhook": func(ch config.Channel, _ io.Writer) (notify.Notifier, error) {
		roots, err := certPool(ch.Webhook.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		return webhook.New(ch.Webhook.URL.Reveal(), ch.Webhook.Secret.Reveal(), notify.HTTPClient(roots))
	},
	"file": func(ch config.Channel, stdout io.Writer) (notify.Notifier, error) {
		return file.New(ch.File.Path, stdout)
	},
	"github": func(ch config.Channel, _ io.Writer) (notify.Notifier, error) {
		return github.New(github.Options{Repository: ch.GitHub.Repository, Token: ch.GitHub.Token.Reveal(), Labels: ch.GitHub.Labels, APIURL: ch.GitHub.APIURL, Client: notify.HTTPClient(nil)})
	},
	"pagerduty": func(ch config.Channel, _ io.Writer) (notify.Notifier, error) {
		return pagerduty.New(ch.PagerDuty.RoutingKey.Reveal(), ch.PagerDuty.APIURL, notify.HTTPClient(nil))
	},
	"teams": func(ch config.Channel, _ io.Writer) (notify.Notifier, error) {
		return teams.New(ch.Teams.URL.Reveal(), ch.Teams.APIURL, notify.HTTPClient(nil))
	},
	"syslog": func(ch config.Channel, _ io.Writer) (notify.Notifier, error) {
		roots, err := certPool(ch.Syslog.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		return syslog.New(syslog.Options{URL: ch.Syslog.URL, Facility: ch.Syslog.Facility, RootCAs: roots})
	},
	"exec":    func(ch config.Channel, _ io.Writer) (notify.Notifier, error) { return exec.New(ch.Exec.Command) },
	"discord": service, "telegram": service, "matrix": service, "ntfy": service, "gotify": service, "opsgenie": service,
}

// service makes a channel that is known by a URL alone.
func service(ch config.Channel, _ io.Writer) (notify.Notifier, error) {
	return shoutrrr.New(ch.Kind, ch.Service.URL.Reveal())
}

const (
	// groupAfter is how many messages of a window come on their own, groupSettle how
	// long what is too much is gathered.
	groupAfter  = 10
	groupSettle = 15 * time.Second
)

func (s *setup) makeChannels(stdout io.Writer) []config.Issue {
	var issues []config.Issue
	for _, ch := range s.cfg.Notify.Channels {
		n, err := makeChannel(ch, stdout)
		if err != nil {
			issues = append(issues, s.cfg.At(ch.Path, fmt.Sprintf("channel %q: %v", ch.Name, err)))
			continue
		}
		var tmpl *notify.Template
		if ch.Template != (config.Template{}) {
			if tmpl, err = notify.NewTemplate(ch.Template.Title, ch.Template.Body); err != nil {
				issues = append(issues, s.cfg.At(ch.Path+".template", err.Error()))
				continue
			}
		}
		channel := notify.Channel{Name: ch.Name, Notifier: notify.Dress(n, s.linkBase(), tmpl)}
		if ch.GroupWindow > 0 {
			channel.Grouping = &notify.Grouping{Window: ch.GroupWindow, Most: groupAfter, Settle: min(groupSettle, ch.GroupWindow/2), Fold: route.Fold}
		}
		s.channels = append(s.channels, channel)
	}
	return issues
}

func makeChannel(ch config.Channel, stdout io.Writer) (notify.Notifier, error) {
	if maker, ok := channelMakers[ch.Kind]; ok {
		return maker(ch, stdout)
	}
	return nil, errors.New("is of no known kind")
}

// linkBase is what links in messages begin with; empty where nothing is served at
// their ends.
func (s *setup) linkBase() string {
	if s.cfg.HTTP.Listen == "" || !s.cfg.HTTP.Page {
		return ""
	}
	return s.cfg.HTTP.PublicURL
}
