package entry

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Bounds of the JSON that is read (what exceeds them is not understood).
const (
	maxBody  = 1 << 20
	maxDepth = 16
	maxNodes = 10000
)

// value is one JSON value. Strings, numbers and names that need no unescaping
// point into the entry's bytes.
type value struct {
	kind    byte   // '{' '[' '"' '0' (number) 'l' (true, false, null)
	text    []byte // of an object: all of it
	members []member
	items   []value
}

type member struct {
	name  []byte
	value value
}

// parser reads strict JSON (RFC 8259). Unlike encoding/json it refuses an
// object with two names that are equal or differ by case only: which of them
// counts would be a matter of taste, and an entry could say two things.
type parser struct {
	data  []byte
	at    int
	nodes int
	// Members are gathered on a stack, and put into the arena when their object
	// ends. Both are used again for the next entry.
	stack, arena []member
}

var errJSON = errors.New("not strict JSON")

func (p *parser) parse(data []byte) (value, error) {
	if len(data) > maxBody {
		return value{}, fmt.Errorf("%w: %d bytes, more than %d", errJSON, len(data), maxBody)
	}
	p.data, p.at, p.nodes, p.stack, p.arena = data, 0, 0, p.stack[:0], p.arena[:0]
	p.space()
	v, err := p.value(0)
	if err != nil {
		return value{}, err
	}
	p.space()
	if p.at != len(data) {
		return value{}, p.fail("something follows the value")
	}
	return v, nil
}

func (p *parser) fail(why string) error {
	return fmt.Errorf("%w: %s at byte %d", errJSON, why, p.at)
}

func (p *parser) space() {
	for p.at < len(p.data) {
		switch p.data[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) value(depth int) (value, error) {
	if p.nodes++; p.nodes > maxNodes || depth > maxDepth {
		return value{}, p.fail("too many or too deeply nested values")
	}
	if p.at == len(p.data) {
		return value{}, p.fail("broken off")
	}
	switch c := p.data[p.at]; {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		text, err := p.str()
		return value{kind: '"', text: text}, err
	case c == '-' || c >= '0' && c <= '9':
		start := p.at
		for p.at < len(p.data) && bytes.IndexByte([]byte("+-.eE0123456789"), p.data[p.at]) >= 0 {
			p.at++
		}
		if !json.Valid(p.data[start:p.at]) {
			return value{}, p.fail("bad number")
		}
		return value{kind: '0', text: p.data[start:p.at]}, nil
	}
	for _, literal := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(p.data[p.at:], []byte(literal)) {
			p.at += len(literal)
			return value{kind: 'l', text: []byte(literal)}, nil
		}
	}
	return value{}, p.fail("no value")
}

func (p *parser) object(depth int) (value, error) {
	start, begin := len(p.stack), p.at
	var folded map[string]bool
	for p.at++; ; p.at++ {
		p.space()
		if p.at < len(p.data) && p.data[p.at] == '}' && len(p.stack) == start {
			p.at++
			return value{kind: '{', text: p.data[begin:p.at]}, nil
		}
		if p.at == len(p.data) || p.data[p.at] != '"' {
			return value{}, p.fail("no name of a member")
		}
		name, err := p.str()
		if err != nil {
			return value{}, err
		}
		if has(p.stack[start:], name, &folded) {
			return value{}, p.fail(fmt.Sprintf("member %.40q is there twice", name))
		}
		p.space()
		if p.at == len(p.data) || p.data[p.at] != ':' {
			return value{}, p.fail("no colon")
		}
		p.at++
		p.space()
		child, err := p.value(depth + 1)
		if err != nil {
			return value{}, err
		}
		p.stack = append(p.stack, member{name, child})
		p.space()
		switch {
		case p.at < len(p.data) && p.data[p.at] == ',':
		case p.at < len(p.data) && p.data[p.at] == '}':
			p.at++
			return value{kind: '{', text: p.data[begin:p.at], members: p.keep(start)}, nil
		default:
			return value{}, p.fail("object broken off")
		}
	}
}

// keep moves the members of an object that has ended from the stack to the arena.
func (p *parser) keep(start int) []member {
	n := len(p.stack) - start
	if cap(p.arena)-len(p.arena) < n {
		p.arena = make([]member, 0, max(32, 2*n)) // what points into the old one keeps it
	}
	at := len(p.arena)
	p.arena = append(p.arena, p.stack[start:]...)
	p.stack = p.stack[:start]
	return p.arena[at : at+n : at+n]
}

// has reports whether one of the members has this name in any case. Objects of
// many members, which no honest entry has, keep a set of their names.
func has(members []member, name []byte, folded *map[string]bool) bool {
	const many = 16
	if len(members) < many {
		for _, m := range members {
			if bytes.EqualFold(m.name, name) {
				return true
			}
		}
		return false
	}
	// Lower case of upper case brings all forms of a letter together.
	fold := func(s []byte) string { return string(bytes.ToLower(bytes.ToUpper(s))) }
	if *folded == nil {
		*folded = make(map[string]bool, 2*many)
		for _, m := range members {
			(*folded)[fold(m.name)] = true
		}
	}
	key := fold(name)
	if (*folded)[key] {
		return true
	}
	(*folded)[key] = true
	return false
}

func (p *parser) array(depth int) (value, error) {
	v := value{kind: '['}
	for p.at++; ; p.at++ {
		p.space()
		if p.at < len(p.data) && p.data[p.at] == ']' && len(v.items) == 0 {
			p.at++
			return v, nil
		}
		child, err := p.value(depth + 1)
		if err != nil {
			return value{}, err
		}
		v.items = append(v.items, child)
		p.space()
		switch {
		case p.at < len(p.data) && p.data[p.at] == ',':
		case p.at < len(p.data) && p.data[p.at] == ']':
			p.at++
			return v, nil
		default:
			return value{}, p.fail("array broken off")
		}
	}
}

// str reads a string. Those without an escape, which are nearly all, are not
// copied; the others are unescaped by encoding/json, which also checks them.
func (p *parser) str() ([]byte, error) {
	p.at++
	rest := p.data[p.at:]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return nil, p.fail("string broken off")
	}
	if bytes.IndexByte(rest[:end], '\\') < 0 {
		text := rest[:end]
		if plainASCII(text) {
			p.at += end + 1
			return text, nil
		}
		if bytes.IndexFunc(text, func(r rune) bool { return r < 0x20 }) >= 0 {
			return nil, p.fail("control character in a string")
		}
		if !utf8.Valid(text) {
			return nil, p.fail("string is not UTF-8")
		}
		p.at += end + 1
		return text, nil
	}
	i := 0
	for ; i < len(rest) && rest[i] != '"'; i++ {
		if rest[i] == '\\' {
			i++
		}
	}
	if i >= len(rest) {
		return nil, p.fail("string broken off")
	}
	var text string
	quoted := p.data[p.at-1 : p.at+i+1]
	if !utf8.Valid(quoted) || json.Unmarshal(quoted, &text) != nil {
		return nil, p.fail("bad escape in a string")
	}
	p.at += i + 1
	return []byte(text), nil
}

