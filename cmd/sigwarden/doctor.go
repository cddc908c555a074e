package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// Levels of what was examined.
const (
	levelOK      = "ok"
	levelWarning = "warning"
	levelBroken  = "broken"
)

// examined is one thing that was looked at.
type examined struct {
	What  string `json:"what"`
	Level string `json:"level"`
	Found string `json:"found"`
	Do    string `json:"do,omitempty"` // what helps
}

const (
	// A clock that is further off than that of a log is wrong, or broken: certificates are valid for
	// ten minutes.
	clockOff, clockBroken = 30 * time.Second, 5 * time.Minute
	// A channel that has not taken something for so long is told of: a service may be down for a moment.
	failsFor = time.Minute
	// rootOld is how old a trusted root may be: it is refreshed each day.
	rootOld = 3 * 24 * time.Hour
	// A disk with less free than this is soon full.
	diskLow = 1 << 30
	// late is how many polls a log may be late.
	late = 3
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON, offline bool
	c := &cobra.Command{
		Use: "doctor", Short: "Look at state, ledger, clock, trusted root, logs and channels, and say what to do", Args: cobra.NoArgs,
		Long: `Looks at everything that monitoring depends on, changes nothing, and says of what is
not in order what to do. With --offline nobody is asked over the network.

Exit status: 0 nothing is broken; 1 something is; 4 the ledger or the audit trail was
changed, or a log is halted by an integrity incident.`,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			list, integrity := a.examine(c.Context(), s, offline)
			if asJSON {
				err = printJSON(a.stdout, list)
			} else {
				err = a.printExamined(list)
			}
			broken := 0
			for _, e := range list {
				if e.Level == levelBroken {
					broken++
				}
			}
			switch {
			case err != nil:
				return err
			case integrity:
				return &status{exitIntegrity, nil}
			case broken > 0:
				return &status{exitFailed, nil}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	c.Flags().BoolVar(&offline, "offline", false, "ask nobody over the network")
	return c
}

func (a *app) printExamined(list []examined) error {
	for _, e := range list {
		fmt.Fprintf(a.stdout, "%-8s %s: %s\n", e.Level, safe(e.What), safe(e.Found))
		if e.Do != "" {
			fmt.Fprintf(a.stdout, "         what to do: %s\n", safe(e.Do))
		}
	}
	return nil
}

// examination gathers what was looked at.
type examination struct {
	app       *app
	setup     *setup
	list      []examined
	integrity bool
}

func (e *examination) say(what, level, found, do string) {
	if level == levelOK {
		do = ""
	}
	e.list = append(e.list, examined{what, level, found, do})
}

func (a *app) examine(ctx context.Context, s *setup, offline bool) ([]examined, bool) {
	e := &examination{app: a, setup: s}
	for _, w := range s.warnings {
		first, _, _ := strings.Cut(w, "\n")
		e.say("configuration", levelWarning, first, "")
	}
	if len(s.warnings) == 0 {
		e.say("configuration", levelOK, fmt.Sprintf("%s, %d watches, %d channels", s.describeLogs(), len(s.watches), len(s.channels)), "")
	}
	e.files()
	running, err := store.Followed(s.cfg.State)
	switch {
	case err != nil:
		e.say("daemon", levelBroken, err.Error(), "run this as the user that the daemon runs as")
	case running:
		e.say("daemon", levelOK, "it runs on this state", "")
	default:
		e.say("daemon", levelWarning, "none runs on this state: nothing is monitored now", "start it: sigwarden run")
	}
	st, err := store.Open(ctx, s.cfg.State, store.Options{Version: version()})
	switch {
	case errors.Is(err, store.ErrMissing):
		e.say("state", levelWarning, "there is none yet", "start the daemon; if there was one, see sigwarden restore")
	case err != nil:
		e.say("state", levelBroken, err.Error(), "if the file is damaged or gone, put a backup in its place: sigwarden restore")
	default:
		defer st.Close()
		e.state(ctx, st, running)
	}
	if offline {
		return e.list, e.integrity
	}
	a.contact(ctx, s, false, func(what, name string, err error, good string) {
		if err != nil {
			e.say(what+" "+name, levelBroken, err.Error(), "see whether its address and key are right, and whether this machine reaches it: a proxy, a firewall, DNS")
			return
		}
		e.say(what+" "+name, levelOK, good, "")
	})
	e.clock(ctx)
	return e.list, e.integrity
}

// files looks at the state file from outside.
func (e *examination) files() {
	path := e.setup.cfg.State
	for _, suffix := range []string{"", "-wal", "-signing-key", "-witness"} {
		info, err := os.Stat(path + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			e.say("file "+path+suffix, levelBroken, err.Error(), "run this as the user that the daemon runs as")
			continue
		}
		if mode := info.Mode().Perm(); info.Mode().IsRegular() && mode&0o077 != 0 && runtime.GOOS != "windows" {
			e.say("file "+path+suffix, levelWarning, fmt.Sprintf("others may use it: its mode is %04o", mode), fmt.Sprintf("chmod 600 %s", path+suffix))
		}
	}
	e.disk(freeBytes(filepath.Dir(path)))
}

// disk looks at how much room there is for the state.
func (e *examination) disk(free uint64, ok bool) {
	switch {
	case !ok:
	case free < diskLow:
		e.say("disk", levelWarning, fmt.Sprintf("%d MB are free where the state is", free>>20), "make room; what is kept for how long is `retention`")
	default:
		e.say("disk", levelOK, fmt.Sprintf("%d GB are free where the state is", free>>30), "")
	}
}

// state looks at what the state says.
func (e *examination) state(ctx context.Context, st *store.Store, running bool) {
	const restore = "stop the daemon, keep a copy of the file and of those beside it, and restore a backup: sigwarden restore"
	contents, err := st.Contents(ctx)
	if err == nil {
		err = st.Check(ctx)
	}
	if err != nil {
		e.say("state", levelBroken, err.Error(), restore)
		return
	}
	// The rest is looked at all the same: somebody may have edited more than that.
	if err := st.Verify(ctx); err != nil {
		e.say("state", levelBroken, err.Error(), restore)
	} else {
		e.say("state", levelOK, fmt.Sprintf("it is whole; %d findings, %d decisions", contents.Findings, contents.Decisions), "")
	}
	if ahead := time.Until(contents.Seen); ahead > clockOff {
		e.say("clock", levelBroken, fmt.Sprintf("the state was written %s in the future: the clock was set back", ahead.Round(time.Second)), "set the clock, and keep it set by NTP")
	}
	if states, err := st.States(ctx); err != nil {
		e.say("clock", levelWarning, "what witnesses have signed cannot be read: "+err.Error(), "")
	} else {
		e.cosigned(states)
	}
	e.chains(ctx, st)
	engine, err := e.setup.engine(ctx, st, e.app.logger(), nil)
	var now monitor.Status
	if err == nil {
		now, err = engine.Status(ctx, st, e.setup.names)
	}
	if err != nil {
		e.say("status", levelBroken, err.Error(), "the daemon would say the same: see sigwarden check")
		return
	}
	e.status(now, running)
}

// status looks at logs, channels and trusted root as the daemon left them.
func (e *examination) status(now monitor.Status, running bool) {
	for _, l := range now.Logs {
		e.log(l, running)
	}
	for _, ch := range now.Channels {
		what, found := "deliveries to "+ch.Name, fmt.Sprintf("%d wait, %d were refused for good", ch.Pending, ch.Failed)
		switch {
		case ch.FailingSince != nil && time.Since(*ch.FailingSince) > failsFor:
			e.say(what, levelWarning, fmt.Sprintf("%s; of those that were tried in vain the oldest is of %s", found, stamp(*ch.FailingSince)), "mend the channel, and try it: sigwarden notify test "+ch.Name+"; see the incidents of kind delivery-failed for what was refused")
		case ch.Failed > 0:
			e.say(what, levelWarning, found, "see the incidents of kind delivery-failed; mend the channel, and try it: sigwarden notify test "+ch.Name)
		default:
			e.say(what, levelOK, found, "")
		}
	}
	if t := now.Trust; t != nil {
		what := "trusted root of " + t.Source
		switch {
		case t.Refreshed == nil:
			e.say(what, levelBroken, "none is known; the last try failed with: "+cmp.Or(deref(t.Error), "nothing yet"), "let this machine reach its repository, or give `trust` a file")
		case time.Since(*t.Refreshed) > rootOld:
			e.say(what, levelWarning, fmt.Sprintf("it was the newest at %s, and %d tries have failed since: %s", stamp(*t.Refreshed), t.Failures, deref(t.Error)), "let this machine reach its repository: certificates of a new authority would not be trusted")
		default:
			e.say(what, levelOK, "it was the newest at "+stamp(*t.Refreshed), "")
		}
	}
}

// chains verifies the ledger and the audit trail.
func (e *examination) chains(ctx context.Context, st *store.Store) {
	tampered := func(what string, err error) {
		if errors.Is(err, ledger.ErrTampered) || errors.Is(err, store.ErrTampered) {
			e.integrity = true
		}
		e.say(what, levelBroken, err.Error(), "somebody has written to the state file: keep it as it is, and look into it before anything else")
	}
	var known []ledger.Head
	signed, err := st.LastSigned(ctx)
	if err == nil && signed.Note != "" {
		var head ledger.Head
		if head, err = headOfNote(signed.Note); err == nil {
			known = append(known, head)
		}
	}
	if err == nil {
		var rows ledger.Chain
		if _, rows, err = st.VerifyLedger(ctx, known...); err == nil {
			e.say("ledger", levelOK, fmt.Sprintf("%d rows are as they were written", rows.Size()), "")
		}
	}
	if err != nil {
		tampered("ledger", err)
	}
	if trail, err := st.VerifyAudit(ctx, monitor.AuditHead{}); err != nil {
		tampered("audit trail", err)
	} else {
		e.say("audit trail", levelOK, fmt.Sprintf("%d lines hold", trail.N), "")
	}
}

// log looks at how a log was followed.
func (e *examination) log(l monitor.LogStatus, running bool) {
	what := "following " + l.Name
	switch {
	case l.Incident != "":
		e.integrity = true
		e.say(what, levelBroken, "it is halted by incident "+l.Incident, e.app.withConfig("sigwarden incidents show "+l.Incident)+", and then "+e.app.resumeHint(l.Name, l.Incident))
	case l.Error != nil:
		e.say(what, levelWarning, "the last poll failed: "+*l.Error, "see what is said of the log itself")
	case running && l.State != "retired" && l.LastPoll != nil && l.Every > 0 && time.Since(*l.LastPoll) > late*l.Every+time.Minute:
		e.say(what, levelBroken, fmt.Sprintf("it was polled last at %s, and is to be each %s", stamp(*l.LastPoll), l.Every), "see what the daemon's log says; it may hang: start it again")
	case len(l.Gaps) > 0:
		e.say(what, levelWarning, fmt.Sprintf("%d ranges of entries could not be read", len(l.Gaps)), "see sigwarden status; they are tried again at every poll")
	default:
		found := fmt.Sprintf("%s; verified to %d, read to %d", l.State, l.Verified.Size, l.Scanned)
		e.say(what, levelOK, found, "")
	}
}

// clock compares the clock with those of the servers of logs, by what HTTP says (RFC 9110, 6.6.1).
func (e *examination) clock(ctx context.Context) {
	client := &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var offs []time.Duration
	var asked []string
	for _, l := range e.setup.cfg.Logs {
		if !strings.HasPrefix(l.URL, "http") || slices.Contains(asked, l.URL) {
			continue
		}
		asked = append(asked, l.URL)
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, l.URL, nil)
		if err != nil {
			continue
		}
		before := time.Now()
		resp, err := client.Do(req)
		if err != nil {
			continue // said already
		}
		resp.Body.Close()
		if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			offs = append(offs, before.Add(time.Since(before)/2).Sub(date))
		}
	}
	if len(offs) == 0 {
		e.say("clock", levelOK, "no server of a log tells its time", "")
		return
	}
	slices.Sort(offs)
	off := offs[len(offs)/2]
	level := levelOK
	switch {
	case off.Abs() > clockBroken:
		level = levelBroken
	case off.Abs() > clockOff:
		level = levelWarning
	}
	e.say("clock", level, fmt.Sprintf("it is %s off those of %d servers", off.Abs().Round(time.Second), len(offs)), "set the clock, and keep it set by NTP: whether certificates were valid, and what a witness signs, depends on it")
}

