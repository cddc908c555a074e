package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

// listener is a channel that keeps what it accepts.
type listener struct {
	mu      sync.Mutex
	got     []notify.Event
	refuses func(notify.Event) bool
	triage  bool
}

func (l *listener) FollowsTriage() bool { return l.triage }

func (l *listener) Notify(_ context.Context, e notify.Event) error {
	if l.refuses != nil && l.refuses(e) {
		return fmt.Errorf("%w: 413", notify.ErrRefused)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, e)
	return nil
}

func (l *listener) types() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, e := range l.got {
		if e.Type != notify.Test {
			out = append(out, e.Type)
		}
	}
	return strings.Join(out, " ")
}

// TestChannelThatRefusesSome: of a channel that refuses every other event the others
// hear once, and once that it is over; it itself hears of neither.
func TestChannelThatRefusesSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		st, err := store.Open(ctx, filepath.Join(t.TempDir(), "s.db"), store.Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		chat, hook := &listener{}, &listener{refuses: func(e notify.Event) bool { return strings.HasPrefix(e.ID, "bad") }}
		s := &setup{cfg: &config.Config{}, names: []string{"chat", "hook"}, channels: []notify.Channel{{Name: "chat", Notifier: chat}, {Name: "hook", Notifier: hook}}}
		log := slog.New(slog.DiscardHandler)
		d := s.dispatcher(st, log)
		var wg sync.WaitGroup
		wg.Go(func() { d.Run(ctx) })
		wg.Go(func() { s.lookForMended(ctx, st, log, d.Wake) })
		for i := range 40 {
			id := fmt.Sprint([]string{"good-", "bad-"}[i%2], i)
			if err := st.Enqueue(ctx, []notify.Delivery{{Address: notify.Address{Channel: "hook"}, Event: notify.Event{ID: id, Type: notify.Test, Data: []byte("{}")}}}); err != nil {
				t.Fatal(err)
			}
			d.Wake()
			time.Sleep(time.Minute)
		}
		if got := chat.types(); got != "incident.opened" {
			t.Errorf("chat was told %s", got)
		}
		if err := st.Enqueue(ctx, []notify.Delivery{{Address: notify.Address{Channel: "hook"}, Event: notify.Event{ID: "good", Type: notify.Test, Data: []byte("{}")}}}); err != nil {
			t.Fatal(err)
		}
		d.Wake()
		time.Sleep(time.Hour)
		if got := chat.types(); got != "incident.opened incident.resolved" {
			t.Errorf("chat was told %s", got)
		}
		if got := hook.types(); got != "" {
			t.Errorf("the channel itself was told %s", got)
		}
		cancel()
		wg.Wait()
	})
}

// TestTriageTold: what people decide is told to places that keep a record of their own,
// also to those that something has escalated to, and the end of an incident to all.
func TestTriageTold(t *testing.T) {
	pager, chat := &listener{triage: true}, &listener{}
	s := &setup{cfg: &config.Config{Watches: []config.Watch{{Name: "w"}}, Notify: config.Notify{EscalateTo: []string{"pager"}}},
		names: []string{"chat", "pager"}, channels: []notify.Channel{{Name: "chat", Notifier: chat}, {Name: "pager", Notifier: notify.Dress(pager, "https://acme.example", nil)}},
		watches: []monitor.WatchConfig{{Channels: []string{"chat"}}}}
	told := s.triageTold(time.Now())
	list := func(deliveries []notify.Delivery) string {
		var out []string
		for _, d := range deliveries {
			out = append(out, d.Channel+":"+d.Event.Type)
		}
		return strings.Join(out, " ")
	}
	for state, want := range map[string]string{monitor.StateAcknowledged: "pager:finding.acknowledged", monitor.StateResolved: "pager:finding.resolved", monitor.StateOpen: "pager:finding.reopened"} {
		if got := list(told.Finding(monitor.Finding{ID: "f-1", Watch: "w", State: state})); got != want {
			t.Errorf("finding %s: %s, want %s", state, got, want)
		}
	}
	for state, want := range map[string]string{monitor.StateAcknowledged: "pager:incident.acknowledged", monitor.StateResolved: "chat:incident.resolved pager:incident.resolved", monitor.StateOpen: "pager:incident.reopened"} {
		if got := list(told.Incident(monitor.Incident{ID: "i-1", Kind: monitor.KindUndecodable, Class: monitor.Operational, State: state})); got != want {
			t.Errorf("incident %s: %s, want %s", state, got, want)
		}
	}
}

func TestLoopback(t *testing.T) {
	for listen, want := range map[string]bool{"127.0.0.1:80": true, "localhost:80": true, "[::1]:80": true, ":80": false, "0.0.0.0:80": false, "192.0.2.1:80": false, "": false, "acme.example:80": false} {
		if config.Loopback(listen) != want {
			t.Errorf("%q", listen)
		}
	}
}

func TestParseDays(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "12h": 12 * time.Hour, "90d": 90 * 24 * time.Hour} {
		if got, err := parseDays(text); err != nil || got != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"d", "-1d", "0", "-5h", "soon", "9999999999d"} {
		if got, err := parseDays(text); err == nil {
			t.Errorf("%q: %s", text, got)
		}
	}
}

func TestDecider(t *testing.T) {
	if err := decider("alice", "why"); err != nil {
		t.Error(err)
	}
	for _, by := range []string{"", " ", monitor.Ourselves, "token job (t-1)", strings.Repeat("x", 101)} {
		var wrong *status
		if err := decider(by, ""); !errors.As(err, &wrong) || wrong.code != exitUsage {
			t.Errorf("%q: %v", by, err)
		}
	}
}
