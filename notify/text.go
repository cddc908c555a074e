package notify

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Clean makes text of strangers safe to show on one line, anywhere: control
// characters, marks that turn the direction of writing, invisible characters
// and broken UTF-8 come out as visible escapes. What is longer than max bytes
// is cut.
func Clean(s string, max int) string {
	var b strings.Builder
	marks := 0 // combining ones in a row
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		var piece string
		switch {
		case r == utf8.RuneError && size == 1:
			piece = fmt.Sprintf(`\x%02x`, s[i])
		case r < 0x20 || r == 0x7f:
			piece = fmt.Sprintf(`\x%02x`, r)
		case invisible(r) || marks >= maxMarks && unicode.Is(unicode.M, r):
			piece = escaped(r)
		default:
			piece = s[i : i+size]
		}
		if marks++; !unicode.Is(unicode.M, r) {
			marks = 0
		}
		if b.Len()+len(piece) > max {
			return strings.TrimRight(b.String(), " ") + "..."
		}
		b.WriteString(piece)
		i += size
	}
	return b.String()
}

// maxMarks bounds the combining marks on one letter: a pile of them covers the
// lines around it.
const maxMarks = 4

// invisible reports whether a character shows nothing, or changes how others
// show: of control and format, those that are ignored by default, private ones,
// and those that are none at all.
func invisible(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Noncharacter_Code_Point) ||
		r == '\u2800' || r != ' ' && unicode.Is(unicode.Zs, r)
}

func escaped(r rune) string {
	if r > 0xffff {
		return fmt.Sprintf(`\U%08x`, r)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// EscapeJSON writes what is invisible in a JSON document as escapes: the values
// are the same, and nothing happens to a terminal that shows it.
func EscapeJSON(doc []byte) []byte {
	clean := true
	for _, r := range string(doc) {
		if r >= 0x7f && (r == 0x7f || invisible(r)) {
			clean = false
			break
		}
	}
	if clean {
		return doc
	}
	var b strings.Builder
	for _, r := range string(doc) {
		switch {
		case r < 0x7f || r != 0x7f && !invisible(r):
			b.WriteRune(r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return []byte(b.String())
}

// Bounds of the texts that people see.
const (
	MaxTitle   = 140
	MaxSummary = 1500
	MaxValue   = 800
	maxFields  = 24
	maxLines   = 100
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
	if e.Lines != nil {
		lines := make([]string, min(len(e.Lines), maxLines))
		for i := range lines {
			lines[i] = Clean(e.Lines[i], MaxValue)
		}
		e.Lines = nil
		// Every channel shows a summary, and few show lines as such.
		e.Summary = strings.Join(lines, "\n")
	}
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
	if e.Link != "" {
		fmt.Fprintf(&b, "    %s\n", Clean(e.Link, MaxValue))
	}
	return b.String()
}
