package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// maxInspect bounds a file that inspect reads.
const maxInspect = 32 << 20

// inspected is the document of `inspect --json`.
type inspected struct {
	Kind       string         `json:"kind"`
	APIVersion string         `json:"api_version"`
	LeafHash   string         `json:"leaf_hash"`
	Digests    []string       `json:"digests"`
	Identities []entry.Report `json:"identities"`
	Understood bool           `json:"understood"`
	Warnings   []string       `json:"warnings"`
}

func (a *app) inspectCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "inspect FILE", Short: "Decode a leaf, a log entry as the Rekor API returns it, or a Sigstore bundle",
		Long: `Decodes a file and prints what sigwarden sees in it: who signed, with what, which
artifact. Nothing is verified: certificates are shown as they are. "-" is
standard input.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			data, err := a.readInput(c.Context(), args[0])
			if err != nil {
				return err
			}
			leaves, err := leavesIn(data)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			var docs []inspected
			for _, leaf := range leaves {
				docs = append(docs, inspect(leaf))
			}
			switch {
			case asJSON && len(docs) == 1:
				err = printJSON(a.stdout, docs[0])
			case asJSON:
				err = printJSON(a.stdout, docs)
			}
			if err != nil {
				return err
			}
			for i, d := range docs {
				if asJSON {
					break
				}
				if i > 0 {
					fmt.Fprintln(a.stdout)
				}
				a.printInspected(d)
			}
			for _, d := range docs {
				if !d.Understood {
					return errors.New("not understood in full; see the warnings")
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON document, or an array of them where the file holds several entries")
	return c
}

// readInput reads a file, or standard input for "-", until ctx ends.
func (a *app) readInput(ctx context.Context, name string) ([]byte, error) {
	r := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	return readBounded(ctx, name, r)
}

// readFile reads a file whose length somebody else has chosen.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(context.Background(), name, f)
}

func readBounded(ctx context.Context, name string, r io.Reader) ([]byte, error) {
	type input struct {
		data []byte
		err  error
	}
	read := make(chan input, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(r, maxInspect+1))
		read <- input{data, err}
	}()
	select {
	case in := <-read:
		if in.err == nil && len(in.data) > maxInspect {
			in.err = fmt.Errorf("%s is larger than %d bytes", name, maxInspect)
		}
		return in.data, in.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// leavesIn finds the leaves in a file: those of a bundle, of an entry of
// either API, or the file itself.
func leavesIn(data []byte) ([][]byte, error) {
	var bundle struct {
		MediaType            string `json:"mediaType"`
		VerificationMaterial *struct {
			TlogEntries []struct {
				CanonicalizedBody []byte `json:"canonicalizedBody"`
			} `json:"tlogEntries"`
		} `json:"verificationMaterial"`
		CanonicalizedBody []byte `json:"canonicalizedBody"`
	}
	if json.Unmarshal(data, &bundle) == nil {
		var leaves [][]byte
		if bundle.VerificationMaterial != nil {
			for _, e := range bundle.VerificationMaterial.TlogEntries {
				if len(e.CanonicalizedBody) > 0 {
					leaves = append(leaves, e.CanonicalizedBody)
				}
			}
			if len(leaves) == 0 {
				return nil, errors.New("a Sigstore bundle without a log entry in it")
			}
			return leaves, nil
		}
		if bundle.CanonicalizedBody != nil {
			return [][]byte{bundle.CanonicalizedBody}, nil
		}
	}
	// Rekor v1: objects of one key, the entry's id, alone or in an array.
	type entries map[string]struct {
		Body []byte `json:"body"`
	}
	var list []entries
	var one entries
	if json.Unmarshal(data, &list) != nil {
		list = nil
		if json.Unmarshal(data, &one) == nil {
			list = []entries{one}
		}
	}
	var leaves [][]byte
	for _, object := range list {
		for _, id := range slices.Sorted(maps.Keys(object)) {
			if len(id) >= 64 && object[id].Body != nil {
				leaves = append(leaves, object[id].Body)
			}
		}
	}
	if len(leaves) > 0 {
		return leaves, nil
	}
	return [][]byte{data}, nil
}

func inspect(leaf []byte) inspected {
	facts, err := entry.Decode(leaf)
	hash := checkpoint.LeafHash(leaf)
	d := inspected{Kind: facts.Kind, APIVersion: facts.APIVersion, LeafHash: hex.EncodeToString(hash[:]), Digests: facts.Digests, Identities: []entry.Report{}, Understood: err == nil, Warnings: []string{}}
	if d.Digests == nil {
		d.Digests = []string{}
	}
	d.Warnings = append(d.Warnings, facts.Warnings...)
	if err != nil {
		d.Warnings = append(d.Warnings, strings.Split(err.Error(), "\n")...)
	}
	if facts.KeyOnly() {
		d.Warnings = append(d.Warnings, "signed with a bare key: no watch for a subject can see this entry")
	}
	for i := range facts.Identities {
		d.Identities = append(d.Identities, facts.Identities[i].Report(entry.ErrNotJudged))
	}
	return d
}

func (a *app) printInspected(d inspected) {
	w := a.stdout
	fmt.Fprintf(w, "Kind: %s %s\nLeaf hash: %s\n", safe(d.Kind), safe(d.APIVersion), d.LeafHash)
	for _, digest := range d.Digests {
		fmt.Fprintf(w, "Digest: %s\n", digest)
	}
	for i, id := range d.Identities {
		fmt.Fprintf(w, "Signer %d:\n", i+1)
		for _, s := range id.Subjects {
			fmt.Fprintf(w, "  Subject: %s\n", safe(s))
		}
		if id.Issuer != "" {
			fmt.Fprintf(w, "  Issuer: %s\n", safe(id.Issuer))
		}
		fmt.Fprintf(w, "  Fingerprint: %s\n", id.Fingerprint)
		if c := id.Certificate; c != nil {
			fmt.Fprintf(w, "  Certificate: valid from %s to %s\n", stamp(c.NotBefore), stamp(c.NotAfter))
			for _, name := range slices.Sorted(maps.Keys(c.Extensions)) {
				fmt.Fprintf(w, "  %s: %s\n", name, safe(c.Extensions[name]))
			}
		}
	}
	for _, warning := range d.Warnings {
		fmt.Fprintf(w, "Warning: %s\n", safe(warning))
	}
}
