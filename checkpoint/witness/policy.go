package witness

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Bounds of a policy. SPEC: tlog-policy: at least 32 logs, witnesses and groups are to be
// understood.
const (
	MaxPolicy    = 1 << 20
	maxPolicyAll = 256 // of each kind
)

// ErrPolicy says that a text is no policy.
var ErrPolicy = errors.New("not a policy (C2SP tlog-policy)")

// Policy says how many cosignatures of which witnesses a checkpoint needs.
type Policy struct {
	// Logs are the verifier keys that it names, Witnesses those of witnesses by their
	// names in it.
	Logs      []string
	Witnesses map[string]*Verifier
	groups    map[string]group
	quorum    string // a name; empty: none is needed
}

// group is satisfied when enough of its members are.
type group struct {
	need    int
	members []string
}

// ParsePolicy reads a policy: lines of words, log KEY [URL], witness NAME KEY [URL], group
// NAME K|any|all MEMBER..., and exactly one quorum NAME|none. A name is used only behind
// the line that makes it. Errors are ErrPolicy, with the line.
func ParsePolicy(data []byte) (*Policy, error) {
	if len(data) > MaxPolicy {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrPolicy, len(data), MaxPolicy)
	}
	p := &Policy{Witnesses: map[string]*Verifier{}, groups: map[string]group{}}
	member := map[string]string{} // of which group
	quorum := false
	number := 0
	for text := range strings.Lines(string(data)) {
		number++
		bad := func(format string, args ...any) (*Policy, error) {
			return nil, fmt.Errorf("%w: line %d: %s", ErrPolicy, number, fmt.Sprintf(format, args...))
		}
		// SPEC: tlog-policy: words stand between spaces and tabs, and a comment is a line.
		words := strings.FieldsFunc(strings.TrimSuffix(text, "\n"), func(r rune) bool { return r == ' ' || r == '\t' })
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		fresh := func(name string) string {
			switch _, ok := p.groups[name]; {
			case name == "none":
				return "the name \"none\" is reserved"
			case ok || p.Witnesses[name] != nil:
				return fmt.Sprintf("the name %.60q is there twice", name)
			}
			return ""
		}
		switch words[0] {
		case "log":
			if len(words) != 2 && len(words) != 3 {
				return bad("want log KEY [URL]")
			}
			if _, err := note.NewVerifier(words[1]); err != nil {
				if _, other := ParseVerifier(words[1]); other != nil {
					return bad("the key of the log: %v", err)
				}
			}
			if slices.Contains(p.Logs, words[1]) || len(p.Logs) == maxPolicyAll {
				return bad("the log is there twice, or there are more than %d", maxPolicyAll)
			}
			p.Logs = append(p.Logs, words[1])
		case "witness":
			if len(words) != 3 && len(words) != 4 {
				return bad("want witness NAME KEY [URL]")
			}
			if why := fresh(words[1]); why != "" {
				return bad("%s", why)
			}
			v, err := ParseVerifier(words[2])
			if err != nil {
				return bad("the key of witness %.60q: %v", words[1], err)
			}
			for name, o := range p.Witnesses {
				if o.SameKey(v) {
					return bad("witnesses %.60q and %.60q have the same key", name, words[1])
				}
			}
			if len(p.Witnesses) == maxPolicyAll {
				return bad("more than %d witnesses", maxPolicyAll)
			}
			p.Witnesses[words[1]] = v
		case "group":
			if len(words) < 4 {
				return bad("want group NAME K|any|all MEMBER...")
			}
			if why := fresh(words[1]); why != "" {
				return bad("%s", why)
			}
			g := group{members: words[3:]}
			switch n, err := strconv.ParseUint(words[2], 10, 16); {
			case words[2] == "any":
				g.need = 1
			case words[2] == "all":
				g.need = len(g.members)
			case err != nil || n == 0 || int(n) > len(g.members) || strconv.FormatUint(n, 10) != words[2]:
				return bad("%.20q is no number from 1 to that of the members, %d, nor any, nor all", words[2], len(g.members))
			default:
				g.need = int(n)
			}
			for _, m := range g.members {
				if _, ok := p.groups[m]; !ok && p.Witnesses[m] == nil {
					return bad("no line before this one makes %.60q", m)
				}
				if of, ok := member[m]; ok {
					return bad("%.60q is in group %.60q already", m, of)
				}
				member[m] = words[1]
			}
			if len(p.groups) == maxPolicyAll {
				return bad("more than %d groups", maxPolicyAll)
			}
			p.groups[words[1]] = g
		case "quorum":
			if len(words) != 2 || quorum {
				return bad("want one line quorum NAME|none")
			}
			quorum = true
			if words[1] == "none" {
				continue
			}
			if _, ok := p.groups[words[1]]; !ok && p.Witnesses[words[1]] == nil {
				return bad("no line before this one makes %.60q", words[1])
			}
			p.quorum = words[1]
		default:
			return bad("%.40q is none of log, witness, group and quorum", words[0])
		}
	}
	if !quorum {
		return nil, fmt.Errorf("%w: there is no quorum", ErrPolicy)
	}
	return p, nil
}

// skew is how far a cosignature may lie in the future: clocks differ.
const skew = time.Minute

// Check reports whether a signed note has the cosignatures that the policy asks for: nil,
// or an error that names those which are there, too old or missing. A cosignature that is
// older than maxAge (0: of any age), or of the future, does not count, unless now is zero:
// then its time does not matter, as long as it has one. The log's own
// signature is somebody else's business.
func (p *Policy) Check(raw []byte, now time.Time, maxAge time.Duration) error {
	good := map[string]bool{}
	var old []string
	for name, v := range p.Witnesses {
		for _, seen := range Cosignatures(raw, v) {
			at := time.Unix(seen.At, 0)
			// SPEC: tlog-cosignature: without a time it says nothing of the largest tree.
			if seen.At == 0 || !now.IsZero() && (at.After(now.Add(skew)) || maxAge > 0 && now.Sub(at) > maxAge) {
				old = append(old, fmt.Sprintf("%s (%s)", name, at.UTC().Format(time.RFC3339)))
				continue
			}
			good[name] = true
		}
	}
	if p.satisfied(p.quorum, good) {
		return nil
	}
	slices.Sort(old)
	var have, missing []string
	for name := range p.Witnesses {
		if good[name] {
			have = append(have, name)
		} else {
			missing = append(missing, name)
		}
	}
	slices.Sort(have)
	slices.Sort(missing)
	err := fmt.Errorf("the quorum %s is not met: co-signed by [%s], not by [%s]", p.quorum, strings.Join(have, ", "), strings.Join(missing, ", "))
	if len(old) > 0 {
		err = fmt.Errorf("%w; too old or of the future: %s", err, strings.Join(old, ", "))
	}
	return err
}

func (p *Policy) satisfied(name string, good map[string]bool) bool {
	if name == "" || good[name] {
		return true
	}
	g, ok := p.groups[name]
	if !ok {
		return false
	}
	n := 0
	for _, m := range g.members {
		if p.satisfied(m, good) {
			n++
		}
	}
	return n >= g.need
}
