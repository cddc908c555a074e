package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// served runs `sigwarden demo --serve`, and returns its address and its folder.
func served(t *testing.T) (address, dir string) {
	t.Helper()
	address, dir, _ = servedUntil(t)
	return address, dir
}

// servedUntil is served, until it is stopped.
func servedUntil(t *testing.T) (address, dir string, stop func()) {
	t.Helper()
	c := exec.Command(program(t, "sigwarden", "sigwarden"), "demo", "--serve", "--listen", "127.0.0.1:0")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		c.Process.Signal(os.Interrupt)
		c.Wait()
	})
	t.Cleanup(stop)
	found := make(chan []string, 1)
	go func() {
		var text strings.Builder
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			text.WriteString(lines.Text() + "\n")
			if m := regexp.MustCompile(`(?s)Serving: (http://[0-9.:]+)/.*are in (\S+)/alerts\.jsonl`).FindStringSubmatch(text.String()); m != nil {
				found <- m
				io.Copy(io.Discard, out)
				return
			}
		}
	}()
	select {
	case m := <-found:
		return m[1], m[2], stop
	case <-time.After(time.Minute):
		t.Fatal("the demonstration does not serve")
	}
	return "", "", nil
}

// complaints gathers what the browser has to say of a page.
func complaints(t *testing.T, ctx context.Context) func() []string {
	t.Helper()
	var mu sync.Mutex
	var list []string
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, func(e any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := e.(type) {
		case *log.EventEntryAdded:
			list = append(list, e.Entry.Text+" "+e.Entry.URL)
		case *runtime.EventExceptionThrown:
			list = append(list, e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			list = append(list, fmt.Sprint(e.Type))
		}
	}); err != nil {
		t.Fatal(err)
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), list...)
	}
}

// TestPageInBrowser does what a person does: sees a finding appear, reads its proof,
// acknowledges it, downloads the evidence, and checks it with the command line.
func TestPageInBrowser(t *testing.T) {
	address, dir := served(t)
	ctx := browser(t)
	said := complaints(t, ctx)
	do := doing(t, ctx)
	do(chromedp.EmulateViewport(1280, 900), chromedp.Navigate(address+"/findings"), chromedp.WaitVisible("#main > h1"))
	// A new one appears by itself, and stands out.
	waitFor(t, ctx, `!!document.querySelector("tr.fresh a")`)
	if said := evaluate[string](t, ctx, `document.getElementById("live").textContent`); !strings.Contains(said, "new") {
		t.Errorf("those who do not see the page are told %q", said)
	}
	evaluate[any](t, ctx, `document.querySelector("td.v-unexpected").parentNode.querySelector("a").click()`)
	waitFor(t, ctx, `location.pathname.startsWith("/findings/f-") && !!document.getElementById("proof")`)
	id := evaluate[string](t, ctx, `location.pathname.split("/")[2]`)
	text := evaluate[string](t, ctx, `document.getElementById("main").innerText`)
	for _, want := range []string{"unexpected", "Subject", "https://github.com/acme/", "issued by an authority that is trusted", "The log signed a tree of", "leaf hash", "runner-environment"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page of a finding does not say %q:\n%s", want, text)
		}
	}
	evaluate[any](t, ctx, `for (const d of document.querySelectorAll("details")) d.open = true`)
	if raw := evaluate[string](t, ctx, `[...document.querySelectorAll("pre")].map(e => e.innerText).join("\n")`); !strings.Contains(raw, "hashedrekord") || !strings.Contains(raw, "rekor.acme.example") || !regexp.MustCompile(`(?m)^[0-9a-f]{64}$`).MatchString(raw) {
		t.Errorf("no raw entry, checkpoint or proof:\n%s", raw)
	}
	// Without a word of why, nothing is decided.
	do(chromedp.Click(`button[value=ack]`))
	if state := evaluate[string](t, ctx, `document.querySelector("dl dd").innerText`); state != "open" {
		t.Errorf("acknowledged without a note: %s", state)
	}
	do(chromedp.SendKeys("#note", "looked at <b>it</b>"), chromedp.Click(`button[value=ack]`))
	waitFor(t, ctx, `document.querySelector("dl dd")?.innerText.startsWith("acknowledged, by")`)
	if note := evaluate[string](t, ctx, `document.getElementById("main").innerText`); !strings.Contains(note, "looked at <b>it</b>") {
		t.Errorf("the note is not there as it was written:\n%s", note)
	}
	// The evidence, as the link serves it.
	link := evaluate[string](t, ctx, `document.querySelector("a[href$='/evidence']").href`)
	resp, err := http.Get(link)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	file := filepath.Join(t.TempDir(), id+".zip")
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(resp.Header.Get("Content-Disposition"), id+".zip") {
		t.Fatalf("%s: %d %v, %v", link, resp.StatusCode, resp.Header, err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := sigwarden(t, "", "evidence", "verify", file, "--log-key", filepath.Join(dir, "log.pem")); code != 0 || !strings.Contains(out, "that tree contains the leaf") {
		t.Errorf("%d\n%s", code, out)
	}
	if out, holds := independently(t, file, filepath.Join(dir, "log.pem")); !holds {
		t.Errorf("the script says\n%s", out)
	}
	if list := said(); len(list) > 0 {
		t.Errorf("the browser says: %s", strings.Join(list, "; "))
	}
}

// daemon runs one with more in its configuration than a log, and returns where it serves.
func daemon(t *testing.T, more string) string {
	t.Helper()
	r := newReader(t)
	r.run("sigwarden witness keygen --name witness.acme.example/w1 -o w.key")
	if !strings.Contains(more, "http:") {
		more += "http: {listen: \"127.0.0.1:0\"}\n"
	}
	for _, free := range []string{"a", "b"} {
		more = strings.Replace(more, "127.0.0.1:0", r.here("127.0.0.1:10"+map[string]string{"a": "1", "b": "2"}[free]), 1)
	}
	r.write("sigwarden.yaml", more+r.log)
	address := "http://" + regexp.MustCompile(`http: \{listen: "([^"]+)"`).FindStringSubmatch(more)[1]
	c := exec.Command(program(t, "sigwarden", "sigwarden"), "run")
	var out strings.Builder
	c.Dir, c.Stdout, c.Stderr = r.dir, &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Signal(os.Interrupt)
		if err := c.Wait(); err != nil {
			t.Errorf("%v\n%s", err, &out)
		}
	})
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if resp, err := http.Get(address + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return address
			}
		}
	}
	t.Fatal("it does not get ready")
	return ""
}

