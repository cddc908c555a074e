package locallog

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// V1 is a small real Rekor v1 server: trees that follow each other, one of which
// grows, proofs, signed tree heads and signed entry timestamps. It can be told
// to misbehave.
type V1 struct {
	key, stranger      *ecdsa.PrivateKey // stranger is the key of FaultsV1.Stranger
	spki, strangerSPKI []byte

	mu       sync.Mutex
	host     string
	trees    []*v1Tree
	faults   FaultsV1
	limiter  *rate.Limiter
	requests map[int]int       // by status
	notes    map[string]string // that were signed last, by their text
}

// FaultsV1 is how a server misbehaves. Indexes are those within the tree that
// grows.
type FaultsV1 struct {
	// Omit leaves entries out of answers without a word; Alter serves another
	// body for them, under the id of the true one.
	Omit  map[uint64]bool
	Alter map[uint64][]byte
	// Promise signs a promise for what Alter serves, as only the log itself can.
	Promise bool
	// NoPath serves an inclusion proof that proves nothing, NoAnswer 500 for every
	// request that asks for one of these entries.
	NoPath   map[uint64]bool
	NoAnswer map[uint64]bool
	// Size, if not nil, signs the growing tree at this earlier size: a lagging
	// replica.
	Size *uint64
	// NoProofs answers 400 for every consistency proof, NoProof 500 for those from one of these sizes.
	NoProofs bool
	NoProof  map[uint64]bool
	// WrongProofs serves consistency proofs that prove nothing.
	WrongProofs bool
	// WrongTimes serves another time of integration than the one that is signed.
	WrongTimes bool
	// Stranger signs the head of the growing tree with a key that is told to nobody.
	Stranger bool
	// Latency is how long every answer takes, PerSecond the requests that are
	// answered in a second; the others get 429.
	Latency   time.Duration
	PerSecond float64
}

// v1Tree is one tree: levels[b][i] is the root of its perfect subtree (b, i).
type v1Tree struct {
	id      uint64
	entries [][]byte
	times   []int64
	levels  [][]Hash
}

// NewV1 returns a server with one empty tree and a fresh key.
func NewV1(host string, tree uint64) (*V1, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return NewV1WithKeys(host, tree, key, stranger)
}

// NewV1WithKeys returns a server with one empty tree and keys that the caller made: its own, and that
// of FaultsV1.Stranger. With the same ones it signs the same in the same way.
func NewV1WithKeys(host string, tree uint64, key, stranger *ecdsa.PrivateKey) (*V1, error) {
	v := &V1{key: key, stranger: stranger, host: host, trees: []*v1Tree{{id: tree}}, requests: map[int]int{}}
	var err error
	if v.spki, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
		return nil, err
	}
	v.strangerSPKI, err = x509.MarshalPKIXPublicKey(&stranger.PublicKey)
	return v, err
}

// PublicKeyPEM returns the server's key.
func (v *V1) PublicKeyPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: v.spki}))
}

// Set changes how the server misbehaves.
func (v *V1) Set(f FaultsV1) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.faults, v.limiter = f, nil
	if f.PerSecond > 0 {
		v.limiter = rate.NewLimiter(rate.Limit(f.PerSecond), max(1, int(f.PerSecond)/4))
	}
}

// SetHost changes the name under which the server signs, as a restart of a
// private one does.
func (v *V1) SetHost(host string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.host = host
}

// Rotate ends the tree that grows and begins another one.
func (v *V1) Rotate(tree uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.trees = append(v.trees, &v1Tree{id: tree})
}

// Append adds entries to the tree that grows.
func (v *V1) Append(entries ...[]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.trees[len(v.trees)-1]
	for _, e := range entries {
		t.push(e)
	}
}

// AppendTo adds entries to any of the trees, counted from the oldest.
func (v *V1) AppendTo(tree int, entries ...[]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range entries {
		v.trees[tree].push(e)
	}
}

// Rewrite gives the tree that grows another history from an index on.
func (v *V1) Rewrite(from uint64, entries ...[]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.trees[len(v.trees)-1]
	t := &v1Tree{id: old.id}
	for _, e := range old.entries[:from] {
		t.push(e)
	}
	for _, e := range entries {
		t.push(e)
	}
	v.trees[len(v.trees)-1] = t
}

// Requests returns how many requests were answered with each status.
func (v *V1) Requests() map[int]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[int]int{}
	for status, n := range v.requests {
		out[status] = n
	}
	return out
}

