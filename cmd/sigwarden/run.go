package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/web"
)

func (a *app) runCommand() *cobra.Command {
	var once, requireState, initState bool
	var timeout time.Duration
	var left outputs
	c := &cobra.Command{
		Use:   "run",
		Short: "Follow every log until stopped, or with --once make one full pass",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			if !once && left != (outputs{}) {
				return usage(errors.New("--summary and --sarif go with --once: they tell of one pass"))
			}
			log := a.logger()
			for _, w := range s.warnings {
				log.Warn(w)
			}
			sent, err := a.traces(c.Context(), log)
			if err != nil {
				return err
			}
			defer sent()
			st, err := store.Open(c.Context(), s.cfg.State, store.Options{Create: !requireState || initState, Exclusive: true, Version: version()})
			if errors.Is(err, store.ErrMissing) {
				return fmt.Errorf("%w, and --require-state was given: without it coverage would begin anew, with nothing known of what was seen before. Restore the file, or permit a new beginning with --init", err)
			}
			if err != nil {
				return err
			}
			defer st.Close()
			if st.Created {
				log.Warn("the state file did not exist and was created: coverage begins anew, at the place that each log's `start` names", "state", s.cfg.State)
			}
			if once {
				return a.once(c.Context(), s, st, log, timeout, left)
			}
			return a.follow(c.Context(), s, st, log)
		},
	}
	c.Flags().BoolVar(&once, "once", false, "make one full pass over every log and exit")
	c.Flags().DurationVar(&timeout, "timeout", 20*time.Second, "with --once: give up on a log after this time without progress")
	c.Flags().StringVar(&left.summary, "summary", "", "with --once: add what is open to this file, as Markdown")
	c.Flags().StringVar(&left.sarif, "sarif", "", "with --once: write what is open to this file, as SARIF 2.1.0")
	c.Flags().BoolVar(&requireState, "require-state", false, "fail if the state file does not exist")
	c.Flags().BoolVar(&initState, "init", false, "with --require-state: permit a new state file")
	return c
}

