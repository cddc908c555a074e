package config

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// What says which logs are followed, and with whose keys.

// Instances lists the Sigstore instances whose TUF repository is known.
func Instances() []string { return []string{"public-good", "staging"} }

// sigstoreStale is after how long a log of the trust root is stale, unless the
// configuration says something else.
const sigstoreStale = 24 * time.Hour

// defaultMaxAge is how old cosignatures may be: logs publish their checkpoints anew for
// witnesses long before.
const defaultMaxAge = 24 * time.Hour

func (c *Config) readTrust(n ast.Node, path string) {
	f := c.file
	t := &c.Trust
	f.mapping(n, path, "trust", map[string]field{
		"trusted_root": f.path(&t.TrustedRoot),
		"sigstore": func(n ast.Node, p string) {
			f.either(n, p, func(n ast.Node, p string) {
				f.mapping(n, p, "trust.sigstore", map[string]field{"mirror": f.into(&t.Mirror), "root": f.contents(&t.Root)}, "mirror", "root")
				if u, err := url.Parse(t.Mirror); t.Mirror != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.User != nil) {
					f.fail(n, p+".mirror", "%s", noAddress(t.Mirror, "address of a TUF repository like https://tuf.acme.example"))
				}
			}, f.oneOf(&t.Sigstore, "Sigstore instance; want one of "+strings.Join(Instances(), ", ")+", or {mirror: URL, root: FILE}", Instances()...))
		},
		"monitor_config": f.contents(&t.MonitorConfig),
	})
	if t.TrustedRoot != "" && (t.Sigstore != "" || t.Mirror != "") {
		f.fail(n, path, "trust names both a pinned trusted_root and a TUF repository; leave one of them out")
	}
}

// contents reads the file whose path it is.
func (f *file) contents(into *[]byte) field {
	return func(n ast.Node, path string) {
		text, ok := f.text(n, path)
		if !ok {
			f.describe(func(shape *Schema) { shape.takes("file", "string") })
			return
		}
		data, err := f.contentsOf(strings.TrimPrefix(text, "file:"))
		if err != nil {
			f.fail(n, path, "%v", err)
		}
		*into = data
	}
}

func (c *Config) readLog(n ast.Node, path string) {
	f := c.file
	l := Log{Path: path, Entries: true, Start: "latest"}
	before := len(f.issues)
	f.mapping(n, path, "a log", map[string]field{
		"sigstore":   f.oneOf(&l.Sigstore, "kind of logs that a trust root names", "rekor"),
		"name":       f.into(&l.Name),
		"type":       f.oneOf(&l.Type, "type of log", "rekor-v1", "rekor-v2"),
		"url":        f.into(&l.URL),
		"origin":     f.into(&l.Origin),
		"public_key": f.publicKey(&l.PublicKey),
		"ca":         f.pem(&l.CA),
		"start": func(n ast.Node, p string) {
			f.into(&l.Start)(n, p)
			if _, err := strconv.ParseUint(l.Start, 10, 63); err != nil && l.Start != "latest" && l.Start != "first" {
				f.fail(n, p, "%q is no start: want latest, first or an index", l.Start)
			}
		},
		"entries":             f.boolean(&l.Entries),
		"schedule":            f.schedule(&l.Schedule),
		"requests_per_second": f.number(&l.RequestsPerSecond, 0.01, 10000),
		"parallel":            f.whole(&l.Parallel, 1, 1024),
		"stale_after":         f.duration(&l.StaleAfter),
		"tls_ca":              f.pem(&l.TLSCA),
		"policy": func(n ast.Node, p string) {
			l.Policy = &LogPolicy{Path: p, MaxAge: defaultMaxAge}
			f.either(n, p, func(n ast.Node, p string) {
				f.mapping(n, p, "policy", map[string]field{"file": f.contents(&l.Policy.Text), "require": f.boolean(&l.Policy.Require), "max_age": f.duration(&l.Policy.MaxAge)}, "file")
			}, f.contents(&l.Policy.Text))
		},
	})
	if len(f.issues) > before {
		return // what follows from a broken log would only distract
	}
	if l.Sigstore != "" {
		c.readSigstoreLog(n, l)
		return
	}
	for _, need := range []struct{ key, value string }{{"type", l.Type}, {"url", l.URL}} {
		if need.value == "" {
			f.fail(n, path, "a log has no %q", need.key)
			return
		}
	}
	if l.Origin == "" {
		if strings.HasPrefix(l.URL, "file:") {
			f.fail(n, path, "a log in a directory has no default origin; give its \"origin\", the first line of its checkpoint")
			return
		}
		_, rest, _ := strings.Cut(l.URL, "://")
		l.Origin = strings.TrimRight(rest, "/")
	}
	if u, err := url.Parse(l.URL); err != nil || !slices.Contains([]string{"http", "https", "file"}, u.Scheme) || u.Host == "" && u.Scheme != "file" {
		f.issues = append(f.issues, f.at(path+".url", "want a url that begins with https://, http:// or file:///"))
		return
	} else if u.User != nil {
		f.issues = append(f.issues, f.at(path+".url", noAddress("@", "address of a log")))
		return
	}
	if l.Type == "rekor-v1" && strings.HasPrefix(l.URL, "file:") {
		f.issues = append(f.issues, f.at(path+".url", "a directory of tiles is a log of type rekor-v2"))
		return
	}
	if l.Type == "rekor-v1" && l.Policy != nil {
		f.issues = append(f.issues, f.at(l.Policy.Path, "a log of type rekor-v1 publishes no cosignatures of witnesses; a policy is for type rekor-v2"))
		return
	}
	if l.Name == "" {
		l.Name = l.Origin
	}
	c.Logs = append(c.Logs, l)
}

