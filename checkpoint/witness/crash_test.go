//go:build unix

package witness_test

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/witness"
)

// TestCrashPoints ends the process of a witness before and after it stores what it promises,
// and before and after it signs. When it is back it knows of everything that somebody was
// given, and signs nothing that contradicts it.
func TestCrashPoints(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the program, which the race detector does not see")
	}
	bin := filepath.Join(t.TempDir(), "witness.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "crashpoints", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const steps = 6
	for _, place := range []string{"before store.Witness.commit", "after store.Witness.commit", "before a cosignature", "after a cosignature"} {
		for nth := 1; nth <= steps; nth++ {
			at := place + "#" + strconv.Itoa(nth)
			l := newTree(t, "log.example/one", 200)
			secret, _, err := witness.GenerateKey("witness.example/one", witness.Ed25519)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "state.db")
			begin := func(crash string) (*exec.Cmd, string) {
				t.Helper()
				c := exec.Command(bin)
				c.Env = append(os.Environ(), envState+"="+path, envSecret+"="+secret, envLog+"="+l.key, "SIGWARDEN_CRASH="+crash)
				c.Stderr = os.Stderr
				out, err := c.StdoutPipe()
				if err == nil {
					err = c.Start()
				}
				if err != nil {
					t.Fatal(err)
				}
				line, err := bufio.NewReader(out).ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				return c, strings.TrimSpace(line)
			}
			child, address := begin(at)
			client := &http.Client{Timeout: 10 * time.Second}
			ask := func(history *tree, from, to int) (status int, body string) {
				resp, err := client.Post("http://"+address+"/add-checkpoint", "", strings.NewReader(string(history.request(t, from, to))))
				if err != nil {
					return 0, ""
				}
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				if err != nil {
					return 0, ""
				}
				return resp.StatusCode, string(text)
			}
			given, asked := 0, 0
			for n := 1; n <= steps; n++ {
				asked = n * 10
				status, body := ask(l, given, asked)
				if status == 0 {
					break
				}
				if status != 200 {
					t.Fatalf("%s: %d %s", at, status, body)
				}
				given = asked
			}
			child.Wait()
			if state, ok := child.ProcessState.Sys().(syscall.WaitStatus); !ok || !state.Signaled() {
				t.Fatalf("%s: it was not reached: %v", at, child.ProcessState)
			}
			child, address = begin("")
			status, body := ask(l, 1, 200) // which tells what it knows
			known, err := strconv.Atoi(strings.TrimSpace(body))
			if nth == 1 && status != 409 && known == 0 {
				known, err = 0, nil // it has promised nothing yet
			}
			if err != nil || known < given || known > asked {
				t.Errorf("%s: %d were signed, %d were asked for, and it knows of %q (%d)", at, given, asked, body, status)
			}
			if known > 5 {
				if status, body := ask(l.fork(5, 1), known, 200); status != 422 {
					t.Errorf("%s: another history: %d %s", at, status, body)
				}
			}
			child.Process.Kill()
			child.Wait()
		}
	}
}
