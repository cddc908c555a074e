package monitor

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/notify"
)

// Classes of incidents.
const (
	Integrity   = "integrity"
	Operational = "operational"
)

// Kinds of incidents.
const (
	KindFork           = "fork"
	KindSplitView      = "split-view"
	KindRetiredChanged = "retired-log-changed"
	KindUnproven       = "unproven"
	KindEntryMismatch  = "entry-mismatch"
	KindBadSignature   = "bad-signature"
	KindEntryWithheld  = "entry-withheld"
	KindRollback       = "rollback"
	KindStale          = "stale"
	KindUnreachable    = "unreachable"
	KindLagging        = "lagging"
	KindUndecodable    = "undecodable"
	KindDeliveryFailed = "delivery-failed"
	KindLogRemoved     = "log-removed"
	KindTrustStale     = "trust-stale"
	KindTrustUnusable  = "trust-unusable"
	KindSilence        = "silence"
	KindWitnessDoubt   = "witness-doubt"
	KindCosignatures   = "cosignatures-missing"
	KindListUnusable   = "list-unusable"
	KindStateRestored  = "state-restored"
)

// IncidentKind is a line of the table of incidents.
type IncidentKind struct {
	Kind, Class, Severity string
	// Effect says what becomes of the log, for people.
	Effect string
	// Halts: the log stands still until a person has looked at it.
	Halts bool
	// Flaps: it may come and go many times a day.
	Flaps bool
}

var incidentKinds = []IncidentKind{
	{Kind: KindFork, Class: Integrity, Severity: "critical", Halts: true,
		Effect: "The log is halted at its last verified checkpoint until somebody runs `sigwarden logs resume`."},
	{Kind: KindSplitView, Class: Integrity, Severity: "critical", Halts: true,
		Effect: "The log is halted at its last verified checkpoint until somebody runs `sigwarden logs resume`."},
	{Kind: KindRetiredChanged, Class: Integrity, Severity: "critical", Halts: true,
		Effect: "The log is halted at its last checkpoint until somebody runs `sigwarden logs resume`."},
	{Kind: KindUnproven, Class: Integrity, Severity: "critical",
		Effect: "The verified head stays where it is; every poll tries again, and the incident resolves itself when the log proves itself."},
	{Kind: KindEntryMismatch, Class: Integrity, Severity: "critical",
		Effect: "The scan goes on past the gap; it is tried again at every poll, and the incident resolves itself when the true entries are served."},
	{Kind: KindBadSignature, Class: Integrity, Severity: "critical",
		Effect: "The verified head stays where it is; every poll tries again, and the incident resolves itself when the log signs with its key again."},
	{Kind: KindLogRemoved, Class: Integrity, Severity: "critical",
		Effect: "The log is followed as before, with the key that is known of it; the incident resolves itself when the trusted root names the log again."},
	{Kind: KindEntryWithheld, Class: Operational, Severity: "high",
		Effect: "The scan goes on past the gap; it is tried again at every poll, and the incident resolves itself when the entries are served."},
	{Kind: KindRollback, Class: Operational, Severity: "medium", Flaps: true,
		Effect: "The verified head stays where it is; the incident resolves itself when the log serves it, or a larger one, again."},
	{Kind: KindStale, Class: Operational, Severity: "low", Effect: "The incident resolves itself when the log grows."},
	{Kind: KindUnreachable, Class: Operational, Severity: "low", Flaps: true, Effect: "Every poll tries again; the incident resolves itself when the log answers."},
	{Kind: KindLagging, Class: Operational, Severity: "low", Flaps: true, Effect: "The incident resolves itself when the scan has caught up."},
	{Kind: KindUndecodable, Class: Operational, Severity: "low", Effect: "The entries are counted and searched as raw bytes; the scan goes on."},
	{Kind: KindTrustStale, Class: Operational, Severity: "low", Effect: "The last good copy of the trusted root stays in force; the incident resolves itself when a refresh succeeds."},
	{Kind: KindTrustUnusable, Class: Operational, Severity: "medium", Effect: "Everything else in the trusted root is used; a log in it that cannot be used is not monitored."},
	{Kind: KindSilence, Class: Operational, Severity: "medium", Effect: "The incident resolves itself when an expected event comes."},
	{Kind: KindListUnusable, Class: Operational, Severity: "medium", Effect: "What the list said last stays in force; the incident resolves itself when it can be read again."},
	{Kind: KindCosignatures, Class: Operational, Severity: "medium", Flaps: true,
		Effect: "The incident resolves itself when the log publishes enough cosignatures again; until then its checkpoints are believed, unless its policy requires them."},
	{Kind: KindWitnessDoubt, Class: Operational, Severity: "critical",
		Effect: "Nothing of the log is co-signed until somebody runs `sigwarden witness trust`; everything else goes on."},
	{Kind: KindStateRestored, Class: Operational, Severity: "high",
		Effect: "Logs are followed on from where the copy stands, so that no entry is missed; what was decided and recorded after it was made is lost, and the ledger says so."},
	{Kind: KindDeliveryFailed, Class: Operational, Severity: "high", Effect: "The notification is not tried again; the event itself is in the store."},
}

