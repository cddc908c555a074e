package trust

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/tuf"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Targets of a TUF repository that are read. The root must be there; signing
// configurations tell generations of logs apart, and nothing else is taken from
// them.
const rootTarget = "trusted_root.json"

var signingTargets = []string{"signing_config.v0.2.json", "signing_config_rekor_v2.v0.2.json"}

const (
	fetchTimeout = 30 * time.Second // of one file
	// maxRoots bounds the root metadata that is kept as provenance.
	maxRoots = 256
	// maxMetadata is what the client of TUF takes of a snapshot whose length nobody names.
	maxMetadata = 2_000_000
)

// Repository is a TUF repository that serves a trusted root.
type Repository struct {
	// Name is how people call it: public-good, staging, or its URL.
	Name string
	URL  string
	// Root is the first root metadata, with which all trust in the repository
	// begins.
	Root []byte
	// Known is what the last refresh brought, if there was one: the repository cannot
	// go back to an older state.
	Known *Provenance
	// Scratch is a directory for temporary files, where the system has none.
	Scratch   string
	UserAgent string
}

// Instance returns the repository of a Sigstore instance, public-good or
// staging, with the root metadata that comes with the program.
func Instance(name string) (Repository, bool) {
	switch name {
	case "public-good":
		return Repository{Name: name, URL: tuf.DefaultMirror, Root: tuf.DefaultRoot()}, true
	case "staging":
		return Repository{Name: name, URL: tuf.StagingMirror, Root: tuf.StagingRoot()}, true
	}
	return Repository{}, false
}

// Anchor is the SHA-256 of the first root metadata, in hex.
func (r Repository) Anchor() string {
	sum := sha256.Sum256(r.Root)
	return hex.EncodeToString(sum[:])
}

// Fetched is what a refresh brought, authenticated.
type Fetched struct {
	// Root is the trusted_root.json, Signing the signing configurations.
	Root    []byte
	Signing [][]byte
	// Provenance is what authenticates Root for somebody who has the repository's
	// first root metadata.
	Provenance Provenance
}

// Provenance is the chain of TUF metadata from a first root to a trusted root.
type Provenance struct {
	Repository string `json:"repository"`
	// Anchor is the SHA-256 of the first root metadata.
	Anchor string `json:"anchor"`
	// Versions are those of root, timestamp, snapshot and targets.
	Versions map[string]int64 `json:"versions"`
	// Metadata holds the files by their names: every later root, and the others.
	Metadata map[string][]byte `json:"metadata"`
}

// Fetch refreshes the metadata as TUF says (specification 1.0, section 5), and
// returns the trusted root that it authenticates. ctx bounds it.
func (r Repository) Fetch(ctx context.Context) (got Fetched, err error) {
	// go-tuf takes for granted what signed metadata may lack, as snapshot.json in a timestamp. Who holds
	// one key of a repository must not be able to stop the program.
	defer func() {
		if broken := recover(); broken != nil {
			got, err = Fetched{}, fmt.Errorf("TUF repository %s: its metadata lack what TUF asks for, and broke the client (%v): tell who signs them", r.URL, broken)
		}
	}()
	dir, err := os.MkdirTemp("", "sigwarden-tuf-")
	if err != nil && r.Scratch != "" {
		dir, err = os.MkdirTemp(r.Scratch, ".sigwarden-tuf-")
	}
	if err != nil {
		return Fetched{}, fmt.Errorf("a place for TUF metadata: %w", err)
	}
	defer os.RemoveAll(dir)
	local := filepath.Join(dir, tuf.URLToPath(r.URL))
	if err := r.lay(local); err != nil {
		return Fetched{}, fmt.Errorf("known TUF metadata: %w", err)
	}
	base, err := url.JoinPath(r.URL, "targets", "/")
	if err != nil {
		return Fetched{}, fmt.Errorf("TUF repository: %w", err)
	}
	get := &fetcher{ctx: ctx, agent: r.UserAgent, targets: base, roots: map[string][]byte{}, client: &http.Client{Timeout: fetchTimeout, CheckRedirect: sameHost}}
	client, err := tuf.New(&tuf.Options{Root: r.Root, RepositoryBaseURL: r.URL, CachePath: dir, Fetcher: get})
	if err != nil {
		return Fetched{}, fmt.Errorf("TUF repository %s: %w", r.URL, err)
	}
	out := Fetched{Provenance: Provenance{Repository: r.URL, Anchor: r.Anchor(), Versions: map[string]int64{}, Metadata: get.roots}}
	if out.Root, err = client.GetTarget(rootTarget); err != nil {
		return Fetched{}, fmt.Errorf("TUF repository %s, target %s: %w", r.URL, rootTarget, err)
	}
	for _, name := range signingTargets {
		data, err := client.GetTarget(name)
		if ctx.Err() != nil {
			return Fetched{}, ctx.Err()
		}
		if err == nil {
			out.Signing = append(out.Signing, data)
		}
	}
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		data, err := os.ReadFile(filepath.Join(local, role+".json"))
		if err != nil {
			return Fetched{}, fmt.Errorf("TUF metadata: %w", err)
		}
		var doc struct {
			Signed struct {
				Version int64 `json:"version"`
			} `json:"signed"`
		}
		if err := json.Unmarshal(data, &doc); err != nil {
			return Fetched{}, fmt.Errorf("TUF metadata %s: %w", role, err)
		}
		out.Provenance.Versions[role] = doc.Signed.Version
		if role != metadata.ROOT {
			out.Provenance.Metadata[role+".json"] = data
		}
	}
	return out, nil
}

