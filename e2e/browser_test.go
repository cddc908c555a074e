package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser starts a headless Chromium that reaches nothing but this machine.
func browser(t *testing.T) context.Context { return browserFor(t, 2*time.Minute) }

func browserFor(t *testing.T, most time.Duration) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(needed(t, "chromium")), chromedp.NoSandbox, chromedp.Flag("proxy-server", "127.0.0.1:9"), chromedp.UserDataDir(t.TempDir()))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, most)
	t.Cleanup(cancel)
	return ctx
}

// TestReportInBrowser: a report of 10,000 findings opens without an error or a request
// to anywhere, its numbers are those of the JSON document, and it prints.
func TestReportInBrowser(t *testing.T) {
	ctx := browser(t)
	dir := t.TempDir()
	c := exec.Command("go", "-C", "..", "test", "-count=1", "-run", "^TestFormats$", "./monitor/report")
	c.Env = append(os.Environ(), "SIGWARDEN_REPORT_DIR="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var mu sync.Mutex
	var complaints, requests []string
	listen := func(e any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := e.(type) {
		case *log.EventEntryAdded:
			complaints = append(complaints, e.Entry.Text)
		case *runtime.EventExceptionThrown:
			complaints = append(complaints, e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			complaints = append(complaints, fmt.Sprint(e.Type))
		case *network.EventRequestWillBeSent:
			requests = append(requests, e.Request.URL)
		}
	}
	page := "file://" + filepath.Join(dir, "report.html")
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil { // starts it
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, listen); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1440, 900), chromedp.Navigate(page)); err != nil {
		t.Fatal(err)
	}
	evaluate[float64](t, ctx, `document.body.getBoundingClientRect().width`)
	t.Logf("10,000 findings opened and laid out in %s", time.Since(began).Round(time.Millisecond))
	type number struct{ Place, Text string }
	shown := evaluate[[]number](t, ctx, `[...document.querySelectorAll("[data-n]")].map(e => ({Place: e.dataset.n, Text: e.dataset.v || e.textContent}))`)
	rows := evaluate[int](t, ctx, `document.querySelectorAll(".many tbody tr").length`)
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(320, 800)); err != nil {
		t.Fatal(err)
	}
	wide := evaluate[int](t, ctx, `document.documentElement.scrollWidth`)
	if rows != 10000 || wide > 320 {
		t.Errorf("%d findings are on the page; at 320 px it is %d px wide", rows, wide)
	}
	doc, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var root any
	if err := json.Unmarshal(doc, &root); err != nil {
		t.Fatal(err)
	}
	if len(shown) < 10000 {
		t.Errorf("%d numbers on the page", len(shown))
	}
	for _, n := range shown {
		want, _ := at(root, n.Place).(float64)
		if got, err := strconv.ParseFloat(n.Text, 64); err != nil || got != want {
			t.Errorf("%s is %q on the page, and %v in the document", n.Place, n.Text, want)
		}
	}
	mu.Lock()
	if len(requests) == 0 {
		t.Error("nothing was heard of the requests of the page")
	}
	for _, r := range requests {
		if !strings.HasPrefix(r, "file://") && !strings.HasPrefix(r, "data:") {
			t.Errorf("the page asks for %s", r)
		}
	}
	if len(complaints) > 0 {
		t.Errorf("the browser says: %s", strings.Join(complaints, "; "))
	}
	mu.Unlock()
	made := filepath.Join(dir, "small.pdf")
	if _, code := sigwarden(t, monitored(t, t.TempDir(), ""), "report", "--since", "1d", "--pdf", made); code != 0 {
		t.Errorf("--pdf: status %d", code)
	}
	if pdf, err := os.ReadFile(made); err != nil || !strings.HasPrefix(string(pdf), "%PDF-") {
		t.Errorf("no PDF: %v", err)
	}
}

// evaluate asks the page for a value.
func evaluate[T any](t *testing.T, ctx context.Context, expression string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// at looks a place like a.b.0.c up in a JSON document.
func at(doc any, place string) any {
	for step := range strings.SplitSeq(place, ".") {
		switch node := doc.(type) {
		case map[string]any:
			doc = node[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(node) {
				return nil
			}
			doc = node[i]
		}
	}
	return doc
}
