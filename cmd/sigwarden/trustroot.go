package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/trust"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

const (
	// refreshEvery is how often a TUF repository is asked, retryEvery how soon
	// again after it did not answer.
	refreshEvery = time.Hour
	retryEvery   = 5 * time.Minute
)

// errNoRoot says that nobody is trusted yet.
var errNoRoot = errors.New("no trusted root is known yet")

// inForce is a trusted root in force.
type inForce struct {
	*trust.Root
	kept *monitor.TrustRoot
	// first is the first one that was ever seen of its source, at firstAt: the logs
	// in it that were in use then were there before us.
	first   *trust.Root
	firstAt time.Time
	// services name the generation of logs whose key does not tell it.
	services []trust.Service
}

// old reports whether a log was there before us.
func (r *inForce) old(origin string) bool {
	return slices.ContainsFunc(r.first.Logs, func(l trust.LogKey) bool { return l.Origin == origin && !l.ValidFrom.After(r.firstAt) })
}

// lost reports whether the root, which may have named it once, does not name a
// log, or not the key that has signed the head in hand. Of one that it names with
// something that cannot be used nothing is known.
func (r *inForce) lost(origin string, st monitor.State) bool {
	if slices.Contains(r.Unusable, origin) {
		return false
	}
	if st.Type == rekorV1 {
		return !slices.ContainsFunc(st.Keys, func(key []byte) bool { return r.Has(origin, key) })
	}
	log, err := checkpoint.NewLog(origin, r.Key(origin)...)
	if err != nil {
		return true
	}
	_, err = log.Open([]byte(st.Head))
	return err != nil
}

// problems are the parts of the root that cannot be used.
func (r *inForce) problems() []string {
	var out []string
	for _, p := range r.Problems {
		out = append(out, p.Error())
	}
	for i, l := range r.CTLogs {
		if _, err := entry.NewCTLog(l.SPKI, l.ValidFrom, l.ValidUntil); err != nil {
			out = append(out, fmt.Sprintf("certificate log %d of the trusted root: %v", i+1, err))
		}
	}
	return out
}

// roots is where trusted roots come from: a pinned file, or a TUF repository
// that is asked every hour and whose last good root is kept.
type roots struct {
	name   string // of the source
	repo   trust.Repository
	pinned *inForce
	hears  func() monitor.Audience // of trouble with it
	log    *slog.Logger

	// eager refreshes at once, also a root that is less than an hour old: a single
	// pass is to be one over what is newest.
	eager bool

	mu      sync.Mutex
	tried   time.Time
	checked bool // the pinned root was stored and judged
	force   *inForce
}

// makeRoots reads a pinned root, or prepares the client of a repository: nothing
// is asked of the network yet.
func (s *setup) makeRoots(agent string) *config.Issue {
	t := s.cfg.Trust
	r := &roots{hears: s.hearsHealth}
	s.roots = r
	if t.TrustedRoot != "" {
		root, err := trust.ReadRoot(t.TrustedRoot)
		if err != nil {
			issue := s.cfg.At("trust.trusted_root", err.Error())
			return &issue
		}
		r.name = monitor.FileSource
		r.pinned = &inForce{Root: root, kept: &monitor.TrustRoot{Source: r.name, Document: root.Document}, first: root, firstAt: time.Now()}
		for _, p := range r.pinned.problems() {
			s.warnings = append(s.warnings, fmt.Sprintf("%s: a part of the trusted root cannot be used: %s", t.TrustedRoot, p))
		}
		return nil
	}
	if t.Mirror != "" {
		r.repo = trust.Repository{Name: t.Mirror, URL: t.Mirror, Root: t.Root}
	} else {
		r.repo, _ = trust.Instance(t.Sigstore)
	}
	r.name, r.repo.Scratch, r.repo.UserAgent = r.repo.Name, filepath.Dir(s.cfg.State), agent
	return nil
}

// stored returns the root in force without asking anybody; nil where there is
// none yet.
func (r *roots) stored(ctx context.Context, st *store.Store) (*inForce, error) {
	if r.pinned != nil {
		return r.pinned, nil
	}
	src, err := st.TrustSource(ctx, r.name)
	if err != nil || src.Root == nil {
		return nil, err
	}
	return r.open(src)
}

// open parses what is stored.
func (r *roots) open(src monitor.TrustSource) (*inForce, error) {
	root, err := trust.ParseRoot(src.Root.Document)
	if err != nil {
		return nil, fmt.Errorf("the stored trusted root: %w", err)
	}
	out := &inForce{Root: root, kept: src.Root, firstAt: src.FirstAt}
	if out.first, err = trust.ParseRoot(src.First.Document); err != nil {
		return nil, fmt.Errorf("the first stored trusted root: %w", err)
	}
	for _, doc := range src.Signing {
		services, err := trust.ParseSigningConfig(doc)
		if err != nil {
			continue // it is a hint only; a log whose generation it would tell is asked
		}
		out.services = append(out.services, services...)
	}
	return out, nil
}

