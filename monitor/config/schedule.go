package config

import (
	"errors"
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
)

// minEvery is the shortest time between two polls: cron makes one second of
// everything that is shorter, zero and less among it.
const minEvery = time.Second

// ParseSchedule reads cron's five fields, its @-words, or "@every 1m30s". It
// refuses schedules that never fire.
func ParseSchedule(text string) (s Schedule, err error) {
	defer func() {
		// The parser fails in its own way on "TZ=" without a schedule.
		if recover() != nil {
			s, err = Schedule{}, errors.New("not a schedule: five cron fields, @hourly and the like, or @every 1m")
		}
	}()
	if every, ok := cutEvery(text); ok {
		d, err := time.ParseDuration(every)
		if err != nil {
			return Schedule{}, fmt.Errorf("@every %s: want a time like 1m30s", every)
		}
		if d < minEvery {
			return Schedule{}, fmt.Errorf("@every %s: the shortest time is %s", every, minEvery)
		}
	}
	parsed, err := cron.ParseStandard(text)
	if err != nil {
		return Schedule{}, fmt.Errorf("not a schedule (%w): want five cron fields, @hourly and the like, or @every 1m", err)
	}
	if parsed.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Schedule{}, errors.New("never fires: no such date comes in five years")
	}
	return Schedule{Schedule: parsed, Text: text}, nil
}

// cutEvery finds the duration of @every, behind a time zone too.
func cutEvery(text string) (string, bool) {
	const word = "@every "
	for i := range text {
		if len(text)-i >= len(word) && text[i:i+len(word)] == word {
			return text[i+len(word):], true
		}
	}
	return "", false
}
