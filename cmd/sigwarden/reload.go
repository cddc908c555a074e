package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/monitor/store"
)

// A daemon takes a new configuration when it gets SIGHUP, or when `config reload` leaves a request
// beside the state. A signal to a process id of a file could hit another one: that of another
// container, or of what came after.
const (
	requestSuffix = "-reload"   // a token, made by the command
	answerSuffix  = "-reloaded" // a reloadAnswer, made by the daemon
	// lookEvery is how often requests are looked for, answerWithin how long the command waits.
	lookEvery    = time.Second
	answerWithin = time.Minute
)

// reloadAnswer says what became of a request.
type reloadAnswer struct {
	Request string `json:"request"`
	Refused string `json:"refused,omitempty"` // why; empty: the configuration is in force
}

// follow runs the daemon, and again with every new configuration. What is wrong with one leaves the
// old one in force. Nothing is missed between them: both go on from the state.
func (a *app) follow(ctx context.Context, s *setup, st *store.Store, log *slog.Logger) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	os.Remove(s.cfg.State + requestSuffix) // of a daemon that is gone
	var old *setup                         // what to go back to
	request := ""
	for {
		life, stop := context.WithCancel(ctx)
		var next *setup
		var asked string
		var waiting sync.WaitGroup
		started := make(chan struct{})
		waiting.Go(func() {
			// A configuration comes into force as a whole, and then the next may come.
			select {
			case <-started:
			case <-life.Done():
				return
			}
			next, asked = a.newSetup(life, s.cfg.State, hup, log)
			stop()
		})
		begun := false
		err := a.daemon(life, s, st, log, func() {
			begun = true
			if old != nil {
				log.Info("the new configuration is in force")
				answer(s.cfg.State, reloadAnswer{Request: request}, log)
			}
			close(started)
		})
		stop()
		waiting.Wait()
		switch {
		case ctx.Err() != nil && (err == nil || old != nil && !begun):
			log.Info("stopped cleanly")
			return nil
		case err != nil && (begun || old == nil):
			return err
		case err != nil:
			log.Error("the new configuration could not be put in force, and the old one goes on", "error", err)
			answer(s.cfg.State, reloadAnswer{Request: request, Refused: err.Error()}, log)
			s, old, request = old, nil, ""
		case next != nil:
			s, old, request = next, s, asked
		default:
			return nil
		}
	}
}

// newSetup waits for a configuration that can be used; nil: the daemon stops.
func (a *app) newSetup(ctx context.Context, state string, hup <-chan os.Signal, log *slog.Logger) (next *setup, request string) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		request = ""
		select {
		case <-ctx.Done():
			return nil, ""
		case <-hup:
		case <-tick.C:
			token, err := os.ReadFile(state + requestSuffix)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				log.Error("a request to take the configuration cannot be read, and is removed; ask as the user that the daemon runs as", "error", errors.Join(err, os.Remove(state+requestSuffix)))
			}
			if err != nil || len(token) == 0 {
				continue
			}
			request = string(token)
		}
		s, err := a.load()
		if err == nil && s.cfg.State != state {
			err = fmt.Errorf("`state` is %s in it, and %s in the one that is in force: stop the program, and start it again, to change that", s.cfg.State, state)
		}
		if err == nil {
			for _, w := range s.warnings {
				log.Warn(w)
			}
			return s, request
		}
		log.Error("the new configuration is refused, and the old one goes on", "error", err)
		answer(state, reloadAnswer{Request: request, Refused: err.Error()}, log)
	}
}

// answer tells who has asked what became of it.
func answer(state string, a reloadAnswer, log *slog.Logger) {
	if a.Request == "" {
		return
	}
	data, err := json.Marshal(a)
	if err == nil {
		if err = os.WriteFile(state+answerSuffix+".new", data, 0o600); err == nil {
			err = errors.Join(store.OwnAs(state+answerSuffix+".new", state+requestSuffix), os.Rename(state+answerSuffix+".new", state+answerSuffix))
		}
	}
	if err := errors.Join(err, os.Remove(state+requestSuffix)); err != nil {
		log.Error("what became of the new configuration could not be told to who asked for it", "error", err)
	}
}

func (a *app) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reload", Short: "Have the daemon take the configuration as it is now", Args: cobra.NoArgs,
		Long: `Checks the configuration, has the daemon that runs on its state take it, and waits
until it is in force: nothing is missed meanwhile. Status 2: the configuration is
wrong, and the old one goes on. SIGHUP does the same; the log says what became of
it then. Another state takes a restart.`,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			running, err := store.Followed(s.cfg.State)
			if err != nil {
				return err
			}
			if !running {
				return fmt.Errorf("no daemon runs on %s: there is nothing to reload, `sigwarden run` takes the configuration as it is", s.cfg.State)
			}
			if err := a.requestReload(c.Context(), s.cfg.State); err != nil {
				return err
			}
			fmt.Fprintln(a.stderr, "the configuration is in force")
			return nil
		},
	}
}

// requestReload leaves a request beside the state, and waits for what becomes of it.
func (a *app) requestReload(ctx context.Context, state string) error {
	token := rand.Text()
	f, err := os.OpenFile(state+requestSuffix, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there: somebody else has asked for the same just now; try again, and remove it if it stays", state+requestSuffix)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(token)
	if err := errors.Join(err, store.OwnAs(f.Name(), state), f.Close()); err != nil {
		os.Remove(f.Name())
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			os.Remove(state + requestSuffix)
			return fmt.Errorf("the daemon has not answered: %w; its log says why", cmp.Or(context.Cause(ctx), ctx.Err()))
		case <-time.After(lookEvery / 10):
		}
		data, err := os.ReadFile(state + answerSuffix)
		if err != nil {
			continue
		}
		var got reloadAnswer
		if json.Unmarshal(data, &got) != nil || got.Request != token {
			continue // that of somebody else
		}
		os.Remove(state + answerSuffix)
		if got.Refused != "" {
			return usage(fmt.Errorf("the daemon refuses the configuration, and the old one goes on: %s", got.Refused))
		}
		return nil
	}
}
