package notify

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes text of strangers safe to show on one line, anywhere: control
// characters, marks that turn the direction of writing, invisible characters
// and broken UTF-8 come out as visible escapes. What is longer than max bytes
// is cut.
func Clean(s string, max int) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		var piece string
		switch {
		case r == utf8.RuneError && size == 1:
			piece = fmt.Sprintf(`\x%02x`, s[i])
		case r < 0x20 || r == 0x7f:
			piece = fmt.Sprintf(`\x%02x`, r)
		case r != ' ' && (unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) || unicode.Is(unicode.Co, r)):
			piece = fmt.Sprintf(`\u%04x`, r)
		default:
			piece = s[i : i+size]
		}
		if b.Len()+len(piece) > max {
			return strings.TrimRight(b.String(), " ") + "..."
		}
		b.WriteString(piece)
		i += size
	}
	return b.String()
}

// Bounds of the texts that people see.
const (
	MaxTitle   = 140
	MaxSummary = 1500
	MaxValue   = 800
	maxFields  = 24
)

// Cleaned returns the event with all that people see made safe.
func (e Event) Cleaned() Event {
	e.Title, e.Summary, e.Next = Clean(e.Title, MaxTitle), Clean(e.Summary, MaxSummary), Clean(e.Next, MaxValue)
	fields := make([]Field, 0, len(e.Fields))
	for i, f := range e.Fields {
		if i == maxFields {
			fields = append(fields, Field{"More", fmt.Sprintf("%d further facts; see the command below", len(e.Fields)-i)})
			break
		}
		fields = append(fields, Field{Clean(f.Name, 60), Clean(f.Value, MaxValue)})
	}
	e.Fields = fields
	return e
}

// Plain renders an event as plain text, for mail and terminals.
func (e Event) Plain() string {
	e = e.Cleaned()
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s\n\n", e.Title, e.Summary)
	for _, f := range e.Fields {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	if e.Next != "" {
		fmt.Fprintf(&b, "\nTo see more:\n    %s\n", e.Next)
	}
	return b.String()
}
