// Package notify brings events to people and programs: a durable outbox, a
// dispatcher with one lane a channel, and the rendering that channels share.
package notify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"
)

// Types of events.
const (
	FindingUnexpected = "finding.unexpected"
	FindingMalformed  = "finding.malformed"
	FindingUntrusted  = "finding.untrusted"
	FindingEscalated  = "finding.escalated"
	FindingsGrouped   = "findings.grouped"
	DigestDue         = "digest"
	IncidentOpened    = "incident.opened"
	IncidentResolved  = "incident.resolved"
	ReportReady       = "report.ready"
	Test              = "test"
)

// Event is something to tell. Its texts may hold whatever a stranger wrote into
// a log: every channel neutralises them in its own way.
type Event struct {
	// ID is the same on every try, and on every machine that tells the same.
	ID       string    `json:"id"`
	Type     string    `json:"type"`
	Time     time.Time `json:"timestamp"`
	Severity string    `json:"severity"`
	// Title is one line, Summary a sentence or two for people.
	Title   string  `json:"title"`
	Summary string  `json:"summary"`
	Fields  []Field `json:"fields"`
	// Lines, if not nil, are the text that a template has made in place of Summary
	// and Fields.
	Lines []string `json:"lines,omitempty"`
	// Next is the command that shows more, Link a page that does.
	Next string `json:"next"`
	Link string `json:"link,omitempty"`
	// Path is that of the page, below the address at which this program serves it.
	Path string `json:"path,omitempty"`
	// Subject is the finding or incident that it is about, and Group what it has in
	// common with others: places that keep one record for many put them together.
	Subject string `json:"subject,omitempty"`
	Group   string `json:"group,omitempty"`
	// Data is the document for programs: {"finding": {…}} or {"incident": {…}}.
	Data json.RawMessage `json:"data"`
	// Files go with it where a channel takes some.
	Files []File `json:"files,omitempty"`
}

// File is a file that goes with an event.
type File struct {
	Name string `json:"name"`
	Type string `json:"type"` // media type
	Data []byte `json:"data"`
}

// Field is one fact about an event, for people.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Address is where to tell something, and when.
type Address struct {
	Channel string
	// Due is when; zero: at once.
	Due time.Time
	// Digest: as a part of a digest that is due then.
	Digest bool
}

// About is what an event is about, as routes look at it.
type About struct {
	// Class is finding, integrity or operational; Kind a verdict, or the kind of
	// an incident.
	Class, Kind, Severity, Watch string
}

// ClassFinding is the Class of events that tell of findings.
const ClassFinding = "finding"

// Delivery is an event for one channel.
type Delivery struct {
	Address
	Event Event
}

// Body returns the document that webhooks post and files hold, with the event's
// id in it where withID is set. Invisible characters in it are escaped.
func (e Event) Body(withID bool) ([]byte, error) {
	doc := struct {
		ID        string          `json:"id,omitempty"`
		Type      string          `json:"type"`
		Timestamp time.Time       `json:"timestamp"`
		Data      json.RawMessage `json:"data"`
	}{Type: e.Type, Timestamp: e.Time.UTC(), Data: e.Data}
	if withID {
		doc.ID = e.ID
	}
	body, err := json.Marshal(doc)
	return EscapeJSON(body), err
}

// Notifier is one channel. Notify may be called again with an event that went
// through before: it is safe to repeat for the same Event.ID.
type Notifier interface {
	// Notify delivers one event. It returns nil once the other side has
	// accepted it, a *RetryError with the wait that it asked for, an error that
	// is ErrRefused when trying again is of no use, or any other error.
	Notify(ctx context.Context, e Event) error
}

// GroupKey names what findings of a watch have in common that were judged for one
// cause.
func GroupKey(watch, cause string) string {
	sum := sha256.Sum256([]byte(watch + "\x00" + cause))
	return hex.EncodeToString(sum[:8])
}

// ShellQuoted makes a word fit to be pasted into a shell.
func ShellQuoted(word string) string {
	if word != "" && strings.IndexFunc(word, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+=,", r))
	}) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
