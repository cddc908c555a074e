package rekor

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// Bounds of what a Rekor v1 server answers.
const (
	maxLogInfo  = 1 << 20
	maxRetrieve = 32 << 20
	maxProof    = 64 << 10
	// retrieveMax is how many entries one request may ask for.
	retrieveMax = 10
)

// V1 reads a Rekor v1 server, which may hold several trees: one that grows, and
// those before it. It may be used by several goroutines at a time.
type V1 struct {
	client *client
}

// NewV1 returns the reader of a server. Its resources are below URL/api/v1/.
func NewV1(opts Options) (*V1, error) {
	setDefault(&opts.RequestsPerSecond, 30)
	setDefault(&opts.Parallel, 64)
	c, err := newClient(opts)
	if err != nil {
		return nil, err
	}
	return &V1{client: c}, nil
}

// Stats counts requests made and bytes received.
func (v *V1) Stats() Stats { return v.client.stats() }

// Tree is one tree of a Rekor v1 server as it is served: unproven.
type Tree struct {
	ID     string // decimal
	Size   uint64
	Note   []byte // signed tree head
	Active bool   // it grows
}

// treeJSON is a part of GET /api/v1/log (rekor's OpenAPI). Only the note in it is
// signed.
type treeJSON struct {
	Size uint64 `json:"treeSize"`
	ID   string `json:"treeID"`
	Note string `json:"signedTreeHead"`
}

// Trees returns the trees of the server, the oldest first, the one that grows
// last.
func (v *V1) Trees(ctx context.Context) ([]Tree, error) {
	const path = "api/v1/log"
	a, err := v.client.get(ctx, "log", path, maxLogInfo, "")
	if err != nil {
		return nil, err
	}
	var doc struct {
		treeJSON
		Inactive []treeJSON `json:"inactiveShards"`
	}
	if err := json.Unmarshal(a.body, &doc); err != nil {
		return nil, &MalformedError{path, "not the JSON of a log: " + err.Error()}
	}
	var trees []Tree
	seen := map[string]bool{}
	for _, t := range append(doc.Inactive, doc.treeJSON) {
		if n, err := strconv.ParseUint(t.ID, 10, 63); err != nil || strconv.FormatUint(n, 10) != t.ID || seen[t.ID] || t.Note == "" || t.Size > math.MaxInt64 {
			return nil, &MalformedError{path, fmt.Sprintf("tree %.40q has no id of its own, no signed tree head, or no possible size", t.ID)}
		}
		seen[t.ID] = true
		trees = append(trees, Tree{t.ID, t.Size, []byte(t.Note), false})
	}
	trees[len(trees)-1].Active = true
	return trees, nil
}

// Tree returns the reader of one tree.
func (v *V1) Tree(id string) *V1Tree { return &V1Tree{server: v, id: id} }

// V1Tree reads one tree of a Rekor v1 server. Indexes are those within the tree.
// It may be used by several goroutines at a time.
type V1Tree struct {
	server *V1
	id     string
}

// ServedEntry is an entry with what a Rekor v1 server says about it: unproven.
// Path leads from the leaf at Index to Note. LogIndex counts over all trees.
type ServedEntry = struct {
	Index, LogIndex uint64
	Leaf            []byte   // nil: the server left it out
	Hash            []byte   // of the leaf, as the entry's id says
	Path            [][]byte // leaf side first
	Note            []byte
	Integrated      int64  // seconds since 1970; signed by SET only
	SET             []byte // signed entry timestamp
}

// Behind marks requests that give way: they wait while others to the same server
// do, of whichever tree.
func (t *V1Tree) Behind(ctx context.Context) context.Context { return withGivingWay(ctx) }

// find returns the tree, and those before it.
func (t *V1Tree) find(ctx context.Context) (tree Tree, before []Tree, err error) {
	trees, err := t.server.Trees(ctx)
	if err != nil {
		return Tree{}, nil, err
	}
	for i, tree := range trees {
		if tree.ID == t.id {
			return tree, trees[:i], nil
		}
	}
	return Tree{}, nil, &StatusError{http.StatusNotFound, http.MethodGet, "api/v1/log", "tree " + t.id + " is not among those of the server"}
}

// Checkpoint returns the newest signed note of the tree.
func (t *V1Tree) Checkpoint(ctx context.Context) ([]byte, error) {
	tree, _, err := t.find(ctx)
	return tree.Note, err
}

// ConsistencyProof returns the RFC 6962 consistency proof between two sizes,
// 0 < from <= to. A replica that does not know the larger one yet gives a
// StatusError with status 400.
func (t *V1Tree) ConsistencyProof(ctx context.Context, from, to uint64) ([][]byte, error) {
	if from == 0 || from > to {
		return nil, fmt.Errorf("consistency proof from %d to %d: there is none", from, to)
	}
	path := fmt.Sprintf("api/v1/log/proof?firstSize=%d&lastSize=%d&treeID=%s", from, to, t.id)
	a, err := t.server.client.get(ctx, "proof", path, maxProof, "")
	if err != nil {
		return nil, err
	}
	var doc struct {
		Hashes []string `json:"hashes"`
	}
	if err := json.Unmarshal(a.body, &doc); err != nil {
		return nil, &MalformedError{path, "not the JSON of a proof"}
	}
	hashes, err := hexHashes(doc.Hashes)
	if err != nil {
		return nil, &MalformedError{path, err.Error()}
	}
	return hashes, nil
}

