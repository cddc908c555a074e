package store

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// TestTrustSource: the last good root stays, whatever fails; when that has gone
// on for a week, somebody is told, once.
func TestTrustSource(t *testing.T) {
	ctx := context.Background()
	st, err := Open(ctx, filepath.Join(t.TempDir(), "s.db"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	const name = "public-good"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func() monitor.TrustSource {
		t.Helper()
		src, err := st.TrustSource(ctx, name)
		must(err)
		return src
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	problems := []string{}
	judge := func() (opened, resolved int) {
		t.Helper()
		open, err := st.OpenIncidents(ctx, "")
		must(err)
		raise, settle := monitor.JudgeTrust(open, name, read(), problems, now, monitor.Audience{Channels: []string{"mail"}})
		must(st.Record(ctx, raise, settle))
		for _, inc := range raise {
			if len(inc.Deliveries) != 1 || inc.Log != "" || inc.Class != monitor.Operational {
				t.Errorf("%+v", inc)
			}
		}
		return len(raise), len(settle)
	}
	want := func(opened, resolved int) {
		t.Helper()
		now = now.Add(time.Second)
		if o, r := judge(); o != opened || r != resolved {
			t.Errorf("%s: opened %d, resolved %d, want %d, %d", now, o, r, opened, resolved)
		}
	}
	if src := read(); src.Root != nil || !src.Refreshed.IsZero() {
		t.Errorf("%+v", src)
	}
	want(0, 0)
	// Nothing was ever fetched: the week begins with the first try.
	for range 3 {
		must(st.TrustFailed(ctx, name, now, "no route"))
	}
	want(0, 0)
	now = now.Add(7 * 24 * time.Hour)
	want(1, 0)
	want(0, 0)

	one := &monitor.TrustRoot{Source: name, Document: []byte("one"), Provenance: []byte("{}")}
	must(st.KeepTrustRoot(ctx, one, [][]byte{[]byte("signing")}, now))
	want(0, 1)
	src := read()
	if src.Root.Hash() != one.Hash() || src.First.Hash() != one.Hash() || string(src.Root.Provenance) != "{}" || len(src.Signing) != 1 || src.Failures != 0 || !src.FailingSince.IsZero() || now.Sub(src.Refreshed) > time.Minute {
		t.Errorf("%+v", src)
	}
	again := *one
	again.Provenance = []byte(`{"later":1}`)
	must(st.KeepTrustRoot(ctx, &again, [][]byte{[]byte("signing")}, now))
	if src := read(); string(src.Newest) != `{"later":1}` || string(src.Root.Provenance) != "{}" || src.FirstAt.IsZero() {
		t.Errorf("%+v", src)
	}
	// A refresh that fails leaves everything as it is.
	for range 2 {
		must(st.TrustFailed(ctx, name, now, "no route"))
	}
	now = now.Add(8 * 24 * time.Hour)
	want(0, 0) // two tries are none
	must(st.TrustFailed(ctx, name, now, "no route"))
	want(1, 0)
	if src := read(); !bytes.Equal(src.Root.Document, one.Document) || src.Error != "no route" || src.Failures != 3 {
		t.Errorf("%+v", src)
	}
	two := &monitor.TrustRoot{Source: name, Document: []byte("two")}
	must(st.KeepTrustRoot(ctx, two, nil, now))
	want(0, 1)
	if src := read(); src.Root.Hash() != two.Hash() || src.First.Hash() != one.Hash() {
		t.Errorf("%+v", src)
	}
	// Parts that cannot be used are told of once, and anew when they change.
	problems = []string{"log 3"}
	want(1, 0)
	want(0, 0)
	problems = []string{"log 3", "log 4"}
	want(1, 1)
	problems = nil
	want(0, 1)
	// Another source ends what was wrong with this one.
	problems = []string{"log 3"}
	want(1, 0)
	open, err := st.OpenIncidents(ctx, "")
	must(err)
	raise, settle := monitor.JudgeTrust(open, "staging", monitor.TrustSource{}, nil, now, monitor.Audience{})
	if len(raise) != 0 || len(settle) != 1 {
		t.Errorf("%v, %v", raise, settle)
	}
	if other, err := st.TrustSource(ctx, "staging"); err != nil || other.Root != nil {
		t.Errorf("%+v, %v", other, err)
	}
}