func (t *v1Tree) push(e []byte) {
	t.entries = append(t.entries, e)
	t.times = append(t.times, time.Now().Unix())
	h := LeafHash(e)
	for b := 0; ; b++ {
		if b == len(t.levels) {
			t.levels = append(t.levels, nil)
		}
		t.levels[b] = append(t.levels[b], h)
		n := len(t.levels[b])
		if n%2 == 1 {
			return
		}
		h = nodeHash(t.levels[b][n-2], t.levels[b][n-1])
	}
}

// root is the Merkle tree hash over [from, to) (RFC 6962, 2.1).
func (t *v1Tree) root(from, to uint64) Hash {
	n := to - from
	switch {
	case n == 0:
		return sha256.Sum256(nil)
	case n&(n-1) == 0 && from%n == 0:
		b := 0
		for 1<<b < n {
			b++
		}
		return t.levels[b][from/n]
	}
	k := split(n)
	return nodeHash(t.root(from, from+k), t.root(from+k, to))
}

// split is the largest power of two below n.
func split(n uint64) uint64 {
	k := uint64(1)
	for k*2 < n {
		k *= 2
	}
	return k
}

// path is the audit path of a leaf (RFC 6962, 2.1.1).
func (t *v1Tree) path(index, from, to uint64) []Hash {
	if to-from == 1 {
		return nil
	}
	k := split(to - from)
	if index-from < k {
		return append(t.path(index, from, from+k), t.root(from+k, to))
	}
	return append(t.path(index, from+k, to), t.root(from, from+k))
}

// proof is the consistency proof from m leaves to those in [from, to)
// (RFC 6962, 2.1.2).
func (t *v1Tree) proof(m, from, to uint64, whole bool) []Hash {
	n := to - from
	if m == n {
		if whole {
			return nil
		}
		return []Hash{t.root(from, to)}
	}
	k := split(n)
	if m <= k {
		return append(t.proof(m, from, from+k, whole), t.root(from+k, to))
	}
	return append(t.proof(m-k, from+k, to, false), t.root(from, from+k))
}

func hexes(list []Hash) []string {
	out := []string{}
	for _, h := range list {
		out = append(out, hex.EncodeToString(h[:]))
	}
	return out
}

// ServeHTTP serves the parts of the API that a monitor reads.
func (v *V1) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	f, limiter := v.faults, v.limiter
	v.mu.Unlock()
	if f.Latency > 0 {
		select {
		case <-time.After(f.Latency):
		case <-r.Context().Done():
			return
		}
	}
	status, doc := http.StatusTooManyRequests, any(nil)
	if limiter == nil || limiter.Allow() {
		v.mu.Lock()
		status, doc = v.answer(r)
		v.mu.Unlock()
	}
	v.mu.Lock()
	v.requests[status]++
	v.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if doc == nil {
		doc = map[string]any{"code": status, "message": http.StatusText(status)}
	}
	json.NewEncoder(w).Encode(doc)
}

func (v *V1) answer(r *http.Request) (int, any) {
	switch r.Method + " " + r.URL.Path {
	case "GET /api/v1/log":
		return http.StatusOK, v.info()
	case "GET /api/v1/log/proof":
		return v.consistency(r)
	case "POST /api/v1/log/entries/retrieve":
		return v.retrieve(r)
	}
	return http.StatusNotFound, nil
}

// size is what the server signs of a tree.
func (v *V1) size(t *v1Tree) uint64 {
	if v.faults.Size != nil && t == v.trees[len(v.trees)-1] {
		return *v.faults.Size
	}
	return uint64(len(t.entries))
}

func sign(key *ecdsa.PrivateKey, data []byte) []byte {
	digest := sha256.Sum256(data)
	sig, err := key.Sign(nil, digest[:], crypto.SHA256) // as RFC 6979 says
	if err != nil {
		return nil
	}
	return sig
}

func (v *V1) note(t *v1Tree) string {
	key := v.key
	if v.faults.Stranger && t == v.trees[len(v.trees)-1] {
		key = v.stranger
	}
	size := v.size(t)
	return v.signHead(t.id, key, size, t.root(0, size))
}

// maxNotes bounds the notes that are kept: every entry comes with the newest.
const maxNotes = 16

