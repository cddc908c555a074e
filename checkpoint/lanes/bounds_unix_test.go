//go:build unix

package lanes

import (
	"crypto/sha256"
	"syscall"
	"testing"
)

// TestReadsNoFurther puts messages before and behind memory that may not be read.
func TestReadsNoFurther(t *testing.T) {
	oneAndMany(t, func(t *testing.T) {
		page := syscall.Getpagesize()
		memory, err := syscall.Mmap(-1, 0, 3*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Munmap(memory)
		for _, closed := range [][]byte{memory[:page], memory[2*page:]} {
			if err := syscall.Mprotect(closed, syscall.PROT_NONE); err != nil {
				t.Fatal(err)
			}
		}
		open := memory[page : 2*page]
		for i := range open {
			open[i] = byte(i * 31)
		}
		messages := make([][]byte, width)
		sums := make([][sha256.Size]byte, width)
		for n := range 6 * blockSize {
			for i := range messages {
				messages[i] = open[len(open)-n:]
				if i%2 == 1 {
					messages[i] = open[:n]
				}
			}
			Sum(0, messages, sums)
			for i, m := range messages {
				if want := sha256.Sum256(append([]byte{0}, m...)); sums[i] != want {
					t.Fatalf("%d bytes, lane %d: %x, want %x", n, i, sums[i], want)
				}
			}
		}
	})
}
