package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sigwarden/sigwarden/internal/crash"
)

// Channel is a configured place to notify.
type Channel struct {
	Name string
	Notifier
	// Grouping is how what comes in a flood is grouped for people; nil: programs
	// read it, and get every event.
	Grouping *Grouping
}

// Grouping bounds the messages to people.
type Grouping struct {
	// Window is the time in which messages are counted, Most how many come on their
	// own in it.
	Window time.Duration
	Most   int
	// Settle is how long what is too much is gathered before it is folded.
	Settle time.Duration
	// Fold makes few events of groups.
	Fold func(groups []Group, digest bool, now time.Time) []Event
}

const (
	// giveUpAfter is how long a delivery is tried, and leastTries how often at
	// least: a program that was off for days has tried nothing.
	giveUpAfter = 72 * time.Hour
	leastTries  = 8
	// maxWait bounds the wait between two tries, maxAsked the one that the other
	// side may ask for.
	maxWait  = 5 * time.Minute
	maxAsked = 24 * time.Hour
	// tryFor bounds one try.
	tryFor = 20 * time.Second
	// width is how many deliveries of a lane are tried at a time: one that hangs
	// must not hold up the others.
	width = 4
	// batch is how many deliveries are read from the outbox at a time.
	batch = 32
	// storeAgain is the wait after the outbox could not be read or written.
	storeAgain = 5 * time.Second
)

// Unattended is how much of a time in which nobody delivered counts as time in which a delivery was
// tried in vain: whoever runs the program once a week is told that a channel is dead, and nothing is
// given up because the program was off.
const Unattended = maxAsked

// ClockError is by how much a clock is set, at most, that is only kept right.
const ClockError = 2 * time.Second

