// Bench compares the speed of sigwarden's scan with that of hashing the same leaves alone, which
// nothing that verifies a log can do without, and with what else it depends on. It prints ratios:
// both sides of each were measured in turns, in one run on one machine.
//
//	go run ./bench                  all of them, a few minutes
//	go run ./bench -only scan,v1    some
//
// With -require it ends with status 1 where one does not reach what it has to.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/e2e/bench/corpus"
)

// bench is one run.
type bench struct {
	dir, program string
	entries      uint64
	large        uint64
	runs         int
	v2           *corpus.Corpus
	failed       bool
	out          io.Writer
}

// measure is a line of the table.
type measure struct {
	name, what string
	// least or most is what the ratio has to reach; 0: nothing.
	least, most float64
	// run measures both sides once, and returns their ratio and what to say of it.
	run func(b *bench) (ratio float64, note string, err error)
}

var measures = []measure{
	{"scan", "verified scan : hashing the same leaves", 0.40, 0, (*bench).scanAgainstHashing},
	{"fsck", "verified scan : fsck with two workers", 2, 0, (*bench).scanAgainstFsck},
	{"fsck-http", "the same, both over loopback", 0, 0, (*bench).scanAgainstFsckOverHTTP},
	{"watches", "cost of 10,000 watches : of one", 0, 1.15, func(b *bench) (float64, string, error) { return b.manyWatches(0) }},
	{"expressions", "cost of 10,000 watches and expressions : of one watch", 0, 1.3, func(b *bench) (float64, string, error) { return b.manyWatches(1) }},
	{"memory", "peak memory, MB at the larger size : at the smaller", 0, 1.1, (*bench).memory},
	{"latency", "speed with 50 ms a request : without", 0.7, 0, (*bench).latency},
	{"cores", "scaling to two cores : that of hashing", 0.9, 0, (*bench).cores},
	{"v1", "bodies of v1 from memory : hashing them", 0.30, 0, func(b *bench) (float64, string, error) { return b.v1(0) }},
	{"v1-latency", "one reader of v1 with 50 ms a request : what 32 allow", 0, 0, (*bench).history},
	{"idle", "an idle daemon with 20 logs, polled each minute", 0, 0.002, (*bench).idle},
	{"v1-matches", "the same, one in 100 ours, chains verified : hashing", 0.25, 0, func(b *bench) (float64, string, error) { return b.v1(100) }},
}

func main() {
	var names []string
	for _, m := range measures {
		names = append(names, m.name)
	}
	b := &bench{out: os.Stdout}
	only := flag.String("only", strings.Join(names, ","), "what to measure")
	require := flag.Bool("require", false, "end with status 1 where a ratio is missed by more than the tolerance")
	tolerance := flag.Float64("tolerance", 0, "by how much a ratio may miss what it has to reach: 0.2 is a fifth")
	flag.Uint64Var(&b.entries, "entries", 1_000_000, "entries of the log")
	flag.Uint64Var(&b.large, "large", 10_000_000, "entries of the larger log")
	flag.IntVar(&b.runs, "runs", 5, "how often each is measured; the median counts")
	flag.StringVar(&b.dir, "dir", "", "where the logs are kept; default: a folder that is removed")
	flag.Parse()
	if err := b.all(strings.Split(*only, ","), *tolerance); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if b.failed && *require {
		os.Exit(1)
	}
}

func (b *bench) all(only []string, tolerance float64) (err error) {
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "sigwarden-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(b.dir)
	}
	b.program = filepath.Join(b.dir, "sigwarden")
	build := exec.Command("go", "-C", "..", "build", "-trimpath", "-o", b.program, "./cmd/sigwarden")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building: %w\n%s", err, out)
	}
	if b.v2, err = corpus.New(corpus.Options{Certificates: 200_000, Seed: 1}); err != nil {
		return err
	}
	if err := b.v2.WriteDir(b.log("small"), b.entries, 0); err != nil {
		return err
	}
	settle()
	fmt.Fprintf(b.out, "%d entries, %d cores, %s\n%-56s %8s %8s %8s %8s\n", b.entries, runtime.GOMAXPROCS(0), runtime.Version(), "", "wanted", "median", "least", "most")
	for _, m := range measures {
		if !slices.Contains(only, m.name) {
			continue
		}
		var ratios []float64
		var note string
		for range b.runs {
			ratio, said, err := m.run(b)
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			ratios, note = append(ratios, ratio), said
		}
		slices.Sort(ratios)
		median := ratios[len(ratios)/2]
		wanted, missed := "", ""
		switch {
		case m.least > 0:
			wanted = fmt.Sprintf(">= %.3g", m.least)
			if median < m.least {
				missed = "MISSED"
			}
			b.failed = b.failed || median < m.least*(1-tolerance)
		case m.most > 0:
			wanted = fmt.Sprintf("<= %.3g", m.most)
			if median > m.most {
				missed = "MISSED"
			}
			b.failed = b.failed || median > m.most*(1+tolerance)
		}
		fmt.Fprintf(b.out, "%-56s %8s %8.3g %8.3g %8.3g  %s %s\n", m.what, wanted, median, ratios[0], ratios[len(ratios)-1], note, missed)
	}
	return nil
}

func (b *bench) log(name string) string { return filepath.Join(b.dir, name) }

// settle waits until what was written is on its way to the disk no more.
func settle() {
	runtime.GC()
	if exec.Command("sync").Run() != nil {
		time.Sleep(time.Second)
	}
}
