package config

import (
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// What says who hears of what, and when.

// defaultWindow is the group_window of channels for people.
const defaultWindow = 10 * time.Minute

// Classes lists what a channel can hear of.
func Classes() []string { return []string{"finding", "integrity", "operational"} }

// ProgramKinds lists the kinds of channels that programs read: they get every
// event as it is.
func ProgramKinds() []string { return []string{"webhook", "file", "exec", "syslog"} }

func (c *Config) readNotify(n ast.Node, path string) {
	f := c.file
	f.mapping(n, path, "notify", map[string]field{
		"channels":       func(n ast.Node, p string) { f.list(n, p, "channels", c.readChannel) },
		"incidents":      f.names(&c.Notify.Incidents),
		"health":         f.names(&c.Notify.Health),
		"escalate_after": f.duration(&c.Notify.EscalateAfter),
		"escalate_to":    f.texts(&c.Notify.EscalateTo),
		"heartbeat": func(n ast.Node, p string) {
			c.Notify.Heartbeat.Every = 5 * time.Minute
			f.mapping(n, p, "heartbeat", map[string]field{"url": f.secret(&c.Notify.Heartbeat.URL), "every": f.duration(&c.Notify.Heartbeat.Every)}, "url")
			if u, err := url.Parse(c.Notify.Heartbeat.URL.Reveal()); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
				f.fail(n, p, "heartbeat.url is no http:// or https:// address")
			}
		},
	})
	if (c.Notify.EscalateAfter > 0) != (len(c.Notify.EscalateTo) > 0) && len(f.issues) == 0 {
		f.fail(n, path, "escalate_after and escalate_to need each other: one says when, the other to whom")
	}
}

