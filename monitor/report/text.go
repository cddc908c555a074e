package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist/policy"
)

// Write writes a report in a format: html, markdown, json or csv.
func (r *Report) Write(w io.Writer, format string) error {
	write, ok := writers[format]
	if !ok {
		return fmt.Errorf("format %q: want one of %s", format, strings.Join(Formats(), ", "))
	}
	return write(r, w)
}

var writers = map[string]func(*Report, io.Writer) error{
	"html": (*Report).html, "markdown": (*Report).markdown, "json": (*Report).json, "csv": (*Report).csv,
}

// Formats lists what Write knows.
func Formats() []string { return []string{"html", "markdown", "json", "csv"} }

// Suffixes are those of files, by format.
var Suffixes = map[string]string{"html": ".html", "markdown": ".md", "json": ".json", "csv": ".csv"}

func (r *Report) json(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// csv writes one table: totals and gaps first, then coverage, findings, incidents and
// decisions.
func (r *Report) csv(w io.Writer) error {
	out := csv.NewWriter(w)
	row := func(cells ...string) {
		for i, c := range cells {
			cells[i] = cell(c)
		}
		out.Write(cells) // errors stay until Flush
	}
	row("section", "log", "id", "kind", "severity", "state", "since", "until", "from", "to", "who", "text")
	total := func(kind string, n uint64, text string) {
		row("total", "", "", kind, "", "", stamp(r.Since), stamp(r.Until), "", strconv.FormatUint(n, 10), "", text)
	}
	total("not-covered", uint64(len(r.Gaps)), "")
	total("findings", uint64(r.Findings.Total), "")
	for _, c := range r.Findings.Verdicts() {
		total("findings "+c.Name, uint64(c.N), "")
	}
	total("findings left out", uint64(r.Findings.LeftOut), "not listed below, since there are too many")
	total("incidents", uint64(r.Incidents.Total), "")
	total("key-only entries", r.Blind.KeyOnly, "they name no identity")
	total("undecodable entries", r.Blind.Undecodable, "")
	for _, text := range append(r.Gone(), r.Blind.Warnings...) {
		row("note", "", "", "", "", "", "", "", "", "", "", text)
	}
	for _, g := range r.Gaps {
		row("not-covered", g.Log, "", g.Kind, "", "", stamp(g.Since), stamp(g.Until), number(g.From, g.To > 0), number(g.To, g.To > 0), "", g.Reason)
	}
	for _, l := range r.Coverage.Logs {
		for _, f := range l.Former {
			for _, x := range f.Read {
				row("read-of-former-tree", l.Log, "", "", "", "", stamp(r.Since), stamp(f.Until), number(x.From, true), number(x.To, true), "", "")
			}
		}
		for _, x := range l.Read {
			row("read", l.Log, "", "", "", "", stamp(r.Since), stamp(r.Until), number(x.From, true), number(x.To, true), "", "")
		}
	}
	for _, c := range r.Coverage.Rules {
		for _, text := range changes(c) {
			row("rule-change", "", "", "", "", "", stamp(c.At), "", "", "", "", text)
		}
	}
	for _, c := range r.Coverage.Trust {
		row("trust-change", "", "", c.Source, "", "", stamp(c.At), "", "", "", "", c.To)
	}
	for _, f := range r.Findings.List {
		row("finding", f.Log, f.ID, f.Verdict, f.Severity, f.State, stamp(f.At), stamp(f.SeenAt), number(f.Index, true), number(f.Index+1, true), strings.Join(f.Signers, " "), f.Reason)
	}
	for _, i := range r.Incidents.List {
		until := ""
		if i.Resolved != nil {
			until = stamp(*i.Resolved)
		}
		row("incident", i.Log, i.ID, i.Kind, i.Severity, i.State, stamp(i.OpenedAt), until, "", "", i.By, i.Summary)
	}
	for _, d := range r.Decisions {
		row("decision", "", d.Subject, d.Action, "", "", stamp(d.At), "", "", "", d.By, d.Detail)
	}
	for _, d := range r.Coverage.Deleted {
		row("deleted", "", d.Digest, d.Class, "", "", stamp(d.At), stamp(d.Before), "", strconv.Itoa(d.Count), "", "")
	}
	out.Flush()
	return out.Error()
}

// cell keeps a spreadsheet from taking what a stranger wrote for a formula, also one that
// passes over white space, or takes wide forms for the usual ones.
func cell(s string) string {
	s = clean(s)
	if lead := strings.TrimLeftFunc(s, unicode.IsSpace); lead != "" && strings.IndexAny(lead, "=+-@＝＋－＠") == 0 {
		return "'" + s
	}
	return s
}

// maxText bounds a text of strangers.
const maxText = 8 << 10

// clean makes text of strangers safe to show.
func clean(s string) string { return notify.Clean(s, maxText) }

func number(n uint64, there bool) string {
	if !there {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// changes says what became of the watchlist.
func changes(c RuleChange) (out []string) {
	for _, r := range c.Added {
		out = append(out, fmt.Sprintf("watch %s was added (rule %s)", r.Watch, r.Hash))
	}
	for _, r := range c.Changed {
		out = append(out, fmt.Sprintf("watch %s was changed (rule %s to %s)", r.Watch, r.From, r.To))
	}
	for _, r := range c.Removed {
		out = append(out, fmt.Sprintf("watch %s was removed (rule %s)", r.Watch, r.Hash))
	}
	return out
}

// pauseTexts say why a log was not watched.
var pauseTexts = map[string]string{
	ledger.PauseNotRunning:  "sigwarden did not run; what was logged meanwhile was read afterwards, unless listed as not read",
	ledger.PauseUnreachable: "the log did not answer as it should",
	ledger.PauseRestored:    "the state is an older copy: what it knew of this time is lost",
	ledger.PauseSlow:        "polls came late",
	ledger.PauseUnfollowed:  "the log was not in the configuration",
	ledger.PauseHalted:      "an incident had halted the log: what it signed meanwhile was not believed",
	ReasonNotYet:            "the log was not followed yet",
	ReasonNothingSince:      "no poll has succeeded since; sigwarden may not run",
}

// Why says for people why a log was not watched.
func (p Pause) Why() string {
	text := pauseTexts[p.Reason]
	if text == "" {
		text = p.Reason
	}
	if p.Error != "" {
		text += fmt.Sprintf("; %d polls failed, the last with: %s", p.Failures, clean(p.Error))
	}
	return text
}

// Why says for people what was not covered.
func (g NotCovered) Why() string {
	reason, failure, _ := strings.Cut(g.Reason, ": ")
	text := pauseTexts[reason]
	if g.Kind == KindEntries && reason == ledger.GapLeft {
		return "not read before the log went on in another tree; they never will be"
	}
	if g.Kind == KindEntries && reason == ledger.GapSkipped {
		return "to be read later, and not any more since entries: false"
	}
	if g.Kind != KindTime || text == "" {
		return clean(g.Reason)
	}
	if failure != "" {
		text += "; the last poll failed with: " + failure
	}
	return clean(text)
}

// Verdicts lists the verdicts, the worst first, with their counts.
func (f *Findings) Verdicts() (out []Count) {
	for _, v := range policy.Verdicts() {
		out = append(out, Count{string(v), f.ByVerdict[string(v)]})
	}
	return out
}

// Count is a number with a name.
type Count struct {
	Name string
	N    int
}

// InCode shows text of strangers as code in Markdown, also in a cell of a table.
func InCode(s string) string {
	if s = clean(s); s == "" {
		return ""
	}
	fence := "`"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	// A backslash before a bar would take the one that keeps the bar in its cell.
	return fence + " " + strings.NewReplacer(`\|`, `\ \|`, "|", `\|`).Replace(s) + " " + fence
}

// shown is text for Markdown: nothing in it means anything. What could become a link, or call
// somebody, is shown as code.
func shown(s string) string {
	s = clean(s)
	if strings.Contains(s, "@") || strings.Contains(s, "://") || strings.Contains(strings.ToLower(s), "www.") {
		return InCode(s)
	}
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune("\\`*_{}[]()#+-!|~", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return html.EscapeString(b.String())
}

func (r *Report) markdown(w io.Writer) error {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	table := func(head ...string) {
		p("\n| %s |\n|%s", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	}
	p("# Signing events from %s to %s\n", stamp(r.Since), stamp(r.Until))
	p("Made by sigwarden %s at %s from its ledger of %d rows. Times are UTC; `until` is not included.", shown(r.Version), stamp(r.Made), r.Coverage.Rows)
	p("\n## Not covered\n")
	if len(r.Coverage.Logs) == 0 {
		p("No log was watched at all.")
	} else if len(r.Gaps) == 0 {
		p("Nothing is missing: every log was watched all the time, and every entry was read.")
	} else {
		table("Log", "What", "From", "Until", "Entries", "Why")
		for _, g := range r.Gaps {
			entries := ""
			if g.To > 0 {
				entries = fmt.Sprintf("%d to %d", g.From, g.To-1)
			}
			p("| %s | %s | %s | %s | %s | %s |", shown(g.Log), g.Kind, stamp(g.Since), stamp(g.Until), entries, shown(g.Why()))
		}
	}
	p("\n## Coverage\n")
	p("%s", coverageNote)
	table("Log", "Watched", "Entries read", "Ranges", "Head", "Most behind")
	for _, l := range r.Coverage.Logs {
		p("| %s | %s of %s | %d | %s | %d (%x) | %d |", shown(l.Log), span(l.Watched), span(r.Until.Sub(r.Since).Seconds()), l.Entries, l.Which(), l.Last.Size, l.Last.Root[:4], l.LagMax)
	}
	p("\n## Findings\n")
	p("%d signing events were found.", r.Findings.Total)
	for _, text := range r.Gone() {
		p("\n**%s**", text)
	}
	table("Verdict", "Findings")
	for _, c := range r.Findings.Verdicts() {
		p("| %s | %d |", c.Name, c.N)
	}
	if len(r.Findings.List) > 0 {
		table("When", "Verdict", "State", "Watch", "Entry", "Signed by", "Why", "Decision")
		for _, f := range r.Findings.List {
			p("| %s | %s | %s | %s | %s/%d | %s | %s | %s |", stamp(f.At), f.Verdict, f.State, shown(f.Watch), shown(f.Log), f.Index, shown(strings.Join(f.Signers, " ")), shown(f.Reason), shown(f.Decision()))
		}
	}
	if r.Findings.LeftOut > 0 {
		p("\n%d findings are not listed, since the report would be too long; they are counted above.", r.Findings.LeftOut)
	}
	p("\n## Incidents\n")
	p("%d incidents were open, %d of them about the integrity of a log.", r.Incidents.Total, r.Incidents.ByClass["integrity"])
	if r.Incidents.Total > 0 {
		table("Opened", "Resolved", "Kind", "Log", "State", "Summary")
		for _, i := range r.Incidents.List {
			resolved := ""
			if i.Resolved != nil {
				resolved = stamp(*i.Resolved)
			}
			p("| %s | %s | %s | %s | %s | %s |", stamp(i.OpenedAt), resolved, i.Kind, shown(i.Log), i.State, shown(i.Summary))
		}
	}
	p("\n## Changes of policy\n")
	r.markdownChanges(p)
	p("\n## Blind spots\n")
	p("* %d entries name no identity: only fingerprints and digests match them.\n* %d entries could not be decoded; they were searched as raw bytes.", r.Blind.KeyOnly, r.Blind.Undecodable)
	for _, text := range r.Blind.Warnings {
		p("* %s", shown(text))
	}
	p("\n## Deliveries")
	table("Channel", "Pending", "Given up", "Last accepted")
	for _, c := range r.Deliveries {
		last := "never"
		if c.LastSuccess != nil {
			last = stamp(*c.LastSuccess)
		}
		p("| %s | %d | %d | %s |", shown(c.Name), c.Pending, c.Failed, last)
	}
	if x := r.Witness; x != nil {
		p("\n## Witness\n")
		p("%d logs were co-signed, the last time at %s; of %d nothing is signed any more.", x.Logs, stamp(x.Last), x.Doubted)
	}
	p("\n## How to verify\n")
	p("%s", r.howToVerify())
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) markdownChanges(p func(string, ...any)) {
	n := len(r.Coverage.Rules) + len(r.Coverage.Trust) + len(r.Coverage.Deleted) + len(r.Decisions)
	if n == 0 {
		p("There were none.")
	}
	for _, c := range r.Coverage.Rules {
		for _, text := range changes(c) {
			p("* %s: %s", stamp(c.At), shown(text))
		}
	}
	for _, c := range r.Coverage.Trust {
		p("* %s: trusted root %s of %s came into force", stamp(c.At), c.To, shown(c.Source))
	}
	for _, c := range r.Coverage.Deleted {
		p("* %s: %d of class %s from before %s were deleted (digest %s)", stamp(c.At), c.Count, shown(c.Class), stamp(c.Before), c.Digest)
	}
	for _, d := range r.Decisions {
		p("* %s: %s by %s: %s %s", stamp(d.At), shown(d.Action), shown(d.By), shown(d.Subject), shown(d.Detail))
	}
}

// Decision says what people made of a finding.
func (f Finding) Decision() string {
	parts := []string{f.Resolution, f.Note}
	if f.By != "" {
		parts = append(parts, "by "+f.By)
	}
	if f.ChangedAt != nil {
		parts = append(parts, stamp(*f.ChangedAt))
	}
	return strings.Join(strings.Fields(strings.Join(parts, " ")), " ")
}

// coverageNote says how entries are counted.
const coverageNote = "Every entry counted here was proven to be in the log's signed tree, decoded, and matched with the watchlist. The ledger counts by spans of about an hour: those that reach over an edge of the period are counted whole. The table counts an entry once, also where it was read twice, as after a change of the watchlist; the chart counts what was read in each step."

// Which says which entries were read.
func (l LogCoverage) Which() string {
	text := Ranges(l.Read)
	for _, f := range l.Former {
		text += fmt.Sprintf("; of a former tree, until %s: %s", stamp(f.Until), Ranges(f.Read))
	}
	return text
}

// Ranges lists ranges of entries, the first of many.
func Ranges(list []ledger.Range) string {
	const most = 8
	var parts []string
	for i, r := range list {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d ranges more", len(list)-i))
			break
		}
		if r.To == r.From+1 {
			parts = append(parts, strconv.FormatUint(r.From, 10))
			continue
		}
		parts = append(parts, fmt.Sprintf("%d to %d", r.From, r.To-1))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func span(seconds float64) string {
	d := time.Duration(seconds) * time.Second
	if days := d / (24 * time.Hour); days > 0 {
		return strings.TrimSuffix(fmt.Sprintf("%dd %s", days, (d%(24*time.Hour)).Round(time.Minute)), " 0s")
	}
	return d.String()
}

// howToVerify says how to check the report.
func (r *Report) howToVerify() string {
	v := r.Verify
	trail := "The audit trail is empty."
	if v.AuditRows > 0 {
		trail = fmt.Sprintf("The audit trail has %d rows, the last with hash %s.", v.AuditRows, v.AuditHash)
	}
	return fmt.Sprintf("What is said of coverage comes from ledger %s, whose signed head of %d rows is below. With the public key below, `sigwarden ledger verify --kept HEAD` checks it where the ledger is, and `sigwarden evidence export --coverage LOG --since T` makes a file that anybody can check. Each finding and incident has evidence of its own: `sigwarden evidence export ID`. %s\n\n```\n%s\n%s```",
		v.Ledger, v.Rows, trail, strings.TrimSpace(v.Head), v.PublicKey)
}
