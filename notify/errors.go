package notify

import (
	"errors"
	"fmt"
	"time"
)

// ErrRefused says that the other side refused an event for good.
var ErrRefused = errors.New("refused for good")

// ErrPartly says that some of those behind a channel have accepted an event, and others
// not: the channel works.
var ErrPartly = errors.New("accepted by some")

// RetryError is a failure after which the other side named the time to wait.
type RetryError struct {
	After time.Duration
	Err   error
}

func (e *RetryError) Error() string {
	return fmt.Sprintf("%v (asked to wait %s)", e.Err, e.After)
}

func (e *RetryError) Unwrap() error { return e.Err }
