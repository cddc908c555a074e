package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/web"
	"github.com/sigwarden/sigwarden/watchlist"
)

const (
	// tryFor bounds how long a rule is tried; triedShown how many findings of a log are
	// returned.
	tryFor     = 20 * time.Second
	triedShown = 20
)

// trials tries rules, one at a time: each asks every log for its newest entries.
type trials struct {
	engine *monitor.Engine
	mu     sync.Mutex
}

// try says what a watch, as the configuration has it, finds among the newest entries.
func (t *trials) try(ctx context.Context, rule string) ([]web.Trial, error) {
	w, err := config.ParseWatch("rule", []byte(rule))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", web.ErrInvalid, err)
	}
	list, err := watchlist.Compile([]watchlist.Watch{{Name: w.Name, Match: itemsTo(w.Match), Expect: itemsTo(w.Expect), Untrusted: w.Untrusted}})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", web.ErrInvalid, err)
	}
	if !t.mu.TryLock() {
		return nil, web.ErrBusy
	}
	defer t.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	found, err := t.engine.Try(ctx, list, triedShown)
	out := []web.Trial{}
	for _, f := range found {
		one := web.Trial{Log: f.Log, Read: f.Read, Matches: f.Matches, Of: f.Of}
		if f.Err != nil {
			one.Error = "not all could be read: " + f.Err.Error()
		}
		out = append(out, one)
	}
	return out, err
}

func itemsTo(list []config.Item) (out []watchlist.Item) {
	for _, it := range list {
		out = append(out, watchlist.Item(it))
	}
	return out
}
