// Package config reads the configuration: YAML into structs, strictly, with
// file, line and column for everything that is wrong. It imports nothing of
// the project, and knows nothing of what a pattern or a key means.
package config

import (
	"time"

	"github.com/robfig/cron/v3"
)

// Config is a whole configuration file.
type Config struct {
	// State is the SQLite file; default sigwarden.db beside the configuration.
	State string
	// Schedule is the default for every log; default @every 1m.
	Schedule Schedule
	// Contact is whom operators of logs can write to, an e-mail address or a URL;
	// it is sent with every request. Default: nobody.
	Contact string
	Trust   Trust
	Logs    []Log
	Watches []Watch
	Notify  Notify
	HTTP    HTTP
	Witness Witness
	Signing Signing
	// Retention is how long what was found is kept; default: for ever.
	Retention Retention
	Reports   []Report
	Publish   Publish
	Sources   []Source

	file *file
}

// Trust says where certificate authorities and log keys come from: exactly one
// of TrustedRoot, Sigstore and Mirror is set.
type Trust struct {
	// TrustedRoot is the path of a pinned trusted_root.json.
	TrustedRoot string
	// Sigstore names an instance whose TUF repository is known: public-good (the
	// default) or staging.
	Sigstore string
	// Mirror is the URL of another TUF repository, Root its first root metadata,
	// with which all trust in it begins.
	Mirror string
	Root   []byte
	// MonitorConfig is the text of a MonitorConfig: read URLs by origin.
	MonitorConfig []byte
}

// Log is one log that is spelt out, or all of one kind that the trust root
// names.
type Log struct {
	Path string // in the file, like logs[0]
	// Sigstore is "rekor" for every Rekor log of the trust root; those have no
	// Name, Type, URL, Origin, PublicKey and CA here.
	Sigstore string
	// Name is how people call it; default: the origin.
	Name string
	// Type is rekor-v1, a server with one or several trees, or rekor-v2.
	Type string
	// URL is the read prefix.
	URL string
	// Origin is the first line of its checkpoints; default: the URL without its
	// scheme.
	Origin string
	// PublicKey is PEM text or a verifier key; a path was read. Empty: the key
	// of the trusted root for this origin.
	PublicKey string
	// CA is PEM text of certificate authorities; empty: those of Trust.
	CA string
	// Start is latest, first or an index.
	Start string
	// Entries is false for a log whose consistency alone is verified.
	Entries           bool
	Schedule          Schedule
	RequestsPerSecond float64       // 0: default
	Parallel          int           // 0: default
	StaleAfter        time.Duration // 0: off
	TLSCA             string        // PEM text
	Policy            *LogPolicy    // nil: no cosignatures are asked for
}

// LogPolicy says which cosignatures checkpoints of a log must have.
type LogPolicy struct {
	Path string // in the configuration
	// Text is a tlog-policy; the file was read. Require: without them nothing of the log
	// is believed. MaxAge is how old they may be.
	Text    []byte
	Require bool
	MaxAge  time.Duration
}

// Watch is one rule of the watchlist.
type Watch struct {
	Path      string // like watchlist[0]
	Name      string
	Match     []Item
	Expect    []Item
	Terms     []Terms  // of the items of Expect, in their order
	Severity  string   // default high
	Notify    []string // channels; nil: every one
	Untrusted string   // record (default), alert, ignore
	// Silence is how long no expected event may come before that is told; 0: for
	// ever.
	Silence time.Duration
}

// Terms are what an item of expect asks for beside its patterns.
type Terms struct {
	Digests *DigestList
	AtMost  *AtMost
	OncePer string   // "digest" or the name of an extension
	Between []string // hours of the week, as they are written
	// From and Until are when the item is valid; zero: always.
	From, Until time.Time
}

// AtMost is a number of events in a time.
type AtMost struct {
	Count int
	Per   time.Duration
}

// DigestList is a list of artifacts: File or URL is set.
type DigestList struct {
	Path      string // in the configuration
	File, URL string
	// Signature is where the signature is; default: beside the list.
	Signature string
	TLSCA     string // PEM text
	// Every is how often it is read, Grace how long an entry may wait for its place
	// on it.
	Every, Grace time.Duration
	// Key is PEM text of a public key that must have signed it; Subject and Issuer
	// are patterns of an identity that must have. All empty: nobody has to.
	Key             string
	Subject, Issuer []string
}

