package policy_test

import (
	"testing"

	"github.com/sigwarden/sigwarden/watchlist/policy"
)

func TestJudge(t *testing.T) {
	expected := policy.Identity{Certificate: true, Vouched: true, Expected: true, Reason: "expect item 1 fits"}
	unexpected := policy.Identity{Certificate: true, Vouched: true, Reason: "no expect item fits"}
	selfMade := policy.Identity{Certificate: true, Expected: true, Untrusted: "self-made"}
	pinned := policy.Identity{Certificate: true, Pinned: true, Reason: "no expect item fits"}
	key := policy.Identity{Pinned: true, Expected: true, Reason: "expect item 2 fits"}
	for _, tc := range []struct {
		name string
		ids  []policy.Identity
		want policy.Verdict
	}{
		{"expected", []policy.Identity{expected}, policy.Expected},
		{"unexpected", []policy.Identity{unexpected}, policy.Unexpected},
		{"one of two unexpected", []policy.Identity{expected, unexpected}, policy.Unexpected},
		{"in the other order", []policy.Identity{unexpected, expected}, policy.Unexpected},
		{"self-made although it says what is expected", []policy.Identity{selfMade}, policy.Untrusted},
		{"self-made beside expected", []policy.Identity{expected, selfMade}, policy.Untrusted},
		{"self-made beside unexpected", []policy.Identity{selfMade, unexpected}, policy.Unexpected},
		{"self-made, but a fingerprint is ours", []policy.Identity{pinned}, policy.Unexpected},
		{"a bare key that is expected", []policy.Identity{key}, policy.Expected},
	} {
		if got, reason := policy.Judge(tc.ids...); got != tc.want || reason == "" {
			t.Errorf("%s: %s (%s), want %s", tc.name, got, reason, tc.want)
		}
	}
	for _, v := range policy.Verdicts() {
		for _, untrusted := range []string{"", policy.Record, policy.Alert, policy.Ignore} {
			wantNotify := v == policy.Malformed || v == policy.Unexpected || v == policy.Untrusted && untrusted == policy.Alert
			wantStore := !(v == policy.Untrusted && untrusted == policy.Ignore)
			if policy.Notifies(v, untrusted) != wantNotify || policy.Stores(v, untrusted) != wantStore {
				t.Errorf("%s with untrusted %q: notifies %v, stored %v", v, untrusted, policy.Notifies(v, untrusted), policy.Stores(v, untrusted))
			}
		}
	}
}
