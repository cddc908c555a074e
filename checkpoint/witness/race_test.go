package witness_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor/store"
)

// promise is a cosignature that somebody has received.
type promise struct {
	size uint64
	root checkpoint.Hash
	at   int64
}

// audit fails where two cosignatures contradict each other: at one size there is one
// root, all are of one history, and what is later is not smaller.
func audit(t *testing.T, promises []promise, histories ...*tree) {
	t.Helper()
	slices.SortFunc(promises, func(a, b promise) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return int(int64(a.size) - int64(b.size))
	})
	of := make([]int, len(histories))
	for i, p := range promises {
		known := false
		for h, l := range histories {
			if int(p.size) <= len(l.leaves) && l.root(int(p.size)) == p.root {
				of[h]++
				known = true
			}
		}
		if !known {
			t.Errorf("a root of size %d was signed that no history has", p.size)
		}
		if i > 0 && promises[i-1].size > p.size {
			t.Errorf("size %d was signed at %d, and size %d at %d", promises[i-1].size, promises[i-1].at, p.size, p.at)
		}
	}
	if !slices.Contains(of, len(promises)) {
		t.Errorf("of %d cosignatures %v are of each history: no one has all of them", len(promises), of)
	}
}

// testMonotone: the clock of the bubble is the true one; that of the witness goes wrong.
func testMonotone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 1))
		t.Logf("seed %d", seed)
		l := newTree(t, "log.example/one", 6000)
		r := newRig(t, l)
		begin := time.Now()
		step := time.Duration(0)
		r.opts.Now = func() time.Time { return time.Now().Add(step) }
		r.restart()
		var last promise
		signed, refused, grown := 0, 0, 0
		seen := 0 // by the sender, who may lag
		for time.Since(begin) < 24*time.Hour {
			time.Sleep(time.Duration(rng.IntN(60)) * time.Second)
			switch rng.IntN(20) {
			case 0:
				step = time.Duration(rng.IntN(1800)-900) * time.Second
			case 1:
				step = 0
			case 2:
				r.restart()
			case 3:
				seen = rng.IntN(seen + 1) // another replica
			}
			to := seen + rng.IntN(4)
			a := r.add(l.request(t, seen, min(to, len(l.leaves))))
			switch a.Status {
			case 200:
				signed++
				if to > seen {
					grown++
				}
				seen = to
				for _, at := range r.times(l.note(t, to), a.Body) {
					p := promise{size: uint64(to), at: at}
					if p.at < last.at || p.size < last.size {
						t.Fatalf("size %d at %d after size %d at %d", p.size, p.at, last.size, last.at)
					}
					last = p
				}
			case 409:
				fmt.Sscan(a.Body, &seen)
			case 503:
				refused++
			default:
				t.Fatalf("%+v", a)
			}
			if rng.IntN(10) == 0 {
				if a := r.witness.Latest(context.Background(), "log.example/one"); a.Status == 200 {
					for _, at := range r.times([]byte(a.Body), "") {
						if at < last.at {
							t.Fatalf("the monitoring endpoint shows %d after %d", at, last.at)
						}
						last.at = at
					}
				}
			}
		}
		if signed < 300 || refused < 50 || grown < 100 || len(r.doubts) > 0 {
			t.Errorf("%d signed, %d of them larger, %d refused, %q", signed, grown, refused, r.doubts)
		}
	})
}

// slow is a store that stalls before and after it has done its work.
type slow struct{ witness.Store }

func (s slow) Advance(ctx context.Context, origin string, old, next witness.State) error {
	time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
	err := s.Store.Advance(ctx, origin, old, next)
	time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
	return err
}

