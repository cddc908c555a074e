package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

const (
	benchLogs    = 4000
	benchSteps   = 4 // checkpoints of each log
	benchSenders = 64
)

// benchLoad is what is sent to a witness: add-checkpoint requests, one step of all logs
// after the other.
type benchLoad struct {
	keys     []string // of the logs
	requests [][]byte
}

// makeLoad signs the checkpoints of small trees, leaf by leaf.
func makeLoad(b *testing.B) *benchLoad {
	b.Helper()
	l := &benchLoad{}
	steps := make([][][]byte, benchSteps)
	for i := range benchLogs {
		secret, key, err := note.GenerateKey(rand.Reader, fmt.Sprintf("log.example/%d", i))
		if err != nil {
			b.Fatal(err)
		}
		signer, err := note.NewSigner(secret)
		if err != nil {
			b.Fatal(err)
		}
		l.keys = append(l.keys, key)
		for step := range benchSteps {
			size := step + 1
			root := treeHash(i, 0, size)
			raw, err := note.Sign(&note.Note{Text: fmt.Sprintf("log.example/%d\n%d\n%s\n", i, size, base64.StdEncoding.EncodeToString(root[:]))}, signer)
			if err != nil {
				b.Fatal(err)
			}
			body := fmt.Sprintf("old %d\n", step)
			for _, h := range treeProof(i, step, 0, size, true) {
				body += base64.StdEncoding.EncodeToString(h[:]) + "\n"
			}
			steps[step] = append(steps[step], append([]byte(body+"\n"), raw...))
		}
	}
	for _, s := range steps {
		l.requests = append(l.requests, s...)
	}
	return l
}

// treeHash is MTH over leaves of a log, treeProof SUBPROOF (RFC 6962, 2.1).
func treeHash(log, from, to int) [32]byte {
	if to-from == 1 {
		return sha256.Sum256(fmt.Appendf([]byte{0}, "%d %d", log, from))
	}
	k := treeSplit(to - from)
	a, b := treeHash(log, from, from+k), treeHash(log, from+k, to)
	return sha256.Sum256(append(append([]byte{1}, a[:]...), b[:]...))
}

func treeSplit(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}

func treeProof(log, m, from, to int, whole bool) [][32]byte {
	switch {
	case m == 0, m == to-from && whole:
		return nil
	case m == to-from:
		return [][32]byte{treeHash(log, from, to)}
	}
	k := treeSplit(to - from)
	if m <= k {
		return append(treeProof(log, m, from, from+k, whole), treeHash(log, from+k, to))
	}
	return append(treeProof(log, m-k, from+k, to, false), treeHash(log, from, from+k))
}

// send sends everything, from many senders at a time, and returns the valid answers a
// second and the 99th of a hundred answer times.
func (l *benchLoad) send(b *testing.B, url string) (rate float64, p99 time.Duration) {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchSenders, MaxConnsPerHost: benchSenders}}
	var mu sync.Mutex
	var times []time.Duration
	var bad []string
	begin := time.Now()
	for at := 0; at < len(l.requests); at += benchLogs { // a log's next one needs its last
		jobs := make(chan []byte)
		var wg sync.WaitGroup
		for range benchSenders {
			wg.Go(func() {
				for body := range jobs {
					start := time.Now()
					valid, says := false, ""
					for try := 0; try < 1000; try++ {
						resp, err := client.Post(url, "", strings.NewReader(string(body)))
						says = fmt.Sprint(err)
						if err != nil {
							break
						}
						answer, _ := io.ReadAll(resp.Body)
						resp.Body.Close()
						says = fmt.Sprintf("%s %.200s", resp.Status, answer)
						valid = resp.StatusCode == http.StatusOK && strings.HasPrefix(string(answer), "\u2014 ")
						if resp.StatusCode != http.StatusTooManyRequests {
							break
						}
						time.Sleep(time.Millisecond) // it is asked for too much, and says so
					}
					took := time.Since(start)
					mu.Lock()
					times = append(times, took)
					if !valid {
						bad = append(bad, says)
					}
					mu.Unlock()
				}
			})
		}
		for _, body := range l.requests[at : at+benchLogs] {
			jobs <- body
		}
		close(jobs)
		wg.Wait()
	}
	took := time.Since(begin)
	if len(bad) > 0 {
		b.Fatalf("%d of %d requests to %s were not answered with a cosignature; the first: %s", len(bad), len(l.requests), url, bad[0])
	}
	slices.Sort(times)
	return float64(len(l.requests)) / took.Seconds(), times[len(times)*99/100]
}

