package monitor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// What a person does to a log beside the daemon.

// Errors of Resume and Scan.
var (
	ErrUnknownLog = errors.New("no such log is configured")
	ErrNotHalted  = errors.New("the log is not halted by this incident")
	ErrNotBegun   = errors.New("the log was never polled successfully")
)

func (e *Engine) runner(name string) (*runner, error) {
	for _, r := range e.all() {
		if r.cfg.Name == name {
			return r, nil
		}
	}
	return nil, fmt.Errorf("log %q: %w", name, ErrUnknownLog)
}

// Resumption is a person's decision that a halted log goes on.
type Resumption struct {
	Log, Incident string // by name, by id
	// Rebaseline begins anew at the log's present head, with coverage from there
	// on; the old head stays with the incident.
	Rebaseline bool
	By, Note   string // who decided, and why: for the audit trail
}

// Resume lets a halted log go on from our head, once a person has looked at
// the incident.
func (e *Engine) Resume(ctx context.Context, d Resumption) error {
	r, err := e.runner(d.Log)
	if err != nil {
		return err
	}
	for try := 0; ; try++ {
		err := r.resume(ctx, d)
		// A daemon that polls just now was faster: it is its state then that
		// has to go on.
		if !errors.Is(err, ErrConflict) || try == 5 {
			return err
		}
	}
}

func (r *runner) resume(ctx context.Context, d Resumption) error {
	incident := d.Incident
	var out Outcome
	t, err := r.newTurn(ctx, &out)
	if err != nil {
		return err
	}
	if t.old.Halted == "" || t.old.Halted != incident {
		what := "it is not halted"
		if t.old.Halted != "" {
			what = "it is halted by incident " + t.old.Halted
		}
		return fmt.Errorf("log %s, incident %s: %w: %s", r.cfg.Name, incident, ErrNotHalted, what)
	}
	note := "Resumed from the verified head by an operator."
	t.next.Halted = ""
	if d.Rebaseline {
		raw, err := r.checkpoint(ctx)
		if err != nil {
			return fmt.Errorf("fetching the checkpoint: %w", err)
		}
		c, err := r.way().Log.Open(raw)
		if err != nil {
			return err
		}
		root := c.Root()
		t.batch.Reset = true
		t.batch.Collect = map[string][]Evidence{incident: {{"head-before-rebaseline", []byte(t.old.Head)}, {"head-after-rebaseline", c.Raw()}}}
		t.next.Frozen, t.next.CatchUp, t.next.Stuck, t.next.Streaks = "", nil, nil, nil
		t.next.Backlog, t.next.StuckBehind = nil, nil
		if err := t.rebase(ctx, c, c.Size()); err != nil {
			return err
		}
		t.next.Epoch = fmt.Sprintf("%x", root)
		t.settle(KindEntryMismatch, "The log was given a new baseline.")
		t.settle(KindEntryWithheld, "The log was given a new baseline.")
		note = fmt.Sprintf("Given a new baseline at size %d by an operator; coverage of the former tree ended at %d.", c.Size(), t.old.Scanned)
		if n := t.old.Unread() - (t.old.HeadSize - t.old.Scanned); n > 0 {
			note += fmt.Sprintf(" %d entries before that were still to be read.", n)
		}
	} else if inc := t.find(KindRetiredChanged); inc != nil && inc.ID == incident {
		t.next.Frozen = "" // a person has decided that the log goes on
	}
	act := "resume"
	if d.Rebaseline {
		act = "rebaseline"
	}
	t.batch.Acts = append(t.batch.Acts, Act{By: d.By, Action: act, Subject: incident, Detail: map[string]string{"log": r.cfg.Name, "did": note, "note": d.Note}})
	if d.Note != "" {
		note += " " + d.By + ": " + d.Note
	}
	for _, inc := range t.open {
		if inc.ID == incident {
			t.decide(&inc)
			t.settle(inc.Kind, note)
			break
		}
	}
	return t.commit(ctx)
}

