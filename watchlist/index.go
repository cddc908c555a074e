package watchlist

import (
	"encoding/binary"
	"math"
	"math/bits"
	"sync"
)

// index finds, among very many patterns, the few that could fit a text. Every pattern is filed
// under one piece, of 8 bytes or of 4, that is in every text which it fits: the most telling one
// that it has, which the fewest other patterns share. A text is looked through once for all
// pieces, whatever their number; what is found is compared in full by whoever asks. Pieces are
// folded, so that letters are the same in both cases (and a few other characters by chance), and
// texts are framed: a zero byte stands for their beginning and their end, so that what must be
// there is a part of the piece.
type index struct {
	filed  []filed // until build
	long   pieces  // of 8 bytes
	short  pieces  // of 4
	always []int   // of patterns that have no piece
}

// filed is a pattern that waits for build. Every text that fits has, of each of some lists, one
// text at least.
type filed struct {
	needs [][]string
	id    int
}

const (
	longPiece  = 8
	shortPiece = 4
)

// add files a pattern. build must be called before anything is found.
func (x *index) add(p *pattern, id int) { x.filed = append(x.filed, filed{p.needs, id}) }

// build chooses a piece for each pattern.
func (x *index) build() {
	counts := newPieceCounts(x.filed)
	for _, f := range x.filed {
		best, least := []piece(nil), math.Inf(1)
		for _, oneOf := range f.needs {
			if list, cost := counts.choose(oneOf); cost < least {
				best, least = list, cost
			}
		}
		if best == nil {
			x.always = append(x.always, f.id)
			continue
		}
		for _, p := range best {
			if p.long {
				x.long.add(p.bytes, f.id)
			} else {
				x.short.add(p.bytes, f.id)
			}
		}
	}
	x.filed = nil
	x.long.build(longPiece)
	x.short.build(shortPiece)
}

// folds has the bit of each byte in which the two cases of a letter differ.
const folds = 0x2020202020202020

// may reports whether any pattern could fit a text.
func (x *index) may(text []byte) bool {
	if len(x.always) > 0 {
		return true
	}
	found := false
	x.scan(text, func([]int) bool { found = true; return false })
	return found
}

// find calls yield with the id of every pattern that could fit a text.
func (x *index) find(text string, yield func(id int)) {
	for _, id := range x.always {
		yield(id)
	}
	x.scan([]byte(text), func(ids []int) bool {
		for _, id := range ids {
			yield(id)
		}
		return true
	})
}

// scan looks through a text for as long as yield wants.
func (x *index) scan(text []byte, yield func(ids []int) bool) {
	if len(text) < longPiece {
		var room [longPiece + 2]byte
		framed := room[:1+copy(room[1:], text)+1]
		_ = x.long.each(framed, yield) && x.short.each(framed, yield)
		return
	}
	// The frame is put about the first piece and the last.
	first, last := binary.LittleEndian.Uint64(text), binary.LittleEndian.Uint64(text[len(text)-longPiece:])
	const half = 8 * (longPiece - shortPiece)
	_ = x.long.one(first<<8, yield) && x.long.each(text, yield) && x.long.one(last>>8, yield) &&
		x.short.one(first<<8&math.MaxUint32, yield) && x.short.each(text, yield) && x.short.one(last>>half>>8, yield)
}

// pieces holds pieces of one length, with a bit for each, or for a few that share it, so that most
// of any text costs a look at one word.
type pieces struct {
	length int
	folds  uint64
	ids    map[uint64][]int
	bits   []uint64
	mask   uint32 // of the numbers of bits
}

func (p *pieces) add(v uint64, id int) {
	if p.ids == nil {
		p.ids = map[uint64][]int{}
	}
	p.ids[v] = append(p.ids[v], id)
}

// golden is 2^64 divided by the golden ratio.
const golden = 0x9e3779b97f4a7c15

// maxSize is the size of the largest table of bits, and hashShift what leaves so many bits of a
// product: the highest, which most of the piece has to do with.
const (
	maxSize   = 21
	hashShift = 64 - maxSize
)

// build makes room for 32 bits a piece: from 64 bytes to as much as stays near a processor.
func (p *pieces) build(length int) {
	if p.ids == nil {
		return
	}
	p.length, p.folds = length, folds>>(64-8*length)
	size := min(max(bits.Len(uint(len(p.ids)))+5, 9), maxSize)
	p.mask = 1<<size - 1
	p.bits = make([]uint64, 1<<(size-6))
	for v := range p.ids {
		h := uint32(v*golden>>hashShift) & p.mask
		p.bits[h/64] |= 1 << (h % 64)
	}
}

// each calls yield with what is filed under each piece of a text. It returns false when yield
// wants no more.
func (p *pieces) each(text []byte, yield func(ids []int) bool) bool {
	for at := p.next(text, 0); at >= 0; at = p.next(text, at+1) {
		if !p.one(p.load(text[at:]), yield) {
			return false
		}
	}
	return true
}

// load reads a piece.
func (p *pieces) load(text []byte) uint64 {
	if p.length == longPiece {
		return binary.LittleEndian.Uint64(text)
	}
	return uint64(binary.LittleEndian.Uint32(text))
}

