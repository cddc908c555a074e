package watchlist

import "strings"

// index finds, among very many patterns, the few that could fit a value: by
// the value itself, by how it begins or ends, or by what it contains. What it
// finds is compared in full afterwards. All keys are in lower case.
type index struct {
	exact  map[string][]int
	begins trie
	ends   trie
	within []within // patterns with neither end fixed
}

type within struct {
	literal string
	id      int
}

// add files a pattern under the most telling part of it.
func (x *index) add(p *pattern, id int) {
	switch {
	case p.exact:
		if x.exact == nil {
			x.exact = make(map[string][]int)
		}
		x.exact[p.prefix] = append(x.exact[p.prefix], id)
	case p.prefix == "" && p.suffix == "":
		x.within = append(x.within, within{p.literal, id})
	case len(p.prefix) >= len(p.suffix):
		x.begins.add(p.prefix, id)
	default:
		x.ends.add(reversed(p.suffix), id)
	}
}

// find calls yield with the id of every pattern that could fit.
func (x *index) find(lower string, yield func(id int)) {
	for _, id := range x.exact[lower] {
		yield(id)
	}
	x.begins.walk(len(lower), func(i int) byte { return lower[i] }, yield)
	x.ends.walk(len(lower), func(i int) byte { return lower[len(lower)-1-i] }, yield)
	for _, w := range x.within {
		if strings.Contains(lower, w.literal) {
			yield(w.id)
		}
	}
}

func reversed(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

// trie is a tree of bytes with pattern ids at its nodes.
type trie struct {
	nodes []trieNode
}

type trieNode struct {
	edges []trieEdge
	ids   []int
}

type trieEdge struct {
	c  byte
	to int
}

func (t *trie) add(key string, id int) {
	if len(t.nodes) == 0 {
		t.nodes = append(t.nodes, trieNode{})
	}
	at := 0
	for i := range len(key) {
		next := t.nodes[at].next(key[i])
		if next == 0 {
			next = len(t.nodes)
			t.nodes[at].edges = append(t.nodes[at].edges, trieEdge{key[i], next})
			t.nodes = append(t.nodes, trieNode{})
		}
		at = next
	}
	t.nodes[at].ids = append(t.nodes[at].ids, id)
}

func (n *trieNode) next(c byte) int {
	for _, e := range n.edges {
		if e.c == c {
			return e.to
		}
	}
	return 0
}

func (t *trie) walk(n int, char func(int) byte, yield func(id int)) {
	if len(t.nodes) == 0 {
		return
	}
	at := 0
	for i := 0; ; i++ {
		for _, id := range t.nodes[at].ids {
			yield(id)
		}
		if i == n {
			return
		}
		if at = t.nodes[at].next(char(i)); at == 0 {
			return
		}
	}
}
