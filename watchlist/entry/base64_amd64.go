package entry

import "golang.org/x/sys/cpu"

// blocksAtOnce says that the processor decodes blocks of 32 characters at once.
var blocksAtOnce = cpu.X86.HasAVX2

// decodeBlocks decodes blocks of 32 characters of base64 into 24 bytes each, up to the first in
// which there is something else, and returns how many. It writes 32 bytes for each: the last 8
// are overwritten by the next. src has n blocks, dst has room for 24*n+8 bytes.
//
//go:noescape
func decodeBlocks(dst, src *byte, n int) int
