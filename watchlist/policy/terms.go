package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // so that a rule means the same on machines without time zones
)

// Terms are what an item of expect asks for beside its patterns. All of those
// that are set must hold.
type Terms struct {
	// Valid is when the item counts at all.
	Valid Span `json:"valid,omitzero"`
	// Between are hours of the week: the time of the event must lie in one of
	// them.
	Between []Hours `json:"between,omitempty"`
	// Digests is a list that the artifact must be on.
	Digests *Listing `json:"digests,omitempty"`
	// AtMost is how often it may happen.
	AtMost *Rate `json:"at_most,omitempty"`
	// OncePer is "digest" or the name of an extension: for each value of it one
	// event.
	OncePer string `json:"once_per,omitempty"`
}

// IsZero reports whether nothing is asked for.
func (t *Terms) IsZero() bool {
	return t == nil || t.Valid == (Span{}) && len(t.Between) == 0 && !t.stateful()
}

// stateful reports whether what was before, or what is known elsewhere, decides
// too.
func (t *Terms) stateful() bool {
	return t != nil && (t.Digests != nil || t.AtMost != nil || t.OncePer != "")
}

// Timed reports whether the time of an event matters.
func (t *Terms) Timed() bool {
	return t != nil && (t.Valid != (Span{}) || len(t.Between) > 0)
}

// Open reports whether an event that is within the hours and dates is still to be
// judged by what was before, or what is known elsewhere.
func (t *Terms) Open(e Event) bool {
	cause, _ := t.refuses(e)
	return cause == "" && t.stateful()
}

// counts reports whether events that the item lets in are to be remembered.
func (t *Terms) counts() bool { return t != nil && (t.AtMost != nil || t.OncePer != "") }

// Span is a half-open range of time; a zero bound is none.
type Span struct {
	From  time.Time `json:"from,omitzero"`
	Until time.Time `json:"until,omitzero"`
}

// Listing asks for an artifact that is on a list.
type Listing struct {
	// List names the list, by where it comes from and who must have signed it.
	List string `json:"list"`
	// Grace is how long an entry may wait for its place on the list.
	Grace time.Duration `json:"grace"`
}

// Rate is a number of events in any stretch of a length.
type Rate struct {
	Count int           `json:"count"`
	Per   time.Duration `json:"per"`
}

// ByDigest is the OncePer that asks for one event an artifact.
const ByDigest = "digest"

// refuses says why an event is not within the hours and dates of the terms;
// empty if it is.
func (t *Terms) refuses(e Event) (cause, reason string) {
	if t == nil {
		return "", ""
	}
	at := e.Time.UTC().Format(time.RFC3339)
	switch {
	case !t.Valid.From.IsZero() && e.Time.Before(t.Valid.From):
		return "valid", fmt.Sprintf("it is valid from %s on, and the event is of %s", t.Valid.From.UTC().Format(time.RFC3339), at)
	case !t.Valid.Until.IsZero() && !e.Time.Before(t.Valid.Until):
		return "valid", fmt.Sprintf("it was valid until %s, and the event is of %s", t.Valid.Until.UTC().Format(time.RFC3339), at)
	}
	if len(t.Between) == 0 || slices.ContainsFunc(t.Between, func(h Hours) bool { return h.Contains(e.Time) }) {
		return "", ""
	}
	var hours []string
	for _, h := range t.Between {
		hours = append(hours, h.String())
	}
	return "between", fmt.Sprintf("it is for %s, and the event is of %s", strings.Join(hours, " or "), e.Time.In(t.Between[0].zone).Format("Mon 2006-01-02 15:04 MST"))
}

// Hours are hours of some days of the week in one time zone.
type Hours struct {
	text     string
	from, to int // minutes since midnight; to <= from: of the next day
	zone     *time.Location
	days     [7]bool // by time.Weekday; of the day on which they begin
}

const hoursForm = `want hours, a time zone and, if not every day, days: "09:00-18:00 Europe/Berlin Mon-Fri"`

