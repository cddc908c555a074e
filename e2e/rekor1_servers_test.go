package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rekorV1 is a real Rekor v1 server with everything that it needs: PostgreSQL,
// Trillian's log server and signer, and Redis for its index.
type rekorV1 struct {
	t         testing.TB
	dir       string
	url       string
	publicPEM string
	rpc       int // Trillian's port
	redis     int
	keyFile   string
	trees     []string // the oldest first
	server    *process
}

// needed returns a program of the system, or skips the test: loudly, and as a
// failure where SIGWARDEN_E2E_REQUIRED says that it has to be there.
func needed(t testing.TB, name string, more ...string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, pattern := range more {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	message := name + " is not installed: WHAT NEEDS IT IS NOT TESTED. Debian has the programs that are needed in postgresql, redis-server, rsyslog and rsyslog-gnutls."
	if os.Getenv("SIGWARDEN_E2E_REQUIRED") != "" {
		t.Fatal(message)
	}
	t.Skip(message)
	return ""
}

// anybody makes a command run as another user than root, as PostgreSQL wants it.
func anybody(t testing.TB, c *exec.Cmd, dirs ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	for _, dir := range dirs {
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
}

func output(t testing.TB, c *exec.Cmd) string {
	t.Helper()
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", c, err, out)
	}
	return string(out)
}

// spawn is start for a command that is prepared already.
func spawn(t testing.TB, c *exec.Cmd) *process {
	t.Helper()
	p := &process{Cmd: c, t: t, output: &lockedBuffer{}, done: make(chan struct{})}
	p.Stdout, p.Stderr = p.output, p.output
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.Wait(); close(p.done) }()
	t.Cleanup(p.kill)
	return p
}

func listens(port int) bool {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil
}

func (p *process) lives() {
	p.t.Helper()
	select {
	case <-p.done:
		p.t.Fatalf("%s ended: %s", filepath.Base(p.Path), p.output)
	default:
	}
}

