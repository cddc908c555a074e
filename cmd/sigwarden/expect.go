package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/watchlist"
)

func (a *app) expectCommand() *cobra.Command {
	var watch, digest, note, by string
	var ttl time.Duration
	var asJSON bool
	add := &cobra.Command{
		Use: "add --watch W --digest D --ttl T", Short: "Announce an artifact that is about to be signed",
		Long: `Announces an artifact: an entry of the watch with this digest is expected if it
was signed within the time to live, by whichever identity of the watch. One that
waits for a list is expected at once. The same can be done over HTTP, with
POST /api/v1/expectations and a token of scope expect.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := decider(by, note); err != nil {
				return err
			}
			tell := func(announced monitor.Announcement, err error) error {
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, announced)
				}
				fmt.Fprintf(a.stderr, "%s: %s is expected for watch %s until %s\n", announced.ID, announced.Digest, safe(watch), stamp(announced.ExpiresAt))
				return nil
			}
			if a.server != "" {
				to, err := a.remotely()
				if err != nil {
					return err
				}
				return tell(to.Expect(c.Context(), watch, digest, ttl, note))
			}
			return a.withStore(c.Context(), func(s *setup, st *store.Store) error {
				return tell(s.announce(c.Context(), st, watch, digest, ttl, by, note))
			})
		},
	}
	add.Flags().StringVar(&watch, "watch", "", "name of the watch")
	add.Flags().StringVar(&digest, "digest", "", "ALGORITHM:HEX of the artifact, or its bare SHA-256")
	add.Flags().DurationVar(&ttl, "ttl", 2*time.Hour, "how long it may take until it is signed")
	add.Flags().StringVar(&note, "note", "", "which release it is, say")
	add.Flags().StringVar(&by, "by", whoami(), "who announces it")
	add.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	var of string
	list := &cobra.Command{Use: "list", Short: "List what is announced and has not expired", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return a.withSource(c.Context(), nil, func(src source) error {
			all, err := src.announcements(c.Context(), of)
			if err != nil || asJSON {
				return errors.Join(err, ifJSON(asJSON && err == nil, func() error { return printJSON(a.stdout, all) }))
			}
			t := newTable(a.stdout, "ID\tWATCH\tDIGEST\tBY\tEXPIRES\tNOTE")
			defer t.end()
			for _, x := range all {
				t.add(x.ID, x.Watch, x.Digest, x.By, stamp(x.ExpiresAt), x.Note)
			}
			return nil
		})
	}}
	list.Flags().StringVar(&of, "watch", "", "of this watch")
	list.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	remove := &cobra.Command{Use: "remove ID... --note TEXT", Short: "Take announcements back", Args: cobra.MinimumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		if strings.TrimSpace(note) == "" {
			return usage(errors.New("remove wants --note: say why"))
		}
		if err := decider(by, note); err != nil {
			return err
		}
		return a.withSource(c.Context(), nil, func(src source) error {
			var failed []error
			for _, id := range args {
				if err := src.withdraw(c.Context(), id, by, strings.TrimSpace(note)); err != nil {
					failed = append(failed, err)
					continue
				}
				fmt.Fprintf(a.stderr, "%s: taken back; what was expected by it stays so\n", safe(id))
			}
			return errors.Join(failed...)
		})
	}}
	remove.Flags().StringVar(&note, "note", "", "why")
	remove.Flags().StringVar(&by, "by", whoami(), "who decides")
	group := &cobra.Command{Use: "expect", Short: "Announce what is about to be signed"}
	group.AddCommand(add, list, remove)
	return group
}

func ifJSON(yes bool, f func() error) error {
	if !yes {
		return nil
	}
	return f()
}

// announce stores an announcement and decides what waits for it. What is wrong
// with it is wrong usage.
func (s *setup) announce(ctx context.Context, st *store.Store, watch, digest string, ttl time.Duration, by, note string) (monitor.Announcement, error) {
	names := s.watchNames()
	if !slices.Contains(names, watch) {
		return monitor.Announcement{}, usage(fmt.Errorf("no watch is called %q%s", watch, config.DidYouMean(watch, names)))
	}
	normal, err := watchlist.NormaliseDigest(digest)
	if err != nil {
		return monitor.Announcement{}, usage(fmt.Errorf("digest %.150q %w", digest, err))
	}
	now := time.Now()
	a, err := monitor.Announce(watch, normal, ttl, by, note, now)
	if err != nil {
		return a, usage(err)
	}
	if err := st.Announce(ctx, a); err != nil {
		return a, err
	}
	// Those that wait are decided in the store, whichever process follows the logs.
	w := monitor.Waiting{Store: st, Now: now, Hears: s.hears, Route: s.routes.Route}
	_, err = w.Announced(ctx, a)
	return a, err
}

func (s *setup) watchNames() (names []string) {
	for _, w := range s.cfg.Watches {
		names = append(names, w.Name)
	}
	return names
}

// hears returns the channels of a watch.
func (s *setup) hears(watch string) []string {
	for i, w := range s.cfg.Watches {
		if w.Name == watch {
			return s.watches[i].Channels
		}
	}
	return s.names
}

func (a *app) tokenCommand() *cobra.Command {
	var name, by string
	var scopes, watches []string
	var expires string
	create := &cobra.Command{
		Use: "create --name N --scope S", Short: "Make a token for the HTTP API, and print it once",
		Long: `Makes a bearer token for the HTTP API and prints it to standard output. Its hash
alone is kept: it cannot be shown again. Scopes: read, triage, expect.`,
		Example: "  sigwarden token create --name release-job --scope expect --watch acme-releases --expires 90d",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if strings.TrimSpace(name) == "" || len(name) > 100 {
				return usage(errors.New("token create wants --name: who or what uses it, in up to 100 bytes"))
			}
			if len(scopes) == 0 {
				return usage(fmt.Errorf("token create wants --scope: %s", strings.Join(monitor.Scopes(), ", ")))
			}
			for _, scope := range scopes {
				if err := known("scope", scope, monitor.Scopes()); err != nil {
					return err
				}
			}
			slices.Sort(scopes)
			scopes = slices.Compact(scopes)
			good, err := parseDays(expires)
			if err != nil {
				return usage(err)
			}
			if err := decider(by, ""); err != nil {
				return err
			}
			return a.withStore(c.Context(), func(s *setup, st *store.Store) error {
				for _, w := range watches {
					if w == "" {
						return usage(errors.New("--watch is empty; leave it out for all watches"))
					}
					if err := known("watch", w, s.watchNames()); err != nil {
						return err
					}
				}
				now := time.Now().UTC().Truncate(time.Microsecond)
				t := monitor.Token{ID: "t-" + strings.ToLower(rand.Text()[:16]), Name: name, Scopes: scopes, Watches: watches, CreatedAt: now}
				if good > 0 {
					at := now.Add(good)
					t.ExpiresAt = &at
				}
				secret := newSecret()
				if err := st.AddToken(c.Context(), t, secret, by); err != nil {
					return err
				}
				fmt.Fprintf(a.stderr, "token %s (%s) for %s; it is shown this once:\n", safe(name), t.ID, strings.Join(scopes, ", "))
				for _, scope := range scopes {
					if scope != monitor.ScopeExpect {
						fmt.Fprintf(a.stderr, "note: nothing is served for scope %s yet; the token will be good for it when something is\n", scope)
					}
				}
				fmt.Fprintln(a.stdout, secret)
				return nil
			})
		},
	}
	create.Flags().StringVar(&name, "name", "", "who or what uses it")
	create.Flags().StringSliceVar(&scopes, "scope", nil, "what it is good for: "+strings.Join(monitor.Scopes(), ", "))
	create.Flags().StringSliceVar(&watches, "watch", nil, "only for this watch (default: all)")
	create.Flags().StringVar(&expires, "expires", "", "how long it is good, like 12h or 90d (default: until it is revoked)")
	create.Flags().StringVar(&by, "by", whoami(), "who makes it")

	var asJSON bool
	list := &cobra.Command{Use: "list", Short: "List tokens, without their secrets", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return a.withStore(c.Context(), func(_ *setup, st *store.Store) error {
			all, err := st.Tokens(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.stdout, all)
			}
			t := newTable(a.stdout, "ID\tNAME\tSCOPES\tWATCHES\tCREATED\tSTATE")
			defer t.end()
			for _, x := range all {
				t.add(x.ID, x.Name, strings.Join(x.Scopes, ","), strings.Join(x.Watches, ","), stamp(x.CreatedAt), tokenState(x, time.Now()))
			}
			return nil
		})
	}}
	list.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	revoke := &cobra.Command{Use: "revoke NAME-OR-ID", Short: "End a token", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		return a.withStore(c.Context(), func(_ *setup, st *store.Store) error {
			t, err := st.RevokeToken(c.Context(), args[0], by, time.Now().UTC())
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "token %s is revoked\n", safe(t.Name))
			all, err := st.Announcements(c.Context(), "", time.Now())
			var left []string
			for _, x := range all {
				if x.By == actorOf(t) {
					left = append(left, x.ID)
				}
			}
			if len(left) > 0 {
				fmt.Fprintf(a.stderr, "%d announcements of it are in force. If it was stolen, take them back: %s\n", len(left), a.withConfig("sigwarden expect remove "+strings.Join(left, " ")+" --note TEXT"))
			}
			return err
		})
	}}
	revoke.Flags().StringVar(&by, "by", whoami(), "who ends it")
	group := &cobra.Command{Use: "token", Short: "Tokens for the HTTP API"}
	group.AddCommand(create, list, revoke)
	return group
}

// actorOf is how the audit trail names a token: its name may be given again.
func actorOf(t monitor.Token) string { return tokenActor + t.Name + " (" + t.ID + ")" }

// parseDays reads a time like 12h, or like 90d.
func parseDays(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int64
		n, err = strconv.ParseInt(days, 10, 32)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("--expires %.40q is no time like 12h or 90d", text)
	}
	return d, nil
}

// newSecret makes the secret of a token: 256 random bits behind a prefix by which
// scanners for leaked secrets can find it.
func newSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return "sigwarden_" + base64.RawURLEncoding.EncodeToString(b[:])
}

func tokenState(t monitor.Token, now time.Time) string {
	switch {
	case t.RevokedAt != nil:
		return "revoked " + stamp(*t.RevokedAt)
	case t.ExpiresAt != nil && !now.Before(*t.ExpiresAt):
		return "expired " + stamp(*t.ExpiresAt)
	case t.ExpiresAt != nil:
		return "until " + stamp(*t.ExpiresAt)
	}
	return "good"
}
