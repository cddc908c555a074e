package entry

import "golang.org/x/sys/cpu"

// blocksAtOnce says that the processor decodes blocks of 32 characters at once.
var blocksAtOnce = cpu.X86.HasAVX2

// wideAtOnce says that it has twice as wide ones, with a table for all characters.
var wideAtOnce = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VBMI

// decodeBlocks decodes blocks of 32 characters of base64 into 24 bytes each, up to the first in
// which there is something else, and returns how many. It writes 32 bytes for each: the last 8
// are overwritten by the next. src has n blocks, dst has room for 24*n+8 bytes.
//
//go:noescape
func decodeBlocks(dst, src *byte, n int) int

// decodeWide is decodeBlocks for blocks of 64 characters and 48 bytes. It writes 64 bytes for each:
// dst has room for 48*n+16.
//
//go:noescape
func decodeWide(dst, src *byte, n int) int