func newRekorV1(t testing.TB) *rekorV1 {
	t.Helper()
	const debian = "/usr/lib/postgresql/*/bin/"
	initdb := needed(t, "initdb", debian+"initdb")
	postgres := needed(t, "postgres", debian+"postgres")
	psql := needed(t, "psql", debian+"psql")
	redis := needed(t, "redis-server")
	// Not below the test's own folder, which other users may not enter.
	dir, err := os.MkdirTemp("", "sigwarden-e2e-rekor1-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rekorV1{t: t, dir: dir, rpc: freePort(t), redis: freePort(t)}

	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	begin := exec.Command(initdb, "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-sync")
	begin.Dir = dir
	anybody(t, begin, dir, data)
	output(t, begin)
	port := freePort(t)
	db := exec.Command(postgres, "-D", data, "-p", strconv.Itoa(port), "-h", "127.0.0.1", "-k", dir, "-F", "-c", "max_connections=200")
	db.Dir = dir
	anybody(t, db)
	dbProcess := spawn(t, db)
	sql := func(database string, args ...string) *exec.Cmd {
		return exec.Command(psql, append([]string{"-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-q", "-d", database}, args...)...)
	}
	until(t, "PostgreSQL answers", 30*time.Second, func() bool { dbProcess.lives(); return sql("postgres", "-c", "SELECT 1").Run() == nil })
	output(t, sql("postgres", "-c", "CREATE DATABASE trillian"))
	// What is built already does not bring the source with it.
	output(t, exec.Command("go", "-C", filepath.Join("tools", "trillian"), "mod", "download", "github.com/google/trillian"))
	module := strings.TrimSpace(output(t, exec.Command("go", "-C", filepath.Join("tools", "trillian"), "list", "-m", "-f", "{{.Dir}}", "github.com/google/trillian")))
	output(t, sql("trillian", "-f", filepath.Join(module, "storage", "postgresql", "schema", "storage.sql")))

	cache := start(t, redis, "--port", strconv.Itoa(r.redis), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir)
	until(t, "Redis answers", 10*time.Second, func() bool { cache.lives(); return listens(r.redis) })
	uri := fmt.Sprintf("--postgresql_uri=postgresql://postgres@127.0.0.1:%d/trillian?sslmode=disable", port)
	common := []string{"--quota_system=noop", "--storage_system=postgresql", uri}
	logServer := start(t, program(t, "trillian", "trillian_log_server"), append(common, fmt.Sprintf("--rpc_endpoint=127.0.0.1:%d", r.rpc), fmt.Sprintf("--http_endpoint=127.0.0.1:%d", freePort(t)))...)
	until(t, "Trillian answers", 30*time.Second, func() bool { logServer.lives(); return listens(r.rpc) })
	start(t, program(t, "trillian", "trillian_log_signer"), append(common, "--force_master", "--sequencer_interval=50ms", "--batch_size=1000",
		fmt.Sprintf("--rpc_endpoint=127.0.0.1:%d", freePort(t)), fmt.Sprintf("--http_endpoint=127.0.0.1:%d", freePort(t)))...)

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	r.keyFile = filepath.Join(dir, "rekor.pem")
	if err := os.WriteFile(r.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		t.Fatal(err)
	}
	r.publicPEM = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	r.url = fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	r.rotate("rekor.acme.example")
	return r
}

// rotate lets the server go on with another tree, under a name: those before it
// are listed as inactive from then on.
func (r *rekorV1) rotate(host string) {
	r.t.Helper()
	if r.server != nil {
		r.server.stop(20 * time.Second)
	}
	var id string
	until(r.t, "Trillian makes a tree", 30*time.Second, func() bool {
		out, err := exec.Command(program(r.t, "trillian", "createtree"), fmt.Sprintf("--admin_server=127.0.0.1:%d", r.rpc)).Output()
		id = strings.TrimSpace(string(out))
		return err == nil
	})
	args := []string{"serve", "--rekor_server.address=127.0.0.1", "--port=" + r.url[strings.LastIndexByte(r.url, ':')+1:], "--rekor_server.hostname=" + host,
		"--trillian_log_server.address=127.0.0.1", fmt.Sprintf("--trillian_log_server.port=%d", r.rpc), "--trillian_log_server.tlog_id=" + id,
		"--rekor_server.signer=" + r.keyFile, "--redis_server.address=127.0.0.1", fmt.Sprintf("--redis_server.port=%d", r.redis), "--enable_retrieve_api=true"}
	if len(r.trees) > 0 {
		var list strings.Builder
		for _, tree := range r.trees {
			fmt.Fprintf(&list, "- treeID: %s\n", tree)
		}
		shards := filepath.Join(r.dir, "shards.yaml")
		if err := os.WriteFile(shards, []byte(list.String()), 0o600); err != nil {
			r.t.Fatal(err)
		}
		args = append(args, "--trillian_log_server.sharding_config="+shards)
	}
	r.trees = append(r.trees, id)
	r.server = start(r.t, program(r.t, "rekor1", "rekor-server"), args...)
	until(r.t, "the Rekor v1 server answers", 40*time.Second, func() bool { r.server.lives(); return answers(r.url + "/api/v1/log") })
}

// cli runs rekor-cli and returns what it prints as JSON.
func (r *rekorV1) cli(args ...string) ([]byte, error) {
	c := exec.Command(program(r.t, "rekor1", "rekor-cli"), append(args, "--rekor_server", r.url, "--format", "json", "--store_tree_state=false")...)
	c.Env = append(os.Environ(), "HOME="+r.dir)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("rekor-cli %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.Bytes(), nil
}

// upload logs an artifact, and returns its global index and its UUID.
func (r *rekorV1) upload(u upload) (index uint64, uuid string, err error) {
	out, err := r.cli(append([]string{"upload", "--type", u.typeOf()}, u.args...)...)
	if err != nil {
		return 0, "", err
	}
	var doc struct {
		Location      string
		Index         int64
		AlreadyExists bool
	}
	if err := json.Unmarshal(out, &doc); err != nil || doc.Location == "" || doc.AlreadyExists {
		return 0, "", fmt.Errorf("rekor-cli upload %s printed %s (%v)", u.kind, out, err)
	}
	return uint64(doc.Index), doc.Location[strings.LastIndexByte(doc.Location, '/')+1:], nil
}

// propose logs entries through the API, and returns the global index of each.
func (r *rekorV1) propose(bodies [][]byte) []uint64 {
	r.t.Helper()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	return parallel(r.t, 32, len(bodies), func(i int) (uint64, error) {
		resp, err := client.Post(r.url+"/api/v1/log/entries", "application/json", bytes.NewReader(bodies[i]))
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		var doc map[string]struct {
			LogIndex uint64 `json:"logIndex"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil || resp.StatusCode != http.StatusCreated || len(doc) != 1 {
			return 0, fmt.Errorf("status %d for %s: %w", resp.StatusCode, bodies[i], err)
		}
		for _, e := range doc {
			return e.LogIndex, nil
		}
		return 0, nil
	})
}

// served returns entries as the server serves them, by their global index.
func (r *rekorV1) served(total uint64) [][]byte {
	r.t.Helper()
	const most = 10
	chunks := parallel(r.t, 4, int((total+most-1)/most), func(i int) ([][]byte, error) {
		var ask struct {
			LogIndexes []uint64 `json:"logIndexes"`
		}
		for k := uint64(i) * most; k < min(total, uint64(i+1)*most); k++ {
			ask.LogIndexes = append(ask.LogIndexes, k)
		}
		body, _ := json.Marshal(ask)
		resp, err := http.Post(r.url+"/api/v1/log/entries/retrieve", "application/json", bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		var list []map[string]struct {
			LogIndex uint64 `json:"logIndex"`
			Body     []byte `json:"body"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
			return nil, err
		}
		out := make([][]byte, len(ask.LogIndexes))
		for _, m := range list {
			for _, e := range m {
				out[e.LogIndex-ask.LogIndexes[0]] = e.Body
			}
		}
		return out, nil
	})
	var all [][]byte
	for _, c := range chunks {
		all = append(all, c...)
	}
	return all
}

// parallel does something n times with several workers.
func parallel[T any](t testing.TB, workers, n int, do func(i int) (T, error)) []T {
	t.Helper()
	out, errs := make([]T, n), make(chan error, n)
	work, done := make(chan int), make(chan struct{})
	for range workers {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range work {
				var err error
				if out[i], err = do(i); err != nil {
					errs <- err
				}
			}
		}()
	}
	for i := range n {
		work <- i
	}
	close(work)
	for range workers {
		<-done
	}
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	return out
}
