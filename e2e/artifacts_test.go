package e2e

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/digitorus/timestamp"
	"github.com/google/rpmpack"
	"github.com/sassoftware/relic/v8/lib/certloader"
	"github.com/sassoftware/relic/v8/lib/signjar"
	"github.com/sassoftware/relic/v8/lib/zipslicer"
	rekorssh "github.com/sigstore/rekor/pkg/pki/ssh"
	"github.com/veraison/go-cose"
	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/ssh"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
	"github.com/sigwarden/sigwarden/monitor/trust/trusttest"
)

// Signed artifacts of every kind that rekor-cli can upload, each made as the
// tools of its world make it.

// upload is one call of rekor-cli, and what is to be found of it.
type upload struct {
	kind string // type, and for rekord the form of the key
	args []string
	// sha is the digest by which the log's index knows it.
	sha string
	// email and key are for looking it up; empty where the kind has none.
	email, key, format string
}

// artist makes signed artifacts. Its keys last, so that a watch can name them.
type artist struct {
	t    testing.TB
	dir  string
	ca   *testca.CA
	cert testca.Signer // with an e-mail address
	bare testca.Signer
	rsa  *rsa.PrivateKey
	pgp  *openpgp.Entity
	ssh  string // private key
	mini ed25519.PrivateKey
	tuf  *trusttest.Repository
	n    int
}

const (
	artistMail = "release@acme.example"
	pgpMail    = "packages@acme.example"
)

func newArtist(t testing.TB, ca *testca.CA) *artist {
	t.Helper()
	a := &artist{t: t, dir: t.TempDir(), ca: ca, cert: issue(t, ca, testca.Identity{Email: artistMail, Issuer: issuer, Lifetime: time.Hour})}
	var err error
	must := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a.bare, err = testca.BareKey()
	must()
	a.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	must()
	a.pgp, err = openpgp.NewEntity("acme packages", "", pgpMail, &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048})
	must()
	_, sshKey, err := ed25519.GenerateKey(rand.Reader)
	must()
	block, err := ssh.MarshalPrivateKey(sshKey, "ci@acme.example")
	must()
	a.ssh = string(pem.EncodeToMemory(block))
	_, a.mini, err = ed25519.GenerateKey(rand.Reader)
	must()
	a.tuf, err = trusttest.New()
	must()
	return a
}

