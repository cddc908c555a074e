package web

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sigwarden/sigwarden/monitor"
)

// note is an answer that is not JSON.
type note struct {
	Type string `header:"Content-Type"`
	Body []byte
}

func (s *Server) readingMore(api huma.API, read func(path, summary string) huma.Operation, all func(context.Context) error) {
	d := &s.opts.Data
	if d.Try != nil {
		try := operation(http.MethodPost, "/api/v1/watches/try", monitor.ScopeRead, "Try a watch on the newest entries of every log; nothing is stored")
		huma.Register(api, try, func(ctx context.Context, in *struct {
			Body struct {
				Rule string `json:"rule" maxLength:"8000" doc:"a watch, as YAML"`
			}
		}) (*doc[[]Trial], error) {
			if err := all(ctx); err != nil {
				return nil, err
			}
			list, err := d.Try(ctx, in.Body.Rule)
			return &doc[[]Trial]{list}, s.failure(err)
		})
	}
	op := read("/coverage", "What was watched between two times, with the gaps")
	op.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{"application/json": {
		Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(d.CoverageDoc), true, "Coverage")}}}}
	huma.Register(api, op, func(ctx context.Context, in *struct {
		Since time.Time `query:"since" required:"true"`
		Until time.Time `query:"until" doc:"default: now"`
		Log   string    `query:"log" maxLength:"300"`
	}) (*doc[any], error) {
		if err := all(ctx); err != nil {
			return nil, err
		}
		if in.Until.IsZero() || in.Until.After(time.Now()) {
			in.Until = time.Now()
		}
		if !in.Since.Before(in.Until) {
			return nil, huma.NewError(http.StatusUnprocessableEntity, "the period is empty")
		}
		cov, err := d.Coverage(ctx, in.Since, in.Until, in.Log)
		return &doc[any]{cov}, s.failure(err)
	})
	rep := read("/report", "The report of a period")
	rep.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{"text/html": {}, "text/markdown": {}, "application/json": {}, "text/csv": {}}}}
	huma.Register(api, rep, func(ctx context.Context, in *struct {
		Since  time.Time `query:"since" required:"true"`
		Until  time.Time `query:"until" doc:"default: now"`
		Format string    `query:"format" enum:"html,markdown,json,csv" default:"json"`
	}) (*note, error) {
		if err := all(ctx); err != nil {
			return nil, err
		}
		if in.Until.IsZero() || in.Until.After(time.Now()) {
			in.Until = time.Now()
		}
		if !in.Since.Before(in.Until) {
			return nil, huma.NewError(http.StatusUnprocessableEntity, "the period is empty")
		}
		kind := map[string]string{"html": "text/html", "markdown": "text/markdown", "json": "application/json", "csv": "text/csv"}[in.Format]
		made, err := d.Report(ctx, in.Since, in.Until, in.Format)
		return &note{kind + "; charset=utf-8", made}, s.failure(err)
	})
	huma.Register(api, read("/ledger", "Rows of the ledger, as they are in its chain"), func(ctx context.Context, in *struct {
		From  uint64 `query:"from" maximum:"1000000000000" doc:"number of the first row; they begin with 0"`
		Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	}) (*doc[[]json.RawMessage], error) {
		if err := all(ctx); err != nil {
			return nil, err
		}
		rows, err := d.Ledger(ctx, in.From, in.Limit)
		return &doc[[]json.RawMessage]{rows}, s.failure(err)
	})
	huma.Register(api, read("/watches", "The watchlist, with hits"), func(ctx context.Context, _ *struct{}) (*doc[[]Watch], error) {
		list, err := d.Watches(ctx, true)
		// The list is everybody's: it is not changed.
		seen := []Watch{}
		for _, w := range list {
			if visitorOf(ctx).sees(w.Name) {
				seen = append(seen, w)
			}
		}
		return &doc[[]Watch]{seen}, s.failure(err)
	})
	huma.Register(api, read("/expectations", "Announcements that are open"), func(ctx context.Context, in *struct {
		Watch string `query:"watch"`
	}) (*doc[[]monitor.Announcement], error) {
		list, err := d.Announcements(ctx, in.Watch)
		list = slices.DeleteFunc(list, func(a monitor.Announcement) bool { return !visitorOf(ctx).sees(a.Watch) })
		return &doc[[]monitor.Announcement]{append([]monitor.Announcement{}, list...)}, s.failure(err)
	})
	huma.Register(api, read("/audit", "Rows of the audit trail"), func(ctx context.Context, in *struct {
		From    int64  `query:"from" minimum:"1" default:"1"`
		Subject string `query:"subject" maxLength:"100" doc:"id of a finding, an incident, an announcement or a token"`
		Limit   int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	}) (*doc[[]monitor.AuditRow], error) {
		if err := all(ctx); err != nil {
			return nil, err
		}
		rows, err := d.Audit(ctx, in.From, in.Subject, in.Limit)
		return &doc[[]monitor.AuditRow]{append([]monitor.AuditRow{}, rows...)}, s.failure(err)
	})
}