// Item is one description of an identity.
type Item struct {
	Subject, Issuer, Fingerprint, Digest, Kind []string
	Extensions                                 map[string][]string
}

// Notify is where to tell of what was found.
type Notify struct {
	Channels []Channel
	// Incidents and Health name channels; nil: every one.
	Incidents, Health []string
	// EscalateAfter is when critical findings that nobody has acknowledged are told
	// once more, to EscalateTo; 0: never.
	EscalateAfter time.Duration
	EscalateTo    []string
	// Heartbeat is asked for while all is well.
	Heartbeat Heartbeat
}

// Heartbeat is a dead man's switch: URL is asked for every so often, but only
// while every log is fresh and every channel delivers.
type Heartbeat struct {
	URL   Secret
	Every time.Duration
}

// Hears is what a channel is told of; empty lists and texts: everything.
type Hears struct {
	Severity                string // the lowest
	Watches, Classes, Kinds []string
}

// Quiet are hours in which what is milder than Below waits for their end.
type Quiet struct {
	Hours []string
	Below string
}

// Digest is when what is milder than Below comes in one message.
type Digest struct {
	Schedule Schedule
	Below    string
}

// Template overrides the texts for people; empty: as they are.
type Template struct {
	Title, Body string
}

// Channel is one place to notify. Exactly one of its kinds is set.
type Channel struct {
	Path string // like notify.channels[0]
	Name string
	Kind string // of ChannelKinds
	// Hears, Quiet and Digest say what it is told, and when.
	Hears  Hears
	Quiet  Quiet
	Digest Digest
	// GroupWindow is the time in which messages are counted before findings are
	// grouped; default 10 minutes. Of channels for programs it is 0.
	GroupWindow time.Duration
	// SelfTest is when a test is sent; its Schedule is nil for never.
	SelfTest Schedule
	Template Template

	Slack   *Slack
	Email   *Email
	Webhook *Webhook
	File    *File
	GitHub  *GitHub
	// PagerDuty, Teams, Syslog and Exec as their names say; Service is one of those
	// that are known by a URL alone.
	PagerDuty *PagerDuty
	Teams     *Teams
	Syslog    *Syslog
	Exec      *Exec
	Service   *Service
}

// GitHub keeps issues in a repository.
type GitHub struct {
	Repository string
	Token      Secret
	Labels     []string
	APIURL     string
}

// PagerDuty sends to an integration of its Events API v2.
type PagerDuty struct {
	RoutingKey Secret
	APIURL     string
}

// Teams posts to the address of a workflow.
type Teams struct {
	URL    Secret
	APIURL string
}

// Syslog sends to a server at udp://, tcp:// or tls://.
type Syslog struct {
	URL, Facility string
	TLSCA         string // PEM text
}

// Exec runs a program.
type Exec struct {
	Command []string
}

// Service is a service that is known by its shoutrrr URL.
type Service struct {
	URL Secret
}

// Slack posts as an app (Token, Channel) or to an incoming webhook.
type Slack struct {
	Token   Secret
	Channel string
	Webhook Secret
	// APIURL is that of a private gateway; default Slack's own.
	APIURL string
}

// Email sends plain text mail.
type Email struct {
	// SMTP is smtps://user@host:port or smtp://host:port.
	SMTP     Secret
	Password Secret
	From     string
	To       []string
	// TLSCA is PEM text of authorities for the server's certificate.
	TLSCA string
}

// Webhook posts JSON, signed as Standard Webhooks say.
type Webhook struct {
	URL    Secret
	Secret Secret
	TLSCA  string
}

// File appends JSON lines; "-" is standard output.
type File struct {
	Path string
}

// Schedule is when something is done.
type Schedule struct {
	cron.Schedule
	Text string
}

// Severities lists the severities, the mildest first.
func Severities() []string { return []string{"info", "low", "medium", "high", "critical"} }

// ChannelKinds lists the kinds of channels. A new one is a line here, its keys in
// Channel, and a package below notify.
func ChannelKinds() []string {
	return append([]string{"slack", "email", "webhook", "file", "github", "pagerduty", "teams", "syslog", "exec"}, ServiceKinds()...)
}

// ServiceKinds lists the kinds of channels that are known by a URL alone.
func ServiceKinds() []string {
	return []string{"discord", "telegram", "matrix", "ntfy", "gotify", "opsgenie"}
}