// maxDecided bounds the trees that are remembered as decided about.
const maxDecided = 64

// decide remembers the trees of an incident: whoever shows them again halts nothing.
func (t *turn) decide(inc *Incident) {
	var d struct{ Smaller, Larger *TreeHead }
	if json.Unmarshal(inc.Details, &d) != nil {
		return
	}
	t.next.Decided = slices.Clone(t.next.Decided)
	for _, h := range []*TreeHead{d.Smaller, d.Larger} {
		if h != nil && !slices.Contains(t.next.Decided, *h) {
			t.next.Decided = append(t.next.Decided, *h)
		}
	}
	t.next.Decided = t.next.Decided[max(0, len(t.next.Decided)-maxDecided):]
}

// CoverageStore tells which ranges a watch has covered.
type CoverageStore interface {
	Store
	// Coverage returns the ranges that a watch has covered, by the hash of its
	// rule, in order and without overlap.
	Coverage(ctx context.Context, logID, watchHash string) ([]Range, error)
}

// covered returns the ranges that every watch of today has covered.
func (r *runner) covered(ctx context.Context, store CoverageStore) ([]Range, error) {
	var all []Range
	for i, hash := range r.watchSet {
		ranges, err := store.Coverage(ctx, r.cfg.ID, hash)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			all = ranges
		} else {
			all = intersect(all, ranges)
		}
	}
	return all, nil
}

func intersect(a, b []Range) []Range {
	var out []Range
	for i, j := 0, 0; i < len(a) && j < len(b); {
		from, to := max(a[i].From, b[j].From), min(a[i].To, b[j].To)
		if from < to {
			out = append(out, Range{from, to})
		}
		if a[i].To < b[j].To {
			i++
		} else {
			j++
		}
	}
	return out
}

// without returns the parts of r that are in none of ranges.
func without(r Range, ranges []Range) []Range {
	var out []Range
	for _, c := range ranges {
		if c.To <= r.From || c.From >= r.To {
			continue
		}
		if c.From > r.From {
			out = append(out, Range{r.From, c.From})
		}
		r.From = c.To
	}
	if r.From < r.To {
		out = append(out, r)
	}
	return out
}

// merge returns the union of two lists of ranges.
func merge(a, b []Range) []Range {
	all := append(slices.Clone(a), b...)
	slices.SortFunc(all, func(a, b Range) int { return cmp.Compare(a.From, b.From) })
	var out []Range
	for _, r := range all {
		if n := len(out); n > 0 && r.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, r.To)
			continue
		}
		out = append(out, r)
	}
	return out
}

// Uncovered is a range that a log's entries were read of, but not with every
// watch of today.
type Uncovered struct {
	Log string
	Range
}

// Uncovered returns what the watches of today have not covered of what was
// read: a watch that is added today has not seen yesterday.
func (e *Engine) Uncovered(ctx context.Context, store CoverageStore) ([]Uncovered, error) {
	var out []Uncovered
	for _, r := range e.all() {
		st, err := store.State(ctx, r.cfg.ID)
		if err != nil {
			return nil, err
		}
		if st.Head == "" || r.cfg.ConsistencyOnly || len(r.watchSet) == 0 {
			continue
		}
		have, err := r.covered(ctx, store)
		if err != nil {
			return nil, err
		}
		gaps, err := store.Gaps(ctx, r.cfg.ID)
		if err != nil {
			return nil, err
		}
		// Gaps are tried again by every poll, and the backlog is read by the
		// daemon: no scan can do more.
		for _, gap := range without(Range{st.Start, st.Scanned}, merge(merge(have, rangesOf(gaps)), st.Backlog)) {
			out = append(out, Uncovered{r.cfg.Name, gap})
		}
	}
	return out, nil
}

