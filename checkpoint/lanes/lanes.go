// Package lanes hashes many messages at once. A processor has room for sixteen in its widest
// registers, and is two and a half times as fast that way as one by one; where it cannot, they
// are hashed one by one. The hashes are those of crypto/sha256, which tests hold.
package lanes

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

const (
	// width is how many messages are hashed at once.
	width = 16
	// fewest is from how many messages on that is faster than one by one: a block of all lanes
	// takes as long as six blocks of one message.
	fewest = 8
	// atOnce bounds how many messages are put in order together.
	atOnce = 256

	blockSize = sha256.BlockSize
	// padding is what comes behind a message at least: a bit, and its length (FIPS 180-4, 5.1.1).
	padding = 1 + 8
)

// Sum puts into sums, which has as many, the SHA-256 hashes of messages, each with a byte in
// front of it, as RFC 6962, 2.1 tells leaves from nodes.
func Sum(prefix byte, messages [][]byte, sums [][sha256.Size]byte) {
	if !available {
		for i, m := range messages {
			sums[i] = One(prefix, m)
		}
		return
	}
	for len(messages) > atOnce {
		sum(prefix, messages[:atOnce], sums)
		messages, sums = messages[atOnce:], sums[atOnce:]
	}
	sum(prefix, messages, sums)
}

// sum is Sum for up to atOnce messages: those that are about equally long go together, since
// lanes are done when the longest is.
func sum(prefix byte, messages [][]byte, sums [][sha256.Size]byte) {
	var room [atOnce]uint64
	order := inOrder(&room, messages)
	for len(order) > 0 {
		longest := order[len(order)-1] >> 32
		group := order[max(0, len(order)-width):]
		for len(group) > 0 && group[0]>>32 < longest-longest/4 {
			group = group[1:]
		}
		if len(group) < fewest {
			i := uint32(order[len(order)-1])
			sums[i] = One(prefix, messages[i])
			order = order[:len(order)-1]
			continue
		}
		sumGroup(prefix, messages, sums, group)
		order = order[:len(order)-len(group)]
	}
}

// inOrder returns how many blocks each message has, and which message that is, the shortest first.
func inOrder(room *[atOnce]uint64, messages [][]byte) []uint64 {
	// Nearly all have few enough blocks to be counted: an order by that takes one pass.
	var ends [257]uint16 // where those with one block less end, and then those with so many
	for _, m := range messages {
		ends[min(blocksOf(m), 255)+1]++
	}
	for i := 1; i < len(ends); i++ {
		ends[i] += ends[i-1]
	}
	large := int(ends[255])
	order := room[:len(messages)]
	for i, m := range messages {
		n := blocksOf(m)
		at := &ends[min(n, 255)]
		order[*at] = uint64(n)<<32 | uint64(i)
		*at++
	}
	slices.Sort(order[large:])
	return order
}

// blocksOf returns how many blocks a message has, with what is in front of it and behind.
func blocksOf(m []byte) int { return (1 + len(m) + padding + blockSize - 1) / blockSize }

var initial = [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}

// sumGroup hashes up to width messages. Of each, its first block has the prefix before it and its
// last one or two the padding behind it, so that these are copies; what is between them is read
// where it is.
func sumGroup(prefix byte, messages [][]byte, sums [][sha256.Size]byte, group []uint64) {
	var state [8][width]uint32
	for i, word := range initial {
		for lane := range state[i] {
			state[i][lane] = word
		}
	}
	var (
		heads [width][blockSize]byte
		tails [width][2 * blockSize]byte
		tail  [width]int // the block that is the first of the tail
		from  [width]*byte
	)
	whole := blocksOf(messages[uint32(group[len(group)-1])]) // blocks before the first tail
	for lane, o := range group {
		m := messages[uint32(o)]
		at := (1 + len(m)) / blockSize
		tail[lane], whole = at, min(whole, at)
		end := tails[lane][:0]
		if at == 0 {
			end = append(append(end, prefix), m...)
		} else {
			heads[lane][0] = prefix
			copy(heads[lane][1:], m)
			end = append(end, m[at*blockSize-1:]...)
		}
		tails[lane][len(end)] = 0x80
		binary.BigEndian.PutUint64(tails[lane][(int(o>>32)-at)*blockSize-8:], uint64(1+len(m))*8)
	}
	for step := 0; ; {
		n := 1
		if step == 1 && whole > 1 {
			n = whole - 1
		}
		for lane := range from {
			if lane >= len(group) {
				from[lane] = from[0] // nobody asks for what comes of it
				continue
			}
			m, at := messages[uint32(group[lane])], tail[lane]
			switch {
			case step >= at:
				// A lane that is done goes on with anything.
				from[lane] = &tails[lane][min(step-at, 1)*blockSize]
			case step == 0:
				from[lane] = &heads[lane][0]
			default:
				from[lane] = &m[step*blockSize-1]
			}
		}
		blocks(&state, &from, n)
		step += n
		for lane, o := range group {
			if int(o>>32) != step {
				continue
			}
			for i := range state {
				binary.BigEndian.PutUint32(sums[uint32(o)][4*i:], state[i][lane])
			}
			if lane == len(group)-1 {
				return // the longest are the last
			}
		}
	}
}

// One returns the SHA-256 hash of one message, with a byte in front of it.
func One(prefix byte, message []byte) (sum [sha256.Size]byte) {
	h := sha256.New() // stays on the stack, as does what is written
	h.Write([]byte{prefix})
	h.Write(message)
	h.Sum(sum[:0])
	return sum
}
