package pagerduty_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/notifytest"
	"github.com/sigwarden/sigwarden/notify/pagerduty"
)

const key = "0123456789abcdef0123456789abcdef"

const accepted = `{"status":"success","message":"Event processed","dedup_key":"x"}`

func channel(t *testing.T, url string) *pagerduty.Channel {
	t.Helper()
	c, err := pagerduty.New(key, url, notify.HTTPClient(nil))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSuite(t *testing.T) {
	notifytest.Run(t, accepted, func(t *testing.T, s *notifytest.Service) notify.Notifier { return channel(t, s.URL) }, key)
}

// TestRequests checks what the Events API v2 documents: one key for all that
// happens to one finding, and what is done with it.
func TestRequests(t *testing.T) {
	s := notifytest.NewService(t, accepted)
	c := channel(t, s.URL)
	if !notify.FollowsTriage(c) {
		t.Error("is not told what people decide")
	}
	for _, tc := range []struct {
		kind, subject, group, action, dedup string
	}{
		{notify.FindingUnexpected, "f-1", "g", "trigger", "sigwarden-f-1"},
		{notify.FindingEscalated, "f-1", "g", "trigger", "sigwarden-f-1"},
		{notify.FindingAcknowledged, "f-1", "g", "acknowledge", "sigwarden-f-1"},
		{notify.FindingResolved, "f-1", "g", "resolve", "sigwarden-f-1"},
		{notify.FindingReopened, "f-1", "g", "trigger", "sigwarden-f-1"},
		{notify.FindingsGrouped, "", "g", "trigger", "sigwarden-group-g"},
		{notify.IncidentOpened, "i-1", "", "trigger", "sigwarden-i-1"},
		{notify.IncidentResolved, "i-1", "", "resolve", "sigwarden-i-1"},
		{notify.IncidentAcknowledged, "i-1", "", "acknowledge", "sigwarden-i-1"},
		{notify.IncidentReopened, "i-1", "", "trigger", "sigwarden-i-1"},
		{notify.Test, "", "", "resolve", "sigwarden-e-hostile"}, // behind its trigger: nobody is to close a test
	} {
		e := notifytest.Hostile()
		e.Type, e.Subject, e.Group = tc.kind, tc.subject, tc.group
		if err := c.Notify(context.Background(), e); err != nil {
			t.Fatal(err)
		}
		got := s.Requests()[len(s.Requests())-1]
		var r struct {
			RoutingKey string `json:"routing_key"`
			Action     string `json:"event_action"`
			Dedup      string `json:"dedup_key"`
			Payload    *struct {
				Summary, Source, Severity, Timestamp string
				Details                              map[string]string `json:"custom_details"`
			}
		}
		if err := json.Unmarshal([]byte(got.Body), &r); err != nil || got.Path != "/v2/enqueue" || r.RoutingKey != key || r.Action != tc.action || r.Dedup != tc.dedup {
			t.Errorf("%s: %s %s, %v", tc.kind, got.Path, got.Body, err)
		}
		if (r.Payload != nil) != (tc.action == "trigger") {
			t.Errorf("%s: payload %v", tc.kind, r.Payload)
		}
		if r.Payload == nil {
			continue
		}
		notifytest.Visible(t, "the summary", r.Payload.Summary)
		if r.Payload.Severity != "critical" || r.Payload.Source == "" || len(r.Payload.Summary) > 1024 || r.Payload.Timestamp != "2026-05-04T12:00:00Z" || !strings.Contains(r.Payload.Details["Signed as"], "evil") {
			t.Errorf("%+v", r.Payload)
		}
	}
}

func TestBadOptions(t *testing.T) {
	for _, tc := range [][2]string{{"", ""}, {"short", ""}, {strings.Repeat(" ", 32), ""}, {key, "nowhere"}} {
		if _, err := pagerduty.New(tc[0], tc[1], nil); err == nil || strings.Contains(err.Error(), key) {
			t.Errorf("%q: %v", tc, err)
		}
	}
}
