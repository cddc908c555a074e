package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// loginProvider runs the provider of OpenID Connect that zitadel/oidc brings for tests, and
// returns its issuer.
func loginProvider(t *testing.T, callback string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	issuer := "http://localhost:" + port + "/"
	storage.RegisterClients(storage.WebClient("sigwarden", "secret", callback))
	router := exampleop.SetupServer(issuer, storage.NewStorage(storage.NewUserStore(issuer)), nil, false, op.WithAllowInsecure())
	server := &http.Server{Handler: router, ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return issuer
}

// TestLogin: people log in with a real provider, whom the configuration names is let in, and a
// copy of the cookie is good for nothing once the login has ended.
func TestLogin(t *testing.T) {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + port.Addr().String()
	issuer := loginProvider(t, address+"/login/callback")
	port.Close()
	dir := t.TempDir()
	l, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`state: state.db
logs: [{name: main, type: rekor-v2, url: "http://127.0.0.1:9", origin: log.example, public_key: log.pem, ca: log.pem}]
watchlist: [{name: releases, match: [{subject: "https://github.com/acme/*"}]}]
notify: {channels: [{name: lines, file: {path: lines.jsonl}}]}
http:
  listen: %q
  public_url: %q
  access: {oidc: {issuer: %q, client_id: sigwarden, client_secret: env:OIDC_SECRET, triage: ["test-user@*"], session: 1h}}
`, strings.TrimPrefix(address, "http://"), address, issuer)
	config = strings.Replace(config, ", ca: log.pem", "", 1) + "trust: {trusted_root: root.json}\n"
	for name, text := range map[string]string{"c.yaml": config, "log.pem": l.PublicKeyPEM(), "root.json": `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("OIDC_SECRET", "secret")
	c := exec.Command(program(t, "sigwarden", "sigwarden"), "run", "-c", filepath.Join(dir, "c.yaml"))
	var said bytes.Buffer
	c.Stderr = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			c.Process.Signal(os.Interrupt)
			c.Wait()
		}
	}
	t.Cleanup(stop)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if resp, err := http.Get(address + "/healthz"); err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(end) {
			stop()
			t.Fatalf("it does not serve:\n%s", said.String())
		}
	}
	ctx := browser(t)
	do := doing(t, ctx)
	login := func(user string) {
		t.Helper()
		do(chromedp.Navigate(address+"/channels"), chromedp.WaitVisible("#main > h1"))
		if text := evaluate[string](t, ctx, `document.body.innerText`); !strings.Contains(text, "Unauthorized") || strings.Contains(text, "lines") {
			t.Fatalf("somebody who is not logged in sees\n%s", text)
		}
		do(chromedp.Click("#main a.button"), chromedp.WaitVisible("#username"), chromedp.SendKeys("#username", user), chromedp.SendKeys("#password", "verysecure"), chromedp.Click("button[type=submit]"))
	}
	// Somebody whom the configuration does not name.
	login("test-user2")
	waitFor(t, ctx, `document.body.innerText.includes("The login came to nothing") || document.body.innerText.includes("the login came to nothing")`)
	// The provider remembers nobody: another one can log in at once.
	login("test-user@localhost")
	waitFor(t, ctx, `location.pathname === "/channels" && document.body.innerText.includes("lines")`)
	if who := evaluate[string](t, ctx, `document.querySelector(".who").innerText`); !strings.Contains(who, "test-user@zitadel.ch") {
		t.Errorf("it calls %q", who)
	}
	var cookie *network.Cookie
	do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		got, err := cdp.Call(ctx, target, network.GetCookies, network.GetCookiesParams{URLs: []string{address + "/"}})
		if err == nil && len(got.Cookies) == 1 {
			cookie = got.Cookies[0]
		}
		return err
	}))
	if cookie == nil || !cookie.HTTPOnly || cookie.SameSite != network.CookieSameSiteStrict || cookie.Name != "sigwarden" {
		t.Fatalf("%+v", cookie)
	}
	get := func() (int, string) {
		r, _ := http.NewRequest(http.MethodGet, address+"/channels", nil)
		r.AddCookie(&http.Cookie{Name: cookie.Name, Value: cookie.Value})
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	if status, _ := get(); status != http.StatusOK {
		t.Errorf("the cookie is good for nothing: %d", status)
	}
	// A test that is sent stands in the audit trail with the name.
	do(chromedp.Click(`form[action="/channels/lines/test"] button`))
	waitFor(t, ctx, `document.body.innerText.includes("is on its way")`)
	do(chromedp.Click(`form[action="/logout"] button`))
	waitFor(t, ctx, `document.body.innerText.includes("Unauthorized")`)
	if status, text := get(); status != http.StatusUnauthorized || strings.Contains(text, "lines") {
		t.Errorf("a copy of the cookie is good after the login has ended: %d", status)
	}
	stop()
	if out, code := sigwarden(t, filepath.Join(dir, "c.yaml"), "audit", "list", "--json"); code != 0 || !strings.Contains(out, "test-user@zitadel.ch") || !strings.Contains(out, `"action": "test"`) && !strings.Contains(out, `"action":"test"`) {
		t.Errorf("%d\n%s", code, out)
	}
	if text := said.String(); !strings.Contains(text, "http.access.oidc lets nobody in who is") || strings.Contains(text, cookie.Value) || strings.Contains(text, "verysecure") {
		t.Errorf("the log says\n%s", text)
	}
}
