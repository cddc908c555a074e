//go:build !amd64

package lanes

var available = false

func blocks(_ *[8][width]uint32, _ *[width]*byte, _ int) {}
