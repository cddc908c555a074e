package simdisk

import "sync"

// content is the bytes of a file, in rooms that grow without being copied: files come to some hundred
// kilobytes, by a page at a time, and worlds have many disks. What is behind the end is always 0.
type content struct {
	size  int64
	rooms []*room
}

const roomSize = 64 << 10

type room [roomSize]byte

// spare are rooms that nobody uses, a few; their bytes are 0.
var spare struct {
	mu   sync.Mutex
	list []*room
}

const mostSpare = 256

func newRoom() *room {
	spare.mu.Lock()
	defer spare.mu.Unlock()
	n := len(spare.list)
	if n == 0 {
		return new(room)
	}
	r := spare.list[n-1]
	spare.list = spare.list[:n-1]
	return r
}

func release(rooms []*room) {
	for _, r := range rooms {
		clear(r[:])
	}
	spare.mu.Lock()
	defer spare.mu.Unlock()
	spare.list = append(spare.list, rooms[:min(len(rooms), mostSpare-len(spare.list))]...)
	clear(rooms)
}

func contentOf(data []byte) (c content) {
	c.put(0, data)
	return c
}

// resize cuts the content, or adds zeros.
func (c *content) resize(size int64) {
	need := int((size + roomSize - 1) / roomSize)
	if need < len(c.rooms) {
		release(c.rooms[need:])
		c.rooms = c.rooms[:need]
	}
	for len(c.rooms) < need {
		c.rooms = append(c.rooms, newRoom())
	}
	if size < c.size && size%roomSize > 0 {
		clear(c.rooms[need-1][size%roomSize:])
	}
	c.size = size
}

// put writes at a place.
func (c *content) put(at int64, data []byte) {
	if end := at + int64(len(data)); end > c.size {
		c.resize(end)
	}
	for len(data) > 0 {
		n := copy(c.rooms[at/roomSize][at%roomSize:], data)
		at, data = at+int64(n), data[n:]
	}
}

// read reads from a place, and returns how much there is.
func (c *content) read(to []byte, at int64) (got int) {
	to = to[:max(min(int64(len(to)), c.size-at), 0)]
	for got < len(to) {
		got += copy(to[got:], c.rooms[at/roomSize][at%roomSize:])
		at = at - at%roomSize + roomSize
	}
	return got
}

// bytes returns a copy.
func (c *content) bytes() []byte {
	out := make([]byte, c.size)
	c.read(out, 0)
	return out
}

func (c *content) clone() content {
	out := content{size: c.size, rooms: make([]*room, len(c.rooms))}
	for i, r := range c.rooms {
		out.rooms[i] = newRoom()
		*out.rooms[i] = *r
	}
	return out
}

// free gives the rooms to others. The content is empty then.
func (c *content) free() {
	release(c.rooms)
	*c = content{}
}
