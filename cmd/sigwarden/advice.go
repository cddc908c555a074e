package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// watchWarnings finds what is valid and yet hardly meant: items that could
// never match, and alerts that nobody would hear.
func watchWarnings(cfg *config.Config) []string {
	var out []string
	warn := func(path, format string, args ...any) {
		out = append(out, cfg.At(path, fmt.Sprintf(format, args...)).String())
	}
	if len(cfg.Watches) == 0 {
		warn("watchlist", "nothing is watched: logs are audited, and no signing event is ever reported")
	}
	if len(cfg.Notify.Channels) == 0 {
		warn("notify", "no channel is configured: findings and incidents are stored, and nobody is told")
	} else if cfg.Notify.Incidents != nil && len(cfg.Notify.Incidents) == 0 {
		warn("notify.incidents", "nobody hears of integrity incidents")
	}
	out = append(out, keptTooShort(cfg, time.Now())...)
	for _, w := range cfg.Watches {
		if len(cfg.Notify.Channels) > 0 && w.Notify != nil && len(w.Notify) == 0 {
			warn(w.Path+".notify", "nobody hears of findings of watch %s", w.Name)
		}
	}
	for _, w := range cfg.Watches {
		for j, it := range w.Match {
			path := fmt.Sprintf("%s.match[%d]", w.Path, j)
			for k, kind := range it.Kind {
				if names := kindNames(); !strings.ContainsAny(kind, `*?\\`) && !strings.HasPrefix(kind, "re:") && !slices.Contains(names, kind) {
					warn(fmt.Sprintf("%s.kind[%d]", path, k), "no entry that is understood is of kind %q%s", kind, config.DidYouMean(kind, names))
				}
			}
			if len(it.Digest) > 0 && len(it.Kind) > 0 && onlyEnvelopes(it.Kind) {
				warn(path+".digest", "entries of kind %s hold the hash of an envelope's payload: the digest of an artifact never matches there", strings.Join(it.Kind, ", "))
			} else if len(it.Digest) > 0 && len(it.Kind) == 0 {
				warn(path+".digest", "attestations are logged with the hash of what is wrapped around them: this digest matches plain signatures of the artifact only")
			}
			if why := impossible(it); why != "" {
				warn(path, "this item can never match: %s", why)
			} else if why := watchlist.Item(it).Broad(); why != "" {
				warn(path, "%s, and not only yours", why)
			}
		}
		for j, it := range w.Expect {
			path := fmt.Sprintf("%s.expect[%d]", w.Path, j)
			if why := impossible(it); why != "" {
				warn(path, "this item can never match: %s", why)
			} else if key := outside(w.Match, it); key != "" {
				warn(path, "this item never makes anything expected: no item of match claims what it describes (%s differs)", key)
			}
			if slices.Contains(it.Issuer, "none") && len(it.Fingerprint)+len(it.Digest) == 0 {
				warn(fmt.Sprintf("%s.expect[%d]", w.Path, j), "no key fits this item, since anybody can make one with this name: name its fingerprint (certificates of a trusted authority that name no issuer do fit)")
			}
		}
	}
	overlaps(cfg.Watches, warn)
	return out
}

// outside returns the key in which an item of expect lies outside of every item of
// match; empty if one of them may claim what it describes.
func outside(match []config.Item, it config.Item) string {
	key := ""
	for _, m := range match {
		if key = watchlist.Disjoint(watchlist.Item(m), watchlist.Item(it)); key == "" {
			return ""
		}
	}
	return key
}

const (
	// comparedWatches bounds the watches that are compared with each other, and
	// toldOverlaps those that are told.
	comparedWatches = 500
	toldOverlaps    = 10
)

// overlaps warns of watches that claim the same: each event of theirs is a finding
// of both.
func overlaps(watches []config.Watch, warn func(path, format string, args ...any)) {
	told := 0
	for i, a := range watches[:min(len(watches), comparedWatches)] {
		for _, b := range watches[i+1 : min(len(watches), comparedWatches)] {
			if !claimSame(a, b) {
				continue
			}
			if told++; told > toldOverlaps {
				warn("watchlist", "more watches claim the same as others; the first %d were named", toldOverlaps)
				return
			}
			warn(b.Path, "watches %s and %s may claim the same events: each of those is a finding of both, and both tell it", a.Name, b.Name)
		}
	}
}

