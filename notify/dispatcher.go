package notify

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// Outbox holds deliveries until they are done. Its methods are atomic and
// durable, and may be called by several goroutines at a time.
type Outbox interface {
	// Due returns up to limit deliveries of a channel that are due, and when the
	// next one after them is (zero: nothing else waits).
	Due(ctx context.Context, channel string, now time.Time, limit int) (due []Queued, next time.Time, err error)
	// Delivered takes a delivery out of the queue.
	Delivered(ctx context.Context, q Queued, at time.Time) error
	// Retry puts a delivery off.
	Retry(ctx context.Context, q Queued, due time.Time, reason string) error
	// Fail gives a delivery up for good, and says so somewhere else.
	Fail(ctx context.Context, q Queued, at time.Time, reason string) error
}

// Channel is a configured place to notify.
type Channel struct {
	Name string
	Notifier
}

const (
	// giveUpAfter is how long a delivery is tried.
	giveUpAfter = 72 * time.Hour
	// maxWait bounds the wait between two tries, maxAsked the one that the other
	// side may ask for.
	maxWait  = 5 * time.Minute
	maxAsked = time.Hour
	// tryFor bounds one try.
	tryFor = 20 * time.Second
	// batch is how many deliveries are read from the outbox at a time.
	batch = 32
	// storeAgain is the wait after the outbox could not be read.
	storeAgain = 5 * time.Second
)

// Dispatcher delivers what is in the outbox, one lane a channel, so that a dead
// channel delays nothing but itself. While nothing is due it sleeps, and costs
// nothing.
type Dispatcher struct {
	outbox Outbox
	lanes  []*lane
	log    *slog.Logger

	mu     sync.Mutex
	counts map[[2]string]int64
}

// Outcomes of tries, as Counts names them.
const (
	Delivered = "delivered"
	Retried   = "retried"
	Failed    = "failed"
)

// Counts returns how many tries came to which outcome, by channel and outcome.
func (d *Dispatcher) Counts() map[[2]string]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.counts)
}

func (d *Dispatcher) count(channel, outcome string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts[[2]string{channel, outcome}]++
}

type lane struct {
	Channel
	wake chan struct{}
}

// NewDispatcher returns a dispatcher for the channels.
func NewDispatcher(outbox Outbox, channels []Channel, log *slog.Logger) *Dispatcher {
	d := &Dispatcher{outbox: outbox, log: log, counts: map[[2]string]int64{}}
	for _, c := range channels {
		d.lanes = append(d.lanes, &lane{c, make(chan struct{}, 1)})
	}
	return d
}

// Wake tells the dispatcher that something was put into the outbox.
func (d *Dispatcher) Wake() {
	for _, l := range d.lanes {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// Run delivers until ctx ends, and returns when every lane has stopped.
func (d *Dispatcher) Run(ctx context.Context) { d.each(func(l *lane) { d.run(ctx, l, false) }) }

// Drain delivers until nothing waits any more, or ctx ends.
func (d *Dispatcher) Drain(ctx context.Context) { d.each(func(l *lane) { d.run(ctx, l, true) }) }

func (d *Dispatcher) each(f func(*lane)) {
	var wg sync.WaitGroup
	for _, l := range d.lanes {
		wg.Go(func() { f(l) })
	}
	wg.Wait()
}

func (d *Dispatcher) run(ctx context.Context, l *lane, once bool) {
	for ctx.Err() == nil {
		now := time.Now()
		due, next, err := d.outbox.Due(ctx, l.Name, now, batch)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			d.log.Error("the outbox cannot be read; tried again soon", "channel", l.Name, "error", err)
			next = now.Add(storeAgain)
		}
		for _, q := range due {
			if ctx.Err() != nil {
				return
			}
			if err := d.deliver(ctx, l, q); err != nil {
				d.log.Error("the outcome of a delivery cannot be stored; it may be sent again", "channel", l.Name, "event", q.Event.ID, "error", err)
				next = now.Add(storeAgain)
				due = nil
				break
			}
		}
		if len(due) > 0 {
			continue // more may be due, and what failed has a time of its own now
		}
		if next.IsZero() && once {
			return
		}
		if !d.sleep(ctx, l, next) {
			return
		}
	}
}

// sleep waits for a time (zero: for ever), or until something is put into the
// outbox.
func (d *Dispatcher) sleep(ctx context.Context, l *lane, until time.Time) bool {
	var due <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-due:
	case <-l.wake:
	case <-ctx.Done():
		return false
	}
	return true
}

// deliver tries one delivery and books the outcome. Its error is the outbox's.
func (d *Dispatcher) deliver(ctx context.Context, l *lane, q Queued) error {
	try, cancel := context.WithTimeout(ctx, tryFor)
	err := l.Notify(try, q.Event)
	cancel()
	if err != nil && ctx.Err() != nil {
		return nil // stopped in the middle: it stays in the outbox
	}
	// Whatever was delivered is booked even while the process is stopping.
	book, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	now := time.Now()
	if err == nil {
		d.count(l.Name, Delivered)
		return d.outbox.Delivered(book, q, now)
	}
	if errors.Is(err, ErrRefused) || now.Sub(q.Created) >= giveUpAfter {
		d.count(l.Name, Failed)
		d.log.Error("a notification was given up for good", "channel", l.Name, "event", q.Event.ID, "attempts", q.Attempts+1, "error", err)
		return d.outbox.Fail(book, q, now, err.Error())
	}
	d.count(l.Name, Retried)
	wait := waitAfter(q.Attempts + 1)
	var asked *RetryError
	if errors.As(err, &asked) && asked.After > 0 {
		wait = min(asked.After, maxAsked)
	}
	d.log.Warn("a notification was not accepted; it is tried again", "channel", l.Name, "event", q.Event.ID, "attempts", q.Attempts+1, "wait", wait, "error", err)
	return d.outbox.Retry(book, q, now.Add(wait), err.Error())
}

// waitAfter is the wait after the nth try: the first five fall within 15
// seconds, then it doubles up to five minutes.
func waitAfter(n int) time.Duration {
	early := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 7 * time.Second}
	if n <= len(early) {
		return early[max(n, 1)-1]
	}
	return min(15*time.Second<<min(n-len(early)-1, 10), maxWait)
}
