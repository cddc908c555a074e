package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/evidence"
	"github.com/sigwarden/sigwarden/monitor/redact"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/trust"
)

// exporter makes evidence of what is stored.
type exporter struct {
	setup    *setup // needed for coverage alone
	store    *store.Store
	redactor *redact.Redactor // nil: nothing is left out
}

// check verifies what was made, with all keys that are known of the logs: what could not be
// checked is found out here, and not years later.
func (x *exporter) check(ctx context.Context, data []byte) error {
	states, err := x.store.States(ctx)
	if err != nil {
		return err
	}
	known := evidence.Trust{Embedded: true, Root: func(origin string) (keys []string) {
		for _, st := range states {
			if ledger.LogKey(st.Origin) == ledger.LogKey(origin) {
				for _, der := range st.Keys {
					keys = append(keys, string(pemOf(der)))
				}
			}
		}
		return keys
	}}
	if _, err := evidence.Verify(data, known); err != nil {
		return fmt.Errorf("what would be written does not hold, so that nothing is: %w", err)
	}
	return nil
}

// exportable are the kinds of incidents that evidence is made of.
var exportable = []string{monitor.KindFork, monitor.KindSplitView, monitor.KindRetiredChanged, monitor.KindEntryMismatch}

// export writes evidence of a finding or an incident, by its id.
func (x *exporter) export(ctx context.Context, id string, w io.Writer) error {
	if strings.HasPrefix(id, "f-") {
		return x.finding(ctx, id, w)
	}
	inc, err := x.store.Incident(ctx, id)
	if err != nil {
		return err
	}
	// What people do with an incident later must not change its evidence.
	inc.State, inc.Note, inc.Resolved, inc.Resolution, inc.By, inc.ChangedAt = "", "", nil, "", "", nil
	statement, err := x.statement(map[string]any{"incident": inc})
	if err != nil {
		return err
	}
	switch inc.Kind {
	case monitor.KindFork, monitor.KindSplitView:
		return x.fork(ctx, inc, statement, w)
	case monitor.KindRetiredChanged:
		frozen, larger := inc.Kept("frozen-checkpoint"), inc.Kept("larger-checkpoint")
		key, err := x.logKey(ctx, inc.LogID, originOf(frozen), frozen)
		if err != nil {
			return err
		}
		return evidence.WriteRetiredChanged(w, originOf(frozen), frozen, larger, key, statement)
	case monitor.KindEntryMismatch:
		if x.redactor != nil {
			return usage(fmt.Errorf("--redact: evidence of incident %s is the bytes of entries, which may name people; it cannot be made without them", inc.ID))
		}
		if doc := inc.BrokenPromise(); doc != nil {
			return x.brokenPromise(ctx, inc, doc, statement, w)
		}
		return x.mismatch(ctx, inc, statement, w)
	}
	return usage(fmt.Errorf("incident %s is of kind %s, and nothing was kept of it that could be checked: evidence is made of findings, of what logs have signed and served (%s), and of coverage; what was kept of this one is shown by `sigwarden incidents show %s`", id, inc.Kind,
		strings.Join(exportable, ", "), id))
}

func (x *exporter) finding(ctx context.Context, id string, w io.Writer) error {
	f, err := x.store.Finding(ctx, id)
	if err != nil {
		return err
	}
	if len(f.Proof) == 0 && f.Checkpoint.Size > 1 {
		return fmt.Errorf("finding %s has no inclusion proof of its own, since the log served none: it was proven with the batch that it came with, and that convinces nobody else", id)
	}
	f.State, f.Note, f.Resolution, f.By, f.ChangedAt = "", "", "", "", nil
	root := f.TrustRoot
	if root == nil {
		root = &monitor.TrustRoot{}
	}
	rule, err := x.store.Rule(ctx, f.RuleHash)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	key, err := x.logKey(ctx, f.LogID, f.Origin, []byte(f.SignedNote))
	if err != nil {
		return err
	}
	statement, err := x.statement(map[string]any{"finding": f})
	if err != nil {
		return err
	}
	in := evidence.Inclusion{
		Origin: f.Origin, Index: f.Index, Leaf: f.Leaf, Proof: f.Proof, Note: f.SignedNote, Size: f.Checkpoint.Size, Root: checkpoint.Hash(f.Checkpoint.Root), LogKey: key,
		Promise: f.Promise, Authorities: f.Authorities, TrustRoot: root.Document, Provenance: root.Provenance, Rule: rule, Statement: statement, Redacted: x.redactor != nil,
	}
	if f.Integrated != nil {
		in.Integrated = *f.Integrated
	}
	return evidence.WriteInclusion(w, in)
}