// ParseHours reads hours like "09:00-18:00 Europe/Berlin Mon-Fri": a range of
// time, which may go beyond midnight, a name of the IANA time zone database, and
// days or ranges of days with commas between them; without days, every day.
func ParseHours(text string) (Hours, error) {
	h := Hours{text: text}
	fields := strings.Fields(text)
	if len(fields) < 2 {
		return h, errors.New(hoursForm)
	}
	from, to, ok := strings.Cut(fields[0], "-")
	var err1, err2 error
	h.from, err1 = minutes(from)
	h.to, err2 = minutes(to)
	if !ok || err1 != nil || err2 != nil || h.from == 24*60 {
		return h, fmt.Errorf("%.40q is no range of time: %s", fields[0], hoursForm)
	}
	if h.from == h.to {
		return h, fmt.Errorf("%.40q is no time at all, or all day: write 00:00-24:00 for a whole day", fields[0])
	}
	zone, err := time.LoadLocation(fields[1])
	if err != nil || fields[1] == "Local" {
		return h, fmt.Errorf("%.60q is no time zone: %s", fields[1], hoursForm)
	}
	h.zone = zone
	if len(fields) == 2 {
		h.days = [7]bool{true, true, true, true, true, true, true}
		return h, nil
	}
	for part := range strings.SplitSeq(strings.Join(fields[2:], ","), ",") {
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, ok1 := weekday(first)
		b, ok2 := weekday(last)
		if !ok1 || !ok2 {
			return h, fmt.Errorf("%.40q names no days: want Mon, Tue, Wed, Thu, Fri, Sat or Sun, or a range like Mon-Fri", part)
		}
		for d := a; ; d = (d + 1) % 7 {
			h.days[d] = true
			if d == b {
				break
			}
		}
	}
	return h, nil
}

func minutes(text string) (int, error) {
	hour, minute, ok := strings.Cut(text, ":")
	h, err1 := strconv.ParseUint(hour, 10, 8)
	m, err2 := strconv.ParseUint(minute, 10, 8)
	if !ok || err1 != nil || err2 != nil || len(minute) != 2 || h > 24 || m > 59 || h == 24 && m > 0 {
		return 0, errors.New("not of the form HH:MM")
	}
	return int(h*60 + m), nil
}

func weekday(text string) (time.Weekday, bool) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if strings.EqualFold(text, d.String()[:3]) || strings.EqualFold(text, d.String()) {
			return d, true
		}
	}
	return 0, false
}

// Contains reports whether a time lies within the hours, by the clocks on the
// walls of their zone.
func (h Hours) Contains(at time.Time) bool {
	local := at.In(h.zone)
	now := local.Hour()*60 + local.Minute()
	today := local.Weekday()
	if h.to > h.from {
		return h.days[today] && now >= h.from && now < h.to
	}
	yesterday := (today + 6) % 7
	return h.days[today] && now >= h.from || h.days[yesterday] && now < h.to
}

// Until returns when the hours that contain a time end; the time itself where
// none do.
func (h Hours) Until(at time.Time) time.Time {
	if !h.Contains(at) {
		return at
	}
	local := at.In(h.zone)
	day := local.Day()
	if h.to <= h.from && local.Hour()*60+local.Minute() >= h.from {
		day++
	}
	return time.Date(local.Year(), local.Month(), day, 0, h.to, 0, 0, h.zone)
}

func (h Hours) String() string { return h.text }

// UnmarshalJSON reads hours as MarshalJSON writes them.
func (h *Hours) UnmarshalJSON(doc []byte) error {
	var text string
	if err := json.Unmarshal(doc, &text); err != nil {
		return err
	}
	parsed, err := ParseHours(text)
	*h = parsed
	return err
}

// MarshalJSON writes the hours as they were read.
func (h Hours) MarshalJSON() ([]byte, error) { return json.Marshal(h.text) }
