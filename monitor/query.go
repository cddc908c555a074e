package monitor

import "time"

// Filter selects findings and incidents; zero fields select all.
type Filter struct {
	Watch, Log, Verdict, State, Kind, Severity string
	Since, Until                               time.Time
	// Limit is how many of the newest are wanted; 0: all.
	Limit int
	// Before is where a page ended: only what is older is wanted.
	Before string
}

// MaxPage bounds what is on one page.
const MaxPage = 500

// Page is a part of a list, the newest first.
type Page[T any] struct {
	Items []T
	// Next is the Before of the page that follows; empty: there is none.
	Next string
}
