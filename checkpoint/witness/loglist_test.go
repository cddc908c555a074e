package witness_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/internal/bounds"
)

func TestLogList(t *testing.T) {
	_, a, err := note.GenerateKey(nil, "log.example/a")
	if err != nil {
		t.Fatal(err)
	}
	_, b, err := note.GenerateKey(nil, "log.example/b")
	if err != nil {
		t.Fatal(err)
	}
	_, pq, err := witness.GenerateKey("log.example/pq", witness.MLDSA44)
	if err != nil {
		t.Fatal(err)
	}
	good := "# comment\n\n  logs/v0\nvkey " + a + "\nqpd 86400\ncontact a (at) log.example\n\n# another\nvkey " + b + "\n\torigin log.example/other name\nqpd 1\ncontact\n" +
		"vkey " + pq.Verifier.String() + "\nqpd 5\ncontact x\n"
	logs, skipped, err := witness.ParseLogList([]byte(good))
	if err != nil || len(skipped) != 1 || fmt.Sprint(logs) != fmt.Sprintf("[{%s log.example/a 86400 a (at) log.example} {%s log.example/other name 1 }]", a, b) {
		t.Errorf("%v, %q, %v", logs, skipped, err)
	}
	if logs, _, err := witness.ParseLogList([]byte("logs/v0\n")); err != nil || len(logs) != 0 {
		t.Errorf("an empty list: %v, %v", logs, err)
	}
	entry := "vkey " + a + "\nqpd 1\ncontact x\n"
	for name, bad := range map[string]string{
		"nothing":            "",
		"another version":    "logs/v1\n",
		"no version":         entry,
		"no qpd":             "logs/v0\nvkey " + a + "\ncontact x\n",
		"no contact":         "logs/v0\nvkey " + a + "\nqpd 1\n" + entry,
		"cut":                "logs/v0\nvkey " + a + "\nqpd 1\n",
		"wrong order":        "logs/v0\nqpd 1\nvkey " + a + "\ncontact x\n",
		"qpd of zero":        "logs/v0\nvkey " + a + "\nqpd 0\ncontact x\n",
		"qpd beyond 2^31-1":  "logs/v0\nvkey " + a + "\nqpd 2147483648\ncontact x\n",
		"qpd with a sign":    "logs/v0\nvkey " + a + "\nqpd +1\ncontact x\n",
		"qpd with a zero":    "logs/v0\nvkey " + a + "\nqpd 01\ncontact x\n",
		"twice":              "logs/v0\n" + entry + entry,
		"an unknown word":    "logs/v0\n" + entry + "urls x\n",
		"an empty origin":    "logs/v0\nvkey " + a + "\norigin\nqpd 1\ncontact x\n",
		"control characters": "logs/v0\nvkey " + a + "\nqpd 1\ncontact a\x00b\n",
		"too large":          "logs/v0\n" + strings.Repeat("#", witness.MaxLogList),
	} {
		if logs, _, err := witness.ParseLogList([]byte(bad)); !errors.Is(err, witness.ErrLogList) {
			t.Errorf("%s: %v, %v", name, logs, err)
		}
	}
}

func FuzzParseLogList(f *testing.F) {
	f.Add([]byte("logs/v0\nvkey witness.example/w1+864ecb78+BIq7TCXCJOjL0ExSzlHso4kpMqPKKGIkMb4+a0fyP06w\norigin x\nqpd 1\ncontact x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		logs, _, err := witness.ParseLogList(data)
		for _, l := range logs {
			if err != nil || l.PerDay < 1 || l.Origin == "" || l.Key == "" {
				t.Errorf("%+v, %v", l, err)
			}
		}
	})
}
