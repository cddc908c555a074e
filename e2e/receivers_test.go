package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/slack-go/slack/slacktest"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// receivers are the other sides of three channels.
type receivers struct {
	t        testing.TB
	slackURL string
	hookURL  string
	secret   string
	mailAPI  string
	smtp     string

	mu    sync.Mutex
	slack []string       // texts
	hooks []hook         // verified ones
	bad   []string       // what did not verify
	ids   map[string]int // of webhooks
}

type hook struct {
	Type string
	Data struct {
		Finding struct {
			Index   uint64
			Verdict string
		}
		Incident struct{ Kind, Class string }
	}
}

func newReceivers(t testing.TB) *receivers {
	t.Helper()
	r := &receivers{t: t, secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", ids: map[string]int{}}
	server := slacktest.NewTestServer(func(c slacktest.Customize) {
		c.Handle("/chat.postMessage", func(w http.ResponseWriter, req *http.Request) {
			req.ParseForm()
			r.mu.Lock()
			r.slack = append(r.slack, req.Form.Get("text"))
			r.mu.Unlock()
			io.WriteString(w, `{"ok":true,"channel":"C123","ts":"1.2"}`)
		})
	})
	server.Start()
	t.Cleanup(server.Stop)
	r.slackURL = server.GetAPIURL()

	verifier, err := standardwebhooks.NewWebhook(r.secret)
	if err != nil {
		t.Fatal(err)
	}
	hooks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		var h hook
		err := verifier.Verify(body, req.Header)
		if err == nil {
			err = json.Unmarshal(body, &h)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil {
			r.bad = append(r.bad, fmt.Sprintf("%v: %s", err, body))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.hooks = append(r.hooks, h)
		r.ids[req.Header.Get("webhook-id")]++
	}))
	t.Cleanup(hooks.Close)
	r.hookURL = hooks.URL

	api, smtp := freePort(t), freePort(t)
	start(t, program(t, "mailpit", "mailpit"), fmt.Sprintf("--listen=127.0.0.1:%d", api), fmt.Sprintf("--smtp=127.0.0.1:%d", smtp), "--disable-version-check", "--smtp-disable-rdns", "--max=0")
	r.mailAPI, r.smtp = fmt.Sprintf("http://127.0.0.1:%d", api), fmt.Sprintf("smtp://127.0.0.1:%d", smtp)
	until(t, "mailpit answers", 20*time.Second, func() bool { return answers(r.mailAPI + "/readyz") })
	return r
}

// mails returns the subjects of all mails.
func (r *receivers) mails() []string {
	resp, err := http.Get(r.mailAPI + "/api/v1/messages?limit=500")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct {
		Messages []struct {
			Subject   string
			MessageID string
		} `json:"messages"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, m := range list.Messages {
		out = append(out, m.Subject)
	}
	return out
}

func (r *receivers) slackTexts() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.slack...)
}

func (r *receivers) hooked() []hook {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]hook(nil), r.hooks...)
}