// ScanOptions configure Scan.
type ScanOptions struct {
	Log      string
	From, To uint64 // To 0: to the verified head
	// Quiet stores findings without telling anybody.
	Quiet bool
	// Progress is called after every bundle with the entries done so far, of
	// all that are to be read.
	Progress func(done, total uint64)
	// Idle gives up after a while without progress; 0: never.
	Idle time.Duration
}

// Scan reads a range of a log's verified tree with the watches of today: what
// they have not covered of it. It runs beside a daemon, and can be interrupted
// and called again: what is covered by then is not read twice.
func (e *Engine) Scan(ctx context.Context, store CoverageStore, opts ScanOptions) (out Outcome) {
	r, err := e.runner(opts.Log)
	if err != nil {
		out.Err = err
		return out
	}
	out.Log = r.cfg.Name
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer r.watchProgress(cancel, opts.Idle)()
	if out.Err = r.scanRange(ctx, store, opts, &out); out.Err != nil && ctx.Err() != nil {
		out.Err = context.Cause(ctx)
	}
	out.Err = errors.Join(out.Err, r.judgeShown(ctx, &out))
	return out
}

func (r *runner) scanRange(ctx context.Context, store CoverageStore, opts ScanOptions, out *Outcome) error {
	st, err := store.State(ctx, r.cfg.ID)
	if err != nil {
		return err
	}
	if st.Head == "" {
		return fmt.Errorf("log %s: %w: `sigwarden run --once` begins it", r.cfg.Name, ErrNotBegun)
	}
	known, err := r.known(ctx, st)
	if err != nil {
		return err
	}
	if opts.To == 0 {
		opts.To = st.HeadSize
	}
	if opts.From >= opts.To || opts.To > st.HeadSize {
		return fmt.Errorf("log %s: range [%d, %d) is empty, or goes beyond the verified size %d", r.cfg.Name, opts.From, opts.To, st.HeadSize)
	}
	var tree *checkpoint.Tree
	if r.way().Proofs == nil {
		if tree, err = known.Tree(r.served(ctx)); err != nil {
			return err
		}
	}
	have, err := r.covered(ctx, store)
	if err != nil {
		return err
	}
	gaps, err := store.Gaps(ctx, r.cfg.ID)
	if err != nil {
		return err
	}
	todo := without(Range{opts.From, opts.To}, have)
	var total, done uint64
	for _, part := range todo {
		total += part.To - part.From
	}
	report := func() {
		if opts.Progress != nil {
			opts.Progress(done, total)
		}
	}
	report()
	s := r.newSpan(tree, st.Epoch)
	for _, part := range todo {
		rec := &recorder{runner: r, head: known.Head, epoch: st.Epoch, out: out, quiet: opts.Quiet, at: part.From, from: part.From, gaps: gaps, began: r.opts.Now()}
		take := func(res result) error {
			done += res.job.to - res.job.from
			report()
			return rec.take(ctx, res)
		}
		var runErr error
		if r.way().Proofs != nil {
			runErr = r.readProven(ctx, known.Head, st, part, 1, 0, time.Time{}, take)
			if errors.Is(runErr, errNotShown) && ctx.Err() == nil {
				// Nobody waits three polls for the rest of a scan: what is not shown is a gap.
				part.From = rec.at
				runErr = r.readProven(ctx, known.Head, st, part, 1, strikes, time.Time{}, take)
			}
		} else {
			_, runErr = s.run(ctx, part.From, part.To, take)
		}
		last, cancel := grace(ctx, lastWrite)
		flushErr := rec.flush(last)
		cancel()
		if err := errors.Join(runErr, flushErr); err != nil {
			return err
		}
	}
	out.Head, out.Scanned = st.HeadSize, opts.To
	return nil
}

// recorder records what a scan beside the daemon found, without touching the
// state of the log; with history, what was read of its backlog.
type recorder struct {
	*runner
	head     checkpoint.Checkpoint
	epoch    string
	out      *Outcome
	quiet    bool
	history  bool
	tree     *checkpoint.Tree // of history in a log with tiles
	from, at uint64
	gaps     []Gap
	results  []result
	bytes    int  // of findings
	failed   bool // a commit failed: what it held is read again
	began    time.Time
}

