package lanes

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/sigwarden/sigwarden/internal/bounds"
)

func check(t *testing.T, prefix byte, messages [][]byte) {
	t.Helper()
	sums := make([][sha256.Size]byte, len(messages)+1)
	Sum(prefix, messages, sums[:len(messages)])
	for i, m := range messages {
		if want := sha256.Sum256(append([]byte{prefix}, m...)); sums[i] != want {
			t.Fatalf("message %d of %d, of %d bytes: %x, want %x", i, len(messages), len(m), sums[i], want)
		}
	}
	if sums[len(messages)] != [sha256.Size]byte{} {
		t.Fatal("a sum too many")
	}
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// oneAndMany runs a test with lanes, where the processor has them, and without.
func oneAndMany(t *testing.T, test func(t *testing.T)) {
	t.Run("one by one", func(t *testing.T) {
		defer func(was bool) { available = was }(available)
		available = false
		test(t)
	})
	t.Run("lanes", func(t *testing.T) {
		if !available {
			t.Skip("this processor has no AVX-512")
		}
		test(t)
	})
}

func TestSum(t *testing.T) {
	oneAndMany(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		// Every number of messages, and every length around the ends of blocks.
		for count := range 40 {
			for n := range 3*blockSize + 2 {
				messages := make([][]byte, count)
				for i := range messages {
					messages[i] = random(r, n)
				}
				check(t, byte(n), messages)
			}
		}
		// Messages of all lengths together, in any order, from few to more than are put in order
		// together.
		for _, most := range []int{60, 200, 1000, 5000, 70_000} {
			for _, count := range []int{8, 16, 17, 100, atOnce, atOnce + 1, 3*atOnce - 7} {
				messages := make([][]byte, count)
				for i := range messages {
					messages[i] = random(r, r.IntN(most))
				}
				check(t, 0, messages)
			}
		}
		// One that is very long among short ones, and short ones among long.
		for _, count := range []int{8, 9, 16, 40} {
			short, long := make([][]byte, count), make([][]byte, count)
			for i := range short {
				short[i], long[i] = random(r, 100), random(r, 4000)
			}
			for i := range count {
				mixed, other := bytes.Clone(short[i]), bytes.Clone(long[i])
				short[i], long[i] = random(r, 1<<20), nil
				check(t, 1, short)
				check(t, 1, long)
				short[i], long[i] = mixed, other
			}
		}
	})
}

// TestVectors are those of FIPS 180-4's examples, whose first byte stands in for the prefix.
func TestVectors(t *testing.T) {
	oneAndMany(t, func(t *testing.T) {
		for message, want := range map[string]string{
			"abc": "\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23\xb0\x03\x61\xa3\x96\x17\x7a\x9c\xb4\x10\xff\x61\xf2\x00\x15\xad",
			"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq": "\x24\x8d\x6a\x61\xd2\x06\x38\xb8\xe5\xc0\x26\x93\x0c\x3e\x60\x39\xa3\x3c\xe4\x59\x64\xff\x21\x67\xf6\xec\xed\xd4\x19\xdb\x06\xc1",
		} {
			messages := make([][]byte, width)
			for i := range messages {
				messages[i] = []byte(message[1:])
			}
			sums := make([][sha256.Size]byte, width)
			Sum(message[0], messages, sums)
			for i, got := range sums {
				if string(got[:]) != want {
					t.Errorf("lane %d: %q: %x", i, message, got)
				}
			}
		}
	})
}

func TestSumAllocatesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	messages := make([][]byte, atOnce)
	for i := range messages {
		messages[i] = random(r, 2000+r.IntN(1000))
	}
	sums := make([][sha256.Size]byte, len(messages))
	if n := testing.AllocsPerRun(10, func() { Sum(0, messages, sums) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzSum reads lengths of messages, two bytes each, and what is in them all.
func FuzzSum(f *testing.F) {
	f.Add(byte(0), bytes.Repeat([]byte{0, 200}, 20), []byte("leaf"))
	f.Add(byte(1), bytes.Repeat([]byte{0, 64}, 33), []byte{})
	f.Add(byte(0), append(bytes.Repeat([]byte{11, 184, 11, 100}, 9), 255, 255), []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, prefix byte, lengths, seed []byte) {
		defer bounds.Hold(t)()
		var key [32]byte
		copy(key[:], seed)
		pool := make([]byte, 1<<17)
		rand.NewChaCha8(key).Read(pool)
		var messages [][]byte
		for ; len(lengths) > 1 && len(messages) < 2*atOnce; lengths = lengths[2:] {
			n := int(binary.BigEndian.Uint16(lengths))
			at := len(messages) * 61
			messages = append(messages, pool[at:at+n:at+n])
		}
		check(t, prefix, messages)
	})
}

func BenchmarkSum(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	messages := make([][]byte, atOnce)
	total := 0
	for i := range messages {
		messages[i] = random(r, []int{1100, 2600, 3000}[r.IntN(3)]+r.IntN(300))
		total += len(messages[i])
	}
	sums := make([][sha256.Size]byte, len(messages))
	b.Run("lanes", func(b *testing.B) {
		b.SetBytes(int64(total))
		for b.Loop() {
			Sum(0, messages, sums)
		}
	})
	b.Run("one by one", func(b *testing.B) {
		b.SetBytes(int64(total))
		for b.Loop() {
			for i, m := range messages {
				sums[i] = One(0, m)
			}
		}
	})
}
