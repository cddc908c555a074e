// Package corpus makes logs like Rekor's, of any size, for measurements: directories of tiles
// with entries as CI jobs, people and bare keys make them, all different. Nothing in memory grows
// with a log.
package corpus

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog/testca"
)

// Issuers of the certificates.
const (
	GitHub = "https://token.actions.githubusercontent.com"
	Google = "https://accounts.google.com"
)

// Options say what a corpus is like. The zero value of each works.
type Options struct {
	// Certificates is how many different ones there are, from 1 to 99,999,999; default 200.
	Certificates int
	// Seed gives entries their places. Keys and authorities are new each time.
	Seed uint64
	// V1 makes bodies of Rekor v1 in place of those of v2.
	V1 bool
}

// Corpus makes entries.
type Corpus struct {
	opts   Options
	CA     *testca.CA
	key    ed25519.PrivateKey
	github template
	google template
	bare   template
	total  int // of the weights of kinds
}

// kinds are how entries are shared out, by hundreds.
var kinds = []struct {
	weight int
	who    func(*Corpus) *template
	dsse   bool
}{
	{62, func(c *Corpus) *template { return &c.github }, false},
	{18, func(c *Corpus) *template { return &c.github }, true},
	{12, func(c *Corpus) *template { return &c.google }, false},
	{8, func(c *Corpus) *template { return &c.bare }, false},
}

// marker stands, in a template, where the number of a certificate comes.
const marker = "00000000"

// template is the DER of a certificate or key, and where what makes one unlike another is in it.
type template struct {
	der    []byte
	digits []int // of 8 digits each
	random []int // of 8 bytes each: serial number, key, signature
	bare   bool
}

// New makes a corpus, with a certificate authority and a log's key of its own.
func New(opts Options) (*Corpus, error) {
	if opts.Certificates == 0 {
		opts.Certificates = 200
	}
	c := &Corpus{opts: opts}
	var err error
	if c.CA, err = testca.New("bench", time.Now()); err != nil {
		return nil, err
	}
	ct, err := testca.NewCTLog()
	if err != nil {
		return nil, err
	}
	const repository = "https://github.com/org-" + marker + "/project-with-a-usual-name"
	const sha = "7c2a5f31b1a0c6a1d0f5a8e1b7c3f0d4e2a9b8c7"
	workflow := repository + "/.github/workflows/release-and-publish-all-container-images.yml@refs/tags/v1.24.3-rc.1"
	if c.github, err = c.template(testca.Identity{URI: workflow, Issuer: GitHub, CT: ct, Extensions: map[int]string{
		2: "push", 3: sha, 4: "release", 5: "org-" + marker + "/project-with-a-usual-name", 6: "refs/tags/v1.24.3",
		9: workflow, 10: sha, 11: "github-hosted", 12: repository, 13: sha, 14: "refs/tags/v1.24.3", 15: "7" + marker, 16: "https://github.com/org-" + marker, 17: "1" + marker,
		18: workflow, 19: sha, 20: "push", 21: repository + "/actions/runs/105" + marker + "/attempts/1", 22: "public",
	}}); err != nil {
		return nil, err
	}
	if c.google, err = c.template(testca.Identity{Email: "person-" + marker + "@somebody.example", Issuer: Google, CT: ct}); err != nil {
		return nil, err
	}
	bare, err := testca.BareKey()
	if err != nil {
		return nil, err
	}
	if c.bare.der, err = bare.SPKI(); err != nil {
		return nil, err
	}
	c.bare.bare = true
	for i := 8; i <= 64; i += 8 {
		c.bare.random = append(c.bare.random, len(c.bare.der)-i)
	}
	for _, k := range kinds {
		c.total += k.weight
	}
	_, c.key, err = ed25519.GenerateKey(nil)
	return c, err
}

func (c *Corpus) template(id testca.Identity) (template, error) {
	s, err := c.CA.Issue(id)
	if err != nil {
		return template{}, err
	}
	spki, err := s.SPKI()
	if err != nil {
		return template{}, err
	}
	t := template{der: s.Cert}
	for at := 0; ; {
		i := bytes.Index(t.der[at:], []byte(marker))
		if i < 0 {
			break
		}
		t.digits = append(t.digits, at+i)
		at += i + len(marker)
	}
	key := bytes.Index(t.der, spki)
	if key < 0 || len(t.digits) == 0 {
		return t, fmt.Errorf("a certificate of %d bytes has no key or no number in it", len(t.der))
	}
	for i := 8; i <= 64; i += 8 {
		t.random = append(t.random, key+len(spki)-i)
	}
	// SEQUENCE, SEQUENCE, [0] version 3, INTEGER: 4 + 4 + 5 + 2 bytes before the serial number.
	t.random = append(t.random, 4+4+5+2+1, len(t.der)-8, len(t.der)-16)
	return t, nil
}

// make writes the certificate or key of a number into room, which it returns.
func (t *template) make(room []byte, number uint64) []byte {
	room = append(room[:0], t.der...)
	var text [len(marker)]byte
	for i, n := len(text)-1, number; i >= 0; i, n = i-1, n/10 {
		text[i] = byte('0' + n%10)
	}
	for _, at := range t.digits {
		copy(room[at:], text[:])
	}
	for i, at := range t.random {
		binary.BigEndian.PutUint64(room[at:], mix(number, uint64(i))|1)
	}
	return room
}

