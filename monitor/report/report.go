package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// Format names this version of the documents.
const Format = "sigwarden-report/v1"

// Report is the document of a period.
type Report struct {
	Format string    `json:"format"`
	Made   time.Time `json:"made_at"`
	// Version is that of the program that made it.
	Version string    `json:"version"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	Scope   Scope     `json:"scope"`
	// Gaps are what was not covered, of all logs, the worst first.
	Gaps      []NotCovered `json:"not_covered"`
	Coverage  Coverage     `json:"coverage"`
	Findings  Findings     `json:"findings"`
	Incidents Incidents    `json:"incidents"`
	// Decisions are what people, and the program on its own, have decided: the rows of
	// the audit trail.
	Decisions []Decision `json:"decisions"`
	Blind     Blind      `json:"blind_spots"`
	// Deliveries are how the channels are when the report is made.
	Deliveries []monitor.ChannelStatus `json:"deliveries"`
	Witness    *Witness                `json:"witness"` // null: none is configured
	// Series are the charts.
	Series Series `json:"series"`
	Verify Verify `json:"how_to_verify"`
	// LeftOut are the lists that this document does not have in full, since it would be too
	// long to be sent.
	LeftOut []string `json:"left_out_sections,omitempty"`
}

// Scope is what was looked for, as configured when the report is made.
type Scope struct {
	Watches []Watch `json:"watches"`
	// Redacted: e-mail addresses are replaced by keyed hashes.
	Redacted bool `json:"redacted"`
}

// Watch is a watch of the configuration.
type Watch struct {
	Name     string `json:"name"`
	RuleHash string `json:"rule_hash"`
	Severity string `json:"severity"`
	// Findings are those of the period.
	Findings int `json:"findings"`
}

// NotCovered is something that was not watched or not read.
type NotCovered struct {
	Log    string    `json:"log"` // empty: all of them
	Kind   string    `json:"kind"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
	// From and To are the entries, where it is about some.
	From uint64 `json:"from,omitempty"`
	To   uint64 `json:"to,omitempty"`
}

// Kinds of NotCovered.
const (
	KindTime     = "time"     // nobody was watching
	KindEntries  = "entries"  // entries could not be read
	KindHalted   = "halted"   // the log stood still
	KindRestored = "restored" // the state was an older copy of itself
	KindBehind   = "behind"   // entries of the verified tree were not read yet
	KindUnread   = "unread"   // entries are not read at all, by the configuration
)

// Findings are the signing events of the period.
type Findings struct {
	Total     int            `json:"total"`
	ByVerdict map[string]int `json:"by_verdict"`
	ByState   map[string]int `json:"by_state"`
	// List are the first of them that fit, the worst verdicts first; Left out are the
	// others.
	List    []Finding `json:"list"`
	LeftOut int       `json:"left_out"`
}

// Finding is a signing event, with what became of it.
type Finding struct {
	ID         string     `json:"id"`
	Log        string     `json:"log"`
	Index      uint64     `json:"index"`
	Watch      string     `json:"watch"`
	RuleHash   string     `json:"rule_hash"` // of the rule that it was judged by
	Verdict    string     `json:"verdict"`
	Severity   string     `json:"severity"`
	Reason     string     `json:"reason"`
	Signers    []string   `json:"signers"`
	Issuer     string     `json:"issuer"`
	Digests    []string   `json:"digests"`
	At         time.Time  `json:"event_time"`
	TimeSource string     `json:"event_time_source"`
	SeenAt     time.Time  `json:"seen_at"`
	State      string     `json:"state"`
	Resolution string     `json:"resolution,omitempty"`
	By         string     `json:"by,omitempty"`
	ChangedAt  *time.Time `json:"changed_at,omitempty"`
	Note       string     `json:"note,omitempty"`
}

// Incidents are those that were open in the period.
type Incidents struct {
	Total   int                `json:"total"`
	ByClass map[string]int     `json:"by_class"`
	List    []monitor.Incident `json:"list"`
}

