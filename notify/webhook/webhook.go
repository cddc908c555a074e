// Package webhook posts events as JSON, signed as Standard Webhooks say.
package webhook

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sigwarden/sigwarden/notify"
)

// Channel is a webhook.
type Channel struct {
	url    string
	signer *standardwebhooks.Webhook
	client *http.Client
}

// New returns a webhook channel. secret is base64 of 24 to 64 bytes, with or
// without the prefix whsec_.
func New(address, secret string, client *http.Client) (*Channel, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("url is no http:// or https:// address")
	}
	if key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_")); err == nil && (len(key) < 24 || len(key) > 64) {
		// The library takes an empty key without a word.
		return nil, errors.New("secret is too short or too long: want base64 of 24 to 64 random bytes, with the prefix whsec_ or without")
	}
	signer, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return nil, errors.New("secret is not base64: want base64 of 24 to 64 random bytes, with the prefix whsec_ or without")
	}
	return &Channel{url: address, signer: signer, client: client}, nil
}

// Notify posts one event. Its id goes with every try, so that the receiver can
// tell repeats.
func (c *Channel) Notify(ctx context.Context, e notify.Event) error {
	body, err := e.Body(false)
	if err != nil {
		return fmt.Errorf("%w: %w", notify.ErrRefused, err)
	}
	now := time.Now()
	signature, err := c.signer.Sign(e.ID, now, body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("url cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "sigwarden")
	req.Header.Set(standardwebhooks.HeaderWebhookID, e.ID)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, fmt.Sprint(now.Unix()))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	resp, err := c.client.Do(req)
	if err != nil {
		return notify.WithoutURL(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	return notify.StatusError(resp.StatusCode, resp.Header)
}
