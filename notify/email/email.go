// Package email sends events as plain text mail.
package email

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
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

	mu sync.Mutex
	// accepted are the recipients whose mail was accepted, by event: one that is
	// refused must not bring the others the same mail again and again.
	accepted map[string]map[string]bool
}

// maxPartial bounds the events of which some recipients have had their mail.
const maxPartial = 1000

// New returns a mail channel.
func New(opts Options) (*Channel, error) {
	u, err := url.Parse(opts.SMTP)
	if err != nil || u.Scheme != "smtp" && u.Scheme != "smtps" || u.Hostname() == "" {
		return nil, errors.New("smtp is not of the form smtps://user@host:465 or smtp://host:25")
	}
	if _, ok := u.User.Password(); ok {
		return nil, errors.New("smtp holds a password; write it under password")
	}
	if len(opts.To) == 0 {
		return nil, errors.New("to names nobody")
	}
	c := &Channel{accepted: map[string]map[string]bool{}, opts: opts, host: u.Hostname(), user: u.User.Username(), implicit: u.Scheme == "smtps"}
	c.port = map[bool]int{true: 465, false: 25}[c.implicit]
	if p := u.Port(); p != "" {
		if c.port, err = strconv.Atoi(p); err != nil {
			return nil, errors.New("smtp has no usable port")
		}
	}
	if c.user != "" && opts.Password == "" {
		return nil, errors.New("smtp names a user, but there is no password")
	}
	if c.user == "" && opts.Password != "" {
		return nil, errors.New("there is a password, but smtp names no user")
	}
	_, c.domain, _ = strings.Cut(strings.TrimSuffix(opts.From, ">"), "@")
	for _, to := range opts.To {
		if _, err := c.message(notify.Event{ID: "check"}, to); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Channel) message(e notify.Event, to string) (*mail.Msg, error) {
	m := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := m.From(c.opts.From); err != nil {
		return nil, err
	}
	if err := m.To(to); err != nil {
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
	for _, f := range e.Files {
		if err := m.AttachReader(f.Name, bytes.NewReader(f.Data), mail.WithFileContentType(mail.ContentType(f.Type))); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Notify sends one event, in a mail of its own to each recipient: one address
// that is refused must not keep the alert from the others.
func (c *Channel) Notify(ctx context.Context, e notify.Event) error {
	had := c.had(e.ID)
	var messages []*mail.Msg
	var recipients []string
	for _, to := range c.opts.To {
		if had[to] {
			continue
		}
		m, err := c.message(e, to)
		if err != nil {
			return fmt.Errorf("%w: %w", notify.ErrRefused, err)
		}
		messages, recipients = append(messages, m), append(recipients, to)
	}
	client, err := c.client(ctx)
	if err != nil {
		return err
	}
	err = client.DialAndSendWithContext(ctx, messages...)
	var failed []error
	for i, m := range messages {
		switch {
		case m.IsDelivered():
			// A farewell that fails does not undo that it was accepted.
			had[recipients[i]] = true
		case m.HasSendError():
			failed = append(failed, judge(m.SendError()))
		default:
			failed = append(failed, err) // the same for all: no connection, no login
		}
	}
	c.remember(e.ID, had)
	return join(failed, len(had) > 0)
}

// join makes one error of those of several recipients, which is for good only if each
// of them is. Where others have accepted the mail, one that is not known to the server
// is given up: nothing is wrong but the address.
func join(failed []error, others bool) error {
	if len(failed) == 0 {
		return nil
	}
	first := failed[0]
	for i, err := range failed {
		if others && unknown(err) {
			failed[i] = fmt.Errorf("%w: %w", notify.ErrRefused, err)
			first = failed[i]
		}
	}
	for _, err := range failed {
		if !errors.Is(err, notify.ErrRefused) {
			first = err
		}
	}
	if len(failed) > 1 {
		first = fmt.Errorf("%d recipients did not get it: %w", len(failed), first)
	}
	if others {
		first = fmt.Errorf("%w of the recipients: %w", notify.ErrPartly, first)
	}
	return first
}

// unknown reports whether a server refuses a recipient for good.
func unknown(err error) bool {
	var send *mail.SendError
	return errors.As(err, &send) && send.Reason == mail.ErrSMTPRcptTo && !send.IsTemp()
}

func (c *Channel) had(id string) map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	had := map[string]bool{}
	maps.Copy(had, c.accepted[id])
	return had
}

func (c *Channel) remember(id string, had map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(had) == len(c.opts.To) || len(had) == 0 || len(c.accepted) >= maxPartial {
		delete(c.accepted, id)
		return
	}
	c.accepted[id] = had
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
		policy := mail.TLSOpportunistic
		if c.user != "" {
			policy = mail.TLSMandatory // credentials do not go in clear
		}
		options = append(options, mail.WithTLSPolicy(policy))
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

var hopeless = regexp.MustCompile(`\b5\.(3\.4|6\.[0-9]+)\b`)

// judge tells what a server refused for good from what may work later.
// Credentials, senders, recipients and full mailboxes can be mended: only a
// message that is too large or of a form that is not taken is hopeless, and that
// is said after its text and with an enhanced code (RFC 3463, 5.3.4 and 5.6).
func judge(err error) error {
	var send *mail.SendError
	if !errors.As(err, &send) || send.Reason != mail.ErrSMTPDataClose {
		return err
	}
	// The library reads the code only where the server announces that it sends it.
	if hopeless.MatchString(err.Error()) {
		return fmt.Errorf("%w: %w", notify.ErrRefused, err)
	}
	return err
}
