package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/fsck"
	"k8s.io/klog/v2"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/e2e/bench/corpus"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// sample is how many leaves are kept in memory to be hashed: more than any cache holds.
const sample = 40_000

// hashFor is how long something is measured in memory.
const hashFor = 2 * time.Second

// hash hashes leaves on some cores, and returns how many a second.
func (b *bench) hash(cores int) float64 {
	list := b.sample()
	return each(cores, func() func(int) {
		h := sha256.New()
		var sum [sha256.Size]byte
		prefix := []byte{0}
		return func(i int) {
			h.Reset()
			h.Write(prefix)
			h.Write(list[i%len(list)])
			h.Sum(sum[:0])
		}
	})
}

// hashMany hashes them a bundle at a time, as a scan does.
func (b *bench) hashMany(cores int) float64 {
	const bundle = 256
	list := b.sample()
	return bundle * each(cores, func() func(int) {
		return func(i int) {
			from := i * bundle % (len(list) - bundle + 1)
			checkpoint.LeafHashes(list[from : from+bundle])
		}
	})
}

var kept [][]byte

func (b *bench) sample() [][]byte {
	if kept == nil {
		kept = b.v2.Leaves(0, int(min(sample, b.entries)))
	}
	return kept
}

// each calls what begin returns, on some cores, with one number after the other for a while, and
// returns how often a second.
func each(cores int, begin func() func(i int)) float64 {
	var done atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for core := range cores {
		do := begin()
		all.Go(func() {
			n := 0
			for i := core * sample / cores; n%512 != 0 || time.Since(start) < hashFor; i++ {
				do(i)
				n++
			}
			done.Add(int64(n))
		})
	}
	all.Wait()
	return float64(done.Load()) / time.Since(start).Seconds()
}

// fsck checks the log with tessera's, which hashes, and decodes and compares nothing.
func (b *bench) fsck(from fsck.Fetcher, workers uint) (float64, error) {
	pem, err := os.ReadFile(b.log("small") + "/log.pub")
	if err != nil {
		return 0, err
	}
	key, err := checkpoint.ParseKey(corpus.Origin, string(pem))
	if err != nil {
		return 0, err
	}
	check := fsck.New(corpus.Origin, key, from, func(bundle []byte) ([][]byte, error) {
		e := &api.EntryBundle{}
		if err := e.UnmarshalText(bundle); err != nil {
			return nil, err
		}
		var hashes [][]byte
		for _, leaf := range e.Entries {
			hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(leaf))
		}
		return hashes, nil
	}, fsck.Opts{N: workers})
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	start := time.Now()
	err = check.Check(context.Background())
	return float64(b.entries) / time.Since(start).Seconds(), err
}

// v1 hashes, decodes and matches bodies of Rekor v1, of which one in so many is ours; 0: none.
func (b *bench) v1(ours int) (float64, string, error) {
	c, err := corpus.New(corpus.Options{Certificates: 200_000, V1: true})
	if err != nil {
		return 0, "", err
	}
	// More different certificates of ours than are remembered: each is verified.
	list := c.Leaves(0, 2*sample)
	for i := 0; ours > 0 && i < len(list); i += ours {
		s, err := c.CA.Issue(testca.Identity{URI: "https://github.com/nobody0/project/.github/workflows/release.yml@refs/heads/main", Issuer: corpus.GitHub, Extensions: map[int]string{11: "github-hosted", 12: "https://github.com/nobody0/project"}})
		if err != nil {
			return 0, "", err
		}
		if list[i], err = s.HashedRekordV1(fmt.Append(nil, i)); err != nil {
			return 0, "", err
		}
	}
	watches, err := watchlist.Compile([]watchlist.Watch{{Name: "w", Match: []watchlist.Item{{Subject: []string{"https://github.com/nobody0/*"}, Issuer: []string{corpus.GitHub}}}}})
	if err != nil {
		return 0, "", err
	}
	authorities, err := entry.NewAuthorities(entry.Authority{Chain: c.CA.Chain()})
	if err != nil {
		return 0, "", err
	}
	var matched atomic.Int64
	hashing := each(1, func() func(int) {
		return func(i int) { checkpoint.LeafHash(list[i%len(list)]) }
	})
	all := each(1, func() func(int) {
		var s entry.Skimmer
		return func(i int) {
			leaf := list[i%len(list)]
			checkpoint.LeafHash(leaf)
			k, ok := s.Skim(leaf)
			if ok && !watches.MayMatch(k) {
				return
			}
			f, err := entry.Decode(leaf)
			if err == nil && len(watches.Match(&f)) > 0 && authorities.Verify(&f.Identities[0]) == nil {
				matched.Add(1)
			}
		}
	})
	if (matched.Load() > 0) != (ours > 0) {
		return 0, "", fmt.Errorf("%d entries were ours", matched.Load())
	}
	return all / hashing, fmt.Sprintf("%.0f entries/s on one core", all), nil
}