// plainASCII reports whether all bytes are from 0x20 to 0x7f, eight at a time:
// neither has one its top bit, nor does subtracting 0x20 borrow into it.
func plainASCII(text []byte) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	if len(text) < 8 {
		for _, c := range text {
			if c < 0x20 || c >= 0x80 {
				return false
			}
		}
		return true
	}
	last := binary.LittleEndian.Uint64(text[len(text)-8:])
	bad := last | (last - 0x20*ones)
	for ; len(text) > 8; text = text[8:] {
		x := binary.LittleEndian.Uint64(text)
		bad |= x | (x - 0x20*ones)
	}
	return bad&tops == 0
}

// place says where something stands in an entry. It is put into words for
// errors only.
type place struct {
	path  string
	index int // of a list behind the path; -1: none
	rest  string
}

func at(path string) place { return place{path, -1, ""} }

func (p place) String() string {
	if p.index >= 0 {
		return fmt.Sprintf("%s[%d]%s", p.path, p.index, p.rest)
	}
	return p.path + p.rest
}

// maxNames is the most members that any object of a known kind has.
const maxNames = 4

// object checks that v is an object whose members are all among names, and
// returns their values in the order of names (zero where absent). ok is false
// if it is no object.
func (v value) object(where place, names ...string) (out [maxNames]value, ok bool, err error) {
	if v.kind != '{' {
		return out, false, fmt.Errorf("%s is missing, or not an object", where)
	}
	var unknown error
next:
	for _, m := range v.members {
		for i, name := range names {
			if string(m.name) == name {
				out[i] = m.value
				continue next
			}
		}
		unknown = fmt.Errorf("%s has the unknown member %.40q", where, m.name)
	}
	return out, true, unknown
}

// is reports whether v is this string.
func (v value) is(s string) bool { return v.kind == '"' && string(v.text) == s }

// str returns a string value.
func (v value) str(where place) (string, error) {
	if v.kind != '"' {
		return "", fmt.Errorf("%s is missing, or not a string", where)
	}
	return string(v.text), nil
}
