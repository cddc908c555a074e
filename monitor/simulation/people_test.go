package simulation

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

// people read channels and decide about findings.
type people struct {
	w *world

	mu       sync.Mutex
	tries    map[string]int    // by channel and event
	accepted map[string]int    // likewise: how often somebody was told
	settled  map[string]bool   // likewise: the outbox has said that it is done
	about    map[string]string // by channel and event: the finding or incident
	trouble  map[string]*trouble
	over     bool
}

func (p *people) begin(channel string, t *trouble) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble[channel] = t
}

func (p *people) calm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
}

func key(channel, event string) string { return channel + " " + event }

// settle notes that a delivery was taken out of the outbox.
func (p *people) settle(q notify.Queued) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settled[key(q.Channel, q.Event.ID)] = true
}

// told reports whether a channel has accepted an event.
func (p *people) told(channel, event string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted[key(channel, event)] > 0
}

// receiver is a channel of one life of the process.
type receiver struct {
	name string
	life *life
}

// Notify implements notify.Notifier.
func (r *receiver) Notify(ctx context.Context, e notify.Event) error {
	p := r.life.w.people
	k := key(r.name, e.ID)
	p.mu.Lock()
	p.tries[k]++
	rng := p.w.chance("notify "+k, p.tries[k])
	trouble := ""
	if t := p.trouble[r.name]; !p.over && t.lasts(p.w) {
		trouble = t.kind
	}
	done := p.settled[k]
	p.mu.Unlock()
	if r.life.crashed.Load() {
		return context.Canceled
	}
	if done {
		p.w.wrong("%s was told of %s (%s) after the outbox had noted that it was delivered", r.name, e.ID, e.Title)
	}
	if err := wait(ctx, time.Duration(1+rng.IntN(900))*time.Millisecond); err != nil {
		return err
	}
	switch {
	case trouble == "errors":
		p.w.count("delivery: error")
		return errors.New("502 bad gateway")
	case trouble == "hangs" && rng.IntN(2) == 0:
		p.w.count("delivery: hangs")
		<-ctx.Done()
		return ctx.Err()
	case trouble == "asks to wait" && rng.IntN(2) == 0:
		p.w.count("delivery: asks to wait")
		return &notify.RetryError{After: time.Duration(1+rng.IntN(60)) * time.Second, Err: errors.New("429")}
	}
	if r.life.crashed.Load() {
		return context.Canceled
	}
	p.mu.Lock()
	p.accepted[k]++
	p.about[k] = e.Subject
	again := p.accepted[k] > 1
	p.mu.Unlock()
	if again {
		p.w.count("delivery: told twice")
	}
	if trouble == "answers lost" && rng.IntN(2) == 0 {
		p.w.count("delivery: answer lost")
		return errors.New("connection reset")
	}
	return nil
}

// decide lets somebody acknowledge or resolve something.
func (p *people) decide(rng *rand.Rand) {
	l := p.w.audit.process().now()
	if l == nil {
		return
	}
	c := monitor.Change{To: monitor.StateAcknowledged, By: "alice", Note: "seen", At: p.w.now()}
	var about, state string
	findings, err := l.store.Findings(context.Background(), store.Filter{})
	if err != nil {
		return
	}
	incidents, err := l.store.Incidents(context.Background(), store.Filter{})
	switch n := len(findings); {
	case err != nil || n+len(incidents) == 0:
		return
	case len(incidents) > 0 && (n == 0 || rng.IntN(2) == 0):
		slices.SortStableFunc(incidents, func(a, b monitor.Incident) int { return strings.Compare(a.Kind+a.LogID, b.Kind+b.LogID) })
		i := incidents[rng.IntN(len(incidents))]
		about, state = i.ID, i.State
		p.w.count("triage of an incident")
	default:
		slices.SortFunc(findings, func(a, b monitor.Finding) int {
			return cmp.Or(strings.Compare(a.Origin, b.Origin), cmp.Compare(a.Index, b.Index))
		})
		f := findings[rng.IntN(n)]
		about, state = f.ID, f.State
		if rng.IntN(2) == 0 {
			c.To, c.Resolution = monitor.StateResolved, monitor.AsFalsePositive
		}
		p.w.count("triage of a finding")
	}
	err = l.store.Triage(context.Background(), about, c, nil)
	if errors.Is(err, store.ErrTriage) {
		return
	}
	p.w.audit.decided(about, state, c.To, err == nil && !l.crashed.Load())
}