// Decision is a row of the audit trail.
type Decision struct {
	N       int64     `json:"n"`
	At      time.Time `json:"at"`
	By      string    `json:"by"`
	Action  string    `json:"action"`
	Subject string    `json:"subject"`
	Detail  string    `json:"detail"`
}

// Blind is what cannot be seen in what was read.
type Blind struct {
	// KeyOnly entries name no identity, Undecodable ones no decoder understood.
	KeyOnly     uint64 `json:"key_only_entries"`
	Undecodable uint64 `json:"undecodable_entries"`
	// Warnings are those of the watchlist: what it can never match, among others.
	Warnings []string `json:"warnings"`
}

// Witness are the cosignatures of this program's own witness.
type Witness struct {
	Logs int `json:"logs"`
	// Doubted are logs of which nothing is signed any more.
	Doubted int       `json:"doubted"`
	Last    time.Time `json:"last_cosignature"`
	// Promises are what was co-signed last of each log.
	Promises []Promise `json:"promises"`
}

// Promise is what was co-signed last of a log.
type Promise struct {
	Origin string    `json:"origin"`
	Size   uint64    `json:"size"`
	Root   string    `json:"root"`
	At     time.Time `json:"at"`
	Doubt  string    `json:"doubt,omitempty"`
}

// Verify is what somebody needs who wants to check the report.
type Verify struct {
	Ledger     string `json:"ledger"` // origin
	Rows       uint64 `json:"rows"`   // of the signed head
	Head       string `json:"head"`   // the note
	PublicKey  string `json:"public_key"`
	AuditRows  int64  `json:"audit_rows"`
	AuditHash  string `json:"audit_hash"`
	SignedWith string `json:"signed_with"` // "" if it is not signed
}

// MaxListed is how many findings a report lists at most.
const MaxListed = 10000

// Hider takes the addresses of people out of every text of a JSON document.
type Hider interface {
	JSON(doc []byte) ([]byte, error)
}

// Builder makes a report.
type Builder struct {
	r       Report
	hide    Hider
	listed  map[string][]Finding // by verdict
	watches map[string]int
	points  []point
}

// New begins a report of a period. hide, if not nil, takes the addresses of people out of
// it.
func New(since, until, made time.Time, version string, hide Hider) *Builder {
	b := &Builder{hide: hide, listed: map[string][]Finding{}, watches: map[string]int{}}
	b.r = Report{
		Format: Format, Made: made.UTC().Truncate(time.Second), Version: version, Since: since.UTC(), Until: until.UTC(), Scope: Scope{Watches: []Watch{}, Redacted: hide != nil}, Gaps: []NotCovered{},
		Findings: Findings{ByVerdict: map[string]int{}, ByState: map[string]int{}, List: []Finding{}}, Incidents: Incidents{ByClass: map[string]int{}, List: []monitor.Incident{}},
		Decisions: []Decision{}, Blind: Blind{Warnings: []string{}}, Deliveries: []monitor.ChannelStatus{},
	}
	for _, v := range policy.Verdicts() {
		b.r.Findings.ByVerdict[string(v)] = 0
	}
	for _, s := range monitor.States() {
		b.r.Findings.ByState[s] = 0
	}
	b.r.Incidents.ByClass[monitor.Integrity], b.r.Incidents.ByClass[monitor.Operational] = 0, 0
	return b
}

// Watch adds a watch of today; Warning what it can never see.
func (b *Builder) Watch(name, ruleHash, severity string) {
	b.r.Scope.Watches = append(b.r.Scope.Watches, Watch{Name: name, RuleHash: ruleHash, Severity: severity})
}

// Warning adds what check warns of.
func (b *Builder) Warning(text string) {
	b.r.Blind.Warnings = append(b.r.Blind.Warnings, text)
}