// current returns the root in force, refreshed if it is time.
func (r *roots) current(ctx context.Context, st *store.Store) (*inForce, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pinned != nil {
		return r.pinned, r.keepPinned(ctx, st)
	}
	now := time.Now()
	src, err := st.TrustSource(ctx, r.name)
	if err != nil {
		return nil, err
	}
	if (now.Sub(src.Refreshed) >= refreshEvery || r.eager) && now.Sub(r.tried) >= retryEvery {
		r.tried = now
		if err := r.refresh(ctx, st, now); err != nil {
			return nil, err
		}
		if src, err = st.TrustSource(ctx, r.name); err != nil {
			return nil, err
		}
		r.force = nil
	}
	if src.Root == nil {
		return nil, fmt.Errorf("%w: %s", errNoRoot, src.Error)
	}
	if r.force == nil {
		if r.force, err = r.open(src); err != nil {
			return nil, err
		}
		if err := r.judge(ctx, st, src); err != nil {
			r.force = nil
			return nil, err
		}
	}
	return r.force, nil
}

// refresh asks the repository. That it does not answer is no error: it is booked.
func (r *roots) refresh(ctx context.Context, st *store.Store, now time.Time) error {
	before, err := st.TrustSource(ctx, r.name)
	if err != nil {
		return err
	}
	repo := r.repo
	if len(before.Newest) > 0 {
		repo.Known = &trust.Provenance{}
		if err := json.Unmarshal(before.Newest, repo.Known); err != nil {
			return fmt.Errorf("the stored TUF metadata: %w", err)
		}
	}
	got, err := repo.Fetch(ctx)
	if err == nil {
		// What cannot be read at all does not replace what could.
		_, err = trust.ParseRoot(got.Root)
	}
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return ctx.Err() // the program stops
	}
	last, cancel := contextFor(ctx, 5*time.Second)
	defer cancel()
	if err != nil {
		if failErr := st.TrustFailed(last, r.name, now, err.Error()); failErr != nil {
			return failErr
		}
		src, readErr := st.TrustSource(last, r.name)
		if readErr != nil {
			return readErr
		}
		if src.Root != nil {
			r.log.Warn("the trusted root could not be refreshed; the last good one stays in force", "repository", r.repo.URL, "refreshed", src.Refreshed, "error", err)
		}
		return r.judge(last, st, src)
	}
	provenance, err := json.Marshal(got.Provenance)
	if err != nil {
		return err
	}
	root := &monitor.TrustRoot{Source: r.name, Document: got.Root, Provenance: provenance}
	if before.Root == nil || before.Root.Hash() != root.Hash() {
		r.log.Info("a trusted root was fetched", "repository", r.repo.URL, "sha256", root.Hash(), "versions", got.Provenance.Versions, "first_root_metadata_sha256", got.Provenance.Anchor)
	}
	return st.KeepTrustRoot(last, root, got.Signing, now)
}

// keepPinned stores a pinned root once: evidence refers to it, and the first one
// tells which logs are new.
func (r *roots) keepPinned(ctx context.Context, st *store.Store) error {
	if r.checked {
		return nil
	}
	if err := st.KeepTrustRoot(ctx, r.pinned.kept, nil, time.Now()); err != nil {
		return err
	}
	src, err := st.TrustSource(ctx, r.name)
	if err != nil {
		return err
	}
	if r.pinned.first, err = trust.ParseRoot(src.First.Document); err != nil {
		return fmt.Errorf("the first stored trusted root: %w", err)
	}
	r.pinned.firstAt = src.FirstAt
	if err := r.judge(ctx, st, src); err != nil {
		return err
	}
	r.checked = true
	return nil
}

// peek fetches the root, and keeps nothing.
func (r *roots) peek(ctx context.Context) (*inForce, error) {
	if r.pinned != nil {
		return r.pinned, nil
	}
	got, err := r.repo.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	kept := &monitor.TrustRoot{Source: r.name, Document: got.Root}
	return r.open(monitor.TrustSource{Root: kept, First: kept, FirstAt: time.Now(), Signing: got.Signing})
}

// judge opens and resolves the incidents of the source.
func (r *roots) judge(ctx context.Context, st *store.Store, src monitor.TrustSource) error {
	open, err := st.OpenIncidents(ctx, "")
	if err != nil {
		return err
	}
	var problems []string
	if src.Root != nil {
		root, err := r.open(src)
		if err != nil {
			return err
		}
		problems = root.problems()
	}
	raise, settle := monitor.JudgeTrust(open, r.name, src, problems, time.Now(), r.hears())
	if err := st.Record(ctx, raise, settle); err != nil {
		return err
	}
	for _, inc := range raise {
		r.log.Error("incident opened", "kind", inc.Kind, "class", inc.Class, "incident", inc.ID, "summary", inc.Summary)
	}
	for _, over := range settle {
		r.log.Info("incident resolved", "incident", over.ID, "note", over.Note)
	}
	return nil
}
