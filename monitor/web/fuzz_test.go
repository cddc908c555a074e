package web

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

// FuzzStrictly: a body that is taken reads the same to whoever reads JSON otherwise: each key stands there
// once, and nothing behind the document.
func FuzzStrictly(f *testing.F) {
	for _, text := range []string{`{"watch":"w","digest":"sha256:00"}`, `{"watch":"a","Watch":"b"}`, `{"watch":"a"}{}`, `{"watch":1}`, `[]`, `null`, `{"watch":"a","watch":"b"}`, "{\"watch\":\"\xff\"}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		var in expectation
		if strictly(data, &in) != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("%q is taken, and is no JSON", data)
		}
		var keys map[string]any
		if err := json.Unmarshal(data, &keys); err != nil {
			t.Fatalf("%q is taken, and is no object", data)
		}
		for key, want := range map[string]string{"watch": in.Watch, "digest": in.Digest, "ttl": in.TTL, "note": in.Note} {
			// null leaves a text as it is.
			if got, _ := keys[key].(string); got != want {
				t.Errorf("%q: %s is %q, and %q to others", data, key, want, got)
			}
			delete(keys, key)
		}
		if len(keys) > 0 {
			t.Errorf("%q is taken with keys that nobody knows", data)
		}
	})
}

// FuzzClaims: what a provider of logins says of somebody names him or nobody.
func FuzzClaims(f *testing.F) {
	for _, text := range []string{`{"sub":"a","email":"b@c.example","email_verified":true,"groups":["x","y"]}`, `{"email_verified":"true","groups":"x"}`, `{"email_verified":1,"groups":[1,null,{}]}`, `{"groups":{"a":1}}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounds.Hold(t)()
		var c Claims
		if json.Unmarshal(data, &c) != nil || !bool(c.Verified) {
			return
		}
		var raw map[string]any
		if err := json.Unmarshal(data, &raw); err != nil {
			t.Fatal(err)
		}
		for key, value := range raw {
			if strings.EqualFold(key, "email_verified") && (value == true || value == "true") {
				return
			}
		}
		t.Errorf("%q is taken for somebody whose address was verified", data)
	})
}