func (x *exporter) fork(ctx context.Context, inc monitor.Incident, statement any, w io.Writer) error {
	d, err := checkpoint.ParseDivergence(inc.Kept("divergence.json"))
	if err != nil {
		return err
	}
	origin := originOf([]byte(d.Larger))
	key, err := x.logKey(ctx, inc.LogID, origin, []byte(d.Larger))
	if err != nil {
		return err
	}
	claim := evidence.ClaimFork
	if inc.Kind == monitor.KindSplitView {
		claim = evidence.ClaimSplitView
	}
	return evidence.WriteFork(w, claim, origin, d, key, statement)
}

func (x *exporter) brokenPromise(ctx context.Context, inc monitor.Incident, doc []byte, statement any, w io.Writer) error {
	b, err := checkpoint.ParseBrokenPromise(doc)
	if err != nil {
		return err
	}
	origin := originOf([]byte(b.Checkpoint))
	key, err := x.logKey(ctx, inc.LogID, origin, []byte(b.Checkpoint))
	if err != nil {
		return err
	}
	return evidence.WriteBrokenPromise(w, origin, b, key, statement)
}

// mismatch writes what was served; hashes of the tree that were proven under a later
// checkpoint than the one that was kept are left out.
func (x *exporter) mismatch(ctx context.Context, inc monitor.Incident, statement any, w io.Writer) error {
	note := inc.Kept("checkpoint")
	origin := originOf(note)
	key, err := x.logKey(ctx, inc.LogID, origin, note)
	if err != nil {
		return err
	}
	log, err := checkpoint.ForOrigin(origin, string(pemOf(key)))
	if err != nil {
		return err
	}
	c, err := log.Open(note)
	if err != nil {
		return fmt.Errorf("the checkpoint that was kept: %w", err)
	}
	var served []evidence.Served
	for _, e := range inc.Evidence {
		text, ok := strings.CutPrefix(e.Name, monitor.ServedPrefix)
		index, err := strconv.ParseUint(text, 10, 63)
		if !ok || err != nil {
			continue
		}
		s := evidence.Served{Index: index, Leaf: e.Data, Held: inc.Kept(monitor.HeldPrefix + text + ".json")}
		var held checkpoint.ProvenNode
		if len(s.Held) > 0 && (json.Unmarshal(s.Held, &held) != nil || c.VerifyInclusion(index, checkpoint.Hash(held.Hash), hashesOf(held.Path)) != nil) {
			s.Held = nil
		}
		served = append(served, s)
	}
	if len(served) == 0 {
		return fmt.Errorf("incident %s: none of the bytes that were served were kept, so that there is nothing to show", inc.ID)
	}
	return evidence.WriteMismatch(w, origin, note, served, key, statement)
}

// coverage writes evidence of what was watched of a log. What is still going on is
// written into the ledger first, and its head signed.
func (x *exporter) coverage(ctx context.Context, name string, p period, w io.Writer) error {
	now := time.Now()
	since, until, err := p.parse(now)
	if err != nil {
		return err
	}
	if err := x.store.SealSpans(ctx, now); err != nil {
		return err
	}
	signed, err := x.setup.signLedger(ctx, x.store)
	if err != nil {
		return err
	}
	stretch := evidence.Stretch{Since: since, Until: until, Ledger: originOf([]byte(signed.Note)), Head: signed.Note}
	if stretch.Origin, err = x.originNamed(ctx, name); err != nil {
		return err
	}
	first, head, err := x.stretch(ctx, &stretch, signed.Size)
	if err != nil {
		return err
	}
	last := first + uint64(len(stretch.Rows)) - 1
	if stretch.Path, err = x.store.LedgerPath(ctx, last, signed.Size); err != nil {
		return err
	}
	key, err := x.setup.signingKey(false)
	if err != nil {
		return err
	}
	if stretch.LedgerKey, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return err
	}
	if head != nil {
		note, id, err := x.store.LogNote(ctx, stretch.Origin, *head)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if stretch.Note = []byte(note); note != "" {
			if stretch.LogKey, err = x.logKey(ctx, id, originOf(stretch.Note), stretch.Note); err != nil {
				return err
			}
		}
	}
	cov, err := x.setup.readCoverage(ctx, x.store, since, until, stretch.Origin)
	if err != nil {
		return err
	}
	if len(cov.Logs) == 1 {
		// The segments are the rows beside it.
		cov.Logs[0].Segments = nil
	}
	if stretch.Statement, err = x.statement(map[string]any{"coverage": cov}); err != nil {
		return err
	}
	return evidence.WriteCoverage(w, stretch)
}

