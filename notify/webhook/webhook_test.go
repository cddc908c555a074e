package webhook_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/notifytest"
	"github.com/sigwarden/sigwarden/notify/webhook"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func TestSuite(t *testing.T) {
	notifytest.Run(t, "", func(t *testing.T, s *notifytest.Service) notify.Notifier {
		c, err := webhook.New(s.URL+"/in/token-in-path", secret, notify.HTTPClient(nil))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}, secret, "token-in-path")
}

func TestSignature(t *testing.T) {
	s := notifytest.NewService(t, "")
	c, err := webhook.New(s.URL, secret, notify.HTTPClient(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Notify(context.Background(), notifytest.Hostile()); err != nil {
		t.Fatal(err)
	}
	got := s.Requests()[0]
	verifier, _ := standardwebhooks.NewWebhook(secret)
	if err := verifier.Verify([]byte(got.Body), got.Header); err != nil {
		t.Errorf("signature: %v", err)
	}
	if got.Header.Get("webhook-id") != "e-hostile" || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", got.Header)
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(got.Body), &body); err != nil || body["type"] != "finding.unexpected" || body["timestamp"] != "2026-05-04T12:00:00Z" || body["data"] == nil || body["id"] != nil {
		t.Errorf("body %s", got.Body)
	}
}

func TestBadOptions(t *testing.T) {
	for _, tc := range [][2]string{{"ftp://x", secret}, {"", secret}, {"https://x", ""}, {"https://x", "whsec_"}, {"https://x", strings.Repeat("!", 40)}} {
		if _, err := webhook.New(tc[0], tc[1], nil); err == nil || strings.Contains(err.Error(), "!!!!") {
			t.Errorf("%q: %v", tc, err)
		}
	}
}
