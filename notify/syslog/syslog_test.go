package syslog_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/notify/notifytest"
	"github.com/sigwarden/sigwarden/notify/syslog"
)

// grammar is RFC 5424's, as far as it is used.
var grammar = regexp.MustCompile(`^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (\S{1,255}) sigwarden (\d+) (\S{1,32}) (\[sigwarden@32473(?: [a-z]+="(?:[^"\\\]]|\\["\\\]])*")+\]) \x{feff}(.*)$`)

func check(t *testing.T, message string, e notify.Event) {
	t.Helper()
	m := grammar.FindStringSubmatch(message)
	if m == nil {
		t.Fatalf("not of RFC 5424: %.300q", message)
	}
	notifytest.Visible(t, "the message", strings.Replace(message, "\ufeff", "", 1))
	var doc struct{ ID, Type string }
	if err := json.Unmarshal([]byte(m[7]), &doc); err != nil || doc.ID != e.ID || m[1] != "130" || m[2] != "2026-05-04T12:00:00.000000Z" {
		t.Errorf("%q, %v", m[1:], err)
	}
}

// listen accepts connections and gives what came over each.
func listen(t *testing.T, config *tls.Config) (string, <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	t.Cleanup(func() { l.Close() })
	got := make(chan string, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			data, _ := io.ReadAll(conn)
			conn.Close()
			got <- string(data)
		}
	}()
	return l.Addr().String(), got
}

func frame(t *testing.T, data string) string {
	t.Helper()
	count, message, _ := strings.Cut(data, " ")
	if count != fmt.Sprint(len(message)) {
		t.Errorf("%s octets announced, %d came", count, len(message))
	}
	return message
}

func TestTCP(t *testing.T) {
	address, got := listen(t, nil)
	c, err := syslog.New(syslog.Options{URL: "tcp://" + address})
	if err != nil {
		t.Fatal(err)
	}
	e := notifytest.Hostile()
	for range 2 {
		if err := c.Notify(context.Background(), e); err != nil {
			t.Fatal(err)
		}
		check(t, frame(t, <-got), e)
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	address, got := listen(t, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	e := notifytest.Hostile()
	c, err := syslog.New(syslog.Options{URL: "tls://" + address, RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Notify(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	check(t, frame(t, <-got), e)
	stranger, err := syslog.New(syslog.Options{URL: "tls://" + address})
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Notify(context.Background(), e); err == nil {
		t.Error("a server that nobody vouches for was taken")
	}
}

func TestUDP(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, err := syslog.New(syslog.Options{URL: "udp://" + conn.LocalAddr().String()})
	if err != nil {
		t.Fatal(err)
	}
	e := notifytest.Hostile()
	if err := c.Notify(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 70000)
	n, _, err := conn.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	check(t, string(buf[:n]), e)
	e.Data = json.RawMessage(`"` + strings.Repeat("x", 70000) + `"`)
	if err := c.Notify(context.Background(), e); err == nil {
		t.Error("a datagram that is too large")
	}
}

func TestFailures(t *testing.T) {
	address, _ := listen(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // accepts, and never reads
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	c, _ := syslog.New(syslog.Options{URL: "tcp://" + l.Addr().String()})
	e := notifytest.Hostile()
	e.Data = json.RawMessage(`"` + strings.Repeat("x", 30<<20) + `"`)
	if err := c.Notify(ctx, e); err == nil {
		t.Error("delivered to a server that does not read")
	}
	c, _ = syslog.New(syslog.Options{URL: "tcp://127.0.0.1:1"})
	if err := c.Notify(context.Background(), e); err == nil {
		t.Error("delivered to nobody")
	}
	for _, o := range []syslog.Options{{}, {URL: "http://x"}, {URL: "tcp://"}, {URL: "tcp://x/path"}, {URL: "tcp://u:p@x"}, {URL: "tcp://" + address, Facility: "kern"}} {
		if _, err := syslog.New(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
}