// readSigstoreLog takes what stands for all logs of the trust root.
func (c *Config) readSigstoreLog(n ast.Node, l Log) {
	for _, key := range []struct{ name, value string }{
		{"name", l.Name}, {"type", l.Type}, {"url", l.URL}, {"origin", l.Origin}, {"public_key", l.PublicKey}, {"ca", l.CA},
	} {
		if key.value != "" {
			c.file.issues = append(c.file.issues, c.file.at(l.Path+"."+key.name, "logs of `sigstore:` have their "+key.name+" from the trust root; spell a log out to give it another one"))
			return
		}
	}
	if n, err := strconv.ParseUint(l.Start, 10, 63); err == nil && n > 0 {
		c.file.issues = append(c.file.issues, c.file.at(l.Path+".start", "one index cannot be the start of several logs; want latest or first, or spell the log out"))
		return
	}
	if l.StaleAfter == 0 {
		l.StaleAfter = sigstoreStale
	}
	c.Logs = append(c.Logs, l)
}

// checkLogs checks what only all logs together show, and adds what is not
// written because it is the default.
func (c *Config) checkLogs(bad func(path, format string, args ...any)) {
	if c.Trust.TrustedRoot == "" && c.Trust.Mirror == "" && c.Trust.Sigstore == "" {
		c.Trust.Sigstore = Instances()[0]
	}
	if len(c.Logs) == 0 {
		c.Logs = []Log{{Path: "logs", Sigstore: "rekor", Entries: true, Start: "latest", StaleAfter: sigstoreStale}}
	}
	names, origins, all := map[string]bool{}, map[string]string{}, false
	for i := range c.Logs {
		l := &c.Logs[i]
		if l.Schedule.Schedule == nil {
			l.Schedule = c.Schedule
		}
		if l.Sigstore != "" {
			if all {
				bad(l.Path, "the logs of the trust root are there twice")
			}
			all = true
			continue
		}
		if names[l.Name] {
			bad(l.Path+".name", "two logs are called %q", l.Name)
		}
		names[l.Name] = true
		if other, ok := origins[l.Origin]; ok {
			bad(l.Path, "logs %q and %q have the same origin %q: they are the same log", other, l.Name, l.Origin)
		}
		origins[l.Origin] = l.Name
	}
}
