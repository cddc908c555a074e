// Package trusttest serves a TUF repository with a trusted root, for tests.
package trusttest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sigwarden/sigwarden/checkpoint"
)

var roles = []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP}

// Repository is a TUF repository with consistent snapshots. It serves itself over
// HTTP, and may be changed while it does.
type Repository struct {
	mu       sync.Mutex
	files    map[string][]byte
	first    []byte
	keys     map[string]ed25519.PrivateKey
	root     *metadata.Metadata[metadata.RootType]
	version  int64 // of targets, snapshot and timestamp
	down     bool
	requests int
}

// New returns a repository with one key a role, and nothing in it.
func New() (*Repository, error) {
	r := &Repository{files: map[string][]byte{}, keys: map[string]ed25519.PrivateKey{}, root: metadata.Root(time.Now().Add(365 * 24 * time.Hour))}
	for _, role := range roles {
		if err := r.newKey(role); err != nil {
			return nil, err
		}
	}
	if err := r.writeRoot(r.keys[metadata.ROOT]); err != nil {
		return nil, err
	}
	r.first = r.files["1.root.json"]
	return r, r.Publish(nil)
}

func (r *Repository) newKey(role string) error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	pub, err := metadata.KeyFromPublicKey(key.Public())
	if err != nil {
		return err
	}
	r.keys[role] = key
	return r.root.Signed.AddKey(pub, role)
}

func (r *Repository) writeRoot(signers ...ed25519.PrivateKey) error {
	r.root.ClearSignatures()
	data, err := signed(r.root, signers...)
	r.files[fmt.Sprintf("%d.root.json", r.root.Signed.Version)] = data
	return err
}

func signed[T metadata.Roles](m *metadata.Metadata[T], keys ...ed25519.PrivateKey) ([]byte, error) {
	for _, key := range keys {
		s, err := signature.LoadSigner(key, crypto.Hash(0))
		if err != nil {
			return nil, err
		}
		if _, err := m.Sign(s); err != nil {
			return nil, err
		}
	}
	return m.ToBytes(true)
}

// Root returns the first root metadata.
func (r *Repository) Root() []byte { return r.first }

// RotateRoot gives the root role and the timestamp role new keys.
func (r *Repository) RotateRoot() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.keys[metadata.ROOT]
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP} {
		if err := r.root.Signed.RevokeKey(r.root.Signed.Roles[role].KeyIDs[0], role); err != nil {
			return err
		}
		if err := r.newKey(role); err != nil {
			return err
		}
	}
	r.root.Signed.Version++
	return r.writeRoot(before, r.keys[metadata.ROOT])
}

// Publish replaces all targets.
func (r *Repository) Publish(targets map[string][]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version++
	week := time.Now().Add(7 * 24 * time.Hour)
	list := metadata.Targets(week)
	list.Signed.Version = r.version
	for name, data := range targets {
		info, err := metadata.TargetFile().FromBytes(name, data, "sha256")
		if err != nil {
			return err
		}
		list.Signed.Targets[name] = info
		sum := sha256.Sum256(data)
		r.files["targets/"+hex.EncodeToString(sum[:])+"."+name] = data
	}
	doc, err := signed(list, r.keys[metadata.TARGETS])
	if err != nil {
		return err
	}
	r.files[fmt.Sprintf("%d.targets.json", r.version)] = doc
	snapshot := metadata.Snapshot(week)
	snapshot.Signed.Version = r.version
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(r.version)
	if doc, err = signed(snapshot, r.keys[metadata.SNAPSHOT]); err != nil {
		return err
	}
	r.files[fmt.Sprintf("%d.snapshot.json", r.version)] = doc
	timestamp := metadata.Timestamp(week)
	timestamp.Signed.Version = r.version
	timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(r.version)
	if doc, err = signed(timestamp, r.keys[metadata.TIMESTAMP]); err != nil {
		return err
	}
	r.files["timestamp.json"] = doc
	return nil
}

// Sign makes metadata of a role out of the part that is signed, with the role's key: what somebody
// who has that key can do. Root metadata that name no keys get those of the repository.
func (r *Repository) Sign(role string, part []byte) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	doc := append(append([]byte(`{"signatures":[],"signed":`), part...), '}')
	switch role {
	case metadata.ROOT:
		return resign[metadata.RootType](doc, r.keys[role], func(m *metadata.RootType) {
			if len(m.Keys) == 0 {
				m.Keys, m.Roles = r.root.Signed.Keys, r.root.Signed.Roles
			}
		})
	case metadata.TARGETS:
		return resign[metadata.TargetsType](doc, r.keys[role], nil)
	case metadata.SNAPSHOT:
		return resign[metadata.SnapshotType](doc, r.keys[role], nil)
	case metadata.TIMESTAMP:
		return resign[metadata.TimestampType](doc, r.keys[role], nil)
	}
	return nil, fmt.Errorf("there is no role %q", role)
}

func resign[T metadata.Roles](doc []byte, key ed25519.PrivateKey, change func(*T)) ([]byte, error) {
	m, err := new(metadata.Metadata[T]).FromBytes(doc)
	if err != nil {
		return nil, err
	}
	if change != nil {
		change(&m.Signed)
	}
	return signed(m, key)
}

// Down makes every answer a 503, or ends that.
func (r *Repository) Down(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// Files returns what is served, and Restore serves that again: an older state.
func (r *Repository) Files() map[string][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.files)
}

// Restore serves an older state.
func (r *Repository) Restore(files map[string][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files = maps.Clone(files)
}

// Requests returns how many requests were made.
func (r *Repository) Requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

func (r *Repository) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests++
	data, ok := r.files[strings.TrimPrefix(path.Clean(req.URL.Path), "/")]
	switch {
	case r.down:
		http.Error(w, "down", http.StatusServiceUnavailable)
	case !ok:
		http.NotFound(w, req)
	default:
		w.Write(data)
	}
}

// Log is a log of a trusted root.
type Log struct {
	URL  string
	SPKI []byte // DER
	// Details names the kind of key; default PKIX_ED25519.
	Details string
	// Since is when its key begins to be valid; zero: always.
	Since time.Time
}

// TrustedRoot prints a trusted_root.json with one certificate authority,
// leaf-to-root order, and logs.
func TrustedRoot(chain []*x509.Certificate, logs ...Log) ([]byte, error) {
	type object = map[string]any
	var tlogs, certs []object
	for _, l := range logs {
		if l.Details == "" {
			l.Details = "PKIX_ED25519"
		}
		_, origin, _ := strings.Cut(l.URL, "://")
		id := make([]byte, 4)
		if key, err := checkpoint.NewVerifier(origin, l.SPKI); err == nil {
			binary.BigEndian.PutUint32(id, key.KeyHash())
		}
		tlogs = append(tlogs, object{
			"baseUrl": l.URL, "hashAlgorithm": "SHA2_256", "logId": object{"keyId": id},
			"publicKey": object{"rawBytes": l.SPKI, "keyDetails": l.Details, "validFor": object{"start": l.Since.UTC().Format(time.RFC3339)}},
		})
	}
	for _, c := range chain {
		certs = append(certs, object{"rawBytes": c.Raw})
	}
	return json.Marshal(object{
		"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1", "tlogs": tlogs,
		"certificateAuthorities": []object{{"uri": "https://fulcio.acme.example", "certChain": object{"certificates": certs}, "validFor": object{"start": "2020-01-01T00:00:00Z"}}},
	})
}
