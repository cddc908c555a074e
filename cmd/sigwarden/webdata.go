package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/report"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/web"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// webOptions puts together what is served over HTTP.
func (a *app) webOptions(ctx context.Context, s *setup, st *store.Store, engine *monitor.Engine, dispatcher *notify.Dispatcher, log *slog.Logger) (web.Options, error) {
	out := web.Options{
		Engine:        engine,
		Status:        func(ctx context.Context) (monitor.Status, error) { return engine.Status(ctx, st, s.names) },
		OpenIncidents: st.OpenByKind,
		Bytes:         s.clients.bytes,
		Deliveries:    dispatcher.Counts,
		Hear: func(ctx context.Context, raw []byte) (monitor.Comparison, error) {
			return engine.Hear(ctx, raw, "whoever has asked")
		},
		API: web.API{
			Token: func(ctx context.Context, secret string) (monitor.Token, error) {
				t, err := st.Token(ctx, secret, time.Now())
				if errors.Is(err, store.ErrNotFound) {
					err = web.ErrNoToken
				}
				return t, err
			},
			Expect: func(ctx context.Context, t monitor.Token, watch, digest string, ttl time.Duration, note string) (monitor.Announcement, error) {
				announced, err := s.announce(ctx, st, watch, digest, ttl, actorOf(t), note)
				if errors.Is(err, store.ErrTooMany) {
					return announced, fmt.Errorf("%w: %w", web.ErrFull, err)
				}
				return announced, webError(err)
			},
		},
		PublicURL: strings.TrimRight(s.cfg.HTTP.PublicURL, "/"), Version: version(), Log: log,
	}
	var err error
	if out.Access, err = s.webAccess(ctx, st); err != nil || !s.cfg.HTTP.Page {
		return out, err
	}
	out.Data = s.webData(st, engine, dispatcher)
	if s.cfg.Witness.Listen != "" {
		out.Data.Witness = func(ctx context.Context) (*web.Witness, error) { return a.webWitness(ctx, s) }
	}
	return out, nil
}

// webAccess says who may see the page and use the API.
func (s *setup) webAccess(ctx context.Context, st *store.Store) (web.Access, error) {
	given := s.cfg.HTTP.Access
	out := web.Access{Tokens: given.Tokens}
	if !given.Given() {
		out.Open = config.Loopback(s.cfg.HTTP.Listen) // check refuses any other address
		out.Tokens = true
		if u, err := url.Parse(s.cfg.HTTP.PublicURL); err == nil && u.Hostname() != "" {
			out.Names = []string{u.Hostname()}
		}
		return out, nil
	}
	o := given.OIDC
	if o.Issuer == "" {
		return out, nil
	}
	client, err := httpClient(o.TLSCA)
	if err != nil {
		return out, fmt.Errorf("http.access.oidc.tls_ca: %w", err)
	}
	client.Timeout = 20 * time.Second
	out.Login = &web.Login{
		Issuer: o.Issuer, ClientID: o.ClientID, ClientSecret: o.ClientSecret.Reveal(), PublicURL: strings.TrimRight(s.cfg.HTTP.PublicURL, "/"), Session: o.Session, Client: client,
		Groups: slices.ContainsFunc(append(slices.Clone(o.Read), o.Triage...), func(who string) bool { return strings.HasPrefix(who, "group:") }),
		Scopes: web.ScopesFor(o.Read, o.Triage, func(pattern, email string) bool {
			ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(email))
			return err == nil && ok
		}),
	}
	key, err := st.CookieKey(ctx)
	out.Sessions = web.Sessions{
		Key: key,
		Add: func(ctx context.Context, secret string, session monitor.Session) error {
			return st.AddSession(ctx, secret, session, time.Now())
		},
		Get: func(ctx context.Context, secret string) (monitor.Session, error) {
			session, err := st.Session(ctx, secret, time.Now())
			if errors.Is(err, store.ErrNotFound) {
				err = web.ErrNoSession
			}
			return session, err
		},
		End: st.EndSession,
	}
	return out, err
}

// webError makes an error of the page of one of a command.
func webError(err error) error {
	var wrong *status
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("%w: %w", web.ErrNoPage, err)
	case errors.Is(err, store.ErrPlace), errors.Is(err, store.ErrTriage):
		return fmt.Errorf("%w: %w", web.ErrInvalid, err)
	case errors.As(err, &wrong) && wrong.code == exitUsage:
		return fmt.Errorf("%w: %w", web.ErrInvalid, err)
	}
	return err
}