// Environment of the witness that TestMain runs in a process of its own.
const (
	envState  = "SIGWARDEN_TEST_WITNESS_STATE"
	envSecret = "SIGWARDEN_TEST_WITNESS_SECRETS"
	envLog    = "SIGWARDEN_TEST_WITNESS_LOG"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(envState); path != "" {
		if err := serve(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serve(path string) error {
	st, err := store.OpenWitness(context.Background(), path, store.Options{Create: true})
	if err != nil {
		return err
	}
	var opts witness.Options
	for secret := range strings.SplitSeq(os.Getenv(envSecret), ",") {
		c, err := witness.ParseSecret(secret)
		if err != nil {
			return err
		}
		opts.Cosigners = append(opts.Cosigners, c)
	}
	key := os.Getenv(envLog)
	origin, _, _ := strings.Cut(key, "+")
	log, err := checkpoint.ForOrigin(origin, key)
	if err != nil {
		return err
	}
	opts.Store = slow{st}
	opts.Log = func(o string) *witness.Log {
		if o != origin {
			return nil
		}
		return &witness.Log{Log: log}
	}
	opts.ByPath = func(path string) (string, bool) { return origin, path == witness.PathOf(origin) }
	w, err := witness.New(opts)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	return http.Serve(listener, w.Handler(""))
}

// TestRaceAndKill: a thousand senders race on one log, honest ones and such that show
// another history, while the witness stalls and is killed again and again.
func TestRaceAndKill(t *testing.T) {
	kills, senders := 10, 1000
	if testing.Short() {
		kills, senders = 3, 200
	}
	l := newTree(t, "log.example/one", 5000)
	other := l.fork(100, 1)
	opened, shown := l.log(t), 0
	var secrets []string
	var keys []*witness.Verifier
	for _, a := range []witness.Algorithm{witness.Ed25519, witness.MLDSA44} {
		secret, c, err := witness.GenerateKey("witness.example/"+a.String(), a)
		if err != nil {
			t.Fatal(err)
		}
		secrets, keys = append(secrets, secret), append(keys, c.Verifier)
	}
	path := filepath.Join(t.TempDir(), "state.db")
	var mu sync.Mutex
	var address string
	var promises []promise
	begin := func() *exec.Cmd {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), envState+"="+path, envSecret+"="+strings.Join(secrets, ","), envLog+"="+l.key)
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		address = strings.TrimSpace(line)
		mu.Unlock()
		return c
	}
	child := begin()
	done := make(chan struct{})
	var wg sync.WaitGroup
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: senders, MaxIdleConns: senders}}
	var forking, noticed bool
	for i := range senders {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			seen := 0
			for {
				select {
				case <-done:
					return
				case <-time.After(time.Duration(rng.IntN(200)) * time.Millisecond):
				}
				mu.Lock()
				to, evil := address, forking && i%2 == 0
				mu.Unlock()
				history := l
				if evil {
					history = other
				}
				if i%10 == 0 && !evil {
					// What the monitoring endpoint shows is a promise too.
					resp, err := client.Get("http://" + to + "/" + witness.PathOf("log.example/one") + "/checkpoint")
					if err != nil {
						continue
					}
					body, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if err != nil || resp.StatusCode != 200 {
						continue
					}
					c, err := opened.Open(body)
					if err != nil {
						t.Errorf("%v", err)
						continue
					}
					mu.Lock()
					for _, s := range witness.Cosignatures(body, keys...) {
						promises = append(promises, promise{c.Size(), c.Root(), s.At})
						shown++
					}
					mu.Unlock()
					continue
				}
				size := min(seen+rng.IntN(20), len(l.leaves))
				raw := history.note(t, size)
				req := witness.Request{Old: uint64(seen), Proof: history.proof(seen, size), Note: raw}
				resp, err := client.Post("http://"+to+"/add-checkpoint", "", strings.NewReader(string(req.Format())))
				if err != nil {
					continue // it was killed
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil {
					continue
				}
				switch resp.StatusCode {
				case 200:
					got := witness.Cosignatures(append(raw, body...), keys...)
					mu.Lock()
					if len(got) != len(keys) {
						t.Errorf("%d of %d cosignatures verify", len(got), len(keys))
					}
					for _, s := range got {
						promises = append(promises, promise{uint64(size), history.root(size), s.At})
					}
					mu.Unlock()
					seen = size
				case 409:
					fmt.Sscan(string(body), &seen)
				case 422, 503:
					if strings.Contains(string(body), "cannot both be true") {
						mu.Lock()
						noticed = true
						mu.Unlock()
					}
				default:
					t.Errorf("%d %s", resp.StatusCode, body)
				}
			}
		})
	}
	// A life lasts until something was signed in it, at whatever pace the machine allows.
	until := func(ready func() bool) {
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			mu.Lock()
			yes := ready()
			mu.Unlock()
			if yes {
				return
			}
		}
	}
	for i := range kills {
		before := 0
		until(func() bool { before = len(promises) - shown; return true })
		time.Sleep(time.Duration(200+rand.IntN(400)) * time.Millisecond)
		until(func() bool { return len(promises)-shown >= before+20 || noticed })
		if i == kills-2 {
			mu.Lock()
			forking = true
			mu.Unlock()
		}
		child.Process.Kill()
		child.Wait()
		child = begin()
	}
	until(func() bool { return noticed })
	close(done)
	wg.Wait()
	child.Process.Kill()
	child.Wait()
	st, err := store.OpenWitness(context.Background(), path, store.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	state, err := st.State(context.Background(), "log.example/one")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d cosignatures, %d of them shown by the monitoring endpoint, in %d lives, up to size %d; %s", len(promises), shown, kills+1, state.Size, state.Doubt)
	if len(promises)-shown < 20*(kills-2) || shown == 0 || state.Doubt == "" {
		t.Errorf("%d cosignatures, doubt %q: this shows nothing", len(promises), state.Doubt)
	}
	audit(t, promises, l, other)
	for _, p := range promises {
		if p.size > state.Size || p.at > state.At {
			t.Errorf("size %d was signed at %d, and what is stored is size %d at %d", p.size, p.at, state.Size, state.At)
		}
	}
}

// TestOneProcess: a second process with the same state is refused.
func TestOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	st, err := store.OpenWitness(context.Background(), path, store.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if second, err := store.OpenWitness(context.Background(), path, store.Options{Create: true}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("%v, %v", second, err)
	}
}
