package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sigwarden/sigwarden/monitor"
)

// The API is made of operations, each with the scope that it wants. The OpenAPI document is
// made from their types.

// scopeKey is where an operation has its scope.
const scopeKey = "x-sigwarden-scope"

func (s *Server) rest(mux *http.ServeMux) {
	config := huma.DefaultConfig("sigwarden", s.opts.Version)
	config.Info.Description = "What sigwarden has seen and found, and what people decide about it. Errors are those of RFC 9457."
	config.OpenAPIPath, config.DocsPath, config.SchemasPath, config.CreateHooks = "/api/v1/openapi", "", "", nil
	config.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer", Description: "made by `sigwarden token create`"}}
	api := humago.New(mux, config)
	api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) {
		scope, _ := ctx.Operation().Metadata[scopeKey].(string)
		r, w := humago.Unwrap(ctx)
		v, err := s.admit(r, scope)
		if err != nil {
			refuse(w, err)
			return
		}
		next(huma.WithValue(ctx, known{}, v))
	})
	s.reading(api)
	s.deciding(api)
	s.describeExpectations(api)
}

// schemaName names the schema of a type: by its package too, where that is none of those that
// this API is made of, since two have types of one name.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if of := path.Base(t.PkgPath()); t.Name() != "" && of != "." && of != "monitor" && of != "web" {
		name = strings.ToUpper(of[:1]) + of[1:] + name
	}
	return name
}

// operation describes one.
func operation(method, path, scope, summary string) huma.Operation {
	id := strings.ToLower(method) + strings.NewReplacer("/api/v1", "", "/", "-", "{", "", "}", "").Replace(path)
	return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Metadata: map[string]any{scopeKey: scope}, Security: []map[string][]string{{"token": {scope}}}, Errors: []int{401, 403, 404, 422, 429, 503}}
}

// failure makes an error of the API of one of Data.
func (s *Server) failure(err error) error {
	var no *refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &no):
		return huma.NewError(no.status, no.detail)
	case errors.Is(err, ErrNoPage):
		return huma.NewError(http.StatusNotFound, "there is none by that name")
	case errors.Is(err, ErrInvalid):
		return huma.NewError(http.StatusUnprocessableEntity, strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": "))
	case errors.Is(err, ErrBusy):
		return huma.ErrorWithHeaders(huma.NewError(http.StatusServiceUnavailable, err.Error()), http.Header{"Retry-After": {"5"}})
	case errors.Is(err, context.DeadlineExceeded):
		return huma.NewError(http.StatusServiceUnavailable, "it took too long; ask for less, or ask the state file itself")
	}
	s.opts.Log.Error("the store cannot be read", "error", err)
	return huma.NewError(http.StatusServiceUnavailable, "the store cannot be read; the log of the server says why")
}

// Selection is what lists are narrowed down by.
type Selection struct {
	Log      string    `query:"log" doc:"name of a log"`
	State    string    `query:"state" enum:"open,acknowledged,resolved,closed,pending"`
	Severity string    `query:"severity" enum:"info,low,medium,high,critical"`
	Since    time.Time `query:"since" doc:"first moment, RFC 3339"`
	Until    time.Time `query:"until" doc:"the moment behind the last one, RFC 3339"`
	Limit    int       `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"how many of the newest"`
	Before   string    `query:"before" maxLength:"2000" doc:"where a page ended: what the link with rel=next has"`
}

func (x *Selection) filter() monitor.Filter {
	return monitor.Filter{Log: x.Log, State: x.State, Severity: x.Severity, Since: x.Since, Until: x.Until, Limit: x.Limit, Before: x.Before}
}

// listed is a page, the oldest first as the commands print it, with a link to the one before.
type listed[T any] struct {
	Link string `header:"Link" doc:"with rel=next: the page of what is older"`
	Body []T
}

func list[T any](path string, query url.Values, page monitor.Page[T]) *listed[T] {
	slices.Reverse(page.Items)
	out := &listed[T]{Body: page.Items}
	if page.Next != "" {
		query.Set("before", page.Next)
		out.Link = "<" + path + "?" + query.Encode() + `>; rel="next"`
	}
	return out
}

