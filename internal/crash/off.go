//go:build !crashpoints || !unix

// Package crash names the places where it matters that the process may end: before and after
// each effect that outlives it. With the build tag crashpoints a test can end it at each of
// them; without, nothing of it is left in the program.
package crash

// Before is called before an effect, After once it is done.
func Before(string) {}

// After is called once an effect is done.
func After(string) {}

// Caller names the function that has called the one which asks, from skip further up.
func Caller(int) string { return "" }