// Dispatcher delivers what is in the outbox, one lane a channel, so that a dead
// channel delays nothing but itself. While nothing is due it sleeps, and costs
// nothing. Of two processes with one outbox, one only may run a dispatcher.
type Dispatcher struct {
	// Now is the clock, that of the machine unless it is set before Run.
	Now func() time.Time

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

func (d *Dispatcher) failures() (n int64) {
	for key, count := range d.Counts() {
		if key[1] == Failed {
			n += count
		}
	}
	return n
}

// NewDispatcher returns a dispatcher for the channels.
func NewDispatcher(outbox Outbox, channels []Channel, log *slog.Logger) *Dispatcher {
	d := &Dispatcher{Now: time.Now, outbox: outbox, log: log, counts: map[[2]string]int64{}}
	for _, c := range channels {
		l := &lane{Channel: c, d: d, wake: make(chan struct{}, 1), width: width}
		if oneAtATime(c.Notifier) {
			l.width = 1
		}
		d.lanes = append(d.lanes, l)
		for _, outcome := range []string{Delivered, Retried, Failed} {
			d.counts[[2]string{c.Name, outcome}] = 0
		}
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
func (d *Dispatcher) Run(ctx context.Context) { d.each(func(l *lane) { l.run(ctx, false) }) }

// Drain delivers until nothing waits any more, or ctx ends.
func (d *Dispatcher) Drain(ctx context.Context) {
	for {
		before := d.failures()
		d.each(func(l *lane) { l.run(ctx, true) })
		if d.failures() == before || ctx.Err() != nil {
			return
		}
		// What was given up is told to other channels, whose lanes may have ended.
	}
}

func (d *Dispatcher) each(f func(*lane)) {
	var wg sync.WaitGroup
	for _, l := range d.lanes {
		wg.Go(func() { f(l) })
	}
	wg.Wait()
}

// lane delivers to one channel. One goroutine owns it; tries run beside it:
//
//	outbox ─ Due ─> lane ─> up to width tries ─> done ─> lane ─ book ─> outbox
type lane struct {
	Channel
	d    *Dispatcher
	wake chan struct{}
	// held are deliveries that must not be begun now: those being tried, and
	// those whose outcome is not in the outbox yet.
	held  map[string]bool
	tried chan outcome
	width int
	// overSince is since when more waits than the window has room for.
	overSince time.Time
	// unbooked are outcomes that the outbox could not take.
	unbooked []outcome
	// clock is what the clock of the machine said last, when it was looked at; zero: not yet.
	clock, looked time.Time
}

// outcome is what a try came to.
type outcome struct {
	q       Queued
	age     time.Duration // of the delivery, when the try began
	started time.Time
	err     error
	stopped bool // in the middle: it stays in the outbox
}

func (l *lane) run(ctx context.Context, once bool) {
	l.held, l.tried, l.unbooked = map[string]bool{}, make(chan outcome), nil
	flying := 0
	defer func() {
		for ; flying > 0; flying-- {
			l.book(ctx, <-l.tried)
		}
	}()
	var ready []Queued // read, and not begun
	var next time.Time
	for ctx.Err() == nil {
		l.bookAgain(ctx)
		now := l.d.Now()
		if len(ready) == 0 {
			err := l.checkClock(ctx, now)
			if err == nil {
				ready, next, err = l.read(ctx, now, once)
			}
			if err != nil {
				if ctx.Err() != nil {
					return
				}
				l.d.log.Error("the outbox cannot be read; tried again soon", "channel", l.Name, "error", err)
				next = now.Add(storeAgain)
			}
		}
		for len(ready) > 0 && flying < l.width {
			l.held[ready[0].Event.ID] = true
			flying++
			// By the clock by which it was put there, whatever is done to that until the outcome is known.
			age := l.clock.Sub(ready[0].Created) - ready[0].Idle + time.Since(l.looked)
			go l.try(ctx, ready[0], age)
			ready = ready[1:]
		}
		until := next
		if len(l.unbooked) > 0 {
			until = sooner(next, now.Add(storeAgain))
		}
		if once && flying == 0 && beyond(ctx, until) {
			return
		}
		done, more := l.wait(ctx, until)
		flying -= done
		if more {
			ready = nil // what is due comes in its order
		}
	}
}

// checkClock looks at whether the clock of the machine was set: what waits for a time that only a wrong
// clock had reached would wait for that long, and what was put there before it jumped ahead would be given
// up as old.
func (l *lane) checkClock(ctx context.Context, now time.Time) error {
	looked := time.Now()
	now = now.Round(0) // what the clock says, not what has passed
	if l.clock.IsZero() {
		if err := l.d.outbox.Resume(ctx, l.Name, now); err != nil {
			return err
		}
	} else if by := now.Sub(l.clock) - looked.Sub(l.looked); by.Abs() > ClockError {
		if err := l.d.outbox.ClockStepped(ctx, l.Name, now, by); err != nil {
			return err
		}
		l.d.log.Warn("the clock was set; what waits to be notified moves along", "channel", l.Name, "by", by.Round(time.Second))
	}
	l.clock, l.looked = now, looked
	return nil
}

// beyond reports whether nothing is to be done any more before ctx ends: until is when
// the next thing is, zero for never.
func beyond(ctx context.Context, until time.Time) bool {
	if until.IsZero() {
		return true
	}
	ends, ok := ctx.Deadline()
	return ok && until.After(ends)
}

// read returns the deliveries that are due and not held, and when there will be
// more.
func (l *lane) read(ctx context.Context, now time.Time, once bool) ([]Queued, time.Time, error) {
	nothing, later, err := l.prepare(ctx, now, once)
	if err != nil || nothing {
		return nil, later, err
	}
	due, next, err := l.d.outbox.Due(ctx, l.Name, now, batch, l.held)
	return due, sooner(next, later), err
}

// wait sleeps until a time (zero: for ever), until something is put into the
// outbox, or until a try is done; it returns the number of tries that are, and
// whether more may be due.
func (l *lane) wait(ctx context.Context, until time.Time) (done int, more bool) {
	var due <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(until.Sub(l.d.Now()))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case out := <-l.tried:
		l.book(ctx, out)
		return 1, false
	case <-due:
	case <-l.wake:
	case <-ctx.Done():
	}
	return 0, true
}

// tracer makes a span of each try, where somebody collects them.
var tracer = otel.Tracer("github.com/sigwarden/sigwarden/notify")

// try makes one try.
func (l *lane) try(ctx context.Context, q Queued, age time.Duration) {
	out := outcome{q: q, age: age, started: time.Now()}
	try, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	try, span := tracer.Start(try, "deliver", trace.WithAttributes(attribute.String("sigwarden.channel", q.Channel), attribute.String("sigwarden.event", q.Event.Type), attribute.Int("sigwarden.attempts", q.Attempts)))
	crash.Before("a delivery")
	out.err = l.notify(try, q.Event)
	crash.After("a delivery")
	if out.err != nil {
		span.SetStatus(codes.Error, out.err.Error())
	}
	span.End()
	out.stopped = out.err != nil && ctx.Err() != nil
	l.tried <- out
}

// notify is Notify, of which a library may make something that is not to end the program: strangers have
// written some of what is told, and it stays in the outbox.
func (l *lane) notify(ctx context.Context, e Event) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			// What a library says there may hold what it was given, a secret in an address too.
			what := fmt.Sprintf("%T", fault)
			if bug, ok := fault.(runtime.Error); ok {
				what = bug.Error()
			}
			l.d.log.Error("what sends notifications has failed in a way of its own; the notification is tried again. Please report this", "channel", l.Name, "event", e.ID, "fault", what, "stack", string(debug.Stack()))
			err = fmt.Errorf("what sends it has failed in a way of its own: %s", what)
		}
	}()
	return l.Notify(ctx, e)
}

