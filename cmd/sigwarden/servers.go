package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/trust"
)

// server is a Rekor v1 server: one tree after the other, all with one key.
type server struct {
	name  string
	rekor *rekor.V1
	spki  []byte
	// template is what all trees have in common.
	template monitor.LogConfig
}

func (s *setup) makeServer(l config.Log, root *trust.Root, opts rekor.Options, made monitor.LogConfig, fail func(string, error) *config.Issue) *config.Issue {
	v := &server{name: l.Name, template: made}
	var err error
	if l.PublicKey != "" {
		if v.spki, err = checkpoint.ParseSPKI(l.PublicKey); err != nil {
			return fail("public_key", err)
		}
	} else if v.spki = root.SPKI(l.Origin); v.spki == nil {
		return fail("origin", fmt.Errorf("log %q has no public_key, and the trusted root has none for %q", l.Name, l.Origin))
	}
	if v.rekor, err = rekor.NewV1(opts); err != nil {
		return fail("url", err)
	}
	if v.template.Parallel == 0 {
		v.template.Parallel = 64
	}
	v.template.Family = l.Name
	s.servers = append(s.servers, v)
	s.stats[l.Name] = v.rekor.Stats
	return nil
}

// id names a tree: by its number and the id of the key, since the origin of a
// private server changes with its host name.
func (v *server) id(tree string) string {
	key := sha256.Sum256(v.spki)
	return fmt.Sprintf("%s/%x", tree, key)
}

// tree is the configuration of one tree.
func (v *server) tree(origin, name string) (monitor.LogConfig, error) {
	_, number, ok := checkpoint.SplitOrigin(origin)
	if !ok {
		return monitor.LogConfig{}, fmt.Errorf("origin %.100q is not that of a Rekor v1 tree", origin)
	}
	cfg := v.template
	var err error
	cfg.Log, err = checkpoint.NewTree(origin, v.spki)
	cfg.ID, cfg.Name, cfg.Proofs = v.id(number), name, v.rekor.Tree(number)
	return cfg, err
}

// list asks the server for its trees. The one that grows when the server is first
// seen has the name of the server, all others that with their number.
func (v *server) list(ctx context.Context, st *store.Store) ([]monitor.LogConfig, error) {
	trees, err := v.rekor.Trees(ctx)
	if err != nil {
		return nil, err
	}
	states, err := st.States(ctx)
	if err != nil {
		return nil, err
	}
	named := slices.ContainsFunc(v.known(states), func(s monitor.State) bool { return s.Name == v.name })
	var out []monitor.LogConfig
	var bad []error
	for _, t := range trees {
		name := v.name + "/" + t.ID
		if known, ok := states[v.id(t.ID)]; ok {
			name = known.Name
		} else if t.Active && !named {
			name = v.name
		}
		origin, _, _ := strings.Cut(string(t.Note), "\n")
		cfg, err := v.tree(origin, name)
		if err == nil {
			_, err = cfg.Log.Open(t.Note)
		}
		if err == nil && cfg.ID != v.id(t.ID) {
			err = errors.New("its signed tree head is that of another tree")
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("tree %s: %w", t.ID, err))
			continue
		}
		cfg.Retired = !t.Active
		out = append(out, cfg)
	}
	return out, errors.Join(bad...)
}

// known returns the states of the server's trees.
func (v *server) known(states map[string]monitor.State) []monitor.State {
	var out []monitor.State
	for _, st := range states {
		if st.Family == v.name && st.Head != "" {
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b monitor.State) int { return a.Begun.Compare(b.Begun) })
	return out
}

// members returns the logs that are known, those of servers from the state file:
// commands beside the daemon ask nobody; and the servers as families.
func (s *setup) members(ctx context.Context, st *store.Store) ([]monitor.LogConfig, []monitor.Family, error) {
	logs := slices.Clone(s.logs)
	if len(s.servers) == 0 {
		return logs, nil, nil
	}
	states, err := st.States(ctx)
	if err != nil {
		return nil, nil, err
	}
	var families []monitor.Family
	for _, v := range s.servers {
		for _, known := range v.known(states) {
			cfg, err := v.tree(known.Origin, known.Name)
			if err != nil {
				return nil, nil, err
			}
			if _, ok := states[cfg.ID]; !ok {
				continue // of a key that was configured before
			}
			logs = append(logs, cfg)
		}
		families = append(families, monitor.Family{Name: v.name, Schedule: v.template.Schedule,
			List: func(ctx context.Context) ([]monitor.LogConfig, error) { return v.list(ctx, st) }})
	}
	return logs, families, nil
}