// maxStretch bounds the bytes of the rows in one file.
const maxStretch = 100 << 20

// stretch gathers the rows of the time: from the last one before it, to the first one
// that tells of the log behind it. It returns the first row, and the last head of the
// log that they name.
func (x *exporter) stretch(ctx context.Context, s *evidence.Stretch, size uint64) (first uint64, head *ledger.Head, err error) {
	var before []byte
	done, bytes := false, 0
	err = x.store.EachLedgerRow(ctx, 0, size, func(line []byte) error {
		r, err := ledger.Parse(line)
		if err != nil || done {
			return err
		}
		if len(s.Rows) == 0 && r.At.Before(s.Since) { // a clock may have been set back since
			before, first = line, r.N
			return nil
		}
		if before != nil && len(s.Rows) == 0 {
			s.Rows = append(s.Rows, before)
		}
		if len(s.Rows) == 0 {
			first = r.N
		}
		if bytes += len(line); bytes > maxStretch {
			return errors.New("the period has too many rows for one file; choose a shorter one")
		}
		s.Rows = append(s.Rows, line)
		if r.Kind == ledger.KindSpan && ledger.LogKey(r.Log) == ledger.LogKey(s.Origin) {
			span, err := ledger.Read[ledger.Span](r)
			if err != nil {
				return err
			}
			head = &span.Head
			done = !span.Since.Before(s.Until)
		}
		return nil
	})
	if err == nil && len(s.Rows) == 0 && before != nil {
		s.Rows = append(s.Rows, before)
	}
	if err == nil && len(s.Rows) == 0 {
		err = errors.New("the ledger is empty; `sigwarden run` begins it")
	}
	return first, head, err
}

// originNamed finds the origin of a log by its name.
func (x *exporter) originNamed(ctx context.Context, name string) (string, error) {
	states, err := x.store.States(ctx)
	if err != nil {
		return "", err
	}
	var names []string
	for _, st := range states {
		if st.Name == name || st.Origin == name {
			return st.Origin, nil
		}
		names = append(names, st.Name)
	}
	slices.Sort(names)
	return "", usage(fmt.Errorf("no log %q is known; there are: %s", name, strings.Join(names, ", ")))
}

// logKey returns the key, as DER, that signed a checkpoint of a log, of those that are
// known of it.
func (x *exporter) logKey(ctx context.Context, logID, origin string, note []byte) ([]byte, error) {
	st, err := x.store.State(ctx, logID)
	if err != nil {
		return nil, err
	}
	for _, der := range st.Keys {
		log, err := checkpoint.ForOrigin(origin, string(pemOf(der)))
		if err != nil {
			continue
		}
		if _, err := log.Open(note); err == nil {
			return der, nil
		}
	}
	return nil, fmt.Errorf("log %s: no key that is known of it verifies the checkpoint that was kept; the state file is damaged, or was written by an earlier version: run `sigwarden run --once` first", origin)
}

// statement is what is said beside what is proven, without the addresses of people where
// they are to be left out.
func (x *exporter) statement(v any) (any, error) {
	if x.redactor == nil {
		return v, nil
	}
	doc, err := json.Marshal(v)
	if err == nil {
		doc, err = x.redactor.JSON(doc)
	}
	return json.RawMessage(doc), err
}

// readRedactor makes a redactor with the secret in a file.
func readRedactor(path string) (*redact.Redactor, error) {
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r, err := redact.New(key)
	if err != nil {
		err = fmt.Errorf("%s %w", path, err)
	}
	return r, err
}

func originOf(note []byte) string {
	origin, _, _ := strings.Cut(string(note), "\n")
	return origin
}

// textOf is the text of a note that is signed, with the line feed at its end.
func textOf(note string) string {
	text, _, _ := strings.Cut(note, "\n\n")
	return text + "\n"
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func hashesOf(list []checkpoint.HexHash) []checkpoint.Hash {
	out := make([]checkpoint.Hash, len(list))
	for i, h := range list {
		out[i] = checkpoint.Hash(h)
	}
	return out
}

// rootKeys returns the keys of a log that a trusted root names, as PEM.
func rootKeys(root *trust.Root) func(origin string) []string {
	return func(origin string) (keys []string) {
		host, _, tree := checkpoint.SplitOrigin(origin)
		for _, l := range root.Logs {
			if l.Origin == origin || tree && l.Origin == host {
				keys = append(keys, string(pemOf(l.SPKI)))
			}
		}
		return keys
	}
}
