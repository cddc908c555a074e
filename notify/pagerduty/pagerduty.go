// Package pagerduty sends events to PagerDuty's Events API v2. What is one incident
// here is one there: a resolved one is resolved there too.
package pagerduty

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/notify"
)

// defaultURL is PagerDuty's own; the service region of the EU has another.
const defaultURL = "https://events.pagerduty.com"

// Channel is an integration of a service in PagerDuty.
type Channel struct {
	key, url string
	client   *http.Client
}

// New returns a channel for the routing key of an integration. apiURL is that of
// another region or of a gateway; empty: PagerDuty's own.
func New(routingKey, apiURL string, client *http.Client) (*Channel, error) {
	if len(routingKey) != 32 || strings.ContainsFunc(routingKey, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("routing_key is not that of an Events API v2 integration, which has 32 characters")
	}
	if apiURL == "" {
		apiURL = defaultURL
	}
	if u, err := url.Parse(apiURL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("api_url is no http:// or https:// address")
	}
	return &Channel{key: routingKey, url: strings.TrimRight(apiURL, "/") + "/v2/enqueue", client: client}, nil
}

// FollowsTriage: what a person acknowledged or resolved here is to be so there.
func (c *Channel) FollowsTriage() bool { return true }

// severities of PagerDuty, by ours.
var severities = map[string]string{"critical": "critical", "high": "error", "medium": "warning", "low": "info", "info": "info"}

// request is an event of the API.
type request struct {
	RoutingKey  string   `json:"routing_key"`
	EventAction string   `json:"event_action"`
	DedupKey    string   `json:"dedup_key"`
	Client      string   `json:"client,omitempty"`
	ClientURL   string   `json:"client_url,omitempty"`
	Payload     *payload `json:"payload,omitempty"`
}

type payload struct {
	Summary   string            `json:"summary"` // up to 1,024 characters
	Source    string            `json:"source"`
	Severity  string            `json:"severity"`
	Timestamp string            `json:"timestamp"`
	Class     string            `json:"class"`
	Group     string            `json:"group,omitempty"`
	Details   map[string]string `json:"custom_details"`
}

// Notify sends one event.
func (c *Channel) Notify(ctx context.Context, e notify.Event) error {
	r := request{RoutingKey: c.key, EventAction: "trigger", DedupKey: dedupKey(e), Client: "sigwarden", ClientURL: e.Link}
	switch e.Type {
	case notify.IncidentResolved, notify.FindingResolved:
		r.EventAction = "resolve"
	case notify.FindingAcknowledged, notify.IncidentAcknowledged:
		r.EventAction = "acknowledge"
	default:
		r.Payload = describe(e.Cleaned())
	}
	if err := notify.Call(ctx, c.client, http.MethodPost, c.url, nil, r, nil); err != nil || e.Type != notify.Test {
		return err
	}
	// Nobody is to close a test.
	r.EventAction, r.Payload = "resolve", nil
	return notify.Call(ctx, c.client, http.MethodPost, c.url, nil, r, nil)
}

// dedupKey puts everything about one finding or incident together, and else what
// has one reason.
func dedupKey(e notify.Event) string {
	switch {
	case e.Subject != "":
		return "sigwarden-" + e.Subject
	case e.Group != "":
		return "sigwarden-group-" + e.Group
	}
	return "sigwarden-" + e.ID
}

func describe(e notify.Event) *payload {
	severity := severities[e.Severity]
	if severity == "" {
		severity = "warning"
	}
	p := &payload{Summary: e.Title, Source: "sigwarden", Severity: severity, Timestamp: e.Time.UTC().Format(time.RFC3339), Class: e.Type, Group: e.Group,
		Details: map[string]string{"what": e.Summary, "to see more": e.Next}}
	for _, f := range e.Fields {
		if before, ok := p.Details[f.Name]; ok {
			f.Value = before + "; " + f.Value
		}
		p.Details[f.Name] = f.Value
	}
	return p
}