// BenchmarkWitness compares a witness with omniwitness: Ed25519, 4,000 logs, durable
// writes, the senders on the same cores, in one run.
func BenchmarkWitness(b *testing.B) {
	load := makeLoad(b)
	sigwarden, omniwitness := program(b, "sigwarden", "sigwarden"), program(b, "witness", "omniwitness")
	var ours, theirs float64
	var oursLate, theirsLate time.Duration
	for range b.N {
		dir, port := b.TempDir(), freePort(b)
		var list, logs strings.Builder
		list.WriteString("logs/v0\n")
		logs.WriteString("Logs:\n")
		for _, key := range load.keys {
			fmt.Fprintf(&list, "vkey %s\nqpd 2147483647\ncontact x\n", key)
			name, _, _ := strings.Cut(key, "+")
			fmt.Fprintf(&logs, "  - Origin: %q\n    URL: http://127.0.0.1:9/\n    PublicKey: %s\n    Feeder: none\n", name, key)
		}
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		secret, _, err := note.GenerateKey(strings.NewReader(string(private.Seed())), "witness.example/w")
		if err != nil {
			b.Fatal(err)
		}
		writeFiles(b, dir, map[string]string{"w.key": secret, "list": list.String(), "logs.yaml": logs.String(), "local.pub": newRekorLog(b, "local.example").publicPEM, "sigwarden.yaml": fmt.Sprintf(`state: state.db
logs: [{name: local, type: rekor-v2, url: "file://%s", origin: local.example, public_key: local.pub}]
witness: {listen: "127.0.0.1:%d", keys: ["file:w.key"], lists: [{file: list}]}
`, dir, port)})
		p := start(b, sigwarden, "run", "-c", filepath.Join(dir, "sigwarden.yaml"))
		until(b, "the list was read", time.Minute, func() bool { return strings.Contains(p.output.String(), "new=4000") })
		rate, late := load.send(b, fmt.Sprintf("http://127.0.0.1:%d/add-checkpoint", port))
		ours, oursLate = ours+rate/float64(b.N), max(oursLate, late)
		p.stop(10 * time.Second)

		port = freePort(b)
		c := exec.Command(omniwitness, "--rate_limit=0", fmt.Sprintf("--listen=127.0.0.1:%d", port), fmt.Sprintf("--metrics_listen=127.0.0.1:%d", freePort(b)), "--db_file="+filepath.Join(dir, "w.db"),
			"--private_key_path="+filepath.Join(dir, "w.key"), "--additional_logs="+filepath.Join(dir, "logs.yaml"))
		c.Env = append(os.Environ(), "HTTPS_PROXY=http://127.0.0.1:9") // it would ask logs of others
		p = startCommand(b, c)
		url := fmt.Sprintf("http://127.0.0.1:%d/add-checkpoint", port)
		until(b, "omniwitness answers", time.Minute, func() bool {
			resp, err := http.Post(url, "", strings.NewReader("x"))
			if err != nil {
				return false
			}
			resp.Body.Close()
			return true
		})
		rate, late = load.send(b, url)
		theirs, theirsLate = theirs+rate/float64(b.N), max(theirsLate, late)
		p.kill()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours, "cosigned/s")
	b.ReportMetric(float64(oursLate.Microseconds())/1000, "p99-ms")
	b.ReportMetric(theirs, "omniwitness/s")
	b.ReportMetric(float64(theirsLate.Microseconds())/1000, "omniwitness-p99-ms")
	b.ReportMetric(ours/theirs, "ours:omniwitness")
	if ours < theirs {
		b.Errorf("%.0f a second, and omniwitness does %.0f", ours, theirs)
	}
}