// IncidentKinds returns the table of all kinds.
func IncidentKinds() []IncidentKind { return slices.Clone(incidentKinds) }

// BreaksWatch reports whether what an open incident tells of may keep signing events
// from being noticed, or told.
func BreaksWatch(kind string) bool {
	switch kind {
	case KindStateRestored, KindWitnessDoubt, KindUndecodable, KindSilence, KindListUnusable, KindTrustUnusable, KindLogRemoved, KindEntryMismatch, KindEntryWithheld:
		return false // what is followed is followed; the incident itself is told
	}
	return true
}

func incidentKind(kind string) IncidentKind {
	for _, k := range incidentKinds {
		if k.Kind == kind {
			return k
		}
	}
	return IncidentKind{Kind: kind, Class: Operational, Severity: "low"}
}

// shortID makes an id of a prefix and a hash over parts.
func shortID(prefix string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return prefix + hex.EncodeToString(sum[:10])
}

// desk opens, changes and resolves the incidents of one log within one turn,
// and puts what becomes of them into a batch.
type desk struct {
	*runner
	now   time.Time
	open  []Incident
	batch *Batch
	// flaps are the kinds of open incidents that have come and gone of late, by how
	// often; streaks say since when each of them would be over.
	flaps   map[string]int
	streaks map[string]Streak
}

const (
	// A condition that came often within flapsWithin is only taken for over once it
	// has not come for calmFor.
	flapsOften  = 3
	flapsWithin = 6 * time.Hour
	calmFor     = 30 * time.Minute
	calm        = "calm-" // begins the names of streaks
)

// settles reports whether the end of an incident is to be believed: one that comes
// and goes stays open until it has been calm for a while, so that people are told
// once and not every few minutes.
func (d *desk) settles(kind string) bool {
	if !incidentKind(kind).Flaps || d.flaps[kind] < flapsOften {
		return true
	}
	s, ok := d.streaks[calm+kind]
	if !ok {
		d.streaks[calm+kind] = Streak{Since: d.now.UTC()}
		return false
	}
	return d.now.Sub(s.Since) >= calmFor
}

func (d *desk) find(kind string) *Incident {
	for i := range d.open {
		if d.open[i].Kind == kind {
			return &d.open[i]
		}
	}
	return nil
}

// raise opens an incident of a kind unless one is open, and returns its id.
// Evidence is kept in the same transaction.
func (d *desk) raise(kind, summary string, details any, evidence ...Evidence) string {
	delete(d.streaks, calm+kind)
	if inc := d.find(kind); inc != nil {
		return inc.ID
	}
	return d.raiseAnew(kind, summary, details, evidence...)
}

// raiseAnew opens an incident although another one of its kind may be open.
func (d *desk) raiseAnew(kind, summary string, details any, evidence ...Evidence) string {
	k := incidentKind(kind)
	inc := Incident{
		ID:    shortID("i-", d.cfg.ID, kind, d.now.UTC().Format(time.RFC3339Nano), summary),
		Class: k.Class, Kind: kind, Log: d.cfg.Name, LogID: d.cfg.ID, Severity: k.Severity,
		State: "open", OpenedAt: d.now.UTC(), Summary: summary, Details: marshal(details), Evidence: evidence,
	}
	inc.Deliveries = d.deliver(notify.IncidentOpened, inc)
	d.open = append(d.open, inc)
	d.batch.Open = append(d.batch.Open, inc)
	return inc.ID
}

// worsen makes an open operational incident one of integrity.
func (d *desk) worsen(kind, summary string) {
	inc := d.find(kind)
	if inc == nil || inc.Class == Integrity {
		return
	}
	inc.Class, inc.Severity, inc.Summary = Integrity, "critical", summary
	changed := *inc
	changed.Evidence = nil
	changed.Deliveries = d.deliver(notify.IncidentOpened, changed)
	d.batch.Update = append(d.batch.Update, changed)
}

