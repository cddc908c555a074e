//go:build race

package bounds

// detector is what the race detector takes besides.
const detector = Memory