// daemon follows logs until ctx ends, and calls begun once all has begun.
func (a *app) daemon(ctx context.Context, s *setup, st *store.Store, log *slog.Logger, begun func()) error {
	dispatcher := s.dispatcher(st, log)
	cosigning, err := a.openWitness(ctx, s, st, log)
	if err != nil {
		return err
	}
	if cosigning != nil {
		defer cosigning.close()
		s.seen = cosigning.seen
	}
	engine, err := s.engine(ctx, st, log, dispatcher.Wake)
	if err != nil {
		return err
	}
	if cosigning != nil {
		cosigning.engine = engine
	}
	if err := s.beginLedger(ctx, st, engine, log); err != nil {
		return err
	}
	defer s.endLedger(ctx, st, log, false)
	a.sayUncovered(ctx, engine, st, log)
	var listener net.Listener
	if address := s.cfg.HTTP.Listen; address != "" {
		if listener, err = net.Listen("tcp", address); err != nil {
			return fmt.Errorf("http.listen: %w", err)
		}
	}
	// All three stop together: a daemon that serves health but monitors nothing
	// would be worse than one that is gone.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() { s.deliver(ctx, st, dispatcher, log, false, true) })
	if len(s.sources) > 0 {
		wg.Go(func() { s.lists.Run(ctx) })
	}
	wg.Go(func() { s.keepLedger(ctx, st, log.With("part", "ledger")) })
	wg.Go(func() { s.lookForMended(ctx, st, log, dispatcher.Wake) })
	for _, ch := range s.cfg.Notify.Channels {
		if ch.SelfTest.Schedule != nil {
			wg.Go(func() { s.selfTest(ctx, st, ch, log, dispatcher.Wake) })
		}
	}
	if s.cfg.Publish.Log != "" {
		wg.Go(func() { s.publishHeads(ctx, st, engine, log.With("part", "ledger")) })
	}
	for _, r := range s.cfg.Reports {
		wg.Go(func() { s.makeReports(ctx, st, r, log, dispatcher.Wake) })
	}
	if !s.cfg.Notify.Heartbeat.URL.IsZero() {
		wg.Go(func() {
			s.heartbeat(ctx, func(ctx context.Context) (monitor.Status, error) { return engine.Status(ctx, st, s.names) }, st.OpenByKind, log)
		})
	}
	if listener != nil {
		served, err := a.webOptions(ctx, s, st, engine, dispatcher, log)
		if err != nil {
			return err
		}
		server := web.New(served)
		log.Info("serving health and metrics", "address", listener.Addr().String())
		wg.Go(func() {
			if err := server.Serve(ctx, listener); err != nil {
				cancel(fmt.Errorf("serving http: %w", err))
			}
		})
	}
	if len(s.cfg.Sources) > 0 {
		wg.Go(func() { s.listen(ctx, engine, log.With("part", "sources")) })
	}
	if cosigning != nil {
		wg.Go(func() {
			if err := cosigning.run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	log.Info("following logs", "logs", s.describeLogs(), "watches", len(s.watches), "channels", len(s.channels), "version", version())
	begun()
	engine.Run(ctx)
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// sayUncovered names what the watches of today have not seen, and the command
// that closes it.
func (a *app) sayUncovered(ctx context.Context, engine *monitor.Engine, st *store.Store, log *slog.Logger) {
	missing, err := engine.Uncovered(ctx, st)
	if err != nil {
		log.Warn("coverage cannot be read", "error", err)
		return
	}
	for _, u := range missing {
		log.Warn("entries were read before a watch of today existed; scan them with it", "log", u.Log, "from", u.From, "to", u.To, "command", a.scanHint(u))
	}
}

// once makes one full pass.
func (a *app) once(ctx context.Context, s *setup, st *store.Store, log *slog.Logger, timeout time.Duration, left outputs) error {
	dispatcher := s.dispatcher(st, log)
	s.roots.eager = true
	engine, err := s.engine(ctx, st, log, dispatcher.Wake)
	if err != nil {
		return err
	}
	if err := s.beginLedger(ctx, st, engine, log); err != nil {
		return err
	}
	defer s.endLedger(ctx, st, log, true)
	s.forget(ctx, st, log)
	s.loadLists(ctx)
	code := exitOK
	for _, out := range engine.Once(ctx, timeout) {
		if out.Begun {
			log.Warn("this log was seen for the first time: coverage begins here", "log", out.Log, "index", out.From)
		}
		if out.Halted != "" {
			log.Error("the log is halted; look at the incident, then resume it", "log", out.Log,
				"show", a.withConfig("sigwarden incidents show "+out.Halted), "resume", a.resumeHint(out.Log, out.Halted))
		}
		if out.Missing {
			log.Error("entries of the signed tree could not be had; they are tried again at every poll", "log", out.Log, "show", "sigwarden status")
		}
		code = max(code, a.exitOf(out))
	}
	switch notifying, err := engine.Decide(ctx); {
	case ctx.Err() != nil:
		log.Warn("stopped before the end: the next run goes on where this one came to")
		code = max(code, exitFailed)
	case err != nil:
		log.Error("what is due could not be decided; the next run tries again", "error", err)
		code = max(code, exitFailed)
	case notifying > 0:
		code = max(code, exitFindings)
	}
	if ctx.Err() == nil {
		a.sayUncovered(ctx, engine, st, log)
	}
	drain, cancel := context.WithTimeout(ctx, drainFor)
	defer cancel()
	s.deliver(drain, st, dispatcher, log, true, true)
	// What happened is told even to somebody who stopped the program.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := left.write(last, s, st, engine); err != nil {
		log.Error("what is open could not be written down", "error", err)
		code = max(code, exitFailed)
	}
	pending, err := s.leftover(last, st)
	if err != nil {
		return err
	}
	if pending > 0 {
		log.Error("notifications were not accepted in time; they stay in the outbox", "pending", pending)
		code = max(code, exitFailed)
	}
	return s.finish(last, st, log, code)
}

// exitOf is the exit status that one log's pass calls for.
func (a *app) exitOf(out monitor.Outcome) int {
	switch {
	case out.Notifying > 0:
		return exitFindings
	case out.Err != nil || out.Missing:
		return exitFailed
	}
	return exitOK
}
