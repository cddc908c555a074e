package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

func (a *app) initCommand() *cobra.Command {
	var from []string
	var out string
	c := &cobra.Command{
		Use: "init --from-bundle FILE...", Short: "Write a first configuration from the Sigstore bundles of real releases",
		Long: `Prints a configuration that finds whatever is signed in the name of the signers
of these releases, and expects what is signed as they were. FILE is a Sigstore
bundle, or a log entry as the Rekor API returns it.`,
		Example: "  sigwarden init --from-bundle release.sigstore.json -o sigwarden.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			from = append(from, args...) // a shell's wildcard gives more than one
			if len(from) == 0 {
				return usage(errors.New("--from-bundle is missing: name the bundle of a release"))
			}
			var signers []config.Signer
			origins := map[string][]string{}
			for _, name := range from {
				data, err := a.readInput(c.Context(), name)
				if err != nil {
					return err
				}
				found, err := a.signersIn(filepath.Base(name), data)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				signers = append(signers, found...)
				for _, origin := range originsIn(data) {
					origins[instanceOf(origin)] = append(origins[instanceOf(origin)], origin)
				}
			}
			for _, origin := range origins[""] {
				fmt.Fprintf(a.stderr, "warning: a release is in the log %s, which the public instance may not have: add it under `logs`\n", safe(origin))
			}
			staging := len(origins["staging"]) > 0
			if staging && len(origins["public-good"]) > 0 {
				return errors.New("these releases are in logs of the public instance and of its staging: make a configuration for each")
			}
			return a.writeConfig(out, config.FromReleases(signers, staging))
		},
	}
	c.Flags().StringArrayVar(&from, "from-bundle", nil, "bundle of a release; more of them may follow")
	c.Flags().StringVarP(&out, "output", "o", "-", "file to write, which must not exist yet; - is standard output")
	return c
}

// writeConfig writes a configuration where there is none.
func (a *app) writeConfig(name string, text []byte) error {
	if name == "-" {
		_, err := a.stdout.Write(text)
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists already, and is left as it is: write to another file with -o", name)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// signersIn returns who signed a release.
func (a *app) signersIn(name string, data []byte) ([]config.Signer, error) {
	leaves, err := leavesIn(data)
	if err != nil {
		return nil, fmt.Errorf("%w: what is in no log cannot be found in one", err)
	}
	var signers []config.Signer
	var errs []error
	hidden := false
	for _, leaf := range leaves {
		facts, err := entry.Decode(leaf)
		errs = append(errs, err)
		certificate := bundleCertificate(data)
		for i := range facts.Identities {
			id := &facts.Identities[i]
			if id.Certificate == nil && certificate != nil {
				// The key lives as long as the certificate that the entry leaves out.
				hidden = true
				continue
			}
			signers = append(signers, signer(name, id))
		}
		if hidden && len(signers) == 0 {
			id, err := entry.ParseCertificate(certificate)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			signers = append(signers, signer(name, &id))
		}
	}
	for i := range signers {
		if !signers[i].Writable() {
			return nil, errors.New("a signer's name is not UTF-8, which no configuration can hold: watch for its repository, or for a part of the name, by hand")
		}
	}
	if err := errors.Join(errs...); len(signers) == 0 || err != nil {
		return nil, errors.Join(errors.New("no signer can be read in it"), err)
	}
	if hidden {
		fmt.Fprintf(a.stderr, "warning: %s: its log entry holds the key alone, without the certificate: no monitor can find this event by its subject. Others of the same signer are found if their entries hold the certificate\n", safe(name))
	}
	return signers, nil
}

func signer(name string, id *entry.Identity) config.Signer {
	r := id.Report(entry.ErrNotJudged)
	s := config.Signer{From: safe(name), Issuer: r.Issuer, Extensions: map[string]string{}}
	if id.Certificate == nil {
		s.Fingerprint = r.Fingerprint
		return s
	}
	for _, subject := range id.Subjects {
		s.Subjects = append(s.Subjects, config.SignerSubject{Value: subject.Value, Mail: subject.Type == entry.Email, URI: subject.Type == entry.URI})
	}
	if len(s.Subjects) == 0 {
		s.Fingerprint = r.Fingerprint
	}
	for _, e := range id.Extensions {
		s.Extensions[e.Name] = e.Value
	}
	return s
}

// bundleCertificate is the leaf certificate in a bundle, nil if there is none.
func bundleCertificate(data []byte) []byte {
	type certificate struct {
		Raw []byte `json:"rawBytes"`
	}
	var bundle struct {
		Material struct {
			Certificate certificate `json:"certificate"`
			Chain       struct {
				Certificates []certificate `json:"certificates"`
			} `json:"x509CertificateChain"`
		} `json:"verificationMaterial"`
	}
	if json.Unmarshal(data, &bundle) != nil {
		return nil
	}
	if chain := bundle.Material.Chain.Certificates; len(chain) > 0 {
		return chain[0].Raw
	}
	return bundle.Material.Certificate.Raw
}

// originsIn returns the origins of the checkpoints in a bundle: old ones have none.
func originsIn(data []byte) []string {
	var bundle struct {
		Material struct {
			Entries []struct {
				Proof struct {
					Checkpoint struct {
						Envelope string `json:"envelope"`
					} `json:"checkpoint"`
				} `json:"inclusionProof"`
			} `json:"tlogEntries"`
		} `json:"verificationMaterial"`
	}
	if json.Unmarshal(data, &bundle) != nil {
		return nil
	}
	var origins []string
	for _, e := range bundle.Material.Entries {
		if origin, _, _ := strings.Cut(e.Proof.Checkpoint.Envelope, "\n"); origin != "" {
			origins = append(origins, origin)
		}
	}
	return origins
}

// instanceOf says which public instance a log belongs to, by its name: empty if
// to none. It is a hint for a first configuration, and proves nothing.
func instanceOf(origin string) string {
	host, _, _ := strings.Cut(origin, " ")
	switch {
	case strings.HasSuffix(host, ".sigstore.dev"):
		return "public-good"
	case strings.HasSuffix(host, ".sigstage.dev"):
		return "staging"
	}
	return ""
}
