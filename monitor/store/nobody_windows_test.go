package store

import "testing"

func openAsNobody(t *testing.T, _ string) string {
	t.Skip("modes of files mean something else here")
	return ""
}
