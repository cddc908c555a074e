package simulation

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/store/simdisk"
)

// head is a tree that was believed, or co-signed.
type head struct {
	size uint64
	root checkpoint.Hash
}

// auditor knows the truth, and what was claimed.
type auditor struct {
	w        *world
	cosigner *witness.Cosigner

	mu      sync.Mutex
	proc    *process
	heads   map[*simLog][]head // verified ones, in the order of their commits
	before  map[*simLog]uint64 // how much of its true tree was verified before it lied ...
	read    map[*simLog]uint64 // ... and read
	signed  map[*simLog][]head
	times   map[*simLog]int64
	forces  map[string]bool     // rules that were in force
	choices map[string][]string // what a finding, or an incident, may be, as people decided
	final   string
}

var theCosigner = sync.OnceValues(func() (*witness.Cosigner, error) {
	_, c, err := witness.GenerateKey("witness.example", witness.Ed25519)
	return c, err
})

func newAuditor(w *world) *auditor {
	a := &auditor{w: w, cosigner: must(theCosigner()), heads: map[*simLog][]head{}, before: map[*simLog]uint64{}, read: map[*simLog]uint64{}, signed: map[*simLog][]head{},
		times: map[*simLog]int64{}, forces: map[string]bool{}, choices: map[string][]string{}}
	a.forces[must(makeRules[0]())[0].hash] = true // channels are no part of the hash
	return a
}

func (a *auditor) process() *process {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.proc
}

func (a *auditor) inForce(hash string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forces[hash] = true
}

// decided notes what somebody has decided; unless they were told that it is stored, it may
// be stored or not.
func (a *auditor) decided(about, was, state string, sure bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, ok := a.choices[about]
	switch {
	case sure:
		before = nil
	case !ok:
		before = []string{was}
	}
	a.choices[about] = append(before, state)
}

func (w *world) logOf(id string) *simLog {
	for _, l := range w.logs {
		if l.id == id {
			return l
		}
	}
	return nil
}

// committed notes what a log's state was moved to.
func (a *auditor) committed(logID string, next *monitor.State) {
	l := a.w.logOf(logID)
	if l == nil || next.Head == "" {
		return
	}
	c, err := l.opener.Open([]byte(next.Head))
	if err != nil {
		a.w.wrong("%s: the stored head does not verify: %v", l.name, err)
		return
	}
	h := head{c.Size(), c.Root()}
	l.mu.Lock()
	lying := l.lie != ""
	l.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if list := a.heads[l]; len(list) == 0 || list[len(list)-1] != h {
		if len(list) > 0 && list[len(list)-1].size > h.size {
			a.w.wrong("%s: the verified head went back from %d to %d", l.name, list[len(list)-1].size, h.size)
		}
		a.heads[l] = append(list, h)
	}
	if !lying {
		a.before[l], a.read[l] = h.size, next.Scanned
	}
}

