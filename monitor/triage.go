package monitor

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// What people decide, and the trail of it.

// Ourselves is the actor of what the program does on its own.
const Ourselves = "sigwarden"

// What a finding or incident is resolved as.
const (
	AsFalsePositive = "false-positive"
	AsExpected      = "expected"
	AsIncident      = "incident"
)

// Resolutions lists what a finding or incident can be resolved as.
func Resolutions() []string { return []string{AsFalsePositive, AsExpected, AsIncident} }

// Change is a decision of a person about a finding or an incident.
type Change struct {
	// To is acknowledged, resolved, or open again.
	To string
	// Resolution is one of Resolutions if To is resolved, else empty.
	Resolution string
	By, Note   string
	At         time.Time
}

// Allowed reports whether what is in a state can be changed so.
func (c *Change) Allowed(state string) error {
	switch {
	case state == StatePending:
		return errors.New("it waits for its place on a list; announce the artifact, or wait until it is decided")
	case state == StateClosed:
		return errors.New("it was told to nobody, and nobody has to decide about it")
	case c.To == StateAcknowledged && state == StateResolved:
		return errors.New("only what is open can be acknowledged; reopen it first")
	case c.To == StateResolved && !slices.Contains(Resolutions(), c.Resolution):
		return fmt.Errorf("%q is no resolution; want one of %q", c.Resolution, Resolutions())
	case c.To == StateResolved && state == StateResolved:
		return errors.New("reopen it first")
	case c.To == StateOpen && state == StateOpen:
		return errors.New("there is nothing to reopen")
	}
	return nil
}

// Action names the change in the audit trail.
func (c *Change) Action() string {
	switch c.To {
	case StateAcknowledged:
		return "ack"
	case StateOpen:
		return "reopen"
	}
	return "resolve"
}

// Halts reports whether incidents of a kind halt their log.
func Halts(kind string) bool { return incidentKind(kind).Halts }

// Act is what a line of the audit trail says.
type Act struct {
	By, Action, Subject string
	Detail              any // for JSON
}

// AuditRow is one line of the audit trail.
type AuditRow struct {
	N       int64           `json:"n"`
	At      time.Time       `json:"at"`
	Actor   string          `json:"actor"`
	Action  string          `json:"action"`
	Subject string          `json:"subject"`
	Detail  json.RawMessage `json:"detail"`
	// Hash is over all of these and the hash of the row before, in hex.
	Hash string `json:"hash"`
}

// AuditHead is the last line of the trail. Noted elsewhere, it shows later that
// nothing before it was changed.
type AuditHead struct {
	N    int64  `json:"n"`
	Hash string `json:"hash"`
}

// Announcement says that somebody is about to sign an artifact.
type Announcement struct {
	ID    string `json:"id"`
	Watch string `json:"watch"`
	// Digest is ALGORITHM:HEX.
	Digest    string    `json:"digest"`
	By        string    `json:"by"`
	Note      string    `json:"note,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Bounds of announcements.
const (
	MinTTL  = time.Minute
	MaxTTL  = 7 * 24 * time.Hour
	maxNote = 1000
)

// Announce makes an announcement; the digest is in the form in which entries
// have it.
func Announce(watch, digest string, ttl time.Duration, by, note string, now time.Time) (Announcement, error) {
	if ttl < MinTTL || ttl > MaxTTL {
		return Announcement{}, fmt.Errorf("a time to live of %s is not from %s to %s: announce close to the signing, so that little can be done with it", ttl, MinTTL, MaxTTL)
	}
	if len(note) > maxNote {
		return Announcement{}, fmt.Errorf("the note has %d bytes, at most %d are kept", len(note), maxNote)
	}
	now = now.UTC().Truncate(time.Microsecond)
	return Announcement{ID: shortID("a-", watch, digest, by, now.Format(time.RFC3339Nano)), Watch: watch, Digest: digest, By: by, Note: note, CreatedAt: now, ExpiresAt: now.Add(ttl)}, nil
}

// Scopes of tokens.
const (
	ScopeRead   = "read"
	ScopeTriage = "triage"
	ScopeExpect = "expect"
)

// Scopes lists what a token can be good for.
func Scopes() []string { return []string{ScopeRead, ScopeTriage, ScopeExpect} }

// Token is a credential for the HTTP API; its secret is not kept.
type Token struct {
	ID     string   `json:"id"`
	Name   string   `json:"name"`
	Scopes []string `json:"scopes"`
	// Watches are those that it is good for; nil: all.
	Watches   []string   `json:"watches"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
}

// Allows reports whether the token is good for a scope, and for a watch if that is
// not empty.
func (t *Token) Allows(scope, watch string) bool {
	return slices.Contains(t.Scopes, scope) && (watch == "" || t.Watches == nil || slices.Contains(t.Watches, watch))
}

// Session is a login of a person to the page.
type Session struct {
	Name      string
	Claims    []byte // what the provider has said of him, as JSON
	ExpiresAt time.Time
}

// TriageEvent tells what a person decided about a finding.
func TriageEvent(f Finding, now time.Time) notify.Event {
	e := FindingEvent(f)
	e.Type = map[string]string{StateAcknowledged: notify.FindingAcknowledged, StateResolved: notify.FindingResolved, StateOpen: notify.FindingReopened}[f.State]
	e.ID, e.Time = shortID("e-", f.ID, e.Type, now.UTC().Format(time.RFC3339Nano)), now.UTC()
	e.Title = fmt.Sprintf("%s by %s: %s", f.State, f.By, e.Title)
	e.Summary = f.Note
	return e
}

// Reassess judges a stored finding anew, with the rules of today. The verdict is
// empty where its watch is gone, or does not claim the entry any more.
func (e *Engine) Reassess(f Finding, l Precedents) (Finding, error) {
	now := f
	now.Verdict, now.Reason, now.RuleHash = "", "no watch of today with this name claims the entry", ""
	authorities, err := entry.ParseAuthorities(f.Authorities)
	if err != nil {
		return now, fmt.Errorf("the authorities that it was judged with: %w", err)
	}
	r := &runner{Engine: e, cfg: LogConfig{Name: f.Log, ID: f.LogID}}
	r.trust.Store(&trust{authorities: authorities})
	r.access.Store(&access{})
	integrated := func() time.Time {
		if f.Integrated == nil {
			return time.Time{}
		}
		return *f.Integrated
	}
	var count tally
	for _, found := range r.judge(new(eyes), f.Index, f.Leaf, integrated, f.Origin, &count) {
		if found.Watch != f.Watch {
			continue
		}
		found.SeenAt = f.SeenAt
		_, err = found.settle(l, e.opts.Now())
		return found, err
	}
	return now, nil
}
