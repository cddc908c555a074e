package lanes

import "golang.org/x/sys/cpu"

var available = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW

// blocks hashes n blocks of each lane, from where it is told on, into a state that has a row for
// each of its words.
//
//go:noescape
func blocks(state *[8][width]uint32, from *[width]*byte, n int)
