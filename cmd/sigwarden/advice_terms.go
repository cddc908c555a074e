package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// termWarnings finds what is valid and yet hardly meant in what rules ask for beside
// patterns, and in who is told.
func (s *setup) termWarnings(now time.Time) []string {
	var out []string
	warn := func(path, format string, args ...any) {
		out = append(out, s.cfg.At(path, fmt.Sprintf(format, args...)).String())
	}
	critical := false
	for i, w := range s.cfg.Watches {
		critical = critical || w.Severity == "critical"
		if w.Silence > 0 && len(w.Expect) == 0 {
			warn(w.Path+".silence", "watch %s expects nothing, so that it is silent for ever", w.Name)
		}
		for j, t := range w.Terms {
			s.termWarning(fmt.Sprintf("%s.expect[%d]", w.Path, j), t, now, warn)
		}
		about := notify.About{Class: notify.ClassFinding, Kind: string(policy.Unexpected), Severity: w.Severity, Watch: w.Name}
		if channels := s.watches[i].Channels; len(channels) > 0 && len(s.routes.Route(channels, about, now)) == 0 {
			warn(w.Path, "nobody hears of unexpected findings of watch %s: the `hears` of its channels leaves them out", w.Name)
		}
	}
	if s.cfg.Notify.EscalateAfter > 0 && !critical && len(s.cfg.Watches) > 0 {
		warn("notify.escalate_after", "only critical findings escalate, and no watch has severity critical")
	}
	fork := notify.About{Class: monitor.Integrity, Kind: monitor.KindFork, Severity: "critical"}
	if channels := s.integrity(); len(channels) > 0 && len(s.routes.Route(channels, fork, now)) == 0 {
		warn("notify", "nobody hears of a log that forks: the `hears` of the channels leaves integrity incidents out")
	}
	if listen := s.cfg.HTTP.Listen; listen != "" && !config.Loopback(listen) {
		warn("http.listen", "%s can be reached from elsewhere: metrics and the names of logs are open to everybody there, and tokens travel in clear. Listen on 127.0.0.1, behind a proxy with TLS", listen)
	}
	if s.cfg.HTTP.PublicURL != "" && s.linkBase() == "" {
		warn("http.public_url", "messages have no links: nothing is served at their ends (http.listen, http.page)")
	}
	return out
}

func (s *setup) termWarning(path string, t config.Terms, now time.Time, warn func(path, format string, args ...any)) {
	if !t.Until.IsZero() && now.After(t.Until) {
		warn(path+".valid", "this item has not been valid since %s: nothing fits it any more", t.Until.UTC().Format(time.RFC3339))
	}
	d := t.Digests
	if d == nil || d.File == "" {
		return
	}
	if _, err := os.Stat(d.File); errors.Is(err, fs.ErrNotExist) {
		warn(path+".digests", "the list %s does not exist yet: until it does, what fits this item waits for %s, and is unexpected then", d.File, d.Grace)
	}
}
