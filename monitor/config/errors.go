package config

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// Issue is one thing that is wrong, or odd, in a configuration.
type Issue struct {
	File      string
	Line, Col int    // 1-based; 0: of the file as a whole
	Path      string // like watchlist[0].match
	Message   string
	Source    string // the line
}

func (i Issue) String() string {
	if i.Line == 0 {
		return i.File + ": " + i.Message
	}
	s := fmt.Sprintf("%s:%d:%d: %s", i.File, i.Line, i.Col, i.Message)
	if i.Source != "" {
		s += fmt.Sprintf("\n  %4d | %s", i.Line, i.Source)
	}
	return s
}

// Error is everything that is wrong in a configuration.
type Error struct{ Issues []Issue }

func (e *Error) Error() string {
	var lines []string
	for _, i := range e.Issues {
		lines = append(lines, i.String())
	}
	return strings.Join(lines, "\n")
}

// nearest returns the known word that a misspelt one is probably meant to be.
func nearest(word string, known []string) string {
	best, bestDistance := "", 1+len(word)/3
	for _, k := range known {
		if d := distance(strings.ToLower(word), k); d <= bestDistance && (best == "" || d < bestDistance) {
			best, bestDistance = k, d
		}
	}
	return best
}

// DidYouMean ends a message about an unknown word.
func DidYouMean(word string, known []string) string {
	if k := nearest(word, known); k != "" {
		return fmt.Sprintf("; did you mean %q?", k)
	}
	sorted := slices.Clone(known)
	sort.Strings(sorted)
	if len(sorted) > 30 || len(sorted) == 0 {
		return ""
	}
	return "; known are " + strings.Join(sorted, ", ")
}

// distance is Levenshtein's, with the swap of two neighbours counted as one.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
