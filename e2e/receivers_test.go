package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
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
	slack []string // blocks
	hooks []hook   // verified ones
	bad   []string // what did not verify
}

type hook struct {
	Event string // the id in its header
	Type  string
	Data  struct {
		Finding struct {
			ID, Verdict string
			Index       uint64
		}
		Incident struct{ ID, Kind, Class string }
	}
}

func newReceivers(t testing.TB) *receivers {
	t.Helper()
	r := &receivers{t: t, secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
	server := slacktest.NewTestServer(func(c slacktest.Customize) {
		c.Handle("/chat.postMessage", func(w http.ResponseWriter, req *http.Request) {
			req.ParseForm()
			r.mu.Lock()
			r.slack = append(r.slack, req.Form.Get("blocks"))
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
		h.Event = req.Header.Get("webhook-id")
		r.hooks = append(r.hooks, h)
	}))
	t.Cleanup(hooks.Close)
	r.hookURL = hooks.URL

	api, smtp := freePort(t), freePort(t)
	start(t, program(t, "mailpit", "mailpit"), fmt.Sprintf("--listen=127.0.0.1:%d", api), fmt.Sprintf("--smtp=127.0.0.1:%d", smtp), "--disable-version-check", "--smtp-disable-rdns", "--max=0")
	r.mailAPI, r.smtp = fmt.Sprintf("http://127.0.0.1:%d", api), fmt.Sprintf("smtp://127.0.0.1:%d", smtp)
	until(t, "mailpit answers", 20*time.Second, func() bool { return answers(r.mailAPI + "/readyz") })
	return r
}

// mailed returns how often each event came by mail, by its id.
func (r *receivers) mailed() map[string]int {
	resp, err := http.Get(r.mailAPI + "/api/v1/messages?limit=500")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct {
		Messages []struct{ MessageID string } `json:"messages"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		r.t.Fatal(err)
	}
	out := map[string]int{}
	for _, m := range list.Messages {
		id, _, _ := strings.Cut(strings.Trim(m.MessageID, "<>"), "@")
		out[id]++
	}
	return out
}

var subjectID = regexp.MustCompile(`"(?:Finding|Incident): ([fi]-[0-9a-f]+)"`)

// slacked returns how often each finding or incident came through Slack.
func (r *receivers) slacked() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]int{}
	for _, blocks := range r.slack {
		id := "none in " + blocks
		if m := subjectID.FindStringSubmatch(blocks); m != nil {
			id = m[1]
		}
		out[id]++
	}
	return out
}

func (r *receivers) hooked() []hook {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]hook(nil), r.hooks...)
}
