package web

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sigwarden/sigwarden/monitor"
)

// collector reads what the store and the engine know when it is scraped.
type collector struct {
	opts                          Options
	verified, scanned, head, lag  *prometheus.Desc
	success, state                *prometheus.Desc
	entries, undecodable, keyOnly *prometheus.Desc
	bytes, findings, incidents    *prometheus.Desc
	deliveries, deliveriesPending *prometheus.Desc
	deliveriesDue                 *prometheus.Desc
}

// logStates are the values of the label state.
var logStates = []string{"new", "ok", "catching-up", "unreachable", "waiting", "halted", "retired"}

func newCollector(opts Options) *collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sigwarden_"+name, help, labels, nil)
	}
	return &collector{
		opts:              opts,
		verified:          d("log_verified_size", "Size of the newest checkpoint that was proven to extend all before it.", "log"),
		scanned:           d("log_scanned_size", "Size up to which leaves were read in order; older ones may be read behind that, see the lag.", "log"),
		lag:               d("log_lag_entries", "Entries of the verified tree that are still to be read.", "log"),
		head:              d("log_head_size", "Size of the validly signed checkpoint that the last poll saw, accepted or not.", "log"),
		success:           d("log_last_poll_success_timestamp_seconds", "When the last poll succeeded.", "log"),
		state:             d("log_state", "1 for the state that the log is in, 0 for the others.", "log", "state"),
		entries:           d("entries_scanned_total", "Entries that were read and proven.", "log"),
		undecodable:       d("entries_undecodable_total", "Entries that no decoder understood in full.", "log"),
		keyOnly:           d("entries_key_only_total", "Entries with bare keys alone, which no watch for a subject can see.", "log"),
		bytes:             d("bytes_fetched_total", "Bytes received from the log since the process began.", "log"),
		findings:          d("findings_total", "New findings since the process began.", "watch", "verdict"),
		incidents:         d("incidents_open", "Incidents that are not resolved.", "class", "kind"),
		deliveries:        d("deliveries_total", "Outcomes of tries to deliver since the process began.", "channel", "result"),
		deliveriesPending: d("deliveries_pending", "Deliveries that wait in the outbox.", "channel"),
		deliveriesDue:     d("deliveries_due", "Deliveries that wait although nothing holds them back: no digest, no quiet hours.", "channel"),
	}
}

// buildInfo is always 1: which program this is.
func buildInfo(version string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "sigwarden_build_info", Help: "Always 1; the version of the program and of Go.", ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}})
	g.Set(1)
	return g
}

// Describe sends nothing: which series there are depends on the configuration.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	// The interface of the library has no context.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	status, err := c.opts.Status(ctx)
	if err != nil {
		c.fail(ch, c.verified, err)
		return
	}
	for _, l := range status.Logs {
		gauge(c.verified, float64(l.Verified.Size), l.Name)
		gauge(c.scanned, float64(l.Scanned), l.Name)
		gauge(c.lag, float64(l.Lag), l.Name)
		gauge(c.head, float64(l.Signed), l.Name)
		if !l.LastSuccess.IsZero() {
			gauge(c.success, float64(l.LastSuccess.UnixMilli())/1000, l.Name)
		}
		for _, s := range logStates {
			v := 0.0
			if s == l.State {
				v = 1
			}
			gauge(c.state, v, l.Name, s)
		}
		counter(c.entries, float64(l.Entries), l.Name)
		counter(c.undecodable, float64(l.Undecodable), l.Name)
		counter(c.keyOnly, float64(l.KeyOnly), l.Name)
	}
	for _, channel := range status.Channels {
		gauge(c.deliveriesPending, float64(channel.Pending), channel.Name)
		gauge(c.deliveriesDue, float64(channel.Due), channel.Name)
	}
	for name, n := range c.opts.Bytes() {
		counter(c.bytes, float64(n), name)
	}
	for key, n := range c.opts.Engine.Metrics().Findings {
		counter(c.findings, float64(n), key[0], key[1])
	}
	for key, n := range c.opts.Deliveries() {
		counter(c.deliveries, float64(n), key[0], key[1])
	}
	open, err := c.opts.OpenIncidents(ctx)
	if err != nil {
		c.fail(ch, c.incidents, err)
		return
	}
	for _, k := range monitor.IncidentKinds() {
		open[[2]string{k.Class, k.Kind}] += 0 // what is not there at first cannot be seen to grow
	}
	for key, n := range open {
		gauge(c.incidents, float64(n), key[0], key[1])
	}
}

// fail makes the whole scrape fail: numbers that are silently missing would be
// taken for none. What went wrong is for the log of the process.
func (c *collector) fail(ch chan<- prometheus.Metric, d *prometheus.Desc, err error) {
	c.opts.Log.Error("the store cannot be read for metrics", "error", err)
	ch <- prometheus.NewInvalidMetric(d, errors.New("the store cannot be read; the log of this process says why"))
}