func claimSame(a, b config.Watch) bool {
	for _, x := range a.Match {
		for _, y := range b.Match {
			if alike(x, y) && watchlist.Disjoint(watchlist.Item(x), watchlist.Item(y)) == "" {
				return true
			}
		}
	}
	return false
}

// alike reports whether two items ask for a key in common: an e-mail address
// and a fingerprint may be one's, and nothing says that they are.
func alike(a, b config.Item) bool {
	both := func(x, y []string) bool { return len(x) > 0 && len(y) > 0 }
	if both(a.Subject, b.Subject) || both(a.Fingerprint, b.Fingerprint) || both(a.Digest, b.Digest) {
		return true
	}
	for name := range a.Extensions {
		if _, ok := b.Extensions[name]; ok {
			return true
		}
	}
	return false
}

// kindNames are the kinds of entries that are understood.
func kindNames() []string {
	var names []string
	for _, k := range entry.Kinds() {
		names = append(names, k.Name)
	}
	return names
}

func onlyEnvelopes(kinds []string) bool {
	for _, kind := range kinds {
		ok := false
		for _, k := range entry.Kinds() {
			ok = ok || k.Name == kind && k.DigestOfEnvelope
		}
		if !ok {
			return false
		}
	}
	return true
}

// The issuers that name subjects in a form of their own.
var issuerForms = []struct{ issuer, subject string }{
	{"https://token.actions.githubusercontent.com", "https://github.com/"},
	{"https://gitlab.com", "https://gitlab.com/"},
}

// impossible says why an item can never match, if that is plain to see.
func impossible(it config.Item) string {
	if len(it.Subject) == 0 || len(it.Issuer) == 0 {
		return ""
	}
	for _, i := range it.Issuer {
		for _, form := range issuerForms {
			if len(it.Issuer) == 1 && i != form.issuer && strings.TrimRight(i, "/") == form.issuer {
				return fmt.Sprintf("certificates name issuer %s, without a slash at the end", form.issuer)
			}
		}
	}
	mails := allOf(it.Subject, func(s string) bool {
		return strings.Contains(s, "@") && !strings.Contains(s, "://") && !strings.HasPrefix(s, "re:")
	})
	for _, form := range issuerForms {
		if !allOf(it.Issuer, func(s string) bool { return s == form.issuer }) {
			continue
		}
		if mails {
			return fmt.Sprintf("issuer %s names URIs, not e-mail addresses", form.issuer)
		}
	}
	for _, form := range issuerForms {
		ofForm := allOf(it.Subject, func(s string) bool {
			return strings.HasPrefix(strings.TrimPrefix(strings.ReplaceAll(strings.TrimPrefix(s, "re:"), `\.`, "."), "^"), form.subject)
		})
		known := allOf(it.Issuer, func(s string) bool {
			return s == "none" || s == "https://accounts.google.com" || s == "https://github.com/login/oauth" || s == "https://login.microsoftonline.com" || s == "https://oauth2.sigstore.dev/auth" || otherForm(s, form.issuer)
		})
		if ofForm && known {
			return fmt.Sprintf("subjects that begin with %s come from issuer %s", form.subject, form.issuer)
		}
	}
	return ""
}

func otherForm(issuer, own string) bool {
	for _, form := range issuerForms {
		if form.issuer == issuer && issuer != own {
			return true
		}
	}
	return false
}

func allOf(list []string, f func(string) bool) bool {
	for _, s := range list {
		if !f(s) {
			return false
		}
	}
	return true
}

// keptTooShort finds what is deleted before the report that should count it is made.
func keptTooShort(cfg *config.Config, now time.Time) (out []string) {
	for _, r := range cfg.Reports {
		first := r.Schedule.Next(now)
		period := r.Schedule.Next(first).Sub(first)
		for _, class := range []struct {
			name string
			keep time.Duration
		}{{"expected", cfg.Retention.Expected}, {"findings", cfg.Retention.Findings}, {"incidents", cfg.Retention.Incidents}} {
			if class.keep != 0 && class.keep < period+settle {
				out = append(out, cfg.At("retention."+class.name, fmt.Sprintf("report %q covers %s, and what is of this class is deleted after %s: the report does not count it", r.Name, period, class.keep)).String())
			}
		}
	}
	return out
}
