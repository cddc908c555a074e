// Package entry turns the bytes of a log entry into facts: who signed, with
// what, which artifact. It proves nothing and trusts nobody: whoever calls it
// has proven that the bytes are in the log, and a certificate in them may be
// anybody's until Authorities.Verify has looked at it.
package entry

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
	"unsafe"
)

// SubjectType says what kind of name a subject is.
type SubjectType string

// The kinds of subject alternative names that are read.
const (
	Email    SubjectType = "email"
	URI      SubjectType = "uri"
	DNS      SubjectType = "dns"
	IP       SubjectType = "ip"
	Username SubjectType = "username" // Fulcio's otherName, user!domain
)

// Subject is one name that a certificate gives its holder.
type Subject struct {
	Type  SubjectType
	Value string
}

// Identity is one signer of an entry: a certificate, or a bare key.
type Identity struct {
	Subjects []Subject
	// Issuers are the OIDC issuers that the certificate names: one, or two
	// where its old and its new extension contradict each other. None for a key.
	Issuers []string
	// Extensions holds Fulcio's extensions by kebab-case name, others by dotted
	// OID. Values that are no text are lower-case hex.
	Extensions []Extension
	// Certificate is the DER certificate, nil for a bare key.
	Certificate []byte
	// SPKI is the DER SubjectPublicKeyInfo.
	SPKI                []byte
	NotBefore, NotAfter time.Time
	// HasSCT says that the certificate carries an SCT list.
	HasSCT bool
}

// Extension is one extension of a certificate.
type Extension struct{ Name, Value string }

// Extension returns the value of an extension by its name.
func (id *Identity) Extension(name string) (string, bool) {
	for _, e := range id.Extensions {
		if e.Name == name {
			return e.Value, true
		}
	}
	return "", false
}

// Fingerprints returns "sha256:" and the hex SHA-256 of the certificate, then
// of the key. They are computed when asked for, which few rules do.
func (id *Identity) Fingerprints() []string {
	var out []string
	for _, der := range [][]byte{id.Certificate, id.SPKI} {
		if der != nil {
			sum := sha256.Sum256(der)
			out = append(out, "sha256:"+hex.EncodeToString(sum[:]))
		}
	}
	return out
}

// Facts is what an entry says.
type Facts struct {
	// Kind and APIVersion are set as soon as the outer form was understood,
	// also of kinds that nothing here can read.
	Kind, APIVersion string
	Identities       []Identity
	// Digests of artifacts, as algorithm:hex. For an envelope (dsse) this is the
	// hash of its payload.
	Digests []string
	// Warnings say what is odd about an entry that was understood.
	Warnings []string
}

// KeyOnly reports whether the entry was signed with bare keys alone, so that
// no watch for a subject can see it.
func (f *Facts) KeyOnly() bool {
	for i := range f.Identities {
		if f.Identities[i].Certificate != nil {
			return false
		}
	}
	return len(f.Identities) > 0
}

// ErrKind says that no decoder reads entries of this kind and version.
var ErrKind = errors.New("entry kind is not understood")

// decoder reads the spec of one kind and version into f. What it understood
// stays there, also when it returns an error for the rest.
type decoder func(spec value, f *Facts) error

// Kind is a kind of entry that can be read.
type Kind struct {
	Name, APIVersion string
	// DigestOfEnvelope says that an artifact's digest cannot match: the entry
	// holds the hash of something wrapped around it.
	DigestOfEnvelope bool
	decode           decoder
}

// Kinds is the table of everything that can be read. A new kind is one file
// and one line here.
var kinds = []Kind{
	{Name: "hashedrekord", APIVersion: "0.0.2", decode: decodeHashedRekord002},
	{Name: "dsse", APIVersion: "0.0.2", DigestOfEnvelope: true, decode: decodeDSSE002},
}

// Kinds returns the table of the kinds that Decode reads.
func Kinds() []Kind { return append([]Kind(nil), kinds...) }

// Decode reads an entry's leaf. When the entry cannot be understood in full
// the error says why (ErrKind for an unknown kind or version), and the facts
// hold what could be understood: one bad part hides none of the others.
func Decode(leaf []byte) (Facts, error) {
	var f Facts
	body, err := parseJSON(leaf)
	if err != nil {
		return f, err
	}
	parts, extra := body.object("entry", "kind", "apiVersion", "spec")
	if parts == nil {
		return f, extra
	}
	if f.Kind, err = parts[0].str("kind"); err != nil {
		return f, err
	}
	if f.APIVersion, err = parts[1].str("apiVersion"); err != nil {
		return f, err
	}
	for _, k := range kinds {
		if k.Name == f.Kind && k.APIVersion == f.APIVersion {
			return f, errors.Join(k.decode(parts[2], &f), extra)
		}
	}
	return f, fmt.Errorf("%w: kind %.40q, version %.20q", ErrKind, f.Kind, f.APIVersion)
}

// textOf returns bytes as a string without copying them. What certificates are
// decoded into is made anew for each, and never changed.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// decodeBase64 accepts standard base64 in its one canonical form only.
func decodeBase64(where string, v value) ([]byte, error) {
	if v.kind != '"' {
		return nil, fmt.Errorf("%s is missing, or not a string", where)
	}
	// The standard decoder skips line ends, which no canonical form has.
	if bytes.IndexByte(v.text, '\n') >= 0 || bytes.IndexByte(v.text, '\r') >= 0 {
		return nil, fmt.Errorf("%s is not canonical base64", where)
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(v.text)))
	n, err := base64.StdEncoding.Strict().Decode(out, v.text)
	if err != nil {
		return nil, fmt.Errorf("%s is not canonical base64: %w", where, err)
	}
	return out[:n], nil
}
