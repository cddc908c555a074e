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

// maxAnswer bounds what a server may answer: evidence is the largest.
const maxAnswer = 256 << 20

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

// do sends a request, and returns the answer.
func (c *Client) do(ctx context.Context, method, path string, body any) ([]byte, http.Header, error) {
	var in io.Reader
	if body != nil {
		doc, err := json.Marshal(body)
		if err != nil {
			return nil, nil, err
		}
		in = bytes.NewReader(doc)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, in)
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
		return nil, nil, e
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
		if p.Next == "" || p.Next == f.Before || want > 0 && len(out) >= want {
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

func listOf(id string) string {
	if strings.HasPrefix(id, "i-") {
		return "incidents"
	}
	return "findings"
}
