package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/internal/bounds"
)

// lines makes a ledger of n rows.
func lines(t testing.TB, n int) (out [][]byte, chain Chain) {
	t.Helper()
	for i := range n {
		r, err := New(chain.Size(), chain.Last, time.Unix(int64(i), 5000), KindPause, "log.example", Pause{Reason: PauseSlow, Error: "<&>\u2028"})
		if err != nil {
			t.Fatal(err)
		}
		line, err := r.Print()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := chain.Add(line); err != nil {
			t.Fatal(err)
		}
		out = append(out, line)
	}
	return out, chain
}

func TestChain(t *testing.T) {
	list, chain := lines(t, 9)
	if chain.Size() != 9 || chain.Tree().Root() != chain.Root() {
		t.Errorf("%d rows", chain.Size())
	}
	for name, alter := range map[string]func(i int) [][]byte{
		"left out":  func(i int) [][]byte { return append(append([][]byte{}, list[:i]...), list[i+1:]...) },
		"twice":     func(i int) [][]byte { return append(append([][]byte{}, list[:i+1]...), list[i:]...) },
		"exchanged": func(i int) [][]byte { c := append([][]byte{}, list...); c[i], c[i+1] = c[i+1], c[i]; return c },
	} {
		for i := range 8 {
			var c Chain
			var failure error
			for _, line := range alter(i) {
				if _, err := c.Add(line); err != nil {
					failure = err
					break
				}
			}
			if !errors.Is(failure, ErrTampered) {
				t.Errorf("%s at %d: %v", name, i, failure)
			}
			if _, _, err := Stretch(alter(i)); !errors.Is(err, ErrTampered) && (name != "left out" || i != 0) {
				t.Errorf("a stretch with a row %s at %d: %v", name, i, err)
			}
		}
	}
	if rows, last, err := Stretch(list[3:7]); err != nil || len(rows) != 4 || rows[0].N != 3 || last != checkpoint.LeafHash(list[6]) {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	// Going on later comes to the same.
	c := Resume(checkpoint.LeafHash(list[4]), func() checkpoint.Frontier { _, c := lines(t, 5); return c.Tree() }())
	for _, line := range list[5:] {
		if _, err := c.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	if c.Root() != chain.Root() {
		t.Error("another root")
	}
}

// TestNoByteOfARow: a row that was altered in any byte is no row, or does not fit.
func TestNoByteOfARow(t *testing.T) {
	list, _ := lines(t, 3)
	for i := range list[1] {
		bad := bytes.Clone(list[1])
		bad[i] ^= 1
		var c Chain
		_, err := c.Add(list[0])
		if err == nil {
			if _, err = c.Add(bad); err == nil {
				_, err = c.Add(list[2])
			}
		}
		if !errors.Is(err, ErrTampered) {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
}

func TestStrictRows(t *testing.T) {
	list, _ := lines(t, 1)
	row := string(list[0])
	for name, text := range map[string]string{
		"nothing": "", "no JSON": "{", "a rest": row + " ", "a second one": row + row, "an unknown key": strings.Replace(row, `"at"`, `"x":1,"at"`, 1),
		"a key in capitals": strings.Replace(row, `"at"`, `"At"`, 1), "another order": strings.Replace(row, `{"n":0,`, `{`, 1), "too long": strings.Replace(row, PauseSlow, strings.Repeat("x", maxRow), 1),
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := New(0, checkpoint.Hash{}, time.Now(), KindGap, "", func() {}); err == nil {
		t.Error("a body that is no document")
	}
	r, err := New(0, checkpoint.Hash{}, time.Now(), KindGap, "", strings.Repeat("x", maxRow))
	if err == nil {
		_, err = r.Print()
	}
	if err == nil {
		t.Error("a row that is too long was printed")
	}
	if _, err := Read[Gap](Row{Body: json.RawMessage("[]")}); err == nil {
		t.Error("a body of another kind was read")
	}
}

func FuzzParse(f *testing.F) {
	list, _ := lines(f, 2)
	for _, line := range list {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		defer bounds.Hold(t)()
		r, err := Parse(line)
		if err != nil {
			return
		}
		if again, err := r.Print(); err != nil || !bytes.Equal(again, line) {
			t.Fatalf("%q prints as %q, %v", line, again, err)
		}
	})
}
