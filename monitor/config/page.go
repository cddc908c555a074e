package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Markdown writes the keys of a configuration for people: a part for each key at the top, a
// row for each key below it.
func (s *Schema) Markdown() string {
	var b strings.Builder
	b.WriteString(`# Configuration

Made from the program by ` + "`sigwarden config schema --format markdown`" + `; the JSON Schema for editors is that of
` + "`sigwarden config schema`" + `. [config.example.yaml](../config.example.yaml) shows most of it in its place.

Relative paths are relative to the configuration file. A *secret* may be written as env:NAME or file:PATH, and is
never printed. A *duration* is like 90s, 10m or 24h. A *schedule* has the five fields of cron, is a word like
@hourly, or @every 1m30s. Items of a list are written as ` + "`[]`" + `. **Bold** keys must be there.
`)
	for _, key := range inOrder("", s.Properties) {
		part := s.Properties[key]
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", key, part.Description)
		if rows := part.rows(key, nil); len(rows) > 0 {
			b.WriteString("\n| key | takes | default | |\n|---|---|---|---|\n")
			for _, row := range rows {
				b.WriteString(row)
			}
			continue
		}
		fmt.Fprintf(&b, "\nTakes a %s.%s\n", part.Takes, part.defaultText(" Default: %s."))
	}
	return b.String()
}

// rows are those of the keys below a schema.
func (s *Schema) rows(path string, rows []string) []string {
	for _, key := range inOrder(path, s.Properties) {
		p, at := s.Properties[key], path+"."+key
		name := "`" + at + "`"
		if slices.Contains(s.Required, key) {
			name = "**" + name + "**"
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s |\n", name, p.takesText(), p.defaultText("%s"), p.Description))
		rows = p.rows(at, rows)
	}
	if s.Items != nil {
		rows = s.Items.rows(path+"[]", rows)
	}
	for _, one := range s.AnyOf {
		rows = one.rows(path, rows)
	}
	return rows
}

func (s *Schema) takesText() string {
	words := s.Enum
	if len(s.AnyOf) > 0 {
		words = s.AnyOf[0].Enum
	}
	text := s.Takes
	if len(words) > 0 {
		text = strings.Replace(text, "text", strings.Join(words, ", "), 1)
	}
	if s.Minimum != nil {
		text = fmt.Sprintf("%s, %g to %g", text, *s.Minimum, *s.Maximum)
	}
	return text
}

func (s *Schema) defaultText(format string) string {
	if s.Default == nil {
		return ""
	}
	text, ok := s.Default.(string)
	if !ok {
		text = fmt.Sprint(s.Default)
		// A list of texts is written as in a configuration; everything else is a bool.
		if data, err := json.Marshal(s.Default); err == nil {
			text = string(data)
		}
	}
	return fmt.Sprintf(format, "`"+text+"`")
}

// inOrder sorts keys as they are described.
func inOrder(path string, properties map[string]*Schema) []string {
	place := func(key string) int {
		at := strings.TrimPrefix(path+"."+key, ".")
		exact := slices.IndexFunc(keys, func(k [2]string) bool { return k[0] == at })
		if exact >= 0 {
			return exact
		}
		return slices.IndexFunc(keys, func(k [2]string) bool {
			tail, ok := cutStar(k[0])
			return ok && strings.HasSuffix(at, tail)
		})
	}
	return slices.SortedFunc(maps.Keys(properties), func(a, b string) int { return place(a) - place(b) })
}
