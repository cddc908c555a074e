package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

// What shows that sigwarden itself works: tests of its channels, and a sign of
// life to somebody who notices when it stays away.

// selfTest puts a test for a channel into the outbox whenever its schedule
// says so, until ctx ends.
func (s *setup) selfTest(ctx context.Context, st *store.Store, ch config.Channel, log *slog.Logger, wake func()) {
	for {
		next := ch.SelfTest.Next(time.Now())
		if !pause(ctx, time.Until(next)) {
			return
		}
		now := time.Now()
		e := testEvent(now)
		e.ID = fmt.Sprintf("e-self-test-%s-%d", ch.Name, next.Unix())
		e.Title = "Self-test of channel " + ch.Name
		e.Summary = fmt.Sprintf("All is well with this channel. The next test is due at %s; if it does not come, look after it.", ch.SelfTest.Next(now).UTC().Format(time.RFC3339))
		for {
			err := st.Enqueue(ctx, []notify.Delivery{{Address: notify.Address{Channel: ch.Name}, Event: e}})
			if err == nil {
				break
			}
			log.Error("a self-test could not be put into the outbox; that is tried again", "channel", ch.Name, "error", err)
			if !pause(ctx, time.Minute) {
				return
			}
		}
		wake()
	}
}

// pause waits; false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

const (
	// patience is how long a notification may be tried in vain, and a log may show
	// no successful poll, before there is no sign of life.
	patience = 15 * time.Minute
)

// heartbeat asks for an address every so often, but only while every log is fresh
// and every channel delivers. Its client keeps the address out of errors.
func (s *setup) heartbeat(ctx context.Context, status func(context.Context) (monitor.Status, error), incidents func(context.Context) (map[[2]string]int, error), log *slog.Logger) {
	h := s.cfg.Notify.Heartbeat
	client := notify.HTTPClient(nil)
	was := ""
	for {
		why := s.unwell(ctx, status, incidents, time.Now())
		if why == "" {
			if err := ask(ctx, client, h.URL.Reveal()); err != nil && ctx.Err() == nil {
				log.Warn("the heartbeat was not accepted; it is tried again", "error", err)
			}
		}
		if why != was && why != "" {
			log.Error("no heartbeat is sent while this lasts", "reason", why)
		} else if why != was {
			log.Info("the heartbeat is sent again")
		}
		was = why
		if !pause(ctx, h.Every) {
			return
		}
	}
}

// unwell says why there must be no sign of life; empty if all is well.
func (s *setup) unwell(ctx context.Context, status func(context.Context) (monitor.Status, error), incidents func(context.Context) (map[[2]string]int, error), now time.Time) string {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	st, err := status(ctx)
	if err != nil {
		return err.Error()
	}
	open, err := incidents(ctx)
	if err != nil {
		return err.Error()
	}
	for key, n := range open {
		if n > 0 && monitor.BreaksWatch(key[1]) {
			return "an incident of kind " + key[1] + " is open"
		}
	}
	if len(st.Logs) == 0 {
		return "no log is followed"
	}
	for _, l := range st.Logs {
		switch l.State {
		case "retired":
			continue // it is polled daily
		case "ok", "catching-up":
		default:
			return fmt.Sprintf("log %s is %s", l.Name, l.State)
		}
		if now.Sub(l.LastSuccess) > max(patience, 3*l.Every) {
			return fmt.Sprintf("no poll of log %s has succeeded since %s", l.Name, l.LastSuccess.UTC().Format(time.RFC3339))
		}
	}
	for _, c := range st.Channels {
		longer := patience
		for _, ch := range s.channels {
			if ch.Name == c.Name && ch.Grouping != nil {
				longer += 2 * ch.Grouping.Window // what is gathered waits that long
			}
		}
		switch {
		case c.FailingSince != nil && now.Sub(*c.FailingSince) > patience:
			return fmt.Sprintf("channel %s does not accept what it was to be told since %s", c.Name, c.FailingSince.Format(time.RFC3339))
		case c.UntriedSince != nil && now.Sub(*c.UntriedSince) > patience, c.RolledSince != nil && now.Sub(*c.RolledSince) > longer:
			return fmt.Sprintf("nobody delivers what waits for channel %s", c.Name)
		}
	}
	return ""
}

func ask(ctx context.Context, client *http.Client, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return errors.New("heartbeat.url cannot be used")
	}
	req.Header.Set("User-Agent", "sigwarden")
	resp, err := client.Do(req)
	if err != nil {
		return notify.WithoutURL(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	return notify.StatusError(resp.StatusCode, resp.Header)
}