// webData is what the page and the API show.
func (s *setup) webData(st *store.Store, engine *monitor.Engine, dispatcher *notify.Dispatcher) web.Data {
	x := &exporter{setup: s, store: st}
	reading := make(chan struct{}, 1)
	spans, hits := &cached[[]web.LogSpans]{}, &cached[[]web.Watch]{}
	d := web.Data{
		Findings: func(ctx context.Context, f monitor.Filter) (monitor.Page[monitor.Finding], error) {
			page, err := st.FindingsPage(ctx, f)
			return page, webError(err)
		},
		Finding: func(ctx context.Context, id string) (monitor.Finding, error) {
			f, err := st.Finding(ctx, id)
			return f, webError(err)
		},
		Certificates: func(leaf []byte) (out [][]byte) {
			facts, _ := entry.Decode(leaf) // what cannot be decoded is shown raw
			for _, id := range facts.Identities {
				out = append(out, id.Certificate)
			}
			return out
		},
		Incidents: func(ctx context.Context, f monitor.Filter) (monitor.Page[monitor.Incident], error) {
			page, err := st.IncidentsPage(ctx, f)
			return page, webError(err)
		},
		Incident: func(ctx context.Context, id string) (monitor.Incident, error) {
			i, err := st.Incident(ctx, id)
			return i, webError(err)
		},
		Count: st.CountFindings,
		Triage: func(ctx context.Context, id string, c monitor.Change) error {
			if err := st.Triage(ctx, id, c, s.triageTold(time.Now())); err != nil {
				return webError(err)
			}
			dispatcher.Wake()
			return nil
		},
		Evidence: func(ctx context.Context, id string) ([]byte, error) {
			var b bytes.Buffer
			if err := x.export(ctx, id, &b); err != nil {
				return nil, webError(err)
			}
			return b.Bytes(), nil
		},
		Exportable: func(i monitor.Incident) bool { return slices.Contains(exportable, i.Kind) },
		Checkpoint: func(ctx context.Context, log string) ([]byte, error) {
			states, err := st.States(ctx)
			for _, state := range states {
				if (state.Name == log || state.Origin == log) && state.Head != "" {
					return []byte(state.Head), nil
				}
			}
			return nil, errors.Join(err, web.ErrNoPage)
		},
		Coverage: func(ctx context.Context, since, until time.Time, log string) (any, error) {
			// It reads the whole ledger: one after the other does.
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case reading <- struct{}{}:
				defer func() { <-reading }()
			}
			cov, err := s.readCoverage(ctx, st, since.UTC(), until.UTC(), log)
			return cov, webError(err)
		},
		CoverageDoc: report.Coverage{},
		Report: func(ctx context.Context, since, until time.Time, format string) ([]byte, error) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case reading <- struct{}{}:
				defer func() { <-reading }()
			}
			r, err := s.report(ctx, st, since.UTC(), until.UTC(), nil)
			if err != nil {
				return nil, webError(err)
			}
			var b bytes.Buffer
			err = r.Write(&b, format)
			return b.Bytes(), err
		},
		Ledger: func(ctx context.Context, from uint64, limit int) ([]json.RawMessage, error) {
			rows := []json.RawMessage{}
			err := st.EachLedgerRow(ctx, from, from+uint64(limit), func(line []byte) error {
				rows = append(rows, slices.Clone(line))
				return nil
			})
			return rows, err
		},
		Spans: func(ctx context.Context, since time.Time) ([]web.LogSpans, error) {
			all, err := spans.get(func() ([]web.LogSpans, error) { return s.webSpans(ctx, st) })
			return since24(all, since), err
		},
		Watches: func(ctx context.Context, counted bool) ([]web.Watch, error) {
			if !counted {
				return s.webWatches(), nil
			}
			return hits.get(func() ([]web.Watch, error) {
				all, open, err := st.Hits(ctx)
				list := s.webWatches()
				for i := range list {
					list[i].Hits, list[i].Open = all[list[i].Name], open[list[i].Name]
				}
				return list, err
			})
		},
		Try: (&trials{engine: engine}).try,
		Announcements: func(ctx context.Context, watch string) ([]monitor.Announcement, error) {
			return st.Announcements(ctx, watch, time.Now())
		},
		Withdraw: func(ctx context.Context, id, by, note string) error {
			return webError(st.Withdraw(ctx, id, by, note, time.Now()))
		},
		Audit: func(ctx context.Context, from int64, subject string, limit int) (rows []monitor.AuditRow, err error) {
			full := errors.New("full")
			err = st.EachAudit(ctx, from, subject, func(r monitor.AuditRow) error {
				if rows = append(rows, r); len(rows) == limit {
					return full
				}
				return nil
			})
			if errors.Is(err, full) {
				err = nil
			}
			return rows, err
		},
		Troubles: func(ctx context.Context) ([]monitor.Trouble, error) { return st.Troubles(ctx, s.names, shownTroubles) },
		Test: func(ctx context.Context, channel, by string) error {
			return s.webTest(ctx, st, dispatcher, channel, by)
		},
		Mark: st.Mark,
	}
	return d
}

// cached keeps what costs more than a page may, for a moment.
type cached[T any] struct {
	mu   sync.Mutex
	made time.Time
	is   T
}

