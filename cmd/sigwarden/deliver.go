package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

// drainFor is how long a command that is no daemon tries to deliver.
const drainFor = 30 * time.Second

// dispatcher delivers what is in the outbox of a store.
func (s *setup) dispatcher(st *store.Store, log *slog.Logger) *notify.Dispatcher {
	return notify.NewDispatcher(&outbox{st, s}, s.channels, log)
}

// deliver lets a dispatcher run until ctx ends, or with once until nothing
// waits any more. Two processes on one state would send everything twice: with
// wait it waits for the other one to end, else it leaves the work to it.
func (s *setup) deliver(ctx context.Context, st *store.Store, d *notify.Dispatcher, log *slog.Logger, once, wait bool) {
	release, ok, err := st.DeliveryLock(ctx, wait)
	if err != nil {
		log.Error("notifications cannot be delivered", "error", err)
	}
	if err != nil || !ok {
		return
	}
	defer release()
	if err := s.abandon(ctx, st, log); err != nil {
		log.Error("the outbox cannot be read", "error", err)
	}
	if once {
		d.Drain(ctx)
	} else {
		d.Run(ctx)
	}
}

// abandon gives up what waits for channels that are no longer configured, and
// says so.
func (s *setup) abandon(ctx context.Context, st *store.Store, log *slog.Logger) error {
	waiting, err := st.Waiting(ctx)
	if err != nil {
		return err
	}
	for _, name := range waiting {
		if slices.Contains(s.names, name) {
			continue
		}
		log.Error("notifications wait for a channel that is no longer configured; they are given up", "channel", name)
		inc := monitor.ChannelGone(name, time.Now(), s.hearsHealth())
		if err := st.Abandon(ctx, name, "the channel is no longer configured", inc); err != nil {
			return err
		}
	}
	return nil
}

// outbox is the store's, with the incident that a given-up delivery opens, and
// that the next one which is accepted resolves.
type outbox struct {
	*store.Store
	setup *setup
}

// broken returns the open incident of a channel that refused a delivery.
func (o *outbox) broken(ctx context.Context, channel string) (*monitor.Incident, error) {
	open, err := o.OpenIncidents(ctx, "")
	if err != nil {
		return nil, err
	}
	for i := range open {
		if monitor.IsDeliveryFailed(open[i], channel) {
			return &open[i], nil
		}
	}
	return nil, nil
}

// Fail implements notify.Outbox. One open incident a channel is enough.
func (o *outbox) Fail(ctx context.Context, q notify.Queued, at time.Time, reason string) error {
	open, err := o.broken(ctx, q.Channel)
	if err != nil {
		return err
	}
	if open != nil {
		return o.FailDelivery(ctx, q, reason, nil)
	}
	inc := monitor.DeliveryFailed(q, reason, at, o.setup.hearsHealth())
	return o.FailDelivery(ctx, q, reason, &inc)
}

// calmFor is how long nothing must have been given up before a channel that accepts
// again is taken for mended: one that refuses every other event is not.
const calmFor = 30 * time.Minute

// Delivered implements notify.Outbox.
func (o *outbox) Delivered(ctx context.Context, q notify.Queued, at time.Time) error {
	if err := o.Store.Delivered(ctx, q, at); err != nil {
		return err
	}
	return o.mended(ctx, q.Channel, at)
}

// mended resolves the incident of a channel that has accepted something since it was
// last given something up for, a while ago.
func (o *outbox) mended(ctx context.Context, channel string, now time.Time) error {
	open, err := o.broken(ctx, channel)
	if err != nil || open == nil {
		return err
	}
	works, calm, err := o.Mended(ctx, channel, now)
	if err != nil || !works || calm < calmFor {
		return err
	}
	return o.Record(ctx, nil, []monitor.Resolution{monitor.DeliveryWorks(*open, channel, now, o.setup.hearsHealth())})
}

// lookForMended resolves the incidents of channels that work again, until ctx ends: the
// next notification may be days away.
func (s *setup) lookForMended(ctx context.Context, st *store.Store, log *slog.Logger, wake func()) {
	o := &outbox{st, s}
	for pause(ctx, calmFor/6) {
		for _, name := range s.names {
			if err := o.mended(ctx, name, time.Now()); err != nil && ctx.Err() == nil {
				log.Error("whether a channel works again cannot be read", "channel", name, "error", err)
			}
		}
		wake()
	}
}

// integrity returns the channels that hear of integrity incidents.
func (s *setup) integrity() []string {
	if s.cfg.Notify.Incidents == nil {
		return s.names
	}
	return s.cfg.Notify.Incidents
}

// health returns the channels that hear of operational incidents.
func (s *setup) health() []string {
	if s.cfg.Notify.Health == nil {
		return s.names
	}
	return s.cfg.Notify.Health
}

// hearsHealth is who hears of operational incidents.
func (s *setup) hearsHealth() monitor.Audience {
	return monitor.Audience{Channels: s.health(), Route: s.routes.Route}
}

// leftover says how many notifications wait for channels that are configured, save
// those that are held back until later.
func (s *setup) leftover(ctx context.Context, st *store.Store) (int, error) {
	channels, err := st.Channels(ctx, s.names)
	n := 0
	for _, c := range channels {
		n += c.Due
	}
	return n, err
}

// finish ends a command with a status, the highest if an integrity incident of
// a log that is configured is open.
func (s *setup) finish(ctx context.Context, st *store.Store, log *slog.Logger, code int) error {
	open, err := st.UnresolvedIntegrity(ctx)
	if err != nil {
		return err
	}
	for _, inc := range open {
		if s.current.Follows(inc) {
			code = exitIntegrity
		} else {
			log.Warn("an integrity incident of something that is no longer configured is open", "log", inc.Log, "show", "sigwarden incidents show "+inc.ID)
		}
	}
	if code == exitOK {
		return nil
	}
	return &status{code: code}
}

// withConfig completes a command that the user is to paste.
func (a *app) withConfig(command string) string {
	if a.configPath == "" {
		return command
	}
	return command + " -c " + notify.ShellQuoted(a.configPath)
}

// scanHint is the command that closes a range which was not covered.
func (a *app) scanHint(u monitor.Uncovered) string {
	return a.withConfig(fmt.Sprintf("sigwarden scan --log %s --from %d --to %d", notify.ShellQuoted(u.Log), u.From, u.To))
}

// resumeHint is the command that lets a halted log go on.
func (a *app) resumeHint(log, incident string) string {
	return a.withConfig(fmt.Sprintf("sigwarden logs resume %s --incident %s", notify.ShellQuoted(log), incident))
}

var errNoChannels = errors.New("no channel is configured")
