package e2e

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// TestTraces: with a collector in the environment, spans tell where the time of a poll goes,
// and hold no credential; without one, or with one that is away, all else is the same.
func TestTraces(t *testing.T) {
	var mu sync.Mutex
	var spans []*traces.Span
	service := ""
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		data, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		var got collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(data, &got); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, resource := range got.ResourceSpans {
			for _, a := range resource.Resource.Attributes {
				if a.Key == "service.name" {
					service = a.Value.GetStringValue()
				}
			}
			for _, scope := range resource.ScopeSpans {
				spans = append(spans, scope.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer hub.Close()
	chat := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	defer chat.Close()
	const secret = "s3cr3t-token"
	hook := chat.URL + "/" + secret
	r := newReader(t)
	r.write("sigwarden.yaml", "watchlist: [{name: w, match: [{subject: \"https://github.com/acme/*\"}]}]\nnotify: {channels: [{name: chat, slack: {webhook: \""+hook+"\"}}, {name: lines, file: {path: alerts.jsonl}}]}\n"+r.log)
	run := func(env ...string) (string, int) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(r.dir, "sigwarden.db")); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(program(t, "sigwarden", "sigwarden"), "run", "--once", "--timeout", "5s")
		c.Dir, c.Env = r.dir, append(os.Environ(), env...)
		out, _ := c.CombinedOutput()
		return string(out), c.ProcessState.ExitCode()
	}
	if out, code := run("OTEL_EXPORTER_OTLP_ENDPOINT=" + hub.URL); code != 3 {
		t.Fatalf("%d\n%s", code, out)
	}
	mu.Lock()
	found := map[string]*traces.Span{}
	for _, s := range spans {
		found[s.Name] = s
		if strings.Contains(s.String(), secret) {
			t.Errorf("a span tells a credential: %v", s)
		}
	}
	if service != "sigwarden" || found["poll"] == nil || found["commit"] == nil || found["GET"] == nil || found["deliver"] == nil {
		t.Fatalf("service %q, %d spans: %v", service, len(spans), spans)
	}
	if string(found["commit"].ParentSpanId) != string(found["poll"].SpanId) || string(found["GET"].TraceId) != string(found["poll"].TraceId) {
		t.Error("what belongs to a poll does not stand below it")
	}
	mu.Unlock()
	if out, code := run("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1"); code != 3 || !strings.Contains(out, "traces c") && !strings.Contains(out, "traces could not be sent") {
		t.Errorf("with a collector that is away: %d\n%s", code, out)
	}
	if out, code := run("OTEL_EXPORTER_OTLP_ENDPOINT="+hub.URL, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"); code != 2 || !strings.Contains(out, "http/protobuf") {
		t.Errorf("with a protocol that is not spoken: %d\n%s", code, out)
	}
}
