package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// BenchmarkPoliteV1 reads a Rekor v1 server that takes two seconds for every
// answer and refuses more than thirty requests a second, with the defaults. What
// it reports is of the time after it has settled.
func BenchmarkPoliteV1(b *testing.B) {
	const settled, entries = 4000, 17000
	ca, err := testca.New("bench", time.Now())
	if err != nil {
		b.Fatal(err)
	}
	server, err := locallog.NewV1("bench.example", 1)
	if err != nil {
		b.Fatal(err)
	}
	signer := issue(b, ca, testca.Identity{URI: "https://github.com/somebody/else", Issuer: issuer})
	for i := range entries {
		leaf, err := signer.HashedRekordV1(strconv.AppendInt(nil, int64(i), 10))
		if err != nil {
			b.Fatal(err)
		}
		server.Append(leaf)
	}
	server.Set(locallog.FaultsV1{Latency: 2 * time.Second, PerSecond: 30})
	front := httptest.NewServer(server)
	defer front.Close()
	dir := b.TempDir()
	config := filepath.Join(dir, "sigwarden.yaml")
	text := fmt.Sprintf("logs:\n  - {name: slow, type: rekor-v1, url: %q, public_key: log.pub, ca: ca.pem, start: first}\nwatchlist:\n  - name: ours\n    match: [{subject: \"*@acme.example\"}]\nhttp: {listen: \"127.0.0.1:%d\"}\n", front.URL, freePort(b))
	for name, content := range map[string]string{config: text, filepath.Join(dir, "log.pub"): server.PublicKeyPEM(), filepath.Join(dir, "ca.pem"): ca.ChainPEM()} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	metric := regexp.MustCompile(`(?m)^sigwarden_log_scanned_size\{log="slow"\} (\S+)$`)
	address := regexp.MustCompile(`listen: "([^"]*)"`).FindStringSubmatch(text)[1]
	scanned := func() (n float64) {
		resp, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		data, _ := io.ReadAll(resp.Body)
		if found := metric.FindSubmatch(data); found != nil {
			n, _ = strconv.ParseFloat(string(found[1]), 64)
		}
		return n
	}
	count := func() (all, refused int) {
		for status, n := range server.Requests() {
			all += n
			if status == http.StatusTooManyRequests {
				refused += n
			}
		}
		return all, refused
	}
	for b.Loop() {
		start(b, program(b, "sigwarden", "sigwarden"), "run", "-c", config)
		until(b, "it has settled", 3*time.Minute, func() bool { return scanned() >= settled })
		began, from := time.Now(), scanned()
		all, refused := count()
		until(b, "all is read", 5*time.Minute, func() bool { return scanned() == entries })
		elapsed := time.Since(began).Seconds()
		allAtEnd, refusedAtEnd := count()
		b.ReportMetric((entries-from)/elapsed, "entries/s")
		b.ReportMetric(100*float64(refusedAtEnd-refused)/float64(allAtEnd-all), "%refused")
		b.ReportMetric(0, "ns/op")
	}
}