func (c *recorder) take(ctx context.Context, res result) error {
	c.results = append(c.results, res)
	c.at = res.job.to
	for _, f := range res.findings {
		c.bytes += len(f.Leaf) + findingOverhead
	}
	if c.bytes < maxFindingBytes && c.at-c.from < uint64(c.opts.CommitEvery) && c.opts.Now().Sub(c.began) < commitAfter {
		return nil
	}
	return c.flush(ctx)
}

// compareGaps holds what could not be read against the gaps that are known. One
// that was read in full is filled; the others stay as they are, with the polls
// that they have seen, and only what lies outside of them is new.
func (c *recorder) compareGaps(res result) (filled, fresh []Gap) {
	missing := rangesOf(res.gaps)
	var kept []Range
	for _, g := range c.gaps {
		read := len(without(g.Range, []Range{{res.job.from, res.job.to}})) == 0
		if read && !slices.ContainsFunc(missing, func(m Range) bool { return m.From < g.To && g.From < m.To }) {
			filled = append(filled, g)
		} else {
			kept = append(kept, g.Range)
		}
	}
	for _, g := range res.gaps {
		for _, part := range without(g.Range, kept) {
			g.Range = part
			fresh = append(fresh, g)
		}
	}
	return filled, fresh
}

func (c *recorder) flush(ctx context.Context) error {
	c.began = c.opts.Now()
	if len(c.results) == 0 || c.failed {
		return nil
	}
	c.failed = true // until it has succeeded
	t, err := c.newTurn(ctx, c.out)
	if err != nil {
		return err
	}
	if t.old.Epoch != c.epoch {
		return fmt.Errorf("log %s was given a new baseline meanwhile: what was read is of its former tree", c.cfg.Name)
	}
	// A daemon may have booked others since the reading began.
	if c.gaps, err = c.opts.Store.Gaps(ctx, c.cfg.ID); err != nil {
		return err
	}
	for _, res := range c.results {
		filled, gaps := c.compareGaps(res)
		c.out.Missing = c.out.Missing || len(res.gaps) > 0
		t.batch.FilledGaps = append(t.batch.FilledGaps, filled...)
		res.gaps = gaps
		t.book(res, c.head)
	}
	if c.quiet {
		for i := range t.batch.Findings {
			t.batch.Findings[i].Channels, t.batch.Findings[i].draft.Quiet = nil, true
		}
	}
	missing := rangesOf(t.batch.SetGaps)
	for _, g := range c.gaps {
		if !slices.ContainsFunc(t.batch.FilledGaps, func(f Gap) bool { return f.From == g.From }) {
			missing = append(missing, g.Range)
		}
	}
	slices.SortFunc(missing, func(a, b Range) int { return cmp.Compare(a.From, b.From) })
	t.batch.Coverage, t.batch.WatchSet, t.batch.Trust = without(Range{c.from, c.at}, missing), c.watchSet, t.trust.Load().hash
	var next *State
	if c.history {
		next = &t.next
		var left []Range
		for _, part := range t.old.Backlog {
			left = append(left, without(part, []Range{{c.from, c.at}})...)
		}
		next.Backlog = left
		if c.tree != nil {
			t.batch.Tiles = fullTiles(c.tree, Range{c.from, c.at})
		}
		for _, res := range c.results {
			t.tally(res.tally)
		}
	}
	recorded, err := c.opts.Store.Commit(ctx, c.cfg.ID, t.old, next, t.batch)
	if err != nil {
		return fmt.Errorf("storing what was found: %w", err)
	}
	c.progress.Add(1)
	c.count(t.batch, recorded, c.out)
	t.say()
	if c.opts.Wake != nil && t.batch.delivers() {
		c.opts.Wake()
	}
	c.from, c.results, c.bytes, c.failed = c.at, nil, 0, false
	return nil
}