// mix spreads numbers over all 64 bits (splitmix64).
func mix(a, b uint64) uint64 {
	z := a*0x9e3779b97f4a7c15 + b*0xbf58476d1ce4e5b9 + 0x94d049bb133111eb
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Maker makes entries one after the other in the same memory. It is not for several goroutines.
type Maker struct {
	c   *Corpus
	pcg *rand.PCG
	der []byte
	buf []byte
}

// Maker returns one.
func (c *Corpus) Maker() *Maker { return &Maker{c: c, pcg: rand.NewPCG(0, 0)} }

// Append appends the entry of an index to a buffer. The same index always has the same entry.
func (m *Maker) Append(to []byte, index uint64) []byte {
	m.pcg.Seed(m.c.opts.Seed, index)
	var noise [4 + 9 + 4]uint64
	for i := range noise {
		noise[i] = m.pcg.Uint64()
	}
	var random [8 * len(noise)]byte
	for i, n := range noise {
		binary.BigEndian.PutUint64(random[8*i:], n)
	}
	digest, signature, envelope := random[:32], random[32:32+71], random[32+72:]
	copy(signature, "\x30\x45\x02\x21\x00")
	copy(signature[38:], "\x02\x20")
	choice, kind := int(m.pcg.Uint64()%uint64(m.c.total)), kinds[0]
	for _, k := range kinds {
		if kind = k; choice < k.weight {
			break
		}
		choice -= k.weight
	}
	t := kind.who(m.c)
	m.der = t.make(m.der, m.pcg.Uint64()%uint64(m.c.opts.Certificates))
	b64 := base64.StdEncoding.AppendEncode
	if !m.c.opts.V1 {
		if kind.dsse {
			to = append(to, `{"apiVersion":"0.0.2","kind":"dsse","spec":{"dsseV002":{"payloadHash":{"algorithm":"SHA2_256","digest":"`...)
			to = b64(to, digest)
			to = append(to, `"},"signatures":[{"content":"`...)
		} else {
			to = append(to, `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":"`...)
			to = b64(to, digest)
			to = append(to, `"},"signature":{"content":"`...)
		}
		to = b64(to, signature)
		to = append(to, `","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","`...)
		if t.bare {
			to = append(to, `publicKey":{"rawBytes":"`...)
		} else {
			to = append(to, `x509Certificate":{"rawBytes":"`...)
		}
		to = b64(to, m.der)
		if kind.dsse {
			return append(to, `"}}}]}}}`...)
		}
		return append(to, `"}}}}}}`...)
	}
	m.buf = appendPEM(m.buf[:0], m.der, t.bare)
	if kind.dsse {
		to = append(to, `{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"`...)
		to = hex.AppendEncode(to, envelope[:32])
		to = append(to, `"},"payloadHash":{"algorithm":"sha256","value":"`...)
		to = hex.AppendEncode(to, digest)
		to = append(to, `"},"signatures":[{"signature":"`...)
		to = b64(to, signature)
		to = append(to, `","verifier":"`...)
		to = b64(to, m.buf)
		return append(to, `"}]}}`...)
	}
	to = append(to, `{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"`...)
	to = hex.AppendEncode(to, digest)
	to = append(to, `"}},"signature":{"content":"`...)
	to = b64(to, signature)
	to = append(to, `","publicKey":{"content":"`...)
	to = b64(to, m.buf)
	return append(to, `"}}}}`...)
}

// appendPEM appends PEM (RFC 7468), as encoding/pem writes it.
func appendPEM(to, der []byte, bare bool) []byte {
	label := "CERTIFICATE"
	if bare {
		label = "PUBLIC KEY"
	}
	to = append(append(append(to, "-----BEGIN "...), label...), "-----\n"...)
	for line := range slices.Chunk(der, 48) {
		to = append(base64.StdEncoding.AppendEncode(to, line), '\n')
	}
	return append(append(append(to, "-----END "...), label...), "-----\n"...)
}

// Leaves returns n entries from an index on, each in memory of its own.
func (c *Corpus) Leaves(from uint64, n int) [][]byte {
	m := c.Maker()
	out := make([][]byte, n)
	for i := range out {
		out[i] = slices.Clip(m.Append(nil, from+uint64(i)))
	}
	return out
}

// Origin is that of the log.
const Origin = "bench.example"

// Config returns the configuration of a log in a directory that WriteDir has written.
func Config(dir string) string {
	return "  - {name: bench, type: rekor-v2, url: 'file://" + dir + "/log', origin: " + Origin + ", public_key: " + strconv.Quote(dir+"/log.pub") + ", ca: " + strconv.Quote(dir+"/ca.pem") + ", start: first}\n"
}

// Watches returns n watches of which none fits any entry, each with as many regular expressions.
func Watches(n, expressions int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  - name: w%d\n    match:\n      - {subject: \"https://github.com/nobody%d/*\", issuer: %s}\n      - {subject: \"*@nobody%d.example\"}\n      - {extensions: {source-repository-owner-uri: \"https://github.com/nobody%d\"}}\n", i, i, GitHub, i, i)
		for j := range expressions {
			fmt.Fprintf(&b, "      - {subject: 're:https://github\\.com/(nobody|none)-%d-%d/[a-z-]+/\\.github/workflows/[a-z]+\\.yml@refs/(heads|tags)/.*'}\n", i, j)
		}
	}
	return b.String()
}

// log returns a log of the corpus's key, to sign with.
func (c *Corpus) log() (*locallog.Log, error) {
	return locallog.NewWithKey(Origin, c.key.Public().(ed25519.PublicKey), c.key)
}