// cosigned compares the clock with the times at which witnesses signed the heads that are stored: two that
// signed in the future are right, and the clock is not. Nobody has to be reached for that.
func (e *examination) cosigned(states map[string]monitor.State) {
	newest := map[string]time.Time{}
	for _, l := range e.setup.cfg.Logs {
		if l.Policy == nil {
			continue
		}
		policy, err := witness.ParsePolicy(l.Policy.Text)
		if err != nil {
			continue // said already
		}
		for _, st := range states {
			for _, v := range policy.Witnesses {
				for _, seen := range witness.Cosignatures([]byte(st.Head), v) {
					// Of one witness all keys have one clock.
					if at := time.Unix(seen.At, 0); at.After(newest[v.Name()]) {
						newest[v.Name()] = at
					}
				}
			}
		}
	}
	var ahead []time.Duration
	for _, at := range newest {
		if d := time.Until(at); d > clockOff {
			ahead = append(ahead, d)
		}
	}
	if len(ahead) < 2 {
		return
	}
	slices.Sort(ahead)
	e.say("clock", levelBroken, fmt.Sprintf("it is at least %s slow: %d witnesses have signed what is stored, in what it takes for the future", ahead[len(ahead)-2].Round(time.Second), len(ahead)), "set the clock, and keep it set by NTP")
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
