package monitor

import (
	"encoding/hex"
	"errors"
	"fmt"
	"runtime/debug"
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
	StatePending      = "pending" // expected, unless it does not come on a list in time
	StateOpen         = "open"
	StateAcknowledged = "acknowledged"
	StateResolved     = "resolved"
	StateClosed       = "closed"
)

// States returns all of them.
func States() []string {
	return []string{StatePending, StateOpen, StateAcknowledged, StateResolved, StateClosed}
}

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

// eyes are what entries are read with, one after the other: nearly all are skimmed, and are
// nobody's.
type eyes struct {
	skimmer entry.Skimmer
	decoder entry.Decoder
	room    []byte // for the entries of a bundle
}

// takeEyes returns eyes that nobody uses now; putEyes gives them back.
func (r *runner) takeEyes() *eyes {
	if e, ok := r.eyes.Get().(*eyes); ok {
		return e
	}
	return new(eyes)
}

func (r *runner) putEyes(e *eyes) {
	if cap(e.room) > maxRoom {
		return // the decoder may still point into it
	}
	r.eyes.Put(e)
}

// maxRoom bounds what is kept for bundles to come: most have less than a megabyte.
const maxRoom = 2 << 20

// read decodes one proven leaf and returns a finding for every watch that it
// belongs to. Proof and checkpoint are filled in by the caller.
// integrated, if not nil, returns when the log took the entry in, zero if it has
// not signed that.
func (r *runner) read(eyes *eyes, index uint64, leaf []byte, integrated func() time.Time, count *tally) []Finding {
	return r.judge(eyes, index, leaf, integrated, "", count)
}

