package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// benchEntries is the size of the corpus; SIGWARDEN_BENCH_ENTRIES changes it.
func benchEntries(b *testing.B) int {
	n := 100000
	if text := os.Getenv("SIGWARDEN_BENCH_ENTRIES"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	return n
}

// corpus is a log of many different entries of about 3 kB in a directory of
// tiles. It is written bundle by bundle, so that its size does not matter.
type corpus struct {
	dir     string
	entries int
	sample  [][]byte // the first leaves, in memory
	ca      *testca.CA
	log     *locallog.Log // of the key; it holds no entries
}

const maxSample = 50000

func makeCorpus(b *testing.B, entries int) *corpus {
	b.Helper()
	ca, err := testca.New("bench", time.Now())
	if err != nil {
		b.Fatal(err)
	}
	log, err := locallog.New("bench.example")
	if err != nil {
		b.Fatal(err)
	}
	c := &corpus{dir: b.TempDir(), entries: entries, ca: ca, log: log}
	templates := c.templates(b)
	for i := range entries {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
		t := templates[i%len(templates)]
		leaf := []byte(t[0] + base64.StdEncoding.EncodeToString(sum[:]) + t[1])
		if len(c.sample) < maxSample {
			c.sample = append(c.sample, leaf)
		}
		if _, err := log.Append(leaf); err != nil {
			b.Fatal(err)
		}
	}
	if err := log.WriteDir(filepath.Join(c.dir, "log")); err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{"ca.pem": ca.ChainPEM(), "log.pub": log.PublicKeyPEM()} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	c.log = nil // the entries are not needed any more
	runtime.GC()
	// What is still on its way to the disk would be measured with the scan.
	if err := exec.Command("sync").Run(); err != nil {
		b.Log(err)
	}
	return c
}

// templates are entries of 200 certificates, cut where their digest stands.
func (c *corpus) templates(b *testing.B) [][2]string {
	var out [][2]string
	for i := range 200 {
		extensions := map[int]string{}
		for n := 2; n <= 24; n++ {
			if n != 7 && n != 8 {
				extensions[n] = fmt.Sprintf("https://github.com/org%d/project/%s", i, strings.Repeat("v", 12))
			}
		}
		s, err := c.ca.Issue(testca.Identity{URI: fmt.Sprintf("https://github.com/org%d/project/.github/workflows/release.yml@refs/tags/v1.2.3", i), Issuer: issuer, Extensions: extensions})
		if err != nil {
			b.Fatal(err)
		}
		e, err := s.HashedRekord([]byte("artifact"))
		if err != nil {
			b.Fatal(err)
		}
		before, rest, _ := strings.Cut(string(e), `"digest":"`)
		_, after, _ := strings.Cut(rest, `"`)
		out = append(out, [2]string{before + `"digest":"`, `"` + after})
	}
	return out
}

// hash hashes the sample on all cores for a while, and returns leaves a second.
func (c *corpus) hash() float64 {
	var done atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			h := sha256.New()
			var sum [32]byte
			for i := 0; ; i++ {
				if i%1024 == 0 && time.Since(start) > 2*time.Second {
					return
				}
				h.Reset()
				h.Write([]byte{0})
				h.Write(c.sample[i%len(c.sample)])
				h.Sum(sum[:0])
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(start).Seconds()
}

// scan runs the real program over the corpus with a number of watches, and
// returns entries a second and its peak memory in MB.
func (c *corpus) scan(b *testing.B, watches int) (rate, peak float64) {
	b.Helper()
	var list strings.Builder
	for i := range watches {
		fmt.Fprintf(&list, "  - name: w%d\n    match:\n      - {subject: \"https://github.com/nobody%d/*\", issuer: %s}\n      - {subject: \"*@nobody%d.example\"}\n      - {extensions: {source-repository-owner-uri: \"https://github.com/nobody%d\"}}\n", i, i, issuer, i, i)
	}
	name := filepath.Join(c.dir, fmt.Sprintf("bench-%d-%d", watches, time.Now().UnixNano()))
	config := fmt.Sprintf("state: %s.db\nlogs:\n  - {name: bench, type: rekor-v2, url: 'file://%s/log', origin: bench.example, public_key: log.pub, ca: ca.pem, start: first}\nwatchlist:\n%s", name, filepath.ToSlash(c.dir), list.String())
	if err := os.WriteFile(name+".yaml", []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(program(b, "sigwarden", "sigwarden"), "run", "--once", "-c", name+".yaml")
	out := &lockedBuffer{}
	cmd.Stderr = out
	start := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	peak = watchPeak(cmd)
	if err := cmd.Wait(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	took := time.Since(start)
	s := status(b, name+".yaml")
	if s.Logs[0].Scanned != uint64(c.entries) || len(s.Logs[0].Gaps) != 0 {
		b.Fatalf("scanned %d of %d", s.Logs[0].Scanned, c.entries)
	}
	return float64(c.entries) / took.Seconds(), peak
}

// watchPeak reads the high-water mark of a process's memory, in MB, until it
// ends. (What wait reports would count the memory of the process that started
// it.)
func watchPeak(cmd *exec.Cmd) (peak float64) {
	for {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		_, rest, found := strings.Cut(string(data), "VmHWM:")
		if err != nil || !found {
			return peak // it has ended, or this is no Linux
		}
		if kB, err := strconv.ParseFloat(strings.Fields(rest)[0], 64); err == nil {
			peak = max(peak, kB/1024)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// BenchmarkScan prints how a verified scan of a directory compares with only
// hashing the same leaves on the same cores in the same run, what memory it
// takes, and what a thousand watches cost against one.
func BenchmarkScan(b *testing.B) {
	c := makeCorpus(b, benchEntries(b))
	program(b, "sigwarden", "sigwarden")
	size := 0
	for _, leaf := range c.sample {
		size += len(leaf)
	}
	var hashing, one, many, peak float64
	for range b.N {
		hashing += c.hash() / float64(b.N)
		rate, memory := c.scan(b, 1)
		one += rate / float64(b.N)
		peak = max(peak, memory)
		rate, memory = c.scan(b, 1000)
		many += rate / float64(b.N)
		peak = max(peak, memory)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(size)/float64(len(c.sample)), "bytes/entry")
	b.ReportMetric(hashing, "hashed/s")
	b.ReportMetric(one, "scanned/s")
	b.ReportMetric(one/hashing, "scan:hash")
	b.ReportMetric(one/many, "1watch:1000watches")
	b.ReportMetric(peak, "peak-MB")
	// The bounds of the design, the ratio of speeds with room for a noisy machine.
	if peak > 150 || one/hashing < 0.08 || one/many > 2 {
		b.Errorf("peak %.0f MB (at most 150), scan:hash %.3f (at least 0.10), cost of 1000 watches against one %.2f (at most 2)", peak, one/hashing, one/many)
	}
}
