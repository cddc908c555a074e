package notify

import "time"

// Queued is a delivery that waits in the outbox.
type Queued struct {
	Channel  string
	Event    Event
	Attempts int       // so far
	Created  time.Time // when it was put there
}
