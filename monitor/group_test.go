package monitor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

// groups makes a rig follow two groups: one lists nothing and fails as told, the
// other is well. Every call of the function returned asks them once, in an
// engine of its own: counts must outlive a process.
func groups(t *testing.T) (*rig, func(error)) {
	r := newRig(t)
	var listErr error
	opts := r.opts
	opts.Store, opts.HealthChannels, opts.IncidentChannels = r.store, []string{"health"}, []string{"alarm"}
	opts.Families = []monitor.Family{
		{Name: "server", List: func(context.Context) ([]monitor.LogConfig, error) { return nil, listErr }},
		{Name: "well", List: func(context.Context) ([]monitor.LogConfig, error) { return nil, nil }},
	}
	return r, func(err error) {
		t.Helper()
		listErr = err
		e, err := monitor.New(opts)
		if err != nil {
			t.Fatal(err)
		}
		failed := 0
		for _, out := range e.Once(context.Background(), time.Second) {
			if out.Err != nil {
				failed++
			}
		}
		if want := listErr != nil; (failed == 1) != want {
			t.Errorf("listing fails %v, %d outcomes with an error", want, failed)
		}
		r.clock.move(6 * time.Minute)
	}
}

// wantDeliveries checks what a channel is told, in order, by accepting it.
func (r *rig) wantDeliveries(channel string, want ...string) {
	r.t.Helper()
	ctx, at := context.Background(), time.Now().Add(time.Hour)
	var got []string
	for {
		due, _, err := r.store.Due(ctx, channel, at, 1, nil)
		if err != nil {
			r.t.Fatal(err)
		}
		if len(due) == 0 {
			break
		}
		got = append(got, due[0].Event.Type)
		if err := r.store.Delivered(ctx, due[0], at); err != nil {
			r.t.Fatal(err)
		}
	}
	if !slices.Equal(got, want) {
		r.t.Errorf("%s was told %q, want %q", channel, got, want)
	}
}

// TestGroupUnreachable: a server that does not answer before any of its trees is
// known is told of, once, and when it is over.
func TestGroupUnreachable(t *testing.T) {
	r, ask := groups(t)
	down := fmt.Errorf("no route to host")
	for range 3 {
		ask(down)
		r.wantIncidents("")
	}
	ask(down) // the fourth time, 18 minutes after the first
	r.wantIncidents("unreachable:operational:open")
	ask(down)
	r.wantIncidents("unreachable:operational:open")
	list, err := r.store.Incidents(context.Background(), store.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Group, Error string
		Polls        int
	}
	if err := json.Unmarshal(list[0].Details, &d); err != nil || d.Group != "server" || d.Polls != 4 || d.Error != "no route to host" || !strings.Contains(list[0].Summary, "server") {
		t.Errorf("%+v %v", list[0], err)
	}
	ask(nil)
	r.wantIncidents("unreachable:operational:resolved")
	r.wantDeliveries("health", notify.IncidentOpened, notify.IncidentResolved)
	// The count begins anew.
	ask(down)
	r.wantIncidents("unreachable:operational:resolved")
	// A group that is not configured any more has no incident that stays open.
	for range 3 {
		ask(down)
	}
	r.wantIncidents("unreachable:operational:resolved unreachable:operational:open")
	opts := r.opts
	opts.Store = r.store
	opts.Families = []monitor.Family{{Name: "well", List: func(context.Context) ([]monitor.LogConfig, error) { return nil, nil }}}
	e, err := monitor.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	e.Once(context.Background(), time.Second)
	r.wantIncidents("unreachable:operational:resolved unreachable:operational:resolved")
}

// TestGroupBadSignature: a new tree that no known key has signed is an incident
// of the group, and an answer that is none neither counts nor resolves it.
func TestGroupBadSignature(t *testing.T) {
	r, ask := groups(t)
	strange := fmt.Errorf("tree 7: %w", checkpoint.ErrSignature)
	ask(strange)
	ask(errors.New("no route to host"))
	ask(strange)
	r.wantIncidents("")
	ask(fmt.Errorf("tree 7: %w", checkpoint.ErrOrigin))
	r.wantIncidents("bad-signature:integrity:open")
	ask(errors.New("no route to host"))
	ask(strange)
	r.wantIncidents("bad-signature:integrity:open")
	ask(nil)
	r.wantIncidents("bad-signature:integrity:resolved")
	r.wantDeliveries("alarm", notify.IncidentOpened, notify.IncidentResolved)
}

// TestGroupStops: a program that is stopped while it asks has nothing to tell.
func TestGroupStops(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(context.Background())
	opts := r.opts
	opts.Store = r.store
	opts.Families = []monitor.Family{{Name: "server", List: func(ctx context.Context) ([]monitor.LogConfig, error) {
		cancel()
		return nil, ctx.Err()
	}}}
	e, err := monitor.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	e.Once(ctx, time.Second)
	if at, _, _, err := r.store.LastPoll(context.Background(), "group/server"); err != nil || !at.IsZero() {
		t.Errorf("polled at %v, %v", at, err)
	}
}

// TestKeyAppears: a log signs with a key that its group has learned of since it
// is followed.
func TestKeyAppears(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 5)
	renewed, err := locallog.New(r.log.Origin())
	if err != nil {
		t.Fatal(err)
	}
	var keys []note.Verifier
	know := func(l *locallog.Log) {
		key, err := checkpoint.ParseKey(l.Origin(), l.PublicKeyPEM())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		if r.cfg.Log, err = checkpoint.NewLog(l.Origin(), keys...); err != nil {
			t.Fatal(err)
		}
	}
	know(r.log)
	r.opts.Families = []monitor.Family{{Name: "root", List: func(context.Context) ([]monitor.LogConfig, error) { return []monitor.LogConfig{r.cfg}, nil }}}
	r.restart()
	r.mustPass()
	for i := range r.log.Size() {
		leaf, err := r.log.Entry(i)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := renewed.Append(leaf); err != nil {
			t.Fatal(err)
		}
	}
	r.fill(renewed, 3)
	r.server.Show(renewed, nil)
	if out := r.once(); out.Err == nil {
		t.Error("a checkpoint with a key that nobody knows was taken")
	}
	know(renewed)
	if out := r.mustPass(); out.Head != 8 || out.Scanned != 8 {
		t.Errorf("%+v", out)
	}
	r.wantIncidents("")
}
