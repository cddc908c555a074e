// Package policy judges entries that belong to a watch: pure functions over
// explicit inputs.
package policy

// Verdict is what an entry means for a watch.
type Verdict string

// The verdicts, the worst first.
const (
	// Malformed: the entry cannot be decoded in full, and its bytes name
	// something that the watch looks for.
	Malformed Verdict = "malformed"
	// Unexpected: it is ours, and nothing that is expected fits it.
	Unexpected Verdict = "unexpected"
	// Untrusted: it says that it is ours, in a certificate that no trusted
	// authority issued.
	Untrusted Verdict = "untrusted"
	// Expected: every identity that is ours is expected.
	Expected Verdict = "expected"
)

// Verdicts lists them, the worst first.
func Verdicts() []Verdict { return []Verdict{Malformed, Unexpected, Untrusted, Expected} }

// Identity is what is known of one identity that is a watch's.
type Identity struct {
	// Certificate: it has one. Vouched: a trusted authority issued that.
	Certificate, Vouched bool
	// Pinned: a fingerprint or digest makes it ours, whatever a certificate says.
	Pinned bool
	// Expected: an expect item fits.
	Expected bool
	// Reason says why it is expected, or why not; Untrusted why nobody vouches.
	Reason, Untrusted string
}

// Judge gives each identity its verdict and returns the worst, with its reason:
// an expected identity never hides an unexpected one beside it.
func Judge(identities ...Identity) (Verdict, string) {
	worst, reason := Expected, ""
	for _, id := range identities {
		verdict, why := judgeOne(id)
		if reason == "" || rank(verdict) < rank(worst) {
			worst, reason = verdict, why
		}
	}
	return worst, reason
}

func judgeOne(id Identity) (Verdict, string) {
	switch {
	// Whether somebody vouches is decided before what is expected: anybody can
	// make a certificate that says what an expect item asks for.
	case id.Certificate && !id.Vouched && !id.Pinned:
		return Untrusted, "the certificate names what is watched, but is not trusted: " + id.Untrusted
	case id.Expected:
		return Expected, id.Reason
	}
	return Unexpected, id.Reason
}

func rank(v Verdict) int {
	for i, other := range Verdicts() {
		if v == other {
			return i
		}
	}
	return -1
}

// What becomes of untrusted identities (a watch's `untrusted` key).
const (
	Record = "record"
	Alert  = "alert"
	Ignore = "ignore"
)

// Notifies reports whether a finding with this verdict is told to people.
func Notifies(v Verdict, untrusted string) bool {
	return v == Malformed || v == Unexpected || v == Untrusted && untrusted == Alert
}

// Stores reports whether a finding with this verdict is kept, or only counted.
func Stores(v Verdict, untrusted string) bool {
	return v != Untrusted || untrusted != Ignore
}
