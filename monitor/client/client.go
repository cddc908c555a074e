// Package client asks a running sigwarden over its HTTP API.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
)

// maxAnswer bounds what a server may answer: what was kept of an incident is the largest.
const maxAnswer = 256 << 20

// errEndless is returned for a list without an end; that of an honest server has one.
var errEndless = errors.New("the server answers with a list that leads in circles")

// Client asks one server. Its methods may be called by several goroutines at a time.
type Client struct {
	base, token string
	http        *http.Client
}

// Error is an answer that is a failure (RFC 9457).
type Error struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("the server answered %d %s", e.Status, e.Title)
	}
	return fmt.Sprintf("the server answered %d %s: %s", e.Status, e.Title, e.Detail)
}

// NotFound reports whether an error says that the server knows no such thing.
func NotFound(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound
}

// New returns a client of the server at an address like https://sigwarden.acme.example, with
// a token of `token create`; empty: the server has to be open. hc may be nil. It follows no
// redirect: the token is for one server.
func New(base, token string, hc *http.Client) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("%q is no address of a server like https://sigwarden.acme.example", base)
	}
	if hc == nil {
		hc = &http.Client{Timeout: time.Minute}
	}
	own := *hc
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{strings.TrimRight(base, "/"), token, &own}, nil
}

const (
	// A server that is asked too often, or is busy, says when to ask again. Then it is, if that
	// is after maxWait at most, until maxWaits have gone by.
	maxWait  = 30 * time.Second
	maxWaits = time.Minute
)

// do sends a request, and returns the answer. Where the server says that it did nothing, and
// when to try again, it does.
func (c *Client) do(ctx context.Context, method, path string, body any) ([]byte, http.Header, error) {
	var doc []byte
	if body != nil {
		var err error
		if doc, err = json.Marshal(body); err != nil {
			return nil, nil, err
		}
	}
	for end := time.Now().Add(maxWaits); ; {
		data, header, err := c.send(ctx, method, path, doc)
		var e *Error
		if !errors.As(err, &e) || e.Status != http.StatusTooManyRequests && (e.Status != http.StatusServiceUnavailable || method != http.MethodGet) {
			return data, header, err
		}
		now := time.Now()
		wait, ok := retryAfter(header.Get("Retry-After"), now)
		if !ok || wait > maxWait || now.Add(wait).After(end) {
			return nil, nil, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, errors.Join(err, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// retryAfter reads both forms of the header (RFC 9110, 10.2.3). A server that says now is asked
// a little later.
func retryAfter(text string, now time.Time) (wait time.Duration, ok bool) {
	const least = 100 * time.Millisecond
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return max(time.Duration(seconds)*time.Second, least), true
	}
	at, err := http.ParseTime(text)
	return max(at.Sub(now), least), err == nil
}

// send sends a request once. With an *Error there is the header of the answer.
func (c *Client) send(ctx context.Context, method, path string, body []byte) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	req.Header.Set("User-Agent", "sigwarden")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, nil, err
	}
	if len(data) > maxAnswer {
		return nil, nil, fmt.Errorf("%s answered with more than %d bytes", c.base, maxAnswer)
	}
	if resp.StatusCode/100 != 2 {
		e := &Error{Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode)}
		if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "application/problem+json" {
			if err := json.Unmarshal(data, e); err != nil {
				return nil, nil, fmt.Errorf("%s answered %s, and what cannot be read: %w", c.base, resp.Status, err)
			}
		}
		return nil, resp.Header, e
	}
	return data, resp.Header, nil
}

// get reads a document.
func get[T any](ctx context.Context, c *Client, path string) (out T, header http.Header, err error) {
	data, header, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return out, nil, err
	}
	if err := json.Unmarshal(data, &out); err != nil {
		return out, nil, fmt.Errorf("%s%s: what was answered cannot be read: %w", c.base, path, err)
	}
	return out, header, nil
}

// Status returns how every log and channel is.
func (c *Client) Status(ctx context.Context) (monitor.Status, error) {
	st, _, err := get[monitor.Status](ctx, c, "/api/v1/status")
	return st, err
}

func query(f monitor.Filter) url.Values {
	q := url.Values{}
	for k, v := range map[string]string{"watch": f.Watch, "log": f.Log, "verdict": f.Verdict, "state": f.State, "kind": f.Kind, "severity": f.Severity, "before": f.Before} {
		if v != "" {
			q.Set(k, v)
		}
	}
	for k, v := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !v.IsZero() {
			q.Set(k, v.UTC().Format(time.RFC3339Nano))
		}
	}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(min(f.Limit, monitor.MaxPage)))
	}
	return q
}

var nextLink = regexp.MustCompile(`<[^>]*[?&]before=([^&>]*)[^>]*>; *rel="next"`)

// page reads a part of a list.
func page[T any](ctx context.Context, c *Client, path string, f monitor.Filter) (monitor.Page[T], error) {
	items, header, err := get[[]T](ctx, c, path+"?"+query(f).Encode())
	out := monitor.Page[T]{Items: items}
	slices.Reverse(out.Items) // the newest first
	if m := nextLink.FindStringSubmatch(header.Get("Link")); err == nil && m != nil {
		out.Next, err = url.QueryUnescape(m[1])
	}
	return out, err
}

// Findings returns a page of findings, the newest first.
func (c *Client) Findings(ctx context.Context, f monitor.Filter) (monitor.Page[monitor.Finding], error) {
	return page[monitor.Finding](ctx, c, "/api/v1/findings", f)
}

// Incidents returns a page of incidents, the newest first.
func (c *Client) Incidents(ctx context.Context, f monitor.Filter) (monitor.Page[monitor.Incident], error) {
	return page[monitor.Incident](ctx, c, "/api/v1/incidents", f)
}