func (c *Config) readChannel(n ast.Node, path string) {
	f := c.file
	ch := Channel{Path: path}
	kinds := 0
	kind := func(read field) field {
		return func(n ast.Node, p string) {
			kinds++
			ch.Kind = p[strings.LastIndexByte(p, '.')+1:]
			read(n, p)
		}
	}
	fields := map[string]field{
		"name": f.into(&ch.Name),
		"hears": func(n ast.Node, p string) {
			f.mapping(n, p, "hears", map[string]field{
				"severity": f.oneOf(&ch.Hears.Severity, "severity", Severities()...),
				"watch":    f.texts(&ch.Hears.Watches), "class": f.someOf(&ch.Hears.Classes, "class", Classes()...), "kind": f.texts(&ch.Hears.Kinds),
			})
		},
		"group_window": f.duration(&ch.GroupWindow),
		"quiet": func(n ast.Node, p string) {
			ch.Quiet.Below = "high"
			f.mapping(n, p, "quiet", map[string]field{"hours": f.texts(&ch.Quiet.Hours), "below": f.oneOf(&ch.Quiet.Below, "severity", Severities()...)}, "hours")
		},
		"digest": func(n ast.Node, p string) {
			ch.Digest.Below = "medium"
			f.mapping(n, p, "digest", map[string]field{"schedule": f.schedule(&ch.Digest.Schedule), "below": f.oneOf(&ch.Digest.Below, "severity", Severities()...)}, "schedule")
		},
		"self_test": f.schedule(&ch.SelfTest),
		"template": func(n ast.Node, p string) {
			f.mapping(n, p, "template", map[string]field{"title": f.into(&ch.Template.Title), "body": f.into(&ch.Template.Body)})
		},
		"slack": kind(func(n ast.Node, p string) {
			ch.Slack = &Slack{}
			f.mapping(n, p, "slack", map[string]field{
				"token": f.secret(&ch.Slack.Token), "channel": f.into(&ch.Slack.Channel),
				"webhook": f.secret(&ch.Slack.Webhook), "api_url": f.into(&ch.Slack.APIURL),
			})
			app := !ch.Slack.Token.IsZero() && ch.Slack.Channel != ""
			if app == !ch.Slack.Webhook.IsZero() && len(f.issues) == 0 {
				f.fail(n, p, "slack wants either token and channel, or webhook")
			}
		}),
		"email": kind(func(n ast.Node, p string) {
			ch.Email = &Email{}
			f.mapping(n, p, "email", map[string]field{
				"smtp": f.secret(&ch.Email.SMTP), "password": f.secret(&ch.Email.Password),
				"from": f.address(&ch.Email.From), "tls_ca": f.pem(&ch.Email.TLSCA),
				"to": func(n ast.Node, p string) {
					f.texts(&ch.Email.To)(n, p)
					for _, to := range ch.Email.To {
						if _, err := mail.ParseAddress(to); err != nil {
							f.fail(n, p, "%q is no e-mail address", to)
						}
					}
				},
			}, "smtp", "from", "to")
		}),
		"webhook": kind(func(n ast.Node, p string) {
			ch.Webhook = &Webhook{}
			f.mapping(n, p, "webhook", map[string]field{
				"url": f.secret(&ch.Webhook.URL), "secret": f.secret(&ch.Webhook.Secret), "tls_ca": f.pem(&ch.Webhook.TLSCA),
			}, "url", "secret")
		}),
		"file": kind(func(n ast.Node, p string) {
			ch.File = &File{}
			f.mapping(n, p, "file", map[string]field{"path": f.path(&ch.File.Path)}, "path")
		}),
		"github": kind(func(n ast.Node, p string) {
			ch.GitHub = &GitHub{}
			f.mapping(n, p, "github", map[string]field{
				"repository": f.into(&ch.GitHub.Repository), "token": f.secret(&ch.GitHub.Token), "labels": f.texts(&ch.GitHub.Labels), "api_url": f.webAddress(&ch.GitHub.APIURL),
			}, "repository", "token")
		}),
		"pagerduty": kind(func(n ast.Node, p string) {
			ch.PagerDuty = &PagerDuty{}
			f.mapping(n, p, "pagerduty", map[string]field{"routing_key": f.secret(&ch.PagerDuty.RoutingKey), "api_url": f.webAddress(&ch.PagerDuty.APIURL)}, "routing_key")
		}),
		"teams": kind(func(n ast.Node, p string) {
			ch.Teams = &Teams{}
			f.mapping(n, p, "teams", map[string]field{"url": f.secret(&ch.Teams.URL), "api_url": f.webAddress(&ch.Teams.APIURL)}, "url")
		}),
		"syslog": kind(func(n ast.Node, p string) {
			ch.Syslog = &Syslog{}
			f.mapping(n, p, "syslog", map[string]field{"url": f.into(&ch.Syslog.URL), "facility": f.into(&ch.Syslog.Facility), "tls_ca": f.pem(&ch.Syslog.TLSCA)}, "url")
		}),
		"exec": kind(func(n ast.Node, p string) {
			ch.Exec = &Exec{}
			f.mapping(n, p, "exec", map[string]field{"command": f.texts(&ch.Exec.Command)}, "command")
		}),
	}
	for _, name := range ServiceKinds() {
		fields[name] = kind(func(n ast.Node, p string) {
			ch.Service = &Service{}
			f.mapping(n, p, name, map[string]field{"url": f.secret(&ch.Service.URL)}, "url")
		})
	}
	f.mapping(n, path, "a channel", fields, "name")
	f.exactlyOne(ChannelKinds()...)
	if kinds != 1 && len(f.issues) == 0 {
		f.fail(n, path, "a channel is exactly one of %s", strings.Join(ChannelKinds(), ", "))
	}
	people := !slices.Contains(ProgramKinds(), ch.Kind)
	switch {
	case people && ch.GroupWindow == 0:
		ch.GroupWindow = defaultWindow
	case !people && (ch.GroupWindow != 0 || ch.Digest.Schedule.Schedule != nil || ch.Template != Template{}):
		f.fail(n, path, "programs read a channel of kind %s: they get every event as it is, so that group_window, digest and template have no meaning for it", ch.Kind)
	}
	c.Notify.Channels = append(c.Notify.Channels, ch)
}
