package main

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// commandV1 is `logv1 VERB args…`:
//
//	new TREE        a Rekor v1 server with one tree; v1.pem is its key, v1.yaml a configuration for it
//	fill N          N entries of others
//	sign WHAT       an event of ours: expected, unexpected or forged
//	rotate TREE     the tree ends, another one begins
//	host NAME       the server signs under another name
//	rewrite AT N    the tree has another history of N entries from AT on
//	omit INDEX      an entry is left out of answers
//	deny INDEX      the entry there is denied: other bytes are served, and promised
//	stranger        the tree's head is signed with a key that nobody knows
//	heal            all is well again
func (l *logs) commandV1(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: logv1 VERB args...")
	}
	verb, args := args[0], args[1:]
	var numbers []uint64
	for _, a := range args {
		n, err := strconv.ParseUint(a, 10, 64)
		if err != nil && verb != "sign" && verb != "host" {
			return err
		}
		numbers = append(numbers, n)
	}
	switch verb {
	case "new":
		return l.createV1(numbers[0])
	case "fill":
		for i := range numbers[0] {
			l.v1.Append(fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"rfc3161","spec":{"tsr":{"content":"AAAA"}}}%*s`, i%100, ""))
		}
	case "sign":
		e, err := l.eventV1(args[0])
		if err != nil {
			return err
		}
		l.v1.Append(e)
	case "rotate":
		l.v1.Rotate(numbers[0])
	case "host":
		l.v1.SetHost(args[0])
	case "rewrite":
		other := make([][]byte, numbers[1])
		for i := range other {
			other[i] = fmt.Appendf(nil, "rewritten %d", i)
		}
		l.v1.Rewrite(numbers[0], other...)
	case "omit":
		l.v1.Set(locallog.FaultsV1{Omit: map[uint64]bool{numbers[0]: true}})
	case "deny":
		l.v1.Set(locallog.FaultsV1{Alter: map[uint64][]byte{numbers[0]: []byte(`{"apiVersion":"0.0.1","kind":"denied"}`)}, Promise: true})
	case "stranger":
		l.v1.Set(locallog.FaultsV1{Stranger: true})
	case "heal":
		l.v1.Set(locallog.FaultsV1{})
	default:
		return fmt.Errorf("no verb %q", verb)
	}
	return nil
}

func (l *logs) createV1(tree uint64) error {
	var err error
	if l.v1, err = locallog.NewV1("rekor.acme.example", tree); err != nil {
		return err
	}
	http := httptest.NewServer(l.v1)
	l.stop = append(l.stop, http.Close)
	l.urls["rekor.acme.example"] = http.URL
	config := fmt.Sprintf(scriptConfig, "v1", http.URL)
	config = strings.Replace(config, "type: rekor-v2", "type: rekor-v1", 1)
	config = strings.Replace(config, "    origin: v1.acme.example\n", "", 1)
	if err := os.WriteFile(filepath.Join(l.dir, "v1.yaml"), []byte(config), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, "v1.pem"), []byte(l.v1.PublicKeyPEM()), 0o600)
}

func (l *logs) eventV1(what string) ([]byte, error) {
	s, err := l.signer(what)
	if err != nil {
		return nil, err
	}
	return s.HashedRekordV1(fmt.Appendf(nil, "release %s", what))
}