// bookAgain puts into the outbox what it could not take before. None of it is
// sent again meanwhile.
func (l *lane) bookAgain(ctx context.Context) {
	again := l.unbooked
	l.unbooked = nil
	for _, out := range again {
		l.book(ctx, out)
	}
}

// book puts the outcome of a try into the outbox, even while the process is
// stopping.
func (l *lane) book(ctx context.Context, out outcome) {
	if out.stopped {
		delete(l.held, out.q.Event.ID)
		return
	}
	book, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	result, err := l.settle(book, out)
	if err != nil {
		l.unbooked = append(l.unbooked, out)
		l.d.log.Error("the outcome of a delivery cannot be stored; that is tried again, and it may be sent again after a restart", "channel", l.Name, "event", out.q.Event.ID, "error", err)
		return
	}
	delete(l.held, out.q.Event.ID)
	l.d.count(l.Name, result)
	if result == Failed {
		l.d.Wake() // other channels are told
	}
}

func (l *lane) settle(ctx context.Context, out outcome) (string, error) {
	q, now := out.q, l.d.Now()
	if out.err == nil {
		return Delivered, l.d.outbox.Delivered(ctx, q, now)
	}
	if errors.Is(out.err, ErrPartly) {
		if err := l.d.outbox.Accepted(ctx, l.Name, now); err != nil {
			return "", err
		}
	}
	log := l.d.log.With("channel", l.Name, "event", q.Event.ID, "attempts", q.Attempts+1, "error", out.err)
	if errors.Is(out.err, ErrRefused) || out.age+time.Since(out.started) >= giveUpAfter && q.Attempts+1 >= leastTries {
		log.Error("a notification was given up for good")
		return Failed, l.d.outbox.Fail(ctx, q, now, out.err.Error())
	}
	// Waits count from the beginning of a try, so that slow refusals do not put
	// the next ones off, whatever was done to the clock meanwhile.
	due := now.Add(waitAfter(q.Attempts+1) - time.Since(out.started))
	var asked *RetryError
	if errors.As(out.err, &asked) {
		if until := now.Add(min(asked.After, maxAsked)); until.After(due) {
			due = until
		}
	}
	log.Warn("a notification was not accepted; it is tried again", "wait", max(due.Sub(now), 0).Round(100*time.Millisecond))
	return Retried, l.d.outbox.Retry(ctx, q, due, out.err.Error())
}

// waitAfter is the wait after the nth try began: the first five fall within 15
// seconds, then it doubles up to five minutes.
func waitAfter(n int) time.Duration {
	early := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 6 * time.Second}
	if n <= len(early) {
		return early[max(n, 1)-1]
	}
	return min(15*time.Second<<min(n-len(early)-1, 10), maxWait)
}
