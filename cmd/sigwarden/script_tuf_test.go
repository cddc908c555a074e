package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/trust/trusttest"
)

const tufConfig = `state: tuf.db
trust:
  sigstore: {mirror: "%s", root: tuf-root.json}
  monitor_config: reads.json
logs:
  - sigstore: rekor
    start: first
watchlist:
  - name: releases
    match: [{subject: "https://github.com/acme/*"}]
    expect:
      - subject: "https://github.com/acme/widget/*"
        issuer: https://token.actions.githubusercontent.com
        extensions: {runner-environment: github-hosted}
notify:
  channels:
    - name: lines
      file: {path: tuf.jsonl}
`

// commandTUF is `tuf VERB args…`:
//
//	new            a TUF repository; tuf.yaml is a configuration that follows it
//	publish NAME…  its trusted root names these logs: those of `log new`, v1 for that
//	               of `logv1 new`, future for one that is not in use yet, unknown for
//	               one whose key is of a kind that nobody knows, as NAME? makes it of
//	               any; NAME! has another key
//	newca          whoever signs from now on is certified by another authority
//	rotate         the root of the repository gets new keys
//	down, heal     it does not answer, and does again
func (l *logs) commandTUF(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: tuf VERB args...")
	}
	switch args[0] {
	case "new":
		return l.createTUF()
	case "publish":
		return l.publish(args[1:])
	case "newca":
		var err error
		l.ca, err = testca.New("acme two", time.Now())
		return err
	case "rotate":
		return l.tuf.RotateRoot()
	case "down", "heal":
		l.tuf.Down(args[0] == "down")
		return nil
	}
	return fmt.Errorf("no verb %q", args[0])
}

func (l *logs) write(name string, data []byte) error {
	return os.WriteFile(filepath.Join(l.dir, name), data, 0o600)
}

func (l *logs) createTUF() error {
	var err error
	if l.tuf, err = trusttest.New(); err != nil {
		return err
	}
	http := httptest.NewServer(l.tuf)
	l.stop = append(l.stop, http.Close)
	return errors.Join(l.write("tuf-root.json", l.tuf.Root()), l.write("tuf.yaml", fmt.Appendf(nil, tufConfig, http.URL)))
}

func (l *logs) publish(names []string) error {
	var list []trusttest.Log
	for _, name := range names {
		unknown, other := strings.HasSuffix(name, "?"), strings.HasSuffix(name, "!")
		name = strings.TrimRight(name, "?!")
		entry := trusttest.Log{URL: "https://" + name + ".acme.example"}
		var text string
		switch name {
		case "v1":
			entry.URL, entry.Details, text = "https://rekor.acme.example", "PKIX_ECDSA_P256_SHA_256", l.v1.PublicKeyPEM()
		case "unknown":
			unknown = true
		case "future":
			other = true
			entry.Since = time.Now().Add(time.Hour)
		default:
			if l.logs[name] == nil {
				return fmt.Errorf("no log %q", name)
			}
			text = l.logs[name].PublicKeyPEM()
		}
		if text != "" {
			block, _ := pem.Decode([]byte(text))
			entry.SPKI = block.Bytes
		}
		if other {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return err
			}
			if entry.SPKI, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
				return err
			}
		}
		if unknown {
			entry.SPKI, entry.Details = []byte("no key that anybody knows"), "ML_DSA_87"
		}
		list = append(list, entry)
	}
	type object = map[string]any
	reads := []object{}
	for origin, url := range l.urls {
		version := 2
		if origin == "rekor.acme.example" {
			version = 1
		}
		reads = append(reads, object{"logOrigin": origin, "readUrl": url, "majorApiVersion": version})
	}
	config, err := json.Marshal(object{"rekorLogs": reads})
	if err != nil {
		return err
	}
	root, err := trusttest.TrustedRoot(l.ca.Chain(), list...)
	if err != nil {
		return err
	}
	return errors.Join(l.write("reads.json", config), l.write("trusted_root.json", root), l.tuf.Publish(map[string][]byte{"trusted_root.json": root}))
}
