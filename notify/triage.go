package notify

// Types of events that tell what people decided. They go to places only that keep
// a record of their own of what is open.
const (
	FindingAcknowledged = "finding.acknowledged"
	FindingResolved     = "finding.resolved"
	FindingReopened     = "finding.reopened"

	IncidentAcknowledged = "incident.acknowledged"
	IncidentReopened     = "incident.reopened"
)

// oneAtATime reports whether a channel is not to be tried with two events at a time.
func oneAtATime(n Notifier) bool {
	o, ok := n.(interface{ OneAtATime() bool })
	return ok && o.OneAtATime()
}

// FollowsTriage reports whether a channel is to be told what people decided.
func FollowsTriage(n Notifier) bool {
	f, ok := n.(interface{ FollowsTriage() bool })
	return ok && f.FollowsTriage()
}
