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
// a channel that was dead for a day gets few messages when it is back.

// unrolled is how many deliveries are made at a time for programs.
const unrolled = 8 * batch

// sooner returns the earlier of two times; zero is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// prepare unrolls or folds what is due, and returns when there is more to do;
// zero: not before something is put into the outbox.
func (l *lane) prepare(ctx context.Context, now time.Time, once bool) (time.Time, error) {
	w, err := l.d.outbox.Rolled(ctx, l.Name, now)
	if err != nil {
		return time.Time{}, err
	}
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
	if l.Grouping == nil {
		if w.Rolled > 0 && w.Single < batch {
			_, err = l.d.outbox.Unroll(ctx, l.Name, now, unrolled)
		}
		return w.Next, err
	}
	at, err := l.group(ctx, now, w, once)
	return sooner(w.Next, at), err
}

// group unrolls what the window has room for, and folds the rest when its time has
// come.
func (l *lane) group(ctx context.Context, now time.Time, w Waiting, once bool) (time.Time, error) {
	g := l.Grouping
	win := w.Window
	if now.Sub(win.Start) >= g.Window || now.Before(win.Start) {
		// What was too much for the last window comes folded.
		if win.Over && w.Rolled > 0 && w.Single == 0 {
			if err := l.fold(ctx, now, false); err != nil {
				return time.Time{}, err
			}
			w.Rolled = 0
		}
		win = Window{Start: now, Over: w.Rolled > 0 && win.Over}
		if w.Rolled == 0 && w.Single == 0 && !w.Window.Over {
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
	if room := g.Most - win.Sent - w.Single; room > 0 && !win.Over {
		n, err := l.d.outbox.Unroll(ctx, l.Name, now, room)
		if err != nil || n >= w.Rolled {
			return time.Time{}, err
		}
		w.Single += n
	}
	switch {
	case w.Single > 0:
		// They come first; when they are delivered, the lane is here again.
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
