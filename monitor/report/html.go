package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/watchlist/policy"
)

//go:embed report.html.tmpl
var page string

// The page is one file: no script, no address of anything else. Numbers carry their
// place in the JSON document (data-n), so that both can be compared.
var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"stamp": stamp, "clean": clean, "join": strings.Join, "changes": changes,
	"span":  span,
	"short": func(s string) string { return s[:min(len(s), 12)] },
	"hex":   func(h [32]byte) string { return fmt.Sprintf("%x", h[:]) },
	"stampOr": func(t *time.Time, other string) string {
		if t == nil {
			return other
		}
		return stamp(*t)
	},
	"slot": func(i int) int { return i % rowsTogether },
	"last": func(n uint64) uint64 { return max(n, 1) - 1 },
}).Parse(page))

func (r *Report) html(w io.Writer) error {
	return pageTemplate.Execute(w, struct {
		*Report
		CoverageNote                string
		Hours                       float64
		EntryChart, LagChart, Found template.HTML
	}{r, coverageNote, r.Until.Sub(r.Since).Seconds(), r.entryChart(), r.lagChart(), r.findingChart()})
}

// rowsTogether is how many rows of a long table a browser lays out, or passes over, at
// once.
const rowsTogether = 100

// Sizes of charts.
const (
	chartWidth, chartHeight = 720, 150
	chartLeft, chartBottom  = 64, 22
)

func (r *Report) entryChart() template.HTML {
	return r.bars("Entries read in each step", []string{"entries"}, [][]uint64{r.Series.Entries})
}

func (r *Report) lagChart() template.HTML {
	return r.bars("Entries signed and not yet read (most in each step)", []string{"lag"}, [][]uint64{r.Series.Lag})
}

func (r *Report) findingChart() template.HTML {
	var names []string
	var lists [][]uint64
	for _, v := range policy.Verdicts() {
		names, lists = append(names, string(v)), append(lists, r.Series.Findings[string(v)])
	}
	return r.bars("Findings by verdict", names, lists)
}

// bars draws stacked bars as SVG. Everything in it is a number, or a word of ours.
func (r *Report) bars(title string, names []string, lists [][]uint64) template.HTML {
	n := len(lists[0])
	sums := make([]uint64, n)
	most := uint64(0)
	for i := range n {
		for _, list := range lists {
			sums[i] += list[i]
		}
		most = max(most, sums[i])
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<figure><figcaption>%s</figcaption><svg role="img" viewBox="0 0 %d %d" aria-label="%s, from %s on, a bar each %s; at most %d in one">`, title, chartWidth, chartHeight, title, stamp(r.Series.From), r.Series.Step, most)
	width, height := float64(chartWidth-chartLeft-4)/float64(max(n, 1)), float64(chartHeight-chartBottom-8)
	base := float64(chartHeight - chartBottom)
	fmt.Fprintf(&b, `<line class="axis" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`, chartLeft, base, chartWidth-4, base)
	fmt.Fprintf(&b, `<text x="%d" y="16" text-anchor="end">%d</text><text x="%d" y="%.1f" text-anchor="end">0</text>`, chartLeft-6, most, chartLeft-6, base)
	fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text><text x="%d" y="%d" text-anchor="end">%s</text>`, chartLeft, chartHeight-6, stamp(r.Since)[:10], chartWidth-4, chartHeight-6, stamp(r.Until)[:10])
	for i := range n {
		y := base
		for k, list := range lists {
			if list[i] == 0 {
				continue
			}
			h := max(height*float64(list[i])/float64(max(most, 1)), 1)
			y -= h
			fmt.Fprintf(&b, `<rect class="c-%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s: %d %s</title></rect>`, names[k], float64(chartLeft)+float64(i)*width+0.5, y, max(width-1, 0.5), h, stamp(r.Series.From.Add(time.Duration(i)*r.Series.Step)), list[i], names[k])
		}
	}
	b.WriteString(`</svg>`)
	if len(names) > 1 {
		b.WriteString(`<p class="legend">`)
		for _, name := range names {
			fmt.Fprintf(&b, `<span><i class="c-%s"></i>%s</span> `, name, name)
		}
		b.WriteString(`</p>`)
	}
	b.WriteString(`</figure>`)
	return template.HTML(b.String())
}
