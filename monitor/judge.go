package monitor

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/entry"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// States of findings and incidents.
const (
	StateOpen         = "open"
	StateAcknowledged = "acknowledged"
	StateResolved     = "resolved"
	StateClosed       = "closed"
)

// States returns all of them.
func States() []string { return []string{StateOpen, StateAcknowledged, StateResolved, StateClosed} }

// tally counts what was read.
type tally struct {
	entries, keyOnly, undecodable uint64
	kinds                         map[string]uint64
}

func (c *tally) add(o tally) {
	c.entries += o.entries
	c.keyOnly += o.keyOnly
	c.undecodable += o.undecodable
	for k, n := range o.kinds {
		if c.kinds == nil {
			c.kinds = map[string]uint64{}
		}
		c.kinds[k] += n
	}
}

// maxKind bounds the name of an unknown kind that is counted.
const maxKind = 60

// read decodes one proven leaf and returns a finding for every watch that it
// belongs to. Proof and checkpoint are filled in by the caller.
// integrated, if not nil, returns when the log took the entry in, zero if it has
// not signed that.
func (r *runner) read(decoder *entry.Decoder, index uint64, leaf []byte, hash checkpoint.Hash, integrated func() time.Time, count *tally) []Finding {
	passing, err := decoder.Decode(leaf)
	count.entries++
	if passing.KeyOnly() {
		count.keyOnly++
	}
	hits := r.opts.Watches.Match(passing)
	if err == nil && len(hits) == 0 {
		return nil
	}
	// What is kept must not share the decoder's memory.
	facts, err := entry.Decode(leaf)
	var raw []watchlist.RawHit
	if err != nil {
		count.undecodable++
		kind := "not JSON of an entry"
		if facts.Kind != "" {
			kind = facts.Kind + " " + facts.APIVersion
			kind = strings.ToValidUTF8(kind[:min(len(kind), maxKind)], "?")
		}

		if count.kinds == nil {
			count.kinds = map[string]uint64{}
		}
		count.kinds[kind]++
		raw = r.opts.Watches.MatchRaw(leaf)
	}
	if len(hits)+len(raw) == 0 {
		return nil
	}
	// Only entries of ours come this far: signatures are verified for them alone.
	when := time.Time{}
	if integrated != nil {
		when = integrated()
	}
	trust := r.trust.Load()
	vouched := make([]error, len(facts.Identities))
	reports := []entry.Report{}
	worst := entry.SCT("")
	untimely := ""
	for i := range facts.Identities {
		id, at := &facts.Identities[i], when
		vouched[i] = trust.authorities.VerifyAt(id, at)
		if vouched[i] != nil && !at.IsZero() && trust.authorities.Verify(id) == nil {
			// A trusted authority issued it all the same: whoever has stolen an identity
			// is not to hide by waiting before the upload.
			untimely = fmt.Sprintf("; it was logged at %s, when its certificate (%s to %s) was not valid",
				when.Format(time.RFC3339), id.NotBefore.Format(time.RFC3339), id.NotAfter.Format(time.RFC3339))
			at, vouched[i] = time.Time{}, nil
		}
		worst = entry.WorstSCT(worst, trust.authorities.SCT(id, at))
		reports = append(reports, id.Report(vouched[i]))
	}
	if facts.Digests == nil {
		facts.Digests = []string{}
	}
	if worst == "" {
		worst = entry.SCTUnchecked // bare keys have none to check
	}
	base := Finding{
		Log: r.cfg.Name, LogID: r.cfg.ID, Origin: r.way().Log.Origin(), Index: index, LeafHash: checkpoint.HexHash(hash),
		Kind: facts.Kind, APIVersion: facts.APIVersion, Identities: reports, Digests: facts.Digests,
		SCT: string(worst), SeenAt: r.opts.Now().UTC(), Leaf: slices.Clone(leaf),
		Authorities: trust.document, TrustRoot: trust.root,
	}
	if !when.IsZero() {
		base.Integrated = &when
	}
	var findings []Finding
	add := func(watch int, verdict policy.Verdict, reason string) {
		if f, ok := r.finding(base, watch, verdict, reason); ok {
			findings = append(findings, f)
		}
	}
	malformed := map[int]bool{}
	for _, h := range raw {
		malformed[h.Watch] = true
		add(h.Watch, policy.Malformed, fmt.Sprintf("the entry cannot be decoded in full (%s), and its bytes contain %s", shorten(err.Error()), quoted(h.Found)))
	}
	for _, h := range hits {
		if !malformed[h.Watch] {
			verdict, reason := r.verdict(h, &facts, vouched)
			add(h.Watch, verdict, reason+untimely)
		}
	}
	return findings
}

