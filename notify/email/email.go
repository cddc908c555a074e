// Package email sends events as plain text mail.
package email

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/sigwarden/sigwarden/notify"
)

// Options configure a channel.
type Options struct {
	// SMTP is smtps://user@host:465 (TLS from the start) or smtp://user@host:587
	// (STARTTLS where the server offers it).
	SMTP, Password string
	From           string
	To             []string
	RootCAs        *x509.CertPool
}

// Channel is a mailbox.
type Channel struct {
	opts       Options
	host, user string
	port       int
	implicit   bool
	domain     string // for message ids
}

// New returns a mail channel.
func New(opts Options) (*Channel, error) {
	u, err := url.Parse(opts.SMTP)
	if err != nil || u.Scheme != "smtp" && u.Scheme != "smtps" || u.Hostname() == "" {
		return nil, errors.New("smtp is not of the form smtps://user@host:465 or smtp://host:25")
	}
	if _, ok := u.User.Password(); ok {
		return nil, errors.New("smtp holds a password; write it under password")
	}
	c := &Channel{opts: opts, host: u.Hostname(), user: u.User.Username(), implicit: u.Scheme == "smtps"}
	c.port = map[bool]int{true: 465, false: 25}[c.implicit]
	if p := u.Port(); p != "" {
		if c.port, err = strconv.Atoi(p); err != nil {
			return nil, errors.New("smtp has no usable port")
		}
	}
	if c.user != "" && opts.Password == "" {
		return nil, errors.New("smtp names a user, but there is no password")
	}
	_, c.domain, _ = strings.Cut(strings.TrimSuffix(opts.From, ">"), "@")
	if _, err := c.message(notify.Event{ID: "check"}); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Channel) message(e notify.Event) (*mail.Msg, error) {
	m := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := m.From(c.opts.From); err != nil {
		return nil, err
	}
	if err := m.To(c.opts.To...); err != nil {
		return nil, err
	}
	// The id of the event makes repeats one message for those mailboxes that
	// look, and one thread for the others.
	m.SetMessageIDWithValue(e.ID + "@" + c.domain)
	m.SetDateWithValue(time.Now())
	m.SetGenHeader("Auto-Submitted", "auto-generated")
	m.SetGenHeader("X-Sigwarden-Event", e.ID)
	m.SetGenHeader("X-Sigwarden-Severity", notify.Clean(e.Severity, 20))
	m.Subject("[sigwarden] " + notify.Clean(e.Title, notify.MaxTitle))
	m.SetBodyString(mail.TypeTextPlain, e.Plain())
	return m, nil
}

// Notify sends one event.
func (c *Channel) Notify(ctx context.Context, e notify.Event) error {
	m, err := c.message(e)
	if err != nil {
		return fmt.Errorf("%w: %w", notify.ErrRefused, err)
	}
	client, err := c.client(ctx)
	if err != nil {
		return err
	}
	err = client.DialAndSendWithContext(ctx, m)
	if m.IsDelivered() {
		return nil // a farewell that fails does not undo that it was accepted
	}
	return judge(err)
}

func (c *Channel) client(ctx context.Context) (*mail.Client, error) {
	tlsConfig := &tls.Config{ServerName: c.host, RootCAs: c.opts.RootCAs, MinVersion: tls.VersionTLS12}
	options := []mail.Option{
		mail.WithPort(c.port), mail.WithTimeout(15 * time.Second), mail.WithTLSConfig(tlsConfig),
		// The library looks at the context while it dials only; closing the
		// connection ends a conversation with a silent server too.
		mail.WithDialContextFunc(func(dial context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(dial, network, address)
			if err != nil {
				return nil, err
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			if !c.implicit {
				return conn, nil
			}
			secure := tls.Client(conn, tlsConfig)
			if err := secure.HandshakeContext(dial); err != nil {
				conn.Close()
				return nil, err
			}
			return secure, nil
		}),
	}
	if c.implicit {
		options = append(options, mail.WithSSL())
	} else {
		options = append(options, mail.WithTLSPolicy(mail.TLSOpportunistic))
	}
	if c.user != "" {
		options = append(options, mail.WithUsername(c.user), mail.WithPassword(c.opts.Password))
		if c.implicit {
			// Discovery asks the library's own dialer whether the connection is
			// secure; with ours that has to be said.
			options = append(options, mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthSCRAMSHA1, mail.SMTPAuthPlain, mail.SMTPAuthLogin))
		} else {
			options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover))
		}
	}
	return mail.NewClient(c.host, options...)
}

// judge tells what a server refused for good from what may work later.
// Credentials and senders can be mended: only the message itself is hopeless.
func judge(err error) error {
	var send *mail.SendError
	var reply *textproto.Error
	code := 0
	switch {
	case errors.As(err, &send):
		code = send.ErrorCode()
	case errors.As(err, &reply):
		code = reply.Code
	}
	if code == 552 || code == 554 {
		return fmt.Errorf("%w: %w", notify.ErrRefused, err)
	}
	return err
}
