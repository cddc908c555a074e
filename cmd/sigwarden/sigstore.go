package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/trust"
)

// instance is every Rekor log of the trusted root: shards of v2, and servers of
// v1 with their trees. What the root names is all that there is to watch; what
// signing configurations name is where clients write, and may be many logs at one
// address.
type instance struct {
	*setup
	item  config.Log // how they are followed
	reads []trust.Service
	// versions remembers which generation a log turned out to be.
	versions map[string]int
}

const (
	rekorV1 = "rekor-v1"
	rekorV2 = "rekor-v2"
)

// prefix begins the families of the logs of one source of trusted roots.
func (g *instance) prefix() string { return "sigstore " + g.roots.name + " " }

// family is that of a log, by its origin.
func (g *instance) family(origin string) string { return g.prefix() + origin }

// shard is a log of the root, or one that it has lost.
type shard struct {
	origin, url string
	keys        [][]byte
	version     int
	isNew       bool
	lost        [][]byte // keys that the root does not name any more
}

// shards returns the logs that the root names, in its order, and those that it
// named once: these are followed for good.
func (g *instance) shards(root *inForce, states map[string]monitor.State, now time.Time) []shard {
	var out []shard
	add := func(origin, url string, version int, keys ...[]byte) *shard {
		at := slices.IndexFunc(out, func(s shard) bool { return s.origin == origin })
		if at < 0 {
			out = append(out, shard{origin: origin, url: url, version: version})
			at = len(out) - 1
		}
		s := &out[at]
		for _, key := range keys {
			if !slices.ContainsFunc(s.keys, func(k []byte) bool { return bytes.Equal(k, key) }) {
				s.keys = append(s.keys, key)
			}
		}
		return s
	}
	for _, l := range root.Logs {
		if g.spelledOut(l.Origin) {
			continue
		}
		if l.ValidFrom.After(now) {
			g.roots.log.Debug("a log of the trusted root is not in use yet", "log", l.Origin, "from", l.ValidFrom)
			continue
		}
		s := add(l.Origin, l.URL, l.Version, l.SPKI)
		s.isNew = !root.old(l.Origin)
	}
	for _, st := range sorted(states) {
		origin, ours := strings.CutPrefix(st.Family, g.prefix())
		if !ours || st.Head == "" || g.spelledOut(origin) {
			continue
		}
		version := 2
		if st.Type == rekorV1 {
			version = 1
		}
		s := add(origin, st.URL, version, st.Keys...)
		s.version = version
		if root.lost(origin, st) {
			s.lost = append(s.lost, st.Keys...)
		}
	}
	for i := range out {
		s := &out[i]
		read := slices.IndexFunc(g.reads, func(r trust.Service) bool { return r.Origin == s.origin })
		if read >= 0 {
			s.url = g.reads[read].URL
		}
		if s.version == 0 && read >= 0 {
			s.version = g.reads[read].Version
		}
		if s.version == 0 {
			s.version = g.versions[s.origin]
		}
		for _, service := range root.services {
			if s.version == 0 && service.Origin == s.origin {
				s.version = service.Version
			}
		}
	}
	return out
}

// sorted returns states, the oldest first.
func sorted(states map[string]monitor.State) []monitor.State {
	var out []monitor.State
	for _, st := range states {
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b monitor.State) int {
		return cmp.Or(a.Begun.Compare(b.Begun), cmp.Compare(a.Origin, b.Origin))
	})
	return out
}

func (g *instance) spelledOut(origin string) bool {
	return slices.ContainsFunc(g.cfg.Logs, func(l config.Log) bool { return l.Origin == origin })
}

// make makes what follows a shard: one log, or the server of several.
func (g *instance) make(s shard, root *inForce) (*made, error) {
	l := g.item
	l.Name, l.Origin, l.URL, l.Type = s.origin, s.origin, s.url, rekorV2
	if s.version == 1 {
		l.Type = rekorV1
	}
	m, err := g.makeLog(l, root, s.keys)
	if err != nil {
		return nil, fmt.Errorf("log %s of the trusted root: %w", s.origin, err)
	}
	family := g.family(s.origin)
	if m.server != nil {
		m.server.derived, m.server.family = true, family
		m.server.template.Family, m.server.lost = family, s.lost
	} else {
		m.log.Family, m.log.New, m.log.Removed = family, s.isNew, len(s.lost) > 0
	}
	return m, nil
}

// list returns the logs of the root in force; it asks servers of v1 for their
// trees. What one of them does not answer leaves the others as they are.
func (g *instance) list(ctx context.Context, st *store.Store) ([]monitor.LogConfig, error) {
	root, err := g.roots.current(ctx, st)
	if err != nil {
		return nil, err
	}
	states, err := st.States(ctx)
	if err != nil {
		return nil, err
	}
	var out []monitor.LogConfig
	var bad []error
	for _, s := range g.shards(root, states, time.Now()) {
		logs, err := g.follow(ctx, s, root, states)
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", s.origin, err))
		}
		out = append(out, logs...)
	}
	return out, errors.Join(bad...)
}

func (g *instance) follow(ctx context.Context, s shard, root *inForce, states map[string]monitor.State) ([]monitor.LogConfig, error) {
	if s.version == 0 {
		version, err := g.probe(ctx, s)
		if err != nil {
			return nil, err
		}
		g.versions[s.origin], s.version = version, version
	}
	m, err := g.make(s, root)
	if err != nil {
		return nil, err
	}
	if m.server == nil {
		return []monitor.LogConfig{*m.log}, nil
	}
	logs, err := m.server.listOrRemembered(ctx, states)
	if s.isNew {
		for i := range logs {
			// A server that the first root did not name is read from its beginning.
			logs[i].New = true
		}
	}
	return logs, err
}

// probe finds out which generation a log is whose key does not tell: a
// checkpoint with an origin without spaces is served by v2 only.
func (g *instance) probe(ctx context.Context, s shard) (int, error) {
	opts, err := g.options(g.item, s.url)
	if err != nil {
		return 0, err
	}
	v2, err := rekor.NewV2(opts)
	if err != nil {
		return 0, err
	}
	raw, v2Err := v2.Checkpoint(ctx)
	if v2Err == nil {
		if origin, _, _ := strings.Cut(string(raw), "\n"); origin == s.origin && !strings.Contains(origin, " ") {
			return 2, nil
		}
		v2Err = errors.New("what api/v2/checkpoint serves is no checkpoint of this log")
	}
	v1, err := rekor.NewV1(opts)
	if err != nil {
		return 0, err
	}
	if _, err := v1.Trees(ctx); err != nil {
		return 0, fmt.Errorf("neither Rekor v2 nor v1 answers at %s (a monitor_config can say where it is read): %w", s.url, errors.Join(v2Err, err))
	}
	return 1, nil
}

// remembered returns the logs of the stored root that are known, without asking
// anybody.
func (g *instance) remembered(root *inForce, states map[string]monitor.State) ([]monitor.LogConfig, error) {
	var out []monitor.LogConfig
	for _, s := range g.shards(root, states, time.Now()) {
		if s.version == 0 {
			continue
		}
		m, err := g.make(s, root)
		if err != nil {
			return nil, err
		}
		if m.server != nil {
			trees, err := m.server.remembered(states)
			if err != nil {
				return nil, err
			}
			out = append(out, trees...)
		} else if states[m.log.ID].Head != "" {
			out = append(out, *m.log)
		}
	}
	return out, nil
}
