package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	// lookEvery is how often it is looked whether something has changed, while somebody
	// listens; aliveEvery how often listeners are shown that the server lives.
	lookEvery  = 2 * time.Second
	aliveEvery = 20 * time.Second
	// maxListeners bounds those who listen at once, maxEars the pages of one of them.
	maxListeners = 200
	maxEars      = 20
)

// news tells listeners that something has changed. It looks at a mark that the store
// makes of all that is shown, which is cheap, and only while somebody listens.
type news struct {
	mark func(ctx context.Context) (string, error)

	mu        sync.Mutex
	listeners map[chan struct{}]string // whose each is
	stop      context.CancelFunc
}

// ring tells every listener.
func (n *news) ring() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.listeners {
		select {
		case c <- struct{}{}:
		default: // it has not seen the last one yet
		}
	}
}

// listen adds a listener of somebody; false if there are too many.
func (n *news) listen(ctx context.Context, who string) (c chan struct{}, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ears := 0
	for _, other := range n.listeners {
		if other == who {
			ears++
		}
	}
	if len(n.listeners) >= maxListeners || ears >= maxEars {
		return nil, false
	}
	if n.listeners == nil {
		n.listeners = map[chan struct{}]string{}
	}
	if len(n.listeners) == 0 {
		looking, stop := context.WithCancel(context.WithoutCancel(ctx))
		n.stop = stop
		go n.look(looking)
	}
	c = make(chan struct{}, 1)
	n.listeners[c] = who
	return c, true
}

func (n *news) leave(c chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if delete(n.listeners, c); len(n.listeners) == 0 && n.stop != nil {
		n.stop()
		n.stop = nil
	}
}

// read returns the mark of what is shown now; "" where it cannot be had.
func (n *news) read(ctx context.Context) string {
	if n.mark == nil {
		return ""
	}
	mark, err := n.mark(ctx)
	if err != nil {
		return ""
	}
	return mark
}

func (n *news) look(ctx context.Context) {
	last, _ := n.mark(ctx)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if now, err := n.mark(ctx); err == nil && now != last {
				last = now
				n.ring()
			}
		}
	}
}

// events tells a page that something has changed, as server-sent events. What has, it asks
// for itself.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	c, ok := s.news.listen(r.Context(), visitorOf(r.Context()).key)
	if !ok {
		return &refusal{http.StatusServiceUnavailable, "too many listen", map[string]string{"Retry-After": "60"}}
	}
	defer s.news.leave(c)
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	// A page that was made before compares its own mark with this one.
	begin, err := json.Marshal(s.news.read(r.Context()))
	if err != nil {
		return err
	}
	message := "retry: 5000\nevent: mark\ndata: " + string(begin) + "\n\n"
	for {
		if err := out.SetWriteDeadline(time.Now().Add(aliveEvery)); err != nil {
			return nil // nobody can be kept waiting by this writer
		}
		if _, err := fmt.Fprint(w, message); err != nil {
			return nil
		}
		if err := out.Flush(); err != nil {
			return nil
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-s.ending:
			return nil
		case <-c:
			message = "event: change\ndata: {}\n\n"
			// A login that has ended hears no more.
			if _, err := s.who(r); err != nil {
				return nil
			}
		case <-alive.C:
			message = ": alive\n\n"
		}
	}
}
