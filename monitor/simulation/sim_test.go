package simulation

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seeds = flag.Uint64("seeds", 60, "how many seeds to run")
	first = flag.Uint64("first", 1, "the first seed")
	only  = flag.Uint64("seed", 0, "run this seed alone, and say what happens")
	// A worker runs every nth seed, and writes a line for each.
	step   = flag.Uint64("step", 0, "of a worker: the distance of its seeds")
	worker = flag.String("worker", "", "of a worker: the file for its outcomes")
)

// replay is the command that runs a seed again.
const replay = "go test ./monitor/simulation -run TestSeeds -count=1 -v -seed %d"

// TestSeeds runs many worlds. Each processor has a process of its own that uses no other
// one, so that a seed repeats.
func TestSeeds(t *testing.T) {
	switch {
	case *worker != "":
		work(t)
		return
	case *only != 0:
		say := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		if runtime.GOMAXPROCS(0) != 1 {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		}
		out := simulate(t, *only, say)
		if len(out.Wrongs) > 0 {
			t.Errorf("seed %d:\n%s", *only, out)
		}
		t.Logf("%s\n%s", out.State, table(out.Counts))
		return
	}
	if testing.Short() {
		*seeds = min(*seeds, 6)
	}
	hold(t, *first, *seeds)
}

// TestSeedsV1 runs worlds of Rekor v1, one for every twentieth of the others: they take longer.
func TestSeedsV1(t *testing.T) {
	holdOneIn(t, 20, firstV1)
}

// TestSeedsListed runs worlds whose witness is alone with what a log has signed, one for every fiftieth of
// the others.
func TestSeedsListed(t *testing.T) {
	holdOneIn(t, 50, firstListed)
}

// holdOneIn is hold for one seed from another place on for every few of the others.
func holdOneIn(t *testing.T, few, from uint64) {
	if *worker != "" || *only != 0 {
		t.Skip()
	}
	if testing.Short() {
		*seeds = min(*seeds, 6)
	}
	hold(t, from+*first, (*seeds+few-1)/few)
}

// hold runs seeds, and holds what comes of them against what must be.
func hold(t *testing.T, from, n uint64) {
	began := time.Now()
	outcomes, err := spread(t, from, n)
	if err != nil {
		t.Fatal(err)
	}
	total, failed := map[string]int{}, 0
	for _, out := range outcomes {
		for what, n := range out.Counts {
			total[what] += n
		}
		if len(out.Wrongs) > 0 {
			if failed++; failed <= 5 {
				t.Errorf("seed %d:\n%s\nagain: "+replay, out.Seed, out, out.Seed)
			}
		}
	}
	if uint64(len(outcomes)) != n {
		t.Errorf("%d seeds were run, want %d", len(outcomes), n)
	}
	var usual []string
	switch {
	case n >= 1000 && from < firstV1:
		usual = append(ordinary, everywhere...)
	case n >= 500 && from >= firstV1 && from < firstListed:
		usual = append(ordinaryV1, everywhere...)
	}
	for _, what := range usual {
		if total[what] == 0 {
			t.Errorf("in %d seeds there is no %q", n, what)
		}
	}
	took := time.Since(began)
	t.Logf("%d seeds from %d on, %d failed, in %s (%.0f a second)\n%s", len(outcomes), from, failed, took.Round(time.Second), float64(len(outcomes))/took.Seconds(), table(total))
}

