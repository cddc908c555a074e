// Package notify brings events to people and programs: a durable outbox, a
// dispatcher with one lane a channel, and the rendering that channels share.
package notify

import (
	"context"
	"encoding/json"
	"time"
)

// Types of events.
const (
	FindingUnexpected = "finding.unexpected"
	FindingMalformed  = "finding.malformed"
	FindingUntrusted  = "finding.untrusted"
	IncidentOpened    = "incident.opened"
	IncidentResolved  = "incident.resolved"
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
	// Next is the command that shows more.
	Next string `json:"next"`
	// Data is the document for programs: {"finding": {…}} or {"incident": {…}}.
	Data json.RawMessage `json:"data"`
}

// Field is one fact about an event, for people.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Delivery is an event for one channel.
type Delivery struct {
	Channel string
	Event   Event
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
	return escapeJSON(body), err
}

// Notifier is one channel. Notify may be called again with an event that went
// through before: it is safe to repeat for the same Event.ID.
type Notifier interface {
	// Notify delivers one event. It returns nil once the other side has
	// accepted it, a *RetryError with the wait that it asked for, an error that
	// is ErrRefused when trying again is of no use, or any other error.
	Notify(ctx context.Context, e Event) error
}
