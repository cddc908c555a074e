package monitor

import (
	"context"
	"fmt"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// Status is the document of `sigwarden status --json` and /api/v1/status.
type Status struct {
	Logs      []LogStatus     `json:"logs"`
	Channels  []ChannelStatus `json:"channels"`
	Findings  FindingCount    `json:"findings"`
	Incidents OpenCount       `json:"incidents"`
	// Trust is the source of trusted roots; null where none was asked yet.
	Trust *TrustStatus `json:"trust"`
}

// TrustStatus is how a source of trusted roots is.
type TrustStatus struct {
	Source string `json:"source"`
	// SHA256 is that of the root in force, empty while there is none; Refreshed when
	// it was last known to be the newest.
	SHA256    string     `json:"sha256"`
	Refreshed *time.Time `json:"refreshed_at"`
	// Failures are the tries to refresh it since then, the last with Error.
	Failures int     `json:"failures"`
	Error    *string `json:"error"`
}

// OpenCount counts what is open.
type OpenCount struct {
	Open int `json:"open"`
}

// FindingCount counts findings that are open, and those that may still come on a
// list.
type FindingCount struct {
	Open    int `json:"open"`
	Pending int `json:"pending"`
}

// LogStatus is how one log is.
type LogStatus struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Origin string `json:"origin"`
	// State is ok, catching-up, unreachable, waiting, halted or retired; new
	// before the first successful poll.
	State    string       `json:"state"`
	Verified VerifiedHead `json:"verified"`
	Scanned  uint64       `json:"scanned"`
	// Lag is how many entries of the verified tree are to be read yet; Backlog are
	// those of them that are read behind the new ones.
	Lag         uint64  `json:"lag"`
	Backlog     []Range `json:"backlog"`
	Coverage    []Range `json:"coverage"`
	Gaps        []Gap   `json:"gaps"`
	KeyOnly     uint64  `json:"key_only_entries"`
	Undecodable uint64  `json:"undecodable_entries"`
	// CatchUp is how a scan that is behind comes on; null while it is not.
	CatchUp  *CatchUpStatus `json:"catch_up"`
	LastPoll *time.Time     `json:"last_poll"`
	Error    *string        `json:"error"`

	Signed      uint64    `json:"-"` // size of the newest validly signed checkpoint that was served
	Entries     uint64    `json:"-"`
	LastSuccess time.Time `json:"-"`
	Incident    string    `json:"-"` // that halts it
	// Every is how far apart its polls are.
	Every time.Duration `json:"-"`
}

// CatchUpStatus is how a scan that is behind comes on.
type CatchUpStatus struct {
	// Since when it is behind. The rates are those of the last quarter to half of an
	// hour.
	Since            time.Time `json:"since"`
	EntriesPerSecond float64   `json:"entries_per_second"`
	GrowthPerSecond  float64   `json:"growth_per_second"`
	// Seconds until it has caught up at this rate; null: never.
	Seconds *float64 `json:"caught_up_in_seconds"`
}

// catchUp measures a scan that is behind; nil where it is not, or where nothing
// can be said yet.
func (st *State) catchUp() *CatchUpStatus {
	c := st.CatchUp
	if c == nil || st.Unread() == 0 || !c.Last.At.After(c.From.At) {
		return nil
	}
	elapsed := c.Last.At.Sub(c.From.At).Seconds()
	rate := func(from, to uint64) float64 { return (float64(to) - float64(from)) / elapsed }
	out := &CatchUpStatus{Since: c.Since, EntriesPerSecond: rate(c.From.Read, c.Last.Read), GrowthPerSecond: rate(c.From.Head, c.Last.Head)}
	if gain := out.EntriesPerSecond - out.GrowthPerSecond; gain > 0 {
		seconds := float64(st.Unread()) / gain
		out.Seconds = &seconds
	}
	return out
}

// String says it for people.
func (c *CatchUpStatus) String() string {
	prospect := "at this rate it will never catch up"
	if c.Seconds != nil {
		prospect = "at this rate it will have caught up in " + time.Duration(min(*c.Seconds, 1e9)*float64(time.Second)).Round(time.Second).String()
	}
	return fmt.Sprintf("it reads %.1f entries a second while the log grows by %.1f; %s", c.EntriesPerSecond, c.GrowthPerSecond, prospect)
}

// VerifiedHead is the newest checkpoint that was proven, and when.
type VerifiedHead struct {
	Size uint64              `json:"size"`
	Root *checkpoint.HexHash `json:"root"`
	At   *time.Time          `json:"at"`
}

// Trouble is a delivery that was tried in vain: one that is tried again, or was given up.
type Trouble struct {
	Channel   string    `json:"channel"`
	Subject   string    `json:"subject"` // id of the finding or incident; empty for others
	CreatedAt time.Time `json:"created_at"`
	Attempts  int       `json:"attempts"`
	State     string    `json:"state" enum:"pending,failed"`
	DueAt     time.Time `json:"due_at"` // of one that is tried again
	Error     string    `json:"error"`
}