// Finding adds a finding that was seen in the period.
func (b *Builder) Finding(f *monitor.Finding) {
	v := string(f.Verdict)
	b.r.Findings.Total++
	b.r.Findings.ByVerdict[v]++
	b.r.Findings.ByState[f.State]++
	b.watches[f.Watch]++
	b.points = append(b.points, point{f.SeenAt, v})
	if len(b.listed[v]) >= MaxListed {
		return
	}
	out := Finding{ID: f.ID, Log: f.Log, Index: f.Index, Watch: f.Watch, RuleHash: f.RuleHash, Verdict: v, Severity: f.Severity, Reason: f.Reason, Signers: []string{}, Digests: f.Digests,
		At: f.EventTime, TimeSource: string(f.EventTimeSource), SeenAt: f.SeenAt, State: f.State, Resolution: f.Resolution, By: f.By, ChangedAt: f.ChangedAt, Note: f.Note}
	if out.Digests == nil {
		out.Digests = []string{}
	}
	if out.At.IsZero() {
		out.At, out.TimeSource = f.SeenAt, string(policy.FirstSeen)
	}
	for _, id := range f.Identities {
		who := id.Subjects
		if len(who) == 0 {
			who = []string{id.Fingerprint}
		}
		for _, s := range who {
			if len(out.Signers) < maxSigners {
				out.Signers = append(out.Signers, s)
			}
		}
		out.Issuer = cmp.Or(out.Issuer, id.Issuer)
	}
	b.listed[v] = append(b.listed[v], out)
}

// maxSigners bounds the signers of a finding that are listed.
const maxSigners = 8

// Incident adds an incident that was open in the period.
func (b *Builder) Incident(inc monitor.Incident) {
	if inc.OpenedAt.After(b.r.Until) || inc.Resolved != nil && inc.Resolved.Before(b.r.Since) {
		return
	}
	b.r.Incidents.Total++
	b.r.Incidents.ByClass[inc.Class]++
	b.r.Incidents.List = append(b.r.Incidents.List, inc)
}

// Audit adds a row of the audit trail; those outside of the period are passed over.
func (b *Builder) Audit(row monitor.AuditRow) {
	b.r.Verify.AuditRows, b.r.Verify.AuditHash = row.N, row.Hash
	if row.At.Before(b.r.Since) || !row.At.Before(b.r.Until) {
		return
	}
	b.r.Decisions = append(b.r.Decisions, Decision{N: row.N, At: row.At, By: row.Actor, Action: row.Action, Subject: row.Subject, Detail: string(row.Detail)})
}

// Deliveries says how the channels are.
func (b *Builder) Deliveries(list []monitor.ChannelStatus) {
	b.r.Deliveries = append(b.r.Deliveries, list...)
}

// Promises says what the witness has co-signed; it is called where there is one.
func (b *Builder) Promises(list []Promise) {
	w := &Witness{Logs: len(list), Promises: append([]Promise{}, list...)}
	for _, p := range list {
		if p.Doubt != "" {
			w.Doubted++
		}
		w.Last = later(w.Last, p.At)
	}
	b.r.Witness = w
}

// Finish puts everything together.
func (b *Builder) Finish(cov Coverage, v Verify) (*Report, error) {
	r := &b.r
	r.Coverage = cov
	v.AuditRows, v.AuditHash = r.Verify.AuditRows, r.Verify.AuditHash
	r.Verify = v
	for i := range r.Coverage.Logs {
		l := &r.Coverage.Logs[i]
		r.Blind.KeyOnly, r.Blind.Undecodable = r.Blind.KeyOnly+l.KeyOnly, r.Blind.Undecodable+l.Undecodable
	}
	r.Gaps = append(r.Gaps, notCovered(&r.Coverage)...)
	left := MaxListed
	for _, verdict := range policy.Verdicts() {
		list := b.listed[string(verdict)]
		list = list[:min(left, len(list))]
		left -= len(list)
		r.Findings.List = append(r.Findings.List, list...)
	}
	r.Findings.LeftOut = r.Findings.Total - len(r.Findings.List)
	for i := range r.Scope.Watches {
		r.Scope.Watches[i].Findings = b.watches[r.Scope.Watches[i].Name]
	}
	r.Series = series(r.Since, r.Until, &r.Coverage, b.points)
	if b.hide == nil {
		return r, nil
	}
	return r.redacted(b.hide)
}