// cosigned notes a cosignature that somebody was given.
func (a *auditor) cosigned(l *simLog, note []byte, lines string) {
	c, err := l.opener.Open(note)
	if err != nil {
		a.w.wrong("%s: a checkpoint was co-signed that its log has not signed: %v", l.name, err)
		return
	}
	seen := witness.Cosignatures([]byte(string(note)+lines), a.cosigner.Verifier)
	if len(seen) != 1 {
		a.w.wrong("%s: the lines of the witness do not verify: %q", l.name, lines)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if at := seen[0].At; at < a.times[l] {
		a.w.wrong("%s: a cosignature of %d after one of %d", l.name, at, a.times[l])
	} else {
		a.times[l] = at
	}
	if list := a.signed[l]; len(list) > 0 && list[len(list)-1].size > c.Size() {
		a.w.wrong("%s: size %d was co-signed after %d", l.name, c.Size(), list[len(list)-1].size)
	}
	a.signed[l] = append(a.signed[l], head{c.Size(), c.Root()})
}

// oneHistory fails if heads contradict each other: all are of the true history, or all
// of the other one.
func (a *auditor) oneHistory(l *simLog, what string, heads []head) {
	truth, other := true, true
	for _, h := range heads {
		truth = truth && l.truth(h.size, h.root)
		other = other && l.alternative(h.size, h.root)
	}
	if !truth && !other {
		var list []string
		for _, h := range heads {
			list = append(list, fmt.Sprintf("%d:%x (its tree: %v, the other one: %v)", h.size, h.root[:3], l.truth(h.size, h.root), l.alternative(h.size, h.root)))
		}
		a.w.wrong("%s: %s contradict each other, or the log: %s (it lies: %q, from entry %d)", l.name, what, strings.Join(list, ", "), l.lie, l.forkd)
	}
}

// look lets something be asked of the process that runs.
func (p *process) look(f func(*life) error) error {
	l := p.now()
	if l == nil {
		return fmt.Errorf("the process does not run")
	}
	return f(l)
}

// healing lets polls pass while everything works: lies are found within the stated number
// of them, and everything is caught up with. Most worlds end once that is so.
func (a *auditor) healing(p *process) {
	began := time.Now()
	for time.Since(began) < healing {
		time.Sleep(pollEvery / 2)
		last := time.Since(began) >= healing
		done := a.w.seed%4 != 0 && time.Since(began) >= 2*pollEvery
		err := p.look(func(life *life) error {
			list, err := life.store.Incidents(context.Background(), store.Filter{})
			if err != nil {
				return err
			}
			for _, l := range a.w.logs {
				found := slices.ContainsFunc(list, func(i monitor.Incident) bool {
					return i.LogID == l.id && i.Class == monitor.Integrity && slices.Contains(l.shows(), i.Kind)
				})
				if l.lie != "" && !found && a.detectable(l) {
					done = false
					if polls := a.w.net.polls(l.host); last || polls >= l.limit() {
						a.w.wrong("%s: a lie (%s, since %s) was not found in %d polls", l.name, l.lie, l.since, polls)
					}
				}
				state, err := life.store.State(context.Background(), l.id)
				if err != nil {
					return err
				}
				done = done && (l.lie != "" || state.Scanned == l.published)
			}
			pending, err := life.store.PendingDeliveries(context.Background())
			done = done && pending == 0
			return err
		})
		if err != nil && time.Since(began) >= 3*pollEvery {
			a.w.wrong("while everything works: %v", err)
		}
		if done && err == nil {
			return
		}
	}
}

// detectable reports whether anybody could tell from what was seen that the log lies.
func (a *auditor) detectable(l *simLog) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch l.lie {
	case "fork", "fork at the same size":
		return a.before[l] > l.forkd
	case "other tiles":
		// A log of which nothing was verified yet is one that does not answer.
		return len(a.heads[l]) > 0
	case "smaller fork":
		if l.v1 != nil {
			// Only its server could show that what it had signed before is another history.
			return a.before[l] > l.forkd && l.published >= a.before[l]
		}
		if l.published > a.before[l] {
			return a.before[l] > l.forkd // it has grown to a larger one
		}
		return a.before[l] > l.forkd && a.read[l] == a.before[l]
	}
	return true
}

// accused fails if a log that has not lied yet is accused of anything.
func (a *auditor) accused(l *simLog) {
	p := a.process()
	if p == nil {
		return
	}
	// The state may not be readable just now.
	_ = p.look(func(life *life) error {
		list, err := life.store.Incidents(context.Background(), store.Filter{})
		for _, i := range list {
			if i.LogID == l.id && i.Class == monitor.Integrity {
				a.w.wrong("%s was accused before it lied: %s: %s", l.name, i.Kind, i.Summary)
			}
		}
		return err
	})
}

// end audits what is stored once the process has stopped.
func (a *auditor) end() {
	w := a.w
	ctx := context.Background()
	w.disk.Boot()
	st, err := store.Open(ctx, w.disk.Path("state.db"), store.Options{VFS: simdisk.Name})
	if err != nil {
		w.wrong("the state cannot be opened: %v", err)
		return
	}
	defer st.Close()
	check := func(what string, err error) bool {
		if err != nil {
			w.wrong("%s: %v", what, err)
		}
		return err == nil
	}
	check("state", st.Check(ctx))
	check("what is stored", st.Verify(ctx))
	_, _, err = st.VerifyLedger(ctx)
	check("ledger", err)
	findings, err := st.Findings(ctx, store.Filter{})
	check("findings", err)
	incidents, err := st.Incidents(ctx, store.Filter{})
	check("incidents", err)
	pending, err := st.PendingDeliveries(ctx)
	if check("outbox", err) && pending > 0 {
		w.wrong("%d deliveries are still waiting although everything works", pending)
	}
	for _, i := range incidents {
		a.incident(ctx, st, i)
	}
	sum := []string{}
	for _, l := range w.logs {
		if l.lie != "" && a.detectable(l) {
			w.counts["lie to be found: "+l.lie]++
		}
		sum = append(sum, a.log(ctx, st, l, findings))
	}
	for _, f := range findings {
		if want, ok := a.choices[f.ID]; ok && !slices.Contains(want, f.State) {
			w.wrong("finding %s is %s, and somebody had decided that it is %v", f.ID, f.State, want)
		}
	}
	for _, i := range incidents {
		sum = append(sum, i.Kind+" "+i.State)
	}
	slices.Sort(sum)
	a.final = fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(sum, "\n"))))[:16]
	w.say.Info("end", "state", strings.Join(sum, "\n"))
}

