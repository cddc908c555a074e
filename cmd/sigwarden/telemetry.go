package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"golang.org/x/time/rate"
)

// endTraces bounds how long the last spans may take when the program ends.
const endTraces = 3 * time.Second

// traces sends spans to a collector where the environment names one, as OpenTelemetry says:
// OTEL_EXPORTER_OTLP_ENDPOINT and the other variables of its exporter, samplers and resources.
// end sends what is left.
func (a *app) traces(ctx context.Context, log *slog.Logger) (end func(), err error) {
	if a.getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && a.getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" || a.getenv("OTEL_SDK_DISABLED") == "true" || a.getenv("OTEL_TRACES_EXPORTER") == "none" {
		return func() {}, nil
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if p := a.getenv(name); p != "" {
			if p != "http/protobuf" {
				return nil, usage(fmt.Errorf("%s is %q: traces are sent as http/protobuf alone", name, p))
			}
			break
		}
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	is, err := resource.New(ctx, resource.WithAttributes(semconv.ServiceName("sigwarden"), semconv.ServiceVersion(version())), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	// A collector that is away is said once in a while, and never in the way.
	said := rate.Sometimes{First: 1, Interval: 10 * time.Minute}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		said.Do(func() { log.Warn("traces cannot be sent; nothing else depends on them", "error", err) })
	}))
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(is))
	otel.SetTracerProvider(provider)
	return func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTraces)
		defer cancel()
		if err := provider.Shutdown(last); err != nil {
			log.Warn("the last traces could not be sent", "error", err)
		}
	}, nil
}
