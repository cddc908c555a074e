package witness_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	formats "github.com/transparency-dev/formats/witness"
	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/internal/bounds"
)

// TestPolicy: which cosignatures meet which quorum, and of which age.
func TestPolicy(t *testing.T) {
	l := newTree(t, "log.example/one", 20)
	now := time.Unix(1_800_000_000, 0)
	var keys []*witness.Cosigner
	var lines strings.Builder
	fmt.Fprintf(&lines, "# a comment\nlog %s https://log.example/\n\n", l.key)
	for i := range 6 {
		_, c, err := witness.GenerateKey(fmt.Sprintf("w%d.example", i), []witness.Algorithm{witness.Ed25519, witness.MLDSA44}[i%2])
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, c)
		fmt.Fprintf(&lines, "\twitness w%d  %s\n", i, c.Verifier)
	}
	lines.WriteString("group eu any w0 w1\ngroup us all w2 w3\ngroup both 2 eu us w4\n")
	cp, err := l.log(t).Open(l.note(t, 20))
	if err != nil {
		t.Fatal(err)
	}
	signed := func(by string, age time.Duration) []byte {
		raw := cp.Raw()
		for _, r := range by {
			line, err := keys[r-'0'].Cosign(context.Background(), cp, now.Add(-age))
			if err != nil {
				t.Fatal(err)
			}
			raw = append(raw, line...)
		}
		return raw
	}
	for _, tc := range []struct {
		quorum, by string
		age        time.Duration
		ok         bool
	}{
		{"none", "", 0, true},
		{"none", "012345", 0, true},
		{"w0", "0", 0, true},
		{"w0", "1", 0, false},
		{"eu", "1", 0, true},
		{"eu", "234", 0, false},
		{"us", "2", 0, false},
		{"us", "23", 0, true},
		{"both", "04", 0, true},
		{"both", "014", 0, true},
		{"both", "01", 0, false},
		{"both", "023", 0, true},
		{"both", "24", 0, false},
		{"both", "234", 0, true},
		{"both", "5", 0, false},
		{"both", "", 0, false},
		{"w0", "0", time.Hour, true},
		{"w0", "0", time.Hour + time.Second, false},
		{"w0", "0", -50 * time.Second, true},
		{"w0", "0", -70 * time.Second, false},
	} {
		p, err := witness.ParsePolicy([]byte(lines.String() + "quorum " + tc.quorum + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(signed(tc.by, tc.age), now, time.Hour); (err == nil) != tc.ok {
			t.Errorf("quorum %s, signed by %q %s ago: %v", tc.quorum, tc.by, tc.age, err)
		}
		if err := p.Check(signed(tc.by, 1000*time.Hour), now, 0); tc.age == 0 && (err == nil) != tc.ok {
			t.Errorf("quorum %s, signed by %q long ago: %v", tc.quorum, tc.by, err)
		}
	}
	// A cosignature of another tree, and one that is broken, count for nothing.
	p, err := witness.ParsePolicy([]byte(lines.String() + "quorum w0\n"))
	if err != nil {
		t.Fatal(err)
	}
	other := string(signed("0", 0))
	line := other[strings.LastIndex(other, "\u2014"):]
	if err := p.Check(append(l.note(t, 19), line...), now, 0); err == nil || !strings.Contains(err.Error(), "not by [w0, w1") {
		t.Errorf("%v", err)
	}
}

func TestBadPolicies(t *testing.T) {
	_, key, err := note.GenerateKey(nil, "log.example")
	if err != nil {
		t.Fatal(err)
	}
	var w []string
	for i := range 3 {
		_, c, err := witness.GenerateKey(fmt.Sprintf("w%d.example", i), witness.Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		w = append(w, c.Verifier.String())
	}
	head := "log " + key + "\nwitness a " + w[0] + "\nwitness b " + w[1] + "\n"
	if _, err := witness.ParsePolicy([]byte(head + "group g 2 a b\nquorum g\n")); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"nothing":              "",
		"no quorum":            head,
		"two quorums":          head + "quorum a\nquorum a\n",
		"an unknown word":      head + "log2 x\nquorum a\n",
		"an unknown member":    head + "group g any a c\nquorum g\n",
		"a later member":       "group g any a\n" + head + "quorum g\n",
		"an unknown quorum":    head + "quorum c\n",
		"none as a name":       head + "witness none " + w[2] + "\nquorum a\n",
		"a name twice":         head + "witness a " + w[2] + "\nquorum a\n",
		"a group's name twice": head + "group a any b\nquorum a\n",
		"a key twice":          head + "witness c " + w[0] + "\nquorum a\n",
		"in two groups":        head + "group g any a\ngroup h any a b\nquorum h\n",
		"too many needed":      head + "group g 3 a b\nquorum g\n",
		"none needed":          head + "group g 0 a b\nquorum g\n",
		"a number with a zero": head + "group g 01 a b\nquorum g\n",
		"no members":           head + "group g any\nquorum g\n",
		"a bad key":            head + "witness c x+y+z\nquorum a\n",
		"a bad log":            "log x+y+z\nquorum none\n",
		"a log twice":          "log " + key + "\nlog " + key + "\nquorum none\n",
		"too large":            head + "quorum none\n" + strings.Repeat("\n", witness.MaxPolicy),
	} {
		if p, err := witness.ParsePolicy([]byte(bad)); !errors.Is(err, witness.ErrPolicy) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

// TestPolicyOfOthers: what another implementation accepts with URLs, we do.
func TestPolicyOfOthers(t *testing.T) {
	_, key, err := note.GenerateKey(nil, "log.example")
	if err != nil {
		t.Fatal(err)
	}
	_, c, err := witness.GenerateKey("w.example", witness.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("log " + key + " https://log.example/\nwitness a " + c.Verifier.String() + " https://w.example/\ngroup g any a\nquorum g\n")
	if _, err := formats.ParsePolicy(text); err != nil {
		t.Skip("it takes another form now:", err)
	}
	if _, err := witness.ParsePolicy(text); err != nil {
		t.Error(err)
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte("witness a witness.example/w1+864ecb78+BIq7TCXCJOjL0ExSzlHso4kpMqPKKGIkMb4+a0fyP06w\ngroup g all a\nquorum g\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		p, err := witness.ParsePolicy(data)
		if err != nil {
			return
		}
		p.Check([]byte("x\n1\nAAAA\n\n\u2014 w AAAA\n"), time.Unix(1, 0), time.Hour)
	})
}
