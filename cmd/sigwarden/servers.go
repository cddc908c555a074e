package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor"
)

// server is a Rekor v1 server: one tree after the other, each with one of its
// keys.
type server struct {
	name   string
	family string
	rekor  *rekor.V1
	keys   [][]byte // as DER
	lost   [][]byte // those of them that the trusted root does not name any more
	// derived: nobody has given the server a name; its trees are called host/id.
	derived bool
	// template is what all trees have in common.
	template monitor.LogConfig
}

// id names a tree: by its number and the id of the key, since the origin of a
// private server changes with its host name.
func (v *server) id(tree string, key []byte) string {
	sum := sha256.Sum256(key)
	return fmt.Sprintf("%s/%x", tree, sum)
}

// tree is the configuration of one tree.
func (v *server) tree(origin, name string, key []byte) (monitor.LogConfig, error) {
	_, number, ok := checkpoint.SplitOrigin(origin)
	if !ok {
		return monitor.LogConfig{}, fmt.Errorf("origin %.100q is not that of a Rekor v1 tree", origin)
	}
	cfg := v.template
	var err error
	cfg.Log, err = checkpoint.NewTree(origin, key)
	cfg.ID, cfg.Name, cfg.Proofs, cfg.Keys = v.id(number, key), name, v.rekor.Tree(number), [][]byte{key}
	cfg.Removed = slices.ContainsFunc(v.lost, func(k []byte) bool { return bytes.Equal(k, key) })
	return cfg, err
}

// signed is tree for a signed note, with the key that signed it.
func (v *server) signed(note []byte, name string) (monitor.LogConfig, error) {
	origin, _, _ := strings.Cut(string(note), "\n")
	var failures []error
	for _, key := range v.keys {
		cfg, err := v.tree(origin, name, key)
		if err == nil {
			_, err = cfg.Log.Open(note)
		}
		if err == nil {
			return cfg, nil
		}
		failures = append(failures, err)
	}
	return monitor.LogConfig{}, errors.Join(failures...)
}

// list asks the server for its trees. Of a server that somebody has named, the
// one that grows when it is first seen has that name, all others that with their
// number.
func (v *server) list(ctx context.Context, states map[string]monitor.State) ([]monitor.LogConfig, error) {
	trees, err := v.rekor.Trees(ctx)
	if err != nil {
		return nil, err
	}
	known := v.known(states)
	named := v.derived || slices.ContainsFunc(known, func(k monitor.State) bool { return k.Name == v.name })
	var out []monitor.LogConfig
	var bad []error
	for _, t := range trees {
		cfg, err := v.signed(t.Note, v.name+"/"+t.ID)
		if err == nil && cfg.ID != v.id(t.ID, cfg.Keys[0]) {
			err = errors.New("its signed tree head is that of another tree")
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("tree %s: %w", t.ID, err))
			continue
		}
		if before, ok := states[cfg.ID]; ok && before.Head != "" {
			cfg.Name = before.Name
		} else {
			cfg.New = len(known) > 0
			if t.Active && !named {
				cfg.Name = v.name
			}
		}
		cfg.Retired = !t.Active
		out = append(out, cfg)
	}
	return out, errors.Join(bad...)
}

// listOrRemembered is list, and of a server that does not answer now, or that is
// gone for good, the trees that are known: each of them says itself that it is
// not served.
func (v *server) listOrRemembered(ctx context.Context, states map[string]monitor.State) ([]monitor.LogConfig, error) {
	logs, err := v.list(ctx, states)
	if err == nil {
		return logs, nil
	}
	known, knownErr := v.remembered(states)
	if len(logs) == 0 && len(known) > 0 && !errors.Is(err, checkpoint.ErrSignature) && !errors.Is(err, checkpoint.ErrOrigin) {
		return known, knownErr
	}
	for _, k := range known {
		if !slices.ContainsFunc(logs, func(l monitor.LogConfig) bool { return l.ID == k.ID }) {
			logs = append(logs, k)
		}
	}
	return logs, errors.Join(err, knownErr)
}

// known returns the states of the server's trees.
func (v *server) known(states map[string]monitor.State) []monitor.State {
	var out []monitor.State
	for _, st := range states {
		if st.Family == v.family && st.Head != "" {
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b monitor.State) int { return a.Begun.Compare(b.Begun) })
	return out
}

// remembered returns the trees that are known, without asking the server.
func (v *server) remembered(states map[string]monitor.State) ([]monitor.LogConfig, error) {
	var out []monitor.LogConfig
	for _, known := range v.known(states) {
		for _, key := range v.keys {
			cfg, err := v.tree(known.Origin, known.Name, key)
			if err != nil {
				return nil, err
			}
			// One without a state has a key that was configured before.
			if _, ok := states[cfg.ID]; ok && !slices.ContainsFunc(out, func(o monitor.LogConfig) bool { return o.ID == cfg.ID }) {
				out = append(out, cfg)
			}
		}
	}
	return out, nil
}