// TestReadingOn: while new things come, whoever reads keeps what is open, where the focus is, and
// what was written; updates can be paused, and one that is not live any more says so.
func TestReadingOn(t *testing.T) {
	address, _, stop := servedUntil(t)
	ctx := browser(t)
	said := complaints(t, ctx)
	do := doing(t, ctx)
	do(chromedp.Navigate(address+"/findings"), chromedp.WaitVisible("#main > h1"))
	// The focus stays on a link of a row although rows are put before it.
	link := evaluate[string](t, ctx, `{ const a = document.querySelector("tbody tr:last-child a"); a.focus(); a.getAttribute("href") }`)
	waitFor(t, ctx, `!!document.querySelector("tr.fresh a")`)
	if at := evaluate[string](t, ctx, `document.activeElement.getAttribute("href") || document.activeElement.tagName`); at != link {
		t.Errorf("the focus was on %s, and is on %s", link, at)
	}
	// What is open stays open, on a page that changes.
	do(chromedp.Navigate(address+"/watchlist"), chromedp.WaitVisible("#main > h1"))
	evaluate[any](t, ctx, `document.querySelector("details").open = true`)
	table := evaluate[string](t, ctx, `document.querySelector("table").innerText`)
	waitFor(t, ctx, fmt.Sprintf(`document.querySelector("table").innerText !== %q`, table))
	if !evaluate[bool](t, ctx, `document.querySelector("details").open`) {
		t.Error("what was open is closed")
	}
	do(chromedp.Navigate(address+"/"), chromedp.WaitVisible("#main > h1"))
	// Paused, nothing moves.
	do(chromedp.Click("#pause"))
	was := evaluate[string](t, ctx, `document.getElementById("main").innerText`)
	time.Sleep(9 * time.Second) // the log of the demonstration grows each five
	if is := evaluate[string](t, ctx, `document.getElementById("main").innerText`); is != was {
		t.Error("paused, the page changes all the same")
	}
	do(chromedp.Click("#pause"))
	waitFor(t, ctx, fmt.Sprintf(`document.getElementById("main").innerText !== %q`, was))
	// Whoever writes is not disturbed.
	do(chromedp.Navigate(address+"/watchlist"), chromedp.WaitVisible("#rule"), chromedp.SendKeys("#rule", "# mine"))
	time.Sleep(7 * time.Second)
	if text := evaluate[string](t, ctx, `document.getElementById("rule").value`); !strings.Contains(text, "# mine") {
		t.Errorf("what was written is gone: %q", text)
	}
	// What was found for a rule stays, and is not said to be out of date.
	do(chromedp.Navigate(address+"/watchlist"), chromedp.WaitVisible("#rule"), chromedp.Click("form[action='/watchlist/try'] button"))
	waitFor(t, ctx, `document.body.innerText.includes("of the newest")`)
	time.Sleep(7 * time.Second)
	if text := evaluate[string](t, ctx, `document.getElementById("live").textContent + document.getElementById("pause").hidden`); text != "true" {
		t.Errorf("an answer of a moment ago says %q", text)
	}
	// Paused, not even what was on its way is shown.
	do(chromedp.Navigate(address+"/"), chromedp.WaitVisible("#main > h1"))
	evaluate[any](t, ctx, `{ const real = window.fetch; window.fetch = async (...a) => { window.asked = true; await new Promise((r) => setTimeout(r, 2000)); return real(...a); }; undefined }`)
	waitFor(t, ctx, `window.asked`)
	do(chromedp.Click("#pause"))
	was = evaluate[string](t, ctx, `document.getElementById("main").innerText`)
	time.Sleep(4 * time.Second)
	if is := evaluate[string](t, ctx, `document.getElementById("main").innerText`); is != was {
		t.Error("paused, the page shows what was on its way")
	}
	do(chromedp.Click("#pause"))
	if list := said(); len(list) > 0 {
		t.Errorf("the browser says: %s", strings.Join(list, "; "))
	}
	stop()
	waitFor(t, ctx, `document.getElementById("live").textContent.startsWith("Not live")`)
}

