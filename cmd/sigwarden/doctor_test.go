package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor/config"
)

// TestClocks: the clock is compared with the median of those of the logs' servers.
func TestClocks(t *testing.T) {
	for _, c := range []struct {
		name  string
		ahead []time.Duration // of the servers
		level string
	}{
		{"right", []time.Duration{0, 0, time.Second}, levelOK},
		{"one server is wrong", []time.Duration{0, 0, 24 * time.Hour}, levelOK},
		{"slow", []time.Duration{2 * time.Minute}, levelWarning},
		{"fast", []time.Duration{-2 * time.Minute, -2 * time.Minute, 0}, levelWarning},
		{"far off", []time.Duration{-time.Hour}, levelBroken},
		{"nobody tells", nil, levelOK},
	} {
		s := &setup{cfg: &config.Config{}}
		for _, ahead := range c.ahead {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
			}))
			defer server.Close()
			s.cfg.Logs = append(s.cfg.Logs, config.Log{URL: server.URL})
		}
		e := &examination{setup: s}
		e.clock(context.Background())
		if len(e.list) != 1 || e.list[0].What != "clock" || e.list[0].Level != c.level || (c.level == levelOK) != (e.list[0].Do == "") || c.level != levelOK && !strings.Contains(e.list[0].Do, "NTP") {
			t.Errorf("%s: %+v", c.name, e.list)
		}
	}
}