// ChannelStatus is how the deliveries of a channel are.
type ChannelStatus struct {
	Name        string     `json:"name"`
	Pending     int        `json:"pending"`
	Failed      int        `json:"failed"`
	LastSuccess *time.Time `json:"last_success"`
	// FailingSince is since when the oldest notification that was tried in vain
	// waits.
	FailingSince *time.Time `json:"failing_since,omitempty"`
	// Due are those of the pending ones that are not held back until later.
	// UntriedSince and RolledSince are since when the oldest one is due that was not
	// tried, or that waits rolled up.
	Due          int        `json:"-"`
	UntriedSince *time.Time `json:"-"`
	RolledSince  *time.Time `json:"-"`
}

// StatusStore is what Status reads.
type StatusStore interface {
	CoverageStore
	// LastPoll returns when a log was polled last, when that succeeded last, and
	// how the last poll failed, if it did.
	LastPoll(ctx context.Context, logID string) (at, success time.Time, failure string, err error)
	// Channels returns how the deliveries of channels are.
	Channels(ctx context.Context, names []string) ([]ChannelStatus, error)
	// TrustSource returns what is known of a source of trusted roots.
	TrustSource(ctx context.Context, source string) (TrustSource, error)
	// CountOpen returns how many findings and incidents are open.
	CountOpen(ctx context.Context) (findings, incidents int, err error)
	// CountPending returns how many findings may still come on a list.
	CountPending(ctx context.Context) (int, error)
}

// Status reads how everything is. channels are the names of those configured.
func (e *Engine) Status(ctx context.Context, store StatusStore, channels []string) (Status, error) {
	s := Status{Logs: []LogStatus{}}
	for _, r := range e.all() {
		l, err := r.status(ctx, store)
		if err != nil {
			return s, err
		}
		s.Logs = append(s.Logs, l)
	}
	var err error
	if s.Channels, err = store.Channels(ctx, channels); err != nil {
		return s, err
	}
	if s.Trust, err = trustStatus(ctx, store, e.opts.TrustSource); err != nil {
		return s, err
	}
	if s.Findings.Pending, err = store.CountPending(ctx); err != nil {
		return s, err
	}
	s.Findings.Open, s.Incidents.Open, err = store.CountOpen(ctx)
	return s, err
}

func trustStatus(ctx context.Context, store StatusStore, source string) (*TrustStatus, error) {
	src, err := store.TrustSource(ctx, source)
	if err != nil || src.Root == nil && src.Failures == 0 {
		return nil, err
	}
	t := &TrustStatus{Source: source, Failures: src.Failures}
	if src.Root != nil {
		t.SHA256, t.Refreshed = src.Root.Hash(), &src.Refreshed
	}
	if src.Failures > 0 {
		t.Error = &src.Error
	}
	return t, nil
}

func (r *runner) status(ctx context.Context, store StatusStore) (LogStatus, error) {
	l := LogStatus{Name: r.cfg.Name, Type: r.cfg.Type, Origin: r.way().Log.Origin(), State: "new", Backlog: []Range{}, Coverage: []Range{}, Gaps: []Gap{}}
	st, err := store.State(ctx, r.cfg.ID)
	if err != nil {
		return l, err
	}
	at, success, failure, err := store.LastPoll(ctx, r.cfg.ID)
	if err != nil {
		return l, err
	}
	l.Every = r.every()
	if !at.IsZero() {
		l.LastPoll, l.LastSuccess = &at, success
	}
	if failure != "" {
		l.Error = &failure
		l.State = "unreachable"
	}
	if st.Head == "" {
		return l, nil
	}
	l.Verified = VerifiedHead{Size: st.HeadSize, At: &st.HeadAt}
	if head, err := r.head(st); err == nil {
		root := checkpoint.HexHash(head.Root())
		l.Verified.Root = &root
	} else {
		// The other logs are not to suffer from one that was configured anew.
		text := err.Error()
		l.Error = &text
	}
	l.Scanned, l.Lag = st.Scanned, st.Unread()
	l.Backlog = append(l.Backlog, st.Backlog...)
	l.CatchUp = st.catchUp()
	l.KeyOnly, l.Undecodable, l.Entries, l.Incident, l.Signed = st.KeyOnly, st.Undecodable, st.Entries, st.Halted, st.Signed
	have, err := r.covered(ctx, store)
	if err != nil {
		return l, err
	}
	gaps, err := store.Gaps(ctx, r.cfg.ID)
	if err != nil {
		return l, err
	}
	// Coverage is shown with the gaps inside of it, which are listed beside it.
	if have != nil {
		l.Coverage = merge(have, rangesOf(gaps))
	}
	if gaps != nil {
		l.Gaps = gaps
	}
	open, err := store.OpenIncidents(ctx, r.cfg.ID)
	if err != nil {
		return l, err
	}
	l.State = "ok"
	if l.Lag > 0 {
		l.State = "catching-up"
	}
	if l.Verified.Root == nil {
		l.State = "waiting"
	}
	if st.Frozen != "" && l.Lag == 0 {
		l.State = "retired"
	}
	for _, inc := range open {
		switch inc.Kind {
		case KindUnreachable:
			l.State = "unreachable"
		case KindUnproven, KindBadSignature:
			l.State = "waiting"
		}
	}
	if st.Halted != "" {
		l.State = "halted"
	}
	return l, nil
}

// every is the time between polls of the log; 0: it has no schedule.
func (r *runner) every() time.Duration {
	if r.cfg.Schedule == nil {
		return 0
	}
	next := r.cfg.Schedule.Next(r.opts.Now())
	return r.cfg.Schedule.Next(next).Sub(next)
}