// cacheFor is how long something is kept.
const cacheFor = 20 * time.Second

func (c *cached[T]) get(make func() (T, error)) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.made) < cacheFor {
		return c.is, nil
	}
	is, err := make()
	if err == nil {
		c.is, c.made = is, time.Now()
	}
	return is, err
}

// shownTroubles is how many deliveries of a channel are shown that were tried in vain.
const shownTroubles = 20

// webSpansFor is how far back pictures go.
const webSpansFor = 31 * 24 * time.Hour

// webSpans reads what was watched of each log.
func (s *setup) webSpans(ctx context.Context, st *store.Store) ([]web.LogSpans, error) {
	logs := map[string]*web.LogSpans{}
	log := func(origin, name string) *web.LogSpans {
		key := ledger.LogKey(origin)
		if logs[key] == nil {
			logs[key] = &web.LogSpans{Log: origin}
		}
		if name != "" {
			logs[key].Log = name
		}
		return logs[key]
	}
	add := func(origin string, sp ledger.Span) {
		l := log(origin, sp.Name)
		l.Spans = append(l.Spans, web.Span{Since: sp.Since, Until: sp.Until, Size: sp.Head.Size, Lag: sp.LagMax, Entries: sp.Entries()})
	}
	pause := func(origin string, p ledger.Pause) {
		l := log(origin, "")
		l.Spans = append(l.Spans, web.Span{Since: p.Since, Until: p.Until, Reason: report.Pause{Reason: p.Reason, Error: p.Error, Failures: p.Failures}.Why()})
	}
	open, err := st.OpenSpans(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	err = st.EachWatched(ctx, time.Now().Add(-webSpansFor), func(line []byte) error {
		row, err := ledger.Parse(line)
		if err != nil {
			return err
		}
		if row.Kind == ledger.KindPause {
			p, err := ledger.Read[ledger.Pause](row)
			pause(row.Log, p)
			return err
		}
		sp, err := ledger.Read[ledger.Span](row)
		add(row.Log, sp)
		return err
	})
	for _, o := range open {
		if o.Polls > 0 {
			add(o.Origin, o.Span)
		} else {
			log(o.Origin, o.Name)
		}
		for _, p := range o.Pauses {
			pause(o.Origin, p)
		}
	}
	var out []web.LogSpans
	for _, l := range logs {
		slices.SortStableFunc(l.Spans, func(a, b web.Span) int { return a.Since.Compare(b.Since) })
		out = append(out, *l)
	}
	slices.SortFunc(out, func(a, b web.LogSpans) int { return strings.Compare(a.Log, b.Log) })
	return out, err
}

// since24 leaves out what ended before a time.
func since24(all []web.LogSpans, since time.Time) []web.LogSpans {
	var out []web.LogSpans
	for _, l := range all {
		i := slices.IndexFunc(l.Spans, func(x web.Span) bool { return x.Until.After(since) })
		if i < 0 {
			i = len(l.Spans)
		}
		out = append(out, web.LogSpans{Log: l.Log, Spans: l.Spans[i:]})
	}
	return out
}

func (s *setup) webWatches() []web.Watch {
	out := []web.Watch{}
	for i, w := range s.list.Watches() {
		var b bytes.Buffer
		if json.Indent(&b, monitor.RuleDocument(w, s.watches[i]), "", "  ") != nil {
			b.Reset()
		}
		out = append(out, web.Watch{Name: w.Name, Severity: s.watches[i].Severity, RuleHash: monitor.RuleHash(w, s.watches[i]), Channels: s.watches[i].Channels, Rule: b.String()})
	}
	return out
}

// webTest puts a test for a channel into the outbox.
func (s *setup) webTest(ctx context.Context, st *store.Store, dispatcher *notify.Dispatcher, channel, by string) error {
	if !slices.Contains(s.names, channel) {
		return web.ErrNoPage
	}
	now := time.Now()
	if err := st.Enqueue(ctx, []notify.Delivery{{Address: notify.Address{Channel: channel}, Event: testEvent(now)}}); err != nil {
		return err
	}
	dispatcher.Wake()
	return st.Act(ctx, monitor.Act{By: by, Action: "test", Subject: channel}, now)
}

// webWitness says what the witness of this program co-signs.
func (a *app) webWitness(ctx context.Context, s *setup) (*web.Witness, error) {
	out := &web.Witness{Name: s.cfg.Witness.Operator}
	for _, k := range s.cfg.Witness.Keys {
		c, err := a.cosigner(k)
		if err != nil {
			return nil, err
		}
		out.Keys = append(out.Keys, c.Verifier.String())
	}
	promised, err := store.ReadWitness(ctx, s.cfg.State)
	if errors.Is(err, store.ErrMissing) {
		err = nil
	}
	for _, p := range promised {
		out.Logs = append(out.Logs, web.Signed(p))
	}
	return out, err
}