// All reads pages until there are no more, or as many as a filter is for, and returns what
// is on them, the oldest first.
func All[T any](ctx context.Context, f monitor.Filter, read func(context.Context, monitor.Filter) (monitor.Page[T], error)) ([]T, error) {
	out := []T{}
	want := f.Limit
	been := map[string]bool{f.Before: true}
	for {
		f.Limit = monitor.MaxPage
		if want > 0 {
			f.Limit = min(want-len(out), monitor.MaxPage)
		}
		p, err := read(ctx, f)
		if err != nil {
			return nil, err
		}
		out = append(out, p.Items...)
		if p.Next != "" && (len(p.Items) == 0 || been[p.Next]) {
			return nil, errEndless
		}
		been[p.Next] = true
		if p.Next == "" || want > 0 && len(out) >= want {
			slices.Reverse(out)
			return out, nil
		}
		f.Before = p.Next
	}
}

// Finding returns a finding with its entry and its proof.
func (c *Client) Finding(ctx context.Context, id string) (monitor.Finding, error) {
	type full struct {
		monitor.Finding
		Raw   []byte `json:"leaf"`
		Note  string `json:"checkpoint_note"`
		Proof []hash `json:"inclusion_proof"`
	}
	f, _, err := get[full](ctx, c, "/api/v1/findings/"+url.PathEscape(id))
	f.Finding.Leaf, f.Finding.SignedNote = f.Raw, f.Note
	for _, h := range f.Proof {
		f.Finding.Proof = append(f.Finding.Proof, h.Hash)
	}
	return f.Finding, err
}

// Incident returns an incident with what was kept of it.
func (c *Client) Incident(ctx context.Context, id string) (monitor.Incident, error) {
	type full struct {
		monitor.Incident
		Kept []struct {
			Name string `json:"name"`
			Data []byte `json:"data"`
		} `json:"kept"`
	}
	i, _, err := get[full](ctx, c, "/api/v1/incidents/"+url.PathEscape(id))
	for _, k := range i.Kept {
		i.Incident.Evidence = append(i.Incident.Evidence, monitor.Evidence{Name: k.Name, Data: k.Data})
	}
	return i.Incident, err
}

// Triage decides about a finding or an incident. Who does is whoever the token belongs to:
// By and At of the change are the server's.
func (c *Client) Triage(ctx context.Context, id string, change monitor.Change) error {
	d := map[string]string{"action": change.Action(), "note": change.Note}
	if change.Resolution != "" {
		d["as"] = change.Resolution
	}
	_, _, err := c.do(ctx, http.MethodPost, "/api/v1/"+listOf(id)+"/"+url.PathEscape(id)+"/triage", d)
	return err
}

// Evidence returns the file for others, of a finding or an incident.
func (c *Client) Evidence(ctx context.Context, id string) ([]byte, error) {
	data, _, err := c.do(ctx, http.MethodGet, "/api/v1/"+listOf(id)+"/"+url.PathEscape(id)+"/evidence", nil)
	return data, err
}

// Expect announces an artifact that is about to be signed.
func (c *Client) Expect(ctx context.Context, watch, digest string, ttl time.Duration, note string) (a monitor.Announcement, err error) {
	data, _, err := c.do(ctx, http.MethodPost, "/api/v1/expectations", map[string]string{"watch": watch, "digest": digest, "ttl": ttl.String(), "note": note})
	if err == nil {
		err = json.Unmarshal(data, &a)
	}
	return a, err
}

// Announcements returns those that are open, of a watch or, if it is empty, of all.
func (c *Client) Announcements(ctx context.Context, watch string) ([]monitor.Announcement, error) {
	list, _, err := get[[]monitor.Announcement](ctx, c, "/api/v1/expectations?"+url.Values{"watch": {watch}}.Encode())
	return list, err
}

// Withdraw takes an announcement back.
func (c *Client) Withdraw(ctx context.Context, id, note string) error {
	_, _, err := c.do(ctx, http.MethodDelete, "/api/v1/expectations/"+url.PathEscape(id)+"?"+url.Values{"note": {note}}.Encode(), nil)
	return err
}

// Coverage returns what was watched in a period, of a log or, if it is empty, of all: the
// document of `sigwarden coverage --json`.
func (c *Client) Coverage(ctx context.Context, since, until time.Time, log string) (json.RawMessage, error) {
	q := url.Values{"since": {since.UTC().Format(time.RFC3339Nano)}, "until": {until.UTC().Format(time.RFC3339Nano)}, "log": {log}}
	doc, _, err := get[json.RawMessage](ctx, c, "/api/v1/coverage?"+q.Encode())
	return doc, err
}

// EachAudit calls a function with each row of the audit trail, of a subject or, if it is
// empty, of all.
func (c *Client) EachAudit(ctx context.Context, subject string, do func(monitor.AuditRow) error) error {
	const most = 1000
	for from := int64(1); ; {
		q := url.Values{"from": {strconv.FormatInt(from, 10)}, "limit": {strconv.Itoa(most)}, "subject": {subject}}
		rows, _, err := get[[]monitor.AuditRow](ctx, c, "/api/v1/audit?"+q.Encode())
		if err != nil {
			return err
		}
		for _, r := range rows {
			if r.N < from {
				return errEndless
			}
			if err := do(r); err != nil {
				return err
			}
			from = r.N + 1
		}
		if len(rows) < most {
			return nil
		}
	}
}

// Watches returns the watchlist, with hits.
func (c *Client) Watches(ctx context.Context) (json.RawMessage, error) {
	doc, _, err := get[json.RawMessage](ctx, c, "/api/v1/watches")
	return doc, err
}

func listOf(id string) string {
	if strings.HasPrefix(id, "i-") {
		return "incidents"
	}
	return "findings"
}
