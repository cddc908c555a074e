// Package entry turns the bytes of a log entry into facts: who signed, with
// what, which artifact. It proves nothing and trusts nobody: whoever calls it
// has proven that the bytes are in the log, and a certificate in them may be
// anybody's until Authorities.Verify has looked at it.
package entry

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
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
	// Format is that of a key in a form of its own: pgp, ssh, minisign or tuf.
	// Empty for X.509.
	Format string
	// Prints are the fingerprints that such a form gives its keys: for pgp the hex
	// of the primary key and its subkeys, for ssh SHA256: and base64.
	Prints []string
	// Certificate is the DER certificate, nil for a bare key.
	Certificate []byte
	// SPKI is the DER SubjectPublicKeyInfo.
	SPKI                []byte
	NotBefore, NotAfter time.Time
	// HasSCT says that the certificate carries an SCT list.
	HasSCT bool
	// name is the DER of the certificate's subject.
	name []byte
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
// of the key, or those of the form in which the key is. They are computed when
// asked for, which few rules do.
func (id *Identity) Fingerprints() []string {
	if len(id.Prints) > 0 {
		return slices.Clone(id.Prints)
	}
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
		if id := &f.Identities[i]; id.Certificate != nil || len(id.Subjects) > 0 {
			return false
		}
	}
	return len(f.Identities) > 0
}

// ErrKind says that no decoder reads entries of this kind and version.
var ErrKind = errors.New("entry kind is not understood")

// decoder reads the spec of one kind and version into f. What it understood
// stays there, also when it returns an error for the rest.
type decoder func(d *Decoder, spec value) error

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
	{Name: "hashedrekord", APIVersion: "0.0.1", decode: decodeHashedRekord001},
	{Name: "dsse", APIVersion: "0.0.1", DigestOfEnvelope: true, decode: decodeDSSE001},
	{Name: "intoto", APIVersion: "0.0.2", DigestOfEnvelope: true, decode: decodeIntoto002},
	{Name: "intoto", APIVersion: "0.0.1", DigestOfEnvelope: true, decode: decodeIntoto001},
	{Name: "rekord", APIVersion: "0.0.1", decode: decodeRekord001},
	{Name: "rpm", APIVersion: "0.0.1", decode: decodePackage((*Decoder).addPGP)},
	{Name: "alpine", APIVersion: "0.0.1", decode: decodePackage((*Decoder).addPEM)},
	{Name: "jar", APIVersion: "0.0.1", decode: decodeJAR001},
	{Name: "helm", APIVersion: "0.0.1", decode: decodeHelm001},
	{Name: "cose", APIVersion: "0.0.1", DigestOfEnvelope: true, decode: decodeCOSE001},
	{Name: "tuf", APIVersion: "0.0.1", decode: decodeTUF001},
	{Name: "rfc3161", APIVersion: "0.0.1", decode: decodeRFC3161001},
}

// Kinds returns the table of the kinds that Decode reads.
func Kinds() []Kind { return append([]Kind(nil), kinds...) }

// Decode reads an entry's leaf. When the entry cannot be understood in full
// the error says why (ErrKind for an unknown kind or version), and the facts
// hold what could be understood: one bad part hides none of the others.
func Decode(leaf []byte) (Facts, error) {
	f, err := new(Decoder).Decode(leaf)
	return *f, err
}

// FaultError says that an entry broke what reads entries: a fault of this program, or of a library.
type FaultError struct {
	Fault any
	Stack []byte
}

func (e *FaultError) Error() string { return fmt.Sprintf("it breaks what reads entries: %v", e.Fault) }

// Decoder decodes one entry after the other in the same memory. It is not for
// use by several goroutines.
type Decoder struct {
	facts  Facts
	parser parser
	bytes  []byte // what base64 was decoded to, and the texts of digests
}

// Decode is the function of the same name, with facts that are overwritten by
// the next call: who wants to keep them decodes the leaf anew. An entry on which
// a parser of somebody else's gives up for good is one that cannot be understood
// in full: strangers have written it, and it stays in the log.
func (d *Decoder) Decode(leaf []byte) (f *Facts, err error) {
	f = &d.facts
	defer func() {
		if fault := recover(); fault != nil {
			d.parser, d.bytes = parser{}, nil
			err = &FaultError{fault, debug.Stack()}
		}
	}()
	d.bytes = d.bytes[:0]
	*f = Facts{Identities: f.Identities[:0], Digests: f.Digests[:0]}
	body, err := d.parser.parse(leaf)
	if err != nil {
		return f, err
	}
	parts, ok, extra := body.object(at("entry"), "kind", "apiVersion", "spec")
	if !ok {
		return f, extra
	}
	for i := range kinds {
		k := &kinds[i]
		if parts[0].is(k.Name) && parts[1].is(k.APIVersion) {
			f.Kind, f.APIVersion = k.Name, k.APIVersion
			return f, join(k.decode(d, parts[2]), extra)
		}
	}
	if f.Kind, err = parts[0].str(at("kind")); err != nil {
		return f, err
	}
	if f.APIVersion, err = parts[1].str(at("apiVersion")); err != nil {
		return f, err
	}
	return f, fmt.Errorf("%w: kind %.40q, version %.20q", ErrKind, f.Kind, f.APIVersion)
}

// identity returns room for one more identity, with the lists of one that was
// there before.
func (d *Decoder) identity() *Identity {
	list := d.facts.Identities
	if len(list) < cap(list) {
		list = list[:len(list)+1]
		old := &list[len(list)-1]
		*old = Identity{Subjects: old.Subjects[:0], Issuers: old.Issuers[:0], Extensions: old.Extensions[:0], Prints: old.Prints[:0]}
	} else {
		list = append(list, Identity{Extensions: make([]Extension, 0, 24)})
	}
	d.facts.Identities = list
	return &list[len(list)-1]
}

// room returns n bytes that stay as they are until the next entry.
func (d *Decoder) room(n int) []byte {
	if cap(d.bytes)-len(d.bytes) < n {
		d.bytes = make([]byte, 0, max(8192, 2*n)) // what points into the old ones keeps them
	}
	start := len(d.bytes)
	d.bytes = d.bytes[:start+n]
	return d.bytes[start : start+n : start+n]
}

// textOf returns bytes as a string without copying them: they must not change as
// long as anybody has the string, which a Decoder promises until its next entry.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// base64 accepts standard base64 in its one canonical form only.
func (d *Decoder) base64(where place, v value) ([]byte, error) {
	if v.kind != '"' {
		return nil, fmt.Errorf("%s is missing, or not a string", where)
	}
	out := d.room(base64.StdEncoding.DecodedLen(len(v.text)))
	n, err := decodeBase64(out, v.text)
	if err != nil {
		return nil, fmt.Errorf("%s is not canonical base64: %w", where, err)
	}
	if n == 0 {
		return []byte{}, nil // nil stands for what could not be decoded
	}
	return out[:n], nil
}
