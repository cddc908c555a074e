package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// What time alone brings about: findings that wait too long for a list, critical
// ones that nobody acknowledges, and watches whose expected events do not come.
// One goroutine looks after it; the cursor of no log depends on it.

// Decisions is what a store keeps of findings after they were recorded. Its
// methods are atomic and durable, and may be called by several goroutines.
type Decisions interface {
	// PendingFindings returns the findings that may still come on a list.
	PendingFindings(ctx context.Context) ([]Finding, error)
	// Decide judges findings that wait anew, in one transaction: decide does, and
	// returns whether anything has changed. It returns those that do not wait any
	// more.
	Decide(ctx context.Context, waiting []Finding, now time.Time, decide func(*Finding, Precedents) (bool, error)) ([]Finding, error)
	// Escalate tells some channels once more of critical findings that are open since
	// before a time, each once.
	Escalate(ctx context.Context, before, now time.Time, channels []string) (int, error)
	// NextDeadline returns when the next pending finding is to be decided, and
	// since when the oldest critical finding is open that was not escalated; zero
	// for none.
	NextDeadline(ctx context.Context) (pending, unheard time.Time, err error)
	Vigil
}

// Vigil is what a store knows of watches.
type Vigil interface {
	// LastExpected returns when an event of a watch was expected last; zero: never.
	LastExpected(ctx context.Context, watch string) (time.Time, error)
	// WatchedSince returns when a watch was there first: now, if it was not yet.
	WatchedSince(ctx context.Context, watch string, now time.Time) (time.Time, error)
}

// Escalation tells critical findings that nobody acknowledges once more.
type Escalation struct {
	After time.Duration // 0: never
	To    []string      // channels
}

// Kick lets the engine look at once at what waits for a list or an announcement.
func (e *Engine) Kick() {
	select {
	case e.kicked <- struct{}{}:
	default:
	}
}

// lookAnyway is how long nothing is looked at, at most: other processes have findings
// to decide too, and cannot kick.
const lookAnyway = time.Minute

// keep decides whatever is due, until ctx ends, once every log was looked at and every
// list was read: what happened while the program was down is known only then.
func (e *Engine) keep(ctx context.Context) {
	for ctx.Err() == nil && !(e.Ready() && e.listsRead()) {
		e.sleep(ctx, e.opts.Now().Add(time.Second))
	}
	for ctx.Err() == nil {
		_, err := e.Decide(ctx)
		next, nextErr := e.nextDecision(ctx)
		if err = errors.Join(err, nextErr); err != nil && ctx.Err() == nil {
			e.opts.Logger.Error("what is due could not be decided; that is tried again", "error", err)
			next = e.opts.Now().Add(time.Minute)
		}
		e.sleep(ctx, earlier(next, e.opts.Now().Add(lookAnyway)))
	}
}

// earlier returns the earlier of two times; the first may be zero for none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// listsRead reports whether every list was read, or could not be.
func (e *Engine) listsRead() bool { return e.opts.ListsRead == nil || e.opts.ListsRead() }

