package notify

import (
	"context"
	"time"
)

// What waits rolled up becomes deliveries of its own here, or, for people, few
// messages. How a flood of findings comes to people:
//
//	window:  the first Most on their own │ what is too much is gathered for
//	         Settle, then folded once    │ the rest is folded when it ends
//
// While a channel accepts nothing, everything but the first few stays rolled up:
// a channel that was dead for a day gets few messages when it is back. What it does
// not accept while it accepts other things takes room, and stops nothing.

const (
	// unrolled is how many deliveries are made at a time for programs.
	unrolled = 8 * batch
	// maxProbe bounds the wait between two probes of a channel that accepts nothing.
	maxProbe = 12 * time.Hour
)

// sooner returns the earlier of two times; zero is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// prepare unrolls or folds what is due, and returns whether nothing waits at all,
// as mostly, and when there is more to do; zero: not before something is put into
// the outbox.
func (l *lane) prepare(ctx context.Context, now time.Time, once bool) (nothing bool, next time.Time, err error) {
	w, err := l.d.outbox.Rolled(ctx, l.Name, now)
	if err != nil {
		return false, time.Time{}, err
	}
	next, err = l.unroll(ctx, now, once, w)
	return w.Nothing, next, err
}

func (l *lane) unroll(ctx context.Context, now time.Time, once bool, w Waiting) (time.Time, error) {
	var err error
	if w.Digest > 0 {
		if l.Grouping == nil {
			// The channel was one for people when this was put by.
			err = l.d.outbox.Release(ctx, l.Name)
			w.Rolled++
		} else {
			err = l.fold(ctx, now, true)
		}
		if err != nil {
			return time.Time{}, err
		}
	}
	if w.Rolled > 0 && w.dead() {
		at, err := l.probe(ctx, now, w)
		return sooner(w.Next, at), err
	}
	if l.Grouping == nil {
		if w.Rolled > 0 && w.Fresh < batch {
			_, err = l.d.outbox.Unroll(ctx, l.Name, now, unrolled)
		}
		return w.Next, err
	}
	at, err := l.group(ctx, now, w, once)
	return sooner(w.Next, at), err
}

// probe unrolls the first few for a channel that accepts nothing, and after that more
// now and then, longer and longer apart: what is tried may be such as it never accepts.
func (l *lane) probe(ctx context.Context, now time.Time, w Waiting) (time.Time, error) {
	most, wait := batch, 10*time.Minute
	if l.Grouping != nil {
		most, wait = l.Grouping.Most, l.Grouping.Window
	}
	if room := most - w.Fresh - w.Stuck; room > 0 {
		_, err := l.d.outbox.Unroll(ctx, l.Name, now, room)
		return time.Time{}, err
	}
	if w.Fresh > 0 {
		return time.Time{}, nil // it is being tried; then the lane is here again
	}
	wait = min(max(wait, w.LastStuck.Sub(w.FirstStuck)), maxProbe)
	if at := w.LastStuck.Add(wait); now.Before(at) {
		return at, nil
	}
	if l.Grouping != nil {
		return time.Time{}, l.fold(ctx, now, false)
	}
	_, err := l.d.outbox.Unroll(ctx, l.Name, now, batch)
	return time.Time{}, err
}

// group unrolls what the window has room for, and folds the rest when its time has
// come.
func (l *lane) group(ctx context.Context, now time.Time, w Waiting, once bool) (time.Time, error) {
	g := l.Grouping
	win := w.Window
	if now.Sub(win.Start) >= g.Window || now.Before(win.Start) {
		// What was too much for the last window comes folded.
		if win.Over && w.Rolled > 0 && w.Fresh == 0 {
			if err := l.fold(ctx, now, false); err != nil {
				return time.Time{}, err
			}
			w.Rolled = 0
		}
		win = Window{Start: now, Over: w.Rolled > 0 && win.Over}
		if w.Rolled+w.Fresh+w.Stuck == 0 && !w.Window.Over {
			return time.Time{}, nil // a window begins with a message
		}
		if err := l.d.outbox.SetWindow(ctx, l.Name, win); err != nil {
			return time.Time{}, err
		}
	}
	if w.Rolled == 0 {
		return time.Time{}, nil
	}
	ends := win.Start.Add(g.Window)
	if room := g.Most - win.Sent - w.Fresh - w.Stuck; room > 0 && !win.Over {
		n, err := l.d.outbox.Unroll(ctx, l.Name, now, room)
		if err != nil || n >= w.Rolled {
			return time.Time{}, err
		}
		w.Fresh += n
	}
	switch {
	case w.Fresh > 0:
		// They come first; when they were tried, the lane is here again.
		return time.Time{}, nil
	case once:
	case win.Folded:
		if !win.Over {
			win.Over = true
			return ends, l.d.outbox.SetWindow(ctx, l.Name, win)
		}
		return ends, nil
	case l.overSince.IsZero():
		l.overSince = now
		return now.Add(g.Settle), nil
	case now.Sub(l.overSince) < g.Settle:
		return l.overSince.Add(g.Settle), nil
	}
	l.overSince = time.Time{}
	if err := l.fold(ctx, now, false); err != nil {
		return time.Time{}, err
	}
	win.Folded = true
	return time.Time{}, l.d.outbox.SetWindow(ctx, l.Name, win)
}

func (l *lane) fold(ctx context.Context, now time.Time, digest bool) error {
	return l.d.outbox.Fold(ctx, l.Name, now, digest, func(groups []Group) []Event {
		if len(groups) == 0 {
			return nil
		}
		return l.Grouping.Fold(groups, digest, now)
	})
}