func (a *artist) check(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// file writes a file and returns its path.
func (a *artist) file(name string, data []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	a.check(os.WriteFile(path, data, 0o600))
	return path
}

// fresh returns bytes that nobody has signed yet, and a name for them.
func (a *artist) fresh() ([]byte, string) {
	a.n++
	return fmt.Appendf(nil, "artifact %d of %x", a.n, a.mini.Public().(ed25519.PublicKey)[:8]), fmt.Sprintf("artifact-%d", a.n)
}

func hexSHA(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

func (a *artist) certPEM() string {
	return a.file("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Cert}))
}

func (a *artist) keyPEM(name string, key any) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	a.check(err)
	return a.file(name, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (a *artist) barePEM() string { return a.keyPEM("bare.pem", &a.bare.Key.PublicKey) }

func (a *artist) pgpKey() string {
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	a.check(err)
	a.check(a.pgp.Serialize(w))
	a.check(w.Close())
	return a.file("pgp.pub", b.Bytes())
}

func (a *artist) sshKey() (path string, public ssh.PublicKey) {
	signer, err := ssh.ParsePrivateKey([]byte(a.ssh))
	a.check(err)
	return a.file("ssh.pub", ssh.MarshalAuthorizedKey(signer.PublicKey())), signer.PublicKey()
}

// miniKey is the public key as minisign writes it: algorithm, key id, key.
func (a *artist) miniKey() string {
	data := append(append([]byte("Ed"), "\x01\x02\x03\x04\x05\x06\x07\x08"...), a.mini.Public().(ed25519.PublicKey)...)
	return a.file("minisign.pub", fmt.Appendf(nil, "untrusted comment: minisign public key\n%s\n", base64.StdEncoding.EncodeToString(data)))
}

func (a *artist) hashedrekord() upload {
	data, name := a.fresh()
	_, sig, err := a.cert.SignArtifact(data)
	a.check(err)
	return upload{kind: "hashedrekord", sha: hexSHA(data), email: artistMail, key: a.certPEM(), format: "x509",
		args: []string{"--artifact", a.file(name, data), "--signature", a.file(name+".sig", sig), "--public-key", a.certPEM(), "--pki-format", "x509"}}
}

// rekord signs in one of the four forms that a rekord may have.
func (a *artist) rekord(form string) upload {
	data, name := a.fresh()
	var sig []byte
	var key, email string
	var err error
	switch form {
	case "x509":
		_, sig, err = a.cert.SignArtifact(data)
		key, email = a.certPEM(), artistMail
	case "pgp":
		var b bytes.Buffer
		err = openpgp.ArmoredDetachSign(&b, a.pgp, bytes.NewReader(data), nil)
		sig, key, email = b.Bytes(), a.pgpKey(), pgpMail
	case "ssh":
		sig, err = rekorssh.Sign(a.ssh, bytes.NewReader(data))
		key, _ = a.sshKey()
	case "minisign":
		sig, key = a.minisign(data), a.miniKey()
	}
	a.check(err)
	return upload{kind: "rekord " + form, sha: hexSHA(data), email: email, key: key, format: form,
		args: []string{"--artifact", a.file(name, data), "--signature", a.file(name+".sig", sig), "--public-key", key, "--pki-format", form}}
}

// minisign signs as minisign does by default: over the BLAKE2b hash, and once
// more over the signature and its trusted comment.
func (a *artist) minisign(data []byte) []byte {
	sum := blake2b.Sum512(data)
	sig := ed25519.Sign(a.mini, sum[:])
	blob := append(append([]byte("ED"), "\x01\x02\x03\x04\x05\x06\x07\x08"...), sig...)
	comment := "timestamp:1"
	global := ed25519.Sign(a.mini, append(bytes.Clone(sig), comment...))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, "untrusted comment: signature\n%s\ntrusted comment: %s\n%s\n", b64(blob), comment, b64(global))
}

// envelope signs an in-toto statement in a DSSE envelope, with every key given.
func (a *artist) envelope(keys ...*ecdsa.PrivateKey) (doc []byte, name string, digest string) {
	data, name := a.fresh()
	digest = hexSHA(data)
	payload := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://slsa.dev/provenance/v0.2","subject":[{"name":%q,"digest":{"sha256":%q}}],"predicate":{}}`, name, digest)
	const payloadType = "application/vnd.in-toto+json"
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
	sum := sha256.Sum256(pae)
	var sigs []map[string]string
	for _, k := range keys {
		sig, err := ecdsa.SignASN1(rand.Reader, k, sum[:])
		a.check(err)
		sigs = append(sigs, map[string]string{"keyid": "", "sig": base64.StdEncoding.EncodeToString(sig)})
	}
	doc, err := json.Marshal(map[string]any{"payloadType": payloadType, "payload": base64.StdEncoding.EncodeToString(payload), "signatures": sigs})
	a.check(err)
	return doc, name, hexSHA(payload)
}

func (a *artist) dsse() upload {
	doc, name, payload := a.envelope(a.cert.Key, a.bare.Key)
	return upload{kind: "dsse", sha: payload, email: artistMail, key: a.certPEM(), format: "x509",
		args: []string{"--artifact", a.file(name+".json", doc), "--public-key", a.certPEM(), "--public-key", a.barePEM(), "--pki-format", "x509"}}
}

func (a *artist) intoto() upload {
	doc, name, payload := a.envelope(a.cert.Key, a.bare.Key)
	return upload{kind: "intoto", sha: payload, email: artistMail, key: a.certPEM(), format: "x509",
		args: []string{"--artifact", a.file(name+".json", doc), "--public-key", a.certPEM(), "--public-key", a.barePEM(), "--pki-format", "x509"}}
}

func (a *artist) intotoOld() upload {
	doc, name, payload := a.envelope(a.cert.Key)
	return upload{kind: "intoto:0.0.1", sha: payload, email: artistMail, key: a.certPEM(), format: "x509",
		args: []string{"--artifact", a.file(name+".json", doc), "--public-key", a.certPEM(), "--pki-format", "x509"}}
}

func (a *artist) rpm() upload {
	data, name := a.fresh()
	pkg, err := rpmpack.NewRPM(rpmpack.RPMMetaData{Name: name, Version: "1", Release: "2", Arch: "noarch"})
	a.check(err)
	pkg.SetPGPSigner(func(data []byte) ([]byte, error) {
		var b bytes.Buffer
		err := openpgp.DetachSign(&b, a.pgp, bytes.NewReader(data), nil)
		return b.Bytes(), err
	})
	pkg.AddFile(rpmpack.RPMFile{Name: "/usr/share/" + name, Body: data, Type: rpmpack.GenericFile, Owner: "root", Group: "root"})
	var b bytes.Buffer
	a.check(pkg.Write(&b))
	return upload{kind: "rpm", sha: hexSHA(b.Bytes()), email: pgpMail, key: a.pgpKey(), format: "pgp",
		args: []string{"--artifact", a.file(name+".rpm", b.Bytes()), "--public-key", a.pgpKey(), "--pki-format", "pgp"}}
}

// segment is one of the gzip streams that an Alpine package is made of. All but
// the last end without the blocks that end a tar archive.
func (a *artist) segment(name string, data []byte, last bool) []byte {
	var archive, out bytes.Buffer
	w := tar.NewWriter(&archive)
	a.check(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}))
	_, err := w.Write(data)
	a.check(err)
	if last {
		a.check(w.Close())
	} else {
		a.check(w.Flush())
	}
	z := gzip.NewWriter(&out)
	_, err = z.Write(archive.Bytes())
	a.check(err)
	a.check(z.Close())
	return out.Bytes()
}

func (a *artist) alpine() upload {
	data, name := a.fresh()
	content := a.segment(name, data, true)
	control := a.segment(".PKGINFO", fmt.Appendf(nil, "pkgname = %s\npkgver = 1\ndatahash = %s\n", name, hexSHA(content)), false)
	sum := sha1.Sum(control)
	sig, err := rsa.SignPKCS1v15(rand.Reader, a.rsa, crypto.SHA1, sum[:])
	a.check(err)
	apk := append(append(a.segment(".SIGN.RSA.acme.rsa.pub", sig, false), control...), content...)
	key := a.keyPEM("alpine.pem", &a.rsa.PublicKey)
	return upload{kind: "alpine", sha: hexSHA(apk), key: key, format: "x509",
		args: []string{"--artifact", a.file(name+".apk", apk), "--public-key", key, "--pki-format", "x509"}}
}

func (a *artist) jar() upload {
	data, name := a.fresh()
	path := filepath.Join(a.dir, name+".jar")
	f, err := os.Create(path)
	a.check(err)
	defer f.Close()
	z := zip.NewWriter(f)
	for _, m := range []struct{ name, text string }{
		{"example/Acme.class", string(data)},
		{"META-INF/MANIFEST.MF", fmt.Sprintf("Manifest-Version: 1.0\r\nCreated-By: %s\r\n\r\n", name)},
	} {
		w, err := z.Create(m.name)
		a.check(err)
		_, err = w.Write([]byte(m.text))
		a.check(err)
	}
	a.check(z.Close())
	a.check(f.Sync())
	var stream bytes.Buffer
	a.check(zipslicer.ZipToTar(f, &stream))
	digests, err := signjar.DigestJarStream(&stream, crypto.SHA256)
	a.check(err)
	leaf, err := x509.ParseCertificate(a.cert.Cert)
	a.check(err)
	patch, _, err := digests.Sign(context.Background(), &certloader.Certificate{PrivateKey: a.cert.Key, Leaf: leaf, Certificates: []*x509.Certificate{leaf}}, "acme", false, true, false)
	a.check(err)
	a.check(patch.Apply(f, path))
	signed, err := os.ReadFile(path)
	a.check(err)
	return upload{kind: "jar", sha: hexSHA(signed), args: []string{"--artifact", path}}
}

func (a *artist) helm() upload {
	data, name := a.fresh()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, a.pgp.PrivateKey, nil)
	a.check(err)
	fmt.Fprintf(w, "apiVersion: v2\nname: %s\nversion: 0.1.0\n\n...\nfiles:\n  %s-0.1.0.tgz: sha256:%s\n", name, name, hexSHA(data))
	a.check(w.Close())
	return upload{kind: "helm", sha: hexSHA(data), email: pgpMail, key: a.pgpKey(), format: "pgp",
		args: []string{"--artifact", a.file(name+".prov", b.Bytes()), "--public-key", a.pgpKey(), "--pki-format", "pgp"}}
}

