package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/e2e/bench/corpus"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

const (
	idleLogs  = 20
	idleFirst = 20 * time.Second // until everything was read
	idleFor   = 3 * time.Minute
)

// idle follows logs that do not grow, each polled once a minute, and returns the share of a core
// that it takes.
func (b *bench) idle() (float64, string, error) {
	dir := filepath.Join(b.dir, "idle")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, "", err
	}
	mux := http.NewServeMux()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, "", err
	}
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	defer server.Close()
	config := "schedule: \"@every 1m\"\nstate: " + dir + "/state.db\nlogs:\n"
	for i := range idleLogs {
		name := fmt.Sprintf("log%d", i)
		log, err := locallog.New(name + ".example")
		if err != nil {
			return 0, "", err
		}
		if _, err := log.Append(b.v2.Leaves(uint64(i)*1000, 1000)...); err != nil {
			return 0, "", err
		}
		mux.Handle("/"+name+"/", http.StripPrefix("/"+name, locallog.NewServer(log)))
		if err := os.WriteFile(filepath.Join(dir, name+".pub"), []byte(log.PublicKeyPEM()), 0o600); err != nil {
			return 0, "", err
		}
		config += fmt.Sprintf("  - {name: %s, type: rekor-v2, url: 'http://%s/%s', origin: %s.example, public_key: %s/%s.pub, start: first}\n", name, listener.Addr(), name, name, dir, name)
	}
	for _, suffix := range []string{"", "-wal", "-shm", "-ledger-mark", "-signing-key"} {
		os.Remove(dir + "/state.db" + suffix)
	}
	path := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(path, []byte(config+"watchlist:\n"+corpus.Watches(10, 0)), 0o600); err != nil {
		return 0, "", err
	}
	c := exec.Command(b.program, "run", "-c", path)
	var said bytes.Buffer
	c.Stderr = &said
	if err := c.Start(); err != nil {
		return 0, "", err
	}
	time.Sleep(idleFirst)
	before, err := used(c.Process.Pid)
	if err == nil {
		time.Sleep(idleFor)
		var after, peak float64
		if after, err = used(c.Process.Pid); err == nil {
			data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
			_, rest, _ := strings.Cut(string(data), "VmHWM:")
			if fields := strings.Fields(rest); len(fields) > 0 {
				peak, _ = strconv.ParseFloat(fields[0], 64)
			}
			c.Process.Signal(os.Interrupt)
			c.Wait()
			return (after - before) / idleFor.Seconds(), fmt.Sprintf("of a core, %.0f MB", peak/1024), nil
		}
	}
	c.Process.Kill()
	c.Wait()
	return 0, "", fmt.Errorf("%w\n%s", err, said.String())
}

// used returns the seconds of processors that a process has had.
func used(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// Behind the name in parentheses: state, and 10 others, then user and system time in ticks
	// (proc_pid_stat(5)).
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is %q", pid, data)
	}
	user, err := strconv.ParseFloat(fields[11], 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100, err
}
