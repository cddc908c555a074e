// Bench compares the speed of a verified scan with that of hashing alone.
package main

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/sigwarden/sigwarden/e2e/bench/corpus"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

func main() {
	n := flag.Int("n", 20000, "leaves")
	v1 := flag.Bool("v1", false, "")
	watches := flag.Int("watches", 1, "")
	res := flag.Int("res", 0, "")
	certs := flag.Int("certs", 20000, "")
	dir := flag.String("dir", "", "")
	reps := flag.Int("reps", 5, "")
	prof := flag.String("prof", "", "")
	decodeOnly := flag.Bool("decode", false, "")
	flag.Parse()
	c, err := corpus.New(corpus.Options{V1: *v1, Certificates: *certs})
	if err != nil {
		panic(err)
	}
	if *dir != "" {
		start := time.Now()
		if err := c.WriteDir(*dir, uint64(*n), 0); err != nil {
			panic(err)
		}
		fmt.Println(time.Since(start))
		os.WriteFile(*dir+"/c.yaml", []byte("state: "+*dir+"/s.db\nlogs:\n"+corpus.Config(*dir)+"watchlist:\n"+corpus.Watches(*watches, *res)), 0o600)
		return
	}
	leaves := c.Leaves(0, *n)
	var ws []watchlist.Watch
	var doc []struct {
		Name  string
		Match []map[string]any
	}
	if err := yaml.Unmarshal([]byte(corpus.Watches(*watches, *res)), &doc); err != nil {
		panic(err)
	}
	for _, d := range doc {
		w := watchlist.Watch{Name: d.Name}
		for _, m := range d.Match {
			it := watchlist.Item{}
			if s, ok := m["subject"].(string); ok {
				it.Subject = []string{s}
			}
			if s, ok := m["issuer"].(string); ok {
				it.Issuer = []string{s}
			}
			if e, ok := m["extensions"].(map[string]any); ok {
				it.Extensions = map[string][]string{}
				for k, v := range e {
					it.Extensions[k] = []string{v.(string)}
				}
			}
			w.Match = append(w.Match, it)
		}
		ws = append(ws, w)
	}
	list, err := watchlist.Compile(ws)
	if err != nil {
		panic(err)
	}
	run := func(do func(leaf []byte)) time.Duration {
		best := time.Hour
		for range *reps {
			start := time.Now()
			for _, l := range leaves {
				do(l)
			}
			best = min(best, time.Since(start))
		}
		return best / time.Duration(len(leaves))
	}
	h := sha256.New()
	var sum [32]byte
	hash := run(func(l []byte) { h.Reset(); h.Write([]byte{0}); h.Write(l); h.Sum(sum[:0]) })
	var d entry.Decoder
	if *prof != "" {
		f, _ := os.Create(*prof)
		pprof.StartCPUProfile(f)
	}
	if *prof != "" {
		decodeOnly = decodeOnly
	}
	var sk entry.Skimmer
	missed, maybe := 0, 0
	skim := run(func(l []byte) {
		if _, ok := sk.Skim(l); !ok {
			missed++
		}
	})
	fast := run(func(l []byte) {
		k, ok := sk.Skim(l)
		if !ok || list.MayMatch(k) {
			maybe++
		}
	})
	pprof.StopCPUProfile()
	decode := run(func(l []byte) { d.Decode(l) })
	both := run(func(l []byte) {
		f, _ := d.Decode(l)
		if !*decodeOnly && len(list.Match(f)) > 0 {
			panic("hit")
		}
	})
	fmt.Printf("skim %v skim+may %v missed %d maybe %d: %.3f\n", skim, fast, missed, maybe, float64(hash)/float64(hash+fast))
	fmt.Printf("hash %v decode %v decode+match %v: hash/(hash+both) = %.3f\n", hash, decode, both, float64(hash)/float64(hash+both))
}
