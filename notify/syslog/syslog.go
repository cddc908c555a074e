// Package syslog sends events to a syslog server, as RFC 5424 says: over UDP
// (RFC 5426), TCP (RFC 6587, with counted octets) or TLS (RFC 5425).
package syslog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/notify"
)

// Options configure a channel.
type Options struct {
	// URL is udp://host:514, tcp://host:601 or tls://host:6514.
	URL string
	// RootCAs verify the server of tls://; nil: those of the system.
	RootCAs *x509.CertPool
	// Facility by name; empty: local0.
	Facility string
}

// Channel is a syslog server.
type Channel struct {
	network, address string
	tls              *tls.Config
	facility         int
	host             string
}

// facilities of RFC 5424, 6.2.1, that a program may use.
var facilities = map[string]int{"user": 1, "daemon": 3, "auth": 4, "authpriv": 10, "local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23}

// severities of RFC 5424, by ours.
var severities = map[string]int{"critical": 2, "high": 3, "medium": 4, "low": 5, "info": 6}

// maxDatagram is what fits into a UDP datagram everywhere in practice.
const maxDatagram = 65000

// New returns a channel.
func New(opts Options) (*Channel, error) {
	u, err := url.Parse(opts.URL)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Path != "" {
		return nil, errors.New("url is not of the form udp://host:514, tcp://host:601 or tls://host:6514")
	}
	port := map[string]string{"udp": "514", "tcp": "601", "tls": "6514"}[u.Scheme]
	if port == "" {
		return nil, errors.New("url does not begin with udp://, tcp:// or tls://")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if opts.Facility == "" {
		opts.Facility = "local0"
	}
	facility, ok := facilities[opts.Facility]
	if !ok {
		return nil, fmt.Errorf("facility %.20q is not known: want user, daemon, auth, authpriv or local0 to local7", opts.Facility)
	}
	c := &Channel{network: u.Scheme, address: net.JoinHostPort(u.Hostname(), port), facility: facility, host: "-"}
	if u.Scheme == "tls" {
		c.network, c.tls = "tcp", &tls.Config{ServerName: u.Hostname(), RootCAs: opts.RootCAs, MinVersion: tls.VersionTLS12}
	}
	if name, err := os.Hostname(); err == nil {
		c.host = printable(name, 255)
	}
	return c, nil
}

// Notify sends one event. Syslog knows no answer: accepted means that the bytes
// are on their way, and for TCP that the other side has closed the connection in
// good order.
func (c *Channel) Notify(ctx context.Context, e notify.Event) error {
	message, err := c.message(e)
	if err != nil {
		return fmt.Errorf("%w: %w", notify.ErrRefused, err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, c.network, c.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if c.network == "udp" {
		if len(message) > maxDatagram {
			return fmt.Errorf("%w: the message has %d bytes, and a datagram takes %d; use tcp:// or tls://", notify.ErrRefused, len(message), maxDatagram)
		}
		_, err = conn.Write(message)
		return err
	}
	if c.tls != nil {
		secure := tls.Client(conn, c.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = secure
	}
	if _, err := fmt.Fprintf(conn, "%d %s", len(message), message); err != nil {
		return err
	}
	return finish(ctx, conn)
}

// finish ends the sending side and waits until the other side has ended too: what
// was written into a connection that is then reset may be lost.
func finish(ctx context.Context, conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return nil
	}
	if err := half.CloseWrite(); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := conn.Read(make([]byte, 1))
	var late net.Error
	if errors.As(err, &late) && late.Timeout() || ctx.Err() == nil && err != nil && strings.Contains(err.Error(), "EOF") {
		return ctx.Err()
	}
	return err
}

// message is one of RFC 5424: the body of a webhook as its text, and what filters
// look for as structured data.
func (c *Channel) message(e notify.Event) ([]byte, error) {
	body, err := e.Body(true)
	if err != nil {
		return nil, err
	}
	severity, ok := severities[e.Severity]
	if !ok {
		severity = 5
	}
	// 32473 is the enterprise number for examples (RFC 5612): there is none of ours.
	return fmt.Appendf(nil, "<%d>1 %s %s sigwarden %d %s [sigwarden@32473 id=\"%s\" type=\"%s\" severity=\"%s\"] \ufeff%s",
		c.facility*8+severity, e.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), c.host, os.Getpid(), printable(e.Type, 32), value(e.ID), value(e.Type), value(e.Severity), body), nil
}

// printable is a text in printable ASCII without spaces; "-" for none.
func printable(s string, most int) string {
	out := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if out == "" {
		return "-"
	}
	return out[:min(len(out), most)]
}

// value escapes a value of structured data (RFC 5424, 6.3.3).
func value(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(notify.Clean(s, 200))
}
