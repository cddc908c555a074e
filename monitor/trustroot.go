package monitor

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"crypto/sha256"

	"github.com/sigwarden/sigwarden/notify"
)

// TrustRoot is a trusted root that is, or was, in force.
type TrustRoot struct {
	// Source is where it came from: the name of a TUF repository, or FileSource.
	Source string
	// Document is a trusted_root.json, Provenance a JSON document of the TUF
	// metadata that authenticates it; empty for a pinned file.
	Document, Provenance []byte
}

// FileSource is the Source of a pinned file.
const FileSource = "trusted_root"

// Hash is the SHA-256 of the document, in hex.
func (t *TrustRoot) Hash() string {
	sum := sha256.Sum256(t.Document)
	return hex.EncodeToString(sum[:])
}

// TrustSource is what is stored of where trusted roots come from.
type TrustSource struct {
	// Root is the one in force, First the first one that was ever seen: the logs
	// in it that were in use then, at FirstAt, were there before us.
	Root, First *TrustRoot
	FirstAt     time.Time
	Signing     [][]byte // signing configurations that came with Root
	// Newest is the provenance of the last refresh: that of Root is of the first one
	// that brought it.
	Newest []byte
	// Refreshed is when Root was last known to be the newest; Failures counts the
	// refreshes that failed since then, from FailingSince on, the last with Error.
	Refreshed    time.Time
	Failures     int
	FailingSince time.Time
	Error        string
}

// Stale reports whether the root could not be refreshed for too long.
func (s *TrustSource) Stale(now time.Time) bool {
	since := s.Refreshed
	if since.IsZero() {
		since = s.FailingSince
	}
	return s.Failures >= strikes && now.Sub(since) >= staleTrust
}

// staleTrust is how long a trusted root may go without a refresh: the time for
// which the timestamp of a Sigstore TUF repository is good.
const staleTrust = 7 * 24 * time.Hour

// trustDetails are those of incidents about a source of trusted roots.
type trustDetails struct {
	Source string `json:"source"`
	Since  string `json:"since,omitempty"`
	Error  string `json:"error,omitempty"`
	// Problems are the parts that cannot be used.
	Problems []string `json:"problems,omitempty"`
}

// JudgeTrust compares what is known of a source of trusted roots with the open
// incidents that belong to no log, and returns what to open and what to resolve.
// problems are the parts of the root in force that cannot be used.
func JudgeTrust(open []Incident, name string, src TrustSource, problems []string, now time.Time, health Audience) (raise []Incident, settle []Resolution) {
	judge := func(kind string, wrong bool, summary string, details trustDetails, over string) {
		details.Source = name
		for _, inc := range open {
			var d trustDetails
			if inc.Kind != kind || json.Unmarshal(inc.Details, &d) != nil {
				continue
			}
			if d.Source != name {
				settle = append(settle, resolution(inc, "Trusted roots come from elsewhere now.", now, health))
				continue
			}
			// Other problems than those that were told of are another incident.
			if wrong && fmt.Sprint(d.Problems) == fmt.Sprint(details.Problems) {
				return
			}
			settle = append(settle, resolution(inc, over, now, health))
		}
		if wrong {
			raise = append(raise, general(kind, summary, details, now, health))
		}
	}
	since := src.Refreshed
	if since.IsZero() {
		since = src.FailingSince
	}
	judge(KindTrustStale, src.Stale(now),
		fmt.Sprintf("The trusted root of %s could not be refreshed since %s (%d tries). The last one failed with: %s.", name, since.UTC().Format(time.RFC3339), src.Failures, shorten(src.Error)),
		trustDetails{Since: since.UTC().Format(time.RFC3339), Error: shorten(src.Error)}, "The trusted root is up to date again.")
	judge(KindTrustUnusable, len(problems) > 0,
		fmt.Sprintf("What cannot be used of the trusted root of %s (%d parts), first of all: %s.", name, len(problems), first(problems)),
		trustDetails{Problems: problems}, "The trusted root in force has other problems, or none.")
	return raise, settle
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return shorten(list[0])
}

// general makes an incident that belongs to no log.
func general(kind, summary string, details any, now time.Time, hears Audience) Incident {
	k := incidentKind(kind)
	doc := marshal(details)
	inc := Incident{
		ID:    shortID("i-", kind, now.UTC().Format(time.RFC3339Nano), string(doc)),
		Class: k.Class, Kind: kind, Severity: k.Severity, State: StateOpen, OpenedAt: now.UTC(), Summary: summary, Details: doc,
	}
	inc.Deliveries = hears.told(notify.IncidentOpened, inc, now)
	return inc
}

// resolution ends an incident that belongs to no log.
func resolution(inc Incident, note string, now time.Time, hears Audience) Resolution {
	at := now.UTC()
	inc.State, inc.Resolved, inc.Note = StateResolved, &at, note
	return Resolution{ID: inc.ID, At: at, Note: note, Deliveries: hears.told(notify.IncidentResolved, inc, now)}
}
