//go:build !amd64

package entry

var blocksAtOnce, wideAtOnce = false, false

func decodeBlocks(_, _ *byte, _ int) int { return 0 }

func decodeWide(_, _ *byte, _ int) int { return 0 }
