package monitor_test

import (
	"fmt"
	"testing"
	"strings"
	"path/filepath"

	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

func BenchmarkTmp(b *testing.B) {
	r := newRig(b)
	ext := map[int]string{}
	for n := 2; n <= 24; n++ {
		if n != 7 && n != 8 { ext[n] = "https://github.com/org/project/" + strings.Repeat("v", 12) }
	}
	s, _ := r.ca.Issue(testca.Identity{URI: "https://github.com/x/y", Issuer: github, Extensions: ext})
	leaf, _ := s.HashedRekord([]byte("x"))
	for i := range 100000 {
		r.log.Append(fmt.Appendf(leaf[:len(leaf):len(leaf)], "%*s", i%200, ""))
	}
	dir := b.TempDir()
	if err := r.log.WriteDir(filepath.Join(dir, "log")); err != nil { b.Fatal(err) }
	src, err := rekor.NewV2(rekor.Options{URL: "file://" + filepath.Join(dir, "log")})
	if err != nil { b.Fatal(err) }
	r.cfg.Source = src
	r.cfg.Parallel = 16
	b.ResetTimer()
	for range b.N {
		r.path = filepath.Join(b.TempDir(), "s.db")
		r.openStore()
		r.restart()
		r.mustPass()
	}
	b.ReportMetric(float64(100000*b.N)/b.Elapsed().Seconds(), "entries/s")
}