// sleep waits until a time, a kick, or the end.
func (e *Engine) sleep(ctx context.Context, until time.Time) {
	timer := time.NewTimer(max(until.Sub(e.opts.Now()), time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-e.kicked:
	case <-ctx.Done():
	}
}

// nextDecision is when something will be due; zero: nothing.
func (e *Engine) nextDecision(ctx context.Context) (next time.Time, err error) {
	sooner := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	pending, unheard, err := e.opts.Store.NextDeadline(ctx)
	if err != nil {
		return next, err
	}
	sooner(pending)
	for _, l := range e.badLists() {
		if at := l.due(); at.After(e.opts.Now()) {
			sooner(at)
		}
	}
	if x := e.opts.Escalation; x.After > 0 && !unheard.IsZero() {
		sooner(unheard.Add(x.After))
	}
	for i, w := range e.opts.Watches.Watches() {
		silence := e.opts.WatchConfigs[i].Silence
		if silence <= 0 {
			continue
		}
		since, err := e.quietSince(ctx, w.Name)
		if err != nil {
			return next, err
		}
		if at := since.Add(silence); at.After(e.opts.Now()) {
			sooner(at)
		}
	}
	return next, nil
}

// Decide decides what is due now, and returns how many findings that waited are
// to be told.
func (e *Engine) Decide(ctx context.Context) (notifying int, err error) {
	now := e.opts.Now()
	w := Waiting{e.opts.Store, e.opts.Lists, now, e.hears, e.opts.Route}
	decided, err := w.Reconsider(ctx)
	e.mu.Lock()
	for _, f := range decided {
		if f.Verdict != policy.Expected {
			// As expected it was counted when it was found.
			e.metrics.Findings[[2]string{f.Watch, string(f.Verdict)}]++
		}
		if f.State == StateOpen {
			notifying++
		}
	}
	e.mu.Unlock()
	told := notifying
	if x := e.opts.Escalation; x.After > 0 {
		n, escErr := e.opts.Store.Escalate(ctx, now.Add(-x.After), now, x.To)
		if n > 0 {
			e.opts.Logger.Warn("critical findings were told once more: nobody has acknowledged them", "findings", n, "after", x.After)
		}
		told += n
		err = errors.Join(err, escErr)
	}
	err = errors.Join(err, e.judgeSilence(ctx, now), e.judgeLists(ctx, now))
	if told > 0 && e.opts.Wake != nil {
		e.opts.Wake()
	}
	return notifying, err
}

// hears returns the channels of a watch, by its name; of one that is no longer
// configured, those of integrity incidents.
func (e *Engine) hears(watch string) []string {
	for i, w := range e.opts.Watches.Watches() {
		if w.Name == watch {
			return e.opts.WatchConfigs[i].Channels
		}
	}
	return e.opts.IncidentChannels
}

// silenceDetails are those of incidents about a watch whose events do not come.
type silenceDetails struct {
	Watch string    `json:"watch"`
	Since time.Time `json:"since"`
	// Longest is how long it may be silent.
	Longest string `json:"silence"`
}

// quietSince is when the last expected event of a watch was, or since when it is
// watched.
func (e *Engine) quietSince(ctx context.Context, watch string) (time.Time, error) {
	since, err := e.opts.Store.WatchedSince(ctx, watch, e.opts.Now())
	if err != nil {
		return since, err
	}
	last, err := e.opts.Store.LastExpected(ctx, watch)
	if last.After(since) {
		since = last
	}
	return since, err
}

// judgeSilence opens and resolves the incidents of watches whose expected events
// do not come.
func (e *Engine) judgeSilence(ctx context.Context, now time.Time) error {
	open, err := e.opts.Store.OpenIncidents(ctx, "")
	if err != nil {
		return err
	}
	open = slices.DeleteFunc(open, func(i Incident) bool { return i.Kind != KindSilence })
	hears := e.opts.audience(KindSilence)
	of := func(i Incident) string {
		var d silenceDetails
		if json.Unmarshal(i.Details, &d) != nil {
			return ""
		}
		return d.Watch
	}
	var raise []Incident
	var settle []Resolution
	watched := map[string]bool{}
	for i, w := range e.opts.Watches.Watches() {
		longest := e.opts.WatchConfigs[i].Silence
		if longest <= 0 {
			continue
		}
		watched[w.Name] = true
		since, err := e.quietSince(ctx, w.Name)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(open, func(i Incident) bool { return of(i) == w.Name })
		quiet := now.Sub(since)
		silent := quiet >= longest
		if silent && at < 0 && quiet < 2*longest && e.behind(ctx) {
			continue // it may be in what is still to be read
		}
		switch {
		case silent && at < 0:
			summary := fmt.Sprintf("For %s no expected event of watch %s has come; one is expected every %s. Either nothing was signed, or it was signed otherwise, or elsewhere.", now.Sub(since).Round(time.Minute), w.Name, longest)
			if trouble := e.trouble(ctx); len(trouble) > 0 {
				summary += " It may also have been missed: not all is well with " + strings.Join(trouble, ", ") + "."
			}
			raise = append(raise, general(KindSilence, summary, silenceDetails{w.Name, since, longest.String()}, now, hears))
		case !silent && at >= 0:
			settle = append(settle, resolution(open[at], fmt.Sprintf("An expected event of watch %s has come.", w.Name), now, hears))
		}
	}
	for _, inc := range open {
		if !watched[of(inc)] {
			settle = append(settle, resolution(inc, "The watch is not configured any more, or may be silent.", now, hears))
		}
	}
	if len(raise)+len(settle) == 0 {
		return nil
	}
	if err := e.opts.Store.Record(ctx, raise, settle); err != nil {
		return err
	}
	for _, inc := range raise {
		e.opts.Logger.Warn("incident opened", "kind", inc.Kind, "class", inc.Class, "incident", inc.ID, "summary", inc.Summary)
	}
	if e.opts.Wake != nil {
		e.opts.Wake()
	}
	return nil
}

// behind reports whether entries of a log are still to be read.
func (e *Engine) behind(ctx context.Context) bool {
	return slices.ContainsFunc(e.all(), func(r *runner) bool {
		st, err := e.opts.Store.State(ctx, r.cfg.ID)
		return err == nil && !r.cfg.ConsistencyOnly && st.Unread() > 0
	})
}

// trouble names the logs that have open incidents.
func (e *Engine) trouble(ctx context.Context) []string {
	var out []string
	for _, r := range e.all() {
		if open, err := e.opts.Store.OpenIncidents(ctx, r.cfg.ID); err != nil || len(open) > 0 {
			out = append(out, r.cfg.Name)
		}
	}
	return out
}

// BadList is a list of digests that cannot be used.
type BadList struct {
	Name string
	// Since when; Read is when it was good last, zero for never.
	Since, Read time.Time
	Err         error
}

// listPatience is how long a list that was read before may fail, and firstPatience
// one that was not: whose signature is in a log, is verified once that was polled.
const (
	listPatience  = 10 * time.Minute
	firstPatience = time.Minute
)

// due is when that is told.
func (l *BadList) due() time.Time {
	if l.Read.IsZero() {
		return l.Since.Add(firstPatience)
	}
	return l.Since.Add(listPatience)
}

func (e *Engine) badLists() []BadList {
	if e.opts.BadLists == nil {
		return nil
	}
	return e.opts.BadLists()
}

// listDetails are those of incidents about a list.
type listDetails struct {
	List  string    `json:"list"`
	Since time.Time `json:"since"`
	Error string    `json:"error"`
}

// judgeLists opens and resolves the incidents of lists that cannot be used.
func (e *Engine) judgeLists(ctx context.Context, now time.Time) error {
	open, err := e.opts.Store.OpenIncidents(ctx, "")
	if err != nil {
		return err
	}
	hears := e.opts.audience(KindListUnusable)
	told := map[string]Incident{}
	for _, inc := range open {
		var d listDetails
		if inc.Kind == KindListUnusable && json.Unmarshal(inc.Details, &d) == nil {
			told[d.List] = inc
		}
	}
	var raise []Incident
	for _, l := range e.badLists() {
		if _, ok := told[l.Name]; ok {
			delete(told, l.Name)
			continue
		}
		if now.Before(l.due()) {
			continue
		}
		text := shorten(l.Err.Error())
		raise = append(raise, general(KindListUnusable, fmt.Sprintf("The list of digests %s cannot be used: %s. What is not on it by its last good reading is unexpected once its grace is over.", l.Name, text),
			listDetails{l.Name, l.Since.UTC(), text}, now, hears))
	}
	var settle []Resolution
	for _, inc := range told {
		settle = append(settle, resolution(inc, "The list can be used again, or is not asked for any more.", now, hears))
	}
	if len(raise)+len(settle) == 0 {
		return nil
	}
	if err := e.opts.Store.Record(ctx, raise, settle); err != nil {
		return err
	}
	if e.opts.Wake != nil {
		e.opts.Wake()
	}
	return nil
}
