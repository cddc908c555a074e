// Package route decides who hears of what, and when, and makes few messages of
// many.
package route

import (
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/notify"
)

// severities, the mildest first.
var severities = []string{"info", "low", "medium", "high", "critical"}

func rank(severity string) int { return slices.Index(severities, severity) }

// Hours are hours of the week.
type Hours interface {
	Contains(time.Time) bool
	// Until returns when the hours that contain a time end.
	Until(time.Time) time.Time
}

// Schedule says when something is done next (robfig/cron's schedules do).
type Schedule interface {
	Next(time.Time) time.Time
}

// Rule is what one channel hears of, and when. The zero value hears of everything
// at once.
type Rule struct {
	// Severity is the lowest that is heard of.
	Severity string
	// Watches, Classes and Kinds are those that are heard of; nil: all. A watch
	// matters for findings only.
	Watches, Classes, Kinds []string
	// Quiet are hours in which what is milder than QuietBelow waits for their end.
	Quiet      []Hours
	QuietBelow string
	// Digest is when what is milder than DigestBelow comes in one message.
	Digest      Schedule
	DigestBelow string
}

// hears reports whether the channel is told of something at all.
func (r *Rule) hears(a notify.About) bool {
	has := func(list []string, word string) bool { return list == nil || slices.Contains(list, word) }
	if rank(a.Severity) < rank(r.Severity) && r.Severity != "" {
		return false
	}
	if a.Class == notify.ClassFinding && !has(r.Watches, a.Watch) {
		return false
	}
	return has(r.Classes, a.Class) && has(r.Kinds, a.Kind)
}

// maxQuiet bounds how long quiet hours that follow each other are added up.
const maxQuiet = 7 * 24 * time.Hour

// address says when the channel is told of something that it hears of.
func (r *Rule) address(channel string, a notify.About, now time.Time) notify.Address {
	out := notify.Address{Channel: channel}
	if r.Digest != nil && rank(a.Severity) < rank(r.DigestBelow) {
		// All of one digest is due at the same time, whenever it came.
		out.Due, out.Digest = r.Digest.Next(now), true
		return out
	}
	if rank(a.Severity) >= rank(r.QuietBelow) {
		return out
	}
	at := now
	for again := true; again && at.Sub(now) < maxQuiet; {
		again = false
		for _, h := range r.Quiet {
			if h.Contains(at) {
				at, again = h.Until(at), true
			}
		}
	}
	if at.After(now) {
		out.Due = at
	}
	return out
}

// Table holds the rules of channels, by name.
type Table map[string]Rule

// Route says where of some channels, and when, something is told.
func (t Table) Route(channels []string, about notify.About, now time.Time) []notify.Address {
	var out []notify.Address
	for _, c := range channels {
		rule := t[c]
		if rule.hears(about) {
			out = append(out, rule.address(c, about, now))
		}
	}
	return out
}
