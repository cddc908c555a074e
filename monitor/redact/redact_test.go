package redact

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

var key = []byte(strings.Repeat("k", MinKey))

func redactor(t testing.TB) *Redactor {
	r, err := New(key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var hashes = regexp.MustCompile(`redacted:[0-9a-f]{64}`)

// TestText: forms of addresses, and what is like one.
func TestText(t *testing.T) {
	r := redactor(t)
	const x = "<hash>"
	for text, want := range map[string]string{
		"alice@corp.example":                           x,
		"signed by alice@corp.example.":                "signed by " + x + ".",
		"<alice@corp.example>, bob@corp.example!":      "<" + x + ">, " + x + "!",
		`"alice b"@corp.example`:                       x,
		`say "alice \" b"@corp.example`:                "say " + x,
		"alice%40corp.example":                         x,
		"root@localhost":                               x,
		"root@10.0.0.1":                                x,
		"root@[10.0.0.1]":                              x,
		"a_b/c=d+e{f}@corp.example":                    x,
		"用户@例子.例":                                      x,
		"alice＠corp.example":                           x,
		"alice@corp.example:8080":                      x + ":8080",
		"mailto:alice@corp.example?subject=x":          "mailto:" + x + "?subject=x",
		"https://id.example/user/alice@corp.example/x": "https://id.example/user/" + x + "/x",
		"https://id.example/?u=alice@corp.example&v=1": "https://id.example/?u=" + x + "&v=1",
		"https://id.example/user/alice%40corp.example": "https://id.example/user/" + x,
		"https://github.com/acme/x/.github/workflows/y.yml@refs/heads/main": "https://github.com/acme/x/.github/workflows/y.yml@refs/heads/main",
		"acme/x/.github/workflows/y.yml@refs/tags/v1.2.3":                   "acme/x/.github/workflows/y.yml@refs/tags/v1.2.3",
		"actions/checkout@v4":                    "actions/checkout@v4",
		"left-pad@1.3.0":                         x,
		"jane.doe@refs/x":                        x + "/x",
		"alice@v2":                               x,
		`^alice\@corp\.example$`:                 x + "$",
		"alice@(corp|acme).example":              x,
		"alice@*.corp.example":                   x,
		"by alice(x)@corp.example":               "by " + x,
		"<alice>@corp.example":                   x,
		"alice@@corp.example":                    x,
		`alice smith"@corp.example`:              "alice " + x,
		"alice@\u200bcorp.example":               x,
		"alice%2540corp.example":                 x,
		"alice&#64;corp.example":                 x,
		"=?utf-8?q?alice=40corp.example?=":       x + "?=",
		`err: {"sub":"alice\u0040corp.example"}`: `err: {"sub":"` + x + `"}`,
		"alice@corp\u3002example":                x,
		"timeout=40s":                            "timeout=40s",
		"registry.example/acme/app@sha256:00ff":  "registry.example/acme/app@sha256:00ff",
		"actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683": "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683",
		"@scope/package": "@scope/package",
		"a @ b":          "a @ b",
		"":               "",
		`{"note": "\u003calice@corp.example\u003e", "by": "\"a b\"@x.example"}`: `{"by":"` + x + `","note":"\u003c` + x + `\u003e"}`,
		`["alice@corp.example"`: `["` + x + `"`,
	} {
		if got := hashes.ReplaceAllString(r.Text(text), x); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// TestSameHash: one address has one hash, in whatever form it is written, and with another
// key another.
func TestSameHash(t *testing.T) {
	r := redactor(t)
	want := r.Text("alice+x@corp.example")
	for _, text := range []string{"Alice+X@Corp.Example", "alice%2Bx%40corp.example", `{"a": "alice+x@corp.example"}`, `{"\u0061lice+x\u0040corp.example": 1}`, "https://id.example/alice+x@corp.example", `"\t` + "\talice+x@corp.example"} {
		if got := hashes.FindString(r.Text(text)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	other, err := New([]byte(strings.Repeat("o", MinKey)))
	if err != nil || other.Text("alice+x@corp.example") == want {
		t.Errorf("the key makes no difference (%v)", err)
	}
	if _, err := New([]byte(strings.Repeat("k", MinKey-1) + "\n\n")); err == nil {
		t.Error("a short key was taken")
	}
}

// TestJSON: strings and keys at every depth, numbers as they are.
func TestJSON(t *testing.T) {
	r := redactor(t)
	got, err := r.JSON([]byte(`{"n": 18446744073709551615, "a": [{"x@y.example": "b@y.example"}], "d": "{\"z\": \"c@y.example\"}", "ok": true, "no": null}`))
	if want := `{"a":[{"<hash>":"<hash>"}],"d":"{\"z\":\"<hash>\"}","n":18446744073709551615,"no":null,"ok":true}`; err != nil || hashes.ReplaceAllString(string(got), "<hash>") != want {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := r.JSON([]byte(`{`)); err == nil {
		t.Error("half a document")
	}
}

// FuzzText: whatever surrounds an address, it is not there afterwards; and the text without
// a sign stays as it is.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "x ", `"`, `{"a": "`, "https://x/", "%", "\\", "/=?", "mailto:", "\xff"} {
		f.Add(s, s)
	}
	r := redactor(f)
	f.Fuzz(func(t *testing.T, before, behind string) {
		defer bounds.Hold(t)()
		got := r.Text(before + "alice@corp.example" + behind)
		if strings.Contains(strings.ToLower(got), "alice@corp.example") {
			t.Errorf("%q", got)
		}
		if strings.Contains(got, "alice@") {
			t.Errorf("%q", got)
		}
		plain := strings.NewReplacer("@", "", "%40", "", "\uff20", "", "\ufe6b", "").Replace(before)
		if atFree := !strings.ContainsAny(plain, "@%\uff20\ufe6b{["); atFree && r.Text(plain) != plain {
			t.Errorf("%q became %q", plain, r.Text(plain))
		}
		if doc, err := json.Marshal(before); err == nil {
			if out, err := r.JSON(doc); err != nil || !json.Valid(out) {
				t.Errorf("%q: %v", out, err)
			}
		}
	})
}
