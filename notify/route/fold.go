package route

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/notify"
)

// maxGroups is how many groups have a message of their own; all others share one.
const maxGroups = 3

// Fold makes few events of groups of findings: one for each of the gravest, and
// one for all others. With digest it makes a single one.
func Fold(groups []notify.Group, digest bool, now time.Time) []notify.Event {
	groups = fairly(groups)
	if digest {
		return []notify.Event{together(groups, notify.DigestDue, "Digest: ", "What came since the last digest and was mild enough to wait for it.", now)}
	}
	var out []notify.Event
	rest := groups
	for len(rest) > 0 && len(out) < maxGroups {
		out = append(out, alone(rest[0], now))
		rest = rest[1:]
	}
	if len(rest) == 1 {
		return append(out, alone(rest[0], now))
	}
	if len(rest) > 1 {
		out = append(out, together(rest, notify.FindingsGrouped, "More: ", grouped, now))
	}
	return out
}

// fairly orders groups: the gravest first, of these one of each watch before the second
// of any, and of rare ones before those of many. Whoever floods one watch, for as many
// reasons as there are, does not hide another one behind that.
func fairly(groups []notify.Group) []notify.Group {
	type class struct{ severity, watch string }
	total := map[class]int{}
	for _, g := range groups {
		total[class{g.Severity, g.Watch}] += g.Count
	}
	groups = slices.Clone(groups)
	slices.SortStableFunc(groups, func(a, b notify.Group) int {
		return cmp.Or(rank(b.Severity)-rank(a.Severity), b.Count-a.Count)
	})
	turn, turns := map[class]int{}, make(map[string]int, len(groups))
	name := func(g notify.Group) string { return fmt.Sprintf("%q %q", g.About, g.Cause) }
	for _, g := range groups {
		c := class{g.Severity, g.Watch}
		turns[name(g)] = turn[c]
		turn[c]++
	}
	slices.SortStableFunc(groups, func(a, b notify.Group) int {
		return cmp.Or(rank(b.Severity)-rank(a.Severity), turns[name(a)]-turns[name(b)], total[class{a.Severity, a.Watch}]-total[class{b.Severity, b.Watch}])
	})
	return groups
}

const grouped = "They are told together because many came at once. Every one of them is kept as a finding of its own."

// alone tells of one group.
func alone(g notify.Group, now time.Time) notify.Event {
	e := event(notify.FindingsGrouped, []notify.Group{g}, now)
	e.Title = what(g)
	e.Summary = fmt.Sprintf("%s, from %s to %s, for the same reason: %s. %s", what(g), stamp(g.Since), stamp(g.Until), g.Cause, grouped)
	e.Next = command(g)
	for i, line := range g.First {
		e.Fields = append(e.Fields, notify.Field{Name: fmt.Sprintf("Number %d", i+1), Value: line})
	}
	if more := g.Count - len(g.First); more > 0 && len(g.First) > 0 {
		e.Fields = append(e.Fields, notify.Field{Name: "And", Value: fmt.Sprintf("%d more", more)})
	}
	return e
}

// together tells of several groups.
func together(groups []notify.Group, kind, title, why string, now time.Time) notify.Event {
	e := event(kind, groups, now)
	findings, others := 0, 0
	var watches []string
	count := map[string]int{}
	for _, g := range groups {
		if g.Watch != "" {
			if count[g.Watch] == 0 {
				watches = append(watches, g.Watch)
			}
			count[g.Watch] += g.Count
		}
		if g.Watch != "" {
			findings += g.Count
		} else {
			others += g.Count
		}
		value := strings.Join(g.First[:min(len(g.First), 3)], "; ")
		if g.Cause != "" {
			value = g.Cause + ". " + value
		}
		if more := g.Count - 3; more > 0 {
			value += fmt.Sprintf("; and %d more", more)
		}
		e.Fields = append(e.Fields, notify.Field{Name: what(g), Value: value})
	}
	var parts []string
	if findings > 0 {
		parts = append(parts, plural(findings, "finding"))
	}
	if others > 0 {
		parts = append(parts, plural(others, "event")+" of incidents")
	}
	e.Title, e.Summary = title+strings.Join(parts, ", "), why
	if len(watches) > 0 {
		// Every watch is named, however little there is room for.
		slices.SortStableFunc(watches, func(a, b string) int { return count[a] - count[b] })
		for i, w := range watches {
			watches[i] = fmt.Sprintf("%s %d", w, count[w])
		}
		e.Summary = "By watch: " + strings.Join(watches, ", ") + ". " + why
	}
	e.Next = "sigwarden findings --since " + stamp(groups[0].Since)
	if findings == 0 {
		e.Next = "sigwarden incidents"
	}
	return e
}

func event(kind string, groups []notify.Group, now time.Time) notify.Event {
	type member struct {
		Class    string    `json:"class"`
		Kind     string    `json:"kind"`
		Watch    string    `json:"watch,omitempty"`
		Severity string    `json:"severity"`
		Cause    string    `json:"cause,omitempty"`
		Count    int       `json:"count"`
		First    []string  `json:"first"`
		Since    time.Time `json:"since"`
		Until    time.Time `json:"until"`
	}
	var members []member
	worst := "info"
	for _, g := range groups {
		members = append(members, member{g.Class, g.Kind, g.Watch, g.Severity, g.Cause, g.Count, g.First, g.Since, g.Until})
		if rank(g.Severity) > rank(worst) {
			worst = g.Severity
		}
	}
	data, err := json.Marshal(map[string]any{"groups": members})
	if err != nil {
		data = json.RawMessage("{}") // texts, numbers and times always marshal
	}
	sum := sha256.Sum256(append([]byte(kind+now.UTC().Format(time.RFC3339Nano)), data...))
	e := notify.Event{ID: "e-" + hex.EncodeToString(sum[:10]), Type: kind, Time: now.UTC(), Severity: worst, Data: data}
	if len(groups) == 1 {
		e.Group = key(groups[0].About, groups[0].Cause)
	}
	return e
}

func key(about notify.About, cause string) string { return notify.GroupKey(about.Watch, cause) }

// what says what a group is.
func what(g notify.Group) string {
	switch {
	case g.Watch == "":
		return fmt.Sprintf("%d times %s", g.Count, g.Class)
	case g.Class != notify.ClassFinding:
		return fmt.Sprintf("%s of watch %s that nobody has acknowledged", plural(g.Count, g.Kind+" signing event"), g.Watch)
	}
	return fmt.Sprintf("%s for watch %s", plural(g.Count, g.Kind+" signing event"), g.Watch)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// command lists the findings of a group.
func command(g notify.Group) string {
	return fmt.Sprintf("sigwarden findings --watch %s --verdict %s --since %s", notify.ShellQuoted(g.Watch), g.Kind, stamp(g.Since))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