// TestWithoutScript: all that a person does can be done with script switched off, and with the
// keyboard alone.
func TestWithoutScript(t *testing.T) {
	address, _ := served(t)
	ctx := browser(t)
	do := doing(t, ctx)
	do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}), chromedp.Navigate(address+"/findings?state=open"), chromedp.WaitVisible("#main > h1"))
	page := func() (where, text string) {
		t.Helper()
		return evaluate[string](t, ctx, "location.pathname"), evaluate[string](t, ctx, "document.body.innerText")
	}
	// Tab until a link to a finding has the focus, and go there.
	tab := func(to string) {
		t.Helper()
		for range 60 {
			do(chromedp.KeyEvent("\t"))
			if evaluate[bool](t, ctx, "!!document.activeElement?.matches("+to+")") {
				return
			}
		}
		_, text := page()
		t.Fatalf("the keyboard does not reach %s:\n%s", to, text)
	}
	tab("\"a[href^='/findings/f-']\"")
	do(chromedp.KeyEvent("\r"), chromedp.WaitVisible("#proof"))
	tab("\"#note\"")
	do(chromedp.KeyEvent("seen"))
	tab("\"button[value=ack]\"")
	do(chromedp.KeyEvent("\r"))
	waitFor(t, ctx, `document.querySelector("dl dd")?.innerText.startsWith("acknowledged, by")`)
	if _, text := page(); strings.Contains(text, "Pause updates") {
		t.Error("a button that needs script is there without it")
	}
	// A rule is tried.
	do(chromedp.Navigate(address+"/watchlist"), chromedp.WaitVisible("#rule"))
	tab("\"#rule\"")
	tab("\"form[action='/watchlist/try'] button\"")
	do(chromedp.KeyEvent("\r"))
	waitFor(t, ctx, `document.body.innerText.includes("of the newest")`)
	if where, text := page(); where != "/watchlist/try" || !strings.Contains(text, "unexpected") && !strings.Contains(text, "0 of the newest") {
		t.Errorf("%s:\n%s", where, text)
	}
}

// doing returns what does something in a browser, or ends the test.
func doing(t *testing.T, ctx context.Context) func(actions ...chromedp.Action[chromedp.Void]) {
	return func(actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatal(err)
		}
	}
}

// waitFor waits until a condition holds. Between two pages there may be nothing yet to ask, so an
// error is no answer.
func waitFor(t *testing.T, ctx context.Context, condition string) {
	t.Helper()
	var err error
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var holds bool
		if holds, err = chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+condition+")")); err == nil && holds {
			return
		}
	}
	t.Fatalf("in vain for %s on %s (%v):\n%s", condition, evaluate[string](t, ctx, "location.href"), err, evaluate[string](t, ctx, "document.body.innerText"))
}

