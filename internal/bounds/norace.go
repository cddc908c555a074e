//go:build !race

package bounds

const detector = 0
