package shoutrrr_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/notifytest"
	"github.com/sigwarden/sigwarden/notify/shoutrrr"
)

const secret = "AzyoeNS.D4iJLVa"

// local are services of which a server can be one's own, by how they are reached.
var local = map[string]struct{ url, accept string }{
	"ntfy":   {"ntfy://user:" + secret + "@HOST/topic?scheme=http", `{"id":"x"}`},
	"gotify": {"gotify://HOST/" + secret + "?disabletls=yes", `{"id":1}`},
}

func TestServices(t *testing.T) {
	for kind, service := range local {
		t.Run(kind, func(t *testing.T) {
			s := notifytest.NewService(t, service.accept)
			c, err := shoutrrr.New(kind, strings.Replace(service.url, "HOST", strings.TrimPrefix(s.URL, "http://"), 1))
			if err != nil {
				t.Fatal(err)
			}
			e := notifytest.Hostile()
			if err := c.Notify(context.Background(), e); err != nil {
				t.Fatal(err)
			}
			got := s.Requests()
			if len(got) != 1 || !strings.Contains(got[0].Body, "Finding for evil") || !strings.Contains(got[0].Body, e.Next) || len(got[0].Body) > 40<<10 {
				t.Errorf("%+v", got)
			}
			for _, status := range []int{400, 401, 429, 500, 503, 410} {
				s.Answer(func(w http.ResponseWriter) { w.WriteHeader(status) })
				e.ID = fmt.Sprint("e-", status)
				err := c.Notify(context.Background(), e)
				if err == nil || strings.Contains(err.Error(), secret) || errors.Is(err, notify.ErrRefused) != (status == 410) {
					t.Errorf("%d: %v", status, err)
				}
			}
			release := make(chan struct{})
			s.Answer(func(w http.ResponseWriter) { <-release; io.WriteString(w, service.accept) })
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			e.ID = "e-slow"
			if err := c.Notify(ctx, e); err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("hangs: %v", err)
			}
			close(release)
			// What came through in the end is not sent again.
			before := 0
			for again := range 2 {
				if err := c.Notify(context.Background(), e); err != nil {
					t.Errorf("after that: %v", err)
				}
				if n := len(s.Requests()); again == 0 {
					before = n
				} else if n != before {
					t.Errorf("sent again: %d requests after %d", n, before)
				}
			}
			huge := notifytest.Huge()
			if err := c.Notify(context.Background(), huge); err != nil {
				t.Error(err)
			}
			if got := s.Requests(); len(got[len(got)-1].Body) > 40<<10 {
				t.Errorf("a huge group: %d bytes", len(got[len(got)-1].Body))
			}
		})
	}
}

// TestNobodyThere: what is said of a server that is not there holds no secret.
func TestNobodyThere(t *testing.T) {
	for kind, service := range local {
		c, err := shoutrrr.New(kind, strings.Replace(service.url, "HOST", "127.0.0.1:1", 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Notify(context.Background(), notifytest.Hostile()); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	for kind, url := range map[string]string{
		"discord":  "discord://token-of-ours@123456789012345678",
		"telegram": "telegram://110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0@telegram?chats=@channel",
		"opsgenie": "opsgenie://api.opsgenie.com/eb243592-faa2-4ba2-a551q-1afdf565c889",
		"gotify":   "gotify://gotify.acme.example/AzyoeNS.D4iJLVa",
		"ntfy":     "ntfy://ntfy.acme.example/topic",
		"matrix":   "matrix://user:password@matrix.acme.example/?rooms=%23alerts",
	} {
		if _, err := shoutrrr.New(kind, url); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for kind, url := range map[string]string{"discord": "telegram://secret-token@telegram", "slack": "slack://secret-token", "telegram": "telegram://secret-token", "opsgenie": "https://secret-token", "gotify": "gotify://"} {
		if _, err := shoutrrr.New(kind, url); err == nil || strings.Contains(err.Error(), "secret-token") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