// next returns from where on the next bytes of a text could be a piece; -1: none could.
func (p *pieces) next(text []byte, at int) int {
	words, mask := p.bits, p.mask
	switch p.length {
	case longPiece:
		for ; at <= len(text)-longPiece; at++ {
			h := uint32((binary.LittleEndian.Uint64(text[at:])|folds)*golden>>hashShift) & mask
			if words[h/64]>>(h%64)&1 != 0 {
				return at
			}
		}
	case shortPiece:
		for ; at <= len(text)-shortPiece; at++ {
			h := uint32((uint64(binary.LittleEndian.Uint32(text[at:]))|folds&math.MaxUint32)*golden>>hashShift) & mask
			if words[h/64]>>(h%64)&1 != 0 {
				return at
			}
		}
	}
	return -1
}

// one calls yield with what is filed under a piece.
func (p *pieces) one(v uint64, yield func(ids []int) bool) bool {
	if p.bits == nil {
		return true
	}
	v |= p.folds
	if h := uint32(v*golden>>hashShift) & p.mask; p.bits[h/64]>>(h%64)&1 != 0 {
		if ids, ok := p.ids[v]; ok {
			return yield(ids)
		}
	}
	return true
}

// piece is a part of a text.
type piece struct {
	bytes uint64 // folded
	long  bool
}

// eachPiece calls yield with every piece of a text: those of 8 bytes, or of 4 where it is too
// short for that.
func eachPiece(text string, yield func(piece)) {
	b := []byte(text)
	for i := 0; i+longPiece <= len(b); i++ {
		yield(piece{binary.LittleEndian.Uint64(b[i:]) | folds, true})
	}
	if len(b) < longPiece {
		for i := 0; i+shortPiece <= len(b); i++ {
			yield(piece{uint64(binary.LittleEndian.Uint32(b[i:])) | folds&math.MaxUint32, false})
		}
	}
}

// pieceCounts counts, about, in how many places patterns have each piece.
type pieceCounts struct {
	slots []uint32
	shift uint
}

func newPieceCounts(list []filed) *pieceCounts {
	total := 0
	for _, f := range list {
		for _, oneOf := range f.needs {
			for _, text := range oneOf {
				total += len(text)
			}
		}
	}
	size := min(max(bits.Len(uint(total))+1, 8), 22)
	c := &pieceCounts{make([]uint32, 1<<size), uint(64 - size)}
	for _, f := range list {
		for _, oneOf := range f.needs {
			for _, text := range oneOf {
				eachPiece(text, func(p piece) { c.slots[p.bytes*golden>>c.shift]++ })
			}
		}
	}
	return c
}

// choose returns a piece of each of some texts, the one that tells most, and what they cost
// together; nothing if one of them is too short.
func (c *pieceCounts) choose(texts []string) (list []piece, cost float64) {
	for _, text := range texts {
		var best piece
		least := math.Inf(1)
		eachPiece(text, func(p piece) {
			if cost := c.cost(p); cost < least {
				best, least = p, cost
			}
		})
		list, cost = append(list, best), cost+least
	}
	return list, cost
}

// How often a piece is in a text, about, by how many of the pieces of 4 in it are common.
var (
	longChance  = [...]float64{1e-4, 1e-3, 1e-2, 5e-2, 2e-1, 1}
	shortChance = [...]float64{1e-3, 1}
)

// cost is what it costs, on an average, to be told of a piece: to decode the entry, and to compare
// it with the patterns that share the piece.
func (c *pieceCounts) cost(p piece) float64 {
	const decoding = 20 // comparisons
	chances := shortChance[:]
	if p.long {
		chances = longChance[:]
	}
	usual, common := commonPieces(), 0
	for i := range len(chances) - 1 {
		if usual[uint32(p.bytes>>(8*i))] {
			common++
		}
	}
	return chances[common] * (decoding + float64(c.slots[p.bytes*golden>>c.shift]))
}

// commonTexts are parts of very many names of signers.
var commonTexts = []string{
	"\x00https://github.com/", "\x00https://gitlab.com/", "/.github/workflows/", "//.gitlab-ci.yml@refs/", ".yml@refs/heads/", ".yaml@refs/heads/", "@refs/tags/v", "refs/heads/main\x00", "refs/heads/master\x00",
	"refs/pull/", "/merge\x00", "/release", "release.yml", "publish.yml", "build.yml", "docker", "deploy.yml", "test.yml", "main.yml", "/ci.yml",
	"\x00https://token.actions.githubusercontent.com\x00", "\x00https://accounts.google.com\x00", "\x00https://github.com/login/oauth\x00", "\x00https://oauth2.sigstore.dev/auth\x00", "\x00https://agent.buildkite.com\x00",
	"@gmail.com\x00", ".iam.gserviceaccount.com\x00", "@users.noreply.github.com\x00", ".com\x00", ".org\x00", ".dev\x00", ".net\x00",
}

// commonPieces are the pieces of 4 bytes of those.
var commonPieces = sync.OnceValue(func() map[uint32]bool {
	out := map[uint32]bool{}
	for _, text := range commonTexts {
		for i := 0; i+shortPiece <= len(text); i++ {
			out[binary.LittleEndian.Uint32([]byte(text[i:]))|folds&math.MaxUint32] = true
		}
	}
	return out
})