// refresh gives an open incident a new summary without telling anybody.
func (d *desk) refresh(kind, summary string, details any) {
	if inc := d.find(kind); inc != nil && inc.Summary != summary {
		inc.Summary, inc.Details = summary, marshal(details)
		changed := *inc
		changed.Evidence, changed.Deliveries = nil, nil
		d.batch.Update = append(d.batch.Update, changed)
	}
}

// settle resolves the open incident of a kind, if there is one.
func (d *desk) settle(kind, note string) {
	inc := d.find(kind)
	if inc == nil || !d.settles(kind) {
		return
	}
	if n := d.flaps[kind]; n >= flapsOften && incidentKind(kind).Flaps {
		note = fmt.Sprintf("%s It had come and gone %d times in %s, and is told as over now that it has been calm for %s.", note, n, flapsWithin, calmFor)
	}
	delete(d.streaks, calm+kind)
	done := *inc
	at := d.now.UTC()
	done.State, done.Resolved, done.Note = "resolved", &at, note
	d.open = slices.DeleteFunc(d.open, func(i Incident) bool { return i.ID == done.ID })
	d.batch.Resolve = append(d.batch.Resolve, Resolution{ID: done.ID, At: at, Note: note, Deliveries: d.deliver(notify.IncidentResolved, done)})
}

// say logs what became of incidents, once it is stored.
func (d *desk) say() {
	for _, inc := range d.batch.Open {
		d.log.Error("incident opened", "kind", inc.Kind, "class", inc.Class, "incident", inc.ID, "summary", inc.Summary)
	}
	for _, inc := range d.batch.Update {
		if len(inc.Deliveries) > 0 {
			d.log.Error("incident is one of integrity now", "kind", inc.Kind, "incident", inc.ID, "summary", inc.Summary)
		}
	}
	for _, r := range d.batch.Resolve {
		d.log.Info("incident resolved", "incident", r.ID, "note", r.Note)
	}
}

// deliver addresses an incident's event to those who are to hear of it.
func (d *desk) deliver(eventType string, inc Incident) []notify.Delivery {
	return d.opts.Route.incident(hearing(inc, eventType, d.opts.IncidentChannels, d.opts.HealthChannels), eventType, inc, d.now)
}

// hearing are the channels that hear of an incident, of those for integrity and those
// for health. The end of one that has become one of integrity is told to both, as its
// beginnings were.
func hearing(inc Incident, eventType string, integrity, health []string) []string {
	switch worse := incidentKind(inc.Kind).Class != inc.Class; {
	case inc.Class != Integrity:
		return health
	case worse && eventType != notify.IncidentOpened:
		both := slices.Clone(integrity)
		for _, c := range health {
			if !slices.Contains(both, c) {
				both = append(both, c)
			}
		}
		return both
	}
	return integrity
}

// TriageIncident addresses what a person has decided about an incident: its end to all
// who heard of it, and the rest to those that follows says keep a record of their own.
func (r Route) TriageIncident(inc Incident, integrity, health []string, follows func(channel string) bool, now time.Time) []notify.Delivery {
	kind := map[string]string{StateAcknowledged: notify.IncidentAcknowledged, StateResolved: notify.IncidentResolved, StateOpen: notify.IncidentReopened}[inc.State]
	channels := hearing(inc, kind, integrity, health)
	if inc.State != StateResolved {
		channels = slices.DeleteFunc(slices.Clone(channels), func(c string) bool { return !follows(c) })
	}
	out := r.incident(channels, kind, inc, now)
	for i := range out {
		// It may be decided more than once.
		out[i].Event.ID = shortID("e-", out[i].Event.ID, now.UTC().Format(time.RFC3339Nano))
	}
	return out
}

// Route says where of some channels, and when, something is told. nil: in all of
// them, at once.
type Route func(channels []string, about notify.About, now time.Time) []notify.Address

func (r Route) addresses(channels []string, about notify.About, now time.Time) []notify.Address {
	if r != nil {
		return r(channels, about, now)
	}
	var out []notify.Address
	for _, c := range channels {
		out = append(out, notify.Address{Channel: c})
	}
	return out
}

// incident addresses the event of an incident.
func (r Route) incident(channels []string, eventType string, inc Incident, now time.Time) []notify.Delivery {
	var out []notify.Delivery
	for _, a := range r.addresses(channels, notify.About{Class: inc.Class, Kind: inc.Kind, Severity: inc.Severity}, now) {
		out = append(out, notify.Delivery{Address: a, Event: IncidentEvent(eventType, inc, now)})
	}
	return out
}