// lay puts the metadata that is known where the TUF client looks for it. It is
// trusted no more than what is fetched: the client verifies all of it.
func (r Repository) lay(dir string) error {
	if r.Known == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for role, parse := range map[string]func([]byte) error{
		metadata.TIMESTAMP: parses[metadata.TimestampType], metadata.SNAPSHOT: parses[metadata.SnapshotType], metadata.TARGETS: parses[metadata.TargetsType],
	} {
		data := r.Known.Metadata[role+".json"]
		if parse(data) != nil {
			continue // the client would give up on it for good
		}
		if err := os.WriteFile(filepath.Join(dir, role+".json"), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func parses[T metadata.Roles](data []byte) error {
	_, err := new(metadata.Metadata[T]).FromBytes(data)
	return err
}

// fetcher gets files for the TUF client: bounded, and from one host only.
type fetcher struct {
	ctx    context.Context
	client *http.Client
	agent  string
	// targets is where the addresses of targets begin.
	targets string
	roots   map[string][]byte // later root metadata, by name
}

// DownloadFile implements the interface of the same name in go-tuf.
func (f *fetcher) DownloadFile(address string, limit int64, _ time.Duration) ([]byte, error) {
	// The limit may be what other metadata say, whose signers could have memory filled: metadata are
	// parsed, several times over, before their own signatures are looked at.
	most := int64(maxMetadata)
	if strings.HasPrefix(address, f.targets) {
		most = maxRoot
	}
	limit = min(limit, most)
	req, err := http.NewRequestWithContext(f.ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", f.agent)
	res, err := f.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	status := res.StatusCode
	if status == http.StatusForbidden {
		status = http.StatusNotFound // what object stores say of files that are not there
	}
	if status != http.StatusOK {
		// Needed as it is: a root metadata that is not found ends the chain of them.
		return nil, &metadata.ErrDownloadHTTP{StatusCode: status, URL: address}
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, &metadata.ErrDownloadLengthMismatch{Msg: fmt.Sprintf("%s has more than the %d bytes that it may have", address, limit)}
	}
	if u, err := url.Parse(address); err == nil && strings.HasSuffix(u.Path, ".root.json") && len(f.roots) < maxRoots {
		f.roots[u.Path[strings.LastIndexByte(u.Path, '/')+1:]] = data
	}
	return data, nil
}

func sameHost(req *http.Request, via []*http.Request) error {
	if first := via[0].URL; req.URL.Host != first.Host || req.URL.Scheme != first.Scheme || len(via) > 3 {
		return fmt.Errorf("redirect to %.200q refused: another host or scheme, or more than 3 in a row", req.URL.Redacted())
	}
	return nil
}

// Service is where a log is read, and which major version its API has.
type Service struct {
	Origin, URL string
	Version     int
}

// generation returns the version that services name for an origin; 0: none does.
func generation(services []Service, origin string) int {
	i := slices.IndexFunc(services, func(s Service) bool { return s.Origin == origin })
	if i < 0 {
		return 0
	}
	return services[i].Version
}

// originOf makes an origin of a base URL: without scheme and trailing slash.
func originOf(address string) string {
	if _, rest, ok := strings.Cut(address, "://"); ok {
		address = rest
	}
	return strings.TrimRight(address, "/")
}

// ParseSigningConfig returns the Rekor services of a signing configuration
// (dev.sigstore.trustroot.v1.SigningConfig). They say which API an address has,
// and not which logs there are: one address may write to several of them.
func ParseSigningConfig(data []byte) ([]Service, error) {
	var doc struct {
		Rekor []struct {
			URL     string `json:"url"`
			Version int    `json:"majorApiVersion"`
		} `json:"rekorTlogUrls"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("not a signing configuration: %w", err)
	}
	var out []Service
	for _, s := range doc.Rekor {
		out = append(out, Service{originOf(s.URL), s.URL, s.Version})
	}
	return out, nil
}

// ParseMonitorConfig returns where the Rekor logs of a
// dev.sigstore.monitor.v1.MonitorConfig are read. For Rekor v1 an origin is the
// host. Keys may have either of the forms that protobuf has for JSON.
func ParseMonitorConfig(data []byte) ([]Service, error) {
	type logJSON struct {
		ReadURL  string `json:"readUrl"`
		ReadURL2 string `json:"read_url"`
		Origin   string `json:"logOrigin"`
		Origin2  string `json:"log_origin"`
		Version  int    `json:"majorApiVersion"`
		Version2 int    `json:"major_api_version"`
	}
	var doc struct {
		Logs  []logJSON `json:"rekorLogs"`
		Logs2 []logJSON `json:"rekor_logs"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("not a monitor configuration: %w", err)
	}
	var out []Service
	for i, l := range append(doc.Logs, doc.Logs2...) {
		s := Service{l.Origin + l.Origin2, l.ReadURL + l.ReadURL2, l.Version + l.Version2}
		if host, tree, ok := strings.Cut(s.Origin, " - "); ok {
			if _, err := strconv.ParseUint(tree, 10, 63); err == nil {
				s.Origin = host
			}
		}
		u, err := url.Parse(s.URL)
		switch {
		case s.Origin == "":
			err = errors.New("it has no logOrigin")
		case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
			err = fmt.Errorf("its readUrl %.100q is none that begins with https:// or http://", s.URL)
		case s.Version != 1 && s.Version != 2:
			err = fmt.Errorf("its majorApiVersion is %d, want 1 or 2", s.Version)
		}
		if err != nil {
			return nil, fmt.Errorf("monitor configuration: Rekor log %d: %w", i+1, err)
		}
		if generation(out, s.Origin) == 0 {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("monitor configuration: it names no Rekor log")
	}
	return out, nil
}