func (v *V1) signHead(tree uint64, key *ecdsa.PrivateKey, size uint64, root Hash) string {
	text := fmt.Sprintf("%s - %d\n%d\n%s\n", v.host, tree, size, base64.StdEncoding.EncodeToString(root[:]))
	spki := v.spki
	if key == v.stranger {
		spki = v.strangerSPKI
	} else if made := v.notes[text]; made != "" {
		return made
	}
	id := sha256.Sum256(spki)
	made := text + "\n\u2014 " + v.host + " " + base64.StdEncoding.EncodeToString(append(id[:4:4], sign(key, []byte(text))...)) + "\n"
	if key == v.key {
		if len(v.notes) >= maxNotes || v.notes == nil {
			v.notes = map[string]string{}
		}
		v.notes[text] = made
	}
	return made
}

// SignHead signs any head of a tree, by its id.
func (v *V1) SignHead(tree, size uint64, root Hash) []byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	return []byte(v.signHead(tree, v.key, size, root))
}

func (v *V1) info() any {
	describe := func(t *v1Tree) map[string]any {
		root := t.root(0, v.size(t))
		return map[string]any{"rootHash": hex.EncodeToString(root[:]), "treeSize": v.size(t), "treeID": fmt.Sprint(t.id), "signedTreeHead": v.note(t)}
	}
	last := len(v.trees) - 1
	doc := describe(v.trees[last])
	var inactive []any
	for _, t := range v.trees[:last] {
		inactive = append(inactive, describe(t))
	}
	doc["inactiveShards"] = inactive
	return doc
}

func (v *V1) consistency(r *http.Request) (int, any) {
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(r.URL.Query().Get(name), 10, 63)
		return n
	}
	first, last, id := number("firstSize"), number("lastSize"), number("treeID")
	for _, t := range v.trees {
		if t.id == id && first > 0 && first <= last && last <= v.size(t) && !v.faults.NoProofs {
			if t == v.trees[len(v.trees)-1] && v.faults.NoProof[first] {
				return http.StatusInternalServerError, nil
			}
			root := t.root(0, v.size(t))
			proof := t.proof(first, 0, last, true)
			if v.faults.WrongProofs && len(proof) > 0 {
				proof[0][0] ^= 1
			}
			return http.StatusOK, map[string]any{"rootHash": hex.EncodeToString(root[:]), "hashes": hexes(proof)}
		}
	}
	return http.StatusBadRequest, nil
}

func (v *V1) retrieve(r *http.Request) (int, any) {
	var query struct {
		Indexes []uint64 `json:"logIndexes"`
	}
	if err := json.NewDecoder(r.Body).Decode(&query); err != nil || len(query.Indexes) > 10 || len(query.Indexes) == 0 {
		return http.StatusUnprocessableEntity, nil
	}
	out := []any{}
	for _, global := range query.Indexes {
		index := global
		for i, t := range v.trees {
			if n := uint64(len(t.entries)); index >= n && i < len(v.trees)-1 {
				index -= n
				continue
			}
			active := i == len(v.trees)-1
			if active && v.faults.NoAnswer[index] {
				return http.StatusInternalServerError, nil
			}
			if index < uint64(len(t.entries)) && !(active && v.faults.Omit[index]) {
				out = append(out, v.entry(t, index, global, active))
			}
			break
		}
	}
	return http.StatusOK, out
}

func (v *V1) entry(t *v1Tree, index, global uint64, active bool) any {
	leaf := t.entries[index]
	hash := LeafHash(leaf)
	promised := leaf
	if other, ok := v.faults.Alter[index]; ok && active {
		leaf = other
		if v.faults.Promise {
			promised = other
		}
	}
	size := uint64(len(t.entries))
	root := t.root(0, size)
	logID := sha256.Sum256(v.spki)
	body := base64.StdEncoding.EncodeToString(leaf)
	promise := fmt.Sprintf(`{"body":"%s","integratedTime":%d,"logID":"%x","logIndex":%d}`, base64.StdEncoding.EncodeToString(promised), t.times[index], logID, global)
	path := hexes(t.path(index, 0, size))
	if v.faults.NoPath[index] && active && len(path) > 0 {
		path = path[1:]
	}
	saved := v.faults.Size
	v.faults.Size = nil
	note := v.note(t)
	v.faults.Size = saved
	integrated := t.times[index]
	if v.faults.WrongTimes && active {
		integrated++
	}
	return map[string]any{fmt.Sprintf("%016x%x", t.id, hash): map[string]any{
		"body": body, "integratedTime": integrated, "logID": hex.EncodeToString(logID[:]), "logIndex": global,
		"verification": map[string]any{
			"signedEntryTimestamp": sign(v.key, []byte(promise)),
			"inclusionProof": map[string]any{
				"logIndex": index, "treeSize": size, "rootHash": hex.EncodeToString(root[:]), "hashes": path, "checkpoint": note,
			},
		},
	}}
}
