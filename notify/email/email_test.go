package email_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/email"
	"github.com/sigwarden/sigwarden/notify/notifytest"
)

// server is a mail server of a few lines, for answers that a real one gives
// only when it is in trouble. The end-to-end tests use a real one.
type server struct {
	addr    string
	replies map[string]string // by verb; default: accept
	silent  bool

	mu    sync.Mutex
	mails []string
}

func serve(t *testing.T, replies map[string]string, silent bool) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &server{addr: l.Addr().String(), replies: replies, silent: silent}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.talk(c)
		}
	}()
	return s
}

func (s *server) talk(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(c)
	if s.silent {
		r.ReadString('\n')
		return
	}
	fmt.Fprint(c, "220 test\r\n")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb := strings.ToUpper(strings.TrimSpace(line[:min(4, len(line))]))
		reply, ok := s.replies[strings.ToUpper(strings.TrimSpace(line))]
		if !ok {
			reply, ok = s.replies[verb]
		}
		if !ok {
			reply = map[string]string{"EHLO": "250-test\r\n250 8BITMIME", "DATA": "354 go on", "QUIT": "221 bye"}[verb]
			if reply == "" {
				reply = "250 ok"
			}
		}
		fmt.Fprint(c, reply+"\r\n")
		if verb == "QUIT" {
			return
		}
		if verb != "DATA" || !strings.HasPrefix(reply, "354") {
			continue
		}
		var b strings.Builder
		for {
			line, err := r.ReadString('\n')
			if err != nil || line == ".\r\n" {
				break
			}
			b.WriteString(line)
		}
		s.mu.Lock()
		s.mails = append(s.mails, b.String())
		s.mu.Unlock()
		end, ok := s.replies["END"]
		if !ok {
			end = "250 queued"
		}
		fmt.Fprint(c, end+"\r\n")
	}
}

func channel(t *testing.T, s *server) *email.Channel {
	t.Helper()
	c, err := email.New(email.Options{SMTP: "smtp://" + s.addr, From: "sigwarden@acme.example", To: []string{"security@acme.example", "Second <b@acme.example>"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMail(t *testing.T) {
	s := serve(t, map[string]string{"QUIT": "421 in a hurry"}, false)
	if err := channel(t, s).Notify(context.Background(), notifytest.Hostile()); err != nil {
		t.Fatal(err)
	}
	m, err := mail.ReadMessage(strings.NewReader(s.mails[0]))
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("Bcc") != "" || len(m.Header["Subject"]) != 1 || m.Header.Get("Message-Id") != "<e-hostile@acme.example>" || m.Header.Get("Auto-Submitted") != "auto-generated" {
		t.Errorf("headers %v", m.Header)
	}
	if strings.ContainsAny(s.mails[0], "\x1b\x00") || strings.Contains(s.mails[0], "\u202e") {
		t.Error("control characters in the mail")
	}
	if !strings.Contains(s.mails[0], "sigwarden findings show f-1") {
		t.Errorf("body does not say how to see more:\n%s", s.mails[0])
	}
}

// TestOneRefusedRecipient: the others get their mail, once.
func TestOneRefusedRecipient(t *testing.T) {
	s := serve(t, map[string]string{"RCPT TO:<SECURITY@ACME.EXAMPLE>": "550 5.1.1 has left"}, false)
	c := channel(t, s)
	for range 3 {
		// Nothing is wrong but the address: it is not tried for days, and the channel works.
		if err := c.Notify(context.Background(), notifytest.Hostile()); !errors.Is(err, notify.ErrRefused) || !errors.Is(err, notify.ErrPartly) || !strings.Contains(err.Error(), "has left") {
			t.Errorf("%v", err)
		}
	}
	if len(s.mails) != 1 || !strings.Contains(s.mails[0], "b@acme.example") {
		t.Errorf("%d mails were accepted, want one to the other recipient", len(s.mails))
	}
}

// TestEveryRecipientRefused: that can be mended, and is tried again; so is one who may
// be had later.
func TestEveryRecipientRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		answers map[string]string
		partly  bool
	}{
		"all":   {map[string]string{"RCPT": "550 5.1.1 has left"}, false},
		"later": {map[string]string{"RCPT TO:<SECURITY@ACME.EXAMPLE>": "450 4.2.0 greylisted"}, true},
	} {
		c := channel(t, serve(t, tc.answers, false))
		if err := c.Notify(context.Background(), notifytest.Hostile()); err == nil || errors.Is(err, notify.ErrRefused) || errors.Is(err, notify.ErrPartly) != tc.partly {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCredentialsNeedTLS: a server that offers no encryption gets no password.
func TestCredentialsNeedTLS(t *testing.T) {
	s := serve(t, map[string]string{"EHLO": "250-test\r\n250 AUTH PLAIN LOGIN CRAM-MD5"}, false)
	c, err := email.New(email.Options{SMTP: "smtp://user@" + s.addr, Password: "hunter2", From: "a@acme.example", To: []string{"b@acme.example"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Notify(context.Background(), notifytest.Hostile()); err == nil || len(s.mails) != 0 || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v, %d mails", err, len(s.mails))
	}
	if _, err := email.New(email.Options{SMTP: "smtp://" + s.addr, Password: "hunter2", From: "a@acme.example", To: []string{"b@acme.example"}}); err == nil {
		t.Error("a password without a user accepted")
	}
}

func TestMailFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		replies map[string]string
		refused bool
	}{
		"greylisted":        {map[string]string{"RCPT": "451 later"}, false},
		"unknown recipient": {map[string]string{"RCPT": "550 no such user"}, false},
		"sender refused":    {map[string]string{"MAIL": "530 authenticate"}, false},
		"relay denied":      {map[string]string{"RCPT": "554 5.7.1 relay access denied"}, false},
		"mailbox full":      {map[string]string{"RCPT": "552 5.2.2 mailbox full"}, false},
		"host blocked":      {map[string]string{"MAIL": "554 5.7.1 client host blocked"}, false},
		"mailbox full late": {map[string]string{"END": "552 5.2.2 mailbox full"}, false},
		"policy":            {map[string]string{"END": "554 5.7.1 rejected"}, false},
		"too large":         {map[string]string{"END": "552 5.3.4 too large"}, true},
		"of no known form":  {map[string]string{"END": "554 5.6.0 cannot be read"}, true},
		"full":              {map[string]string{"DATA": "452 no space"}, false},
	} {
		s := serve(t, tc.replies, false)
		err := channel(t, s).Notify(context.Background(), notifytest.Hostile())
		if err == nil || errors.Is(err, notify.ErrRefused) != tc.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := serve(t, nil, true)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := channel(t, s).Notify(ctx, notifytest.Hostile()); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("silent server: %v after %s", err, time.Since(start))
	}
	for _, bad := range []email.Options{
		{SMTP: "http://x", From: "a@b.c", To: []string{"d@e.f"}}, {SMTP: "smtp://", From: "a@b.c", To: []string{"d@e.f"}},
		{SMTP: "smtp://u:secret@x", From: "a@b.c", To: []string{"d@e.f"}}, {SMTP: "smtps://u@x", From: "a@b.c", To: []string{"d@e.f"}},
		{SMTP: "smtp://x", From: "nobody", To: []string{"d@e.f"}}, {SMTP: "smtp://x", From: "a@b.c", To: []string{"x\r\nBcc: y@z"}},
	} {
		if _, err := email.New(bad); err == nil || strings.Contains(err.Error(), "secret@") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
