package monitor

import (
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Traces say where the time of a poll goes. They cost next to nothing while nobody collects
// them.
var tracer = otel.Tracer("github.com/sigwarden/sigwarden/monitor")

// logName is the name of the log that a span is about.
const logName = attribute.Key("sigwarden.log")

func endSpan(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
