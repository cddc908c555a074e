package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
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
			data, err := a.readInput(args[0])
			if err != nil {
				return err
			}
			leaves := leavesIn(data)
			var docs []inspected
			for _, leaf := range leaves {
				docs = append(docs, inspect(leaf))
			}
			for i, d := range docs {
				if asJSON {
					if err := printJSON(a.stdout, d); err != nil {
						return err
					}
					continue
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
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON document for each entry")
	return c
}

func (a *app) readInput(name string) ([]byte, error) {
	r := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, maxInspect+1))
	if err == nil && len(data) > maxInspect {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxInspect)
	}
	return data, err
}

// leavesIn finds the leaves in a file: those of a bundle, of an entry of
// either API, or the file itself.
func leavesIn(data []byte) [][]byte {
	var bundle struct {
		VerificationMaterial struct {
			TlogEntries []struct {
				CanonicalizedBody []byte `json:"canonicalizedBody"`
			} `json:"tlogEntries"`
		} `json:"verificationMaterial"`
		CanonicalizedBody []byte `json:"canonicalizedBody"`
	}
	if json.Unmarshal(data, &bundle) == nil {
		var leaves [][]byte
		for _, e := range bundle.VerificationMaterial.TlogEntries {
			leaves = append(leaves, e.CanonicalizedBody)
		}
		if len(leaves) > 0 {
			return leaves
		}
		if bundle.CanonicalizedBody != nil {
			return [][]byte{bundle.CanonicalizedBody}
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
		var ids []string
		for id := range object {
			ids = append(ids, id)
		}
		sort.Strings(ids)
		for _, id := range ids {
			if len(id) >= 64 && object[id].Body != nil {
				leaves = append(leaves, object[id].Body)
			}
		}
	}
	if len(leaves) > 0 {
		return leaves
	}
	return [][]byte{data}
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
		d.Identities = append(d.Identities, facts.Identities[i].Report(errors.New("not judged by inspect")))
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
			var names []string
			for name := range c.Extensions {
				names = append(names, name)
			}
			sort.Strings(names)
			for _, name := range names {
				fmt.Fprintf(w, "  %s: %s\n", name, safe(c.Extensions[name]))
			}
		}
	}
	for _, warning := range d.Warnings {
		fmt.Fprintf(w, "Warning: %s\n", safe(warning))
	}
}
