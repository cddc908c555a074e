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
	// A rule that is tried is a stranger's to the process that reads the logs: it may be no
	// longer than maxRule bytes, and its regular expressions no heavier than maxRuleWeight.
	maxRule       = 8000
	maxRuleWeight = 20000
)

// trials tries rules, one at a time: each asks every log for its newest entries.
type trials struct {
	engine *monitor.Engine
	mu     sync.Mutex
}

// try says what a watch, as the configuration has it, finds among the newest entries.
func (t *trials) try(ctx context.Context, rule string) ([]web.Trial, error) {
	if len(rule) > maxRule {
		return nil, fmt.Errorf("%w: a rule of %d bytes is too long to be tried: at most %d", web.ErrInvalid, len(rule), maxRule)
	}
	w, err := config.ParseWatch("rule", []byte(rule))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", web.ErrInvalid, err)
	}
	one := watchlist.Watch{Name: w.Name, Match: itemsTo(w.Match), Expect: itemsTo(w.Expect), Untrusted: w.Untrusted}
	if n := one.Weight(); n > maxRuleWeight {
		return nil, fmt.Errorf("%w: its regular expressions are too heavy to be tried beside the reading of logs (about %d steps a character, at most %d): repeat less in them, or use globs", web.ErrInvalid, n, maxRuleWeight)
	}
	list, err := watchlist.Compile([]watchlist.Watch{one})
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