func (a *artist) cose() upload {
	data, name := a.fresh()
	signer, err := cose.NewSigner(cose.AlgorithmES256, a.bare.Key)
	a.check(err)
	msg := cose.NewSign1Message()
	msg.Payload = data
	msg.Headers.Protected.SetAlgorithm(cose.AlgorithmES256)
	a.check(msg.Sign(rand.Reader, nil, signer))
	doc, err := msg.MarshalCBOR()
	a.check(err)
	return upload{kind: "cose", sha: hexSHA(data), key: a.barePEM(), format: "x509",
		args: []string{"--artifact", a.file(name+".cose", doc), "--public-key", a.barePEM(), "--pki-format", "x509"}}
}

func (a *artist) tufMetadata() upload {
	a.check(a.tuf.Publish(nil))
	_, name := a.fresh()
	return upload{kind: "tuf", key: a.file("root.json", a.tuf.Root()), format: "tuf", args: []string{"--artifact", a.file(name+".timestamp.json", a.tuf.Files()["timestamp.json"]), "--public-key", a.file("root.json", a.tuf.Root()), "--pki-format", "tuf"}}
}

func (a *artist) rfc3161() upload {
	data, name := a.fresh()
	sum := sha256.Sum256(data)
	signer := issue(a.t, a.ca, testca.Identity{DNS: "tsa.acme.example", Lifetime: time.Hour, Mangle: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping} }})
	leaf, err := x509.ParseCertificate(signer.Cert)
	a.check(err)
	ts := timestamp.Timestamp{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Time: time.Now(), Policy: []int{1, 2, 3, 4}, AddTSACertificate: true, Certificates: a.ca.Chain()}
	tsr, err := ts.CreateResponseWithOpts(leaf, signer.Key, crypto.SHA256)
	a.check(err)
	return upload{kind: "rfc3161", sha: hexSHA(tsr), args: []string{"--artifact", a.file(name+".tsr", tsr)}}
}

// gallery returns n uploads of every kind.
func (a *artist) gallery(n int) []upload {
	var out []upload
	for i := range n {
		form := []string{"x509", "pgp", "ssh", "minisign"}[i%4]
		out = append(out, a.hashedrekord(), a.rekord(form), a.dsse(), a.intoto(), a.intotoOld(), a.rpm(), a.alpine(), a.jar(), a.helm(), a.cose(), a.tufMetadata(), a.rfc3161())
	}
	return out
}

// sshPrint and minisignPrint are the fingerprints by which a watch names keys.
func (a *artist) sshPrint() string {
	_, key := a.sshKey()
	return ssh.FingerprintSHA256(key)
}

func print256(a *artist, key any) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	a.check(err)
	return "sha256:" + hexSHA(der)
}

func (a *artist) pgpPrint() string { return fmt.Sprintf("%x", a.pgp.PrimaryKey.Fingerprint) }

// typeOf is what rekor-cli's --type takes.
func (u upload) typeOf() string {
	kind, _, _ := strings.Cut(u.kind, " ")
	return kind
}
