package entry

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestFaultOfAParser: an entry on which a parser gives up for good is one that cannot be understood in
// full, with what was read before, and the next one is read as ever.
func TestFaultOfAParser(t *testing.T) {
	at := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == "rekord" })
	before := kinds[at].decode
	defer func() { kinds[at].decode = before }()
	kinds[at].decode = func(d *Decoder, _ value) error {
		d.facts.Identities = append(d.facts.Identities, Identity{Subjects: []Subject{{Email, "a@b.example"}}})
		panic("a length below 0")
	}
	broken := []byte(`{"kind":"rekord","apiVersion":"` + kinds[at].APIVersion + `","spec":{}}`)
	var d Decoder
	for range 2 {
		f, err := d.Decode(broken)
		var fault *FaultError
		if !errors.As(err, &fault) || err.Error() != "it breaks what reads entries: a length below 0" || !strings.Contains(string(fault.Stack), "fault_test.go") {
			t.Fatalf("%v", err)
		}
		if f.Kind != "rekord" || len(f.Identities) != 1 || f.Identities[0].Subjects[0].Value != "a@b.example" {
			t.Errorf("%+v", f)
		}
		if f, err := d.Decode([]byte(`{"kind":"x","apiVersion":"1","spec":{}}`)); !errors.Is(err, ErrKind) || f.Kind != "x" || len(f.Identities) != 0 {
			t.Errorf("%+v, %v", f, err)
		}
	}
}
