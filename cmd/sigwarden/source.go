package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/client"
	"github.com/sigwarden/sigwarden/monitor/report"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// source is where findings and incidents are read and decided: the state file, or a server
// that has one.
type source interface {
	EachFinding(ctx context.Context, f monitor.Filter, do func(monitor.Finding) error) error
	Finding(ctx context.Context, id string) (monitor.Finding, error)
	Incidents(ctx context.Context, f monitor.Filter) ([]monitor.Incident, error)
	Incident(ctx context.Context, id string) (monitor.Incident, error)
	decide(ctx context.Context, id string, c monitor.Change) error
	announcements(ctx context.Context, watch string) ([]monitor.Announcement, error)
	withdraw(ctx context.Context, id, by, note string) error
	audit(ctx context.Context, subject string, do func(monitor.AuditRow) error) error
	coverage(ctx context.Context, since, until time.Time, log string) (report.Coverage, error)
}

// local is a state file.
type local struct {
	*store.Store
	setup *setup
}

func (l local) decide(ctx context.Context, id string, c monitor.Change) error {
	return l.Triage(ctx, id, c, l.setup.triageTold(time.Now()))
}

func (l local) announcements(ctx context.Context, watch string) ([]monitor.Announcement, error) {
	if err := known("watch", watch, l.setup.watchNames()); err != nil {
		return nil, err
	}
	return l.Announcements(ctx, watch, time.Now())
}

func (l local) withdraw(ctx context.Context, id, by, note string) error {
	return l.Withdraw(ctx, id, by, note, time.Now())
}

func (l local) audit(ctx context.Context, subject string, do func(monitor.AuditRow) error) error {
	return l.EachAudit(ctx, 1, subject, do)
}

func (l local) coverage(ctx context.Context, since, until time.Time, log string) (report.Coverage, error) {
	return l.setup.readCoverage(ctx, l.Store, since, until, log)
}

// remote is a server.
type remote struct{ *client.Client }

func (r remote) EachFinding(ctx context.Context, f monitor.Filter, do func(monitor.Finding) error) error {
	list, err := client.All(ctx, f, r.Findings)
	for _, x := range list {
		if err := do(x); err != nil {
			return err
		}
	}
	return err
}

func (r remote) Incidents(ctx context.Context, f monitor.Filter) ([]monitor.Incident, error) {
	return client.All(ctx, f, r.Client.Incidents)
}

func (r remote) decide(ctx context.Context, id string, c monitor.Change) error {
	return r.Triage(ctx, id, c)
}

func (r remote) announcements(ctx context.Context, watch string) ([]monitor.Announcement, error) {
	return r.Announcements(ctx, watch)
}

// withdraw takes an announcement back; the server knows who does.
func (r remote) withdraw(ctx context.Context, id, _, note string) error {
	return r.Withdraw(ctx, id, note)
}

func (r remote) audit(ctx context.Context, subject string, do func(monitor.AuditRow) error) error {
	return r.EachAudit(ctx, subject, do)
}

func (r remote) coverage(ctx context.Context, since, until time.Time, log string) (cov report.Coverage, err error) {
	doc, err := r.Coverage(ctx, since, until, log)
	if err == nil {
		err = json.Unmarshal(doc, &cov)
	}
	return cov, err
}

// tokenVariable is where the token for --server is read, unless a file is named.
const tokenVariable = "SIGWARDEN_TOKEN"

// remotely makes the client of --server.
func (a *app) remotely() (*client.Client, error) {
	token := a.getenv(tokenVariable)
	if a.tokenFile != "" {
		text, err := os.ReadFile(a.tokenFile)
		if err != nil {
			return nil, usage(fmt.Errorf("--token-file: %w", err))
		}
		token = strings.TrimSpace(string(text))
	}
	c, err := client.New(a.server, token, nil)
	if err != nil {
		return nil, usage(fmt.Errorf("--server: %w", err))
	}
	return c, nil
}

// withSource opens the state file, or asks the server of --server.
func (a *app) withSource(ctx context.Context, f *monitor.Filter, do func(source) error) error {
	if a.server == "" {
		return a.withStore(ctx, func(s *setup, st *store.Store) error {
			if f != nil {
				if err := checkFilter(ctx, s, st, f); err != nil {
					return err
				}
			}
			return do(local{st, s})
		})
	}
	c, err := a.remotely()
	if err != nil {
		return err
	}
	if f != nil {
		if err := checkWords(f); err != nil {
			return err
		}
	}
	return do(remote{c})
}

// errLocal says that a command is not one that a server can be asked.
var errLocal = errors.New("--server: this command works on the state file and its configuration; run it where they are")