// media makes pages take a colour scheme.
func media(colour string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: colour}}})
		return err
	})
}

// barrier is what axe-core finds.
type barrier struct {
	ID, Impact, Help string
	Nodes            []struct{ HTML, FailureSummary string }
}

// TestPagesForEverybody: no page has a serious barrier by axe-core (WCAG 2.2 AA), in both
// colours, at 320 and at 1440 pixels, and none is wider than its window.
func TestPagesForEverybody(t *testing.T) {
	axe, err := os.ReadFile("tools/axe/node_modules/axe-core/axe.min.js")
	if err != nil {
		if message := "axe-core is not installed (make axe): BARRIERS ARE NOT LOOKED FOR"; os.Getenv("SIGWARDEN_E2E_REQUIRED") != "" {
			t.Fatal(message)
		} else {
			t.Skip(message)
		}
	}
	address, _ := served(t)
	ctx := browserFor(t, 5*time.Minute)
	said := complaints(t, ctx)
	first := func(what string) string {
		resp, err := http.Get(address + "/api/v1/" + what)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var list []struct{ ID string }
		if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || len(list) == 0 {
			t.Fatalf("%s: %v", what, err)
		}
		return list[0].ID
	}
	pages := map[string]string{"witness": daemon(t, "witness: {listen: \"127.0.0.1:0\", keys: [\"file:w.key\"], operator: ACME}\n") + "/witness",
		"login": daemon(t, "http: {listen: \"127.0.0.1:0\", public_url: \"http://127.0.0.1:9\", access: {tokens: true, oidc: {issuer: \"http://127.0.0.1:9\", client_id: c, read: [\"*@acme.example\"]}}}\n") + "/findings"}
	for name, path := range map[string]string{"overview": "/", "findings": "/findings", "finding": "/findings/" + first("findings"), "incidents": "/incidents", "incident": "/incidents/" + first("incidents"), "coverage": "/coverage", "watchlist": "/watchlist", "channels": "/channels", "missing": "/nosuch"} {
		pages[name] = address + path
	}
	shots := os.Getenv("SIGWARDEN_SHOTS_DIR")
	for name, path := range pages {
		for _, colour := range []string{"light", "dark"} {
			for _, width := range []int64{320, 1440} {
				if width == 320 && colour == "dark" && shots == "" {
					continue // what is in one of the two is in the other
				}
				if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, 900), media(colour), chromedp.Navigate(path), chromedp.WaitVisible("#main > h1")); err != nil {
					t.Fatal(err)
				}
				at := fmt.Sprintf("%s, %s, %d px", name, colour, width)
				if wide := evaluate[int64](t, ctx, `document.documentElement.scrollWidth`); wide > width {
					t.Errorf("%s: it is %d px wide", at, wide)
				}
				if shots != "" {
					png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(shots, fmt.Sprintf("%s-%s-%d.png", name, colour, width)), png, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if (width == 320) != (colour == "light") {
					continue // it takes seconds: each colour and each width once
				}
				evaluate[any](t, ctx, string(axe)+"; null")
				found, err := chromedp.Run(ctx, chromedp.Evaluate[string](`axe.run(document, {runOnly: {type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}}).then(r => JSON.stringify(r.violations))`, chromedp.EvalAwaitPromise))
				if err != nil {
					t.Fatal(err)
				}
				var list []barrier
				if err := json.Unmarshal([]byte(found), &list); err != nil {
					t.Fatal(err)
				}
				for _, b := range list {
					t.Errorf("%s: %s, %s: %s, at %s: %s", at, b.Impact, b.ID, b.Help, b.Nodes[0].HTML, b.Nodes[0].FailureSummary)
				}
			}
		}
	}
	// It would find one.
	evaluate[any](t, ctx, string(axe)+"; null")
	evaluate[any](t, ctx, `{ const x = document.createElement("input"); document.getElementById("main").append(x); x.after(document.createElement("img")) }; null`)
	if found, err := chromedp.Run(ctx, chromedp.Evaluate[int](`axe.run(document).then(r => r.violations.length)`, chromedp.EvalAwaitPromise)); err != nil || found < 2 {
		t.Errorf("an input and a picture that nobody can tell what they are: %d barriers, %v", found, err)
	}
	for _, c := range said() {
		if !strings.Contains(c, "404") && !strings.Contains(c, "401") { // the pages that are missing, and not for everybody
			t.Errorf("the browser says: %s", c)
		}
	}
}