// incident audits one incident: whom it accuses, by what, and whether everybody was told.
func (a *auditor) incident(ctx context.Context, st *store.Store, short monitor.Incident) {
	w := a.w
	w.counts["incident: "+short.Kind]++
	i, err := st.Incident(ctx, short.ID)
	if err != nil {
		w.wrong("incident %s: %v", short.ID, err)
		return
	}
	told := w.channels[:1] // of the program's and the network's health
	if i.Class == monitor.Integrity {
		told = w.channels
		l := w.logOf(i.LogID)
		switch {
		case l == nil || l.lie == "":
			w.wrong("an honest log (%s) was accused: %s: %s", i.Log, i.Kind, i.Summary)
		case i.Kind == monitor.KindFork || i.Kind == monitor.KindSplitView:
			d, err := checkpoint.ParseDivergence(i.Kept("divergence.json"))
			if err == nil {
				err = d.Verify(l.opener)
			}
			if err != nil {
				w.wrong("%s: what is kept of %s (%s) proves nothing: %v", l.name, i.ID, i.Kind, err)
			}
		}
	}
	for _, c := range told {
		if !a.toldOf(c, i.ID) {
			w.wrong("%s was never told of %s (%s)", c, i.ID, i.Kind)
		}
	}
	// The program may have settled it since.
	if want, ok := a.choices[i.ID]; ok && i.State != monitor.StateResolved && !slices.Contains(want, i.State) {
		w.wrong("incident %s (%s) is %s, and somebody had decided that it is %v", i.ID, i.Kind, i.State, want)
	}
}

// toldOf reports whether a channel has heard of an incident or finding.
func (a *auditor) toldOf(channel, subject string) bool {
	p := a.w.people
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, n := range p.accepted {
		if n > 0 && strings.HasPrefix(k, channel+" ") && p.about[k] == subject {
			return true
		}
	}
	return false
}

// log audits what is stored of one log, and sums it up.
func (a *auditor) log(ctx context.Context, st *store.Store, l *simLog, findings []monitor.Finding) string {
	w := a.w
	state, err := st.State(ctx, l.id)
	if err != nil {
		w.wrong("%s: %v", l.name, err)
		return ""
	}
	a.oneHistory(l, "verified heads", a.heads[l])
	a.oneHistory(l, "cosignatures", a.signed[l])
	if state.Head == "" {
		if l.published > 0 && l.lie == "" {
			w.wrong("%s: it has %d entries and was never seen", l.name, l.published)
		}
		return l.name + " unseen"
	}
	// Which history is the one that is believed.
	tree, kinds := l.tree, l.kinds
	if list := a.heads[l]; len(list) > 0 && !l.truth(list[len(list)-1].size, list[len(list)-1].root) {
		tree, kinds = l.other, nil
		for i := range l.other.Size() {
			kinds = append(kinds, must(newStock()).kinds[string(must(l.other.Entry(i)))])
		}
	}
	if l.lie == "" && (state.HeadSize != l.published || state.Scanned != l.published) {
		w.wrong("%s: %d entries are published, the head is %d and %d are read", l.name, l.published, state.HeadSize, state.Scanned)
	}
	var peaks []checkpoint.Hash
	for _, p := range state.Peaks {
		peaks = append(peaks, checkpoint.Hash(p))
	}
	frontier, err := checkpoint.NewFrontier(state.Scanned, peaks)
	if err != nil || state.Scanned <= tree.Size() && frontier.Root() != checkpoint.Hash(must(tree.Root(state.Scanned))) {
		w.wrong("%s: the frontier of %d is not that of the log: %v", l.name, state.Scanned, err)
	}
	covered := a.coverage(ctx, st, l, state)
	found := map[uint64]monitor.Finding{}
	for _, f := range findings {
		if f.Origin != l.origin {
			continue
		}
		if _, twice := found[f.Index]; twice {
			w.wrong("%s: entry %d was found twice", l.name, f.Index)
		}
		found[f.Index] = f
		a.finding(ctx, st, l, kinds, f)
	}
	var sum []string
	for i, k := range kinds {
		if uint64(i) >= state.Scanned {
			break
		}
		f, ok := found[uint64(i)]
		switch {
		case k == nobody && ok:
			w.wrong("%s: entry %d is nobody's, and was found", l.name, i)
		case k != nobody && !ok && covered[uint64(i)]:
			w.wrong("%s: entry %d is ours, was covered, and was not found", l.name, i)
		}
		if ok {
			sum = append(sum, fmt.Sprintf("%d:%s:%s", i, f.Verdict, f.RuleHash[:4]))
		}
	}
	return fmt.Sprintf("%s %d/%d %s", l.name, state.Scanned, state.HeadSize, strings.Join(sum, " "))
}

