package github_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/github"
	"github.com/sigwarden/sigwarden/notify/notifytest"
)

const token = "github_pat_token-of-ours"

func channel(t *testing.T, url string) *github.Channel {
	t.Helper()
	c, err := github.New(github.Options{Repository: "acme/security", Token: token, Labels: []string{"oncall"}, APIURL: url, Client: notify.HTTPClient(nil)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSuite(t *testing.T) {
	notifytest.Run(t, "[]", func(t *testing.T, s *notifytest.Service) notify.Notifier { return channel(t, s.URL) }, token)
}

// issues is a stand-in for the part of GitHub's REST API that is used.
type issues struct {
	mu    sync.Mutex
	t     *testing.T
	list  []*issue
	lose  bool // the next answer to a POST, though it was done
	posts int
}

type issue struct {
	Number   int      `json:"number"`
	Title    string   `json:"title"`
	Body     string   `json:"body"`
	User     user     `json:"user"`
	Labels   []string `json:"-"`
	comments []comment
	closed   bool
}

type comment struct {
	Body string `json:"body"`
	User user   `json:"user"`
}

type user struct {
	Login string `json:"login"`
}

const us = "sigwarden-bot"

func (s *issues) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+token || r.Header.Get("Accept") != "application/vnd.github+json" || r.Header.Get("X-GitHub-Api-Version") == "" || r.Header.Get("User-Agent") == "" {
		s.t.Errorf("headers %v", r.Header)
	}
	answer := func(status int, v any) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(v)
	}
	number := 0
	path := strings.TrimPrefix(r.URL.Path, "/repos/acme/security/issues")
	fmt.Sscanf(path, "/%d/comments", &number)
	switch {
	case r.Method == "GET" && path == "":
		out := []*issue{}
		for _, i := range slices.Backward(s.list) {
			if !i.closed && slices.Contains(i.Labels, r.URL.Query().Get("labels")) {
				out = append(out, i)
			}
		}
		answer(200, out[:min(len(out), 1)])
	case r.Method == "GET" && number > 0:
		list, page := s.list[number-1].comments, 0
		fmt.Sscan(r.URL.Query().Get("page"), &page)
		list = list[min(len(list), (page-1)*100):]
		answer(200, append([]comment{}, list[:min(len(list), 100)]...))
	case r.Method == "POST":
		s.posts++
		var in struct {
			Title, Body string
			Labels      []string
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			s.t.Error(err)
		}
		if number > 0 {
			s.list[number-1].comments = append(s.list[number-1].comments, comment{in.Body, user{us}})
		} else {
			s.list = append(s.list, &issue{Number: len(s.list) + 1, Title: in.Title, Body: in.Body, User: user{us}, Labels: in.Labels})
		}
		if s.lose {
			s.lose = false
			w.WriteHeader(502)
			return
		}
		answer(201, map[string]int{"number": len(s.list)})
	default:
		s.t.Errorf("%s %s", r.Method, r.URL)
	}
}

// TestIssues: one issue a group, comments on growth, nothing twice, and what a
// person closed stays closed.
func TestIssues(t *testing.T) {
	s := &issues{t: t}
	ts := httptest.NewServer(s)
	defer ts.Close()
	c := channel(t, ts.URL)
	send := func(id, group string, fails bool) {
		t.Helper()
		e := notifytest.Hostile()
		e.ID, e.Group, e.Subject = id, group, "f-"+id
		if err := c.Notify(context.Background(), e); (err != nil) != fails {
			t.Fatal(err)
		}
	}
	send("1", "g1", false)
	send("2", "g1", false)
	send("3", "g2", false)
	if len(s.list) != 2 || len(s.list[0].comments) != 1 || len(s.list[1].comments) != 0 {
		t.Fatalf("%d issues", len(s.list))
	}
	send("1", "g1", false) // again
	send("2", "g1", false)
	s.lose = true
	send("4", "g1", true)
	send("4", "g1", false)
	s.lose = true
	send("5", "g3", true)
	send("5", "g3", false)
	if len(s.list) != 3 || len(s.list[0].comments) != 2 || s.posts != 5 {
		t.Errorf("%d issues, %d comments, %d posts", len(s.list), len(s.list[0].comments), s.posts)
	}
	for i := range 150 {
		send(fmt.Sprint("many-", i), "g2", false)
	}
	send("many-140", "g2", false)
	if len(s.list[1].comments) != 150 {
		t.Errorf("%d comments", len(s.list[1].comments))
	}
	s.list[0].closed = true
	send("6", "g1", false)
	if len(s.list) != 4 || len(s.list[0].comments) != 2 {
		t.Errorf("%d issues", len(s.list))
	}
	one := s.list[0]
	if !slices.Contains(one.Labels, "sigwarden") || !slices.Contains(one.Labels, "severity:critical") || !slices.Contains(one.Labels, "oncall") {
		t.Errorf("labels %q", one.Labels)
	}
	notifytest.Visible(t, "the title", one.Title)
	// What a stranger wrote is inside of the fence, and cannot end it.
	open, rest, _ := strings.Cut(one.Body, "text\n")
	inside, after, ok := strings.Cut(rest, "\n"+open)
	if !strings.HasPrefix(open, "```") || !ok || !strings.Contains(inside, "<!channel>") || strings.Contains(after, "evil") {
		t.Errorf("%s", one.Body)
	}
	// An incident has an issue of its own, which its end is a comment on.
	e := notifytest.Hostile()
	e.Type, e.Subject, e.Group, e.ID = notify.IncidentOpened, "i-1", "", "e-1"
	for _, kind := range []string{notify.IncidentOpened, notify.IncidentResolved} {
		e.Type, e.ID = kind, "e-"+kind
		if err := c.Notify(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
	last := s.list[len(s.list)-1]
	if len(s.list) != 5 || len(last.comments) != 1 || last.closed {
		t.Errorf("%+v", last)
	}
	// The end of one that a person has closed is nobody's news.
	last.closed = true
	e.ID = "e-again"
	if err := c.Notify(context.Background(), e); err != nil || len(s.list) != 5 {
		t.Errorf("%d issues, %v", len(s.list), err)
	}
}

func TestBadOptions(t *testing.T) {
	for _, o := range []github.Options{{}, {Repository: "acme", Token: "t"}, {Repository: "acme/../x/y", Token: "t"}, {Repository: "acme/x"}, {Repository: "acme/x", Token: "t", APIURL: "nowhere"}} {
		if _, err := github.New(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
}

// TestForgedMark: what a stranger writes, into a log or into a comment, does not make
// an event look like one that is there already.
func TestForgedMark(t *testing.T) {
	s := &issues{t: t}
	ts := httptest.NewServer(s)
	defer ts.Close()
	c := channel(t, ts.URL)
	mark := "<!-- sigwarden event e-2 -->"
	e := notifytest.Hostile()
	e.ID, e.Group, e.Summary = "e-1", "g", "evil "+mark
	if err := c.Notify(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	stranger := comment{Body: "nothing to see " + mark}
	stranger.User.Login = "stranger"
	s.list[0].comments = append(s.list[0].comments, stranger)
	e.ID = "e-2"
	for range 2 {
		if err := c.Notify(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.list[0].comments); n != 2 {
		t.Errorf("%d comments, want the stranger's and ours, once", n)
	}
}
