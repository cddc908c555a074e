package notify

import (
	"context"
	"time"
)

// Queued is a delivery that waits in the outbox.
type Queued struct {
	Channel  string
	Event    Event
	Attempts int       // so far
	Created  time.Time // when it was put there
	// Idle is how long since then nobody could have tried it, but for Unattended each time.
	Idle time.Duration
}

// Outbox holds deliveries until they are done. Its methods are atomic and
// durable, and may be called by several goroutines at a time.
type Outbox interface {
	// Due returns up to limit deliveries of a channel that are due, but for those
	// that are held, by the ids of their events, and when the next one after all of
	// these is (zero: nothing else waits). Of those that have their subject in common
	// it returns the first, or none if that is held: a beginning is told before its end.
	Due(ctx context.Context, channel string, now time.Time, limit int, held map[string]bool) (due []Queued, next time.Time, err error)
	// Delivered takes a delivery out of the queue.
	Delivered(ctx context.Context, q Queued, at time.Time) error
	// Accepted notes that a channel has accepted something.
	Accepted(ctx context.Context, channel string, at time.Time) error
	// Retry puts a delivery off.
	Retry(ctx context.Context, q Queued, due time.Time, reason string) error
	// Fail gives a delivery up for good, and says so somewhere else.
	Fail(ctx context.Context, q Queued, at time.Time, reason string) error
	// Resume is called when somebody begins to look after a channel, and the clock shows now. If
	// anything there is from more than ClockError after now the clock was set back meanwhile, and
	// it is as after ClockStepped, but that nothing that was put off waits. Of a time in which
	// nothing was tried Unattended counts, and makes what waits older.
	Resume(ctx context.Context, channel string, now time.Time) error
	// ClockStepped moves the times of what waits for a channel along with a clock that was set
	// by so much, and now shows now: it is as old as it was, and waits no longer than it would
	// have. What waits for an hour of the day still does, but comes earlier if it was put there
	// by a clock that was set back.
	ClockStepped(ctx context.Context, channel string, now time.Time, by time.Duration) error
	Rolls
}

// Rolls are deliveries that wait many in one row, since there may be very many:
// anybody can log what matches a watch. They are unrolled into deliveries of
// their own, or folded into few.
type Rolls interface {
	// Rolled returns how things stand for a channel.
	Rolled(ctx context.Context, channel string, now time.Time) (Waiting, error)
	// Unroll makes up to limit deliveries of what waits rolled up and is due, the
	// oldest first, and returns how many it made.
	Unroll(ctx context.Context, channel string, now time.Time, limit int) (int, error)
	// Fold puts the events that fold returns in the place of everything that
	// waits rolled up and is due; with digest, of everything that is to become a
	// part of a digest and is due.
	Fold(ctx context.Context, channel string, now time.Time, digest bool, fold func([]Group) []Event) error
	// Release makes deliveries of their own of what was to become a part of a
	// digest.
	Release(ctx context.Context, channel string) error
	// SetWindow keeps the window of a channel.
	SetWindow(ctx context.Context, channel string, w Window) error
}

// Waiting is what waits for a channel.
type Waiting struct {
	// Nothing waits, neither now nor for later.
	Nothing bool
	// Fresh are deliveries that are due and were not tried yet, Stuck those that were
	// tried in vain; Rolled what is due and rolled up; Digest what is due for a digest.
	Fresh, Stuck, Rolled, Digest int
	// FirstStuck and LastStuck are when the oldest and the newest of those were put
	// there, LastSuccess when the channel accepted something.
	FirstStuck, LastStuck, LastSuccess time.Time
	// Next is when more of what is rolled up, or of a digest, will be due; zero:
	// never.
	Next   time.Time
	Window Window
}

// dead reports whether nothing was accepted since what is stuck began to be tried:
// else it is the events that are not accepted, and the channel works.
func (w *Waiting) dead() bool { return w.Stuck > 0 && !w.LastSuccess.After(w.LastStuck) }

// Window is a stretch of time in which the messages to people are counted.
type Window struct {
	Start time.Time
	// Sent are the messages that were accepted in it.
	Sent int
	// Folded: what was too much for it was folded once. Over: there is more.
	Folded, Over bool
}

// Group is findings, or incidents, that have their reason in common.
type Group struct {
	// About is what they have in common; Cause their reason.
	About
	Cause string
	Count int
	// First are the first few of them, one line each; Next a command that lists
	// all.
	First        []string
	Since, Until time.Time
}
