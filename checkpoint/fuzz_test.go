package checkpoint

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

// FuzzOpen: whatever is accepted prints as what was read, and nothing is
// accepted that the log did not sign.
func FuzzOpen(f *testing.F) {
	v, l := loadVectors(f)
	for _, raw := range []string{v.Checkpoint0, v.Checkpoint6, v.Checkpoint11, v.Frozen13} {
		f.Add([]byte(raw))
	}
	signed := map[string]bool{}
	for _, raw := range []string{v.Checkpoint0, v.Checkpoint6, v.Checkpoint11, v.Fork11, v.Checkpoint13, v.Frozen13} {
		signed[open(f, l, raw).Text()] = true
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		defer bounds.Hold(t)()
		c, err := l.Open(raw)
		if err != nil {
			return
		}
		if !signed[c.Text()] {
			t.Fatalf("accepted a body that was never signed: %q", c.Text())
		}
		if !bytes.HasPrefix(raw, []byte(c.Text())) {
			t.Fatal("body is not what was read")
		}
	})
}

// FuzzParseBody: the strict parser accepts only what it would print.
func FuzzParseBody(f *testing.F) {
	v, _ := loadVectors(f)
	for _, raw := range []string{v.Checkpoint0, v.Checkpoint11, v.Frozen13} {
		body, _, _ := strings.Cut(raw, "\n\n")
		f.Add(body + "\n")
	}
	f.Fuzz(func(t *testing.T, text string) {
		defer bounds.Hold(t)()
		if c, err := parseBody(text); err == nil && c.Text() != text {
			t.Fatalf("%q prints as %q", text, c.Text())
		}
	})
}

// FuzzDivergence: evidence from bytes of any kind neither panics nor convinces
// unless two signed notes really contradict each other.
func FuzzDivergence(f *testing.F) {
	v, l := loadVectors(f)
	c6, c11, fork := open(f, l, v.Checkpoint6), open(f, l, v.Checkpoint11), open(f, l, v.Fork11)
	add := func(d Divergence) {
		data, err := json.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	add(equalSize(c11, fork))
	add(prefix(c6, c11, node{1, 3}, Hash{}, plain(v.Proof6to11)))
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		d, err := ParseDivergence(data)
		if err != nil || d.Verify(l) != nil {
			return
		}
		// Of all that the key signed, only the fork contradicts anything.
		if !strings.Contains(d.Smaller+d.Larger, strings.Split(v.Fork11, "\n")[2]) {
			t.Fatalf("convinced by %s", data)
		}
	})
}

// FuzzTile: tiles of any bytes and any tree sizes neither panic nor pass.
func FuzzTile(f *testing.F) {
	v, l := loadVectors(f)
	c := open(f, l, v.Checkpoint11)
	f.Add(v.Tile)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		defer bounds.Hold(t)()
		tree, err := OpenTree(c, func(uint, uint64, int) ([]byte, error) { return raw, nil })
		if err == nil && !bytes.Equal(raw, v.Tile) {
			t.Fatalf("another tile passed: %x", raw)
		}
		if err == nil && foldPeaks(tree.Peaks()) != c.Root() {
			t.Fatal("peaks do not fold to the root")
		}
	})
}
