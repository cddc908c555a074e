package config

import (
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Witness says how checkpoints are co-signed. Listen empty: nothing is.
type Witness struct {
	// Listen is where the protocol is served, to everybody; Prefix what is before its
	// paths.
	Listen, Prefix string
	// Keys sign, one or two.
	Keys []WitnessKey
	// Logs are names of logs that are co-signed; nil: all that are followed.
	Logs []string
	// Audited: only trees whose entries were read are signed.
	Audited bool
	// SignSubtree: subtrees of what was signed are signed too, with ML-DSA-44.
	SignSubtree bool
	// Lists are lists of logs in the format of the witness network.
	Lists []LogList
	// Distributors and Peers, other witnesses, are brought what was co-signed, every so
	// often.
	Distributors []string
	Peers        []Peer
	FeedEvery    time.Duration
	// Operator and Contact are for the page that is published of the witness.
	Operator, Contact string
}

// Peer is another witness: its submission prefix, and its verifier key.
type Peer struct {
	Path     string // in the configuration
	URL, Key string
	TLSCA    string // PEM text
}

// WitnessKey is a key that signs: Secret is a signing key; Agent names one that an SSH
// agent holds, Plugin one that a program has, Name what it is called.
type WitnessKey struct {
	Path   string // in the configuration
	Secret Secret
	// File is the file that the secret was read from; empty: another place.
	File                string
	Agent, Plugin, Name string
}

// LogList is a list of logs to be co-signed, from a file or a URL that is asked every
// so often.
type LogList struct {
	Path      string // in the configuration
	File, URL string
	Every     time.Duration
	TLSCA     string // PEM text
}

func (c *Config) readWitness(n ast.Node, path string) {
	f, w := c.file, &c.Witness
	w.FeedEvery = time.Minute
	f.mapping(n, path, "witness", map[string]field{
		"listen":       f.listenAddress(&w.Listen),
		"prefix":       f.into(&w.Prefix),
		"keys":         func(n ast.Node, p string) { f.list(n, p, "keys", c.readWitnessKey) },
		"logs":         f.names(&w.Logs),
		"audited":      f.boolean(&w.Audited),
		"sign_subtree": f.boolean(&w.SignSubtree),
		"lists":        func(n ast.Node, p string) { f.list(n, p, "lists", c.readLogList) },
		"distributors": func(n ast.Node, p string) {
			f.list(n, p, "distributors", func(n ast.Node, p string) {
				address := ""
				f.webAddress(&address)(n, p)
				w.Distributors = append(w.Distributors, address)
			})
		},
		"submit_to": func(n ast.Node, p string) {
			f.list(n, p, "submit_to", func(n ast.Node, p string) {
				peer := Peer{Path: p}
				f.mapping(n, p, "another witness", map[string]field{"url": f.webAddress(&peer.URL), "key": f.into(&peer.Key), "tls_ca": f.pem(&peer.TLSCA)}, "url", "key")
				w.Peers = append(w.Peers, peer)
			})
		},
		"feed_every": f.duration(&w.FeedEvery),
		"operator":   f.into(&w.Operator),
		"contact":    f.contact(&w.Contact),
	}, "listen", "keys")
	if w.Prefix != "" && (!strings.HasPrefix(w.Prefix, "/") || strings.ContainsAny(w.Prefix, "{} ?#%")) {
		f.issues = append(f.issues, f.at(path+".prefix", "want a path that begins with a slash, like /witness"))
	}
	if len(w.Keys) > 2 {
		f.fail(n, path, "witness has %d keys; it signs with one, or with two of different algorithms", len(w.Keys))
	}
}

func (f *file) listenAddress(s *string) field {
	return func(n ast.Node, path string) {
		f.into(s)(n, path)
		_, port, err := net.SplitHostPort(*s)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			f.fail(n, path, "%q is no address like 127.0.0.1:8100", *s)
		}
	}
}

func (c *Config) readWitnessKey(n ast.Node, path string) {
	f := c.file
	k := WitnessKey{Path: path}
	f.either(n, path, func(n ast.Node, path string) {
		f.mapping(n, path, "a key", map[string]field{"agent": f.into(&k.Agent), "plugin": f.into(&k.Plugin), "name": f.into(&k.Name)}, "name")
		f.exactlyOne("agent", "plugin")
		if (k.Agent == "") == (k.Plugin == "") {
			f.fail(n, path, "a key is in an SSH agent (agent: FINGERPRINT) or behind a program (plugin: SCHEME://KEY)")
		}
	}, f.privateKey("file:PATH, env:NAME, {agent: FINGERPRINT, name: NAME} or {plugin: SCHEME://KEY, name: NAME}", &k.Secret, &k.File))
	c.Witness.Keys = append(c.Witness.Keys, k)
}

func (c *Config) readLogList(n ast.Node, path string) {
	f := c.file
	l := LogList{Path: path, Every: 24 * time.Hour}
	f.mapping(n, path, "a list of logs", map[string]field{
		"file": f.path(&l.File), "url": f.webAddress(&l.URL), "every": f.duration(&l.Every), "tls_ca": f.pem(&l.TLSCA),
	})
	f.exactlyOne("file", "url")
	if (l.File == "") == (l.URL == "") {
		f.fail(n, path, "a list of logs is in a file or at a url")
	}
	c.Witness.Lists = append(c.Witness.Lists, l)
}

// checkWitness checks what only the whole shows of a witness, and of sources.
func (c *Config) checkWitness(bad func(path, format string, args ...any)) {
	w := &c.Witness
	c.checkNames("witness.logs", w.Logs, bad)
	for _, src := range c.Sources {
		c.checkNames(src.Path+".logs", src.Logs, bad)
	}
	if w.Listen != "" && w.Listen == c.HTTP.Listen {
		bad("witness.listen", "is the address of http.listen: a witness is for everybody, and needs one of its own")
	}
}
