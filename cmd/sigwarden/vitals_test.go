package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/notify"
)

// TestUnwell: there is a sign of life only while every log is fresh and every
// channel delivers.
func TestUnwell(t *testing.T) {
	every, err := config.ParseSchedule("@every 1m")
	if err != nil {
		t.Fatal(err)
	}
	s := &setup{cfg: &config.Config{Schedule: every}, channels: []notify.Channel{{Name: "chat"}, {Name: "slow", Grouping: &notify.Grouping{Window: time.Hour}}}}
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	lately, long := now.Add(-time.Minute), now.Add(-time.Hour)
	log := func(state string, at time.Time) monitor.LogStatus {
		return monitor.LogStatus{Name: "acme", State: state, LastSuccess: at}
	}
	none := map[[2]string]int{}
	open := func(kind string) map[[2]string]int { return map[[2]string]int{{"operational", kind}: 1} }
	for name, tc := range map[string]struct {
		status    monitor.Status
		err       error
		incidents map[[2]string]int
		want      string
	}{
		"all is well":         {monitor.Status{Logs: []monitor.LogStatus{log("ok", lately)}, Channels: []monitor.ChannelStatus{{Name: "chat", Pending: 3}}}, nil, none, ""},
		"one is retired":      {monitor.Status{Logs: []monitor.LogStatus{log("retired", long), log("catching-up", lately)}}, nil, none, ""},
		"a channel fails":     {monitor.Status{Logs: []monitor.LogStatus{log("ok", lately)}, Channels: []monitor.ChannelStatus{{Name: "chat", FailingSince: &long}}}, nil, none, "channel chat"},
		"it has just failed":  {monitor.Status{Logs: []monitor.LogStatus{log("ok", lately)}, Channels: []monitor.ChannelStatus{{Name: "chat", FailingSince: &lately}}}, nil, none, ""},
		"a log is halted":     {monitor.Status{Logs: []monitor.LogStatus{log("ok", lately), log("halted", lately)}}, nil, none, "halted"},
		"a log is not there":  {monitor.Status{Logs: []monitor.LogStatus{log("unreachable", lately)}}, nil, none, "unreachable"},
		"nothing is polled":   {monitor.Status{Logs: []monitor.LogStatus{log("ok", long)}}, nil, none, "no poll"},
		"one is not polled":   {monitor.Status{Logs: []monitor.LogStatus{log("ok", lately), log("ok", long)}}, nil, none, "no poll"},
		"polled every hour":   {monitor.Status{Logs: []monitor.LogStatus{{Name: "acme", State: "ok", LastSuccess: long, Every: time.Hour}}}, nil, none, ""},
		"there is no log":     {monitor.Status{}, nil, none, "no log"},
		"nobody delivers":     {monitor.Status{Logs: []monitor.LogStatus{log("ok", lately)}, Channels: []monitor.ChannelStatus{{Name: "chat", UntriedSince: &long}}}, nil, none, "nobody delivers"},
		"nor what is rolled":  {monitor.Status{Logs: []monitor.LogStatus{log("ok", lately)}, Channels: []monitor.ChannelStatus{{Name: "chat", RolledSince: &long}}}, nil, none, "nobody delivers"},
		"it is gathered":      {monitor.Status{Logs: []monitor.LogStatus{log("ok", lately)}, Channels: []monitor.ChannelStatus{{Name: "slow", RolledSince: &long}}}, nil, none, ""},
		"the store is broken": {monitor.Status{}, errors.New("disk full"), none, "disk full"},
		"a log is stale":      {monitor.Status{Logs: []monitor.LogStatus{log("ok", lately)}}, nil, open(monitor.KindStale), "stale"},
		"it lags behind":      {monitor.Status{Logs: []monitor.LogStatus{log("ok", lately)}}, nil, open(monitor.KindLagging), "lagging"},
		"a refused message":   {monitor.Status{Logs: []monitor.LogStatus{log("ok", lately)}}, nil, open(monitor.KindDeliveryFailed), "delivery-failed"},
		"an odd entry":        {monitor.Status{Logs: []monitor.LogStatus{log("ok", lately)}}, nil, open(monitor.KindUndecodable), ""},
		"a silent watch":      {monitor.Status{Logs: []monitor.LogStatus{log("ok", lately)}}, nil, open(monitor.KindSilence), ""},
	} {
		got := s.unwell(context.Background(), func(context.Context) (monitor.Status, error) { return tc.status, tc.err },
			func(context.Context) (map[[2]string]int, error) { return tc.incidents, nil }, now)
		if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestHeartbeatAsks(t *testing.T) {
	asked, status := 0, http.StatusOK
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.WriteHeader(status)
	}))
	if err := ask(context.Background(), ts.Client(), ts.URL+"/secret-path"); err != nil || asked != 1 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	status = http.StatusInternalServerError
	if err := ask(context.Background(), ts.Client(), ts.URL+"/secret-path"); err == nil {
		t.Error("500 is taken")
	}
	ts.Close()
	if err := ask(context.Background(), ts.Client(), ts.URL+"/secret-path"); err == nil || strings.Contains(err.Error(), "secret-path") {
		t.Errorf("%v", err)
	}
}

// TestSelfTest: a test waits in the outbox whenever the schedule says so.
func TestSelfTest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	weekly, err := config.ParseSchedule("@weekly")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		st, err := store.Open(context.Background(), path, store.Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		ctx, cancel := context.WithCancel(context.Background())
		var woken atomic.Int32
		done := make(chan struct{})
		go func() {
			defer close(done)
			(&setup{}).selfTest(ctx, st, config.Channel{Name: "chat", SelfTest: weekly}, slog.New(slog.DiscardHandler), func() { woken.Add(1) })
		}()
		time.Sleep(14*24*time.Hour + time.Hour) // the bubble begins on a Saturday
		due, _, err := st.Due(ctx, "chat", time.Now(), 10, nil)
		if err != nil || len(due) != 2 || woken.Load() != 2 || !strings.Contains(due[0].Event.Title, "Self-test of channel chat") {
			t.Errorf("%+v, %v", due, err)
		}
		cancel()
		<-done
	})
}
