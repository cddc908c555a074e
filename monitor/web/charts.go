package web

import (
	"fmt"
	"html/template"
	"strings"
	"time"
)

// Charts are SVG in the page. Everything in them is a number or a word of ours.

const (
	chartWidth, chartHeight = 760, 120
	chartLeft, chartBottom  = 90, 20
)

// growthChart draws the size of a log over time; nothing where too little is known.
func growthChart(l LogSpans) template.HTML {
	var points []Span
	for _, x := range l.Spans {
		if x.Reason == "" {
			points = append(points, x)
		}
	}
	if len(points) < 2 {
		return ""
	}
	first, last := points[0], points[len(points)-1]
	low, high := first.Size, last.Size
	for _, p := range points {
		low, high = min(low, p.Size), max(high, p.Size)
	}
	length := last.Until.Sub(first.Until).Seconds()
	if length <= 0 {
		return ""
	}
	var b, line strings.Builder
	for _, p := range points {
		x := chartLeft + (chartWidth-chartLeft-8)*p.Until.Sub(first.Until).Seconds()/length
		y := float64(chartHeight - chartBottom)
		if high > low {
			y -= (chartHeight - chartBottom - 10) * float64(p.Size-low) / float64(high-low)
		}
		fmt.Fprintf(&line, "%.1f,%.1f ", x, y)
	}
	fmt.Fprintf(&b, `<svg role="img" viewBox="0 0 %d %d" aria-label="The log grew from %d entries at %s to %d at %s">`, chartWidth, chartHeight, first.Size, stamp(first.Until), last.Size, stamp(last.Until))
	fmt.Fprintf(&b, `<line class="axis" x1="%d" y1="%d" x2="%d" y2="%d"/>`, chartLeft, chartHeight-chartBottom, chartWidth-8, chartHeight-chartBottom)
	fmt.Fprintf(&b, `<text x="%d" y="14" text-anchor="end">%d</text><text x="%d" y="%d" text-anchor="end">%d</text>`, chartLeft-6, high, chartLeft-6, chartHeight-chartBottom, low)
	fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text><text x="%d" y="%d" text-anchor="end">%s</text>`, chartLeft, chartHeight-4, stamp(first.Until)[:10], chartWidth-8, chartHeight-4, stamp(last.Until)[:10])
	fmt.Fprintf(&b, `<polyline class="line" points="%s"/></svg>`, strings.TrimSpace(line.String()))
	return template.HTML(b.String())
}

// timeline draws when a log was watched.
func timeline(l LogSpans, since, until time.Time) template.HTML {
	const top, height = 4, 22
	at := func(t time.Time) float64 {
		return (chartWidth - 4) * min(max(t.Sub(since).Seconds()/until.Sub(since).Seconds(), 0), 1)
	}
	var b strings.Builder
	watched := 0.0
	for _, x := range l.Spans {
		if x.Reason == "" {
			watched += at(x.Until) - at(x.Since)
		}
	}
	fmt.Fprintf(&b, `<svg role="img" viewBox="0 0 %d 46" aria-label="Watched for %.0f percent of the time from %s to %s">`, chartWidth, 100*watched/(chartWidth-4), stamp(since), stamp(until))
	fmt.Fprintf(&b, `<rect class="unknown" x="2" y="%d" width="%d" height="%d"/>`, top, chartWidth-4, height)
	// Spans that touch are one, or a month would be seven hundred.
	var from, to float64
	class := ""
	flush := func() {
		if class != "" {
			// Told apart by their height too: colours alone do not tell everybody.
			y, high := top, height
			if class == "away" {
				y, high = top+height*2/3, height-height*2/3
			}
			fmt.Fprintf(&b, `<rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d"/>`, class, 2+from, y, max(to-from, 1), high)
		}
	}
	for _, x := range l.Spans {
		c := "watched"
		if x.Reason != "" {
			c = "away"
		}
		if c == class && at(x.Since) <= to+1 {
			to = max(to, at(x.Until))
			continue
		}
		flush()
		class, from, to = c, at(x.Since), at(x.Until)
	}
	flush()
	fmt.Fprintf(&b, `<text x="2" y="42">%s</text><text x="%d" y="42" text-anchor="end">%s</text></svg>`, stamp(since)[:10], chartWidth-2, stamp(until)[:10])
	return template.HTML(b.String())
}