func hexHashes(list []string) ([][]byte, error) {
	if len(list) > 64 {
		return nil, fmt.Errorf("%d hashes: no tree is that high", len(list))
	}
	out := make([][]byte, len(list))
	for i, text := range list {
		h, err := hex.DecodeString(text)
		if err != nil || len(h) != hashSize {
			return nil, fmt.Errorf("%.80q is not the hex of a hash", text)
		}
		out[i] = h
	}
	return out, nil
}

// Offset returns how many entries the trees before this one hold, which is
// added to its indexes in requests, and their signed heads. It is not signed:
// entries that were fetched with a wrong one do not fit the tree.
func (t *V1Tree) Offset(ctx context.Context) (offset uint64, before [][]byte, err error) {
	_, trees, err := t.find(ctx)
	for _, tree := range trees {
		if offset += tree.Size; offset > math.MaxInt64 {
			return 0, nil, &MalformedError{"api/v1/log", "the trees hold more entries than can be counted"}
		}
		before = append(before, tree.Note)
	}
	return offset, before, err
}

// entryJSON is what the server says of an entry.
type entryJSON struct {
	Body         []byte `json:"body"`
	Integrated   int64  `json:"integratedTime"`
	LogIndex     uint64 `json:"logIndex"`
	Verification struct {
		SET   []byte `json:"signedEntryTimestamp"`
		Proof *struct {
			Index  uint64   `json:"logIndex"`
			Hashes []string `json:"hashes"`
			Note   string   `json:"checkpoint"`
		} `json:"inclusionProof"`
	} `json:"verification"`
}

// Entries returns the entries [from, to), at most ten, each in its place; the
// server leaves out without a word what it does not have. offset is that of the
// tree.
func (t *V1Tree) Entries(ctx context.Context, offset, from, to uint64) ([]ServedEntry, error) {
	if from >= to || to-from > retrieveMax {
		return nil, fmt.Errorf("entries [%d, %d): want 1 to %d", from, to, retrieveMax)
	}
	var query struct {
		Indexes []uint64 `json:"logIndexes"`
	}
	out := make([]ServedEntry, to-from)
	for i := range out {
		out[i].Index, out[i].LogIndex = from+uint64(i), offset+from+uint64(i)
		query.Indexes = append(query.Indexes, out[i].LogIndex)
	}
	body, err := json.Marshal(query)
	if err != nil {
		return nil, err
	}
	const path = "api/v1/log/entries/retrieve"
	a, err := t.server.client.do(ctx, request{kind: "entries", path: path, body: body, limit: maxRetrieve})
	if err != nil {
		return nil, err
	}
	var list []map[string]entryJSON
	if err := json.Unmarshal(a.body, &list); err != nil {
		return nil, &MalformedError{path, "not the JSON of entries: " + err.Error()}
	}
	for _, object := range list {
		for id, e := range object {
			if err := t.place(out, id, e); err != nil {
				return nil, &MalformedError{path, err.Error()}
			}
		}
	}
	return out, nil
}

// place puts an entry where it belongs.
func (t *V1Tree) place(out []ServedEntry, id string, e entryJSON) error {
	at := e.LogIndex - out[0].LogIndex
	if e.LogIndex < out[0].LogIndex || at >= uint64(len(out)) {
		return fmt.Errorf("entry %d was not asked for", e.LogIndex)
	}
	entry := &out[at]
	if entry.Leaf != nil {
		return fmt.Errorf("entry %d is there twice", e.LogIndex)
	}
	// SPEC: wire-formats 2.4: 16 hex digits of the tree id, which old answers do
	// not have, and the leaf hash.
	tree, hash := "", id
	if len(id) == 80 {
		tree, hash = id[:16], id[16:]
	}
	var err error
	if entry.Hash, err = hex.DecodeString(hash); err != nil || len(entry.Hash) != hashSize {
		return fmt.Errorf("%.100q is not the id of an entry", id)
	}
	if n, err := strconv.ParseUint(tree, 16, 64); tree != "" && (err != nil || strconv.FormatUint(n, 10) != t.id) {
		return fmt.Errorf("entry %d is of another tree", e.LogIndex)
	}
	p := e.Verification.Proof
	if len(e.Body) == 0 || p == nil {
		return fmt.Errorf("entry %d has no body, or no inclusion proof", e.LogIndex)
	}
	if p.Index != entry.Index {
		return fmt.Errorf("entry %d has index %d in its tree, want %d", e.LogIndex, p.Index, entry.Index)
	}
	if entry.Path, err = hexHashes(p.Hashes); err != nil {
		return err
	}
	entry.Leaf, entry.Note, entry.Integrated, entry.SET = e.Body, []byte(p.Note), e.Integrated, e.Verification.SET
	return nil
}

// IsLagging recognises the answer of a replica that does not know a size yet.
func IsLagging(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Status == http.StatusBadRequest && strings.Contains(status.Path, "api/v1/log/proof")
}