// everywhere is what happens in a thousand worlds of whatever logs, and in five hundred; ordinary and ordinaryV1
// are what happens besides.
var (
	everywhere = []string{
		"answer: 429", "answer: 500", "answer: 503", "answer: corrupt", "answer: cut off", "answer: none", "answer: slow", "clock step", "cosignature: 200", "cosignature: 422", "cosignature: 503", "crash", "power failure", "kill",
		"delivery: error", "delivery: hangs", "delivery: answer lost", "delivery: asks to wait", "delivery: told twice", "disk: full", "disk: errors", "disk: read-only", "disk: reads fail", "disk: done, and reported as failed", "rotation", "rules changed", "triage of a finding", "triage of an incident",
		"read: error", "write: error", "write: no space", "write: read-only", "write: done, and an error", "write: crash before", "write: crash after", "sync: error", "sync: crash before", "sync: crash after", "older checkpoints",
		"lie told: fork", "lie told: fork at the same size", "lie told: smaller fork", "lie told: other tiles", "lie told: other entry", "lie told: stranger's signature",
		"incident: fork", "incident: split-view", "incident: unproven", "incident: entry-mismatch", "incident: bad-signature", "incident: witness-doubt",
	}
	ordinary   = []string{"lie to be found: fork", "lie to be found: fork at the same size", "lie to be found: smaller fork", "lie to be found: other tiles", "lie to be found: other entry", "lie to be found: stranger's signature"}
	ordinaryV1 = []string{"answer: wrong paths", "answer: entries left out", "answer: entries left out, wrong paths", "answer: entries left out, proofs refused", "answer: wrong times"}
)

func table(counts map[string]int) string {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, "%9d  %s\n", counts[what], what)
	}
	return b.String()
}

// spread runs seeds in as many processes as there are processors.
func spread(t *testing.T, from, n uint64) (all []outcome, err error) {
	workers := uint64(runtime.NumCPU())
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range min(workers, n) {
		wg.Go(func() {
			list, e := spawn(t, from+i, from+n-1, workers)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, list...)
			if e != nil && err == nil {
				err = e
			}
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b outcome) int { return int(a.Seed) - int(b.Seed) })
	return all, err
}

// spawn runs a worker.
func spawn(t *testing.T, from, to, step uint64) (list []outcome, err error) {
	name := fmt.Sprintf("%s/worker-%d", t.TempDir(), from)
	c := exec.Command(os.Args[0], "-test.run", "^TestSeeds$", "-test.timeout", "0", "-first", fmt.Sprint(from), "-seeds", fmt.Sprint(to), "-step", fmt.Sprint(step), "-worker", name)
	c.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=400", "GODEBUG=asyncpreemptoff=1")
	var said strings.Builder
	c.Stdout, c.Stderr = &said, &said
	runErr := c.Run()
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %v\n%s", err, runErr, said.String())
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var out outcome
		if err := json.Unmarshal(lines.Bytes(), &out); err != nil {
			return list, err
		}
		list = append(list, out)
	}
	if runErr != nil {
		last := from
		if len(list) > 0 {
			last = list[len(list)-1].Seed + step
		}
		text := said.String()
		return list, fmt.Errorf("a worker ended in seed %d: %w\n%s\nagain: "+replay, last, runErr, text[:min(len(text), 20000)], last)
	}
	return list, lines.Err()
}

// work is what a worker does.
func work(t *testing.T) {
	f, err := os.Create(*worker)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	theStock(t)
	quiet := slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError + 8}))
	for seed := *first; seed <= *seeds; seed += *step {
		// Made-up time stands still when somebody waits for what never comes.
		stuck := time.AfterFunc(time.Minute, func() {
			debug.SetTraceback("all")
			panic(fmt.Sprintf("seed %d does not end", seed))
		})
		line, err := json.Marshal(simulate(t, seed, quiet))
		stuck.Stop()
		if err == nil {
			_, err = fmt.Fprintf(f, "%s\n", line)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestRepeats: a seed makes the same world again, and the program does the same in it. On a machine
// that is busy with something else the scheduler may now and then let two things that happen in the
// same instant come the other way round: of three runs two must be the same.
func TestRepeats(t *testing.T) {
	if *worker != "" || *only != 0 || testing.Short() {
		t.Skip()
	}
	const some = 8
	var runs [3][]outcome
	for i := range runs {
		var err error
		if runs[i], err = spread(t, 1, some); err != nil || len(runs[i]) != some {
			t.Fatalf("%d seeds, %v", len(runs[i]), err)
		}
	}
	for i := range some {
		a, b, c := runs[0][i], runs[1][i], runs[2][i]
		if !reflect.DeepEqual(a, b) && !reflect.DeepEqual(b, c) && !reflect.DeepEqual(a, c) {
			t.Errorf("seed %d comes to %s, %s and %s:\n%v\n%v\n%v", a.Seed, a.State, b.State, c.State, a.Counts, b.Counts, c.Counts)
		}
	}
}