// finding audits one finding: its proof, its verdict, and whether everybody was told.
func (a *auditor) finding(ctx context.Context, st *store.Store, l *simLog, kinds []kind, short monitor.Finding) {
	w := a.w
	f, err := st.Finding(ctx, short.ID)
	if err != nil {
		w.wrong("finding %s: %v", short.ID, err)
		return
	}
	if f.Index >= uint64(len(kinds)) {
		w.wrong("%s: entry %d was found, and does not exist", l.name, f.Index)
		return
	}
	c, err := l.opener.Open([]byte(f.SignedNote))
	if err == nil {
		err = c.VerifyInclusion(f.Index, checkpoint.Hash(f.LeafHash), f.Proof)
	}
	if l.v1 != nil {
		a.findingV1(l, f)
	}
	if err != nil || checkpoint.HexHash(checkpoint.LeafHash(f.Leaf)) != f.LeafHash {
		w.wrong("%s: finding at %d is not proven by what is stored with it: %v", l.name, f.Index, err)
	}
	want := "unexpected"
	for _, r := range w.rules {
		if r.hash != f.RuleHash {
			continue
		}
		if r.expected[kinds[f.Index]] {
			want = "expected"
		}
	}
	if !a.forces[f.RuleHash] || string(f.Verdict) != want {
		w.wrong("%s: entry %d of kind %d is %s by rule %s, want %s (in force: %v)", l.name, f.Index, kinds[f.Index], f.Verdict, f.RuleHash[:6], want, a.forces[f.RuleHash])
	}
	rules, err := st.Coverage(ctx, l.id, f.RuleHash)
	if err != nil || !slices.ContainsFunc(rules, func(r monitor.Range) bool { return f.Index >= r.From && f.Index < r.To }) {
		w.wrong("%s: entry %d was found by rule %s, which has not covered it: %v", l.name, f.Index, f.RuleHash[:6], err)
	}
	for _, c := range w.channels {
		told := w.people.told(c, monitor.FindingEventID(f))
		if told != (want == "unexpected") {
			w.wrong("%s: entry %d is %s, and %s was told: %v", l.name, f.Index, want, c, told)
		}
	}
}

// coverage audits what is claimed to be covered: it was served, and what is not covered is
// said to be missing. It returns what is covered by some rule.
func (a *auditor) coverage(ctx context.Context, st *store.Store, l *simLog, state monitor.State) map[uint64]bool {
	w := a.w
	covered := map[uint64]bool{}
	for _, r := range w.rules {
		list, err := st.Coverage(ctx, l.id, r.hash)
		if err != nil {
			w.wrong("%s: %v", l.name, err)
			continue
		}
		for _, part := range list {
			if part.To > state.Scanned || part.To > state.HeadSize {
				w.wrong("%s: [%d, %d) is said to be covered, and the head is %d", l.name, part.From, part.To, state.HeadSize)
			}
			for i := part.From; i < min(part.To, state.HeadSize); i++ {
				covered[i] = true
				if !l.seen[i] {
					w.wrong("%s: entry %d is said to be covered, and was never served", l.name, i)
				}
			}
		}
	}
	gaps, err := st.Gaps(ctx, l.id)
	if err != nil {
		w.wrong("%s: %v", l.name, err)
	}
	missing := map[uint64]bool{}
	for _, g := range gaps {
		for i := g.From; i < g.To; i++ {
			missing[i] = true
		}
	}
	if l.lie == "" && len(gaps) > 0 {
		w.wrong("%s: gaps are left although everything is served: %v", l.name, gaps)
	}
	for i := range state.Scanned {
		if !covered[i] && !missing[i] {
			w.wrong("%s: entry %d was passed over, and neither covered nor missing", l.name, i)
		}
	}
	return covered
}

func (a *auditor) summary() string { return a.final + " " + strconv.Itoa(len(a.w.wrongs)) }
