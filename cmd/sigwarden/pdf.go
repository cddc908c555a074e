package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sigwarden/sigwarden/monitor/report"
)

// browsers are the names under which a Chromium is found.
var browsers = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"}

// printFor bounds the time of a browser.
const printFor = 2 * time.Minute

// printPDF prints a report with the Chromium that is installed, which gets no network:
// the page needs nothing.
func printPDF(ctx context.Context, r *report.Report) ([]byte, error) {
	browser := ""
	for _, name := range browsers {
		if found, err := exec.LookPath(name); err == nil {
			browser = found
			break
		}
	}
	if browser == "" {
		return nil, errors.New("--pdf needs a Chromium, and none is installed; print the page that --format html writes from any browser")
	}
	dir, err := os.MkdirTemp("", "sigwarden-pdf-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	page, made := filepath.Join(dir, "report.html"), filepath.Join(dir, "report.pdf")
	f, err := os.OpenFile(page, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(r.Write(f, "html"), f.Close()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, printFor)
	defer cancel()
	args := []string{"--headless", "--disable-gpu", "--disable-extensions", "--proxy-server=127.0.0.1:9", "--user-data-dir=" + filepath.Join(dir, "profile"), "--no-pdf-header-footer", "--print-to-pdf=" + made}
	if os.Getuid() == 0 {
		args = append(args, "--no-sandbox") // it refuses to run as root otherwise
	}
	printer := exec.CommandContext(ctx, browser, append(args, (&url.URL{Scheme: "file", Path: page}).String())...)
	// Secrets that the configuration takes from the environment are none of its business.
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "FONTCONFIG_PATH", "FONTCONFIG_FILE", "XDG_DATA_HOME", "XDG_DATA_DIRS", "SYSTEMROOT", "TEMP", "TMP", "LD_LIBRARY_PATH"} {
		if v, ok := os.LookupEnv(name); ok {
			printer.Env = append(printer.Env, name+"="+v)
		}
	}
	out, err := printer.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %.500s", browser, err, out)
	}
	data, err := os.ReadFile(made)
	if err != nil {
		return nil, fmt.Errorf("%s made no PDF: %.500s", browser, out)
	}
	return data, nil
}
