package witness

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/mod/sumdb/note"
)

// Bounds of a list of logs. Those of the witness network have up to 40,000.
const (
	MaxLogList = 16 << 20
	maxListed  = 100_000
)

// ErrLogList says that a text is no list of logs.
var ErrLogList = errors.New("not a list of logs (logs/v0)")

// Listed is a log that a list names.
type Listed struct {
	// Key is a verifier key for notes; Origin its name, unless the list gives another.
	Key, Origin string
	// PerDay is how often the log may ask.
	PerDay int
	// Contact is for people.
	Contact string
}

// ParseLogList reads a list in the format of the witness network: a line "logs/v0", and
// then for each log, in this order, lines vkey, origin (which may be missing), qpd and
// contact. A log whose key is of a kind that is not known is left out, and named in
// skipped; anything else that is wrong makes the whole list unusable, ErrLogList.
func ParseLogList(data []byte) (logs []Listed, skipped []string, err error) {
	bad := func(line int, format string, args ...any) ([]Listed, []string, error) {
		return nil, nil, fmt.Errorf("%w: line %d: %s", ErrLogList, line, fmt.Sprintf(format, args...))
	}
	if len(data) > MaxLogList {
		return bad(1, "%d bytes, more than %d", len(data), MaxLogList)
	}
	begun, known := false, true
	next := "" // the key that has to come
	var l Listed
	seen := map[string]bool{}
	number := 0
	for text := range strings.Lines(string(data)) {
		number++
		text = strings.TrimSpace(text)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		if !begun {
			if text != "logs/v0" {
				return bad(number, "%.60q comes first, want logs/v0", text)
			}
			begun, next = true, "vkey"
			continue
		}
		key, value, _ := strings.Cut(text, " ")
		value = strings.TrimSpace(value)
		if strings.ContainsFunc(value, unicode.IsControl) || len(value) > 4000 {
			return bad(number, "%.20q has a value that cannot be one", key)
		}
		switch {
		case key == "vkey" && next == "vkey":
			v, err := note.NewVerifier(value)
			l, next, known = Listed{Key: value}, "origin", err == nil
			if known {
				l.Origin = v.Name()
			}
		case key == "origin" && next == "origin" && value != "":
			l.Origin, next = value, "qpd"
		case key == "qpd" && (next == "origin" || next == "qpd"):
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil || n == 0 || strconv.FormatUint(n, 10) != value {
				return bad(number, "qpd %.30q is no number from 1 to 2147483647", value)
			}
			l.PerDay, next = int(n), "contact"
		case key == "contact" && next == "contact":
			l.Contact, next = value, "vkey"
			switch {
			case !known:
				skipped = append(skipped, l.Key)
			case seen[l.Origin]:
				return bad(number, "the log %.100q is there twice", l.Origin)
			case len(logs) == maxListed:
				return bad(number, "more than %d logs", maxListed)
			default:
				logs = append(logs, l)
			}
			seen[l.Origin] = known
		default:
			return bad(number, "%.40q where %q has to come", key, next)
		}
	}
	if !begun || next != "vkey" {
		return bad(number, "the list ends where %q has to come", next)
	}
	return logs, skipped, nil
}
