//go:build crashpoints && unix

package crash

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// The environment says what happens: SIGWARDEN_CRASH_LIST names a file to which the process and every
// place that is passed are added, a line each; SIGWARDEN_CRASH is "before|after NAME#N", the place
// where the process ends, the Nth time that it is passed.
var (
	mu     sync.Mutex
	passed = map[string]int{}
	list   = os.Getenv("SIGWARDEN_CRASH_LIST")
	end    = os.Getenv("SIGWARDEN_CRASH")
)

// Before is called before an effect.
func Before(name string) { pass("before " + name) }

// After is called once an effect is done.
func After(name string) { pass("after " + name) }

// Caller names the function that has called the one which asks, from skip further up.
func Caller(skip int) string {
	pc, _, _, ok := runtime.Caller(skip + 2)
	if !ok {
		return "unknown"
	}
	name := runtime.FuncForPC(pc).Name()
	name, _, _ = strings.Cut(name[strings.LastIndex(name, "/")+1:], ".func")
	return strings.NewReplacer("(*", "", ")", "").Replace(name)
}

func pass(place string) {
	mu.Lock()
	defer mu.Unlock()
	passed[place]++
	if list != "" {
		f, err := os.OpenFile(list, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			fmt.Fprintln(f, os.Getpid(), place)
			f.Close()
		}
	}
	where, nth, ok := strings.Cut(end, "#")
	if n, err := strconv.Atoi(nth); ok && err == nil && where == place && passed[place] == n {
		// As an administrator or the kernel does it: nothing is tidied up, no buffer is flushed.
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