// redacted is a report without the addresses of people, wherever they were: every text in
// it is gone through.
func (r *Report) redacted(hide Hider) (*Report, error) {
	doc, err := json.Marshal(r)
	if err == nil {
		doc, err = hide.JSON(doc)
	}
	out := &Report{}
	if err == nil {
		err = json.Unmarshal(doc, out)
	}
	out.Series.Step = r.Series.Step
	return out, err
}

// Gone says what was deleted since, and is not counted: a line a class.
func (r *Report) Gone() (out []string) {
	sums := map[string]Tombstone{}
	for _, d := range r.Coverage.Deleted {
		if d.Before.After(r.Since) {
			sum := sums[d.Class]
			sum.Class, sum.Count, sum.Before, sum.At = d.Class, sum.Count+d.Count, later(sum.Before, d.Before), later(sum.At, d.At)
			sums[d.Class] = sum
		}
	}
	for _, class := range slices.Sorted(maps.Keys(sums)) {
		d := sums[class]
		out = append(out, fmt.Sprintf("%d of class %s from before %s were deleted, the last at %s, when their time was over: those of this period are not counted here.", d.Count, d.Class, stamp(d.Before), stamp(d.At)))
	}
	return out
}

// notCovered gathers what is missing, of all logs.
func notCovered(cov *Coverage) []NotCovered {
	var out []NotCovered
	for _, x := range cov.Restored {
		out = append(out, NotCovered{Kind: KindRestored, Since: x.At, Until: x.At, Reason: fmt.Sprintf("the state was an older copy of itself: of %d signed rows of the ledger at most %d were left, and what was recorded after them is lost", x.Lost.Size, x.Kept)})
	}
	for _, l := range cov.Logs {
		for _, h := range l.Halts {
			until := cov.Until
			if h.Until != nil {
				until = earlier(*h.Until, until)
			}
			out = append(out, NotCovered{Log: l.Log, Kind: KindHalted, Since: later(h.Since, cov.Since), Until: until, Reason: "halted by incident " + h.Incident})
		}
		for _, g := range l.Gaps {
			until := cov.Until
			if end, over := g.end(); over {
				until = earlier(end, until)
			}
			out = append(out, NotCovered{Log: l.Log, Kind: KindEntries, Since: later(g.Since, cov.Since), Until: until, Reason: g.Reason, From: g.From, To: g.To})
		}
		if l.Unread > 0 {
			out = append(out, NotCovered{Log: l.Log, Kind: KindBehind, Since: cov.Until, Until: cov.Until, Reason: fmt.Sprintf("%d entries of the verified tree of %d were not read yet at the end", l.Unread, l.Last.Size)})
		}
		if l.ConsistencyOnly {
			out = append(out, NotCovered{Log: l.Log, Kind: KindUnread, Since: cov.Since, Until: cov.Until, Reason: "only that the log is consistent is verified: its entries are not read, by the configuration (entries: false)"})
		}
		for _, p := range l.Pauses {
			if p.Reason == ledger.PauseHalted {
				continue // that is told above
			}
			reason := p.Reason
			if p.Error != "" {
				reason += ": " + p.Error
			}
			out = append(out, NotCovered{Log: l.Log, Kind: KindTime, Since: p.Since, Until: p.Until, Reason: reason})
		}
	}
	rank := []string{KindRestored, KindHalted, KindEntries, KindUnread, KindBehind, KindTime}
	slices.SortStableFunc(out, func(a, b NotCovered) int {
		return cmp.Or(cmp.Compare(slices.Index(rank, a.Kind), slices.Index(rank, b.Kind)), cmp.Compare(a.Log, b.Log), a.Since.Compare(b.Since))
	})
	return out
}
