package config

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Schema is a JSON Schema, draft 2020-12, of the parts that a configuration needs.
type Schema struct {
	Schema      string `json:"$schema,omitempty"`
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	// Type is a word, or a list of them.
	Type                 any                `json:"type,omitempty"`
	Default              any                `json:"default,omitempty"`
	Enum                 []string           `json:"enum,omitempty"`
	Pattern              string             `json:"pattern,omitempty"`
	Minimum              *float64           `json:"minimum,omitempty"`
	Maximum              *float64           `json:"maximum,omitempty"`
	Properties           map[string]*Schema `json:"properties,omitempty"`
	Required             []string           `json:"required,omitempty"`
	AdditionalProperties any                `json:"additionalProperties,omitempty"` // false, or a schema
	Items                *Schema            `json:"items,omitempty"`
	MinItems             int                `json:"minItems,omitempty"`
	MinLength            int                `json:"minLength,omitempty"`
	AnyOf                []*Schema          `json:"anyOf,omitempty"`
	OneOf                []*Schema          `json:"oneOf,omitempty"`

	// Takes says for people what is written there: a duration, a file.
	Takes string `json:"-"`
}

// Describe returns the schema of a whole configuration. The functions that read one say what
// they take and what holds by default, so that it cannot differ from what is read.
func Describe() *Schema {
	top := &Schema{Schema: "https://json-schema.org/draft/2020-12/schema", Title: "Configuration of sigwarden"}
	f := &file{shape: top, places: map[string][2]int{}, getenv: func(string) string { return "" }}
	newConfig(f).read(nil)
	return top
}

// describe completes the shape of a key, where shapes are asked for.
func (f *file) describe(more func(*Schema)) {
	if f.shape != nil {
		more(f.shape)
	}
}

// within has a reader describe itself.
func (f *file) within(path string, read field) *Schema {
	around := f.shape
	f.shape = &Schema{Description: aboutKey(path)}
	defer func() { f.shape = around }()
	read(nil, path)
	return f.shape
}

// describeKeys is what mapping takes. A key without a value is as good as none.
func (f *file) describeKeys(path string, fields map[string]field, required []string) {
	s := f.shape.takes("keys", "object", "null")
	if len(required) > 0 {
		s.takes("keys", "object")
	}
	s.Properties, s.Required, s.AdditionalProperties = map[string]*Schema{}, required, false
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		s.Properties[key] = f.within(strings.TrimPrefix(path+"."+key, "."), fields[key])
	}
}

// describeNames is what a mapping takes whose keys are names.
func (f *file) describeNames(path, name string, read field) {
	f.shape.takes("names with texts", "object").AdditionalProperties = f.within(path+"."+name, read)
}

// describeItems is what list takes.
func (f *file) describeItems(path string, read field) {
	f.shape.takes("list", "array", "null").Items = f.within(path+"[]", read)
}

// describeEither is what either takes.
func (f *file) describeEither(path string, keys, short field) {
	long, brief := f.within(path, keys), f.within(path, short)
	long.Description, brief.Description = "", ""
	f.shape.AnyOf, f.shape.Takes = []*Schema{brief, long}, brief.Takes+", or keys"
	f.shape.Default, brief.Default = brief.Default, nil
}

// someOfKeys says that one or more of some keys must be there.
func (f *file) someOfKeys(keys ...string) {
	f.describe(func(s *Schema) {
		for _, key := range keys {
			s.AnyOf = append(s.AnyOf, &Schema{Required: []string{key}})
		}
	})
}

// exactlyOne says that one of some keys must be there.
func (f *file) exactlyOne(keys ...string) {
	f.describe(func(s *Schema) {
		for _, key := range keys {
			s.OneOf = append(s.OneOf, &Schema{Required: []string{key}})
		}
	})
}

func (s *Schema) takes(what string, types ...string) *Schema {
	if s.Takes, s.Type = what, types; len(types) == 1 {
		s.Type = types[0]
	}
	return s
}

func (s *Schema) byDefault(value any, given bool) *Schema {
	if given {
		s.Default = value
	}
	return s
}

func (s *Schema) words(known []string) *Schema {
	s.Enum, s.Type = known, "string"
	return s
}

func (s *Schema) between(lowest, highest float64) {
	s.Minimum, s.Maximum = &lowest, &highest
}

// lists makes it a text or a list of texts.
func (s *Schema) lists(byDefault []string) {
	one, each := (&Schema{}).takes("text", "string", "number", "boolean"), (&Schema{}).takes("text", "string", "number", "boolean")
	s.AnyOf, s.Takes = []*Schema{one, {Type: "array", Items: each}}, "text or list"
	if byDefault != nil {
		s.Default = byDefault
	}
}

// short writes a duration without zeros at its end: 24h.
func short(d time.Duration) string {
	text := d.String()
	if cut, ok := strings.CutSuffix(text, "m0s"); ok {
		text = cut + "m"
	}
	if cut, ok := strings.CutSuffix(text, "h0m"); ok {
		text = cut + "h"
	}
	return text
}
