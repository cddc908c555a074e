package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/transparency-dev/tessera/client"

	"github.com/sigwarden/sigwarden/e2e/bench/corpus"
)

// setting is how the program is run.
type setting struct {
	log                  string // name of the directory
	url                  string // in place of it
	config               string // of the log, in place of both
	entries              uint64
	watches, expressions int
	cores                int
}

// outcome is how that went.
type outcome struct {
	rate float64 // entries a second, from the first look at the log to the last entry
	peak float64 // MB of memory
}

var moment = regexp.MustCompile(`(?m)^time=(\S+) level=[A-Z]+ msg="(log seen for the first time|this log was seen for the first time: coverage begins here)"`)

// scan runs the program over a log once. Starting it, and loading its configuration, is left
// out: that is over when it first sees the log.
func (b *bench) scan(s setting) (o outcome, err error) {
	if s.cores == 0 {
		s.cores = runtime.GOMAXPROCS(0)
	}
	if s.entries == 0 {
		s.entries = b.entries
	}
	state := filepath.Join(b.dir, "state.db")
	for _, suffix := range []string{"", "-wal", "-shm", "-ledger-mark", "-signing-key"} {
		os.Remove(state + suffix)
	}
	log := s.config
	if log == "" {
		log = corpus.Config(b.log(s.log))
	}
	if s.url != "" {
		log = strings.Replace(log, "file://"+b.log(s.log)+"/log", s.url, 1)
		log = strings.Replace(log, "start: first", "start: first, requests_per_second: 10000, parallel: 256", 1)
	}
	config := filepath.Join(b.dir, "config.yaml")
	if err := os.WriteFile(config, []byte("state: "+state+"\nlogs:\n"+log+"watchlist:\n"+corpus.Watches(max(1, s.watches), s.expressions)), 0o600); err != nil {
		return o, err
	}
	c := exec.Command(b.program, "run", "--once", "-c", config)
	c.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(s.cores))
	var said bytes.Buffer
	c.Stderr = &said
	if err := c.Start(); err != nil {
		return o, err
	}
	o.peak = peakOf(c.Process.Pid)
	if err := c.Wait(); err != nil {
		return o, fmt.Errorf("%w\n%s", err, said.String())
	}
	var at []time.Time
	for _, m := range moment.FindAllStringSubmatch(said.String(), -1) {
		t, err := time.Parse(time.RFC3339Nano, m[1])
		if err != nil {
			return o, err
		}
		at = append(at, t)
	}
	status, err := exec.Command(b.program, "status", "--json", "-c", config).CombinedOutput()
	if err != nil || len(at) != 2 || !bytes.Contains(status, fmt.Appendf(nil, `"scanned": %d,`, s.entries)) || !bytes.Contains(status, []byte(`"gaps": []`)) {
		return o, fmt.Errorf("the scan of %d entries went otherwise: %v\n%s\n%s", s.entries, err, said.String(), status)
	}
	o.rate = float64(s.entries) / at[1].Sub(at[0]).Seconds()
	return o, nil
}

// peakOf reads the high-water mark of a process's memory until it ends, in MB; 0 where there is
// none to read.
func peakOf(pid int) (peak float64) {
	for {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, rest, found := strings.Cut(string(data), "VmHWM:")
		if err != nil || !found {
			return peak
		}
		if kB, err := strconv.ParseFloat(strings.Fields(rest)[0], 64); err == nil {
			peak = max(peak, kB/1024)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (b *bench) scanAgainstHashing() (float64, string, error) {
	hashing, lanes := b.hash(runtime.GOMAXPROCS(0)), b.hashMany(runtime.GOMAXPROCS(0))
	o, err := b.scan(setting{log: "small"})
	return o.rate / hashing, fmt.Sprintf("%.0f entries/s, %.0f hashed/s; %.2f of %.0f as the scan hashes them", o.rate, hashing, o.rate/lanes, lanes), err
}

func (b *bench) scanAgainstFsck() (float64, string, error) {
	other, err := b.fsck(&client.FileFetcher{Root: b.log("small") + "/log"}, 2)
	if err != nil {
		return 0, "", err
	}
	o, err := b.scan(setting{log: "small"})
	return o.rate / other, fmt.Sprintf("fsck %.0f entries/s", other), err
}

func (b *bench) manyWatches(expressions int) (float64, string, error) {
	one, err := b.scan(setting{log: "small"})
	if err != nil {
		return 0, "", err
	}
	many, err := b.scan(setting{log: "small", watches: 10_000, expressions: expressions})
	return one.rate / many.rate, fmt.Sprintf("%.0f entries/s", many.rate), err
}

// memory compares a log with a larger one, whose entries come again and again: all the same to who
// forgets them.
func (b *bench) memory() (float64, string, error) {
	name := fmt.Sprintf("large-%d", b.large)
	if _, err := os.Stat(b.log(name)); err != nil {
		if err := b.v2.WriteDir(b.log(name), b.large, min(b.entries, 256*1024)); err != nil {
			return 0, "", err
		}
		settle()
	}
	small, err := b.scan(setting{log: "small"})
	if err != nil {
		return 0, "", err
	}
	large, err := b.scan(setting{log: name, entries: b.large})
	return large.peak / small.peak, fmt.Sprintf("%.0f MB at %d, %.0f MB at %d", small.peak, b.entries, large.peak, b.large), err
}

// serve serves the log over loopback, each answer after some time.
func (b *bench) serve(wait time.Duration) (address string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	files := http.FileServer(http.Dir(b.log("small") + "/log"))
	server := &http.Server{Handler: http.StripPrefix("/api/v2/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(wait)
		files.ServeHTTP(w, r)
	}))}
	go server.Serve(listener)
	return "http://" + listener.Addr().String(), func() { server.Close() }, nil
}

func (b *bench) scanAgainstFsckOverHTTP() (float64, string, error) {
	address, stop, err := b.serve(0)
	if err != nil {
		return 0, "", err
	}
	defer stop()
	root, err := url.Parse(address + "/api/v2/")
	if err != nil {
		return 0, "", err
	}
	fetcher, err := client.NewHTTPFetcher(root, nil)
	if err != nil {
		return 0, "", err
	}
	other, err := b.fsck(fetcher, 2)
	if err != nil {
		return 0, "", err
	}
	o, err := b.scan(setting{log: "small", url: address})
	return o.rate / other, fmt.Sprintf("fsck %.0f entries/s", other), err
}

func (b *bench) latency() (float64, string, error) {
	var rates, peaks [2]float64
	for i, wait := range []time.Duration{0, 50 * time.Millisecond} {
		address, stop, err := b.serve(wait)
		if err != nil {
			return 0, "", err
		}
		o, err := b.scan(setting{log: "small", url: address})
		stop()
		if err != nil {
			return 0, "", err
		}
		rates[i], peaks[i] = o.rate, o.peak
	}
	return rates[1] / rates[0], fmt.Sprintf("%.0f and %.0f entries/s, %.0f and %.0f MB", rates[1], rates[0], peaks[1], peaks[0]), nil
}

// cores compares how a scan gains from a second core with how hashing does.
func (b *bench) cores() (float64, string, error) {
	hashing := b.hash(2) / b.hash(1)
	var rates [2]float64
	for i := range rates {
		o, err := b.scan(setting{log: "small", cores: i + 1})
		if err != nil {
			return 0, "", err
		}
		rates[i] = o.rate
	}
	return rates[1] / rates[0] / hashing, fmt.Sprintf("scan %.2f, hashing %.2f", rates[1]/rates[0], hashing), nil
}