func quoted(s string) string { return fmt.Sprintf("%q", shorten(s)) }

func (r *runner) verdict(h watchlist.Hit, facts *entry.Facts, vouched []error) (policy.Verdict, string) {
	var ids []policy.Identity
	for _, ours := range h.Ours {
		id := policy.Identity{Pinned: ours.Pinned, Vouched: true}
		if ours.Index >= 0 {
			id.Certificate = facts.Identities[ours.Index].Certificate != nil
			if err := vouched[ours.Index]; id.Certificate && err != nil {
				id.Vouched, id.Untrusted = false, err.Error()
			}
		}
		id.Expected, id.Reason = r.opts.Watches.Expected(h.Watch, facts, ours.Index, id.Vouched)
		ids = append(ids, id)
	}
	return policy.Judge(ids...)
}

// finding completes a finding of one watch; false where it is only counted.
func (r *runner) finding(f Finding, watch int, verdict policy.Verdict, reason string) (Finding, bool) {
	rule, cfg := r.opts.Watches.Watches()[watch], r.opts.WatchConfigs[watch]
	if !policy.Stores(verdict, rule.Untrusted) {
		return f, false
	}
	f.Watch, f.Verdict, f.Reason, f.Severity, f.RuleHash = rule.Name, verdict, shorten(reason), cfg.Severity, r.watchSet[watch]
	f.State = StateClosed
	if policy.Notifies(verdict, rule.Untrusted) {
		f.State = StateOpen
	}
	return f, true
}

// seal gives a finding its id, its proof and its deliveries, once it is known
// under which head it was proven.
func (r *runner) seal(f *Finding, epoch string, head checkpoint.Checkpoint, proof []checkpoint.Hash) {
	// SPEC: interface: the id is derived from the log's identity, index and
	// watch. An epoch only enters where a log was given a new baseline.
	parts := []string{f.LogID, fmt.Sprint(f.Index), f.Watch}
	if epoch != "" {
		parts = append(parts, epoch)
	}
	f.ID = shortID("f-", parts...)
	f.Proof, f.SignedNote = proof, string(head.Raw())
	f.Checkpoint = TreeHead{head.Size(), checkpoint.HexHash(head.Root())}
	if f.State != StateOpen {
		return
	}
	for i, w := range r.opts.Watches.Watches() {
		if w.Name == f.Watch {
			f.Deliveries = address(r.opts.WatchConfigs[i].Channels, FindingEvent(*f))
		}
	}
}

func trustOf(c *entry.CertificateReport) string {
	switch {
	case c.Trusted == nil:
		return "not judged"
	case *c.Trusted:
		return "issued by a trusted authority"
	}
	return "NOT TRUSTED: " + c.Untrusted
}

// FindingEvent makes the event that tells of a finding.
func FindingEvent(f Finding) notify.Event {
	e := notify.Event{
		ID: shortID("e-", f.ID, string(f.Verdict)), Type: "finding." + string(f.Verdict), Time: f.SeenAt, Severity: f.Severity,
		Title:   fmt.Sprintf("%s signing event for watch %s", f.Verdict, f.Watch),
		Summary: fmt.Sprintf("Entry %d of log %s is yours by watch %s, and %s.", f.Index, f.Log, f.Watch, f.Reason),
		Next:    "sigwarden findings show " + f.ID,
		Data:    marshal(map[string]any{"finding": f}),
	}
	add := func(name, value string) {
		if value != "" {
			e.Fields = append(e.Fields, notify.Field{Name: name, Value: value})
		}
	}
	for _, id := range f.Identities {
		who := strings.Join(id.Subjects, ", ")
		if who == "" {
			who = "a key with fingerprint " + id.Fingerprint
		}
		add("Signed as", who)
		add("Issuer", id.Issuer)
		if id.Certificate != nil {
			add("Certificate", trustOf(id.Certificate))
		}
	}
	add("Artifact", strings.Join(f.Digests, ", "))
	add("Log and index", fmt.Sprintf("%s, %d", f.Origin, f.Index))
	add("Seen", f.SeenAt.UTC().Format(time.RFC3339))
	add("Verified", fmt.Sprintf("inclusion proven in the signed tree of size %d, root %s", f.Checkpoint.Size, hex.EncodeToString(f.Checkpoint.Root[:])))
	add("Finding", f.ID)
	return e
}
