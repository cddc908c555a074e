package config

import (
	"strings"
	"testing"
)

// walk visits every key that a schema has, by its path.
func walk(s *Schema, path string, visit func(path string, s *Schema)) {
	for key, p := range s.Properties {
		at := strings.TrimPrefix(path+"."+key, ".")
		visit(at, p)
		walk(p, at, visit)
	}
	if s.Items != nil {
		walk(s.Items, path+"[]", visit)
	}
	for _, one := range s.AnyOf {
		walk(one, path, visit)
	}
}

// TestEveryKeyIsDescribed: what is for people is there for every key that is read, and for
// none that is not.
func TestEveryKeyIsDescribed(t *testing.T) {
	read := map[string]bool{}
	walk(Describe(), "", func(path string, s *Schema) {
		read[path] = true
		if names, ok := s.AdditionalProperties.(*Schema); ok && names != nil {
			read[path+".NAME"] = true
			if names.Description == "" {
				t.Errorf("%s.NAME is described nowhere", path)
			}
		}
		if s.Description == "" || s.Takes == "" {
			t.Errorf("%s: described as %q, takes %q", path, s.Description, s.Takes)
		}
	})
	seen := map[string]bool{}
	for _, k := range keys {
		if seen[k[0]] {
			t.Errorf("%s is described twice", k[0])
		}
		seen[k[0]] = true
		tail, star := cutStar(k[0])
		used := read[k[0]]
		for path := range read {
			used = used || star && strings.HasSuffix(path, tail)
		}
		if !used {
			t.Errorf("%s is described, and no such key is read", k[0])
		}
	}
}

// TestDefaultsAreThoseThatHold: the defaults of the schema are what an empty file gives.
func TestDefaultsAreThoseThatHold(t *testing.T) {
	c, err := Parse("sigwarden.yaml", []byte("watchlist:\n  - {name: w, match: [{subject: a}]}\nwitness: {listen: \"127.0.0.1:1\", keys: []}\nreports: [{name: r, schedule: \"@daily\", directory: d}]\nnotify: {channels: [{name: n, file: {path: f}, quiet: {hours: x}}]}\n"), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"state": c.State, "schedule": c.Schedule.Text, "http.page": c.HTTP.Page, "logs[].entries": c.Logs[0].Entries, "logs[].start": c.Logs[0].Start,
		"watchlist[].severity": c.Watches[0].Severity, "watchlist[].untrusted": c.Watches[0].Untrusted, "witness.audited": c.Witness.Audited,
		"witness.feed_every": short(c.Witness.FeedEvery), "reports[].formats": strings.Join(c.Reports[0].Formats, " "), "notify.channels[].quiet.below": c.Notify.Channels[0].Quiet.Below,
	}
	got := map[string]any{}
	walk(Describe(), "", func(path string, s *Schema) {
		got[path] = s.Default
		if list, ok := s.Default.([]string); ok {
			got[path] = strings.Join(list, " ")
		}
	})
	for path, value := range want {
		if got[path] != value {
			t.Errorf("the default of %s is %v in the schema, and %v where it is read", path, got[path], value)
		}
	}
}