// IncidentEvent makes the event that tells of an incident.
func IncidentEvent(eventType string, inc Incident, now time.Time) notify.Event {
	verb := "opened"
	summary := inc.Summary + " " + incidentKind(inc.Kind).Effect
	switch eventType {
	case notify.IncidentResolved:
		verb, summary = "resolved", inc.Note
	case notify.IncidentAcknowledged:
		verb, summary = "acknowledged by "+inc.By, inc.Note
	case notify.IncidentReopened:
		verb = "opened again by " + inc.By
	}
	e := notify.Event{
		ID:       shortID("e-", inc.ID, eventType, inc.Class),
		Type:     eventType,
		Time:     now.UTC(),
		Severity: inc.Severity,
		Title:    fmt.Sprintf("%s incident %s: %s on log %s", inc.Class, verb, inc.Kind, inc.Log),
		Summary:  summary,
		Next:     "sigwarden incidents show " + inc.ID,
		Path:     "/incidents/" + inc.ID,
		Subject:  inc.ID,
		Data:     marshal(map[string]any{"incident": inc}),
		Fields: []notify.Field{
			{Name: "Log", Value: inc.Log}, {Name: "Kind", Value: inc.Kind}, {Name: "Class", Value: inc.Class},
			{Name: "Opened", Value: inc.OpenedAt.UTC().Format(time.RFC3339)}, {Name: "Incident", Value: inc.ID},
		},
	}
	if inc.Log == "" {
		e.Title = fmt.Sprintf("%s incident %s: %s", inc.Class, verb, inc.Kind)
		e.Fields = e.Fields[1:]
	}
	return e
}

func marshal(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil || v == nil {
		return json.RawMessage("{}")
	}
	return data
}

// DeliveryFailed returns the incident of a notification that was given up, told
// to the health channels save the one that failed.
func DeliveryFailed(q notify.Queued, reason string, now time.Time, health Audience) Incident {
	return deliveryFailed(q.Channel, q.Event.ID, fmt.Sprintf("Channel %s did not accept a notification (%s): %s.", q.Channel, q.Event.Title, shorten(reason)),
		map[string]any{"channel": q.Channel, "event": q.Event.ID, "attempts": q.Attempts + 1, "since": q.Created}, now, health)
}

// ChannelGone returns the incident of notifications that wait for a channel
// which is no longer configured.
func ChannelGone(channel string, now time.Time, health Audience) Incident {
	return deliveryFailed(channel, now.UTC().Format(time.RFC3339Nano), fmt.Sprintf("Channel %s is no longer configured, and notifications waited for it; they were given up. `sigwarden findings` has what they told of.", channel),
		map[string]any{"channel": channel}, now, health)
}

func deliveryFailed(channel, id, summary string, details map[string]any, now time.Time, health Audience) Incident {
	k := incidentKind(KindDeliveryFailed)
	inc := Incident{
		ID:    shortID("i-", KindDeliveryFailed, channel, id),
		Class: k.Class, Kind: k.Kind, Severity: k.Severity, State: StateOpen, OpenedAt: now.UTC(), Summary: summary, Details: marshal(details),
	}
	inc.Deliveries = health.without(channel).told(notify.IncidentOpened, inc, now)
	return inc
}

// Audience is who hears of something.
type Audience struct {
	Channels []string
	Route    Route
}

func (a Audience) told(eventType string, inc Incident, now time.Time) []notify.Delivery {
	return a.Route.incident(a.Channels, eventType, inc, now)
}

// IsDeliveryFailed reports whether an incident is that of a channel.
func IsDeliveryFailed(inc Incident, channel string) bool {
	var details struct {
		Channel string `json:"channel"`
	}
	return inc.Kind == KindDeliveryFailed && json.Unmarshal(inc.Details, &details) == nil && details.Channel == channel
}

// DeliveryWorks ends the incident of a channel that accepts again, for those who heard
// of it.
func DeliveryWorks(inc Incident, channel string, now time.Time, health Audience) Resolution {
	return resolution(inc, "The channel accepts notifications again, and nothing was refused for a while.", now, health.without(channel))
}

// without is an audience but for one channel.
func (a Audience) without(channel string) Audience {
	a.Channels = slices.DeleteFunc(slices.Clone(a.Channels), func(c string) bool { return c == channel })
	return a
}

// StateRestored returns the incident of a state file that is an older copy of itself.
func StateRestored(lost ledger.Restored, now time.Time, health Audience) Incident {
	return general(KindStateRestored, fmt.Sprintf("The state file is an older copy of itself, or another one: its ledger had %d signed rows (root %x), and does not hold all of them now; at most the first %d are left. What was acknowledged, decided and recorded after that is lost.", lost.Lost.Size, lost.Lost.Root[:], lost.Kept),
		map[string]any{"kept": lost.Kept, "lost": lost.Lost}, now, health)
}
