package client

import "github.com/sigwarden/sigwarden/checkpoint"

// hash is one of a proof, in hex.
type hash struct{ checkpoint.Hash }

// UnmarshalText reads hex.
func (h *hash) UnmarshalText(text []byte) error {
	return (*checkpoint.HexHash)(&h.Hash).UnmarshalText(text)
}