// query prints a selection as it was asked for.
func (x *Selection) query() url.Values {
	q := url.Values{}
	for k, v := range map[string]string{"log": x.Log, "state": x.State, "severity": x.Severity} {
		if v != "" {
			q.Set(k, v)
		}
	}
	for k, v := range map[string]time.Time{"since": x.Since, "until": x.Until} {
		if !v.IsZero() {
			q.Set(k, v.UTC().Format(time.RFC3339Nano))
		}
	}
	q.Set("limit", strconv.Itoa(x.Limit))
	return q
}

type doc[T any] struct{ Body T }

type byID struct {
	ID string `path:"id" maxLength:"100"`
}

// fullFinding is a finding with what proves it.
type fullFinding struct {
	monitor.Finding
	Raw        []byte   `json:"leaf" doc:"the entry, base64"`
	Path       []string `json:"inclusion_proof" doc:"audit path, hex, leaf side first"`
	Note       string   `json:"checkpoint_note"`
	RuleHashed string   `json:"-"`
}

// fullIncident is an incident with what was kept of it.
type fullIncident struct {
	monitor.Incident
	Kept []kept `json:"kept"`
}

type kept struct {
	Name string `json:"name"`
	Data []byte `json:"data" doc:"base64"`
}

func (s *Server) reading(api huma.API) {
	d := &s.opts.Data
	read := func(path, summary string) huma.Operation {
		return operation(http.MethodGet, "/api/v1"+path, monitor.ScopeRead, summary)
	}
	// What is about no single watch is not for those who may see some of them only.
	all := func(ctx context.Context) error {
		if visitorOf(ctx).watches != nil {
			return huma.NewError(http.StatusForbidden, "the token is for some watches only")
		}
		return nil
	}
	huma.Register(api, read("/status", "How every log and channel is"), func(ctx context.Context, _ *struct{}) (*doc[monitor.Status], error) {
		if err := all(ctx); err != nil {
			return nil, err
		}
		st, err := s.opts.Status(ctx)
		return &doc[monitor.Status]{st}, s.failure(err)
	})
	huma.Register(api, read("/logs", "How every log is"), func(ctx context.Context, _ *struct{}) (*doc[[]monitor.LogStatus], error) {
		if err := all(ctx); err != nil {
			return nil, err
		}
		st, err := s.opts.Status(ctx)
		return &doc[[]monitor.LogStatus]{st.Logs}, s.failure(err)
	})
	huma.Register(api, read("/channels", "How every channel is"), func(ctx context.Context, _ *struct{}) (*doc[[]monitor.ChannelStatus], error) {
		if err := all(ctx); err != nil {
			return nil, err
		}
		st, err := s.opts.Status(ctx)
		return &doc[[]monitor.ChannelStatus]{st.Channels}, s.failure(err)
	})
	huma.Register(api, read("/deliveries", "Deliveries that were tried in vain: given up, or to be tried again"), func(ctx context.Context, _ *struct{}) (*doc[[]monitor.Trouble], error) {
		if err := all(ctx); err != nil {
			return nil, err
		}
		list, err := s.opts.Data.Troubles(ctx)
		return &doc[[]monitor.Trouble]{list}, s.failure(err)
	})
	if s.opts.Data.Witness != nil {
		huma.Register(api, read("/witness", "What the witness co-signs"), func(ctx context.Context, _ *struct{}) (*doc[*Witness], error) {
			if err := all(ctx); err != nil {
				return nil, err
			}
			w, err := s.opts.Data.Witness(ctx)
			return &doc[*Witness]{w}, s.failure(err)
		})
	}
	huma.Register(api, read("/findings", "Findings, the oldest first; pages begin with the newest"), func(ctx context.Context, in *struct {
		Selection
		Watch   string `query:"watch" doc:"name of a watch"`
		Verdict string `query:"verdict" enum:"malformed,unexpected,untrusted,expected"`
	}) (*listed[monitor.Finding], error) {
		if v := visitorOf(ctx); v.watches != nil && (in.Watch == "" || !v.sees(in.Watch)) {
			return nil, huma.NewError(http.StatusForbidden, fmt.Sprintf("the token is for some watches only: ask for one of %q", v.watches))
		}
		f := in.filter()
		f.Watch, f.Verdict = in.Watch, in.Verdict
		page, err := d.Findings(ctx, f)
		if err != nil {
			return nil, s.failure(err)
		}
		q := in.query()
		for k, v := range map[string]string{"watch": in.Watch, "verdict": in.Verdict} {
			if v != "" {
				q.Set(k, v)
			}
		}
		return list("/api/v1/findings", q, page), nil
	})
	huma.Register(api, read("/findings/{id}", "A finding with its entry and its proof"), func(ctx context.Context, in *byID) (*doc[fullFinding], error) {
		f, err := s.finding(ctx, in.ID)
		if err != nil {
			return nil, s.failure(err)
		}
		out := fullFinding{Finding: f, Raw: f.Leaf, Note: f.SignedNote, Path: []string{}}
		for _, h := range f.Proof {
			out.Path = append(out.Path, fmt.Sprintf("%x", h[:]))
		}
		return &doc[fullFinding]{out}, nil
	})
	huma.Register(api, read("/incidents", "Incidents, the oldest first; pages begin with the newest"), func(ctx context.Context, in *struct {
		Selection
		Kind string `query:"kind" maxLength:"100"`
	}) (*listed[monitor.Incident], error) {
		if err := all(ctx); err != nil {
			return nil, err
		}
		f := in.filter()
		f.Kind = in.Kind
		page, err := d.Incidents(ctx, f)
		if err != nil {
			return nil, s.failure(err)
		}
		q := in.query()
		if in.Kind != "" {
			q.Set("kind", in.Kind)
		}
		return list("/api/v1/incidents", q, page), nil
	})
	huma.Register(api, read("/incidents/{id}", "An incident with what was kept of it"), func(ctx context.Context, in *byID) (*doc[fullIncident], error) {
		if err := all(ctx); err != nil {
			return nil, err
		}
		i, err := d.Incident(ctx, in.ID)
		if err != nil {
			return nil, s.failure(err)
		}
		out := fullIncident{Incident: i, Kept: []kept{}}
		for _, e := range i.Evidence {
			out.Kept = append(out.Kept, kept{e.Name, e.Data})
		}
		return &doc[fullIncident]{out}, nil
	})
	type file struct {
		Type        string `header:"Content-Type"`
		Disposition string `header:"Content-Disposition"`
		Body        []byte
	}
	evidence := func(ctx context.Context, in *byID) (*file, error) {
		data, err := s.evidence(ctx, in.ID)
		return &file{"application/zip", disposition(in.ID), data}, s.failure(err)
	}
	for _, what := range []string{"findings", "incidents"} {
		op := read("/"+what+"/{id}/evidence", "A file that others can check (sigwarden-evidence/v1)")
		op.Responses = map[string]*huma.Response{"200": {Description: "a zip", Content: map[string]*huma.MediaType{"application/zip": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}}
		huma.Register(api, op, evidence)
	}
	op := read("/logs/{name}/checkpoint", "The newest verified checkpoint of a log, as it was signed")
	op.Responses = map[string]*huma.Response{"200": {Description: "a signed note", Content: map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: "string"}}}}}
	huma.Register(api, op, func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"300"`
	}) (*note, error) {
		if err := all(ctx); err != nil {
			return nil, err
		}
		raw, err := d.Checkpoint(ctx, in.Name)
		return &note{"text/plain; charset=utf-8", raw}, s.failure(err)
	})
	s.readingMore(api, read, all)
}

// finding reads one that a visitor may see.
func (s *Server) finding(ctx context.Context, id string) (monitor.Finding, error) {
	f, err := s.opts.Data.Finding(ctx, id)
	if err == nil && !visitorOf(ctx).sees(f.Watch) {
		return monitor.Finding{}, ErrNoPage
	}
	return f, err
}

// evidence makes the file of what a visitor may see.
func (s *Server) evidence(ctx context.Context, id string) ([]byte, error) {
	if v := visitorOf(ctx); v.watches != nil {
		if strings.HasPrefix(id, "i-") {
			return nil, ErrNoPage
		}
		if _, err := s.finding(ctx, id); err != nil {
			return nil, err
		}
	}
	return s.opts.Data.Evidence(ctx, id)
}

// disposition names a file.
func disposition(id string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, id)
	return `attachment; filename="` + clean + `.zip"`
}

// decision is what somebody decides about a finding or an incident.
type decision struct {
	Action string `json:"action" enum:"ack,resolve,reopen"`
	As     string `json:"as,omitempty" enum:"false-positive,expected,incident" doc:"with resolve: what it was"`
	Note   string `json:"note" minLength:"1" maxLength:"4000" doc:"what was found out"`
}

func (s *Server) deciding(api huma.API) {
	for _, what := range []string{"findings", "incidents"} {
		op := operation(http.MethodPost, "/api/v1/"+what+"/{id}/triage", monitor.ScopeTriage, "Acknowledge, resolve or reopen")
		op.MaxBodyBytes = maxBody
		op.DefaultStatus = http.StatusNoContent
		huma.Register(api, op, func(ctx context.Context, in *struct {
			ID   string `path:"id" maxLength:"100"`
			Body decision
		}) (*struct{}, error) {
			return nil, s.failure(s.decide(ctx, what, in.ID, in.Body))
		})
	}
	op := operation(http.MethodDelete, "/api/v1/expectations/{id}", monitor.ScopeExpect, "Withdraw an announcement")
	op.DefaultStatus = http.StatusNoContent
	huma.Register(api, op, func(ctx context.Context, in *struct {
		ID   string `path:"id" maxLength:"100"`
		Note string `query:"note" maxLength:"1000"`
	}) (*struct{}, error) {
		v := visitorOf(ctx)
		if v.watches != nil {
			open, err := s.opts.Data.Announcements(ctx, "")
			if err != nil {
				return nil, s.failure(err)
			}
			if !slices.ContainsFunc(open, func(a monitor.Announcement) bool { return a.ID == in.ID && v.sees(a.Watch) }) {
				return nil, s.failure(ErrNoPage)
			}
		}
		return nil, s.failure(s.opts.Data.Withdraw(ctx, in.ID, v.name, in.Note))
	})
}

// decide changes what is stored, in the name of the visitor.
func (s *Server) decide(ctx context.Context, what, id string, d decision) error {
	v := visitorOf(ctx)
	if strings.HasPrefix(id, "i-") != (what == "incidents") {
		return ErrNoPage
	}
	if what == "findings" {
		if _, err := s.finding(ctx, id); err != nil {
			return err
		}
	} else if v.watches != nil {
		return ErrNoPage
	}
	change := monitor.Change{Note: strings.TrimSpace(d.Note), By: v.name, At: time.Now().UTC()}
	switch d.Action {
	case "ack":
		change.To = monitor.StateAcknowledged
	case "reopen":
		change.To = monitor.StateOpen
	case "resolve":
		change.To, change.Resolution = monitor.StateResolved, d.As
	default:
		return fmt.Errorf("%w: action is ack, resolve or reopen", ErrInvalid)
	}
	if change.Note == "" {
		return fmt.Errorf("%w: a note is needed: what was found out?", ErrInvalid)
	}
	if err := s.opts.Data.Triage(ctx, id, change); err != nil {
		return err
	}
	s.opts.Log.Info("somebody has decided", "about", id, "action", d.Action, "by", v.name)
	s.news.ring()
	return nil
}

// describeExpectations describes what is served without the library: it reads bodies more
// strictly.
func (s *Server) describeExpectations(api huma.API) {
	schemas := api.OpenAPI().Components.Schemas
	op := operation(http.MethodPost, "/api/v1/expectations", monitor.ScopeExpect, "Announce an artifact that is about to be signed")
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(reflect.TypeFor[expectation](), true, "Expectation")}}}
	op.Responses = map[string]*huma.Response{"201": {Description: "announced", Content: map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(reflect.TypeFor[monitor.Announcement](), true, "Announcement")}}}}
	op.Responses["default"] = problemResponse(api)
	api.OpenAPI().AddOperation(&op)
	if s.opts.Hear == nil {
		return
	}
	hear := operation(http.MethodPost, "/api/v1/checkpoints", monitor.ScopeRead, "Compare a checkpoint that somebody has seen with what is seen here; nobody needs a token")
	hear.Security = []map[string][]string{} // it is for everybody
	hear.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: "string", Description: "a signed note"}}}}
	hear.Responses = map[string]*huma.Response{"200": {Description: "how they compare", Content: map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(reflect.TypeFor[monitor.Comparison](), true, "Comparison")}}}, "default": problemResponse(api)}
	api.OpenAPI().AddOperation(&hear)
}

// problemResponse is how errors are answered (RFC 9457).
func problemResponse(api huma.API) *huma.Response {
	return &huma.Response{Description: "Error", Content: map[string]*huma.MediaType{"application/problem+json": {Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[huma.ErrorModel](), true, "Error")}}}
}