// judge is read for a log whose origin is known already, if that is not empty.
func (r *runner) judge(eyes *eyes, index uint64, leaf []byte, integrated func() time.Time, origin string, count *tally) (findings []Finding) {
	count.entries++
	var hits []watchlist.Hit
	var raw []watchlist.RawHit
	searched := false
	// Entries go through parsers of others, and stay in the log: one that broke any would end the
	// program, and every one that is begun after it.
	defer func() {
		if fault := recover(); fault != nil {
			eyes.skimmer, eyes.decoder = entry.Skimmer{}, entry.Decoder{}
			r.faulty(index, fault, debug.Stack())
			if !searched {
				raw = r.undecodable(brokenKind, leaf, count)
			}
			base := r.base(&entry.Facts{Kind: brokenKind}, index, slices.Clone(leaf), time.Time{}, origin)
			findings = r.malformed(base, time.Time{}, raw, hits, fmt.Errorf("it breaks what reads entries: %v", fault))
		}
	}()
	if skim, ok := eyes.skimmer.Skim(leaf); ok && !r.opts.Watches.MayMatch(skim) {
		if skim.KeyOnly {
			count.keyOnly++
		}
		return nil
	}
	passing, err := eyes.decoder.Decode(leaf)
	if passing.KeyOnly() {
		count.keyOnly++
	}
	hits = r.opts.Watches.Match(passing)
	if err == nil && len(hits) == 0 {
		return nil
	}
	// What is kept must not share memory with the decoder, nor with the next bundle.
	leaf = slices.Clone(leaf)
	facts, err := entry.Decode(leaf)
	if err != nil {
		kind := kindOf(&facts)
		if broken := (*entry.FaultError)(nil); errors.As(err, &broken) {
			r.faulty(index, broken.Fault, broken.Stack)
			kind = brokenKind
		}
		raw, searched = r.undecodable(kind, leaf, count), true
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
	base := r.base(&facts, index, leaf, when, origin)
	base.Identities = reports
	if worst != "" {
		base.SCT = string(worst)
	}
	if err != nil {
		return r.malformed(base, when, raw, hits, err)
	}
	rules := r.opts.Watches.Watches()
	for _, h := range hits {
		f := r.about(base, rules, h.Watch)
		f.draft.Identities, f.draft.Suffix = r.identities(h, &facts, vouched, index, when, base.SeenAt), untimely
		if j, final := policy.Stateless(f.draft.Identities); final {
			if !policy.Stores(j.Verdict, f.draft.Untrusted) {
				continue
			}
			f.take(j)
			f.draft.Identities = nil
		}
		findings = append(findings, f)
	}
	return findings
}

// brokenKind is under what entries are counted that break what reads them: longer than what an entry
// can say of itself.
const brokenKind = "entries that break what reads entries, which is a fault of this program"

// faulty takes it down that an entry broke what reads it.
func (r *runner) faulty(index uint64, fault any, stack []byte) {
	if r.faults.Add(1) > 3 {
		stack = nil // the first few tell where it is
	}
	r.log.Error("an entry broke what reads entries; it is searched as raw bytes. Please report this", "index", index, "fault", fault, "stack", string(stack))
}

// kindOf is under what an entry is counted that cannot be decoded in full.
func kindOf(facts *entry.Facts) string {
	if facts.Kind == "" {
		return "not JSON of an entry"
	}
	kind := strings.TrimSpace(facts.Kind + " " + facts.APIVersion)
	return strings.ToValidUTF8(kind[:min(len(kind), maxKind)], "?")
}

// undecodable counts an entry that cannot be decoded in full, and searches its bytes.
func (r *runner) undecodable(kind string, leaf []byte, count *tally) (hits []watchlist.RawHit) {
	count.undecodable++
	if count.kinds == nil {
		count.kinds = map[string]uint64{}
	}
	count.kinds[kind]++
	defer func() {
		if fault := recover(); fault != nil {
			r.log.Error("the bytes of an entry broke what searches them. Please report this", "fault", fault, "stack", string(debug.Stack()))
		}
	}()
	return r.opts.Watches.MatchRaw(leaf)
}

// base is what all findings of an entry have in common.
func (r *runner) base(facts *entry.Facts, index uint64, leaf []byte, when time.Time, origin string) Finding {
	trust := r.trust.Load()
	if origin == "" {
		origin = r.way().Log.Origin()
	}
	f := Finding{
		Log: r.cfg.Name, LogID: r.cfg.ID, Origin: origin, Index: index, LeafHash: checkpoint.HexHash(checkpoint.LeafHash(leaf)),
		Kind: facts.Kind, APIVersion: facts.APIVersion, Identities: []entry.Report{}, Digests: facts.Digests,
		SCT:    string(entry.SCTUnchecked), // bare keys have none to check
		SeenAt: r.opts.Now().UTC(), Leaf: leaf, Authorities: trust.document, TrustRoot: trust.root,
	}
	if f.Digests == nil {
		f.Digests = []string{}
	}
	if !when.IsZero() {
		f.Integrated = &when
	}
	return f
}

// malformed makes the findings of an entry that cannot be decoded in full: nobody expects it, since what
// was not read could say otherwise.
func (r *runner) malformed(base Finding, when time.Time, raw []watchlist.RawHit, hits []watchlist.Hit, err error) (findings []Finding) {
	rules := r.opts.Watches.Watches()
	told := make(map[int]bool, len(raw)+len(hits))
	add := func(watch int, why string) {
		if told[watch] {
			return
		}
		told[watch] = true
		f := r.about(base, rules, watch)
		at, source := base.SeenAt, policy.FirstSeen
		if !when.IsZero() {
			at, source = when, policy.FromLog
		}
		f.take(policy.Judgement{Verdict: policy.Malformed, Cause: "the entry cannot be decoded in full", Time: at, Source: source,
			Reason: fmt.Sprintf("the entry cannot be decoded in full (%s), and %s", shorten(err.Error()), why)})
		findings = append(findings, f)
	}
	for _, h := range raw {
		add(h.Watch, "its bytes contain "+quoted(h.Found))
	}
	for _, h := range hits {
		add(h.Watch, "what can be read of it is what the watch looks for")
	}
	return findings
}

func quoted(s string) string { return fmt.Sprintf("%q", shorten(s)) }

// shortLived is how long a certificate is valid at most that tells when it was used:
// that of a private authority may be used for years.
const shortLived = 24 * time.Hour

// identities says what is known of the identities that a watch claims.
func (r *runner) identities(h watchlist.Hit, facts *entry.Facts, vouched []error, index uint64, integrated, seen time.Time) []policy.Identity {
	var ids []policy.Identity
	cfg := &r.opts.WatchConfigs[h.Watch]
	for _, ours := range h.Ours {
		id := policy.Identity{Pinned: ours.Pinned, Known: ours.Known, Vouched: true}
		id.Event = policy.Event{Time: seen, Source: policy.FirstSeen, Index: index, Digests: facts.Digests}
		var one *entry.Identity
		if ours.Index >= 0 {
			one = &facts.Identities[ours.Index]
			id.Certificate = one.Certificate != nil
			if err := vouched[ours.Index]; id.Certificate && err != nil {
				id.Vouched, id.Untrusted = false, err.Error()
			} else if id.Certificate && one.NotAfter.Sub(one.NotBefore) <= shortLived {
				id.Event.Time, id.Event.Source = one.NotBefore.UTC(), policy.FromCertificate
			}
		}
		if !integrated.IsZero() {
			id.Event.Time, id.Event.Source = integrated, policy.FromLog
		}
		var fits []int
		fits, id.Cause, id.Misfit = r.opts.Watches.Fits(h.Watch, facts, ours.Index, id.Vouched)
		for _, i := range fits {
			item := policy.Item{Number: i + 1, Counter: r.counters[h.Watch][i]}
			if i < len(cfg.Terms) {
				item.Terms = cfg.Terms[i]
			}
			id.Fits = append(id.Fits, item)
			if t := item.Terms; t != nil && one != nil && t.OncePer != "" && t.OncePer != policy.ByDigest {
				if value, ok := one.Extension(t.OncePer); ok {
					if id.Event.Extensions == nil {
						id.Event.Extensions = map[string]string{}
					}
					id.Event.Extensions[t.OncePer] = value
				}
			}
		}
		ids = append(ids, id)
	}
	return ids
}

// about begins a finding of one watch.
func (r *runner) about(f Finding, rules []watchlist.Watch, watch int) Finding {
	cfg := &r.opts.WatchConfigs[watch]
	f.Watch, f.Severity, f.RuleHash, f.Channels = rules[watch].Name, cfg.Severity, r.watchSet[watch], cfg.Channels
	f.draft = &draft{waiting: waiting{Untrusted: rules[watch].Untrusted}, lists: r.opts.Lists, route: r.opts.Route}
	return f
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

// FindingEventID is the id of the event that tells of a finding.
func FindingEventID(f Finding) string { return shortID("e-", f.ID, string(f.Verdict)) }

// FindingLine is a finding in one line, for people.
func FindingLine(f Finding) string {
	who := "nobody"
	if len(f.Identities) > 0 {
		who = signer(f.Identities[0])
	}
	return fmt.Sprintf("%s/%d by %s: %s (%s)", f.Log, f.Index, notify.Clean(who, 120), notify.Clean(f.Reason, 160), f.ID)
}

func signer(id entry.Report) string {
	if len(id.Subjects) > 0 {
		return strings.Join(id.Subjects, ", ")
	}
	return "a key with fingerprint " + id.Fingerprint
}

// EscalationEvent makes the event that tells, once more and to others, of a
// finding that nobody has acknowledged. Its id is the caller's to give.
func EscalationEvent(f Finding) notify.Event {
	e := FindingEvent(f)
	e.Type, e.Title = notify.FindingEscalated, "Nobody has acknowledged: "+e.Title
	e.Summary = "This finding was told before, and nobody has acknowledged it. " + e.Summary
	return e
}

// timeSources say how the time of an event is known.
var timeSources = map[policy.TimeSource]string{
	policy.FromLog:         "as the log has signed",
	policy.FromCertificate: "as the certificate says, which is valid from then on",
	policy.FirstSeen:       "when it was first seen; nobody has signed a time",
}

// maxShown is how many identities of an entry a message names.
const maxShown = 4

// FindingEvent makes the event that tells of a finding.
func FindingEvent(f Finding) notify.Event {
	e := notify.Event{
		ID: FindingEventID(f), Type: "finding." + string(f.Verdict), Time: f.SeenAt, Severity: f.Severity,
		Title:   fmt.Sprintf("%s signing event for watch %s", f.Verdict, f.Watch),
		Summary: fmt.Sprintf("Entry %d of log %s is yours by watch %s, and %s.", f.Index, f.Log, f.Watch, f.Reason),
		Next:    "sigwarden findings show " + f.ID,
		Path:    "/findings/" + f.ID,
		Subject: f.ID,
		Group:   notify.GroupKey(f.Watch, f.Cause),
		Data:    marshal(map[string]any{"finding": f}),
	}
	add := func(name, value string) {
		if value != "" {
			e.Fields = append(e.Fields, notify.Field{Name: name, Value: value})
		}
	}
	// What is always there comes first: an entry may name many identities.
	add("Artifact", strings.Join(f.Digests, ", "))
	add("Log and index", fmt.Sprintf("%s, %d", f.Origin, f.Index))
	if how := timeSources[f.EventTimeSource]; how != "" && !f.EventTime.IsZero() {
		add("When", f.EventTime.UTC().Format(time.RFC3339)+", "+how)
	}
	add("Seen", f.SeenAt.UTC().Format(time.RFC3339))
	add("Verified", fmt.Sprintf("inclusion proven in the signed tree of size %d, root %s", f.Checkpoint.Size, hex.EncodeToString(f.Checkpoint.Root[:])))
	for i, id := range f.Identities {
		if i == maxShown {
			add("And", fmt.Sprintf("%d identities more", len(f.Identities)-i))
			break
		}
		add("Signed as", signer(id))
		add("Issuer", id.Issuer)
		if id.Certificate != nil {
			add("Certificate", trustOf(id.Certificate))
		}
	}
	add("Finding", f.ID)
	return e
}
