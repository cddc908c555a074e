package web

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sigwarden/sigwarden/monitor"
)

type engine struct{ ready bool }

func (e *engine) Ready() bool { return e.ready }
func (e *engine) Metrics() monitor.Metrics {
	return monitor.Metrics{Findings: map[[2]string]uint64{{"releases", "unexpected"}: 3}}
}

func options(e *engine, storeErr *error) Options {
	return Options{
		Engine: e,
		Status: func(context.Context) (monitor.Status, error) {
			return monitor.Status{
				Logs: []monitor.LogStatus{{Name: "acme", State: "catching-up", Verified: monitor.VerifiedHead{Size: 200}, Scanned: 150, Lag: 60, Signed: 200, Entries: 150,
					KeyOnly: 4, Undecodable: 2, LastSuccess: time.Unix(1700000000, 0)}},
				Channels: []monitor.ChannelStatus{{Name: "chat", Pending: 7, Due: 3}},
			}, *storeErr
		},
		OpenIncidents: func(context.Context) (map[[2]string]int, error) {
			return map[[2]string]int{{"integrity", "fork"}: 1}, nil
		},
		Bytes:      func() map[string]int64 { return map[string]int64{"acme": 12345} },
		Deliveries: func() map[[2]string]int64 { return map[[2]string]int64{{"chat", "delivered"}: 9} },
		Log:        slog.New(slog.DiscardHandler),
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestServe(t *testing.T) {
	e, storeErr := &engine{}, error(nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- New(options(e, &storeErr)).Serve(ctx, listener) }()
	base := "http://" + listener.Addr().String()
	if code, body := get(t, base+"/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
	if code, body := get(t, base+"/readyz"); code != 503 || !strings.Contains(body, "first pass") || !strings.Contains(body, "acme: catching-up, verified 200, scanned 150") {
		t.Errorf("readyz before the first pass: %d %q", code, body)
	}
	e.ready = true
	if code, body := get(t, base+"/readyz"); code != 200 || !strings.HasPrefix(body, "ready\n") {
		t.Errorf("readyz: %d %q", code, body)
	}
	code, body := get(t, base+"/metrics")
	for _, want := range []string{
		`sigwarden_log_verified_size{log="acme"} 200`, `sigwarden_log_scanned_size{log="acme"} 150`, `sigwarden_log_head_size{log="acme"} 200`, `sigwarden_log_lag_entries{log="acme"} 60`,
		`sigwarden_log_last_poll_success_timestamp_seconds{log="acme"} 1.7e+09`, `sigwarden_log_state{log="acme",state="catching-up"} 1`, `sigwarden_log_state{log="acme",state="ok"} 0`,
		`sigwarden_entries_scanned_total{log="acme"} 150`, `sigwarden_entries_undecodable_total{log="acme"} 2`, `sigwarden_entries_key_only_total{log="acme"} 4`,
		`sigwarden_bytes_fetched_total{log="acme"} 12345`, `sigwarden_findings_total{verdict="unexpected",watch="releases"} 3`,
		`sigwarden_incidents_open{class="integrity",kind="fork"} 1`, `sigwarden_deliveries_total{channel="chat",result="delivered"} 9`, `sigwarden_deliveries_pending{channel="chat"} 7`, `sigwarden_deliveries_due{channel="chat"} 3`,
	} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("metrics (%d) have no %s", code, want)
		}
	}
	storeErr = errors.New("database is locked: /secret/path")
	if code, body := get(t, base+"/readyz"); code != 503 || strings.Contains(body, "secret") {
		t.Errorf("readyz with a broken store: %d %q", code, body)
	}
	if code, _ := get(t, base+"/nosuch"); code != 404 {
		t.Errorf("unknown path: %d", code)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(6 * time.Second):
		t.Error("did not stop")
	}
}

func TestMetricsAreWellNamed(t *testing.T) {
	storeErr := error(nil)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(options(&engine{}, &storeErr)))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) != 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// TestServeWaits: Serve returns once requests in flight are answered, so that
// what they use can be closed.
func TestServeWaits(t *testing.T) {
	begun, answered := make(chan struct{}), make(chan struct{})
	o := options(&engine{ready: true}, new(error))
	inner := o.Status
	o.Status = func(ctx context.Context) (monitor.Status, error) {
		close(begun)
		time.Sleep(100 * time.Millisecond)
		defer close(answered)
		return inner(ctx)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go http.Get("http://" + listener.Addr().String() + "/readyz")
	go func() { <-begun; cancel() }()
	if err := New(o).Serve(ctx, listener); err != nil {
		t.Fatal(err)
	}
	select {
	case <-answered:
	default:
		t.Error("Serve returned before the request was answered")
	}
}

// TestMetricsFail: numbers that cannot be read make the scrape fail, and say
// nothing of the machine.
func TestMetricsFail(t *testing.T) {
	failure := errors.New("database is locked: /secret/path")
	w := httptest.NewRecorder()
	New(options(&engine{ready: true}, &failure)).Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
