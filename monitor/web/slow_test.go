package web

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// TestSlowClients: who sends a letter now and then is let go of, and keeps nobody waiting.
func TestSlowClients(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the limits of the server")
	}
	t.Parallel()
	w := newWorld()
	address := listening(t, w)

	const clients = 100
	gone := make(chan error, 3*clients)
	slow := func(head string) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			gone <- err
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, head)
		end := time.Now().Add(20 * time.Second)
		conn.SetReadDeadline(end)
		hung := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, conn)
			hung <- err
		}()
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case err := <-hung:
				if errors.Is(err, os.ErrDeadlineExceeded) {
					gone <- fmt.Errorf("a client that sent %.30q is still there after 20 seconds", head)
					return
				}
				gone <- nil
				return
			case <-tick.C:
				conn.Write([]byte("a"))
			}
		}
	}
	for range clients {
		go slow("GET / HTTP/1.1\r\nHost: sigwarden.example\r\nX-Slow: ")
		go slow("POST /findings/f-1 HTTP/1.1\r\nHost: sigwarden.example\r\nAuthorization: Bearer decider\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 4000\r\n\r\na=")
		go slow("POST /api/v1/findings/f-1/triage HTTP/1.1\r\nHost: sigwarden.example\r\nAuthorization: Bearer decider\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n{\"a")
	}
	// Others are served meanwhile.
	time.Sleep(time.Second)
	client := &http.Client{Timeout: 3 * time.Second}
	for range 5 {
		resp, err := client.Get("http://" + address + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s", resp.Status)
		}
	}
	for range 3 * clients {
		if err := <-gone; err != nil {
			t.Error(err)
		}
	}
	if len(w.decided) > 0 {
		t.Errorf("%v", w.decided)
	}
}
