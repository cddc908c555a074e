package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// What a group of logs does as a whole: a tree of it that cannot be followed has
// no log yet that an incident could belong to, and is what nobody else notices.

// groupDetails are those of incidents about a group.
type groupDetails struct {
	Group string    `json:"group"`
	Since time.Time `json:"since"`
	Polls int       `json:"polls"`
	Error string    `json:"error"`
}

// Follows reports whether an incident is about a log, or a group of logs, that is
// followed.
func (e *Engine) Follows(inc Incident) bool {
	if inc.LogID != "" {
		return e.byID(inc.LogID) != nil
	}
	var d groupDetails
	return json.Unmarshal(inc.Details, &d) == nil && e.hasGroup(d.Group)
}

func (e *Engine) hasGroup(name string) bool {
	return slices.ContainsFunc(e.opts.Families, func(f Family) bool { return f.Name == name })
}

// judgeGroup books how the listing of a group went, and opens and resolves its
// incidents.
func (e *Engine) judgeGroup(ctx context.Context, f Family, listErr error) error {
	unsigned := errors.Is(listErr, checkpoint.ErrSignature) || errors.Is(listErr, checkpoint.ErrOrigin)
	answerErr := listErr
	if unsigned {
		answerErr = nil
	}
	now := e.opts.Now()
	silent, err := e.opts.Store.RecordPoll(ctx, "group/"+f.Name, Poll{At: now, Err: answerErr})
	if err != nil {
		return err
	}
	var strange Failures
	if answerErr == nil {
		var headErr error
		if unsigned {
			headErr = listErr
		}
		if strange, err = e.opts.Store.RecordPoll(ctx, "heads/"+f.Name, Poll{At: now, Err: headErr}); err != nil {
			return err
		}
	}
	open, err := e.opts.Store.OpenIncidents(ctx, "")
	if err != nil {
		return err
	}
	j := groupJudge{name: f.Name, open: open, now: now, opts: &e.opts}
	for _, inc := range open {
		var d groupDetails
		if json.Unmarshal(inc.Details, &d) == nil && d.Group != "" && !e.hasGroup(d.Group) {
			j.settle = append(j.settle, resolution(inc, "The group is not followed any more.", now, j.hears(inc.Kind)))
		}
	}
	if answerErr == nil {
		j.judge(KindBadSignature, unsigned, strange.Polls >= strikes, strange, listErr,
			fmt.Sprintf("For %d polls in a row group %s has listed a log whose checkpoint none of its known keys signed; that log is not followed.", strange.Polls, f.Name),
			"All logs of the group serve checkpoints that a known key signed.")
	}
	j.judge(KindUnreachable, answerErr != nil, silent.Polls >= strikes && now.Sub(silent.Since) >= unreachableAfter, silent, listErr,
		fmt.Sprintf("For %s not all logs of group %s could be listed (%d tries): those that are not known yet are not followed.", now.Sub(silent.Since).Round(time.Minute), f.Name, silent.Polls),
		"All logs of the group could be listed again.")
	if len(j.raise)+len(j.settle) == 0 {
		return nil
	}
	if err := e.opts.Store.Record(ctx, j.raise, j.settle); err != nil {
		return err
	}
	for _, inc := range j.raise {
		e.opts.Logger.Error("incident opened", "kind", inc.Kind, "class", inc.Class, "incident", inc.ID, "summary", inc.Summary)
	}
	if e.opts.Wake != nil {
		e.opts.Wake()
	}
	return nil
}

// groupJudge gathers what to open and what to resolve.
type groupJudge struct {
	name   string
	open   []Incident
	now    time.Time
	opts   *Options
	raise  []Incident
	settle []Resolution
}

func (j *groupJudge) hears(kind string) Audience { return j.opts.audience(kind) }

// audience is who hears of incidents of a kind.
func (o *Options) audience(kind string) Audience {
	if incidentKind(kind).Class == Integrity {
		return Audience{o.IncidentChannels, o.Route}
	}
	return Audience{o.HealthChannels, o.Route}
}

// judge opens an incident that is due, and resolves the one that is over. One
// that is neither stays as it is.
func (j *groupJudge) judge(kind string, wrong, due bool, run Failures, cause error, summary, over string) {
	hears := j.hears(kind)
	for _, inc := range j.open {
		var d groupDetails
		if inc.Kind != kind || json.Unmarshal(inc.Details, &d) != nil || d.Group != j.name {
			continue
		}
		if wrong {
			return
		}
		j.settle = append(j.settle, resolution(inc, over, j.now, hears))
	}
	if wrong && due {
		text := shorten(cause.Error())
		j.raise = append(j.raise, general(kind, summary+" The last error: "+text, groupDetails{j.name, run.Since, run.Polls, text}, j.now, hears))
	}
}
