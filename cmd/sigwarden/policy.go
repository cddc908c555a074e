package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/lists"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/route"
	"github.com/sigwarden/sigwarden/watchlist/entry"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// makeTerms makes what the items of a watch's expect ask for beside their patterns.
func (s *setup) makeTerms(w config.Watch) (terms []*policy.Terms, issues []config.Issue) {
	bad := func(path, format string, args ...any) {
		issues = append(issues, s.cfg.At(path, fmt.Sprintf(format, args...)))
	}
	for i, t := range w.Terms {
		path := fmt.Sprintf("%s.expect[%d]", w.Path, i)
		out := &policy.Terms{Valid: policy.Span{From: t.From, Until: t.Until}}
		for j, text := range t.Between {
			h, err := policy.ParseHours(text)
			if err != nil {
				bad(fmt.Sprintf("%s.between[%d]", path, j), "%v", err)
			}
			out.Between = append(out.Between, h)
		}
		if t.AtMost != nil {
			out.AtMost = &policy.Rate{Count: t.AtMost.Count, Per: t.AtMost.Per}
		}
		if out.OncePer = t.OncePer; t.OncePer != "" && t.OncePer != policy.ByDigest {
			name, ok := entry.ExtensionName(t.OncePer)
			if !ok {
				bad(path+".once_per", "%q is neither digest nor an extension%s", t.OncePer, config.DidYouMean(t.OncePer, append(entry.ExtensionNames(), policy.ByDigest)))
			}
			out.OncePer = name
		}
		if t.Digests != nil {
			if g := t.Digests.Grace / 2; t.Digests.URL != "" && g > 0 && t.Digests.Every > g {
				// What waits is not to be given up before the list was asked again.
				t.Digests.Every = max(g, time.Minute)
			}
			source, err := s.listSource(t.Digests)
			if err != nil {
				bad(t.Digests.Path+".signed_by", "%v", err)
			}
			out.Digests = &policy.Listing{List: source.Name, Grace: t.Digests.Grace}
			if !slices.ContainsFunc(s.sources, func(o lists.Source) bool { return o.Name == source.Name }) {
				s.sources = append(s.sources, source)
			}
		}
		if out.IsZero() {
			out = nil
		}
		terms = append(terms, out)
	}
	return terms, issues
}

// listSource makes the source of a list of digests.
func (s *setup) listSource(d *config.DigestList) (lists.Source, error) {
	src := lists.Source{File: d.File, URL: d.URL, Every: d.Every, Signature: d.Signature}
	src.Name = src.File + src.URL
	roots, err := certPool(d.TLSCA)
	if err != nil {
		return src, fmt.Errorf("tls_ca: %w", err)
	}
	src.Client = notify.PlainClient(roots) // lists may be long
	suffix := ""
	switch {
	case d.Key != "":
		src.Verify, err = lists.ByKey(d.Key)
		suffix = ".sig"
		src.Name += fmt.Sprintf(" (signed by the key %s)", shortHash(d.Key))
	case len(d.Subject) > 0:
		src.Verify, err = lists.ByIdentity(d.Subject, d.Issuer, s.trusted)
		suffix = ".sigstore.json"
		src.Name += fmt.Sprintf(" (signed by %s of %s)", strings.Join(d.Subject, " or "), strings.Join(d.Issuer, " or "))
	}
	if src.Verify != nil && src.Signature == "" {
		src.Signature = d.File + d.URL + suffix
	} else if src.Verify != nil {
		src.Name += " at " + src.Signature
	}
	return src, err
}

// shortHash tells texts apart: who must have signed a list is a part of its name.
func shortHash(text string) string {
	sum := sha256.Sum256([]byte(strings.Join(strings.Fields(text), "")))
	return hex.EncodeToString(sum[:6])
}

// trusted returns the logs of today, for signatures of lists.
func (s *setup) trusted() []lists.Trusted {
	var out []lists.Trusted
	if s.current != nil {
		for _, t := range s.current.Trusted() {
			out = append(out, lists.Trusted(t))
		}
	}
	return out
}

// readLists makes the lists that rules ask for, unread.
func (s *setup) readLists(log *slog.Logger) {
	s.lists = lists.New(s.sources, log, func() {
		if s.current != nil {
			s.current.Kick()
		}
	})
}

// loadLists reads every list once, for a command that is no daemon.
func (s *setup) loadLists(ctx context.Context) {
	if len(s.sources) > 0 {
		s.lists.Load(ctx)
	}
}

func (s *setup) badLists() []monitor.BadList {
	var out []monitor.BadList
	for _, l := range s.lists.States() {
		if l.Err != nil {
			out = append(out, monitor.BadList{Name: l.Name, Since: l.Failing, Read: l.Read, Err: l.Err})
		}
	}
	return out
}

// makeRoutes makes what each channel hears of, and when.
func (s *setup) makeRoutes() (issues []config.Issue) {
	s.routes = route.Table{}
	for _, ch := range s.cfg.Notify.Channels {
		rule := route.Rule{Severity: ch.Hears.Severity, Watches: ch.Hears.Watches, Classes: ch.Hears.Classes, Kinds: ch.Hears.Kinds, QuietBelow: ch.Quiet.Below, DigestBelow: ch.Digest.Below}
		if ch.Digest.Schedule.Schedule != nil {
			rule.Digest = ch.Digest.Schedule
		}
		for i, text := range ch.Quiet.Hours {
			h, err := policy.ParseHours(text)
			if err != nil {
				issues = append(issues, s.cfg.At(fmt.Sprintf("%s.quiet.hours[%d]", ch.Path, i), err.Error()))
			}
			rule.Quiet = append(rule.Quiet, h)
		}
		known := knownKinds()
		for i, kind := range ch.Hears.Kinds {
			if !slices.Contains(known, kind) {
				issues = append(issues, s.cfg.At(fmt.Sprintf("%s.hears.kind[%d]", ch.Path, i), fmt.Sprintf("%q is neither a verdict that is told nor a kind of incident%s", kind, config.DidYouMean(kind, known))))
			}
		}
		s.routes[ch.Name] = rule
	}
	return issues
}

// knownKinds are verdicts that are told, and kinds of incidents.
func knownKinds() []string {
	out := []string{string(policy.Malformed), string(policy.Unexpected), string(policy.Untrusted)}
	for _, k := range monitor.IncidentKinds() {
		out = append(out, k.Kind)
	}
	return out
}
